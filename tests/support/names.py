"""DNS for tests: answers from a dictionary, a real name server with a real resolver, and authoritative servers with
faults, each on a loopback address of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from outgate.base.clock import Clock, FrozenClock
from outgate.domains.ask import Answer, Question
from outgate.net.authority import Authority
from outgate.net.dns import Resolver
from outgate.net.pace import Pace
from outgate.sandbox.nameserver import NameServer, respond
from outgate.sandbox.zone import Zone

Records = Mapping[tuple[str, str], list[str] | str]
"""(name, type) → values as `Answer` holds them; a plain string is a failing status."""


def answers(records: Records, asked: list[Question] | None = None) -> Callable[[Question], Answer]:
    """Return a function that answers from `records`, and notes what was asked."""
    names = {name for name, _ in records}

    def answer(question: Question) -> Answer:
        if asked is not None:
            asked.append(question)
        name = question.name.lower()
        found = records.get((name, question.rdtype))
        if isinstance(found, str):
            return Answer(found)
        if found:
            texts = tuple(value.encode() if question.rdtype == "TXT" else value for value in found)
            return Answer("ok", texts, 300, "test")
        return Answer("nodata" if name in names else "nxdomain", (), 0, "test")

    return answer


@asynccontextmanager
async def served(zone: Zone, clock: Clock | None = None, **options: Any) -> AsyncIterator[Resolver]:
    """Serve `zone` on loopback and yield a resolver that asks it."""
    server = NameServer(zone)
    address = await server.start()
    try:
        yield Resolver([address], clock or FrozenClock(), **options)
    finally:
        await server.stop()


FAULTS = (
    "servfail", "refused", "drop", "lame", "referral", "truncated", "truncated-no-tcp", "wrong-id", "malformed",
    "edns-formerr", "edns-notimp", "edns-badvers",
)  # fmt: skip
"""What a `Peer` can do wrong. "truncated" is none: everything is told over TCP; nor are those of "edns-…", and
"edns-drop", which only happen to questions with EDNS."""

BLIND = ("nxdomain", "empty", "portal")
"""What a resolver that sees nothing of the DNS says of every name: that there is none, that it has nothing, or that its
address is the resolver's own."""


@dataclass
class Query:
    """One question that reached a server, and when (monotonic)."""

    at: float
    name: str
    rdtype: str
    tcp: bool
    recursive: bool
    edns: bool


@dataclass
class Peer:
    """An authoritative server. While `held` is an event that is not set, answers wait for it."""

    zone: Zone = field(default_factory=Zone)
    fault: str = ""
    held: asyncio.Event | None = None
    queries: list[Query] = field(default_factory=list)

    def asked(self, rdtype: str) -> list[str]:
        """Return the names that were asked for with `rdtype`."""
        return [query.name for query in self.queries if query.rdtype == rdtype]

    def version(self, name: str, serial: int, primary: str = "hidden.shop.test.") -> None:
        """Set the SOA of `name`; its primary is none of those that are asked, unless it is named."""
        self.zone.put(name, "SOA", [f"{primary} hostmaster.shop.test. {serial} 3600 600 86400 60"], 60)

    def reply(self, wire: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        recursive = bool(query.flags & dns.flags.RD)
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(time.monotonic(), name, rdtype, tcp=tcp, recursive=recursive, edns=query.edns >= 0))
        good = respond(self.zone, wire, None if tcp else 1232)
        if self.fault == "drop" or good is None:
            return None
        if self.fault.startswith("edns-"):
            return self._without_edns(query) if query.edns >= 0 else good
        if self.fault in ("servfail", "refused", "referral", *BLIND) or (
            self.fault.startswith("truncated") and not tcp
        ):
            return self._instead(query)
        if self.fault == "truncated-no-tcp":
            return None
        if self.fault == "lame":
            return good[:2] + bytes([good[2] & ~0x04]) + good[3:]
        if self.fault == "wrong-id":
            return bytes([good[0] ^ 0xFF]) + good[1:]
        return good[:12] + b"\xff\xff" if self.fault == "malformed" else good

    def _instead(self, query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        if self.fault == "referral":
            name = query.question[0].name
            response.authority.append(dns.rrset.from_text(name, 300, "IN", "NS", "ns.elsewhere.test."))
        elif self.fault.startswith("truncated"):
            response.flags |= dns.flags.TC | dns.flags.AA
        elif self.fault == "portal" and query.question[0].rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", RESOLVER))
        elif self.fault == "nxdomain":
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif self.fault in ("servfail", "refused"):
            response.set_rcode(dns.rcode.from_text(self.fault.upper()))
        return response.to_wire()

    def _without_edns(self, query: dns.message.Message) -> bytes | None:
        """Answer as who knows no EDNS does; FORMERR without the question, as some do."""
        response = dns.message.make_response(query)
        if self.fault == "edns-drop":
            return None
        if self.fault != "edns-badvers":
            response.use_edns(False)
        if self.fault == "edns-formerr":
            response.question.clear()
        response.set_rcode(dns.rcode.from_text(self.fault.removeprefix("edns-").upper()))
        return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._peer.reply(data, tcp=False)
        held = self._peer.held
        if answer is None:
            return
        if held is None or held.is_set():
            self._transport.sendto(answer, addr)
            return

        async def later() -> None:
            await held.wait()
            self._transport.sendto(answer, addr)

        task = asyncio.get_running_loop().create_task(later())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._waiting:
            task.cancel()


class _Tcp(asyncio.Protocol):
    """One query per connection, which is what dnspython sends."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 2 or len(self._buffer) < 2 + struct.unpack_from("!H", self._buffer)[0]:
            return
        answer = self._peer.reply(self._buffer[2:], tcp=True)
        if answer is not None:
            self._transport.write(struct.pack("!H", len(answer)) + answer)
        self._transport.close()


@asynccontextmanager
async def peers(servers: Mapping[str, Peer]) -> AsyncIterator[int]:
    """Serve each peer at its loopback address, all on one port, which is yielded."""
    loop = asyncio.get_running_loop()
    port, sockets = _one_port(list(servers))
    udp: list[asyncio.BaseTransport] = []
    tcp: list[asyncio.Server] = []
    try:
        for peer, (datagrams, streams) in zip(servers.values(), sockets, strict=True):
            transport, _ = await loop.create_datagram_endpoint(lambda peer=peer: _Udp(peer), sock=datagrams)
            udp.append(transport)
            tcp.append(await loop.create_server(lambda peer=peer: _Tcp(peer), sock=streams))
        yield port
    finally:
        for transport in udp:
            transport.close()
        for server in tcp:
            server.close()
            await server.wait_closed()


def _one_port(addresses: list[str]) -> tuple[int, list[tuple[socket.socket, socket.socket]]]:
    for attempt in range(50):
        port = 0
        sockets: list[tuple[socket.socket, socket.socket]] = []
        opened: list[socket.socket] = []
        try:
            for address in addresses:
                opened.append(datagrams := socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                opened.append(streams := socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                datagrams.bind((address, port))
                port = datagrams.getsockname()[1]
                streams.bind((address, port))
                sockets.append((datagrams, streams))
        except OSError:
            for one in opened:
                one.close()
            if attempt == 49:
                raise
            continue
        for one in opened:
            one.setblocking(False)
        return port, sockets
    raise AssertionError  # the last attempt returns or raises


RESOLVER = "127.0.0.53"


def delegate(root: Zone, zone: str, *addresses: str, ttl: int = 300) -> None:
    """Let `root`, which plays the recursive server, know `zone`'s name servers: ns1.`zone` at the first address …"""
    hosts = [f"ns{number}.{zone}" for number in range(1, len(addresses) + 1)]
    root.put(zone, "NS", [f"{host}." for host in hosts], ttl)
    for host, address in zip(hosts, addresses, strict=True):
        root.put(host, "A", [address], ttl)
        root.put(host, "AAAA", [], ttl)


@asynccontextmanager
async def authority(
    servers: Mapping[str, Peer], clock: Clock | None = None, *, pace: Pace | None = None, **options: Any
) -> AsyncIterator[Authority]:
    """Serve `servers`, of which the one at `RESOLVER` plays the recursive server, and yield who asks the others."""
    clock, pace = clock or FrozenClock(), pace or Pace(per_server=1e6, overall=1e6)
    async with peers(servers) as port:
        resolver = Resolver(
            [(RESOLVER, port)], clock, timeout=max(2.0, options.get("timeout", 2.0)), rounds=1, pace=pace
        )
        yield Authority(resolver, clock, pace=pace, port=port, **{"tries": 1} | options)
