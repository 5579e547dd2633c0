"""Which way a message goes out: the routes of its configuration in their order, by how well each works.

Standards: RFC 5321 section 5.1 (loops), RFC 8314, RFC 4954.
Promises: the first route that works is taken, and the reason says why it is not one before it; a job that one route
could not hand over goes to the next at once; a way that rests is tried again by itself; how one site answers says
nothing of another; an operator's mistake (a name that is not found, a smart host that is ourselves) defers mail, it
never bounces.
Dangers: a smart host is told passwords: what TLS it must have is decided here, kept by `relay.dialling`.
Not here: the hosts of a domain (`relay.routing`), scores (`relay.health`), connecting (`relay.dialling`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from outgate.base.clock import Clock, rfc3339
from outgate.base.log import Log
from outgate.model.flow import Host, Job, Login, Route, TlsDemand, TlsLevel
from outgate.model.routes import DIRECT, Forward, RouteSpec, RouteTls, RouteType
from outgate.net.dns import AddressAnswer
from outgate.relay.bundles import Tried
from outgate.relay.endpoints import Endpoint
from outgate.relay.health import Health, Healths
from outgate.relay.routing import Router, Unroutable, no_source
from outgate.relay.sources import Source, Sources

_log = Log("outgate.routes")
_KNOWN = 10_000
_ADDRESSES = 20
_OWN_FAULTS = frozenset({"tls", "login"})
"""What says something about a route's login or demands, not about the place that others share with it."""
_NOBODYS_FAULTS = frozenset({"source", "internal"})


class Addresses(Protocol):
    """The look-up that smart hosts need (`net.dns`)."""

    async def hosts(self, name: str) -> AddressAnswer: ...


class Stored(Protocol):
    """What is stored of routes (`store.routes`); its calls block."""

    def of(self, smtp_config_id: str) -> tuple[RouteSpec, ...]: ...

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]: ...

    def forward(self, program_id: str, environment_id: str, port_orig: int) -> Forward: ...


class Transports:
    """All ways out. Belongs to one event loop."""

    def __init__(
        self,
        *,
        names: Addresses,
        routers: Mapping[str, Router],
        endpoint_of: Callable[[str], Endpoint],
        stored: Stored,
        sources: Sources,
        clock: Clock,
        defaults: Sequence[RouteSpec] = (DIRECT,),
        own_names: frozenset[str] = frozenset(),
        permitted: Callable[[str, str], bool],
        ourselves: Callable[[str, int], bool] = lambda _address, _port: False,
    ) -> None:
        """`routers` are by endpoint (id), `endpoint_of` is an instance's. `defaults` are the routes of a configuration
        that has none. `permitted` judges (name, address) of smart hosts; `ourselves` says whether we listen there."""
        self._names = names
        self._routers = routers
        self._endpoint_of = endpoint_of
        self._stored = stored
        self._sources = sources
        self._clock = clock
        self._defaults = tuple(defaults) or (DIRECT,)
        self._own = own_names
        self._permitted = permitted
        self._ourselves = ourselves
        self._orders: dict[str, tuple[int, tuple[RouteSpec, ...]]] = {}
        self._forwards: dict[str, Forward] = {}
        self._generation = 0
        self.healths = Healths()

    # -- what delivery asks -----------------------------------------------------------------------------------

    def fixed(self, job: Job) -> Route | None:
        """Return the one route of all mail if a setting gives it: no configuration's routes lead past that. Raises
        `Unroutable`."""
        return self._router(job).fixed_for(requiretls=job.requiretls)

    async def route(self, job: Job, tried: tuple[Tried, ...] = ()) -> Route:
        """Return the route that a job takes, after those that were `tried` for it. Raises `Unroutable`."""
        order = await self._wanted(job)
        resting: list[tuple[RouteSpec, Route]] = []
        why = [f"{each.via} failed just now ({each.text})" for each in tried]
        barred: list[Unroutable] = []
        for spec in order:
            if any(each.via == spec.name for each in tried):
                continue
            try:
                made = await self._made(job, spec)
            except Unroutable as error:
                if error.permanent and spec is order[0]:
                    raise
                barred.append(error)
                why.append(f"{spec.name} cannot be used ({error})")
                self._barred(job, spec, error)
                continue
            health = self._health(job, spec, made)
            now = self._clock.now()
            if len(order) == 1 or not health.resting or health.may_be_tried(now):
                return self._taken(job, spec, made, order, health, why)
            resting.append((spec, made))
            failures = f"{health.failures} time{'s' * (health.failures != 1)}"
            why.append(f"{spec.name} failed {failures}, tried again at {rfc3339(health.try_at)[11:]}")
        if resting:  # all rest: better one that may not work than none
            spec, made = resting[0]
            return replace(made, reason=f"route {spec.name}: none works well ({'; '.join(why)}); {made.reason}")
        reason = barred[-1].reason if barred else "network"
        raise Unroutable("; ".join(why) or "there is no route", permanent=False, reason=reason)

    @property
    def troubled(self) -> bool:
        """Say whether anything has failed of late: only then does a success tell something."""
        return len(self.healths) > 0

    def has_others(self, job: Job, tried: Sequence[Tried]) -> bool:
        """Say whether a job may have another route than those that were tried."""
        return not job.route and len(self._known(job)) > len(tried) and not self._router(job).is_fixed

    def reached(self, job: Job, route: Route) -> None:
        """Note that a server of a route has answered a message, whatever it said."""
        spec = self._spec(job, route.via)
        now = self._clock.now()
        for key in self._keys(job, spec, route):
            before = self.healths.of(key)
            if before.failures or before.resting:
                after = self.healths.worked(key, now)
                if before.resting and not after.resting:
                    _log.info("route.returned", route=route.via, place=" ".join(key[1:]))

    def unreached(self, job: Job, route: Route, reason: str) -> None:
        """Note that no server of a route took us, or that one said it was about to leave; `reason` is a class word."""
        self._failed(self._keys(job, self._spec(job, route.via), route), reason, route.via)

    def forget(self) -> None:
        """Read routes and forwards anew when they are next needed: something was changed in the store."""
        self._generation += 1
        self._forwards.clear()

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]:
        """Return the names that messages of these configurations (none given: of all) may be sent by. Blocks."""
        defaults = (DIRECT.name, *(spec.name for spec in self._defaults))
        return tuple(dict.fromkeys((*defaults, *self._stored.names(smtp_config_ids))))

    async def made(self, instance_id: str, smtp_config_id: str, name: str, domain: str) -> Route:
        """Return one route of a configuration as it would be taken now for a recipient's `domain`, whatever its health.
        Raises `Unroutable`, `LookupError` for a name that is none."""
        order = await self._order(smtp_config_id)
        spec = next((each for each in order if each.name == name), DIRECT if name == DIRECT.name else None)
        if spec is None:
            raise LookupError(name)
        return await self._make(spec, self._endpoint_of(instance_id), domain)

    # -- orders -----------------------------------------------------------------------------------------------

    async def _order(self, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        generation, found = self._orders.get(smtp_config_id, (-1, ()))
        if generation != self._generation:
            generation = self._generation  # as it is before reading: what changes meanwhile is read the next time
            found = await asyncio.to_thread(self._stored.of, smtp_config_id) or self._defaults
            if len(self._orders) >= _KNOWN:
                self._orders.clear()
            self._orders[smtp_config_id] = generation, found
        return found

    def _router(self, job: Job) -> Router:
        return self._routers[self._endpoint_of(job.instance_id).id]

    def _known(self, job: Job) -> tuple[RouteSpec, ...]:
        """Return a job's order as it was when its route was made, or later."""
        return self._orders.get(job.smtp_config_id, (0, ()))[1]

    async def _wanted(self, job: Job) -> tuple[RouteSpec, ...]:
        """Return the routes that a job may take: its configuration's, or the one that an operator chose."""
        order = await self._order(job.smtp_config_id)
        if not job.route:
            return order
        known = {spec.name: spec for spec in (DIRECT, *self._defaults, *order)}
        if job.route not in known:
            text = f"its configuration has no route {job.route!r} (it has {', '.join(known)}): reroute the message"
            raise Unroutable(text, permanent=False, reason="route")
        return (known[job.route],)

    def _spec(self, job: Job, name: str) -> RouteSpec:
        return next((spec for spec in (*self._known(job), *self._defaults) if spec.name == name), DIRECT)

    # -- health -----------------------------------------------------------------------------------------------

    def _keys(self, job: Job, spec: RouteSpec, route: Route) -> tuple[tuple[str, ...], ...]:
        """Return what a route's health is kept under: its place, which others may share, and the route itself. To be
        reached directly is each site's own matter."""
        if spec.type is RouteType.DIRECT:
            return (("direct", route.endpoint, route.site),)
        return (spec.place, ("route", job.smtp_config_id, spec.name))

    def _health(self, job: Job, spec: RouteSpec, route: Route) -> Health:
        """Return the health that decides: the worst."""
        now = self._clock.now()
        known = [self.healths.of(key) for key in self._keys(job, spec, route)]
        return max(known, key=lambda each: (each.resting, not each.may_be_tried(now), each.burden_at(now)))

    def _failed(self, keys: tuple[tuple[str, ...], ...], reason: str, name: str) -> None:
        if reason in _NOBODYS_FAULTS:
            return
        key = keys[-1] if reason in _OWN_FAULTS else keys[0]
        before = self.healths.of(key)
        after = self.healths.failed(key, reason, self._clock.now())
        if after.resting and not before.resting and key[0] != "direct":
            again = rfc3339(after.try_at)
            _log.warning("route.rests", route=name, place=" ".join(key[1:]), reason=reason, tried_again=again)

    def _barred(self, job: Job, spec: RouteSpec, error: Unroutable) -> None:
        """Note that a route could not even be made: a smart host's name that does not resolve, or leads to us."""
        if spec.type is RouteType.SMART_HOST and error.reason in ("dns", "loop"):
            self._failed(self._keys(job, spec, Route("", (), "")), error.reason, spec.name)

    def _taken(
        self, job: Job, spec: RouteSpec, made: Route, order: Sequence[RouteSpec], health: Health, why: Sequence[str]
    ) -> Route:
        if job.route:
            return replace(made, reason=f"route {spec.name}: an operator's choice; {made.reason}")
        if len(order) == 1:
            return made if spec.type is RouteType.DIRECT else replace(made, reason=f"route {spec.name}: {made.reason}")
        said = "; ".join(why) or "preferred"
        if health.resting:
            now = self._clock.now()
            for key in self._keys(job, spec, made):
                if self.healths.of(key).may_be_tried(now):
                    self.healths.tried(key, now)
            said = f"tried again after {health.failures or 'some'} failures" + (f"; {'; '.join(why)}" if why else "")
        return replace(made, reason=f"route {spec.name}: {said}; {made.reason}")

    # -- routes -----------------------------------------------------------------------------------------------

    async def _made(self, job: Job, spec: RouteSpec) -> Route:
        endpoint = self._endpoint_of(job.instance_id)
        made = await self._make(spec, endpoint, job.domain, requiretls=job.requiretls, tls_optional=job.tls_optional)
        if made.requiretls and not job.reverse_path:
            # A report goes as safely as what it is about, but is not lost for want of a promise (RFC 8689 section 5).
            made = replace(made, requiretls=False)
        return made

    async def _make(
        self, spec: RouteSpec, endpoint: Endpoint, domain: str, *, requiretls: bool = False, tls_optional: bool = False
    ) -> Route:
        if spec.type is RouteType.DIRECT:
            router = self._routers[endpoint.id]
            return await router.route(domain, requiretls=requiretls, tls_optional=tls_optional)
        demand = demand_of(spec)
        if requiretls and demand.level is not TlsLevel.VERIFIED:
            text = f"the message wants TLS that is verified (REQUIRETLS), and route {spec.name} does not verify"
            raise Unroutable(text, permanent=False, reason="tls")
        login = Login(spec.username, spec.password) if spec.username else None
        implicit = spec.tls is RouteTls.IMPLICIT
        if spec.type is RouteType.SMART_HOST:
            site = f"{spec.host}:{spec.port}"
            hosts = [
                Host(spec.host, address, spec.port, source, demand, 0, implicit, login)
                for address, source in await self._smart_host(spec, endpoint, site)
            ]
            if _is_address(spec.host):
                hosts = [replace(host, name="") for host in hosts]
            reason = f"smart host {site}"
        else:
            forward = await self._forward(spec)
            site = f"{forward.name}:{forward.port_dest}"
            # What leaves the tunnel leaves from the environment's addresses: only the way there is ours.
            hosts = [Host(forward.name, forward.address, spec.port, None, demand, 0, implicit, login)]
            reason = f"forward {spec.port} of environment {spec.environment_id} to {site}"
        return Route(
            site,
            tuple(hosts),
            reason,
            endpoint.id,
            endpoint.ehlo_name,
            via=spec.name,
            security=f"{demand.level.value} route {spec.id}",  # logins are shared by nobody
            requiretls=requiretls,
        )

    async def _smart_host(self, spec: RouteSpec, endpoint: Endpoint, site: str) -> list[tuple[str, str]]:
        """Return the addresses of a smart host that may be dialled, each with the one to leave from."""
        if spec.host.lower().removesuffix(".") in self._own:
            raise _to_ourselves(spec.host)
        if _is_address(spec.host):
            addresses: tuple[str, ...] = (spec.host,)
        else:
            answer = await self._names.hosts(spec.host)
            if not answer.addresses:
                raise Unroutable(f"no address of {spec.host} is found: {answer.status}", permanent=False, reason="dns")
            addresses = answer.addresses
        found: list[tuple[str, str]] = []
        problem: Unroutable | None = None
        for address in addresses[:_ADDRESSES]:
            if self._ourselves(address, spec.port):
                problem = _to_ourselves(f"{spec.host} ({address}:{spec.port})")
            elif not self._permitted("" if _is_address(spec.host) else spec.host, address):
                remedy = "if that is meant, name it in egress.guard_exceptions"
                text = f"{spec.host} is at {address}, which must not be dialled: {remedy}"
                problem = Unroutable(text, permanent=False, reason="policy")
            elif source := self._sources.choose(endpoint.id, address, site):
                found.append((address, source))
            else:
                problem = problem or no_source(self._sources, endpoint, address)
        if not found:
            raise problem or Unroutable(f"{spec.host} has no address", permanent=False, reason="dns")
        return found

    async def _forward(self, spec: RouteSpec) -> Forward:
        found = self._forwards.get(spec.id)
        if found is None:
            generation = self._generation
            found = await asyncio.to_thread(self._stored.forward, spec.program_id, spec.environment_id, spec.port)
            if generation == self._generation:
                if len(self._forwards) >= _KNOWN:
                    self._forwards.clear()
                self._forwards[spec.id] = found
        if found.trouble:
            raise Unroutable(found.trouble, permanent=False, reason="route")
        if found.name.lower().removesuffix(".") in self._own:
            raise _to_ourselves(f"{found.name} (forward {spec.port})")
        return found


class WaysOut:
    """How the ways out are now, for whoever runs the service."""

    def __init__(self, transports: Transports, sources: Sources, clock: Clock) -> None:
        self._transports = transports
        self._sources = sources
        self.now = clock.now

    def sources(self) -> tuple[Source, ...]:
        """Return every outgoing address."""
        return self._sources.all

    def ways(self) -> list[tuple[tuple[str, ...], Health]]:
        """Return what has failed of late."""
        return self._transports.healths.known()


def demand_of(spec: RouteSpec) -> TlsDemand:
    """Return what TLS over a route must be. A login is never without TLS."""
    why = f"route {spec.name}"
    if spec.tls is RouteTls.NONE and not spec.username:
        return TlsDemand(TlsLevel.NONE, why=why)
    if spec.tls is RouteTls.OPPORTUNISTIC and not spec.username:
        return TlsDemand(TlsLevel.OPPORTUNISTIC, why=why)
    if not spec.verify:
        return TlsDemand(TlsLevel.ENCRYPTED, why=why)
    return TlsDemand(TlsLevel.VERIFIED, spec.names, why=why, authorities=spec.authorities)


def _to_ourselves(what: str) -> Unroutable:
    text = f"{what} is ourselves: mail would go round in circles. Name another smart host"
    return Unroutable(text, permanent=False, reason="loop")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
