"""The blocking twin's way to wait: sockets, a semaphore, and a coroutine that never suspends.

Standards: none.
Promises: threads wait for one another only where all connections are in use; every wait has an end.
Dangers: what is run here must await nothing but this `Io` and its lines.
Not here: the steps (`mailer.sending.steps`), the conversation (`smtp.sync.client`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from outgate.mailer.config import MailConfig
from outgate.mailer.sending.service import fetch_token, own_name
from outgate.mailer.sending.steps import Login
from outgate.mailer.sending.target import Target
from outgate.mailer.sending.wire import Letter
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed
from outgate.smtp.sync.client import Connection, connect
from outgate.smtp.transaction import Transaction, TransactionResult

if TYPE_CHECKING:
    from outgate.mailer.oauth import Tokens

_T = TypeVar("_T")


def run(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never suspends, and return what it returns."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    steps.close()
    raise RuntimeError("a blocking step has waited for an event loop")


class BlockingLine:
    """A connection, as `mailer.sending.steps` sees it."""

    __slots__ = ("session",)

    def __init__(self, session: Connection) -> None:
        self.session = session

    def usable(self) -> bool:
        return self.session.usable()

    async def transact(self, transaction: Transaction, seconds: float) -> TransactionResult:
        self.session.deadline = time.monotonic() + seconds
        return self.session.send(transaction)

    async def quit(self, seconds: float) -> None:
        self.session.deadline = time.monotonic() + seconds
        self.session.quit()

    def close(self) -> None:
        self.session.close()


class BlockingIo:
    """What waits, by blocking the thread."""

    def __init__(
        self,
        config: MailConfig,
        target: Target,
        timeouts: ClientTimeouts,
        context: Callable[[bool], SSLContext],
        connections: int,
        tokens: Tokens | None,
    ) -> None:
        """`context` returns the TLS context that checks names, or does not."""
        self._config = config
        self._target = target
        self._timeouts = timeouts
        self._context = context
        self._tokens = tokens
        self._places = threading.BoundedSemaphore(connections)

    def now(self) -> float:
        return time.monotonic()

    async def turn(self, seconds: float) -> bool:
        return self._places.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def free(self) -> None:
        self._places.release()

    async def composed(self, letter: Letter, extensions: Mapping[str, str]) -> bytes:
        return letter.wire(extensions)

    async def dial(self, login: Login | None, *, check_name: bool, seconds: float) -> BlockingLine:
        tls = self._config.tls
        connection = connect(
            self._target.host,
            self._target.port,
            ehlo_name=own_name(),
            tls=tls,
            context=None if tls == "none" else self._context(check_name),
            server_name=self._target.server_name,
            timeouts=self._timeouts,
            seconds=seconds,
        )
        if login is not None:
            try:
                log_in = connection.login if login.kind == "password" else connection.login_with_token
                answer = log_in(login.user, login.secret)
                if not answer.ok:
                    connection.quit()
                    steps = connection.greeting_steps
                    raise ConnectFailed("auth", f"the server refused the login: {answer}", answer, steps)
            except BaseException:
                connection.close()
                raise
        return BlockingLine(connection)

    async def token(self, seconds: float) -> str:
        return fetch_token(self._tokens, self._target.label, seconds)

    def forget_token(self, token: str) -> None:
        if self._tokens is not None:
            self._tokens.forget(token)
