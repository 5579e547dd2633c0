"""The rules of a configuration in a running relay: real sockets and stores, and changes that count in open sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.model.flow import Status
from outgate.model.tenancy import HtmlCheck, MailRules, OverQuota, Quota
from support.relay import TestRelay, letter, relay

HTML = b"From: a@example.test\r\nContent-Type: text/html\r\n\r\n<p>a<b>b</p>\r\n"


async def change(running: TestRelay, **values: object) -> None:
    tenancy = running.control.tenancy
    configuration = tenancy.configuration_by_domain(running.tenant.instance_id, "example.test")
    assert configuration is not None

    def changed(rules: MailRules) -> MailRules:
        return replace(rules, **values)  # type: ignore[arg-type]

    tenancy.update_rules(configuration.instance_id, configuration.id, changed)
    await running.service.changed()


async def state(running: TestRelay, said: str) -> tuple[Status, str, float | None]:
    assert said.startswith("250 2.0.0 Ok: queued as "), said
    record = await asyncio.to_thread(running.service.store.message, said.rpartition(" ")[2])
    assert record is not None
    (recipient,) = record.recipients
    return recipient.status, recipient.reason, recipient.due_at


async def test_html_is_judged_while_the_session_is_open(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()

        async def send() -> str:
            await client.envelope()
            return await client.send(HTML)

        assert (await send()).startswith("250 ")
        await change(running, html=HtmlCheck.REFUSE)
        assert await send() == "554 5.6.0 The HTML of the message is not well-formed (line 1, column 9)"
        await change(running, html=HtmlCheck.WARN)
        said = await send()
        record = await asyncio.to_thread(running.service.store.message, said.rpartition(" ")[2])
        assert record is not None and record.warning.startswith("HTML is not well-formed: line 1, column 9")
        assert record.events[1].kind == "warning"
        await change(running, html=HtmlCheck.OFF, marketing=True)
        assert await send() == "554 5.7.1 A marketing message needs a link to unsubscribe"
        client.close()


async def test_a_quota_that_comes_changes_and_goes(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()

        async def send(number: int) -> str:
            await client.envelope()
            return await client.send(letter(number))

        await send(0)  # counts for nothing: there is no quota yet
        await change(running, quota=Quota(1, None))
        assert (await send(1)).startswith("250 ")
        assert (await send(2)).startswith("450 4.7.1 The domain's sending quota is used up: there is room again at ")
        await change(running, quota=Quota(1, None), over=OverQuota.HOLD)
        held = [await send(number) for number in (3, 4)]
        states = [await state(running, said) for said in held]
        assert [(status, why) for status, why, _ in states] == [(Status.HELD, "quota")] * 2
        client.close()
    async with relay(tmp_path / "data") as running:
        assert [await state(running, said) for said in held] == states
        client = await running.client()
        later = await state(running, await send(5))
        assert later[2] is not None and states[1][2] is not None and later[2] > states[1][2]
        await change(running, quota=Quota(3, None), over=OverQuota.HOLD)
        await running.service.queue.poke()
        # The two that were first fit into the new quota, and are under way or have been tried.
        for said in held:
            status, _, due = await state(running, said)
            assert status is not Status.HELD or (due is not None and due <= running.clock.now())
        await change(running, quota=None)
        assert (await send(6)).startswith("250 ")
        client.close()


async def test_another_rule_than_the_quota_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()
        await change(running, quota=Quota(1, None), over=OverQuota.HOLD)
        for number in range(2):
            await client.envelope()
            assert (await client.send(letter(number))).startswith("250 ")
        moved: list[object] = []

        def plan_held(times: Sequence[tuple[str, float]]) -> int:
            moved.append(times)
            return 0

        monkeypatch.setattr(running.service.store, "plan_held", plan_held)
        await change(running, html=HtmlCheck.WARN)
        assert moved == []
        await change(running, quota=Quota(2, None), over=OverQuota.HOLD)
        await change(running, html=HtmlCheck.OFF)
        assert len(moved) == 1
        client.close()


async def test_a_suspension_that_ends_leaves_held_mail_to_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(tmp_path / "data") as running:
        service, client, why = running.service, await running.client(), ""
        await change(running, quota=Quota(1, None), over=OverQuota.HOLD)
        said: list[str] = []
        for number in range(4):
            await client.envelope()
            said.append(await client.send(letter(number)))
        client.close()
        monkeypatch.setattr(service.holds, "_states", lambda asked: dict.fromkeys(asked, why))

        async def look(reason: str) -> list[str]:
            nonlocal why
            why = reason
            await service.changed()
            await service.queue.poke()
            await asyncio.to_thread(service.store.flush)
            return [(await state(running, each))[1] for each in said]

        await look("suspended")
        running.clock.advance(4 * 3660)
        assert (await look("suspended"))[1:] == ["suspended"] * 3
        assert (await look(""))[2:] == ["quota"] * 2
        assert [(await state(running, each))[2] for each in said[2:]] > [running.clock.now()] * 2  # type: ignore[operator]
