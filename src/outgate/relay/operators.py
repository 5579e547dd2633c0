"""What operators do to queued mail, in the running service: hold, release, retry now, cancel, reroute.

Standards: none.
Promises: from the moment that a hold stands nothing that it covers is begun; what delivery has but has not begun comes
    back for a hold, a cancellation or a route; what is being sent meets the hold or cancellation if it comes back;
    holds stand over restarts.
Dangers: a message that is being sent cannot be called back: the answer counts it as under way.
Not here: rows (`store.verbs`), HTTP (`api.operations`), holds of configurations that may not send (`relay.holds`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.flow import Job
from outgate.model.operations import (
    DIRECT,
    Done,
    Order,
    Scope,
    SiteDepth,
    SiteLive,
    Standing,
    StandingHold,
    Verb,
    Waiting,
)
from outgate.store.verbs import Verbs

_log = Log("outgate.operators")
_ROUNDS = 20
_RECALLING = (Verb.HOLD, Verb.CANCEL, Verb.REROUTE)


class NoSuchRoute(Exception):
    """Nobody knows a route of that name; `names` are those there are."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"there is no route {name!r}: there are {', '.join(names)}")
        self.names = tuple(names)


class Schedule(Protocol):
    """What is needed of the running queue (`relay.queue`)."""

    def recall(self, recipients: Iterable[int]) -> None: ...

    def under_way(self, wanted: Callable[[Job], bool]) -> list[int]: ...

    def under_way_by_domain(self, wanted: Callable[[Job], bool] | None = None) -> Mapping[str, int]: ...

    def look(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Depths:
    """How deep the queue is: how many sites there are, the sums over all of them by kind, and a page of them, each with
    how delivery serves it and the hold that stands for it, if one does."""

    sites: int
    sums: Mapping[str, int]
    page: Sequence[tuple[SiteDepth, SiteLive, StandingHold | None]]


class Operators:
    """Belongs to one event loop."""

    def __init__(
        self,
        verbs: Verbs,
        schedule: Schedule,
        clock: Clock,
        *,
        sift: Callable[[], object] = lambda: None,
        released: Callable[[str], Awaitable[object]],
        routes: Callable[[Collection[str]], Sequence[str]] = lambda _smtp_config_ids: (DIRECT,),
        live: Callable[[], Mapping[str, SiteLive]] = dict,
        forgive: Callable[[str], object] = lambda _site: None,
    ) -> None:
        """`sift` has delivery ask again of what waits in it; `released` is awaited with each configuration of which
        something was released; `routes` names those that these configurations (none given: all) have, and blocks;
        `live` says how sites are served, `forgive` ends the back-off of one."""
        self._verbs = verbs
        self._schedule = schedule
        self._clock = clock
        self._sift = sift
        self._released = released
        self._routes = routes
        self._live = live
        self._forgive = forgive
        self._standing = Standing()
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Take up the holds that an earlier run left."""
        self._standing = await asyncio.to_thread(self._verbs.holds)

    def holds(self) -> list[StandingHold]:
        """Return the holds that stand, the oldest first."""
        return self._standing.all()

    def stopped(self, job: Job, site: str = "") -> StandingHold | None:
        """Return a hold that covers a job (at `site`, once that is known)."""
        if not self._standing:
            return None
        return self._standing.find(job.instance_id, job.smtp_config_id, job.domain, site)

    async def known(self, queue_ids: Sequence[str]) -> list[str]:
        """Return which of these messages there are."""
        return await asyncio.to_thread(self._verbs.known, queue_ids)

    async def waiting(self, scope: Scope, limit: int, offset: int) -> tuple[int, list[Waiting]]:
        """Return how many recipients of a scope wait, and a page of them."""
        return await asyncio.to_thread(self._verbs.waiting, scope, limit, offset)

    async def depths(self, scope: Scope, *, by_age: bool, limit: int, offset: int) -> Depths:
        """Return how deep the sites are that mail of a scope waits for; the deepest first, or the oldest."""
        going = self._schedule.under_way_by_domain(None if scope.empty else _wanted(scope))
        count, sums, page = await asyncio.to_thread(
            self._verbs.depth, scope, self._clock.now(), going, by_age=by_age, limit=limit, offset=offset
        )
        live, standing = self._live(), self._standing
        return Depths(
            count,
            sums,
            [
                (
                    site,
                    live.get(site.name, SiteLive()),
                    standing.find(
                        scope.instance_id,
                        scope.smtp_config_id,
                        site.held_domain or scope.domain or site.name,
                        site.name,
                    ),
                )
                for site in page
            ],
        )

    async def weigh(self, order: Order) -> Done:
        """Say what an order would come to. Raises `NoSuchRoute`."""
        await self._check_route(order)
        return await asyncio.to_thread(self._verbs.weigh, order, self._schedule.under_way(_wanted(order.scope)))

    async def carry_out(self, order: Order, *, standing: bool = False) -> Done:
        """Do what is ordered; with `standing` a hold counts for what comes too. Raises `NoSuchRoute`; `ValueError` for
        a scope that nothing can be done for."""
        if order.scope.empty:
            raise ValueError("an order needs a scope")
        await self._check_route(order)
        async with self._changing:
            if order.verb is Verb.HOLD and standing:
                if order.scope.queue_ids:
                    raise ValueError("a hold that stands is not for single messages")
                hold = StandingHold(order.scope, order.actor, order.at, order.why)
                self._standing = await asyncio.to_thread(self._verbs.stand, hold)
            elif order.verb is Verb.RELEASE:
                _, self._standing = await asyncio.to_thread(self._verbs.end, order.scope)
        done = await self._rounds(order)
        _log.info(
            "operators.order",
            verb=order.verb.value,
            scope=order.scope.words(),
            by=order.actor,
            reason=order.why,
            recipients=done.changed,
            under_way=done.under_way,
        )
        return done

    async def _rounds(self, order: Order) -> Done:
        """Find and do, until nothing more is found: what was coming back from delivery is found by the next look."""
        done, seen = Done(), set[int]()
        wanted = _wanted(order.scope)
        again = order.verb in (Verb.HOLD, Verb.RELEASE, Verb.CANCEL) and not order.scope.queue_ids
        for _ in range(_ROUNDS):
            before = self._schedule.under_way(wanted)
            found = await asyncio.to_thread(self._verbs.find, order.scope)
            numbers = sorted({*before, *found, *self._schedule.under_way(wanted)} - seen)
            if not numbers:
                break
            step = await asyncio.to_thread(self._verbs.obey, order, numbers)
            done.add(step.done)
            if order.verb in _RECALLING and step.under_way:
                self._schedule.recall(step.under_way)
                self._sift()
            await self._then(order, step.configurations, step.sites)
            if not again:
                break
            seen.update(numbers)
        return done

    async def _then(self, order: Order, configurations: Collection[str], sites: Collection[str]) -> None:
        """Have go what may go now."""
        if order.verb is Verb.RELEASE:
            for each in configurations:
                await self._released(each)
        elif order.verb is Verb.RETRY:
            for site in {*sites, order.scope.site} - {""}:
                self._forgive(site)
        if order.verb in (Verb.RELEASE, Verb.RETRY, Verb.REROUTE):
            self._schedule.look()

    async def _check_route(self, order: Order) -> None:
        if order.verb is not Verb.REROUTE or not order.route:
            return
        of = [order.scope.smtp_config_id] if order.scope.smtp_config_id else []
        names = await asyncio.to_thread(self._routes, of)
        if order.route not in names:
            raise NoSuchRoute(order.route, names)


def _wanted(scope: Scope) -> Callable[[Job], bool]:
    """Return whether a job may be of a scope; its site is not known here."""
    queue_ids = frozenset(scope.queue_ids)

    def wanted(job: Job) -> bool:
        return (
            (not queue_ids or job.queue_id in queue_ids)
            and scope.instance_id in ("", job.instance_id)
            and scope.smtp_config_id in ("", job.smtp_config_id)
            and scope.domain in ("", job.domain)
        )

    return wanted
