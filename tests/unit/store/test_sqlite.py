"""The queue store: a 250 is a promise. Real files, real SQLite, a real commit thread."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Job, Outcome, Status
from outgate.model.operations import Scope
from outgate.store.sqlite import QueueClosed, QueueLocked, SpoolError
from support.queue_mail import NOW, SEGMENT, TRACE, Desk, accepted, attempt, random_content


@pytest.fixture
def desks(tmp_path):
    """Open stores on one directory, one after the other; all are closed in the end."""
    opened: list[Desk] = []

    def open_desk(directory: Path = tmp_path, **options) -> Desk:
        desk = Desk(directory, **options)
        opened.append(desk)
        return desk

    yield open_desk
    for desk in opened:
        desk.store.close()


def rows(directory: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(directory / "queue-0.db")) as connection:
        return connection.execute(sql).fetchall()


def copy_of(directory: Path, target: Path) -> Path:
    """Copy a store as a crash would leave it: everything that is in the files at this moment."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    return target


# --- the promise ---


def test_nothing_is_answered_before_the_sync_returns(desks, tmp_path):
    entered, leave = threading.Event(), threading.Event()

    def sync(descriptor):
        entered.set()
        assert leave.wait(30)
        os.fdatasync(descriptor)

    desk = desks(sync=sync)
    message = accepted()
    desk.submit(message)
    assert entered.wait(30)
    assert not desk.answered()
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(0,)]
    leave.set()
    desk.wait(1)
    assert desk.answers[message.queue_id][0] is None
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(1,)]


def test_nothing_is_answered_before_the_rows_are_committed(desks):
    order: list[str] = []

    def sync(descriptor):
        os.fdatasync(descriptor)
        order.append("sync")

    desk = desks(sync=sync)
    desk.store._rows._connection.set_trace_callback(lambda sql: order.append(sql.split(" ")[0]))
    carry = desk.store._notify
    desk.store._notify = lambda callback: (order.append("notify"), carry(callback))
    desk.store_all(accepted())
    assert [word for word in order if word in ("sync", "INSERT", "COMMIT", "notify")] == [
        "sync",
        *["INSERT"] * 4,  # the segment's generation, the message, its recipient, the event
        "COMMIT",
        "notify",
    ]


def test_commits_are_synced_to_the_disk(desks):
    connection = desks().store._rows._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_all_that_waits_is_one_batch_and_one_notification(desks):
    syncs = []
    first_in, go_on = threading.Event(), threading.Event()

    def sync(descriptor):
        syncs.append(descriptor)
        if len(syncs) == 1:
            first_in.set()
            assert go_on.wait(30)
        os.fdatasync(descriptor)

    desk = desks(sync=sync)
    desk.submit(accepted())
    assert first_in.wait(30)
    for _ in range(25):
        desk.submit(accepted())
    go_on.set()
    desk.wait(26)
    assert len(syncs) == 2
    assert desk.notified == 2


def in_one_batch(desk: Desk, *submit) -> None:
    """Call these while the commit thread is busy, so that it finds all of them waiting."""
    busy, go_on = threading.Event(), threading.Event()

    def stay_busy() -> None:
        busy.set()
        assert go_on.wait(30)

    blocker = threading.Thread(target=desk.store._ask, args=(stay_busy,))
    blocker.start()
    assert busy.wait(30)
    for one in submit:
        one()
    go_on.set()
    blocker.join()


def test_one_failing_callback_does_not_lose_the_others(desks):
    desk = desks()
    order = []

    def failing(error, jobs):
        order.append("failing")
        raise RuntimeError("a session's own trouble")

    in_one_batch(
        desk,
        lambda: desk.store.submit(accepted(), failing),
        lambda: desk.store.submit(accepted(), lambda error, jobs: order.append(error)),
        lambda: desk.submit(accepted()),
    )
    desk.wait(1)
    assert order == ["failing", None]
    assert desk.notified == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_sync_refuses_and_the_next_message_gets_a_new_segment(desks, tmp_path, code):
    broken = True

    def sync(descriptor):
        if broken:
            raise OSError(code, os.strerror(code))
        os.fdatasync(descriptor)

    desk = desks(sync=sync)
    refused = accepted()
    error = desk.refused(refused)
    assert isinstance(error, OSError)
    assert error.errno == code
    broken = False
    (job,) = desk.store_all(accepted(content=b"after\r\n"))
    assert desk.store.load(job) == (TRACE, b"after\r\n")
    desk.store.close()
    again = desks()
    assert again.store.message(refused.queue_id) is None
    assert [job.queue_id for job in again.store.claim(NOW, 10)] == [job.queue_id]


def test_a_segment_with_mail_in_it_is_left_when_a_sync_fails(desks):
    broken = False

    def sync(descriptor):
        if broken:
            raise OSError(errno.EIO, "input/output error")
        os.fdatasync(descriptor)

    desk = desks(sync=sync)
    (kept,) = desk.store_all(accepted(content=b"kept\r\n"))
    broken = True
    desk.refused(accepted())
    broken = False
    (after,) = desk.store_all(accepted(content=b"after\r\n"))
    assert after.location.segment != kept.location.segment
    assert desk.store.load(kept) == (TRACE, b"kept\r\n")


def test_a_failed_transaction_refuses_the_mail_and_keeps_the_outcomes(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted())
    connection = desk.store._rows._connection
    full = connection.execute("PRAGMA page_count").fetchone()[0]
    desk.store._ask(lambda: connection.execute(f"PRAGMA max_page_count = {full}"))
    # Too large for the pages that are left: SQLITE_FULL.
    refused = accepted(*(f"{'x' * 200}{n}@dest.test" for n in range(200)))
    desk.store.record(attempt(job))
    error = desk.refused(refused)
    assert isinstance(error, sqlite3.OperationalError)
    assert "full" in str(error)
    assert desk.store.message(refused.queue_id) is None
    desk.store._ask(lambda: connection.execute("PRAGMA max_page_count = 1000000"))
    (after,) = desk.store_all(accepted())
    desk.store.flush()
    record = desk.store.message(job.queue_id)
    assert record is not None
    assert record.recipients[0].status is Status.DELIVERED
    assert len(record.attempts) == 1
    assert desk.store.live_segments() == {after.location.segment: (1, after.location.length)}


def test_an_outcome_alone_is_tried_again_until_it_is_durable(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store._ask(lambda: desk.store._rows._connection.execute("PRAGMA busy_timeout = 1"))
    with closing(sqlite3.connect(tmp_path / "queue-0.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        desk.store.record(attempt(job))
        with pytest.raises(OSError, match="tried again"):
            desk.store.flush()
        other.execute("ROLLBACK")
    desk.store.flush()
    assert rows(tmp_path, "SELECT status FROM recipients") == [("delivered",)]


def test_a_rollback_that_fails_does_not_stop_the_queue(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted())
    connection, rows_ = desk.store._rows._connection, desk.store._rows
    plain = rows_.settle

    def settle(*_given):
        connection.set_progress_handler(lambda: 1, 1)  # from here on nothing can be done, not even undone
        raise sqlite3.OperationalError("disk I/O error")

    rows_.settle = settle
    desk.store.record(attempt(job))
    with pytest.raises(OSError, match="tried again"):
        desk.store.flush()
    assert desk.store._ask(lambda: connection.in_transaction)
    rows_.settle = plain
    desk.store._ask(lambda: connection.set_progress_handler(None, 0))
    desk.store_all(accepted())
    desk.store.flush()
    assert rows(tmp_path, "SELECT status FROM recipients ORDER BY id") == [("delivered",), ("queued",)]


def test_one_bad_message_does_not_take_its_batch_down(desks):
    desk = desks()
    twin = accepted()
    desk.store_all(twin)
    desk.answers.clear()
    good, bad_text = accepted(), accepted("lone\ud800surrogate@dest.test")
    in_one_batch(desk, *(partial(desk.submit, message) for message in (good, twin, bad_text)))
    desk.wait(3)
    assert desk.answers[good.queue_id][0] is None
    assert isinstance(desk.answers[twin.queue_id][0], sqlite3.IntegrityError)
    assert isinstance(desk.answers[bad_text.queue_id][0], UnicodeEncodeError)
    assert desk.store.live_segments()[1][0] == 2  # the twin's first life and the good one


def test_text_from_outside_that_is_no_utf_8_is_stored_escaped(desks):
    desk = desks()
    message = accepted(subject="caf\udce9")
    (job,) = desk.store_all(message)
    outcome = Outcome(job.recipients[0].id, Status.BOUNCED, 550, "5.1.1", "caf\udce9", "bad-mailbox")
    desk.store.record(replace(attempt(job), outcomes=(outcome,)))
    desk.store.flush()
    record = desk.store.message(message.queue_id)
    assert record is not None
    assert record.subject == "caf\\udce9"
    assert record.recipients[0].reply == "550 5.1.1 caf\\udce9"


def test_a_closed_store_refuses_and_has_written_what_it_was_given(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted())
    messages = [accepted() for _ in range(30)]
    desk.answers.clear()
    for message in messages:
        desk.submit(message)
    desk.store.record(attempt(job))
    desk.store.close()
    desk.wait(30)
    assert all(error is None for error, _ in desk.answers.values())
    assert isinstance(desk.refused(accepted()), QueueClosed)
    with pytest.raises(QueueClosed):
        desk.store.claim(NOW, 1)
    again = desks()
    assert len(again.store.claim(NOW, 100)) == 30
    assert rows(tmp_path, f"SELECT status FROM recipients WHERE queue_id = '{job.queue_id}'") == [("delivered",)]


# --- jobs, leases, outcomes ---


def test_fresh_jobs_are_one_per_domain_leased_and_hold_the_bytes(desks):
    desk = desks()
    message = accepted("a@one.test", "b@two.test", "c@one.test", content=b"body\r\n")
    jobs = desk.store_all(message)
    assert [(job.domain, [r.mailbox for r in job.recipients]) for job in jobs] == [
        ("one.test", ["a@one.test", "c@one.test"]),
        ("two.test", ["b@two.test"]),
    ]
    for job in jobs:
        assert (job.trace, job.content) == (TRACE, b"body\r\n")
        assert desk.store.load(job) == (TRACE, b"body\r\n")
        assert job.signing_key == message.signing_key
        assert (job.reverse_path, job.body_8bit, job.smtputf8) == ("noreply@shop.test", True, False)
        assert (job.accepted_at, job.expires_at) == (message.accepted_at, message.expires_at)
    assert desk.store.claim(NOW + 1e6, 10) == []
    assert desk.store.next_due() is None


def test_a_deferred_recipient_is_claimed_when_due_and_only_once(desks):
    desk = desks()
    message = accepted("a@one.test", "b@two.test")
    one, two = desk.store_all(message)
    desk.store.record(attempt(one, Status.DEFERRED, next_at=NOW + 60))
    desk.store.record(attempt(two, Status.DELIVERED))
    assert desk.store.claim(NOW + 59, 10) == []
    assert desk.store.next_due() == NOW + 60
    (job,) = desk.store.claim(NOW + 60, 10)
    assert job == replace(one, recipients=(replace(one.recipients[0], attempts=1),), trace=None, content=None)
    assert desk.store.load(job) == (one.trace, one.content)
    assert desk.store.claim(NOW + 1e6, 10) == []
    assert desk.store.next_due() is None


def test_claims_take_the_oldest_first_and_no_more_than_asked(desks):
    desk = desks()
    jobs = desk.store_all(*(accepted(f"u{n}@dest.test") for n in range(6)))
    for n, job in enumerate(jobs):
        desk.store.record(attempt(job, Status.DEFERRED, next_at=NOW + 100 - n))
    first = desk.store.claim(NOW + 1000, 4)
    assert [job.queue_id for job in first] == [job.queue_id for job in reversed(jobs[2:])]
    assert [job.queue_id for job in desk.store.claim(NOW + 1000, 4)] == [jobs[1].queue_id, jobs[0].queue_id]
    assert desk.store.claim(NOW + 1000, 0) == []


def test_a_recipient_whose_message_is_gone_is_neither_claimed_nor_waited_for(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.release(job, NOW)
    desk.store.flush()
    assert desk.store.next_due() == NOW
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection:
        connection.execute("DELETE FROM messages")
        connection.commit()
    assert desk.store.claim(NOW, 10) == []
    assert desk.store.next_due() is None  # else the queue would look again at once, for ever


def test_a_claim_takes_only_those_of_a_message_that_are_due(desks):
    desk = desks()
    (job,) = desk.store_all(accepted("a@one.test", "b@one.test", "c@one.test"))
    for number, next_at in ((0, NOW + 10), (1, NOW + 500)):
        tried = attempt(job, Status.DEFERRED, next_at=next_at)
        desk.store.record(replace(tried, outcomes=tried.outcomes[number : number + 1]))
    (claimed,) = desk.store.claim(NOW + 10, 10)
    assert [recipient.mailbox for recipient in claimed.recipients] == ["a@one.test"]
    assert desk.store.next_due() == NOW + 500


def test_a_released_job_is_due_again_without_an_attempt(desks):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.release(job, NOW + 5)
    assert desk.store.next_due() == NOW + 5
    (again,) = desk.store.claim(NOW + 5, 10)
    assert again.recipients == job.recipients
    record = desk.store.message(job.queue_id)
    assert record is not None
    assert record.attempts == ()


def test_what_waits_for_a_site_says_so_until_it_is_tried(desks):
    desk = desks()
    job, other = desk.store_all(accepted(), accepted("b@else.test"))
    desk.store.release(job, NOW + 60, "mx.dest.test", "the site has a pause (421)")
    desk.store.release(other, NOW + 60)
    desk.store.flush()
    _, sums, (site, plain) = desk.store.verbs.depth(Scope(), NOW, {}, by_age=True, limit=10, offset=0)
    assert (site.name, site.reason, site.reply) == ("mx.dest.test", "rate", "the site has a pause (421)")
    assert (plain.name, plain.reason, plain.reply, sums["deferred"]) == ("else.test", "", "", 2)
    assert [each.queue_id for each in desk.store.verbs.waiting(Scope(site="mx.dest.test"), 10, 0)[1]] == [job.queue_id]
    (again, _) = desk.store.claim(NOW + 60, 10)
    desk.store.record(attempt(again, Status.DEFERRED, next_at=NOW + 120))
    desk.store.flush()
    record = desk.store.message(job.queue_id)
    assert record is not None and "pause" not in record.recipients[0].reply
    assert [event.kind for event in record.timeline()] == [
        "accepted",
        "attempt",
        "deferred",
    ]  # only the schedule had moved


def test_an_outcome_without_a_lease_is_kept_in_the_trail_only(desks):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.release(job, NOW)
    desk.store.flush()
    desk.store.record(attempt(job))
    desk.store.flush()
    record = desk.store.message(job.queue_id)
    assert record is not None
    assert record.recipients[0].status is Status.QUEUED
    assert len(record.attempts) == 1
    late = record.events[-1]
    assert (late.kind, late.recipient_id, late.code) == ("warning", job.recipients[0].id, 250)
    assert late.text == "delivered, too late to count: Ok"
    assert desk.store.live_segments() == {1: (1, job.location.length)}


def test_a_deferral_without_a_next_time_strands_nobody(desks):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.record(attempt(job, Status.DEFERRED, at=NOW + 3))
    assert desk.store.next_due() == NOW + 3


def test_held_recipients_are_not_due_and_keep_the_body(desks):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.record(attempt(job, Status.HELD))
    assert desk.store.next_due() is None
    assert desk.store.load(job)[0] == TRACE
    assert desk.store.live_segments() == {1: (1, job.location.length)}


def test_the_body_goes_when_the_last_recipient_is_final(desks, tmp_path):
    desk = desks()
    one, two = desk.store_all(accepted("a@one.test", "b@two.test"))
    desk.store.record(attempt(one))
    desk.store.flush()
    assert desk.store.live_segments() == {1: (1, one.location.length)}
    desk.store.record(attempt(two, Status.BOUNCED))
    desk.store.flush()
    assert desk.store.live_segments() == {}
    assert rows(tmp_path, 'SELECT segment, generation, "offset", length FROM messages') == [(None,) * 4]


def test_everything_about_a_message_can_be_read_back(desks):
    desk = desks()
    message = accepted("a@one.test", "b@one.test", content=b"12345678\r\n")
    (job,) = desk.store_all(message)
    tried = attempt(job, Status.DEFERRED, at=NOW + 1, next_at=NOW + 61)
    desk.store.record(tried)
    (job,) = desk.store.claim(NOW + 61, 10)
    outcomes = (
        Outcome(job.recipients[0].id, Status.DELIVERED, 250, "2.0.0", "Ok", "accepted"),
        Outcome(job.recipients[1].id, Status.BOUNCED, 550, "5.1.1", "no such mailbox", "bad-mailbox"),
    )
    desk.store.record(replace(attempt(job, at=NOW + 62), outcomes=outcomes))
    desk.store.flush()
    record = desk.store.message(message.queue_id)
    assert record is not None
    submission = message.submission
    assert (record.queue_id, record.instance_id, record.smtp_config_id) == (
        message.queue_id,
        message.instance_id,
        message.smtp_config_id,
    )
    assert (record.username, record.signing_key, record.session_id) == (
        submission.username,
        message.signing_key,
        submission.session_id,
    )
    assert (record.client_address, record.client_port, record.via) == ("10.0.0.1", 4711, "10.0.0.254")
    assert (record.endpoint, record.listener, record.helo) == ("public", "submission", "app.test")
    assert (record.tls, record.reverse_path) == (submission.tls, "noreply@shop.test")
    assert (record.header_from, record.message_id, record.subject) == (
        "noreply@shop.test",
        message.message_id,
        "hello",
    )
    assert (record.size, record.body_8bit, record.smtputf8, record.location) == (10, True, False, None)
    assert (record.received_at, record.accepted_at, record.expires_at) == (NOW, NOW, NOW + 86_400)
    assert [(r.mailbox, r.status, r.attempts, r.due_at, r.leased) for r in record.recipients] == [
        ("a@one.test", Status.DELIVERED, 2, None, False),
        ("b@one.test", Status.BOUNCED, 2, None, False),
    ]
    assert record.recipients[1].reply == "550 5.1.1 no such mailbox"
    assert record.recipients[1].reason == "bad-mailbox"
    assert record.recipients[1].updated_at == NOW + 62
    first, second = record.attempts
    assert (first.site, first.host, first.address, first.source, first.tls, first.route_reason) == (
        tried.site,
        tried.host,
        tried.address,
        tried.source,
        tried.tls,
        tried.route_reason,
    )
    assert first.steps == tried.steps
    assert second.outcomes == (("a@one.test", outcomes[0]), ("b@one.test", outcomes[1]))
    assert [(moment.kind, moment.recipient, moment.at) for moment in record.timeline()] == [
        ("accepted", "", NOW),
        ("attempt", "", NOW + 0.5),
        ("deferred", "a@one.test", NOW + 1),
        ("deferred", "b@one.test", NOW + 1),
        ("attempt", "", NOW + 61.5),
        ("delivered", "a@one.test", NOW + 62),
        ("bounced", "b@one.test", NOW + 62),
    ]
    assert desk.store.message("0NONESUCH") is None


def test_messages_are_found_by_what_the_api_asks_for(desks):
    desk = desks()
    messages = [
        accepted("anna@dest.test", "ben@dest.test", at=NOW),
        accepted("ben@dest.test", at=NOW + 10, message_id="<wanted@shop.test>"),
        accepted("anna@dest.test", at=NOW + 20),
        accepted("anna@dest.test", at=NOW + 30, instance="instance-2"),
    ]
    jobs = desk.store_all(*messages)
    desk.store.record(attempt(jobs[0], Status.BOUNCED))
    desk.store.flush()

    def found(instance: str | None = "instance-1", **wanted):
        total, page = desk.store.messages(instance, **wanted)
        return total, [messages.index(next(m for m in messages if m.queue_id == r.queue_id)) for r in page]

    assert found() == (3, [2, 1, 0])
    assert found(None) == (4, [3, 2, 1, 0])
    assert found("instance-2") == (1, [3])
    assert found(limit=1, offset=1) == (3, [1])
    assert found(queue_id=messages[2].queue_id) == (1, [2])
    assert found("instance-2", queue_id=messages[2].queue_id) == (0, [])
    assert found(message_id="<wanted@shop.test>") == (1, [1])
    assert found(recipient="ben@dest.test") == (2, [1, 0])
    assert found(status="bounced") == (1, [0])
    assert found(status=(Status.BOUNCED, Status.QUEUED)) == (3, [2, 1, 0])
    assert found(recipient="ben@dest.test", status=Status.QUEUED) == (1, [1])
    assert found(gte=NOW + 10) == (2, [2, 1])
    assert found(lte=NOW + 10) == (2, [1, 0])
    assert found(recipient="' OR 1=1 --") == (0, [])


# --- the spool behind it ---


def test_segments_are_recycled_under_steady_traffic(desks):
    desk = desks()
    content = random_content(100_000)
    names = set()
    for _ in range(8):
        jobs = desk.store_all(*(accepted(content=content) for _ in range(20)))
        names.update(desk.segments())
        for job in jobs:
            desk.store.record(attempt(job))
    desk.store.flush()
    assert len(names) <= 5  # 16 MB went through segments of 1 MiB


def test_a_damaged_record_is_never_loaded(desks, tmp_path):
    desk = desks()
    (job,) = desk.store_all(accepted(content=b"precious\r\n"))
    path = tmp_path / "spool-0" / f"seg-{job.location.segment:06d}"
    data = bytearray(path.read_bytes())
    data[data.index(b"precious")] ^= 1
    path.write_bytes(data)
    with pytest.raises(SpoolError):
        desk.store.load(job)


def test_a_row_of_another_message_never_gets_this_ones_body(desks):
    desk = desks()
    one, two = desk.store_all(accepted(), accepted())
    with pytest.raises(SpoolError):
        desk.store._spool.read(two.location, one.queue_id)


def test_the_living_are_copied_forward_and_the_segment_is_used_again(desks):
    desk = desks()
    content = [random_content(50_000, n) for n in range(60)]
    jobs = desk.store_all(*(accepted(content=body) for body in content))
    sealed = sorted({job.location.segment for job in jobs})[:-1]
    keep = [next(n for n, job in enumerate(jobs) if job.location.segment == segment) for segment in sealed]
    for n, job in enumerate(jobs):
        if n not in keep and job.location.segment in sealed:
            desk.store.record(attempt(job))
    desk.store.flush()
    assert set(desk.store.live_segments()) > set(sealed)
    while desk.store.compact():
        pass
    assert not set(desk.store.live_segments()) & set(sealed)
    for n in keep:
        # The job still names the old place; the store knows the new one.
        assert desk.store.load(jobs[n]) == (TRACE, content[n])
    more = desk.store_all(*(accepted(content=random_content(50_000, n)) for n in range(60)))
    assert {job.location.segment for job in more} & set(sealed)
    for n in keep:
        assert desk.store.load(jobs[n]) == (TRACE, content[n])
    desk.store.close()
    again = desks()
    claimed = {job.queue_id: job for job in again.store.claim(NOW, 1000)}
    for n in keep:
        assert again.store.load(claimed[jobs[n].queue_id]) == (TRACE, content[n])


def test_a_damaged_record_is_not_copied_and_stops_no_other(desks, tmp_path):
    desk = desks()
    jobs = desk.store_all(*(accepted(content=random_content(50_000, n)) for n in range(60)))
    first, second = ([job for job in jobs if job.location.segment == number] for number in (1, 2))
    keep = [first[0], *second[:3]]  # the emptiest segment holds nothing but the damaged record
    for job in first + second:
        if job not in keep:
            desk.store.record(attempt(job))
    desk.store.flush()
    path = tmp_path / "spool-0" / "seg-000001"
    with path.open("r+b") as file:
        file.seek(first[0].location.offset + 200)
        file.write(b"\xff\x00\xff\x00")
    assert [desk.store.compact() for _ in range(3)] == [0, 3, 0]
    for job in keep[1:]:
        assert desk.store.load(job) == (TRACE, random_content(50_000, jobs.index(job)))
    with pytest.raises(SpoolError):
        desk.store.load(first[0])
    assert desk.store.live_segments()[1][0] == 1
    assert 2 not in desk.store.live_segments()


# --- opening again ---


def test_leases_of_a_process_that_is_gone_are_due_at_once(desks, tmp_path):
    desk = desks()
    one, two = desk.store_all(accepted("a@one.test", "b@two.test"))
    desk.store.record(attempt(two, Status.DEFERRED, next_at=NOW + 600))
    desk.store.close()
    with closing(sqlite3.connect(tmp_path / "queue-0.db")) as connection, connection:
        connection.execute("UPDATE recipients SET status = 'attempting'")
    again = desks(clock=FrozenClock(NOW + 5))
    assert [job.domain for job in again.store.claim(NOW + 5, 10)] == ["one.test", "two.test"]
    record = again.store.message(one.queue_id)
    assert record is not None
    assert [r.status for r in record.recipients] == [Status.QUEUED, Status.DEFERRED]


def test_what_is_scheduled_stays_scheduled_over_a_restart(desks):
    desk = desks()
    (job,) = desk.store_all(accepted())
    desk.store.record(attempt(job, Status.DEFERRED, next_at=NOW + 600))
    desk.store.close()
    again = desks()
    assert again.store.claim(NOW, 10) == []
    assert again.store.next_due() == NOW + 600


def test_recipients_numbers_go_on_after_a_restart(desks):
    desk = desks()
    (one,) = desk.store_all(accepted())
    desk.store.close()
    (two,) = desks().store_all(accepted())
    assert two.recipients[0].id > one.recipients[0].id


def test_two_processes_cannot_have_the_same_queue(desks, tmp_path):
    desk = desks()
    with pytest.raises(QueueLocked, match="another process"):
        desks()
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from support.queue_mail import Desk\n"
        "Desk(Path(sys.argv[1]))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[2])], capture_output=True, text=True
    )
    assert "QueueLocked" in child.stderr
    other = desks(shard="1")
    assert other.store_all(accepted())
    desk.store.close()
    desks()


def test_a_shard_name_cannot_leave_the_directory(tmp_path):
    with pytest.raises(ValueError, match="shard"):
        Desk(tmp_path, shard="../x")


# --- crashes ---


def check_after_crash(desk: Desk, bodies: dict[str, bytes], acknowledged: set[str]) -> None:
    """Every acknowledged message is there whole; whatever else is there is whole as well."""
    claimed: dict[str, Job] = {job.queue_id: job for job in desk.store.claim(NOW + 1e9, 10_000)}
    assert acknowledged <= set(claimed)
    assert set(claimed) <= set(bodies)
    for queue_id, job in claimed.items():
        assert desk.store.load(job) == (TRACE, bodies[queue_id])


def test_a_crash_at_any_moment_loses_nothing_acknowledged(desks, tmp_path):
    """Stop in each sync of a run, take the files as they are, and open them."""
    moments: list[tuple[Path, set[str]]] = []
    live = tmp_path / "live"
    acknowledged: set[str] = set()

    def sync(descriptor):
        before = copy_of(live, tmp_path / f"before-{len(moments)}")
        moments.append((before, set(acknowledged)))
        os.fdatasync(descriptor)
        after = copy_of(live, tmp_path / f"after-{len(moments)}")
        moments.append((after, set(acknowledged)))

    desk = desks(live, sync=sync)
    bodies: dict[str, bytes] = {}
    for number in range(6):
        messages = [accepted(content=random_content(70_000, number * 10 + n)) for n in range(4)]
        bodies.update({m.queue_id: m.submission.content for m in messages})
        desk.store_all(*messages)
        acknowledged.update(m.queue_id for m in messages)
    moments.append((copy_of(live, tmp_path / "end"), set(acknowledged)))
    desk.store.close()
    assert len(moments) > 12
    for directory, known in moments:
        opened = Desk(directory)
        check_after_crash(opened, bodies, known)
        # And life goes on.
        (job,) = opened.store_all(accepted(content=b"next\r\n"))
        assert opened.store.load(job) == (TRACE, b"next\r\n")
        opened.store.close()


@pytest.mark.parametrize("tail", ["garbage", "zeros", "cut"])
def test_what_a_crash_leaves_behind_the_last_record_does_no_harm(desks, tmp_path, tail):
    live = tmp_path / "live"
    desk = desks(live)
    messages = [accepted(content=random_content(5_000, n)) for n in range(5)]
    jobs = desk.store_all(*messages)
    end = jobs[-1].location.offset + jobs[-1].location.length
    crashed = copy_of(live, tmp_path / "crashed")
    with (crashed / "spool-0" / "seg-000001").open("r+b") as file:
        file.seek(end)
        if tail == "cut":
            file.truncate()
        else:
            file.write((os.urandom if tail == "garbage" else bytes)(SEGMENT - end))
    opened = desks(crashed)
    check_after_crash(opened, {m.queue_id: m.submission.content for m in messages}, {m.queue_id for m in messages})


def test_an_acknowledged_record_that_the_disk_lost_is_an_incident_not_a_mail(desks, tmp_path):
    live = tmp_path / "live"
    desk = desks(live)
    (job,) = desk.store_all(accepted(content=random_content(5_000)))
    crashed = copy_of(live, tmp_path / "crashed")
    with (crashed / "spool-0" / "seg-000001").open("r+b") as file:
        file.truncate(job.location.offset + job.location.length - 1)
    opened = desks(crashed)
    (claimed,) = opened.store.claim(NOW, 10)
    with pytest.raises(SpoolError):
        opened.store.load(claimed)


CHILD = """
import hashlib, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.queue_mail import Desk, accepted, attempt, random_content
desk = Desk(Path(sys.argv[1]))
seed = int(sys.argv[3])
for job in desk.store.claim(4e9, 1000):
    desk.store.release(job, 0.0)
waiting = []
for number in range(100_000):
    desk.answers.clear()
    messages = [accepted(content=random_content(3000 + 100 * n, seed + number * 10 + n)) for n in range(5)]
    for message in messages:
        desk.submit(message)
    desk.wait(5)
    for message in messages:
        error, (job,) = desk.answers[message.queue_id]
        assert error is None
        digest = hashlib.sha256(message.submission.content).hexdigest()
        print(message.queue_id, digest, flush=True)
        waiting.append(job)
    while len(waiting) > 20:  # the others end, so that segments are recycled all the time
        job = waiting.pop(0)
        print("done", job.queue_id, flush=True)
        desk.store.record(attempt(job))
"""


def test_killed_at_random_moments_every_acknowledged_message_is_there(desks, tmp_path):
    """SIGKILL a process that submits, again and again; its own words on the pipe say what was promised."""
    promised: dict[str, str] = {}
    ended: set[str] = set()
    dice = random.Random(20261121)
    for round_number in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parents[2]), str(round_number * 10**7)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        lines = dice.randrange(20, 600)
        for _ in range(lines):
            line = child.stdout.readline()
            assert line, "the child ended by itself"
            note(line, promised, ended)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):
            if line.endswith(b"\n"):
                note(line, promised, ended)
        child.wait()
        child.stdout.close()
    desk = desks()
    claimed = {job.queue_id: job for job in desk.store.claim(4e9, 100_000)}
    assert len(promised) > 100
    for queue_id, digest in promised.items():
        if queue_id in claimed:
            trace, content = desk.store.load(claimed[queue_id])
            assert (trace, hashlib.sha256(content).hexdigest()) == (TRACE, digest)
        else:
            assert queue_id in ended
            record = desk.store.message(queue_id)
            assert record is not None
            assert record.recipients[0].status is Status.DELIVERED


def note(line: bytes, promised: dict[str, str], ended: set[str]) -> None:
    first, second = line.decode().split()
    if first == "done":
        ended.add(second)
    else:
        promised[first] = second


def test_what_a_client_asks_of_delivery_is_in_the_rows(desks, tmp_path):
    desk = desks()
    plain, asking = accepted("anna@dest.test"), accepted("anna@dest.test", "ben@dest.test")
    anna, ben = asking.submission.recipients
    wishes = replace(
        asking.submission,
        ret="HDRS",
        envid="QQ+20314",
        requiretls=True,
        recipients=(replace(anna, notify="SUCCESS,DELAY", orcpt="rfc822;a@x.test"), replace(ben, notify="NEVER")),
    )
    for message in (plain, replace(asking, submission=wishes, tls_optional=True)):
        desk.submit(message)
    desk.wait(2)
    assert rows(tmp_path, "SELECT ret, envid, requiretls, tls_optional FROM messages ORDER BY rowid") == [
        ("", "", 0, 0),
        ("HDRS", "QQ+20314", 1, 1),
    ]
    assert rows(tmp_path, "SELECT notify, orcpt FROM recipients ORDER BY id") == [
        ("", ""),
        ("SUCCESS,DELAY", "rfc822;a@x.test"),
        ("NEVER", ""),
    ]


def test_who_sent_from_where_is_told_oldest_first_and_only_the_latest(desks):
    desk = desks()

    def sent(user: str, address: str, at: float) -> None:
        mail = accepted(at=at)
        client = replace(mail.submission.client, address=address)
        desk.submit(replace(mail, submission=replace(mail.submission, client=client, username=user)))

    sent("early", "192.0.2.1", NOW - 100)
    sent("a", "192.0.2.1", NOW)
    sent("b", "192.0.2.1", NOW + 1)
    sent("a", "2001:db8::1", NOW + 2)
    sent("a", "192.0.2.1", NOW + 3)
    desk.wait(5)
    assert desk.store.sent_from(NOW - 50) == [
        ("b", "192.0.2.1", NOW + 1),
        ("a", "2001:db8::1", NOW + 2),
        ("a", "192.0.2.1", NOW + 3),
    ]
    assert desk.store.sent_from(0.0, 2) == [("a", "2001:db8::1", NOW + 2), ("a", "192.0.2.1", NOW + 3)]
