"""An environment's HTTP(S) proxy on a tunnel address, HTTP targets that record what they were sent, and clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from outgate.base.clock import FrozenClock
from outgate.egress.audit import Audit
from outgate.egress.engine import Engine
from outgate.egress.forwarder import Forwarder
from outgate.egress.gate import Gate, Limits
from outgate.egress.http_proxy import HttpProxy, Patience
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Proxy, Way
from outgate.egress.poll import poller
from outgate.egress.pump import Pump
from outgate.egress.reach import Reach
from outgate.model.egress import Mode
from outgate.net.guard import compile_exceptions
from support.egress_peers import tunnel_address


def rule(
    *, exceptions: Iterable[str] = ("127.0.0.0/8",), sources: Sequence[str] = ("127.0.0.2",), **other: Any
) -> Proxy:
    """Return the proxy of an environment."""
    values: dict[str, Any] = {
        "environment_id": "10",
        "program_id": "4",
        "listen_address": tunnel_address(),
        "listen_port": 3128,
        "way": Way(Mode.FLEXIBLE, tuple(sources), compile_exceptions(exceptions)),
        "client_networks": ("127.0.0.0/8",),
    }
    return Proxy(**{**values, **other})


class World:
    """A proxy over an address book, with its audit. `dials` has each address that was resolved to a real port."""

    def __init__(
        self,
        directory: Path,
        proxy: Proxy | None = None,
        *,
        limits: Limits | None = None,
        patience: Patience | None = None,
        ports: dict[int, int] | None = None,
    ) -> None:
        """`ports` says at which port of this host a target's port is found: 80 needs a right that tests lack."""
        self.book: dict[str, Sequence[str] | Exception] = {"target.example": ["127.0.0.1"]}
        self.rule = proxy or rule()
        self.audit = Audit(directory / "egress-audit.jsonl")
        self.limits = limits or Limits(drain_s=0.0)
        self.gate = Gate(self.limits)
        self.ports = ports or {}
        self._patience = patience
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        found = self.book.get(name, [])
        if isinstance(found, Exception):
            raise found
        return found

    async def __aenter__(self) -> World:
        polling = poller(asyncio.get_running_loop())
        reach = _Reach(self.resolve, connect_timeout_s=self.limits.connect_timeout_s, poller=polling, ports=self.ports)
        shared: dict[str, Any] = {
            "reach": reach,
            "gate": self.gate,
            "ledger": Ledger(self.audit, FrozenClock()),
            "limits": self.limits,
            "pump": Pump(polling, idle_timeout_s=self.limits.idle_timeout_s),
        }
        self.proxy = HttpProxy(**shared, patience=self._patience)
        self.engine = Engine(Forwarder(**shared), proxy=self.proxy)
        await self.engine.apply(self.rule.environment_id, [self.rule])
        self.address = (self.rule.listen_address, self.rule.listen_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        assert len(self.proxy) == self.gate.open("10") == self.gate.proxied("10") == 0
        assert self.engine.budget() == []
        self.audit.close()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the audit's lines of one kind, oldest first."""
        return [line for line in reversed(self.audit.recent(10_000)) if line["event"] == event]

    async def closes(self, number: int) -> list[dict[str, Any]]:
        """Return the audit's closes once there are so many."""
        while len(self.lines("close")) < number:
            await asyncio.sleep(0.005)
        return self.lines("close")

    async def empty(self) -> None:
        """Wait until no client is there; no place may be taken then."""
        while len(self.proxy):
            await asyncio.sleep(0.005)
        assert self.gate.open("10") == self.gate.proxied("10") == 0

    async def dial(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the proxy."""
        return await asyncio.open_connection(*self.address, local_addr=(source, 0), limit=2**20)

    async def say(self, raw: bytes, source: str = "127.0.0.1") -> bytes:
        """Send octets and return all that comes back until the proxy closes."""
        reader, writer = await self.dial(source)
        seen = b""
        with suppress(ConnectionError):
            writer.write(raw)
            while data := await reader.read(65_536):
                seen += data
        writer.close()
        return seen


class _Reach(Reach):
    """Reach, with some ports of the targets elsewhere on this host."""

    def __init__(self, *arguments: Any, ports: dict[int, int], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ports = ports

    async def connect(self, name: str, port: int, way: Way, client: socket.socket | None = None) -> Any:
        return await super().connect(name, self._ports.get(port, port), way, client)


class RawTarget:
    """A target that keeps each connection's octets and answers the first whole head with `answer`.

    `answer` may be octets, or a function of the reader and the writer that goes on from the head."""

    def __init__(self, answer: bytes | Callable[..., Any] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.answer = answer
        self.seen: list[bytes] = []
        self.peers: list[str] = []

    async def __aenter__(self) -> RawTarget:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.seen)
        self.seen.append(b"")
        self.peers.append(writer.get_extra_info("peername")[0])
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen[number] += head
            if callable(self.answer):
                await self.answer(reader, writer, head)
            else:
                writer.write(self.answer)
                await writer.drain()
                writer.write_eof()
                while data := await reader.read(65_536):
                    self.seen[number] += data
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one response with a length or chunks: its status, fields by lower-case name, and content."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    status = int(head[0].split(" ")[1])
    if status < 200 or status in (204, 304):
        return status, fields, b""
    if fields.get("transfer-encoding") == "chunked":
        pieces: list[bytes] = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode().strip().partition(": ")
            fields[f"trailer {name.lower()}"] = value
        return status, fields, b"".join(pieces)
    if "content-length" in fields:
        return status, fields, await reader.readexactly(int(fields["content-length"]))
    return status, fields, await reader.read()
