"""Give mail that is held for its quota the times at which it goes, where those it has are good no longer.

Standards: design section 5.8.
Promises: mail that a hold's end let go on, that became due while nobody was there, or whose quota is another one by now
    goes as the quota of now has it; a helping at a time, so that neither the event loop nor the messages that are
    being stored wait for it; what could not be written is planned anew at the next look.
Dangers: who comes while that is done is planned too, and may go before what has waited longer. What goes by its former
    time meanwhile still has its place in the new plan.
Not here: when there is room (`relay.quota`), the rows (`store.quota_rows`), other holds (`relay.holds`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.tenancy import Quota
from outgate.relay.quota import DAY_S, Quotas, minute_of

_log = Log("outgate.relay.planning")

_HELPING = 500
"""Messages that get their times at once: a few milliseconds of the event loop, as many of the commit thread."""
_LATE_S = 60.0
"""How long mail may be due already when we start: what is longer has come by others that wait as long."""


class PlannedRows(Protocol):
    """The queue's part (`store.sqlite`); every method blocks."""

    def counted(self, since: float, until: float) -> list[tuple[str, int, int]]: ...

    def late_for_quota(self, before: float) -> list[str]: ...

    def held_for_quota(self, smtp_config_id: str, until: float) -> list[tuple[str, float]]: ...

    def plan_held(self, times: Sequence[tuple[str, float]]) -> int: ...


class Planning:
    """Which configurations have mail that wants other times. Belongs to one event loop."""

    def __init__(
        self,
        rows: PlannedRows,
        quotas: Quotas,
        wanted: Callable[[Sequence[str]], Mapping[str, Quota | None]],
        clock: Clock,
        *,
        planned: Callable[[], object],
    ) -> None:
        """`wanted` returns the quotas of these configurations, without those that are deleted; it blocks. `planned` is
        called when something may be due that was not."""
        self._rows = rows
        self._quotas = quotas
        self._wanted = wanted
        self._clock = clock
        self._planned = planned
        self._unplanned: set[str] = set()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Take up what earlier runs counted, and plan what should have gone while nobody was there."""
        now = self._clock.now()
        self._quotas.restore(await asyncio.to_thread(self._rows.counted, now - DAY_S, now + DAY_S), now)
        self._unplanned.update(await asyncio.to_thread(self._rows.late_for_quota, now - _LATE_S))
        if self._unplanned:
            async with self._turn:
                await self._level({})

    async def again(self, smtp_config_id: str) -> None:
        """Plan what a configuration has held for its quota anew."""
        self._unplanned.add(smtp_config_id)
        await self.changed()

    async def changed(self) -> None:
        """Look at the control store again: quotas may be others."""
        async with self._turn:
            await self._level(self._quotas.holding(self._clock.now()))

    async def _level(self, holding: Mapping[str, Quota | None]) -> None:
        """Plan what wants it, and what is held by another quota than `holding` says."""
        asked = tuple({*holding, *self._unplanned})
        if not asked:
            return
        wanted = await asyncio.to_thread(self._wanted, asked)
        for each in asked:
            if each in self._unplanned or (each in wanted and holding[each] != wanted[each]):
                self._unplanned.discard(each)
                try:
                    await self._plan(each, wanted.get(each))
                except BaseException:
                    self._unplanned.add(each)
                    raise

    async def _plan(self, smtp_config_id: str, quota: Quota | None) -> None:
        since = self._clock.now()
        # From here on what comes new is planned by the quota of now; what was there by `since` is taken out.
        self._quotas.begin_again(smtp_config_id, quota, since)
        held, counted = await asyncio.to_thread(self._held, smtp_config_id, since)
        self._quotas.take_out(smtp_config_id, counted)
        moved = 0
        for at in range(0, len(held), _HELPING):
            helping = held[at : at + _HELPING]
            times = self._quotas.plan(smtp_config_id, quota, len(helping), self._clock.now())
            try:
                moved += await asyncio.to_thread(self._rows.plan_held, list(zip(helping, times, strict=True)))
            except Exception:
                for each in times:
                    self._quotas.give_back(smtp_config_id, each)
                raise
        _log.info("quota.planned", smtp_config_id=smtp_config_id, messages=moved)
        self._planned()

    def _held(self, smtp_config_id: str, since: float) -> tuple[list[str], Counter[int]]:
        """Return what was held by `since`, in the order in which it is to go, and the minutes it was counted in that
        are past."""
        held = self._rows.held_for_quota(smtp_config_id, since)
        past = minute_of(since)
        counted = Counter(minute for _, at in held if (minute := minute_of(at)) <= past)
        return [queue_id for queue_id, _ in held], counted
