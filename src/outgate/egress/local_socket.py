"""Unix sockets by which a process that carries connections is asked, and asking at one.

Standards: unix(7).
Promises: only the service's user and root can connect; a socket that a killed process left is replaced; whoever does
    not ask or read is left after some seconds.
Dangers: call `serve` with the lock of the directory only: it removes what is there under the socket's name.
Not here: what is asked and answered (`status_socket`, `connectivity_socket`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path


class NotServing(Exception):
    """Nobody answers at a socket; the text says which, why, and what to do."""


class Server:
    """A socket that is open."""

    def __init__(self, server: asyncio.Server, path: Path) -> None:
        self._server = server
        self._path = path

    async def stop(self) -> None:
        """Answer no more, and take the socket away."""
        self._server.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


async def serve(
    path: Path, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, seconds: float
) -> Server:
    """Have `answer` talk to whoever connects, for some seconds at most. Raises `OSError`."""
    listening = _listening(path)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(seconds):
                await answer(reader, writer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()

    return Server(await asyncio.start_unix_server(talk, sock=listening), path)


async def ask(path: Path, question: bytes, *, seconds: float, most_bytes: int) -> bytes:
    """Return the one line that is answered at a socket, within some seconds. Raises `NotServing`."""
    remedy = f"start `outgate egress serve` on {path.parent}, as the user who asks"
    try:
        # Not in a thread: who asks for long would have one of the few that the relay works with.
        async with asyncio.timeout(seconds):
            with _reachable(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=most_bytes)
            try:
                writer.write(question)
                line = await reader.readline()
            finally:
                writer.transport.abort()
    except OSError as error:
        why = error.strerror or "no answer in time"
        raise NotServing(f"{path} does not answer ({why}): {remedy}") from None
    except ValueError:
        line = b""
    if not line.endswith(b"\n"):
        raise NotServing(f"{path} gave half an answer: ask again")
    return line


def _listening(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.setblocking(False)
        before = os.umask(0o177)
        try:
            with _reachable(path) as short:
                listening.bind(short)
        finally:
            os.umask(before)
    except OSError:
        listening.close()
        raise
    return listening


@contextmanager
def _reachable(path: Path) -> Generator[str]:
    """Give a path of a socket that fits into an address, which has room for a hundred octets."""
    name = os.fspath(path)
    if len(os.fsencode(name)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield name
        return
    opened = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{path.name}"
    finally:
        os.close(opened)
