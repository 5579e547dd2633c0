"""Old mail is forgotten in steps that nobody waits for, and only what is done with."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Status
from outgate.store import purge_rows, tidying
from outgate.store.metrics import Selection
from support.queue_mail import NOW, Desk, accepted, attempt

DAY = 86_400.0
OLD = NOW - 40 * DAY
BEFORE = NOW - 30 * DAY
TABLES = ("messages", "recipients", "attempts", "events")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.store.close()


def count(directory: Path) -> dict[str, int]:
    with closing(sqlite3.connect(directory / "queue-0.db")) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def finished(desk: Desk, number: int, at: float = OLD) -> None:
    """Have messages delivered at once."""
    for job in desk.store_all(*(accepted(f"r{each}@dest.test", at=at + each / 1000) for each in range(number))):
        desk.store.record(attempt(job, at=job.accepted_at + 1))
    desk.store.flush()


def sweep(desk: Desk) -> int:
    total = 0
    while True:
        gone, over = desk.store.purge(BEFORE)
        assert gone <= purge_rows.MOST
        total += gone
        if over:
            return total


def test_what_was_done_with_long_ago_goes_with_everything_of_it(desk: Desk, tmp_path: Path) -> None:
    finished(desk, 130)
    finished(desk, 3, at=NOW - DAY)
    assert sweep(desk) == 130
    assert count(tmp_path) == {"messages": 3, "recipients": 3, "attempts": 3, "events": 6}
    assert sweep(desk) == 0
    assert desk.store.messages("instance-1")[0] == 3
    assert desk.store.metrics(Selection("instance-1", OLD - 1, NOW), 3600)["success"] != {}


@pytest.mark.parametrize("status", [Status.DEFERRED, Status.HELD])
def test_what_is_not_done_with_stays_however_old(desk: Desk, tmp_path: Path, status: Status) -> None:
    one, two = desk.store_all(accepted("a@one.test", "b@two.test", at=OLD))
    desk.store.record(attempt(one, at=OLD + 1))
    desk.store.record(attempt(two, status, at=OLD + 1, next_at=NOW))
    desk.store.flush()
    before = count(tmp_path)
    assert sweep(desk) == 0
    assert count(tmp_path) == before
    assert desk.store.load(two)[1] == accepted().submission.content


def test_what_ended_a_short_while_ago_stays_however_long_it_waited(desk: Desk, tmp_path: Path) -> None:
    (job,) = desk.store_all(accepted(at=OLD))
    desk.store.record(attempt(job, Status.EXPIRED, at=BEFORE + 1))
    desk.store.flush()
    assert sweep(desk) == 0
    assert count(tmp_path)["messages"] == 1


def test_a_sweep_gets_past_what_has_to_stay(desk: Desk, tmp_path: Path) -> None:
    desk.store_all(*(accepted(f"w{number}@dest.test", at=OLD - 1) for number in range(purge_rows.LOOK + 30)))
    finished(desk, 50)
    assert sweep(desk) == 50
    assert count(tmp_path)["messages"] == purge_rows.LOOK + 30


def test_a_sweep_gets_past_what_came_while_the_clock_was_wrong(desk: Desk, tmp_path: Path) -> None:
    finished(desk, 1, at=NOW + 3650 * DAY)
    desk.store_all(*(accepted(f"w{number}@dest.test", at=OLD) for number in range(purge_rows.LOOK)))
    finished(desk, 50)
    assert sweep(desk) == 50
    assert count(tmp_path)["messages"] == purge_rows.LOOK + 1


def test_a_sweep_ends_where_what_is_young_begins(desk: Desk) -> None:
    finished(desk, 3)
    finished(desk, purge_rows.LOOK + 50, at=NOW - DAY)
    assert desk.store.purge(BEFORE) == (3, True)


def test_ids_of_what_is_gone_are_not_given_again(desk: Desk, tmp_path: Path) -> None:
    finished(desk, 5)
    assert sweep(desk) == 5
    desk.store.close()
    again = Desk(tmp_path)
    (job,) = again.store_all(accepted(at=NOW))
    again.store.record(attempt(job, at=NOW))
    again.store.close()
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        found = [connection.execute(f"SELECT min(id) FROM {table}").fetchone()[0] for table in TABLES[1:]]
    assert found == [6, 6, 11]


def test_a_submission_waits_for_one_step_at_most(desk: Desk, tmp_path: Path) -> None:
    """Told by order, not by the clock: between any two commits of submissions that wait there is one step."""
    finished(desk, 600)
    order: list[str] = []
    purge, write = desk.store._tidying.purge, desk.store._write
    under_way, go_on = threading.Event(), threading.Event()

    def step(before: float) -> tuple[int, bool]:
        order.append("step")
        under_way.set()
        assert go_on.wait(30)
        return purge(before)

    def stored(submissions, outcomes) -> None:  # type: ignore[no-untyped-def]
        if submissions:
            order.append("stored")
        write(submissions, outcomes)

    desk.store._write = stored  # type: ignore[method-assign]
    desk.store._tidying.purge = step  # type: ignore[method-assign]
    desk.store._tidying._retention_s = 30 * DAY
    desk.store._tidying._purge_at = 0.0
    desk.store._inbox.put(None)  # the thread looks at what it planned
    assert under_way.wait(30)
    desk.answers.clear()
    desk.submit(accepted(at=NOW))  # arrives in the middle of a step
    go_on.set()
    desk.wait(1)
    assert order[:2] == ["step", "stored"]
    for _ in range(30):
        desk.store._tidying._purge_at = 0.0  # a step is due whenever the thread looks
        desk.answers.clear()
        before = len(order)
        desk.submit(accepted(at=OLD - DAY))
        desk.wait(1)
        met = order[before : order.index("stored", before)]
        assert len(met) <= 2  # one that ended before it came, and the one that it met
        (job,) = desk.answers.popitem()[1][1]
        desk.store.record(attempt(job, at=OLD))
        desk.store.flush()
    assert order.count("step") >= 600 // purge_rows.MOST
    assert count(tmp_path)["messages"] <= 31  # none of the old ones


def test_it_happens_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "_COMPACT_REST_S", 0.0)
    monkeypatch.setattr(tidying, "_PURGE_REST_S", 0.0)
    clock = FrozenClock(OLD)
    desk = Desk(tmp_path, clock, retention_s=30 * DAY)
    finished(desk, 100)
    assert count(tmp_path)["messages"] == 100
    clock.advance(31 * DAY)
    desk.store.flush()
    deadline = threading.Event()
    while count(tmp_path)["messages"]:
        deadline.wait(0.01)
    desk.store.close()


def test_the_room_is_used_again(desk: Desk, tmp_path: Path) -> None:
    def pages() -> int:
        with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
            return connection.execute("PRAGMA page_count").fetchone()[0]

    finished(desk, 500)
    full = pages()
    for _ in range(4):
        sweep(desk)
        finished(desk, 500)
    assert pages() < full * 1.5


def test_a_step_that_fails_leaves_everything_and_is_tried_again(desk: Desk, tmp_path: Path) -> None:
    finished(desk, 10)
    before = count(tmp_path)
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        connection.execute("CREATE TRIGGER t BEFORE DELETE ON messages BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        desk.store.purge(BEFORE)
    assert count(tmp_path) == before
    assert desk.store._ask(lambda: desk.store._rows._connection.execute("PRAGMA synchronous").fetchone()) == (2,)
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        connection.execute("DROP TRIGGER t")
    assert sweep(desk) == 10


def counts(directory: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(directory / "queue-0.db")) as connection:
        return connection.execute("SELECT instance_id, minute FROM counts ORDER BY instance_id, minute").fetchall()


def test_what_was_counted_goes_with_the_mail_of_that_time_instance_by_instance(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_rows, "COUNTS_MOST", 4)
    boundary = int(BEFORE) // 60 * 60
    times = [*(OLD + 60 * each for each in range(12)), boundary - 1, boundary, NOW]
    for instance in ("a", "b", "c"):
        desk.store_all(*(accepted(at=at, instance=instance) for at in times))
    assert len(counts(tmp_path)) == 3 * len(times)
    steps = 0
    while not desk.store.purge(BEFORE)[1]:
        steps += 1
    assert 3 * 13 // 4 <= steps <= 3 * 13
    kept = [boundary // 60, int(NOW) // 60]
    assert counts(tmp_path) == [(instance, minute) for instance in ("a", "b", "c") for minute in kept]
    # The mail itself waits still, and the next sweep begins with it again.
    assert count(tmp_path)["messages"] == 3 * len(times)
    assert desk.store.purge(BEFORE) == (0, True)


def test_many_counts_of_one_minute_go_in_one_step(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_rows, "COUNTS_MOST", 2)
    desk.store_all(*(replace(accepted(at=OLD), smtp_config_id=f"c{each}") for each in range(9)))
    assert len(counts(tmp_path)) == 9
    assert desk.store.purge(BEFORE) == (0, False)
    assert counts(tmp_path) == []
    assert desk.store.purge(BEFORE) == (0, True)
