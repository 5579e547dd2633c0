"""Read what became of messages: the record behind the API, the trail and the status.

Standards: none.
Promises: read-only; sees only what is durable; safe in any thread and in another process than the writer; what
    one call returns was true at one moment; who looks up one message never waits for a search.
Dangers: a search may read a whole instance's history: never call it on the event loop. SQLite's log cannot be
    folded into the file while one runs, so they run one at a time.
Not here: writing (`sqlite`, `queue_rows`), statements of the metrics (`metrics`), vendor spellings (`api`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from outgate.base.ids import queue_ids_from
from outgate.model.flow import Event, Location, Outcome, SigningKey, Status
from outgate.smtp.transaction import Step
from outgate.store import quota_rows
from outgate.store.conditions import add_functions, for_mailbox
from outgate.store.metrics import Bounce, Counts, Selection, count, list_bounces

_COLUMNS = (
    "queue_id, instance_id, smtp_config_id, username, key_id, key_domain, key_selector, key2_id, key2_selector,"
    " session_id, client_address, client_port, endpoint, listener, via, helo, tls, reverse_path, header_from,"
    " message_id, subject, size, body_8bit, smtputf8, received_at, accepted_at, expires_at, segment, generation,"
    ' "offset", length, warning, origin, parent'
)
_ONE = f"SELECT {_COLUMNS} FROM messages WHERE queue_id = ?"  # noqa: S608 - our own constants
# The table's own order is the order of acceptance: no index is needed, and what is read is bounded.
_SENT_FROM = (
    "SELECT username, client_address, max(accepted_at) AS at FROM"
    " (SELECT username, client_address, accepted_at FROM messages ORDER BY rowid DESC LIMIT ?)"
    " WHERE accepted_at > ? AND username != '' GROUP BY username, client_address ORDER BY at"
)
_KEYS_NEEDED = "SELECT DISTINCT key_id, key2_id FROM messages WHERE segment IS NOT NULL"
_T = TypeVar("_T")
_PAGE_MOST = 1000
COUNTED = 10_000
"""How many matches of a search are counted."""
_EVER = float("inf")
_WIDE_WAITING = 8
_STATUSES = frozenset(status.value for status in Status)
_APART_S = 1.0
"""By how much at most a queue id's time may differ from that of acceptance."""
# The order of queue ids is the order of acceptance. All that is passed over is passed over in the index.
_STANDS = (
    "SELECT DISTINCT r.queue_id AS found FROM recipients AS r INDEXED BY recipients_by_status"
    " WHERE r.instance_id = ? AND r.status = ?{window}"
)
_ACCEPTED = "(SELECT m.accepted_at FROM messages AS m WHERE m.queue_id = r.queue_id)"


@dataclass(frozen=True, slots=True)
class RecipientRecord:
    """Where one recipient stands. `reply` is the last one, "code enhanced text"; `due_at` None: not scheduled."""

    id: int
    mailbox: str
    domain: str
    status: Status
    attempts: int
    due_at: float | None
    leased: bool
    reply: str
    reason: str
    updated_at: float


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try, with its conversation and what it meant for each recipient: (mailbox, outcome)."""

    id: int
    started_at: float
    finished_at: float
    site: str
    host: str
    address: str
    source: str
    tls: str
    route_reason: str
    steps: tuple[Step, ...]
    outcomes: tuple[tuple[str, Outcome], ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """A line of a message's timeline: an event, or the beginning of an attempt ("attempt"), in words for people.

    `recipient` is a mailbox, "" when it is about the whole message; `attempt` counts from 1, 0: it came of none;
    `actor` is "" for the relay by itself."""

    at: float
    kind: str
    recipient: str
    detail: str
    attempt: int = 0
    actor: str = ""


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """Everything known of one message. `size` is the content's length in bytes as it came over the wire;
    `location` is None once nobody needs the body any more."""

    queue_id: str
    instance_id: str
    smtp_config_id: str
    username: str
    signing_key: SigningKey
    session_id: str
    client_address: str
    client_port: int
    endpoint: str
    listener: str
    via: str | None
    helo: str
    tls: str
    reverse_path: str
    header_from: str
    message_id: str
    subject: str
    size: int
    body_8bit: bool
    smtputf8: bool
    received_at: float
    accepted_at: float
    expires_at: float
    location: Location | None
    recipients: tuple[RecipientRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    warning: str = ""
    events: tuple[Event, ...] = ()
    origin: str = ""
    parent: str = ""
    reports: tuple[str, ...] = ()
    """The queue ids of our reports about it to its sender."""

    def timeline(self) -> tuple[Moment, ...]:
        """Return the message's life in order of time: its events, and where each attempt went."""
        mailboxes = {recipient.id: recipient.mailbox for recipient in self.recipients}
        moments: list[Moment] = []
        tries: dict[int, int] = {}
        for number, attempt in enumerate(self.attempts, 1):
            tries[attempt.id] = number
            where = f"{attempt.host} [{attempt.address}]" if attempt.address else attempt.host or attempt.route_reason
            said = ", ".join(part for part in (where, attempt.tls) if part)
            moments.append(Moment(attempt.started_at, "attempt", "", said, number))
        for event in self.events:
            if event.kind == "accepted":
                said = f"from {self.client_address} as {self.username}" if self.username else event.text
            else:
                code = str(event.code) if event.code else ""
                said = " ".join(part for part in (code, event.enhanced, event.text) if part) or event.reason
            mailbox = mailboxes.get(event.recipient_id or 0, "")
            number = tries.get(event.attempt_id or 0, 0)
            moments.append(Moment(event.at, event.kind, mailbox, said, number, event.actor))
        # Attempts at several domains overlap; what happened at one time was written in its order.
        return tuple(sorted(moments, key=lambda moment: (moment.at, moment.kind != "accepted")))


class Crowded(Exception):
    """More wide reads wait for their turn than we are ready to queue."""


class _Reader:
    """One read-only connection, for one caller at a time; `waiting` others may wait for it (None: any number)."""

    def __init__(self, path: Path, waiting: int | None = None) -> None:
        self._lock = threading.Lock()
        # Whoever waits keeps a thread: not all of those there are may come to stand here.
        self._places = None if waiting is None else threading.BoundedSemaphore(waiting + 1)
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=5.0,
            isolation_level=None,
            check_same_thread=False,
        )
        add_functions(self._connection)

    @contextmanager
    def snapshot(self) -> Generator[sqlite3.Connection]:
        """Give the connection; all that is read of it shows the file as it was at the first statement.

        Raises `Crowded`."""
        if self._places is not None and not self._places.acquire(blocking=False):
            raise Crowded("too many searches wait for their turn")
        try:
            with self._lock:
                self._connection.execute("BEGIN")
                try:
                    yield self._connection
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
        finally:
            if self._places is not None:
                self._places.release()

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what one statement finds."""
        with self.snapshot() as connection:
            return connection.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class History:
    """Reads of one queue file over connections of its own: for what has an id, for what may read much, and for the
    queue's own work."""

    def __init__(self, path: Path) -> None:
        self._shard = path.stem.removeprefix("queue-")
        self._narrow, self._wide, self._work = _Reader(path), _Reader(path, _WIDE_WAITING), _Reader(path)

    def close(self) -> None:
        """Close the connections, after what they are reading."""
        self._narrow.close()
        self._wide.close()
        self._work.close()

    def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what a function reads for the queue's own work, all of one moment."""
        with self._work.snapshot() as connection:
            return function(connection)

    def location(self, queue_id: str) -> Location | None:
        """Return where a message's body lies now."""
        with self._narrow.snapshot() as connection:
            row = connection.execute(
                'SELECT segment, generation, "offset", length FROM messages WHERE queue_id = ?', (queue_id,)
            ).fetchone()
        return Location(*row) if row is not None and row[0] is not None else None

    def message(self, queue_id: str) -> MessageRecord | None:
        """Return one message, or None if this file has none of that id."""
        with self._narrow.snapshot() as connection:
            found = _with_details(connection, connection.execute(_ONE, (queue_id,)).fetchall(), whole=True)
        return found[0] if found else None

    def messages(
        self,
        instance_id: str | None = None,
        *,
        queue_id: str | None = None,
        message_id: str | Sequence[str] | None = None,
        recipient: str | None = None,
        status: Status | str | Sequence[Status] | None = None,
        gte: float | None = None,
        lte: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MessageRecord]]:
        """Return how many messages match and one page of them, newest first.

        None means any. `message_id`: one as it was given, or any of several. `recipient`: a mailbox, its domain in
        any case. `status`: at least one recipient (the named one, if any) stands so. `gte` and `lte` bound the time
        of acceptance, both included. `limit` is at most 1000. More than `COUNTED` matches are not counted: the number
        is then that, or one more than what the page shows if there is more. The records have no attempts or events."""
        narrow = any(value is not None for value in (queue_id, message_id, recipient))
        statuses = _statuses(status)
        limit, offset = max(0, min(limit, _PAGE_MOST)), max(0, offset)
        if statuses and not narrow and instance_id is not None:
            return self._page(*self._by_status(instance_id, statuses, gte, lte), limit, offset)
        conditions: list[str] = []
        values: list[Any] = []
        for condition, value in (
            # Without statistics SQLite takes the instance's index, for it is in the order of the page. The sign
            # in front of a column keeps that index out where another one leads to a handful.
            ("+m.instance_id = ?" if narrow else "m.instance_id = ?", instance_id),
            ("m.queue_id = ?", queue_id),
            (
                "m.message_id IN (SELECT value FROM json_each(?))",
                None if message_id is None else json.dumps(message_id),
            ),
            ("m.accepted_at >= ?", gte),
            ("m.accepted_at <= ?", lte),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        _by_recipient(recipient, statuses, conditions, values)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # What an index does not hold is read of the page only: what comes before it is skipped in the index. Of all
        # instances, the table's own order is that of acceptance.
        order = "m.accepted_at DESC, m.rowid DESC" if narrow or instance_id is not None else "m.rowid DESC"
        found = f"SELECT m.rowid AS found FROM messages AS m{where} ORDER BY {order}"  # noqa: S608
        return self._page("rowid", found, values, limit, offset)

    def _by_status(
        self, instance_id: str, statuses: tuple[Status, ...], gte: float | None, lte: float | None
    ) -> tuple[str, str, list[Any]]:
        """Return what finds, newest first, the messages of an instance that have a recipient in one of these states:
        the column that is found, the statement and its values."""
        window = ""
        bounds: list[Any] = []
        # Only where the id leaves it open is the message asked.
        if gte is not None:
            window += f" AND r.queue_id >= ? AND (r.queue_id >= ? OR {_ACCEPTED} >= ?)"
            bounds += [queue_ids_from(self._shard, gte - _APART_S), queue_ids_from(self._shard, gte + _APART_S), gte]
        if lte is not None:
            window += f" AND r.queue_id < ? AND (r.queue_id < ? OR {_ACCEPTED} <= ?)"
            bounds += [queue_ids_from(self._shard, lte + _APART_S), queue_ids_from(self._shard, lte - _APART_S), lte]
        one = _STANDS.format(window=window)
        values = [value for status in statuses for value in (instance_id, status.value, *bounds)]
        # The branches are merged as they come: nothing is sorted.
        return "queue_id", " UNION ".join([one] * len(statuses)) + " ORDER BY found DESC", values

    def _page(
        self, column: str, found: str, values: list[Any], limit: int, offset: int
    ) -> tuple[int, list[MessageRecord]]:
        """Return the total and one page of the messages of which the statement `found` gives the `column`."""
        # What is put together here are our own words; every value is bound.
        with self._wide.snapshot() as connection:
            (total,) = connection.execute(
                f"SELECT count(*) FROM ({found} LIMIT ?)",  # noqa: S608
                [*values, COUNTED + 1],
            ).fetchone()
            page = connection.execute(
                f"SELECT {_COLUMNS} FROM ({found} LIMIT ? OFFSET ?) AS f"  # noqa: S608
                f" CROSS JOIN messages ON messages.{column} = f.found"
                " ORDER BY accepted_at DESC, messages.rowid DESC",
                [*values, limit, offset],
            ).fetchall()
            if total > COUNTED:
                # Counting all of a long history would take longer than the page: there is more, that is known.
                total = max(COUNTED, offset + len(page) + (len(page) == limit))
            return total, _with_details(connection, page, whole=False)

    def held(self, reasons: Sequence[str], *, before: float | None = None) -> dict[str, list[str]]:
        """Return the messages that have a recipient held for one of `reasons`, by configuration; only those held
        since `before` or longer, if given."""
        marks = ", ".join("?" * len(reasons))
        found = self._work.rows(
            "SELECT DISTINCT m.smtp_config_id, m.queue_id FROM recipients AS r"  # noqa: S608 - marks only
            " CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
            f" WHERE r.status = 'held' AND r.reason IN ({marks}) AND r.updated_at <= ?",
            (*reasons, _EVER if before is None else before),
        )
        by_configuration: dict[str, list[str]] = {}
        for smtp_config_id, queue_id in found:
            by_configuration.setdefault(smtp_config_id, []).append(queue_id)
        return by_configuration

    def unfinished(self, smtp_config_id: str) -> list[str]:
        """Return the messages of a configuration whose body is still needed."""
        found = self._work.rows(
            "SELECT queue_id FROM messages INDEXED BY messages_with_body"
            " WHERE segment IS NOT NULL AND smtp_config_id = ?",
            (smtp_config_id,),
        )
        return [row[0] for row in found]

    def unfinished_configurations(self) -> list[str]:
        """Return the configurations that have a message whose body is still needed."""
        found = self._work.rows(
            "SELECT DISTINCT smtp_config_id FROM messages INDEXED BY messages_with_body WHERE segment IS NOT NULL", ()
        )
        return [row[0] for row in found]

    def sent_from(self, since: float, latest: int) -> list[tuple[str, str, float]]:
        """Return who sent from which address after `since`, and when last, oldest first; of the `latest` messages."""
        return self._work.rows(_SENT_FROM, (latest, since))

    def keys_needed(self, key_ids: Collection[str]) -> set[str]:
        """Return which of these signing keys messages name that are not done."""
        named = self._work.rows(_KEYS_NEEDED, ())
        return {key_id for names in named for key_id in names}.intersection(key_ids)

    def held_for_quota(self, smtp_config_id: str, until: float) -> list[tuple[str, float]]:
        """Return what a configuration has held for its quota and accepted by `until`: (queue id, when it is to go)."""
        return [(row[0], row[1]) for row in self._work.rows(quota_rows.HELD, (smtp_config_id, until))]

    def late_for_quota(self, before: float) -> list[str]:
        """Return the configurations with mail that is held for a quota and was due before `before`, or has no time."""
        return [row[0] for row in self._work.rows(quota_rows.LATE, (before,))]

    def metrics(self, wanted: Selection, width_s: int) -> Counts:
        """Return the events of `wanted` by kind and by buckets of `width_s` seconds, all of one moment."""
        with self._wide.snapshot() as connection:
            return count(connection, wanted, width_s)

    def bounces(self, wanted: Selection, limit: int, offset: int) -> tuple[int, list[Bounce]]:
        """Return how many bounces `wanted` has and one page of them, newest first."""
        with self._wide.snapshot() as connection:
            return list_bounces(connection, wanted, limit, offset)


def _with_details(connection: sqlite3.Connection, rows: list[tuple[Any, ...]], *, whole: bool) -> list[MessageRecord]:
    """Make records of rows of `messages`, with their recipients, and if `whole` their events and attempts."""
    if not rows:
        return []
    queue_ids = json.dumps([row[0] for row in rows])
    recipients: dict[str, list[RecipientRecord]] = {row[0]: [] for row in rows}
    events: dict[str, list[Event]] = {row[0]: [] for row in rows}
    attempts: dict[str, list[AttemptRecord]] = {row[0]: [] for row in rows}
    for queue_id, *fields in connection.execute(
        "SELECT queue_id, id, mailbox, domain, status, attempts, due_at, lease IS NOT NULL, reply, reason,"
        " updated_at FROM recipients WHERE queue_id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (queue_ids,),
    ):
        recipients[queue_id].append(_recipient(fields))
    if not whole:
        return [_message(row, recipients[row[0]], [], [], []) for row in rows]
    for fields in connection.execute(
        "SELECT queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, actor, due_at FROM events"
        " WHERE queue_id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (queue_ids,),
    ):
        events[fields[0]].append(Event(*fields))
    for queue_id, *fields in connection.execute(
        "SELECT queue_id, id, started_at, finished_at, site, host, address, source, tls, route_reason,"
        " conversation FROM attempts WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(sorted({each.attempt_id for told in events.values() for each in told if each.attempt_id})),),
    ):
        attempts[queue_id].append(_attempt(fields, recipients[queue_id], events[queue_id]))
    reports: dict[str, list[str]] = {row[0]: [] for row in rows}
    for parent, queue_id in connection.execute(
        "SELECT parent, queue_id FROM messages WHERE parent != '' AND parent IN (SELECT value FROM json_each(?))"
        " ORDER BY accepted_at, queue_id",
        (queue_ids,),
    ):
        reports[parent].append(queue_id)
    return [_message(row, recipients[row[0]], attempts[row[0]], events[row[0]], reports[row[0]]) for row in rows]


def _statuses(status: Status | str | Sequence[Status] | None) -> tuple[Status, ...]:
    if status is None:
        return ()
    return (Status(status),) if isinstance(status, str) else tuple(dict.fromkeys(map(Status, status)))


def _by_recipient(
    recipient: str | None, statuses: tuple[Status, ...], conditions: list[str], values: list[Any]
) -> None:
    """Add the conditions that a recipient must meet, all of them the same one."""
    of_recipient: list[str] = []
    if recipient is not None:
        condition, bound = for_mailbox(recipient)
        of_recipient.append(condition)
        values += bound
    if statuses:
        of_recipient.append(f"status IN ({', '.join('?' * len(statuses))})")
        values += [status.value for status in statuses]
    if not of_recipient:
        return
    # By mailbox, its index leads to few messages; by status alone, each message looks at its own recipients.
    inner = f"FROM recipients WHERE {' AND '.join(of_recipient)}"
    if recipient is not None:
        conditions.append(f"m.queue_id IN (SELECT queue_id {inner})")
    else:
        conditions.append(f"EXISTS (SELECT 1 {inner} AND recipients.queue_id = m.queue_id)")


def _recipient(fields: list[Any]) -> RecipientRecord:
    number, mailbox, domain, status, attempts, due_at, leased, reply, reason, updated_at = fields
    return RecipientRecord(
        number, mailbox, domain, Status(status), attempts, due_at, bool(leased), reply, reason, updated_at
    )


def _attempt(fields: list[Any], recipients: list[RecipientRecord], events: list[Event]) -> AttemptRecord:
    *plain, conversation = fields
    number = plain[0]
    mailboxes = {recipient.id: recipient.mailbox for recipient in recipients}
    return AttemptRecord(
        *plain,
        steps=tuple(Step(at, did, reply) for at, did, reply in json.loads(conversation)),
        outcomes=tuple(
            (
                mailboxes.get(event.recipient_id, ""),
                Outcome(event.recipient_id, Status(event.kind), event.code, event.enhanced, event.text, event.reason),
            )
            for event in events
            if event.attempt_id == number and event.recipient_id is not None and event.kind in _STATUSES
        ),
    )


def _message(
    row: tuple[Any, ...],
    recipients: list[RecipientRecord],
    attempts: list[AttemptRecord],
    events: list[Event],
    reports: list[str],
) -> MessageRecord:
    (queue_id, instance_id, smtp_config_id, username, *rest) = row
    key, rest = SigningKey(*rest[:5]), rest[5:]
    (session_id, address, port, endpoint, listener, via, helo, tls, reverse_path, *rest) = rest
    (header_from, message_id, subject, size, body_8bit, smtputf8, *rest) = rest
    (received_at, accepted_at, expires_at, segment, generation, offset, length, warning, origin, parent) = rest
    return MessageRecord(
        queue_id=queue_id,
        instance_id=instance_id,
        smtp_config_id=smtp_config_id,
        username=username,
        signing_key=key,
        session_id=session_id,
        client_address=address,
        client_port=port,
        endpoint=endpoint,
        listener=listener,
        via=via or None,
        helo=helo,
        tls=tls,
        reverse_path=reverse_path,
        header_from=header_from,
        message_id=message_id,
        subject=subject,
        size=size,
        body_8bit=bool(body_8bit),
        smtputf8=bool(smtputf8),
        received_at=received_at,
        accepted_at=accepted_at,
        expires_at=expires_at,
        location=None if segment is None else Location(segment, generation, offset, length),
        recipients=tuple(recipients),
        attempts=tuple(attempts),
        warning=warning,
        events=tuple(events),
        origin=origin,
        parent=parent,
        reports=tuple(reports),
    )
