"""Hand jobs to delivery when they are due: fresh ones at once, deferred ones by the clock.

Standards: RFC 5321 section 4.5.4.1 (retry strategy).
Promises: a message's jobs are handed on only after its 250 may be sent; what is due and fits is claimed,
    oldest first; bodies in memory stay under `ready_bytes`, the rest is read from the spool when needed, and
    delivery is given no more of that at once than some ten megabytes and a message.
Dangers: stop delivery first, then the queue, then close the store: an outcome that comes after its lease was
    given back changes nothing but the trail, and the message is tried again.
Not here: storing and leases (`store.sqlite`), connections and sites (`relay.delivery`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.model.flow import Accepted, Attempt, Job, Report, Status
from outgate.model.operations import OPERATOR, StandingHold
from outgate.relay.holds import WORDS
from outgate.store.queue_rows import Full
from outgate.store.sqlite import QueueStore

_log = Log("outgate.relay.queue")

_SLEEP_MOST_S = 60.0
"""Longest sleep between two looks: the clock may have been set meanwhile."""
_RECALLED_MOST = 10_000
_READ_MOST = 48 << 20
"""Bytes of bodies, read from the spool, that delivery may hold: it keeps a message while it waits for its site."""
_TROUBLE_S = 1.0
"""How soon to look again when there was no room, or the store failed."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The back-off: seconds before the second attempt, and the longest pause."""

    first: float
    most: float


class Reporter(Protocol):
    """Who tells senders what became of their mail (`relay.reports`)."""

    def wants(self, job: Job, attempt: Attempt) -> bool: ...

    def write(self, job: Job, attempt: Attempt, done: Callable[[Report | None], object]) -> None: ...

    async def finish(self) -> None: ...


def next_attempt(attempts: int, now: float, first: float, most: float, jitter01: float) -> float:
    """Return when to try again after `attempts` (1 or more) tries: `first` seconds, doubled each time up to
    `most`, ten per cent less (`jitter01` 0) to ten per cent more (1), so that retries spread out."""
    pause = min(first * 2.0 ** min(max(attempts - 1, 0), 60), most)
    return now + pause * (0.9 + 0.2 * jitter01)


def settle(attempt: Attempt, next_at: float, expires_at: float) -> Attempt:
    """Return `attempt` with its next try, or with deferred recipients expired if that would come too late."""
    if not any(outcome.status is Status.DEFERRED for outcome in attempt.outcomes):
        return replace(attempt, next_attempt_at=None)
    if next_at <= expires_at:
        return replace(attempt, next_attempt_at=next_at)
    outcomes = tuple(
        replace(outcome, status=Status.EXPIRED) if outcome.status is Status.DEFERRED else outcome
        for outcome in attempt.outcomes
    )
    return replace(attempt, outcomes=outcomes, next_attempt_at=None)


@dataclass(slots=True)
class _Ready:
    """A message whose body is in memory, or will be: its bytes, and how many recipients still need it."""

    size: int
    recipients: int


class Queue:
    """The queue as the event loop sees it. All methods belong to the loop's thread.

    `deliver` takes a job and must not block; `room` says how many more jobs it can take; of one domain it gets
    `per_domain` recipients at once, about, and the rest waits in the store. A configuration gets as much as it leaves
    free, of the whole and of each domain: one has half of it at most, two a third each, and who comes new finds
    room. `held` says why a configuration's mail is not to go out now, "" if it may; `suppressed` which recipients of a
    job that waited have been suppressed since, and why; `stopped` the hold of an operator that covers a job, at a site
    or wherever; `reports` writes what senders are told (None: nobody is told); `recorded` is told of each attempt that
    has been handed over to be stored."""

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        deliver: Callable[[Job], object],
        room: Callable[[], int],
        *,
        retry: Retry,
        ready_bytes: int,
        page: int = 100,
        per_domain: int = 500,
        held: Callable[[str], str] = lambda _smtp_config_id: "",
        suppressed: Callable[[Job], Mapping[str, str]] = lambda _job: {},
        reports: Reporter | None = None,
        recorded: Callable[[Job, Attempt], object] = lambda _job, _attempt: None,
        stopped: Callable[[Job, str], StandingHold | None] = lambda _job, _site: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._deliver = deliver
        self._room = room
        self._retry = retry
        self._ready_bytes = ready_bytes
        self._page = page
        self._per_domain = per_domain
        self._held = held
        self._suppressed = suppressed
        self._stopped = stopped
        self._reports = reports
        self._told = recorded
        self._recalled: set[int] = set()
        self._domains: dict[str, Counter[str]] = {}
        self._configurations: Counter[str] = Counter()
        self._jitter = jitter
        self._undone: dict[int, Job] = {}
        self._ready: dict[str, _Ready] = {}
        self._held_bytes = 0
        self._read: dict[str, _Ready] = {}
        self._read_bytes = 0
        self._usual_bytes = 1  # of a message that waited
        self._heavy = False
        self._stopping = False
        self._starved = False
        self._crowded: set[str] = set()
        self._look_again = False
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def ready_bytes(self) -> int:
        """Return the bytes of message bodies in memory now."""
        return self._held_bytes

    @property
    def undone(self) -> int:
        """Return the recipients that delivery has and has not answered yet."""
        return len(self._undone)

    def start(self) -> None:
        """Begin to look for what is due, from an earlier run to begin with."""
        self._look()

    def accept(self, accepted: Accepted, done: Callable[[Exception | None], object]) -> None:
        """Store a message, call `done(None)` once that is durable or `done(error)`, then deliver its jobs."""
        self._store.submit(accepted, partial(self._stored, accepted.counted_at, done))

    def record(self, job: Job, attempt: Attempt) -> Attempt:
        """Keep the outcome of a job, decide when its deferred recipients are next, and return it so.

        A next attempt that `attempt` already names is kept; past the message's expiry it becomes EXPIRED."""
        if not attempt.recipients:
            attempt = replace(attempt, recipients=job.recipients)
        next_at = attempt.next_attempt_at
        if next_at is None:
            tried = 1 + max((recipient.attempts for recipient in job.recipients), default=0)
            retry = self._retry
            next_at = next_attempt(tried, attempt.finished_at, retry.first, retry.most, self._jitter())
        settled = settle(attempt, next_at, job.expires_at)
        if self._reports is not None and self._reports.wants(job, settled):
            # Recorded together with the report: until that is written, the lease says that the job is under way.
            self._reports.write(job, settled, partial(self._recorded, job, settled))
        else:
            self._recorded(job, settled, None)
        return settled

    def _recorded(self, job: Job, settled: Attempt, report: Report | None) -> None:
        self._forget(job.queue_id, [outcome.recipient_id for outcome in settled.outcomes])
        if report is None:
            self._store.record(settled)
        else:
            self._store.record(settled, report, self.stored)
        self._told(job, settled)
        if settled.next_attempt_at is not None:
            self._wake_at(settled.next_attempt_at)
        self._resume(job)

    def stored(self, error: Exception | None, jobs: tuple[Job, ...]) -> None:
        """Take over the jobs of a message that the relay made itself and that is stored now."""
        if error is None and jobs:
            self._hand_on_fresh(jobs)

    def release(self, job: Job, due_at: float, site: str = "", why: str = "") -> None:
        """Take a job back that was not tried; it is due again at `due_at`. `why` it waits for `site` is shown."""
        self._forget(job.queue_id, [recipient.id for recipient in job.recipients])
        self._store.release(job, due_at, site, why)
        self._wake_at(due_at)
        self._resume(job)

    def recall(self, recipients: Iterable[int]) -> None:
        """Have what has not been begun of these come back at `may_go`: an operator wants something else of it."""
        if len(self._recalled) > _RECALLED_MOST:
            self._recalled &= self._undone.keys()
        self._recalled.update(recipients)

    def under_way(self, wanted: Callable[[Job], bool]) -> list[int]:
        """Return the recipients that delivery has of the jobs that are `wanted`."""
        return [number for number, job in list(self._undone.items()) if wanted(job)]

    def under_way_by_domain(self, wanted: Callable[[Job], bool] | None = None) -> dict[str, int]:
        """Return how many recipients delivery has of each domain."""
        if wanted is None:
            return {domain: shares.total() for domain, shares in self._domains.items()}
        return Counter(job.domain for job in self._undone.values() if wanted(job))

    def may_go(self, job: Job, site: str = "") -> bool:
        """Say whether a job may be begun now (at `site`, once that is known); if not, it has been taken out of the
        schedule, for its configuration or an operator holds it, or is due again: at once if an operator wants
        something of it, a little later if nobody could tell."""
        now = self._clock.now()
        if self._recalled and not self._recalled.isdisjoint([recipient.id for recipient in job.recipients]):
            self.release(job, now)
            return False
        try:
            # A report of ours goes, whoever may not send: it tells the sender what became of mail.
            why = "" if job.origin else self._held(job.smtp_config_id)
            hold = None if why else self._stopped(job, site)
        except Exception as error:
            _log.error("queue.hold_unknown", queue_id=job.queue_id, error=repr(error))
            self.release(job, now + _TROUBLE_S)
            return False
        if not why and hold is None:
            return True
        self._forget(job.queue_id, [recipient.id for recipient in job.recipients])
        if hold is None:
            self._store.hold(job, why, WORDS[why], now)
        else:
            self._store.hold(job, OPERATOR, hold.words(), now, hold.actor)
        self._resume(job)
        return False

    async def body(self, job: Job) -> tuple[bytes, bytes]:
        """Return a job's (trace, content): at hand, or read from the spool in a thread.

        Raises `store.sqlite.SpoolError` if the record is damaged: never send it; `OSError`: try later."""
        if job.content is not None and job.trace is not None:
            return job.trace, job.content
        return await asyncio.to_thread(self._store.load, job)

    def look(self) -> None:
        """Look at once: something is due that was not before."""
        self._look()

    async def poke(self) -> None:
        """Look at once (the clock was moved) and return when all that is due has been handed on."""
        if self._stopping:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._look()
        await waiting

    async def stop(self) -> None:
        """Claim nothing more, give back what delivery has not answered, and make all that durable."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        if self._reports is not None:
            await self._reports.finish()
        self._tell_waiting()
        now = self._clock.now()
        for job in dict.fromkeys(self._undone.values()):
            rest = tuple(recipient for recipient in job.recipients if recipient.id in self._undone)
            self._store.release(replace(job, recipients=rest), now)
        self._undone.clear()
        self._domains.clear()
        self._configurations.clear()
        self._ready.clear()
        self._read.clear()
        self._held_bytes = self._read_bytes = 0
        await asyncio.to_thread(self._store.flush)

    # --- fresh mail ---

    def _stored(
        self,
        counted_at: float | None,
        done: Callable[[Exception | None], object],
        error: Exception | None,
        jobs: tuple[Job, ...],
    ) -> None:
        try:
            done(error)
        finally:
            if jobs:
                self._hand_on_fresh(jobs)
            elif counted_at is not None and error is None:
                self._wake_at(counted_at)

    def _hand_on_fresh(self, jobs: tuple[Job, ...]) -> None:
        size = len(jobs[0].trace or b"") + len(jobs[0].content or b"")
        keep = self._held_bytes + size <= self._ready_bytes
        for job in jobs:
            if self._stopping or self._room() <= 0:
                self._store.release(job, job.accepted_at)
                self._starve()
            elif self._is_full(job):
                self._store.release(job, job.accepted_at)
                self._crowded |= {job.domain, job.smtp_config_id}
            elif not keep and self._read_bytes >= _READ_MOST:
                self._put_off(job)
            elif not self.may_go(job):
                continue
            elif keep:
                self._held_bytes += _hold(self._ready, job, size)
                self._hand_on(job)
            else:
                self._read_bytes += _hold(self._read, job, size)
                self._hand_on(replace(job, trace=None, content=None))

    def _put_off(self, job: Job) -> None:
        """Leave a job to the store until delivery holds fewer bytes."""
        self._store.release(job, job.accepted_at)
        self._heavy = True
        self._wake_at(self._clock.now() + _TROUBLE_S)

    def _hand_on(self, job: Job) -> None:
        for recipient in job.recipients:
            self._undone[recipient.id] = job
        count = len(job.recipients)
        configuration = job.smtp_config_id
        domain = self._domains.get(job.domain)
        if domain is None:
            domain = self._domains[job.domain] = Counter()
        domain[""] += count  # all together
        domain[configuration] += count
        self._configurations[configuration] += count
        try:
            self._deliver(job)
        except Exception:
            # The lease is kept: better late, after a restart, than round in circles.
            _log.exception("queue.delivery_refused_job", queue_id=job.queue_id)

    def _forget(self, queue_id: str, recipients: list[int]) -> None:
        kept = read = 0
        if self._recalled:
            self._recalled.difference_update(recipients)
        for number in recipients:
            job = self._undone.pop(number, None)
            if job is not None:
                if job.content is None:
                    read += 1
                else:
                    kept += 1
                self._subtract(job.domain, job.smtp_config_id)
        if kept:
            self._held_bytes -= _let_go(self._ready, queue_id, kept)
        if read:
            self._read_bytes -= _let_go(self._read, queue_id, read)

    def _subtract(self, name: str, configuration: str) -> None:
        domain = self._domains[name]
        domain[""] -= 1
        domain[configuration] -= 1
        if not domain[configuration]:
            del domain[configuration]
            if not domain[""]:
                del self._domains[name]
        self._configurations[configuration] -= 1
        if not self._configurations[configuration]:
            del self._configurations[configuration]

    # --- looking for what is due ---

    def _look(self) -> None:
        """Start a look, or have the one under way start over: it may have read the clock before."""
        if self._stopping:
            return
        if self._looking is not None:
            self._look_again = True
            return
        self._looking = spawn(self._claim_due(), "queue-look")
        self._looking.add_done_callback(self._looked)

    def _looked(self, _task: asyncio.Task[None]) -> None:
        self._looking = None
        if self._look_again:
            self._look_again = False
            self._look()

    async def _claim_due(self) -> None:
        due: float | None = None
        try:
            while not self._stopping:
                room = self._room()
                if room <= 0:
                    self._starve()
                    return
                if self._read_bytes >= _READ_MOST:
                    self._heavy = True
                    self._wake_at(self._clock.now() + _TROUBLE_S)
                    return
                # All of it may be one configuration's: it must not take all the room with that.
                limit = min(self._page, max(1, room // 4), max(1, (_READ_MOST - self._read_bytes) // self._usual_bytes))
                self._look_again = False
                now, full = self._clock.now(), self._full()
                # Before the claim: who has room again while it runs has it looked for again.
                self._crowded.update(full.domains, full.configurations, *full.pairs)
                jobs = await asyncio.to_thread(self._store.claim, now, limit, full)
                if jobs:
                    self._usual_bytes = max(1, sum(job.location.length for job in jobs) // len(jobs))
                for job in jobs:
                    if self._stopping:
                        self._store.release(job, job.accepted_at)
                    elif self._read_bytes >= _READ_MOST:
                        self._put_off(job)
                    elif self.may_go(job) and (rest := self._without_suppressed(job)).recipients:
                        self._read_bytes += _hold(self._read, rest, rest.location.length)
                        self._hand_on(rest)
                if not jobs and not self._look_again:
                    due = await asyncio.to_thread(self._store.next_due, full, now)
                    break
        except Exception as error:
            _log.error("queue.claim_failed", error=repr(error))
            self._wake_at(self._clock.now() + _TROUBLE_S)
            return
        if due is not None:
            self._wake_at(due)
        if not self._look_again:
            self._tell_waiting()

    def _without_suppressed(self, job: Job) -> Job:
        """End the recipients of a job that were suppressed while it waited, and return what is left of it."""
        found = self._suppressed(job)
        if not found:
            return job
        now = self._clock.now()
        for words in dict.fromkeys(found.values()):
            self._store.suppress(job, [mailbox for mailbox, said in found.items() if said == words], words, now)
        return replace(job, recipients=tuple(each for each in job.recipients if each.mailbox not in found))

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _full(self) -> Full:
        """Return who has as much in delivery as they may: a slow domain must not keep others waiting, nor a large
        sender, neither everywhere nor at a domain that others write to as well."""
        room, per_domain = self._room(), self._per_domain
        domains: list[str] = []
        pairs: list[tuple[str, str]] = []
        for name, domain in self._domains.items():
            count = domain[""]
            if count >= per_domain:
                domains.append(name)
            elif 2 * count >= per_domain:  # else nobody can have as much as is free
                pairs += [(name, each) for each, has in domain.items() if each and has >= per_domain - count]
        configurations = [each for each, has in self._configurations.items() if has >= room]
        return Full(domains, configurations, pairs)

    def _has_room(self, job: Job) -> bool:
        """Say whether a quarter of what a job's configuration may have is free: a look for less costs too much."""
        configuration = job.smtp_config_id
        if 4 * self._configurations[configuration] > 3 * self._room():
            return False
        domain = self._domains.get(job.domain)
        return domain is None or 4 * domain[configuration] <= 3 * (self._per_domain - domain[""])

    def _is_full(self, job: Job) -> bool:
        """Say whether a job's domain or configuration is one of them."""
        configuration = job.smtp_config_id
        if self._configurations[configuration] >= self._room():
            return True
        domain = self._domains.get(job.domain)
        return domain is not None and domain[configuration] >= self._per_domain - domain[""]

    def _starve(self) -> None:
        """Remember that something waits for room; look when there is some."""
        self._starved = True
        self._wake_at(self._clock.now() + _TROUBLE_S)

    def _resume(self, job: Job) -> None:
        """Look if something waits for what this job, which is gone, has left free."""
        crowded = self._crowded
        if crowded and (job.domain in crowded or job.smtp_config_id in crowded) and self._has_room(job):
            self._starved = True
        if self._heavy and 4 * self._read_bytes <= 3 * _READ_MOST:
            self._starved = True
        if self._starved:
            self._starved = self._heavy = False
            crowded.clear()
            # Delivery counts the room it has just made after this call returns.
            asyncio.get_running_loop().call_soon(self._look)

    def _wake_at(self, due: float) -> None:
        """Have a look at `due` (epoch seconds), or before if one is planned already."""
        if self._stopping:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + min(max(due - self._clock.now(), 0.0), _SLEEP_MOST_S)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._look()


def _hold(bodies: dict[str, _Ready], job: Job, size: int) -> int:
    """Count a job's recipients as in need of its message's body; return the bytes that come in with it."""
    ready = bodies.get(job.queue_id)
    if ready is not None:
        ready.recipients += len(job.recipients)
        return 0
    bodies[job.queue_id] = _Ready(size, len(job.recipients))
    return size


def _let_go(bodies: dict[str, _Ready], queue_id: str, recipients: int) -> int:
    """Count so many recipients as in need of a body no more; return the bytes that nobody needs then."""
    ready = bodies.get(queue_id)
    if ready is None:
        return 0
    ready.recipients -= recipients
    if ready.recipients > 0:
        return 0
    del bodies[queue_id]
    return ready.size
