"""Deliver: from a leased job to an outcome per recipient.

Standards: RFC 5321 section 4.5.4.
Promises: every job ends in exactly one `Attempt`, whatever happens.
Dangers: everything here runs on the event loop: nothing may block.
Not here: where a job goes (`relay.routing`), connections (`relay.sites`), how fast a site is served (`relay.shaping`),
what goes as one and whose turn it is (`relay.bundles`), how a connection comes about (`relay.dialling`), what a reply
means (`relay.outcome`), when to try again (`relay.queue`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Attempt, Host, Job, Outcome, Prepared, Route, Status
from outgate.model.operations import SiteLive
from outgate.relay import outcome
from outgate.relay.bundles import NOWHERE, Bundle, Tried, Work, bounded
from outgate.relay.dialling import DeliveryLimits, Dialler, NoHost
from outgate.relay.routing import Unroutable
from outgate.relay.shaping import Pace, PaceRules, PaceStatus, RuleBook
from outgate.relay.sites import Shared, Site
from outgate.smtp.transaction import Step
from outgate.store.spool import SpoolError

__all__ = ["Delivery", "DeliveryLimits", "Preparer", "SiteStatus"]

_log = Log("outgate.delivery")
_TOGETHER_S = 1.0
"""How long the jobs of a message wait for each other's routes."""
_ASKING = 200
"""Routes looked for at once: more questions would only fill the sockets between the name server and us."""
_NO_LOGIN = frozenset({530, 535, 538})
"""RFC 4954: a smart host wants a login, or another one: that is the operator's matter, not the message's fault."""
_CALM_FROM = 1000
"""Sites that may be remembered before those are looked for of which nothing is worth it."""
_TRIED = 300
"""Signs that are said of a route that could not take a message, in the reason for the next one."""
_Servers = tuple[str, tuple[str, ...], str, str, str]
"""Endpoint, its addresses, way, site, name of the rules (and of the login): who shares a pace."""
_Way = tuple[_Servers, Hashable, PaceRules]


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


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """One site as it is served now: how many messages wait in memory for it, and its pace (`PaceStatus`)."""

    site: str
    endpoint: str
    sources: tuple[str, ...]
    via: str
    waiting: int
    pace: PaceStatus


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
        given_back: Callable[[Job, float, str, str], None],
        rules: RuleBook | None = None,
    ) -> None:
        """`may_go` is asked with the site before a job is begun: if it says no, it has taken the job back. `given_back`
        takes jobs that nobody has tried, for their site is to be left alone until then, with the site and why; `rules`
        say how fast each site may be served."""
        self._ways = ways
        self._signer = signer
        self._finished = finished
        self._may_go = may_go
        self._given_back = given_back
        self._rules = rules or RuleBook(PaceRules(limits.connections_per_site, 0.0, limits.messages_per_connection))
        self._sites: dict[Hashable, Site] = {}
        self._shared: dict[_Servers, Shared] = {}
        self._calm_from = _CALM_FROM
        self._last_route: Route | None = None
        self._last_way: _Way = (("", (), "", "", ""), (), self._rules.usual)
        self._arrived: dict[str, list[Job]] = {}
        self._asking = asyncio.Semaphore(_ASKING)
        self._stopped = False
        self.clock = clock
        self.limits = limits
        self.dialler = dialler
        self.stopping = False
        self.busy = 0
        """Jobs taken and not finished yet."""

    def deliver(self, job: Job) -> None:
        """Take a job (on the event loop); its `Attempt` comes to `finished` in the end.

        Jobs of one message that come in one turn of the loop and lead to one site share a transaction."""
        self.busy += 1
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._begin)
        found = self._arrived.setdefault(job.queue_id, [])
        found.append(job)

    def _begin(self) -> None:
        arrived, self._arrived = self._arrived, {}
        for jobs in arrived.values():
            if self.stopping:
                for _ in jobs:
                    self.unsent()
                continue
            started = self.clock.now()
            works: list[Work] = []
            asking: list[Job] = []
            for job in jobs:
                try:
                    fixed = self._ways.fixed(job)
                except Unroutable as error:
                    self.unrouted(job, started, error)
                    continue
                except Exception as error:
                    self._lost(job, started, error)
                    continue
                if fixed is not None:
                    works.append(Work(job, fixed, started))
                else:
                    asking.append(job)
            if works:
                self._routed(works)
            if asking:
                spawn(self._ask(asking, started), "route")

    async def _ask(self, asking: list[Job], started: float) -> None:
        """Find the routes of a message's jobs. Those found within a second go on together; names that take longer keep
        nobody waiting."""
        if len(asking) == 1:
            work = await self._route(asking[0], started)
            if work is not None:
                self._routed([work])
            return
        tasks = [spawn(self._route(job, started), "route") for job in asking]
        _, late = await asyncio.wait(tasks, timeout=_TOGETHER_S)
        self._routed([work for task in tasks if task.done() and (work := task.result()) is not None])
        for task in asyncio.as_completed(late):
            if (work := await task) is not None:
                self._routed([work])

    async def _route(self, job: Job, started: float) -> Work | None:
        try:
            async with self._asking:
                return Work(job, await self._ways.route(job), started)
        except Unroutable as error:
            self.unrouted(job, started, error)
        except Exception as error:
            self._lost(job, started, error)
        return None

    def _lost(self, job: Job, started: float, error: Exception) -> None:
        _log.exception("route.failed", queue_id=job.queue_id)
        self.unrouted(job, started, Unroutable(repr(error), permanent=False, reason="internal"))

    def _routed(self, works: list[Work]) -> None:
        """Let works of one message wait for their sites, those that share one as one."""
        if len(works) == 1:
            self._prepare(Bundle(works))
            return
        for bundle in self._together(works):
            self._prepare(bundle)

    def _together(self, works: Iterable[Work]) -> list[Bundle]:
        """Return works of one message in bundles that lead to one site each, by the same rules of pace."""
        found: dict[Hashable, list[Work]] = {}
        for work in works:
            key = _key(work.route)
            if self._rules.has_exceptions:
                key = (*key, self._rules.rules(work.job.domain, (host.name for host in work.route.hosts)).name)
            found.setdefault(key, []).append(work)
        return [Bundle(together) for together in found.values()]

    def _prepare(self, bundle: Bundle) -> None:
        if self.stopping:  # the queue gives it back, or has
            for _ in bundle.works:
                self.unsent()
            return
        servers, _, _ = self._way(bundle)
        shared = self._shared.get(servers)
        if shared is not None and not shared.pace.easy:
            due = shared.pace.due(self.clock.now(), shared.waiting)
            if due:
                self.pauses(bundle, due, shared.pace)  # before it is read and signed
                return
        self._signer.prepare(bundle.job, functools.partial(self._prepared, bundle))

    def _prepared(self, bundle: Bundle, prepared: Prepared | None, error: Exception | None) -> None:
        if isinstance(error, SpoolError):
            # What lies in the spool is not what was accepted: it must not go out, and a person must look.
            _log.error("message.damaged", queue_id=bundle.job.queue_id, error=str(error))
            for work in bundle.works:
                damaged = tuple(outcome.held(each, "the stored message is damaged") for each in work.job.recipients)
                self.ended(work, damaged, (), NOWHERE, "")
            return
        if prepared is None:
            text = f"the message could not be prepared: {type(error).__name__}"
            bundle.fail(text, "internal")
            self.end(bundle)
            return
        bundle.prepared = prepared
        self._to_site(bundle)

    def _to_site(self, bundle: Bundle) -> None:
        if self.stopping:
            for _ in bundle.works:
                self.unsent()
        elif bundle.keep(self.begins):  # before anything is dialled for it
            self._site(bundle).add(bundle)

    # -- the next route ---------------------------------------------------------------------------------------

    def unreached(self, waiting: Sequence[Bundle], none: NoHost, steps: tuple[Step, ...]) -> None:
        """Hand over to the next route what no host of a site has taken, or end it if there is none."""
        if waiting and not (none.reason == "tls" and waiting[0].route.requiretls):  # that is the sender's demand
            self._ways.unreached(waiting[0].job, waiting[0].route, none.reason)
        for bundle in waiting:
            if none.reason == "internal" or not self._has_others(bundle, none.text):
                bundle.steps += steps
                bundle.host = none.host
                bundle.fail(_all_of(_tried(bundle.works[0], none.text)), none.reason, none.enhanced)
                self.end(bundle)
            else:
                spawn(self._reroute(bundle, none, steps), "reroute")

    def _has_others(self, bundle: Bundle, text: str) -> bool:
        """Say whether a bundle of which nothing was sent may go another way."""
        if self.stopping or bundle.begun:
            return False
        return all(self._ways.has_others(work.job, _tried(work, text)) for work in bundle.works)

    async def _reroute(self, bundle: Bundle, none: NoHost, steps: tuple[Step, ...]) -> None:
        found: list[Work] = []
        for work in bundle.works:
            tried = _tried(work, none.text)
            try:
                route = await self._ways.route(work.job, tried)
            except Exception as error:
                if not isinstance(error, Unroutable):
                    _log.exception("route.failed", queue_id=work.job.queue_id)
                text = str(error) if isinstance(error, Unroutable) else f"{none.text}; {error!r}"
                failed = tuple(outcome.failed(each, text, none.reason) for each in work.job.recipients)
                self.ended(work, failed, steps, none.host, "")
            else:
                found.append(replace(work, route=route, tried=tried, before=(*work.before, *steps)))
        for each in self._together(found):
            each.prepared = bundle.prepared
            if each.prepared is None:
                self._prepare(each)
            else:
                self._to_site(each)

    # -- sites ------------------------------------------------------------------------------------------------

    def _way(self, bundle: Bundle) -> _Way:
        """Return who shares a pace, who shares connections, and by which rules."""
        route = bundle.route
        if route is self._last_route and not self._rules.has_exceptions:
            return self._last_way
        rules = self._rules.rules(bundle.job.domain, (host.name for host in route.hosts))
        # What a smart host thinks of one login it need not think of another's: another configuration's, with its name.
        own = rules.name if route.via == "direct" else f"{rules.name} {route.security}"
        servers = (route.endpoint, _sources(route), route.via, route.site, own)
        self._last_route, self._last_way = route, (servers, (*_key(route), rules.name), rules)
        return self._last_way

    def _site(self, bundle: Bundle) -> Site:
        servers, key, rules = self._way(bundle)
        site = self._sites.get(key)
        if site is None:
            shared = self._shared.get(servers)
            if shared is None:
                self._forget_calm()
                shared = self._shared[servers] = Shared(Pace(rules))
            site = self._sites[key] = Site(self, key, bundle.route, shared)
        return site

    def _forget_calm(self) -> None:
        if len(self._shared) >= self._calm_from:
            now = self.clock.now()
            self._shared = {k: each for k, each in self._shared.items() if each.sites or not each.pace.is_over(now)}
            self._calm_from = max(_CALM_FROM, 2 * len(self._shared))

    def status(self) -> list[SiteStatus]:
        """Return how each site is served that has work, a connection or a pause."""
        now = self.clock.now()
        return [
            SiteStatus(site, endpoint, sources, via, shared.waiting, shared.pace.status(now))
            for (endpoint, sources, via, site, _), shared in self._shared.items()
            if shared.sites or shared.pace.until > now
        ]

    def live(self) -> dict[str, SiteLive]:
        """Return how each site is served now, from all endpoints together."""
        now = self.clock.now()
        found: dict[str, SiteLive] = {}
        for (_, _, _, name, _), shared in self._shared.items():
            before, pace = found.get(name, SiteLive()), shared.pace
            until, why = before.paused_until, before.why
            if pace.until > max(now, until or 0.0):
                until, why = pace.until, pace.why
            found[name] = SiteLive(before.connections + pace.connections, until, why)
        return found

    def forgive(self, site: str) -> None:
        """End the pauses of a site: an operator wants it tried."""
        for (_, _, _, name, _), shared in self._shared.items():
            if name == site:
                shared.pace.forgive()
                shared.pump()

    def sift(self) -> None:
        """Ask again of all that waits for its turn whether it may be begun: an operator has changed something."""
        for site in list(self._sites.values()):
            site.sift()

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
        self.ended(Work(job, route, started), outcomes, steps, NOWHERE, "")

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
        if work.before:
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
            steps=bounded(steps),
            outcomes=outcomes,
            recipients=work.job.recipients,
        )
        try:
            self._finished(work.job, attempt)
        except Exception:  # the other jobs of its bundle have their ends too
            _log.exception("attempt.not_finished", queue_id=work.job.queue_id)

    def _heard(self, work: Work, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """Note what a reply says about the route, and take a smart host's wish for a login for that alone."""
        code = outcomes[0].code if outcomes else 0
        if code == 421:
            self._ways.unreached(work.job, work.route, "unavailable")
        elif code in _NO_LOGIN and work.route.via != "direct":
            self._ways.unreached(work.job, work.route, "login")
            return tuple(_no_login(each) for each in outcomes)
        elif code and self._ways.troubled:
            self._ways.reached(work.job, work.route)
        return outcomes

    def begins(self, work: Work) -> bool:
        """Say whether work may be begun: it may have waited long for its turn; if not, the queue has it back."""
        if self._may_go(work.job, work.route.site):
            return True
        self.busy -= 1
        return False

    def end(self, bundle: Bundle) -> None:
        """End the jobs of a bundle that has all its outcomes."""
        for work, outcomes, _rest in bundle.ends():
            self.ended(work, outcomes, bundle.steps, bundle.host, bundle.tls)

    def pauses(self, bundle: Bundle, due_at: float, pace: Pace) -> None:
        """Have a message go another way while its site has a pause, or give it back to the queue until then."""
        now = self.clock.now()
        if now < pace.until:
            text = f"the site has a pause ({pace.why})"
        else:
            text = f"its turn at {pace.rules.per_minute:g} messages a minute"
        if now < pace.until and due_at and self._has_others(bundle, text):
            spawn(self._reroute(bundle, NoHost(text, "rate", NOWHERE), ()), "reroute")
        else:
            self.let_go(bundle, due_at, text)

    def let_go(self, bundle: Bundle, due_at: float = 0.0, why: str = "") -> None:
        """Give a message back to the queue, due at `due_at`, with what it has; 0: the service stops, and the queue
        takes back itself what nobody has answered."""
        for work, outcomes, rest in bundle.ends():
            job = work.job
            if rest and due_at > job.expires_at:  # only an attempt can say that it expires
                outcomes += tuple(outcome.failed(recipient, why, "rate") for recipient in rest)
            elif rest and due_at:
                left = job if len(rest) == len(job.recipients) else replace(job, recipients=rest)
                self._given_back(left, due_at, work.route.site, why)
            if outcomes:
                self.ended(work, outcomes, bundle.steps, bundle.host, bundle.tls)
            else:
                self.unsent()

    def unsent(self) -> None:
        """Let go of a job that nobody has tried: the queue has it, or gives it back when the service stops."""
        self.busy -= 1

    async def stop(self) -> None:
        """Say goodbye on every connection; what was not sent yet is nobody's attempt and stays queued."""
        self.stopping = True
        await asyncio.gather(*(site.stop() for site in list(self._sites.values())))
        self._stopped = True

    def site_empty(self, key: Hashable) -> None:
        """Forget a site without connections and work; its pace is remembered while there is something to remember."""
        self._sites.pop(key, None)


def _no_login(found: Outcome) -> Outcome:
    return replace(found, status=Status.DEFERRED, reason="login") if found.code in _NO_LOGIN else found


def _tried(work: Work, text: str) -> tuple[Tried, ...]:
    return (*work.tried, Tried(work.route.via, text[:_TRIED]))


def _all_of(tried: tuple[Tried, ...]) -> str:
    """Return why no route took a message."""
    return tried[0].text if len(tried) == 1 else "; ".join(f"{each.via}: {each.text}" for each in tried)


def _sources(route: Route) -> tuple[str, ...]:
    hosts = route.hosts
    if len(hosts) == 1:
        return (hosts[0].source or "",)
    return tuple(sorted({host.source or "" for host in hosts}))


def _key(route: Route) -> tuple[Hashable, ...]:
    """Return what must be equal for work to share a connection."""
    return (route.endpoint, _sources(route), route.via, route.site, route.security, route.requiretls)
