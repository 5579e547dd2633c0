"""What a client may take from the others: places for its connections, and time for its content.

Standards: RFC 5321 section 4.5.3.2 (time-outs; a minimum rate is our own).
Promises: no I/O, time is an argument; every place that was taken can be given back, once each.
Dangers: one `Places` is shared by all listeners of a service: a cap for each would be no cap.
Not here: deadlines, and what a client is told (`smtp.asyncio.server`).
"""

from __future__ import annotations


class Places:
    """Count open connections: `most` in all, `per_address` from one address."""

    __slots__ = ("_by_address", "_most", "_per_address", "taken")

    def __init__(self, most: int = 10_000, per_address: int = 200) -> None:
        self._most = most
        self._per_address = per_address
        self._by_address: dict[str, int] = {}
        self.taken = 0

    def take(self, address: str) -> str:
        """Take a place for a connection from `address`; return "" or, if there is none, whose cap is reached."""
        mine = self._by_address.get(address, 0)
        if mine >= self._per_address:
            return f"{mine} connections from this address"
        if self.taken >= self._most:
            return f"{self.taken} connections in all"
        self._by_address[address] = mine + 1
        self.taken += 1
        return ""

    def give_back(self, address: str) -> None:
        """Give back a place that was taken."""
        left = self._by_address[address] - 1
        self.taken -= 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]


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
