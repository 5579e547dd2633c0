"""Who is told what, and that a report and what it reports are kept together."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.message.fields import unstuffed
from outgate.model.flow import Accepted, Attempt, Job, Outcome, Recipient, Report, Status
from outgate.model.operations import Order, Scope, Verb
from outgate.relay.holds import Holds
from outgate.relay.queue import Queue, Retry
from outgate.relay.reports import Reports, Writer, news
from outgate.store.sqlite import QueueStore, open_queue
from support.dsn import Dsn, read_dsn
from support.queue_mail import NOW, SEGMENT, accepted, attempt

DAY = 86_400.0
DELAY = 14_400.0


def asked(*wishes: str, orcpt: str = "", **submission: Any) -> Accepted:
    """Make a message whose recipients, a@dest.test and on, were given with these NOTIFY parameters."""
    made = accepted()
    recipients = tuple(
        Recipient(f"{chr(97 + number)}@dest.test", "dest.test", notify, orcpt) for number, notify in enumerate(wishes)
    )
    return replace(made, submission=replace(made.submission, recipients=recipients, **submission))


class Desk:
    """A queue with its reports and holds; delivery only takes jobs down."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.clock = FrozenClock(NOW)
        self.held: dict[str, str] = {}
        self.store: QueueStore = open_queue(
            directory,
            shard="0",
            clock=self.clock,
            segment_bytes=SEGMENT,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
            **options,
        )
        self.jobs: list[Job] = []
        self.arrived = asyncio.Event()
        self.writer = Writer(self.clock, "0", self.store.load, lambda _: "smtp.test", DAY, DELAY)
        self.reports = Reports(self.writer)
        self.queue = Queue(
            self.store,
            self.clock,
            self.take,
            lambda: 1000,
            retry=Retry(60.0, 7200.0),
            ready_bytes=1 << 20,
            held=lambda smtp_config_id: self.held.get(smtp_config_id, ""),
            reports=self.reports,
            jitter=lambda: 0.5,
        )

    def take(self, job: Job) -> None:
        self.jobs.append(job)
        self.arrived.set()

    async def job(self) -> Job:
        """Return the next job that delivery gets."""
        while not self.jobs:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 30)
        return self.jobs.pop(0)

    async def accept(self, message: Accepted) -> Job:
        stored = asyncio.get_running_loop().create_future()
        self.queue.accept(message, stored.set_result)
        assert await stored is None
        return await self.job()

    async def settle(self) -> None:
        """Wait until what was recorded is durable and its reports are handed on."""
        await self.reports.finish()
        await asyncio.to_thread(self.store.flush)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.queue.stop()
        await asyncio.to_thread(self.store.close)

    def dsn(self, job: Job) -> Dsn:
        assert job.content is not None
        return read_dsn(unstuffed((job.trace or b"") + job.content))


@pytest.fixture
async def desks(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened: list[Desk] = []

    def open_desk(**options: Any) -> Desk:
        opened.append(Desk(tmp_path, **options))
        return opened[-1]

    yield open_desk
    for each in opened:
        await each.stop()


def mixed(job: Job, *statuses: Status, at: float = NOW + 1, handed_on: bool = False) -> Attempt:
    """Make an attempt that went differently for each recipient."""
    made = {status: attempt(job, status, at=at).outcomes for status in statuses}
    outcomes = tuple(
        replace(made[status][number], handed_on=handed_on and status is Status.DELIVERED)
        for number, status in enumerate(statuses)
    )
    return replace(attempt(job, at=at), outcomes=outcomes)


# -- who is told ---------------------------------------------------------------------------------------------

B, E, D, L, C = Status.BOUNCED, Status.EXPIRED, Status.DELIVERED, Status.DEFERRED, Status.CANCELLED


@pytest.mark.parametrize(
    ("notify", "status", "handed_on", "late", "action"),
    [
        ("", B, False, False, "failed"), ("", E, False, True, "failed"), ("", D, False, False, ""), ("", L, False, True, ""),
        ("NEVER", B, False, False, ""), ("NEVER", E, False, True, ""), ("NEVER", D, False, False, ""), ("NEVER", L, False, True, ""),
        ("FAILURE", B, False, False, "failed"), ("FAILURE", L, False, True, ""), ("FAILURE", D, False, False, ""),
        ("DELAY", L, False, True, "delayed"), ("DELAY", L, False, False, ""), ("DELAY", B, False, True, ""),
        ("SUCCESS", D, False, False, "relayed"), ("SUCCESS", D, True, False, ""), ("SUCCESS", B, False, False, ""),
        ("SUCCESS,FAILURE,DELAY", B, False, False, "failed"), ("SUCCESS,FAILURE,DELAY", L, False, True, "delayed"),
        ("", C, False, True, ""), ("FAILURE", Status.SUPPRESSED, False, True, ""), ("", Status.HELD, False, True, ""),
    ],
)  # fmt: skip
def test_who_is_told_what(notify: str, status: Status, handed_on: bool, late: bool, action: str) -> None:
    from outgate.model.flow import JobRecipient, Location, SigningKey

    job = Job(
        "0Q", "i", "c", SigningKey("k", "shop.test", "s"), "a@shop.test", "dest.test",
        (JobRecipient(1, "b@dest.test", "dest.test", 0, notify),), Location(0, 0, 0, 0), NOW, NOW + DAY, False, False,
    )  # fmt: skip
    at = NOW + (DELAY if late else DELAY - 1)
    tried = replace(attempt(job, at=at), outcomes=(Outcome(1, status, 0, "", "", "", handed_on=handed_on),))
    assert [found[2] for found in news(job, tried, DELAY)] == ([action] if action else [])
    assert news(replace(job, reverse_path=""), tried, DELAY) == []


async def test_one_report_for_all_that_failed(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked("", "NEVER", "", "SUCCESS", "", orcpt="rfc822;x+2By@old.test", envid="id+2B1"))
    desk.queue.record(job, mixed(job, B, B, B, D, L))
    report = await desk.job()
    assert (report.reverse_path, report.origin, report.domain) == ("", "dsn", "shop.test")
    assert [(r.mailbox, r.notify) for r in report.recipients] == [("noreply@shop.test", "NEVER")]
    assert report.signing_key == job.signing_key and report.smtp_config_id == job.smtp_config_id
    dsn = desk.dsn(report)
    assert dsn.fields["original-envelope-id"] == "id+1"
    assert [(r["final-recipient"], r["action"], r["status"]) for r in dsn.recipients] == [
        ("rfc822; a@dest.test", "failed", "5.1.1"),
        ("rfc822; c@dest.test", "failed", "5.1.1"),
        ("rfc822; d@dest.test", "relayed", "2.0.0"),
    ]
    assert dsn.recipients[0]["original-recipient"] == "rfc822; x+y@old.test"
    await desk.settle()
    original, made = desk.store.message(job.queue_id), desk.store.message(report.queue_id)
    assert original is not None and made is not None
    assert [r.status for r in original.recipients] == [B, B, B, D, L]
    assert original.reports == (report.queue_id,)
    assert (made.origin, made.parent, made.username) == ("dsn", job.queue_id, "")
    assert ("report", f"sent as {report.queue_id} to noreply@shop.test") in [
        (e.kind, e.detail) for e in original.timeline()
    ]
    assert made.timeline()[0].detail == f"report about {job.queue_id}"


async def test_a_report_that_comes_back_and_the_null_sender_make_none(desks, caplog) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.record(job, attempt(job, B))
    report = await desk.job()
    desk.queue.record(report, attempt(report, B))
    null = await desk.accept(asked("", reverse_path=""))
    desk.queue.record(null, attempt(null, B))
    await desk.settle()
    assert desk.store.messages()[0] == 3 and desk.jobs == []
    assert "report.undeliverable" in caplog.text


@pytest.mark.parametrize(
    ("ret", "requiretls", "status", "kind"),
    [
        ("FULL", False, B, "message/rfc822"), ("HDRS", False, B, "text/rfc822-headers"), ("", False, B, "text/rfc822-headers"),
        ("FULL", True, B, "text/rfc822-headers"), ("FULL", False, D, "text/rfc822-headers"),
    ],
)  # fmt: skip
async def test_what_comes_back(desks, ret: str, requiretls: bool, status: Status, kind: str) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    message = asked("SUCCESS,FAILURE", ret=ret, requiretls=requiretls)
    job = await desk.accept(message)
    desk.queue.record(replace(job, trace=None, content=None), attempt(job, status))  # read from the spool
    report = await desk.job()
    dsn = desk.dsn(report)
    assert dsn.returned_type == kind and report.requiretls is requiretls
    assert dsn.returned == message.trace + (
        message.submission.content if kind == "message/rfc822" else b"Subject: hello\r\n"
    )


async def test_a_damaged_original_is_reported_on_all_the_same(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    elsewhere = replace(job, trace=None, content=None, queue_id="0NOBODYS")
    desk.queue.record(elsewhere, attempt(job, B))
    assert desk.dsn(await desk.job()).returned_type == ""


async def test_a_delay_is_told_once(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked("DELAY,FAILURE", ""))
    for pause in (0, DELAY, DELAY):
        desk.clock.advance(pause)
        desk.queue.record(job, attempt(job, L, at=desk.clock.now()))
        await desk.settle()
        for each in [await desk.job()] if pause and not job.recipients[0].warned else []:
            dsn = desk.dsn(each)
            assert [(r["action"], r["final-recipient"]) for r in dsn.recipients] == [("delayed", "rfc822; a@dest.test")]
            assert dsn.returned_type == "text/rfc822-headers"
        assert desk.jobs == []
        desk.clock.advance(7300)
        await desk.queue.poke()
        job = await desk.job()
    assert [r.warned for r in job.recipients] == [True, False]
    assert desk.store.messages()[0] == 2


async def test_expiry_is_reported(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.clock.advance(DAY - 10)
    desk.queue.record(job, attempt(job, L, at=desk.clock.now()))
    dsn = desk.dsn(await desk.job())
    assert (dsn.recipients[0]["action"], dsn.recipients[0]["status"]) == ("failed", "4.4.7")
    assert dsn.recipients[0]["diagnostic-code"] == "smtp; 451 4.7.1 later"
    assert "tried for as long as mail is kept" in dsn.text.replace("\r\n    ", " ")


# -- nothing is lost, nothing is doubled ---------------------------------------------------------------------


async def test_a_full_disk_keeps_outcome_and_report_and_tries_again(desks) -> None:  # type: ignore[no-untyped-def]
    full: list[bool] = []

    def write(descriptor: int, buffers: Any, offset: int) -> int:
        if full:
            full.append(True)
            raise OSError(errno.ENOSPC, "no space left")
        return os.pwritev(descriptor, buffers, offset)

    desk = desks(write=write)
    job, other = await desk.accept(asked("")), await desk.accept(asked(""))
    full.append(True)
    desk.queue.record(job, attempt(job, B))
    desk.queue.record(other, attempt(other, D))
    await desk.reports.finish()
    while len(full) < 4:  # it is tried again by itself
        await asyncio.sleep(0.01)
    left, done = desk.store.message(job.queue_id), desk.store.message(other.queue_id)
    assert left is not None and left.recipients[0].status is Status.QUEUED and left.recipients[0].leased
    assert done is not None and done.recipients[0].status is D  # what needs no space is not held back
    full.clear()
    report = await desk.job()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is B and len(found.attempts) == 1
    assert found.reports == (report.queue_id,)


async def test_a_failing_database_keeps_both(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    rows = desk.store._rows
    plain, failures = rows.settle, [sqlite3.OperationalError("disk I/O error")] * 3

    def settle(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return plain(*given)

    rows.settle = settle
    desk.queue.record(job, attempt(job, B))
    report = await desk.job()
    found = desk.store.message(job.queue_id)
    assert found is not None and len(found.attempts) == 1 and found.recipients[0].status is B
    assert len(found.reports) == 1 and desk.dsn(report).recipients[0]["action"] == "failed"
    assert sum(records for records, _ in desk.store.live_segments().values()) == 1


async def test_after_a_crash_there_are_both_or_neither(desks, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    bounced, lost = await desk.accept(asked("")), await desk.accept(asked(""))
    desk.queue.record(bounced, attempt(bounced, B))
    report = await desk.job()
    # What a crash leaves: the files as they are now, while the second outcome waits for its report.
    copy = tmp_path / "copy"
    copy.mkdir()
    await asyncio.to_thread(desk.store.flush)
    for file in tmp_path.glob("queue-0.db*"):
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "spool-0").mkdir()
    for file in (tmp_path / "spool-0").iterdir():
        (copy / "spool-0" / file.name).write_bytes(file.read_bytes())
    again = Desk(copy)
    try:
        again.queue.start()
        jobs = [await again.job(), await again.job()]
        assert {job.queue_id for job in jobs} == {report.queue_id, lost.queue_id}
        assert {job.origin for job in jobs} == {"dsn", ""}
        assert again.store.load(next(job for job in jobs if job.origin))[1] == report.content
        assert again.store.messages()[0] == 3
    finally:
        await again.stop()


async def test_an_outcome_is_kept_though_its_report_is_refused(desks, caplog) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job, other = await desk.accept(asked("")), await desk.accept(asked(""))
    report = desk.writer.write(job, attempt(job, B))
    assert report is not None
    taken = replace(report.message, queue_id=job.queue_id)  # rows that cannot be
    desk.store.record(attempt(job, B), replace(report, message=taken), desk.queue.stored)
    desk.queue.record(other, attempt(other, B))
    await desk.settle()
    found, beside = desk.store.message(job.queue_id), desk.store.message(other.queue_id)
    assert found is not None and found.recipients[0].status is B and found.reports == ()
    assert beside is not None and beside.recipients[0].status is B and len(beside.reports) == 1
    assert "queue.report_refused" in caplog.text
    assert sum(records for records, _ in desk.store.live_segments().values()) == 1


async def test_nobody_is_told_of_an_outcome_that_comes_too_late(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.release(job, NOW + 3600)  # given back, and due again
    await asyncio.to_thread(desk.store.flush)
    desk.queue.record(job, attempt(job, B))
    await desk.settle()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is Status.QUEUED and found.reports == ()
    assert [event.kind for event in found.events] == ["accepted", "warning"]
    assert sum(records for records, _ in desk.store.live_segments().values()) == 1
    assert desk.store.messages()[0] == 1 and not desk.jobs


async def test_who_cancels_what_is_late_is_not_told_that_it_goes_on(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked("DELAY"))
    order = Order(Verb.CANCEL, Scope(queue_ids=(job.queue_id,)), "iam-ann", NOW)
    await asyncio.to_thread(desk.store.verbs.obey, order, [job.recipients[0].id])
    desk.queue.record(job, attempt(job, Status.DEFERRED, at=NOW + DELAY))
    await desk.settle()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is Status.CANCELLED and found.reports == ()
    assert desk.store.live_segments() == {} and not desk.jobs


async def test_a_cancellation_does_not_undo_what_has_failed_and_is_told(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.record(job, attempt(job, B))  # while its report is written, it is under way
    order = Order(Verb.CANCEL, Scope(queue_ids=(job.queue_id,)), "iam-ann", NOW)
    done = (await asyncio.to_thread(desk.store.verbs.obey, order, [job.recipients[0].id])).done
    await desk.settle()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is B and len(found.reports) == 1
    assert done.under_way + done.final == 1


async def test_stopping_writes_what_is_being_written(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.record(job, attempt(job, B))
    await desk.queue.stop()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is B and len(found.reports) == 1


async def test_an_outcome_is_kept_though_its_report_cannot_be_written(desks, caplog) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.record(replace(job, reverse_path="not an address"), attempt(job, B))
    await desk.settle()
    found = desk.store.message(job.queue_id)
    assert found is not None and found.recipients[0].status is B and found.reports == ()
    assert "report.not_written" in caplog.text


# -- held ----------------------------------------------------------------------------------------------------


async def test_what_was_held_too_long_is_reported_though_its_domain_is_held(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()

    async def released(_smtp_config_id: str) -> None:
        desk.queue.look()

    holds = Holds(
        desk.store,
        lambda asked: {each: desk.held[each] for each in asked if each in desk.held},
        desk.clock,
        released=released,
        longest_s=14 * DAY,
        report=desk.writer.write,
        reported=desk.queue.stored,
    )
    jobs = [await desk.accept(asked("", "NEVER", ret="FULL")), await desk.accept(asked("NEVER"))]
    for job in jobs:
        desk.queue.record(job, attempt(job, L))
    await desk.settle()
    desk.held["configuration-1"] = "suspended"
    await holds.start()
    desk.clock.advance(14 * DAY)
    await holds.look()
    report = await desk.job()
    assert desk.queue.may_go(report)
    dsn = desk.dsn(report)
    assert [(r["final-recipient"], r["status"]) for r in dsn.recipients] == [("rfc822; a@dest.test", "4.4.7")]
    assert "What happened: the domain was not allowed to send, for" in dsn.text.replace("\r\n    ", " ")
    assert "we have tried" not in dsn.text and dsn.returned_type == "message/rfc822"
    for job in jobs:
        found = desk.store.message(job.queue_id)
        assert found is not None and {r.status for r in found.recipients} == {E} and found.location is None
    assert desk.store.messages()[0] == 3
    # Should the report wait, the hold of its domain leaves it alone.
    desk.queue.record(report, attempt(report, L))
    await desk.settle()
    assert (
        await asyncio.to_thread(desk.store.hold_waiting, "configuration-1", "suspended", "held", desk.clock.now()) == 0
    )
    await holds.stop()


async def test_what_is_released_meanwhile_neither_ends_nor_is_reported(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    job = await desk.accept(asked(""))
    desk.queue.record(job, attempt(job, L))
    await desk.settle()
    await asyncio.to_thread(desk.store.hold_waiting, "configuration-1", "suspended", "held", NOW)
    (found,) = [job for jobs in desk.store.held_too_long(["suspended"], NOW + 1) for job in jobs]
    report = desk.writer.write(found, attempt(found, E))
    assert isinstance(report, Report)
    await asyncio.to_thread(desk.store.release_held, "configuration-1", ["suspended"], "released", NOW + 2)
    ended = desk.store.expire_held([(found, report)], ["suspended"], NOW + 1, "too long", NOW + 3)
    assert ended == 0 and desk.store.messages()[0] == 1


# -- the schedule --------------------------------------------------------------------------------------------


async def test_a_day_of_attempts(desks) -> None:  # type: ignore[no-untyped-def]
    desk = desks()
    first = job = await desk.accept(asked(""))
    times: list[float] = []
    while not job.origin:
        times.append(desk.clock.now() - NOW)
        settled = desk.queue.record(job, attempt(job, L, at=desk.clock.now()))
        await desk.settle()
        if settled.next_attempt_at is not None:
            desk.clock.advance(settled.next_attempt_at - desk.clock.now())
            await desk.queue.poke()
        job = await desk.job()
    # Soon again, for greylisting; then rarer and rarer; and at the end of the day the sender hears of it.
    assert times[:6] == pytest.approx([0, 60, 180, 420, 900, 1860])
    assert 15 <= len(times) <= 25 and DAY - 7200 <= times[-1] <= DAY
    found = desk.store.message(first.queue_id)
    assert found is not None and found.recipients[0].status is E and found.recipients[0].attempts == len(times)
