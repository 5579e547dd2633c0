"""Decide who is told what became of a message, and write the report (DSN) that goes with the outcome.

Standards: RFC 3461 sections 4.1 (NOTIFY), 4.3 (RET) and 5.2 (what a relay does), RFC 3464, RFC 8689 section 5.
Promises: nobody is told who sent with the null reverse-path, and a report of ours that cannot be delivered makes none;
one report for all that an attempt decided; what nobody asked to hear costs a comparison. A report comes with the
outcome that causes it, and `store.sqlite` keeps both in one transaction: a crash neither loses nor doubles it.
Dangers: reading an original blocks, so it is done in a thread, before the outcome that may free its body is recorded;
if it cannot be read, the report goes without it. Without NOTIFY the sender hears of failures, not of delays.
Not here: the form of a report (`message.report`), what an outcome means (`relay.outcome`), keeping it (`store.sqlite`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.base.ids import queue_id
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.message import report
from outgate.message.report import Original, Reported
from outgate.model.flow import (
    Accepted,
    Attempt,
    Client,
    Job,
    JobRecipient,
    Outcome,
    Recipient,
    Report,
    Status,
    Submission,
)
from outgate.relay import outcome as outcomes
from outgate.smtp.grammar import mailbox

_log = Log("outgate.reports")
_AT_ONCE = 20
"""Reports that are written in one go of the thread."""
_FAILED = (Status.BOUNCED, Status.EXPIRED)
_NOBODY = Client("", 0, "", "")


def news(job: Job, attempt: Attempt, delay_s: float) -> list[tuple[JobRecipient, Outcome, str]]:
    """Return what the sender is to be told of an attempt: (recipient, outcome, action as in RFC 3464).

    A delay is told once, to who asked for it, `delay_s` seconds after the message came."""
    if not job.reverse_path:
        return []
    by_id = {recipient.id: recipient for recipient in job.recipients}
    found: list[tuple[JobRecipient, Outcome, str]] = []
    for each in attempt.outcomes:
        recipient = by_id.get(each.recipient_id)
        if recipient is not None:
            action = _action(recipient, each, attempt.finished_at - job.accepted_at >= delay_s)
            if action:
                found.append((recipient, each, action))
    return found


def _action(recipient: JobRecipient, outcome: Outcome, late: bool) -> str:
    notify = recipient.notify
    if outcome.status in _FAILED:
        return "failed" if not notify or "FAILURE" in notify else ""
    if outcome.status is Status.DELIVERED:
        # A server that offers DSN was told of the wish and fulfils it.
        return "relayed" if "SUCCESS" in notify and not outcome.handed_on else ""
    if outcome.status is Status.DEFERRED:
        return "delayed" if late and "DELAY" in notify and not recipient.warned else ""
    return ""


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes reports. `load` reads (trace, content) of a job and blocks; `host_name` says as whom an instance's mail is
    sent; `lifetime_s` is how long a report is tried, `delay_s` after how long a delay is told."""

    clock: Clock
    shard: str
    load: Callable[[Job], tuple[bytes, bytes]]
    host_name: Callable[[str], str]
    lifetime_s: float
    delay_s: float

    def wants(self, job: Job, attempt: Attempt) -> bool:
        """Say whether somebody is to be told of this attempt."""
        for each in attempt.outcomes:
            if each.status is not Status.DELIVERED:
                break
        else:
            if not any(recipient.notify for recipient in job.recipients):
                return False
        told = news(job, attempt, self.delay_s)
        if job.origin and any(each.status in _FAILED for each in attempt.outcomes):
            _log.warning(
                "report.undeliverable",
                queue_id=job.queue_id,
                reason=attempt.outcomes[0].reason,
                remedy="nobody is told: have senders use a reverse-path that takes mail",
            )
        return bool(told)

    def write(self, job: Job, attempt: Attempt) -> Report | None:
        """Return the report that an attempt calls for; blocks for the disk if the original is not at hand."""
        told = news(job, attempt, self.delay_s)
        if not told:
            return None
        at = self.clock.now()
        number = queue_id(self.shard, at)
        domain = job.signing_key.domain
        failed = any(action == "failed" for _, _, action in told)
        trace_, content = self._read(job)
        reported = _in_order([_reported(job, attempt, *each) for each in told])
        octets = report.build(
            queue_id=number,
            domain=domain,
            host_name=self.host_name(job.instance_id),
            to=job.reverse_path,
            at=at,
            # The whole message comes back with a failure only, and never what had to travel encrypted.
            original=Original(
                job.queue_id,
                job.envid,
                job.accepted_at,
                trace_,
                content,
                job.smtputf8,
                failed and job.ret == "FULL" and not job.requiretls,
            ),
            told=reported,
        )
        return Report(
            self._message(job, number, octets, at, report.subject(reported[0].action)),
            tuple(recipient.id for recipient, _, _ in told),
            tuple(recipient.id for recipient, _, action in told if action == "delayed"),
        )

    def _read(self, job: Job) -> tuple[bytes, bytes | None]:
        if job.trace is not None and job.content is not None:
            return job.trace, job.content
        try:
            return self.load(job)
        except Exception as error:
            _log.error("report.without_original", queue_id=job.queue_id, error=repr(error))
            return b"", None

    def _message(self, job: Job, number: str, octets: bytes, at: float, subject: str) -> Accepted:
        domain = job.signing_key.domain
        to = Recipient(job.reverse_path, mailbox(job.reverse_path.encode("utf-8")).domain, "NEVER")
        submission = Submission(
            session_id="",
            client=_NOBODY,
            helo="",
            tls="",
            username="",
            reverse_path="",
            recipients=(to,),
            content=octets,
            received_at=at,
            body_8bit=not octets.isascii(),
            smtputf8=not job.reverse_path.isascii(),
            requiretls=job.requiretls,
        )
        return Accepted(
            queue_id=number,
            submission=submission,
            instance_id=job.instance_id,
            smtp_config_id=job.smtp_config_id,
            signing_key=job.signing_key,
            trace=b"",
            message_id=f"<{number}@{domain}>",
            header_from=f"MAILER-DAEMON@{domain}",
            subject=subject,
            accepted_at=at,
            expires_at=at + self.lifetime_s,
            origin="dsn",
            parent=job.queue_id,
        )


def _in_order(told: Sequence[Reported]) -> list[Reported]:
    order = ("failed", "delayed", "relayed")
    return sorted(told, key=lambda each: order.index(each.action))


def _reported(job: Job, attempt: Attempt, recipient: JobRecipient, outcome: Outcome, action: str) -> Reported:
    reason = outcomes.explained(outcome.reason)
    meaning = reason.meaning
    if outcome.status is Status.EXPIRED and outcome.reason != "held-too-long":
        meaning = f"we have tried for as long as mail is kept, and the last time {meaning}"
    said = " ".join(part for part in (str(outcome.code), outcome.enhanced, outcome.text) if part)
    spoke = bool(outcome.code and attempt.host + attempt.address)
    return Reported(
        mailbox=recipient.mailbox,
        original=recipient.orcpt,
        action=action,
        status=_status(outcome, action),
        remote=(attempt.host or f"[{attempt.address.rpartition(':')[0].strip('[]')}]") if spoke else "",
        reply=said if spoke else "",
        trouble="" if spoke else outcome.text or attempt.route_reason,
        meaning=meaning,
        advice=reason.advice,
        at=attempt.finished_at,
        until=job.expires_at if action == "delayed" else None,
    )


def _status(outcome: Outcome, action: str) -> str:
    """Return the enhanced code that a report states; it never contradicts the action."""
    if outcome.status is Status.EXPIRED:
        return "4.4.7"
    first = {"failed": "5", "delayed": "4"}.get(action, "2")
    parts = outcome.enhanced.split(".")
    return f"{first}.{parts[1]}.{parts[2]}" if len(parts) == 3 else f"{first}.0.0"


Done = Callable[[Report | None], object]


class Reports:
    """Has reports written in a thread, one helping after the other. Belongs to one event loop."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: deque[tuple[Job, Attempt, Done]] = deque()
        self._task: asyncio.Task[None] | None = None
        self.pending = 0
        """Attempts whose report is not written yet: whoever hands out work counts them in."""

    def wants(self, job: Job, attempt: Attempt) -> bool:
        """Say whether somebody is to be told of this attempt."""
        return self._writer.wants(job, attempt)

    def write(self, job: Job, attempt: Attempt, done: Done) -> None:
        """Have the report of an attempt written, then call `done` with it on the loop; None if that failed."""
        self.pending += 1
        self._waiting.append((job, attempt, done))
        if self._task is None:
            self._task = spawn(self._run(), "reports")

    async def finish(self) -> None:
        """Wait until all that was handed over is written and passed on."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                written = await asyncio.to_thread(self._write, [(job, attempt) for job, attempt, _ in some])
                for (job, _, done), made in zip(some, written, strict=True):
                    self.pending -= 1
                    try:
                        done(made)
                    except Exception:
                        _log.exception("report.not_passed_on", queue_id=job.queue_id)
        finally:
            self._task = None

    def _write(self, some: Iterable[tuple[Job, Attempt]]) -> list[Report | None]:
        return [written(self._writer, job, attempt) for job, attempt in some]


def written(writer: Writer, job: Job, attempt: Attempt) -> Report | None:
    """Return the report an attempt calls for, or None: an outcome is kept even if its report cannot be written."""
    try:
        return writer.write(job, attempt)
    except Exception:
        _log.exception("report.not_written", queue_id=job.queue_id)
        return None
