"""The witness: a service outside that tells each caller the address it calls from.

Standards: TCP; one line of ASCII, the address as `ipaddress` writes it, and CR LF.
Promises: a caller gets its address and the end, whatever it sends; nothing it sends is read for sense; at most `most`
    callers are held, each for `seconds` at most.
Dangers: it tells what the last router says: behind a proxy or a NAT of its own it would witness that one.
Not here: who asks it, and what follows (`proof`).
"""

from __future__ import annotations

import asyncio
import socket

from outgate.base.addresses import plain

_READ = 4096


class Witness:
    """One listener. Lives on one event loop."""

    def __init__(self, *, most: int = 512, seconds: float = 5.0) -> None:
        self._most = most
        self._seconds = seconds
        self._held = 0
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> tuple[str, int]:
        """Listen, and return where. Raises `OSError`."""
        self._server = await asyncio.start_server(self._tell, address, port, limit=_READ, backlog=128)
        found = self._server.sockets[0].getsockname()
        return str(found[0]), int(found[1])

    async def stop(self) -> None:
        """Stop listening; callers that are held end by themselves."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        if self._held >= self._most:
            transport.abort()
            return
        self._held += 1
        try:
            async with asyncio.timeout(self._seconds):
                writer.write(f"{plain(writer.get_extra_info('peername')[0])}\r\n".encode("ascii"))
                writer.write_eof()
                # Closing on octets that were not read would be a reset, which may overtake the line.
                while await reader.read(_READ):
                    pass
        except (TimeoutError, OSError):
            pass
        finally:
            self._held -= 1
            transport.abort()


async def ask(witness: tuple[str, int], source: str, seconds: float) -> str:
    """Return the address that `witness` (a checked address and port) sees of a connection from `source`.

    Raises `OSError` (`TimeoutError` among them), or `ValueError` if what answers is no witness."""
    address, port = witness
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(
            address, port, family=family, local_addr=(source, 0), limit=_READ
        )
        try:
            line = (await reader.readuntil(b"\n"))[:_READ]
        except asyncio.IncompleteReadError as error:
            line = error.partial
        except asyncio.LimitOverrunError:
            line = await reader.read(_READ)
        finally:
            writer.transport.abort()
    try:
        return plain(line.decode("ascii").strip())
    except ValueError:
        raise ValueError(f"what answers there is no witness: it says {line[:40]!r}") from None
