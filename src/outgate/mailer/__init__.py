"""The application's side of a mail: an OSGi-style configuration in, a sent message out.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService` and Apache Felix's interpolation.
Promises: needs the standard library and `idna` only; imports nothing of Outgate but `smtp`, `message`, `base`.
Dangers: none of its own.
Not here: the other end of the connection (`relay`), OAuth logins.

    with MailService.load("osgiconfig", run_modes=["author", "dev"]) as mail:
        print(mail.send(message).queue_id)
"""

from outgate.mailer.client import MailService, SendFailed, SendResult
from outgate.mailer.config import Forward, Forwards, MailConfig
from outgate.mailer.osgi import OsgiError
from outgate.mailer.template import Template, TemplateError
from outgate.mailer.values import ConfigError
from outgate.mailer.wire import MessageError

__all__ = [
    "ConfigError",
    "Forward",
    "Forwards",
    "MailConfig",
    "MailService",
    "MessageError",
    "OsgiError",
    "SendFailed",
    "SendResult",
    "Template",
    "TemplateError",
]
