"""What `app` decides about the HTTP side, and how the relay follows the control store."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate import app
from outgate.app import serve_http
from outgate.base.clock import OffsetClock
from outgate.model.access import Address
from outgate.relay.passwords import new_verifier, password_hasher
from outgate.smtp.asyncio.server import listening_socket
from support.relay import Client, TestRelay, letter, relay


async def test_who_calls_is_who_connects_whatever_a_header_says() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps([scope["client"][0], scope["scheme"]]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    sock = listening_socket("127.0.0.1", 0)
    server, task = await serve_http(echo, sock)
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"}
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
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


async def test_a_list_is_told_of_on_its_day_and_nothing_is_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("outgate.base.log.Log.warning", lambda self, event, **fields: told.append(event))
    async with relay(tmp_path / "data") as running:
        service, day = running.service, 86_400.0
        list_until(running, running.clock.now() + 20 * day)
        await service.changed()
        looked, look = [], service._access
        monkeypatch.setattr(service, "_access", lambda: (looked.append(1), look())[1])
        for days, lines in ((5, 0), (1.1, 1), (0.5, 1), (0.5, 2), (1.0, 3)):
            running.clock.advance(days * day)
            before = len(looked)
            for _ in range(3):
                await service.follow_access()
            assert told.count("access.allow_list_ends") == lines
            assert len(looked) - before <= 1  # some microseconds else
        assert len(looked) == 3


def list_until(running: TestRelay, ends_at: float) -> None:
    running.control.allow_lists.create(
        running.tenant.account_id,
        running.tenant.instance_id,
        networks=(Address("subnet", "127.0.0.0/8"),),
        ends_at=ends_at,
        note="",
        by="test",
    )


async def test_chunks_and_wishes_go_the_whole_way_into_the_queue(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()
        assert (await client.say("MAIL FROM:<a@example.test> RET=HDRS ENVID=QQ REQUIRETLS")).startswith("250 ")
        assert (await client.say("RCPT TO:<you@receiver.test> NOTIFY=NEVER ORCPT=rfc822;me@x.test")).startswith("250 ")
        message = letter()
        client.writer.write(b"BDAT 20\r\n" + message[:20] + b"BDAT %d LAST\r\n" % (len(message) - 20) + message[20:])
        assert await client.heard() == "250 2.0.0 20 octets received"
        assert (await client.heard()).startswith("250 2.0.0 Ok: queued as ")
        with closing(sqlite3.connect(tmp_path / "data" / "queue-0.db")) as connection:
            assert connection.execute("SELECT ret, envid, requiretls FROM messages").fetchall() == [("HDRS", "QQ", 1)]
            assert connection.execute("SELECT notify, orcpt FROM recipients").fetchall() == [
                ("NEVER", "rfc822;me@x.test")
            ]
        assert running.service.relay.intake.held == 0
        client.close()


async def test_caps_on_connections_hold_over_all_listeners(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", connections=1) as running:
        first = await running.client()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.submission)
        assert (await reader.read()).startswith(b"421 4.3.2 ")
        writer.close()
        first.close()


async def test_what_all_sessions_hold_has_the_end_that_a_setting_says(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", receiving_bytes=65_536, max_message_bytes=65_536, min_data_rate=7) as running:
        one, two = await running.client(), await running.client()
        connection = next(iter(running.service.listeners.connections))
        assert connection._listener.options.timeouts.rate == 7
        assert (await one.envelope()).startswith("354 ")
        one.writer.write(letter() + b"x" * 60_000)
        await one.writer.drain()
        while running.service.relay.intake.held < 60_000:
            await asyncio.sleep(0)
        assert (await two.say("MAIL FROM:<a@example.test>")).startswith("452 4.3.1 ")
        one.close()
        while running.service.relay.intake.held:
            await asyncio.sleep(0)
        assert (await two.envelope()).startswith("354 ")
        two.close()


async def test_an_end_by_the_time_of_day_ends_idle_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's end date and the end of a rotation's overlap: no row changes, nobody says anything."""
    monkeypatch.setattr(app, "_WATCH_S", 0)
    async with relay(tmp_path / "data") as running:
        tenant, control = running.tenant, running.control
        until = running.clock.now() + 60
        _, text = control.identity.create_api_key(tenant.account_id, "mailer", ["smtp"], expires_at=until)
        rotated = await running.client()
        (configuration,) = control.tenancy.configurations(tenant.instance_id).items
        (user,) = control.tenancy.users(configuration.id).items
        found = control.tenancy.credential(tenant.smtp_user)
        assert found is not None
        new = new_verifier("new", like=found[0].verifier)
        control.tenancy.rotate_user(configuration.id, user.id, verifier=new, overlap_s=30)
        await running.service.changed()
        by_key = await login(running, text)
        stays = await login(running, "new")
        watch = app.Watch(
            control, running.service.changed, running.service.follow_access, running.service.follow_logins
        )
        watch.start()
        for client in (rotated, by_key):
            running.clock.advance(31)
            assert await client.heard() == "421 4.7.0 Access withdrawn, closing"
            assert await client.heard() == ""
            client.close()
        assert (await stays.say("NOOP")).startswith("250 ")
        stays.close()
        await watch.stop()


async def test_senders_are_never_read_on_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[threading.Thread] = []
    async with relay(tmp_path / "data") as running:
        tenancy, identity = running.control.tenancy, running.control.identity
        for store, name in ((tenancy, "senders"), (tenancy, "credential"), (identity, "api_key")):
            find = getattr(store, name)
            monkeypatch.setattr(
                store, name, lambda asked, find=find: (read.append(threading.current_thread()), find(asked))[1]
            )
        _, text = identity.create_api_key(running.tenant.account_id, "mailer", ["smtp"])
        password = running.tenant.smtp_password
        clients: list[Client] = []
        for _ in range(3):
            tenancy.create_account("another")
            await running.service.changed()
            clients += [await login(running, text), await login(running, password)]
            for client in clients:
                assert (await client.envelope()).startswith("354 ")
                assert (await client.send(letter())).startswith("250 ")
            await running.service.follow_logins()
            for client in clients[:2]:
                clients.remove(client)
                assert (await client.say("QUIT")).startswith("221 ")
                client.close()
        for client in clients:
            client.close()
    assert read and threading.current_thread() not in read


async def test_who_logs_in_while_all_are_read_anew_is_read_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(tmp_path / "data") as running:
        service, tenancy, tenant = running.service, running.control.tenancy, running.tenant
        (configuration,) = tenancy.configurations(tenant.instance_id).items
        verifier = password_hasher().hash("second")
        user = tenancy.create_user(tenant.instance_id, configuration.id, description="", verifier=verifier)
        first = await running.client()
        (await login(running, "second", user.username)).close()
        while len(service.listeners.connections) > 1:
            await asyncio.sleep(0)
        find, slow = tenancy.senders, threading.Event()
        monkeypatch.setattr(tenancy, "senders", lambda names: (find(names), slow.wait(10))[0])
        look = asyncio.ensure_future(service.changed())
        while not service._reading.locked():
            await asyncio.sleep(0)
        idle = await login(running, "second", user.username)  # from memory, and no more among those in use
        tenancy.delete_user(configuration.id, user.id)
        slow.set()
        await look
        await service.follow_logins()
        assert await idle.heard() == "421 4.7.0 Access withdrawn, closing"
        idle.close()
        first.close()


async def test_who_sent_before_a_restart_is_familiar_after_it(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()
        assert (await client.envelope()).startswith("354 ")
        assert (await client.send(letter())).startswith("250 ")
        client.close()
    for days, expected in ((6.0, None), (2.0, 8.0)):
        OffsetClock(tmp_path / "data" / "clock").advance(days * 86_400)
        async with relay(tmp_path / "data") as running:
            guessing, now = running.service.relay.guessing, running.clock.now()
            for number in range(40):
                guessing.failed("somebody", "127.0.0.1", str(number).encode(), now)
            slowed = guessing.before(running.tenant.smtp_user, "127.0.0.1", now)
            assert (slowed and slowed.wait_s) == expected


async def login(running: TestRelay, password: str, user: str = "") -> Client:
    client = await running.client(login=False)
    text = base64.b64encode(f"\0{user or running.tenant.smtp_user}\0{password}".encode()).decode()
    assert (await client.say("AUTH PLAIN " + text)).startswith("235 ")
    return client


@pytest.mark.parametrize(("hard", "soft", "told"), [(-1, 6096, False), (6096, 6096, False), (2000, 2000, True)])
def test_open_files_are_as_many_as_the_connections_need(hard: int, soft: int, told: bool) -> None:
    code = (
        "import resource; from outgate import app, settings\n"
        f"_, most = resource.getrlimit(resource.RLIMIT_NOFILE); hard = {hard} if {hard} > 0 else most\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))\n"
        "app.allow_sockets(settings.load(None, relay={'connections': 2000}))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(soft)
    assert ("process.few_files" in ran.stderr) is told
