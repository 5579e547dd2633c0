"""Resolve a name, check what it resolves to, and connect to the checked address from an address of the plan.

Standards: Linux IP_BIND_ADDRESS_NO_PORT.
Promises: a connection is made only to an address that the guard has just checked, and only from an address of the
    way; whatever goes wrong is a `Refused` with a class word and a reason, and ends this connection only.
Dangers: never connect to a name: it may lead elsewhere by then.
Not here: who asks (`forwarder`, `http_proxy`), copying (`pipe`).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from outgate.egress.audit import endpoint
from outgate.egress.plan import Way
from outgate.egress.refusal import Refused
from outgate.net import guard

_ADDRESSES_TRIED = 4
# Not in every Python's socket module; the number is Linux's own.
_IP_BIND_ADDRESS_NO_PORT = 24

Resolve = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Reached:
    """A connected, non-blocking socket, the address at its other end, and the guard's exception if one was used."""

    socket: socket.socket
    address: str
    exception: str


class Reach:
    """Make connections. Lives on one event loop."""

    def __init__(self, resolve: Resolve, *, connect_timeout_s: float) -> None:
        self._resolve = resolve
        self._timeout_s = connect_timeout_s
        self._turn = 0

    async def connect(self, name: str, port: int, way: Way) -> Reached:
        """Return a connection to `name`:`port`. Raises `Refused`."""
        failure: Refused | None = None
        tries: list[tuple[str, str, str]] = []
        for address in await self._addresses(name):
            verdict = guard.check(address, exceptions=way.exceptions, name=name)
            try:
                if not verdict.allowed:
                    raise Refused("guard", f"{name} is {address}: {verdict.reason}")
                tries.append((address, self._source(way, address), verdict.exception))
            except Refused as refused:
                failure = failure or refused
        if tries:
            failure = None  # what could be tried tells more than what could not
        for address, source, exception in tries[:_ADDRESSES_TRIED]:
            seconds = self._timeout_s / min(len(tries), _ADDRESSES_TRIED)
            try:
                return Reached(await _connected(address, port, source, seconds), address, exception)
            except Refused as refused:
                failure = failure or refused
        raise failure or Refused("dns", f"{name} has no address")

    async def _addresses(self, name: str) -> Sequence[str]:
        try:
            return (str(ip_address(name)),)
        except ValueError:
            pass
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._resolve(name)
        except TimeoutError:
            raise Refused("dns", f"{name} was not resolved in time") from None
        except Exception as error:
            # Whatever a resolver runs into ends this connection, and nothing else.
            raise Refused("dns", f"{name} cannot be resolved: {error}") from error

    def _source(self, way: Way, address: str) -> str:
        version = ip_address(address).version
        fitting = [each for each in way.sources if ip_address(each).version == version]
        if not fitting:
            raise Refused("source", f"no IPv{version} address to leave from for {address}")
        self._turn += 1
        return fitting[self._turn % len(fitting)]


async def _connected(address: str, port: int, source: str, seconds: float) -> socket.socket:
    """Return a socket connected from `source` within `seconds`. Raises `Refused`."""
    place = f"{endpoint(address, port)} from {source}"
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            # The port is chosen at connect, per destination: else an address has 28,000 connections in all.
            opened.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            opened.bind((source, 0))
        except OSError as error:
            raise Refused("source", f"this host cannot leave from {source}: {error.strerror}") from error
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except BaseException as error:
        opened.close()
        if isinstance(error, TimeoutError):
            raise Refused("timeout", f"{place}: no answer in {seconds:g} s") from error
        if isinstance(error, ConnectionRefusedError):
            raise Refused("refused", f"{place}: connection refused") from error
        if isinstance(error, OSError):
            raise Refused("unreachable", f"{place}: {error.strerror or error}") from error
        raise
    return opened
