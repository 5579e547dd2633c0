"""PROXY headers, versions 1 and 2.

Property: any bytes are a header, too few for one, or `BadHeader`. A header's length is exact: all of it is needed, and
what follows changes nothing. What is bad stays bad, what is too short has a bound. A version 1 header over IPv4 has one
spelling, and what `encode_v2` writes of the ends that were read is read as the same ends.
"""

from __future__ import annotations

import ipaddress

from outgate.smtp.proxy_header import SIGNATURE, V1_LIMIT, V2_LIMIT, BadHeader, ProxyHeader, crc32c, encode_v2, parse

_V2 = encode_v2(("192.0.2.1", 4711), ("198.51.100.2", 25))
_BLANK = _V2[:15] + bytes([_V2[15] + 7]) + _V2[16:] + b"\x03\x00\x04" + bytes(4)
SEEDS = (
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\nEHLO c\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n",
    b"PROXY UNKNOWN what ever\r\n",
    _V2 + b"EHLO c\r\n",
    encode_v2(("2001:db8::1", 1), ("::1", 2)),
    _BLANK[:-4] + crc32c(_BLANK).to_bytes(4, "big"),
    SIGNATURE + b"\x20\x00\x00\x00",
    SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
)


def one_input(data: bytes) -> None:
    found = _read(data)
    if found is None:
        assert len(data) < V2_LIMIT, "more is asked for than a header has"
        return
    if found is BadHeader:
        assert _read(data + b"\r\n\0x") is BadHeader
        return
    header, length = found
    assert 0 < length <= len(data)
    assert _read(data[:length]) == (header, length)
    assert _read(data[:length] + b"\0\xff") == (header, length)
    assert all(_read(data[:cut]) is None for cut in {1, length // 2, length - 1})
    if header.source is None or header.destination is None:
        assert header.source is header.destination
        return
    _ends(header)
    if data.startswith(b"PROXY TCP4"):
        (source, port), (destination, other) = header.source, header.destination
        assert data[:length] == f"PROXY TCP4 {source} {destination} {port} {other}\r\n".encode()
        assert length <= V1_LIMIT


def _read(data: bytes) -> tuple[ProxyHeader, int] | type[BadHeader] | None:
    try:
        return parse(data)
    except BadHeader:
        return BadHeader


def _ends(header: ProxyHeader) -> None:
    assert header.source is not None and header.destination is not None
    for address, port in (header.source, header.destination):
        assert "%" not in address and str(ipaddress.ip_address(address)) == address
        assert 0 <= port <= 65_535
    again = _read(encode_v2(header.source, header.destination))
    assert isinstance(again, tuple) and again[0] == header


if __name__ == "__main__":
    from _run import run

    run(__file__)
