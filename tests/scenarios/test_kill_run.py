"""Killed at random at least twenty times under load: every recipient of every acknowledged message ends once, none is
lost, and who may have got it twice is told."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.mailing import zone
from support.moody import Moody
from support.relay import letter
from support.running import Running

pytestmark = pytest.mark.scenario
KILLS = 20
CLIENTS = 10
SITES = {"one.example": "127.0.8.1", "two.example": "127.0.8.2", "three.example": "127.0.8.3"}
SETTINGS = "[relay]\nretry_first_s = 1.0\nretry_most_s = 2.0\nconnections_per_site = 4\nwrong_logins = 1000\n"
FINAL = {"delivered", "bounced", "expired", "suppressed", "cancelled"}
COMMIT_S = 1.0
"""How long before a kill an answer may have come that was not on disk yet: many times what a commit takes."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.02)


class Load:
    """Clients that send one message after the other, and write down what was acknowledged: queue id → (Message-ID,
    recipients)."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.acknowledged: dict[str, tuple[str, list[str]]] = {}
        self.stopping = False
        self._number = 0
        self.context = ssl.create_default_context(cafile=running.dev["ca_file"])
        self.context.check_hostname = False

    async def client(self) -> None:
        while not self.stopping:
            try:
                await self._session()
            except (OSError, EOFError, asyncio.IncompleteReadError, ssl.SSLError):
                await asyncio.sleep(0.05)  # the service is down: try again

    async def _session(self) -> None:
        host, port = self.running.address("submissions")
        reader, writer = await asyncio.open_connection(host, port, ssl=self.context)

        async def answer() -> str:
            while True:
                line = (await reader.readline()).decode()
                if not line.endswith("\r\n"):
                    raise EOFError
                if line[3] != "-":
                    return line

        async def say(line: str) -> str:
            writer.write(line.encode() + b"\r\n")
            return await answer()

        try:
            await answer()
            await say("EHLO load.test")
            dev = self.running.dev
            login = base64.b64encode(f"\0{dev['smtp_user']}\0{dev['smtp_password']}".encode()).decode()
            if not (await say(f"AUTH PLAIN {login}")).startswith("235"):
                raise EOFError
            while not self.stopping:
                await self._message(say, writer)
        finally:
            writer.close()

    async def _message(self, say: Callable[[str], Awaitable[str]], writer: asyncio.StreamWriter) -> None:
        self._number += 1
        name, domain = f"n{self._number}", self.running.dev["domain"]
        kinds = random.choices(["ann", "gone", "later"], [8, 1, 1], k=random.randint(1, 4))
        people = [f"{kind}.{name}.{n}@{random.choice(list(SITES))}" for n, kind in enumerate(kinds)]
        for line in (f"MAIL FROM:<a@{domain}>", *(f"RCPT TO:<{each}>" for each in people), "DATA"):
            if (await say(line))[0] not in "23":
                raise EOFError
        writer.write(letter(name, f"a@{domain}"))
        found = re.match(r"250 2\.0\.0 Ok: queued as (\w+)", await say("."))
        if found:
            self.acknowledged[found[1]] = (f"<{name}@example.test>", people)
        await asyncio.sleep(0.02)


async def test_killed_twenty_times_each_recipient_ends_once(tmp_path: Path) -> None:
    running = Running(tmp_path / "data", SETTINGS)
    running.keep_ports()
    await asyncio.to_thread(running.start)
    moody = Moody()
    for domain, address in SITES.items():
        moody.listen(address, running.address("inbox")[1])
        zone(running, domain, "MX", f"10 mx.{domain}.")
        zone(running, f"mx.{domain}", "A", address)
    load, kills = Load(running), []
    clients = [asyncio.ensure_future(load.client()) for _ in range(CLIENTS)]
    try:
        for _ in range(KILLS):
            enough = len(load.acknowledged) + random.randint(5, 60)
            await until(lambda enough=enough: len(load.acknowledged) >= enough)
            await asyncio.sleep(random.random() * 0.1)
            running.kill()
            kills.append(time.monotonic())
            await asyncio.to_thread(running.start)
        load.stopping = True
        await asyncio.gather(*clients)
        assert len(load.acknowledged) > KILLS
        stories = await _drained(running, list(load.acknowledged))
        _judge(stories, load, moody, kills)
    finally:
        load.stopping = True
        for client in clients:
            client.cancel()
        code = await asyncio.to_thread(running.stop)
        await moody.stop()
    assert code == 0


async def _drained(running: Running, queue_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Wait until every recipient of every message has a final status; return the messages' stories."""
    stories = {}
    for queue_id in queue_ids:
        stories[queue_id] = await asyncio.to_thread(running.settled, queue_id)
    return stories


def _judge(stories: dict[str, dict[str, Any]], load: Load, moody: Moody, kills: list[float]) -> None:
    twice = 0
    for queue_id, (message_id, people) in load.acknowledged.items():
        story = stories[queue_id]
        assert story["message_id"] == message_id
        states = {each["mailbox"]: each["status"] for each in story["recipients"]}
        assert sorted(states) == sorted(people)
        ends = Counter(event["recipient"] for event in story["timeline"] if event["event"] in FINAL)
        assert ends == Counter(people), story["timeline"]
        for mailbox in people:
            arrivals = moody.arrivals.get((message_id, mailbox), [])
            if mailbox.startswith("gone"):
                assert (states[mailbox], arrivals) == ("bounced", [])
                continue
            assert states[mailbox] == "delivered"
            assert arrivals, (queue_id, mailbox)
            for earlier in arrivals[:-1]:
                # Only if we cannot have known that it was taken: no answer came, or we died before it was on disk.
                answered = earlier.answered_at
                assert answered is None or any(answered - 0.1 <= kill <= answered + COMMIT_S for kill in kills)
            if len(arrivals) > 1:
                twice += 1
                told = [event for event in story["timeline"] if "may have arrived" in event["detail"]]
                assert any(event["recipient"] in (mailbox, "") for event in told), story["timeline"]
    print(f"{len(stories)} messages, {len(kills)} kills, {twice} recipients got theirs twice")
