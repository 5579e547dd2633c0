"""What a client may take from the others: connections, and time for its content.

Standards: RFC 5321 section 4.5.3.2 (time-outs; a minimum rate is our own).
Promises: no I/O, time is an argument; who entered can leave, once each.
Dangers: one `Turnstile` is shared by all listeners of a service: a cap for each would be no cap.
Not here: deadlines, and what a client is told (`smtp.asyncio.server`).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, an IPv6 /64."""
    return address if ":" not in address else str(ipaddress.ip_network((address, 64), strict=False))


class Turnstile:
    """Count open connections: `most` in all, `per_address` from one source."""

    __slots__ = ("_by_address", "_most", "_per_address", "inside")

    def __init__(self, most: int = 10_000, per_address: int = 200) -> None:
        self._most = most
        self._per_address = per_address
        self._by_address: dict[str, int] = {}
        self.inside = 0

    def enter(self, address: str) -> str:
        """Count a connection from `address` and return ""; if a cap is reached, say which and do not count it."""
        source = source_of(address)
        mine = self._by_address.get(source, 0)
        if mine >= self._per_address:
            return f"{mine} connections from this address"
        if self.inside >= self._most:
            return f"{self.inside} connections in all"
        self._by_address[source] = mine + 1
        self.inside += 1
        return ""

    def leave(self, address: str) -> None:
        """Count a connection from `address` no more; it had entered."""
        source = source_of(address)
        left = self._by_address[source] - 1
        self.inside -= 1
        if left:
            self._by_address[source] = left
        else:
            del self._by_address[source]


class Pace:
    """How fast one client sends content: octets per second, averaged over a window that begins with its message."""

    __slots__ = ("_of", "_since", "octets")

    def __init__(self) -> None:
        self._of = -1
        self._since = 0.0
        self.octets = 0
        """What came since the window began; whoever receives adds to it."""

    def too_slow(self, message: int, now: float, window: float, rate: float) -> bool:
        """Say whether less than `rate` octets a second came of message number `message` in a whole window.

        Ask now and then, at least once in a window, while content is due; another number begins a new window."""
        took = now - self._since
        if message == self._of:
            if took < window:
                return False
            if self.octets < rate * took:
                return True
        self._of = message
        self._since = now
        self.octets = 0
        return False
