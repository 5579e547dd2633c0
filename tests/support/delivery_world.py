"""A whole delivery in a world of chance: the real queue, delivery, sites and pace; a store in memory, servers that do
what they like, and an event loop whose time jumps to the next timer, so that hours pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outgate.model.flow import Attempt, Host, Job, JobRecipient, Location, Prepared, Route, SigningKey, Status
from outgate.model.operations import Scope, StandingHold
from outgate.relay.bundles import Tried
from outgate.relay.delivery import Delivery
from outgate.relay.dialling import DeliveryLimits, NoHost, Opened
from outgate.relay.queue import Queue, Retry
from outgate.relay.routing import Unroutable
from outgate.relay.shaping import PaceRules, RuleBook
from outgate.smtp.reply import Reply, reply
from outgate.smtp.transaction import Step, Transaction, TransactionResult
from outgate.store.queue_rows import NOBODY, Full
from outgate.store.spool import SpoolError

START = 1_800_000_000.0
DAY = 86_400.0


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Waits for nothing: whoever would sleep finds that the time has passed."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for everybody")
        if timeout > 0:
            self.passed += max(timeout, 1e-6)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its own time, and its own threads: none."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class LoopClock:
    def now(self) -> float:
        return START + asyncio.get_running_loop().time()


@dataclass
class Row:
    """A recipient as the store has it."""

    job: Job
    recipient: JobRecipient
    due_at: float
    leased: bool = True
    held: bool = False
    ends: list[Status] = None  # type: ignore[assignment]
    arrived: int = 0
    lost_answers: int = 0

    def __post_init__(self) -> None:
        self.ends = []


class MemoryStore:
    """The leases of the queue store; a lease that is given back twice, or by who has none, is an error."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.attempts: list[Attempt] = []
        self.errors: list[str] = []

    def add(self, job: Job) -> None:
        for each in job.recipients:
            self.rows[each.id] = Row(job, each, job.accepted_at)

    def _returned(self, number: int, what: str) -> Row:
        row = self.rows[number]
        if not row.leased:
            self.errors.append(f"{number} {what} without a lease")
        row.leased = False
        return row

    def record(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        numbers = [each.recipient_id for each in attempt.outcomes]
        if len(set(numbers)) < len(numbers):
            self.errors.append(f"two outcomes for one of {numbers}")
        for each in attempt.outcomes:
            row = self._returned(each.recipient_id, f"ended as {each.status}")
            row.recipient = replace(
                row.recipient,
                attempts=row.recipient.attempts + 1,
                may_have_arrived=row.recipient.may_have_arrived or each.reason == "unknown",
            )
            if each.status is Status.HELD:
                row.held = True
            elif each.status is Status.DEFERRED:
                assert attempt.next_attempt_at is not None
                row.due_at = attempt.next_attempt_at
            else:
                row.ends.append(each.status)

    def release(self, job: Job, due_at: float, site: str = "", why: str = "") -> None:
        for each in job.recipients:
            self._returned(each.id, "released").due_at = due_at

    def hold(self, job: Job, reason: str, words: str, at: float, actor: str = "") -> None:
        for each in job.recipients:
            self._returned(each.id, "held").held = True

    def suppress(self, job: Job, mailboxes: Collection[str], words: str, at: float) -> None:
        for each in job.recipients:
            if each.mailbox in mailboxes:
                self._returned(each.id, "suppressed").ends.append(Status.SUPPRESSED)

    def _due(self, but: Full) -> list[Row]:
        return sorted(
            (
                row
                for row in self.rows.values()
                if not row.leased and not row.held and not row.ends
                and row.job.domain not in but.domains
                and row.job.smtp_config_id not in but.configurations
                and (row.job.domain, row.job.smtp_config_id) not in but.pairs
            ),
            key=lambda row: row.due_at,
        )  # fmt: skip

    def claim(self, now: float, limit: int, but: Full = NOBODY) -> list[Job]:
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self._due(but):
            if row.due_at <= now and (len(found) < limit or (row.job.queue_id, row.job.domain) in found):
                found.setdefault((row.job.queue_id, row.job.domain), []).append(row)
        for rows in found.values():
            for row in rows:
                row.leased = True
        return [replace(rows[0].job, recipients=tuple(row.recipient for row in rows)) for rows in found.values()]

    def next_due(self, but: Full = NOBODY, after: float = 0.0) -> float | None:
        return next((row.due_at for row in self._due(but) if row.due_at > after), None)

    def flush(self) -> None:
        pass


class Server:
    """A connection to a server that answers by chance."""

    extensions: dict[str, str]

    def __init__(self, world: World, site: str) -> None:
        chance = world.chance
        self._world = world
        self._site = site
        self._under_way: list[tuple[Transaction, Callable[[TransactionResult], None]]] = []
        self._leaving = self._answering = False
        self._probing: Callable[[], None] | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_closed: Callable[[], None] | None = None
        self.closed = False
        self.error = ""
        self.tls = "TLSv1.3"
        self.extensions = {}
        if chance.random() < 0.4:
            self.extensions["LIMITS"] = chance.choice(["RCPTMAX=2", "RCPTDOMAINMAX=1", "MAILMAX=2", "RCPTMAX=1"])
        self.greeting_steps = (Step(world.clock.now(), "connect", "220 hello"),)
        world.open.add(self)

    @property
    def ready(self) -> bool:
        return not self.closed and not self._leaving and self._probing is None and len(self._under_way) < 2

    @property
    def in_flight(self) -> int:
        return len(self._under_way)

    def send(self, transaction: Transaction, done: Callable[[TransactionResult], None]) -> None:
        assert self.ready
        self._world.begun(transaction)
        self._under_way.append((transaction, done))
        self._answer_later()

    def _answer_later(self) -> None:
        if self._under_way and not self._answering:
            self._answering = True
            self._later(self._answer)

    def probe(self, lives: Callable[[], None]) -> None:
        assert self.ready and not self._under_way
        self._probing = lives
        self._later(self._answer_probe)

    async def quit(self) -> None:
        self._leaving = True
        if not self._under_way:
            self._later(self.abort)
        await asyncio.shield(self._gone)

    def abort(self) -> None:
        self._close("aborted")

    def _later(self, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._world.chance.choice([0.0, 0.01, 0.2, 3.0]), what)

    def _answer_probe(self) -> None:
        lives, self._probing = self._probing, None
        if self.closed:
            return
        if not self._world.kind and self._world.chance.random() < 0.4:
            self._close("gone long ago")
        elif lives is not None:
            lives()
        if self._leaving and not self._under_way:
            self.abort()

    def _answer(self) -> None:
        self._answering = False
        if self.closed:
            return
        transaction, done = self._under_way.pop(0)
        result, ends = self._world.verdict(transaction)
        done(result)
        if ends or (self._leaving and not self._under_way):
            self._close("the server left")
        self._answer_later()

    def _close(self, why: str) -> None:
        if self.closed:
            return
        self.closed, self.error = True, why
        self._world.open.discard(self)
        waiting, self._under_way = self._under_way, []
        for transaction, done in waiting:
            count = len(transaction.recipients)
            done(TransactionResult(transaction, recipients=(None,) * count, error=why))
        self._gone.set_result(None)
        if self.on_closed is not None:
            self.on_closed()


class _Dialler:
    def __init__(self, world: World) -> None:
        self.open = world.dial


class World:
    """Ways, signer, dialler and receiving servers in one. `kind`: everything works."""

    def __init__(self, seed: int, *, room: int = 60, per_domain: int = 20) -> None:
        self.chance = random.Random(seed)
        self.kind = False
        self.clock = LoopClock()
        self.store = MemoryStore()
        self.open: set[Server] = set()
        self.holds: set[str] = set()
        self.numbers = itertools.count(1)
        self.by_mailbox: dict[str, int] = {}
        limits = DeliveryLimits(3, 4, 5.0, probe_after=1.0)
        usual = PaceRules(3, 0.0, 4, 20.0, 300.0)
        rules = RuleBook(
            usual,
            {
                "slow.test": PaceRules(2, 12.0, 4, 20.0, 300.0, "slow.test"),
                "narrow.test": PaceRules(1, 0.0, 4, 20.0, 300.0, "narrow.test"),
            },
        )
        self.shared_most = 0
        self.delivery = Delivery(
            ways=self,
            signer=self,
            finished=self._finished,
            clock=self.clock,
            limits=limits,
            dialler=_Dialler(self),  # type: ignore[arg-type]
            may_go=lambda job, site: self.queue.may_go(job, site),
            given_back=lambda job, due_at, site, why: self.queue.release(job, due_at, site, why),
            rules=rules,
        )
        self.queue = Queue(
            self.store,  # type: ignore[arg-type]
            self.clock,
            self.delivery.deliver,
            lambda: room - self.delivery.busy,
            retry=Retry(60.0, 3600.0),
            ready_bytes=1000,
            per_domain=per_domain,
            held=lambda _configuration: "",
            stopped=self._stopped,
            jitter=self.chance.random,
        )

    # -- what a run does --------------------------------------------------------------------------------------

    def accept(self, domains: Sequence[str], each: int, configuration: str = "cfg", lifetime: float = DAY) -> None:
        """Have a message come in: so many recipients of each domain."""
        name, now = f"M{next(self.numbers)}", self.clock.now()
        jobs: list[Job] = []
        for domain in domains:
            recipients: list[JobRecipient] = []
            for _ in range(each):
                number = next(self.numbers)
                mailbox = f"r{number}@{domain}"
                self.by_mailbox[mailbox] = number
                recipients.append(JobRecipient(number, mailbox, domain, 0))
            jobs.append(
                Job(
                    name, "inst", configuration, SigningKey("k", "shop.test", "s"), "a@shop.test", domain,
                    tuple(recipients), Location(0, 0, 0, 0), now, now + lifetime, False, False, b"", b"Subject: x\r\n",
                    route="second" if self.chance.random() < 0.05 else "",
                )
            )  # fmt: skip
            self.store.add(jobs[-1])
        self.queue.stored(None, tuple(jobs))

    def meddle(self) -> None:
        """Have an operator do something."""
        what, domain = self.chance.randrange(6), self.chance.choice(DOMAINS)
        if what == 0:
            self.holds.add(domain)
            self._recall(domain)
        elif what == 1:
            self.let_go(domain)
        elif what == 2:
            self._recall(domain)
        elif what == 3:
            self.delivery.forgive(self.chance.choice(SITES))
        elif what == 4:
            self.delivery.sift()
        else:
            for row in self.store.rows.values():
                if row.job.domain == domain and not row.leased:
                    row.due_at = min(row.due_at, self.clock.now())
            self.queue.look()

    def _recall(self, domain: str) -> None:
        self.queue.recall(self.queue.under_way(lambda job: job.domain == domain))
        self.delivery.sift()

    def let_go(self, domain: str) -> None:
        self.holds.discard(domain)
        for row in self.store.rows.values():
            if row.job.domain == domain and row.held:
                row.held, row.due_at = False, self.clock.now()
        self.queue.look()

    def _stopped(self, job: Job, site: str) -> StandingHold | None:
        if job.domain not in self.holds:
            return None
        return StandingHold(Scope(domain=job.domain), "operator", self.clock.now(), "")

    # -- what delivery asks -----------------------------------------------------------------------------------

    troubled = True

    def _finished(self, job: Job, attempt: Attempt) -> None:
        if not self.kind and self.chance.random() < 0.01:
            self.queue.record(job, attempt)
            raise OSError("the status log is full")
        self.queue.record(job, attempt)

    def fixed(self, job: Job) -> Route | None:
        luck = 1.0 if self.kind else self.chance.random()
        if luck < 0.02:
            raise Unroutable("no mail there", permanent=True, reason="no-mail", enhanced="5.1.10")
        if luck < 0.04:
            raise RuntimeError("a bug in the routes")
        return self._route(job, "first") if luck < 0.3 else None

    async def route(self, job: Job, tried: tuple[Tried, ...] = ()) -> Route:
        await asyncio.sleep(self.chance.choice([0.0, 0.0, 0.3, 2.0]))
        luck = 1.0 if self.kind else self.chance.random()
        if luck < 0.02:
            raise Unroutable("no mail there", permanent=not tried, reason="no-mail", enhanced="5.1.10")
        if luck < 0.06:
            raise Unroutable("no address", permanent=False, reason="dns")
        if luck < 0.08:
            raise RuntimeError("a bug in the routes")
        names = [name for name in ("first", "second") if all(each.via != name for each in tried)]
        if not names:
            raise Unroutable("none is left", permanent=False, reason="network")
        return self._route(job, job.route or names[0])

    def _route(self, job: Job, via: str) -> Route:
        site = SITES[DOMAINS.index(job.domain) % len(SITES)] if via == "first" else "smart.test:25"
        security = f"route {via}" + " strict" * (int(job.queue_id[1:]) % 2)  # they share a pace, no connection
        return Route(site, (Host(site, "192.0.2.1", 25),), "by chance", "dal", "out.test", via, security)

    def has_others(self, job: Job, tried: Sequence[Tried]) -> bool:
        return not job.route and len(tried) < 2

    def reached(self, job: Job, route: Route) -> None:
        pass

    def unreached(self, job: Job, route: Route, reason: str) -> None:
        pass

    def prepare(self, job: Job, done: Callable[[Prepared | None, Exception | None], None]) -> None:
        luck = 1.0 if self.kind else self.chance.random()
        delay = self.chance.choice([0.0, 0.0, 0.5])
        prepared = Prepared(job, b"", b"Subject: x\r\n")
        error: Exception | None = SpoolError("damaged") if luck < 0.01 else OSError("no disk") if luck < 0.02 else None
        asyncio.get_running_loop().call_later(delay, done, None if error else prepared, error)

    async def dial(self, route: Route, steps: list[Step]) -> Opened | NoHost:
        await asyncio.sleep(self.chance.choice([0.0, 0.1, 4.0]))
        luck = 1.0 if self.kind else self.chance.random()
        host = route.hosts[0]
        steps.append(Step(self.clock.now(), "connect", "by chance"))
        if luck < 0.15:
            return NoHost("connection refused", "network", host)
        if luck < 0.22:
            return NoHost("421", "unavailable", host, reply(421, "4.3.2", "too many connections"))
        if luck < 0.27:
            return NoHost("421", "unavailable", host, reply(421, "4.7.0", "rate limit, slow down"))
        if luck < 0.29:
            return NoHost("not verified", "tls", host, None, "5.7.10")
        if luck < 0.31:
            raise RuntimeError("a bug in the dialler")
        return Opened(Server(self, route.site), host)  # type: ignore[arg-type]

    # -- what servers do --------------------------------------------------------------------------------------

    def begun(self, transaction: Transaction) -> None:
        for mailbox in transaction.recipients:
            row = self.store.rows[self.by_mailbox[mailbox]]
            if not row.leased or row.ends:
                self.store.errors.append(f"{mailbox} is sent without a lease")

    def verdict(self, transaction: Transaction) -> tuple[TransactionResult, bool]:
        """Return what becomes of a transaction, and whether the connection ends with it."""
        count = len(transaction.recipients)
        ok, go = reply(250, "2.1.5", "Ok"), reply(354, "", "Go on")
        luck = 1.0 if self.kind else self.chance.random()
        if luck < 0.06:
            goodbye = reply(421, "4.3.0", "closing")
            return TransactionResult(transaction, goodbye, (None,) * count, error="closed"), True
        if luck < 0.12:
            slow = reply(451, "4.7.28", "unusual rate of mail from you")
            return TransactionResult(transaction, slow, (slow,) * count), False
        if luck < 0.16:
            return TransactionResult(transaction, recipients=(None,) * count, error="the connection ended"), True
        recipients: list[Reply] = []
        for number in range(count):
            mine = 1.0 if self.kind else self.chance.random()
            if number > 1 and mine < 0.5:
                recipients += [reply(452, "4.5.3", "too many recipients")] * (count - number)
                break
            if mine < 0.04:
                recipients.append(reply(550, "5.1.1", "no such user"))
            elif mine < 0.08:
                recipients.append(reply(530, "5.7.0", "log in first"))
            elif mine < 0.12:
                recipients.append(reply(450, "4.2.0", "greylisted"))
            else:
                recipients.append(ok)
        taken = [mailbox for mailbox, said in zip(transaction.recipients, recipients, strict=True) if said.ok]
        if not taken:
            return TransactionResult(transaction, ok, tuple(recipients)), False
        lost = luck < 0.2
        for mailbox in taken:
            row = self.store.rows[self.by_mailbox[mailbox]]
            row.arrived += 1
            row.lost_answers += lost
        if lost:
            return TransactionResult(transaction, ok, tuple(recipients), go, sent_all=True, error="lost"), True
        return TransactionResult(transaction, ok, tuple(recipients), go, reply(250, "2.0.0", "queued"), True), False


DOMAINS = ("one.test", "two.test", "slow.test", "narrow.test", "nine.test", "three.test")
SITES = ("mx1", "mx2")


def undone(world: World) -> Counter[str]:
    """Return what is left over in delivery and queue: nothing, in the end."""
    delivery, queue = world.delivery, world.queue
    return Counter(
        {
            "busy": delivery.busy,
            "sites": len(delivery._sites),
            "connections": sum(shared.pace.connections for shared in delivery._shared.values()),
            "opening": sum(shared.pace.opening for shared in delivery._shared.values()),
            "leaving": sum(shared.pace.leaving for shared in delivery._shared.values()),
            "shared sites": sum(len(shared.sites) for shared in delivery._shared.values()),
            "undone": queue.undone,
            "domains": len(queue._domains),
            "configurations": len(queue._configurations),
            "bytes": queue.ready_bytes,
            "bodies": len(queue._ready),
            "open": len(world.open),
        }
    )
