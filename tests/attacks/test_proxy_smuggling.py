"""Requests that two readers may read differently: what the target sees is what was judged, or nothing.

The corpus (tests/corpora/proxy_requests.json) has what is sent, the statuses of the answers, and for each request that
the target may see its method, target and content."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from outgate.base.tasks import spawn
from support.http_proxy import RawTarget, World

CORPUS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "corpora" / "proxy_requests.json").read_text("utf-8")
)


async def _whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """Read a request as its head says, answer, and keep what else may come."""
    lines = head.lower().split(b"\r\n")
    body = b""
    if b"transfer-encoding: chunked" in lines:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        assert await reader.readexactly(2) == b"\r\n"
    for line in lines:
        if line.startswith(b"content-length: "):
            body = await reader.readexactly(int(line.split(b" ")[1]))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.write_eof()
    SEEN.append((head, body, await reader.read()))


SEEN: list[tuple[bytes, bytes, bytes]] = []


def statuses(raw: bytes) -> list[int]:
    """Return the statuses of the answers in `raw`, each of which has a length."""
    found: list[int] = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        found.append(int(head.split(b" ")[1]))
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        raw = rest[int(length.split(b" ")[1]) :]
    return found


def test_the_corpus_is_large_and_its_names_are_its_own() -> None:
    assert len(CORPUS) >= 40 and len({each["name"] for each in CORPUS}) == len(CORPUS)


async def judged(world: World, port: int, case: dict[str, Any], piece: int) -> bytes:
    """Send a case in pieces; see that its answers and what the target saw are the corpus's, and return the answers."""
    SEEN.clear()
    inner = case.get("length_of", "").replace("PORT", str(port))
    raw = case["raw"].replace("PORT", str(port)).replace("LENGTH", str(len(inner))).encode("latin-1")
    reader, writer = await world.dial()
    reading = spawn(reader.read(), "answers")
    for begin in range(0, len(raw), piece):
        writer.write(raw[begin : begin + piece])
        await asyncio.sleep(0)
        if writer.is_closing() or reading.done():
            break
    else:
        writer.write_eof()
    answers = await reading
    writer.close()
    assert statuses(answers) == case["statuses"], (case["name"], answers)
    # A body that breaks ends what had begun: the target is told of no whole request.
    assert [f"{head.decode().split(' HTTP')[0]}|{body.decode()}" for head, body, _ in SEEN] == [
        each.replace("PORT", str(port)) for each in case["targets"]
    ], case["name"]
    for head, _, rest in SEEN:
        assert rest == b"" and head.count(b"\r\nHost: ") == 1 and b"smuggled" not in head.split(b"\r\n", 1)[1]
        assert f"\r\nHost: target.example:{port}\r\n".encode() in head
    return answers


@pytest.mark.parametrize("case", CORPUS, ids=[each["name"] for each in CORPUS])
async def test_the_target_sees_what_was_judged(tmp_path: Path, case: dict[str, Any]) -> None:
    async with World(tmp_path) as world, RawTarget(_whole) as target:
        answers = await judged(world, target.port, case, 100_000)
        refused = [line for line in world.lines("decision") if line["refusal"]]
        assert len(refused) <= 1 and all(line["refusal"] == "request" for line in refused)
        assert b"secret" not in answers and "secret" not in (tmp_path / "egress-audit.jsonl").read_text()


@pytest.mark.parametrize("piece", [1, 7])
async def test_it_is_the_same_in_whatever_pieces_it_comes(tmp_path: Path, piece: int) -> None:
    async with World(tmp_path) as world, RawTarget(_whole) as target:
        for case in CORPUS:
            await judged(world, target.port, case, piece)
