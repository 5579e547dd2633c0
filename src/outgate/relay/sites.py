"""One site: the connections from one endpoint to one set of MX hosts, and the messages that wait for them.

Standards: RFC 5321 section 3.8, RFC 2920 (pipelining), RFC 9422 (LIMITS).
Promises: connections, messages per connection and idle time are capped; a connection that died unused costs no
attempt, and one that was idle is asked whether it still lives before a message goes over it; what leaves from
different endpoints or addresses, by another way or under another demand on TLS shares no connection.
Dangers: when the answer to the final dot is lost the message may have arrived: the outcome says so.
Not here: how a connection comes about (`relay.dialling`), what a reply means (`relay.outcome`), how fast
(`relay.shaping`), who is next and what goes together (`relay.bundles`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from outgate.base.clock import Clock, rfc3339
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Host, JobRecipient, Route
from outgate.relay.bundles import NOWHERE, RECIPIENTS, Bundle, Waiting, Work, bounded, offered
from outgate.relay.dialling import DeliveryLimits, Dialler, NoHost, Opened
from outgate.relay.shaping import About, Pace, about
from outgate.smtp.asyncio.client import Connection
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step, Transaction, TransactionResult

_log = Log("outgate.delivery")
_GOODBYE_S = 5.0
_REOPEN_S = 5.0
"""How long a site that has refused one more connection is content with those it has."""


class Owner(Protocol):
    """What a site needs of delivery as a whole (`relay.delivery`)."""

    limits: DeliveryLimits
    dialler: Dialler
    clock: Clock
    stopping: bool

    def begins(self, work: Work) -> bool: ...

    def end(self, bundle: Bundle) -> None: ...

    def unreached(self, waiting: Sequence[Bundle], none: NoHost, steps: tuple[Step, ...]) -> None: ...

    def let_go(self, bundle: Bundle, due_at: float = 0.0, why: str = "") -> None: ...

    def pauses(self, bundle: Bundle, due_at: float, pace: Pace) -> None: ...

    def site_empty(self, key: Hashable) -> None: ...


@dataclass(slots=True)
class Shared:
    """What sites share that lead to the same servers: their pace."""

    pace: Pace
    sites: list[Site] = field(default_factory=list["Site"])
    said_until: float = 0.0
    """The end of the pause that the log has told of."""

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return sum(site.waiting for site in self.sites)

    def make_room(self, wanting: Site) -> None:
        """Have one of the others give up a connection."""
        if self.pace.leaving:
            return
        for idle_only in (True, False):
            for site in self.sites:
                if site is not wanting and site.give_up(idle_only=idle_only):
                    return

    def pump(self) -> None:
        """Let all go on that wait."""
        for site in tuple(self.sites):
            site.pump()

    def give_back(self, now: float) -> None:
        """The site has a pause: what waits for it is due again when that ends."""
        if self.said_until != self.pace.until:
            self.said_until = self.pace.until
            names = sorted({site.route.site for site in self.sites})
            _log.warning("site.paused", site=", ".join(names), until=rfc3339(self.pace.until), reason=self.pace.why)
        for site in tuple(self.sites):
            site.give_back(now)


class Site:
    """The connections from one endpoint to one site and the messages that wait for them."""

    def __init__(self, delivery: Owner, key: Hashable, route: Route, shared: Shared) -> None:
        self._delivery = delivery
        self._key = key
        self._shared = shared
        self._pace = shared.pace
        self._waiting = Waiting()
        self._connections: dict[Connection, _Kept] = {}
        self._opening = 0
        self._content = False
        self._recipients = 0
        self._rate_timer: asyncio.TimerHandle | None = None
        self.route = route
        shared.sites.append(self)

    @property
    def pace(self) -> Pace:
        """Return how fast it is served."""
        return self._pace

    @property
    def waiting(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    def add(self, bundle: Bundle) -> None:
        """Take a prepared message and send it as soon as it may and a connection is free."""
        pace = self._pace
        if not pace.easy and (due := pace.due(self._delivery.clock.now(), self._shared.waiting)):
            # The pause began, or others came, while it was prepared.
            self._delivery.pauses(bundle, due, pace)
            self._forget_if_empty()
            return
        self._waiting.add(bundle)
        self.pump()

    def pump(self) -> None:
        """Hand waiting messages to connections that can take them; open another where that helps."""
        pace, waiting = self._pace, self._waiting
        while waiting:
            kept = self._free()
            if kept is None:
                break
            if not pace.easy and not pace.may_begin(self._delivery.clock.now()):
                self._wait_for_rate()
                return
            bundle = waiting.pop()
            if bundle.keep(self._delivery.begins):
                self._send(kept, bundle)
            else:
                pace.unused()
        # A connection takes work in a stream: open more only when work piles up behind those there are.
        if not waiting or (self._content and self._connections):
            return
        staying = sum(not kept.leaving for kept in self._connections.values())
        if len(waiting) <= 8 * self._opening + 4 * staying:
            return
        if pace.on_trial and (self._opening or staying):
            return  # one is enough to see whether the pause has helped
        if not pace.easy and not pace.is_open(self._delivery.clock.now()):
            self._wait_for_rate()
        elif pace.room > 0:
            self._opening += 1
            pace.opening += 1
            pace.connections += 1
            spawn(self._open(waiting.first().route), f"connect {self.route.site}")
        elif not staying and not self._opening:
            self._shared.make_room(self)

    def _wait_for_rate(self) -> None:
        """Go on when the site's rate lets the next message go; what waits for other things is told when they happen."""
        now = self._delivery.clock.now()
        at = self._pace.waits_for(now)
        if at > now and self._rate_timer is None:
            self._rate_timer = asyncio.get_running_loop().call_later(at - now + 0.001, self._rate_has_room)

    def _rate_has_room(self) -> None:
        self._rate_timer = None
        self.pump()

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
            if kept.connection.ready and not kept.leaving and not kept.probing and kept.sent < kept.most:
                if kept.connection.in_flight == 0:
                    if not kept.is_stale(self._delivery.limits.probe_after):
                        return kept
                    # It may be dead without anybody having told us. A question costs less than a message in doubt.
                    kept.probe(self._probed)
                    continue
                best = best or kept
        return best

    def _probed(self, kept: _Kept) -> None:
        kept.probing = False
        kept.end()
        kept.lives = True
        self.pump()
        kept.lives = False

    def _send(self, kept: _Kept, bundle: Bundle) -> None:
        prepared, job = bundle.prepared, bundle.job
        assert prepared is not None
        recipients = bundle.take(kept.recipients, kept.domains)
        kept.begin()
        transaction = Transaction(
            reverse_path=job.reverse_path,
            recipients=tuple([recipient.mailbox for recipient in recipients]),
            content=(prepared.fields, prepared.content),
            body_8bit=job.body_8bit,
            smtputf8=job.smtputf8,
            requiretls=job.requiretls,
            size=len(prepared.fields) + len(prepared.content),
            ret=job.ret,
            envid=job.envid,
            notify=tuple([recipient.notify for recipient in recipients]),
            orcpt=tuple([recipient.orcpt for recipient in recipients]),
        )
        try:
            kept.connection.send(transaction, functools.partial(self._done, kept, bundle, recipients))
        except LocalProtocolError as error:
            kept.end()
            self._pace.unused()
            bundle.put_back(recipients)
            bundle.host = kept.host
            bundle.fail(f"the message cannot be sent: {error}", "internal")
            self._delivery.end(bundle)

    def _done(
        self, kept: _Kept, bundle: Bundle, recipients: tuple[JobRecipient, ...], result: TransactionResult
    ) -> None:
        kept.end()
        if result.error and kept.sent > 1 and bundle.handed_back < 2 and _unanswered(result):
            # The connection had ended while it was idle: that is not the message's failure.
            self._hand_back(bundle, recipients, result.mail)
            return
        final, troubled = result.final, self._pace.troubled
        if final is None or not final.ok or self._pace.troubled:
            self._judge(result)
        steps = kept.steps(result.steps)
        bundle.steps = bounded(bundle.steps + steps) if bundle.steps else steps
        bundle.host, bundle.tls = kept.host, kept.connection.tls
        whole = bundle.settle(recipients, result)
        if bundle.learned:
            kept.recipients = self._recipients = bundle.learned
            bundle.learned = 0
        if whole:
            self._delivery.end(bundle)
        elif not result.error and kept.connection.ready and not kept.leaving and kept.sent < kept.most:
            self._send(kept, bundle)
        elif self._delivery.stopping:
            self._delivery.let_go(bundle)  # who has an answer must not get the message again
        elif bundle.handed_back < 2 or not result.error:
            bundle.handed_back += bool(result.error)
            self._waiting.add_first(bundle)
        else:
            bundle.fail(result.error, "network")
            self._delivery.end(bundle)
        if kept.sent >= kept.most or self._pace.surplus:
            kept.leave()
        self._after_judgement(troubled)

    def _hand_back(self, bundle: Bundle, recipients: tuple[JobRecipient, ...], goodbye: Reply | None) -> None:
        bundle.put_back(recipients)
        bundle.handed_back += 1
        if goodbye is None or about(goodbye) is About.LEAVING:
            self._pace.unused()
        else:
            self._pace.heard(goodbye, self._delivery.clock.now())
        if self._delivery.stopping:
            self._delivery.let_go(bundle)
            return
        self._waiting.add_first(bundle)
        self._after_judgement()

    def _judge(self, result: TransactionResult) -> None:
        """Let the pace know how the site answers."""
        now = self._delivery.clock.now()
        if result.final is not None and result.final.ok:
            self._pace.went_well(now)
            return
        replies = (result.mail, *result.recipients, result.data, result.final)
        refusal = next((reply for reply in replies if reply is not None and reply.code >= 400), None)
        if refusal is None:
            self._pace.lost(now)
        else:
            self._pace.heard(refusal, now)

    def _after_judgement(self, troubled: bool = True) -> None:
        """Have all go on who may; `troubled`: something was wrong before, so others may have waited for this."""
        if self._pace.troubled and (now := self._delivery.clock.now()) < self._pace.until:
            self._shared.give_back(now)
        elif len(self._shared.sites) > 1 and (troubled or not self._pace.easy):
            self._shared.pump()
        else:
            self.pump()

    async def _open(self, route: Route) -> None:
        steps: list[Step] = []
        try:
            opened = await self._delivery.dialler.open(route, steps)
        except Exception as error:
            _log.exception("connect.failed", site=self.route.site)
            opened = NoHost(repr(error), "internal", NOWHERE)
        self._opening -= 1
        self._pace.opening -= 1
        if isinstance(opened, Opened):
            self._opened(opened, tuple(steps))
        else:
            self._not_opened(opened, tuple(steps))
            self._shared.pump()
        self._forget_if_empty()

    def _not_opened(self, refusal: NoHost, steps: tuple[Step, ...]) -> None:
        pace, now = self._pace, self._delivery.clock.now()
        pace.connections -= 1
        pace.refused(refusal.text, refusal.reply, now)
        self._be_content()
        if self._connections or self._opening:
            if now < pace.until:
                self._shared.give_back(now)
            return
        told_so = refusal.reply is not None and about(refusal.reply) is not About.MESSAGE
        if told_so and self._waiting:
            # It told us to wait: one message has that in its story, the others lose nothing.
            self._delivery.unreached([self._waiting.pop()], refusal, steps)
            self._shared.give_back(now)
            return
        self._delivery.unreached(self._waiting.clear(), refusal, steps)
        if now < pace.until:  # nobody would wake the other sites that it has paused
            self._shared.give_back(now)

    def _opened(self, opened: Opened, before: tuple[Step, ...]) -> None:
        connection = opened.connection
        if self._delivery.stopping:
            self._pace.connections -= 1
            connection.abort()
            return
        kept = _Kept(connection, opened.host, self._delivery.limits.idle, before, self._pace)
        kept.recipients = min(kept.recipients, self._recipients or kept.recipients)
        self._connections[connection] = kept
        connection.on_closed = functools.partial(self._gone, connection)
        kept.end()  # others may have taken the work meanwhile: then it is idle from the beginning
        kept.lives = True
        self._shared.pump()
        kept.lives = False

    def _gone(self, connection: Connection) -> None:
        kept = self._connections.pop(connection, None)
        if kept is not None:
            kept.cancel()
            self._pace.connections -= 1
            self._pace.leaving -= kept.leaving
        self._shared.pump()
        self._forget_if_empty()

    def _forget_if_empty(self) -> None:
        if not self._connections and not self._waiting and not self._opening:
            if self._rate_timer is not None:
                self._rate_timer.cancel()
                self._rate_timer = None
            if self in self._shared.sites:
                self._shared.sites.remove(self)
            self._delivery.site_empty(self._key)

    def sift(self) -> None:
        """Ask again of all that waits whether it may be begun."""
        for bundle in self._waiting.clear():
            if bundle.keep(self._delivery.begins):
                self._waiting.add(bundle)
        self._forget_if_empty()

    def give_up(self, *, idle_only: bool) -> bool:
        """Let a connection end, for others; say whether there was one."""
        for kept in self._connections.values():
            if not kept.leaving and (not idle_only or kept.connection.in_flight == 0):
                kept.leave()
                return True
        return False

    def give_back(self, now: float) -> None:
        """Give all that waits back to the queue, due when the pause is over."""
        for bundle in self._waiting.clear():
            self._delivery.pauses(bundle, self._pace.due(now, 0) or now, self._pace)
        self._forget_if_empty()

    async def stop(self) -> None:
        """Close the connections; work that waits stays queued."""
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        for bundle in self._waiting.clear():
            self._delivery.let_go(bundle)
        leaving: list[Awaitable[None]] = []
        for kept in list(self._connections.values()):
            kept.cancel()
            leaving.append(_quit(kept.connection))
        await asyncio.gather(*leaving)
        self._forget_if_empty()


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
    """A connection that is kept: how much it has carried and may carry, and the timer that ends it when idle."""

    __slots__ = (
        "_before", "_idle", "_pace", "_timer", "connection", "domains", "host", "leaving", "lives", "most", "probing",
        "recipients", "sent",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        host: Host,
        idle: float,
        before: tuple[Step, ...],
        pace: Pace,
    ) -> None:
        """`before` are the steps that failed on other ways to the site before this one was found."""
        offer = offered(connection.extensions.get("LIMITS", ""))
        most = pace.rules.messages_per_connection
        self.connection = connection
        self.host = host
        self.sent = 0
        self.most = min(most, offer.mails) if offer.mails else most
        self.recipients = offer.recipients or RECIPIENTS
        self.domains = offer.domains
        self.leaving = False
        self.probing = False
        self.lives = False
        """It has just answered."""
        self._idle = idle
        self._before = before
        self._pace = pace
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

    def is_stale(self, after: float) -> bool:
        """Say whether it has been idle for longer than `after` seconds."""
        if self._timer is None or self.lives:
            return False
        return self._timer.when() - self._idle + after < asyncio.get_running_loop().time()

    def probe(self, lives: ProbeAnswered) -> None:
        """Ask the server whether it is still there; if not, the connection ends."""
        self.cancel()
        self.probing = True
        self.connection.probe(functools.partial(lives, self))

    def leave(self) -> None:
        """Say QUIT as soon as nothing is under way; take no more work."""
        if not self.leaving:
            self.leaving = True
            self._pace.leaving += 1
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


class ProbeAnswered(Protocol):
    """Who is told that a connection lives."""

    def __call__(self, kept: _Kept, /) -> None: ...
