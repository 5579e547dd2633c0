"""Read a plain response to a plain question without building a message of it.

Standards: RFC 1035 (sections 3.3 and 4.1, compression 4.1.4), 2308 (section 5), 3596, 6891 (section 6.1.3).
Promises: what is answered here is exactly what the full reader (`net.dns`, by dnspython) answers to the same octets;
whatever is not plain, is malformed or would need a second thought is left to that one; no octet is read outside of
the message, a compression pointer leads backwards only.
Dangers: the octets are a stranger's, at any length; a difference from the full reader is an error of this one.
Not here: whether the response belongs to the question (`net.dns`), cut off ones, failures, rare types.
"""

from __future__ import annotations

import struct
from socket import AF_INET, inet_ntop

import dns.exception
import dns.ipv6
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from outgate.domains.ask import Answer

_A, _NS, _CNAME, _SOA, _MX, _TXT, _AAAA, _OPT = 1, 2, 5, 6, 15, 16, 28, 41
ASKED = frozenset({_A, _MX, _TXT, _AAAA})
_SIGNING = frozenset({dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3})
"""What stands beside signed answers: only whether it is well formed counts."""
_IN = 1
LONGEST_TTL = 86_400
"""Seconds that an answer may be believed at most, whatever it says."""
_LONGEST_NAME = 253
_SOUND_TTL = 0x7FFF_FFFF
_HOPS = 16
_CHAIN = 8
_HOST = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
_COUNTS = struct.Struct("!HHH")
_HEADER = struct.Struct("!HHIH")
_TIMES = struct.Struct("!LLLLL")


class _NotPlain(Exception):
    """The full reader must look at it."""


class _Reading:
    """One response, read up to `at`."""

    __slots__ = ("aliases", "at", "found", "soa", "wire")

    def __init__(self, wire: bytes, at: int) -> None:
        self.wire = wire
        self.at = at
        self.aliases: dict[str, tuple[str, int]] = {}
        self.found: dict[str, tuple[int, dict[str | bytes, str | bytes]]] = {}
        """By owner: the least TTL, and the records by what makes them the same."""
        self.soa: tuple[str, int] | None = None

    def answers(self, count: int, asked: int) -> None:
        """Read the answer section."""
        for _ in range(count):
            owner, rdtype, ttl, end = self._record()
            if rdtype == asked:
                key, record = self._data(rdtype, end)
                least, records = self.found.get(owner) or (ttl, {})
                records.setdefault(key, record)
                self.found[owner] = (min(least, ttl), records)
            elif rdtype == _CNAME:
                target = self.name(self.at)
                if owner in self.aliases or self.at != end:
                    raise _NotPlain
                self.aliases[owner] = (target, ttl)
            else:
                self._beside(rdtype, end)

    def authorities(self, count: int) -> None:
        """Read the authority section."""
        for _ in range(count):
            owner, rdtype, ttl, end = self._record()
            if rdtype != _SOA:
                self._beside(rdtype, end)
                continue
            self.name(self.at)
            self.name(self.at)
            if self.soa is not None or self.at + _TIMES.size != end:
                raise _NotPlain
            times = _TIMES.unpack_from(self.wire, self.at)
            if max(times[1:]) > _SOUND_TTL:
                raise _NotPlain
            self.soa = owner, min(ttl, times[4])
            self.at = end

    def additions(self, count: int) -> None:
        """Read the additional section up to the end of the message; an OPT in it must say nothing."""
        wire = self.wire
        opt = False
        for _ in range(count):
            # The root, OPT, any payload, no higher bits of the status and version 0, any flags, no options.
            at = self.at
            if wire[at : at + 3] == b"\0\0\x29":
                if opt or wire[at + 5 : at + 7] != b"\0\0" or wire[at + 9 : at + 11] != b"\0\0":
                    raise _NotPlain
                opt = True
                self.at = at + 11
                continue
            _, rdtype, _, end = self._record()
            self._beside(rdtype, end)
        if self.at != len(wire):
            raise _NotPlain

    def _record(self) -> tuple[str, int, int, int]:
        """Read the head of a record; return its owner, type, TTL and where it ends."""
        owner = self.name(self.at)
        rdtype, rdclass, ttl, length = _HEADER.unpack_from(self.wire, self.at)
        self.at += _HEADER.size
        end = self.at + length
        if rdclass != _IN or end > len(self.wire) or rdtype == _OPT:
            raise _NotPlain
        return owner, rdtype, ttl if ttl <= _SOUND_TTL else 0, end

    def _beside(self, rdtype: int, end: int) -> None:
        """Read the data of a record that is no part of the answer."""
        if rdtype in ASKED:
            self._data(rdtype, end)
        elif rdtype == _NS:
            self.name(self.at)
            if self.at != end:
                raise _NotPlain
        elif rdtype in _SIGNING:
            parser = dns.wire.Parser(self.wire, self.at)
            with parser.restrict_to(end - self.at):
                dns.rdata.from_wire_parser(dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype), parser)
            self.at = end
        else:
            raise _NotPlain

    def _data(self, rdtype: int, end: int) -> tuple[str | bytes, str | bytes]:
        """Read a record's data up to `end`; return what makes it the same as another, and as `Answer` holds it."""
        data = self.wire[self.at : end]
        if rdtype == _MX:
            if len(data) < 3:
                raise _NotPlain
            host = self.name(self.at + 2)
            if self.at != end:
                raise _NotPlain
            record = f"{data[0] << 8 | data[1]} {host}"
            return record, record
        self.at = end
        if rdtype == _TXT:
            return data, _joined(data)
        if len(data) != (4 if rdtype == _A else 16):
            raise _NotPlain
        return data, inet_ntop(AF_INET, data) if rdtype == _A else dns.ipv6.inet_ntoa(data)

    def name(self, at: int) -> str:
        """Read a name, compressed or not, and move behind it; return it in lower case without a final dot."""
        wire = self.wire
        start, limit = at, len(wire)
        behind = hops = 0
        labels: list[bytes] = []
        while length := wire[at]:
            if length < 64:
                at += 1 + length
                if at >= limit:
                    raise _NotPlain
                labels.append(wire[at - length : at])
            elif length >= 192:
                if at + 2 > limit:
                    raise _NotPlain
                target = (length & 0x3F) << 8 | wire[at + 1]
                behind = behind or at + 2
                hops += 1
                if target >= start or hops > _HOPS:
                    raise _NotPlain
                # What a pointer leads to ends before the part of the name that leads there.
                limit, start, at = start, target, target
            else:
                raise _NotPlain
        self.at = behind or at + 1
        name = b".".join(labels)
        if name.translate(None, _HOST) or len(name) > _LONGEST_NAME or name.count(b".") != max(len(labels) - 1, 0):
            raise _NotPlain
        return name.decode("ascii").lower()


def read(wire: bytes, asks: int, server: str, *, trusted: bool) -> Answer | None:
    """Return what a response says, or None if the full reader must look at it. `wire` is a response of opcode QUERY
    whose octets 12 to `asks` are the one question; `trusted` says whether its AD is believed."""
    if wire[2] & 2 or wire[3] & 0xF not in (0, 3) or wire[4:6] != b"\0\1" or wire[asks - 2 : asks] != b"\0\1":
        return None
    asked = wire[asks - 4] << 8 | wire[asks - 3]
    if asked not in ASKED:
        return None
    try:
        reading = _Reading(wire, 12)
        name = reading.name(12)
        reading.at = asks
        answers, authorities, additions = _COUNTS.unpack_from(wire, 6)
        reading.answers(answers, asked)
        reading.authorities(authorities)
        reading.additions(additions)
        return _told(reading, name, server, secure=trusted and bool(wire[3] & 0x20), denied=wire[3] & 0xF == 3)
    except (_NotPlain, IndexError, struct.error, ValueError, dns.exception.DNSException):
        return None


def _told(reading: _Reading, name: str, server: str, *, secure: bool, denied: bool) -> Answer:
    """Follow the aliases within a response to the answer."""
    least = LONGEST_TTL
    alias = ""
    for _ in range(_CHAIN):
        if (found := reading.found.get(name)) is not None:
            if denied:
                raise _NotPlain
            ttl, records = found
            return Answer("ok", tuple(records.values()), min(least, ttl), server, alias, (), secure)
        following = reading.aliases.get(name)
        if following is None:
            break
        alias = name = following[0]
        least = min(least, following[1])
    else:
        raise _NotPlain
    if reading.soa is None:
        least = 0  # nothing says how long to believe in a negative answer
    else:
        owner, ttl = reading.soa
        if owner and name != owner and not name.endswith("." + owner):
            raise _NotPlain
        least = min(least, ttl)
    return Answer("nxdomain" if denied else "nodata", (), least, server, alias, (), secure)


def _joined(data: bytes) -> bytes:
    """Return the strings of a TXT record as one."""
    if data and data[0] + 1 == len(data):
        return data[1:]
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        parts.append(data[at + 1 : end])
        at = end
    if not parts or at != len(data):
        raise _NotPlain
    return b"".join(parts)
