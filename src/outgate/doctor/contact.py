"""Dial a server the way the application does, and look closer where that fails: how TLS begins, and which certificate.

Standards: RFC 5321 (greeting), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS), RFC 5280 (reasons of a chain).
Promises: every wait has an end; what comes back is data, and whatever a server does raises nothing here; no password
    passes through here. A certificate is shown as far as TLS itself proves that the server has its key.
Dangers: `look_at_certificate` trusts what it is shown, to read it; nothing is sent over such a connection.
Not here: what it means (`doctor.tls`, `doctor.network`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, cast

from outgate.base.clock import SystemClock
from outgate.mailer.values import ConfigError
from outgate.smtp.answers import ClientLimits, ReplyReader, extensions_of
from outgate.smtp.client import ClientMachine
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed, TlsMode, why
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.reply import Reply
from outgate.smtp.sync.client import Connection, secure

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module passes on and has no name for."""
_ENDED = ("the peer closed the connection", "the connection was lost")
_PIECE = 4096
_MOST = 65_536


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for one answer of a server, a connection or a handshake; less for what should come at once."""

    answer: float = 10.0

    @property
    def soon(self) -> float:
        """Return after how long a silence is looked into."""
        return self.answer / 3

    @property
    def timeouts(self) -> ClientTimeouts:
        """Return them as the client takes them."""
        each = self.answer
        return ClientTimeouts(connect=each, handshake=each, reply=each, final=each, content=each, quit=min(each, 2.0))


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed: the file's, or the system's if it is ""."""

    file: str = ""

    def context(self, *, check_name: bool) -> ssl.SSLContext:
        """Return what checks the chain, and the name if that is known. Raises `ConfigError`."""
        try:
            context = ssl.create_default_context(cafile=self.file or None)
        except (OSError, ssl.SSLError):
            raise ConfigError(f"{self.file} is not a file of CA certificates (PEM)") from None
        context.check_hostname = check_name
        return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server's certificate says; times are epoch seconds."""

    names: tuple[str, ...]
    subject: str
    issuer: str
    not_before: float
    not_after: float

    @property
    def self_signed(self) -> bool:
        """Say whether it names itself as its issuer."""
        return self.subject == self.issuer


@dataclass(slots=True)
class Contact:
    """What came of one connection. `stage` is how far it got: "resolve", "connect", "greeting", "tls", "hello", or
    "ready" with a `connection`.

    `error` is "" if it is ready; `verify_code` is OpenSSL's reason for a certificate that was refused, `reason` its
    word for another failure; `closed`: the other side ended it; `silent`: it said nothing in time; `tls` is what
    TLS came to, `early_tls` what the server begins with the first octet though it should have greeted."""

    host: str
    port: int
    stage: str
    error: str = ""
    verify_code: int = 0
    reason: str = ""
    closed: bool = False
    silent: bool = False
    refused: bool = False
    address: str = ""
    local: str = ""
    reply: Reply | None = None
    greeting: str = ""
    tls: str = ""
    early_tls: str = ""
    connection: Connection | None = field(default=None, repr=False)

    def close(self) -> None:
        """Say goodbye, if there is a connection."""
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.quit()


@dataclass(frozen=True, slots=True)
class Glance:
    """What a server says by itself in clear text. `reply` None: `raw` is what came instead, b"" nothing."""

    reply: Reply | None = None
    raw: bytes = b""
    closed: bool = False
    extensions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def greets(self) -> bool:
        """Say whether it is a mail server that speaks first, in the clear."""
        return self.reply is not None


def dial(host: str, port: int, tls: TlsMode, server_name: str | None, trust: Trust, patience: Patience) -> Contact:
    """Connect as the mailer does, up to the answer to EHLO. `server_name` None: who is there is not known, so the name
    in the certificate is not checked."""
    contact = Contact(host, port, "resolve")
    sock = _reach(contact, patience)
    if sock is None:
        return contact
    try:
        context = trust.context(check_name=server_name is not None)
    except ConfigError as error:
        sock.close()
        contact.stage, contact.error = "tls", str(error)
        return contact
    if tls != "implicit" and not _hears(sock, patience.soon):
        # It may be waiting for TLS: that is found out now, and not after all patience.
        contact.early_tls = begins_tls(host, port, patience)
        if contact.early_tls:
            sock.close()
            contact.error, contact.silent = "the server does not greet", True
            return contact
    machine = ClientMachine(ehlo_name=own_name(), tls=tls == "implicit")
    connection = _Noticing(sock, machine, f"{host}:{port}", patience.timeouts, SystemClock())
    try:
        connection.open(tls, context, server_name or host)
    except ConnectFailed as error:
        connection.close()
        contact.stage, contact.error, contact.reply = error.stage, str(error), error.reply
        contact.verify_code, contact.reason = connection.verify_code, connection.reason
        contact.silent = "timeout" in contact.error
        contact.closed = connection.ended or any(said in contact.error for said in _ENDED)
    except BaseException:
        connection.close()
        raise
    else:
        contact.stage, contact.connection = "ready", connection
    steps = connection.greeting_steps
    contact.tls = connection.tls
    contact.greeting = next((step.reply for step in steps if step.did.startswith("connect to ")), "")
    return contact


class _Noticing(Connection):
    """A connection that keeps what TLS said of a failed handshake."""

    verify_code = 0
    reason = ""
    ended = False

    def _handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        try:
            super()._handshake(context, server_name)
        except ConnectFailed as failed:
            error = failed.__context__
            self.verify_code = getattr(error, "verify_code", 0) or 0
            self.reason = str(getattr(error, "reason", "") or "")
            self.ended = isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))
            raise


def _reach(contact: Contact, patience: Patience) -> socket.socket | None:
    """Return a socket, or note down why there is none."""
    addresses = _addresses(contact, patience)
    if not addresses:
        return None
    contact.stage = "connect"
    until = time.monotonic() + patience.answer
    for family, kind, protocol, _, where in addresses[:8]:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(max(until - time.monotonic(), 0.1))
        contact.address = _shown(where)
        try:
            sock.connect(where)
        except OSError as error:
            with contextlib.suppress(OSError):
                contact.local = _shown(sock.getsockname())
            sock.close()
            if isinstance(error, ConnectionResetError):
                # It was accepted, and reset before we could tell.
                contact.stage, contact.error, contact.closed = "greeting", why(error), True
                return None
            contact.silent = isinstance(error, TimeoutError)
            contact.refused = isinstance(error, ConnectionRefusedError)
            contact.error = "no answer in time" if contact.silent else why(error)
            continue
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        contact.local = _shown(sock.getsockname())
        contact.stage, contact.error = "greeting", ""
        return sock
    return None


def _addresses(contact: Contact, patience: Patience) -> list[Any]:
    """Return what the name leads to, or note down why nowhere; the system's resolver has no deadline of its own."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(contact.host, contact.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            contact.error = why(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience.answer)
    if asking.is_alive():
        contact.error = "the resolver does not answer"
        return []
    return found


def _hears(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _shown(where: Any) -> str:
    host, port = where[0], where[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_name() -> str:
    """Return the name to say EHLO with."""
    name = socket.gethostname()
    return name if name.isascii() and name.replace(".", "").replace("-", "").isalnum() else "localhost"


# Looking closer


def glance(host: str, port: int, patience: Patience) -> Glance:
    """Listen to what a server says in clear text, and to what it offers then."""
    with contextlib.ExitStack() as stack:
        sock = _socket(host, port, patience)
        if sock is None:
            return Glance(closed=True)
        stack.callback(sock.close)
        talk = _Talk(sock, patience)
        reply = talk.reply(extended=False)
        if reply is None or not reply.ok:
            return Glance(reply, bytes(talk.raw[:200]), talk.closed)
        with contextlib.suppress(OSError):
            sock.sendall(f"EHLO {own_name()}\r\n".encode("ascii"))
        hello = talk.reply(extended=False)
        with contextlib.suppress(OSError):
            sock.sendall(b"QUIT\r\n")
            talk.reply(extended=True)
        return Glance(reply, extensions=extensions_of(hello) if hello is not None and hello.ok else {})


def begins_tls(host: str, port: int, patience: Patience) -> str:
    """Return the version of TLS that a server begins with the first octet, "" if it does not."""
    context = _blind()
    sock = _socket(host, port, patience)
    if sock is None:
        return ""
    with contextlib.closing(sock):
        try:
            with secure(sock, context, None) as secured:
                return str(secured.version())
        except (OSError, ValueError):
            return ""


def look_at_certificate(host: str, port: int, server_name: str, tls: TlsMode, patience: Patience) -> Certificate | None:
    """Return the server's certificate as it describes itself, whoever signed it; None if it cannot be read."""
    first = _secured(host, port, server_name, tls, _blind(), patience)
    octets = first if isinstance(first, bytes) else None
    if octets is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(cadata=octets)
    except (ssl.SSLError, ValueError):
        return None
    # What it says is read by the library only if it is believed: so this once it is, by itself and at any time.
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    second = _secured(host, port, server_name, tls, context, patience, decoded=True)
    return _certificate(second) if isinstance(second, dict) else None


def chains_to(file: str, host: str, port: int, server_name: str, tls: TlsMode, patience: Patience) -> bool:
    """Say whether the certificates of a file prove the server."""
    try:
        context = ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError):
        return False
    return isinstance(_secured(host, port, server_name, tls, context, patience), bytes)


def _secured(
    host: str,
    port: int,
    server_name: str,
    tls: TlsMode,
    context: ssl.SSLContext,
    patience: Patience,
    *,
    decoded: bool = False,
) -> bytes | dict[str, Any] | None:
    """Return the certificate of a server after a handshake; None if there is none."""
    sock = _socket(host, port, patience)
    if sock is None:
        return None
    with contextlib.closing(sock):
        try:
            if tls != "implicit" and not _upgrade(sock, patience):
                return None
            sock.settimeout(patience.answer)
            with secure(sock, context, server_name or host) as secured:
                return dict(secured.getpeercert() or {}) if decoded else secured.getpeercert(binary_form=True)
        except (OSError, ValueError):
            return None


def _upgrade(sock: socket.socket, patience: Patience) -> bool:
    talk = _Talk(sock, patience)
    for said in (b"", f"EHLO {own_name()}\r\n".encode("ascii"), b"STARTTLS\r\n"):
        if said:
            sock.sendall(said)
        answer = talk.reply(extended=False)
        if answer is None or not answer.ok:
            return False
    return True


def _blind() -> ssl.SSLContext:
    """Return what believes any certificate: to look, never to log in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _certificate(found: dict[str, Any]) -> Certificate | None:
    try:
        names = tuple(
            name
            for kind, name in cast("tuple[tuple[str, str], ...]", found.get("subjectAltName", ()))
            if kind in ("DNS", "IP Address")
        )
        return Certificate(
            names,
            _name(found.get("subject", ())),
            _name(found.get("issuer", ())),
            ssl.cert_time_to_seconds(found["notBefore"]),
            ssl.cert_time_to_seconds(found["notAfter"]),
        )
    except (LookupError, ValueError, TypeError):
        return None


def _name(parts: Any) -> str:
    """Return what a name in a certificate says to a person: its common name, else all of it."""
    pairs = [pair for group in parts for pair in group]
    common = [value for key, value in pairs if key == "commonName"]
    return common[-1] if common else ", ".join(value for _, value in pairs)


def _socket(host: str, port: int, patience: Patience) -> socket.socket | None:
    sock = _reach(Contact(host, port, "resolve"), patience)
    if sock is not None:
        sock.settimeout(patience.answer)
    return sock


class _Talk:
    """Replies from a socket, each by a deadline of its own."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._socket = sock
        self._patience = patience
        self._reader = ReplyReader(ClientLimits())
        self.raw = bytearray()
        self.closed = False

    def reply(self, *, extended: bool) -> Reply | None:
        """Return the next reply; None if none comes in time, or what comes is none."""
        until = time.monotonic() + self._patience.soon
        try:
            while (found := self._reader.next(extended)) is None:
                left = until - time.monotonic()
                if left <= 0 or len(self.raw) > _MOST or not _hears(self._socket, left):
                    return None
                data = self._socket.recv(_PIECE)
                if not data:
                    self.closed = True
                    return None
                self.raw += data
                self._reader.feed(data)
        except RemoteProtocolError:
            return None
        except OSError:
            self.closed = True
            return None
        return found
