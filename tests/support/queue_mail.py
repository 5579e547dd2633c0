"""Make mail for the queue's tests: accepted messages, attempts at them, and a store with a mailbox for answers."""

from __future__ import annotations

import itertools
import queue
import random
import secrets
from collections.abc import Callable
from pathlib import Path

from outgate.base.clock import Clock, FrozenClock
from outgate.base.ids import queue_id
from outgate.model.flow import (
    Accepted,
    Attempt,
    Client,
    Job,
    Outcome,
    Recipient,
    SigningKey,
    Status,
    Step,
    Submission,
)
from outgate.store.sqlite import QueueStore, open_queue

NOW = 1_800_000_000.0
TRACE = b"Received: from app.test ([10.0.0.1]) by smtp.outgate.test; now\r\n"
SEGMENT = 1 << 20

_numbers = itertools.count(1)
_FIRST = secrets.randbits(27)  # another process makes other ids


def accepted(
    *mailboxes: str,
    content: bytes = b"Subject: hello\r\n\r\nbody\r\n",
    at: float = NOW,
    lifetime: float = 86_400.0,
    instance: str = "instance-1",
    message_id: str | None = None,
    subject: str = "hello",
    id: str | None = None,
) -> Accepted:
    """Make a message that policy let pass."""
    number = next(_numbers)
    recipients = tuple(Recipient(mailbox, mailbox.rpartition("@")[2]) for mailbox in mailboxes or ("anna@dest.test",))
    submission = Submission(
        session_id=f"session-{number}",
        client=Client("10.0.0.1", 4711, "public", "submission", "10.0.0.254"),
        helo="app.test",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        username="abcdefghijklmnopqr01",
        reverse_path="noreply@shop.test",
        recipients=recipients,
        content=content,
        received_at=at,
        body_8bit=True,
    )
    return Accepted(
        # Of that time, and in the order in which they are made within a millisecond.
        queue_id=id or f"{queue_id('0', at)[:-7]}{_FIRST + number:07X}",
        submission=submission,
        instance_id=instance,
        smtp_config_id="configuration-1",
        signing_key=SigningKey("key-1", "shop.test", "selector-1"),
        trace=TRACE,
        message_id=message_id or f"<{number}@shop.test>",
        header_from="noreply@shop.test",
        subject=subject,
        accepted_at=at,
        expires_at=at + lifetime,
    )


def attempt(
    job: Job, status: Status = Status.DELIVERED, *, at: float = NOW + 1, next_at: float | None = None
) -> Attempt:
    """Make an attempt at `job` that went the same for all its recipients."""
    code, enhanced, text, reason = {
        Status.DELIVERED: (250, "2.0.0", "Ok", "accepted"),
        Status.DEFERRED: (451, "4.7.1", "later", "policy"),
        Status.BOUNCED: (550, "5.1.1", "no such mailbox", "bad-mailbox"),
    }.get(status, (0, "", "gave up", "timeout"))
    return Attempt(
        queue_id=job.queue_id,
        site="mx.dest.test",
        host="mx.dest.test",
        address="127.0.0.9",
        source="127.0.0.1",
        tls="TLSv1.3",
        started_at=at - 0.5,
        finished_at=at,
        route_reason="MX of dest.test",
        steps=(Step(at - 0.4, "MAIL FROM:<noreply@shop.test>", "250 2.1.0 Ok"), Step(at, ".", f"{code} {text}")),
        outcomes=tuple(Outcome(recipient.id, status, code, enhanced, text, reason) for recipient in job.recipients),
        next_attempt_at=next_at,
        recipients=job.recipients,
    )


class Desk:
    """A queue store whose answers arrive here: what an event loop's thread would see."""

    def __init__(self, directory: Path, clock: Clock | None = None, **options: object) -> None:
        self.directory = directory
        self.clock = clock or FrozenClock(NOW)
        self.notified = 0
        self._callbacks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.answers: dict[str, tuple[Exception | None, tuple[Job, ...]]] = {}
        settings: dict[str, object] = {"shard": "0", "segment_bytes": SEGMENT, **options}
        self.store: QueueStore = open_queue(
            directory,
            clock=self.clock,
            notify=self._callbacks.put,
            **settings,  # type: ignore[arg-type]
        )

    def submit(self, message: Accepted) -> None:
        def done(error: Exception | None, jobs: tuple[Job, ...]) -> None:
            assert message.queue_id not in self.answers, "answered twice"
            self.answers[message.queue_id] = (error, jobs)

        self.store.submit(message, done)

    def wait(self, count: int) -> None:
        """Run callbacks until `count` submissions have been answered."""
        while len(self.answers) < count:
            self._callbacks.get(timeout=30)()
            self.notified += 1

    def answered(self) -> bool:
        return not self._callbacks.empty()

    def store_all(self, *messages: Accepted) -> list[Job]:
        """Submit, wait, and return the jobs; fail if one was refused."""
        self.answers.clear()
        for message in messages:
            self.submit(message)
        self.wait(len(messages))
        jobs: list[Job] = []
        for message in messages:
            error, made = self.answers[message.queue_id]
            assert error is None, error
            jobs += made
        return jobs

    def refused(self, message: Accepted) -> Exception:
        """Submit, wait, and return why it was refused."""
        self.answers.clear()
        self.submit(message)
        self.wait(1)
        error, jobs = self.answers[message.queue_id]
        assert error is not None
        assert jobs == ()
        return error

    def segments(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "spool-0").iterdir())


def random_content(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that do not repeat."""
    return random.Random(seed).randbytes(size)
