"""Send a mail the way the application's configuration says: resolve, dial (through the tunnel), log in, send.

Standards: RFC 6409 (submission), RFC 8314 (TLS), RFC 9525 (which name a certificate must have).
Promises: a refusal is a result, told per recipient; passwords go through TLS only; errors name the real
server behind the tunnel; no error, result or `repr` shows a secret.
Dangers: through a tunnel the certificate names the destination, not the host dialled: the forward's name is
what is checked. "chain-only" checks no name at all; any server with a certificate from the CA would do then.
Not here: the files (`mailer.config`), the bytes (`mailer.wire`), the conversation (`smtp.sync.client`).
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Literal

from outgate.base.log import Log
from outgate.mailer import config as configuration
from outgate.mailer import wire
from outgate.mailer.config import Forward, Forwards, MailConfig
from outgate.mailer.interpolate import Source
from outgate.mailer.target import target_of
from outgate.mailer.values import ConfigError
from outgate.mailer.wire import MessageError
from outgate.smtp.client import Transaction, TransactionResult
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.reply import Reply
from outgate.smtp.sync.client import Connection, connect

_log = Log("outgate.mailer")
_QUEUED = re.compile(r"\bqueued as ([0-9A-Za-z.\-_]{1,64})")

NameCheck = Literal["forward", "chain-only"]


class SendFailed(Exception):
    """The server could not be reached, or the connection broke. `may_have_arrived`: the whole message was
    sent, but the answer was lost."""

    def __init__(self, text: str, *, may_have_arrived: bool = False) -> None:
        super().__init__(text)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True, slots=True)
class SendResult:
    """What the server said. `reply` settles the message, `recipients` each address; `queue_id` is "" if the
    server took nothing or told none."""

    reply: Reply
    queue_id: str
    recipients: Mapping[str, Reply]

    @property
    def accepted(self) -> bool:
        """Say whether the server took the message for every recipient."""
        return all(reply.ok for reply in self.recipients.values())


class MailService:
    """The application's way to send. Made by `load`; keeps its connection; may be shared by threads."""

    def __init__(
        self,
        config: MailConfig,
        *,
        forwards: Forwards,
        tunnel_names: Iterable[str],
        tls_names: NameCheck = "forward",
        cafile: str | Path | None = None,
        timeouts: ClientTimeouts | None = None,
    ) -> None:
        """`tunnel_names` are the hosts that stand for the tunnel; `cafile` None trusts the system's CAs.

        Raises `ConfigError` if `cafile` holds no certificates."""
        self.config = config
        self._target = target_of(config, forwards, tunnel_names)
        self._tls_names = tls_names
        self._context = _context(cafile)
        self._chain_only = _context(cafile)
        self._chain_only.check_hostname = False
        self._timeouts = timeouts or ClientTimeouts(connect=60.0, reply=60.0)
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        run_modes: Iterable[str] = (),
        *,
        env: Source | None = None,
        secrets: Source | str | Path | None = None,
        forwards: object = None,
        tls_names: NameCheck = "forward",
        cafile: str | Path | None = None,
        classic: bool = False,
        timeouts: ClientTimeouts | None = None,
    ) -> MailService:
        """Read the configuration in a file, or in a folder with `config[.modes]` folders. Raises `ConfigError`.

        `env` is the process's environment if None; `secrets` the directories in its OUTGATE_SECRETS;
        `forwards` the file in its OUTGATE_FORWARDS; `cafile` the certificates in its SSL_CERT_FILE, else the
        system's. `classic` does not force STARTTLS when `smtp.ssl` is off."""
        source = os.environ if env is None else env
        config = configuration.load(
            path,
            run_modes,
            env=source,
            secrets=configuration.secrets_from(secrets, source),
            classic=classic,
        )
        known = configuration.forwards_from(forwards, source)
        return cls(
            config,
            forwards=known,
            tunnel_names=(source.get("AEM_PROXY_HOST") or "",),
            tls_names=tls_names,
            cafile=cafile or source.get("SSL_CERT_FILE"),
            timeouts=timeouts,
        )

    # -- sending --------------------------------------------------------------------------------------------

    def send(self, message: EmailMessage) -> SendResult:
        """Send `message` to its To, Cc and Bcc; Bcc is removed. A missing From is the configuration's.

        Raises `MessageError`, `ConfigError` (no forward is known for the port) or `SendFailed`."""
        ready = wire.prepare(message, self.config.from_address)
        envelope = wire.envelope(ready)
        with self._lock:
            try:
                result, connection = self._transact(ready, envelope)
            except _Refused as refused:
                return SendResult(refused.reply, "", dict.fromkeys(envelope.recipients, refused.reply))
        if self.config.debug:
            steps = (*connection.greeting_steps, *result.steps)
            _log.info("mail.conversation", server=self.server, steps=[tuple(step) for step in steps])
        return self._settle(result)

    def _transact(self, ready: EmailMessage, envelope: wire.Envelope) -> tuple[TransactionResult, Connection]:
        reused = self._connection is not None and self._connection.usable()
        connection = self._connection if reused and self._connection is not None else self._open()
        result = self._once(connection, ready, envelope)
        if reused and result.error and result.mail is None:  # it had died unnoticed: that says nothing
            connection = self._open()
            result = self._once(connection, ready, envelope)
        if connection.closed:
            self._drop()
        return result, connection

    def _once(self, connection: Connection, ready: EmailMessage, envelope: wire.Envelope) -> TransactionResult:
        eight_bit = "8BITMIME" in connection.extensions
        data = wire.serialise(ready, utf8=envelope.utf8, eight_bit=eight_bit)
        try:
            return connection.send(
                Transaction(
                    envelope.sender,
                    envelope.recipients,
                    (data,),
                    body_8bit=eight_bit and not data.isascii(),
                    smtputf8=envelope.utf8,
                    size=len(data),
                )
            )
        except LocalProtocolError as error:
            raise MessageError(str(error)) from None

    def _settle(self, result: TransactionResult) -> SendResult:
        replies: dict[str, Reply] = {}
        for index, recipient in enumerate(result.transaction.recipients):
            reply = result.reply_for(index)
            if reply is None:
                lost = result.sent_all
                text = f"{self.server}: {result.error or 'the server gave no answer'}"
                if lost:
                    text += "; the whole message was sent, so it may have arrived"
                raise SendFailed(text, may_have_arrived=lost)
            replies[recipient] = reply
        refusal = next((reply for reply in replies.values() if not reply.ok), None)
        deciding = result.final or refusal
        assert deciding is not None
        found = _QUEUED.search(deciding.text) if deciding.ok else None
        return SendResult(deciding, found[1] if found else "", replies)

    # -- connecting -----------------------------------------------------------------------------------------

    @property
    def forward(self) -> Forward | None:
        """Return the port forward that the configured port is, None if the host is no tunnel or it is unknown."""
        return self._target.forward

    @property
    def through_tunnel(self) -> bool:
        """Say whether the configured host stands for the tunnel."""
        return self._target.through_tunnel

    @property
    def server(self) -> str:
        """Return the server as errors name it: "smtp.mymail.com:465 via 127.0.0.1:30465"."""
        return self._target.label

    def _open(self) -> Connection:
        """Connect and log in. Raises `SendFailed`, `ConfigError`, or `_Refused` with the server's reply."""
        self._drop()
        config = self.config
        unknown = self.through_tunnel and self.forward is None and config.tls != "none"
        if unknown and self._tls_names == "forward":
            raise ConfigError(self._unknown_forward())
        context = self._context if self._tls_names == "forward" else self._chain_only
        try:
            connection = self._dial(context)
        except ConnectFailed as error:
            if error.reply is not None:
                raise _Refused(error.reply) from None
            raise SendFailed(f"{self.server}: {_stage(error)}{error}") from None
        try:
            if config.user:
                answer = connection.login(config.user, config.password)
                if not answer.ok:
                    connection.quit()
                    raise _Refused(answer)
        except ConnectFailed as error:
            connection.close()
            raise SendFailed(f"{self.server}: {_stage(error)}{error}") from None
        self._connection = connection
        return connection

    def _dial(self, context: ssl.SSLContext) -> Connection:
        return connect(
            self._target.host,
            self._target.port,
            ehlo_name=_own_name(),
            tls=self.config.tls,
            context=context,
            server_name=self._target.server_name,
            timeouts=self._timeouts,
        )

    def _unknown_forward(self) -> str:
        """Say that the port's forward is not known and, from a look at the certificate, what it might be."""
        text = (
            f"no port forward is known for port {self._target.port} of the tunnel {self._target.host},"
            " so the server's name cannot be checked: give the environment's forwards"
            " (OUTGATE_FORWARDS, or load(forwards=…))"
        )
        try:
            with self._dial(self._chain_only) as connection:
                names = connection.certificate_names
        except ConnectFailed as error:
            return f"{text}. A look at the server behind it failed: {error}"
        if not names:
            return f"{text}. The server behind it showed no certificate"
        return f"{text}. The certificate behind it is for: {', '.join(names)}"

    # -- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye to the server, if a connection is open."""
        with self._lock:
            if self._connection is not None:
                self._connection.quit()
                self._connection = None

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> MailService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Refused(Exception):
    """The server answered, and the answer is no."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def _stage(error: ConnectFailed) -> str:
    return {"tls": "TLS: ", "auth": "login: "}.get(error.stage, "")


def _context(cafile: str | Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile or None)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"{cafile} is not a file of CA certificates (PEM)") from None


def _own_name() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.\-]{1,255}", name) else "localhost"
