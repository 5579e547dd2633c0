"""What `app` decides about the HTTP side, and how the relay follows the control store."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate import app
from outgate.app import serve_http
from outgate.model.access import Address
from outgate.smtp.asyncio.server import listening_socket
from support.relay import TestRelay, relay


async def test_who_calls_is_who_connects_whatever_a_header_says() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps([scope["client"][0], scope["scheme"]]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    sock = listening_socket("127.0.0.1", 0)
    server, task = await serve_http(echo, sock)
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"}
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{sock.getsockname()[1]}/", headers=headers)
    assert answer.json() == ["127.0.0.1", "http"]
    server.should_exit = True
    await task
    sock.close()


async def test_an_earlier_snapshot_never_replaces_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay(tmp_path / "data") as running:
        access, service = running.control.access, running.service
        zone = access.zones(running.tenant.account_id)[0]
        take, slow = access.snapshot, threading.Event()

        def slowly(*given: Any) -> Any:
            found = take(*given)
            slow.wait(10)
            return found

        monkeypatch.setattr(access, "snapshot", slowly)
        access.create_zone(running.tenant.account_id, name="n", description="", addresses=(), excluded=(), by="test")
        first = asyncio.ensure_future(service.changed())
        while first.done() or not service._changing.locked():
            await asyncio.sleep(0)
        monkeypatch.setattr(access, "snapshot", take)
        access.replace_zone(
            running.tenant.account_id,
            zone.id,
            expected=None,
            name=zone.name,
            description="",
            addresses=(Address("ipAddress", "192.0.2.1"),),
            excluded=(),
            by="test",
        )
        second = asyncio.ensure_future(service.changed())
        slow.set()
        await asyncio.gather(first, second)
        assert not service.relay.access.welcome("127.0.0.1", "public").allowed


async def test_what_does_not_concern_access_compiles_nothing(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        table = running.service.relay.access
        running.control.tenancy.create_account("another")
        await running.service.changed()
        assert running.service.relay.access is table


async def test_what_is_promised_within_two_seconds_is_looked_for_twice_a_second() -> None:
    assert app._WATCH_S <= 0.5


async def test_an_end_is_noticed_though_no_row_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_WATCH_S", 0)
    async with relay(tmp_path / "data") as running:
        for rule in running.control.access.rules(running.tenant.account_id):
            running.control.access.delete_rule(running.tenant.account_id, rule.id)
        list_until(running, running.clock.now() + 3600)
        await running.service.changed()
        watch = app.Watch(running.control, running.service.changed, running.service.follow_access)
        watch.start()
        client = await running.client()
        table = running.service.relay.access
        await running.service.follow_access()
        assert running.service.relay.access is table
        running.clock.advance(3601)
        assert await client.heard() == "421 4.7.0 Access withdrawn, closing"
        assert await client.heard() == ""
        client.close()
        assert not running.service.relay.access.welcome("127.0.0.1", "public").allowed
        await watch.stop()


async def test_who_may_connect_waits_for_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_WATCH_S", 0)
    async with relay(tmp_path / "data") as running:
        held = asyncio.Event()
        monkeypatch.setattr(running.service.holds, "changed", held.wait)
        watch = app.Watch(running.control, running.service.changed, running.service.follow_access)
        watch.start()
        running.control.tenancy.create_account("another")
        client = await running.client()
        for rule in running.control.access.rules(running.tenant.account_id):
            running.control.access.delete_rule(running.tenant.account_id, rule.id)
        assert await client.heard() == "421 4.7.0 Access withdrawn, closing"
        client.close()
        held.set()
        await watch.stop()


async def test_many_sessions_are_looked_at_in_helpings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_HELPING", 2)
    async with relay(tmp_path / "data") as running:
        clients = [await running.client(login=False) for _ in range(6)]
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += len({id(s) for s in sessions if not s.is_current}) in (2, 4)

        sessions: list[Any] = [connection.session for connection in running.service.listeners.connections]
        for rule in running.control.access.rules(running.tenant.account_id):
            running.control.access.delete_rule(running.tenant.account_id, rule.id)
        task = asyncio.ensure_future(others())
        await running.service.changed()
        task.cancel()
        assert turns >= 2
        for client in clients:
            assert await client.heard() == "421 4.7.0 Access withdrawn, closing"
            client.close()


def list_until(running: TestRelay, ends_at: float) -> None:
    running.control.allow_lists.create(
        running.tenant.account_id,
        running.tenant.instance_id,
        networks=(Address("subnet", "127.0.0.0/8"),),
        ends_at=ends_at,
        note="",
        by="test",
    )
