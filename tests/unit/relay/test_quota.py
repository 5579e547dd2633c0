"""The quota: never more than it says in any hour or day, and room is there when it was promised."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.clock import FrozenClock
from outgate.model.flow import Accepted, Job, Status
from outgate.model.tenancy import MailRules, OverQuota, Quota
from outgate.relay import planning, policy
from outgate.relay.holds import Holds
from outgate.relay.planning import Planning
from outgate.relay.policy import Facts, Refused
from outgate.relay.queue import Queue, Retry
from outgate.relay.quota import DAY_S, Quotas, minute_of
from outgate.store.sqlite import open_queue
from support.queue_mail import SEGMENT, attempt
from support.rule_book import submission
from support.submission import configuration, sender

NOW = 1_800_000_030.0
HOUR, DAY = 3600.0, 86_400.0


def take(quotas: Quotas, quota: Quota, now: float) -> float:
    at = quotas.room_at("c", quota, now)
    quotas.take("c", at, now)
    return at


def test_room_comes_when_the_oldest_is_an_hour_old() -> None:
    quotas, quota = Quotas(), Quota(2, None)
    assert take(quotas, quota, NOW) == NOW
    assert take(quotas, quota, NOW + 600) == NOW + 600
    at = quotas.room_at("c", quota, NOW + 700)
    assert at % 60 == 0 and NOW + HOUR < at <= NOW + HOUR + 60
    assert quotas.room_at("c", quota, at - 1) > at - 1
    assert quotas.room_at("c", quota, at) == at


def test_the_day_counts_beside_the_hour() -> None:
    quotas, quota = Quotas(), Quota(10, 2)
    take(quotas, quota, NOW)
    take(quotas, quota, NOW)
    at = quotas.room_at("c", quota, NOW)
    assert NOW + DAY < at <= NOW + DAY + 60


def test_what_is_given_back_is_room_again() -> None:
    quotas, quota = Quotas(), Quota(1, 1)
    at = take(quotas, quota, NOW)
    assert quotas.room_at("c", quota, NOW) > NOW
    quotas.give_back("c", at)
    assert quotas.room_at("c", quota, NOW) == NOW
    quotas.give_back("c", at)  # twice is no more
    quotas.give_back("unknown", at)
    take(quotas, quota, NOW)
    assert quotas.room_at("c", quota, NOW) > NOW


QUOTAS = st.builds(Quota, st.none() | st.integers(1, 4), st.none() | st.integers(1, 8)).filter(
    lambda quota: quota.per_hour is not None or quota.per_day is not None
)
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 59.0, 60.0, 700.0, 3540.0, 3600.0, 40_000.0]), st.booleans()), max_size=40)  # fmt: skip


@given(QUOTAS, STEPS, st.booleans())
def test_never_more_than_the_quota_and_in_order(quota: Quota, steps: list[tuple[float, bool]], hold: bool) -> None:
    quotas, now, gone = Quotas(), NOW, []
    for pause, unused in steps:
        now += pause
        at = quotas.room_at("c", quota, now)
        if at > now and not hold:
            continue
        quotas.take("c", at, now)
        if unused:
            quotas.give_back("c", at)
        else:
            gone.append(at)
    assert gone == sorted(gone)
    for span, most in ((HOUR, quota.per_hour), (DAY, quota.per_day)):
        for first in gone:
            assert most is None or sum(first <= at < first + span for at in gone) <= most


@given(QUOTAS, STEPS)
def test_a_restart_changes_nothing(quota: Quota, steps: list[tuple[float, bool]]) -> None:
    quotas, now, gone = Quotas(), NOW, []
    for pause, _ in steps:
        now += pause
        gone.append(take(quotas, quota, now))
        counted: dict[int, int] = {}
        for at in gone:
            if at > now - DAY_S:
                counted[int(at // 60)] = counted.get(int(at // 60), 0) + 1
        again = Quotas()
        again.restore([("c", minute, count) for minute, count in sorted(counted.items())], now)
        assert again.room_at("c", quota, now) == quotas.room_at("c", quota, now)


def test_another_quota_gives_held_mail_other_times() -> None:
    quotas, slow, fast = Quotas(), Quota(1, None), Quota(3, None)
    times = [take(quotas, slow, NOW) for _ in range(5)]
    assert quotas.holding(NOW) == {"c": slow} and times[4] > NOW + 4 * HOUR
    quotas.begin_again("c", fast, NOW)
    planned = quotas.plan("c", fast, 4, NOW)
    assert planned[:2] == [NOW, NOW] and len(planned) == 4
    assert NOW + HOUR < planned[2] == planned[3] <= NOW + HOUR + 60
    assert quotas.holding(NOW) == {"c": fast}
    quotas.begin_again("c", None, NOW)
    assert quotas.plan("c", None, 2, NOW) == [NOW, NOW]
    assert quotas.holding(NOW) == {}


def test_who_is_planned_by_the_new_quota_does_not_hide_that_others_are_not() -> None:
    quotas, slow, fast = Quotas(), Quota(1, None), Quota(3, None)
    for _ in range(2):
        take(quotas, slow, NOW)
    take(quotas, fast, NOW)  # a session has seen the change before we looked
    assert quotas.holding(NOW) == {"c": slow}


def test_what_has_not_gone_is_taken_out_once() -> None:
    quotas, quota = Quotas(), Quota(2, 2)
    for _ in range(2):
        take(quotas, quota, NOW)
    quotas.take_out("c", {minute_of(NOW): 1, 5: 7})
    assert quotas.room_at("c", quota, NOW) == NOW
    quotas.take_out("c", {minute_of(NOW): 5})
    take(quotas, quota, NOW)
    take(quotas, quota, NOW)
    assert quotas.room_at("c", quota, NOW) > NOW
    quotas.take_out("unknown", {1: 1})


def test_a_clock_that_was_far_ahead_locks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    quotas, quota = Quotas(), Quota(1, None)
    take(quotas, quota, NOW)
    take(quotas, quota, NOW + 365 * DAY)
    assert quotas.room_at("c", quota, NOW + 120) == NOW + 120
    assert [record.getMessage() for record in caplog.records] == ["quota.clock_put_back"]
    assert take(quotas, quota, NOW + 120) == NOW + 120
    assert quotas.room_at("c", quota, NOW + 180) > NOW + HOUR


class House:
    """The rule book, a queue and its file; delivery only takes jobs down."""

    def __init__(
        self, directory: Path, clock: FrozenClock, quota: Quota | None, over: OverQuota = OverQuota.REFUSE
    ) -> None:
        self.clock, self.quotas, self.why = clock, Quotas(), ""
        self.limit(quota, over)
        self.store = open_queue(
            directory,
            shard="0",
            clock=clock,
            segment_bytes=SEGMENT,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.jobs: list[Job] = []
        self.queue = Queue(
            self.store, clock, self.jobs.append, lambda: 1000, retry=Retry(60.0, 7200.0), ready_bytes=1 << 20, jitter=lambda: 0.5,
            held=lambda _: self.why,
        )  # fmt: skip
        self.planning = Planning(self.store, self.quotas, self.wanted, clock, planned=self.queue.look)
        states = lambda asked: dict.fromkeys(asked, self.why)  # noqa: E731
        self.holds = Holds(self.store, states, clock, released=self.planning.again, longest_s=14 * DAY)

    async def start(self) -> House:
        await self.planning.start()
        await self.holds.start()
        self.queue.start()
        return self

    def limit(self, quota: Quota | None, over: OverQuota = OverQuota.HOLD) -> None:
        self.by = sender(configuration(rules=MailRules(quota, over=over)))

    def wanted(self, asked: Sequence[str]) -> Mapping[str, Quota | None]:
        (found,) = self.by.configurations.values()
        return {each: found.rules.quota for each in asked if each == found.id}

    async def change(self, quota: Quota | None) -> None:
        """Have another quota, and what is held planned by it."""
        self.limit(quota)
        await self.planning.changed()
        await self.queue.poke()

    async def suspend(self, why: str) -> None:
        self.why = why
        await self.holds.changed()
        await self.queue.poke()
        await asyncio.to_thread(self.store.flush)

    async def pass_by(self, hours: int) -> list[int]:
        """Let hours go by; return how many messages left in each."""
        gone: list[int] = []
        for _ in range(hours):
            before = len(self.jobs)
            self.clock.advance(HOUR + 60)
            await self.queue.poke()
            gone.append(len(self.jobs) - before)
        return gone

    async def send(self, number: int) -> str:
        """Have a message judged and stored; return its queue id, or what the client reads."""
        now = self.clock.now()
        facts = Facts(self.by, "relay.test", f"0QUEUE{number}", now, DAY, self.quotas)
        verdict = policy.accept(submission(b"From: a@shop.test\r\n\r\nhello\r\n"), facts)
        if isinstance(verdict, Refused):
            return str(verdict.reply)
        assert isinstance(verdict, Accepted)
        stored = asyncio.get_running_loop().create_future()
        self.queue.accept(verdict, stored.set_result)
        assert await stored is None
        await self.queue.poke()
        return verdict.queue_id

    def seen(self) -> list[str]:
        return [job.queue_id for job in self.jobs]

    async def close(self) -> None:
        await self.holds.stop()
        await self.queue.stop()
        await asyncio.to_thread(self.store.close)


async def test_refused_over_the_quota_and_remembered_over_a_restart(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = await House(tmp_path, clock, Quota(2, None)).start()
    assert [await house.send(number) for number in range(2)] == house.seen() == ["0QUEUE0", "0QUEUE1"]
    assert (await house.send(2)).startswith(
        "450 4.7.1 The domain's sending quota is used up: there is room again at 2027-"
    )
    await house.close()
    house = await House(tmp_path, clock, Quota(2, None)).start()
    assert (await house.send(3)).startswith("450 4.7.1 ")
    clock.advance(HOUR + 60)
    assert await house.send(4) == "0QUEUE4"
    await house.close()


async def test_held_and_released_by_itself_also_over_a_restart(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    quota = Quota(1, None)
    house = await House(tmp_path, clock, quota, OverQuota.HOLD).start()
    for number in range(3):
        assert await house.send(number) == f"0QUEUE{number}"
    assert house.seen() == ["0QUEUE0"]
    record = house.store.message("0QUEUE2")
    assert record is not None
    (recipient,) = record.recipients
    assert (recipient.status, recipient.reason) == (Status.HELD, "quota")
    assert recipient.due_at is not None and record.expires_at == recipient.due_at + DAY
    told = [(event.kind, event.text) for event in record.events]
    assert told[1][0] == "held" and told[1][1].startswith("held: over the quota until 2027-")
    await house.close()

    house = await House(tmp_path, clock, quota, OverQuota.HOLD).start()
    await house.queue.poke()
    assert "0QUEUE1" not in house.seen()
    clock.advance(HOUR + 60)
    await house.queue.poke()
    assert "0QUEUE1" in house.seen() and "0QUEUE2" not in house.seen()
    job = next(job for job in house.jobs if job.queue_id == "0QUEUE1")
    house.queue.record(job, attempt(job, at=clock.now()))
    clock.advance(HOUR + 60)
    await house.queue.poke()
    assert "0QUEUE2" in house.seen()
    await house.close()


async def test_the_queue_wakes_for_what_is_held(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    await house.send(0)
    assert house.queue._timer is None
    verdict = policy.accept(
        submission(b"From: a@shop.test\r\n\r\nhello\r\n"), Facts(house.by, "relay.test", "0Q", NOW, DAY, house.quotas)
    )
    assert isinstance(verdict, Accepted) and verdict.counted_at is not None
    stored = asyncio.get_running_loop().create_future()
    house.queue.accept(verdict, stored.set_result)
    assert await stored is None
    assert house.queue._timer is not None  # nothing else tells it to look
    await house.close()


async def test_another_quota_moves_what_is_held(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    for number in range(4):
        await house.send(number)
    before = house.store.message("0QUEUE3")
    assert before is not None
    await house.change(Quota(2, None))
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    after = house.store.message("0QUEUE3")
    assert after is not None and before.recipients[0].due_at is not None and after.recipients[0].due_at is not None
    assert NOW + HOUR < after.recipients[0].due_at <= NOW + HOUR + 60
    assert before.expires_at - after.expires_at == before.recipients[0].due_at - after.recipients[0].due_at
    await house.change(None)
    assert sorted(house.seen()) == [f"0QUEUE{number}" for number in range(4)]
    await house.close()


async def test_another_quota_leaves_alone_what_came_after_it(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    for number in range(2):
        await house.send(number)
    listed = house.store.held_for_quota

    def held_for_quota(smtp_config_id: str, until: float) -> list[tuple[str, float]]:
        house.clock.advance(1.0)
        asyncio.run_coroutine_threadsafe(house.send(2), loop).result(30)  # before the rows could be read
        return listed(smtp_config_id, until)

    loop = asyncio.get_running_loop()
    house.store.held_for_quota = held_for_quota  # type: ignore[method-assign]
    await house.change(Quota(2, None))
    # It has the place that was free, and who waited has the next one: never more than two in an hour.
    assert house.seen() == ["0QUEUE0", "0QUEUE2"]
    assert await house.pass_by(2) == [1, 0]
    await house.close()


async def test_what_is_being_stored_while_the_quota_goes_is_planned_too(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    await house.send(0)
    facts = Facts(house.by, "relay.test", "0QUEUE1", NOW, DAY, house.quotas)
    verdict = policy.accept(submission(b"From: a@shop.test\r\n\r\nhello\r\n"), facts)
    assert isinstance(verdict, Accepted)
    house.queue.accept(verdict, lambda error: None)
    await house.change(None)
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    await house.close()


async def test_what_is_held_is_planned_in_helpings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_HELPING", 2)
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    for number in range(8):
        await house.send(number)
    plan_held, helpings = house.store.plan_held, []

    def failing(times: Sequence[tuple[str, float]]) -> int:
        helpings.append(len(times))
        if len(helpings) == 2:
            raise sqlite3.OperationalError("disk I/O error")
        return plan_held(times)

    monkeypatch.setattr(house.store, "plan_held", failing)
    with pytest.raises(sqlite3.OperationalError):
        await house.change(Quota(3, None))
    # Some go as planned already; the next look plans what is left, and still no more than three go in an hour.
    await house.queue.poke()
    await house.change(Quota(3, None))
    assert helpings == [2, 2, 2, 2, 1]
    assert len(house.seen()) == 3
    assert await house.pass_by(3) == [3, 2, 0]
    await house.close()


def test_what_was_counted_is_forgotten_when_it_counts_no_more() -> None:
    quotas, quota = Quotas(), Quota(1, None)
    for minute in range(5 * 24 * 60):
        quotas.room_at("c", quota, NOW + 60 * minute)
        quotas.take("c", NOW + 60 * minute, NOW + 60 * minute)
    ledger = quotas._ledgers["c"]
    assert [sum(1 for _ in counts) for counts in (ledger.hour, ledger.day, ledger.all)] == [61, 1441, 1441]
    assert quotas.holding(NOW + 5 * DAY) == {}


async def test_nothing_is_held_for_more_than_a_day(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(None, 1), OverQuota.HOLD).start()
    assert await house.send(0) == "0QUEUE0"
    assert (await house.send(1)).startswith("450 4.7.1 ")
    await house.close()


def test_without_a_quota_nothing_is_counted() -> None:
    quotas = Quotas()
    facts = Facts(sender(), "relay.test", "0Q", NOW, DAY, quotas)
    verdict = policy.accept(submission(b"From: a@shop.test\r\n\r\nhello\r\n"), facts)
    assert isinstance(verdict, Accepted) and verdict.counted_at is None
    assert quotas.holding(0) == {}
    policy.give_back(facts, verdict)


@pytest.mark.parametrize("moved", [-HOUR, -DAY])
def test_a_clock_that_is_put_back_lets_nothing_more_through(moved: float) -> None:
    quotas, quota = Quotas(), Quota(1, None)
    take(quotas, quota, NOW)
    assert quotas.room_at("c", quota, NOW + moved) > NOW + moved


def test_an_operator_s_word_on_the_nature_stands_over_the_form_s() -> None:
    form = MailRules(nature="marketing")
    assert form.needs_unsubscribe and not replace(form, marketing=False).needs_unsubscribe
    assert replace(MailRules(nature="transactional"), marketing=True).needs_unsubscribe


async def test_mail_that_is_held_for_its_quota_is_held_on_when_its_domain_is_suspended(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = await House(tmp_path, clock, Quota(1, None), OverQuota.HOLD).start()
    for number in range(2):
        await house.send(number)
    house.why = "suspended"
    clock.advance(HOUR + 60)
    await house.queue.poke()
    await asyncio.to_thread(house.store.flush)
    record = house.store.message("0QUEUE1")
    assert record is not None and house.seen() == ["0QUEUE0"]
    assert (record.recipients[0].status, record.recipients[0].reason) == (Status.HELD, "suspended")
    await house.suspend("")
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    await house.close()


async def test_the_end_of_a_suspension_does_not_break_a_quota(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = await House(tmp_path, clock, Quota(1, None), OverQuota.HOLD).start()
    for number in range(6):
        await house.send(number)
    await house.suspend("suspended")
    clock.advance(6 * 3660)
    await house.queue.poke()
    await house.suspend("")
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]  # those that became due meanwhile leave one an hour
    record = house.store.message("0QUEUE2")
    assert record is not None and record.recipients[0].due_at is not None
    assert (record.recipients[0].status, record.recipients[0].reason) == (Status.HELD, "quota")
    assert clock.now() + HOUR < record.recipients[0].due_at == record.expires_at - DAY
    house.limit(Quota(1, None), OverQuota.REFUSE)
    assert (await house.send(6)).startswith("450 ")
    assert await house.pass_by(5) == [1, 1, 1, 1, 0]
    assert house.seen() == [f"0QUEUE{number}" for number in range(6)]
    await house.close()


async def test_the_end_of_a_suspension_and_of_the_quota_lets_all_go(tmp_path: Path) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    for number in range(3):
        await house.send(number)
    await house.suspend("suspended")
    house.clock.advance(3 * 3660)
    await house.queue.poke()
    house.limit(None)
    await house.suspend("")
    assert sorted(house.seen()) == [f"0QUEUE{number}" for number in range(3)]
    await house.close()


async def test_a_release_that_was_not_planned_is_planned_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House(tmp_path, FrozenClock(NOW), Quota(1, None), OverQuota.HOLD).start()
    for number in range(4):
        await house.send(number)
    await house.suspend("suspended")
    house.clock.advance(4 * 3660)
    await house.queue.poke()
    await asyncio.to_thread(house.store.flush)

    def failing(times: object) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "plan_held", failing)
        house.why = ""
        with pytest.raises(sqlite3.OperationalError):
            await house.holds.changed()
    await house.queue.poke()
    assert house.seen() == ["0QUEUE0"]
    await house.holds.look()
    await house.queue.poke()
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    await house.close()


async def test_what_became_due_while_nobody_was_there_does_not_break_a_quota(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = await House(tmp_path, clock, Quota(1, None), OverQuota.HOLD).start()
    for number in range(4):
        await house.send(number)
    await house.close()
    clock.advance(2.5 * 3660)
    house = await House(tmp_path, clock, Quota(1, None), OverQuota.HOLD).start()
    await house.queue.poke()
    assert [each for each in house.seen() if each != "0QUEUE0"] == ["0QUEUE1"]
    assert await house.pass_by(3) == [1, 1, 0]
    await house.close()


async def test_a_clock_that_was_far_ahead_locks_nothing_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FrozenClock(NOW + 365 * DAY)
    house = await House(tmp_path, clock, Quota(1, None)).start()
    assert await house.send(0) == "0QUEUE0"
    await house.close()
    clock.advance(-365 * DAY)
    house = await House(tmp_path, clock, Quota(1, None)).start()
    assert "queue.counted_ahead" in [record.getMessage() for record in caplog.records]
    assert await house.send(1) == "0QUEUE1"
    assert (await house.send(2)).startswith("450 ")
    await house.close()
