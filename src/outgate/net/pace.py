"""How fast questions may leave: evenly spaced for each server, and over all servers together.

Standards: none; RFC 1034 section 5.3.3 asks that no server is bombarded.
Promises: between two turns for one server lies at least its interval, between any two turns the overall one;
turns come in the order of asking; memory is bounded by the servers that are in use.
Dangers: it counts real time, not the injected clock's: a clock that jumps must not let a crowd through.
Not here: what is sent in a turn (`net.dns`, `net.authority`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection


class Pace:
    """Turns to send one packet each. Belongs to one event loop."""

    def __init__(
        self,
        *,
        per_server: float = 20.0,
        overall: float = 200.0,
        own: Collection[str] = (),
        remembered: int = 1_000,
    ) -> None:
        """`per_server` and `overall` are packets per second; the addresses in `own` are our own servers, which only
        the overall pace holds back; `remembered` servers are kept beyond those in use."""
        if not (per_server > 0 and overall > 0):
            raise ValueError("a pace is greater than 0 packets per second")
        self._interval = 1 / per_server
        self._overall = _Gate(1 / overall)
        self._own = frozenset(own)
        self._remembered = remembered
        self._gates: dict[str, _Gate] = {}

    async def turn(self, server: str) -> None:
        """Wait until a packet may be sent to `server` (its address)."""
        if server in self._own:
            await self._common_turn()
            return
        gate = self._gate(server)
        gate.waiting += 1
        try:
            # One of a server's askers at a time stands in the common line, so that a busy server blocks no other.
            async with gate.lock:
                await gate.wait()
                await self._common_turn()
                gate.passed()
        finally:
            gate.waiting -= 1

    async def _common_turn(self) -> None:
        async with self._overall.lock:
            await self._overall.wait()
            self._overall.passed()

    def _gate(self, server: str) -> _Gate:
        gate = self._gates.get(server)
        if gate is None:
            if len(self._gates) >= self._remembered:
                self._gates = {name: one for name, one in self._gates.items() if one.in_use}
            gate = self._gates[server] = _Gate(self._interval)
        return gate


class _Gate:
    """When the next may pass, and who waits for it."""

    __slots__ = ("_interval", "_next", "lock", "waiting")

    def __init__(self, interval: float) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._interval = interval
        self._next = 0.0

    @property
    def in_use(self) -> bool:
        return self.waiting > 0 or self._next > time.monotonic()

    async def wait(self) -> None:
        # Not the loop's own time: uvloop's stands still during an iteration, and timers may end early by a fraction.
        while True:
            left = self._next - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def passed(self) -> None:
        self._next = time.monotonic() + self._interval
