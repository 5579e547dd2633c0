"""Tell how the egress stands over a Unix socket: one line of JSON to whoever connects, then the end.

Standards: RFC 8259; unix(7).
Promises: only the service's user and root can connect; a socket that a killed process left is replaced; who does not
    read is left after some seconds.
Dangers: call `serve` with the lock of the directory only: it removes what is there under the socket's name.
Not here: the document (`status`), who prints it (`cli.egress`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAME = "egress.sock"
_LONGEST_S = 5.0
_BACKLOG = 16
_MOST_BYTES = 256 * 1024 * 1024


class NotServing(Exception):
    """Nobody answers at a socket; the text says which, why, and what to do."""


class Server:
    """A status socket that is open."""

    def __init__(self, server: asyncio.Server, path: Path) -> None:
        self._server = server
        self._path = path

    async def stop(self) -> None:
        """Answer no more, and take the socket away."""
        self._server.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


async def serve(directory: Path, document: Callable[[], dict[str, Any]]) -> Server:
    """Answer at `egress.sock` of a directory with what `document` returns. Raises `OSError`."""
    path = directory / NAME
    with suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.setblocking(False)
        before = os.umask(0o177)
        try:
            with _reachable(directory) as short:
                listening.bind(short)
        finally:
            os.umask(before)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_LONGEST_S):
                writer.write(json.dumps(document(), ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()

    return Server(await asyncio.start_unix_server(answer, sock=listening), path)


def read(directory: Path) -> dict[str, Any]:
    """Return the document of the process that serves a directory. Blocks. Raises `NotServing`."""
    remedy = f"start `outgate egress serve` on {directory}, as the user who asks"
    try:
        with _reachable(directory) as short, socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_LONGEST_S)
            asking.connect(short)
            with asking.makefile("rb") as answer:
                line = answer.readline(_MOST_BYTES)
    except OSError as error:
        why = error.strerror or "no answer in time"
        raise NotServing(f"{directory / NAME} does not answer ({why}): {remedy}") from None
    if not line.endswith(b"\n"):
        raise NotServing(f"{directory / NAME} gave half an answer: ask again")
    found: dict[str, Any] = json.loads(line)
    return found


@contextmanager
def _reachable(directory: Path) -> Generator[str]:
    """Give a path of the socket that fits into an address, which has room for a hundred octets."""
    path = os.fspath(directory / NAME)
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{NAME}"
    finally:
        os.close(opened)
