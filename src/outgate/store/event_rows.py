"""Events: the record of what became of messages, one row a fact, in the order in which it became durable.

Standards: SQLite's SQL.
Promises: an event is written in the transaction that changes the rows it tells of, or not at all; ids only grow and
    are never given twice, also after a restart and after old mail is forgotten: whoever has seen one has seen all
    before it. A transaction's events are one batch of statements, however many there are.
Dangers: everything here runs inside the caller's transaction, in the thread that owns the connection.
Not here: what follows from an event for a recipient's row (`queue_rows`, `hold_rows`), reading (`history`, `metrics`),
    what an event is (`model.flow`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

from outgate.model.flow import Event

_ADD = (
    "INSERT INTO events (id, queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, actor, due_at)"
    " VALUES {values}"
)
# A report of ours is nobody's submission, and what becomes of it nobody's success.
_COUNT = (
    "WITH new(queue_id, minute, kind, n) AS (VALUES {values})"
    " INSERT INTO counts (instance_id, minute, kind, smtp_config_id, n)"
    " SELECT m.instance_id, new.minute, new.kind, m.smtp_config_id, sum(new.n)"
    " FROM new CROSS JOIN messages AS m ON m.queue_id = new.queue_id WHERE m.origin = '' GROUP BY 1, 2, 3, 4"
    " ON CONFLICT DO UPDATE SET n = n + excluded.n"
)
COUNTED = {"delivered": "success", "deferred": "deferred", "bounced": "bounced", "expired": "bounced"}
"""What metrics call these kinds."""
_NEXT = (
    "SELECT max(coalesce((SELECT max(id) FROM {table}), 0) + 1,"
    " coalesce((SELECT next FROM numbers WHERE name = '{table}'), 1))"
)

Fact = tuple[str, float, str, int | None, int | None, int, str, str, str, str, float | None]
"""An event as the columns after its id: making the object would cost a message more than its row does."""


class Many(Protocol):
    """Runs a statement with all rows as its VALUES (`queue_rows`)."""

    def __call__(
        self, template: str, rows: Sequence[tuple[Any, ...]], after: tuple[Any, ...] = (), /
    ) -> list[tuple[Any, ...]]: ...


def next_number(connection: sqlite3.Connection, table: str) -> int:
    """Return the first id of `table` that no row has or ever had."""
    (number,) = connection.execute(_NEXT.format(table=table)).fetchone()
    return number


def storable(text: str) -> str:
    """Return `text` as SQLite takes it: a lone surrogate, from bytes that were no UTF-8, becomes an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


class EventRows:
    """The events of the transaction under way, and the counter of their ids."""

    def __init__(self, connection: sqlite3.Connection, many: Many) -> None:
        self._many = many
        self.next_id = next_number(connection, "events")
        self._facts: list[Fact] = []
        self._counts: dict[tuple[str, int, str], int] = {}

    def tell(self, events: Sequence[Event]) -> None:
        """Have events written with the transaction under way."""
        self._facts += [
            (
                each.queue_id,
                each.at,
                each.kind,
                each.recipient_id,
                each.attempt_id,
                each.code,
                each.enhanced,
                storable(each.text),
                each.reason,
                storable(each.actor),
                each.due_at,
            )
            for each in events
        ]

    def add(self, facts: Sequence[Fact]) -> None:
        """Do as `tell` does, with columns."""
        self._facts += facts

    def submitted(self, queue_id: str, at: float, recipients: int) -> None:
        """Count a message's recipients as submitted, for metrics."""
        self._counts[queue_id, int(at) // 60, "submitted"] = recipients

    def write(self) -> None:
        """Write what the transaction has told: the last thing before it is committed."""
        counts = self._counts
        for fact in self._facts:
            if (kind := COUNTED.get(fact[2])) is not None:
                key = (fact[0], int(fact[1]) // 60, kind)
                counts[key] = counts.get(key, 0) + 1
        if counts:
            self._counts = {}
            self._many(_COUNT, [(*key, number) for key, number in counts.items()])
        if self._facts:
            facts, self._facts = self._facts, []
            first = self.next_id
            self.next_id += len(facts)
            self._many(_ADD, [(first + index, *fact) for index, fact in enumerate(facts)])

    def forget(self) -> None:
        """Drop what was told: the transaction has been rolled back."""
        self._facts.clear()
        self._counts.clear()
