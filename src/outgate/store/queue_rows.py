"""Write the rows of one queue file: messages, recipients, attempts, segments.

Standards: SQLite's SQL; multi-row `VALUES`, `UPDATE … FROM` and `RETURNING` (SQLite 3.35).
Promises: no statement runs once per message: a batch is a handful of statements, whatever its size. What changes where
    a recipient stands writes the event that says so, in the same transaction.
Dangers: one thread owns the connection. Every statement gives the interpreter's lock away and must win it
    back from the event loop, so statements, not rows, are what a batch costs.
Not here: threads and batches (`sqlite`), bodies (`spool`), what is held (`hold_rows`), the record (`event_rows`),
    reads for people (`history`).

The module is long because a batch's statements and the rows that they take are read together.
"""

# ruff: noqa: S608 - statements are put together from our own words only; every value is bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.base.clock import rfc3339
from outgate.model.flow import (
    Accepted,
    Attempt,
    Event,
    Job,
    JobRecipient,
    Location,
    Outcome,
    Recipient,
    SigningKey,
    Status,
)
from outgate.store import quota_rows
from outgate.store.event_rows import EventRows, Fact, next_number, storable
from outgate.store.hold_rows import REASON, SUPPRESSED, HoldRows
from outgate.store.purge_rows import PurgeRows
from outgate.store.verb_rows import VerbRows

FINAL = tuple(status.value for status in Status if status.final)
_FINAL_LIST = ", ".join(f"'{status}'" for status in FINAL)

_ADD_MESSAGES = (
    "INSERT INTO messages (queue_id, instance_id, smtp_config_id, username, key_id, key_domain, key_selector,"
    " key2_id, key2_selector, session_id, client_address, client_port, endpoint, listener, via, helo, tls,"
    " reverse_path, header_from, message_id, subject, size, body_8bit, smtputf8, ret, envid, requiretls, received_at,"
    " accepted_at, expires_at,"
    ' segment, generation, "offset", length, counted_at, warning, origin, parent, tls_optional) VALUES {values}'
)
_ADD_RECIPIENTS = (
    "INSERT INTO recipients (id, queue_id, mailbox, domain, smtp_config_id, instance_id, notify, orcpt, status,"
    " attempts, due_at,"
    " lease, reply, reason, updated_at) VALUES {values}"
)
_ADD_ATTEMPTS = (
    "INSERT INTO attempts (id, queue_id, started_at, finished_at, site, host, address, source, tls, route_reason,"
    " conversation) VALUES {values}"
)
_SETTLE = (
    "WITH new(id, status, due_at, reply, reason, updated_at, site) AS (VALUES {values})"
    " UPDATE recipients SET status = new.status, attempts = recipients.attempts + 1, due_at = new.due_at,"
    " lease = NULL, reply = new.reply, reason = new.reason, updated_at = new.updated_at, site = new.site,"
    " may_have_arrived = may_have_arrived OR new.reason = 'unknown'"
    " FROM new WHERE recipients.id = new.id AND recipients.lease = ? RETURNING recipients.id"
)
_RELEASE = (
    "WITH new(id, due_at) AS (VALUES {values})"
    " UPDATE recipients SET due_at = new.due_at, lease = NULL"
    " FROM new WHERE recipients.id = new.id AND recipients.lease = ?"
)
_WAIT = (
    "WITH new(id, due_at, site, reply) AS (VALUES {values})"
    " UPDATE recipients SET due_at = new.due_at, lease = NULL, site = new.site, reply = new.reply, reason = 'rate'"
    " FROM new WHERE recipients.id = new.id AND recipients.lease = ?"
)
_DONE = (
    "SELECT rowid, segment, length FROM messages WHERE queue_id IN (VALUES {values}) AND segment IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM recipients"
    f" WHERE recipients.queue_id = messages.queue_id AND recipients.status NOT IN ({_FINAL_LIST}))"
)
_FREE = (
    'UPDATE messages SET segment = NULL, generation = NULL, "offset" = NULL, length = NULL'
    " WHERE rowid IN (VALUES {values})"
)

# What is left out is left out in the index, which has all that these ask of a recipient: behind 100,000 rows of one
# who has enough in delivery, the next one's is found without reading a row.
_DUE = (
    "SELECT r.queue_id, r.domain FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.due_at <= ? AND r.lease IS NULL AND m.segment IS NOT NULL{but} ORDER BY r.due_at, r.id LIMIT ?"
)
# The same rows as above: one that is due but never claimed would have the queue look again at once, for ever.
_NEXT_DUE = (
    "SELECT r.due_at FROM recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.due_at > ? AND r.lease IS NULL AND m.segment IS NOT NULL{but} ORDER BY r.due_at LIMIT 1"
)
_JOB = (
    "SELECT r.id, r.queue_id, r.mailbox, r.domain, r.attempts, r.notify, r.orcpt, r.warned, r.may_have_arrived,"
    " r.route, m.instance_id, m.smtp_config_id, m.key_id, m.key_domain, m.key_selector, m.key2_id, m.key2_selector,"
    ' m.reverse_path, m.segment, m.generation, m."offset", m.length, m.accepted_at, m.expires_at,'
    " m.body_8bit, m.smtputf8, m.ret, m.envid, m.requiretls, m.origin, m.tls_optional"
    " FROM recipients AS r JOIN messages AS m ON m.queue_id = r.queue_id WHERE r.queue_id IN (VALUES {values})"
)
_TAKE = _JOB + " AND r.due_at <= ? AND r.lease IS NULL ORDER BY r.id"
_HELD = (
    _JOB
    + " AND r.status = 'held' AND r.updated_at <= ? AND r.reason IN ({reasons}) AND m.segment IS NOT NULL ORDER BY r.id"
)
_WARNED = "UPDATE recipients SET warned = 1 WHERE id IN (VALUES {values})"
_LEASE = "UPDATE recipients SET lease = ? WHERE id = ?"
# Reads all that waits, once per start: an index of leases would cost each message two entries to save a third of a
# second with 100,000.
_UNDER_WAY = (
    "SELECT r.id, r.queue_id FROM messages AS m INDEXED BY messages_with_body CROSS JOIN recipients AS r"
    " ON r.queue_id = m.queue_id WHERE m.segment IS NOT NULL"
    f" AND (r.lease IS NOT NULL OR r.status = 'attempting') AND r.status NOT IN ({_FINAL_LIST}) ORDER BY r.id"
)
_RECOVER = (
    "WITH new(id) AS (VALUES {values})"
    " UPDATE recipients SET may_have_arrived = may_have_arrived OR lease IS NOT NULL, lease = NULL,"
    " due_at = min(coalesce(due_at, ?), ?),"
    " status = CASE WHEN status != 'attempting' THEN status WHEN attempts = 0 THEN 'queued' ELSE 'deferred' END"
    " FROM new WHERE recipients.id = new.id"
)
_MAY_HAVE_ARRIVED = "the service ended without warning while this was under way: it may have arrived"
_MOVE = (
    'UPDATE messages SET segment = ?, generation = ?, "offset" = ?, length = ? WHERE queue_id = ?'
    ' AND segment = ? AND generation = ? AND "offset" = ?'
)


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_sql_cache: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True, slots=True)
class Full:
    """Who has as much in delivery as they may: domains, configurations, and configurations at a domain (domain,
    configuration)."""

    domains: Collection[str] = ()
    configurations: Collection[str] = ()
    pairs: Collection[tuple[str, str]] = ()

    @property
    def condition(self) -> str:
        """Return the condition that leaves them out, a parameter each."""
        condition = ""
        if self.domains:
            condition += f" AND r.domain NOT IN ({', '.join('?' * len(self.domains))})"
        if self.configurations:
            condition += f" AND r.smtp_config_id NOT IN ({', '.join('?' * len(self.configurations))})"
        if self.pairs:
            pairs = ", ".join(["(?, ?)"] * len(self.pairs))
            condition += f" AND (r.domain, r.smtp_config_id) NOT IN (VALUES {pairs})"
        return condition

    @property
    def values(self) -> tuple[str, ...]:
        """Return the parameters."""
        return (*self.domains, *self.configurations, *(value for pair in self.pairs for value in pair))


NOBODY = Full()


@dataclass(frozen=True, slots=True)
class Release:
    """A lease given back without an attempt: these recipients are due again at `due_at`; if they wait for a `site`'s
    pace, `why` says so until they are tried."""

    recipients: tuple[JobRecipient, ...]
    due_at: float
    site: str = ""
    why: str = ""


class QueueRows:
    """The one writing connection of a queue file. `lease` is this process's token."""

    def __init__(self, path: Path, lease: str) -> None:
        self._lease = lease
        self._connection = connection = sqlite3.connect(
            path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=OFF",
            "temp_store=MEMORY",
            "cache_size=-8000",
            # Pages of the hot indexes are written again with each batch; fewer checkpoints copy them less often.
            "wal_autocheckpoint=4000",
        ):
            connection.execute(f"PRAGMA {pragma}")
        self.events = EventRows(connection, self._many)
        self.holds = HoldRows(lease, self._many, self.events)
        self.verbs = VerbRows(connection, self._many, self.events, self.holds.let_go, self.free_done)
        self._next_id = next_number(connection, "recipients")
        self._next_attempt = next_number(connection, "attempts")
        self.purge = PurgeRows(connection, self._many, self._counters)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Make everything inside durable at once, or nothing of it."""
        connection = self._connection
        if connection.in_transaction:  # what failed before could not even be undone: nothing begins until it is
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.events.write()
            connection.execute("COMMIT")
        except BaseException:
            self.events.forget()
            # A full disk may have ended the transaction already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def unhurried(self) -> Generator[None]:
        """Make everything inside durable with the next transaction that is, or nothing of it: no wait for the disk."""
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            with self.transaction():
                yield
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")

    def _counters(self) -> dict[str, int]:
        return {"recipients": self._next_id, "attempts": self._next_attempt, "events": self.events.next_id}

    def close(self) -> None:
        """Close the connection; SQLite then folds the log into the file."""
        self._connection.close()

    # --- at the start ---

    def recover(self, now: float) -> int:
        """Take back the leases of processes that are gone, which nobody has given back: how far they came is not known,
        and the trail says so. Return how many recipients are due again."""
        with self.transaction():
            found = self._connection.execute(_UNDER_WAY).fetchall()
            self._many(_RECOVER, [(number,) for number, _ in found], (now, now))
            self.events.tell(
                [
                    Event(queue_id, now, "interrupted", number, text=_MAY_HAVE_ARRIVED, reason="unknown", due_at=now)
                    for number, queue_id in found
                ]
            )
            self.verbs.come_back()
        return len(found)

    def generations(self) -> dict[int, int]:
        """Return the last durable generation of each segment."""
        return dict(self._connection.execute("SELECT number, generation FROM segments").fetchall())

    def live(self) -> dict[int, tuple[int, int]]:
        """Return (records, bytes) that rows still point to, by segment."""
        rows = self._connection.execute(
            "SELECT segment, count(*), sum(length) FROM messages WHERE segment IS NOT NULL GROUP BY segment"
        ).fetchall()
        return {segment: (count, length) for segment, count, length in rows}

    def counted(self, since: float, until: float) -> tuple[list[tuple[str, int, int]], int]:
        """Return what quotas counted after `since`: (configuration, minute, messages), and how many messages are left
        out because they were accepted after `until`."""
        return quota_rows.counted(self._connection, since, until)

    # --- inside a transaction ---

    def plan(self, times: Sequence[tuple[str, float]]) -> int:
        """Give mail that is held for a quota other times; return how many messages."""
        return quota_rows.plan(self._many, times)

    def add(self, stored: Sequence[tuple[Accepted, Location]]) -> list[tuple[Job, ...]]:
        """Insert messages with their recipients, leased; return each one's jobs, content at hand."""
        messages: list[tuple[Any, ...]] = []
        recipients: list[tuple[Any, ...]] = []
        jobs: list[tuple[Job, ...]] = []
        facts: list[Fact] = []
        for accepted, location in stored:
            messages.append(_message_row(accepted, location))
            at = accepted.accepted_at
            about = f"report about {accepted.parent}" if accepted.parent else ""
            facts.append((accepted.queue_id, at, "accepted", None, None, 0, "", about, "", "", None))
            if accepted.parent:
                facts.append(_report_fact(accepted))
            if not accepted.origin:
                self.events.submitted(accepted.queue_id, at, len(accepted.submission.recipients))
            if accepted.warning:
                facts.append((accepted.queue_id, at, "warning", None, None, 0, "", accepted.warning, "", "", None))
            sent_to = accepted.submission.recipients
            if accepted.suppressed:
                sent_to = tuple(each for each in sent_to if each.mailbox not in accepted.suppressed)
                suppressed = self._suppressed_rows(accepted)
                recipients += suppressed
                facts += _suppressed_facts(accepted, suppressed)
            if sent_to and accepted.counted_at is not None and accepted.counted_at > at:
                held = self._held_rows(accepted, sent_to, accepted.counted_at)
                recipients += held
                facts += _held_facts(accepted, accepted.counted_at, held)
                jobs.append(())
                continue
            by_domain: dict[str, list[JobRecipient]] = {}
            for recipient in sent_to:
                number = self._next_id
                self._next_id = number + 1
                mailbox, domain = recipient.mailbox, recipient.domain
                recipients.append(
                    (
                        number,
                        accepted.queue_id,
                        mailbox,
                        domain,
                        accepted.smtp_config_id,
                        accepted.instance_id,
                        recipient.notify,
                        recipient.orcpt,
                        "queued",
                        0,
                        at,
                        self._lease,
                        "",
                        "",
                        at,
                    )
                )
                by_domain.setdefault(domain, []).append(
                    JobRecipient(number, mailbox, domain, 0, recipient.notify, recipient.orcpt)
                )
            jobs.append(tuple(_fresh_job(accepted, location, domain, found) for domain, found in by_domain.items()))
        self._many(_ADD_MESSAGES, messages)
        self._many(_ADD_RECIPIENTS, recipients)
        self.events.add(facts)
        return jobs

    def _suppressed_rows(self, accepted: Accepted) -> list[tuple[Any, ...]]:
        """Return the rows of recipients that nothing is sent to."""
        found = [each for each in accepted.submission.recipients if each.mailbox in accepted.suppressed]
        first, at = self._next_id, accepted.accepted_at
        self._next_id += len(found)
        rest = (Status.SUPPRESSED.value, 0, None, None, "", SUPPRESSED, at)
        owner = (accepted.smtp_config_id, accepted.instance_id)
        return [
            (first + number, accepted.queue_id, r.mailbox, r.domain, *owner, r.notify, r.orcpt, *rest)
            for number, r in enumerate(found)
        ]

    def _held_rows(self, accepted: Accepted, sent_to: Sequence[Recipient], until: float) -> list[tuple[Any, ...]]:
        """Return the rows of recipients that become due by themselves when the quota has room."""
        first, at = self._next_id, accepted.accepted_at
        self._next_id += len(sent_to)
        return [
            (
                first + number,
                accepted.queue_id,
                r.mailbox,
                r.domain,
                accepted.smtp_config_id,
                accepted.instance_id,
                r.notify,
                r.orcpt,
                "held",
                0,
                until,
                None,
                "",
                REASON,
                at,
            )
            for number, r in enumerate(sent_to)
        ]

    def settle(
        self, attempts: Sequence[Attempt], besides: Iterable[str] = ()
    ) -> tuple[set[int], dict[int, tuple[int, int]]]:
        """Record attempts; return the recipients whose outcome counts, and (records, bytes) by segment that nobody
        needs once this is durable, with those of `besides`: messages that have suppressed recipients, and perhaps no
        others."""
        rows: list[tuple[Any, ...]] = []
        settled: list[tuple[Any, ...]] = []
        facts: list[Fact] = []
        maybe_done: dict[str, None] = dict.fromkeys(besides)
        for attempt in attempts:
            number = self._next_attempt
            self._next_attempt = number + 1
            rows.append(_attempt_row(number, attempt))
            queue_id, at, site = attempt.queue_id, attempt.finished_at, storable(attempt.site)
            for outcome in attempt.outcomes:
                status = outcome.status
                if status.final:
                    maybe_done[queue_id] = None
                due = _due_at(attempt, status)
                kind, text, reason = status.value, storable(outcome.text), storable(outcome.reason)
                settled.append((outcome.recipient_id, kind, due, _reply(outcome, text), reason, at, site))
                facts.append(
                    (
                        queue_id,
                        at,
                        kind,
                        outcome.recipient_id,
                        number,
                        outcome.code,
                        outcome.enhanced,
                        text,
                        reason,
                        "",
                        due,
                    )
                )
        self._many(_ADD_ATTEMPTS, rows)
        standing = {row[0] for row in self._many(_SETTLE, settled, (self._lease,))}
        if len(standing) != len(settled):
            facts = _told_late(facts, set(standing))
        self.events.add(facts)
        return standing, self.free_done(maybe_done)

    def free_done(self, queue_ids: Iterable[str]) -> dict[int, tuple[int, int]]:
        """Let go of the bodies of those messages whose recipients are all final; say what is freed, by segment."""
        done = self._many(_DONE, [(queue_id,) for queue_id in queue_ids])
        freed: dict[int, tuple[int, int]] = {}
        for _, segment, length in done:
            records, total = freed.get(segment, (0, 0))
            freed[segment] = (records + 1, total + length)
        self._many(_FREE, [(row[0],) for row in done])
        return freed

    def warned(self, recipients: Iterable[int]) -> None:
        """Note of recipients that their sender has been told that they are late."""
        self._many(_WARNED, [(number,) for number in recipients])

    def held_jobs(self, queue_ids: Sequence[str], reasons: Sequence[str], before: float) -> list[Job]:
        """Return what of these messages has been held for these reasons since `before` or longer: a job for each
        message, whatever the domains, contents in the spool."""
        by_message: dict[str, list[tuple[Any, ...]]] = {}
        sql = _HELD.replace("{reasons}", ", ".join("?" * len(reasons)))
        for row in self._many(sql, [(queue_id,) for queue_id in queue_ids], (before, *reasons)):
            by_message.setdefault(row[1], []).append(row)
        return [_claimed_job(rows) for rows in by_message.values()]

    def release(self, releases: Sequence[Release]) -> None:
        """Give leases back."""
        plain = [(r.id, given.due_at) for given in releases if not given.why for r in given.recipients]
        self._many(_RELEASE, plain, (self._lease,))
        told = [
            (r.id, given.due_at, storable(given.site), storable(given.why))
            for given in releases
            if given.why
            for r in given.recipients
        ]
        self._many(_WAIT, told, (self._lease,))

    def keep_generations(self, begun: Mapping[int, int]) -> None:
        """Write down the generations that segments have reached."""
        for number, generation in begun.items():
            self._connection.execute("INSERT OR REPLACE INTO segments VALUES (?, ?)", (number, generation))

    def move(self, moved: Iterable[tuple[str, Location, Location]]) -> None:
        """Let rows point to the copies of their records: (queue id, old place, new place)."""
        self._connection.executemany(
            _MOVE,
            (
                (
                    new.segment,
                    new.generation,
                    new.offset,
                    new.length,
                    queue_id,
                    old.segment,
                    old.generation,
                    old.offset,
                )
                for queue_id, old, new in moved
            ),
        )

    # --- on their own ---

    def claim(self, now: float, limit: int, but: Full = NOBODY) -> list[Job]:
        """Lease what is due, oldest first, at most `limit` jobs, none of those in `but`; contents stay in
        the spool."""
        due = _DUE.format(but=but.condition)
        groups = dict.fromkeys(self._connection.execute(due, (now, *but.values, limit)).fetchall())
        if not groups:
            return []
        queue_ids = [(queue_id,) for queue_id in dict.fromkeys(queue_id for queue_id, _ in groups)]
        found: dict[tuple[str, str], list[tuple[Any, ...]]] = {group: [] for group in groups}
        for row in self._many(_TAKE, queue_ids, (now,)):
            if (group := found.get((row[1], row[3]))) is not None:
                group.append(row)
        with self.transaction():
            self._connection.executemany(_LEASE, [(self._lease, row[0]) for rows in found.values() for row in rows])
        return [_claimed_job(rows) for rows in found.values()]

    def next_due(self, but: Full = NOBODY, after: float = 0.0) -> float | None:
        """Return when the next unleased recipient is due that is due after `after`, not counting those in `but`."""
        row = self._connection.execute(_NEXT_DUE.format(but=but.condition), (after, *but.values)).fetchone()
        return None if row is None else row[0]

    def bodies(self, segment: int, limit: int) -> list[tuple[str, Location]]:
        """Return the first `limit` live records of a segment: (queue id, place)."""
        rows = self._connection.execute(
            'SELECT queue_id, segment, generation, "offset", length FROM messages WHERE segment = ?'
            ' ORDER BY "offset" LIMIT ?',
            (segment, limit),
        ).fetchall()
        return [(queue_id, Location(*place)) for queue_id, *place in rows]

    def _many(
        self, template: str, rows: Sequence[tuple[Any, ...]], after: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run `template` with all `rows` as its VALUES, in as few statements as sizes of 2^n allow."""
        answers: list[tuple[Any, ...]] = []
        done, total = 0, len(rows)
        while done < total:
            width = len(rows[done])
            # Powers of two: few different statements, so each stays prepared.
            size = 1 << (min(total - done, 960 // width).bit_length() - 1)
            values = [value for row in rows[done : done + size] for value in row]
            answers += self._connection.execute(_statement(template, width, size), (*values, *after)).fetchall()
            done += size
        return answers


def _statement(template: str, width: int, size: int) -> str:
    key = (template, width, size)
    sql = _sql_cache.get(key)
    if sql is None:
        row = f"({','.join('?' * width)})"
        sql = _sql_cache[key] = template.format(values=",".join([row] * size))
    return sql


def _report_fact(accepted: Accepted) -> Fact:
    """Return what a report of ours is to the message that it is about."""
    to = ", ".join(recipient.mailbox for recipient in accepted.submission.recipients)
    words = f"sent as {accepted.queue_id} to {to}"
    return (accepted.parent, accepted.accepted_at, "report", None, None, 0, "", words, "", "", None)


def _message_row(accepted: Accepted, location: Location) -> tuple[Any, ...]:
    submission = accepted.submission
    client = submission.client
    key = accepted.signing_key
    return (
        accepted.queue_id,
        accepted.instance_id,
        accepted.smtp_config_id,
        submission.username,
        key.key_id,
        key.domain,
        key.selector,
        key.second_id,
        key.second_selector,
        submission.session_id,
        client.address,
        client.port,
        client.endpoint,
        client.listener,
        client.via or "",
        storable(submission.helo),
        submission.tls,
        submission.reverse_path,
        storable(accepted.header_from),
        storable(accepted.message_id),
        storable(accepted.subject),
        len(submission.content),
        submission.body_8bit,
        submission.smtputf8,
        submission.ret,
        submission.envid,
        submission.requiretls,
        submission.received_at,
        accepted.accepted_at,
        accepted.expires_at,
        location.segment,
        location.generation,
        location.offset,
        location.length,
        accepted.counted_at,
        accepted.warning,
        accepted.origin,
        accepted.parent,
        accepted.tls_optional,
    )


def _fresh_job(accepted: Accepted, location: Location, domain: str, recipients: list[JobRecipient]) -> Job:
    submission = accepted.submission
    return Job(
        accepted.queue_id,
        accepted.instance_id,
        accepted.smtp_config_id,
        accepted.signing_key,
        submission.reverse_path,
        domain,
        tuple(recipients),
        location,
        accepted.accepted_at,
        accepted.expires_at,
        submission.body_8bit,
        submission.smtputf8,
        accepted.trace,
        submission.content,
        submission.ret,
        submission.envid,
        submission.requiretls,
        origin=accepted.origin,
        tls_optional=accepted.tls_optional,
    )


def _claimed_job(rows: list[tuple[Any, ...]]) -> Job:
    _, queue_id, _, domain, _, _, _, _, _, route, *message = rows[0]
    instance_id, smtp_config_id, *message = message
    key, (reverse_path, *message) = SigningKey(*message[:5]), message[5:]
    segment, generation, offset, length, *message = message
    accepted_at, expires_at, body_8bit, smtputf8, ret, envid, requiretls, origin, tls_optional = message
    return Job(
        queue_id=queue_id,
        instance_id=instance_id,
        smtp_config_id=smtp_config_id,
        signing_key=key,
        reverse_path=reverse_path,
        domain=domain,
        recipients=tuple(JobRecipient(r[0], r[2], r[3], r[4], r[5], r[6], bool(r[7]), bool(r[8])) for r in rows),
        location=Location(segment, generation, offset, length),
        accepted_at=accepted_at,
        expires_at=expires_at,
        body_8bit=bool(body_8bit),
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
        requiretls=bool(requiretls),
        route=route,
        origin=origin,
        tls_optional=bool(tls_optional),
    )


def _suppressed_facts(accepted: Accepted, rows: Sequence[tuple[Any, ...]]) -> list[Fact]:
    """Return what the trail says of recipients that nothing is sent to, and why."""
    queue_id, at = accepted.queue_id, accepted.accepted_at
    return [
        (queue_id, at, SUPPRESSED, row[0], None, 0, "", storable(accepted.suppressed[row[2]]), SUPPRESSED, "", None)
        for row in rows
    ]


def _held_facts(accepted: Accepted, until: float, held: list[tuple[Any, ...]]) -> list[Fact]:
    words = f"held: over the quota until {rfc3339(until)}"
    at = accepted.accepted_at
    return [(accepted.queue_id, at, "held", row[0], None, 0, "", words, REASON, "", until) for row in held]


def _told_late(facts: list[Fact], standing: set[int]) -> list[Fact]:
    """Return what is to be told when not every recipient was still the attempt's: its outcome changed nothing then."""
    told: list[Fact] = []
    for fact in facts:
        queue_id, at, kind, number, attempt, code, enhanced, text, reason, actor, _ = fact
        if number in standing:
            standing.discard(number)
            told.append(fact)
        else:
            text = f"{kind}, too late to count: {text}"
            told.append((queue_id, at, "warning", number, attempt, code, enhanced, text, reason, actor, None))
    return told


def _attempt_row(number: int, attempt: Attempt) -> tuple[Any, ...]:
    return (
        number,
        attempt.queue_id,
        attempt.started_at,
        attempt.finished_at,
        storable(attempt.site),
        storable(attempt.host),
        attempt.address,
        attempt.source,
        attempt.tls,
        storable(attempt.route_reason),
        _encode([(step.at, step.did, step.reply) for step in attempt.steps]),
    )


def _due_at(attempt: Attempt, status: Status) -> float | None:
    if status.final or status is Status.HELD:
        return None
    # An attempt without a next one would strand the recipient: try at once rather than never.
    return attempt.finished_at if attempt.next_attempt_at is None else attempt.next_attempt_at


def _reply(outcome: Outcome, text: str) -> str:
    code = str(outcome.code) if outcome.code else ""
    return " ".join(part for part in (code, outcome.enhanced, text) if part)
