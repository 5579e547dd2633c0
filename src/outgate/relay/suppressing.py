"""Suppress the addresses that bounce hard, tell the queue who is suppressed, and purge what has ended.

Standards: RFC 3463 sections 3.2 and 3.3 (addressing, mailbox), RFC 5321 section 6.2 (whom a bounce is about).
Promises: the first hard bounce suppresses its address for the instance whose mail it was; thousands at once are a few
    transactions in a thread; the same again changes nothing, and nobody else's entry is replaced.
Dangers: what is not written yet when the process dies is lost: the bounce itself is in the trail, and the next message
    to the address bounces again. A reply that is about policy, content or the sender must not suppress anybody.
Not here: what a reply means (`relay.outcome`), rows (`store.suppressions`), what people add (`api.suppressions`).

Why the first bounce, and why for 90 days: a mailbox that is not there seldom comes back, and senders are judged by how
often they write to such; but a receiver that is wrongly set up says 550 5.1.1 to everybody for an hour, and that must
heal without a person. Only what a server says of one mailbox counts: a domain that takes no mail, or is not there, is
found out anew at no cost to anybody, and once it is mended its mail must go.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.model.flow import Attempt, Job, JobRecipient, Outcome, Recipient, Status
from outgate.model.suppression import HARD_BOUNCE, LONGEST_DETAIL, NewSuppression, Suppression
from outgate.store.sqlite import QueueClosed
from outgate.store.tenancy import TooMany

_log = Log("outgate.suppression")

MAILBOX_IS_WRONG = frozenset({"bad-mailbox", "inactive"})
"""The reason classes (`relay.outcome`) that speak of the mailbox itself."""
_OF_MAILBOXES = frozenset({550, 551, 553})
# Without an enhanced code a 550 may mean anything: only its words can say that it is the mailbox.
_NO_MAILBOX = re.compile(
    r"no (?:such|mailbox)"
    r"|(?:user|mailbox|recipient|address|account)\b.{0,40}\b(?:unknown|not (?:found|exist)|invalid|disabled)"
    r"|unknown (?:user|mailbox|recipient|address|account)"
    r"|(?:user|mailbox|recipient|address|account)\b.{0,40}\b(?:does not|doesn't) exist"
    r"|invalid (?:recipient|mailbox|address)",
    re.IGNORECASE | re.DOTALL,
)
_GATHER_S, _TROUBLE_S = 0.1, 1.0
_PAUSE_S, _PURGE_S = 0.05, 600.0
_WAITING_MOST = 100_000


class Suppressions(Protocol):
    """The store's part (`store.suppressions`)."""

    def of(self, instance_id: str, mailboxes: Sequence[str]) -> Mapping[str, Suppression]: ...

    def add(self, instance_id: str, entries: Sequence[NewSuppression], *, replace: bool = True) -> int: ...

    def purge(self) -> int: ...

    def follow(self) -> int: ...


def hard_bounces(attempt: Attempt) -> list[tuple[str, Outcome]]:
    """Return the mailboxes that an attempt has shown to be wrong, with what was said of them."""
    mailboxes = {recipient.id: recipient.mailbox for recipient in attempt.recipients}
    return [
        (mailboxes[outcome.recipient_id], outcome)
        for outcome in attempt.outcomes
        if outcome.status is Status.BOUNCED and _speaks_of_mailbox(outcome) and outcome.recipient_id in mailboxes
    ]


def _speaks_of_mailbox(outcome: Outcome) -> bool:
    if not outcome.personal or outcome.reason not in MAILBOX_IS_WRONG:
        return False
    if outcome.enhanced:
        # Words alone do not count against a code that speaks of something else.
        return outcome.enhanced.startswith(("5.1.", "5.2."))
    return outcome.code in _OF_MAILBOXES and _NO_MAILBOX.search(outcome.text) is not None


def _shown(text: str) -> str:
    """Return a server's words as one line that can be stored, listed and exported."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return plain.strip()[:LONGEST_DETAIL]


class Suppressing:
    """What the relay does with suppressed addresses. Belongs to one event loop."""

    def __init__(
        self,
        rows: Suppressions,
        clock: Clock,
        *,
        bounces: bool,
        lasts_s: float,
        durable: Callable[[], object] = lambda: None,
    ) -> None:
        """`bounces` says whether hard bounces add by themselves, `lasts_s` for how many seconds (0: for good);
        `durable` blocks until the attempts that were told of are on disk, or raises `OSError`."""
        self._rows = rows
        self._durable = durable
        self._clock = clock
        self._bounces = bounces
        self._lasts_s = lasts_s
        self._waiting: dict[str, list[NewSuppression]] = {}
        self._count = 0
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take into memory who is suppressed, and begin."""
        await self.follow()
        self._tasks = [spawn(self._write_again(), "suppression"), spawn(self._purge_again(), "suppression-purge")]

    async def stop(self) -> None:
        """Stop, and write what waits."""
        for task in self._tasks:
            await cancel(task)
        await self._write()

    async def follow(self) -> None:
        """Notice what other processes have added."""
        await asyncio.to_thread(self._rows.follow)

    def words(self, instance_id: str, recipients: Sequence[Recipient | JobRecipient]) -> Mapping[str, str]:
        """Return which recipients are suppressed, and the words for the trail. Raises `sqlite3.Error`."""
        found = self._rows.of(instance_id, [recipient.mailbox for recipient in recipients])
        return {mailbox: entry.words() for mailbox, entry in found.items()}

    def among(self, job: Job) -> Mapping[str, str]:
        """Return which recipients of a queued job are suppressed by now; none of a report of ours (null reverse-path),
        or if that cannot be read: it was not so when the message was accepted."""
        if not job.reverse_path:
            return {}
        try:
            return self.words(job.instance_id, job.recipients)
        except sqlite3.Error as error:
            _log.error("suppression.unknown", queue_id=job.queue_id, error=repr(error))
            return {}

    def look(self, job: Job, attempt: Attempt) -> None:
        """Remember the hard bounces of an attempt; they are written within moments. Of a report (null reverse-path)
        nobody is suppressed: who gets one has not asked for mail."""
        if not self._bounces or not job.reverse_path:
            return
        for mailbox, outcome in hard_bounces(attempt):
            if self._count >= _WAITING_MOST:
                _log.warning("suppression.crowded", queue_id=job.queue_id, remedy="the next bounce adds the address")
                return
            at = attempt.finished_at
            said = " ".join(part for part in (str(outcome.code), outcome.enhanced, outcome.text) if part)
            entry = NewSuppression(
                mailbox,
                HARD_BOUNCE,
                f"bounce of {job.queue_id}",
                _shown(said),
                at + self._lasts_s if self._lasts_s else None,
                at,
            )
            self._waiting.setdefault(job.instance_id, []).append(entry)
            self._count += 1
            self._woken.set()

    async def _write_again(self) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(_GATHER_S)  # a bounce seldom comes alone
            self._woken.clear()
            await self._write()
            if self._waiting:
                self._woken.set()
                await asyncio.sleep(_TROUBLE_S)

    async def _write(self) -> None:
        while self._waiting:
            instance_id, waiting = next(iter(self._waiting.items()))
            entries = list(waiting)
            try:
                # Not before the bounce itself: else a crash in between would have the message end as suppressed, and
                # its sender would be told nothing.
                await asyncio.to_thread(self._durable)
            except (OSError, QueueClosed) as error:
                _log.warning("suppression.waits", entries=self._count, error=repr(error))
                return
            try:
                new = await asyncio.to_thread(self._rows.add, instance_id, entries, replace=False)
            except TooMany as error:
                _log.warning("suppression.full", instance=instance_id, reason=str(error))
            except (sqlite3.Error, SQLAlchemyError) as error:
                _log.error("suppression.not_written", instance=instance_id, entries=len(entries), error=repr(error))
            else:
                _log.info("suppression.added", instance=instance_id, new=new, bounces=len(entries))
            # Only now: should this have been cancelled, they are written once more at the stop.
            self._count -= len(entries)
            del waiting[: len(entries)]
            if not waiting:
                del self._waiting[instance_id]

    async def _purge_again(self) -> None:
        while True:
            purged = 0
            try:
                purged = await asyncio.to_thread(self._rows.purge)
            except (sqlite3.Error, SQLAlchemyError) as error:
                _log.error("suppression.purge_failed", error=repr(error))
            # A transaction for some of them, and room for others' in between.
            await asyncio.sleep(_PAUSE_S if purged else _PURGE_S)
