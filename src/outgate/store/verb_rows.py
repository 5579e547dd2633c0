"""Do an operator's verb to recipients: into the schedule, out of it, to an end, to another route.

Standards: SQLite's SQL.
Promises: what is done, by whom and why, is in each message's trail, in the same transaction; what is under way is not
    touched: a hold or cancellation of it is written down as a wish and done in the transaction in which it comes back.
Dangers: everything here runs inside the caller's transaction, in the thread that owns the connection. Expiry is a
    message's: where its recipients are released one after the other, each release puts it off.
Not here: transactions and threads (`sqlite`), which recipients those are (`depth`), doors (`verbs`).
"""

# ruff: noqa: S608 - statements are put together from our own words only; every value is bound
from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from outgate.model.flow import Event, Status
from outgate.model.operations import OPERATOR, Done, Fate, Order, Scope, Standing, StandingHold, Verb, fate
from outgate.store.event_rows import EventRows, Many

_FOUND = (
    "SELECT r.id, r.queue_id, r.mailbox, r.domain, r.site, r.status, r.reason, r.lease IS NOT NULL, r.due_at,"
    " m.instance_id, m.smtp_config_id FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.id IN (VALUES {values})"
)
_HOLD = (
    "WITH new(id) AS (VALUES {values})"
    f" UPDATE recipients SET status = 'held', due_at = NULL, reason = '{OPERATOR}', updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.lease IS NULL"
)
_CANCEL = (
    "WITH new(id) AS (VALUES {values})"
    f" UPDATE recipients SET status = 'cancelled', due_at = NULL, reason = '{OPERATOR}', updated_at = ?"
    " FROM new WHERE recipients.id = new.id AND recipients.lease IS NULL"
)
_DUE = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET due_at = ? FROM new WHERE recipients.id = new.id AND recipients.lease IS NULL"
    " AND recipients.status IN ('queued', 'deferred') AND recipients.due_at > ?"
)
_ROUTE = "WITH new(id) AS (VALUES {values}) UPDATE recipients SET route = ? FROM new WHERE recipients.id = new.id"
_WISH = (
    "INSERT INTO operator_wishes (recipient_id, verb, actor, at, why) VALUES {values}"
    " ON CONFLICT (recipient_id) DO UPDATE SET verb = excluded.verb, actor = excluded.actor, at = excluded.at,"
    " why = excluded.why WHERE operator_wishes.verb != 'cancel'"
)
_WISHES_OF = "SELECT recipient_id FROM operator_wishes WHERE verb = 'hold' AND recipient_id IN (VALUES {values})"
_FORGET = "DELETE FROM operator_wishes WHERE recipient_id IN (VALUES {values})"
_CAME_BACK = (
    "SELECT w.recipient_id, w.verb, w.actor, w.at, w.why, r.queue_id, r.status, r.reason, r.updated_at"
    " FROM operator_wishes AS w CROSS JOIN recipients AS r ON r.id = w.recipient_id WHERE r.lease IS NULL"
)
_ADD_HOLD = (
    "INSERT INTO standing_holds (instance_id, smtp_config_id, site, domain, actor, since, why)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance_id, smtp_config_id, site, domain)"
    " DO UPDATE SET actor = excluded.actor, since = excluded.since, why = excluded.why"
)
_END_HOLD = "DELETE FROM standing_holds WHERE instance_id = ? AND smtp_config_id = ? AND site = ? AND domain = ?"
_HOLDS = "SELECT instance_id, smtp_config_id, site, domain, actor, since, why FROM standing_holds ORDER BY since"

LetGo = Callable[[Sequence[tuple[Any, ...]], str, float, str], object]
"""Puts recipients (id, queue id) that are held back into the schedule: words, time, actor (`hold_rows`)."""


@dataclass(slots=True)
class Step:
    """What one step of an order came to: counts, the configurations and sites of what changed, the recipients that are
    under way, and the bodies that nobody needs once this is durable, by segment."""

    done: Done = field(default_factory=Done)
    configurations: set[str] = field(default_factory=set)
    sites: set[str] = field(default_factory=set)
    under_way: list[int] = field(default_factory=list)
    freed: dict[int, tuple[int, int]] = field(default_factory=dict)


class VerbRows:
    """The statements; each call belongs to one transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        many: Many,
        events: EventRows,
        let_go: LetGo,
        free_done: Callable[[Sequence[str]], dict[int, tuple[int, int]]],
    ) -> None:
        self._connection = connection
        self._many = many
        self._events = events
        self._let_go = let_go
        self._free_done = free_done
        self._wishes = True  # until the table has been seen empty

    # --- standing holds ---

    def holds(self) -> Standing:
        """Return the holds that stand."""
        rows = self._connection.execute(_HOLDS).fetchall()
        return Standing(StandingHold(Scope((), *row[:4]), *row[4:]) for row in rows)

    def stand(self, hold: StandingHold) -> None:
        """Write a hold down; one of the same scope is replaced."""
        self._connection.execute(_ADD_HOLD, (*hold.scope.key, hold.actor, hold.since, hold.why))

    def end(self, scope: Scope) -> list[StandingHold]:
        """End the holds that a release of `scope` ends, and return them."""
        ended = self.holds().ended_by(scope)
        self._connection.executemany(_END_HOLD, [hold.scope.key for hold in ended])
        return ended

    # --- verbs ---

    def obey(self, order: Order, numbers: Sequence[int]) -> Step:
        """Do to these recipients what is ordered, as they stand now."""
        step = Step()
        rows = self._many(_FOUND, [(number,) for number in numbers])
        fates: dict[Fate, list[tuple[Any, ...]]] = {each: [] for each in Fate}
        for row in rows:
            site = order.scope.site
            if site and (row[4] or row[3]) != site:
                continue  # what is under way was chosen without knowing its site
            found = fate(order.verb, Status(row[5]), leased=bool(row[7]), reason=row[6])
            fates[found].append(row)
        step.done.held = len(fates[Fate.HELD])
        step.done.final = len(fates[Fate.FINAL])
        step.done.under_way = len(fates[Fate.UNDER_WAY])
        step.under_way = [row[0] for row in fates[Fate.UNDER_WAY]]
        changed = self._do(order, fates[Fate.CHANGES], step)
        if order.verb in (Verb.HOLD, Verb.CANCEL):
            self._wish(order, fates[Fate.UNDER_WAY])
        elif order.verb is Verb.RELEASE:
            self._unwish(fates[Fate.UNDER_WAY], step)
        elif order.verb is Verb.REROUTE:
            self._many(_ROUTE, [(row[0],) for row in fates[Fate.UNDER_WAY]], (order.route,))
            self._tell(order, fates[Fate.UNDER_WAY])
        step.done.changed += len(changed)
        step.done.messages += len({row[1] for row in changed})
        step.configurations = {row[10] for row in changed}
        step.sites = {row[4] or row[3] for row in changed}
        return step

    def _do(self, order: Order, rows: list[tuple[Any, ...]], step: Step) -> list[tuple[Any, ...]]:
        """Do the verb to recipients that it changes; return those that it did."""
        ids = [(row[0],) for row in rows]
        if order.verb is Verb.HOLD:
            self._tell(order, rows)
            self._many(_HOLD, ids, (order.at,))
        elif order.verb is Verb.CANCEL:
            self._tell(order, rows)
            self._many(_CANCEL, ids, (order.at,))
            step.freed = self._free_done(list(dict.fromkeys(row[1] for row in rows)))
        elif order.verb is Verb.REROUTE:
            self._tell(order, rows)
            self._many(_ROUTE, ids, (order.route,))
            self._many(_DUE, ids, (order.at, order.at))
        elif order.verb is Verb.RETRY:
            rows = [row for row in rows if row[8] is None or row[8] > order.at]
            self._tell(order, rows, order.at)
            self._many(_DUE, [(row[0],) for row in rows], (order.at, order.at))
        else:
            standing = self.holds()
            kept = [row for row in rows if standing.find(row[9], row[10], row[3], row[4])]
            step.done.kept = len(kept)
            rows = [row for row in rows if row not in kept] if kept else rows
            self._let_go([(row[0], row[1]) for row in rows], order.words(), order.at, order.actor)
        return rows

    def _tell(self, order: Order, rows: Sequence[tuple[Any, ...]], due_at: float | None = None) -> None:
        """Have events of what is done written."""
        kind, reason = _TOLD[order.verb]
        self._events.tell(
            [
                Event(
                    row[1], order.at, kind, row[0], text=order.words(), reason=reason, actor=order.actor, due_at=due_at
                )
                for row in rows
            ]
        )

    # --- what is under way ---

    def _wish(self, order: Order, rows: Sequence[tuple[Any, ...]]) -> None:
        self._wishes = self._wishes or bool(rows)
        self._many(_WISH, [(row[0], order.verb.value, order.actor, order.at, order.why) for row in rows])

    def _unwish(self, rows: Sequence[tuple[Any, ...]], step: Step) -> None:
        """A release of what is under way takes back the wish that it be held."""
        held = self._many(_WISHES_OF, [(row[0],) for row in rows])
        self._many(_FORGET, held)
        step.done.changed += len(held)
        step.done.under_way -= len(held)

    def come_back(self) -> tuple[set[int], dict[int, tuple[int, int]]]:
        """Do what was wished of recipients that are no longer under way; return those that are cancelled by it, and the
        bodies that nobody needs once this is durable, by segment."""
        if not self._wishes:
            return set(), {}
        rows = self._connection.execute(_CAME_BACK).fetchall()
        cancelled: dict[int, str] = {}
        for number, verb, actor, at, why, queue_id, status, reason, updated_at in rows:
            found = fate(Verb(verb), Status(status), leased=False, reason=reason)
            if found is not Fate.CHANGES:
                continue
            # Not before what the trail says of the attempt that it has just had.
            order = Order(Verb(verb), Scope(), actor, max(at, updated_at), why)
            self._tell(order, [(number, queue_id)])
            self._many(_HOLD if verb == Verb.HOLD else _CANCEL, [(number,)], (order.at,))
            if verb == Verb.CANCEL:
                cancelled[number] = queue_id
        self._many(_FORGET, [(row[0],) for row in rows])
        (left,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM operator_wishes)").fetchone()
        # Seen before this transaction ends: should it be undone, the next one looks again.
        self._wishes = bool(left or rows)
        return set(cancelled), self._free_done(list(dict.fromkeys(cancelled.values())))


_TOLD = {
    Verb.HOLD: ("held", OPERATOR),
    Verb.RELEASE: ("released", ""),
    Verb.RETRY: ("retried", ""),
    Verb.CANCEL: ("cancelled", OPERATOR),
    Verb.REROUTE: ("rerouted", ""),
}
"""How an event tells of a verb: its kind, and the reason's word."""
