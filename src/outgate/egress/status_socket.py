"""Tell how the egress stands over a Unix socket: one line of JSON to whoever connects, then the end.

Standards: RFC 8259.
Promises: those of `local_socket`.
Not here: the document (`status`), who prints it (`cli.egress`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outgate.egress import local_socket
from outgate.egress.local_socket import NotServing as NotServing

NAME = "egress.sock"
_LONGEST_S = 5.0
_MOST_BYTES = 256 * 1024 * 1024


async def serve(directory: Path, document: Callable[[], dict[str, Any]]) -> local_socket.Server:
    """Answer at `egress.sock` of a directory with what `document` returns. Raises `OSError`."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(document(), ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")

    return await local_socket.serve(directory / NAME, answer, seconds=_LONGEST_S)


async def ask(directory: Path) -> dict[str, Any]:
    """Return the document of the process that serves a directory. Raises `NotServing`."""
    line = await local_socket.ask(directory / NAME, b"", seconds=_LONGEST_S, most_bytes=_MOST_BYTES)
    found: dict[str, Any] = json.loads(line)
    return found


def read(directory: Path) -> dict[str, Any]:
    """Do as `ask` does, where there is no event loop. Blocks."""
    return asyncio.run(ask(directory))
