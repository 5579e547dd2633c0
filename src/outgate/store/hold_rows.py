"""Recipients that are held, because their configuration may not send for now: into the schedule and out of it.

Standards: SQLite's SQL; design section 5.7.
Promises: what is done to a recipient, and why, is in its message's trail; expiry stands still while a message is
    held; a hold of another kind (a damaged record, say) is left alone: only the reasons that are named are touched.
Dangers: everything here runs inside the caller's transaction, in the thread that owns the connection.
Not here: transactions and threads (`sqlite`), which messages those are (`history`), who is held (`relay.holds`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outgate.model.flow import Job, Status

_EVER = float("inf")
_HOLD = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = 'held', due_at = NULL, lease = NULL, reason = ?, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.lease IS ?"
)
_WAITING = (
    "SELECT id, queue_id, mailbox FROM recipients WHERE queue_id IN (VALUES {values})"
    " AND lease IS NULL AND status IN ('queued', 'deferred')"
)
_RECIPIENTS = "SELECT id, mailbox, updated_at FROM recipients WHERE queue_id = ? ORDER BY id"
_HELD = (
    "SELECT id, queue_id, mailbox FROM recipients WHERE queue_id IN (VALUES {values})"
    " AND status = 'held' AND reason IN ({reasons}) AND updated_at <= ?"
)
# Expiry stands still while a message is held.
_EXTEND = (
    "WITH new(queue_id) AS (VALUES {values})"
    " UPDATE messages SET expires_at = expires_at + max(0, ? - (SELECT min(r.updated_at) FROM recipients AS r"
    " WHERE r.queue_id = messages.queue_id AND r.status = 'held'))"
    " FROM new WHERE messages.queue_id = new.queue_id"
)
_RELEASE = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = CASE attempts WHEN 0 THEN 'queued' ELSE 'deferred' END, due_at = ?, reason = '',"
    " updated_at = ? FROM new WHERE recipients.id = new.id AND recipients.status = 'held'"
)
# What counts for a quota and was never tried goes when the quota has room: who plans that gives it a time.
_COUNTED = (
    "SELECT queue_id FROM messages WHERE queue_id IN (VALUES {values}) AND counted_at IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM recipients AS r WHERE r.queue_id = messages.queue_id AND r.attempts > 0)"
)
_LEAVE_TO_QUOTA = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET reason = 'quota', due_at = NULL, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.status = 'held'"
)
_EXPIRE = (
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

    def waiting(self, queue_ids: Sequence[str], reason: str, words: str, now: float) -> int:
        """Hold what waits of these messages and is not under way; return how many recipients."""
        found = self._many(_WAITING, [(queue_id,) for queue_id in queue_ids])
        self._mark(found, Status.HELD, reason, words, now)
        self._many(_HOLD, [(number,) for number, _, _ in found], (reason, now, None))
        return len(found)

    def release(self, queue_ids: Sequence[str], reasons: Sequence[str], words: str, now: float) -> int:
        """Put what of these messages is held for these reasons back into the schedule, due now, or leave it to its
        quota; return how many recipients."""
        found = self._held(queue_ids, reasons, _EVER)
        self._mark(found, Status.QUEUED, "released", words, now)
        messages = dict.fromkeys(row[1] for row in found)
        counted = {row[0] for row in self._many(_COUNTED, [(queue_id,) for queue_id in messages])}
        self._many(_EXTEND, [(queue_id,) for queue_id in messages if queue_id not in counted], (now,))
        self._many(_RELEASE, [(row[0],) for row in found if row[1] not in counted], (now, now))
        self._many(_LEAVE_TO_QUOTA, [(row[0],) for row in found if row[1] in counted], (now,))
        return len(found)

    def expire(self, queue_ids: Sequence[str], reasons: Sequence[str], before: float, words: str, now: float) -> int:
        """End what of these messages has been held since `before` or longer; return how many recipients."""
        found = self._held(queue_ids, reasons, before)
        self._mark(found, Status.EXPIRED, "held-too-long", words, now)
        self._many(_EXPIRE, [(number,) for number, _, _ in found], (now,))
        return len(found)

    def tell(self, queue_id: str, words: str, reason: str) -> None:
        """Write into a message's trail that all its recipients are held from the start."""
        rows = self._connection.execute(_RECIPIENTS, (queue_id,)).fetchall()
        found = [(number, queue_id, mailbox) for number, mailbox, _ in rows]
        if found:
            self._mark(found, Status.HELD, reason, words, rows[0][2])

    def _held(self, queue_ids: Sequence[str], reasons: Sequence[str], before: float) -> list[tuple[Any, ...]]:
        sql = _HELD.replace("{reasons}", _marks(reasons))
        return self._many(sql, [(queue_id,) for queue_id in queue_ids], (*reasons, before))

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
