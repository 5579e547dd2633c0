"""Smuggling by BDAT: a chunk's octets are content, whatever they look like to whoever reads them next."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lax_reader import LaxReader
from support.relay import letter, relay

SECOND = b"MAIL FROM:<smuggled@example.test>\r\nRCPT TO:<victim@receiver.test>\r\nDATA\r\nFrom: ceo@example.test\r\n\r\npay\r\n"
TRUE_END = [b"\r\n.\r\n", b"\r\n..\r\n", b"\r\n.\r\n.\r\n"]
SPELLINGS = [
    *TRUE_END,
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0.\r",
]


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("bare_line_ends", ["refuse", "replace"])
async def test_a_chunk_ends_nothing_for_a_second_reader(tmp_path: Path, bare_line_ends: str, cut: int) -> None:
    second = LaxReader()
    async with relay(tmp_path / "data", deliver_to=await second.start(), bare_line_ends=bare_line_ends) as running:
        taken = 0
        for number, spelling in enumerate(SPELLINGS):
            client = await running.client()
            assert (await client.say("MAIL FROM:<a@example.test>")).startswith("250 ")
            assert (await client.say("RCPT TO:<you@receiver.test>")).startswith("250 ")
            content = letter(number) + b"x" + spelling + SECOND
            at = len(letter(number)) + cut  # `cut` octets into the spelling
            if cut:
                client.writer.write(b"BDAT %d\r\n" % at + content[:at])
                assert (await client.heard()).startswith("250 ")
                content = content[at:]
            client.writer.write(b"BDAT %d LAST\r\n" % len(content) + content)
            answer = await client.heard()
            refused = spelling not in TRUE_END and (bare_line_ends == "refuse" or b"\0" in spelling)
            assert answer.startswith("550 5.6.11 " if refused else "250 2.0.0 "), spelling
            assert await client.say("NOOP") == "250 2.0.0 Ok"
            taken += not refused
            client.close()
        await second.holds(taken)
    await second.stop()
    assert len(second.taken) == taken
    assert all(message.recipients == [b"RCPT TO:<you@receiver.test>"] for message in second.taken)
    assert b"smuggled" not in b"".join(message.sender for message in second.taken)
