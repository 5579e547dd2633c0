"""Have a connectivity test made by the process that carries: one line of JSON each way over a Unix socket.

Standards: RFC 8259.
Promises: those of `local_socket`; what is asked is an environment, a host and a port, and nothing else is done for it.
Dangers: who may connect is the service's user, who has been judged and written down by the API that asks.
Not here: the test (`connectivity`), who may have one made (`api.cloud_manager.connectivity`).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

from outgate.egress import local_socket
from outgate.egress.refusal import Refused

NAME = "egress-test.sock"
# A test takes five at most.
_LONGEST_S = 10.0
_MOST_BYTES = 1024 * 1024


class Tests(Protocol):
    """What makes the test (`connectivity.Connectivity`)."""

    async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
        """Return the result in the vendor's shape. Raises `Refused`."""
        ...


async def serve(directory: Path, tests: Tests) -> local_socket.Server:
    """Make tests for whoever asks at `egress-test.sock` of a directory. Raises `OSError`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            environment_id, host, port = json.loads(await reader.readline())
            port = int(port)
        except (ValueError, TypeError, RecursionError):
            return  # no question of ours: who asks sees the end
        try:
            found: dict[str, object] = {"found": await tests.test(str(environment_id), str(host), port)}
        except Refused as refused:
            found = {"refused": str(refused), "kind": refused.kind}
        writer.write(json.dumps(found, ensure_ascii=True).encode("ascii") + b"\n")

    return await local_socket.serve(directory / NAME, answer, seconds=_LONGEST_S)


async def ask(directory: Path, environment_id: str, host: str, port: int) -> dict[str, object]:
    """Return what a test finds that the process makes which serves a directory. Raises `Refused`."""
    question = json.dumps([environment_id, host, port], ensure_ascii=True).encode("ascii") + b"\n"
    try:
        line = await local_socket.ask(directory / NAME, question, seconds=_LONGEST_S, most_bytes=_MOST_BYTES)
    except local_socket.NotServing as error:
        raise Refused("closed", str(error)) from None
    answer: dict[str, Any] = json.loads(line)
    if "refused" in answer:
        raise Refused(answer["kind"], answer["refused"])
    found: dict[str, object] = answer["found"]
    return found
