"""Deliver: from a leased job to an outcome per recipient.

Standards: RFC 5321 section 4.5.4.
Promises: every job ends in exactly one `Attempt`, whatever happens; what one route could not hand over is tried on the
next within the same attempt.
Dangers: everything here runs on the event loop: nothing may block.
Not here: where a job goes (`relay.transports`, `relay.routing`), connections and whose turn it is (`relay.sites`), how
a connection comes about (`relay.dialling`), what a reply means (`relay.outcome`), when to try again (`relay.queue`).
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Attempt, Host, Job, Outcome, Prepared, Route, Status
from outgate.model.operations import SiteLive
from outgate.relay import outcome
from outgate.relay.dialling import DeliveryLimits, Dialler, NoHost
from outgate.relay.routing import Unroutable
from outgate.relay.sites import Site, Work
from outgate.relay.transports import Tried
from outgate.smtp.transaction import Step
from outgate.store.spool import SpoolError

__all__ = ["Delivery", "DeliveryLimits", "Preparer"]

_log = Log("outgate.delivery")
_NO_LOGIN = frozenset({530, 535, 538})
"""RFC 4954: a smart host wants a login, or another one: that is the operator's matter, not the message's fault."""


class Preparer(Protocol):
    """Where jobs get their signature (`relay.signer`)."""

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None: ...


class Ways(Protocol):
    """Where jobs get their routes (`relay.transports`)."""

    @property
    def troubled(self) -> bool: ...

    def fixed(self, job: Job) -> Route | None: ...

    async def route(self, job: Job, tried: tuple[Tried, ...] = ()) -> Route: ...

    def has_others(self, job: Job, tried: Sequence[Tried]) -> bool: ...

    def reached(self, job: Job, route: Route) -> None: ...

    def unreached(self, job: Job, route: Route, reason: str) -> None: ...


class Delivery:
    """All sites. `finished` takes each attempt; it decides on the next one."""

    def __init__(
        self,
        *,
        ways: Ways,
        signer: Preparer,
        finished: Callable[[Job, Attempt], None],
        clock: Clock,
        limits: DeliveryLimits,
        dialler: Dialler,
        may_go: Callable[[Job, str], bool] = lambda _job, _site: True,
    ) -> None:
        """`may_go` is asked with the site before a job is begun: if it says no, it has taken the job back."""
        self._ways = ways
        self._signer = signer
        self._finished = finished
        self._may_go = may_go
        self._sites: dict[tuple[str, ...], Site] = {}
        self._stopped = False
        self.clock = clock
        self.limits = limits
        self.dialler = dialler
        self.stopping = False
        self.busy = 0
        """Jobs taken and not finished yet."""

    def deliver(self, job: Job) -> None:
        """Take a job (on the event loop); its `Attempt` comes to `finished` in the end."""
        self.busy += 1
        started = self.clock.now()
        try:
            fixed = self._ways.fixed(job)
        except Unroutable as error:
            self.unrouted(job, started, error)
            return
        except Exception as error:
            self._lost(job, started, error)
            return
        if fixed is not None:
            self._routed(Work(job, fixed, started))
        else:
            spawn(self._route(job, started), "route")

    async def _route(self, job: Job, started: float) -> None:
        try:
            route = await self._ways.route(job)
        except Unroutable as error:
            self.unrouted(job, started, error)
        except Exception as error:
            self._lost(job, started, error)
        else:
            self._routed(Work(job, route, started))

    def _lost(self, job: Job, started: float, error: Exception) -> None:
        _log.exception("route.failed", queue_id=job.queue_id)
        self.unrouted(job, started, Unroutable(repr(error), permanent=False, reason="internal"))

    def _routed(self, work: Work) -> None:
        self._signer.prepare(work.job, functools.partial(self._prepared, work))

    def _prepared(self, work: Work, prepared: Prepared | None, error: Exception | None) -> None:
        if isinstance(error, SpoolError):
            # What lies in the spool is not what was accepted: it must not go out, and a person must look.
            _log.error("message.damaged", queue_id=work.job.queue_id, error=str(error))
            held = tuple(outcome.held(recipient, "the stored message is damaged") for recipient in work.job.recipients)
            self.ended(work, held, (), Host("", "", 0), "")
            return
        if prepared is None:
            text = f"the message could not be prepared: {type(error).__name__}"
            self.failed(work, text, "internal", (), Host("", "", 0))
            return
        work.prepared = prepared
        self._to_site(work)

    def _to_site(self, work: Work) -> None:
        if self.stopping:
            self.unsent()
            return
        if not self.begins(work):  # before anything is dialled for it
            return
        route = work.route
        key = (route.endpoint, route.site, route.via, route.security)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(self, key, route.site)
        site.add(work)

    # -- the next route ---------------------------------------------------------------------------------------

    def unreached(self, waiting: Sequence[Work], none: NoHost, steps: tuple[Step, ...]) -> None:
        """Hand over to the next route what no host of a site has taken, or end it if there is none."""
        if not waiting:
            return
        self._ways.unreached(waiting[0].job, waiting[0].route, none.reason)
        for work in waiting:
            tried = (*work.tried, Tried(work.route.via, none.text))
            if self.stopping or none.reason == "internal" or not self._ways.has_others(work.job, tried):
                self._given_up(work, replace(none, text=_all_of(tried)), steps)
            else:
                spawn(self._reroute(work, tried, none, steps), "reroute")

    def _given_up(self, work: Work, none: NoHost, steps: tuple[Step, ...]) -> None:
        if not none.enhanced:
            self.failed(work, none.text, none.reason, steps, none.host)
            return
        refused = functools.partial(outcome.rejected, enhanced=none.enhanced, text=none.text, reason_class=none.reason)
        self.ended(work, tuple(map(refused, work.job.recipients)), steps, none.host, "")

    async def _reroute(self, work: Work, tried: tuple[Tried, ...], none: NoHost, steps: tuple[Step, ...]) -> None:
        try:
            route = await self._ways.route(work.job, tried)
        except Unroutable as error:
            self.failed(work, str(error), none.reason, steps, none.host)
        except Exception as error:
            _log.exception("route.failed", queue_id=work.job.queue_id)
            self.failed(work, f"{none.text}; {error!r}", none.reason, steps, none.host)
        else:
            before = (*work.before, *steps)
            self._to_site(replace(work, route=route, handed_back=0, tried=tried, before=before))

    # -- ends -----------------------------------------------------------------------------------------------

    def unrouted(self, job: Job, started: float, error: Unroutable) -> None:
        """End a job for which there is no route."""
        outcomes = tuple(
            outcome.rejected(recipient, error.enhanced, str(error), error.reason)
            if error.permanent
            else outcome.failed(recipient, str(error), error.reason)
            for recipient in job.recipients
        )
        route = Route("", (), str(error))
        steps = (Step(started, f"look up MX of {job.domain}", str(error)),)
        self.ended(Work(job, route, started), outcomes, steps, Host("", "", 0), "")

    def failed(self, work: Work, text: str, reason: str, steps: tuple[Step, ...], host: Host) -> None:
        """End a job that no server has answered for now."""
        outcomes = tuple(outcome.failed(recipient, text, reason) for recipient in work.job.recipients)
        self.ended(work, outcomes, steps, host, "")

    def ended(
        self,
        work: Work,
        outcomes: tuple[Outcome, ...],
        steps: tuple[Step, ...],
        host: Host,
        tls: str,
    ) -> None:
        """Make the attempt of a job that has its outcomes and hand it on."""
        self.busy -= 1
        if self._stopped:  # the queue has given the job back already
            return
        outcomes = self._heard(work, outcomes)
        steps = work.before + steps
        attempt = Attempt(
            queue_id=work.job.queue_id,
            site=work.route.site,
            host=host.name,
            address=f"{host.address}:{host.port}" if host.address else "",
            source=host.source or "",
            tls=tls,
            started_at=work.started_at,
            finished_at=self.clock.now(),
            route_reason=work.route.reason,
            steps=steps,
            outcomes=outcomes,
            recipients=work.job.recipients,
        )
        self._finished(work.job, attempt)

    def _heard(self, work: Work, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """Note what a reply says about the route, and take a smart host's wish for a login for that alone."""
        code = outcomes[0].code if outcomes else 0
        if code == 421:
            self._ways.unreached(work.job, work.route, "unavailable")
        elif code in _NO_LOGIN and work.route.via != "direct":
            self._ways.unreached(work.job, work.route, "auth")
            return tuple(replace(each, status=Status.DEFERRED, reason="auth") for each in outcomes)
        elif code and self._ways.troubled:
            self._ways.reached(work.job, work.route)
        return outcomes

    def begins(self, work: Work) -> bool:
        """Say whether work may be begun: it may have waited long for its turn; if not, the queue has it back."""
        if self._may_go(work.job, work.route.site):
            return True
        self.busy -= 1
        return False

    def sift(self) -> None:
        """Ask again of all that waits for its turn whether it may be begun: an operator has changed something."""
        for site in list(self._sites.values()):
            site.sift()

    def live(self) -> dict[str, SiteLive]:
        """Return how each site is served now, from all endpoints together."""
        found: Counter[str] = Counter()
        for (_, name, *_), site in self._sites.items():
            found[name] += site.connections
        return {name: SiteLive(connections) for name, connections in found.items()}

    def unsent(self) -> None:
        """Let go of a job that nobody has tried, because the service stops: the queue gives it back."""
        self.busy -= 1

    async def stop(self) -> None:
        """Say goodbye on every connection; what was not sent yet is nobody's attempt and stays queued."""
        self.stopping = True
        await asyncio.gather(*(site.stop() for site in list(self._sites.values())))
        self._stopped = True

    def site_empty(self, key: tuple[str, ...]) -> None:
        """Forget a site without connections and work."""
        self._sites.pop(key, None)


def _all_of(tried: tuple[Tried, ...]) -> str:
    """Return why no route took a message."""
    return tried[0].text if len(tried) == 1 else "; ".join(f"{each.via}: {each.text}" for each in tried)
