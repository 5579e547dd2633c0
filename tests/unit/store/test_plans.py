"""No statement of the queue reads what it does not need, over a file of 5,000 messages made by the store itself.

What is told is the work that SQLite does: its plans, and the steps of its machine, which no clock and no neighbour
changes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from outgate.model.flow import Accepted, Job, Status
from outgate.model.operations import Order, Scope, StandingHold, Verb
from outgate.store.metrics import Selection
from outgate.store.queue_rows import Full
from support.queue_mail import NOW, Desk, accepted, attempt

DAY = 86_400.0
MESSAGES = 5_000
LATER = NOW + 900
STATUSES = (Status.DELIVERED, Status.DELIVERED, Status.DEFERRED, Status.BOUNCED, Status.HELD, None)
BIG = ("messages", "recipients", "events", "attempts", "m", "r", "e", "a")

# Each with the reason why it may.
MAY_SCAN = {
    "sent_from": "the newest rows in the table's own order, a bounded number, once per start",
    "depth": "all that waits is what is counted; from an index that holds nothing else",
    "find_site": "a site's recipients lie in any domain; from the index of what waits",
    "purge": "m is the helping of messages that a step looks at, found by row number",
    "late_for_quota": "all that is held, from its index, at the start and when quotas change",
    "held_for_quota": "all that is held, from its index, at the start and when quotas change",
    "list_all": "the newest rows of all instances in the table's own order, as many as are counted or shown",
}


class Watched:
    """A store whose statements are noted, with the steps that SQLite's machine took for them."""

    def __init__(self, desk: Desk, jobs: list[Job]) -> None:
        self.desk = desk
        self.jobs = jobs
        history = desk.store._history
        readers = (history._narrow, history._wide, history._work)
        self.connections = [desk.store._rows._connection, *(reader._connection for reader in readers)]

    def run(self, call: Callable[[], object]) -> tuple[list[str], int]:
        """Return the steps of the plans of what `call` runs, and some ten thousands of the machine's steps."""
        noted: list[tuple[sqlite3.Connection, str]] = []
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 100

        for connection in self.connections:
            connection.set_trace_callback(lambda sql, c=connection: noted.append((c, sql)))  # type: ignore[misc]
            connection.set_progress_handler(step, 100)
        try:
            call()
            self.desk.store.flush()
        finally:
            for connection in self.connections:
                connection.set_trace_callback(None)
                connection.set_progress_handler(None, 0)
        plans: list[str] = []
        for connection, sql in noted:
            if sql.startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
                sql = re.sub(r"\bInf\b", "9e999", sql)  # as SQLite reads it, not as it writes it
                plans += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        return plans, steps


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    desk = Desk(tmp_path_factory.mktemp("plans"), segment_bytes=64 << 20)
    jobs: list[Job] = []
    for first in range(0, MESSAGES, 500):
        jobs += desk.store_all(*(message(number) for number in range(first, first + 500)))
    for number, job in enumerate(jobs):
        status = STATUSES[number % len(STATUSES)]
        if status is not None:
            next_at = LATER + number / 100 if status is Status.DEFERRED else None
            desk.store.record(attempt(job, status, at=job.accepted_at + 1, next_at=next_at))
    desk.store.flush()
    yield Watched(desk, jobs)
    desk.store.close()


def message(number: int) -> Accepted:
    """One of ten instances, of forty configurations, to one of 500 domains; the older half is a month old."""
    at = NOW + number / 100 - (40 * DAY if number < MESSAGES // 2 else 0)
    made = accepted(f"r{number}@d{number % 500}.test", at=at, message_id=f"<{number}@shop.test>", instance="i1")
    return replace(made, smtp_config_id=f"c{number % 40}", counted_at=at if number % 40 == 7 else None)


def cases(watched: Watched) -> dict[str, Callable[[], object]]:
    """Return what the store does, by name; each may be done once."""
    store, jobs = watched.desk.store, watched.jobs
    rows, history = store._rows, store._history
    waiting = [job for number, job in enumerate(jobs) if STATUSES[number % 6] is Status.DEFERRED]
    leased = [job for number, job in enumerate(jobs) if STATUSES[number % 6] is None]
    find = partial(history.messages, "i1")
    order = Order(Verb.RETRY, Scope(domain="d2.test"), "ann", NOW)

    def submit() -> None:
        watched.desk.store_all(*(accepted(f"n{number}@new.test", at=NOW) for number in range(20)))

    return {
        "submit": submit,
        "record": lambda: [store.record(attempt(job, at=NOW + 60)) for job in leased[:20]],
        "record_deferred": lambda: [
            store.record(attempt(job, Status.DEFERRED, at=NOW + 60, next_at=LATER)) for job in leased[20:40]
        ],
        "release": lambda: [store.release(job, LATER) for job in leased[40:60]],
        "hold": lambda: [store.hold(job, "suspended", "held", NOW) for job in leased[60:80]],
        "suppress": lambda: [
            store.suppress(job, [job.recipients[0].mailbox], "suppressed", NOW) for job in leased[80:100]
        ],
        "hold_waiting": lambda: store.hold_waiting("c2", "unverified", "held", NOW),
        "release_held": lambda: store.release_held("c2", ("unverified",), "released", NOW),
        "held_too_long": lambda: list(store.held_too_long(("suspended",), NOW + 1)),
        "claim": lambda: store.claim(LATER + 10, 100),
        "claim_but": lambda: store.claim(LATER + 10, 100, Full(("d2.test",), ("c3",), (("d4.test", "c5"),))),
        "next_due": lambda: store.next_due(after=LATER + 1),
        "recover": lambda: rows.recover(NOW),
        "live": rows.live,
        "counted": lambda: store.counted(NOW - DAY, NOW + DAY),
        "purge": lambda: store.purge(NOW - 30 * DAY),
        "sent_from": lambda: store.sent_from(NOW - DAY),
        "late_for_quota": lambda: store.late_for_quota(NOW),
        "held_for_quota": lambda: store.held_for_quota("c7", NOW),
        "unfinished": lambda: history.unfinished("c2"),
        "unfinished_configurations": store.unfinished_configurations,
        "keys_needed": lambda: store.keys_needed(["key-1"]),
        "message": lambda: store.message(jobs[4000].queue_id),
        "list": find,
        "list_deep": partial(find, offset=4000, limit=10),
        "list_window": partial(find, gte=NOW, lte=NOW + 10),
        "list_delivered": partial(find, status="delivered"),
        "list_queued": partial(find, status="queued"),
        "list_several": partial(find, status=(Status.BOUNCED, Status.EXPIRED, Status.DELIVERED)),
        "list_held_window": partial(find, status="held", gte=NOW, lte=NOW + 10),
        "list_queue_id": partial(find, queue_id=jobs[4000].queue_id),
        "list_message_id": partial(find, message_id=("4000@shop.test", "<4000@shop.test>")),
        "list_recipient": partial(find, recipient="r4000@d0.test"),
        "list_recipient_status": partial(find, recipient="r4000@d0.test", status="delivered"),
        "list_all": partial(history.messages, limit=50),
        "metrics": lambda: store.metrics(Selection("i1", NOW - 10 * DAY, NOW), 3600),
        "metrics_short": lambda: store.metrics(Selection("i1", NOW, NOW + 10), 60),
        "metrics_recipient": lambda: store.metrics(Selection("i1", NOW, NOW + 10, email_to="r4000@d0.test"), 60),
        "bounces": lambda: store.bounces(Selection("i1", NOW, NOW + 10), 10, 0),
        "depth": lambda: store.verbs.depth(Scope(), NOW, {}, by_age=True, limit=10, offset=0),
        "depth_domain": lambda: store.verbs.depth(Scope(domain="d2.test"), NOW, {}, by_age=True, limit=10, offset=0),
        "find_site": lambda: store.verbs.find(Scope(site="d2.test")),
        "find_domain": lambda: store.verbs.find(Scope(domain="d2.test")),
        "find_configuration": lambda: store.verbs.find(Scope(smtp_config_id="c2")),
        "find_instance": lambda: store.verbs.find(Scope(instance_id="i1")),
        "waiting": lambda: store.verbs.waiting(Scope(domain="d2.test"), 10, 0),
        "weigh": lambda: store.verbs.weigh(order, [leased[200].recipients[0].id]),
        "obey": lambda: store.verbs.obey(order, [job.recipients[0].id for job in waiting[:100]]),
        "obey_cancel": lambda: store.verbs.obey(
            replace(order, verb=Verb.CANCEL), [job.recipients[0].id for job in waiting[100:200]]
        ),
        "obey_hold": lambda: store.verbs.obey(
            replace(order, verb=Verb.HOLD), [job.recipients[0].id for job in (*waiting[200:300], *leased[200:210])]
        ),
        "come_back": lambda: store.record(attempt(leased[201], Status.DEFERRED, at=NOW, next_at=LATER)),
        "stand": lambda: store.verbs.stand(StandingHold(Scope(domain="d9.test"), "ann", NOW, "")),
    }


def scans(plans: list[str]) -> list[str]:
    """Return the steps that go through a whole table or index of the large ones."""
    return [step for step in plans if (found := re.match(r"SCAN (\w+)", step)) and found[1] in BIG]


def test_no_statement_goes_through_a_whole_table(watched: Watched) -> None:
    wrong: list[str] = []
    scanned: set[str] = set()
    for name, call in cases(watched).items():
        plans, _ = watched.run(call)
        assert plans, name
        found = scans(plans)
        scanned.update([name] if found else [])
        if name not in MAY_SCAN:
            wrong += [f"{name}: {step}" for step in found]
        # What SQLite makes an index for at each run, for want of one of ours.
        wrong += [f"{name}: {step}" for step in plans if "AUTOMATIC" in step]
    assert wrong == []
    assert scanned == set(MAY_SCAN), "what no longer scans needs no leave"


# What looks for one thing, or does something to a few, takes as many steps however many there are: without its index,
# one row each of 5,000 takes 20,000 and more.
FEW = {
    "message": 1_000,
    "list_queue_id": 1_000,
    "list_message_id": 1_000,
    "list_recipient": 1_000,
    "list_recipient_status": 1_000,
    "next_due": 1_000,
    "find_domain": 1_000,
    "counted": 4_000,
}


@pytest.mark.parametrize("name", FEW)
def test_a_look_for_one_thing_takes_few_steps(watched: Watched, name: str) -> None:
    _, steps = watched.run(cases(watched)[name])
    print(name, steps)
    assert steps <= FEW[name], steps
