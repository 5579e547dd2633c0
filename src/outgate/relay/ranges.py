"""Sets of addresses: what zones compile to, and what can be made of several of them.

Standards: RFC 4632 (CIDR), RFC 4291.
Promises: pure; immutable; sorted, disjoint and never adjacent, so a look-up is one bisection and the list of networks
    is the shortest there is.
Dangers: whoever asks about an IPv4-mapped address asks for it as IPv4: what holds it holds that.
Not here: zones and rules (`relay.access`), what may stand in a zone (`api.restrictions.addresses`).
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from outgate.model.access import Address

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_Spans = tuple[tuple[int, ...], tuple[int, ...]]  # first numbers, last numbers
_LAST = {4: 2**32 - 1, 6: 2**128 - 1}
_MAPPED = 0xFFFF
_NONE: _Spans = ((), ())


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of IPv4 and IPv6 addresses."""

    v4: _Spans = _NONE
    v6: _Spans = _NONE

    def __contains__(self, address: Ip) -> bool:
        starts, ends = self.v4 if address.version == 4 else self.v6
        at = bisect_right(starts, int(address)) - 1
        return at >= 0 and int(address) <= ends[at]

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges(_joined(_pairs(self.v4) + _pairs(other.v4)), _joined(_pairs(self.v6) + _pairs(other.v6)))

    def __and__(self, other: Ranges) -> Ranges:
        return Ranges(_common(self.v4, other.v4), _common(self.v6, other.v6))

    def __sub__(self, other: Ranges) -> Ranges:
        return Ranges(_common(self.v4, _rest(other.v4, 4)), _common(self.v6, _rest(other.v6, 6)))

    def networks(self) -> list[str]:
        """Return the fewest networks that hold these addresses and no others: IPv4 first, in order."""
        four = (ipaddress.IPv4Address(first) for first in self.v4[0]), (ipaddress.IPv4Address(n) for n in self.v4[1])
        six = (ipaddress.IPv6Address(first) for first in self.v6[0]), (ipaddress.IPv6Address(n) for n in self.v6[1])
        return [
            str(network)
            for starts, ends in (four, six)
            for first, last in zip(starts, ends, strict=True)
            for network in ipaddress.summarize_address_range(first, last)
        ]


NOWHERE = Ranges()
EVERYWHERE = Ranges(((0,), (_LAST[4],)), ((0,), (_LAST[6],)))


def holding(addresses: Iterable[Address]) -> Ranges:
    """Return what addresses, ranges and subnets hold; other types (vpc, serviceRef) hold nothing."""
    pairs: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for address in addresses:
        if address.type == "ipRange":
            first, _, last = address.value.partition("-")
            low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
            if low.version == high.version:
                _add(pairs, low.version, int(low), int(high))
        elif address.type in ("ipAddress", "subnet"):
            network = ipaddress.ip_network(address.value, strict=False)
            _add(pairs, network.version, int(network.network_address), int(network.broadcast_address))
    return Ranges(_joined(pairs[4]), _joined(pairs[6]))


def _add(pairs: dict[int, list[tuple[int, int]]], version: int, first: int, last: int) -> None:
    """Add a range; one of IPv4-mapped addresses as the IPv4 addresses that it means, as clients are judged."""
    if version == 6 and first >> 32 == last >> 32 == _MAPPED:
        version, first, last = 4, first & _LAST[4], last & _LAST[4]
    pairs[version].append((first, last))


def _pairs(spans: _Spans) -> list[tuple[int, int]]:
    return list(zip(*spans, strict=True))


def _joined(pairs: list[tuple[int, int]]) -> _Spans:
    starts: list[int] = []
    ends: list[int] = []
    for first, last in sorted(pairs):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return tuple(starts), tuple(ends)


def _common(one: _Spans, other: _Spans) -> _Spans:
    found: list[tuple[int, int]] = []
    left, right = _pairs(one), _pairs(other)
    at = beside = 0
    while at < len(left) and beside < len(right):
        first = max(left[at][0], right[beside][0])
        last = min(left[at][1], right[beside][1])
        if first <= last:
            found.append((first, last))
        if left[at][1] < right[beside][1]:
            at += 1
        else:
            beside += 1
    return _joined(found)


def _rest(spans: _Spans, version: int) -> _Spans:
    starts, ends = spans
    pairs = zip((0, *(last + 1 for last in ends)), (*(first - 1 for first in starts), _LAST[version]), strict=True)
    return _joined([(first, last) for first, last in pairs if first <= last])
