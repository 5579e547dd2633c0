"""PROXY headers, versions 1 and 2."""

from __future__ import annotations

import pytest

from outgate.smtp.proxy_header import SIGNATURE, V2_LIMIT, BadHeader, crc32c, encode_v2, parse

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
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 01 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25 \r\n", b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 25\r\n", b"PROXY TCP4\t192.0.2.1 198.51.100.2 1 25\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.2 1 25\r\n", b"PROXY TCP4 0xc0.0.2.1 198.51.100.2 1 25\r\n", b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY tcp4 192.0.2.1 198.51.100.2 1 25\r\n", b"proxy TCP4 192.0.2.1 198.51.100.2 1 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25\n" + b"x" * 80,
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY \r\n",
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


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_tlvs(*vectors: bytes) -> bytes:
    wire, more = encode_v2(*V4), b"".join(vectors)
    return wire[:14] + (len(wire) - 16 + len(more)).to_bytes(2, "big") + wire[16:] + more


def summed(*vectors: bytes) -> bytes:
    """Return a header with these vectors and a checksum behind them."""
    blank = with_tlvs(*vectors, tlv(3, bytes(4)))
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")


def test_crc32c_is_the_one_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_a_checksum_comes_once() -> None:
    with pytest.raises(BadHeader, match="once"):
        parse(summed(tlv(3, bytes(4))))


def test_a_checksum_is_compared_wherever_it_stands() -> None:
    good = summed(tlv(1, b"h2"), tlv(2, b"relay.example"), tlv(4, b""))
    found = parse(good + b"EHLO")
    assert found is not None and found[0].source == V4[0] and found[1] == len(good)
    for at in set(range(16, len(good))) - {len(good) - 7}:  # that one makes it another vector than a checksum
        broken = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(BadHeader):
            parse(broken)


@pytest.mark.parametrize(
    "vectors",
    [
        [b"\x04\x00"], [b"\x04\x00\x04abc"], [tlv(4, b""), b"\xff\xff\xff"], [tlv(3, b"")], [tlv(3, bytes(5))], [tlv(3, bytes(4))],
        [tlv(3, bytes(4)), tlv(3, bytes(4))],
    ],
)  # fmt: skip
def test_vectors_that_do_not_fit(vectors: list[bytes]) -> None:
    with pytest.raises(BadHeader):
        parse(with_tlvs(*vectors))


def test_unknown_vectors_are_passed_over() -> None:
    wire = with_tlvs(tlv(0xEA, b"\x01vpce-0"), tlv(0x20, bytes(5)), tlv(0xE0, b"x" * 1000))
    found = parse(wire)
    assert found is not None and found[0].source == V4[0] and found[1] == len(wire)


@pytest.mark.parametrize("family", [0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x31, 0x32, 0x41, 0xFF])
def test_only_tcp_over_ip_is_understood(family: int) -> None:
    with pytest.raises(BadHeader):
        parse(SIGNATURE + bytes([0x21, family]) + (216).to_bytes(2, "big") + bytes(216))


def test_local_and_unspec_say_nothing_about_a_client() -> None:
    for beginning in (b"\x20\x31", b"\x20\xff", b"\x21\x00"):
        found = parse(SIGNATURE + beginning + (7).to_bytes(2, "big") + b"whatev:" + b"rest")
        assert found is not None and found[0].source is None and found[1] == 23


def test_a_mapped_address_keeps_its_family_here() -> None:
    found = parse(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n")
    assert found is not None and found[0].source is not None
    assert found[0].source[0] in ("::ffff:c000:201", "::ffff:192.0.2.1")
