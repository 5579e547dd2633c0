"""Events are the record: where each recipient stands follows from them alone, whatever happened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from outgate.model.flow import Event
from support.queue_history import History, compare
from support.queue_mail import NOW, Desk, accepted, attempt


@pytest.mark.parametrize("seed", range(4))
def test_where_recipients_stand_follows_from_events_alone(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    often = [history.submit, history.claim, history.attempt, history.time]
    seldom = [
        history.give_back, history.too_late, history.put_aside, history.hold, history.free, history.plan,
        history.order,
        history.expire, history.restart, history.crash,
    ]  # fmt: skip
    told = 0
    for step in range(240):
        history.random.choice(often * 3 + seldom)()
        if step % 40 == 39:
            history.desk.store.flush()
            told = compare(history.directory, history.given)
    history.desk.store.close()
    assert compare(history.directory, history.given) >= told > 100


def test_an_event_is_written_with_what_it_tells_of_or_not_at_all(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (job,) = desk.store_all(accepted())
    rows = desk.store._rows
    with pytest.raises(ValueError, match="fails"), rows.transaction():
        rows.events.tell([Event(job.queue_id, NOW, "report", text="never happened")])
        raise ValueError("it fails")
    desk.store.record(attempt(job))
    desk.store.flush()
    record = desk.store.message(job.queue_id)
    assert record is not None
    assert [event.kind for event in record.events] == ["accepted", "delivered"]
    desk.store.close()


def test_ids_only_grow_also_when_the_newest_rows_are_gone(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (job,) = desk.store_all(accepted())
    desk.store.record(attempt(job))
    desk.store.close()
    tables = ("events", "attempts", "recipients")
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        last = [connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in tables]
        assert last == [2, 1, 1]
        for table, number in zip(tables, last, strict=True):
            connection.execute("INSERT INTO numbers VALUES (?, ?)", (table, number + 1))
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM messages")
        connection.commit()
    desk = Desk(tmp_path)
    (job,) = desk.store_all(accepted())
    desk.store.record(attempt(job))
    desk.store.close()
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        first = [connection.execute(f"SELECT min(id) FROM {table}").fetchone()[0] for table in tables]
    assert first == [number + 1 for number in last]
