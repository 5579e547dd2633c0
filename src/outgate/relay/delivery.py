"""Deliver: from a leased job to an outcome per recipient.

Standards: RFC 5321 section 4.5.4.
Promises: every job ends in exactly one `Attempt`, whatever happens.
Dangers: everything here runs on the event loop: nothing may block.
Not here: where a job goes (`relay.routing`), connections and whose turn it is (`relay.sites`), how a connection comes
about (`relay.dialling`), what a reply means (`relay.outcome`), when to try again (`relay.queue`).
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Attempt, Host, Job, Outcome, Prepared, Route
from outgate.model.operations import SiteLive
from outgate.relay import outcome
from outgate.relay.dialling import DeliveryLimits, Dialler
from outgate.relay.routing import Router, Unroutable
from outgate.relay.sites import Site, Work
from outgate.smtp.transaction import Step
from outgate.store.spool import SpoolError

__all__ = ["Delivery", "DeliveryLimits", "Preparer"]

_log = Log("outgate.delivery")


class Preparer(Protocol):
    """Where jobs get their signature (`relay.signer`)."""

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None: ...


class Delivery:
    """All sites. `finished` takes each attempt; it decides on the next one."""

    def __init__(
        self,
        *,
        router: Callable[[Job], Router],
        signer: Preparer,
        finished: Callable[[Job, Attempt], None],
        clock: Clock,
        limits: DeliveryLimits,
        dialler: Dialler,
        may_go: Callable[[Job, str], bool] = lambda _job, _site: True,
    ) -> None:
        """`router` is that of a job's endpoint. `may_go` is asked with the site before a job is
        begun: if it says no, it has taken the job back."""
        self._router = router
        self._signer = signer
        self._finished = finished
        self._may_go = may_go
        self._sites: dict[tuple[str, str, str], Site] = {}
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
            router = self._router(job)
        except Exception as error:
            self._lost(job, started, error)
            return
        if router.fixed is not None and not job.requiretls:
            self._routed(Work(job, router.fixed, started))
        else:
            spawn(self._route(router, job, started), "route")

    async def _route(self, router: Router, job: Job, started: float) -> None:
        try:
            route = await router.route(job.domain, requiretls=job.requiretls, tls_optional=job.tls_optional)
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
        if self.stopping:
            self.unsent()
            return
        if not self.begins(work):  # before anything is dialled for it
            return
        key = (work.route.endpoint, work.route.site, work.route.security)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(self, *key)
        site.add(work)

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
        for (_, name, _), site in self._sites.items():
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

    def site_empty(self, endpoint: str, name: str, security: str) -> None:
        """Forget a site without connections and work."""
        self._sites.pop((endpoint, name, security), None)
