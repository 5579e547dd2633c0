"""A Django e-mail backend: `EMAIL_BACKEND = "outgate.mailer.django.EmailBackend"`.

Standards: Django's own SMTP backend, whose counts, silences and exceptions these are.
Promises: recipients of the envelope are exactly `recipients()`; a message goes as Django writes it; connections are
kept across messages, threads and backends of a process (all with the same settings share one `MailService`), never
across a fork; Django's placeholders for an unset From (`webmaster@localhost`) become from.address; what is raised
brings no frames along that hold the environment or a secret, for Django's page of an error shows their variables.
Dangers: a wrong configuration is told when a backend is made, and is no silence for `fail_silently=False` only.
Not here: sending (`mailer.client`), Django.

    OUTGATE_MAILER = {"path": BASE_DIR / "osgiconfig", "run_modes": ["author", "prod"]}
"""

from __future__ import annotations

import atexit
import copy
import dataclasses
import logging
import os
import smtplib
import threading
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.generator import BytesGenerator
from email.headerregistry import Address
from email.message import EmailMessage as ModernMessage
from email.message import Message
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from django.conf import global_settings, settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend

from outgate.base.masking import masked
from outgate.mailer.client import MailService
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.limits import Limits
from outgate.mailer.sending.result import SendRefused, SendResult
from outgate.mailer.sending.writing import address_field, faulty
from outgate.mailer.values import ConfigError
from outgate.smtp.connecting import ClientTimeouts

if TYPE_CHECKING:
    from django.core.mail import EmailMessage

__all__ = ["EmailBackend", "LoginRefused", "MessageRefused", "ServerNotReached", "close_connections"]

SETTING = "OUTGATE_MAILER"
_OPTIONS = (
    "path",
    "run_modes",
    "env",
    "secrets",
    "forwards",
    "tls_names",
    "cafile",
    "classic",
    "timeouts",
    "limits",
    "tokens",
    "debug",
)
_EXAMPLE = f'{SETTING} = {{"path": BASE_DIR / "osgiconfig", "run_modes": ["author", "dev"]}}'
_LONGEST_ADDRESS = 1000  # signs, with the name in it
_UNSET_FROM = (global_settings.DEFAULT_FROM_EMAIL, global_settings.SERVER_EMAIL)
_log = logging.getLogger("outgate.mailer.django")
_telling = threading.local()


class ServerNotReached(smtplib.SMTPServerDisconnected):
    """The server could not be reached, or the connection broke. `may_have_arrived`: sending again may double it."""

    def __init__(self, error: SendFailed) -> None:
        super().__init__(str(error))
        self.stage = error.stage
        self.may_have_arrived = error.may_have_arrived


class LoginRefused(smtplib.SMTPAuthenticationError):
    """The server refused the login. `result` is what `MailService.send` returns."""

    def __init__(self, error: SendRefused) -> None:
        super().__init__(error.result.reply.code, error.result.reply.text.encode())
        self.result = error.result
        self._text = str(error)

    def __str__(self) -> str:
        return self._text


class MessageRefused(  # pyright: ignore[reportIncompatibleVariableOverride]
    smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException
):
    """The server took the message for nobody: `recipients` maps each address to (code, text), `smtp_code` and
    `smtp_error` are the reply that decided. `result` is what `MailService.send` returns."""

    def __init__(self, error: SendRefused) -> None:
        result = error.result
        replies = {address: (reply.code, reply.text.encode()) for address, reply in result.recipients.items()}
        smtplib.SMTPRecipientsRefused.__init__(self, replies)
        self.smtp_code = result.reply.code
        self.smtp_error = result.reply.text.encode()
        self.result = result
        self._text = str(error)

    def __str__(self) -> str:
        return self._text


class EmailBackend(BaseEmailBackend):
    """Sends Django's mail as the application's configuration says."""

    def __init__(self, fail_silently: bool = False, *, alias: str | None = None, **options: Any) -> None:
        """`options` stand in the place of those in OUTGATE_MAILER, and are what `MailService.load` takes; `timeouts`
        and `limits` may be dictionaries. `alias` is the name in Django's MAILERS (from 6.1 on). Raises
        `ImproperlyConfigured`, unless `fail_silently`."""
        named: dict[str, Any] = {} if alias is None else {"alias": alias}
        super().__init__(**named)
        self.fail_silently = fail_silently  # Django's own class forgets it in 2028
        options.pop("_ignore_unknown_kwargs", None)
        self._service: MailService | None = None
        self._opened = False
        try:
            self._service = _service(_options(options))
        except ConfigError as error:
            self._unusable(error)

    def open(self) -> bool | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Have a service; return whether that is new to this backend, None if there is none. The server is dialled for
        the first message."""
        if self._service is None:
            return None
        new, self._opened = not self._opened, True
        return new

    def close(self) -> None:
        """Be done with this backend. Connections stay: other backends use them; `close_connections` closes them."""
        self._opened = False

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send messages; return how many the server took, for one recipient at least. What it said to a message is
        its `outgate_result` then, a `SendResult`.

        Raises `MessageRefused`, `LoginRefused` and `ServerNotReached` (all are `smtplib.SMTPException`) unless
        `fail_silently`; `ValueError` for a message that cannot be sent as it is."""
        service = self._service
        if service is None:
            return 0
        sent = 0
        for message in email_messages or ():
            if not message.recipients():
                continue
            try:
                sent += self._send(service, message)
            except ConfigError as error:
                self._unusable(error)
                break
            except ServerNotReached as error:
                if not self.fail_silently:
                    raise
                _tell("a mail was not sent", error)
                break  # the others would wait as long, for nothing
            except smtplib.SMTPException as error:
                if not self.fail_silently:
                    raise
                _tell("a mail was not sent", error)
        return sent

    def _send(self, service: MailService, given: EmailMessage) -> int:
        email_message = _with_sender(given, service.config.from_address)
        try:
            sender = _addr_spec("from_email", str(email_message.from_email))
            recipients = [_addr_spec("recipients", str(each)) for each in email_message.recipients()]
            result = _sent(service, email_message, sender, recipients)
        except MessageError as error:
            raise ValueError(str(error)) from None
        except SendFailed as error:
            raise ServerNotReached(error) from None
        cast("Any", given).outgate_result = result
        try:
            result.raise_for_refusal()
        except SendRefused as error:
            if result.stage == "auth":
                raise LoginRefused(error) from None
            if not any(reply.ok for reply in result.recipients.values()):
                raise MessageRefused(error) from None
            _tell("a mail was not taken for everybody", error)
        return 1

    def _unusable(self, error: ConfigError) -> None:
        if not self.fail_silently:
            raise ImproperlyConfigured(str(error)) from None
        _tell("no mail can be sent", error)


def _tell(what: str, error: Exception) -> None:
    """Log what nobody is told otherwise; not what happens while that is mailed, as Django's AdminEmailHandler does."""
    if getattr(_telling, "now", False):
        return
    _telling.now = True
    try:
        _log.warning("%s: %s", what, masked(str(error)))
    finally:
        _telling.now = False


# -- what is sent -------------------------------------------------------------------------------------------


def _sent(service: MailService, email_message: EmailMessage, sender: str, recipients: list[str]) -> SendResult:
    message = cast("Message", email_message.message())
    if isinstance(message, ModernMessage):  # Django 6
        return service.send(message, sender=sender, recipients=recipients)
    message = copy.copy(message)
    for name in ("Bcc", "Resent-Bcc", "Return-Path"):
        del message[name]
    head = _utf8_fields(message, email_message)
    data = head + _octets(message, "8bit")
    try:
        return service.send(data, sender=sender, recipients=recipients)
    except MessageError:
        if head or data.isascii():
            raise
    # It may be a server without 8BITMIME. What Django wrote is read anew: only so is its body known to be octets.
    return service.send(_octets(message_from_bytes(data), "7bit"), sender=sender, recipients=recipients)


def _octets(message: Message, encoding: str) -> bytes:
    """Write a message as Django does, with CR LF."""
    out = BytesIO()
    rules = message.policy.clone(cte_type=encoding)
    BytesGenerator(out, mangle_from_=False, policy=rules).flatten(message, linesep="\r\n")
    return out.getvalue()


def _utf8_fields(message: Message, email_message: EmailMessage) -> bytes:
    """Take out the fields with local parts beyond ASCII, which Django encodes so that they are no addresses any more,
    and return them as SMTPUTF8 has them."""
    given = email_message.extra_headers
    fields: dict[str, list[Any]] = {
        "From": [given.get("From", email_message.from_email)],
        "To": [given["To"]] if "To" in given else email_message.to,
        "Cc": [given["Cc"]] if "Cc" in given else email_message.cc,
        "Reply-To": [given["Reply-To"]] if "Reply-To" in given else email_message.reply_to,
    }
    written: list[str] = []
    for name, values in fields.items():
        addresses = [each for value in values for each in address_field(name, str(value)).addresses]
        if name in message and not all(each.username.isascii() for each in addresses):
            del message[name]
            written.append(f"{name}: {', '.join(map(_utf8, addresses))}\r\n")
    return "".join(written).encode("utf-8")


def _utf8(address: Address) -> str:
    name = "".join(sign for sign in address.display_name if sign.isprintable())
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{quoted} <{address.addr_spec}>" if name else address.addr_spec


def _with_sender(email_message: EmailMessage, from_address: str) -> EmailMessage:
    if not from_address or email_message.from_email not in _UNSET_FROM:
        return email_message
    changed = copy.copy(email_message)
    changed.from_email = from_address
    return changed


def _addr_spec(name: str, text: str) -> str:
    if len(text) > _LONGEST_ADDRESS:  # reading takes the square of the time
        raise MessageError(f"in {name} is an address longer than {_LONGEST_ADDRESS} signs")
    header = address_field("To", text)
    if faulty(header) or len(header.addresses) != 1 or len(header.groups) != 1 or not header.addresses[0].domain:
        raise MessageError(f"in {name} is something that is not one address")
    return header.addresses[0].addr_spec


# -- services of this process -------------------------------------------------------------------------------

_lock = threading.Lock()
_services: list[tuple[dict[str, Any], MailService]] = []
_MOST = 16


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `MailService.load` is given. Raises `ConfigError`."""
    known = getattr(settings, SETTING, {})
    if not isinstance(known, Mapping):
        raise ConfigError(f"{SETTING} must be a dictionary: {_EXAMPLE}")
    used = {**cast("Mapping[str, Any]", known), **{name: value for name, value in given.items() if value is not None}}
    for name in ("username", "password"):  # as in `auth_user=settings.EMAIL_HOST_USER`, which is empty if unset
        if used.get(name) == "":
            del used[name]
    for name in used:
        if name in ("username", "password"):
            raise ConfigError(
                f"{name} (auth_user, auth_password) is not taken: user and password are smtp.user and smtp.password"
                " of the configuration"
            )
        if name not in _OPTIONS:
            raise ConfigError(f"{SETTING} knows no {name}: expected {', '.join(_OPTIONS)}")
    if not used.get("path"):
        raise ConfigError(f"{SETTING} needs the path of the configuration: {_EXAMPLE}")
    seconds = getattr(settings, "EMAIL_TIMEOUT", None)
    if "timeouts" not in used and seconds is not None:
        names = ("connect", "handshake", "reply", "final", "content")
        try:
            used["timeouts"] = ClientTimeouts(**dict.fromkeys(names, float(seconds)))
        except (TypeError, ValueError):
            raise ConfigError("expected seconds above 0, or None", name="EMAIL_TIMEOUT") from None
    return used


def _service(options: dict[str, Any]) -> MailService:
    """Return this process's service for `options`. Raises `ConfigError`."""
    with _lock:
        for known, service in _services:
            if known == options:
                return service
        service = _load(options)
        _services.append((options, service))
        gone = _services.pop(0)[1] if len(_services) > _MOST else None
    if gone is not None:
        gone.close()
    return service


def _load(options: dict[str, Any]) -> MailService:
    given = dict(options)
    path = given.pop("path")
    modes = given.pop("run_modes", None)
    for name, kind in (("timeouts", ClientTimeouts), ("limits", Limits)):
        if given.get(name) is not None:
            given[name] = _made(name, kind, given[name])
    try:
        return MailService.load(path, modes, **given)
    except (TypeError, AttributeError) as error:  # a number where a path should be, and such
        raise ConfigError(f"an option has a value of the wrong type: {error}", name=SETTING) from None


def _made(name: str, kind: type[ClientTimeouts | Limits], value: object) -> object:
    if isinstance(value, kind):
        return value
    names = [each.name for each in dataclasses.fields(kind)]
    numbers: dict[str, Any] = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {"": value}
    if not set(names).issuperset(numbers) or not all(isinstance(each, (int, float)) for each in numbers.values()):
        raise ConfigError(f"expected a dictionary of numbers: {', '.join(names)}", name=f"{SETTING}: {name}")
    try:
        return kind(**numbers)
    except ValueError as error:
        raise ConfigError(str(error), name=SETTING) from None


def close_connections() -> None:
    """Say goodbye on all connections of this process; the next message opens one anew. Done when the process ends."""
    with _lock:
        services = [service for _, service in _services]
        _services.clear()
    for service in services:
        service.close()


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it when the process was forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
atexit.register(close_connections)
