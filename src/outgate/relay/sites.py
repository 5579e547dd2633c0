"""One site: the connections from one endpoint to one set of MX hosts, and the work that waits for them.

Standards: RFC 5321 section 3.8, RFC 2920 (pipelining).
Promises: connections, messages per connection and idle time are capped; a connection that died unused costs no
attempt; what leaves from different endpoints shares no connection.
Dangers: when the answer to the final dot is lost the message may have arrived: the outcome says so.
Not here: how a connection comes about (`relay.dialling`), what a reply means (`relay.outcome`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Host, Job, Outcome, Prepared, Route
from outgate.relay import outcome
from outgate.relay.dialling import DeliveryLimits, Dialler, NoHost, Opened
from outgate.relay.transports import Tried
from outgate.smtp.asyncio.client import Connection
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.transaction import Step, Transaction, TransactionResult

_log = Log("outgate.delivery")
_GOODBYE_S = 5.0
_REOPEN_S = 5.0
"""How long a site that has refused one more connection is content with those it has."""


@dataclass(slots=True)
class Work:
    """A job on its way: prepared, routed, and how often a dead connection has handed it back. `tried` are the routes
    that could not take it just now, `before` what was said on them."""

    job: Job
    route: Route
    started_at: float
    prepared: Prepared | None = None
    handed_back: int = 0
    tried: tuple[Tried, ...] = ()
    before: tuple[Step, ...] = ()


class Owner(Protocol):
    """What a site needs of delivery as a whole (`relay.delivery`)."""

    limits: DeliveryLimits
    dialler: Dialler
    stopping: bool

    def begins(self, work: Work) -> bool: ...

    def failed(self, work: Work, text: str, reason: str, steps: tuple[Step, ...], host: Host) -> None: ...

    def unreached(self, waiting: Sequence[Work], none: NoHost, steps: tuple[Step, ...]) -> None: ...

    def ended(
        self, work: Work, outcomes: tuple[Outcome, ...], steps: tuple[Step, ...], host: Host, tls: str
    ) -> None: ...

    def unsent(self) -> None: ...

    def site_empty(self, key: tuple[str, ...]) -> None: ...


class Site:
    """The connections from one endpoint to one site and the work that waits for them."""

    def __init__(self, delivery: Owner, key: tuple[str, ...], name: str) -> None:
        """`key` says what all work here has in common: where from, where to, by which route, under which demands."""
        self._delivery = delivery
        self._key = key
        self._name = name
        self._waiting: deque[Work] = deque()
        self._connections: dict[Connection, _Kept] = {}
        self._opening = 0
        self._content = False

    def add(self, work: Work) -> None:
        """Take prepared work and send it as soon as a connection is free."""
        self._waiting.append(work)
        self.pump()

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    def sift(self) -> None:
        """Ask again of all that waits whether it may be begun."""
        waiting, self._waiting = self._waiting, deque()
        self._waiting.extend(work for work in waiting if self._delivery.begins(work))
        self._forget_if_empty()

    def pump(self) -> None:
        """Hand waiting work to connections that can take it; open another where that helps."""
        limits = self._delivery.limits
        while self._waiting:
            kept = self._free()
            if kept is None:
                break
            work = self._waiting.popleft()
            if self._delivery.begins(work):
                self._send(kept, work)
        room = limits.connections_per_site - len(self._connections) - self._opening
        staying = sum(not kept.leaving for kept in self._connections.values())
        # A connection takes work in a stream: open more only when work piles up behind those there are.
        wanted = bool(self._waiting) and len(self._waiting) > 8 * self._opening + 4 * staying
        if wanted and room > 0 and not (self._content and self._connections):
            self._opening += 1
            spawn(self._open(self._waiting[0].route), f"connect {self._name}")

    def _be_content(self) -> None:
        # Many servers allow a client few connections: asking again at once would be a storm of refusals.
        if self._connections and not self._content:
            self._content = True
            asyncio.get_running_loop().call_later(_REOPEN_S, self._ask_again)

    def _ask_again(self) -> None:
        self._content = False
        self.pump()

    def _free(self) -> _Kept | None:
        best: _Kept | None = None
        for kept in self._connections.values():
            if kept.connection.ready and not kept.leaving and kept.sent < self._delivery.limits.messages_per_connection:
                if kept.connection.in_flight == 0:
                    return kept
                best = best or kept
        return best

    def _send(self, kept: _Kept, work: Work) -> None:
        prepared, job = work.prepared, work.job
        assert prepared is not None
        kept.begin()
        transaction = Transaction(
            reverse_path=job.reverse_path,
            recipients=tuple(recipient.mailbox for recipient in job.recipients),
            content=(prepared.fields, prepared.content),
            body_8bit=job.body_8bit,
            smtputf8=job.smtputf8,
            size=len(prepared.fields) + len(prepared.content),
            requiretls=job.requiretls,
        )
        try:
            kept.connection.send(transaction, functools.partial(self._done, kept, work))
        except LocalProtocolError as error:
            kept.end()
            self._delivery.failed(work, f"the message cannot be sent: {error}", "internal", (), kept.host)

    def _done(self, kept: _Kept, work: Work, result: TransactionResult) -> None:
        kept.end()
        if result.error and kept.sent > 1 and work.handed_back < 2 and _unanswered(result):
            # The connection had ended while it was idle: that is not the message's failure.
            work.handed_back += 1
            if self._delivery.stopping:
                self._delivery.unsent()
                return
            self._waiting.appendleft(work)
            self.pump()
            return
        steps = kept.steps(result.steps)
        outcomes = outcome.of_transaction(work.job.recipients, result)
        connection = kept.connection
        self._delivery.ended(work, outcomes, steps, kept.host, connection.tls)
        if kept.sent >= self._delivery.limits.messages_per_connection:
            kept.leave()
        self.pump()

    async def _open(self, route: Route) -> None:
        steps: list[Step] = []
        try:
            opened = await self._delivery.dialler.open(route, steps)
        except Exception as error:
            _log.exception("connect.failed", site=self._name)
            opened = NoHost(repr(error), "internal", Host("", "", 0))
        self._opening -= 1
        if isinstance(opened, Opened):
            self._opened(opened, tuple(steps))
        else:
            self._be_content()
            if not self._connections and not self._opening:
                waiting, self._waiting = self._waiting, deque()
                self._delivery.unreached(waiting, opened, tuple(steps))
        self.pump()
        self._forget_if_empty()

    def _opened(self, opened: Opened, before: tuple[Step, ...]) -> None:
        connection = opened.connection
        if self._delivery.stopping:
            connection.abort()
            return
        kept = _Kept(connection, opened.host, self._delivery.limits.idle, before)
        self._connections[connection] = kept
        connection.on_closed = functools.partial(self._gone, connection)
        kept.end()  # others may have taken the work meanwhile: then it is idle from the beginning

    def _gone(self, connection: Connection) -> None:
        kept = self._connections.pop(connection, None)
        if kept is not None:
            kept.cancel()
        self.pump()
        self._forget_if_empty()

    def _forget_if_empty(self) -> None:
        if not self._connections and not self._waiting and not self._opening:
            self._delivery.site_empty(self._key)

    async def stop(self) -> None:
        """Close the connections; work that waits stays queued."""
        while self._waiting:
            self._waiting.pop()
            self._delivery.unsent()
        leaving: list[Awaitable[None]] = []
        for kept in list(self._connections.values()):
            kept.cancel()
            leaving.append(_quit(kept.connection))
        await asyncio.gather(*leaving)


async def _quit(connection: Connection) -> None:
    """Say goodbye, but do not wait for ever: what is under way is tried again after the next start."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_S):
            await connection.quit()


def _unanswered(result: TransactionResult) -> bool:
    """Say whether the server ended the session before it looked at this message (421: it was about to leave)."""
    if result.sent_all or result.data is not None or any(answer is not None for answer in result.recipients):
        return False
    return result.mail is None or result.mail.code == 421


class _Kept:
    """A connection that is kept: how much it has carried, and the timer that ends it when idle."""

    __slots__ = ("_before", "_idle", "_timer", "connection", "host", "leaving", "sent")

    def __init__(
        self,
        connection: Connection,
        host: Host,
        idle: float,
        before: tuple[Step, ...],
    ) -> None:
        """`before` are the steps that failed on other ways to the site before this one was found."""
        self.connection = connection
        self.host = host
        self.sent = 0
        self.leaving = False
        self._idle = idle
        self._before = before
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Note that a message goes out."""
        self.sent += 1
        self.cancel()

    def end(self) -> None:
        """Note that a message is done; start the idle timer when it was the last."""
        self.cancel()
        if self.connection.in_flight == 0 and not self.connection.closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle, self.leave)

    def leave(self) -> None:
        """Say QUIT as soon as nothing is under way; take no more work."""
        if not self.leaving:
            self.leaving = True
            spawn(self.connection.quit(), "quit")

    def cancel(self) -> None:
        """Stop the idle timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def steps(self, own: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the conversation of a message: how the connection began, then its own steps."""
        if self.sent > 1:
            return own
        return self._before + self.connection.greeting_steps + own
