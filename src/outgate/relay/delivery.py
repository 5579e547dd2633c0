"""Deliver: from a leased job to an outcome per recipient, over connections that are kept per site.

Standards: RFC 5321 sections 3.8 and 4.5.4, RFC 2920 (pipelining), RFC 3207 (opportunistic STARTTLS).
Promises: every job ends in exactly one `Attempt`, whatever happens; connections per site, messages per
connection and idle time are capped; a connection that died unused costs no attempt; what leaves from different
endpoints shares no connection.
Dangers: when the answer to the final dot is lost the message may have arrived: the outcome says so.
Not here: what a reply means (`relay.outcome`), when to try again (`relay.queue`), bytes (`smtp.client`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Attempt, Host, Job, Outcome, Prepared, Route
from outgate.relay import outcome
from outgate.relay.routing import Router, Unroutable
from outgate.smtp.asyncio.client import ClientTimeouts, ConnectFailed, Connection, connect
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.transaction import Step, Transaction, TransactionResult
from outgate.store.spool import SpoolError

_log = Log("outgate.delivery")
_GOODBYE_S = 5.0
_REOPEN_S = 5.0
"""How long a site that has refused one more connection is content with those it has."""


class Preparer(Protocol):
    """Where jobs get their signature (`relay.signer`)."""

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Caps per site and connection; seconds for idle and reply."""

    connections_per_site: int = 20
    messages_per_connection: int = 1000
    idle: float = 30.0
    reply: float = 60.0


@dataclass(slots=True)
class _Work:
    """A job on its way: prepared, routed, and how often a dead connection has handed it back."""

    job: Job
    route: Route
    started_at: float
    prepared: Prepared | None = None
    handed_back: int = 0


class Delivery:
    """All sites. `finished` takes each attempt; it decides on the next one."""

    def __init__(
        self,
        *,
        router: Callable[[Job], Router],
        signer: Preparer,
        finished: Callable[[Job, Attempt], None],
        clock: Clock,
        limits: DeliveryLimits,
        tls: ssl.SSLContext | None,
        may_go: Callable[[Job], bool] = lambda _job: True,
    ) -> None:
        """`router` is that of a job's endpoint. `tls` None never uses STARTTLS. `may_go` is asked before a job is
        begun: if it says no, it has taken the job back."""
        self._router = router
        self._signer = signer
        self._finished = finished
        self._may_go = may_go
        self._sites: dict[tuple[str, str], Site] = {}
        self._stopped = False
        self.clock = clock
        self.limits = limits
        self.tls = tls
        self.stopping = False
        self.busy = 0
        """Jobs taken and not finished yet."""

    def deliver(self, job: Job) -> None:
        """Take a job (on the event loop); its `Attempt` comes to `finished` in the end."""
        self.busy += 1
        started = self.clock.now()
        try:
            router = self._router(job)
        except Exception as error:
            self._lost(job, started, error)
            return
        if router.fixed is not None:
            self._routed(_Work(job, router.fixed, started))
        else:
            spawn(self._route(router, job, started), "route")

    async def _route(self, router: Router, job: Job, started: float) -> None:
        try:
            route = await router.route(job.domain)
        except Unroutable as error:
            self.unrouted(job, started, error)
        except Exception as error:
            self._lost(job, started, error)
        else:
            self._routed(_Work(job, route, started))

    def _lost(self, job: Job, started: float, error: Exception) -> None:
        _log.exception("route.failed", queue_id=job.queue_id)
        self.unrouted(job, started, Unroutable(repr(error), permanent=False, reason="internal"))

    def _routed(self, work: _Work) -> None:
        self._signer.prepare(work.job, functools.partial(self._prepared, work))

    def _prepared(self, work: _Work, prepared: Prepared | None, error: Exception | None) -> None:
        if isinstance(error, SpoolError):
            # What lies in the spool is not what was accepted: it must not go out, and a person must look.
            _log.error("message.damaged", queue_id=work.job.queue_id, error=str(error))
            held = tuple(outcome.held(recipient, "the stored message is damaged") for recipient in work.job.recipients)
            self.ended(work, held, (), Host("", "", 0), "")
            return
        if prepared is None:
            text = f"the message could not be prepared: {type(error).__name__}"
            self.failed(work, text, "internal", (), Host("", "", 0))
            return
        work.prepared = prepared
        if self.stopping:
            self.unsent()
            return
        key = (work.route.endpoint, work.route.site)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(self, *key)
        site.add(work)

    # -- ends -----------------------------------------------------------------------------------------------

    def unrouted(self, job: Job, started: float, error: Unroutable) -> None:
        """End a job for which there is no route."""
        outcomes = tuple(
            outcome.rejected(recipient, error.enhanced, str(error), error.reason)
            if error.permanent
            else outcome.failed(recipient, str(error), error.reason)
            for recipient in job.recipients
        )
        route = Route("", (), str(error))
        steps = (Step(started, f"look up MX of {job.domain}", str(error)),)
        self.ended(_Work(job, route, started), outcomes, steps, Host("", "", 0), "")

    def failed(self, work: _Work, text: str, reason: str, steps: tuple[Step, ...], host: Host) -> None:
        """End a job that no server has answered for now."""
        outcomes = tuple(outcome.failed(recipient, text, reason) for recipient in work.job.recipients)
        self.ended(work, outcomes, steps, host, "")

    def ended(
        self,
        work: _Work,
        outcomes: tuple[Outcome, ...],
        steps: tuple[Step, ...],
        host: Host,
        tls: str,
    ) -> None:
        """Make the attempt of a job that has its outcomes and hand it on."""
        self.busy -= 1
        if self._stopped:  # the queue has given the job back already
            return
        attempt = Attempt(
            queue_id=work.job.queue_id,
            site=work.route.site,
            host=host.name,
            address=f"{host.address}:{host.port}" if host.address else "",
            source=host.source or "",
            tls=tls,
            started_at=work.started_at,
            finished_at=self.clock.now(),
            route_reason=work.route.reason,
            steps=steps,
            outcomes=outcomes,
            recipients=work.job.recipients,
        )
        self._finished(work.job, attempt)

    def begins(self, work: _Work) -> bool:
        """Say whether work may be begun: it may have waited long for its turn; if not, the queue has it back."""
        if self._may_go(work.job):
            return True
        self.busy -= 1
        return False

    def unsent(self) -> None:
        """Let go of a job that nobody has tried, because the service stops: the queue gives it back."""
        self.busy -= 1

    async def stop(self) -> None:
        """Say goodbye on every connection; what was not sent yet is nobody's attempt and stays queued."""
        self.stopping = True
        await asyncio.gather(*(site.stop() for site in list(self._sites.values())))
        self._stopped = True

    def site_empty(self, endpoint: str, name: str) -> None:
        """Forget a site without connections and work."""
        self._sites.pop((endpoint, name), None)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why no host of a route took us: text, reason class, and the host tried last."""

    text: str
    reason: str
    host: Host


class Site:
    """The connections from one endpoint to one site and the work that waits for them."""

    def __init__(self, delivery: Delivery, endpoint: str, name: str) -> None:
        self._delivery = delivery
        self._endpoint = endpoint
        self._name = name
        self._waiting: deque[_Work] = deque()
        self._connections: dict[Connection, _Kept] = {}
        self._opening = 0
        self._content = False

    def add(self, work: _Work) -> None:
        """Take prepared work and send it as soon as a connection is free."""
        self._waiting.append(work)
        self.pump()

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

    def _send(self, kept: _Kept, work: _Work) -> None:
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
        )
        try:
            kept.connection.send(transaction, functools.partial(self._done, kept, work))
        except LocalProtocolError as error:
            kept.end()
            self._delivery.failed(work, f"the message cannot be sent: {error}", "internal", (), kept.host)

    def _done(self, kept: _Kept, work: _Work, result: TransactionResult) -> None:
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
            failure = await self._try_hosts(route, steps)
        except Exception as error:
            _log.exception("connect.failed", site=self._name)
            failure = _Failure(repr(error), "internal", Host("", "", 0))
        self._opening -= 1
        if failure is not None:
            self._be_content()
            if not self._connections and not self._opening:
                self._fail_waiting(failure.text, failure.reason, tuple(steps), failure.host)
        self.pump()
        self._forget_if_empty()

    async def _try_hosts(self, route: Route, steps: list[Step]) -> _Failure | None:
        """Connect to the first host that takes us; return None, or why none did."""
        errors: list[str] = []
        reason = "network"
        for host in route.hosts:
            try:
                connection = await self._connect(host, route.ehlo_name, steps)
            except ConnectFailed as error:
                errors.append(f"{host.name or host.address} [{host.address}]:{host.port}: {error}")
                reason = _reason(error)
                continue
            if connection.closed:  # before it took anything: another host may do better
                errors.append(f"{host.name or host.address} [{host.address}]:{host.port}: closed after EHLO")
                continue
            self._opened(connection, host, tuple(steps))
            return None
        return _Failure("; ".join(errors), reason, route.hosts[-1])

    async def _connect(self, host: Host, ehlo_name: str, steps: list[Step]) -> Connection:
        delivery = self._delivery
        tls = "opportunistic" if delivery.tls is not None else "none"
        while True:
            try:
                return await connect(
                    host.address,
                    host.port,
                    ehlo_name=ehlo_name,
                    source=host.source,
                    tls=tls,
                    context=delivery.tls,
                    server_name=host.name or None,
                    timeouts=ClientTimeouts(connect=min(30.0, delivery.limits.reply), reply=delivery.limits.reply),
                    clock=delivery.clock,
                )
            except ConnectFailed as error:
                steps.extend(error.steps)
                if error.stage != "tls" or tls == "none":
                    raise
                tls = "none"  # opportunistic: a broken handshake must not keep mail from a server that takes it

    def _opened(self, connection: Connection, host: Host, before: tuple[Step, ...]) -> None:
        if self._delivery.stopping:
            connection.abort()
            return
        kept = _Kept(connection, host, self._delivery.limits.idle, before)
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
            self._delivery.site_empty(self._endpoint, self._name)

    def _fail_waiting(self, text: str, reason: str, steps: tuple[Step, ...], host: Host) -> None:
        waiting, self._waiting = self._waiting, deque()
        for work in waiting:
            self._delivery.failed(work, text, reason, steps, host)

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


def _reason(error: ConnectFailed) -> str:
    if error.stage == "tls":
        return "tls"
    return "timeout" if str(error).startswith("timeout") else "network"


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
