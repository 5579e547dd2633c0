"""Count what became of an instance's mail, by time, and list its bounces, from the rows themselves.

Standards: none.
Promises: an event of one recipient counts once, at the time it happened; reports of our own count for nobody. A window
    of two days or more that asks for no single message is answered from counts by the minute, however much mail there
    was; its first and last minute are whole then. Else messages are found by the index of instance and time, so what
    other instances and other times hold costs nothing.
Dangers: what asks for a recipient, sender, subject or user, and short windows, read every recipient that was accepted
    in the window or up to `reach_s` before it: seconds for a million. What happens to a message later than that is not
    counted there. The caller sees to one transaction, a thread, and the functions of `conditions.add_functions`.
Not here: connections (`history`), the width of a bucket and the vendor's spelling (`api.event_notifications`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outgate.model.flow import Status
from outgate.store.conditions import about, for_mailbox, from_mailbox

REACH_S = 15 * 86_400.0
"""How long after its acceptance something may still happen to a message, with the settings as they come: a day in
the queue and two weeks on hold."""

# The order of these joins is the plan: without statistics SQLite would guess.
_RECIPIENTS = " FROM messages AS m CROSS JOIN recipients AS r ON r.queue_id = m.queue_id"
_SUBMITTED = (
    f"SELECT 'submitted', CAST(m.accepted_at AS INTEGER) / ?, count(*){_RECIPIENTS}"
    " WHERE m.origin = '' AND m.accepted_at >= ? AND m.accepted_at <= ?{scope} GROUP BY 2"
)
_BEFELL = (
    "SELECT CASE e.kind WHEN 'delivered' THEN 'success' WHEN 'deferred' THEN 'deferred' ELSE 'bounced' END,"
    " CAST(e.at AS INTEGER) / ?, count(*) FROM messages AS m CROSS JOIN events AS e ON e.queue_id = m.queue_id"
    " WHERE m.origin = '' AND e.at >= ? AND e.at <= ? AND e.kind IN ('delivered', 'deferred', 'bounced', 'expired')"
    " AND m.accepted_at >= ? AND m.accepted_at <= ?{scope} GROUP BY 1, 2"
)
_ROLLED_UP = (
    "SELECT kind, minute / ?, sum(n) FROM counts"
    " WHERE instance_id = ? AND minute >= ? AND minute <= ?{of} GROUP BY 1, 2"
)
_COARSE_S = 172_800.0
"""From which length of a window on its edges are whole minutes."""
_BOUNCED = (
    f"{_RECIPIENTS} WHERE m.origin = '' AND r.updated_at >= ? AND r.updated_at <= ?"
    " AND r.status IN ('bounced', 'expired') AND m.accepted_at >= ? AND m.accepted_at <= ?{scope}"
)
_BOUNCES = (
    "SELECT m.queue_id, r.mailbox, m.subject, r.status, r.reply, r.reason, r.updated_at, m.client_address"
    f"{_BOUNCED} ORDER BY r.updated_at DESC, r.id DESC LIMIT ? OFFSET ?"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events: those from `gte` to `lte` (epoch seconds, both included) of an instance's mail.

    None means any. `email_to` and `email_from` (the From field) are whole mailboxes, `subject` is a part of it
    in any case, `username` is exact. `reach_s` is the longest life of a message in seconds, holds included."""

    instance_id: str
    gte: float
    lte: float
    smtp_config_id: str | None = None
    username: str | None = None
    email_from: str | None = None
    email_to: str | None = None
    subject: str | None = None
    reach_s: float = REACH_S


Counts = Mapping[str, Mapping[int, int]]
"""For each of submitted, success, deferred and bounced: the number of events by bucket, empty ones left out.
A bucket's number is its time in epoch seconds divided by the width."""


@dataclass(frozen=True, slots=True)
class Bounce:
    """A recipient that will not get its mail: refused for good, or given up when the message expired.

    `reply` is the last one, "" if no server ever gave one; `reason` is the class word of it."""

    queue_id: str
    mailbox: str
    subject: str
    status: Status
    reply: str
    reason: str
    at: float
    client_address: str


def count(connection: sqlite3.Connection, wanted: Selection, width_s: int) -> Counts:
    """Return the events of `wanted` by kind and by buckets of `width_s` seconds."""
    if _whole_minutes(wanted, width_s):
        return _rolled_up(connection, wanted, width_s // 60)
    window, accepted = [wanted.gte, wanted.lte], [wanted.gte - wanted.reach_s, wanted.lte]
    mail, mail_values = _mail(wanted)
    recipient, recipient_values = _recipient(wanted, "{condition}")
    outcome, outcome_values = _recipient(wanted, "e.recipient_id IN (SELECT id FROM recipients WHERE {condition})")
    found: dict[str, dict[int, int]] = {"submitted": {}, "success": {}, "deferred": {}, "bounced": {}}
    for statement, scope, values in (
        (_SUBMITTED, mail + recipient, [*window, *mail_values, *recipient_values]),
        (_BEFELL, mail + outcome, [*window, *accepted, *mail_values, *outcome_values]),
    ):
        for kind, number, events in connection.execute(statement.format(scope=scope), [width_s, *values]):
            found[kind][number] = events
    return found


def _whole_minutes(wanted: Selection, width_s: int) -> bool:
    """Say whether what was counted by the minute answers: nothing of single messages is asked, and no minute is cut."""
    single = (wanted.username, wanted.email_from, wanted.email_to, wanted.subject)
    return not any(each is not None for each in single) and width_s % 60 == 0 and wanted.lte - wanted.gte >= _COARSE_S


def _rolled_up(connection: sqlite3.Connection, wanted: Selection, width: int) -> Counts:
    of = "" if wanted.smtp_config_id is None else " AND smtp_config_id = ?"
    values = [width, wanted.instance_id, int(wanted.gte) // 60, int(wanted.lte) // 60]
    found: dict[str, dict[int, int]] = {"submitted": {}, "success": {}, "deferred": {}, "bounced": {}}
    configuration = [] if wanted.smtp_config_id is None else [wanted.smtp_config_id]
    for kind, number, events in connection.execute(_ROLLED_UP.format(of=of), [*values, *configuration]):
        found[kind][number] = events
    return found


def list_bounces(
    connection: sqlite3.Connection, wanted: Selection, limit: int, offset: int
) -> tuple[int, list[Bounce]]:
    """Return how many bounces `wanted` has and one page of them, newest first."""
    mail, mail_values = _mail(wanted)
    recipient, recipient_values = _recipient(wanted, "{condition}")
    scope = mail + recipient
    values = [wanted.gte, wanted.lte, wanted.gte - wanted.reach_s, wanted.lte, *mail_values, *recipient_values]
    (total,) = connection.execute(f"SELECT count(*){_BOUNCED}".format(scope=scope), values).fetchone()
    page = connection.execute(_BOUNCES.format(scope=scope), [*values, limit, offset]).fetchall()
    return total, [
        Bounce(queue_id, mailbox, subject, Status(status), reply, reason, at, client)
        for queue_id, mailbox, subject, status, reply, reason, at, client in page
    ]


def _mail(wanted: Selection) -> tuple[str, list[Any]]:
    """Return the conditions that a message must meet."""
    # One mailbox's index leads to few messages; the sign in front of a column keeps its own index out.
    found = " AND m.instance_id = ?" if wanted.email_to is None else " AND +m.instance_id = ?"
    values: list[Any] = [wanted.instance_id]
    for condition, value in (
        ("m.smtp_config_id = ?", wanted.smtp_config_id),
        ("m.username = ?", wanted.username),
    ):
        if value is not None:
            found += f" AND {condition}"
            values.append(value)
    for text, make in ((wanted.email_from, from_mailbox), (wanted.subject, about)):
        if text is not None:
            condition, bound = make(text)
            found += f" AND {condition}"
            values += bound
    started, bound = _recipient(wanted, "m.queue_id IN (SELECT queue_id FROM recipients WHERE {condition})")
    return found + started, values + bound


def _recipient(wanted: Selection, frame: str) -> tuple[str, list[Any]]:
    """Return the condition of the wanted recipient within `frame`, or nothing if any will do."""
    if wanted.email_to is None:
        return "", []
    condition, values = for_mailbox(wanted.email_to)
    return f" AND {frame.format(condition=condition)}", list(values)
