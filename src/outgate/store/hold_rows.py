"""Recipients that are held, because their configuration may not send for now: into the schedule and out of it.

Standards: SQLite's SQL; design section 5.7.
Promises: what is done to a recipient, by whom and why, is an event; expiry stands still while a message is
    held; a hold of another kind (a damaged record, say) is left alone: only the reasons that are named are touched.
Dangers: everything here runs inside the caller's transaction, in the thread that owns the connection.
Not here: transactions and threads (`sqlite`), which messages those are (`history`), who is held (`relay.holds`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from outgate.model.flow import Event, Job
from outgate.store.event_rows import EventRows, Many

SUPPRESSED = "suppressed"
_EVER = float("inf")
REASON = "quota"
TOO_LONG = "held-too-long"
_TO_QUOTA = "held: it counts for its quota, which gives it a time"
_HOLD = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = 'held', due_at = NULL, lease = NULL, reason = ?, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.lease IS ? RETURNING recipients.id, recipients.queue_id"
)
# Reports of ours go on: they tell the sender what became of mail, whether or not there may be more of it.
_WAITING = (
    "SELECT id, queue_id FROM recipients WHERE queue_id IN (VALUES {values})"
    " AND lease IS NULL AND status IN ('queued', 'deferred')"
    " AND (SELECT origin FROM messages AS m WHERE m.queue_id = recipients.queue_id) = ''"
)
_HELD = (
    "SELECT id, queue_id FROM recipients WHERE queue_id IN (VALUES {values})"
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
    " UPDATE recipients SET status = 'expired', due_at = NULL, reason = ?, updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.status = 'held'"
)

_SUPPRESS = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET status = 'suppressed', due_at = NULL, lease = NULL, reason = 'suppressed',"
    " updated_at = ? FROM new WHERE recipients.id = new.id AND recipients.lease = ?"
    " RETURNING recipients.id, recipients.queue_id"
)


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


@dataclass(frozen=True, slots=True)
class Hold:
    """A job that is not to be tried for now: why ("suspended", …), in words, since when, and whose doing it is."""

    job: Job
    reason: str
    words: str
    at: float
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Suppress:
    """Recipients of a leased job that are suppressed by now: their ids, and the words for the trail."""

    queue_id: str
    recipients: tuple[int, ...]
    words: str
    at: float


class HoldRows:
    """The statements. `lease` is this process's token; `words` tell people why, `actor` is who did it ("": we)."""

    def __init__(self, lease: str, many: Many, events: EventRows) -> None:
        self._lease = lease
        self._many = many
        self._events = events

    def add(self, holds: Sequence[Hold]) -> None:
        """Take leased jobs out of the schedule until their configuration may send again."""
        for hold in holds:
            numbers = [(recipient.id,) for recipient in hold.job.recipients]
            held = self._many(_HOLD, numbers, (hold.reason, hold.at, self._lease))
            self._tell(sorted(held), "held", hold.reason, hold.words, hold.at, hold.actor)

    def suppress(self, found: Sequence[Suppress]) -> None:
        """End leased recipients that are suppressed: nothing is sent to them."""
        for each in found:
            ended = self._many(_SUPPRESS, [(number,) for number in each.recipients], (each.at, self._lease))
            self._tell(sorted(ended), SUPPRESSED, SUPPRESSED, each.words, each.at, "")

    def waiting(self, queue_ids: Sequence[str], reason: str, words: str, now: float, actor: str = "") -> int:
        """Hold what waits of these messages and is not under way; return how many recipients."""
        found = self._many(_WAITING, [(queue_id,) for queue_id in queue_ids])
        self._tell(found, "held", reason, words, now, actor)
        self._many(_HOLD, [(number,) for number, _ in found], (reason, now, None))
        return len(found)

    def release(self, queue_ids: Sequence[str], reasons: Sequence[str], words: str, now: float, actor: str = "") -> int:
        """Put what of these messages is held for these reasons back into the schedule, due now, or leave it to its
        quota; return how many recipients."""
        found = self._held(queue_ids, reasons, _EVER)
        self.let_go(found, words, now, actor)
        return len(found)

    def let_go(self, found: Sequence[tuple[Any, ...]], words: str, now: float, actor: str) -> None:
        """Put held recipients (id, queue id) back into the schedule, due now, or leave them to their quota."""
        messages = dict.fromkeys(row[1] for row in found)
        counted = {row[0] for row in self._many(_COUNTED, [(queue_id,) for queue_id in messages])}
        go = [row for row in found if row[1] not in counted]
        stay = [row for row in found if row[1] in counted]
        self._tell(go, "released", "", words, now, actor, due_at=now)
        self._tell(stay, "released", "", words, now, actor)
        self._tell(stay, "held", REASON, _TO_QUOTA, now, "")
        self._many(_EXTEND, [(queue_id,) for queue_id in messages if queue_id not in counted], (now,))
        self._many(_RELEASE, [(number,) for number, _ in go], (now, now))
        self._many(_LEAVE_TO_QUOTA, [(number,) for number, _ in stay], (now,))

    def expire(
        self, queue_ids: Sequence[str], reasons: Sequence[str], before: float, words: str, now: float, actor: str = ""
    ) -> int:
        """End what of these messages has been held since `before` or longer; return how many recipients."""
        found = self._held(queue_ids, reasons, before)
        self._tell(found, "expired", TOO_LONG, words, now, actor)
        self._many(_EXPIRE, [(number,) for number, _ in found], (TOO_LONG, now))
        return len(found)

    def _held(self, queue_ids: Sequence[str], reasons: Sequence[str], before: float) -> list[tuple[Any, ...]]:
        sql = _HELD.replace("{reasons}", _marks(reasons))
        return self._many(sql, [(queue_id,) for queue_id in queue_ids], (*reasons, before))

    def _tell(
        self,
        found: Sequence[tuple[Any, ...]],
        kind: str,
        reason: str,
        words: str,
        now: float,
        actor: str,
        due_at: float | None = None,
    ) -> None:
        """Tell what was done to each of these recipients (id, queue id)."""
        self._events.tell(
            [
                Event(queue_id, now, kind, number, text=words, reason=reason, actor=actor, due_at=due_at)
                for number, queue_id in found
            ]
        )
