"""A web server of MTA-STS policies: real TLS, answers to the octet."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field


def document(text: str, content_type: str = "text/plain", status: str = "200 OK") -> bytes:
    """Return a whole HTTP response."""
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode("ascii")
        + body
    )


def policy(mode: str, *hosts: str, max_age: int = 86_400) -> str:
    """Return a policy's text."""
    names = "".join(f"mx: {host}\r\n" for host in hosts)
    return f"version: STSv1\r\nmode: {mode}\r\n{names}max_age: {max_age}\r\n"


@dataclass
class PolicyServer:
    """`answers` are responses by host, octet by octet; who is not there is cut off. While `held` is not set, nobody gets
    an answer; `endless` is sent for ever after an answer."""

    context: ssl.SSLContext
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    held: asyncio.Event | None = None
    endless: bytes = b""
    sent: int = 0
    port: int = 0

    async def __aenter__(self) -> PolicyServer:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            host = request.split(b"\r\nHost: ")[1].split(b"\r\n")[0].decode().partition(":")[0]
            self.asked.append(host)
            if self.held is not None:
                await self.held.wait()
            writer.write(self.answers.get(host, b""))
            await writer.drain()
            while self.endless:
                writer.write(self.endless)
                self.sent += len(self.endless)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
