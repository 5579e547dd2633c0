"""How the egress stands, as one document: environments, their rules with live and total figures, source ports.

Standards: RFC 8259, RFC 3339; the shape is described in docs/egress.md and, for the API, in `api.operations`.
Promises: what is in force is shown though nothing went through it, and an environment that is not served says why;
    octets of open connections count.
Dangers: names and addresses are shown in full: to operators only. With thousands of rules the document has megabytes.
Not here: counting (`figures`), who is served it (`api.operations.egress`, the socket of `outgate egress serve`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outgate.base.clock import Clock, rfc3339
from outgate.egress.audit import endpoint
from outgate.egress.figures import Figures, Key, RuleFigures, key_of, total
from outgate.egress.gate import Limits
from outgate.egress.plan import Forward, Rule

_MOST_BUDGETS = 100

Document = dict[str, Any]


class Live(Protocol):
    """What goes on under a rule: octets up and down so far of connections that are open."""

    @property
    def rule(self) -> Rule: ...

    @property
    def up(self) -> int: ...

    @property
    def down(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One environment: what is in force for it, and why what it wants is not ("" if it is)."""

    environment_id: str
    program_id: str
    mode: str
    rules: Sequence[Rule]
    reason: str = ""


class Budget(Protocol):
    """Of `most` source ports that connections from `source` to `target`:`port` can have, `used` are in use."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def used(self) -> int: ...

    @property
    def most(self) -> int: ...


class Status:
    """Tell how the egress stands. Lives on the event loop of the engine."""

    def __init__(
        self,
        figures: Figures,
        clock: Clock,
        limits: Limits,
        *,
        standings: Callable[[], Iterable[Standing]],
        counted: Callable[[str], int] | None = None,
        live: Callable[[], Iterable[Live]] = tuple,
        budgets: Callable[[], Iterable[Budget]] = tuple,
        lines_lost: Callable[[], int] = int,
        port_budget_alert: float = 0.7,
    ) -> None:
        """`counted` returns how many of an environment's connections count towards its limit (None: all that are open):
        what the proxy opens to 80 and 443 does not."""
        self._figures = figures
        self._clock = clock
        self._limits = limits
        self._standings = standings
        self._counted = counted
        self._live = live
        self._budgets = budgets
        self._lines_lost = lines_lost
        self._alert = port_budget_alert
        self._since = clock.now()

    def document(self) -> Document:
        """Return how everything stands now."""
        now = self._clock.now()
        known: dict[str, dict[Key, RuleFigures]] = defaultdict(dict)
        for key, figures in self._figures.all():
            known[key[0]][key] = figures
        live: dict[Key, list[int]] = defaultdict(lambda: [0, 0])
        for each in self._live():
            octets = live[key_of(each.rule)]
            octets[0] += each.up
            octets[1] += each.down
        environments = [self._environment(each, known[each.environment_id], live, now) for each in self._standings()]
        return {
            "at": rfc3339(now),
            "since": rfc3339(self._since),
            "open": sum(each["open"] for each in environments),
            "limits": {
                "connections": self._limits.connections_per_environment,
                "alert": self._limits.connections_alert,
            },
            "audit_lines_lost": self._lines_lost(),
            "environments": environments,
            "source_ports": self.budgets(),
        }

    def budgets(self) -> list[Document]:
        """Return the fullest budgets of source ports, the fullest first."""
        fullest = sorted(self._budgets(), key=lambda each: (-each.used / max(each.most, 1), each.source, each.target))
        return [self._budget(each) for each in fullest[:_MOST_BUDGETS]]

    def _budget(self, budget: Budget) -> Document:
        share = budget.used / max(budget.most, 1)
        return {
            "source": budget.source,
            "target": endpoint(budget.target, budget.port),
            "used": budget.used,
            "ports": budget.most,
            "share": round(share, 4),
            "alert": share >= self._alert,
        }

    def _environment(
        self, standing: Standing, known: Mapping[Key, RuleFigures], live: Mapping[Key, list[int]], now: float
    ) -> Document:
        octets = [value for key, value in live.items() if key[0] == standing.environment_id]
        summed = total(known.values())
        counted = len(summed.open) if self._counted is None else self._counted(standing.environment_id)
        rules = sorted(standing.rules, key=lambda rule: (not isinstance(rule, Forward), rule.listen_port))
        return {
            "environment": standing.environment_id,
            "program": standing.program_id,
            "mode": standing.mode,
            "reason": standing.reason,
            **_figures(summed, sum(each[0] for each in octets), sum(each[1] for each in octets), now),
            "counted": counted,
            "alert": counted >= self._limits.connections_alert,
            "rules": [self._rule(rule, live, now) for rule in rules],
        }

    def _rule(self, rule: Rule, live: Mapping[Key, list[int]], now: float) -> Document:
        key = key_of(rule)
        up, down = live.get(key, (0, 0))
        forward = isinstance(rule, Forward)
        return {
            "type": "forward" if forward else "proxy",
            "listen": endpoint(rule.listen_address, rule.listen_port),
            "target": endpoint(rule.name, rule.port) if forward else "",
            "mode": rule.mode.value,
            "sources": list(rule.way.sources),
            "engine": rule.engine if forward else "proxy",
            "engine_reason": rule.engine_reason if forward else "HTTP is read by the proxy",
            **_figures(self._figures.of(key), up, down, now),
        }


def _figures(figures: RuleFigures, up: int, down: int, now: float) -> Document:
    since, last = figures.longest_since(), figures.last_refusal
    return {
        "open": len(figures.open),
        "opened": figures.opened,
        "refused": dict(sorted(figures.refused.items())),
        "notices": dict(sorted(figures.notices.items())),
        "octets_up": figures.octets_up + up,
        "octets_down": figures.octets_down + down,
        "longest_open_s": None if since is None else round(max(0.0, now - since), 1),
        "last_refusal": None if last is None else {"at": rfc3339(last.at), "kind": last.kind, "reason": last.reason},
    }
