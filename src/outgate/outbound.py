"""How mail goes out, chosen and wired: ways, outgoing addresses, what TLS must be, pace, connections.

Standards: none.
Promises: settings that cannot be used are told before anything starts; its parts are started in the order they need
each other and stopped in the reverse one.
Dangers: everything here runs on one event loop; what blocks runs in a thread.
Not here: what the parts do (`relay`); the queue, the signer and the listeners, which `app` wires to it.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.flow import Attempt, Job
from outgate.net.dns import Resolver
from outgate.net.http import Fetcher
from outgate.net.tls import opportunistic_context, verified_context
from outgate.relay.delivery import Delivery, DeliveryLimits, Preparer
from outgate.relay.dialling import Dialler
from outgate.relay.endpoints import Endpoint, Endpoints
from outgate.relay.probing import Prober
from outgate.relay.routing import Router
from outgate.relay.shaping import PaceRules, RuleBook
from outgate.relay.sources import Sources
from outgate.relay.sts_policies import StsPolicies
from outgate.relay.tls_rules import TlsRules
from outgate.relay.tls_ways import CHAINS
from outgate.relay.transports import Transports, WaysOut
from outgate.settings import BadSettings, RelaySettings, default_routes
from outgate.store.control import ControlStore

_log = Log("outgate.app")


class Outbound:
    """Delivery and all that it needs. Belongs to one event loop."""

    def __init__(
        self,
        relay: RelaySettings,
        *,
        control: ControlStore,
        clock: Clock,
        resolver: Resolver,
        permitted: Callable[[str, str], bool],
        endpoints: Endpoints,
        endpoint_of: Callable[[str], Endpoint],
        listening: Collection[str],
        signer: Preparer,
        finished: Callable[[Job, Attempt], None],
        may_go: Callable[[Job, str], bool],
        given_back: Callable[[Job, float, str, str], None],
    ) -> None:
        """`permitted` judges (name, address) of receiving servers; `endpoint_of` is an instance's; `listening` are the
        places (`address:port`) at which we listen now. The rest is as in `Delivery`. Raises `BadSettings`."""
        self._relay = relay
        self._clock = clock
        self._permitted = permitted
        self._endpoints = endpoints
        self._listening = listening
        self._verified = _verified(relay)
        self._own_names = frozenset(
            name.lower().removesuffix(".")
            for each in endpoints.all
            for name in (each.public_name, each.private_name, each.ehlo_name)
        )
        names = _trusted(relay, clock) or resolver
        self.sources = Sources(endpoints.all, clock)
        self.sts = self._sts(names, control)
        self.transports = self._transports(names, control, endpoint_of)
        limits = DeliveryLimits(
            relay.connections_per_site,
            relay.messages_per_connection,
            relay.delivery_idle_s,
            relay.delivery_timeout_s,
            relay.delivery_probe_after_s,
            relay.delivery_probe_s,
        )
        dialler = self._dialler(limits)
        self.delivery = Delivery(
            ways=self.transports,
            signer=signer,
            finished=finished,
            clock=clock,
            limits=limits,
            dialler=dialler,
            may_go=may_go,
            given_back=given_back,
            rules=_pace_rules(relay),
        )
        self.ways = WaysOut(self.transports, self.sources, clock)
        self.prober = Prober(self.transports, dialler, clock)

    def _sts(self, names: Resolver, control: ControlStore) -> StsPolicies | None:
        relay = self._relay
        if not relay.mta_sts or relay.delivery_tls == "none" or relay.deliver_to:
            return None
        fetcher = Fetcher(
            addresses=names.addresses, permitted=self._permitted, context=self._verified, port=relay.mta_sts_port
        )
        return StsPolicies(control.sts, names, fetcher, self._clock)

    def _transports(self, names: Resolver, control: ControlStore, endpoint_of: Callable[[str], Endpoint]) -> Transports:
        relay = self._relay
        dane = bool(relay.dane_resolver) and relay.delivery_tls != "none"
        rules = TlsRules(policies=self.sts, tlsa=names if dane else None, port=relay.delivery_port, chain=CHAINS)
        try:
            routers = {
                endpoint.id: Router(
                    names,
                    port=relay.delivery_port,
                    endpoint=endpoint,
                    deliver_to=relay.deliver_to,
                    own_names=self._own_names,
                    permitted=self._permitted,
                    tls=rules,
                    sources=self.sources,
                    ourselves=self._listens_at,
                )
                for endpoint in self._endpoints.all
            }
        except ValueError as error:
            raise BadSettings(f"relay.deliver_to cannot be used: {error}") from None
        try:
            defaults = default_routes(relay)
        except (OSError, ValueError) as error:
            raise BadSettings(f"relay.routes cannot be used: {error}") from None
        return Transports(
            names=names,
            routers=routers,
            endpoint_of=endpoint_of,
            stored=control.routes,
            sources=self.sources,
            clock=self._clock,
            defaults=defaults,
            own_names=self._own_names,
            permitted=self._permitted,
            ourselves=self._listens_at,
        )

    def _dialler(self, limits: DeliveryLimits) -> Dialler:
        return Dialler(
            clock=self._clock,
            limits=limits,
            tls=opportunistic_context() if self._relay.delivery_tls == "opportunistic" else None,
            verified=lambda given: verified_context(authorities=given) if given else self._verified(),
            sources=self.sources,
            own_names=self._own_names,
        )

    def _listens_at(self, address: str, port: int) -> bool:
        """Say whether mail to that place would come in here again."""
        at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return at in self._listening

    async def start(self) -> None:
        """Look which addresses can be left from, and which policies are kept."""
        self.sources.start(self._relay.source_check_s)
        if self.sts is not None:
            await self.sts.start()

    async def stop(self) -> None:
        """End the deliveries; what was not sent stays queued."""
        await self.sources.stop()
        await self.delivery.stop()
        if self.sts is not None:
            await self.sts.stop()


def _pace_rules(relay: RelaySettings) -> RuleBook:
    usual = PaceRules(
        relay.connections_per_site,
        relay.site_per_minute,
        relay.messages_per_connection,
        relay.site_pause_first_s,
        relay.site_pause_most_s,
    )
    return RuleBook(
        usual,
        {name: replace(usual, name=name, **each.model_dump(exclude_none=True)) for name, each in relay.sites.items()},
    )


def _verified(relay: RelaySettings) -> Callable[[], ssl.SSLContext]:
    """Return what makes the context that checks certificates of receiving servers. Raises `BadSettings`."""
    if not relay.authorities_file:
        return verified_context
    make = functools.partial(verified_context, Path(relay.authorities_file))
    try:
        make()
    except OSError as error:  # `ssl.SSLError` is one
        raise BadSettings(
            f"relay.authorities_file {relay.authorities_file}: {error.strerror or error}; it is a file of PEM"
            " certificates"
        ) from None
    return make


def _trusted(relay: RelaySettings, clock: Clock) -> Resolver | None:
    """Return the resolver whose word on DNSSEC is believed, if there is one."""
    if not relay.dane_resolver:
        return None
    host, _, port = relay.dane_resolver.rpartition(":")
    if not CHAINS:
        _log.info("dane.no_chains", remedy="TLSA records of usage 2 (DANE-TA) count from Python 3.13")
    return Resolver([(host.strip("[]"), int(port))], clock, trusted=True)
