"""New databases in no time: each is a copy of one that the migrations have made in this process.

Dangers: who tests the migrations themselves sets `BY_MIGRATIONS` in their place again.
"""

from __future__ import annotations

from pathlib import Path

from outgate.store import migrations

BY_MIGRATIONS = migrations._run_alembic
_made: dict[str, bytes] = {}


def by_copy(path: Path, line: str) -> None:
    """Do what `migrations._run_alembic` does, by a copy if the database is new."""
    # A new one has a header only, which says that it has a write-ahead log.
    if path.stat().st_size > 4096:
        BY_MIGRATIONS(path, line)
    elif line in _made:
        path.write_bytes(_made[line])
    else:
        BY_MIGRATIONS(path, line)
        assert not path.with_name(f"{path.name}-wal").exists()
        _made[line] = path.read_bytes()


def place(data: Path) -> None:
    """Put new databases into the data directory of a service that is about to start for the first time."""
    if not (data / "control.db").exists():
        migrations.upgrade_control(data / "control.db")
        migrations.upgrade_queue(data / "queue-0.db")
