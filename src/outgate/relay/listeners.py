"""The relay's listeners: at the public addresses of every endpoint, and at private ones that come and go.

Standards: none; a private address is one that an endpoint gateway has reserved in a VPC's subnet.
Promises: all public listeners of a kind share one port, and private ones have the same; an address that is given up
    takes no new client and no new transaction, and whoever is at a message may finish it within a minute.
Dangers: a listener on a wildcard address takes the ports of every private one. Belongs to one event loop.
Not here: what an endpoint is (`endpoints`), which gateways there are (`gateways`), one listener (`smtp.asyncio`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

from outgate.base.log import Log
from outgate.relay import policy
from outgate.relay.endpoints import Door, Endpoint, Endpoints, OpenEndpoint
from outgate.relay.session import SubmissionSession
from outgate.smtp.asyncio.server import Connection, Listener, listening_socket

_log = Log("outgate.listeners")
_KINDS = ("submission", "submissions")
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TRIES = 50
_DRAIN_S = 60.0


class CannotListen(Exception):
    """A port that cannot be had: `address`, `port`, and the system's `error`."""

    def __init__(self, address: str, port: int, error: OSError) -> None:
        super().__init__(f"{address}:{port}: {error}")
        self.address = address
        self.port = port
        self.error = error


class Listeners:
    """All of them."""

    def __init__(self, endpoints: Endpoints, make: Callable[[socket.socket, Door], Listener]) -> None:
        """`make` returns a listener on a bound socket that is a door."""
        self._endpoints = endpoints
        self._make = make
        self._all: list[Listener] = []
        self._public: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self._private: dict[str, list[Listener]] = {}
        self._started = False
        self.targets: set[str] = set()
        """Where there is a listener now, as `address:port`. Changes in place."""

    @property
    def addresses(self) -> frozenset[str]:
        """Return the addresses that have a listener now."""
        return frozenset(listener.address[0] for listener in self._all if listener.accepting)

    @property
    def connections(self) -> list[Connection]:
        """Return the connections that are open at all of them."""
        return [connection for listener in self._all for connection in listener.connections]

    def start(self) -> None:
        """Begin to accept."""
        self._started = True
        for listener in self._all:
            listener.start()

    async def stop(self) -> None:
        """Stop accepting and end every session."""
        for listener in self._all:
            await listener.stop()

    # -- public ---------------------------------------------------------------------------------------------

    def listen(self, address: str, port: int, door: Door) -> int:
        """Listen at a public address; return the port. Raises `CannotListen`."""
        try:
            return self._open_public(listening_socket(address, port), door)
        except OSError as error:
            raise CannotListen(address, port, error) from None

    def listen_everywhere(self, kind: str, port: int) -> int:
        """Listen as "submission" (STARTTLS) or "submissions" (TLS) at the public addresses of all endpoints, at one
        port, and return it (0: any that is free at all of them).

        An address that this machine lacks is logged, and no error unless it lacks all. Raises `CannotListen`."""
        doors = {address: Door(kind, "public", each) for each in self._endpoints.all for address in each.listen}
        for address, sock in _bound(list(doors), port).items():
            port = self._open_public(sock, doors[address])
        return port

    def _open_public(self, sock: socket.socket, door: Door) -> int:
        listener = self._add(sock, door)
        self._public.setdefault((door.of.id, door.listener), []).append(listener.address)
        return listener.address[1]

    def open_endpoints(self) -> list[OpenEndpoint]:
        """Return the endpoints with the ports and public addresses at which they listen now."""
        found: list[OpenEndpoint] = []
        for each in self._endpoints.all:
            at = [place for kind in _KINDS for place in self._public.get((each.id, kind), ())]
            addresses = tuple(dict.fromkeys(address for address, _ in at))
            found.append(OpenEndpoint(each, self._port(each, _KINDS[0]), self._port(each, _KINDS[1]), addresses))
        return found

    def _port(self, endpoint: Endpoint, kind: str) -> int:
        """Return the port of an endpoint's public listeners of a kind: another's if none of its addresses is here, 0
        if nothing of the kind is open."""
        ports = {of: at[0][1] for (of, each), at in self._public.items() if each == kind}
        return ports.get(endpoint.id) or next(iter(ports.values()), 0)

    # -- private --------------------------------------------------------------------------------------------

    def open_private(self, address: str, *, vpc: str, region: str) -> None:
        """Listen at a private address, at the ports of the endpoint that serves `region`; `vpc` is the CRN of the VPC
        whose gateway it is. Raises `OSError`, and then listens at no port of it."""
        endpoint = self._endpoints.of_region(region)
        bound: list[tuple[socket.socket, Door]] = []
        try:
            for kind in _KINDS:
                port = self._port(endpoint, kind)
                if not port:
                    raise OSError(errno.ENOTCONN, f"no public {kind} listener is open whose port it could have")
                bound.append((listening_socket(address, port), Door(kind, "private", endpoint, vpc)))
        except OSError:
            for sock, _ in bound:
                sock.close()
            raise
        self._private[address] = [self._add(sock, door) for sock, door in bound]

    async def close_private(self, address: str, *, drain_s: float = _DRAIN_S) -> None:
        """Listen at a private address no more; return when nobody new can come. Its clients may finish the message they
        are at within `drain_s` seconds, and read 421 then; the others read it now."""
        for listener in self._private.pop(address, []):
            host, port = listener.address
            self.targets.discard(_at(host, port))
            await listener.close()
            for connection in listener.connections:
                session = connection.session
                if not isinstance(session, SubmissionSession) or not session.leave():
                    connection.end(policy.CLOSING)
            asyncio.get_running_loop().call_later(drain_s, _end_all, listener)

    def _add(self, sock: socket.socket, door: Door) -> Listener:
        listener = self._make(sock, door)
        # Those that were closed are kept until their last client has gone: changes of rules concern them too.
        self._all = [each for each in self._all if each.accepting or each.connections]
        self._all.append(listener)
        self.targets.add(_at(*listener.address))
        if self._started:
            listener.start()
        return listener


def _end_all(listener: Listener) -> None:
    for connection in listener.connections:
        _log.info("listener.drained", client=connection.peer.address, reason="its message took too long")
        connection.end(policy.CLOSING)


def _bound(addresses: Sequence[str], port: int) -> dict[str, socket.socket]:
    """Return sockets that listen at one port of every address that this machine has. Raises `CannotListen`."""
    if port:
        return _bound_at(addresses, port)
    for _ in range(_TRIES - 1):
        try:
            return _bound_at(addresses, 0)
        except CannotListen as error:
            if error.error.errno != errno.EADDRINUSE:
                raise
    return _bound_at(addresses, 0)


def _bound_at(addresses: Sequence[str], port: int) -> dict[str, socket.socket]:
    bound: dict[str, socket.socket] = {}
    lacking: list[OSError] = []
    for address in addresses:
        try:
            bound[address] = listening_socket(address, port)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                for sock in bound.values():
                    sock.close()
                raise CannotListen(address, port, error) from None
            _log.warning("listener.no_address", address=address, remedy=f"give this machine {address}, or take it out")
            lacking.append(error)
        else:
            port = bound[address].getsockname()[1]
    if not bound:
        raise CannotListen(addresses[0], port, lacking[0])
    return bound


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
