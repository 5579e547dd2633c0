"""The quota: never more than it says in any hour or day, and room is there when it was promised."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.clock import FrozenClock
from outgate.model.flow import Accepted, Job, Status
from outgate.model.tenancy import MailRules, OverQuota, Quota
from outgate.relay import policy
from outgate.relay.policy import Facts, Refused
from outgate.relay.queue import Queue, Retry
from outgate.relay.quota import DAY_S, Quotas
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
    quotas, slow = Quotas(), Quota(1, None, OverQuota.HOLD)
    times = [take(quotas, slow, NOW) for _ in range(5)]
    assert quotas.holding(NOW) == {"c": slow} and times[4] > NOW + 4 * HOUR
    planned = quotas.plan_again("c", Quota(3, None, OverQuota.HOLD), NOW)
    assert planned[:2] == [NOW, NOW] and len(planned) == 4
    assert NOW + HOUR < planned[2] == planned[3] <= NOW + HOUR + 60
    assert quotas.plan_again("c", None, NOW) == [NOW, NOW]
    assert quotas.holding(NOW) == {}


class House:
    """The rule book, a queue and its file; delivery only takes jobs down."""

    def __init__(self, directory: Path, clock: FrozenClock, quota: Quota | None) -> None:
        self.clock, self.quotas = clock, Quotas()
        self.by = sender(configuration(rules=MailRules(quota)))
        self.store = open_queue(
            directory,
            shard="0",
            clock=clock,
            segment_bytes=SEGMENT,
            notify=asyncio.get_running_loop().call_soon_threadsafe,
        )
        self.jobs: list[Job] = []
        self.queue = Queue(
            self.store, clock, self.jobs.append, lambda: 1000, retry=Retry(60.0, 7200.0), ready_bytes=1 << 20, jitter=lambda: 0.5
        )  # fmt: skip
        self.quotas.restore(self.store.counted(clock.now() - DAY_S), clock.now())
        self.queue.start()

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
        await self.queue.stop()
        await asyncio.to_thread(self.store.close)


async def test_refused_over_the_quota_and_remembered_over_a_restart(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    house = House(tmp_path, clock, Quota(2, None))
    assert [await house.send(number) for number in range(2)] == house.seen() == ["0QUEUE0", "0QUEUE1"]
    assert (await house.send(2)).startswith(
        "450 4.7.1 The domain's sending quota is used up: there is room again at 2027-"
    )
    await house.close()
    house = House(tmp_path, clock, Quota(2, None))
    assert (await house.send(3)).startswith("450 4.7.1 ")
    clock.advance(HOUR + 60)
    assert await house.send(4) == "0QUEUE4"
    await house.close()


async def test_held_and_released_by_itself_also_over_a_restart(tmp_path: Path) -> None:
    clock = FrozenClock(NOW)
    quota = Quota(1, None, OverQuota.HOLD)
    house = House(tmp_path, clock, quota)
    for number in range(3):
        assert await house.send(number) == f"0QUEUE{number}"
    assert house.seen() == ["0QUEUE0"]
    record = house.store.message("0QUEUE2")
    assert record is not None
    (recipient,) = record.recipients
    assert (recipient.status, recipient.reason) == (Status.HELD, "quota")
    assert recipient.due_at is not None and record.expires_at == recipient.due_at + DAY
    told = [(event.kind, event.detail) for event in record.events()]
    assert told[1][0] == "held" and told[1][1].startswith("held: over the quota until 2027-")
    await house.close()

    house = House(tmp_path, clock, quota)
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
    house = House(tmp_path, FrozenClock(NOW), Quota(1, None, OverQuota.HOLD))
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
    house = House(tmp_path, FrozenClock(NOW), Quota(1, None, OverQuota.HOLD))
    for number in range(4):
        await house.send(number)
    before = house.store.message("0QUEUE3")
    assert before is not None
    planned = house.quotas.plan_again("cfg-shop.test", Quota(2, None, OverQuota.HOLD), NOW)
    assert await asyncio.to_thread(house.store.plan_held, "cfg-shop.test", planned, NOW) == 3
    await house.queue.poke()
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    after = house.store.message("0QUEUE3")
    assert after is not None and after.recipients[0].due_at == planned[-1]
    assert before.recipients[0].due_at is not None
    assert before.expires_at - after.expires_at == before.recipients[0].due_at - planned[-1]
    planned = house.quotas.plan_again("cfg-shop.test", None, NOW)
    await asyncio.to_thread(house.store.plan_held, "cfg-shop.test", planned, NOW)
    await house.queue.poke()
    assert sorted(house.seen()) == [f"0QUEUE{number}" for number in range(4)]
    await house.close()


async def test_another_quota_leaves_alone_what_came_after_it(tmp_path: Path) -> None:
    house = House(tmp_path, FrozenClock(NOW), Quota(1, None, OverQuota.HOLD))
    for number in range(2):
        await house.send(number)
    planned = house.quotas.plan_again("cfg-shop.test", None, NOW)
    house.clock.advance(1.0)
    for number in range(2, 4):  # before the rows could be written
        await house.send(number)
    later = house.store.message("0QUEUE3")
    assert later is not None and later.recipients[0].status is Status.HELD
    assert await asyncio.to_thread(house.store.plan_held, "cfg-shop.test", [*planned, NOW], NOW) == 1
    assert house.store.message("0QUEUE3") == later
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
    house = House(tmp_path, FrozenClock(NOW), Quota(None, 1, OverQuota.HOLD))
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
    house = House(tmp_path, clock, Quota(1, None, OverQuota.HOLD))
    reasons = {"cfg-shop.test": ""}
    house.queue._held = lambda smtp_config_id: reasons[smtp_config_id]
    for number in range(2):
        await house.send(number)
    reasons["cfg-shop.test"] = "suspended"
    clock.advance(HOUR + 60)
    await house.queue.poke()
    await asyncio.to_thread(house.store.flush)
    record = house.store.message("0QUEUE1")
    assert record is not None and house.seen() == ["0QUEUE0"]
    assert (record.recipients[0].status, record.recipients[0].reason) == (Status.HELD, "suspended")
    count = await asyncio.to_thread(house.store.release_held, "cfg-shop.test", ["suspended"], "released", clock.now())
    reasons["cfg-shop.test"] = ""
    assert count == 1
    await house.queue.poke()
    assert house.seen() == ["0QUEUE0", "0QUEUE1"]
    await house.close()
