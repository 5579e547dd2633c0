"""Resolve a name, check what it resolves to, and connect to the checked address from an address of the way.

Standards: none.
Promises: a connection is made only to an address that the guard has checked for this very name and way, and only from
    an address of the way; whatever goes wrong is a `Refused` with a class word and a reason, and ends this
    connection only. A name is looked up for each connection, in memory no longer than its answer allows: a
    target that comes to lead to a private address is refused from then on. Nothing is dialled for longer than a
    moment for a client that has gone.
Dangers: never connect to a name: it may lead elsewhere by then. A client that has closed its side may be gone or may
    still listen, and nothing tells which: it is given a share of the time.
Not here: who asks (`forwarder`, `http_proxy`), copying (`pump`), the count of source ports (`budget`), options of
    sockets (`sockets`).
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from outgate.base import addresses
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.egress import poll, sockets
from outgate.egress.audit import endpoint
from outgate.egress.budget import Budget, Counted, Ports
from outgate.egress.plan import Way
from outgate.egress.refusal import Refused
from outgate.net import guard

_log = Log("outgate.egress")
_ADDRESSES_TRIED = 4
_JUDGED = 256
# Of the time to connect, what is left once the client has closed its side.
_CLOSED_SHARE = 0.2
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR})
_DONE = frozenset({0, errno.EISCONN})

Resolve = Callable[[str], Awaitable[Sequence[str]]]
AtHand = Callable[[str], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Reached:
    """A connected, non-blocking socket, the address at its other end, and the guard's exception if one was used."""

    socket: socket.socket
    address: str
    exception: str


Told = Callable[[Reached | Refused], None]


class Route:
    """Where a rule leads, and what has been found out about its addresses: made once, used for each connection."""

    __slots__ = ("judged", "literal", "name", "port", "way")

    def __init__(self, name: str, port: int, way: Way) -> None:
        self.name = name
        self.port = port
        self.way = way
        self.judged: dict[str, _Judged] = {}
        try:
            self.literal: tuple[str, ...] = (str(ip_address(name)),)
        except ValueError:
            self.literal = ()

    def judge(self, address: str) -> _Judged:
        """Return whether an address may be dialled and from where. The verdict on one address never changes."""
        known = self.judged.get(address)
        if known is None:
            if len(self.judged) >= _JUDGED:
                self.judged.clear()
            known = self.judged[address] = self._judge(address)
        return known

    def _judge(self, answer: str) -> _Judged:
        # A mapped address is the IPv4 address: it leaves from one, and is in the tunnel where that is.
        address = str(addresses.place(ip_address(answer)))
        if any(ip_address(address) in addresses.network(network) for network in self.way.tunnel):
            # Until something carries it there: by any other way it would leak.
            return _Judged(address, (), "", Refused("closed", f"{self._means(address)}: only the VPN leads there"))
        verdict = guard.check(address, exceptions=self.way.exceptions, name=self.name)
        if not verdict.allowed:
            return _Judged(address, (), "", Refused("guard", f"{self._means(address)}: {verdict.reason}"))
        version = ip_address(address).version
        fitting = tuple(each for each in self.way.sources if ip_address(each).version == version)
        if not fitting:
            return _Judged(address, (), "", Refused("source", f"no IPv{version} address to leave from for {address}"))
        return _Judged(address, fitting, verdict.exception, None)

    def _means(self, address: str) -> str:
        """Say which address a name stands for; an address stands for itself."""
        return address if address == self.name else f"{self.name} is {address}"


@dataclass(frozen=True, slots=True)
class _Judged:
    address: str
    sources: tuple[str, ...]
    exception: str
    refused: Refused | None


class Reach:
    """Make connections. Lives on one event loop."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        connect_timeout_s: float,
        at_hand: AtHand | None = None,
        poller: poll.Poller | None = None,
        keepalive_s: float = 60.0,
        port_budget_alert: float = 0.7,
    ) -> None:
        """`at_hand` returns what `resolve` would without waiting, or None; without a `poller` it makes its own."""
        self._resolve = resolve
        self._at_hand = at_hand
        self.timeout_s = connect_timeout_s
        self.keepalive_s = max(int(keepalive_s), 1)
        self._poller = poller
        self.ports = Ports(alert=port_budget_alert)
        self._turn = 0
        self._dials: set[Dial] = set()
        self._missing: set[str] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def budget(self) -> list[Budget]:
        """Return how many source ports are taken, per source and target, the fullest first."""
        return self.ports.budget()

    async def connect(self, name: str, port: int, way: Way, client: socket.socket | None = None) -> Reached:
        """Return a connection to `name`:`port` on behalf of `client`. Raises `Refused`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reached | Refused] = loop.create_future()

        def told(how: Reached | Refused) -> None:
            if not answer.done():
                answer.set_result(how)
            elif isinstance(how, Reached):
                self.poller.close(how.socket)

        dial = self.dial(Route(name, port, way), told, client)
        try:
            how = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and isinstance(reached := answer.result(), Reached):
                self.poller.close(reached.socket)
            dial.cancel()
            raise
        if isinstance(how, Refused):
            raise Refused(how.kind, str(how))  # a fresh one: verdicts are kept, and raising adds to an error
        self.poller.drop(how.socket.fileno())
        return how

    def dial(self, route: Route, told: Told, client: socket.socket | None = None) -> Dial:
        """Connect on behalf of `client`; `told` is called once with how that went, perhaps in here. The socket is still
        watched for by the poller (to be handed on, or closed by it)."""
        dial = Dial(self, route, told, client)
        addresses = route.literal or (None if self._at_hand is None else self._at_hand(route.name))
        if addresses is None:
            self.waits(dial)
            dial.task = spawn(self._ask(dial), f"egress resolve {route.name}")
        else:
            dial.begin(addresses)
        return dial

    @property
    def poller(self) -> poll.Poller:
        """Return the poller that connects."""
        if self._poller is None:
            self._poller = poll.poller(asyncio.get_running_loop())
        return self._poller

    def close(self) -> None:
        """Give up what is being connected; nobody is told."""
        for dial in list(self._dials):
            dial.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def in_turn(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Return addresses in the order in which they are to be tried: all of them take turns."""
        if len(sources) == 1:
            return sources
        self._turn += 1
        first = self._turn % len(sources)
        return sources[first:] + sources[:first]

    def waits(self, dial: Dial) -> None:
        """Take note that a connection is under way: it must not stay so for longer than its time, nor for nobody."""
        self._dials.add(dial)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._period_s, self._end_late)

    def missing(self, source: str, error: OSError) -> None:
        """Say once that this host cannot leave from an address: others of the way may do its work unseen."""
        if source not in self._missing:
            self._missing.add(source)
            remedy = "give this host the address (`ip address add`), or take it out of the settings"
            _log.warning("egress.source_missing", source=source, error=error.strerror, remedy=remedy)

    def done(self, dial: Dial) -> None:
        """Take note that it is no longer."""
        self._dials.discard(dial)

    @property
    def _period_s(self) -> float:
        return max(self.timeout_s / 20, 0.01)

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        dials = list(self._dials)
        # First of all: whatever goes wrong with one, there is a next time for the others.
        self._sweep = loop.call_later(self._period_s, self._end_late) if dials else None
        for dial in dials:
            dial.look(now)

    async def _ask(self, dial: Dial) -> None:
        name = dial.route.name
        try:
            async with asyncio.timeout(self.timeout_s):
                addresses = await self._resolve(name)
        except TimeoutError:
            dial.refuse(Refused("dns", f"{name} was not resolved in time"))
        except Exception as error:
            # Whatever a resolver runs into ends this connection, and nothing else.
            dial.refuse(Refused("dns", f"{name} cannot be resolved: {error}"))
        else:
            dial.begin(addresses)


class Dial:
    """One connection being made."""

    __slots__ = (
        "_at", "_client", "_closed_at", "_failure", "_from", "_reach", "_sock", "_told", "_tries", "_until", "route",
        "task",
    )  # fmt: skip

    def __init__(self, reach: Reach, route: Route, told: Told, client: socket.socket | None) -> None:
        self._reach = reach
        self._told: Told | None = told
        self._client = client
        self._closed_at: float | None = None
        self._tries: list[_Judged] = []
        self._at = 0
        self._from = ""
        self._failure: Refused | None = None
        self._sock: socket.socket | None = None
        self.route = route
        self.task: asyncio.Task[None] | None = None
        self._until = math.inf  # its name's resolving has an end of its own

    def begin(self, addresses: Sequence[str]) -> None:
        """Try the first address that may be tried."""
        if self._told is None:
            return
        failure: Refused | None = None
        for address in addresses:
            judged = self.route.judge(address)
            if judged.refused is None:
                self._tries.append(judged)
                if len(self._tries) == _ADDRESSES_TRIED:
                    break
            else:
                failure = failure or judged.refused
        if not self._tries:
            self.refuse(failure or Refused("dns", f"{self.route.name} has no address"))
            return
        self._next()

    def cancel(self) -> None:
        """Give up; nobody is told."""
        self._told = None
        self._reach.done(self)
        self._drop()
        if self.task is not None:
            self.task.cancel()

    def ready(self, events: int) -> None:
        """Look how connecting went."""
        sock = self._sock
        if sock is None:
            return
        # Asking again is the one sure answer: an event may be a stranger's.
        number = sock.connect_ex((self._tries[self._at].address, self.route.port))
        if number in _DONE:
            self._connected(sock)
        elif number in _UNDER_WAY:
            self._reach.poller.wait_write(sock.fileno())
        else:
            self._failed(self._why(number))
            self._next()

    def look(self, now: float) -> None:
        """Give up this address if its time is over, and all of them if nobody waits any more."""
        if self._told is None:
            return
        if gone := self._gone(now):
            told, self._told = self._told, None
            self.cancel()
            told(gone)
        elif self._until <= now:
            seconds = self._reach.timeout_s / len(self._tries)
            self._failed(Refused("timeout", f"{self._place()}: no answer in {seconds:g} s"))
            self._next()

    def _gone(self, now: float) -> Refused | None:
        """Say why the client is waited for no more."""
        state = 0 if self._client is None else sockets.state(self._client)
        if state == sockets.CLOSED:
            return Refused("withdrawn", "the client was gone before there was a connection")
        if state != sockets.CLOSE_WAIT:
            return None
        if self._closed_at is None:
            self._closed_at = now
        seconds = self._reach.timeout_s * _CLOSED_SHARE
        if now < self._closed_at + seconds:
            return None
        return Refused("timeout", f"{self.route.name}: no connection within {seconds:g} s of the client's end")

    def refuse(self, refused: Refused) -> None:
        """Tell that there is no connection, and why."""
        self._reach.done(self)
        told, self._told = self._told, None
        if told is not None:
            told(refused)

    def _connected(self, sock: socket.socket) -> None:
        self._sock = None
        self._reach.done(self)
        told, self._told = self._told, None
        judged = self._tries[self._at]
        if told is None:
            self._reach.poller.close(sock)
        else:
            told(Reached(sock, judged.address, judged.exception))

    def _next(self) -> None:
        """Try address after address until one is under way, or none is left."""
        while self._at < len(self._tries):
            judged = self._tries[self._at]
            for source in self._reach.in_turn(judged.sources):
                number = self._start(judged.address, source)
                if number in _DONE or number in _UNDER_WAY:
                    return
                # A source that is not there, or whose ports are used up, has no say about the others.
                if number not in (errno.ENODEV, errno.EADDRNOTAVAIL):
                    break
            self._at += 1
        assert self._failure is not None
        self.refuse(self._failure)

    def _start(self, address: str, source: str) -> int:
        """Begin to connect; return what the system says: done, under way, or an error, which is noted."""
        reach = self._reach
        self._from = source
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = Counted(reach.ports, (source, address, self.route.port), family, _STREAM)
        except OSError as error:
            self._note(Refused("source", f"this host has no socket left: {error.strerror}"))
            return errno.EMFILE
        try:
            if not sockets.LINUX:
                sock.setblocking(False)
            sockets.tune(sock, reach.keepalive_s)
            sock.bind((source, 0))
        except OSError as error:
            sock.close()
            reach.missing(source, error)
            self._note(Refused("source", f"this host cannot leave from {source}: {error.strerror}"))
            return errno.ENODEV
        number = sock.connect_ex((address, self.route.port))
        if number in _UNDER_WAY:
            self._sock = sock
            poller = reach.poller
            self._until = asyncio.get_running_loop().time() + reach.timeout_s / len(self._tries)
            reach.waits(self)
            poller.add(sock.fileno(), self, write=True)
            return number
        if number in _DONE:
            reach.poller.add(sock.fileno(), self)
            self._connected(sock)
        else:
            sock.close()
            self._note(self._why(number))
        return number

    def _note(self, why: Refused) -> None:
        self._failure = self._failure or why

    def _failed(self, why: Refused) -> None:
        self._drop()
        self._note(why)
        self._at += 1

    def _drop(self) -> None:
        if self._sock is not None:
            self._reach.poller.close(self._sock)
            self._sock = None

    def _place(self) -> str:
        return f"{endpoint(self._tries[self._at].address, self.route.port)} from {self._from}"

    def _why(self, number: int) -> Refused:
        place = self._place()
        if number == errno.ECONNREFUSED:
            return Refused("refused", f"{place}: connection refused")
        if number == errno.ETIMEDOUT:
            return Refused("timeout", f"{place}: no answer")
        if number == errno.EADDRNOTAVAIL:
            return Refused(
                "source",
                f"{place}: the source ports to this target are used up; give the way more addresses, or widen"
                " net.ipv4.ip_local_port_range",
            )
        return Refused("unreachable", f"{place}: {os.strerror(number)}")
