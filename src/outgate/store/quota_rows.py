"""What quotas are counted by, and the mail that is held until there is room.

Standards: SQLite's SQL; design section 5.8.
Promises: what an earlier run counted is read back by the minute; mail that is held for a quota has a time at which it
    is due by itself, and its expiry is counted from there.
Dangers: everything here runs in the thread that owns the connection; `plan` inside the caller's transaction.
Not here: when there is room (`relay.quota`), who plans (`relay.planning`), holds that somebody must end (`hold_rows`),
reading `HELD` and `LATE` (`history`).
"""

# ruff: noqa: S608 - statements are put together from our own words only; every value is bound
from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from outgate.store.event_rows import Many

# From one configuration to the next, then to its times: else a start would read all that was ever counted.
_COUNTED = (
    "WITH RECURSIVE c(id) AS (SELECT '' UNION ALL SELECT (SELECT m.smtp_config_id FROM messages AS m"
    " INDEXED BY messages_counted WHERE m.counted_at IS NOT NULL AND m.smtp_config_id > c.id"
    " ORDER BY m.smtp_config_id LIMIT 1)"
    " FROM c WHERE c.id IS NOT NULL)"
    " SELECT m.smtp_config_id, CAST(m.counted_at / 60 AS INTEGER) AS minute,"
    " count(*) FILTER (WHERE m.accepted_at <= ?), count(*) FILTER (WHERE m.accepted_at > ?)"
    " FROM c CROSS JOIN messages AS m INDEXED BY messages_counted ON m.smtp_config_id = c.id"
    " WHERE m.counted_at > ? GROUP BY m.smtp_config_id, minute ORDER BY m.smtp_config_id, minute"
)
_WAITS = "r.status = 'held' AND r.reason = 'quota' AND r.lease IS NULL"
HELD = (
    "SELECT m.queue_id, m.counted_at FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    f" WHERE {_WAITS} AND m.smtp_config_id = ? AND m.accepted_at <= ?"
    " GROUP BY m.queue_id ORDER BY m.counted_at, m.accepted_at"
)
"""What a configuration has held for its quota and accepted by a time, in the order in which it goes."""
LATE = (
    "SELECT DISTINCT m.smtp_config_id FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    f" WHERE {_WAITS} AND coalesce(r.due_at, 0) < ?"
)
"""The configurations whose mail was due before a time, or has no time yet."""
# The sign in front keeps the index of all that is held out of it: each message has a few recipients.
_STILL_HELD = (
    "SELECT r.queue_id, r.id FROM recipients AS r WHERE r.queue_id IN (VALUES {values})"
    " AND +r.status = 'held' AND r.reason = 'quota' AND r.lease IS NULL"
)
# Expiry is counted from when the message may go, whatever kept it before.
_MOVE_MESSAGES = (
    "WITH new(queue_id, at) AS (VALUES {values})"
    " UPDATE messages SET expires_at = expires_at + new.at - counted_at, counted_at = new.at"
    " FROM new WHERE messages.queue_id = new.queue_id"
)
_MOVE_RECIPIENTS = (
    "WITH new(id, at) AS (VALUES {values}) UPDATE recipients SET due_at = new.at FROM new WHERE recipients.id = new.id"
)


def counted(connection: sqlite3.Connection, since: float, until: float) -> tuple[list[tuple[str, int, int]], int]:
    """Return (configuration, minute since the epoch, messages) of what was counted after `since`, oldest first, and
    how many messages are left out because they were accepted after `until`: the clock was not right then."""
    rows = connection.execute(_COUNTED, (until, until, since)).fetchall()
    return [(each, minute, count) for each, minute, count, _ in rows if count], sum(row[3] for row in rows)


def plan(many: Many, times: Sequence[tuple[str, float]]) -> int:
    """Give messages (queue id, when) other times, those that are held for their quota still; return how many."""
    planned = dict(times)
    held = many(_STILL_HELD, [(queue_id,) for queue_id in planned])
    moved = dict.fromkeys(queue_id for queue_id, _ in held)
    many(_MOVE_MESSAGES, [(queue_id, planned[queue_id]) for queue_id in moved])
    many(_MOVE_RECIPIENTS, [(number, planned[queue_id]) for queue_id, number in held])
    return len(moved)
