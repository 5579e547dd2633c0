"""What the operators' API sees of the egress: a real audit, ledger and status; rules as a test puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.api.operations import EgressParts
from outgate.base.clock import Clock
from outgate.egress.audit import Audit, Connection
from outgate.egress.gate import Limits
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Rule, Way
from outgate.egress.status import Standing, Status
from outgate.store.control import ControlStore


@dataclass(frozen=True, slots=True)
class Budget:
    """A count of source ports."""

    source: str
    target: str
    port: int
    used: int
    most: int


@dataclass(frozen=True, slots=True)
class Live:
    """Octets of open connections."""

    rule: Rule
    up: int
    down: int


class EgressSide:
    """Nothing is in force until a test appends to `rules`."""

    def __init__(self, directory: Path, store: ControlStore, clock: Clock) -> None:
        self.audit = Audit(directory / "egress-audit.jsonl")
        self.ledger = Ledger(self.audit, clock)
        self.rules: list[Rule] = []
        self.budgets: list[Budget] = []
        self.proofs: dict[str, str] = {}
        self.ways: dict[str, Way] = {}
        self.pokes = 0
        self.away = ""
        """Why the egress cannot be asked, if it cannot."""
        self.status = Status(
            self.ledger.figures, clock, Limits(), standings=self._standings, budgets=lambda: self.budgets
        )
        self.parts = EgressParts(
            store=store,
            audit=self.audit,
            status=self._document,
            proof=self.proofs.get,
            changed=self._poke,
            shared_addresses=("127.0.0.2",),
            dedicated_addresses=("127.0.0.3", "127.0.0.4"),
            vpn_address="127.0.0.5",
            exceptions=("127.0.0.0/8",),
        )

    def way(self, environment_id: str, host: str, port: int) -> Way | str:
        """Return how an environment's connections leave, or why none do."""
        return self.ways.get(environment_id, "advanced networking is not enabled: nothing leaves")

    def opened(self, rule: Rule, number: str, client: str = "127.0.0.1:5000", **known: Any) -> Connection:
        """Have a connection go through."""
        connection = Connection(number, rule, client, **known)
        self.ledger.opened(connection, reason="leaves")
        return connection

    def _standings(self) -> Sequence[Standing]:
        mine: dict[str, list[Rule]] = {}
        for rule in self.rules:
            mine.setdefault(rule.environment_id, []).append(rule)
        return [Standing(each, rules[0].program_id, rules[0].mode.value, rules) for each, rules in mine.items()]

    async def _document(self) -> dict[str, Any]:
        if self.away:
            raise OSError(self.away)
        return self.status.document()

    def _poke(self) -> None:
        self.pokes += 1
