"""PROXY headers: what is written is read, whatever follows; anything else is refused or asks for more."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp.proxy_header import SIGNATURE, BadHeader, encode_v2, parse

PORTS = st.integers(0, 65535)
ADDRESSES = st.ip_addresses().map(str)


def same(one: str, other: str) -> bool:
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first == second or getattr(second, "ipv4_mapped", None) == first


@given(ADDRESSES, PORTS, ADDRESSES, PORTS, st.binary(max_size=40))
def test_round_trip(source: str, port: int, destination: str, other: int, rest: bytes) -> None:
    wire = encode_v2((source, port), (destination, other))
    found = parse(wire + rest)
    assert found is not None
    header, length = found
    assert length == len(wire)
    assert header.source is not None and header.destination is not None
    assert same(source, header.source[0]) and header.source[1] == port
    assert same(destination, header.destination[0]) and header.destination[1] == other
    assert all(parse(wire[:cut]) is None for cut in range(1, len(wire)))


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]),
    st.binary(min_size=1, max_size=120),
)
def test_any_bytes_are_read_refused_or_too_few(beginning: bytes, data: bytes) -> None:
    try:
        found = parse(beginning + data)
    except BadHeader:
        return
    if found is not None:
        assert 0 < found[1] <= len(beginning + data)
        assert parse((beginning + data)[: found[1]]) == found
