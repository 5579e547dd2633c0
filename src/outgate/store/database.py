"""The control database's connections: who reads, who writes, and whether anything has changed.

Standards: SQLite in WAL mode.
Promises: a write transaction holds the write lock from its first statement, so what it read stays true;
    readers never wait for writers; `version()` differs after any commit by any connection or process, `revision()`
    only after those that others must act on.
Dangers: a connection without `read_only` begins by taking the write lock, even to read.
Not here: statements (`tenancy`, `access`, `identity`, `egress`), the queue's connections (`sqlite`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from outgate.store.conditions import add_functions

_BUMP = (
    "INSERT INTO meta (key, value) VALUES (?, '1')"
    " ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS INTEGER) + 1 AS TEXT)"
)
_READ_ONLY = "outgate_read_only"
REVISION, ACCESS = "revision", "access_revision"
"""What is counted: commits that others must act on, and those that change who may connect."""


class Database:
    """An engine with the right pragmas. Thread-safe; made by `open_control` and closed by it."""

    def __init__(self, path: Path) -> None:
        self.engine = _engine(path)
        self._readers = self.engine.execution_options(**{_READ_ONLY: True})
        self._turn = threading.Lock()
        # PRAGMA data_version tells of commits by other connections only: this one never writes.
        self._watcher = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
        self._watching = threading.Lock()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Give a connection that sees one moment of the database: read only through it."""
        with self._readers.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, noted: bool = True, access: bool = False) -> Generator[Connection]:
        """Give a connection in a write transaction: committed and synced at the end, undone by an exception.

        `noted` False: nobody need act on what is written there, unless `note` is called in it; `access`: it changes
        who may connect."""
        # SQLite polls for its lock; threads of this process queue here instead, which is fairer and quicker.
        with self._turn, self.engine.begin() as connection:
            yield connection
            if noted:
                note(connection)
            if access:
                note(connection, ACCESS)

    def version(self) -> int:
        """Return a number that differs from earlier ones once anything was committed. Some microseconds."""
        with self._watching:
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def revision(self, of: str = REVISION) -> int:
        """Return a number that grows with each commit that others must act on, or (`ACCESS`) that changes who may
        connect. Some microseconds."""
        with self._watching:
            row = self._watcher.execute("SELECT value FROM meta WHERE key = ?", (of,)).fetchone()
        return 0 if row is None else int(row[0])

    def look(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of one short read by an index, on the event loop. Some microseconds."""
        with self._watching:
            return self._watcher.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close every connection."""
        with self._watching:
            self._watcher.close()
        self.engine.dispose()


def note(connection: Connection, of: str = REVISION) -> None:
    """Have a revision move on with this transaction."""
    connection.exec_driver_sql(_BUMP, (of,))


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=4,
        max_overflow=12,
        connect_args={"timeout": 5.0, "check_same_thread": False},
        hide_parameters=True,  # an error is logged, and what was bound may be a secret or its digest
    )

    @event.listens_for(engine, "connect")
    def _prepare(dbapi: sqlite3.Connection, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        add_functions(dbapi)
        dbapi.isolation_level = None  # transactions are begun below, not guessed by the driver
        for pragma in (
            "busy_timeout=5000",
            "foreign_keys=ON",
            "journal_mode=WAL",
            "synchronous=FULL",
            "cache_size=-1000",
        ):
            dbapi.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
