"""Turn what every environment wants into the exact set of rules that shall be in force.

Standards: the vendor's modes (none, flexiblePortEgress, dedicatedEgressIp, vpn) and its routing table.
Promises: pure and total: the same targets give the same rules, in whatever order they come; an environment is planned
    whole or refused whole, with a reason; a rule always names the addresses it may leave from, and they are its mode's:
    never those of another program, never the shared ones in place of the program's own.
Dangers: no source address means refused, never "any address".
Not here: whether a port is free (`listeners`), statuses (`reconcile`), resolving and the guard (`reach`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outgate.egress.non_proxy_hosts import spared
from outgate.egress.targets import Targets
from outgate.model.egress import EgressTarget, Environment, Mode, NetworkInfrastructure, PortForward
from outgate.net import guard

FORWARDER = "forwarder"
READY, FAILED = "ready", "failed"
NO_SHARED = "no shared address is configured (egress.shared_addresses)"
NO_DEDICATED = "the program has no dedicated address"
NO_SPARED = "there is no way for non-proxy hosts (egress.shared_addresses)"
NO_TUNNEL = "the VPN's data path is not available: nothing leaves"
_OWN = frozenset({Mode.DEDICATED, Mode.VPN})
"""Kinds of infrastructure whose addresses are the program's own."""
_GOING = frozenset({"deleting", "deleted"})
WEB_PORTS = frozenset({80, 443})
"""Where a host that is spared the proxy may be reached."""
NO_EXCEPTIONS = guard.Exceptions()


@dataclass(frozen=True, slots=True)
class Way:
    """How connections leave: from one of `sources`, past the guard but for `exceptions`. What lies in one of the
    networks of `tunnel` is reached through the VPN only, never from a source."""

    mode: Mode
    sources: tuple[str, ...]
    exceptions: guard.Exceptions = NO_EXCEPTIONS
    tunnel: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forward:
    """One listener and where it leads. `engine` carries it and `engine_reason` says why that one; `mail`: it is known
    to carry SMTP."""

    environment_id: str
    program_id: str
    listen_address: str
    listen_port: int
    name: str
    port: int
    way: Way
    proxy_header: bool
    client_networks: tuple[str, ...]
    engine: str
    engine_reason: str
    mail: bool = False

    @property
    def mode(self) -> Mode:
        """Return how the environment leaves."""
        return self.way.mode


@dataclass(frozen=True, slots=True)
class Proxy:
    """The HTTP(S) proxy of an environment. Hosts that `non_proxy_hosts` names leave by `spared`, to 80 and 443 only."""

    environment_id: str
    program_id: str
    listen_address: str
    listen_port: int
    way: Way
    client_networks: tuple[str, ...]
    non_proxy_hosts: tuple[str, ...] = ()
    spared: Way | None = None

    @property
    def mode(self) -> Mode:
        """Return how the environment leaves."""
        return self.way.mode


Rule = Forward | Proxy


@dataclass(frozen=True, slots=True)
class Planned:
    """What one environment gets: its forwards and its proxy, or none and the `refusal`. `generation` None: nothing
    asked for."""

    environment_id: str
    generation: int | None
    forwards: tuple[Forward, ...]
    refusal: str = ""
    proxy: Proxy | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return all that shall be listened for."""
        return self.forwards if self.proxy is None else (*self.forwards, self.proxy)

    @property
    def way(self) -> Way | None:
        """Return how the environment leaves, or None if nothing does."""
        return None if self.proxy is None else self.proxy.way

    def way_to(self, host: str, port: int) -> Way | None:
        """Return how a connection to `host`:`port` leaves, or None if none does: to the ports of the web the proxy's
        way, which for a spared host is another, to all others a forward's."""
        proxy = self.proxy
        if proxy is not None and port in WEB_PORTS and spared(host, proxy.non_proxy_hosts):
            return proxy.spared
        return self.way


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything that shall be in force, environment by environment."""

    environments: tuple[Planned, ...]

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """Return all forwards in order."""
        return tuple(forward for planned in self.environments for forward in planned.forwards)


@dataclass(frozen=True, slots=True)
class Terms:
    """What operators have set for all environments.

    `header_targets` and `mail_targets` hold `name:port`, or a bare name for each of its ports; `mail_ports` are the
    ports by which a forward is known to carry SMTP; `exceptions` are the guard's; `tunnels` are the ids of
    infrastructures whose VPN carries connections."""

    shared_addresses: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    header_targets: frozenset[str] = frozenset()
    mail_ports: frozenset[int] = frozenset()
    mail_targets: frozenset[str] = frozenset()
    proxy_port: int = 3128
    tunnels: frozenset[str] = frozenset()


def plan(
    targets: Sequence[EgressTarget], terms: Terms, infrastructures: Iterable[NetworkInfrastructure] = ()
) -> Ruleset:
    """Return the rules for `targets`. `infrastructures` are those of all programs: their addresses are their own also
    while no environment leaves by them."""
    planning = _Planning(targets, terms, infrastructures)
    return Ruleset(tuple(planning.environment(target) for target in targets))


def closed_reason(infrastructure: NetworkInfrastructure) -> str:
    """Return why nothing leaves by an infrastructure that may not be used, whatever its kind; "" if it may."""
    if infrastructure.status == READY:
        return ""
    why = f": {infrastructure.reason}" if infrastructure.reason else ""
    return f"network infrastructure {infrastructure.id} is {infrastructure.status}{why}"


def external_names(
    infrastructures: Iterable[NetworkInfrastructure], *, domain: str, vpn_address: str
) -> frozenset[tuple[str, str]]:
    """Return which names lead to which addresses from outside, (name, address) each: the dedicated addresses of a
    program, and the gateway of its VPN; only of what is ready."""
    found: set[tuple[str, str]] = set()
    for each in infrastructures:
        if each.status == READY and each.kind in _OWN:
            program = f"p{each.program_id}"
            found |= {(f"{program}.{domain}", address) for address in each.addresses}
            if each.kind is Mode.VPN and vpn_address:
                found.add((f"{program}.{each.region}-gateway.{domain}", vpn_address))
    return frozenset(found)


class _Planning:
    """The rules of all environments, one by one; what one gets depends on the others in one thing only: an address
    that is a program's own is nobody else's."""

    def __init__(
        self, targets: Sequence[EgressTarget], terms: Terms, infrastructures: Iterable[NetworkInfrastructure]
    ) -> None:
        self._terms = terms
        self._header = Targets(terms.header_targets)
        self._mail = Targets(terms.mail_targets)
        self._owners: dict[str, set[str]] = {}
        known = (target.infrastructure for target in targets if target.infrastructure is not None)
        for each in (*infrastructures, *known):
            if each.kind in _OWN:
                for address in each.addresses:
                    self._owners.setdefault(address, set()).add(each.program_id)
        self._shared = self._nobodys(terms.shared_addresses)

    def environment(self, target: EgressTarget) -> Planned:
        """Return what one environment gets."""
        place, networking = target.environment, target.networking
        if networking is None or place.status in _GOING:
            return Planned(place.id, None, ())
        sources, refusal = self._sources(target)
        if refusal:
            return Planned(place.id, networking.generation, (), refusal)
        exceptions = guard.compile_exceptions((*self._terms.exceptions, *target.exceptions))
        way = Way(target.mode, sources, exceptions, _tunnel(target.infrastructure))
        forwards = tuple(self._forward(place, each, way) for each in networking.port_forwards)
        spares = target.mode is not Mode.FLEXIBLE and bool(networking.non_proxy_hosts and self._shared)
        proxy = Proxy(
            environment_id=place.id,
            program_id=place.program_id,
            listen_address=place.tunnel_address,
            listen_port=self._terms.proxy_port,
            way=way,
            client_networks=place.client_networks,
            non_proxy_hosts=() if target.mode is Mode.FLEXIBLE else networking.non_proxy_hosts,
            # Sparing a host opens no other way to what lies behind the VPN.
            spared=Way(Mode.FLEXIBLE, self._shared, exceptions, way.tunnel) if spares else None,
        )
        return Planned(place.id, networking.generation, forwards, proxy=proxy)

    def _sources(self, target: EgressTarget) -> tuple[tuple[str, ...], str]:
        """Return the addresses this environment leaves from, or why nothing may leave."""
        infrastructure = target.infrastructure
        if infrastructure is None:
            return (), "the program has no network infrastructure"
        if infrastructure.kind is Mode.VPN and infrastructure.id not in self._terms.tunnels:
            # Closed until there is a tunnel: leaving by any other way would be the leak that this mode forbids.
            return (), NO_TUNNEL
        if reason := closed_reason(infrastructure):
            return (), reason
        if infrastructure.kind is Mode.VPN and not _tunnel(infrastructure):
            return (), "the VPN's gateways have no address space: what belongs into the tunnel is not known"
        if target.mode is Mode.FLEXIBLE:
            sources = self._nobodys(infrastructure.addresses) or self._shared
            return sources, "" if sources else NO_SHARED
        if target.mode in _OWN:
            return self._own(target)
        return (), "the environment's mode is none"

    def _own(self, target: EgressTarget) -> tuple[tuple[str, ...], str]:
        if not target.egress_addresses:
            return (), NO_DEDICATED
        mine = {target.environment.program_id}
        for address in target.egress_addresses:
            if others := self._owners.get(address, mine) - mine:
                return (), f"{address} is given to program {min(others)} too: nothing leaves from an address of two"
        return target.egress_addresses, ""

    def _nobodys(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Return those that are no program's own."""
        return tuple(address for address in addresses if address not in self._owners)

    def _forward(self, place: Environment, wanted: PortForward, way: Way) -> Forward:
        name = wanted.name.lower().rstrip(".")
        header = self._header.has(name, wanted.port_dest)
        mail = wanted.port_dest in self._terms.mail_ports or self._mail.has(name, wanted.port_dest)
        if header:
            reason = "the target gets a PROXY header"
        elif mail:
            reason = "it carries SMTP, which is looked at"
        else:
            reason = "no kernel engine is installed"
        return Forward(
            environment_id=place.id,
            program_id=place.program_id,
            listen_address=place.tunnel_address,
            listen_port=wanted.port_orig,
            name=name,
            port=wanted.port_dest,
            way=way,
            proxy_header=header,
            client_networks=place.client_networks,
            engine=FORWARDER,
            engine_reason=reason,
            mail=mail,
        )


def _tunnel(infrastructure: NetworkInfrastructure | None) -> tuple[str, ...]:
    """Return the networks behind the gateways of a VPN."""
    if infrastructure is None or infrastructure.kind is not Mode.VPN:
        return ()
    found: list[str] = []
    connections = infrastructure.document.get("connections")
    for connection in connections if isinstance(connections, list) else ():
        gateway = connection.get("gateway") if isinstance(connection, dict) else None
        space = gateway.get("addressSpace") if isinstance(gateway, dict) else None
        found += [str(network) for network in space] if isinstance(space, list) else []
    return tuple(found)
