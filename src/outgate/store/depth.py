"""Read what waits in a queue, for operators: which recipients fit a scope, and how deep each site is.

Standards: SQLite's SQL.
Promises: 100,000 recipients that wait are counted from an index alone; what is under way is in no index, so it costs
    a hot message nothing: the running queue knows it.
Dangers: a scope of a configuration or instance alone reads every message that has a body.
Not here: changing anything (`verb_rows`), connections (`history`), what the page shows (`api.operations`).
"""

# ruff: noqa: S608 - statements are put together from our own words only; every value is bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outgate.model.flow import Status
from outgate.model.operations import Fate, Scope, SiteDepth, Verb, Waiting, fate

# Word for word the condition of the index `recipients_waiting`, or SQLite does not take it.
WAITING = "{r}lease IS NULL AND {r}status IN ('queued', 'deferred', 'held')"
_SITE = "(r.site = ? OR (r.site = '' AND r.domain = ?))"
_DEPTH = (
    "SELECT domain, site, status, reason, count(*), sum(due_at <= ?), min(CASE WHEN due_at > ? THEN due_at END),"
    f" min(id), max(id) FROM recipients INDEXED BY recipients_waiting WHERE {WAITING.format(r='')}"
    " GROUP BY domain, site, status, reason"
)
_SCOPED_DEPTH = (
    "SELECT r.domain, r.site, r.status, r.reason, count(*), sum(r.due_at <= ?),"
    " min(CASE WHEN r.due_at > ? THEN r.due_at END), min(r.id), max(r.id) FROM {source} WHERE {where}"
    " GROUP BY r.domain, r.site, r.status, r.reason"
)
_OLDEST = (
    "SELECT r.id, m.accepted_at FROM recipients AS r JOIN messages AS m ON m.queue_id = r.queue_id"
    " WHERE r.id IN (SELECT value FROM json_each(?))"
)
_REPLIES = "SELECT id, reply FROM recipients WHERE id IN (SELECT value FROM json_each(?))"
_COLUMNS = (
    "r.id, r.queue_id, m.instance_id, m.smtp_config_id, r.mailbox, r.domain, r.site, r.status, r.attempts, r.due_at,"
    " r.lease IS NOT NULL, r.reason, r.reply, r.route, m.accepted_at"
)
_UNFINISHED = "r.status NOT IN ('delivered', 'bounced', 'suppressed', 'expired', 'cancelled')"


def _source(scope: Scope) -> tuple[str, list[str], list[Any]]:
    """Return tables, conditions and values that find what waits (or, by queue id, all) of a scope."""
    conditions: list[str] = []
    values: list[Any] = []
    owned = bool(scope.instance_id or scope.smtp_config_id)
    if scope.queue_ids:
        source = "recipients AS r CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
        conditions.append("r.queue_id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(scope.queue_ids))
    elif scope.site or scope.domain or not owned:
        source = "recipients AS r INDEXED BY recipients_waiting"
        if owned:
            source += " CROSS JOIN messages AS m ON m.queue_id = r.queue_id"
        conditions.append(WAITING.format(r="r."))
    else:
        source = "messages AS m INDEXED BY messages_with_body CROSS JOIN recipients AS r ON r.queue_id = m.queue_id"
        conditions += ["m.segment IS NOT NULL", WAITING.format(r="r.")]
    for column, value in (
        ("r.domain", scope.domain),
        ("m.instance_id", scope.instance_id),
        ("m.smtp_config_id", scope.smtp_config_id),
    ):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if scope.site:
        conditions.append(_SITE)
        values += [scope.site, scope.site]
    return source, conditions, values


def find(connection: sqlite3.Connection, scope: Scope) -> list[int]:
    """Return the ids of recipients of a scope that wait; by queue id, of all there are."""
    source, conditions, values = _source(scope)
    rows = connection.execute(f"SELECT r.id FROM {source} WHERE {' AND '.join(conditions)}", values)
    return [row[0] for row in rows]


def weigh(
    connection: sqlite3.Connection, scope: Scope, under_way: Iterable[int]
) -> tuple[dict[tuple[str, bool, str], int], dict[Verb, int]]:
    """Return how many recipients of a scope stand how (status, under way, why held), and in how many messages each verb
    would change something."""
    source, conditions, values = _source(scope)
    columns = "r.id, r.queue_id, r.status, r.lease IS NOT NULL, r.reason"
    rows = connection.execute(f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)}", values).fetchall()
    known = {row[0] for row in rows}
    others = [number for number in under_way if number not in known]
    if others:
        rows += connection.execute(
            f"SELECT {columns} FROM recipients AS r WHERE r.id IN (SELECT value FROM json_each(?))"
            + (f" AND {_SITE}" if scope.site else ""),
            (json.dumps(others), *((scope.site, scope.site) if scope.site else ())),
        ).fetchall()
    counts: dict[tuple[str, bool, str], int] = {}
    messages: dict[Verb, set[str]] = {verb: set() for verb in Verb}
    fates: dict[tuple[str, bool, str], list[Verb]] = {}
    for _, queue_id, status, leased, reason in rows:
        stand = (status, bool(leased), reason if status == "held" else "")
        counts[stand] = counts.get(stand, 0) + 1
        if stand not in fates:
            found = [v for v in Verb if fate(v, Status(status), leased=stand[1], reason=stand[2]) is Fate.CHANGES]
            fates[stand] = found
        for verb in fates[stand]:
            messages[verb].add(queue_id)
    return counts, {verb: len(found) for verb, found in messages.items()}


def known(connection: sqlite3.Connection, queue_ids: Sequence[str]) -> list[str]:
    """Return which of these messages there are."""
    sql = "SELECT queue_id FROM messages WHERE queue_id IN (SELECT value FROM json_each(?))"
    return [row[0] for row in connection.execute(sql, (json.dumps(list(queue_ids)),))]


def waiting(connection: sqlite3.Connection, scope: Scope, limit: int, offset: int) -> tuple[int, list[Waiting]]:
    """Return how many recipients of a scope wait (by queue id: are not done with), and a page of them, in the order of
    acceptance."""
    source, conditions, values = _source(scope)
    if scope.queue_ids:
        conditions.append(_UNFINISHED)
    where = " AND ".join(conditions)
    (total,) = connection.execute(f"SELECT count(*) FROM {source} WHERE {where}", values).fetchone()
    # The page first, its messages then: not a look into a message for each that is passed over.
    page = connection.execute(
        f"WITH page(id) AS (SELECT r.id FROM {source} WHERE {where} ORDER BY r.id LIMIT ? OFFSET ?)"
        f" SELECT {_COLUMNS} FROM page CROSS JOIN recipients AS r ON r.id = page.id"
        " CROSS JOIN messages AS m ON m.queue_id = r.queue_id ORDER BY r.id",
        [*values, limit, offset],
    ).fetchall()
    return total, [_waiting(*row) for row in page]


def _waiting(*row: Any) -> Waiting:
    *before, status, attempts, due_at, leased, reason, reply, route, accepted_at = row
    number, queue_id, instance_id, smtp_config_id, mailbox, domain, site = before
    stands = (Status(status), attempts, due_at, bool(leased), reason, reply, route, accepted_at)
    return Waiting(number, queue_id, instance_id, smtp_config_id, mailbox, domain, site, *stands)


@dataclass(slots=True)
class _Site:
    ready: int = 0
    deferred: int = 0
    held: int = 0
    next_at: float | None = None
    first: int | None = None
    failures: dict[str, tuple[int, int]] = field(default_factory=dict)
    holds: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(
        self,
        domain: str,
        status: str,
        reason: str,
        count: int,
        ready: int,
        next_at: float | None,
        first: int,
        last: int,
    ) -> None:
        self.first = first if self.first is None else min(self.first, first)
        if status == "held":
            self.held += count
            self.holds[reason, domain] = self.holds.get((reason, domain), 0) + count
            return
        self.ready += ready
        self.deferred += count - ready
        if next_at is not None:
            self.next_at = next_at if self.next_at is None else min(self.next_at, next_at)
        if reason:
            before, latest = self.failures.get(reason, (0, 0))
            self.failures[reason] = (before + count, max(latest, last))

    def commonest(self) -> tuple[str, int]:
        """Return the commonest reason of a failure and the recipient that met it last, ("", 0) if none did."""
        if not self.failures:
            return "", 0
        reason, (_, last) = max(self.failures.items(), key=lambda item: item[1])
        return reason, last


def depth(
    connection: sqlite3.Connection,
    scope: Scope,
    now: float,
    under_way: Mapping[str, int],
    *,
    by_age: bool,
    limit: int,
    offset: int,
) -> tuple[int, Mapping[str, int], list[SiteDepth]]:
    """Return how many sites something of `scope` waits for, the sums of all of them, and a page: the deepest first, or
    those with the oldest mail. `under_way` is what delivery has, by recipient domain."""
    sites: dict[str, _Site] = {}
    sites_of: dict[str, str] = {}
    for domain, site, status, reason, count, ready, next_at, first, last in _groups(connection, scope, now):
        name = site or domain
        sites.setdefault(name, _Site()).add(domain, status, reason, count, ready or 0, next_at, first, last)
        sites_of[domain] = str(site or sites_of.get(domain, domain))
    going: dict[str, int] = {}
    for domain, count in under_way.items():
        name = sites_of.get(domain, domain)
        sites.setdefault(name, _Site())
        going[name] = going.get(name, 0) + count
    order = sorted(sites, key=lambda name: _place(sites[name], going.get(name, 0), name, by_age=by_age))
    sums = {
        "ready": sum(site.ready for site in sites.values()),
        "deferred": sum(site.deferred for site in sites.values()),
        "held": sum(site.held for site in sites.values()),
        "under_way": sum(going.values()),
    }
    page = order[offset : offset + limit]
    return len(sites), sums, _page(connection, [(name, sites[name], going.get(name, 0)) for name in page])


def _groups(connection: sqlite3.Connection, scope: Scope, now: float) -> Iterable[tuple[Any, ...]]:
    if scope.empty:
        return connection.execute(_DEPTH, (now, now))
    source, conditions, values = _source(scope)
    if scope.queue_ids:
        conditions.append(WAITING.format(r="r."))
    sql = _SCOPED_DEPTH.format(source=source, where=" AND ".join(conditions))
    return connection.execute(sql, (now, now, *values))


def _place(site: _Site, going: int, name: str, *, by_age: bool) -> tuple[Any, ...]:
    if by_age:  # ids are given in the order of acceptance
        return (site.first is None, site.first or 0, name)
    return (-(site.ready + site.deferred + site.held + going), name)


def _page(connection: sqlite3.Connection, page: Sequence[tuple[str, _Site, int]]) -> list[SiteDepth]:
    firsts = [site.first for _, site, _ in page if site.first is not None]
    oldest: dict[int, float] = dict(connection.execute(_OLDEST, (json.dumps(firsts),)).fetchall())
    lasts = [last for _, site, _ in page if (last := site.commonest()[1])]
    replies: dict[int, str] = dict(connection.execute(_REPLIES, (json.dumps(lasts),)).fetchall())
    found: list[SiteDepth] = []
    for name, site, going in page:
        reason, last = site.commonest()
        held = max((count, *why) for why, count in site.holds.items())[1:] if site.holds else ("", "")
        at = None if site.first is None else oldest.get(site.first)
        found.append(
            SiteDepth(
                name,
                site.ready,
                site.deferred,
                site.held,
                going,
                at,
                site.next_at,
                reason,
                replies.get(last, ""),
                *held,
            )
        )
    return found
