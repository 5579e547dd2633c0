"""PROXY headers, versions 1 and 2."""

from __future__ import annotations

import pytest

from outgate.smtp.proxy_header import SIGNATURE, V2_LIMIT, BadHeader, encode_v2, parse

V4 = (("192.0.2.1", 4711), ("198.51.100.2", 25))


def test_version_1() -> None:
    header, length = parse(b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\nEHLO") or (None, 0)
    assert header is not None and (header.source, header.destination) == V4
    assert length == len(b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n")
    v6 = parse(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n")
    assert v6 is not None and v6[0].source == ("2001:db8::1", 1)
    unknown = parse(b"PROXY UNKNOWN whatever else\r\n")
    assert unknown is not None and unknown[0].source is None


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 25\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 25\r\n", b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY \r\n",
        b"PROXY TCP4 192.0.2.\xff 198.51.100.2 1 2\r\n", b"PROXY " + b"x" * 101, b"EHLO x\r\n", b"PROXX", b"\x16\x03\x01", b"\r\n\r\n\r",
    ],
)  # fmt: skip
def test_what_is_no_header(line: bytes) -> None:
    with pytest.raises(BadHeader):
        parse(line)


def test_version_1_is_107_octets_at_most() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (107 - 16) + b"\r\n"
    assert len(longest) == 107
    found = parse(longest)
    assert found is not None and found[1] == 107
    with pytest.raises(BadHeader):
        parse(b"PROXY UNKNOWN " + b"x" * (108 - 16) + b"\r\n")


@pytest.mark.parametrize("ends", [V4, (("2001:db8::1", 1), ("::1", 65535))])
def test_version_2_reads_what_it_writes(ends: tuple[tuple[str, int], tuple[str, int]]) -> None:
    wire = encode_v2(*ends)
    found = parse(wire + b"EHLO")
    assert found is not None
    assert (found[0].source, found[0].destination, found[1]) == (*ends, len(wire))


def test_mixed_families_become_ipv6() -> None:
    found = parse(encode_v2(("192.0.2.1", 1), ("::1", 2)))
    assert found is not None and found[0].source is not None
    assert found[0].source[0] in ("::ffff:c000:201", "::ffff:192.0.2.1")


@pytest.mark.parametrize("header", [encode_v2(*V4), b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"])
def test_every_beginning_asks_for_more(header: bytes) -> None:
    for length in range(1, len(header)):
        assert parse(header[:length]) is None


def test_version_2_local_tlvs_and_limits() -> None:
    local = parse(SIGNATURE + b"\x20\x11\x00\x0c" + b"\0" * 12)
    assert local is not None and local[0].source is None and local[1] == 28
    wire = bytearray(encode_v2(*V4) + b"\x04\x00\x03abc")
    wire[15] += 6
    with_tlv = parse(bytes(wire) + b"rest")
    assert with_tlv is not None and with_tlv[0].source == V4[0] and with_tlv[1] == len(wire)
    for bad in (
        b"\x31\x11\x00\x0c",
        b"\x22\x11\x00\x0c",
        b"\x21\x11\x00\x0b",
        b"\x21\x31\x00\xd8",
        b"\x21\x12\x00\x0c",
    ):
        with pytest.raises(BadHeader):
            parse(SIGNATURE + bad + b"\0" * 300)
    with pytest.raises(BadHeader, match="long"):
        parse(SIGNATURE + b"\x21\x11" + (V2_LIMIT - 15).to_bytes(2, "big"))
