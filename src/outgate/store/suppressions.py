"""Suppressed addresses: who is one now, for the relay; lists, changes, purges, for people.

Standards: SQLite's SQL (upsert, RETURNING).
Promises: one entry for each address of an instance; one that has ended counts for nothing, purged or not; a change by
    this process counts at once, one by another with the next `follow`.
Dangers: all but `of` block. `of` belongs on the event loop: it asks memory, and the database only for those that memory
    knows. Raises what SQLite raises if that fails: then nobody knows whether to send.
Not here: memory's part (`suppression_filter`), what becomes of mail (`relay`), files (`api.suppressions`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from outgate.base.clock import Clock
from outgate.model.suppression import NewSuppression, Suppression, key
from outgate.store.database import Database
from outgate.store.suppression_filter import SuppressionFilter, digest
from outgate.store.tenancy_rows import TooMany

MOST = 2_000_000
"""Entries that an instance may have: each takes eight octets of memory."""
_STEP = 1000
_NOBODY: Mapping[str, Suppression] = MappingProxyType({})
_COLUMNS = "id, instance_id, key, address, reason, source, detail, created_at, expires_at"
_LIVE = "(expires_at IS NULL OR expires_at > ?)"
_OF = f"SELECT {_COLUMNS} FROM suppressions WHERE instance_id = ? AND key IN ({{marks}}) AND {_LIVE}"  # noqa: S608
_ONE = _OF.replace("{marks}", "?")
_ADD = (
    "INSERT INTO suppressions (instance_id, key, digest, address, reason, source, detail, created_at, expires_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (instance_id, key) DO UPDATE SET address = excluded.address,"
    " reason = excluded.reason, source = excluded.source, detail = excluded.detail,"
    " created_at = excluded.created_at, expires_at = excluded.expires_at"
)
_UNLESS_LIVE = " WHERE suppressions.expires_at <= excluded.created_at"
_REMOVE = "DELETE FROM suppressions WHERE instance_id = ? AND key = ? RETURNING expires_at"
_PURGE = (
    "DELETE FROM suppressions WHERE id IN (SELECT id FROM suppressions INDEXED BY suppressions_ending"
    " WHERE expires_at <= ? LIMIT ?) RETURNING instance_id"
)
_HIGHEST = "SELECT coalesce(max(id), 0) FROM suppressions"
_ADDED = "SELECT count(*) FROM suppressions WHERE id > ? AND instance_id = ?"
_COUNT = (
    "INSERT INTO suppression_totals (instance_id, entries) VALUES (?, ?)"
    " ON CONFLICT (instance_id) DO UPDATE SET entries = entries + excluded.entries"
)
_TOTAL = "SELECT entries FROM suppression_totals WHERE instance_id = ?"
_ENDED = "SELECT count(*) FROM suppressions INDEXED BY suppressions_ending WHERE expires_at <= ? AND instance_id = ?"
_FRESH = "SELECT digest FROM suppressions WHERE id > ?"
_INSTANCES = "SELECT instance_id FROM suppression_totals"


class SuppressionQueries:
    """The suppressed addresses of all instances. Thread-safe; made by `ControlStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._filter = SuppressionFilter()
        self._instances: set[str] = set()
        self._seen = 0
        self._following = threading.Lock()

    # --- for the relay ---

    def of(self, instance_id: str, mailboxes: Iterable[str]) -> Mapping[str, Suppression]:
        """Return which of these mailboxes are suppressed for an instance; from memory for all that are not.

        Mailboxes are ones that SMTP has taken. Raises `sqlite3.Error`."""
        if instance_id not in self._instances:
            return _NOBODY
        known = self._filter
        maybe = [(each, found) for each in mailboxes if digest(instance_id, found := key(each)) in known]
        if not maybe:
            return _NOBODY
        keys = list(dict.fromkeys(found for _, found in maybe))
        rows = self._database.look(
            _OF.format(marks=", ".join("?" * len(keys))), (instance_id, *keys, self._clock.now())
        )
        entries = {row[2]: Suppression(*row) for row in rows}
        return {mailbox: entries[found] for mailbox, found in maybe if found in entries}

    def follow(self) -> int:
        """Take into memory what was added since the last look, by whatever process; return how many entries."""
        with self._following, self._database.reading() as connection:
            highest = connection.exec_driver_sql(_HIGHEST).scalar_one()
            if highest <= self._seen:
                return 0
            # Plain tuples, one after the other: there may be millions at the start.
            plain = connection.connection.cursor()
            plain.execute(_FRESH, (self._seen,))
            if self._seen:
                digests = [row[0] for row in plain.fetchall()]
                self._filter.add(digests)
                added = len(digests)
            else:
                added = self._filter.fill(row[0] for row in iter(plain.fetchone, None))
            # Only now: who finds the instance must find its entries too.
            self._instances.update(row[0] for row in connection.exec_driver_sql(_INSTANCES).all())
            self._seen = highest
        return added

    # --- changes ---

    def add(self, instance_id: str, entries: Sequence[NewSuppression], *, replace: bool = True) -> int:
        """Add entries, a transaction for some of them, and return how many are new; what is there already is replaced,
        or if not `replace` left alone unless it has ended. Again is harmless.

        Raises `TooMany`, `smtp.grammar.BadSyntax`: then what came before in earlier transactions stays."""
        now = self._clock.now()
        statement = _ADD if replace else _ADD + _UNLESS_LIVE
        rows = [_row(instance_id, entry, now) for entry in entries]
        new = 0
        for at in range(0, len(rows), _STEP):
            new += self._add_some(instance_id, statement, rows[at : at + _STEP])
        self.follow()
        return new

    def _add_some(self, instance_id: str, statement: str, rows: list[tuple[Any, ...]]) -> int:
        with self._database.writing(noted=False) as connection:
            before = connection.exec_driver_sql(_HIGHEST).scalar_one()
            connection.exec_driver_sql(statement, rows)
            new = connection.exec_driver_sql(_ADDED, (before, instance_id)).scalar_one()
            if new:
                connection.exec_driver_sql(_COUNT, (instance_id, new))
                if _total(connection, instance_id) > MOST:
                    raise TooMany(f"an instance has at most {MOST} suppressed addresses: remove some, or have them end")
        return new

    def remove(self, instance_id: str, address: str) -> bool:
        """Remove an address; return whether it was suppressed. Raises `smtp.grammar.BadSyntax`."""
        with self._database.writing(noted=False) as connection:
            row = connection.exec_driver_sql(_REMOVE, (instance_id, key(address))).one_or_none()
            if row is None:
                return False
            connection.exec_driver_sql(_COUNT, (instance_id, -1))
        return row[0] is None or row[0] > self._clock.now()

    def purge(self) -> int:
        """Delete some of what has ended; return how many, 0 if nothing is left."""
        with self._database.writing(noted=False) as connection:
            rows = connection.exec_driver_sql(_PURGE, (self._clock.now(), _STEP)).all()
            counts: dict[str, int] = {}
            for (instance_id,) in rows:
                counts[instance_id] = counts.get(instance_id, 0) - 1
            if counts:
                connection.exec_driver_sql(_COUNT, list(counts.items()))
        return len(rows)

    # --- for people ---

    def get(self, instance_id: str, address: str) -> Suppression | None:
        """Return an address's entry, or None. Raises `smtp.grammar.BadSyntax`."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(_ONE, (instance_id, key(address), self._clock.now())).one_or_none()
        return None if row is None else Suppression(*row)

    def several(self, instance_id: str, addresses: Sequence[str]) -> list[Suppression]:
        """Return the entries of some addresses, in their order. Raises `smtp.grammar.BadSyntax`."""
        keys = list(dict.fromkeys(key(address) for address in addresses))
        found: dict[str, Suppression] = {}
        with self._database.reading() as connection:
            for at in range(0, len(keys), _STEP):
                some = keys[at : at + _STEP]
                statement = _OF.format(marks=", ".join("?" * len(some)))
                rows = connection.exec_driver_sql(statement, (instance_id, *some, self._clock.now())).all()
                found.update((row[2], Suppression(*row)) for row in rows)
        return [found[each] for each in keys if each in found]

    def page(
        self,
        instance_id: str,
        *,
        search: str | None = None,
        reason: str | None = None,
        source: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[int, list[Suppression]]:
        """Return how many entries match and one page of them, newest first. None means any; `search` is a part of the
        address in any case, the others are whole."""
        now = self._clock.now()
        index, condition, values = _wanted(instance_id, search, reason, source)
        ids = f"FROM suppressions INDEXED BY {index} WHERE {condition} AND {_LIVE}"
        with self._database.reading() as connection:
            if search is reason is source is None:
                ended = connection.exec_driver_sql(_ENDED, (now, instance_id)).scalar_one()
                total = _total(connection, instance_id) - ended
            else:
                total = connection.exec_driver_sql(f"SELECT count(*) {ids}", (*values, now)).scalar_one()
            rows = connection.exec_driver_sql(
                f"SELECT {_COLUMNS} FROM suppressions WHERE id IN"  # noqa: S608 - our own words
                f" (SELECT id {ids} ORDER BY id DESC LIMIT ? OFFSET ?) ORDER BY id DESC",
                (*values, now, limit, offset),
            ).all()
        return total, [Suppression(*row) for row in rows]

    def all(self, instance_id: str) -> Iterator[list[Suppression]]:
        """Give all entries, oldest first, some at a time: no transaction is held between them."""
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.exec_driver_sql(
                    f"SELECT {_COLUMNS} FROM suppressions INDEXED BY suppressions_in_order"  # noqa: S608
                    f" WHERE instance_id = ? AND id > ? AND {_LIVE} ORDER BY id LIMIT ?",
                    (instance_id, last, self._clock.now(), _STEP),
                ).all()
            if not rows:
                return
            yield [Suppression(*row) for row in rows]
            last = rows[-1][0]


def _wanted(
    instance_id: str, search: str | None, reason: str | None, source: str | None
) -> tuple[str, str, tuple[Any, ...]]:
    """Return the index, the condition and its values: the exact filters lead to few, a part of an address to all."""
    condition, values, index = "instance_id = ?", [instance_id], "suppressions_in_order"
    for name, value in (("reason", reason), ("source", source)):
        if value is not None:
            condition += f" AND {name} = ?"
            values.append(value)
            index = f"suppressions_by_{name}"
    if search is not None:
        # The key is in small letters; what people type is not.
        condition += " AND instr(key, ?) > 0"
        values.append(search.casefold())
        if reason is source is None:
            index = "suppressions_by_key"
    return index, condition, tuple(values)


def _total(connection: Connection, instance_id: str) -> int:
    return connection.exec_driver_sql(_TOTAL, (instance_id,)).scalar() or 0


def _row(instance_id: str, entry: NewSuppression, now: float) -> tuple[Any, ...]:
    found = key(entry.address)
    created = now if entry.created_at is None else min(entry.created_at, now)
    return (
        instance_id,
        found,
        digest(instance_id, found),
        entry.address,
        entry.reason,
        entry.source,
        entry.detail,
        created,
        entry.expires_at,
    )
