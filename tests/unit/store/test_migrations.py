"""The migrations make exactly the schema of `tables.py`, once, quickly and without side effects."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from outgate.base.clock import FrozenClock
from outgate.model.flow import Status
from outgate.store import migrations, tables
from outgate.store.metrics import Selection
from outgate.store.migrations import CONTROL_HEAD, QUEUE_HEAD, SchemaError, upgrade_control, upgrade_queue
from support.databases import BY_MIGRATIONS
from support.queue_mail import NOW, Desk, accepted, attempt

LINES = [
    pytest.param(upgrade_control, tables.control, "control", CONTROL_HEAD, id="control"),
    pytest.param(upgrade_queue, tables.queue, "queue", QUEUE_HEAD, id="queue"),
]


@pytest.fixture(autouse=True)
def by_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_run_alembic", BY_MIGRATIONS)


def schema(path: Path) -> dict[str, Any]:
    """Describe everything SQLite knows about a database, in a form that compares."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
        ).fetchall()
        for (name,) in names:
            columns = {row[1]: row[2:] for row in connection.execute(f"PRAGMA table_info({name})")}
            keys = {row[2:5] for row in connection.execute(f"PRAGMA foreign_key_list({name})")}
            indexes: set[tuple[Any, ...]] = set()
            for row in connection.execute(f"PRAGMA index_list({name})").fetchall():
                fields = tuple(entry[2] for entry in connection.execute(f"PRAGMA index_info({row[1]})"))
                where = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (row[1],)).fetchone()
                where = where[0] if where else ""  # a table without rowids is its key's index
                tail = where.partition(" WHERE ")[2] if where else ""
                named = row[1] if not row[1].startswith("sqlite_autoindex") else ""
                indexes.add((named, fields, row[2], tail))
            found[name] = (columns, keys, indexes)
    return found


@pytest.mark.parametrize(("upgrade", "metadata", "line", "head"), LINES)
def test_migrated_schema_equals_tables(
    upgrade: Callable[[Path], None], metadata: sa.MetaData, line: str, head: str, tmp_path: Path
) -> None:
    upgrade(tmp_path / "migrated.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'described.db'}")
    metadata.create_all(engine)
    engine.dispose()
    migrated, described = schema(tmp_path / "migrated.db"), schema(tmp_path / "described.db")
    assert migrated.keys() == described.keys()
    for name in described:
        assert migrated[name] == described[name], name


@pytest.mark.parametrize(("upgrade", "metadata", "line", "head"), LINES)
def test_head_constant_is_the_line_s_only_head(
    upgrade: Callable[[Path], None], metadata: sa.MetaData, line: str, head: str, tmp_path: Path
) -> None:
    here = Path(migrations.__file__).parent
    script = ScriptDirectory(str(here), version_locations=[str(here / line / "versions")])
    assert script.get_heads() == [head]
    upgrade(tmp_path / "a.db")
    assert migrations.current_revision(tmp_path / "a.db") == head


def test_a_process_of_its_own_migrates_and_takes_alembic_with_it(tmp_path: Path) -> None:
    control, queue = tmp_path / "control.db", tmp_path / "queue-0.db"
    code = (
        "import sys, pathlib; from outgate.store import migrations as m; here = pathlib.Path(sys.argv[1]); "
        "m.upgrade_apart(control=here / 'control.db', queue=here / 'queue-0.db'); print('alembic' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"]
    assert (migrations.current_revision(control), migrations.current_revision(queue)) == (
        migrations.CONTROL_HEAD,
        migrations.QUEUE_HEAD,
    )
    # What cannot be done is left to whoever opens the files.
    control.write_bytes(b"not a database")
    subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=False)
    assert control.read_bytes() == b"not a database"


@pytest.mark.parametrize(("upgrade", "metadata", "line", "head"), LINES)
def test_second_upgrade_keeps_rows_and_needs_no_alembic(
    upgrade: Callable[[Path], None], metadata: sa.MetaData, line: str, head: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    upgrade(path)
    table = "meta" if line == "control" else "segments"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (1, 2)")
        connection.commit()
    code = (
        "import sys, pathlib; from outgate.store import migrations as m; "
        f"m.upgrade_{line}(pathlib.Path({str(path)!r})); print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


def test_new_file_is_private_and_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "100% sure.db"
    upgrade_control(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        # The name is taken half way through the revision, so what came before it must be undone.
        connection.execute("CREATE TABLE variables (a)")
        connection.commit()
    with pytest.raises(sa.exc.OperationalError):
        upgrade_control(path)
    assert schema(path).keys() == {"variables"}
    assert migrations.current_revision(path) is None


def test_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade_queue(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'q9999'")
        connection.commit()
    with pytest.raises(SchemaError, match="q9999"):
        upgrade_queue(path)


def test_migrating_leaves_logging_alone(tmp_path: Path) -> None:
    before = (logging.root.handlers[:], logging.root.level, logging.getLogger("outgate").disabled)
    upgrade_control(tmp_path / "a.db")
    assert (logging.root.handlers[:], logging.root.level, logging.getLogger("outgate").disabled) == before


def test_going_down_and_up_again_opens_no_account_to_a_key_that_was_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    upgrade_control(path)
    engine = sa.create_engine(f"sqlite:///{path}")
    made = {"account_id": "acc", "name": "n", "created_at": 0.0}
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.accounts).values(id="acc", created_at=0.0))
        for key, roles, instances in (
            ("bound", ["smtp"], ["inst"]),
            ("none", ["reader", "smtp"], []),
            ("free", ["smtp"], None),
            ("reader", ["reader"], ["inst"]),
        ):
            connection.execute(
                sa.insert(tables.api_keys).values(id=key, digest=key, roles=roles, instances=instances, **made)
            )
        here = Path(migrations.__file__).parent
        config = Config()
        config.set_main_option("script_location", str(here))
        config.set_main_option("version_locations", str(here / "control" / "versions"))
        config.set_main_option("path_separator", "newline")
        config.attributes["connection"] = connection
        command.downgrade(config, "c0002")
    upgrade_control(path)
    with engine.begin() as connection:
        left = connection.execute(sa.select(tables.api_keys.c.id, tables.api_keys.c.instances)).all()
    engine.dispose()
    assert sorted(left) == [("free", None), ("reader", None)]


def to_revision(path: Path, line: str, revision: str, up: bool) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        here = Path(migrations.__file__).parent
        config = Config()
        config.set_main_option("script_location", str(here))
        config.set_main_option("version_locations", str(here / line / "versions"))
        config.set_main_option("path_separator", "newline")
        config.attributes["connection"] = connection
        (command.upgrade if up else command.downgrade)(config, revision)
    engine.dispose()


OLD_MAIL = """
INSERT INTO messages (queue_id, instance_id, smtp_config_id, username, key_id, key_domain, key_selector, session_id,
 client_address, client_port, endpoint, listener, via, helo, tls, reverse_path, header_from, message_id, subject, size,
 body_8bit, smtputf8, received_at, accepted_at, expires_at, warning) VALUES
 ('Q1', 'i', 'c', 'u', 'k', 'd', 's', 'z', '10.0.0.1', 1, 'public', 'submission', '', 'h', 't', 'r', 'f', 'm', 'x', 1,
 0, 0, 10, 10, 100, 'HTML is odd'),
 ('Q2', 'i', 'c', 'u', 'k', 'd', 's', 'z', '10.0.0.1', 1, 'public', 'submission', '', 'h', 't', 'r', 'f', 'm', 'x', 1,
 0, 0, 11, 11, 100, '');
INSERT INTO recipients (id, queue_id, mailbox, domain, status, attempts, due_at, reply, reason, updated_at) VALUES
 (1, 'Q1', 'a@x', 'x', 'delivered', 2, NULL, '250 2.0.0 Ok', 'accepted', 50),
 (2, 'Q1', 'b@x', 'x', 'deferred', 1, 90, '451 4.7.1 later', 'policy', 20),
 (3, 'Q2', 'c@x', 'x', 'cancelled', 0, NULL, '', '', 60);
INSERT INTO attempts (id, queue_id, started_at, finished_at, site, host, address, source, tls, route_reason,
 conversation) VALUES
 (1, 'Q1', 19, 20, 'mx', 'mx', '10.0.0.9:25', '', '', 'MX', '{"steps":[[19.5,"MAIL","250 Ok"]],"outcomes":
 [[1,"a@x","deferred",451,"4.7.1","later","policy"],[2,"b@x","deferred",451,"4.7.1","later","policy"]]}'),
 (2, 'Q1', 30, 30, '', '', '', '', '', 'held: suspended', '{"steps":[],"outcomes":
 [[1,"a@x","held",0,"","","suspended"]]}'),
 (3, 'Q1', 40, 40, '', '', '', '', '', 'released: again', '{"steps":[],"outcomes":
 [[1,"a@x","queued",0,"","","released"]]}'),
 (4, 'Q1', 49, 50, 'mx', 'mx', '10.0.0.9:25', '', '', 'MX', '{"steps":[[49.5,"MAIL","250 Ok"]],"outcomes":
 [[1,"a@x","delivered",250,"2.0.0","Ok","accepted"]]}'),
 (5, 'Q2', 12, 13, '', '', '', '', '', 'no MX', '{"steps":[[12,"look up MX of x","servfail"]],"outcomes":
 [[3,"c@x","deferred",0,"","servfail","dns"]]}');
"""


def test_what_older_releases_recorded_becomes_events(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    to_revision(path, "queue", "q0003", up=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD_MAIL)
        before = connection.execute("SELECT * FROM attempts ORDER BY id").fetchall()
    to_revision(path, "queue", "q0004", up=True)
    with closing(sqlite3.connect(path)) as connection:
        told = connection.execute(
            "SELECT queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, due_at FROM events"
            " ORDER BY id"
        ).fetchall()
        assert told == [
            ("Q1", 10, "accepted", None, None, 0, "", "", "", None),
            ("Q1", 10, "warning", None, None, 0, "", "HTML is odd", "", None),
            ("Q2", 11, "accepted", None, None, 0, "", "", "", None),
            ("Q2", 13, "deferred", 3, 5, 0, "", "servfail", "dns", None),
            ("Q1", 20, "deferred", 1, 1, 451, "4.7.1", "later", "policy", None),
            ("Q1", 20, "deferred", 2, 1, 451, "4.7.1", "later", "policy", 90),
            ("Q1", 30, "held", 1, None, 0, "", "held: suspended", "suspended", None),
            ("Q1", 40, "released", 1, None, 0, "", "released: again", "", None),
            ("Q1", 50, "delivered", 1, 4, 250, "2.0.0", "Ok", "accepted", None),
            ("Q2", 60, "cancelled", 3, None, 0, "", "", "", None),
        ]
        kept = connection.execute("SELECT id, conversation FROM attempts ORDER BY id").fetchall()
        assert kept == [
            (1, '[[19.5,"MAIL","250 Ok"]]'),
            (4, '[[49.5,"MAIL","250 Ok"]]'),
            (5, '[[12,"look up MX of x","servfail"]]'),
        ]
    to_revision(path, "queue", "q0003", up=False)
    with closing(sqlite3.connect(path)) as connection:
        after = connection.execute("SELECT * FROM attempts ORDER BY finished_at, id").fetchall()
    assert sorted(row[1:-1] for row in after) == sorted(row[1:-1] for row in before)
    spoken = {row[3]: json.loads(row[-1]) for row in after}
    assert spoken == {row[3]: json.loads(row[-1]) for row in before}


def test_keys_of_older_releases_have_a_life(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    upgrade_control(path)
    to_revision(path, "control", "c0003", up=False)
    configuration = {
        "id": "c", "instance_id": "i", "name": "", "description": "", "domain": "a.test", "spf": "SUCCESSFUL",
        "dkim": "SUCCESSFUL", "authorization": "SUCCESSFUL", "key_id": "new", "created_at": 5.0, "updated_at": 6.0,
    }  # fmt: skip
    with closing(sqlite3.connect(path)) as connection, connection:
        marks = ", ".join("?" * len(configuration))
        names = ", ".join(f'"{name}"' for name in configuration)
        connection.execute(f"INSERT INTO smtp_configurations ({names}) VALUES ({marks})", tuple(configuration.values()))
        for key in ("new", "old"):
            connection.execute(
                "INSERT INTO dkim_keys (id, smtp_config_id, selector, algorithm, public, sealed, created_at)"
                " VALUES (?, 'c', 's', 'rsa', 'p', x'00', 5.0)",
                (key,),
            )
    upgrade_control(path)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id, state, published, changed_at FROM dkim_keys ORDER BY id").fetchall()
    assert found[0] == ("new", "active", "SUCCESSFUL", 5.0)
    # It was replaced nobody knows when: its record stays for the whole time, from now on.
    assert found[1][:3] == ("old", "retired", "PENDING") and found[1][3] > 1_700_000_000


def test_the_egress_of_an_older_release_leaves_as_before_and_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    upgrade_control(path)
    to_revision(path, "control", "c0004", up=False)
    environment = "INSERT INTO environments VALUES (?, '4', 'n', 'prod', 'va7', ?, ?, '[]', 1, 2)"
    infrastructure = (
        "INSERT INTO network_infrastructures VALUES (?, '4', 'flexiblePortEgress', ?, 'ready', '[]', ?, 1, 2)"
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO programs VALUES ('4', 'org', 'tenant', 'Shop', 1, 2)")
        connection.execute(environment, ("10", "ready", "127.0.0.1"))
        connection.execute(infrastructure, ("7", "va7", '{"isPrimaryRegion": true}'))
        connection.execute(infrastructure, ("8", "deu6", '{"isPrimaryRegion": false}'))
        connection.execute(infrastructure, ("9", "aus5", "{}"))
    upgrade_control(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        ways = "SELECT id, is_primary, generation, reason, sealed FROM network_infrastructures ORDER BY id"
        assert connection.execute(ways).fetchall() == [
            ("7", 1, 1, "", None),
            ("8", 0, 1, "", None),
            ("9", 1, 1, "", None),
        ]
        assert connection.execute("SELECT status, sandbox FROM programs").fetchall() == [("ready", 0)]
        assert connection.execute("SELECT description, secondary_regions FROM environments").fetchall() == [("", "[]")]
        for number, status in (("11", "creating"), ("12", "deleting")):
            connection.execute(
                "INSERT INTO environments (id, program_id, name, type, region, status, tunnel_address, client_networks,"
                " created_at, updated_at) VALUES (?, '4', 'n', 'dev', 'va7', ?, ?, '[]', 1, 2)",
                (number, status, f"127.0.0.{number}"),
            )
    to_revision(path, "control", "c0004", up=False)
    with closing(sqlite3.connect(path)) as connection:
        # An older release moves nothing out of these states.
        left = connection.execute("SELECT id, status FROM environments ORDER BY id").fetchall()
        assert left == [("10", "ready"), ("11", "ready")]


def test_mail_of_an_older_release_is_delivered_and_told_of_as_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    names = ("gone", "tried", "left", "apart", "over")
    jobs = desk.store_all(
        *(accepted(f"{name}@dest.test", content=name.encode() + b"\r\n") for name in names[:4]),
        replace(accepted("over@dest.test", content=b"over\r\n"), counted_at=NOW + 300),
    )
    desk.store.record(attempt(jobs[0], Status.BOUNCED))
    desk.store.record(attempt(jobs[1], Status.DEFERRED, next_at=NOW + 60))
    desk.store.hold(jobs[3], "suspended", "held: suspended", NOW + 1)  # and the third is under way at the end
    desk.store.flush()
    wanted = Selection("instance-1", NOW - 10, NOW + 10)
    before, counted = _told(desk), desk.store.metrics(wanted, 60)
    desk.store.close()
    to_revision(tmp_path / "queue-0.db", "queue", "q0003", up=False)

    again = Desk(tmp_path, FrozenClock(NOW + 1000))
    try:
        after = _told(again)
        assert after.pop("left@dest.test")[-1][:2] == ("interrupted", NOW + 1000)
        assert after == {mailbox: told for mailbox, told in before.items() if not mailbox.startswith("left")}
        assert again.store.metrics(wanted, 60) == counted
        assert again.store.release_held("configuration-1", ("suspended",), "released", NOW + 1000) == 1
        found = again.store.claim(NOW + 1000, 10)
        assert sorted(again.store.load(job)[1] for job in found) == sorted(n.encode() + b"\r\n" for n in names[1:])
        for job in found:
            again.store.record(attempt(job, at=NOW + 1001))
        again.store.flush()
        assert again.store.live_segments() == {}
        assert again.store.purge(NOW + 1e6) == (5, True)
    finally:
        again.store.close()


def _told(desk: Desk) -> dict[str, list[tuple[str, float, str, int]]]:
    """Return the timeline of each message by its recipient."""
    found = (desk.store.message(each.queue_id) for each in desk.store.messages()[1])
    return {
        record.recipients[0].mailbox: [(each.kind, each.at, each.detail, each.attempt) for each in record.timeline()]
        for record in found
        if record is not None
    }
