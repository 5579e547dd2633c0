"""The application's side of a mail: an OSGi-style configuration in, a sent message out.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService` and Apache Felix's interpolation.
Promises: needs the standard library and `idna` only; imports nothing of Outgate but `smtp`, `message`, `base`.
Dangers: none of its own.
Not here: the other end of the connection (`relay`), OAuth logins.

    with MailService.load("osgiconfig", run_modes=["author", "dev"]) as mail:
        print(mail.send(message).queue_id)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outgate.mailer.client import MailService
from outgate.mailer.config import Forward, Forwards, MailConfig
from outgate.mailer.errors import MessageError, SendFailed
from outgate.mailer.osgi import OsgiError
from outgate.mailer.result import SendRefused, SendResult
from outgate.mailer.service import Limits
from outgate.mailer.values import ConfigError

if TYPE_CHECKING:
    from outgate.mailer.async_client import AsyncMailService
    from outgate.mailer.substitution import TemplateError
    from outgate.mailer.template import Template
    from outgate.smtp.connecting import ClientTimeouts

__all__ = [
    "AsyncMailService",
    "ClientTimeouts",
    "ConfigError",
    "Forward",
    "Forwards",
    "Limits",
    "MailConfig",
    "MailService",
    "MessageError",
    "OsgiError",
    "SendFailed",
    "SendRefused",
    "SendResult",
    "Template",
    "TemplateError",
]

# What brings asyncio, sockets and TLS, or the `email` package comes when it is asked for.
_LATE = {
    "AsyncMailService": "outgate.mailer.async_client",
    "ClientTimeouts": "outgate.smtp.connecting",
    "Template": "outgate.mailer.template",
    "TemplateError": "outgate.mailer.substitution",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
