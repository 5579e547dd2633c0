"""Suppressed addresses in a running relay: real sockets and stores; what a bounce adds, and what it must not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Attempt, Job, JobRecipient, Outcome, Recipient, Status
from outgate.model.suppression import NewSuppression
from outgate.model.tenancy import OverQuota, Quota
from outgate.relay import outcome, policy
from outgate.relay.suppressing import Suppressing, hard_bounces
from outgate.smtp.reply import Reply, reply
from outgate.smtp.transaction import Transaction, TransactionResult
from outgate.store.control import open_control
from outgate.store.history import MessageRecord
from outgate.store.metrics import Selection
from outgate.store.secrets import open_box
from support import rule_book
from support.queue_mail import Desk, accepted, attempt
from support.receiver import Receiver
from support.relay import Client, TestRelay, letter, relay
from support.submission import sender

OK, GO = reply(250, "2.0.0", "Ok"), reply(354, "", "go")
GONE = reply(550, "5.1.1", "Nobody here")


@asynccontextmanager
async def running_relay(data: Path, receiver: Receiver, **settings: Any) -> AsyncIterator[tuple[TestRelay, Client]]:
    async with relay(data / "data", deliver_to=receiver.start(), delivery_tls="none", **settings) as running:
        client = await running.client()
        yield running, client
        client.close()
    await receiver.stop()


async def send(client: Client, *recipients: str, number: int = 0) -> str:
    assert (await client.envelope("a@example.test", *recipients)).startswith("354 ")
    said = await client.send(letter(number))
    assert said.startswith("250 2.0.0 Ok: queued as "), said
    return said.rpartition(" ")[2]


async def settled(running: TestRelay, queue_id: str) -> MessageRecord:
    for _ in range(2000):
        record = await asyncio.to_thread(running.service.store.message, queue_id)
        if record is not None and all(each.status.final for each in record.recipients):
            return record
        await asyncio.sleep(0.01)
    raise AssertionError(record)


async def suppressed(running: TestRelay, mailbox: str) -> str:
    """Wait until a mailbox is suppressed; return the detail of its entry."""
    for _ in range(2000):
        found = running.control.suppressions.of(running.tenant.instance_id, [mailbox])
        if found:
            return found[mailbox].detail
        await asyncio.sleep(0.01)
    raise AssertionError(mailbox)


def statuses(record: MessageRecord) -> dict[str, Status]:
    return {each.mailbox: each.status for each in record.recipients}


async def test_the_first_hard_bounce_adds_its_address_and_no_other(tmp_path: Path) -> None:
    receiver = Receiver(refuses={"gone@x.test": GONE, "spam@x.test": reply(550, "5.7.1", "Listed"), "bare@x.test": reply(550, "", "Blocked")})  # fmt: skip
    async with running_relay(tmp_path, receiver, hard_bounce_lasts_s=100.0) as (running, client):
        await settled(running, await send(client, "gone@x.test", "spam@x.test", "bare@x.test", "fine@x.test"))
        assert await suppressed(running, "gone@x.test") == "550 5.1.1 Nobody here"
        (entry,) = running.control.suppressions.page(running.tenant.instance_id)[1]
        assert entry.reason == "hard_bounce" and entry.source.startswith("bounce of 0")
        assert entry.expires_at is not None and entry.expires_at - entry.created_at == pytest.approx(100.0)
        # The same 250, and nothing of it goes to whom it is not to.
        again = await settled(running, await send(client, "GONE@X.test", "fine@x.test", number=1))
        assert statuses(again) == {"GONE@X.test": Status.SUPPRESSED, "fine@x.test": Status.DELIVERED}
        gone = next(each for each in again.recipients if each.mailbox == "GONE@X.test")
        assert (gone.attempts, gone.due_at, gone.reply, gone.reason) == (0, None, "", "suppressed")
        told = [event.text for event in again.events if event.kind == "suppressed"]
        assert len(told) == 1 and told[0].startswith("suppressed: hard bounce of 2")
        assert told[0].endswith("remove it with `outgate suppression remove gone@x.test`")
        assert receiver.seen["<1@example.test>"] == 1
        running.clock.advance(100)
        receiver.refuses.clear()
        late = await settled(running, await send(client, "gone@x.test", number=2))
        assert statuses(late) == {"gone@x.test": Status.DELIVERED}


async def test_a_message_to_suppressed_addresses_only_is_taken_and_its_body_let_go(tmp_path: Path) -> None:
    receiver = Receiver()
    async with running_relay(tmp_path, receiver) as (running, client):
        instance = running.tenant.instance_id
        running.control.suppressions.add(instance, [NewSuppression(f"u{n}@x.test", "manual", "me") for n in range(3)])
        queue_id = await send(client, "u0@x.test", "u1@x.test", "u2@x.test")
        record = await settled(running, queue_id)
        assert set(statuses(record).values()) == {Status.SUPPRESSED} and record.location is None
        assert await asyncio.to_thread(running.service.store.live_segments) == {}
        total, found = await asyncio.to_thread(running.service.store.messages, instance, status=Status.SUPPRESSED)
        assert total == 1 and found[0].queue_id == queue_id
        counts = await asyncio.to_thread(running.service.store.metrics, Selection(instance, 0, 4e9), 3600)
        assert {kind: sum(found.values()) for kind, found in counts.items()} == {
            "submitted": 3, "success": 0, "deferred": 0, "bounced": 0,
        }  # fmt: skip
        running.control.suppressions.remove(instance, "u1@x.test")
        assert statuses(await settled(running, await send(client, "u1@x.test", number=1))) == {
            "u1@x.test": Status.DELIVERED
        }
        assert sum(receiver.seen.values()) == 1


async def test_mail_that_waits_is_not_tried_again_once_its_address_is_suppressed(tmp_path: Path) -> None:
    later = reply(451, "4.7.1", "later")
    receiver = Receiver(refuses={"ann@x.test": later, "bob@x.test": later})
    async with running_relay(tmp_path, receiver) as (running, client):
        queue_id = await send(client, "ann@x.test", "bob@x.test")
        for _ in range(2000):
            record = await asyncio.to_thread(running.service.store.message, queue_id)
            if record is not None and set(statuses(record).values()) == {Status.DEFERRED}:
                break
            await asyncio.sleep(0.01)
        await asyncio.to_thread(
            running.control.suppressions.add,
            running.tenant.instance_id,
            [NewSuppression("ann@x.test", "complaint", "me")],
        )
        receiver.refuses.clear()
        running.clock.advance(120)
        await running.service.queue.poke()
        record = await settled(running, queue_id)
        assert statuses(record) == {"ann@x.test": Status.SUPPRESSED, "bob@x.test": Status.DELIVERED}
        assert [each.attempts for each in record.recipients] == [1, 2] and record.location is None
        told = [event.text for event in record.events if event.kind == "suppressed"]
        assert len(told) == 1 and told[0].startswith("suppressed: complaint of 2")


async def test_what_is_held_for_a_quota_is_only_what_is_sent(tmp_path: Path) -> None:
    async with running_relay(tmp_path, Receiver()) as (running, client):
        instance = running.tenant.instance_id
        configuration = running.control.tenancy.configuration_by_domain(instance, "example.test")
        assert configuration is not None
        running.control.tenancy.update_rules(
            instance, configuration.id, lambda rules: replace(rules, quota=Quota(1, None), over=OverQuota.HOLD)
        )
        await running.service.changed()
        running.control.suppressions.add(instance, [NewSuppression("gone@x.test", "manual", "me")])
        await send(client, "fine@x.test")
        queue_id = await send(client, "gone@x.test", "fine@x.test", number=1)
        record = await asyncio.to_thread(running.service.store.message, queue_id)
        assert record is not None and statuses(record) == {"gone@x.test": Status.SUPPRESSED, "fine@x.test": Status.HELD}
        only = await settled(running, await send(client, "gone@x.test", number=2))
        assert statuses(only) == {"gone@x.test": Status.SUPPRESSED} and only.location is None
        running.clock.advance(3700)
        await running.service.queue.poke()
        assert statuses(await settled(running, queue_id))["fine@x.test"] is Status.DELIVERED


async def test_a_store_that_cannot_tell_puts_the_message_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(instance_id: str, recipients: Sequence[object]) -> dict[str, str]:
        raise sqlite3.OperationalError("disk I/O error")

    async with running_relay(tmp_path, Receiver()) as (running, client):
        monkeypatch.setattr(running.service.relay, "suppressed", broken)
        await client.envelope()
        assert (await client.send(letter())).startswith("451 ")
        monkeypatch.undo()
        await send(client, "fine@x.test", number=1)


async def test_another_process_is_noticed(tmp_path: Path) -> None:
    async with running_relay(tmp_path, Receiver()) as (running, client):
        data = tmp_path / "data"
        other = open_control(data / "control.db", open_box(data / "master.key"), running.clock)
        other.suppressions.add(running.tenant.instance_id, [NewSuppression("ann@x.test", "manual", "other")])
        other.close()
        await running.service.follow_suppressions()
        record = await settled(running, await send(client, "ann@x.test"))
        assert statuses(record) == {"ann@x.test": Status.SUPPRESSED}


async def test_a_restart_knows_them_still(tmp_path: Path) -> None:
    async with running_relay(tmp_path, Receiver()) as (running, _):
        running.control.suppressions.add(running.tenant.instance_id, [NewSuppression("ann@x.test", "manual", "me")])
    async with running_relay(tmp_path, Receiver()) as (running, client):
        assert statuses(await settled(running, await send(client, "ann@x.test"))) == {"ann@x.test": Status.SUPPRESSED}


@pytest.mark.parametrize(("setting", "path"), [(False, "a@example.test"), (True, "")])
async def test_who_adds_nobody(tmp_path: Path, setting: bool, path: str) -> None:
    receiver = Receiver(refuses={"gone@x.test": GONE})
    async with running_relay(tmp_path, receiver, suppress_hard_bounces=setting) as (running, client):
        assert (await client.envelope(path, "gone@x.test")).startswith("354 ")
        await settled(running, (await client.send(letter())).rpartition(" ")[2])
        await running.service.suppressing.stop()
        assert running.control.suppressions.page(running.tenant.instance_id)[0] == 0


ONE, TWO = JobRecipient(1, "a@x.test", "x.test", 0), JobRecipient(2, "b@x.test", "x.test", 0)


def bounced(to: tuple[JobRecipient, ...], **result: Any) -> list[str]:
    made = TransactionResult(Transaction("s@y.test", tuple(r.mailbox for r in to), (b"x\r\n",)), **result)
    outcomes = outcome.of_transaction(to, made)
    return [mailbox for mailbox, _ in hard_bounces(Attempt("Q", "", "", "", "", "", 0, 0, "", (), outcomes, None, to))]


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (GONE, True), (reply(550, "5.2.1", "Mailbox disabled"), True), (reply(550, "5.1.6", "moved"), True), (reply(551, "", "No such user"), True),
        (reply(550, "", "<a@x.test>: Recipient address rejected: User unknown"), True), (reply(550, "", "Mailbox not found"), True),
        (reply(550, "", "Rejected by policy"), False), (reply(554, "", "No such user"), False), (reply(550, "5.7.1", "No such user"), False),
        (reply(552, "5.2.2", "Mailbox full"), False), (reply(450, "4.1.1", "No such user"), False), (reply(550, "5.1.8", "Sender unknown"), False),
        (reply(550, "5.1.10", "null MX"), False), (reply(550, "5.6.0", "content"), False),
    ],
)  # fmt: skip
def test_which_replies_speak_of_the_mailbox(said: Reply, counts: bool) -> None:
    assert bounced((ONE, TWO), mail=OK, recipients=(said, OK), data=GO, final=OK) == (["a@x.test"] if counts else [])


def test_what_is_said_to_all_is_about_nobody() -> None:
    assert bounced((ONE, TWO), mail=OK, recipients=(OK, OK), data=GO, final=GONE) == []
    assert bounced((ONE,), mail=OK, recipients=(OK,), data=GO, final=GONE) == ["a@x.test"]
    assert bounced((ONE,), mail=GONE, recipients=(None,)) == []
    assert bounced((ONE,), mail=OK, recipients=(OK,), data=GONE) == []
    ours = outcome.rejected(ONE, "5.1.2", "x.test does not exist", "bad-domain")
    assert not ours.personal


def test_a_refusal_says_nothing_of_who_is_suppressed() -> None:
    # Each rule comes first: who is suppressed is asked only of what is accepted.
    asked: list[Sequence[Recipient]] = []

    def suppressed(instance_id: str, recipients: Sequence[Recipient]) -> dict[str, str]:
        asked.append(recipients)
        return {"b0@dest.test": "words"}

    def judged(content: bytes, to: int) -> object:
        facts = policy.Facts(
            sender(), "relay.test", "Q1", rule_book.NOW, 86_400.0, suppressed=suppressed, most_recipients=2
        )
        return policy.accept(rule_book.submission(content, to=to), facts)

    assert isinstance(judged(b"From: a@other.test\r\n\r\nx\r\n", 1), policy.Refused)
    assert isinstance(judged(b"From: a@shop.test\r\n\r\nx\r\n", 3), policy.Refused) and not asked
    taken = judged(b"From: a@shop.test\r\n\r\nx\r\n", 2)
    assert isinstance(taken, policy.Accepted) and taken.suppressed == {"b0@dest.test": "words"} and len(asked) == 1


def test_the_store_keeps_nothing_alive_for_nobody(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        some = replace(accepted("a@x.test", "b@x.test"), suppressed={"a@x.test": "why a"})
        none = replace(accepted("c@x.test", "d@x.test"), suppressed={"c@x.test": "why c", "d@x.test": "why d"})
        jobs = desk.store_all(some, none)
        assert [[r.mailbox for r in job.recipients] for job in jobs] == [["b@x.test"]]
        assert sum(count for count, _ in desk.store.live_segments().values()) == 1
        record = desk.store.message(none.queue_id)
        assert record is not None and [event.text for event in record.events][1:] == ["why c", "why d"]
        desk.store.record(attempt(jobs[0]))
        desk.store.flush()
        assert desk.store.live_segments() == {}
    finally:
        desk.store.close()


async def test_a_flood_of_bounces_is_a_few_transactions() -> None:
    calls: list[int] = []

    class Rows:
        def of(self, instance_id: str, mailboxes: Sequence[str]) -> dict[str, Any]:
            return {}

        def add(self, instance_id: str, entries: Sequence[NewSuppression], *, replace: bool = True) -> int:
            assert not replace
            calls.append(len(entries))
            if len(calls) == 1:
                raise sqlite3.OperationalError("database or disk is full")
            return len(entries)

        def purge(self) -> int:
            return 0

        def follow(self) -> int:
            return 0

    full = False

    def durable() -> None:
        if full:
            raise OSError("outcomes could not be written")

    suppressing = Suppressing(Rows(), FrozenClock(), bounces=True, lasts_s=0, durable=durable)
    job = Job("Q", "i", "c", accepted().signing_key, "a@shop.test", "x.test", (ONE,), None, 0, 0, False, False)  # type: ignore[arg-type]
    bounce = Outcome(1, Status.BOUNCED, 550, "5.1.1", "no\r\none", "bad-mailbox", personal=True)
    made = Attempt("Q", "", "", "", "", "", 0, 0, "", (), (bounce,), None, (ONE,))
    for _ in range(5000):
        suppressing.look(job, made)
    await suppressing.stop()
    for _ in range(10):
        suppressing.look(job, made)
    await suppressing.stop()
    assert calls == [5000, 10]
    # An address is suppressed only when its bounce is on disk: else a crash would leave its sender without a word.
    full = True
    suppressing.look(job, made)
    await suppressing.stop()
    assert calls == [5000, 10]
    full = False
    await suppressing.stop()
    assert calls == [5000, 10, 1]
