"""The egress put together: what listens, who decides, who keeps it as it is wanted. Without relay and HTTP API.

Standards: none.
Promises: parts stop in the reverse order of their start; nothing is carried where another process does it.
Not here: the parts (`egress`), what else runs in the process (`laptop`, `standalone`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from outgate.base.clock import Clock
from outgate.egress.audit import Audit
from outgate.egress.forwarder import Forwarder
from outgate.egress.gate import Gate, Limits
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Terms, Way
from outgate.egress.proving import Proving
from outgate.egress.reach import Reach, Resolve
from outgate.egress.reconcile import Names, Reconciler
from outgate.egress.wanted import Wanted
from outgate.settings import EgressSettings

AUDIT_FILE = "egress-audit.jsonl"
LOCK_FILE = "egress.lock"
APART = "another process carries the connections of this one (egress.apart)"
_OTHER_FILES = 4096  # listeners come on top, see `files_wanted`


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
    """Return how many open files a process needs that carries connections: two for each, pipes to copy through, and
    listeners."""
    return 4 * 10 * egress.connections_per_environment + _OTHER_FILES + 10_000


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
        ledger=Ledger(audit, clock),
        limits=limits,
        header_to=header_to,
    )
    reconciler = Reconciler(
        wanted=wanted,
        engine=forwarder,
        terms=terms_of(egress),
        proving=Proving(_plumbed, clock, interval_s=egress.proof_interval_s),
        names=names,
    )
    await reconciler.start()
    return EgressService(audit, forwarder, reconciler)
