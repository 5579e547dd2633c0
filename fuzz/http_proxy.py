"""Heads of requests to the HTTP(S) proxy, and what becomes of them.

Property: any octets are a head, too few for one, or `BadRequest` with a status of ours and a reason that quotes nothing.
Where a head ends does not hang on how it came in, nor on what follows. What goes on to the target is read as one request
by h11 and by a reader that knows nothing but CRLF and colons; both find the same target, one Host (the host that was
judged), one framing, no field of the first hop and our entry in Via; and it would be found to be a loop here.
"""

from __future__ import annotations

import h11

from outgate.egress.proxy_request import Asked, BadRequest, Kind, head_length, host_of, read_head

OWN = b"outgate-0123456789ab"
SEEDS = (
    b"CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\nProxy-Connection: keep-alive\r\n\r\n\x16\x03\x01",
    b"CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n",
    b"GET http://target.example/a?b=c HTTP/1.1\r\nHost: target.example\r\nVia: 1.0 fred, 1.1 p.example (x)\r\n\r\n",
    b"POST http://a.example:8080/ HTTP/1.1\r\nHost: A.example.:8080\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n"
    b"Connection: TE, X-Own\r\nX-Own: 1\r\nTrailer: X-Sum\r\nExpect: 100-continue\r\n\r\n",
    b"PUT HTTP://192.0.2.1 HTTP/1.1\r\nHost: 192.0.2.1:80\r\nContent-Length: 5\r\nProxy-Authorization: Basic eA==\r\n\r\n",
    b"GET http://target.example/ws HTTP/1.1\r\nHost: target.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"OPTIONS http://target.example HTTP/1.1\r\nHost: target.example\r\nMax-Forwards: 7\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n",
    b"POST http://t.example/ HTTP/1.1\r\nHost: t.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET http://me:secret@t.example/ HTTP/1.1\r\nHost: t.example\r\nX: a\r\n b\r\n\r\n",
    b"GET http://t.example/ HTTP/1.1\nHost: t.example\n\n",
)
_HOP = (b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"http2-settings")


def one_input(data: bytes) -> None:
    length = _length(data)
    if length is BadRequest:
        assert _length(data + b"\r\n\r\n") is BadRequest
        return
    _pieces(data, length)
    if not length:
        return
    assert _length(data[:length]) == length == _length(data[:length] + b"\0\n")
    found = _read(data[:length])
    if found is None or found.kind is Kind.OURSELVES:
        return
    assert found.name == found.name.lower() and 1 <= found.port <= 65_535 and "@" not in found.name
    if found.kind is Kind.FORWARD:
        _onward(found)


def _length(data: bytes) -> int | type[BadRequest]:
    try:
        return head_length(data)
    except BadRequest:
        return BadRequest


def _pieces(data: bytes, length: int) -> None:
    """The same length is found when the head comes in two pieces."""
    for cut in {1, len(data) // 2, max(length - 1, 0)}:
        whole = 0 < length <= cut
        assert _length(data[:cut]) == (length if whole else 0)
        assert whole or head_length(data, min(cut, len(data))) == length


def _read(head: bytes) -> Asked | None:
    try:
        return read_head(head, own=OWN)
    except BadRequest as bad:
        assert bad.status in (400, 405, 417, 501, 505, 508) and str(bad).isprintable() and len(str(bad)) < 120
        return None


def _onward(found: Asked) -> None:
    assert found.onward is not None
    raw = h11.Connection(h11.CLIENT).send(found.onward)
    assert raw.endswith(b"\r\n\r\n") and raw.count(b"\r\n\r\n") == 1
    lines = raw[:-4].split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    method, target, version = lines[0].split(b" ")
    assert (method.decode(), version) == (found.method, b"HTTP/1.1") and (target[:1] == b"/" or target == b"*")
    plain = [
        (name.lower(), value)
        for name, value in (line.split(b": ", 1) if b": " in line else (line[:-1], b"") for line in lines[1:])
    ]
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=10**6)
    server.receive_data(raw)
    again = server.next_event()
    assert isinstance(again, h11.Request) and again.target == target
    assert [(bytes(name), bytes(value)) for name, value in again.headers] == plain
    names = [name for name, _ in plain]
    assert [value for name, value in plain if name == b"host"] == [host_of(found.name, found.port)]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert not any(name.startswith(b"proxy-") or name in (b"te", b"keep-alive", b"http2-settings") for name in names)
    switches = b"upgrade" in names
    assert [value for name, value in plain if name == b"connection"] == [b"upgrade" if switches else b"close"]
    assert any(name == b"via" and value.endswith(b" " + OWN) for name, value in plain)
    _comes_round(found, plain, target)


def _comes_round(found: Asked, plain: list[tuple[bytes, bytes]], target: bytes) -> None:
    """Sent to us again it is a loop."""
    fields = b"".join(b"%s: %s\r\n" % field for field in plain if field[0] not in _HOP)
    path = b"" if target == b"*" else target
    head = b"%s http://%s%s HTTP/1.1\r\n%s\r\n" % (found.method.encode(), host_of(found.name, found.port), path, fields)
    try:
        read_head(head, own=OWN)
    except BadRequest as bad:
        assert bad.status == 508
    else:
        raise AssertionError("a loop was not seen")


if __name__ == "__main__":
    from _run import run

    run(__file__)
