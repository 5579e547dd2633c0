"""What quotas are counted by, and the mail that is held until there is room.

Standards: SQLite's SQL; design section 5.8.
Promises: what an earlier run counted is read back by the minute; mail that is held for a quota has a time at which it
    is due by itself, and its expiry is counted from there.
Dangers: everything here runs in the thread that owns the connection; `plan` inside the caller's transaction.
Not here: when there is room (`relay.quota`), holds that somebody must end (`hold_rows`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

REASON = "quota"
_COUNTED = (
    "SELECT smtp_config_id, CAST(counted_at / 60 AS INTEGER) AS minute, count(*) FROM messages"
    " WHERE counted_at > ? GROUP BY smtp_config_id, minute ORDER BY smtp_config_id, minute"
)
_HELD = (
    "SELECT m.queue_id, m.counted_at FROM messages AS m WHERE m.smtp_config_id = ? AND m.counted_at > ?"
    " AND m.accepted_at <= ? AND EXISTS (SELECT 1 FROM recipients AS r WHERE r.queue_id = m.queue_id"
    " AND r.status = 'held' AND r.reason = 'quota' AND r.lease IS NULL) ORDER BY m.counted_at, m.accepted_at"
)
_MOVE_MESSAGE = "UPDATE messages SET counted_at = ?, expires_at = expires_at + ? WHERE queue_id = ?"
_MOVE_RECIPIENTS = (
    "UPDATE recipients SET due_at = ? WHERE queue_id = ? AND status = 'held' AND reason = 'quota' AND lease IS NULL"
)


def counted(connection: sqlite3.Connection, since: float) -> list[tuple[str, int, int]]:
    """Return (configuration, minute since the epoch, messages) of what was counted after `since`, oldest first."""
    return connection.execute(_COUNTED, (since,)).fetchall()


def plan(connection: sqlite3.Connection, smtp_config_id: str, times: Sequence[float], now: float) -> int:
    """Give what a configuration had held by `now` these times, in order; return how many messages."""
    held = connection.execute(_HELD, (smtp_config_id, now, now)).fetchall()
    for (queue_id, before), at in zip(held, times, strict=False):
        connection.execute(_MOVE_MESSAGE, (at, at - before, queue_id))
        connection.execute(_MOVE_RECIPIENTS, (at, queue_id))
    return min(len(held), len(times))
