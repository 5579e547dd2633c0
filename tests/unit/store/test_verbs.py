"""Operators' verbs on a real queue file: what waits, what is under way, what was held for something else; in steps."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.model.flow import Event, Job, Status
from outgate.model.operations import OPERATOR, Done, Order, Scope, StandingHold, Verb
from outgate.store import depth as depth_module
from outgate.store.depth import WAITING
from outgate.store.verbs import Verbs
from support.queue_mail import NOW, Desk, accepted, attempt

LATER = NOW + 600
ANN, DEST = "iam-ann", Scope(domain="dest.test")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.store.close()


def deferred(desk: Desk, *mailboxes: str, text: str = "later", site: str = "mx.dest.test") -> Job:
    """Have a message stored and deferred until NOW + 900; return its job."""
    (job,) = desk.store_all(accepted(*mailboxes))
    tried = attempt(job, Status.DEFERRED, next_at=NOW + 900)
    outcomes = tuple(replace(each, text=text) for each in tried.outcomes)
    desk.store.record(replace(tried, outcomes=outcomes, site=site))
    desk.store.flush()
    return job


def order(verb: Verb, scope: Scope = DEST, **more: str) -> Order:
    return Order(verb, scope, ANN, LATER, **more)


def obey(desk: Desk, given: Order, *under_way: int) -> Done:
    verbs = desk.store.verbs
    return verbs.obey(given, sorted({*verbs.find(given.scope), *under_way})).done


def stands(desk: Desk, queue_id: str) -> list[tuple[str, str, float | None]]:
    record = desk.store.message(queue_id)
    assert record is not None
    return [(each.status.value, each.reason, each.due_at) for each in record.recipients]


def told(desk: Desk, queue_id: str) -> list[tuple[str, str, str]]:
    """Return the events that somebody caused: (kind, actor, text)."""
    with closing(sqlite3.connect(desk.directory / "queue-0.db")) as connection:
        return connection.execute(
            "SELECT kind, actor, text FROM events WHERE queue_id = ? AND actor != '' ORDER BY id", (queue_id,)
        ).fetchall()


def test_hold_takes_what_waits_out_and_release_puts_it_back(desk: Desk) -> None:
    job, other = deferred(desk, "anna@dest.test"), deferred(desk, "bert@other.test")
    assert obey(desk, order(Verb.HOLD, why="a pause")) == Done(changed=1, messages=1)
    assert stands(desk, job.queue_id) == [("held", OPERATOR, None)]
    assert stands(desk, other.queue_id) == [("deferred", "policy", NOW + 900)]
    assert [each.queue_id for each in desk.store.claim(NOW + 90_000, 10)] == [other.queue_id]
    assert obey(desk, order(Verb.HOLD)) == Done(held=1)

    before = desk.store.message(job.queue_id)
    released = replace(order(Verb.RELEASE), at=LATER + 3600)
    assert obey(desk, released) == Done(changed=1, messages=1)
    assert stands(desk, job.queue_id) == [("deferred", "", LATER + 3600)]
    after = desk.store.message(job.queue_id)
    assert before is not None and after is not None
    assert after.expires_at == before.expires_at + 3600  # it stood still
    assert told(desk, job.queue_id) == [("held", ANN, "held: a pause"), ("released", ANN, "released")]


def test_holds_of_another_kind_and_operators_leave_each_other_alone(desk: Desk) -> None:
    job = deferred(desk, "anna@dest.test")
    assert desk.store.hold_waiting("configuration-1", "suspended", "no records", NOW + 10) == 1
    assert obey(desk, order(Verb.HOLD)) == Done(held=1)
    assert obey(desk, order(Verb.RELEASE)) == Done(held=1)
    assert obey(desk, order(Verb.RETRY)) == Done(held=1)
    assert stands(desk, job.queue_id) == [("held", "suspended", None)]
    assert desk.store.release_held("configuration-1", ["suspended"], "again", NOW + 20) == 1
    assert obey(desk, order(Verb.HOLD)) == Done(changed=1, messages=1)
    assert desk.store.release_held("configuration-1", ["suspended"], "again", NOW + 30) == 0
    assert desk.store.hold_waiting("configuration-1", "suspended", "no records", NOW + 40) == 0
    assert list(desk.store.held_too_long(["suspended", "withdrawn", "deleted"], NOW + 1e9)) == []
    assert stands(desk, job.queue_id) == [("held", OPERATOR, None)]


def test_mail_held_for_its_quota_can_be_held_and_goes_back_to_its_quota(desk: Desk) -> None:
    message = replace(accepted("anna@dest.test"), counted_at=NOW + 300)
    desk.store_all(message)
    assert obey(desk, order(Verb.HOLD)) == Done(changed=1, messages=1)
    assert desk.store.claim(NOW + 400, 10) == []
    assert obey(desk, order(Verb.RELEASE)) == Done(changed=1, messages=1)
    assert stands(desk, message.queue_id) == [("held", "quota", None)]
    assert desk.store.late_for_quota(NOW + 400) == ["configuration-1"]


def test_retry_makes_due_and_keeps_the_count(desk: Desk) -> None:
    job = deferred(desk, "anna@dest.test")
    assert desk.store.claim(LATER, 10) == []
    assert obey(desk, order(Verb.RETRY)) == Done(changed=1, messages=1)
    assert obey(desk, order(Verb.RETRY)) == Done()  # it is due already
    (claimed,) = desk.store.claim(LATER, 10)
    assert claimed.queue_id == job.queue_id and claimed.recipients[0].attempts == 1
    assert told(desk, job.queue_id) == [("retried", ANN, "to be tried now")]


def test_cancel_ends_for_good_and_gives_the_body_back(desk: Desk) -> None:
    held, waits = deferred(desk, "anna@dest.test"), deferred(desk, "bert@dest.test")
    desk.store.verbs.obey(order(Verb.HOLD), [held.recipients[0].id])
    assert sum(count for count, _ in desk.store.live_segments().values()) == 2
    assert obey(desk, order(Verb.CANCEL, why="a mistake")) == Done(changed=2, messages=2)
    for job in (held, waits):
        assert stands(desk, job.queue_id) == [("cancelled", OPERATOR, None)]
        assert told(desk, job.queue_id)[-1] == ("cancelled", ANN, "cancelled: a mistake")
    assert sum(count for count, _ in desk.store.live_segments().values()) == 0
    assert desk.store.claim(NOW + 1e6, 10) == []
    by_id = Scope(queue_ids=(held.queue_id,))
    assert obey(desk, order(Verb.CANCEL, by_id)) == Done(final=1)


def test_reroute_names_the_route_and_makes_due(desk: Desk) -> None:
    job = deferred(desk, "anna@dest.test")
    assert obey(desk, order(Verb.REROUTE, route="relay-2")) == Done(changed=1, messages=1)
    (claimed,) = desk.store.claim(LATER, 10)
    assert claimed.route == "relay-2"
    # Under way: it counts from the next attempt on.
    assert obey(desk, order(Verb.REROUTE, route=""), claimed.recipients[0].id) == Done(under_way=1)
    desk.store.release(claimed, LATER)
    desk.store.flush()
    (again,) = desk.store.claim(LATER, 10)
    assert again.route == ""
    assert [text for _, _, text in told(desk, job.queue_id)] == [
        "rerouted to relay-2",
        "rerouted to the usual order",
    ]


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        (Scope(domain="dest.test"), "ab"),
        (Scope(site="mx.dest.test"), "a"),
        (Scope(site="mx2.dest.test"), "b"),
        (Scope(site="new.test"), "c"),
        (Scope(instance_id="instance-2"), "d"),
        (Scope(instance_id="instance-1"), "abc"),
        (Scope(smtp_config_id="configuration-1"), "abcd"),
        (Scope(smtp_config_id="configuration-2"), ""),
        (Scope(instance_id="instance-1", domain="dest.test", site="mx2.dest.test"), "b"),
        (Scope(smtp_config_id="configuration-2", domain="dest.test"), ""),
        (Scope(queue_ids=("a", "d")), "ad"),
        (Scope(queue_ids=("a", "d"), instance_id="instance-2"), "d"),
        (Scope(queue_ids=("a", "d"), domain="dest.test"), "a"),
    ],
)
def test_scopes(desk: Desk, scope: Scope, found: str) -> None:
    jobs = {
        "a": deferred(desk, "a@dest.test"),
        "b": deferred(desk, "b@dest.test", site="mx2.dest.test"),
        "c": deferred(desk, "c@new.test", site=""),
    }
    (jobs["d"],) = desk.store_all(accepted("d@far.test", instance="instance-2"))
    desk.store.release(jobs["d"], NOW + 900)
    scope = replace(scope, queue_ids=tuple(jobs[name].queue_id for name in scope.queue_ids))
    names = {job.recipients[0].id: name for name, job in jobs.items()}
    assert "".join(sorted(names[number] for number in desk.store.verbs.find(scope))) == found
    total, page = desk.store.verbs.waiting(scope, 2, 0)
    assert total == len(found) and [names[each.recipient_id] for each in page] == list(found[:2])
    weighed = desk.store.verbs.weigh(order(Verb.CANCEL, scope), [])
    assert (weighed.changed, weighed.messages) == (len(found), len(found))
    assert obey(desk, order(Verb.CANCEL, scope)) == Done(changed=len(found), messages=len(found))


# --- what is under way ---


@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.CANCEL])
def test_what_is_under_way_meets_the_verb_when_it_comes_back_deferred(desk: Desk, verb: Verb) -> None:
    (job,) = desk.store_all(accepted("anna@dest.test"))
    number = job.recipients[0].id
    assert desk.store.verbs.find(DEST) == []  # leased rows are in no index: delivery knows them
    assert obey(desk, order(verb, why="stop"), number) == Done(under_way=1)
    assert stands(desk, job.queue_id) == [("queued", "", NOW)]
    desk.store.record(attempt(job, Status.DEFERRED, at=LATER + 5, next_at=LATER + 60))
    desk.store.flush()
    status = "held" if verb is Verb.HOLD else "cancelled"
    assert stands(desk, job.queue_id) == [(status, OPERATOR, None)]
    assert told(desk, job.queue_id) == [(status, ANN, f"{status}: stop")]
    record = desk.store.message(job.queue_id)
    assert record is not None and [event.kind for event in record.events][-2:] == ["deferred", status]
    assert desk.store.claim(NOW + 1e6, 10) == []
    assert bool(desk.store.live_segments()) == (verb is Verb.HOLD)


def test_what_is_given_back_untried_meets_the_verb_in_the_same_moment(desk: Desk) -> None:
    (job,) = desk.store_all(accepted("anna@dest.test"))
    obey(desk, order(Verb.CANCEL), job.recipients[0].id)
    desk.store.release(job, NOW)
    assert desk.store.claim(NOW + 1e6, 10) == []
    assert stands(desk, job.queue_id) == [("cancelled", OPERATOR, None)]


def test_what_waited_for_its_quota_and_comes_back_untried_is_held(desk: Desk) -> None:
    desk.store_all(replace(accepted("anna@dest.test"), counted_at=NOW + 60))
    (job,) = desk.store.claim(NOW + 60, 10)  # there is room now
    assert obey(desk, order(Verb.HOLD, why="stop"), job.recipients[0].id) == Done(under_way=1)
    desk.store.release(job, NOW + 60)
    assert desk.store.claim(NOW + 1e6, 10) == []
    assert stands(desk, job.queue_id) == [("held", OPERATOR, None)]
    assert told(desk, job.queue_id) == [("held", ANN, "held: stop")]


def test_what_was_delivered_stays_delivered(desk: Desk) -> None:
    (job,) = desk.store_all(accepted("anna@dest.test"))
    obey(desk, order(Verb.CANCEL), job.recipients[0].id)
    desk.store.record(attempt(job, Status.DELIVERED))
    desk.store.flush()
    assert [each[0] for each in stands(desk, job.queue_id)] == ["delivered"]
    assert told(desk, job.queue_id) == []
    with closing(sqlite3.connect(desk.directory / "queue-0.db")) as connection:
        assert connection.execute("SELECT count(*) FROM operator_wishes").fetchone() == (0,)


def test_a_release_takes_a_hold_of_what_is_under_way_back_but_no_cancellation(desk: Desk) -> None:
    first, second = desk.store_all(accepted("anna@dest.test"), accepted("bert@dest.test"))
    obey(desk, order(Verb.HOLD), first.recipients[0].id)
    obey(desk, order(Verb.CANCEL), second.recipients[0].id)
    obey(desk, order(Verb.HOLD), second.recipients[0].id)  # too late: it is cancelled
    numbers = (first.recipients[0].id, second.recipients[0].id)
    assert obey(desk, order(Verb.RELEASE), *numbers) == Done(changed=1, under_way=1)
    for job in (first, second):
        desk.store.record(attempt(job, Status.DEFERRED, next_at=LATER))
    desk.store.flush()
    assert stands(desk, first.queue_id) == [("deferred", "policy", LATER)]
    assert stands(desk, second.queue_id) == [("cancelled", OPERATOR, None)]


@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.CANCEL])
def test_the_process_dies_with_it_under_way(tmp_path: Path, verb: Verb) -> None:
    desk = Desk(tmp_path)
    (job,) = desk.store_all(accepted("anna@dest.test"))
    obey(desk, order(verb), job.recipients[0].id)
    desk.store.close()
    again = Desk(tmp_path)
    try:
        status = "held" if verb is Verb.HOLD else "cancelled"
        assert stands(again, job.queue_id) == [(status, OPERATOR, None)]
        assert again.store.claim(NOW + 1e6, 10) == []
        assert bool(again.store.live_segments()) == (verb is Verb.HOLD)
    finally:
        again.store.close()


def test_a_site_is_that_of_the_last_try_also_for_what_is_under_way(desk: Desk) -> None:
    deferred(desk, "anna@dest.test", site="one")
    (job,) = desk.store.claim(NOW + 1000, 10)
    number = job.recipients[0].id
    assert obey(desk, order(Verb.HOLD, Scope(site="two")), number) == Done()
    assert obey(desk, order(Verb.HOLD, Scope(site="one")), number) == Done(under_way=1)


# --- holds that stand ---


def test_standing_holds_are_kept_and_ended_by_what_covers_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    wide = StandingHold(Scope(domain="dest.test"), ANN, NOW, "a pause")
    narrow = StandingHold(Scope(domain="dest.test", smtp_config_id="configuration-1"), "iam-bob", NOW + 1)
    site = StandingHold(Scope(site="mx.other.test"), ANN, NOW + 2)
    for hold in (wide, narrow, site):
        standing = desk.store.verbs.stand(hold)
    assert standing.all() == [wide, narrow, site]
    desk.store.close()
    desk = Desk(tmp_path)
    try:
        verbs: Verbs = desk.store.verbs
        assert verbs.holds().all() == [wide, narrow, site]
        assert verbs.holds().find("i", "c", "dest.test") == wide
        assert verbs.holds().find("i", "c", "x.test", "mx.other.test") == site
        assert verbs.holds().find("i", "c", "x.test") is None
        ended, left = verbs.end(narrow.scope)
        assert ended == [narrow] and left.all() == [wide, site]
        verbs.stand(narrow)
        ended, left = verbs.end(wide.scope)
        assert ended == [wide, narrow] and left.all() == [site]
        assert verbs.end(Scope(queue_ids=("x",)))[0] == []
    finally:
        desk.store.close()


def test_a_release_leaves_what_another_hold_covers(desk: Desk) -> None:
    job = deferred(desk, "anna@dest.test")
    desk.store.verbs.stand(StandingHold(DEST, ANN, NOW))
    obey(desk, order(Verb.HOLD))
    assert obey(desk, order(Verb.RELEASE, Scope(queue_ids=(job.queue_id,)))) == Done(kept=1)
    assert stands(desk, job.queue_id) == [("held", OPERATOR, None)]


# --- how deep ---


def test_depth_by_site_with_age_next_attempt_and_the_commonest_reason(desk: Desk) -> None:
    for number in range(3):
        deferred(desk, f"{number}@dest.test", text="slow down")
    deferred(desk, "x@dest.test", text="full")
    held = deferred(desk, "y@held.test")
    obey(desk, order(Verb.HOLD, Scope(queue_ids=(held.queue_id,))))
    (fresh,) = desk.store_all(accepted("z@fresh.test", at=NOW + 5))
    desk.store.release(fresh, NOW + 5)
    desk.store.flush()
    total, sums, page = desk.store.verbs.depth(
        Scope(), NOW + 100, {"dest.test": 2, "going.test": 1}, by_age=False, limit=10, offset=0
    )
    assert total == 3 and sums == {"ready": 1, "deferred": 4, "held": 1, "under_way": 3}
    by_name = {site.name: site for site in page}
    assert next(iter(by_name)) == "mx.dest.test"
    deepest = by_name["mx.dest.test"]
    # Both domains were tried at the same site.
    assert (deepest.ready, deepest.deferred, deepest.held, deepest.under_way, deepest.depth) == (0, 4, 1, 2, 7)
    assert (deepest.oldest_at, deepest.next_at, deepest.reason) == (NOW, NOW + 900, "policy")
    assert deepest.reply == "451 4.7.1 full" and (deepest.held_reason, deepest.held_domain) == (OPERATOR, "held.test")
    assert by_name["fresh.test"].ready == 1 and by_name["fresh.test"].oldest_at == NOW + 5
    assert by_name["going.test"].under_way == 1 and by_name["going.test"].oldest_at is None
    _, _, aged = desk.store.verbs.depth(Scope(), NOW + 100, {}, by_age=True, limit=1, offset=1)
    assert [site.name for site in aged] == ["fresh.test"]
    _, scoped, _ = desk.store.verbs.depth(
        Scope(instance_id="instance-1", domain="dest.test"), NOW + 1000, {}, by_age=False, limit=10, offset=0
    )
    assert scoped == {"ready": 4, "deferred": 0, "held": 0, "under_way": 0}


# --- speed ---


def plan(connection: sqlite3.Connection, sql: str, values: object = ()) -> str:
    return " | ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))  # type: ignore[arg-type]


def test_what_operators_read_comes_from_indexes(desk: Desk) -> None:
    deferred(desk, "anna@dest.test")
    with closing(sqlite3.connect(desk.directory / "queue-0.db")) as connection:
        counted = plan(connection, depth_module._DEPTH, (0, 0))
        assert "USING COVERING INDEX recipients_waiting" in counted and "TEMP B-TREE" not in counted
        for scope, index in (
            (Scope(domain="d"), "SEARCH r USING COVERING INDEX recipients_waiting (domain=?)"),
            (Scope(site="s"), "USING COVERING INDEX recipients_waiting"),
            (Scope(domain="d", smtp_config_id="c"), "SEARCH r USING INDEX recipients_waiting (domain=?)"),
            (Scope(queue_ids=("q",)), "SEARCH r USING COVERING INDEX ix_recipients_queue_id"),
            (Scope(smtp_config_id="c"), "USING INDEX messages_with_body"),
        ):
            source, conditions, values = depth_module._source(scope)
            found = plan(connection, f"SELECT r.id FROM {source} WHERE {' AND '.join(conditions)}", values)
            assert index in found, found
        index = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'recipients_waiting'").fetchone()[0]
        assert WAITING.format(r="") in index


def test_a_hot_message_costs_the_index_nothing(desk: Desk) -> None:
    """A row that is leased from its first moment until it is delivered is never in it."""
    (job,) = desk.store_all(accepted("anna@dest.test"))
    with closing(sqlite3.connect(desk.directory / "queue-0.db")) as connection:
        count = f"SELECT count(*) FROM recipients INDEXED BY recipients_waiting WHERE {WAITING.format(r='')}"
        assert connection.execute(count).fetchone() == (0,)
        desk.store.record(attempt(job, Status.DELIVERED))
        desk.store.flush()
        assert connection.execute(count).fetchone() == (0,)


def test_many_are_done_in_steps_and_submissions_get_their_turn(desk: Desk) -> None:
    jobs = desk.store_all(*(accepted(f"{number}@dest.test") for number in range(600)))
    for job in jobs:
        desk.store.release(job, NOW + 900)
    desk.store.flush()
    numbers = desk.store.verbs.find(DEST)
    assert len(numbers) == 600
    begun, go = threading.Event(), threading.Event()
    rows = desk.store._rows.verbs
    obeyed = rows.obey
    steps: list[int] = []

    def slow(given: Order, some: list[int]):  # type: ignore[no-untyped-def]
        steps.append(len(some))
        begun.set()
        assert go.wait(30)
        return obeyed(given, some)

    rows.obey = slow  # type: ignore[method-assign]
    found: list[Done] = []
    worker = threading.Thread(target=lambda: found.append(desk.store.verbs.obey(order(Verb.CANCEL), numbers).done))
    worker.start()
    assert begun.wait(30)
    desk.answers.clear()
    desk.submit(accepted("new@dest.test"))
    go.set()
    worker.join()
    desk.wait(1)
    assert found == [Done(changed=600, messages=600)]
    assert steps == [250, 250, 100]
    events = [Event(*row) for row in _all_events(desk)]
    assert sum(event.kind == "cancelled" for event in events) == 600


def _all_events(desk: Desk) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(desk.directory / "queue-0.db")) as connection:
        return connection.execute("SELECT queue_id, at, kind, recipient_id FROM events").fetchall()
