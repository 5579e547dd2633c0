"""Look at verified domains again, for ever: each some hours after its last look, a bounded number at once.

Standards: design section 5.7.
Promises: a domain is looked at when it is due by the injected clock; results are kept many in one transaction, and
    wake nobody unless something changed; a slow domain takes one place, until it is given up; trouble of ours is
    nobody's failure.
Dangers: the name servers are others': how often each is asked is limited where the questions are asked (`net`).
Not here: what is asked (`relay.onboarding`), what follows (`relay.standing`), what becomes of mail (`relay.holds`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.model.tenancy import Checked, NewStanding, SmtpConfiguration
from outgate.relay.onboarding import Finding, tell
from outgate.relay.standing import Schedule, after
from outgate.store.verification import Decide, Transition

_log = Log("outgate.recheck")

_LOOK_S = 60.0
_PAGE = 50
_BATCH = 10
"""Findings kept in one transaction: more would hold the interpreter, and with it the event loop, for longer."""
_CHECKS = ("spf", "dkim")
_TROUBLE = (Checked("spf", None, "error", "the check could not be made or kept; the state is kept"),)


class Examiner(Protocol):
    """Asks DNS about a configuration and keeps nothing (`relay.onboarding`)."""

    async def examine(
        self, configuration: SmtpConfiguration, types: Sequence[str], *, fresh: bool
    ) -> Sequence[Finding]: ...


class Records(Protocol):
    """Where standings are kept (`store.verification`); every method blocks."""

    def due(self, now: float, limit: int) -> Sequence[SmtpConfiguration]: ...

    def next_due(self) -> float | None: ...

    def record(
        self, findings: Sequence[tuple[str, Sequence[Checked]]], decide: Decide, *, quiet: bool = False
    ) -> list[Transition]: ...


class Recheck:
    """The round that never ends. Belongs to one event loop."""

    def __init__(
        self,
        examiner: Examiner,
        records: Records,
        clock: Clock,
        *,
        schedule: Schedule,
        changed: Callable[[], Awaitable[None]],
        at_once: int = 20,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`changed` is awaited after a state or a standing has changed; `at_once` domains are looked at together."""
        self._examiner = examiner
        self._records = records
        self._clock = clock
        self._schedule = schedule
        self._changed = changed
        self._at_once = at_once
        self._jitter = jitter
        self._poked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = spawn(self._run(), "recheck")

    async def stop(self) -> None:
        """End; what was found and not kept yet is asked again by the next run."""
        await cancel(self._task)
        self._tell_waiting(self._waiting)

    async def poke(self) -> None:
        """Look at once (the clock was moved), and return when all that is due has been looked at."""
        if self._task is None or self._task.done():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._poked.set()
        await waiting

    async def _run(self) -> None:
        while True:
            self._poked.clear()
            waiting, self._waiting = self._waiting, []
            pause = _LOOK_S
            try:
                await self._round()
                due = await asyncio.to_thread(self._records.next_due)
                if due is not None:
                    pause = min(max(due - self._clock.now(), 0.05), _LOOK_S)
            except Exception as error:
                _log.error("recheck.failed", error=repr(error))
            finally:
                self._tell_waiting(waiting)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), pause)

    def _tell_waiting(self, waiting: list[asyncio.Future[None]]) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _round(self) -> None:
        """Look at everything that is due; return when nothing is, and all that was found is kept."""
        upcoming: deque[SmtpConfiguration] = deque()
        busy: dict[asyncio.Task[tuple[Checked, ...]], str] = {}
        found: list[tuple[str, tuple[Checked, ...]]] = []
        try:
            while True:
                if not upcoming and len(busy) < self._at_once:
                    if found:  # kept first: what is kept is no longer due
                        await self._keep(found)
                        found = []
                    due = await asyncio.to_thread(self._records.due, self._clock.now(), _PAGE + len(busy))
                    taken = set(busy.values())
                    upcoming.extend(each for each in due if each.id not in taken)
                while upcoming and len(busy) < self._at_once:
                    configuration = upcoming.popleft()
                    busy[spawn(self._examine(configuration), f"recheck {configuration.domain}")] = configuration.id
                if not busy:
                    return
                done, _ = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                found += [(busy.pop(task), task.result()) for task in done]
                if len(found) >= _BATCH:
                    await self._keep(found)
                    found = []
        finally:
            for task in busy:
                task.cancel()

    async def _examine(self, configuration: SmtpConfiguration) -> tuple[Checked, ...]:
        begun = self._clock.now()
        try:
            findings = await self._examiner.examine(configuration, _CHECKS, fresh=False)
            return tuple(finding.checked(begun) for finding in findings)
        except Exception as error:
            _log.error("recheck.check_failed", domain=configuration.domain, error=repr(error))
            return _TROUBLE

    async def _keep(self, found: Sequence[tuple[str, Sequence[Checked]]]) -> None:
        def decide(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
            return after(configuration, checked, now, self._schedule, self._jitter())

        try:
            transitions = await asyncio.to_thread(self._records.record, found, decide, quiet=True)
        except Exception as error:
            if len(found) == 1:
                raise
            # One of them may be at fault: each gets its own transaction, and who cannot be kept is looked at later.
            _log.error("recheck.not_kept", domains=len(found), error=repr(error))
            for one in found:
                await self._keep_alone(one)
            return
        told = [tell(transition, self._schedule.grace) for transition in transitions]  # each of them
        if any(told):
            await self._changed()

    async def _keep_alone(self, found: tuple[str, Sequence[Checked]]) -> None:
        try:
            await self._keep([found])
        except Exception as error:
            _log.error("recheck.not_kept", smtp_config_id=found[0], error=repr(error))
            await self._keep([(found[0], _TROUBLE)])
