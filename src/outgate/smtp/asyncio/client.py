"""The client machine on an asyncio transport: connect, STARTTLS, transactions in a stream, deadlines.

Standards: RFC 5321 section 4.5.3.2 (time-outs), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS), RFC 4954 (AUTH).
Promises: `connect` gives a connection that has said EHLO, or `ConnectFailed`; every transaction handed over
gets its callback exactly once, whatever happens; every wait has an end; callbacks, not futures, per message.
Dangers: nothing may be read between the 220 and the handshake, so reading pauses in that very step; the first
decrypted bytes can arrive before `start_tls` returns and are kept for the new transport. A certificate is judged before
anything else is said over it: a password is sent to nobody else.
Not here: what a reply means and where to connect (`relay`), the conversation itself (`smtp.client`).

It is long because a transport calls one object for everything: what begins a session, what pumps it and what watches
its seconds share that object's state, and no cut leaves two parts that know less of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.smtp.client import (
    Authenticated,
    ClientLimits,
    ClientMachine,
    Closing,
    Done,
    Event,
    Greeting,
    Hello,
    State,
    Step,
    TlsReady,
    TlsRefused,
    Transaction,
    TransactionResult,
)
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed, KeepAlive, TlsMode, certificate_names, why
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError, SpokeEarly
from outgate.smtp.login import choose
from outgate.smtp.masks import Masks
from outgate.smtp.reply import Reply

__all__ = ["ClientTimeouts", "ConnectFailed", "Connection", "KeepAlive", "TlsMode", "connect", "dial"]

Check = Callable[[ssl.SSLObject], str]
"""Judges a finished handshake: "" if it will do, else what is wrong."""

_log = Log("outgate.smtp.client")
_LEAST_PROGRESS = 8192  # octets that a peer must read within `ClientTimeouts.content`: fewer are a drip
_PIECE = 65_536  # octets of a large message that are encrypted at a time: what is not read is not encrypted either
_LARGE = 524_288
_ONE_RECORD = 16_384  # octets: what fits into one TLS record is cheaper joined than encrypted in pieces


async def connect(
    address: str,
    port: int,
    *,
    ehlo_name: str,
    clock: Clock,
    source: str | None = None,
    tls: TlsMode = "none",
    context: ssl.SSLContext | None = None,
    server_name: str | None = None,
    timeouts: ClientTimeouts | None = None,
    limits: ClientLimits | None = None,
    pipelining: bool = True,
    keep_alive: KeepAlive | None = KeepAlive(),
    sock: socket.socket | None = None,
    check: Check | None = None,
    login: tuple[str, str] | None = None,
    own_names: frozenset[str] = frozenset(),
) -> Connection:
    """Connect to `address`:`port` (an IP address) from `source`, and return once EHLO, or AUTH, is answered.

    "opportunistic" uses STARTTLS if it is offered, "required" fails with stage "tls" if it is not, "implicit"
    starts with the handshake. `server_name` is the name for SNI and for the check the `context` makes; `check` judges
    the handshake beside it. `sock` is connected already, by `dial`. `login` is (user name, password), said in TLS only.
    A server that greets with one of `own_names` (lower case) is ourselves. Raises `ConnectFailed`."""
    if tls != "none" and context is None:
        raise LocalProtocolError("TLS needs a context")
    timeouts = timeouts or ClientTimeouts()
    machine = ClientMachine(ehlo_name=ehlo_name, limits=limits, pipelining=pipelining, tls=tls == "implicit")
    connection = Connection(machine, f"{address}:{port}", tls, context, server_name, timeouts, clock)
    connection.check, connection.login, connection.own_names = check, login, own_names
    sock = sock or await dial(address, port, source, timeouts.connect, clock)
    if keep_alive is not None:
        keep_alive.set_on(sock)
    await connection.open(sock)
    return connection


async def dial(address: str, port: int, source: str | None, seconds: float, clock: Clock) -> socket.socket:
    """Return a socket that is connected to `address`:`port` from `source`, within `seconds`. Raises `ConnectFailed`:
    with stage "source" if `source` is no address of this machine now."""
    did = f"connect to {address}:{port}" + (f" from {source}" if source else "")
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            _bind(sock, source, did, clock)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except (OSError, TimeoutError) as error:
        sock.close()
        text = f"timeout: not connected within {seconds:g} s" if isinstance(error, TimeoutError) else why(error)
        raise ConnectFailed("connect", text, None, (Step(clock.now(), did, text),)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, source: str, did: str, clock: Clock) -> None:
    # Without it a bound socket takes a port of the address for itself, for all destinations.
    option = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, option, 1)
    try:
        sock.bind((source, 0))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        # Told apart from the same error of connecting, which says that no port is left.
        text = f"{source} is not an address of this machine now"
        raise ConnectFailed("source", text, None, (Step(clock.now(), did, text),)) from None


class Connection(asyncio.Protocol):
    """One session with a server. Made by `connect`.

    `on_closed` is called once when no more can be sent, after the callbacks of all transactions."""

    __slots__ = (
        "_bad_certificate",
        "_clock",
        "_context",
        "_early",
        "_ended",
        "_error",
        "_held",
        "_injected",
        "_leaving",
        "_loop",
        "_machine",
        "_mode",
        "_on_closed",
        "_opened",
        "_paused",
        "_probing",
        "_pumping",
        "_server_name",
        "_since",
        "_stage",
        "_steps",
        "_tick",
        "_timeouts",
        "_timer",
        "_transport",
        "_unsent",
        "_verdict",
        "_waiting",
        "check",
        "login",
        "own_names",
        "peer",
        "tls",
    )

    def __init__(
        self,
        machine: ClientMachine,
        peer: str,
        mode: TlsMode,
        context: ssl.SSLContext | None,
        server_name: str | None,
        timeouts: ClientTimeouts,
        clock: Clock,
    ) -> None:
        self._machine = machine
        self._mode: TlsMode = mode
        self._context = context
        self._server_name = server_name
        self._timeouts = timeouts
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._on_closed: Callable[[], None] | None = None
        self._waiting: list[tuple[Transaction, Callable[[TransactionResult], None]]] = []
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] | None = None
        self._steps: list[Step] = []
        self._error = ""
        self._stage = "greeting"
        self._bad_certificate = False
        self._injected = False
        self._leaving = False
        self._paused = False
        self._held: deque[memoryview] = deque()
        self._probing: Callable[[], None] | None = None
        self._pumping = False
        self._unsent = 0
        self._since = self._loop.time()
        self._tick = timeouts.shortest
        self._timer: asyncio.TimerHandle | None = None
        self._verdict: asyncio.Future[Reply] | None = None
        self.check: Check | None = None
        self.login: tuple[str, str] | None = None
        self.own_names: frozenset[str] = frozenset()
        self.peer = peer
        self.tls = ""

    # -- what its owner sees --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Say whether `send` is welcome now: at most one transaction under way and none behind it."""
        return self._machine.ready and not self._paused and not self._leaving and self._probing is None

    @property
    def in_flight(self) -> int:
        """Return how many transactions wait for their result."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Say whether the session is over."""
        return self._machine.state is State.CLOSED

    @property
    def error(self) -> str:
        """Return why the session is over, "" while it is not, or if it ended in peace."""
        return self._error

    @property
    def extensions(self) -> dict[str, str]:
        """Return what the peer offers: keyword in capitals → parameters."""
        return self._machine.extensions

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """Return the TLS session, which knows the peer's certificate; None without TLS."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Return the names in the peer's certificate; empty without TLS or without a checked chain."""
        session = self.ssl_object
        return () if session is None else certificate_names(session.getpeercert())

    @property
    def greeting_steps(self) -> tuple[Step, ...]:
        """Return how the session began: connect, EHLO, STARTTLS, the handshake."""
        return tuple(self._steps)

    @property
    def on_closed(self) -> Callable[[], None] | None:
        return self._on_closed

    @on_closed.setter
    def on_closed(self, callback: Callable[[], None] | None) -> None:
        self._on_closed = callback
        if callback is not None and self._ended.done():  # it closed before anybody listened
            self._loop.call_soon(callback)

    def send(self, transaction: Transaction, done: Callable[[TransactionResult], None]) -> None:
        """Begin a transaction or queue it behind the one under way; `done` gets its result, on this loop.

        Raises `LocalProtocolError` when not `ready` or for what cannot go on the wire."""
        if not self.ready:
            raise LocalProtocolError("the connection cannot take a transaction now")
        if not self._waiting:
            self._since = self._loop.time()
        self._machine.send(transaction)
        self._waiting.append((transaction, done))
        self._pump()

    def probe(self, lives: Callable[[], None]) -> None:
        """Ask the peer of an idle connection whether it is still there; `lives` is called if it says so in time, else
        the connection ends. Raises `LocalProtocolError` when not `ready` or something is under way."""
        if not self.ready:
            raise LocalProtocolError("the connection cannot be asked now")
        self._machine.reset()
        self._probing = lives
        self._since = self._loop.time()
        self._pump()
        if self._timer is not None and not self.closed:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._timeouts.probe, self._look)

    async def login_with_token(self, user: str, token: str) -> Reply:
        """Log in by XOAUTH2 with an OAuth access token, before the first transaction; return the reply, 2xx or not.
        A refusal ends with the status that the server gave for it, if it gave one.

        Raises `ConnectFailed` (stage "auth") without TLS, if XOAUTH2 is not offered, or if no reply comes."""
        self._stage = "auth"
        try:
            mechanism = choose(("XOAUTH2",), self.extensions, tls=self._machine.tls)
            self._machine.auth(mechanism, user, token)
        except LocalProtocolError as error:
            raise ConnectFailed("auth", str(error), None, self.greeting_steps) from None
        self.login = (user, token)  # kept: what is wrong with a later line may quote it
        self._verdict = verdict = self._loop.create_future()
        self._since = self._loop.time()
        self._pump()
        try:
            return await verdict
        except asyncio.CancelledError:
            self.abort()  # the answer would be taken for the one to something else
            raise
        finally:
            self._verdict = None

    async def quit(self) -> None:
        """Say QUIT once nothing is under way, and wait until the connection is closed."""
        self._leaving = True
        self._pump()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Cut the connection; transactions under way end with an error."""
        self._machine.receive_eof("the connection was aborted", unsent=self._holds_back)
        self._pump()
        if self._transport is not None:
            self._transport.abort()

    # -- beginning ------------------------------------------------------------------------------------------

    async def open(self, sock: socket.socket) -> None:
        """Run the session on a connected socket up to the answer to EHLO. Raises `ConnectFailed`."""
        implicit = self._mode == "implicit"
        try:
            if implicit:
                await self._loop.create_connection(
                    lambda: self,
                    sock=sock,
                    ssl=self._context,
                    server_hostname=self._check_name() or "",
                    ssl_handshake_timeout=self._timeouts.handshake,
                )
            else:
                await self._loop.create_connection(lambda: self, sock=sock)
        except (OSError, ValueError) as error:
            sock.close()
            self._steps.append(Step(self._clock.now(), f"connect to {self.peer}, TLS handshake", why(error)))
            raise ConnectFailed(
                "tls" if implicit else "connect",
                why(error),
                None,
                self.greeting_steps,
                certificate=isinstance(error, ssl.SSLCertVerificationError),
            ) from None
        except asyncio.CancelledError:
            if not self._opened.cancel():  # it has failed already, and nobody asks for that any more
                self._opened.exception()
            raise
        try:
            await self._opened
        except BaseException:
            self.abort()
            raise

    def _check_name(self) -> str | None:
        # A context that checks names needs one; without a name the address must be in the certificate.
        assert self._context is not None
        if self._server_name is None and self._context.check_hostname:
            return self.peer.rpartition(":")[0]
        return self._server_name

    def _began(self, event: Event) -> None:
        """An event before the session is open."""
        machine = self._machine
        if type(event) is Greeting:
            self._step(f"connect to {self.peer}" + (f", {self.tls}" if self.tls else ""), event.reply)
            if not event.reply.ok:
                self._fail(f"the server greeted with {event.reply}", event.reply)
            elif self.own_names and _first_word(event.reply) in self.own_names:
                self._stage = "loop"
                self._fail(f"the server is ourselves: it greets as {_first_word(event.reply)}", None)
            else:
                self._say_hello()
        elif type(event) is Hello:
            self._step("EHLO", event.reply)
            if not event.reply.ok:
                self._fail(f"the server refused EHLO: {event.reply}", event.reply)
            elif machine.tls or self._mode == "none":
                self._log_in_or_open()
            elif "STARTTLS" in event.extensions:
                self._stage = "tls"
                machine.starttls()
            elif self._mode == "required":
                self._stage = "tls"
                self._fail("the server does not offer STARTTLS", None)
            else:
                self._log_in_or_open()
        elif type(event) is TlsRefused:
            self._step("STARTTLS", event.reply)
            if self._mode == "required" or event.reply.code == 421:
                self._fail(f"the server refused STARTTLS: {event.reply}", event.reply)
            else:
                self._log_in_or_open()
        elif type(event) is Authenticated:
            said = Masks(*self.login or ()).reply(event.reply)
            self._step("AUTH", said)
            if self._verdict is not None:
                if not self._verdict.done():
                    self._verdict.set_result(said)
            elif said.ok:
                self._set_open()
            else:
                self._fail(f"the server refused the login: {said}", said)
        elif type(event) is TlsReady:
            self._step("STARTTLS", event.reply)
            self._flush()
            assert self._transport is not None
            self._transport.pause_reading()
            spawn(self._upgrade(), "starttls")

    def _say_hello(self) -> None:
        self._stage = "hello"
        self._machine.ehlo()

    def _log_in_or_open(self) -> None:
        if self.login is None:
            self._set_open()
            return
        self._stage = "auth"
        try:
            mechanism = choose(("PLAIN", "LOGIN"), self.extensions, tls=self._machine.tls)
            self._machine.auth(mechanism, *self.login)
        except LocalProtocolError as error:
            self._fail(str(error), None)

    def _step(self, did: str, reply: Reply | str) -> None:
        self._steps.append(Step(self._clock.now(), did, str(reply)))

    def _set_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail(self, text: str, reply: Reply | None) -> None:
        """Tell `open` that nothing comes of it, and leave politely where the protocol has a place for that."""
        if not self._opened.done():
            self._opened.set_exception(ConnectFailed(self._stage, text, reply, self.greeting_steps))
        if not self.closed:
            self._leaving = True

    async def _upgrade(self) -> None:
        transport, context = self._transport, self._context
        assert transport is not None and context is not None
        if self.closed:
            return
        self._early = []
        try:
            upgraded = await self._loop.start_tls(
                transport,
                self,
                context,
                server_hostname=self._check_name(),
                ssl_handshake_timeout=self._timeouts.handshake,
            )
        except (OSError, ValueError) as error:
            self._early = None
            self._bad_certificate = isinstance(error, ssl.SSLCertVerificationError)
            self._step("TLS handshake", why(error))
            self._lose(f"the TLS handshake failed: {why(error)}")
            transport.abort()
            return
        early, self._early = self._early or [], None
        if upgraded is None or self.closed:
            transport.abort()
            self._lose("the connection closed during the TLS handshake")
            return
        self._transport = upgraded
        self.tls = _describe(upgraded)
        self._step("TLS handshake", self.tls)
        if not self._judged(upgraded):
            return
        self._since = self._loop.time()
        self._machine.tls_started()
        self._say_hello()
        self._pump()
        for data in early:
            self.data_received(data)

    def _judged(self, transport: asyncio.Transport) -> bool:
        """Have the handshake judged; whoever does not pass is told nothing more."""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if self.check is None or tls is None or not (wrong := self.check(tls)):
            return True
        self._stage = "tls"
        self._bad_certificate = True
        self._lose(wrong)
        transport.abort()
        return False

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._since = self._loop.time()
        if self._mode == "implicit":
            self.tls = _describe(self._transport)
            if not self._judged(self._transport):
                return
        self._timer = self._loop.call_later(self._tick, self._look)

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
            return
        machine = self._machine
        replies = machine.replies
        try:
            machine.receive(data, self._clock.now())
        except RemoteProtocolError as error:
            self._broke(error)
        self._pump()
        if machine.replies != replies:  # whole replies count, not bytes: else a drip would never end
            self._since = self._loop.time()

    def eof_received(self) -> bool:
        self._lose("the peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._lose(f"the connection was lost: {why(exc)}" if exc else "the peer closed the connection")

    def pause_writing(self) -> None:
        self._paused = True
        self._unsent = self._transport.get_write_buffer_size() if self._transport else 0
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        self._paused = False
        self._since = self._loop.time()
        self._write_held()

    # -- the pump -------------------------------------------------------------------------------------------

    def _lose(self, error: str) -> None:
        if not self.closed:
            self._error = error
            self._machine.receive_eof(error, unsent=self._holds_back)
            self._pump()

    def _pump(self) -> None:
        """Hand on events until the machine waits; send what it wants sent."""
        if self._pumping:
            return
        self._pumping = True
        machine = self._machine
        while True:
            try:
                event = machine.next_event()
            except RemoteProtocolError as error:  # what was open has ended; its events are still to come
                self._broke(error)
                continue
            if event is None:
                break
            kind = type(event)
            if kind is Done:
                self._done(cast("Done", event).result)
            elif kind is Closing:
                self._closed(cast("Closing", event))
            else:
                self._began(event)
        if self._leaving and machine.state in (State.READY, State.GREETED, State.REFUSED):
            machine.quit()
            self._since = self._loop.time()
        self._pumping = False
        self._flush()
        if self._probing is not None and machine.state is not State.RSET:
            lives, self._probing = self._probing, None
            if machine.state is State.READY:
                lives()

    def _broke(self, error: RemoteProtocolError) -> None:
        self._error = Masks(*self.login or ()).text(str(error)) if self._stage == "auth" else str(error)
        self._injected = isinstance(error, SpokeEarly)

    def _done(self, result: TransactionResult) -> None:
        for index, (transaction, done) in enumerate(self._waiting):
            if transaction is result.transaction:
                del self._waiting[index]
                try:
                    done(result)
                except Exception as error:
                    _log.exception("transaction.callback", peer=self.peer, error=repr(error))
                return

    def _closed(self, event: Closing) -> None:
        transport = self._transport
        if transport is not None:
            if event.reply is None:
                transport.abort()
            else:
                transport.close()
        if self._timer is not None:
            self._timer.cancel()
        text = self._error or f"the server closed the session: {event.reply}"
        waiting = self._verdict or self._opened
        if not waiting.done():
            self._step(f"wait for the peer ({self._stage})", text)
            failed = ConnectFailed(
                self._stage,
                text,
                event.reply,
                self.greeting_steps,
                certificate=self._bad_certificate,
                injected=self._injected,
            )
            waiting.set_exception(failed)
        if self._ended.done():
            return
        self._ended.set_result(None)
        if self._on_closed is not None:
            self._on_closed()

    def _flush(self) -> None:
        buffers = self._machine.outgoing()
        transport = self._transport
        if not buffers or transport is None or transport.is_closing():
            return
        if self._held or (self.tls and sum(map(len, buffers)) > _LARGE):
            # A TLS transport would take all of it at once, and not say that nobody reads.
            views = map(memoryview, buffers)
            begins = not self._held
            self._held.extend(view[at : at + _PIECE] for view in views for at in range(0, len(view), _PIECE))
            if begins:
                self._write_held()
        elif len(buffers) == 1:
            transport.write(buffers[0])
        elif self.tls and sum(map(len, buffers)) <= _ONE_RECORD:
            transport.write(b"".join(buffers))
        else:
            transport.writelines(buffers)

    @property
    def _holds_back(self) -> bool:
        """Say whether it is certain that not all has left: a transport that is paused has more than it would send."""
        return self._paused or bool(self._held)

    def _write_held(self) -> None:
        """Write a piece of what is held back, and the next when the loop has seen whether it went."""
        transport, held = self._transport, self._held
        if held and not self._paused and transport is not None and not (self.closed or transport.is_closing()):
            transport.write(held.popleft())
            if not self._paused:
                self._loop.call_soon(self._write_held)

    # -- deadlines ------------------------------------------------------------------------------------------

    def _allowed(self) -> float:
        """Return the seconds the peer has for what it owes us now, 0 if it is our turn."""
        waited_for = self._machine.deadline
        if waited_for is None or waited_for == "handshake":  # `start_tls` has its own
            return 0.0
        if self._paused:
            return self._timeouts.content
        return self._timeouts.probe if self._probing is not None else self._timeouts.for_reply(waited_for)

    def _look(self) -> None:
        # One lazy timer per connection: it looks when it fires instead of being moved with every message.
        now = self._loop.time()
        if self._paused and self._transport is not None:
            unsent = self._transport.get_write_buffer_size()
            if unsent + _LEAST_PROGRESS <= self._unsent:
                self._since = now
                self._unsent = unsent
        allowed = self._allowed()
        left = self._since + allowed - now
        if allowed and left <= 0:
            self._lose(f"timeout: no answer ({self._machine.deadline}) within {allowed:g} s")
            return
        self._timer = self._loop.call_later(min(left, self._tick) if allowed else self._tick, self._look)


def _first_word(greeting: Reply) -> str:
    """Return the name a server greets with (RFC 5321 section 4.2)."""
    return greeting.text.partition(" ")[0].lower().removesuffix(".")


def _describe(transport: asyncio.Transport) -> str:
    """Return protocol and cipher like "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return ""
    cipher = tls.cipher()
    return f"{tls.version()} {cipher[0]}" if cipher else str(tls.version())
