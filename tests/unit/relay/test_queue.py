"""The queue on the event loop: when mail is handed on, when it is tried again, and when it is given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.clock import FrozenClock
from outgate.model.flow import Job, Status
from outgate.relay import queue as queue_module
from outgate.relay.queue import Queue, Retry, next_attempt, settle
from outgate.store.sqlite import QueueStore, open_queue
from support.queue_mail import NOW, SEGMENT, TRACE, accepted, attempt, random_content


class Office:
    """A queue with its store, and a delivery that only takes jobs down."""

    def __init__(self, directory, *, clock=None, room=1000, ready_bytes=1 << 20, page=100, per_domain=500) -> None:
        self.clock = clock or FrozenClock(NOW)
        self.store: QueueStore = open_queue(
            directory,
            shard="0",
            clock=self.clock,
            segment_bytes=SEGMENT,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.jobs: list[Job] = []
        self.arrived = asyncio.Event()
        self.room = room
        self.queue = Queue(
            self.store,
            self.clock,
            self.take,
            lambda: self.room,
            retry=Retry(first=60.0, most=7200.0),
            ready_bytes=ready_bytes,
            page=page,
            per_domain=per_domain,
            jitter=lambda: 0.5,
        )

    def take(self, job: Job) -> None:
        self.jobs.append(job)
        self.room -= 1
        self.arrived.set()

    async def wait_for(self, count: int) -> None:
        while len(self.jobs) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 30)

    async def accept(self, *messages) -> list[Exception | None]:
        """Hand messages over and return the verdicts once all are there."""
        verdicts = [asyncio.get_running_loop().create_future() for _ in messages]
        for message, verdict in zip(messages, verdicts, strict=True):
            self.queue.accept(message, verdict.set_result)
        return [await verdict for verdict in verdicts]

    def status(self, queue_id: str) -> list[Status]:
        record = self.store.message(queue_id)
        assert record is not None
        return [recipient.status for recipient in record.recipients]


@pytest.fixture
async def offices(tmp_path):
    """Open queues on one directory; what is still open in the end is stopped."""
    opened: list[Office] = []

    async def open_office(**options) -> Office:
        office = Office(tmp_path, **options)
        opened.append(office)
        return office

    yield open_office
    for office in opened:
        await close(office)


async def close(office: Office) -> None:
    if not office.store._closed:
        await office.queue.stop()
        await asyncio.to_thread(office.store.close)


# --- arithmetic ---


def test_the_pause_doubles_up_to_the_longest():
    pauses = [next_attempt(n, NOW, 60, 7200, 0.5) - NOW for n in range(1, 12)]
    assert pauses == pytest.approx([60, 120, 240, 480, 960, 1920, 3840, 7200, 7200, 7200, 7200])


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_jitter_is_ten_per_cent_at_most(attempts, jitter):
    plain = next_attempt(attempts, 0.0, 60, 7200, 0.5)
    assert plain * 0.9 - 1e-6 <= next_attempt(attempts, 0.0, 60, 7200, jitter) <= plain * 1.1 + 1e-6


def job(**changes) -> Job:
    from outgate.model.flow import JobRecipient, Location, SigningKey

    made = Job(
        "0QUEUEID",
        "instance-1",
        "configuration-1",
        SigningKey("key-1", "shop.test", "selector-1"),
        "noreply@shop.test",
        "dest.test",
        (JobRecipient(1, "anna@dest.test", "dest.test", 0), JobRecipient(2, "ben@dest.test", "dest.test", 0)),
        Location(1, 1, 0, 10),
        NOW,
        NOW + 86_400,
        False,
        False,
    )
    return replace(made, **changes)


def test_a_deferral_that_would_come_after_the_expiry_expires():
    tried = attempt(job(), Status.DEFERRED)
    assert settle(tried, NOW + 100, NOW + 100).next_attempt_at == NOW + 100
    late = settle(tried, NOW + 101, NOW + 100)
    assert late.next_attempt_at is None
    assert [outcome.status for outcome in late.outcomes] == [Status.EXPIRED, Status.EXPIRED]
    assert late.outcomes[0].text == tried.outcomes[0].text


def test_final_outcomes_have_no_next_attempt_and_do_not_expire():
    tried = attempt(job(), Status.BOUNCED)
    mixed = replace(tried, outcomes=(tried.outcomes[0], replace(tried.outcomes[1], status=Status.DEFERRED)))
    assert settle(tried, NOW + 60, NOW + 100).next_attempt_at is None
    assert settle(tried, NOW + 160, NOW + 100).outcomes == tried.outcomes
    assert settle(mixed, NOW + 60, NOW + 100).next_attempt_at == NOW + 60
    assert [o.status for o in settle(mixed, NOW + 160, NOW + 100).outcomes] == [Status.BOUNCED, Status.EXPIRED]


# --- fresh mail ---


async def test_mail_is_handed_on_once_it_is_stored(offices):
    office = await offices()
    order: list[str] = []
    message = accepted("a@one.test", "b@two.test", content=b"body\r\n")
    verdict = asyncio.get_running_loop().create_future()

    def done(error):
        order.append(f"done with {len(office.jobs)} handed on")
        verdict.set_result(error)

    office.queue.accept(message, done)
    assert office.jobs == []
    assert await verdict is None
    await office.wait_for(2)
    assert order == ["done with 0 handed on"]
    assert [job.domain for job in office.jobs] == ["one.test", "two.test"]
    for made in office.jobs:
        assert await office.queue.body(made) == (TRACE, b"body\r\n")


async def test_a_refused_message_is_not_handed_on(offices):
    office = await offices()
    message = accepted()
    assert await office.accept(message) == [None]
    (error,) = await office.accept(message)
    assert error is not None
    assert len(office.jobs) == 1


async def test_a_session_that_fails_on_its_answer_does_not_keep_the_mail_back(offices):
    office = await offices()

    def done(error):
        raise ConnectionResetError("the client has gone")

    office.queue.accept(accepted(), done)
    await office.wait_for(1)


async def test_bodies_in_memory_are_capped_and_the_rest_is_read_from_the_spool(offices):
    office = await offices(ready_bytes=25_000)
    messages = [accepted(content=random_content(10_000, n)) for n in range(5)]
    await office.accept(*messages)
    at_hand = [made.content is not None for made in office.jobs]
    assert at_hand == [True, True, False, False, False]
    assert 20_000 < office.queue.ready_bytes <= 25_000
    for made, message in zip(office.jobs, messages, strict=True):
        assert await office.queue.body(made) == (TRACE, message.submission.content)
    office.queue.record(office.jobs[0], attempt(office.jobs[0]))
    await office.accept(accepted(content=random_content(10_000, 9)))
    assert office.jobs[-1].content is not None
    for made in office.jobs[1:]:
        office.queue.record(made, attempt(made))
    assert office.queue.ready_bytes == 0
    assert office.queue.undone == 0


async def test_delivery_is_given_no_more_bytes_of_what_waited_than_it_may_hold(offices, monkeypatch):
    monkeypatch.setattr(queue_module, "_READ_MOST", 30_000)
    office = await offices(ready_bytes=0)
    messages = [accepted(content=random_content(10_000, n), at=NOW + n / 10) for n in range(12)]
    office.clock.advance(5)
    await office.accept(*messages)
    assert len(office.jobs) == 3  # they reach it together; the rest is given back
    done: list[Job] = []
    most = 0
    while len(done) < 12:
        await office.wait_for(1)
        most = max(most, sum(job.location.length for job in office.jobs))
        done.append(office.jobs.pop(0))
        office.queue.record(done[-1], attempt(done[-1]))
        office.room += 1
    assert {job.queue_id for job in done} == {message.queue_id for message in messages}
    assert 30_000 <= most < 30_000 + 11_000
    assert office.queue.undone == 0


async def test_a_message_larger_than_that_goes_alone(offices, monkeypatch):
    monkeypatch.setattr(queue_module, "_READ_MOST", 5_000)
    office = await offices(ready_bytes=0)
    await office.accept(*(accepted(content=random_content(10_000, n)) for n in range(2)))
    assert len(office.jobs) == 1
    office.queue.record(office.jobs[0], attempt(office.jobs[0]))
    await office.wait_for(2)


async def test_a_body_for_several_domains_counts_once_until_the_last_is_done(offices):
    office = await offices()
    await office.accept(accepted("a@one.test", "b@two.test", content=b"x" * 5_000))
    size = 5_000 + len(TRACE)
    assert office.queue.ready_bytes == size
    one, two = office.jobs
    office.queue.record(one, attempt(one))
    assert office.queue.ready_bytes == size
    office.queue.release(two, NOW + 60)
    assert office.queue.ready_bytes == 0


# --- again ---


async def test_deferred_mail_comes_back_when_the_clock_says_so(offices):
    office = await offices()
    await office.accept(accepted())
    (first,) = office.jobs
    settled = office.queue.record(first, attempt(first, Status.DEFERRED, at=NOW))
    assert settled.next_attempt_at == NOW + 60
    await office.queue.poke()
    assert len(office.jobs) == 1
    office.clock.advance(60)
    await office.queue.poke()
    assert len(office.jobs) == 2
    again = office.jobs[1]
    assert (again.queue_id, again.recipients[0].attempts, again.content) == (first.queue_id, 1, None)
    assert await office.queue.body(again) == (first.trace, first.content)
    # Twice as long before the third.
    assert office.queue.record(again, attempt(again, Status.DEFERRED, at=NOW + 60)).next_attempt_at == NOW + 180


async def test_the_timer_finds_due_mail_by_itself(offices):
    office = await offices()
    await office.accept(accepted())
    (first,) = office.jobs
    office.queue.record(first, attempt(first, Status.DEFERRED, at=NOW, next_at=NOW + 0.01))
    office.clock.advance(1)
    await office.wait_for(2)


async def test_a_message_expires_when_no_try_is_left(offices):
    office = await offices()
    message = accepted(lifetime=100)
    await office.accept(message)
    office.queue.record(office.jobs[0], attempt(office.jobs[0], Status.DEFERRED, at=NOW))
    office.clock.advance(60)
    await office.queue.poke()
    settled = office.queue.record(office.jobs[1], attempt(office.jobs[1], Status.DEFERRED, at=NOW + 60))
    assert settled.outcomes[0].status is Status.EXPIRED
    await asyncio.to_thread(office.store.flush)
    assert office.status(message.queue_id) == [Status.EXPIRED]
    assert office.store.live_segments() == {}


async def test_a_poke_claims_everything_due_page_by_page(offices):
    office = await offices(page=7)
    await office.accept(*(accepted(f"u{n}@dest.test") for n in range(30)))
    for made in list(office.jobs):
        office.queue.record(made, attempt(made, Status.DEFERRED, at=NOW))
    office.jobs.clear()
    office.clock.advance(3600)
    await office.queue.poke()
    assert len({made.queue_id for made in office.jobs}) == 30


async def test_a_poke_during_a_look_sees_the_new_time(offices, monkeypatch):
    office = await offices()
    await office.accept(accepted())
    office.queue.record(office.jobs[0], attempt(office.jobs[0], Status.DEFERRED, at=NOW))
    claim = office.store.claim
    advanced = False

    def claim_and_advance(now, limit, but=()):
        nonlocal advanced
        found = claim(now, limit, but)
        if not advanced:
            advanced = True
            office.clock.advance(3600)  # while the look that read the old time is under way
        return found

    monkeypatch.setattr(office.store, "claim", claim_and_advance)
    first = asyncio.ensure_future(office.queue.poke())
    await asyncio.sleep(0)
    await asyncio.gather(first, office.queue.poke())
    assert len(office.jobs) == 2


async def test_without_room_mail_waits_in_the_store_and_comes_when_there_is_some(offices, monkeypatch):
    monkeypatch.setattr("outgate.relay.queue._TROUBLE_S", 1e6)  # room that is made is noticed at once
    office = await offices(room=4)
    messages = [accepted(f"u{n}@dest.test") for n in range(5)]
    assert await office.accept(*messages) == [None] * 5
    assert len(office.jobs) == 2  # one configuration gets as much as it leaves free
    for number in range(5):
        await office.wait_for(number + 1)
        made = office.jobs[number]
        office.queue.record(made, attempt(made))
        office.room += 1  # as delivery does, after it has reported
    assert {made.queue_id for made in office.jobs} == {message.queue_id for message in messages}


async def test_one_sender_with_20_000_does_not_keep_the_mail_of_another_waiting(offices):
    office = await offices(room=200, per_domain=100)
    for start in range(0, 20_000, 2_000):
        await office.accept(*(accepted("a@dest.test", id=f"0L{start + n:06}") for n in range(2_000)))
    assert len(office.jobs) == 50  # as much of the domain as it leaves free
    small = replace(accepted("b@dest.test"), smtp_config_id="small")
    assert await office.accept(small) == [None]
    assert office.jobs[-1].queue_id == small.queue_id  # at once, for room was left

    # The same when nothing was left, and all that is due is older: it has its turn within the next few dozen.
    late = replace(accepted("c@dest.test"), smtp_config_id="late")
    office.room = 0
    assert await office.accept(late) == [None]
    office.room = 149
    done = 0
    while late.queue_id not in [job.queue_id for job in office.jobs]:
        job = office.jobs[done]
        done += 1
        office.queue.record(job, attempt(job))
        office.room += 1
        await office.queue.poke()
    assert done < 40 and len(office.jobs) < 150


async def test_two_large_senders_leave_a_third_of_the_room_to_who_comes_new(offices):
    office = await offices(room=90, per_domain=1000)
    for name in ("one", "two"):
        await office.accept(*(replace(accepted(f"a@{n}.test"), smtp_config_id=name) for n in range(300)))
    await office.queue.poke()
    having = Counter(job.smtp_config_id for job in office.jobs)
    assert having == {"one": 45, "two": 23} and office.room == 22  # the second takes half of what the first has left
    for job in list(office.jobs):
        office.queue.record(job, attempt(job))
        office.room += 1
        await office.queue.poke()
    having = Counter(job.smtp_config_id for job in office.queue._undone.values())
    assert office.room >= 20 and min(having["one"], having["two"]) >= 20, having


async def test_a_claim_that_fails_is_tried_again(offices, monkeypatch):
    office = await offices()
    await office.accept(accepted())
    office.queue.release(office.jobs[0], NOW)
    claim = office.store.claim
    failures = []

    def failing(now, limit, but=()):
        if not failures:
            failures.append(now)
            raise OSError("the disk has a moment")
        return claim(now, limit, but)

    monkeypatch.setattr(office.store, "claim", failing)
    monkeypatch.setattr("outgate.relay.queue._TROUBLE_S", 0.0)
    await office.queue.poke()
    assert failures
    assert len(office.jobs) == 2


# --- start and stop ---


async def test_mail_of_an_earlier_run_is_delivered_after_the_start(offices):
    office = await offices()
    message = accepted(content=b"still here\r\n")
    await office.accept(message)
    await close(office)
    again = await offices()
    again.queue.start()
    await again.wait_for(1)
    assert await again.queue.body(again.jobs[0]) == (TRACE, b"still here\r\n")


async def test_stopping_gives_back_what_was_not_answered_and_claims_nothing_more(offices):
    office = await offices()
    done, undone = accepted("a@one.test"), accepted("b@one.test", "c@one.test")
    await office.accept(done, undone)
    office.queue.record(office.jobs[0], attempt(office.jobs[0]))
    partly = office.jobs[1]
    whole = attempt(partly)
    office.queue.record(partly, replace(whole, outcomes=whole.outcomes[:1]))
    await office.queue.stop()
    await office.queue.poke()
    assert len(office.jobs) == 2
    # The store itself has the lease back: it can be claimed without a restart.
    (claimed,) = office.store.claim(NOW, 10)
    assert (claimed.queue_id, [r.mailbox for r in claimed.recipients]) == (undone.queue_id, ["c@one.test"])
    assert office.status(done.queue_id) == [Status.DELIVERED]


async def test_stopping_ends_a_poke_that_waits(offices):
    office = await offices(room=0)
    await office.accept(accepted())
    waiting = asyncio.ensure_future(office.queue.poke())
    await asyncio.sleep(0)
    await office.queue.stop()
    await asyncio.wait_for(waiting, 30)
    assert office.jobs == []


# --- fairness ---


async def test_a_slow_domain_does_not_keep_the_others_waiting(offices):
    office = await offices(per_domain=6)
    slow = [accepted("a@slow0.test") for _ in range(10)]
    assert await office.accept(*slow) == [None] * 10
    assert [job.domain for job in office.jobs] == ["slow0.test"] * 3
    assert await office.accept(accepted("a@quick.test")) == [None]
    assert office.jobs[-1].domain == "quick.test"
    # What is held back is due: a look claims none of it, and does not spin on it either.
    await asyncio.wait_for(office.queue.poke(), 30)
    assert len(office.jobs) == 4
    for job in office.jobs[:3]:
        office.queue.record(job, attempt(job))
    await office.wait_for(5)
    assert {job.domain for job in office.jobs[4:]} == {"slow0.test"}
