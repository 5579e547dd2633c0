"""The sandbox's DNS server: the zone's answers over UDP and TCP, on one port.

Standards: RFC 1035 section 4.2, 6891 (payload sizes), 7766 (several queries on a TCP connection).
Promises: an answer too long for UDP is truncated and says so; bytes that are no query get no answer.
Dangers: it answers anyone who reaches the port: bind it to loopback.
Not here: what is answered (`zone`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

import dns.exception
import dns.flags
import dns.message

from outgate.base.log import Log
from outgate.sandbox.zone import Zone

_log = Log("outgate.sandbox.dns")
_PLAIN = 512
_LARGEST = 1232
_IDLE_S = 10.0
_TRIES = 20


class NameServer:
    """The listening sockets of a zone."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()
        self.address: tuple[str, int] = ("", 0)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Listen on `host`:`port` (0: a port that is free for both), and return where. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        udp, tcp = _sockets(host, port)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self._zone), sock=udp)
        self._udp = transport
        self._tcp = await loop.create_server(lambda: _Tcp(self._zone, self._open), sock=tcp)
        name = tcp.getsockname()
        self.address = (name[0], name[1])
        return self.address

    async def stop(self) -> None:
        """Close the sockets and every open connection."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            for transport in list(self._open):
                transport.abort()
            await self._tcp.wait_closed()


def _sockets(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == _TRIES - 1:  # a wanted port is taken; of a free UDP port TCP's may be
                raise
            continue
        udp.setblocking(False)
        tcp.setblocking(False)
        return udp, tcp
    raise AssertionError  # the last attempt returns or raises


def respond(zone: Zone, wire: bytes, limit: int | None) -> bytes | None:
    """Return the answer to a query in wire form, or None if it gets none. `limit` None: no limit but TCP's."""
    try:
        query = dns.message.from_wire(wire)
        response = zone.answer(query)  # raises for what is itself a response
    except dns.exception.DNSException as error:
        _log.debug("dns.malformed", error=str(error))
        return None
    if response is None:
        return None
    if limit is not None:
        limit = min(max(query.payload, _PLAIN), _LARGEST) if query.edns >= 0 else _PLAIN
    try:
        return response.to_wire(max_size=limit or 65_535)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = respond(self._zone, data, _LARGEST)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        # An asker that went away: its port answers our answer with an ICMP error. Others are not concerned.
        _log.debug("dns.error", error=str(exc))


class _Tcp(asyncio.Protocol):
    def __init__(self, zone: Zone, connections: set[asyncio.Transport]) -> None:
        self._zone = zone
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self._transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._buffer += data
        while len(self._buffer) >= 2:
            (length,) = struct.unpack_from("!H", self._buffer)
            if len(self._buffer) < 2 + length:
                return
            wire, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            answer = respond(self._zone, wire, None)
            if answer is not None:
                self._transport.write(struct.pack("!H", len(answer)) + answer)
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._connections.discard(self._transport)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._give_up)

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):
            if self._transport is not None:
                self._transport.abort()
