"""How much went through each rule and each environment, and how much was refused.

Standards: none.
Promises: a rule's figures stay while its environment and port stay, whatever else about it changes; a connection counts
    once; memory is bounded: beyond `MOST_RULES` the rules that were seen first, and have nothing open, are forgotten.
Dangers: in memory: a restart begins with nothing. Octets of open connections are the engine's (`status` adds them).
Not here: single connections (`audit`), what an operator is shown (`status`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from outgate.egress.audit import Connection
from outgate.egress.plan import Rule
from outgate.egress.refusal import Kind, Refused

MOST_RULES = 20_000
_MOST_CODES = 32
_LONGEST_REASON = 300

Key = tuple[str, int]


def key_of(rule: Rule) -> Key:
    """Return by what a rule is known: its environment and the port that it listens on (`portOrig`)."""
    return rule.environment_id, rule.listen_port


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """The newest refusal: when (epoch seconds), its class word, and why."""

    at: float
    kind: Kind
    reason: str


@dataclass(slots=True)
class RuleFigures:
    """Of one rule. `octets_up` and `octets_down` are those of ended connections; `open` has since when each is."""

    opened: int = 0
    octets_up: int = 0
    octets_down: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    open: dict[str, float] = field(default_factory=dict)
    last_refusal: LastRefusal | None = None

    def longest_since(self) -> float | None:
        """Return since when the longest open connection is open; None: nothing is."""
        return next(iter(self.open.values()), None)


def total(figures: Iterable[RuleFigures]) -> RuleFigures:
    """Return several rules' figures as one; the longest open comes first in its `open`."""
    found = RuleFigures()
    for each in figures:
        found.opened += each.opened
        found.octets_up += each.octets_up
        found.octets_down += each.octets_down
        found.refused.update(each.refused)
        found.notices.update(each.notices)
        found.open.update(each.open)
        last = each.last_refusal
        if last is not None and (found.last_refusal is None or found.last_refusal.at < last.at):
            found.last_refusal = last
    found.open = dict(sorted(found.open.items(), key=lambda entry: entry[1]))
    return found


class Figures:
    """Count. Lives on the event loop of the ledger that feeds it."""

    def __init__(self, *, most: int = MOST_RULES) -> None:
        self._most = most
        self._rules: dict[Key, RuleFigures] = {}

    def of(self, key: Key) -> RuleFigures:
        """Return a rule's figures: all zero if nothing ever happened there."""
        return self._rules.get(key) or RuleFigures()

    def all(self) -> Iterator[tuple[Key, RuleFigures]]:
        """Give all that have counted anything, also those of rules that are withdrawn."""
        return iter(list(self._rules.items()))

    def opened(self, connection: Connection, at: float) -> None:
        """Count a connection that goes through."""
        found = self._found(connection.rule)
        found.opened += 1
        found.open[connection.id] = at

    def refused(self, connection: Connection, refused: Refused, at: float) -> None:
        """Count one that does not."""
        found = self._found(connection.rule)
        found.refused[refused.kind] += 1
        found.last_refusal = LastRefusal(at, refused.kind, str(refused)[:_LONGEST_REASON])

    def noticed(self, connection: Connection, code: str) -> None:
        """Count a notice."""
        notices = self._found(connection.rule).notices
        if code in notices or len(notices) < _MOST_CODES:
            notices[code] += 1

    def closed(self, connection: Connection, *, bytes_up: int, bytes_down: int) -> None:
        """Count what an ended connection carried."""
        found = self._found(connection.rule)
        found.open.pop(connection.id, None)
        found.octets_up += bytes_up
        found.octets_down += bytes_down

    def _found(self, rule: Rule) -> RuleFigures:
        key = (rule.environment_id, rule.listen_port)
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= self._most:
                self._forget()
            found = self._rules[key] = RuleFigures()
        return found

    def _forget(self) -> None:
        """Forget an eighth of the rules, so that this is rare; those with open connections stay."""
        old = [key for key, each in self._rules.items() if not each.open][: max(1, self._most // 8)]
        for key in old:
            del self._rules[key]
