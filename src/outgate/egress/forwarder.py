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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Any

from outgate.base import ids
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.egress.audit import Connection, endpoint
from outgate.egress.gate import Gate, Limits
from outgate.egress.ledger import Ledger
from outgate.egress.pipe import Pipe
from outgate.egress.plan import Forward
from outgate.egress.reach import Reach
from outgate.egress.refusal import Refused
from outgate.smtp.proxy_header import encode_v2

_log = Log("outgate.egress")
_BACKLOG = 1024

Key = tuple[str, int]


class ListenError(Exception):
    """A port cannot be listened on; the message names it and says why. Nothing has changed."""


@dataclass(slots=True)
class _Listener:
    forward: Forward
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
        reach: Reach,
        gate: Gate,
        ledger: Ledger,
        limits: Limits,
        header_to: Collection[str] = (),
    ) -> None:
        """`header_to` are checked addresses (`address:port`) that get a PROXY header under whatever name; it may change
        meanwhile."""
        self._reach = reach
        self._gate = gate
        self._ledger = ledger
        self._limits = limits
        self._header_to = header_to
        self._listeners: dict[Key, _Listener] = {}
        self._calls: set[_Call] = set()
        self._applying = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def forwards(self) -> tuple[Forward, ...]:
        """Return the forwards that are in force now."""
        return tuple(listener.forward for listener in self._listeners.values())

    def connections(self, environment_id: str) -> int:
        """Return how many connections of an environment are open or being opened."""
        return self._gate.open(environment_id)

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
                    listener.forward = wanted[key]
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
            listener = _Listener(wanted[key])
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
            self._gate.admit(call.forward, call.client[0])
            self._gate.enter(environment)
        except Refused as refused:
            self._refuse(call, refused)
            return
        call.counted = True
        call.task = spawn(self._open(call), f"egress {call.id}")

    async def _open(self, call: _Call) -> None:
        """Find, check and connect the target, then let the octets flow."""
        forward = call.forward
        try:
            reached = await self._reach.connect(forward.name, forward.port, forward.way)
        except Refused as refused:
            self._refuse(call, refused)
            return
        source = endpoint(*_plain(reached.socket.getsockname()))
        if call.pipe.ending or call.listener.withdrawn or call.listener.forward != forward:
            reached.socket.close()
            self._refuse(call, Refused("withdrawn", "the client or the forward went away meanwhile"))
            return
        target = endpoint(reached.address, forward.port)
        header = forward.proxy_header or target in self._header_to
        known = self._connection(call, target=target, source=source, exception=reached.exception, proxy_header=header)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: call.pipe.target, sock=reached.socket)
        except OSError as error:
            self._refuse(call, Refused("unreachable", str(error)))
            return
        if call.pipe.ending:
            # The client vanished in that very step: nothing has been sent, so nothing was opened.
            self._refuse(call, Refused("withdrawn", "the client went away meanwhile"))
            return
        call.known = known
        self._ledger.opened(known, reason=f"leaves from {source} ({forward.mode.value})")
        if header:
            call.pipe.target.write(encode_v2(call.client, call.dialled))
        call.pipe.join()

    def _connection(self, call: _Call, **known: Any) -> Connection:
        forward = call.forward
        return Connection(call.id, forward, endpoint(*call.client), forward.name, forward.port, **known)

    def _refuse(self, call: _Call, refused: Refused) -> None:
        self._ledger.refused(self._connection(call), refused)
        call.pipe.abort("refused")
        # An abort of a client that has already gone calls nobody back.
        if call.pipe.client.gone:
            self._forget(call)

    def _ended(self, call: _Call, reason: str) -> None:
        if call.known is not None:
            pipe = call.pipe
            up, down = pipe.client.octets, pipe.target.octets
            self._ledger.closed(
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
        self._gate.leave(call.forward.environment_id)


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


def _plain(name: Sequence[object] | None) -> Key:
    """Return address and port of a socket's name; an IPv4-mapped address as the IPv4 address it is."""
    if not name:
        return "", 0
    address, port = str(name[0]), int(str(name[1]))
    if address.startswith("::ffff:"):
        mapped = IPv6Address(address).ipv4_mapped
        address = address if mapped is None else str(mapped)
    return address, port
