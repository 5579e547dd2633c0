"""A 250 is a promise: not before the disk has it, not if the disk fails, and never broken by a SIGKILL."""

from __future__ import annotations

import asyncio
import base64
import errno
import random
import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.receiver import Receiver
from support.relay import letter, relay
from support.running import Running

pytestmark = pytest.mark.scenario
KILLS = 20
CONNECTIONS = 20


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class Disk:
    """Stands between the spool and fdatasync."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.error: OSError | None = None
        self.synced = 0

    def __call__(self, descriptor: int) -> None:
        self.asked.set()
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        self.synced += 1


async def test_no_250_before_the_sync_has_returned(tmp_path: Path) -> None:
    disk, receiver = Disk(), Receiver()
    async with relay(tmp_path / "data", sync=disk, deliver_to=receiver.start()) as running:
        client = await running.client()
        assert (await client.envelope()).startswith("354 ")
        disk.gate.clear()
        disk.asked.clear()
        answer = asyncio.ensure_future(client.send(letter("held")))
        await asyncio.to_thread(disk.asked.wait, 60)
        # The relay is alive and answers others, but not this client: its message is not on disk.
        other = await running.client()
        for _ in range(20):
            assert (await other.say("NOOP")).startswith("250 ")
        assert not answer.done()
        assert not receiver.seen
        before = disk.synced
        disk.gate.set()
        assert (await answer).startswith("250 2.0.0 Ok: queued as ")
        assert disk.synced > before
        await until(lambda: receiver.seen["<held@example.test>"] == 1)
        client.close()
        other.close()
    await receiver.stop()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_failing_sync_is_a_4xx_and_nothing_goes_out(tmp_path: Path, number: int) -> None:
    disk, receiver = Disk(), Receiver()
    async with relay(tmp_path / "data", sync=disk, deliver_to=receiver.start()) as running:
        client = await running.client()
        assert (await client.envelope()).startswith("354 ")
        disk.error = OSError(number, "injected")
        assert (await client.send(letter("lost"))).startswith("451 4.3.0 ")
        disk.error = None
        # The session goes on, and the next message is taken and delivered.
        assert (await client.envelope()).startswith("354 ")
        assert (await client.send(letter("kept"))).startswith("250 ")
        await until(lambda: receiver.seen["<kept@example.test>"] == 1)
        assert receiver.seen["<lost@example.test>"] == 0
        assert await asyncio.to_thread(running.service.store.messages, message_id="<lost@example.test>") == (0, [])
        client.close()
    await receiver.stop()


class Load:
    """Twenty clients that send one message after the other and write down what was acknowledged."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.acknowledged: dict[str, str] = {}
        self.stopping = False
        self._number = 0
        self.context = ssl.create_default_context(cafile=running.dev["ca_file"])
        self.context.check_hostname = False

    async def client(self, name: int) -> None:
        while not self.stopping:
            try:
                await self._session(name)
            except (OSError, EOFError, asyncio.IncompleteReadError, ssl.SSLError):
                await asyncio.sleep(0.02)  # the service is down: try again

    async def _session(self, name: int) -> None:
        host, port = self.running.address("submissions")
        reader, writer = await asyncio.open_connection(host, port, ssl=self.context)

        async def answer() -> str:
            while True:
                line = (await reader.readline()).decode()
                if not line.endswith("\r\n"):
                    raise EOFError
                if line[3] != "-":
                    return line

        try:
            await answer()
            writer.write(b"EHLO load.test\r\n")
            await answer()
            dev = self.running.dev
            login = base64.b64encode(f"\0{dev['smtp_user']}\0{dev['smtp_password']}".encode())
            writer.write(b"AUTH PLAIN " + login + b"\r\n")
            if not (await answer()).startswith("235"):
                raise EOFError
            while not self.stopping:
                self._number += 1
                await self._message(writer, answer, f"{name}.{self._number}")
        finally:
            writer.close()

    async def _message(self, writer: asyncio.StreamWriter, answer: Callable[[], object], name: str) -> None:
        domain = self.running.dev["domain"]
        writer.write(f"MAIL FROM:<a@{domain}>\r\nRCPT TO:<you@receiver.test>\r\nDATA\r\n".encode())
        for _ in range(3):
            await answer()  # type: ignore[misc]
        writer.write(letter(name, f"a@{domain}") + b".\r\n")
        line: str = await answer()  # type: ignore[misc]
        found = re.match(r"250 2\.0\.0 Ok: queued as (\w+)", line)
        if found:
            self.acknowledged[found[1]] = f"<{name}@example.test>"
        await asyncio.sleep(0.01)


async def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    receiver = Receiver()
    place = receiver.start()
    running = Running(tmp_path / "data", f'[relay]\ndeliver_to = "{place}"\nconnections_per_site = 4\n')
    await asyncio.to_thread(running.start)
    running.keep_ports()
    load = Load(running)
    clients = [asyncio.ensure_future(load.client(number)) for number in range(CONNECTIONS)]
    try:
        for _ in range(KILLS):
            before = len(load.acknowledged)
            enough = before + random.randint(1, 150)
            await until(lambda enough=enough: len(load.acknowledged) >= enough)
            await asyncio.sleep(random.random() * 0.05)
            running.kill()
            await asyncio.to_thread(running.start)
        load.stopping = True
        await asyncio.gather(*clients)
        acknowledged = dict(load.acknowledged)
        await until(lambda: all(receiver.seen[message_id] for message_id in acknowledged.values()))
        assert len(acknowledged) > KILLS
        # The record agrees, one final status each.
        for queue_id in random.sample(sorted(acknowledged), min(len(acknowledged), 200)):
            found = await asyncio.to_thread(running.settled, queue_id)
            assert [r["status"] for r in found["recipients"]] == ["delivered"]
            assert found["message_id"] == acknowledged[queue_id]
        total = running.api.call("GET", f"{running.api.messages()}?limit=1")["total_count"]
        assert total >= len(acknowledged)
    finally:
        load.stopping = True
        for client in clients:
            client.cancel()
        assert await asyncio.to_thread(running.stop) == 0
        await receiver.stop()
