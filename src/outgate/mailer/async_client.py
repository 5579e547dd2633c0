"""`MailService` for tasks: the same configuration, the same steps, the same results, and `await` where that one blocks.

Standards: RFC 6409 (submission), RFC 8314 (TLS).
Promises: what `MailService` promises; tasks wait for one another only where all connections are in use.
Dangers: connections belong to an event loop: close the service before its loop ends (`async with` does); in another
loop it begins anew. One loop at a time. A `send` that is cancelled cuts its connection: the message may have arrived.
Not here: what is done (`mailer.sending.steps`), how it is made (`mailer.sending.service`), the conversation
(`smtp.asyncio.client`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from email.message import Message
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from outgate.base.clock import SystemClock
from outgate.mailer.config import MailConfig
from outgate.mailer.sending.errors import SendFailed
from outgate.mailer.sending.idle import Idle
from outgate.mailer.sending.limits import Limits
from outgate.mailer.sending.result import SendResult
from outgate.mailer.sending.service import Service, fetch_token, own_name
from outgate.mailer.sending.steps import Line, Login, Sender
from outgate.mailer.sending.target import Target
from outgate.mailer.sending.wire import Letter
from outgate.smtp.asyncio.client import Connection, connect
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed, why
from outgate.smtp.transaction import Transaction, TransactionResult

if TYPE_CHECKING:
    from outgate.mailer.oauth import Tokens

_OVER = "timeout: no answer before the time for the whole was over"
_CLOCK = SystemClock()
_LARGE = 262_144  # octets of a message that take milliseconds to be written
_left_behind: list[Line] = []
"""Connections of a parent process: to let go of them would take them off the event loop that it still uses."""


class AsyncMailService(Service):
    """The application's way to send from tasks. Made by `load`; keeps connections; may be shared by tasks of a loop."""

    async def send(
        self, message: Message | bytes, *, sender: str | None = None, recipients: Iterable[str] | None = None
    ) -> SendResult:
        """Send `message`: see `MailService.send`."""
        letter = self._letter(message, sender, recipients)
        return await self._here().send(letter)

    async def close(self) -> None:
        """Say goodbye on open connections. A later `send` opens one for itself and closes it again, until an
        `async with` begins anew."""
        await self._here().close()

    async def __aenter__(self) -> Self:
        self._here()
        assert self._idle is not None
        self._idle.keeping = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: Sender | None = None
        self._idle: Idle[Line] | None = None

    def _forked(self) -> None:
        if self._idle is not None:
            _left_behind.extend(self._idle.abandon())
        self._sender = None

    def _here(self) -> Sender:
        """Return the way to send in the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._sender is None or self._loop is not loop:
            io = _AsyncIo(
                self.config,
                self._target,
                self._timeouts,
                lambda check_name: self._context(check_name=check_name),
                self.limits,
                self._tokens,
            )
            self._loop = loop
            closed = self._idle is not None and not self._idle.keeping
            self._idle = Idle(nullcontext(), seconds=self.limits.idle, most_messages=self.limits.messages)
            self._idle.keeping = not closed
            self._sender = Sender(self._plan, io, self._idle, self._tell)
        return self._sender


class _AsyncLine:
    """A connection, as `mailer.sending.steps` sees it."""

    __slots__ = ("session",)

    def __init__(self, session: Connection) -> None:
        self.session = session

    def usable(self) -> bool:
        return self.session.ready and self.session.in_flight == 0

    async def transact(self, transaction: Transaction, seconds: float) -> TransactionResult:
        if not self.usable():  # it has ended while the message was written
            error = self.session.error or "the server closed the session"
            return TransactionResult(transaction, recipients=(None,) * len(transaction.recipients), error=error)
        loop = asyncio.get_running_loop()
        found: asyncio.Future[TransactionResult] = loop.create_future()

        def done(result: TransactionResult) -> None:
            if not found.done():
                found.set_result(result)

        self.session.send(transaction, done)
        over = loop.call_later(seconds, self.session.abort)
        try:
            result = await found
        finally:
            over.cancel()
        if result.error and loop.time() >= over.when():
            result.error = _OVER
        return result

    async def quit(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.session.quit()
        # The server has said goodbye: without this the transport would wait for TLS's own, beyond the end of the loop.
        self.session.abort()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.session.abort()


class _AsyncIo:
    """What waits, by letting other tasks go on."""

    def __init__(
        self,
        config: MailConfig,
        target: Target,
        timeouts: ClientTimeouts,
        context: Callable[[bool], SSLContext],
        limits: Limits,
        tokens: Tokens | None,
    ) -> None:
        """`context` returns the TLS context that checks names, or does not."""
        self._config = config
        self._target = target
        self._timeouts = timeouts
        self._context = context
        self._tokens = tokens
        self._places = asyncio.BoundedSemaphore(limits.connections)
        self._longest = limits.send
        self._fetching: asyncio.Future[str | SendFailed] | None = None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def turn(self, seconds: float) -> bool:
        if not self._places.locked():
            return await self._places.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self._places.acquire()
        except TimeoutError:
            return False

    def free(self) -> None:
        self._places.release()

    async def composed(self, letter: Letter, extensions: Mapping[str, str]) -> bytes:
        if letter.size < _LARGE:
            return letter.wire(extensions)
        return await asyncio.to_thread(letter.wire, extensions)  # others shall not wait while it is written

    async def dial(self, login: Login | None, *, check_name: bool, seconds: float) -> _AsyncLine:
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connect(login, check_name)
                if login is not None and login.kind == "token":
                    await _log_in(connection, login)
                return _AsyncLine(connection)
        except TimeoutError:
            raise ConnectFailed("connect", _OVER) from None

    async def _connect(self, login: Login | None, check_name: bool) -> Connection:
        """Connect to the first of the host's addresses that answers."""
        target, tls = self._target, self._config.tls
        failed: ConnectFailed | None = None
        for address in await self._addresses():
            try:
                return await connect(
                    address,
                    target.port,
                    ehlo_name=own_name(),
                    clock=_CLOCK,
                    tls=tls,
                    context=None if tls == "none" else self._context(check_name),
                    server_name=target.server_name or target.host,
                    timeouts=self._timeouts,
                    login=(login.user, login.secret) if login is not None and login.kind == "password" else None,
                )
            except ConnectFailed as error:
                if error.stage != "connect":
                    raise
                failed = error
        raise failed or ConnectFailed("connect", "the name has no address")

    async def _addresses(self) -> list[str]:
        try:
            async with asyncio.timeout(self._timeouts.connect):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self._target.host, self._target.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise ConnectFailed("connect", "timeout: the name was not resolved in time") from None
        except (OSError, UnicodeError) as error:
            raise ConnectFailed("connect", why(error)) from None
        return list(dict.fromkeys(cast("str", place[0]) for *_, place in cast("list[Any]", found)))

    async def token(self, seconds: float) -> str:
        # One thread waits for all: the loop has few, and others look up names in them. Who begins with little time
        # left does not cut it for the rest.
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch))
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.shield(self._fetching)
        except TimeoutError:
            found = SendFailed(f"{self._target.label}: no access token: {_OVER}")
        if isinstance(found, SendFailed):
            raise SendFailed(str(found), server=self._target.label, stage="token")
        return found

    def _fetch(self) -> str | SendFailed:
        try:
            return fetch_token(self._tokens, self._target.label, self._longest)
        except SendFailed as error:
            return error

    def forget_token(self, token: str) -> None:
        if self._tokens is not None:
            self._tokens.forget(token)


async def _log_in(connection: Connection, login: Login) -> None:
    try:
        answer = await connection.login_with_token(login.user, login.secret)
        if not answer.ok:
            await connection.quit()
            text = f"the server refused the login: {answer}"
            raise ConnectFailed("auth", text, answer, connection.greeting_steps)
    except BaseException:
        connection.abort()
        raise
