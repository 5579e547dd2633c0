"""The PROXY protocol header, versions 1 and 2: who the client behind a proxy really is.

Standards: "The PROXY protocol, versions 1 & 2" (haproxy.org, 2020-03-05), sections 2.1 to 2.2.4.
Promises: `parse` needs no more bytes than the header has and says exactly how many that were; anything else
raises `BadHeader`, a checksum that is wrong too; `encode_v2` makes what `parse` reads.
Dangers: only a trusted peer's header may be believed, and from a trusted peer it must come: never sniff.
Not here: who is trusted (`smtp.asyncio.server`, by setting).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_LIMIT = 107
V2_LIMIT = 16 + 2048
_V1 = b"PROXY "
_CRC32C = 0x03


class BadHeader(Exception):
    """The bytes are not a PROXY header."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Source and destination as (address, port), or both None for LOCAL, UNKNOWN and UNSPEC: the proxy itself."""

    source: tuple[str, int] | None
    destination: tuple[str, int] | None


def parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a header at the start of `data`; return it and its length in octets, or None if bytes are missing.

    Raises `BadHeader` as soon as the bytes cannot become one."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _parse_v1(data)
    raise BadHeader("neither a version 1 nor a version 2 header")


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise BadHeader("a version 1 header is at most 107 octets")
        return None
    words = data[:end].split(b" ")
    if len(words) >= 2 and words[1] == b"UNKNOWN":
        return ProxyHeader(None, None), end + 2
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadHeader("a version 1 header has a protocol, two addresses and two ports")
    kind = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        source = _address(kind, words[2]), _port(words[4])
        destination = _address(kind, words[3]), _port(words[5])
    except ValueError:
        raise BadHeader("an address or a port is not valid") from None
    return ProxyHeader(source, destination), end + 2


def _address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], word: bytes) -> str:
    if b"%" in word:  # a scope is no part of an address here, and would name an interface of ours
        raise ValueError
    return str(kind(word.decode("ascii")))


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > 65535 or (word[:1] == b"0" and word != b"0"):
        raise ValueError
    return int(word)


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) < 16:
        return None
    version_command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    if version_command >> 4 != 2 or version_command & 15 > 1:
        raise BadHeader("not version 2, or an unknown command")
    if length + 16 > V2_LIMIT:
        raise BadHeader("the header is too long")
    if len(data) < 16 + length:
        return None
    if version_command & 15 == 0 or family == 0:
        return ProxyHeader(None, None), 16 + length
    size = {0x11: 4, 0x21: 16}.get(family)
    if size is None or length < 2 * size + 4:
        raise BadHeader("only TCP over IPv4 and IPv6 is understood")
    _check_tlvs(data[: 16 + length], 16 + 2 * size + 4)
    source = str(ipaddress.ip_address(data[16 : 16 + size]))
    destination = str(ipaddress.ip_address(data[16 + size : 16 + 2 * size]))
    source_port, destination_port = struct.unpack_from("!HH", data, 16 + 2 * size)
    return ProxyHeader((source, source_port), (destination, destination_port)), 16 + length


def _check_tlvs(header: bytes, at: int) -> None:
    """Walk the type-length-value vectors behind the addresses; compare the checksum if one is there."""
    checksum = -1
    while at < len(header):
        kind, size = header[at], int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 + size > len(header):
            raise BadHeader("a vector is longer than the header")
        if kind == _CRC32C:
            if size != 4 or checksum >= 0:
                raise BadHeader("a checksum has four octets and comes once")
            checksum = at + 3
        at += 3 + size
    if checksum >= 0:
        given = int.from_bytes(header[checksum : checksum + 4], "big")
        if crc32c(header[:checksum] + bytes(4) + header[checksum + 4 :]) != given:
            raise BadHeader("the checksum is wrong")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli; RFC 9260 appendix A) of `data`."""
    register = 0xFFFFFFFF
    for octet in data:
        register = _CASTAGNOLI[(register ^ octet) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _shifted(octet: int) -> int:
    for _ in range(8):
        octet = (octet >> 1) ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CASTAGNOLI = tuple(_shifted(octet) for octet in range(256))


def encode_v2(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """Write a version 2 header for a TCP connection. Both addresses are of one family, or become IPv6."""
    first, second = ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])
    if first.version != second.version:
        first = ipaddress.IPv6Address(f"::ffff:{first}") if first.version == 4 else first
        second = ipaddress.IPv6Address(f"::ffff:{second}") if second.version == 4 else second
    family = 0x11 if first.version == 4 else 0x21
    body = first.packed + second.packed + struct.pack("!HH", source[1], destination[1])
    return SIGNATURE + bytes((0x21, family)) + struct.pack("!H", len(body)) + body
