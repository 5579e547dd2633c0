"""Turn what every environment wants into the exact set of forwards that shall be in force.

Standards: the vendor's modes (none, flexiblePortEgress, dedicatedEgressIp, vpn).
Promises: pure and total: the same targets give the same ruleset; an environment is planned whole or refused
    whole, with a reason; a forward always names the addresses it may leave from.
Dangers: no source address means refused, never "any address".
Not here: whether a port is free (`forwarder`), statuses (`reconcile`), resolving and the guard.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from outgate.model.egress import EgressTarget, Mode, PortForward
from outgate.net import guard

FORWARDER = "forwarder"
NO_EXCEPTIONS = guard.Exceptions()


@dataclass(frozen=True, slots=True)
class Way:
    """How connections leave: from one of `sources`, past the guard but for `exceptions`."""

    mode: Mode
    sources: tuple[str, ...]
    exceptions: guard.Exceptions = NO_EXCEPTIONS


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
    """What one environment gets: its forwards, or none and the `refusal`. `generation` None: nothing asked for."""

    environment_id: str
    generation: int | None
    forwards: tuple[Forward, ...]
    refusal: str = ""
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything that shall be in force, environment by environment."""

    environments: tuple[Planned, ...]

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """Return all forwards in order."""
        return tuple(forward for planned in self.environments for forward in planned.forwards)


def plan(
    targets: Sequence[EgressTarget],
    *,
    shared_addresses: Sequence[str],
    proxy_protocol_targets: Collection[str],
    exceptions: Sequence[str] = (),
) -> Ruleset:
    """Return the ruleset for `targets`.

    `proxy_protocol_targets` holds `name:port`, or a bare name for each of its ports; `exceptions` are the guard's, for
    every environment."""
    wanted = frozenset(entry.lower().rstrip(".") for entry in proxy_protocol_targets)
    shared, everywhere = tuple(shared_addresses), tuple(exceptions)
    return Ruleset(tuple(_environment(target, shared, wanted, everywhere) for target in targets))


def _environment(
    target: EgressTarget, shared: tuple[str, ...], header: frozenset[str], everywhere: tuple[str, ...]
) -> Planned:
    networking = target.networking
    if networking is None:
        return Planned(target.environment.id, None, ())
    sources, refusal = _sources(target, shared)
    if refusal:
        return Planned(target.environment.id, networking.generation, (), refusal)
    way = Way(target.mode, sources, guard.compile_exceptions((*everywhere, *target.exceptions)))
    forwards = tuple(_forward(target, each, way, header) for each in networking.port_forwards)
    return Planned(target.environment.id, networking.generation, forwards)


def _sources(target: EgressTarget, shared: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Return the addresses this environment leaves from, or why nothing may leave."""
    if target.mode is Mode.FLEXIBLE:
        sources = target.egress_addresses or shared
        return sources, "" if sources else "no shared address is configured (egress.shared_addresses)"
    if target.mode is Mode.DEDICATED:
        sources = target.egress_addresses
        return sources, "" if sources else "the program has no dedicated address"
    if target.mode is Mode.VPN:
        # Closed until a tunnel exists: leaving by any other way would be the leak that VPN mode forbids.
        return (), "the VPN's data path is not available: nothing leaves"
    return (), "the program's network infrastructure is not ready"


def _forward(target: EgressTarget, wanted: PortForward, way: Way, header: frozenset[str]) -> Forward:
    name = wanted.name.lower().rstrip(".")
    needs_header = name in header or f"{name}:{wanted.port_dest}" in header
    return Forward(
        environment_id=target.environment.id,
        program_id=target.environment.program_id,
        listen_address=target.environment.tunnel_address,
        listen_port=wanted.port_orig,
        name=name,
        port=wanted.port_dest,
        way=way,
        proxy_header=needs_header,
        client_networks=target.environment.client_networks,
        engine=FORWARDER,
        engine_reason="the target gets a PROXY header" if needs_header else "no kernel engine is installed",
    )
