"""The user-space engine: listen on tunnel addresses, decide, and carry connections to checked targets.

Standards: PROXY protocol version 2 (towards targets that the plan marks); Linux IP_BIND_ADDRESS_NO_PORT.
Promises: an environment's forwards change as a whole or not at all; a connection is made only to an address
    that the guard has just checked, and only from an address of the plan; every connection is audited.
Dangers: default deny: an environment without client networks serves nobody. A refusal is a reset; its reason
    is in the audit only.
Not here: what shall be in force (`plan`), statuses (`reconcile`), copying (`pipe`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.egress.audit import Audit, Connection, endpoint
from outgate.egress.pipe import Pipe
from outgate.egress.plan import Forward
from outgate.net import guard
from outgate.smtp.proxy_header import encode_v2

_log = Log("outgate.egress")
_BACKLOG = 1024
_ADDRESSES_TRIED = 4
# Not in every Python's socket module; the number is Linux's own.
_IP_BIND_ADDRESS_NO_PORT = 24

Resolve = Callable[[str], Awaitable[Sequence[str]]]
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one environment may have open, and how long things may take (seconds)."""

    connections_per_environment: int = 1000
    connections_alert: int = 750
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    drain_s: float = 60.0


class ListenError(Exception):
    """A port cannot be listened on; the message names it and says why. Nothing has changed."""


class _Refused(Exception):
    """A connection may not or cannot be made: `kind` is a class word for the audit, the message says why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(slots=True)
class _Listener:
    forward: Forward
    networks: tuple[IPv4Network | IPv6Network, ...]
    server: asyncio.Server | None = None
    withdrawn: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    """One accepted connection."""

    id: str
    listener: _Listener
    forward: Forward
    client: Key = ("", 0)
    dialled: Key = ("", 0)
    known: Connection | None = None
    counted: bool = False
    task: asyncio.Task[None] | None = None
    pipe: Pipe = field(init=False)


class Forwarder:
    """Carry forwards. Lives on one event loop; made by `app`, fed by `reconcile`."""

    def __init__(
        self,
        *,
        resolve: Resolve,
        exceptions: guard.Exceptions,
        audit: Audit,
        limits: Limits,
        clock: Clock,
        header_to: Collection[str] = (),
    ) -> None:
        """`header_to` are checked addresses (`address:port`) that get a PROXY header under whatever name; it may change
        meanwhile."""
        self._resolve = resolve
        self._exceptions = exceptions
        self._audit = audit
        self._limits = limits
        self._clock = clock
        self._header_to = header_to
        self._listeners: dict[Key, _Listener] = {}
        self._calls: set[_Call] = set()
        self._open: Counter[str] = Counter()
        self._alerted: set[str] = set()
        self._applying = asyncio.Lock()
        self._turn = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def forwards(self) -> tuple[Forward, ...]:
        """Return the forwards that are in force now."""
        return tuple(listener.forward for listener in self._listeners.values())

    def connections(self, environment_id: str) -> int:
        """Return how many connections of an environment are open or being opened."""
        return self._open[environment_id]

    async def apply(self, environment_id: str, forwards: Sequence[Forward]) -> None:
        """Put exactly `forwards` into force for an environment; connections of withdrawn ones drain.

        Raises `ListenError`, with the old ones still in force, if one of the new ports cannot be had."""
        async with self._applying:
            wanted = {(each.listen_address, each.listen_port): each for each in forwards}
            mine = {key for key, each in self._listeners.items() if each.forward.environment_id == environment_id}
            added = await self._listen({key: each for key, each in wanted.items() if key not in mine})
            # From here on nothing can fail, so the change is whole.
            withdrawn: list[Forward] = []
            for key in mine:
                listener = self._listeners[key]
                if key not in wanted:
                    withdrawn.append(listener.forward)
                    self._drop(key)
                elif wanted[key] != listener.forward:
                    withdrawn.append(listener.forward)
                    listener.forward, listener.networks = wanted[key], _networks(wanted[key])
            self._listeners.update(added)
            self._drain(withdrawn)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        async with self._applying:
            for key in list(self._listeners):
                self._drop(key)
            for call in list(self._calls):
                call.pipe.abort("shutdown")
                if call.task is not None:
                    call.task.cancel()
            await self._quiet.wait()

    async def _listen(self, wanted: dict[Key, Forward]) -> dict[Key, _Listener]:
        """Return a listener for each, all or none."""
        sockets: dict[Key, socket.socket] = {}
        try:
            for key, forward in wanted.items():
                holder = self._listeners.get(key)
                if holder is not None:
                    other = holder.forward.environment_id
                    raise ListenError(f"{endpoint(*key)} is taken by environment {other} ({forward.name} wants it)")
                sockets[key] = _bound(key)
        except ListenError:
            for opened in sockets.values():
                opened.close()
            raise
        loop = asyncio.get_running_loop()
        added: dict[Key, _Listener] = {}
        for key, opened in sockets.items():
            listener = _Listener(wanted[key], _networks(wanted[key]))
            listener.server = await loop.create_server(self._factory(listener), sock=opened, backlog=_BACKLOG)
            added[key] = listener
        return added

    def _drop(self, key: Key) -> None:
        listener = self._listeners.pop(key)
        listener.withdrawn = True
        if listener.server is not None:
            listener.server.close()

    def _drain(self, withdrawn: Sequence[Forward]) -> None:
        gone = set(withdrawn)
        old = [call for call in self._calls if call.forward in gone]
        if not old:
            return
        _log.info("egress.draining", connections=len(old), seconds=self._limits.drain_s)

        def end() -> None:
            for call in old:
                if call in self._calls:
                    call.pipe.abort("drained")

        asyncio.get_running_loop().call_later(self._limits.drain_s, end)

    def _factory(self, listener: _Listener) -> Callable[[], asyncio.Protocol]:
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            call = _Call(ids.hex_id()[:16], listener, listener.forward)
            call.pipe = Pipe(
                loop,
                idle_timeout_s=self._limits.idle_timeout_s,
                accepted=lambda transport: self._accepted(call, transport),
                ended=lambda reason: self._ended(call, reason),
            )
            return call.pipe.client

        return accept

    def _accepted(self, call: _Call, transport: asyncio.Transport) -> None:
        """Judge a new connection by what is known at once: who, and how many."""
        self._calls.add(call)
        self._quiet.clear()
        call.client = _plain(transport.get_extra_info("peername"))
        call.dialled = _plain(transport.get_extra_info("sockname"))
        environment = call.forward.environment_id
        try:
            address = ip_address(call.client[0])
            if not any(address in network for network in call.listener.networks):
                raise _Refused("client-network", f"{address} is in no client network of the environment")
            if self._open[environment] >= self._limits.connections_per_environment:
                most = self._limits.connections_per_environment
                raise _Refused("limit", f"the environment has {most} connections open")
        except (_Refused, ValueError) as error:
            self._refuse(call, error if isinstance(error, _Refused) else _Refused("client-network", str(error)))
            return
        call.counted = True
        self._open[environment] += 1
        if self._open[environment] == self._limits.connections_alert and environment not in self._alerted:
            self._alerted.add(environment)
            most = self._limits.connections_per_environment
            _log.warning("egress.many_connections", environment=environment, open=self._open[environment], most=most)
        call.task = spawn(self._reach(call), f"egress {call.id}")

    async def _reach(self, call: _Call) -> None:
        """Find, check and connect the target, then let the octets flow."""
        try:
            reached, address, exception = await self._connect(call.forward)
        except _Refused as refused:
            self._refuse(call, refused)
            return
        client, forward = endpoint(*call.client), call.forward
        source = endpoint(*_plain(reached.getsockname()))
        if call.pipe.ending or call.listener.withdrawn or call.listener.forward != forward:
            reached.close()
            self._refuse(call, _Refused("withdrawn", "the client or the forward went away meanwhile"))
            return
        target = endpoint(address, forward.port)
        if target in self._header_to:
            forward = replace(forward, proxy_header=True)
        known = Connection(call.id, forward, client, target, source, exception)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: call.pipe.target, sock=reached)
        except OSError as error:
            self._refuse(call, _Refused("unreachable", str(error)))
            return
        if call.pipe.ending:
            # The client vanished in that very step: nothing has been sent, so nothing was opened.
            self._refuse(call, _Refused("withdrawn", "the client went away meanwhile"))
            return
        call.known = known
        reason = f"leaves from {source} ({forward.mode.value})"
        self._audit.decision(self._clock.now(), known, reason=reason)
        if forward.proxy_header:
            call.pipe.target.write(encode_v2(call.client, call.dialled))
        call.pipe.join()

    async def _connect(self, forward: Forward) -> tuple[socket.socket, str, str]:
        """Return a connected socket, the address it is connected to and the guard's exception, if one was used."""
        addresses = await self._addresses(forward)
        failure: _Refused | None = None
        tries: list[tuple[str, str, str]] = []
        for address in addresses:
            verdict = guard.check(address, exceptions=self._exceptions, name=forward.name)
            try:
                if not verdict.allowed:
                    raise _Refused("guard", f"{forward.name} is {address}: {verdict.reason}")
                tries.append((address, self._source(forward, address), verdict.exception))
            except _Refused as refused:
                failure = failure or refused
        if tries:
            failure = None  # what could be tried tells more than what could not
        for address, source, exception in tries[:_ADDRESSES_TRIED]:
            seconds = self._limits.connect_timeout_s / min(len(tries), _ADDRESSES_TRIED)
            try:
                return await _connected(address, forward.port, source, seconds), address, exception
            except _Refused as refused:
                failure = failure or refused
        raise failure or _Refused("dns", f"{forward.name} has no address")

    async def _addresses(self, forward: Forward) -> Sequence[str]:
        try:
            return (str(ip_address(forward.name)),)
        except ValueError:
            pass
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await self._resolve(forward.name)
        except TimeoutError:
            raise _Refused("dns", f"{forward.name} was not resolved in time") from None
        except Exception as error:
            # Whatever a resolver runs into ends this connection, and nothing else.
            raise _Refused("dns", f"{forward.name} cannot be resolved: {error}") from error

    def _source(self, forward: Forward, address: str) -> str:
        version = ip_address(address).version
        fitting = [each for each in forward.source_addresses if ip_address(each).version == version]
        if not fitting:
            raise _Refused("source", f"no IPv{version} address to leave from for {address}")
        self._turn += 1
        return fitting[self._turn % len(fitting)]

    def _refuse(self, call: _Call, refused: _Refused) -> None:
        known = Connection(call.id, call.forward, endpoint(*call.client))
        self._audit.decision(self._clock.now(), known, refusal=refused.kind, reason=str(refused))
        call.pipe.abort("refused")
        # An abort of a client that has already gone calls nobody back.
        if call.pipe.client.gone:
            self._forget(call)

    def _ended(self, call: _Call, reason: str) -> None:
        if call.known is not None:
            pipe = call.pipe
            up, down = pipe.client.octets, pipe.target.octets
            self._audit.close_of(
                self._clock.now(),
                call.known,
                bytes_up=up,
                bytes_down=down,
                duration_s=pipe.duration_s,
                reason=reason,
            )
        self._forget(call)

    def _forget(self, call: _Call) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._quiet.set()
        if not call.counted:
            return
        call.counted = False
        environment = call.forward.environment_id
        self._open[environment] -= 1
        if self._open[environment] < self._limits.connections_alert:
            self._alerted.discard(environment)
        if not self._open[environment]:
            del self._open[environment]


def _bound(key: Key) -> socket.socket:
    """Return a socket that listens there. Raises `ListenError`."""
    opened: socket.socket | None = None
    try:
        address = ip_address(key[0])
        opened = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(key)
        # Only listening finds out about another listener.
        opened.listen(_BACKLOG)
    except (OSError, ValueError) as error:
        if opened is not None:
            opened.close()
        number = error.errno if isinstance(error, OSError) else None
        said = {
            errno.EADDRINUSE: "is taken by another program on this host",
            errno.EADDRNOTAVAIL: "is on an address that this host does not have",
        }.get(number or 0, f"cannot be listened on: {error}")
        raise ListenError(f"{endpoint(*key)} {said}") from error
    return opened


async def _connected(address: str, port: int, source: str, seconds: float) -> socket.socket:
    """Return a socket connected from `source` within `seconds`. Raises `_Refused`."""
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
            raise _Refused("source", f"this host cannot leave from {source}: {error.strerror}") from error
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except BaseException as error:
        opened.close()
        if isinstance(error, TimeoutError):
            raise _Refused("timeout", f"{place}: no answer in {seconds:g} s") from error
        if isinstance(error, ConnectionRefusedError):
            raise _Refused("refused", f"{place}: connection refused") from error
        if isinstance(error, OSError):
            raise _Refused("unreachable", f"{place}: {error.strerror or error}") from error
        raise
    return opened


def _networks(forward: Forward) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in forward.client_networks)


def _plain(name: Sequence[object] | None) -> Key:
    """Return address and port of a socket's name; an IPv4-mapped address as the IPv4 address it is."""
    if not name:
        return "", 0
    address, port = str(name[0]), int(str(name[1]))
    if address.startswith("::ffff:"):
        mapped = IPv6Address(address).ipv4_mapped
        address = address if mapped is None else str(mapped)
    return address, port
