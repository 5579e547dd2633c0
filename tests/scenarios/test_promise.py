"""A 250 is a promise: not before the disk has it, and not if the disk fails; what a SIGKILL does to it: `test_kill_run`."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.receiver import Receiver
from support.relay import letter, relay

pytestmark = pytest.mark.scenario


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
