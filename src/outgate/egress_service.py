"""The egress put together: what listens, who decides, who keeps it as it is wanted. Without relay and HTTP API.

Standards: none.
Promises: parts stop in the reverse order of their start; nothing is carried where another process does it.
Not here: the parts (`egress`), what else runs in the process (`laptop`, `standalone`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outgate.base.clock import Clock
from outgate.egress import connectivity_socket, status_socket
from outgate.egress.audit import Audit, Connection
from outgate.egress.connectivity import Connectivity, Json
from outgate.egress.engine import Engine
from outgate.egress.figures import Figures
from outgate.egress.forwarder import Forwarder, HeaderTo
from outgate.egress.gate import Gate, Limits
from outgate.egress.header_targets import HeaderTargets
from outgate.egress.http_proxy import HttpProxy, Patience
from outgate.egress.ledger import Ledger
from outgate.egress.mail_watch import MailWatch
from outgate.egress.plan import Terms
from outgate.egress.poll import poller
from outgate.egress.proof import Proof
from outgate.egress.proving import Proving
from outgate.egress.pump import Pump
from outgate.egress.reach import Reach
from outgate.egress.reconcile import Names, Reconciler
from outgate.egress.status import Document, Standing, Status
from outgate.egress.wanted import Wanted
from outgate.model.egress import Mode
from outgate.net.dns import Resolver
from outgate.process import take
from outgate.settings import EgressSettings

AUDIT_FILE = "egress-audit.jsonl"
LOCK_FILE = "egress.lock"
_DRAIN_LOOK_S = 0.1
_ENVIRONMENTS = 10
_RULES = 10_000
_OTHER_FILES = 1024  # databases, questions to DNS servers


class Egress(Protocol):
    """What the rest of a process sees of the egress."""

    @property
    def audit(self) -> Audit:
        """Return the record of connections."""
        ...

    def poke(self) -> None:
        """Look at what is wanted now. From any thread."""
        ...

    async def look(self) -> None:
        """Do what the time of day asks for."""
        ...

    async def test(self, environment_id: str, host: str, port: int) -> Json:
        """Return the result of a connectivity test. Raises `Refused`."""
        ...

    async def standing(self) -> Document:
        """Return how it stands, as `egress.status` says it. Raises `OSError` while nobody can be asked."""
        ...

    def proof(self, address: str) -> str | None:
        """Return "" if connections leave from a dedicated address, else why not; None if that is not known here."""
        ...

    async def stop(self) -> None:
        """Stop all parts."""
        ...


@dataclass(slots=True)
class EgressService:
    """The egress carried by this process."""

    audit: Audit
    engine: Engine
    reconciler: Reconciler
    status: Status
    proving: Proving
    connectivity: Connectivity
    headers: HeaderTargets
    drain_s: float

    def poke(self) -> None:
        """Look at what is wanted now. From any thread."""
        self.reconciler.poke()

    async def look(self) -> None:
        """Prove the addresses that are due, and go by that."""
        await self.reconciler.look()

    async def test(self, environment_id: str, host: str, port: int) -> Json:
        """Test whether an environment's connections get to a host."""
        return await self.connectivity.test(environment_id, host, port)

    async def standing(self) -> Document:
        """Return how it stands."""
        return self.status.document()

    def proof(self, address: str) -> str | None:
        """Return "" if connections leave from a dedicated address, else why not; None: not asked yet."""
        return self.proving.reason(address)

    async def drain(self, enough: asyncio.Event) -> None:
        """Listen no more, and let open connections finish until their time is over, or somebody says `enough`."""
        await self.reconciler.close()
        for environment_id in {rule.environment_id for rule in self.engine.rules()}:
            await self.engine.apply(environment_id, ())
        loop = asyncio.get_running_loop()
        end = loop.time() + self.drain_s
        while any(each.open for each in self.engine.live()) and loop.time() < end and not enough.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), _DRAIN_LOOK_S)

    async def stop(self) -> None:
        """Stop changing rules, end the connections, close the audit."""
        await self.reconciler.close()
        await self.headers.close()
        await self.engine.close()
        self.audit.close()


@dataclass(frozen=True, slots=True)
class Apart:
    """The egress where another process carries it: `audit` is read here only, in `directory` are its sockets."""

    audit: Audit
    directory: Path

    def poke(self) -> None:
        """Do nothing: who carries looks by itself."""

    async def look(self) -> None:
        """Do nothing: who carries has a clock of its own."""

    async def test(self, environment_id: str, host: str, port: int) -> Json:
        """Have the process that carries make the test."""
        return await connectivity_socket.ask(self.directory, environment_id, host, port)

    async def standing(self) -> Document:
        """Return what the process that carries says. Raises `OSError` if there is none."""
        try:
            return await status_socket.ask(self.directory)
        except status_socket.NotServing as error:
            raise ConnectionError(str(error)) from None

    def proof(self, address: str) -> str | None:
        """Return None: the process that carries knows."""
        return None

    async def stop(self) -> None:
        """Close the audit."""
        self.audit.close()


def take_egress(directory: Path, option: str = "--data") -> int:
    """Take the carrying of connections for this process; return the lock's descriptor. Raises `StartFailed`."""
    return take(
        directory,
        LOCK_FILE,
        taken=f"another process carries the connections of {directory}: stop it. To have `outgate egress serve` carry"
        " them beside the rest, set egress.apart = true in the settings of both",
        option=option,
    )


def terms_of(egress: EgressSettings) -> Terms:
    """Return what the settings say for all environments."""
    return Terms(
        shared_addresses=tuple(egress.shared_addresses),
        exceptions=tuple(egress.guard_exceptions),
        header_targets=frozenset(egress.proxy_protocol_targets),
        mail_ports=frozenset(egress.mail_ports),
        mail_targets=frozenset(egress.mail_targets),
        proxy_port=egress.http_proxy_port,
    )


def files_wanted(egress: EgressSettings) -> int:
    """Return how many open files a process needs that carries connections: two for each of ten full environments, and
    a listener for each of ten thousand rules."""
    return 2 * _ENVIRONMENTS * egress.connections_per_environment + _RULES + _OTHER_FILES


async def egress_service(
    egress: EgressSettings,
    *,
    data: Path,
    wanted: Wanted,
    resolver: Resolver,
    clock: Clock,
    header_to: Collection[str] = (),
    names: Names = Names(),
) -> EgressService:
    """Start the egress. `header_to` are addresses (`ip:port`) that get a PROXY header under whatever name."""
    audit = Audit(data / AUDIT_FILE)
    figures = Figures()
    limits = Limits(
        egress.connections_per_environment,
        egress.connections_alert,
        egress.connect_timeout_s,
        egress.idle_timeout_s,
        egress.drain_s,
        egress.proxy_connections_per_environment,
    )
    ledger = Ledger(audit, clock, figures)
    headers = HeaderTargets(egress.proxy_protocol_targets, resolver.addresses, others=header_to)
    await headers.start()
    engine = _engine(egress, limits, ledger, resolver, headers.wants)
    proof = Proof(witness=egress.witness, resolve=resolver.addresses)
    proving = Proving(proof.of, clock, interval_s=egress.proof_interval_s)
    reconciler = Reconciler(
        wanted=wanted,
        engine=engine,
        terms=terms_of(egress),
        proving=proving,
        names=names,
    )
    status = Status(
        figures,
        clock,
        limits,
        standings=lambda: _standings(reconciler),
        counted=engine.connections,
        live=engine.live,
        budgets=engine.budget,
        lines_lost=lambda: audit.lost,
        port_budget_alert=egress.port_budget_alert,
    )
    await reconciler.start()
    connectivity = Connectivity(resolvers=[resolver], ways=reconciler.way)
    return EgressService(audit, engine, reconciler, status, proving, connectivity, headers, limits.drain_s)


def _engine(egress: EgressSettings, limits: Limits, ledger: Ledger, resolver: Resolver, header_to: HeaderTo) -> Engine:
    polling = poller(asyncio.get_running_loop())
    reach = Reach(
        resolver.addresses,
        connect_timeout_s=limits.connect_timeout_s,
        at_hand=resolver.at_hand,
        poller=polling,
        keepalive_s=egress.keepalive_s,
        port_budget_alert=egress.port_budget_alert,
    )
    gate, pump = Gate(limits), Pump(polling, idle_timeout_s=limits.idle_timeout_s)

    def watch_for(known: Connection) -> MailWatch:
        return MailWatch(
            implicit_tls=known.port in egress.implicit_tls_ports,
            refuse_auth=egress.refuse_clear_auth,
            noticed=lambda code, reason: ledger.noticed(known, code=code, reason=reason),
        )

    forwarder = Forwarder(
        reach=reach, gate=gate, ledger=ledger, limits=limits, pump=pump, header_to=header_to, watch_for=watch_for
    )
    patience = Patience(egress.proxy_head_bytes, egress.proxy_head_timeout_s, egress.proxy_keepalive_s)
    proxy = HttpProxy(
        reach=reach, gate=gate, ledger=ledger, limits=limits, pump=pump, header_to=header_to, patience=patience
    )
    return Engine(forwarder, proxy=proxy, keepalive_s=egress.keepalive_s)


def _standings(reconciler: Reconciler) -> Iterable[Standing]:
    for state in reconciler.states():
        place, networking = state.target.environment, state.target.networking
        yield Standing(
            place.id,
            place.program_id,
            (Mode.NONE if networking is None else networking.mode).value,
            () if state.in_force is None else state.in_force.rules,
            state.reason,
        )
