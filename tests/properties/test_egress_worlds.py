"""Any world of clients, targets, resolvers and changes: each place is given back, each connection is told of once."""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.egress.gate import Limits
from outgate.egress.plan import Forward
from support.egress_peers import Bench, forward, tunnel_address
from support.ports import closed_port

PORTS = (30001, 30002, 30003)
TARGETS = ("echo", "resets", "silent", "dead", "guarded", "unknown", "slow")
# What takes its time to be reached is where changes can cut in.
KINDS = st.sampled_from(("slow", "slow", "echo", "echo", *TARGETS))
STEPS = st.lists(
    st.one_of(
        *[st.tuples(st.just("dial"), st.sampled_from(PORTS), st.sampled_from(("127.0.0.1", "127.0.0.9")))] * 2,
        st.tuples(st.sampled_from(("say", "bulk", "end", "reset", "read")), st.integers(0, 20), st.just("")),
        st.tuples(
            st.just("apply"),
            st.lists(
                st.tuples(
                    st.sampled_from(PORTS),
                    KINDS,
                    st.sampled_from(("127.0.0.0/8", "127.0.0.1/32")),
                    st.sampled_from((("127.0.0.2",), ("127.0.0.2", "127.0.0.3"), ("192.0.2.1",))),
                ),
                max_size=3,
                unique_by=lambda rule: rule[0],
            ),
            st.just(""),
        ),
        st.tuples(st.sampled_from(("resolve", "drain", "idle")), st.just(0), st.just("")),
        st.tuples(st.just("pause"), st.integers(1, 30), st.just("")),
    ),
    min_size=5,
    max_size=40,
)


class World:
    """A bench, one server of each kind, and the clients there have been."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tunnel = tunnel_address()
        self.clients: list[socket.socket] = []
        self.dialled = 0
        self.resolved = asyncio.Event()
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._before: list[Forward] = []

    async def begin(self) -> None:
        for kind in ("echo", "resets", "silent"):
            server = await asyncio.start_server(getattr(self, f"_{kind}"), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[kind] = server.sockets[0].getsockname()[1]
        self.ports["dead"] = closed_port()
        known = self.bench.resolve

        async def resolve(name: str) -> Sequence[str]:
            if name == "slow.example":
                await self.resolved.wait()
            return await known(name)

        self.bench.reach._resolve = resolve

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _resets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async def _silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def step(self, what: str, number: Any, more: str) -> None:
        if what == "dial":
            self._dial(number, more)
        elif what == "apply":
            await self._apply(number)
        elif what == "resolve":
            self.resolved.set()
            self.resolved = asyncio.Event()
        elif what == "pause":
            for _ in range(number):
                await asyncio.sleep(0)
        elif what == "drain":
            await asyncio.sleep(0.012)
        elif what == "idle":
            for flow in list(self.bench.forwarder.pump._flows):
                flow.moved -= 1_000
        elif self.clients:
            self._act(what, self.clients[number % len(self.clients)])

    def _dial(self, port: int, source: str) -> None:
        try:
            sock = socket.create_connection((self.tunnel, port), source_address=(source, 0))
        except ConnectionRefusedError:
            return
        sock.setblocking(False)
        self.clients.append(sock)

    async def _apply(self, wanted: list[tuple[int, str, str, tuple[str, ...]]]) -> None:
        rules = [
            forward(
                self.tunnel,
                port,
                f"{kind}.example",
                self.ports.get(kind, self.ports["echo"]),
                client_networks=(networks,),
                sources=sources,
            )
            for port, kind, networks, sources in wanted
        ]
        # A rule that stays is the same object at times, and at times one that is equal.
        rules = [next((old for old in self._before if old == new), new) if new.port % 2 else new for new in rules]
        self._before += rules
        await self.bench.engine.apply("10", rules)

    @staticmethod
    def _act(what: str, sock: socket.socket) -> None:
        try:
            if what == "say":
                sock.send(b"hello")
            elif what == "bulk":
                sock.send(bytes(400_000))
            elif what == "end":
                sock.shutdown(socket.SHUT_WR)
            elif what == "read":
                sock.recv(1_000_000)
            elif what == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
        except OSError:
            pass

    def check(self) -> None:
        """What is counted is what there is."""
        forwarder = self.bench.forwarder
        calls = [call for served in (*forwarder._served.values(), *forwarder._draining) for call in served.calls]
        assert len(calls) == len(set(calls)) == self.bench.engine.connections("10") >= 0
        assert sum(live.open for live in self.bench.engine.live()) == len(calls)
        flows = sum(call._flow is not None for call in calls)
        assert forwarder.pump.open == flows

    @staticmethod
    def _is_over(sock: socket.socket) -> None:
        """Read a client to its end: it would block if our side of it were still open."""
        if sock.fileno() < 0:
            return
        try:
            while sock.recv(1_000_000):
                pass
        except ConnectionError:
            pass
        sock.close()

    async def end(self) -> None:
        self.check()
        await self.bench.engine.close()
        for sock in self.clients:
            self._is_over(sock)
        for server in self._servers:
            server.close()
        # What the targets have just accepted is still on its way to them.
        for _ in range(5):
            await asyncio.sleep(0)
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
        self.check()
        bench = self.bench
        assert bench.engine.connections("10") == 0
        assert bench.engine.budget() == []
        assert not bench.forwarder._draining
        decisions = Counter(line["connection_id"] for line in bench.lines("decision"))
        opened = {line["connection_id"] for line in bench.lines("decision") if not line["refusal"]}
        closes = Counter(line["connection_id"] for line in bench.lines("close"))
        assert set(decisions.values()) <= {1}
        assert set(closes.values()) <= {1}
        assert closes.keys() == opened
        figures = [each for _, each in bench.forwarder.ledger.figures.all()]
        assert sum(each.opened for each in figures) == len(opened)
        assert sum(sum(each.refused.values()) for each in figures) == len(decisions) - len(opened)
        assert not any(each.open for each in figures)


async def play(first: list[str], steps: list[tuple[str, Any, str]], directory: Path) -> None:
    book: dict[str, Sequence[str] | Exception] = {
        **{f"{kind}.example": ["127.0.0.1"] for kind in TARGETS},
        "guarded.example": ["10.0.0.1"],
        "unknown.example": OSError("NXDOMAIN"),
    }
    limits = Limits(drain_s=0.01, connections_per_environment=6, connections_alert=4)
    async with Bench(directory, book, limits=limits) as bench:
        world = World(bench)
        await world.begin()
        everywhere = [(port, kind, "127.0.0.0/8", ("127.0.0.2",)) for port, kind in zip(PORTS, first, strict=True)]
        for what, number, more in [("apply", everywhere, ""), *steps]:
            await world.step(what, number, more)
            world.check()
        await world.end()


@settings(deadline=None, max_examples=50)
@given(first=st.lists(KINDS, min_size=3, max_size=3), steps=STEPS, uv=st.booleans())
def test_in_any_world_places_come_back_and_the_audit_is_whole(
    first: list[str], steps: list[tuple[str, Any, str]], uv: bool
) -> None:
    loop_factory = uvloop.new_event_loop if uv else asyncio.new_event_loop
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(play(first, steps, Path(directory)))
