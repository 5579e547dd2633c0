"""Peers for the egress tests: a forwarder with its audit, targets that record, clients on chosen addresses."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest
import uvloop

from outgate.base.clock import FrozenClock
from outgate.egress.audit import Audit
from outgate.egress.engine import Engine
from outgate.egress.forwarder import Forwarder
from outgate.egress.gate import Gate, Limits
from outgate.egress.http_proxy import HttpProxy
from outgate.egress.ledger import Ledger
from outgate.egress.plan import FORWARDER, Forward, Way
from outgate.egress.poll import poller
from outgate.egress.pump import Pump
from outgate.egress.reach import Reach
from outgate.model.egress import Mode
from outgate.net.guard import compile_exceptions

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]
_random: Random = SystemRandom()


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on plain asyncio and on uvloop."""

    @functools.wraps(test)
    def run(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))  # type: ignore[arg-type]

    signature = inspect.signature(test)
    parameter = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), parameter])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop_factory", LOOPS)(run)


def tunnel_address() -> str:
    """Return a loopback address that no other test is likely to use, so that fixed ports are free."""
    return f"127.{_random.randrange(100, 200)}.{_random.randrange(256)}.{_random.randrange(2, 255)}"


def forward(
    address: str,
    port: int,
    name: str,
    target_port: int,
    *,
    sources: Sequence[str] = ("127.0.0.2",),
    exceptions: Iterable[str] = ("127.0.0.0/8",),
    **other: Any,
) -> Forward:
    """Return a forward from `address`:`port` to `name`:`target_port`."""
    values: dict[str, Any] = {
        "environment_id": "10",
        "program_id": "4",
        "way": Way(Mode.FLEXIBLE, tuple(sources), compile_exceptions(exceptions)),
        "proxy_header": False,
        "client_networks": ("127.0.0.0/8",),
        "engine": FORWARDER,
        "engine_reason": "test",
    }
    return Forward(listen_address=address, listen_port=port, name=name, port=target_port, **{**values, **other})


class Bench:
    """An engine with a forwarder over an address book, with its audit."""

    def __init__(
        self,
        directory: Path,
        book: dict[str, Sequence[str] | Exception] | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.book: dict[str, Sequence[str] | Exception] = {"target.example": ["127.0.0.1"], **(book or {})}
        self.asked: list[str] = []
        self.clock = FrozenClock()
        self.audit = Audit(directory / "egress-audit.jsonl")
        limits = limits or Limits(drain_s=0.0)
        polling = poller(asyncio.get_running_loop())
        self.reach = Reach(self.resolve, connect_timeout_s=limits.connect_timeout_s, poller=polling)
        parts: dict[str, Any] = {
            "reach": self.reach,
            "gate": Gate(limits),
            "ledger": Ledger(self.audit, self.clock),
            "limits": limits,
            "pump": Pump(polling, idle_timeout_s=limits.idle_timeout_s),
        }
        self.forwarder = Forwarder(**parts)
        self.proxy = HttpProxy(**parts)
        self.engine = Engine(self.forwarder, proxy=self.proxy)

    async def resolve(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        found = self.book.get(name, [])
        if isinstance(found, Exception):
            raise found
        return found

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the audit's lines of one kind, oldest first."""
        return [line for line in reversed(self.audit.recent(10_000)) if line["event"] == event]

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()
        self.audit.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Target:
    """A server on loopback; `peers` are the addresses its clients came from."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self.peers: list[tuple[str, int]] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername")[:2])
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def __aenter__(self) -> Target:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until the end."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def dial(address: str, port: int, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect from a chosen address."""
    # The system answers for a listener: connecting waits for nobody in this loop, and a connection that is reset at once
    # has been one.
    opened = socket.create_connection((address, port), source_address=(source, 0))
    opened.setblocking(False)
    return await asyncio.open_connection(sock=opened, limit=2**20)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes before the connection ends, however it ends."""
    seen = b""
    try:
        while data := await reader.read(65_536):
            seen += data
    except ConnectionError:
        pass
    return seen


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])
