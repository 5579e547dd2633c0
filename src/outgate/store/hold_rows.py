"""Recipients that are held, because their configuration may not send for now: into the schedule and out of it.

Standards: SQLite's SQL; design section 5.7.
Promises: what is done to a recipient, and why, is in its message's trail; expiry stands still while a message is
    held; a hold of another kind (a damaged record, say) is left alone: only the reasons that are named are touched.
Dangers: everything here runs inside the caller's transaction, in the thread that owns the connection.
Not here: transactions and threads (`sqlite`), who is held (`relay.holds`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outgate.model.flow import Job, Status

_HOLD = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = 'held', due_at = NULL, lease = NULL, reason = ?, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.lease IS ?"
)
# Who waits, or is held, for one configuration: only messages whose body is still needed are looked at.
_WAITING = (
    "SELECT r.id, r.queue_id, r.mailbox FROM messages AS m INDEXED BY messages_with_body"
    " CROSS JOIN recipients AS r ON r.queue_id = m.queue_id"
    " WHERE m.segment IS NOT NULL AND m.smtp_config_id = ? AND r.lease IS NULL AND r.status IN ('queued', 'deferred')"
    " LIMIT ?"
)
_HELD = (
    "SELECT r.id, r.queue_id, r.mailbox FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.status = 'held' AND r.updated_at <= ? AND r.reason IN ({reasons}){of} ORDER BY r.updated_at LIMIT ?"
)
_FIRST_HELD = "SELECT min(updated_at) FROM recipients WHERE status = 'held' AND reason IN ({reasons})"
_HELD_CONFIGURATIONS = (
    "SELECT DISTINCT m.smtp_config_id FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.status = 'held' AND r.reason IN ({reasons})"
)
# Expiry stands still while a message is held.
_EXTEND = (
    "WITH new(queue_id) AS (VALUES {values})"
    " UPDATE messages SET expires_at = expires_at + max(0, ? - (SELECT min(r.updated_at) FROM recipients AS r"
    " WHERE r.queue_id = messages.queue_id AND r.status = 'held'))"
    " FROM new WHERE messages.queue_id = new.queue_id"
)
_FREE_HELD = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = CASE attempts WHEN 0 THEN 'queued' ELSE 'deferred' END, due_at = ?, reason = '',"
    " updated_at = ? FROM new WHERE recipients.id = new.id AND recipients.status = 'held'"
)
_EXPIRE_HELD = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = 'expired', due_at = NULL, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.status = 'held'"
)


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


@dataclass(frozen=True, slots=True)
class Hold:
    """A job that is not to be tried for now: why ("suspended", …), in words, and since when."""

    job: Job
    reason: str
    words: str
    at: float


class Many(Protocol):
    """Runs a statement with all rows as its VALUES (`queue_rows`)."""

    def __call__(
        self, template: str, rows: Sequence[tuple[Any, ...]], after: tuple[Any, ...] = (), /
    ) -> list[tuple[Any, ...]]: ...


class HoldRows:
    """The statements. `lease` is this process's token."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        lease: str,
        many: Many,
        add_attempts: Callable[[Sequence[tuple[Any, ...]]], object],
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._many = many
        self._add_attempts = add_attempts

    def add(self, holds: Sequence[Hold]) -> None:
        """Take leased jobs out of the schedule until their configuration may send again."""
        for hold in holds:
            found = [(r.id, hold.job.queue_id, r.mailbox) for r in hold.job.recipients]
            self._mark(found, Status.HELD, hold.reason, hold.words, hold.at)
            self._many(_HOLD, [(number,) for number, _, _ in found], (hold.reason, hold.at, self._lease))

    def waiting(self, smtp_config_id: str, reason: str, words: str, now: float, limit: int) -> int:
        """Hold what waits for a configuration, at most `limit` recipients; return how many."""
        found = self._connection.execute(_WAITING, (smtp_config_id, limit)).fetchall()
        self._mark(found, Status.HELD, reason, words, now)
        self._many(_HOLD, [(number,) for number, _, _ in found], (reason, now, None))
        return len(found)

    def release(self, smtp_config_id: str, reasons: Sequence[str], words: str, now: float, limit: int) -> int:
        """Put what was held for these reasons back into the schedule, due now; return how many recipients."""
        found = self._held(reasons, now, limit, smtp_config_id)
        self._mark(found, Status.QUEUED, "released", words, now)
        self._many(_EXTEND, [(queue_id,) for queue_id in dict.fromkeys(row[1] for row in found)], (now,))
        self._many(_FREE_HELD, [(number,) for number, _, _ in found], (now, now))
        return len(found)

    def expire(
        self, reasons: Sequence[str], before: float, words: str, now: float, limit: int
    ) -> tuple[int, list[str]]:
        """End what has been held since `before` or longer; return how many recipients, and of which messages."""
        found = self._held(reasons, before, limit)
        self._mark(found, Status.EXPIRED, "held-too-long", words, now)
        self._many(_EXPIRE_HELD, [(number,) for number, _, _ in found], (now,))
        return len(found), list(dict.fromkeys(row[1] for row in found))

    def _held(
        self, reasons: Sequence[str], before: float, limit: int, smtp_config_id: str | None = None
    ) -> list[tuple[Any, ...]]:
        of = "" if smtp_config_id is None else " AND m.smtp_config_id = ?"
        values = (before, *reasons, *(() if smtp_config_id is None else (smtp_config_id,)), limit)
        return self._connection.execute(_HELD.format(reasons=_marks(reasons), of=of), values).fetchall()

    def _mark(self, found: Sequence[tuple[Any, ...]], status: Status, reason: str, words: str, now: float) -> None:
        """Write into each message's trail what was done to its recipients, and why: an attempt that spoke to nobody."""
        by_message: dict[str, list[list[object]]] = {}
        for number, queue_id, mailbox in found:
            by_message.setdefault(queue_id, []).append([number, mailbox, status, 0, "", "", reason])
        rows = [
            (queue_id, now, now, "", "", "", "", "", words, json.dumps({"steps": [], "outcomes": outcomes}))
            for queue_id, outcomes in by_message.items()
        ]
        self._add_attempts(rows)

    def configurations(self, reasons: Sequence[str]) -> list[str]:
        """Return the configurations that have recipients held for these reasons."""
        sql = _HELD_CONFIGURATIONS.format(reasons=_marks(reasons))
        return [row[0] for row in self._connection.execute(sql, tuple(reasons)).fetchall()]

    def since(self, reasons: Sequence[str]) -> float | None:
        """Return since when the recipient is held that has been for longest, or None if there is none."""
        sql = _FIRST_HELD.format(reasons=_marks(reasons))
        return self._connection.execute(sql, tuple(reasons)).fetchone()[0]
