"""One form POST to an HTTPS server: whole within its seconds, the answer bounded, no redirect followed.

Standards: RFC 9112 (HTTP/1.1), RFC 9110 section 9.3.6 (CONNECT), WHATWG URL (application/x-www-form-urlencoded),
RFC 6749 section 3.2 (what is sent to a token endpoint goes over TLS).
Promises: the seconds are for all of it, so a server that drips ends like one that is silent; what was posted is in no
error; the form leaves only inside TLS with a checked name, except to this machine itself.
Dangers: looking up the server's name has the system's own time-out. The proxy sees the server's name, nothing more.
Not here: what is posted and what the answer means (`mailer.oauth`).

`http.client` reads the answer; the connection is made here, for `urllib.request` has a time-out for each read only, and
follows redirects unless it is taken apart.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from outgate.smtp.connecting import why

if TYPE_CHECKING:
    from http.client import HTTPResponse

PROXY_SHARE = 1 / 3
"""The share of the seconds in which a proxy must be there, so that there is time to do without it."""

_LONGEST_ANSWER = 65_536  # octets


class NotAnswered(Exception):
    """There is no answer; the text says how. `hop` is where it ended: "proxy" (not there), "connect" (nobody, or the
    proxy refuses), "tls" or "answer" (the form may have been read)."""

    def __init__(self, text: str, hop: str) -> None:
        super().__init__(text)
        self.hop = hop


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: status, `Location` if it is a redirect, and the body, which may hold secrets."""

    status: int
    location: str
    body: bytes = field(repr=False)


def checked(url: str) -> str:
    """Return what is wrong with an address to post secrets to, "" if nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "expected an https:// address"
    host = parts.hostname or ""
    if not host or not url.isascii() or not url.isprintable() or " " in url or parts.fragment or port == 0:
        return "expected an https:// address"
    if parts.username is not None or parts.password is not None:
        return "an address holds no user name and no password"
    if parts.scheme == "http" and not is_loopback(host):
        return "expected https://: a secret is sent there, so the connection must be TLS"
    if parts.scheme not in ("http", "https"):
        return "expected an https:// address"
    return ""


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine itself, by its address or as "localhost"."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def post(
    url: str,
    fields: Mapping[str, str],
    *,
    seconds: float = 30.0,
    context: ssl.SSLContext | None = None,
    proxy: str = "",
) -> Answer:
    """Post `fields` to `url` (one that is `checked`) within `seconds`, through the HTTP proxy at the URL `proxy` if it
    is given. `context` checks the server's certificate and name (the system's authorities if None).

    Raises `NotAnswered`, also for an answer of more than 64 KiB."""
    parts = urlsplit(url)
    deadline = time.monotonic() + seconds
    with _Wire(deadline) as wire:
        try:
            _connect(wire, parts, proxy)
        except (OSError, ValueError) as error:
            raise NotAnswered(_reason(error, seconds), "connect") from None
        try:
            if parts.scheme == "https":
                _secure(wire, parts.hostname or "", context)
        except (OSError, ValueError) as error:
            raise NotAnswered(f"TLS: {_reason(error, seconds)}", "tls") from None
        try:
            wire.send(_request(parts, urlencode(fields).encode("ascii")))
            return read_answer(wire)
        except (OSError, ValueError) as error:
            raise NotAnswered(_reason(error, seconds), "answer") from None


class Source(Protocol):
    """What an answer is read from: a socket, or anything with its `makefile`."""

    def makefile(self, *_: object) -> io.BufferedReader: ...


class _Wire:
    """A socket whose every wait ends at one deadline; `http.client` reads from it as from a socket."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.socket: socket.socket | None = None

    def __enter__(self) -> _Wire:
        return self

    def __exit__(self, *_: object) -> None:
        if self.socket is not None:
            self.socket.close()

    def left(self) -> float:
        """Return the seconds that are left. Raises `TimeoutError`."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def ready(self) -> socket.socket:
        """Return the socket, with the time that is left as its time-out."""
        assert self.socket is not None
        self.socket.settimeout(self.left())
        return self.socket

    def send(self, data: bytes) -> None:
        self.ready().sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self))


class _Incoming(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._wire.ready().recv_into(buffer)


def _connect(wire: _Wire, parts: SplitResult, proxy: str) -> None:
    """Connect to the server, or through the proxy to it."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not proxy:
        wire.socket = _dial(wire, host, port)
        return
    try:
        through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        via, at_port = through.hostname, through.port or 3128
    except ValueError:
        through, via, at_port = urlsplit(""), None, 0
    if not via or through.scheme not in ("", "http"):
        raise NotAnswered("the proxy's address is not http://HOST:PORT", "connect")
    at = f"{via}:{at_port}"
    try:
        wire.socket = _dial(wire, via, at_port, share=PROXY_SHARE)
    except OSError as error:
        raise NotAnswered(f"the proxy {at} cannot be reached: {_plain(error)}", "proxy") from None
    name = f"[{host}]" if ":" in host else host
    login = ""
    if through.username is not None:
        pair = f"{unquote(through.username)}:{unquote(through.password or '')}".encode()
        login = f"Proxy-Authorization: Basic {b64encode(pair).decode('ascii')}\r\n"
    wire.send(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{login}\r\n".encode("ascii"))
    answer = _response(wire, "CONNECT")
    if not 200 <= answer.status < 300:
        raise NotAnswered(f"the proxy {at} does not connect to {host}:{port}: it answers {answer.status}", "connect")


def _dial(wire: _Wire, host: str, port: int, *, share: float = 1.0) -> socket.socket:
    """Connect to the first address that answers, within a `share` of the time that is left."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem: OSError = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(share * wire.left() / (len(found) - number))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _secure(wire: _Wire, host: str, context: ssl.SSLContext | None) -> None:
    plain = wire.ready()
    secured = (context or ssl.create_default_context()).wrap_socket(
        plain, server_hostname=host, do_handshake_on_connect=False
    )
    wire.socket = secured
    wire.ready()
    secured.do_handshake()


def _request(parts: SplitResult, form: bytes) -> bytes:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\nAccept: application/json\r\nUser-Agent: outgate\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + form


def _response(wire: Source, method: str) -> HTTPResponse:
    from http.client import HTTPException, HTTPResponse  # late: most applications never post

    answer = HTTPResponse(wire, method=method)  # pyright: ignore[reportArgumentType]  # it wants `makefile` only
    try:
        answer.begin()
    except HTTPException as error:
        raise NotAnswered(f"the answer is not HTTP ({type(error).__name__})", "answer") from None
    return answer


def read_answer(wire: Source) -> Answer:
    """Read one answer to a POST, to its end. Raises `NotAnswered`, and what the source raises."""
    from http.client import HTTPException

    answer = _response(wire, "POST")
    try:
        body = answer.read(_LONGEST_ANSWER + 1)
    except HTTPException as error:
        raise NotAnswered(f"the answer is not HTTP ({type(error).__name__})", "answer") from None
    if len(body) > _LONGEST_ANSWER:
        raise NotAnswered(f"the answer is longer than {_LONGEST_ANSWER} octets", "answer")
    if answer.length:
        raise NotAnswered("the connection ended within the answer", "answer")
    return Answer(answer.status, answer.getheader("Location", ""), body)


def _reason(error: Exception, seconds: float) -> str:
    return f"no answer within {round(seconds, 3):g} s" if isinstance(error, TimeoutError) else _plain(error)


def _plain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return why(error)
    return "the name or the answer cannot be used"
