"""The egress put together: what listens, who decides, who keeps it as it is wanted. Without relay and HTTP API.

Standards: none.
Promises: parts stop in the reverse order of their start; nothing is carried where another process does it.
Not here: the parts (`egress`), what else runs in the process (`laptop`, `standalone`).
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outgate.base.clock import Clock
from outgate.egress.audit import Audit
from outgate.egress.figures import Figures
from outgate.egress.forwarder import Forwarder
from outgate.egress.gate import Gate, Limits
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Forward, Rule, Terms, Way
from outgate.egress.proving import Proving
from outgate.egress.reach import Reach, Resolve
from outgate.egress.reconcile import Names, Reconciler
from outgate.egress.status import Standing, Status
from outgate.egress.wanted import Wanted
from outgate.model.egress import Mode
from outgate.process import take
from outgate.settings import EgressSettings

AUDIT_FILE = "egress-audit.jsonl"
LOCK_FILE = "egress.lock"
APART = "another process carries the connections of this one (egress.apart)"
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

    def way(self, environment_id: str) -> Way | str:
        """Return how an environment's connections leave by what is in force now, or why none do."""
        ...

    async def stop(self) -> None:
        """Stop all parts."""
        ...


@dataclass(slots=True)
class EgressService:
    """The egress carried by this process."""

    audit: Audit
    forwarder: Forwarder
    reconciler: Reconciler
    status: Status

    def poke(self) -> None:
        """Look at what is wanted now. From any thread."""
        self.reconciler.poke()

    def way(self, environment_id: str) -> Way | str:
        """Return how an environment's connections leave by what is in force now, or why none do."""
        return self.reconciler.way(environment_id)

    async def stop(self) -> None:
        """Stop changing rules, end the connections, close the audit."""
        await self.reconciler.close()
        await self.forwarder.close()
        self.audit.close()


@dataclass(frozen=True, slots=True)
class Apart:
    """The egress where another process carries it: `audit` is read here only."""

    audit: Audit

    def poke(self) -> None:
        """Do nothing: who carries looks by itself."""

    def way(self, environment_id: str) -> Way | str:
        """Return why nothing leaves from here."""
        return APART

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
    resolve: Resolve,
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
    )
    forwarder = Forwarder(
        reach=Reach(resolve, connect_timeout_s=limits.connect_timeout_s),
        gate=Gate(limits),
        ledger=Ledger(audit, clock, figures),
        limits=limits,
        header_to=header_to,
    )
    reconciler = Reconciler(
        wanted=wanted,
        engine=_Forwards(forwarder),
        terms=terms_of(egress),
        proving=Proving(_plumbed, clock, interval_s=egress.proof_interval_s),
        names=names,
    )
    status = Status(
        figures,
        clock,
        limits,
        standings=lambda: _standings(reconciler),
        lines_lost=lambda: audit.lost,
        port_budget_alert=egress.port_budget_alert,
    )
    await reconciler.start()
    return EgressService(audit, forwarder, reconciler, status)


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


class _Forwards:
    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    async def apply(self, environment_id: str, rules: Sequence[Rule], /) -> None:
        await self._forwarder.apply(environment_id, [each for each in rules if isinstance(each, Forward)])


async def _plumbed(address: str) -> str:
    """Return "" if this host can leave from an address, else why not."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return f"this host cannot leave from {address}: {error.strerror}"
    return ""
