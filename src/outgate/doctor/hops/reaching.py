"""A socket to a server, or why there is none, within a bounded time.

Standards: RFC 9293 (connections); the system's resolver.
Promises: every wait has an end; what comes back is data, and nothing raises for what the network does.
Not here: what is said over it (`doctor.hops.contact`, `doctor.hops.looking`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from outgate.smtp.connecting import ClientTimeouts, why
from outgate.smtp.reply import Reply
from outgate.smtp.sync.client import Connection


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


def reach(contact: Contact, patience: Patience) -> socket.socket | None:
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


def hears(sock: socket.socket, seconds: float) -> bool:
    """Say whether anything comes in time."""
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


def opened(host: str, port: int, patience: Patience) -> socket.socket | None:
    """Return a socket to a server, with a time-out, or None."""
    sock = reach(Contact(host, port, "resolve"), patience)
    if sock is not None:
        sock.settimeout(patience.answer)
    return sock
