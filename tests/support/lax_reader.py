"""A receiving server with the faults of its time: it takes any line end for one, drops NULs, and ends data at any of them.

What reaches it as one message was one message to every reader: this one finds an end wherever anybody might.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\r(?=[^\n])|\n")


@dataclass
class Taken:
    """A message as this reader sees it."""

    sender: bytes
    recipients: list[bytes]
    content: bytes


@dataclass
class LaxReader:
    """`raw` is every octet that came, on all connections."""

    taken: list[Taken] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    _server: asyncio.Server | None = None
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> str:
        """Listen on a free port; return `host:port`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def holds(self, count: int) -> None:
        """Wait until that many messages were taken."""
        async with asyncio.timeout(60):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 lax ESMTP\r\n")
        sender, recipients, data = b"", list[bytes](), list[bytes]()
        in_data, rest = False, b""
        while piece := await reader.read(65_536):
            self.raw += piece
            *lines, rest = _LINE_END.split((rest + piece).replace(b"\0", b""))
            for line in lines:
                verb = line[:4].upper()
                if in_data and line != b".":
                    data.append(line)
                elif in_data:
                    self.taken.append(Taken(sender, recipients, b"\n".join(data)))
                    self._more.set()
                    recipients, data, in_data = [], [], False
                    writer.write(b"250 taken\r\n")
                elif verb == b"DATA":
                    in_data = True
                    writer.write(b"354 go\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    writer.close()
                    return
                else:
                    sender = line if verb == b"MAIL" else sender
                    recipients += [line] if verb == b"RCPT" else []
                    writer.write(b"250 ok\r\n")
        writer.close()
