"""Forget finished mail that is older than the retention, and what was counted then, a few messages at a time.

Standards: SQLite's SQL.
Promises: a step looks at and takes out a bounded number of rows, so nobody waits longer than that; a message that is
    not done with, or that something befell within the retention, stays; ids of rows that are gone are not given again.
Dangers: one step is one transaction in the thread that owns the connection. Pages that become free are used again for
    new mail; the file does not shrink.
Not here: whose turn it is (`sqlite`), how long mail is kept (`settings`).
"""

# ruff: noqa: S608 - statements are put together from our own words only; every value is bound
from __future__ import annotations

import sqlite3
from collections.abc import Callable

from outgate.model.flow import Status
from outgate.store.event_rows import Many

LOOK, MOST = 200, 40
"""Messages that one step looks at, and that it takes out."""
COUNTS_MOST = 500
"""Counts that one step takes out, and those of the last minute besides."""

_FINAL = ", ".join(f"'{status.value}'" for status in Status if status.final)
# The table's own order is the order of acceptance.
_OLD = (
    "SELECT rowid, queue_id, accepted_at >= :before, segment IS NULL AND accepted_at < :before AND NOT EXISTS"
    " (SELECT 1 FROM recipients AS r WHERE r.queue_id = m.queue_id"
    f" AND (r.updated_at >= :before OR r.status NOT IN ({_FINAL})))"
    " FROM (SELECT rowid, queue_id, segment, accepted_at FROM messages WHERE rowid > :after ORDER BY rowid LIMIT :look)"
    " AS m ORDER BY rowid"
)
_YOUNG = 20
"""Messages that must be young in a row to end a sweep."""
_FORGET = (
    "DELETE FROM attempts WHERE id IN (SELECT attempt_id FROM events WHERE queue_id IN (VALUES {values}))",
    "DELETE FROM events WHERE queue_id IN (VALUES {values})",
    "DELETE FROM recipients WHERE queue_id IN (VALUES {values})",
    "DELETE FROM messages WHERE queue_id IN (VALUES {values})",
)
_NEXT_INSTANCE = "SELECT min(instance_id) FROM counts WHERE instance_id > ?"
_OLD_COUNTS = (
    "SELECT max(minute), count(*) FROM (SELECT minute FROM counts WHERE instance_id = ? AND minute < ?"
    " ORDER BY minute LIMIT ?)"
)
_FORGET_COUNTS = "DELETE FROM counts WHERE instance_id = ? AND minute <= ?"
_KEEP = "INSERT OR REPLACE INTO numbers (name, next) VALUES (?, ?)"


class PurgeRows:
    """The sweep under way: where it is in the table. `counters` says the next id of each table that has one."""

    def __init__(self, connection: sqlite3.Connection, many: Many, counters: Callable[[], dict[str, int]]) -> None:
        self._connection = connection
        self._many = many
        self._counters = counters
        self._after = -1
        self._counts_after: str | None = None  # the instance that was looked at last; None: messages are swept

    def step(self, before: float) -> tuple[int, bool]:
        """Take out some of what was done with before `before`; return how many messages, and whether the sweep is over.

        Runs inside the caller's transaction."""
        if self._counts_after is not None:
            return 0, self._forget_counts(before)
        asked = {"before": before, "after": self._after, "look": LOOK}
        rows = self._connection.execute(_OLD, asked).fetchall()
        gone: list[tuple[str]] = []
        for number, queue_id, _, done in rows:
            if done and len(gone) == MOST:
                break
            self._after = number
            if done:
                gone.append((queue_id,))
        else:
            # What follows something young is young; but for one that came while the clock was wrong.
            if len(rows) < LOOK or all(young for _, _, young, _ in rows[-_YOUNG:]):
                self._after = -1
        if gone:
            for statement in _FORGET:
                self._many(statement, gone)
            self._connection.executemany(_KEEP, self._counters().items())
        return len(gone), self._after == -1 and self._forget_counts(before)

    def _forget_counts(self, before: float) -> bool:
        """Take out some of what was counted in minutes before that of `before`; say whether none is left."""
        instance = self._counts_after or ""
        gone = 0
        for _ in range(LOOK):
            (found,) = self._connection.execute(_NEXT_INSTANCE, (instance,)).fetchone()
            if found is None:
                self._counts_after = None
                return True
            old = (found, int(before) // 60, COUNTS_MOST - gone)
            last, count = self._connection.execute(_OLD_COUNTS, old).fetchone()
            if count:
                self._connection.execute(_FORGET_COUNTS, (found, last))
                gone += count
            if gone >= COUNTS_MOST:
                break  # there may be more of this instance
            instance = found
        self._counts_after = instance
        return False

    def begin_again(self) -> None:
        """Begin the sweep at the oldest message again: the step was rolled back."""
        self._after = -1
        self._counts_after = None
