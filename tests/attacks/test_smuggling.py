"""SMTP smuggling: what is one message here is one message to whoever reads it next."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lax_reader import LaxReader
from support.relay import TestRelay, letter, relay

SPELLINGS = [
    b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n", b"\n\n.\n\n", b"\r\r\n.\n", b"\n\r.\r\n", b"\n\r.\n\r",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\n\0.\n", b"\r\0\n.\r\0\n", b"\r\n\0\r\n.\n", b"\n..\n", b"\r.\r\n..\n",
]  # fmt: skip
SECOND = b"MAIL FROM:<smuggled@example.test>\r\nRCPT TO:<victim@receiver.test>\r\nDATA\r\nFrom: ceo@example.test\r\n\r\npay\r\n"


async def send(running: TestRelay, content: bytes) -> str:
    client = await running.client()
    assert (await client.envelope()).startswith("354 ")
    answer = await client.send(content)
    assert await client.say("NOOP") == "250 2.0.0 Ok"  # nothing of it was taken for a command
    client.close()
    return answer


@pytest.mark.parametrize("bare_line_ends", ["refuse", "replace"])
async def test_a_second_reader_sees_one_message_for_each_spelling(tmp_path: Path, bare_line_ends: str) -> None:
    second = LaxReader()
    async with relay(tmp_path / "data", deliver_to=await second.start(), bare_line_ends=bare_line_ends) as running:
        taken = 0
        for number, spelling in enumerate(SPELLINGS):
            answer = await send(running, letter(number) + b"x" + spelling + SECOND)
            refused = bare_line_ends == "refuse" or b"\0" in spelling
            assert answer.startswith("550 5.6.11 " if refused else "250 2.0.0 "), spelling
            taken += not refused
        assert (await send(running, letter("honest"))).startswith("250 ")
        await second.holds(taken + 1)
    await second.stop()
    assert len(second.taken) == taken + 1
    for message in second.taken:
        assert message.sender == b"MAIL FROM:<a@example.test>" or message.sender.startswith(
            b"MAIL FROM:<a@example.test> "
        )
        assert message.recipients == [b"RCPT TO:<you@receiver.test>"]
    paired = bytes(second.raw).replace(b"\r\n", b"")
    assert b"\r" not in paired and b"\n" not in paired and b"\0" not in paired


async def test_commands_behind_the_true_end_are_a_second_transaction_with_its_own_answers(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = await running.client()
        assert (await client.envelope()).startswith("354 ")
        client.writer.write(letter() + b".\r\n" + SECOND.replace(b"example", b"elsewhere") + b".\r\n")
        assert (await client.heard()).startswith("250 2.0.0 ")
        assert (await client.heard()).startswith("550 5.7.1 ")  # its sender is judged as any other's
        assert (await client.heard()).startswith("503 ")
        assert (await client.heard()).startswith(("503 ", "554 "))
        client.close()
