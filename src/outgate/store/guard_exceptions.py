"""What the guard lets through though it is not public: entries by name or range, with the operator's reason.

Standards: SQL through SQLAlchemy Core.
Promises: an entry that the guard could not read is never stored; the same entry stands once for an environment; each
    change is one transaction with its audit row.
Dangers: an exception opens the way to a private network for all forwards of its environments. It is asked for when a
    connection begins; a change of exceptions changes the rules of its environments, which drains what is open there.
Not here: what an entry opens (`net.guard`), the settings' exceptions (`egress.guard_exceptions`).
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.egress import GuardException
from outgate.net import guard
from outgate.store import egress_rows as rows
from outgate.store import tables as t
from outgate.store.database import Database
from outgate.store.tenancy_rows import Conflict, TooMany

MOST = 1000
"""Entries in all: each is read for each environment whenever anything changes."""


class GuardExceptionQueries:
    """Read and change exceptions. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> tuple[GuardException, ...]:
        """Return every exception, oldest first."""
        with self._database.reading() as connection:
            return rows.exceptions(connection)

    def add(self, entry: str, *, environment_id: str, note: str, actor: str) -> GuardException:
        """Let `entry` (a network, a name, or `*.domain`) through for one environment, or for all ("").

        Raises `ValueError` if it is none of these, `LookupError` if there is no such environment, `Conflict` if it
        stands already, `TooMany`."""
        made = GuardException(ids.new_uuid(), guard.spelt(entry), environment_id, note, self._clock.now(), actor)
        with self._database.writing() as connection:
            if environment_id and rows.find_environment(connection, environment_id) is None:
                raise LookupError(f"there is no environment {environment_id}")
            if connection.execute(select(func.count()).select_from(t.guard_exceptions)).scalar_one() >= MOST:
                raise TooMany(f"there are {MOST} exceptions, and no more may be: remove some, or give a wider network")
            try:
                connection.execute(
                    insert(t.guard_exceptions).values(
                        id=made.id,
                        entry=made.entry,
                        environment_id=environment_id,
                        note=note,
                        created_at=made.created_at,
                        created_by=actor,
                    )
                )
            except IntegrityError:
                whose = f"environment {environment_id}" if environment_id else "all environments"
                raise Conflict("entry", f"{made.entry} is let through for {whose} already") from None
            self._audit(connection, actor, "guard_exception.add", made)
        return made

    def remove(self, exception_id: str, *, actor: str) -> GuardException:
        """Take an exception away; new connections are judged without it. Raises `LookupError`."""
        with self._database.writing() as connection:
            found = next((each for each in rows.exceptions(connection) if each.id == exception_id), None)
            if found is None:
                raise LookupError(f"there is no exception {exception_id}")
            connection.execute(delete(t.guard_exceptions).where(t.guard_exceptions.c.id == exception_id))
            self._audit(connection, actor, "guard_exception.remove", found)
        return found

    def _audit(self, connection: Connection, actor: str, action: str, exception: GuardException) -> None:
        detail: dict[str, object] = {"id": exception.id, "entry": exception.entry, "note": exception.note}
        target = exception.environment_id or "all environments"
        rows.write_audit(connection, self._clock.now(), actor, action, target, detail)
