"""The application's side of a mail: an OSGi-style configuration in, a sent message out.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService` and Apache Felix's interpolation.
Promises: needs the standard library and `idna` only; imports nothing of Outgate but `smtp`, `message`, `base`; cheap to
import: what reads, encrypts and writes comes with the first service.
Dangers: none of its own.
Not here: the other end of the connection (`relay`).

    with MailService.load("osgiconfig", run_modes=["author", "dev"]) as mail:
        print(mail.send(message).queue_id)

`MailService.load(…).send(message)` and, for tasks, `await AsyncMailService.load(…).send(message)` are all of it: a
`SendResult`, or `ConfigError` (the configuration: file, line, column), `MessageError` (the message), `SendFailed` (the
connection: `stage`, `may_have_arrived`). `result.raise_for_refusal()` makes a `SendRefused` of a server's no. `Limits`
and `ClientTimeouts` are for `load`. Beside them stand `outgate.mailer.osgi.read` and
`outgate.mailer.interpolate.interpolate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outgate.mailer.client import MailService
from outgate.mailer.sending.errors import MessageError, SendFailed

if TYPE_CHECKING:
    from outgate.mailer.async_client import AsyncMailService
    from outgate.mailer.config import Forward, Forwards, MailConfig
    from outgate.mailer.osgi import OsgiError
    from outgate.mailer.sending.limits import Limits
    from outgate.mailer.sending.result import SendRefused, SendResult
    from outgate.mailer.template import Template
    from outgate.mailer.template.substitution import TemplateError
    from outgate.mailer.values import ConfigError
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

# What each of these brings along (asyncio, sockets, the reader of configurations) comes when it is asked for.
_LATE = {
    "AsyncMailService": "outgate.mailer.async_client",
    "ClientTimeouts": "outgate.smtp.connecting",
    "ConfigError": "outgate.mailer.values",
    "Forward": "outgate.mailer.config",
    "Forwards": "outgate.mailer.config",
    "Limits": "outgate.mailer.sending.limits",
    "MailConfig": "outgate.mailer.config",
    "OsgiError": "outgate.mailer.osgi",
    "SendRefused": "outgate.mailer.sending.result",
    "SendResult": "outgate.mailer.sending.result",
    "Template": "outgate.mailer.template",
    "TemplateError": "outgate.mailer.template.substitution",
}


def __getattr__(name: str) -> Any:
    """Import a name that comes late, and keep it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
