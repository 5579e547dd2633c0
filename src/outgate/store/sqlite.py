"""Keep the queue: store messages before they are acknowledged, lease them for delivery, record outcomes.

Standards: RFC 5321 section 4.5.3 and 6.1 (a 250 takes over the responsibility for the message).
Promises: `submit` reports success only after the body is synced in the spool and its rows are committed with
    `synchronous=FULL`; every submission is answered exactly once; a recorded attempt is kept until a
    transaction has it. All that waits is one sync and one transaction (group commit), in a thread of its own.
Dangers: exactly one process may have a queue file open for writing: a lock file sees to it. A failed commit
    may still turn up after a crash: the client was refused, so at worst a message arrives twice.
Not here: segments (`spool`), statements (`queue_rows`), reads for people (`history`), what it does when nobody waits
    (`tidying`), when to try again (`relay.queue`).

The module is long because one thread does all of this, and its order is the promise.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.flow import Accepted, Attempt, Job, Report, Status
from outgate.store.history import AttemptRecord, History, MessageRecord, RecipientRecord
from outgate.store.hold_rows import Hold, Suppress
from outgate.store.metrics import Bounce, Counts, Selection
from outgate.store.migrations import upgrade_queue
from outgate.store.queue_rows import NOBODY, Full, QueueRows, Release
from outgate.store.spool import Record, Spool, SpoolError, Sync, Write, default_sync
from outgate.store.tidying import Tidying
from outgate.store.verbs import Verbs
from outgate.store.waiting import (
    Done,
    Pending,
    Reported,
    Stored,
    Submission,
    about_nobody,
    attempts,
    each_alone,
    nothing,
    of_the_disk,
)

__all__ = [
    "AttemptRecord",
    "MessageRecord",
    "QueueClosed",
    "QueueLocked",
    "QueueStore",
    "RecipientRecord",
    "SpoolError",
    "open_queue",
]

_log = Log("outgate.store.queue")

Notify = Callable[[Callable[[], None]], object]

_LINGER_S = 0.010
"""How long outcomes alone wait for submissions to ride along with."""
_GATHER_S = 0.006
"""How long a batch waits for company when the one before had some."""
_RETRY_FIRST_S, _RETRY_MOST_S = 0.1, 5.0
_STEP = 100
"""Messages that are held or released in one transaction."""
_T = TypeVar("_T")


class QueueLocked(Exception):
    """Another process has this queue file open."""


class QueueClosed(Exception):
    """The queue takes nothing any more: the process is shutting down."""


@dataclass(slots=True)
class _Call(Generic[_T]):
    """Something to do between two batches, in the commit thread."""

    function: Callable[[], _T]
    future: Future[_T] = field(default_factory=Future)

    def run(self) -> None:
        try:
            self.future.set_result(self.function())
        except Exception as error:
            self.future.set_exception(error)


def open_queue(
    directory: Path,
    *,
    shard: str,
    clock: Clock,
    segment_bytes: int,
    notify: Notify,
    retention_s: float | None = None,
    sync: Sync = default_sync,
    write: Write = os.pwritev,
) -> QueueStore:
    """Open, making what is missing, `queue-<shard>.db` and `spool-<shard>/` in `directory`.

    `notify` carries a callback to the caller's thread (`loop.call_soon_threadsafe`); mail that has been done with for
    `retention_s` seconds is forgotten (None: never); `sync` and `write` are
    what the spool calls. Raises `QueueLocked` if another process has the queue, `OSError`, `sqlite3.Error`."""
    if not shard.isalnum():
        raise ValueError("a shard is named by letters and digits")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(directory, shard)
    try:
        path = directory / f"queue-{shard}.db"
        upgrade_queue(path)
        rows = QueueRows(path, lease=secrets.token_hex(8))
        try:
            due = rows.recover(clock.now())
            if due:
                _log.info("queue.recovered", shard=shard, recipients=due)
            spool = Spool(
                directory / f"spool-{shard}",
                segment_bytes,
                generations=rows.generations(),
                live=rows.live(),
                sync=sync,
                write=write,
            )
            return QueueStore(rows, spool, History(path), notify, lock, clock, retention_s)
        except BaseException:
            rows.close()
            raise
    except BaseException:
        os.close(lock)
        raise


def _lock(directory: Path, shard: str) -> int:
    descriptor = os.open(directory / f"queue-{shard}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise QueueLocked(
            f"another process is using queue-{shard}.db in {directory}: stop it, or choose another directory"
        ) from error
    return descriptor


class QueueStore:
    """The durable queue of one shard. Made by `open_queue`; all methods are thread-safe."""

    def __init__(
        self,
        rows: QueueRows,
        spool: Spool,
        history: History,
        notify: Notify,
        lock: int,
        clock: Clock,
        retention_s: float | None,
    ) -> None:
        self._rows = rows
        self._spool = spool
        self._history = history
        self._notify = notify
        self._lock = lock
        self._inbox: SimpleQueue[Submission | _Call[object] | None] = SimpleQueue()
        self._outcomes: deque[Pending] = deque()
        self._gate = threading.Lock()
        self._closed = False
        self._idle = False
        self._crowded = False
        self._retry_s = 0.0
        self._retry_at = 0.0
        self._tidying = Tidying(rows, spool, clock, retention_s)
        self.verbs = Verbs(rows.verbs, history, self._transact, self.flush)
        """What operators do to queued mail."""
        self._thread = threading.Thread(target=self._run, name="queue-commit", daemon=True)
        self._thread.start()

    # --- the doors ---

    def submit(self, accepted: Accepted, done: Done) -> None:
        """Store a message; `done(None, jobs)` follows once it is durable, `done(error, ())` if it is not.

        `done` is called through `notify`. The jobs, one per recipient domain, are leased to the caller."""
        submission = Submission(accepted, done)
        with self._gate:
            if not self._closed:
                self._inbox.put(submission)
                return
        submission.fail(QueueClosed("the queue is closed"))
        self._answer([submission])

    def record(self, attempt: Attempt, report: Report | None = None, done: Done = nothing) -> None:
        """Keep what an attempt meant for its recipients; durable with the next batch, see `flush`.

        Leases end. A message whose recipients are all final gives its body back. A `report` is stored in the same
        transaction, and `done` called with its jobs as in `submit`; what cannot be written is kept and tried again."""
        if report is None:
            self._add_outcome(attempt)
        else:
            self._add_outcome(Reported(attempt, report, Submission(report.message, done)))

    def release(self, job: Job, due_at: float, site: str = "", why: str = "") -> None:
        """Give a job's lease back without an attempt; it is due again at `due_at` (epoch seconds). If it waits for the
        pace of `site`, its recipients show `why`."""
        self._add_outcome(Release(job.recipients, due_at, site, why))

    def hold(self, job: Job, reason: str, words: str, at: float, actor: str = "") -> None:
        """Take a leased job out of the schedule; `words` tell the trail why. Its recipients are `held`."""
        self._add_outcome(Hold(job, reason, words, at, actor))

    def suppress(self, job: Job, mailboxes: Collection[str], words: str, at: float) -> None:
        """End those recipients of a leased job without an attempt: they are `suppressed`; `words` say why."""
        numbers = tuple(each.id for each in job.recipients if each.mailbox in mailboxes)
        self._add_outcome(Suppress(job.queue_id, numbers, words, at))

    def hold_waiting(self, smtp_config_id: str, reason: str, words: str, now: float) -> int:
        """Hold all that waits for a configuration and is not under way; return how many recipients. Blocks."""
        step = partial(self._rows.holds.waiting, reason=reason, words=words, now=now)
        return self._in_steps(self._history.unfinished(smtp_config_id), step)

    def release_held(self, smtp_config_id: str, reasons: Sequence[str], words: str, now: float) -> int:
        """Let what a configuration has held for these reasons go on, due now, its expiry put off by as long as it was
        held, or to be planned (`plan_held`) if it counts for a quota; return how many recipients. Blocks."""
        step = partial(self._rows.holds.release, reasons=reasons, words=words, now=now)
        total = 0
        while True:
            self.flush()  # what was put aside a moment ago is among it
            held = self._history.held(reasons).get(smtp_config_id, [])
            released = self._in_steps(held, step)
            total += released
            if not released:
                return total

    def held_too_long(self, reasons: Sequence[str], before: float) -> Iterator[list[Job]]:
        """Yield what has been held for these reasons since `before` or longer, a job for each message, some at a time.
        Blocks."""
        held = self._history.held(reasons, before=before)
        queue_ids = [queue_id for found in held.values() for queue_id in found]
        for at in range(0, len(queue_ids), _STEP):
            yield self._ask(partial(self._rows.held_jobs, queue_ids[at : at + _STEP], reasons, before))

    def expire_held(
        self,
        jobs: Sequence[tuple[Job, Report | None]],
        reasons: Sequence[str],
        before: float,
        words: str,
        now: float,
        done: Done = nothing,
    ) -> int:
        """End as `expired` what `held_too_long` gave and is held still, and store the report of each in the same
        transaction; `done` as in `record`. Return how many recipients; those whose report cannot be stored are left for
        the next time. Blocks. Raises `OSError`, `sqlite3.Error`."""
        return self._ask(partial(self._expire, jobs, reasons, before, words, now, done))

    def _expire(
        self,
        jobs: Sequence[tuple[Job, Report | None]],
        reasons: Sequence[str],
        before: float,
        words: str,
        now: float,
        done: Done,
    ) -> int:
        held = self._rows.held_jobs([job.queue_id for job, _ in jobs], reasons, before)
        still = {job.queue_id: job.recipients for job in held}
        ending = [(job, report) for job, report in jobs if still.get(job.queue_id) == job.recipients]
        stored = self._append([Submission(report.message, done) for _, report in ending if report is not None])
        queue_ids = [job.queue_id for job, _ in ending]
        begun = self._spool.begun()
        try:
            with self._rows.transaction():
                self._rows.keep_generations(begun)
                made = self._add(stored)
                count = self._rows.holds.expire(queue_ids, reasons, before, words, now)
                freed = self._rows.free_done(queue_ids)
        except BaseException:
            self._spool.discard(place for _, place in stored)
            raise
        self._spool.keep(begun)
        self._settled(stored, made, tuple(freed.items()))
        self._answer([submission for submission, _ in stored])
        return count

    def held_configurations(self, reasons: Sequence[str]) -> list[str]:
        """Return the configurations that have something held for these reasons. Blocks."""
        return list(self._history.held(reasons))

    def unfinished_configurations(self) -> list[str]:
        """Return the configurations that have mail which is not done with. Blocks for a look at all of it."""
        return self._history.unfinished_configurations()

    def sent_from(self, since: float, latest: int = 100_000) -> list[tuple[str, str, float]]:
        """Return who sent from where after `since`: (user name, client address, when last), oldest first, of the
        `latest` messages. Blocks."""
        return self._history.sent_from(since, latest)

    def counted(self, since: float, until: float) -> list[tuple[str, int, int]]:
        """Return what quotas counted after `since`: (configuration, minute since the epoch, messages), without what was
        accepted after `until`. Blocks."""
        found, ahead = self._ask(partial(self._rows.counted, since, until))
        if ahead:
            remedy = "keep the clock right: these count for no quota"
            _log.warning("queue.counted_ahead", messages=ahead, reason="accepted later than now", remedy=remedy)
        return found

    def late_for_quota(self, before: float) -> list[str]:
        """Return the configurations with mail that is held for a quota and was due before `before`, or has no time
        yet. Blocks."""
        return self._history.late_for_quota(before)

    def keys_needed(self, key_ids: Collection[str]) -> set[str]:
        """Return which of these signing keys messages name that are not done."""
        return self._history.keys_needed(key_ids)

    def held_for_quota(self, smtp_config_id: str, until: float) -> list[tuple[str, float]]:
        """Return what a configuration has held for its quota of what was accepted by `until`, as (queue id, the time it
        was planned for), in that order. Blocks."""
        self.flush()  # what is being stored is among it
        return self._history.held_for_quota(smtp_config_id, until)

    def plan_held(self, times: Sequence[tuple[str, float]]) -> int:
        """Give messages (queue id, when) that are held for their quota these times, in one transaction; return how many
        still were. Blocks."""

        def step() -> int:
            with self._rows.transaction():
                return self._rows.plan(times)

        return self._ask(step)

    def claim(self, now: float, limit: int, but: Full = NOBODY) -> list[Job]:
        """Lease and return at most `limit` jobs due by `now`, oldest first, none of those in `but`; blocks for
        a transaction."""
        return self._ask(partial(self._rows.claim, now, limit, but)) if limit > 0 else []

    def next_due(self, but: Full = NOBODY, after: float = 0.0) -> float | None:
        """Return when the next unleased recipient is due of those due after `after` (`but` as in `claim`), None if none
        waits; blocks for the batch before. Who has just claimed in vain need not have all that wade through again."""
        return self._ask(partial(self._rows.next_due, but, after))

    def load(self, job: Job) -> tuple[bytes, bytes]:
        """Return a job's (trace, content) from the spool; blocks for the disk.

        Raises `SpoolError` if the record is not intact: never send it. `OSError`: try again later."""
        location = job.location
        while True:
            try:
                return self._spool.read(location, job.queue_id)
            except SpoolError:
                # The record may have been copied forward since the job was made.
                moved = self._history.location(job.queue_id)
                if moved is None or moved == location:
                    raise
                location = moved

    def message(self, queue_id: str) -> MessageRecord | None:
        """Return one message with its recipients and attempts, or None; blocks for the disk."""
        return self._history.message(queue_id)

    def messages(
        self,
        instance_id: str | None = None,
        *,
        queue_id: str | None = None,
        message_id: str | Sequence[str] | None = None,
        recipient: str | None = None,
        status: Status | str | Sequence[Status] | None = None,
        gte: float | None = None,
        lte: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MessageRecord]]:
        """Search as `History.messages` does: (matches in all, one page, newest first); blocks for the disk."""
        return self._history.messages(
            instance_id,
            queue_id=queue_id,
            message_id=message_id,
            recipient=recipient,
            status=status,
            gte=gte,
            lte=lte,
            limit=limit,
            offset=offset,
        )

    def metrics(self, wanted: Selection, width_s: int) -> Counts:
        """Count events as `History.metrics` does, by kind and buckets of `width_s` seconds; blocks for the disk."""
        return self._history.metrics(wanted, width_s)

    def bounces(self, wanted: Selection, limit: int, offset: int) -> tuple[int, list[Bounce]]:
        """List bounces as `History.bounces` does: (in all, one page, newest first); blocks for the disk."""
        return self._history.bounces(wanted, limit, offset)

    def flush(self) -> None:
        """Block until everything handed over so far is durable; raise `OSError` if it cannot be."""

        def check() -> None:
            if self._outcomes and self._retry_s:
                raise OSError("outcomes could not be written; they are kept and will be tried again")

        self._ask(check)

    def compact(self) -> int:
        """Copy live records out of segments that are mostly empty, as the thread does when it has time.

        Return how many records moved; one bounded step, so call again until it returns 0."""
        return self._ask(self._tidying.compact)

    def purge(self, before: float) -> tuple[int, bool]:
        """Forget some of the mail that was done with before `before` (epoch seconds), as the thread does by itself.

        Return how many messages, and whether that was the last step of a sweep; one bounded step, so call again."""
        return self._ask(partial(self._tidying.purge, before))

    def live_segments(self) -> dict[int, tuple[int, int]]:
        """Return (records, bytes) of each segment that messages still need."""
        return self._ask(self._spool.live)

    def close(self) -> None:
        """Write everything handed over, stop the thread and give the files back. Blocks; repeatable."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._inbox.put(None)
        self._thread.join()
        if self._outcomes:
            _log.error("queue.outcomes_lost", attempts=len(self._outcomes), remedy="these are tried again")
        self._history.close()
        self._rows.close()
        self._spool.close()
        os.close(self._lock)

    def _transact(self, function: Callable[[], _T], freed: Callable[[_T], Mapping[int, tuple[int, int]]]) -> _T:
        """Do something in one transaction; `freed` says which bodies nobody needs once that is durable."""

        def one() -> _T:
            with self._rows.transaction():
                answer = function()
            for number, (records, length) in freed(answer).items():
                self._spool.release(number, records, length)
            return answer

        return self._ask(one)

    def _in_steps(self, queue_ids: Sequence[str], step: Callable[[Sequence[str]], int]) -> int:
        """Do something to many messages, a transaction for some of them, so that submissions get their turn."""

        def one(some: Sequence[str]) -> int:
            with self._rows.transaction():
                return step(some)

        return sum(self._ask(partial(one, queue_ids[at : at + _STEP])) for at in range(0, len(queue_ids), _STEP))

    def _add_outcome(self, outcome: Pending) -> None:
        self._outcomes.append(outcome)
        if self._closed:
            _log.error("queue.outcome_after_close", outcome=repr(outcome))
        # The thread sets `_idle` before it looks at `_outcomes` for the last time, so one of us sees the other.
        if self._idle:
            self._inbox.put(None)

    def _ask(self, function: Callable[[], _T]) -> _T:
        call = _Call(function)
        with self._gate:
            if self._closed:
                raise QueueClosed("the queue is closed")
            self._inbox.put(call)  # pyright: ignore[reportArgumentType]  # the inbox does not care for its result
        return call.future.result()

    # --- the commit thread ---

    def _run(self) -> None:
        while True:
            submissions, calls = self._next_batch()
            try:
                if submissions or self._outcomes:
                    self._commit(submissions)
            except Exception as error:
                _log.exception("queue.batch_failed")
                for submission in submissions:
                    if not submission.settled:
                        submission.fail(error)
            self._answer(submissions)
            for call in calls:
                call.run()
            if self._closed and self._inbox.empty():
                return
            self._tidying.step()

    def _next_batch(self) -> tuple[list[Submission], list[_Call[object]]]:
        """Wait for something to do; take all of it."""
        submissions: list[Submission] = []
        calls: list[_Call[object]] = []
        self._idle = True
        patience = self._patience()
        self._take(submissions, calls, patience)
        self._idle = False
        if self._closed:
            return submissions, calls
        if submissions:
            if self._crowded:
                # Others are about to arrive: a batch costs about as much for one message as for several.
                time.sleep(_GATHER_S)
                self._take(submissions, calls, 0.0)
            self._crowded = len(submissions) > 1
        elif self._outcomes and not calls and time.monotonic() >= self._retry_at:
            self._take(submissions, calls, _LINGER_S)
        return submissions, calls

    def _patience(self) -> float | None:
        """Return how long the thread may sleep: None for ever."""
        if self._outcomes:
            return max(0.0, self._retry_at - time.monotonic())
        planned = self._tidying.next_at()
        return None if planned is None else max(0.0, planned - time.monotonic())

    def _take(self, submissions: list[Submission], calls: list[_Call[object]], timeout: float | None) -> None:
        inbox = self._inbox
        try:
            item = inbox.get(timeout=timeout) if timeout != 0.0 else inbox.get_nowait()
            while True:
                if isinstance(item, Submission):
                    submissions.append(item)
                elif item is not None:
                    calls.append(item)
                item = inbox.get_nowait()
        except Empty:
            pass

    def _commit(self, submissions: list[Submission]) -> None:
        outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        reports = [each.report for each in outcomes if isinstance(each, Reported)]
        try:
            stored = self._spooled(submissions, reports)
            if stored or not reports:
                self._write(stored, outcomes)
            else:
                # A report that cannot be kept holds back what it reports: both are tried again.
                pause = self._retry_s
                self._put_back([each for each in outcomes if isinstance(each, Reported)])
                outcomes = list[Pending](each for each in outcomes if not isinstance(each, Reported))
                self._write([], outcomes)
                self._pause(pause)
        except BaseException:
            self._outcomes.extendleft(reversed(outcomes))
            raise
        self._answer([report for report in reports if report.settled])

    def _spooled(self, submissions: list[Submission], reports: list[Submission]) -> Stored:
        """Sync the bodies; return those that have one now: all, or none, and then the submissions have failed."""
        try:
            return self._append([*submissions, *reports])
        except Exception as error:
            _log.error("queue.spool_failed", messages=len(submissions), reports=len(reports), error=repr(error))
            for submission in submissions:
                submission.fail(error)
            return []

    def _append(self, submissions: Sequence[Submission]) -> Stored:
        if not submissions:
            return []
        records: list[Record] = [
            (s.accepted.queue_id, s.accepted.trace, s.accepted.submission.content) for s in submissions
        ]
        return list(zip(submissions, self._spool.append(records), strict=True))

    def _write(self, stored: Stored, outcomes: list[Pending]) -> None:
        """Make rows durable in one transaction; where that cannot be, in one each."""
        begun = self._spool.begun()
        of_outcomes = {id(each.report) for each in outcomes if isinstance(each, Reported)}
        mail = [each for each in stored if id(each[0]) not in of_outcomes]
        reports = [each for each in stored if id(each[0]) in of_outcomes]
        try:
            with self._rows.transaction():
                self._rows.keep_generations(begun)
                jobs = self._add(mail)
                suppressed = [o for o in outcomes if isinstance(o, Suppress)]
                self._rows.holds.suppress(suppressed)
                standing, freed = self._rows.settle(
                    attempts(outcomes),
                    [
                        *(submission.accepted.queue_id for submission, _ in mail if submission.accepted.suppressed),
                        *(each.queue_id for each in suppressed),
                    ],
                )
                self._rows.release([o for o in outcomes if isinstance(o, Release)])
                self._rows.holds.add([o for o in outcomes if isinstance(o, Hold)])
                cancelled, spared = self._rows.verbs.come_back()
                # Only now is it known which outcomes count: nobody is told of another.
                moot = about_nobody(outcomes, standing - cancelled)
                told = [each for each in reports if id(each[0]) not in moot]
                jobs += self._add(told)
                self._rows.warned(
                    number
                    for each in outcomes
                    if isinstance(each, Reported) and id(each.report) not in moot
                    for number in each.about.delayed
                )
        except Exception as error:
            alone = each_alone(stored, outcomes)
            if len(alone) > 1 and not of_the_disk(error):
                # One of them is at fault: each gets its own verdict.
                for some, of_them in alone:
                    self._write(some, of_them)
                return
            self._failed(stored, outcomes, error)
            return
        self._retry_s = self._retry_at = 0.0
        self._spool.keep(begun)
        self._settled([*mail, *told], jobs, (*freed.items(), *spared.items()))
        if moot:
            self._spool.discard(place for submission, place in reports if id(submission) in moot)
            _log.info("queue.reports_moot", reports=len(moot), reason="what they tell did not count any more")

    def _add(self, stored: Stored) -> list[tuple[Job, ...]]:
        return self._rows.add([(submission.accepted, place) for submission, place in stored]) if stored else []

    def _settled(
        self,
        stored: Stored,
        jobs: Sequence[tuple[Job, ...]],
        freed: Sequence[tuple[int, tuple[int, int]]],
    ) -> None:
        for (submission, _), made in zip(stored, jobs, strict=True):
            submission.jobs, submission.settled = made, True
        for number, (count, length) in freed:
            self._spool.release(number, count, length)

    def _failed(self, stored: Stored, outcomes: list[Pending], error: Exception) -> None:
        _log.error("queue.commit_failed", messages=len(stored), outcomes=len(outcomes), error=repr(error))
        self._spool.discard(place for _, place in stored)
        reports = {id(each.report) for each in outcomes if isinstance(each, Reported)}
        for submission, _ in stored:
            if id(submission) not in reports:
                submission.fail(error)
        if outcomes and of_the_disk(error):
            self._put_back(outcomes)
            self._pause(self._retry_s)
        elif outcomes and isinstance(outcomes[0], Reported):
            # It may be the report's fault: what became of mail is kept in any case.
            _log.error("queue.report_refused", queue_id=outcomes[0].attempt.queue_id, remedy="nobody is told")
            self._write([], [outcomes[0].attempt])
        elif outcomes:
            # No repetition will help; the lease stands until the next start, which tries these again.
            _log.error("queue.outcome_refused", outcome=repr(outcomes[0]))

    def _put_back(self, outcomes: Sequence[Pending]) -> None:
        self._outcomes.extendleft(reversed(outcomes))

    def _pause(self, last_s: float) -> None:
        """Try outcomes again a little later, less and less often."""
        self._retry_s = min(last_s * 2 or _RETRY_FIRST_S, _RETRY_MOST_S)
        self._retry_at = time.monotonic() + self._retry_s

    def _answer(self, submissions: list[Submission]) -> None:
        if not submissions:
            return
        try:
            self._notify(partial(_call_back, submissions))
        except RuntimeError:
            # The event loop is gone, and the sessions with it: nobody waits for these answers.
            _log.warning("queue.answers_undelivered", messages=len(submissions))


def _call_back(submissions: list[Submission]) -> None:
    for submission in submissions:
        try:
            submission.done(submission.error, submission.jobs)
        except Exception:
            _log.exception("queue.callback_failed", queue_id=submission.accepted.queue_id)
