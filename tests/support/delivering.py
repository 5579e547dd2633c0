"""Delivery as a test drives it: jobs in, attempts out, to servers on loopback."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outgate.base.clock import FrozenClock
from outgate.model.flow import Attempt, Host, Job, JobRecipient, Location, Prepared, Route, SigningKey
from outgate.relay.bundles import Tried
from outgate.relay.delivery import Delivery
from outgate.relay.dialling import DeliveryLimits, Dialler
from outgate.relay.shaping import RuleBook

_numbers = itertools.count(1)


@dataclass
class Desk:
    """Routes are looked up by domain in `routes`, else all go to `port` as the site mx.test."""

    port: int = 0
    routes: dict[str, Route] = field(default_factory=dict)
    limits: DeliveryLimits = field(default_factory=DeliveryLimits)
    rules: RuleBook | None = None
    tls: ssl.SSLContext | None = None
    clock: FrozenClock = field(default_factory=FrozenClock)
    attempts: list[Attempt] = field(default_factory=list)
    given_back: list[tuple[str, float]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    prepared: int = 0
    troubled: bool = False

    def __post_init__(self) -> None:
        self._done: dict[tuple[str, str], asyncio.Future[Attempt | float]] = {}
        self.delivery = Delivery(
            ways=self,
            signer=self,
            finished=self._finished,
            clock=self.clock,
            limits=self.limits,
            dialler=Dialler(clock=self.clock, limits=self.limits, tls=self.tls),
            given_back=self._given_back,
            rules=self.rules,
        )

    def fixed(self, job: Job) -> Route | None:
        return None

    async def route(self, job: Job, tried: tuple[Tried, ...] = ()) -> Route:
        return self.routes.get(job.domain) or self.route_to("mx.test", self.port)

    def has_others(self, job: Job, tried: Sequence[Tried]) -> bool:
        return False

    def reached(self, job: Job, route: Route) -> None:
        pass

    def unreached(self, job: Job, route: Route, reason: str) -> None:
        pass

    def route_to(self, site: str, port: int, security: str = "opportunistic") -> Route:
        return Route(
            site, (Host(site, "127.0.0.1", port, None),), f"MX 10 {site}", "dal", "out.dal.test", "direct", security
        )

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None:
        self.prepared += 1
        assert job.content is not None
        asyncio.get_running_loop().call_soon(done, Prepared(job, b"DKIM-Signature: x\r\n", job.content), None)

    def send(
        self, name: str, *paths: str, configuration: str = "cfg", expires_at: float = 1e12, text: bytes = b""
    ) -> list[asyncio.Future[Attempt | float]]:
        """Hand a message on, a job per domain; each is answered by an attempt, or by when it is due again."""
        domains: dict[str, list[JobRecipient]] = {}
        for path in paths or ("b@other.test",):
            domain = path.rpartition("@")[2]
            domains.setdefault(domain, []).append(JobRecipient(next(_numbers), path, domain, 0))
        for domain, recipients in domains.items():
            self._done[name, domain] = asyncio.get_running_loop().create_future()
            self.delivery.deliver(
                Job(
                    name, "inst", configuration, SigningKey("k", "shop.test", "s"), "a@shop.test", domain,
                    tuple(recipients), Location(0, 0, 0, 0), 0.0, expires_at, False, False, b"",
                    b"Subject: " + name.encode() + b"\r\n\r\n" + text,
                )
            )  # fmt: skip
        return [self._done[name, domain] for domain in domains]

    async def sent(self, name: str, *paths: str, text: bytes = b"") -> Attempt:
        """Hand on a message to one domain and return its attempt."""
        (done,) = self.send(name, *paths, text=text)
        attempt = await done
        assert isinstance(attempt, Attempt)
        return attempt

    def _finished(self, job: Job, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        done = self._done[job.queue_id, job.domain]
        if not done.done():
            done.set_result(attempt)

    def _given_back(self, job: Job, due_at: float, site: str, why: str) -> None:
        self.told.append((site, why))
        self.given_back.append((job.queue_id, due_at))
        done = self._done[job.queue_id, job.domain]
        if not done.done():
            done.set_result(due_at)
