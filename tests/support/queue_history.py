"""A queue to which everything happens that can, in an order that a seed decides, and what must be true of it then."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from outgate.base.clock import FrozenClock
from outgate.model.flow import Attempt, Event, Job, Status
from outgate.model.operations import Order, Scope, Verb
from support.queue_mail import NOW, Desk, accepted, attempt

DAY = 86_400.0
_STATUSES = {status.value for status in Status}


@dataclass
class Standing:
    """Where a recipient stands, as its row has it."""

    status: str
    attempts: int
    due_at: float | None
    reply: str
    reason: str
    updated_at: float


def replayed(told: Sequence[Event], recipients: dict[int, str]) -> dict[int, Standing]:
    """Return where recipients (id, queue id) stand by what was told, and by nothing else."""
    accepted_at = {event.queue_id: event.at for event in told if event.kind == "accepted"}
    found = {
        number: Standing("queued", 0, accepted_at[queue_id], "", "", accepted_at[queue_id])
        for number, queue_id in recipients.items()
    }
    for event in told:
        if event.recipient_id is None:
            continue
        standing = found[event.recipient_id]
        if event.kind == "released":
            standing.status = "deferred" if standing.attempts else "queued"
        elif event.kind in _STATUSES:
            standing.status = event.kind
        else:
            continue
        standing.reason, standing.due_at, standing.updated_at = event.reason, event.due_at, event.at
        if event.attempt_id is not None:
            standing.attempts += 1
            code = str(event.code) if event.code else ""
            standing.reply = " ".join(part for part in (code, event.enhanced, event.text) if part)
    return found


def compare(directory: Path, given: set[float]) -> int:
    """Hold the rows of recipients against their events; `given` are the times at which leases were given back."""
    with closing(sqlite3.connect(directory / "queue-0.db")) as connection:
        numbered = connection.execute(
            "SELECT id, queue_id, at, kind, recipient_id, attempt_id, code, enhanced, text, reason, actor, due_at"
            " FROM events ORDER BY id"
        ).fetchall()
        rows = connection.execute(
            "SELECT id, queue_id, status, attempts, due_at, reply, reason, updated_at FROM recipients"
        ).fetchall()
    expected = replayed([Event(*row[1:]) for row in numbered], {row[0]: row[1] for row in rows})
    assert len({row[0] for row in numbered}) == len(numbered)
    for number, _, *columns in rows:
        stands, told = Standing(*columns), expected[number]
        # A lease that is given back, and a time that a quota gives, move the schedule only.
        if stands.due_at != told.due_at:
            assert stands.due_at in given, (number, stands, told)
            told = replace(told, due_at=stands.due_at)
        assert stands == told, (number, stands, told)
    return len(numbered)


class History:
    """A queue to which everything happens that can, in an order that a seed decides."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.root = directory
        self.random = random.Random(seed)
        self.clock = FrozenClock(NOW)
        self.given: set[float] = set()
        self.lives = 0
        self.directory = directory / "0"
        self.desk = Desk(self.directory, self.clock)
        self.jobs: list[Job] = []
        self.lost: list[Job] = []

    def submit(self) -> None:
        names = self.random.sample("abcdef", self.random.randint(1, 4))
        message = accepted(
            *(f"{name}@{self.random.choice(('one', 'two'))}.test" for name in names), at=self.clock.now()
        )
        if self.random.random() < 0.3:
            message = replace(message, counted_at=self.clock.now() + 300, expires_at=self.clock.now() + DAY)
        if self.random.random() < 0.2:
            message = replace(message, warning="HTML is odd")
        self.jobs += self.desk.store_all(message)

    def claim(self) -> None:
        self.jobs += self.desk.store.claim(self.clock.now(), 5)

    def pick(self) -> Job | None:
        return self.jobs.pop(self.random.randrange(len(self.jobs))) if self.jobs else None

    def attempt(self) -> None:
        if (job := self.pick()) is not None:
            self.desk.store.record(self._tried(job))

    def _tried(self, job: Job) -> Attempt:
        now = self.clock.now()
        made = attempt(job, at=now, next_at=now + self.random.choice((60.0, 600.0)))
        statuses = (Status.DELIVERED, Status.DEFERRED, Status.DEFERRED, Status.BOUNCED, Status.EXPIRED, Status.HELD)
        outcomes = tuple(
            replace(each, status=self.random.choice(statuses), text=f"\udce4 {self.random.random()}")
            for each in made.outcomes
        )
        return replace(made, outcomes=outcomes)

    def give_back(self) -> None:
        if (job := self.pick()) is not None:
            due = self.clock.now() + self.random.choice((0.0, 30.0))
            self.given.add(due)
            self.desk.store.release(job, due)
            self.lost.append(job)

    def too_late(self) -> None:
        """Report an outcome of a job that was given back before."""
        if self.lost:
            self.desk.store.flush()
            job = self.lost.pop()
            if job.queue_id not in {other.queue_id for other in self.jobs}:  # else the lease is this process's again
                self.desk.store.record(self._tried(job))

    def put_aside(self) -> None:
        if (job := self.pick()) is not None:
            self.desk.store.hold(job, self.random.choice(("suspended", "deleted")), "held: so", self.clock.now())

    def hold(self) -> None:
        self.desk.store.hold_waiting("configuration-1", "suspended", "held: suspended", self.clock.now())

    def free(self) -> None:
        self.desk.store.release_held("configuration-1", ("suspended",), "released: again", self.clock.now())

    def order(self) -> None:
        """An operator wants something of some mail, under way or not."""
        at = self.clock.now()
        scope = Scope(domain=self.random.choice(("one.test", "two.test")))
        verb = self.random.choice(list(Verb))
        verbs = self.desk.store.verbs
        going = [recipient.id for job in self.jobs for recipient in job.recipients if recipient.domain == scope.domain]
        verbs.obey(Order(verb, scope, "iam-ann", at), sorted({*verbs.find(scope), *going}))
        if verb in (Verb.RETRY, Verb.REROUTE):
            self.given.add(at)

    def plan(self) -> None:
        waiting = self.desk.store.held_for_quota("configuration-1", self.clock.now())
        at = self.clock.now() + 120
        self.given.add(at)
        self.desk.store.plan_held([(queue_id, at) for queue_id, _ in waiting])

    def expire(self) -> None:
        store, before = self.desk.store, self.clock.now() - 100
        for jobs in store.held_too_long(("deleted",), before):
            ending = [(job, None) for job in jobs]
            store.expire_held(ending, ("deleted",), before, "held for too long", self.clock.now())

    def time(self) -> None:
        self.clock.advance(self.random.choice((1.0, 61.0, 400.0)))

    def restart(self) -> None:
        self.desk.store.close()
        self._open(self.directory)

    def crash(self) -> None:
        """Go on with what is on the disk at this moment."""
        self.lives += 1
        self.desk.store.flush()  # copying is no moment: nothing may be written meanwhile
        left = self.root / str(self.lives)
        shutil.copytree(self.directory, left)
        self.desk.store.close()
        self._open(left)

    def _open(self, directory: Path) -> None:
        self.directory = directory
        self.given.add(self.clock.now())  # what was under way is due at once
        self.desk = Desk(directory, self.clock)
        self.jobs, self.lost = [], []
