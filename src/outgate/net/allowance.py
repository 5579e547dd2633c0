"""How much may be asked for the sake of one thing, and how old what is used for it may be.

Standards: RFC 1034 section 5.3.3: "bound the amount of work".
Promises: each packet is counted before it leaves; what a part spends is spent of the whole; `begun` orders allowances
by when they were made, whatever any clock says.
Dangers: a question that others wait for too is spent of the allowance of the one who asked first.
Not here: when a packet may leave (`net.pace`).
"""

from __future__ import annotations

import itertools

_moments = itertools.count(1)


class Allowance:
    """How many packets may still be sent, be it for one question or for a whole check of many."""

    __slots__ = ("_left", "_within", "begun", "exhausted")

    def __init__(self, packets: int, within: Allowance | None = None) -> None:
        """`within` is what this is a part of: it must allow each packet too."""
        self._left = packets
        self._within = within
        self.begun: int = within.begun if within is not None else next(_moments)
        self.exhausted = False
        """Whether a packet was refused, so that something was not asked."""

    def take(self) -> bool:
        """Say whether one more packet may be sent, and count it."""
        if self._left <= 0 or (self._within is not None and not self._within.take()):
            self.exhausted = True
            return False
        self._left -= 1
        return True
