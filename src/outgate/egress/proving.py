"""Ask again and again whether the dedicated addresses are really ours to leave from.

Standards: none.
Promises: an address is asked for when it is first seen and every `interval_s` after; one question about an address at a
    time; who keeps rules is told as soon as an answer differs from the one before.
Dangers: an address that was never answered for is neither proven nor refuted: nothing is concluded from it.
Not here: how an address is proven (`proof`), what follows (`reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn

_log = Log("outgate.egress.proving")

Prove = Callable[[str], Awaitable[str]]
"""Returns "" for an address that connections can leave from, else why not."""


@dataclass(frozen=True, slots=True)
class _Answer:
    reason: str
    at: float


class Proving:
    """The answers about addresses. Lives on one event loop."""

    def __init__(self, prove: Prove, clock: Clock, *, interval_s: float) -> None:
        self._prove = prove
        self._clock = clock
        self._interval_s = interval_s
        self._answers: dict[str, _Answer] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when an answer differs from the one before."""

    def reason(self, address: str) -> str | None:
        """Return "" if an address is proven, else why not; None if that is not known yet."""
        answer = self._answers.get(address)
        return None if answer is None else answer.reason

    def look(self, addresses: Collection[str]) -> None:
        """Ask for those of `addresses` that are due, and forget all others."""
        for address in self._answers.keys() - set(addresses):
            del self._answers[address]
        now = self._clock.now()
        for address in addresses:
            answer = self._answers.get(address)
            due = answer is None or not answer.at <= now < answer.at + self._interval_s
            if due and address not in self._asking:
                self._asking[address] = spawn(self._ask(address), f"egress proof {address}")

    async def settled(self) -> None:
        """Wait until nothing is being asked."""
        while self._asking:
            await asyncio.wait(list(self._asking.values()))

    async def close(self) -> None:
        """Ask no more."""
        for task in list(self._asking.values()):
            await cancel(task)

    async def _ask(self, address: str) -> None:
        try:
            try:
                reason = await self._prove(address)
            except Exception as error:
                reason = f"{address} cannot be proven: {error!r}"
            before = self._answers.get(address)
            self._answers[address] = _Answer(reason, self._clock.now())
        finally:
            del self._asking[address]
        if before is None or before.reason != reason:
            (_log.warning if reason else _log.info)("egress.proof", address=address, reason=reason or "proven")
            self.changed()
