"""Look closer at a server where TLS did not come about: what it says by itself, and what its certificate says.

Standards: RFC 5321 (greeting), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS).
Promises: every wait has an end; whatever a server does raises nothing here; no password passes through here. A
    certificate is shown as far as TLS itself proves that the server has its key.
Dangers: `look_at_certificate` trusts what it is shown, to read it; nothing is sent over such a connection.
Not here: what it means (`doctor.hops.tls`), the connection that the application makes (`doctor.hops.contact`).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, cast

from outgate.doctor.hops.reaching import Patience, hears, opened, own_name
from outgate.smtp.answers import ClientLimits, ReplyReader, extensions_of
from outgate.smtp.connecting import TlsMode
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.reply import Reply
from outgate.smtp.sync.client import secure

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module passes on and has no name for."""
_PIECE = 4096
_MOST = 65_536


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


def glance(host: str, port: int, patience: Patience) -> Glance:
    """Listen to what a server says in clear text, and to what it offers then."""
    with contextlib.ExitStack() as stack:
        sock = opened(host, port, patience)
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
    sock = opened(host, port, patience)
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
    sock = opened(host, port, patience)
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
                if left <= 0 or len(self.raw) > _MOST or not hears(self._socket, left):
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
