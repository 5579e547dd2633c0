"""The client machine on a blocking socket: connect, log in, send, quit.

Standards: RFC 5321 section 4.5.3.2 (time-outs), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS).
Promises: `connect` gives a connection that has said EHLO, or `ConnectFailed`; `send` returns a result and
never raises for what the network or the peer does; every wait has an end.
Dangers: not for several threads at once. A peer may close while we are idle: ask `usable` before `send`. Looking up a
name has the system's own time-out.
Not here: the conversation itself (`smtp.client`), the same without blocking (`smtp.asyncio.client`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from outgate.base.clock import Clock, SystemClock
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
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError
from outgate.smtp.login import choose
from outgate.smtp.masks import Masks
from outgate.smtp.reply import Reply

__all__ = ["ClientTimeouts", "ConnectFailed", "Connection", "TlsMode", "connect"]

_E = TypeVar("_E", bound=Event)
OVER = "before the time for the whole was over"
_PIECE = 65_536  # octets sent at a time, so that the time-out is for progress and not for the whole


def connect(
    host: str,
    port: int,
    *,
    ehlo_name: str,
    tls: TlsMode,
    context: ssl.SSLContext | None = None,
    server_name: str | None = None,
    source: str | None = None,
    timeouts: ClientTimeouts | None = None,
    limits: ClientLimits | None = None,
    clock: Clock | None = None,
    keep_alive: KeepAlive | None = KeepAlive(),
    seconds: float | None = None,
) -> Connection:
    """Connect to `host`:`port` (a name or an address) and return once EHLO is answered. Raises `ConnectFailed`.

    `tls` is "none", "opportunistic" (STARTTLS if offered), "required" (STARTTLS or fail) or "implicit";
    `server_name` is the name for SNI and for the check the `context` makes (`host` if None). `seconds` are for all of
    it (None: as many as the time-outs give)."""
    timeouts = timeouts or ClientTimeouts()
    clock = clock or SystemClock()
    deadline = None if seconds is None else time.monotonic() + seconds
    if tls != "none" and context is None:
        raise LocalProtocolError("TLS needs a context")
    try:
        sock = _dial(host, port, source, timeouts.connect, deadline)
    except (OSError, UnicodeError) as error:
        text = "timeout: no connection in time" if isinstance(error, TimeoutError) else why(error)
        steps = (Step(clock.now(), f"connect to {host}:{port}", text),)
        raise ConnectFailed("connect", text, None, steps) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    machine = ClientMachine(ehlo_name=ehlo_name, limits=limits, tls=tls == "implicit")
    if keep_alive is not None:
        keep_alive.set_on(sock)
    connection = Connection(sock, machine, f"{host}:{port}", timeouts, clock)
    connection.deadline = deadline
    try:
        connection.open(tls, context, server_name or host)
    except BaseException:
        connection.close()
        raise
    return connection


def _dial(host: str, port: int, source: str | None, seconds: float, deadline: float | None) -> socket.socket:
    """Connect to the first address of a host that answers, within `seconds` for each and a share of what is left until
    the deadline. Raises `OSError` and `UnicodeError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)  # fails for IPv6 on a machine without
            sock.settimeout(_until(deadline, seconds, share=len(found) - number))
            if source:
                sock.bind((source, 0))
            sock.connect(address)
        except OSError as error:
            if sock is not None:
                sock.close()
            failed = error
        else:
            return sock
    raise failed


def secure(sock: socket.socket, context: ssl.SSLContext, server_name: str | None) -> ssl.SSLSocket:
    """Begin TLS on a connected socket, which is used up whatever happens. Raises `OSError` and `ValueError`."""
    try:
        sock.getpeername()
    except OSError:
        # The peer has reset the connection: wrapping such a socket raises too, and leaves one open that nobody closes.
        sock.close()
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
    return context.wrap_socket(sock, server_hostname=server_name)


class Connection:
    """One session with a server. Made by `connect`; a context manager that says QUIT."""

    def __init__(
        self, sock: socket.socket, machine: ClientMachine, peer: str, timeouts: ClientTimeouts, clock: Clock
    ) -> None:
        self._socket = sock
        self._machine = machine
        self._timeouts = timeouts
        self._clock = clock
        self._error = ""
        self._stuck = ""
        self._steps: list[Step] = []
        self._masks = Masks()
        self.peer = peer
        self.tls = ""
        self.deadline: float | None = None
        """When all waiting ends, whatever is left of the time-outs (of the monotonic clock; None: they alone count)."""

    @property
    def extensions(self) -> dict[str, str]:
        """Return what the peer offers: keyword in capitals → parameters."""
        return self._machine.extensions

    @property
    def greeting_steps(self) -> tuple[Step, ...]:
        """Return how the session began: connect, EHLO, STARTTLS, the handshake, AUTH."""
        return tuple(self._steps)

    @property
    def closed(self) -> bool:
        """Say whether the session is over."""
        return self._machine.state is State.CLOSED

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Return the names in the peer's certificate; empty without TLS or without a checked chain."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return ()
        return certificate_names(self._socket.getpeercert())

    # -- beginning ------------------------------------------------------------------------------------------

    def open(self, tls: TlsMode, context: ssl.SSLContext | None, server_name: str) -> None:
        """Run the session up to the answer to EHLO. Raises `ConnectFailed`."""
        did = f"connect to {self.peer}"
        if tls == "implicit" and context is not None:
            self._handshake(context, server_name)
            did = f"{did}, {self.tls}"
        greeting = self._expect("greeting", (Greeting,)).reply
        self._note(did, greeting)
        if not greeting.ok:
            self.quit()
            raise self._failed("greeting", f"the server greeted with {greeting}", greeting)
        self._hello()
        if tls in ("opportunistic", "required") and context is not None:
            self._starttls(context, server_name, required=tls == "required")

    def _hello(self) -> None:
        self._machine.ehlo()
        answer = self._expect("hello", (Hello,)).reply
        self._note("EHLO", answer)
        if not answer.ok:
            self.quit()
            raise self._failed("hello", f"the server refused EHLO: {answer}", answer)

    def _starttls(self, context: ssl.SSLContext, server_name: str, *, required: bool) -> None:
        if "STARTTLS" not in self.extensions:
            if required:
                self.quit()
                raise self._failed("tls", "the server does not offer STARTTLS")
            return
        self._machine.starttls()
        event = self._expect("tls", (TlsReady, TlsRefused))
        self._note("STARTTLS", event.reply)
        if isinstance(event, TlsReady):
            self._handshake(context, server_name)
            self._steps.append(Step(self._clock.now(), f"TLS handshake for {server_name}", self.tls))
            self._machine.tls_started()
            self._hello()
        elif required:
            self.quit()
            raise self._failed("tls", f"the server refused STARTTLS: {event.reply}", event.reply)

    def _handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        self._socket.settimeout(self._allowed(self._timeouts.handshake))
        try:
            secured = secure(self._socket, context, server_name)
        except (OSError, ValueError) as error:
            text = "timeout in the TLS handshake" if isinstance(error, TimeoutError) else why(error)
            self._steps.append(Step(self._clock.now(), f"TLS handshake for {server_name}", text))
            self._lose(text)
            certificate = isinstance(error, ssl.SSLCertVerificationError)
            raise ConnectFailed("tls", text, None, self.greeting_steps, certificate=certificate) from None
        self._socket = secured
        cipher = secured.cipher()
        self.tls = f"{secured.version()} {cipher[0]}" if cipher else str(secured.version())

    def login(self, user: str, password: str) -> Reply:
        """Log in by PLAIN or LOGIN, whichever is offered; return the reply, 2xx or not.

        Raises `ConnectFailed` (stage "auth") without TLS, if neither is offered, or if no reply comes."""
        return self._log_in(("PLAIN", "LOGIN"), user, password)

    def login_with_token(self, user: str, token: str) -> Reply:
        """Log in by XOAUTH2 with an OAuth access token; return the reply, 2xx or not. A refusal ends with the status
        that the server gave for it, if it gave one.

        Raises `ConnectFailed` (stage "auth") without TLS, if XOAUTH2 is not offered, or if no reply comes."""
        return self._log_in(("XOAUTH2",), user, token)

    def _log_in(self, mechanisms: tuple[str, ...], user: str, secret: str) -> Reply:
        try:
            mechanism = choose(mechanisms, self.extensions, tls=self._machine.tls)
            self._machine.auth(mechanism, user, secret)
        except LocalProtocolError as error:
            raise self._failed("auth", str(error)) from None
        self._masks = Masks(user, secret)
        answer = self._masks.reply(self._expect("auth", (Authenticated,)).reply)
        self._note(f"AUTH {mechanism}", answer)
        return answer

    # -- sending --------------------------------------------------------------------------------------------

    def send(self, transaction: Transaction) -> TransactionResult:
        """Make one transaction and return its result; a lost connection is an `error` in it.

        Raises `LocalProtocolError` for what cannot go on the wire, or when the connection is closed."""
        self._machine.send(transaction)
        return self._result()

    def ask_sender(self, reverse_path: str) -> TransactionResult:
        """Ask whether the server takes mail from `reverse_path`, and send it none; `mail` of the result is its answer.

        Raises as `send`."""
        self._machine.ask_sender(reverse_path)
        return self._result()

    def _result(self) -> TransactionResult:
        found: list[TransactionResult] = []

        def ended(event: Event) -> bool:
            if isinstance(event, Done):
                found.append(event.result)
            return bool(found)

        self._wait(ended)
        return found[0]

    def usable(self) -> bool:
        """Say whether the session is still open; notices a peer that closed or said 421 while idle."""
        if self._machine.state is not State.READY:
            return False
        if self._readable():
            # What came may be TLS's own (a session ticket): then there is nothing to wait for.
            self._socket.settimeout(0.0)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                self._read()
            while self._event() is not None:
                pass
        return self._machine.state is State.READY

    def _readable(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0:
            return True
        # A poll, for `select` cannot watch descriptors above 1023.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def quit(self) -> None:
        """Say QUIT if the session is in a state for it, wait for the answer, and close."""
        try:
            self._machine.quit()
        except LocalProtocolError:
            self.close()
            return
        self._wait(lambda event: isinstance(event, Closing))
        self._until_end()
        self.close()

    def _until_end(self) -> None:
        """Let the server finish: closing with its last octets unread would reset the connection."""
        until = time.monotonic() + self._allowed(1.0)
        with contextlib.suppress(OSError):
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(_PIECE):
                    break

    def close(self) -> None:
        """Close the socket at once."""
        self._lose("the connection was closed")
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.quit()

    # -- bytes ----------------------------------------------------------------------------------------------

    def _expect(self, stage: str, kinds: tuple[type[_E], ...]) -> _E:
        """Wait for an event of `kinds`. Raises `ConnectFailed` if the session ends first."""
        found: list[_E] = []

        def match(event: Event) -> bool:
            if isinstance(event, kinds):
                found.append(event)
            return bool(found)

        self._wait(match)
        if not found:
            text = self._masks.text(self._error or "the server closed the session")
            self._steps.append(Step(self._clock.now(), f"wait for the peer ({stage})", text))
            raise self._failed(stage, text)
        return found[0]

    def _wait(self, wanted: Callable[[Event], bool]) -> None:
        """Move bytes until an event is `wanted` or the session is over."""
        machine = self._machine
        self._flush()
        owed = (machine.state, machine.replies)
        until = time.monotonic() + self._allowed(self._seconds())
        while True:
            while (event := self._event()) is not None:
                if wanted(event):
                    self._flush()
                    if self._stuck:
                        self._lose(self._stuck)
                    return
            if self.closed:
                return
            if self._stuck:  # and what the peer had said before has been heard
                self._lose(self._stuck)
                continue
            self._flush()
            if self._stuck:
                continue
            if owed != (machine.state, machine.replies):  # it owes us another reply now: its clock starts anew
                owed = (machine.state, machine.replies)
                until = time.monotonic() + self._allowed(self._seconds())
            left = until - time.monotonic()
            if left <= 0:
                self._lose(self._late())
                continue
            self._socket.settimeout(left)
            self._receive()

    def _seconds(self) -> float:
        return self._timeouts.for_reply(self._machine.deadline or "")

    def _allowed(self, seconds: float) -> float:
        return _until(self.deadline, seconds)

    def _late(self) -> str:
        within = OVER if self._over else f"within {self._seconds():g} s"
        return f"timeout: no answer ({self._machine.deadline}) {within}"

    @property
    def _over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _event(self) -> Event | None:
        while True:
            try:
                return self._machine.next_event()
            except RemoteProtocolError as error:  # what was open has ended; its events are still to come
                self._error = str(error)

    def _receive(self) -> None:
        """Read what comes in time."""
        try:
            self._read()
        except TimeoutError:
            self._lose(self._late())

    def _read(self) -> None:
        """Read what there is. Raises `TimeoutError`, `BlockingIOError` or `ssl.SSLWantReadError` if that is nothing."""
        try:
            data = self._socket.recv(_PIECE)
            if data:
                self._machine.receive(data, self._clock.now())
            else:
                self._lose("the peer closed the connection")
        except RemoteProtocolError as error:
            self._error = str(error)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            raise
        except OSError as error:
            self._lose(f"the connection was lost: {why(error)}")

    def _flush(self) -> None:
        buffers = self._machine.outgoing()
        try:
            for buffer in _joined(buffers):
                view = memoryview(buffer)
                for at in range(0, len(view), _PIECE):
                    if at:
                        self._overhear()
                    self._socket.settimeout(self._allowed(self._timeouts.content))
                    self._socket.sendall(view[at : at + _PIECE])
        except TimeoutError:
            within = OVER if self._over else f"for {self._timeouts.content:g} s"
            self._stuck = f"timeout: nothing could be sent {within}"
        except OSError as error:
            self._overhear()
            self._stuck = f"the connection was lost: {why(error)}"

    def _overhear(self) -> None:
        """Read what has come while we send: the peer may say why it leaves before it does."""
        with contextlib.suppress(OSError):
            if self._readable():
                self._socket.settimeout(0.0)
                self._machine.receive(self._socket.recv(_PIECE), self._clock.now())

    def _lose(self, error: str) -> None:
        if not self.closed:
            self._error = error
            self._machine.receive_eof(error, unsent=bool(self._stuck))

    def _note(self, did: str, reply: Reply) -> None:
        self._steps.append(Step(self._clock.now(), did, str(reply)))

    def _failed(self, stage: str, text: str, reply: Reply | None = None) -> ConnectFailed:
        return ConnectFailed(stage, text, reply, self.greeting_steps)


def _until(deadline: float | None, seconds: float, *, share: int = 1) -> float:
    """Return `seconds`, or this part of what is left before the deadline; never 0, which would mean not to block."""
    return seconds if deadline is None else max(1e-6, min(seconds, (deadline - time.monotonic()) / share))


def _joined(buffers: list[bytes]) -> list[bytes]:
    """Join small buffers, so that a command or a small message is one packet."""
    if len(buffers) > 1 and sum(map(len, buffers)) <= _PIECE:
        return [b"".join(buffers)]
    return buffers
