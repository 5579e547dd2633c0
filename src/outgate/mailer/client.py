"""Send a mail the way the application's configuration says: resolve, dial (through the tunnel), log in, send.

Standards: RFC 6409 (submission), RFC 8314 (TLS).
Promises: a refusal is a result, told per recipient; passwords go through TLS only; errors name the real
server behind the tunnel; no error, result or `repr` shows a secret; may be shared by threads.
Dangers: `send` blocks its thread; in tasks use `AsyncMailService`.
Not here: what is done (`mailer.sending.steps`), how it waits (`mailer.sending.blocking`), how it is made
(`mailer.sending.service`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from outgate.mailer.sending.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message
    from types import TracebackType

    from outgate.mailer.sending.result import SendResult


class MailService(Service):
    """The application's way to send. Made by `load`; keeps connections; may be shared by threads and through a fork."""

    def send(
        self, message: Message | bytes, *, sender: str | None = None, recipients: Iterable[str] | None = None
    ) -> SendResult:
        """Send `message` to its To, Cc and Bcc; Bcc is removed. A missing From is the configuration's.

        `sender` ("" is the null sender) and `recipients` say who sends to whom if the fields shall not; octets, which
        are sent as they are, need both. Raises `MessageError`, `ConfigError` (no forward is known for the port) or
        `SendFailed`; a server that refuses is a result."""
        from outgate.mailer.sending.blocking import run

        return run(self._sender.send(self._letter(message, sender, recipients)))

    def close(self) -> None:
        """Say goodbye on open connections. A later `send` opens one for itself and closes it again, until a `with`
        begins anew."""
        from outgate.mailer.sending.blocking import run

        run(self._sender.close())

    def __enter__(self) -> Self:
        self._idle.keeping = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        import threading

        from outgate.mailer.sending.blocking import BlockingIo
        from outgate.mailer.sending.idle import Idle
        from outgate.mailer.sending.steps import Line, Sender

        io = BlockingIo(
            self.config,
            self._target,
            self._timeouts,
            lambda check_name: self._context(check_name=check_name),
            self.limits.connections,
            self._tokens,
        )
        self._idle: Idle[Line] = Idle(threading.Lock(), seconds=self.limits.idle, most_messages=self.limits.messages)
        self._sender = Sender(self._plan, io, self._idle, self._tell)

    def _forked(self) -> None:
        idle = self._idle
        self._begin()
        self._idle.keeping = idle.keeping
        for line in idle.abandon():
            line.close()  # our copy of it: nothing is said to the server
