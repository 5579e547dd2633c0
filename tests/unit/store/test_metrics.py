"""What became of mail, counted from the rows that the real queue store wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.model.flow import Accepted, Event, Job, Outcome, Status
from outgate.store import history as history_module
from outgate.store.history import History
from outgate.store.metrics import REACH_S, Selection
from support.queue_mail import NOW, Desk, accepted, attempt

HOUR, DAY = 3600, 86_400
WINDOW = Selection("instance-1", NOW, NOW + DAY)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.store.close()


def settle(desk: Desk, job: Job, *tries: tuple[Status, float]) -> None:
    """Try a job again and again, as its lease would allow; the last one is what stands."""
    for status, at in tries:
        next_at = at + 60 if status is Status.DEFERRED else None
        desk.store.record(attempt(job, status, at=at, next_at=next_at))
        desk.store.flush()
        if next_at is not None:
            (job,) = [again for again in desk.store.claim(next_at, 100) if again.queue_id == job.queue_id]


def totals(desk: Desk, wanted: Selection = WINDOW) -> dict[str, int]:
    return {kind: sum(buckets.values()) for kind, buckets in desk.store.metrics(wanted, HOUR).items()}


def counts(submitted: int = 0, success: int = 0, deferred: int = 0, bounced: int = 0) -> dict[str, int]:
    return {"submitted": submitted, "success": success, "deferred": deferred, "bounced": bounced}


def test_each_event_of_each_recipient_counts_once_at_its_time(desk: Desk) -> None:
    good, late, bad, old = desk.store_all(
        accepted("a@one.test", "b@one.test", at=NOW + 10),
        accepted("c@two.test", at=NOW + 20),
        accepted("d@three.test", at=NOW + HOUR),
        accepted("e@four.test", at=NOW + HOUR),
    )
    settle(desk, good, (Status.DELIVERED, NOW + 11))
    settle(
        desk, late, *((Status.DEFERRED, NOW + at) for at in (30, HOUR, 3 * HOUR)), (Status.DELIVERED, NOW + 5 * HOUR)
    )
    settle(desk, bad, (Status.BOUNCED, NOW + HOUR + 1))
    settle(desk, old, (Status.DEFERRED, NOW + HOUR + 1), (Status.EXPIRED, NOW + 6 * HOUR))
    first = int(NOW) // HOUR
    assert desk.store.metrics(WINDOW, HOUR) == {
        "submitted": {first: 3, first + 1: 2},
        "success": {first: 2, first + 5: 1},
        "deferred": {first: 1, first + 1: 2, first + 3: 1},
        "bounced": {first + 1: 1, first + 6: 1},
    }
    assert desk.store.metrics(WINDOW, DAY) == {
        "submitted": {int(NOW) // DAY: 5},
        "success": {int(NOW) // DAY: 3},
        "deferred": {int(NOW) // DAY: 4},
        "bounced": {int(NOW) // DAY: 2},
    }


def test_recipients_of_one_attempt_may_fare_differently(desk: Desk) -> None:
    (job,) = desk.store_all(accepted("a@one.test", "b@one.test", "c@one.test"))
    a, b, c = job.recipients
    said = (
        Outcome(a.id, Status.DELIVERED, 250, "2.0.0", "Ok", "accepted"),
        Outcome(b.id, Status.DEFERRED, 451, "4.7.1", "later", "policy"),
        Outcome(c.id, Status.BOUNCED, 550, "5.1.1", "no such mailbox", "bad-mailbox"),
    )
    desk.store.record(replace(attempt(job, next_at=NOW + 60), outcomes=said))
    desk.store.flush()
    assert totals(desk) == counts(submitted=3, success=1, deferred=1, bounced=1)
    assert totals(desk, replace(WINDOW, email_to="b@one.test")) == counts(submitted=1, deferred=1)
    assert totals(desk, replace(WINDOW, email_to="c@one.test")) == counts(submitted=1, bounced=1)


def test_the_window_includes_both_ends_and_nothing_else(desk: Desk) -> None:
    jobs = desk.store_all(*(accepted(at=NOW + at) for at in (-1, 0, 100, 101)))
    for job, at in zip(jobs, (-0.5, 0, 100, 100.5), strict=True):
        settle(desk, job, (Status.DELIVERED, NOW + at))
    assert totals(desk, replace(WINDOW, lte=NOW + 100)) == counts(submitted=2, success=2)


def test_mail_from_before_the_window_has_events_in_it(desk: Desk) -> None:
    waited, forgotten = desk.store_all(
        accepted(at=NOW - REACH_S, lifetime=2 * REACH_S), accepted(at=NOW - REACH_S - 1, lifetime=2 * REACH_S)
    )
    for job in (waited, forgotten):
        settle(desk, job, (Status.DEFERRED, NOW - 5), (Status.DEFERRED, NOW + 60), (Status.DELIVERED, NOW + 200))
    assert totals(desk) == counts(success=1, deferred=1)
    assert totals(desk, replace(WINDOW, reach_s=REACH_S + 1)) == counts(success=2, deferred=2)


def test_what_still_waits_has_no_outcome_yet(desk: Desk) -> None:
    _, tried, held = desk.store_all(accepted(), accepted(), accepted())
    settle(desk, tried, (Status.DEFERRED, NOW + 5))
    desk.store.record(attempt(held, Status.HELD, at=NOW + 6))
    desk.store.flush()
    assert totals(desk) == counts(submitted=3, deferred=1)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, counts(submitted=3, success=2, bounced=1)),
        ({"smtp_config_id": "configuration-1"}, counts(submitted=2, success=1, bounced=1)),
        ({"smtp_config_id": "configuration-2"}, counts(submitted=1, success=1)),
        ({"smtp_config_id": "configuration-3"}, counts()),
        ({"email_to": "Anna@dest.test"}, counts(submitted=1, success=1)),
        ({"email_to": "Anna@DEST.Test"}, counts(submitted=1, success=1)),
        ({"email_to": "anna@dest.test"}, counts()),
        ({"email_to": "na@dest.test"}, counts()),
        ({"email_to": "ben@bücher.test"}, counts(submitted=1, bounced=1)),
        ({"email_to": "ben@xn--bcher-kva.test"}, counts(submitted=1, bounced=1)),
        ({"email_to": "no mailbox"}, counts()),
        ({"email_from": "noreply@SHOP.test"}, counts(submitted=2, success=2)),
        ({"email_from": "Noreply@shop.test"}, counts()),
        ({"email_from": "info@BÜCHER.example"}, counts(submitted=1, bounced=1)),
        ({"email_from": "info@xn--bcher-kva.example"}, counts(submitted=1, bounced=1)),
        ({"email_from": "no mailbox"}, counts()),
        ({"subject": "ORDER"}, counts(submitted=2, success=1, bounced=1)),
        ({"subject": "Order 7_"}, counts()),
        ({"subject": "GRÖSSE"}, counts(submitted=1, success=1)),
        ({"subject": "%"}, counts()),
        ({"username": "abcdefghijklmnopqr01"}, counts(submitted=3, success=2, bounced=1)),
        ({"username": "ABCDEFGHIJKLMNOPQR01"}, counts()),
        ({"email_to": "Anna@dest.test", "subject": "größe"}, counts()),
        ({"instance_id": "instance-2"}, counts(submitted=1, success=1)),
        ({"instance_id": "instance-2", "email_to": "ben@xn--bcher-kva.test"}, counts()),
    ],
)
def test_filters(desk: Desk, filters: dict[str, str], expected: dict[str, int]) -> None:
    mail = [
        accepted("Anna@dest.test", subject="Your order 71"),
        replace(accepted("ben@xn--bcher-kva.test", subject="order 72"), header_from="info@bücher.example"),
        replace(accepted("carl@dest.test", subject="Eine Größe für alle"), smtp_config_id="configuration-2"),
        accepted("dora@dest.test", instance="instance-2"),
    ]
    anna, ben, carl, dora = desk.store_all(*mail)
    for job, status in (
        (anna, Status.DELIVERED),
        (ben, Status.BOUNCED),
        (carl, Status.DELIVERED),
        (dora, Status.DELIVERED),
    ):
        settle(desk, job, (status, NOW + 1))
    assert totals(desk, replace(WINDOW, **filters)) == expected
    assert desk.store.bounces(replace(WINDOW, **filters), 10, 0)[0] == expected["bounced"]


def test_a_count_shows_one_moment(desk: Desk) -> None:
    """What is stored between two statements of a count is not in it."""
    (first,) = desk.store_all(accepted("a@one.test"))
    settle(desk, first, (Status.DELIVERED, NOW + 1))
    seen: list[str] = []

    def meanwhile(statement: str) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)
            if len(seen) == 2:
                (job,) = desk.store_all(accepted("b@one.test"))
                settle(desk, job, (Status.BOUNCED, NOW + 2))

    connection = desk.store._history._wide._connection
    connection.set_trace_callback(meanwhile)
    assert totals(desk) == counts(submitted=1, success=1)
    connection.set_trace_callback(None)
    assert len(seen) >= 2
    assert totals(desk) == counts(submitted=2, success=1, bounced=1)


def test_bounces_are_listed_newest_first(desk: Desk) -> None:
    mail = [accepted(f"{name}@one.test", at=NOW + at) for at, name in enumerate("abcd")]
    a, b, c, d = desk.store_all(*mail)
    settle(desk, b, (Status.BOUNCED, NOW + 30))
    settle(desk, a, (Status.DEFERRED, NOW + 5), (Status.EXPIRED, NOW + 100))
    settle(desk, c, (Status.BOUNCED, NOW + 20))
    settle(desk, d, (Status.DELIVERED, NOW + 40))
    total, found = desk.store.bounces(WINDOW, 2, 0)
    assert total == 3
    assert [(bounce.mailbox, bounce.at, bounce.status) for bounce in found] == [
        ("a@one.test", NOW + 100, Status.EXPIRED),
        ("b@one.test", NOW + 30, Status.BOUNCED),
    ]
    assert found[1].reply == "550 5.1.1 no such mailbox"
    assert (found[1].subject, found[1].client_address, found[1].reason) == ("hello", "10.0.0.1", "bad-mailbox")
    assert found[1].queue_id == mail[1].queue_id
    total, found = desk.store.bounces(WINDOW, 2, 2)
    assert (total, [bounce.mailbox for bounce in found]) == (3, ["c@one.test"])
    assert desk.store.bounces(WINDOW, 2, 4) == (3, [])


def plans(history: History, call: object) -> list[list[str]]:
    """Return the query plan of each statement that `call` runs on the connection for searches."""
    connection = history._wide._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    call()  # type: ignore[operator]
    connection.set_trace_callback(None)
    return [
        [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for statement in statements
        if statement.startswith("SELECT")
    ]


def test_a_count_reads_the_instance_by_time_and_never_a_whole_table(desk: Desk) -> None:
    history = desk.store._history
    found = plans(history, lambda: history.metrics(replace(WINDOW, smtp_config_id="c", subject="x"), HOUR))
    found += plans(history, lambda: history.bounces(WINDOW, 10, 0))
    assert len(found) == 4
    for plan in found:
        assert "USING INDEX messages_by_instance (instance_id=? AND accepted_at>? AND accepted_at<?)" in plan[0]
        assert not any(step.startswith("SCAN") and "VIRTUAL TABLE" not in step for step in plan)


def test_a_count_of_one_recipient_reads_that_one_only(desk: Desk) -> None:
    history = desk.store._history
    wanted = replace(WINDOW, email_to="a@one.test")
    found = plans(history, lambda: history.metrics(wanted, HOUR))
    found += plans(history, lambda: history.bounces(wanted, 10, 0))
    assert len(found) == 4
    for plan in found:
        assert "sqlite_autoindex_messages_1 (queue_id=?)" in plan[0]
        assert "ix_recipients_mailbox (mailbox>? AND mailbox<?)" in plan[2]
        assert not any(step.startswith("SCAN") and "VIRTUAL TABLE" not in step for step in plan)


@pytest.mark.parametrize(
    ("search", "index"),
    [
        ({"queue_id": "Q"}, "sqlite_autoindex_messages_1 (queue_id=?)"),
        ({"message_id": "<m>"}, "messages_by_message_id (message_id=?)"),
        ({"recipient": "a@one.test"}, "sqlite_autoindex_messages_1 (queue_id=?)"),
        ({"recipient": "a@one.test", "status": "bounced"}, "sqlite_autoindex_messages_1 (queue_id=?)"),
        ({"status": "held"}, "recipients_by_status (instance_id=? AND status=?)"),
        (
            {"status": (Status.BOUNCED, Status.EXPIRED), "lte": NOW},
            "recipients_by_status (instance_id=? AND status=? AND queue_id<?)",
        ),
        ({"status": (Status.BOUNCED, Status.DELIVERED)}, "recipients_by_status (instance_id=? AND status=?)"),
        (
            {"status": (Status.QUEUED, Status.DEFERRED), "gte": NOW},
            "recipients_by_status (instance_id=? AND status=? AND queue_id>?)",
        ),
        ({"status": "delivered"}, "recipients_by_status (instance_id=? AND status=?)"),
        ({}, "messages_by_instance (instance_id=?)"),
        ({"gte": NOW, "lte": NOW + 1}, "messages_by_instance (instance_id=? AND accepted_at>? AND accepted_at<?)"),
    ],
)
def test_a_search_goes_by_the_index_that_leads_to_the_least(desk: Desk, search: dict, index: str) -> None:
    history = desk.store._history
    found = plans(history, lambda: history.messages("instance-1", **search))
    assert len(found) == 2
    for plan in found:
        first = next(step for step in plan if step.startswith(("SEARCH m ", "SEARCH r ", "SCAN m ", "SCAN r ")))
        assert index in first
        # What is sorted is a helping: the page, or what an index has led to.
        sorts = [step for step in plan if "TEMP B-TREE" in step]
        assert "USING INDEX" in first or "USING COVERING INDEX" in first
        assert len(sorts) <= 1 + (len(plan) > 3), plan
        assert not any(step.startswith(("SCAN m", "SCAN r")) for step in plan), plan


def test_a_search_for_a_mailbox_minds_the_local_parts_case_only(desk: Desk) -> None:
    message = accepted("Anna@Dest.Test", "ben@dest.test")
    # The session stores the domain in lower case beside the mailbox as it was given.
    recipients = tuple(replace(r, domain=r.domain.lower()) for r in message.submission.recipients)
    desk.store_all(replace(message, submission=replace(message.submission, recipients=recipients)))
    for text, total in (
        ("Anna@Dest.Test", 1),
        ("Anna@dest.test", 1),
        ("anna@dest.test", 0),
        ("Ann@dest.test", 0),
        ("ben@DEST.test", 1),
        ("%@dest.test", 0),
    ):
        assert desk.store.messages("instance-1", recipient=text)[0] == total, text


def test_waiting_mail_is_found_by_status_among_settled_mail(desk: Desk) -> None:
    done, tried, held, other = desk.store_all(
        accepted(), accepted("a@one.test", "b@one.test"), accepted(), accepted(instance="instance-2")
    )
    settle(desk, done, (Status.DELIVERED, NOW + 1))
    settle(desk, other, (Status.DEFERRED, NOW + 1))
    desk.store.record(attempt(tried, Status.DEFERRED, next_at=NOW + 60))
    desk.store.record(attempt(held, Status.HELD))
    desk.store.flush()

    def found(*statuses: Status) -> list[str]:
        return [record.queue_id for record in desk.store.messages("instance-1", status=statuses)[1]]

    assert found(Status.DEFERRED) == [tried.queue_id]
    assert found(Status.HELD) == [held.queue_id]
    assert sorted(found(Status.DEFERRED, Status.HELD)) == sorted([tried.queue_id, held.queue_id])
    assert sorted(found(Status.DELIVERED, Status.HELD)) == sorted([done.queue_id, held.queue_id])
    assert desk.store.messages(None, status=Status.DEFERRED)[0] == 2


def events(desk: Desk, message: Accepted) -> list[tuple[str, str, float, str]]:
    record = desk.store.message(message.queue_id)
    assert record is not None
    return [(moment.kind, moment.recipient, moment.at - NOW, moment.detail) for moment in record.timeline()][1:]


def test_attempts_at_several_domains_are_told_in_order_of_time(desk: Desk) -> None:
    message = accepted("a@one.test", "b@two.test")
    one, two = desk.store_all(message)
    slow = replace(attempt(one, Status.DELIVERED, at=NOW + 9), started_at=NOW + 1)
    quick = replace(attempt(two, Status.BOUNCED, at=NOW + 3), started_at=NOW + 2)
    for each in (quick, slow):
        desk.store.record(each)
    desk.store.flush()
    assert [(kind, who, at) for kind, who, at, _ in events(desk, message)] == [
        ("attempt", "", 1),
        ("attempt", "", 2),
        ("bounced", "b@two.test", 3),
        ("delivered", "a@one.test", 9),
    ]


def test_what_befell_a_recipient_without_an_attempt_is_told_by_its_event(desk: Desk) -> None:
    message = accepted("a@one.test", "b@one.test")
    (job,) = desk.store_all(message)
    desk.store.record(attempt(job, Status.DEFERRED, next_at=NOW + 60))
    desk.store.flush()
    one, two = (recipient.id for recipient in job.recipients)
    rows = desk.store._rows
    with rows.transaction():
        rows.events.tell(
            [
                Event(message.queue_id, NOW + 20, "cancelled", two, text="cancelled: no longer wanted", actor="key 1"),
                Event(message.queue_id, NOW + 30, "held", one, reason="suspended"),
            ]
        )
    assert events(desk, message)[-2:] == [
        ("cancelled", "b@one.test", 20, "cancelled: no longer wanted"),
        ("held", "a@one.test", 30, "suspended"),
    ]
    record = desk.store.message(message.queue_id)
    assert record is not None
    assert [(moment.attempt, moment.actor) for moment in record.timeline()[-3:]] == [(1, ""), (0, "key 1"), (0, "")]


def test_a_hold_is_no_attempt_and_counts_for_nothing(desk: Desk) -> None:
    message = accepted("a@one.test")
    (job,) = desk.store_all(message)
    desk.store.hold(job, "suspended", "shop.test may not send for now", NOW + 5)
    desk.store.flush()
    assert events(desk, message) == [("held", "a@one.test", 5, "shop.test may not send for now")]
    record = desk.store.message(message.queue_id)
    assert record is not None and record.attempts == () and record.recipients[0].attempts == 0
    assert totals(desk) == counts(submitted=1)


def test_a_page_is_read_from_an_index_in_its_own_order(desk: Desk) -> None:
    """Skipping to a deep page, and a page of what few are, sort no more than the page."""
    history = desk.store._history
    for search in ({"offset": 900_000}, {"status": "deferred"}, {"status": "bounced"}, {"status": "delivered"}):
        for plan in plans(history, lambda search=search: history.messages("instance-1", **search)):
            inner = plan[: next((at for at, step in enumerate(plan) if step.startswith("SCAN")), len(plan))]
            assert not any("TEMP B-TREE" in step for step in inner), plan
    deep = plans(history, lambda: history.messages("instance-1", offset=900_000))
    assert all(any("USING COVERING INDEX messages_by_instance" in step for step in plan) for plan in deep)


def test_pages_by_status_are_the_newest_first_and_a_message_is_on_one_of_them(desk: Desk) -> None:
    jobs = desk.store_all(*(accepted(f"a{n}@one.test", f"b{n}@one.test", at=NOW + n) for n in range(7)))
    for job in jobs:
        desk.store.record(attempt(job, Status.DEFERRED, next_at=NOW + 900))
    desk.store.flush()
    wanted = [job.queue_id for job in reversed(jobs)]
    for status in (Status.DEFERRED, (Status.DEFERRED, Status.BOUNCED)):
        seen = []
        for offset in (0, 3, 6):
            total, page = desk.store.messages("instance-1", status=status, limit=3, offset=offset)
            assert total == 7
            seen += [record.queue_id for record in page]
        assert seen == wanted
    assert desk.store.messages("instance-2", status=Status.DEFERRED) == (0, [])


def test_no_more_is_counted_than_anybody_pages_through(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "COUNTED", 5)
    desk.store_all(*(accepted(at=NOW + number) for number in range(12)))
    seen: list[str] = []
    totals: list[int] = []
    while not totals or len(seen) < totals[-1]:  # as a client goes on while there is a next page
        total, page = desk.store.messages("instance-1", limit=4, offset=len(seen))
        totals.append(total)
        seen += [record.queue_id for record in page]
    assert len(set(seen)) == 12
    assert totals == [5, 9, 13, 12]


LONG = replace(WINDOW, lte=NOW + 3 * DAY)


def test_a_long_window_is_answered_by_counts_of_the_minute_as_by_the_rows(desk: Desk) -> None:
    jobs = desk.store_all(
        *(accepted(f"{n}@one.test", f"{n}b@one.test", at=NOW + n * 997) for n in range(40)),
        replace(accepted("x@one.test", at=NOW + 5), smtp_config_id="configuration-2"),
        accepted("y@one.test", instance="instance-2"),
    )
    ends = (Status.DELIVERED, Status.BOUNCED, Status.EXPIRED)
    for number, job in enumerate(jobs):
        at = job.accepted_at + 7
        settle(desk, job, (Status.DEFERRED, at), (ends[number % 3], at + 700 * number))
    for wanted in (LONG, replace(LONG, smtp_config_id="configuration-2"), replace(LONG, instance_id="instance-2")):
        for width in (60, HOUR, DAY):
            # A subject that all have in common asks for single messages, and changes nothing.
            assert desk.store.metrics(wanted, width) == desk.store.metrics(replace(wanted, subject="hello"), width)
    assert totals(desk, LONG)["submitted"] == 81


def test_a_long_window_reads_no_messages(desk: Desk) -> None:
    history = desk.store._history
    (plan,) = plans(history, lambda: history.metrics(replace(LONG, smtp_config_id="c"), HOUR))
    assert plan[0] == "SEARCH counts USING PRIMARY KEY (instance_id=? AND minute>? AND minute<?)"
    assert not any("messages" in step or "events" in step for step in plan)


def test_reports_of_our_own_are_nobodys_mail(desk: Desk, tmp_path: Path) -> None:
    (own,) = desk.store_all(accepted("a@one.test"))
    settle(desk, own, (Status.DELIVERED, NOW + 1))
    (report,) = desk.store_all(accepted("b@one.test", at=NOW + 2))
    with sqlite3.connect(tmp_path / "queue-0.db") as connection:
        connection.execute("UPDATE messages SET origin = 'dsn' WHERE queue_id = ?", (report.queue_id,))
        connection.execute("DELETE FROM counts")
    connection.close()
    settle(desk, report, (Status.BOUNCED, NOW + 3))
    assert totals(desk) == counts(submitted=1, success=1)
    assert totals(desk, LONG) == counts()  # what happened to the report was not counted either
    assert desk.store.bounces(WINDOW, 10, 0) == (0, [])


def test_a_list_by_status_keeps_to_its_window_and_shows_each_message_once(desk: Desk) -> None:
    mail = [accepted("a@one.test", "b@one.test", at=NOW + at) for at in (0.2, 0.4, 0.6, 5.0)]
    jobs = desk.store_all(*mail, accepted(at=NOW + 0.4, instance="instance-2"))
    first, *_ = jobs[3].recipients
    tried = attempt(jobs[3], Status.DEFERRED, at=NOW + 6, next_at=NOW + 90)
    desk.store.record(replace(tried, outcomes=tuple(o for o in tried.outcomes if o.recipient_id == first.id)))
    desk.store.flush()
    either = (Status.QUEUED, Status.DEFERRED)
    for status, gte, lte, found in (
        ("queued", None, None, [3, 2, 1, 0]),
        ("queued", 0.4, None, [3, 2, 1]),
        ("queued", None, 0.4, [1, 0]),
        ("queued", 0.4, 0.4, [1]),
        ("queued", 0.41, 0.59, []),
        ("queued", 2.0, 9.0, [3]),
        (either, 0.6, 5.0, [3, 2]),
        ("deferred", None, 4.9, []),
        ("deferred", 5.0, 5.0, [3]),
        (either, None, None, [3, 2, 1, 0]),
    ):
        bounds = {"gte": None if gte is None else NOW + gte, "lte": None if lte is None else NOW + lte}
        total, page = desk.store.messages("instance-1", status=status, **bounds)  # type: ignore[arg-type]
        assert [record.queue_id for record in page] == [mail[number].queue_id for number in found], (status, gte, lte)
        assert total == len(found)
    assert [r.queue_id for r in desk.store.messages("instance-1", status=either, limit=1, offset=2)[1]] == [
        mail[1].queue_id
    ]
