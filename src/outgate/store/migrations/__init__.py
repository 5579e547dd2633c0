"""Bring a database file to the newest schema: two version lines, `control` and `queue`.

Standards: Alembic revisions, run without an ini file; SQLite's transactional DDL.
Promises: all missing revisions of a line happen in one transaction or not at all; two processes that start
    together take turns; a file at its head is recognised without importing Alembic; a new file is 0600.
Dangers: `tables.py` and the newest revision must describe the same schema: a test compares them. A database
    that a newer release made is refused, never changed.
Not here: the tables as they are now (`tables`), statements (`control`, `sqlite`).
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

CONTROL_HEAD = "c0005"
QUEUE_HEAD = "q0004"

_HERE = Path(__file__).parent


class SchemaError(Exception):
    """The database was made by a newer release, or is not one of ours."""


def upgrade_control(path: Path) -> None:
    """Make or upgrade the control database at `path`; raise `SchemaError` if it is from a newer release."""
    _upgrade(path, "control", CONTROL_HEAD)


def upgrade_queue(path: Path) -> None:
    """Make or upgrade a queue database at `path`; raise `SchemaError` if it is from a newer release."""
    _upgrade(path, "queue", QUEUE_HEAD)


def upgrade_apart(*, control: Path, queue: Path) -> None:
    """Make or upgrade both in a process of its own, which takes the memory that this needs (10 MB) with it.

    What fails there is left to whoever opens them, who says why."""
    if current_revision(control) == CONTROL_HEAD and current_revision(queue) == QUEUE_HEAD:
        return
    program = (
        "import sys; from pathlib import Path; from outgate.store import migrations as m;"
        " m.upgrade_control(Path(sys.argv[1])); m.upgrade_queue(Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-c", program, str(control.absolute()), str(queue.absolute())]
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def current_revision(path: Path) -> str | None:
    """Return the revision that the file at `path` is at, or None for a new or empty one."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, timeout=5.0)) as connection:
        found = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
        ).fetchone()
        if found is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def _upgrade(path: Path, line: str, head: str) -> None:
    if current_revision(path) == head:
        return
    # SQLite gives the -wal and -shm files the mode of the database, so this decides for all three.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(path, timeout=5.0)) as connection:
        # The journal mode lasts in the file and cannot change inside a transaction.
        connection.execute("PRAGMA journal_mode=WAL")
    _run_alembic(path, line)


def _run_alembic(path: Path, line: str) -> None:
    # Imported here: Alembic costs a quarter of a second and 10 MB, and is needed once per release.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def _manual_transactions(dbapi: sqlite3.Connection, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        # Left alone, the driver starts no transaction before DDL, and a crash would leave half a schema.
        dbapi.isolation_level = None

    @event.listens_for(engine, "begin")
    def _take_turns(connection: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # pyright: ignore[reportAttributeAccessIssue]

    config = Config()
    config.set_main_option("script_location", _escaped(_HERE))
    config.set_main_option("version_locations", _escaped(_HERE / line / "versions"))
    config.set_main_option("path_separator", "newline")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(f"{path.name} cannot be upgraded by this release: {error}") from error
    finally:
        engine.dispose()


def _escaped(path: Path) -> str:
    """Write a path for an ini value: a percent sign would start an interpolation."""
    return str(path).replace("%", "%%")
