"""Hold queued mail of configurations that may not send for now, and let it go on when they may again.

Standards: design section 5.7: a suspended, withdrawn or deleted configuration's mail is held, never bounced for it.
Promises: nothing is begun for a configuration that is held; expiry stands still meanwhile; what has been held for
    14 days ends as `expired`, and only if it still is held; a restart, and a change that could not be written, change
    nothing of that: what is not done yet is done at the next look.
Dangers: the first job of a configuration reads the control store on the event loop: a fraction of a millisecond.
Not here: who is suspended (`relay.standing`), new mail of such a configuration (`relay.policy`), rows (`store`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.model.flow import Attempt, Job, Outcome, Report, Status

_log = Log("outgate.holds")

REASONS = ("suspended", "withdrawn", "deleted")
WORDS = {
    "suspended": "held: the domain is suspended, because its DNS records no longer let us send for it",
    "withdrawn": "held: the configuration's authorisation has been withdrawn",
    "deleted": "held: the configuration has been deleted",
}
_RELEASED = "released: the configuration may send again"
_ENDED = "held for as long as mail is held"
_LOOK_S = 60.0
_KNOWN = 100_000
_HELPING = 4_194_304
"""Octets of reports after which what has expired is stored."""


class HeldRows(Protocol):
    """The queue's part (`store.sqlite`); every method blocks."""

    def hold_waiting(self, smtp_config_id: str, reason: str, words: str, now: float) -> int: ...

    def release_held(self, smtp_config_id: str, reasons: Sequence[str], words: str, now: float) -> int: ...

    def held_too_long(self, reasons: Sequence[str], before: float) -> Iterator[list[Job]]: ...

    def expire_held(
        self,
        jobs: Sequence[tuple[Job, Report | None]],
        reasons: Sequence[str],
        before: float,
        words: str,
        now: float,
        done: Callable[[Exception | None, tuple[Job, ...]], object],
    ) -> int: ...

    def held_configurations(self, reasons: Sequence[str]) -> list[str]: ...

    def unfinished_configurations(self) -> list[str]: ...


class Holds:
    """Which configurations are held, and what of them is. Belongs to one event loop."""

    def __init__(
        self,
        rows: HeldRows,
        states: Callable[[Sequence[str]], Mapping[str, str]],
        clock: Clock,
        *,
        released: Callable[[str], Awaitable[object]],
        longest_s: float,
        report: Callable[[Job, Attempt], Report | None] = lambda _job, _attempt: None,
        reported: Callable[[Exception | None, tuple[Job, ...]], object] = lambda _error, _jobs: None,
    ) -> None:
        """`states` says which of these configurations are held and why; `released` is awaited with each
        that is held no more, again later if it raises; `longest_s` is how many seconds mail is held at most. `report`
        writes what the sender of mail that ends is told (in a thread); `reported` gets the jobs of that once stored."""
        self._rows = rows
        self._states = states
        self._clock = clock
        self._released = released
        self._longest_s = longest_s
        self._report = report
        self._reported = reported
        # What the control store says, and what has been done to the queue's rows because of it: when doing that
        # fails, the two differ until it is done.
        self._said: dict[str, str] = {}
        self._done: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def reason(self, smtp_config_id: str) -> str:
        """Return why a configuration's mail is held: one of `REASONS`, or "" if it is not. Raises what the control
        store raises when it is asked for the first time."""
        found = self._said.get(smtp_config_id)
        if found is None:
            if len(self._said) >= _KNOWN:  # those that are held are few, and must be noticed when they are no more
                self._said = {key: why for key, why in self._said.items() if why}
            found = self._said[smtp_config_id] = self._states([smtp_config_id]).get(smtp_config_id, "")
        return found

    async def start(self) -> None:
        """Take up what an earlier run left, and begin to watch."""
        waiting = await asyncio.to_thread(self._rows.unfinished_configurations)
        self._said = dict.fromkeys(waiting, "")
        await self.changed()
        self._task = spawn(self._run(), "holds")

    async def stop(self) -> None:
        """Stop watching."""
        await cancel(self._task)

    async def changed(self) -> None:
        """Look at the control store again: hold what is newly to be held, release what no longer is."""
        async with self._turn:
            await self._level()

    async def look(self) -> None:
        """Do what has not been done yet, and end what has been held for too long."""
        async with self._turn:
            # First of all: nobody's mail may end as held who may send again.
            await self._level()
            count = await asyncio.to_thread(self._expire, self._clock.now())
        if count:
            _log.warning("hold.expired", recipients=count, after_s=self._longest_s)

    def _expire(self, now: float) -> int:
        """End what has been held for too long, in helpings of as much as fits in memory; runs in a thread."""
        before, count = now - self._longest_s, 0
        for jobs in self._rows.held_too_long(REASONS, before):
            for some in _helpings((job, self._report(job, _end(job, now))) for job in jobs):
                count += self._rows.expire_held(some, REASONS, before, _ENDED, now, self._reported)
        return count

    async def _level(self) -> None:
        """Bring the rows to what the control store says."""
        held = await asyncio.to_thread(self._rows.held_configurations, REASONS)
        known = list({*self._said, *held})
        if not known:
            return
        states = await asyncio.to_thread(self._states, known)
        # At once, for all: from here on nothing of theirs is handed on.
        self._said.update((each, states.get(each, "")) for each in known)
        for each in known:
            why = self._said[each]
            if why and self._done.get(each) != why:
                await self._hold(each, why)
                self._done[each] = why
            elif not why and (each in held or each in self._done):
                self._done.setdefault(each, "")  # should this fail half way, nothing else may remember it
                await self._release(each)
                self._done.pop(each, None)

    async def _hold(self, smtp_config_id: str, reason: str) -> None:
        now = self._clock.now()
        count = await asyncio.to_thread(self._rows.hold_waiting, smtp_config_id, reason, WORDS[reason], now)
        _log.info("hold.begun", smtp_config_id=smtp_config_id, reason=reason, recipients=count)

    async def _release(self, smtp_config_id: str) -> None:
        now = self._clock.now()
        count = await asyncio.to_thread(self._rows.release_held, smtp_config_id, REASONS, _RELEASED, now)
        await self._released(smtp_config_id)
        _log.info("hold.released", smtp_config_id=smtp_config_id, recipients=count)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                _log.error("hold.look_failed", error=repr(error))
            await asyncio.sleep(_LOOK_S)


def _end(job: Job, now: float) -> Attempt:
    """Return the end of a job that was held for too long, as an attempt that spoke to nobody."""
    outcomes = tuple(Outcome(each.id, Status.EXPIRED, 0, "", _ENDED, "held-too-long") for each in job.recipients)
    return Attempt(job.queue_id, "", "", "", "", "", now, now, _ENDED, (), outcomes, None, job.recipients)


def _helpings(found: Iterable[tuple[Job, Report | None]]) -> Iterator[list[tuple[Job, Report | None]]]:
    some: list[tuple[Job, Report | None]] = []
    octets = 0
    for job, report in found:
        some.append((job, report))
        octets += len(report.message.submission.content) if report is not None else 0
        if octets >= _HELPING:
            yield some
            some, octets = [], 0
    if some:
        yield some
