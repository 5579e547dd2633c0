"""Turn the head of a request to a proxy into where it leads and the head that goes there.

Standards: RFC 9110 (sections 7.6, 9.3.6, 9.3.7, 10.1.1), RFC 9112 (sections 2.2, 3.2, 6.1, 11.2).
Promises: pure; any octets are a request, too few for one, or `BadRequest`. What is written for the target has one Host,
    which is the target's, one framing, no field that ends here, and our own entry in Via.
Dangers: h11 takes bare line feeds, folded lines, repeated lengths and a length beside chunks; two readers may see two
    requests in them, so they are refused before it or beside it. Its messages quote what was sent: never pass them on.
Not here: bodies and answers (`proxy_exchange`, `proxy_response`), who may go where (`http_proxy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import h11

from outgate.base import addresses

METHODS = b"CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
Field = tuple[bytes, bytes]

# An octet that no head has; a line that ends otherwise than by CRLF; a folded line. A carriage return that came last
# may still get its line feed.
_ILLEGAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?![\n])(?!\Z)|\r\n[ \t]")
_END = b"\r\n\r\n"
_LENGTHS = re.compile(rb"(?im)^content-length:[ \t]*([^\r\n]*)")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254})(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Fields that end at the next hop whether or not Connection names them, beside all that begin with Proxy-.
_HOP = frozenset({b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"http2-settings"})
# What says where a message ends or leads is not dropped because a sender calls it a matter of one hop.
_NEEDED = frozenset({b"host", b"content-length", b"transfer-encoding", b"via"})
# RFC 9110 section 6.5.1: fields that must not come after the content.
_NOT_TRAILING = _HOP | frozenset(
    {b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range", b"content-type"}
    | {b"cookie", b"expect", b"host", b"max-forwards", b"range", b"set-cookie", b"trailer", b"via"}
)


class BadRequest(Exception):
    """What came cannot be taken for a request; `status` answers it, the message says why without quoting it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Kind(Enum):
    """What is asked for."""

    CONNECT = "connect"
    FORWARD = "forward"
    OURSELVES = "ourselves"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: to `name` (lower case, without the last dot; an address without brackets) and `port`.

    `onward` is what goes to the target of a FORWARD. `inbound` has read the head and reads the body from here."""

    kind: Kind
    method: str
    name: str
    port: int
    inbound: h11.Connection
    onward: h11.Request | None = None


def head_length(data: bytes | bytearray, looked_at: int = 0) -> int:
    """Return how many octets the head at the beginning of `data` has, 0 if its end has not come.

    `looked_at` octets have been seen before. Raises `BadRequest` as soon as it can be no head."""
    begin = max(0, looked_at - len(_END))
    end = data.find(_END, begin)
    length = 0 if end < 0 else end + len(_END)
    found = _ILLEGAL.search(data, begin, length or len(data))
    if found is not None:
        if data[:1] == b"\x16":
            raise BadRequest(400, "this is TLS: the proxy is spoken to in plain HTTP, also for https targets")
        raise BadRequest(400, _wrong(found[0]))
    return length


def _wrong(octets: bytes) -> str:
    if octets.startswith(b"\r\n"):
        return "the head has a folded line"
    if octets in (b"\r", b"\n"):
        return "a line of the head does not end in CRLF"
    return "the head has a control character"


def read_head(head: bytes, *, own: bytes, most: int = 65_536) -> Asked:
    """Read one whole head (with its blank line). `own` is how Via names us. Raises `BadRequest`."""
    if head_length(head) != len(head):
        raise BadRequest(400, "this is not the head of one request")
    inbound = h11.Connection(h11.SERVER, max_incomplete_event_size=most)
    inbound.receive_data(head)
    try:
        request = inbound.next_event()
    except h11.RemoteProtocolError as error:
        status = error.error_status_hint
        said = "the transfer coding is not known" if status == 501 else "the head is not that of an HTTP request"
        raise BadRequest(501 if status == 501 else 400, said) from None
    if not isinstance(request, h11.Request):
        raise BadRequest(400, "the head is not that of an HTTP request")
    if request.http_version not in (b"1.0", b"1.1"):
        raise BadRequest(505, "the proxy speaks HTTP/1.1 and HTTP/1.0")
    _check_framing(head, request)
    if own.lower() in _received_by(request.headers):
        raise BadRequest(508, "the request has been here before (Via)")
    method, target = request.method.decode("ascii"), request.target.decode("ascii")
    if method == "CONNECT":
        return _connect(request, inbound, target)
    if method == "TRACE":
        raise BadRequest(405, "TRACE is not carried")
    if method == "OPTIONS" and target == "*":
        return Asked(Kind.OURSELVES, method, "", 0, inbound)
    return _forward(request, inbound, method, target, own)


def onward_trailers(fields: Iterable[Field]) -> list[Field]:
    """Return the fields after a content that may go on."""
    return [(name, value) for name, value in fields if name.lower() not in _NOT_TRAILING and not _proxys(name)]


def host_of(name: str, port: int, default: int | None = 80) -> bytes:
    """Write a host as Host has it: `name`, `name:8080`, `[2001:db8::1]:8080`."""
    plain = f"[{name}]" if ":" in name else name
    return (plain if port == default else f"{plain}:{port}").encode("ascii")


def ends_here(fields: Iterable[Field]) -> frozenset[bytes]:
    """Return the lower-case names that Connection lists: they are for one hop."""
    return frozenset(
        token.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for token in value.split(b",")
        if token.strip()
    )


def onward_fields(fields: Iterable[Field]) -> list[Field]:
    """Return the fields that do not end at this hop, in their order and spelling."""
    every = list(fields)
    listed = ends_here(every) - _NEEDED
    return [
        (name, value)
        for name, value in every
        if name.lower() not in _HOP and name.lower() not in listed and not _proxys(name)
    ]


def _proxys(name: bytes) -> bool:
    return name.lower().startswith(b"proxy-")


def _check_framing(head: bytes, request: h11.Request) -> None:
    """Raise `BadRequest` if two readers might not agree where the request ends."""
    lengths = [value.strip(b" \t") for value in _LENGTHS.findall(head)]
    chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
    if lengths and chunked:
        raise BadRequest(400, "the request has both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or any(not value.isdigit() for value in lengths):
        raise BadRequest(400, "Content-Length is not one number")
    if chunked and request.http_version == b"1.0":
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")
    if ends_here(request.headers) & _NEEDED:
        raise BadRequest(400, "Connection names a field that is needed at every hop")
    if request.method == b"CONNECT" and (chunked or any(int(value) for value in lengths)):
        raise BadRequest(400, "CONNECT has no content")


def _received_by(fields: Iterable[Field]) -> set[bytes]:
    """Return who received the message before, as Via has it."""
    found: set[bytes] = set()
    for name, value in fields:
        if name == b"via":
            for entry in value.split(b","):
                words = entry.split()
                if len(words) > 1:
                    found.add(words[1].lower())
    return found


def _connect(request: h11.Request, inbound: h11.Connection, target: str) -> Asked:
    name, port = _authority(target)
    if port is None:
        raise BadRequest(400, "CONNECT takes host:port")
    _check_host(request, name, port, None)
    return Asked(Kind.CONNECT, "CONNECT", name, port, inbound)


def _forward(request: h11.Request, inbound: h11.Connection, method: str, target: str, own: bytes) -> Asked:
    parts = _ABSOLUTE.fullmatch(target)
    if parts is None:
        raise BadRequest(400, "this is a proxy: it takes http://host/… or, for https, CONNECT host:port")
    scheme, authority, path, fragment = parts.groups()
    if scheme.lower() != "http":
        raise BadRequest(400, "only http is forwarded; for https and all else use CONNECT host:port")
    if "@" in authority:
        raise BadRequest(400, "a target has no user name or password: send them in Authorization")
    if fragment is not None:
        raise BadRequest(400, "a target has no fragment")
    name, given = _authority(authority)
    port = 80 if given is None else given
    _check_host(request, name, port, 80)
    fields = _fields_onward(request, name, port, own)
    if method == "OPTIONS":
        hops = _max_forwards(request)
        if hops == 0:
            return Asked(Kind.OURSELVES, method, "", 0, inbound)
        fields = [
            (key, b"%d" % (hops - 1) if hops and key.lower() == b"max-forwards" else value) for key, value in fields
        ]
    if not path:
        path = "*" if method == "OPTIONS" else "/"
    elif path.startswith("?"):
        path = f"/{path}"
    onward = h11.Request(method=request.method, target=path, headers=fields)
    return Asked(Kind.FORWARD, method, name, port, inbound, onward)


def _fields_onward(request: h11.Request, name: str, port: int, own: bytes) -> list[Field]:
    raw = request.headers.raw_items()
    listed = ends_here(raw)
    old = request.http_version == b"1.0"
    expected = [value.lower() for key, value in request.headers if key == b"expect"]
    if expected and not old and expected != [b"100-continue"]:
        raise BadRequest(417, "no expectation but 100-continue can be met")
    upgrade = [value for key, value in request.headers if key == b"upgrade"]
    # HTTP/2 in the clear would be another conversation than the one that is read here; it is asked for, not needed.
    switches = (
        b"upgrade" in listed and bool(upgrade) and not old and not any(b"h2c" in each.lower() for each in upgrade)
    )
    fields: list[Field] = [(b"Host", host_of(name, port))]
    for key, value in onward_fields(raw):
        if key.lower() == b"host" or (old and key.lower() == b"expect"):
            continue
        fields.append((key, value))
    if any(key == b"transfer-encoding" for key, _ in request.headers):
        fields.append((b"Transfer-Encoding", b"chunked"))
    fields.append((b"Via", request.http_version + b" " + own))
    if switches:
        fields.append((b"Upgrade", b", ".join(upgrade)))
    # Each request has a connection of its own: each is judged, bounded and told of by itself.
    fields.append((b"Connection", b"upgrade" if switches else b"close"))
    return fields


def _max_forwards(request: h11.Request) -> int | None:
    values = [value for key, value in request.headers if key == b"max-forwards"]
    return int(values[0]) if len(values) == 1 and re.fullmatch(rb"[0-9]{1,9}", values[0]) else None


def _check_host(request: h11.Request, name: str, port: int, default: int | None) -> None:
    """Raise `BadRequest` if Host leads elsewhere than the target. `default` None: a missing port is the target's."""
    for key, value in request.headers:
        if key == b"host":
            try:
                said, given = _authority(value.decode("ascii", "replace"))
            except BadRequest:
                raise BadRequest(400, "Host and the target differ") from None
            if (said, given if given is not None else default or port) != (name, port):
                raise BadRequest(400, "Host and the target differ")


def _authority(text: str) -> tuple[str, int | None]:
    """Return the host in one spelling, and the port if there is one. Raises `BadRequest`."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise BadRequest(400, "the target has no host, or one that is not a name or an address")
    host, port = found[1].lower().removesuffix("."), found[2]
    number = None if port is None else int(port)
    if number is not None and not 1 <= number <= 65_535:
        raise BadRequest(400, "a port is a number from 1 to 65535")
    try:
        if host.startswith("["):
            return str(addresses.place(IPv6Address(host[1:-1]))), number
        # A last label that is a number makes an address in some readers' eyes: 127.1, 0x7f000001, 017700000001.
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(IPv4Address(host)), number
    except ValueError:
        raise BadRequest(400, "the target's host is an address in no usual spelling") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise BadRequest(400, "the target's host is not a name")
    return host, number
