"""Read what became of messages: the record behind the API, the trail and the status.

Standards: none.
Promises: read-only; sees only what is durable; safe in any thread and in another process than the writer.
Dangers: a search may read a whole instance's history: never call it on the event loop.
Not here: writing (`sqlite`, `queue_rows`), vendor spellings (`api`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.model.flow import Location, Outcome, SigningKey, Status, StatusEvent
from outgate.smtp.transaction import Step

_COLUMNS = (
    "queue_id, instance_id, smtp_config_id, username, key_id, key_domain, key_selector, session_id,"
    " client_address, client_port, endpoint, listener, via, helo, tls, reverse_path, header_from, message_id,"
    " subject, size, body_8bit, smtputf8, received_at, accepted_at, expires_at, segment, generation,"
    ' "offset", length'
)
_ONE = f"SELECT {_COLUMNS} FROM messages WHERE queue_id = ?"  # noqa: S608 - our own constants
_PAGE_MOST = 1000


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

    def events(self) -> tuple[StatusEvent, ...]:
        """Return the message's life in order: accepted, then each attempt and what it meant."""
        events = [
            StatusEvent(
                self.queue_id, self.accepted_at, "accepted", "", f"from {self.client_address} as {self.username}"
            )
        ]
        for attempt in self.attempts:
            where = f"{attempt.host} [{attempt.address}]" if attempt.address else attempt.host
            detail = " ".join(part for part in (where, attempt.tls) if part)
            events.append(StatusEvent(self.queue_id, attempt.started_at, "attempt", "", detail))
            for mailbox, outcome in attempt.outcomes:
                code = str(outcome.code) if outcome.code else ""
                reply = " ".join(part for part in (code, outcome.enhanced, outcome.text) if part)
                events.append(StatusEvent(self.queue_id, attempt.finished_at, outcome.status.value, mailbox, reply))
        return tuple(events)


class History:
    """Reads of one queue file over a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=5.0,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def location(self, queue_id: str) -> Location | None:
        """Return where a message's body lies now."""
        rows = self._rows('SELECT segment, generation, "offset", length FROM messages WHERE queue_id = ?', (queue_id,))
        return Location(*rows[0]) if rows and rows[0][0] is not None else None

    def message(self, queue_id: str) -> MessageRecord | None:
        """Return one message, or None if this file has none of that id."""
        found = self._with_details(self._rows(_ONE, (queue_id,)))
        return found[0] if found else None

    def messages(
        self,
        instance_id: str | None = None,
        *,
        queue_id: str | None = None,
        message_id: str | None = None,
        recipient: str | None = None,
        status: Status | str | Sequence[Status] | None = None,
        gte: float | None = None,
        lte: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MessageRecord]]:
        """Return how many messages match and one page of them, newest first.

        None means any. `status`: at least one recipient (the named one, if any) stands so. `gte` and `lte`
        bound the time of acceptance, both included. `limit` is at most 1000."""
        conditions: list[str] = []
        values: list[Any] = []
        for condition, value in (
            ("instance_id = ?", instance_id),
            ("queue_id = ?", queue_id),
            ("message_id = ?", message_id),
            ("accepted_at >= ?", gte),
            ("accepted_at <= ?", lte),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        _by_recipient(recipient, status, conditions, values)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # What is put together here are our own words; every value is bound.
        ((total,),) = self._rows(f"SELECT count(*) FROM messages{where}", values)  # noqa: S608
        page = self._rows(
            f"SELECT {_COLUMNS} FROM messages{where} ORDER BY accepted_at DESC, queue_id DESC"  # noqa: S608
            " LIMIT ? OFFSET ?",
            [*values, max(0, min(limit, _PAGE_MOST)), max(0, offset)],
        )
        return total, self._with_details(page)

    def _with_details(self, rows: list[tuple[Any, ...]]) -> list[MessageRecord]:
        if not rows:
            return []
        queue_ids = json.dumps([row[0] for row in rows])
        recipients: dict[str, list[RecipientRecord]] = {row[0]: [] for row in rows}
        attempts: dict[str, list[AttemptRecord]] = {row[0]: [] for row in rows}
        for queue_id, *fields in self._rows(
            "SELECT queue_id, id, mailbox, domain, status, attempts, due_at, lease IS NOT NULL, reply, reason,"
            " updated_at FROM recipients WHERE queue_id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (queue_ids,),
        ):
            recipients[queue_id].append(_recipient(fields))
        for queue_id, *fields in self._rows(
            "SELECT queue_id, id, started_at, finished_at, site, host, address, source, tls, route_reason,"
            " conversation FROM attempts WHERE queue_id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (queue_ids,),
        ):
            attempts[queue_id].append(_attempt(fields))
        return [_message(row, recipients[row[0]], attempts[row[0]]) for row in rows]

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()


def _by_recipient(
    recipient: str | None,
    status: Status | str | Sequence[Status] | None,
    conditions: list[str],
    values: list[Any],
) -> None:
    """Add the conditions that a recipient must meet, all of them the same one."""
    of_recipient: list[str] = []
    if recipient is not None:
        of_recipient.append("mailbox = ?")
        values.append(recipient)
    if status is not None:
        wanted = [status] if isinstance(status, str) else list(status)
        of_recipient.append(f"status IN ({', '.join('?' * len(wanted))})")
        values += [str(one) for one in wanted]
    if not of_recipient:
        return
    # By mailbox, its index leads to few messages; by status alone, each message looks at its own recipients.
    inner = f"FROM recipients WHERE {' AND '.join(of_recipient)}"
    if recipient is not None:
        conditions.append(f"queue_id IN (SELECT queue_id {inner})")
    else:
        conditions.append(f"EXISTS (SELECT 1 {inner} AND recipients.queue_id = messages.queue_id)")


def _recipient(fields: list[Any]) -> RecipientRecord:
    number, mailbox, domain, status, attempts, due_at, leased, reply, reason, updated_at = fields
    return RecipientRecord(
        number, mailbox, domain, Status(status), attempts, due_at, bool(leased), reply, reason, updated_at
    )


def _attempt(fields: list[Any]) -> AttemptRecord:
    *plain, conversation = fields
    spoken = json.loads(conversation)
    return AttemptRecord(
        *plain,
        steps=tuple(Step(at, did, reply) for at, did, reply in spoken["steps"]),
        outcomes=tuple(
            (mailbox, Outcome(number, Status(status), code, enhanced, text, reason))
            for number, mailbox, status, code, enhanced, text, reason in spoken["outcomes"]
        ),
    )


def _message(row: tuple[Any, ...], recipients: list[RecipientRecord], attempts: list[AttemptRecord]) -> MessageRecord:
    (queue_id, instance_id, smtp_config_id, username, key_id, key_domain, key_selector, *rest) = row
    (session_id, address, port, endpoint, listener, via, helo, tls, reverse_path, *rest) = rest
    (header_from, message_id, subject, size, body_8bit, smtputf8, *rest) = rest
    (received_at, accepted_at, expires_at, segment, generation, offset, length) = rest
    return MessageRecord(
        queue_id=queue_id,
        instance_id=instance_id,
        smtp_config_id=smtp_config_id,
        username=username,
        signing_key=SigningKey(key_id, key_domain, key_selector),
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
    )
