"""Getting in, or finding out who is there, without the right to."""

from __future__ import annotations

import asyncio
import base64
import itertools
from pathlib import Path
from typing import Any

import pytest

from outgate.relay import passwords
from support.relay import Client, TestRelay, letter, relay


async def in_the_clear(running: TestRelay, address: str = "127.0.0.1") -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.submission, local_addr=(address, 0))
    return Client(reader, writer)


async def login(running: TestRelay, user: str, password: str, source: str = "127.0.0.1") -> str:
    client = await running.client(login=False, source=source)
    answer = await client.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())
    client.close()
    return answer


async def test_an_unknown_name_costs_and_reads_what_a_wrong_password_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[str] = []
    compute = passwords.hash_secret_raw

    def counted(secret: bytes, salt: bytes, *cost: Any) -> bytes:
        costs.append(repr(cost))
        return compute(secret, salt, *cost)

    monkeypatch.setattr(passwords, "hash_secret_raw", counted)
    async with relay(tmp_path / "data") as running:
        seen: set[tuple[str, tuple[str, ...]]] = set()
        users = (running.tenant.smtp_user, "nobodynobodynobody00", "x", "admin@example.test", "é" * 100)
        for number, (user, password) in enumerate(itertools.product(users, ("wrong", "x" * 1000))):
            costs.clear()
            seen.add((await login(running, user, password, f"127.{100 + number}.0.1"), tuple(costs)))
        ((answer, hashed),) = seen
        assert answer == "535 5.7.8 Authentication credentials invalid" and len(hashed) == 1
        assert (await login(running, running.tenant.smtp_user, running.tenant.smtp_password)).startswith("235 ")


async def test_no_command_tells_who_exists(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        names = [running.tenant.smtp_user, "a@example.test", "nobody@example.test", "root", "x@elsewhere.test"]
        for logged_in in (False, True):
            client = await running.client(login=logged_in)
            for verb in ("VRFY", "EXPN"):
                assert len({await client.say(f"{verb} {name}") for name in names}) == 1
            client.close()
        client = await running.client()
        assert (await client.say("MAIL FROM:<a@example.test>")).startswith("250 ")
        assert len({await client.say(f"RCPT TO:<{name}>") for name in names if "@" in name}) == 1
        client.close()


async def test_nobody_relays_without_all_of_network_login_and_sender(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await in_the_clear(running)
        await client.heard()
        for line in ("EHLO c", "HELO c"):
            await client.say(line)
            for sender in ("", "a@example.test", "a@elsewhere.test"):
                assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("530 5.7.0 ")
                assert (await client.say("RCPT TO:<you@receiver.test>")).startswith("503 ")
            await client.say("RSET")
            client.close()
            client = await in_the_clear(running)
            await client.heard()
        client.close()
        client = await running.client(login=False)
        assert (await client.say("MAIL FROM:<a@example.test>")).startswith("530 5.7.0 ")
        assert (await client.say("DATA")).startswith("503 ")
        client.close()
        client = await running.client()
        for sender in ("a@elsewhere.test", "a@sub.example.test", "a@example.test.elsewhere.test", "a@[127.0.0.1]"):
            assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("550 5.7.1 "), sender
        assert (await client.envelope()).startswith("354 ")
        assert (await client.send(letter(sender="a@elsewhere.test"))).startswith("550 5.7.1 ")
        client.close()


async def test_a_stranger_reads_one_refusal_on_587_and_nothing_on_465(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await in_the_clear(running, "127.66.0.1")
        client.writer.write(b"EHLO c\r\nSTARTTLS\r\n")
        assert (await client.heard()).startswith("554 5.7.1 ")
        assert await client.heard() == ""
        client.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.submissions, local_addr=("127.66.0.1", 0))
        assert await reader.read() == b""
        writer.close()
