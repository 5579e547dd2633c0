"""The server machine on real sockets: listeners, PROXY headers, TLS, deadlines.

Standards: RFC 5321 section 4.5.3.2 (time-outs), RFC 3207, RFC 8314 (implicit TLS), PROXY protocol.
Promises: a peer that must send a PROXY header is believed only with one, all others only without; what was
received in the clear before a handshake is never read as if it had come through it; every wait has an end, and
octets that drip put none of them off.
Dangers: with `start_tls` the first encrypted bytes can arrive before the call returns; they are kept for the
new transport. The header is read from the socket itself, to the byte, before any transport exists.
Not here: what is answered (`Session`, handed in).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from outgate.base.addresses import plain
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.smtp.asyncio.alert import alerting
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.events import Closed, Event, TlsRequested
from outgate.smtp.fairness import Pace, Turnstile
from outgate.smtp.proxy_header import V1_LIMIT, V2_LIMIT, BadHeader, ProxyHeader, parse
from outgate.smtp.reply import Reply, reply
from outgate.smtp.server import ServerMachine, State

_log = Log("outgate.smtp")
_TIMEOUT = reply(421, "4.4.2", "Timeout, closing")
_SHUTDOWN = reply(421, "4.3.2", "Service closing, please try again")
_FAILED = reply(421, "4.3.0", "Temporary failure, closing")
_FULL = reply(421, "4.3.2", "Too many connections, please try again later")
_CONTENT = (State.DATA, State.BDAT)
_BREATHER_S = 0.05


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is there: the client's address and port, and the trusted proxy that said so, or None."""

    address: str
    port: int
    via: str | None = None


class Session(Protocol):
    """What a listener's owner does with the events of one session."""

    machine: ServerMachine

    def handle(self, event: Event) -> None:
        """Take an event. A question is answered on the machine now, or later, followed by `Connection.pump`."""
        ...


SessionFactory = Callable[[Peer, "Connection"], Session | None]
"""Make a session for a peer, or None to close without a word. After a late answer call `Connection.pump`."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds a peer may take: for a command, between bytes of a message, for a handshake or PROXY header.

    `rate` is how many octets per second of a message must come, averaged over the `data` seconds; 0: any."""

    command: float = 300.0
    data: float = 180.0
    handshake: float = 30.0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """How a listener treats connections. `trusted` says whether an address must send a PROXY header."""

    context: ssl.SSLContext | None
    implicit_tls: bool
    timeouts: Timeouts
    trusted: Callable[[str], bool]
    welcome: Callable[[Peer], bool]
    """Asked before an implicit-TLS handshake: False closes the connection without a byte."""
    turnstile: Turnstile = field(default_factory=Turnstile)
    """Who may have how many connections; shared by listeners of one service."""


class Connection(asyncio.Protocol):
    """One connection: moves bytes between its transport and its session's machine."""

    __slots__ = (
        "_closing",
        "_early",
        "_factory",
        "_handshaking",
        "_listener",
        "_loop",
        "_pace",
        "_paused",
        "_progress",
        "_pumping",
        "_released",
        "_slow",
        "_timer",
        "peer",
        "session",
        "transport",
    )

    def __init__(self, listener: Listener, peer: Peer, factory: SessionFactory) -> None:
        self._listener = listener
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._handshaking = False
        self._early: list[bytes] = []
        self._pace = Pace()
        self._paused = False
        self._pumping = False
        self._slow = False
        self._closing = False
        self._released = False
        self._progress = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.peer = peer
        self.session: Session | None = None
        self.transport: asyncio.Transport | None = None

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.session is not None:  # the same connection again, through TLS; `_upgrade` goes on from there
            return
        self.transport = cast("asyncio.Transport", transport)
        if self._released:  # the listener was stopped meanwhile
            self.transport.abort()
            return
        try:
            self.session = self._factory(self.peer, self)
        except Exception:
            _log.exception("session.not_made", client=self.peer.address)
        if self.session is None:
            self.transport.close()
            return
        self._listener.opened(self)
        self._watch()
        self.pump()

    def data_received(self, data: bytes) -> None:
        if self._handshaking:
            self._early.append(data)
            return
        if self.session is None:
            return
        machine = self.session.machine
        try:
            machine.receive(data)
        except RemoteProtocolError as error:
            self._abort(str(error))
            return
        self._pace.octets += len(data)
        if machine.state in _CONTENT:
            self._progress = self._loop.time()
        self.pump()

    def eof_received(self) -> bool:
        if self.session is None or self._handshaking:
            return False
        # TLS has no half-close: whatever is returned there, asyncio and uvloop close at once.
        half = not self.session.machine.tls
        self.session.machine.receive_eof(finish=half)
        self.pump()
        return half and not self._closing

    def connection_lost(self, exc: Exception | None) -> None:
        if self._released:
            return
        self._released = True
        self._listener.release(self)
        self._closing = True
        if self.session is not None:
            self.session.machine.receive_eof()
            self.pump()
        if self._timer is not None:
            self._timer.cancel()
        # A connection and its session know each other, and the transport has TLS buffers of 300 KiB: without the
        # cut they would all wait for the garbage collector's rare full round.
        self._timer = None
        self.session = None
        self.transport = None

    def pause_writing(self) -> None:
        # A client that does not read its replies gets no more of them made.
        self._slow = True
        self._pause()

    def resume_writing(self) -> None:
        self._slow = False
        self.pump()

    # -- the pump -------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Hand on events until the machine waits for bytes or an answer; send what it wants sent."""
        session = self.session
        if session is None or self._pumping:
            return
        self._pumping = True
        machine = session.machine
        try:
            while (event := machine.next_event()) is not None:
                kind = type(event)
                if kind is TlsRequested:
                    self._flush()
                    self._start_tls()
                else:
                    self._handle(session, event)
                    if isinstance(event, Closed):
                        if event.reason:
                            _log.info("session.aborted", client=self.peer.address, reason=event.reason)
                        self._flush()
                        self._close()
        except RemoteProtocolError as error:
            self._abort(str(error))
            return
        finally:
            self._pumping = False
        self._flush()
        if machine.full or self._slow:
            self._pause()
        elif self._paused:
            self._resume()

    def _handle(self, session: Session, event: Event) -> None:
        try:
            session.handle(event)
        except Exception:
            # Whoever waits for this answer would wait for ever.
            _log.exception("session.failed", client=self.peer.address)
            session.machine.close(_FAILED)
            session.machine.let_go()

    def _flush(self) -> None:
        if self.session is None or self.transport is None:
            return
        data = self.session.machine.outgoing()
        if data:
            self._progress = self._loop.time()  # a reply means that a command was whole: its clock starts anew
            if not self.transport.is_closing():
                self.transport.write(data)

    def _start_tls(self) -> None:
        # Nothing may be read between the 220 and the handshake: pause in this very step.
        assert self.transport is not None
        self.transport.pause_reading()
        self._handshaking = True
        spawn(self._upgrade(), "starttls")

    async def _upgrade(self) -> None:
        if self.transport is None or self.session is None:  # the 220 found nobody
            return
        options = self._listener.options
        assert options.context is not None
        try:
            with alerting(self.transport.get_extra_info("socket").fileno()):
                upgraded = await self._loop.start_tls(
                    self.transport,
                    self,
                    options.context,
                    server_side=True,
                    ssl_handshake_timeout=options.timeouts.handshake,
                )
        except (OSError, ssl.SSLError) as error:
            self.cut(f"handshake failed: {error}")
            return
        if upgraded is None or self._closing:
            self.cut("closed during the handshake")
            return
        self.transport = upgraded
        self._handshaking = False
        self.session.machine.tls_started()
        early, self._early = self._early, []
        for data in early:
            self.session.machine.receive(data)
        self.pump()

    def cut(self, why: str) -> None:
        """End this connection without a word. A transport that ends while it begins does not always tell us."""
        self._abort(why)
        self.connection_lost(None)

    def _pause(self) -> None:
        if not self._paused and self.transport is not None and not self._closing:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self.transport is not None and not self._closing:
            self._paused = False
            self.transport.resume_reading()

    def _close(self) -> None:
        self._closing = True
        if self.transport is not None:
            self.transport.close()
        if self._timer is not None:  # what is not read by then never will be
            self._timer.cancel()
            self._timer = self._loop.call_later(self._listener.options.timeouts.handshake, self._give_up)

    def _abort(self, why: str) -> None:
        _log.info("session.aborted", client=self.peer.address, reason=why)
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def end(self, last: Reply = _SHUTDOWN) -> None:
        """Close this connection from our side, with a 421 where the protocol has a place for it."""
        if self.session is None or self._handshaking:
            self._abort("ended")
            return
        self.session.machine.close(last, answer_first=True)
        self.pump()

    # -- deadlines ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        # One lazy timer per connection: it looks when it fires, instead of being moved with every byte.
        # What the peer owes may change meanwhile, so it looks as often as the shortest time asks for.
        timeouts = self._listener.options.timeouts
        self._timer = self._loop.call_later(min(timeouts.command, timeouts.data), self._look)

    def _allowed(self) -> float:
        assert self.session is not None
        timeouts = self._listener.options.timeouts
        return {"command": timeouts.command, "data": timeouts.data, "handshake": 0.0}.get(
            self.session.machine.deadline, 0.0
        )

    def _look(self) -> None:
        assert self.session is not None
        machine, timeouts, now = self.session.machine, self._listener.options.timeouts, self._loop.time()
        allowed = self._allowed()
        left = self._progress + allowed - now
        # Chunks can make a message of any number of commands, so its pace goes by the transaction.
        receiving = machine.deadline and (machine.state in _CONTENT or machine.state is State.CHUNKED)
        slow = receiving and self._pace.too_slow(machine.transactions, now, timeouts.data, timeouts.rate)
        if slow or (allowed and left <= 0):
            _log.info("session.timeout", client=self.peer.address, reason="too slow" if slow else "silent")
            self.end(_TIMEOUT)
            return
        wait = min(left if allowed else 1.0, timeouts.command, timeouts.data)
        self._timer = self._loop.call_later(max(wait, 0.01), self._look)

    def _give_up(self) -> None:
        self._abort("the peer does not read")

    @property
    def tls(self) -> str:
        """Return protocol and cipher like "TLSv1.3 TLS_AES_256_GCM_SHA384", or "" in the clear."""
        if self.transport is None:
            return ""
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        if tls is None:
            return ""
        cipher = tls.cipher()
        return f"{tls.version()} {cipher[0]}" if cipher else str(tls.version())


class Listener:
    """A listening socket and its open connections."""

    def __init__(self, sock: socket.socket, options: ListenerOptions, factory: SessionFactory) -> None:
        self._socket = sock
        self._factory = factory
        self._open: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._admitting: set[asyncio.Task[None]] = set()
        self.options = options

    @property
    def address(self) -> tuple[str, int]:
        """Return the address and port it listens on."""
        name = self._socket.getsockname()
        return name[0], name[1]

    @property
    def connections(self) -> frozenset[Connection]:
        """Return the connections that are open."""
        return frozenset(self._open)

    def start(self) -> None:
        """Begin to accept."""
        if self.accepting:
            self._loop.add_reader(self._socket, self._accept)

    @property
    def accepting(self) -> bool:
        """Say whether it has not been closed."""
        return self._socket.fileno() >= 0

    async def close(self) -> None:
        """Accept no more; sessions go on."""
        if self.accepting:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        await asyncio.sleep(0)  # who is cancelled before his first step closes nothing
        for task in list(self._admitting):
            await cancel(task)

    async def stop(self) -> None:
        """Stop accepting and end every session with a 421."""
        await self.close()
        for connection in list(self._open):
            connection.end()

    def opened(self, connection: Connection) -> None:
        """Note that a connection has a session."""
        self._open.add(connection)

    def release(self, connection: Connection) -> None:
        """Give back the place a connection took among those of its address."""
        self._open.discard(connection)
        self.options.turnstile.leave(connection.peer.address)

    def _accept(self) -> None:
        # Not `sock_accept`: who closes a listener while that is under way loses the client it has just accepted.
        try:
            sock, name = self._socket.accept()
        except BlockingIOError:  # the peer left already, or another process was quicker
            return
        except OSError as error:  # out of descriptors: go on, but not in a spin
            _log.warning("listener.accept", error=str(error))
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_BREATHER_S, self.start)
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the peer left already: reading tells
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = spawn(self._admit(sock, Peer(plain(name[0]), name[1])), "admit")
        self._admitting.add(task)
        task.add_done_callback(self._admitting.discard)

    async def _admit(self, sock: socket.socket, peer: Peer) -> None:
        """Read the PROXY header if one is due, then let the connection begin."""
        try:
            if self.options.trusted(peer.address):
                async with asyncio.timeout(self.options.timeouts.handshake):
                    header = await read_proxy_header(sock)
                if header.source is not None:
                    peer = Peer(plain(header.source[0]), header.source[1], via=peer.address)
        except (BadHeader, TimeoutError, OSError) as error:
            _log.warning("listener.proxy_header", client=peer.address, error=str(error) or "none came in time")
            sock.close()
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        if full := self.options.turnstile.enter(peer.address):
            _log.warning("listener.too_many", client=peer.address, reason=full)
            if not self.options.implicit_tls:
                with contextlib.suppress(OSError):  # a new socket takes a line, or its peer is gone
                    sock.send(_FULL.wire)
            sock.close()
        elif self.options.implicit_tls and not self.options.welcome(peer):
            self.options.turnstile.leave(peer.address)
            sock.close()
        else:
            await self._begin(sock, peer)

    async def _begin(self, sock: socket.socket, peer: Peer) -> None:
        options = self.options
        context = options.context if options.implicit_tls else None
        connection = Connection(self, peer, self._factory)
        try:
            with alerting(sock.fileno()) if context else contextlib.nullcontext():
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=options.timeouts.handshake if context else None,
                )
        except (OSError, ssl.SSLError) as error:
            _log.info("listener.handshake", client=peer.address, error=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            if connection.transport is not None:  # it had just begun: uvloop closes it and tells nobody
                connection.cut("the listener was closed")
            raise
        finally:
            if connection.transport is None:  # it never began, so nobody else gives its place back
                connection.connection_lost(None)
                sock.close()


async def read_proxy_header(sock: socket.socket) -> ProxyHeader:
    """Read a PROXY header from a non-blocking socket, to the octet: what follows stays in the socket.

    Raises `BadHeader`, also when the peer closes before the header is whole."""
    loop = asyncio.get_running_loop()
    taken = b""
    while True:
        await _readable(loop, sock)
        try:
            seen = sock.recv(max(V1_LIMIT, V2_LIMIT), socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not seen:
            raise BadHeader("the peer closed before its header")
        result = parse(taken + seen)
        if result is None:  # all of it belongs to the header: take it, wait for the rest
            taken += sock.recv(len(seen))
            continue
        header, length = result
        left = length - len(taken)
        while left:
            left -= len(sock.recv(left))
        return header


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def listening_socket(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket on `address`:`port` (0: any free one). Raises `OSError` if it is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
