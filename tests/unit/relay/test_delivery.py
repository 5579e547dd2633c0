"""Delivery to real SMTP servers on loopback: reuse, replies, lost connections, and every end of a job."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import trustme

from outgate.base.clock import FrozenClock
from outgate.model.flow import (
    Attempt,
    Host,
    Job,
    JobRecipient,
    Location,
    Prepared,
    Route,
    SigningKey,
    Status,
)
from outgate.relay.delivery import Delivery, DeliveryLimits
from outgate.relay.dialling import Dialler
from outgate.relay.routing import Unroutable
from outgate.relay.transports import Tried
from outgate.smtp.asyncio.server import (
    Connection,
    Listener,
    ListenerOptions,
    Peer,
    Timeouts,
    listening_socket,
)
from outgate.smtp.events import Closed, Connected, Event, MailFrom, MessageReceived, RcptTo
from outgate.smtp.reply import Reply, reply
from outgate.smtp.server import RECIPIENT_OK, SENDER_OK, Limits, ServerMachine
from support.ports import closed_port

SITE = "mx.other.test"


@dataclass
class Receiver:
    """A receiving server. `at` gives a reply, None (say nothing), or raises `Drop` for each question."""

    context: ssl.SSLContext | None = None
    at: Callable[[Event, Receiver], Reply | None] = lambda event, receiver: None
    messages: list[bytes] = field(default_factory=list)
    sessions: int = 0
    most: int = 0
    open: list[Connection] = field(default_factory=list)
    took: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Receiver]:
        options = ListenerOptions(self.context, False, Timeouts(), lambda a: False, lambda p: True)
        self.listener = Listener(listening_socket("127.0.0.1", 0), options, self._session)
        self.port = self.listener.address[1]
        self.listener.start()
        try:
            yield self
        finally:
            await self.listener.stop()
            for connection in self.listener.connections:
                connection._abort("the test is over")
            while self.listener.connections:
                await asyncio.sleep(0)

    def _session(self, peer: Peer, connection: Connection) -> _Session:
        self.sessions += 1
        self.open.append(connection)
        self.most = max(self.most, len(self.open))
        return _Session(self, connection)


class Drop(Exception):
    """The server cuts the connection here."""


class _Session:
    def __init__(self, receiver: Receiver, connection: Connection) -> None:
        self.receiver = receiver
        self.connection = connection
        self.machine = ServerMachine(
            "mx.test",
            limits=Limits(),
            tls=False,
            offer_tls=receiver.context is not None,
            tls_required=False,
            auth_required=False,
        )

    def handle(self, event: Event) -> None:
        receiver, machine = self.receiver, self.machine
        if isinstance(event, Closed):
            if self.connection in receiver.open:
                receiver.open.remove(self.connection)
            return
        if not isinstance(event, Connected | MailFrom | RcptTo | MessageReceived):
            return
        if isinstance(event, MessageReceived):
            receiver.messages.append(event.content)
            receiver.took.set()
        try:
            said = receiver.at(event, receiver)
        except Drop:
            assert self.connection.transport is not None
            self.connection.transport.abort()
            return
        usual = {
            Connected: reply(220, "", "mx.test"),
            MailFrom: SENDER_OK,
            RcptTo: RECIPIENT_OK,
            MessageReceived: reply(250, "2.0.0", "Ok: queued as R"),
        }
        machine.answer(said or usual[type(event)])


class Router:
    fixed: Route | None = None

    def __init__(
        self,
        *ports: int,
        host: str = "127.0.0.1",
        error: Exception | None = None,
        endpoint: str = "dal",
        source: str | None = None,
    ) -> None:
        self.hosts = tuple(Host(f"mx{number}.test", host, port, source) for number, port in enumerate(ports))
        self.error = error
        self.endpoint = endpoint

    async def route(self, domain: str, **_: bool) -> Route:
        if self.error is not None:
            raise self.error
        return Route(SITE, self.hosts, "MX 10 mx.test", self.endpoint, f"out.{self.endpoint}.test")


@dataclass
class Ways:
    """One route for each job, and no other."""

    router: Callable[[Job], Router]
    troubled: bool = False

    def fixed(self, job: Job) -> Route | None:
        return self.router(job).fixed

    async def route(self, job: Job, tried: tuple[Tried, ...] = ()) -> Route:
        return await self.router(job).route(job.domain)

    def has_others(self, job: Job, tried: Sequence[Tried]) -> bool:
        return False

    def reached(self, job: Job, route: Route) -> None:
        pass

    def unreached(self, job: Job, route: Route, reason: str) -> None:
        pass


class Signer:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None:
        if self.error is not None:
            done(None, self.error)
        else:
            assert job.content is not None
            done(Prepared(job, b"DKIM-Signature: x\r\n", job.content), None)


@dataclass
class Desk:
    delivery: Delivery
    attempts: list[Attempt]
    given_back: list[tuple[str, float]]
    done: dict[str, asyncio.Future[Attempt]]

    def send(self, name: str, *recipients: str, text: bytes = b"", instance: str = "inst") -> asyncio.Future[Attempt]:
        paths = recipients or ("b@other.test",)
        job = Job(
            name, instance, "cfg", SigningKey("k", "shop.test", "s"), "a@shop.test", "other.test",
            tuple(JobRecipient(number, path, "other.test", 0) for number, path in enumerate(paths)),
            Location(0, 0, 0, 0), 0.0, 1e12, False, False, b"", b"Subject: " + name.encode() + b"\r\n\r\n" + text,
        )  # fmt: skip
        self.done[name] = asyncio.get_running_loop().create_future()
        self.delivery.deliver(job)
        return self.done[name]


def desk(
    router: Router | Callable[[Job], Router],
    *,
    tls: ssl.SSLContext | None = None,
    limits: DeliveryLimits | None = None,
    signer: Signer | None = None,
    may_go: Callable[[Job, str], bool] = lambda job, site: True,
) -> Desk:
    attempts: list[Attempt] = []
    given_back: list[tuple[str, float]] = []
    done: dict[str, asyncio.Future[Attempt]] = {}

    def finished(job: Job, attempt: Attempt) -> None:
        attempts.append(attempt)
        done[job.queue_id].set_result(attempt)

    limits = limits or DeliveryLimits()
    delivery = Delivery(
        ways=Ways(router if callable(router) else lambda job: router),
        signer=signer or Signer(),
        finished=finished,
        clock=FrozenClock(),
        limits=limits,
        dialler=Dialler(clock=FrozenClock(), limits=limits, tls=tls),
        given_back=lambda job, due_at, *_why: given_back.append((job.queue_id, due_at)),
        may_go=may_go,
    )
    return Desk(delivery, attempts, given_back, done)


def statuses(attempt: Attempt) -> list[Status]:
    return [outcome.status for outcome in attempt.outcomes]


async def test_a_message_is_delivered_with_its_story() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port))
        attempt = await d.send("one", text=b"..dot\r\n")
        assert statuses(attempt) == [Status.DELIVERED]
        assert r.messages == [b"DKIM-Signature: x\r\nSubject: one\r\n\r\n..dot\r\n"]
        assert (attempt.host, attempt.address, attempt.tls) == ("mx0.test", f"127.0.0.1:{r.port}", "")
        story = [step.did for step in attempt.steps]
        assert story[0].startswith("connect") and "EHLO" in story[1]
        assert any("MAIL FROM:<a@shop.test>" in did for did in story)
        assert attempt.steps[-1].reply == "250 2.0.0 Ok: queued as R"
        assert d.delivery.busy == 0
        await d.delivery.stop()


async def test_one_connection_carries_many_messages() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port))
        first = await d.send("m0")
        rest = await asyncio.gather(*(d.send(f"m{n}") for n in range(1, 4)))
        again = await d.send("m9")
        assert all(statuses(a) == [Status.DELIVERED] for a in (first, *rest, again))
        assert r.sessions == 1 and len(r.messages) == 5
        assert any("EHLO" in step.did for step in first.steps)
        assert not any("EHLO" in step.did for step in again.steps)
        await d.delivery.stop()


async def test_endpoints_share_no_connection_and_each_says_its_own_name() -> None:
    async with Receiver().running() as r:
        dallas = Router(r.port, endpoint="dal", source="127.0.0.1")
        frankfurt = Router(r.port, endpoint="fra", source="127.0.0.5")
        d = desk(lambda job: {"inst": dallas, "abroad": frankfurt}[job.instance_id])
        first = await d.send("a")
        abroad = await d.send("b", instance="abroad")
        again = await asyncio.gather(d.send("c"), d.send("d", instance="abroad"))
        assert r.sessions == 2  # one each, kept, although the site is the same
        assert [(a.source, a.site) for a in (first, abroad, *again)] == [
            ("127.0.0.1", SITE), ("127.0.0.5", SITE), ("127.0.0.1", SITE), ("127.0.0.5", SITE),
        ]  # fmt: skip
        said = [(each.peer.address, each.session.machine.hello) for each in r.open if each.session is not None]
        assert said == [("127.0.0.1", "out.dal.test"), ("127.0.0.5", "out.fra.test")]
        # Whose mail it is cannot be told: it is tried again, and nothing leaves from a wrong address.
        unknown = await d.send("e", instance="of nobody")
        assert statuses(unknown) == [Status.DEFERRED] and unknown.outcomes[0].reason == "internal"
        assert d.delivery.busy == 0
        await d.delivery.stop()


async def test_each_recipient_gets_its_own_reply() -> None:
    said = {"gone": reply(550, "5.1.1", "Nobody"), "full": reply(452, "4.2.2", "Full")}
    async with Receiver(
        at=lambda e, r: said.get(e.forward_path.local) if isinstance(e, RcptTo) else None
    ).running() as r:
        attempt = await (d := desk(Router(r.port))).send("m", "ok@other.test", "gone@other.test", "full@other.test")
        assert statuses(attempt) == [Status.DELIVERED, Status.BOUNCED, Status.DEFERRED]
        assert [o.reason for o in attempt.outcomes] == ["accepted", "bad-mailbox", "full"]
        assert [o.code for o in attempt.outcomes] == [250, 550, 452]
        await d.delivery.stop()


async def test_a_421_in_the_middle_defers() -> None:
    async with Receiver(at=lambda e, r: reply(421, "4.3.2", "Bye") if isinstance(e, RcptTo) else None).running() as r:
        attempt = await (d := desk(Router(r.port))).send("m")
        assert statuses(attempt) == [Status.DEFERRED]
        assert attempt.outcomes[0].code == 421
        await d.delivery.stop()


async def test_a_connection_that_died_while_idle_costs_no_attempt() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port))
        await d.send("m0")
        for connection in list(r.open):  # a reset that reaches us together with our next message
            connection.transport.abort()  # type: ignore[union-attr]
        attempt = await d.send("m1")
        assert statuses(attempt) == [Status.DELIVERED]
        assert r.sessions == 2 and len(d.attempts) == 2
        await d.delivery.stop()


async def test_a_server_that_takes_its_leave_costs_no_attempt() -> None:
    def at(event: Event, receiver: Receiver) -> Reply | None:
        leaving = isinstance(event, MailFrom) and receiver.sessions == 1 and receiver.messages
        return reply(421, "4.4.2", "Idle too long") if leaving else None

    async with Receiver(at=at).running() as r:
        d = desk(Router(r.port))
        await d.send("m0")
        attempt = await d.send("m1")
        assert statuses(attempt) == [Status.DELIVERED]
        assert r.sessions == 2
        await d.delivery.stop()


async def test_a_server_that_always_leaves_is_not_asked_for_ever() -> None:
    async with Receiver(at=lambda e, r: reply(421, "4.3.2", "Bye") if isinstance(e, MailFrom) else None).running() as r:
        d = desk(Router(r.port))
        attempts = await asyncio.gather(*(d.send(f"m{n}") for n in range(3)))
        assert all(statuses(a) == [Status.DEFERRED] for a in attempts)
        await d.delivery.stop()


async def test_connection_refused_defers_with_the_reason() -> None:
    d = desk(Router(closed_port()))
    attempt = await d.send("m", "b@other.test", "c@other.test")
    assert statuses(attempt) == [Status.DEFERRED] * 2
    assert attempt.outcomes[0].reason == "network"
    assert "refused" in attempt.outcomes[0].text.lower()
    assert "mx0.test" in attempt.outcomes[0].text
    assert attempt.steps
    assert not d.delivery._sites  # nothing is kept of a site that nobody answers at
    await d.delivery.stop()


async def test_the_second_host_is_tried_and_the_story_tells_of_the_first() -> None:
    async with Receiver().running() as r:
        dead = closed_port()
        d = desk(Router(dead, r.port))
        attempt = await d.send("m")
        assert statuses(attempt) == [Status.DELIVERED]
        assert attempt.host == "mx1.test"
        assert str(dead) in attempt.steps[0].did and "refused" in attempt.steps[0].reply.lower()
        await d.delivery.stop()


async def test_a_greeting_that_sends_us_away_leads_to_the_next_host() -> None:
    def at(event: Event, receiver: Receiver) -> Reply | None:
        return reply(554, "5.7.1", "Go away") if isinstance(event, Connected) else None

    async with Receiver(at=at).running() as first, Receiver().running() as second:
        d = desk(Router(first.port, second.port))
        assert statuses(await d.send("m")) == [Status.DELIVERED]
        assert len(second.messages) == 1
        await d.delivery.stop()


def opportunistic() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_starttls_is_used_where_it_is_offered() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.test").configure_cert(server)
    async with Receiver(context=server).running() as r:
        d = desk(Router(r.port), tls=opportunistic())
        attempt = await d.send("m")
        assert statuses(attempt) == [Status.DELIVERED]
        assert attempt.tls.startswith("TLSv1.")
        await d.delivery.stop()


async def test_a_broken_handshake_falls_back_to_the_clear() -> None:
    async with Receiver(context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)).running() as r:  # it has no certificate
        d = desk(Router(r.port), tls=opportunistic())
        attempt = await d.send("m")
        assert statuses(attempt) == [Status.DELIVERED]
        assert attempt.tls == "" and r.sessions == 2
        assert any("handshake" in step.did.lower() for step in attempt.steps)
        await d.delivery.stop()


async def test_a_lost_answer_after_the_dot_is_told_as_unknown() -> None:
    def at(event: Event, receiver: Receiver) -> Reply | None:
        if isinstance(event, MessageReceived):
            raise Drop
        return None

    async with Receiver(at=at).running() as r:
        attempt = await (d := desk(Router(r.port))).send("m")
        assert statuses(attempt) == [Status.DEFERRED]
        assert attempt.outcomes[0].reason == "unknown" and "may have arrived" in attempt.outcomes[0].text
        assert len(r.messages) == 1  # and is not sent again behind the queue's back
        await d.delivery.stop()


async def test_a_connection_lost_within_the_envelope_defers() -> None:
    def at(event: Event, receiver: Receiver) -> Reply | None:
        if isinstance(event, RcptTo):
            raise Drop
        return None

    async with Receiver(at=at).running() as r:
        attempt = await (d := desk(Router(r.port))).send("m")
        assert statuses(attempt) == [Status.DEFERRED]
        assert attempt.outcomes[0].reason == "network"
        await d.delivery.stop()


async def test_no_more_connections_than_allowed() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(connections_per_site=2))
        attempts = await asyncio.gather(*(d.send(f"m{n}") for n in range(60)))
        assert all(statuses(a) == [Status.DELIVERED] for a in attempts)
        assert len(r.messages) == 60 and r.most == 2
        await d.delivery.stop()


async def test_a_site_that_refuses_more_connections_is_not_stormed() -> None:
    def at(event: Event, receiver: Receiver) -> Reply | None:
        if isinstance(event, Connected) and receiver.sessions > 1:
            return reply(421, "4.7.0", "Too many connections")
        return None

    async with Receiver(at=at).running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(connections_per_site=3))
        await d.send("m0")
        attempts = await asyncio.gather(*(d.send(f"m{n}") for n in range(1, 200)))
        assert all(statuses(a) == [Status.DELIVERED] for a in attempts)
        assert r.sessions <= 3  # the one that was let in, and two that were asked for at once
        await d.delivery.stop()


async def test_a_connection_carries_no_more_messages_than_allowed() -> None:
    per_session: dict[int, int] = {}

    def at(event: Event, receiver: Receiver) -> Reply | None:
        if isinstance(event, MessageReceived):
            per_session[receiver.sessions] = per_session.get(receiver.sessions, 0) + 1
        return None

    async with Receiver(at=at).running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(connections_per_site=1, messages_per_connection=2))
        await asyncio.gather(*(d.send(f"m{n}") for n in range(7)))
        assert per_session == {1: 2, 2: 2, 3: 2, 4: 1}
        await d.delivery.stop()


async def test_an_idle_connection_is_closed_and_its_site_forgotten() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(idle=0.01))
        await d.send("m0")
        while r.open or d.delivery._sites:
            await asyncio.sleep(0)
        assert statuses(await d.send("m1")) == [Status.DELIVERED]
        assert r.sessions == 2
        await d.delivery.stop()


async def test_stop_says_goodbye_and_takes_no_more() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port))
        await d.send("m0")
        await d.delivery.stop()
        while r.open:
            await asyncio.sleep(0)
        late = d.send("m1")  # the queue keeps it: nobody's attempt
        while d.delivery.busy:
            await asyncio.sleep(0)
        assert r.sessions == 1 and not late.done() and len(d.attempts) == 1


async def test_stop_leaves_waiting_work_to_the_queue() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(connections_per_site=1))
        for number in range(20):
            d.send(f"m{number}")
        await r.took.wait()
        await d.delivery.stop()
        assert d.delivery.busy == 0 and not d.delivery._sites
        assert len(d.attempts) == len(r.messages) < 20


async def test_what_waits_for_its_turn_is_not_begun_once_it_may_not_go() -> None:
    allowed, refused = [True], []

    def may_go(job: Job, site: str) -> bool:
        if not allowed[0]:
            refused.append(job.queue_id)
        return allowed[0]

    def withdraw(event: Event, receiver: Receiver) -> Reply | None:
        if len(receiver.messages) == 3:
            allowed[0] = False
        return None

    async with Receiver(at=withdraw).running() as r:
        d = desk(Router(r.port), limits=DeliveryLimits(connections_per_site=1), may_go=may_go)
        for number in range(20):
            d.send(f"m{number}")
        while d.delivery.busy:
            await asyncio.sleep(0)
        # The one behind the third was on the wire when it was withdrawn.
        assert 3 <= len(r.messages) <= 5 and len(refused) == 20 - len(r.messages)
        assert len(d.attempts) == len(r.messages)
        allowed[0] = True
        await d.send("again")  # the connection is as good as before
        assert r.sessions == 1
        await d.delivery.stop()


async def test_no_route_is_a_bounce_or_a_deferral() -> None:
    gone = Unroutable("x does not exist", permanent=True, reason="bad-domain", enhanced="5.1.2")
    later = Unroutable("MX of x: servfail", permanent=False, reason="dns")
    attempt = await desk(Router(error=gone)).send("m")
    assert statuses(attempt) == [Status.BOUNCED]
    assert (attempt.outcomes[0].code, attempt.outcomes[0].enhanced) == (550, "5.1.2")
    attempt = await desk(Router(error=later)).send("m")
    assert statuses(attempt) == [Status.DEFERRED] and attempt.outcomes[0].reason == "dns"
    attempt = await desk(Router(error=RuntimeError("a bug"))).send("m")
    assert statuses(attempt) == [Status.DEFERRED] and attempt.outcomes[0].reason == "internal"


async def test_a_message_that_cannot_be_prepared_is_deferred() -> None:
    attempt = await desk(Router(1), signer=Signer(OSError("secret path"))).send("m")
    assert statuses(attempt) == [Status.DEFERRED]
    assert "OSError" in attempt.outcomes[0].text and "secret" not in attempt.outcomes[0].text


async def test_a_message_that_cannot_go_on_the_wire_still_ends() -> None:
    async with Receiver().running() as r:
        d = desk(Router(r.port))
        attempt = await d.send("m", text=b"no line end")
        assert statuses(attempt) == [Status.DEFERRED] and attempt.outcomes[0].reason == "internal"
        assert statuses(await d.send("m2")) == [Status.DELIVERED]
        await d.delivery.stop()
