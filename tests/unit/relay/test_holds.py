"""Mail of a configuration that may not send for now: held, released, expired, across restarts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Job, Status
from outgate.relay.holds import REASONS, Holds
from outgate.relay.queue import Queue, Retry
from outgate.store.sqlite import QueueStore, open_queue
from support.queue_mail import NOW, SEGMENT, accepted, attempt

DAY = 86_400.0
CONFIGURATION = "configuration-1"


class House:
    """A queue with its holds; what is held is a dictionary, and delivery only takes jobs down."""

    def __init__(self, directory: Path, clock: FrozenClock, held: dict[str, str]) -> None:
        self.clock, self.held = clock, held
        self.store: QueueStore = open_queue(
            directory,
            shard="0",
            clock=clock,
            segment_bytes=SEGMENT,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.jobs: list[Job] = []
        self.queue = Queue(
            self.store,
            clock,
            self.jobs.append,
            lambda: 3000,
            retry=Retry(60.0, 7200.0),
            ready_bytes=1 << 20,
            held=lambda smtp_config_id: self.holds.reason(smtp_config_id),
            jitter=lambda: 0.5,
        )
        self.holds = Holds(self.store, self.states, clock, released=self.released, longest_s=14 * DAY)

    async def released(self, smtp_config_id: str) -> None:
        self.queue.look()

    def states(self, asked: Sequence[str]) -> Mapping[str, str]:
        return {each: why for each, why in self.held.items() if each in asked}

    async def start(self) -> House:
        await self.holds.start()
        self.queue.start()
        await self.queue.poke()
        return self

    async def accept(self, *mailboxes: str) -> str:
        """Accept a message with a lifetime of a day; return its queue id once it is stored and handed on."""
        message = accepted(*mailboxes, at=self.clock.now(), lifetime=DAY)
        stored = asyncio.get_running_loop().create_future()
        self.queue.accept(message, stored.set_result)
        assert await stored is None
        await asyncio.to_thread(self.store.flush)
        return message.queue_id

    def defer(self, job: Job) -> None:
        self.queue.record(job, attempt(job, Status.DEFERRED, at=self.clock.now()))

    def statuses(self, queue_id: str) -> list[tuple[Status, str]]:
        record = self.store.message(queue_id)
        assert record is not None
        return [(recipient.status, recipient.reason) for recipient in record.recipients]

    async def change(self, reason: str = "") -> None:
        self.held.clear()
        if reason:
            self.held[CONFIGURATION] = reason
        await self.holds.changed()
        await self.queue.poke()
        await asyncio.to_thread(self.store.flush)

    async def stop(self) -> None:
        await self.holds.stop()
        await self.queue.stop()
        self.store.close()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
async def houses(tmp_path: Path, clock: FrozenClock):  # type: ignore[no-untyped-def]
    opened: list[House] = []
    held: dict[str, str] = {}

    async def open_house() -> House:
        for each in opened:
            await each.stop()
        opened.clear()
        opened.append(await House(tmp_path, clock, held).start())
        return opened[0]

    yield open_house
    for each in opened:
        await each.stop()


async def test_what_waits_is_held_at_once_and_goes_on_after(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_id = await house.accept("anna@dest.test", "bert@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    await house.change("suspended")
    assert house.statuses(queue_id) == [(Status.HELD, "suspended")] * 2
    clock.advance(3 * DAY)  # three lifetimes
    await house.queue.poke()
    await house.holds.look()
    assert house.jobs == []
    assert house.statuses(queue_id) == [(Status.HELD, "suspended")] * 2
    await house.change()
    (job,) = house.jobs
    assert [recipient.mailbox for recipient in job.recipients] == ["anna@dest.test", "bert@dest.test"]
    assert job.expires_at == NOW + DAY + 3 * DAY  # expiry stood still
    house.queue.record(job, attempt(job, at=clock.now()))
    await asyncio.to_thread(house.store.flush)
    record = house.store.message(queue_id)
    assert record is not None
    assert [recipient.status for recipient in record.recipients] == [Status.DELIVERED] * 2
    assert record.location is None
    assert len(record.attempts) == 2  # a hold is none
    told = [(event.kind, event.text) for event in record.events]
    assert [kind for kind, _ in told] == [
        "accepted", *["deferred"] * 2, *["held"] * 2, *["released"] * 2, *["delivered"] * 2
    ]  # fmt: skip
    assert "suspended" in told[3][1] and "released" in told[5][1]


async def test_what_arrives_or_falls_due_meanwhile_is_held(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    under_way = await house.accept("anna@dest.test")
    (job,) = house.jobs
    await house.change("withdrawn")
    assert house.statuses(under_way) == [(Status.QUEUED, "")]  # it is being spoken of to its server
    fresh = await house.accept("bert@dest.test")
    assert house.statuses(fresh) == [(Status.HELD, "withdrawn")]
    house.defer(job)
    house.jobs.clear()
    await asyncio.to_thread(house.store.flush)
    clock.advance(61)
    await house.queue.poke()
    await asyncio.to_thread(house.store.flush)
    assert house.statuses(under_way) == [(Status.HELD, "withdrawn")]
    assert house.jobs == []
    await house.change()
    assert {job.queue_id for job in house.jobs} == {under_way, fresh}


@pytest.mark.parametrize("reason", REASONS)
async def test_after_fourteen_days_it_is_expired(houses, clock: FrozenClock, reason: str) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_id = await house.accept("anna@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    await house.change(reason)
    clock.advance(14 * DAY - 1)
    await house.holds.look()
    assert house.statuses(queue_id) == [(Status.HELD, reason)]
    clock.advance(1)
    await house.holds.look()
    assert house.statuses(queue_id) == [(Status.EXPIRED, "held-too-long")]
    record = house.store.message(queue_id)
    assert record is not None and record.location is None
    assert house.store.live_segments() == {} or all(count == 0 for count, _ in house.store.live_segments().values())
    await house.change()  # nothing comes back
    assert house.jobs == []


async def test_a_hold_survives_a_restart_and_so_does_its_end(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_id = await house.accept("anna@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    await house.change("deleted")
    clock.advance(DAY)
    house = await houses()
    assert house.statuses(queue_id) == [(Status.HELD, "deleted")]
    assert house.jobs == []
    house.held.clear()  # while nobody looks
    house = await houses()
    (job,) = house.jobs
    assert (job.queue_id, job.expires_at) == (queue_id, NOW + 2 * DAY)


async def test_other_configurations_and_other_holds_are_left_alone(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    damaged = await house.accept("anna@dest.test")
    job = house.jobs.pop()
    broken = attempt(job, Status.HELD, at=clock.now())
    house.queue.record(job, broken)
    await asyncio.to_thread(house.store.flush)
    before = house.statuses(damaged)
    await house.change("suspended")
    await house.change()
    clock.advance(15 * DAY)
    await house.holds.look()
    assert house.statuses(damaged) == before
    house.held["another"] = "suspended"
    await house.holds.changed()
    await house.accept("bert@dest.test")
    assert len(house.jobs) == 1


async def test_many_are_held_and_released_in_steps(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    mailboxes = [f"user{number}@dest{number}.test" for number in range(1203)]
    for at in range(0, len(mailboxes), 50):
        await house.accept(*mailboxes[at : at + 50])
    for job in house.jobs:
        house.defer(job)
    house.jobs.clear()
    await asyncio.to_thread(house.store.flush)
    await house.change("suspended")
    assert house.store.messages(status=Status.HELD, limit=1000)[0] == 25
    assert house.store.messages(status=Status.DEFERRED)[0] == 0
    await house.change()
    assert len(house.jobs) == 1203
    assert house.store.messages(status=Status.HELD)[0] == 0


async def test_a_release_that_fails_is_done_later_and_nothing_expires_meanwhile(
    houses, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_id = await house.accept("anna@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    await house.change("suspended")
    clock.advance(15 * DAY)
    release, failures = house.store.release_held, [sqlite3.OperationalError("disk I/O error")] * 2

    def failing(*given):  # type: ignore[no-untyped-def]
        if failures:
            raise failures.pop()
        return release(*given)

    monkeypatch.setattr(house.store, "release_held", failing)
    house.held.clear()
    with pytest.raises(sqlite3.OperationalError):
        await house.holds.changed()
    with pytest.raises(sqlite3.OperationalError):
        await house.holds.look()
    assert house.statuses(queue_id) == [(Status.HELD, "suspended")]
    await house.holds.look()
    await house.queue.poke()
    (job,) = house.jobs
    assert job.expires_at == NOW + DAY + 15 * DAY


async def test_a_clock_that_was_set_back_strands_nothing(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = await House(tmp_path, clock, {}).start()
    await house.accept("anna@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    await house.change("suspended")
    clock.advance(-5)
    await house.change()
    clock.advance(10)
    await house.queue.poke()
    assert len(house.jobs) == 1
    await house.stop()


async def test_a_store_that_cannot_say_keeps_mail_waiting_and_loses_no_lease(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    states, failures = house.states, [OSError("locked")] * 2

    def failing(asked: Sequence[str]) -> Mapping[str, str]:
        if failures:
            raise failures.pop()
        return states(asked)

    house.holds._states = failing
    queue_id = await house.accept("anna@dest.test", "bert@other.test")
    assert house.jobs == []
    clock.advance(2)
    await house.queue.poke()
    assert {job.domain for job in house.jobs} == {"dest.test", "other.test"}
    assert house.statuses(queue_id) == [(Status.QUEUED, "")] * 2


async def test_what_waits_at_the_start_is_held_at_once(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_id = await house.accept("anna@dest.test")
    house.defer(house.jobs.pop())
    await asyncio.to_thread(house.store.flush)
    house.held[CONFIGURATION] = "suspended"  # while nobody looks
    house = await houses()
    await asyncio.to_thread(house.store.flush)
    assert house.statuses(queue_id) == [(Status.HELD, "suspended")]


async def test_each_message_lives_on_for_as_long_as_it_was_held(houses, clock: FrozenClock) -> None:  # type: ignore[no-untyped-def]
    house = await houses()
    queue_ids = [await house.accept(*(f"u{n}@d{n}.test" for n in range(37))) for _ in range(30)]
    for job in house.jobs:
        house.defer(job)
    await asyncio.to_thread(house.store.flush)
    await house.change("suspended")
    clock.advance(10 * DAY)
    await house.change()
    expiries = {house.store.message(queue_id).expires_at for queue_id in queue_ids}
    assert expiries == {NOW + DAY + 10 * DAY}
