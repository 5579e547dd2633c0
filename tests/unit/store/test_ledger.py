"""Whatever happens to a queue, with a disk that fails and processes that die: mail, outcomes, reports and room add up."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.model.flow import Accepted, Attempt, Job, Report, Status
from outgate.relay.reports import Writer
from support.queue_history import DAY, History, compare
from support.queue_mail import accepted

_TOLD = re.compile(rb"^Final-Recipient: rfc822; (\S+)\r\nAction: failed", re.MULTILINE)
_FAILED = ("bounced", "expired")
_FINAL = {status.value for status in Status if status.final}
_NOTIFY = ("", "", "", "NEVER", "FAILURE", "SUCCESS,FAILURE,DELAY", "DELAY", "SUCCESS")


class Ledger(History):
    """The same, with reports, suppression and old mail that is forgotten, on a disk that may fail."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.faulty = random.Random(-seed)
        self.full = False
        self.acknowledged: dict[str, bytes] = {}
        self.wanted: dict[str, dict[str, str]] = {}
        """NOTIFY of each mailbox of each message of ours, "-" where nothing is wanted."""
        self.reports: dict[str, tuple[str, list[str]]] = {}
        """Which recipients of which message each report that was made tells have failed."""
        self.untold: set[tuple[str, str]] = set()
        """Of whom nobody may have been told, because the report was refused."""
        self.forgotten = 0
        self.purged = False
        super().__init__(directory, seed)

    # --- what happens ---

    def submit(self) -> None:
        number, at = len(self.wanted), self.clock.now()
        names = self.random.sample("abcdef", self.random.randint(1, 4))
        made = accepted(
            *(f"{name}@{self.random.choice(('one', 'two'))}.test" for name in names),
            at=at,
            lifetime=self.random.choice((500.0, DAY)),
            content=b"Subject: %d\r\n\r\n" % number + b"x" * self.random.choice((10, 3000)) + b"\r\n",
        )
        recipients = tuple(replace(each, notify=self.random.choice(_NOTIFY)) for each in made.submission.recipients)
        nobody = self.random.random() < 0.1
        changes: dict[str, Any] = {"recipients": recipients}
        if nobody:
            changes["reverse_path"] = ""
        made = replace(made, submission=replace(made.submission, **changes))
        if self.random.random() < 0.3:
            made = replace(made, counted_at=at + 300, expires_at=at + DAY)
        if self.random.random() < 0.2:
            made = replace(made, suppressed={recipients[0].mailbox: "suppressed: it bounced"})
        if self.random.random() < 0.1 and (there := self.one_that_is_there()):
            made = replace(made, queue_id=there)  # its rows will be refused
        else:
            self.wanted[made.queue_id] = {each.mailbox: "-" if nobody else each.notify for each in recipients}
        self.store(made)

    def one_that_is_there(self) -> str | None:
        number = self.random.choice(list(self.acknowledged)) if self.acknowledged else ""
        return number if self.desk.store.message(number) is not None else None

    def store(self, made: Accepted) -> None:
        desk = self.desk
        desk.answers.clear()
        desk.submit(made)
        while made.queue_id not in desk.answers:
            desk.wait(len(desk.answers) + 1)
        error, jobs = desk.answers[made.queue_id]
        if error is None:
            assert made.queue_id not in self.acknowledged
            self.acknowledged[made.queue_id] = made.submission.content
            self.jobs += jobs

    def claim(self) -> None:
        try:
            super().claim()
        except sqlite3.Error:
            assert self.full

    def tell(self, job: Job, tried: Attempt) -> None:
        """Hand over an outcome as the queue does: with its report, if it calls for one."""
        settled = replace(tried, recipients=job.recipients)
        report = self.writer.write(job, settled)
        if report is None:
            self.desk.store.record(settled)
            return
        if self.random.random() < 0.05 and (there := self.one_that_is_there()):
            # Rows that will be refused, for whatever reason.
            told = _TOLD.findall(report.message.submission.content)
            self.untold.update((job.queue_id, mailbox.decode()) for mailbox in told)
            report = replace(report, message=replace(report.message, queue_id=there))
        else:
            self.made(report)
        self.desk.store.record(settled, report, self.stored)

    def made(self, report: Report) -> None:
        content = report.message.submission.content
        told = [found.decode() for found in _TOLD.findall(content)]
        self.reports[report.message.queue_id] = (report.message.parent, told)

    def stored(self, error: Exception | None, jobs: tuple[Job, ...]) -> None:
        if error is None:
            self.jobs += jobs

    @property
    def writer(self) -> Writer:
        return Writer(self.clock, "0", self.desk.store.load, lambda _: "smtp.test", DAY, 100.0)

    def attempt(self) -> None:
        if (job := self.pick()) is not None:
            self.tell(job, self._tried(job))

    def too_late(self) -> None:
        if self.lost:
            self.flush()
            job = self.lost.pop()
            if job.queue_id not in {other.queue_id for other in self.jobs}:
                self.tell(job, self._tried(job))

    def suppress(self) -> None:
        if (job := self.pick()) is not None:
            found = job.recipients[: self.random.randint(1, 2)]
            rest = tuple(each for each in job.recipients if each not in found)
            mailboxes = [each.mailbox for each in found]
            self.desk.store.suppress(job, mailboxes, "suppressed: it bounced", self.clock.now())
            if rest:
                self.jobs.append(replace(job, recipients=rest))

    def expire(self) -> None:
        store, before, now = self.desk.store, self.clock.now() - 100, self.clock.now()
        for jobs in store.held_too_long(("deleted",), before):
            ending: list[tuple[Job, Report | None]] = []
            for job in jobs:
                ended = replace(self._tried(job), host="", address="", steps=())
                outcomes = tuple(replace(each, status=Status.EXPIRED) for each in ended.outcomes)
                report = self.writer.write(job, replace(ended, outcomes=outcomes))
                ending.append((job, report))
            for _, report in ending:
                if report is not None:
                    self.made(report)
            store.expire_held(ending, ("deleted",), before, "held for too long", now, self.stored)

    def purge(self) -> None:
        self.purged = True
        gone, _ = self.desk.store.purge(self.clock.now() - self.random.choice((1000.0, 4000.0)))
        self.forgotten += gone

    def compact(self) -> None:
        self.desk.store.compact()

    # --- what fails ---

    def fail(self) -> None:
        """Have the disk or the database fail for a while."""
        self.full = True
        self.desk.store._rows._connection.set_progress_handler(self._interrupt, 40)

    def _interrupt(self) -> int:
        return int(self.faulty.random() < 0.1)

    def heal(self) -> None:
        self.full = False
        self.desk.store._rows._connection.set_progress_handler(None, 0)

    def write(self, descriptor: int, buffers: Any, offset: int) -> int:
        if self.full and self.faulty.random() < 0.3:
            raise OSError(errno.ENOSPC, "no space left")
        return os.pwritev(descriptor, buffers, offset)

    def flush(self) -> None:
        try:
            self.desk.store.flush()
        except OSError:
            assert self.full

    def crash(self) -> None:
        """Go on with what is on the disk at this moment, written or not."""
        self.lives += 1
        left = self.root / str(self.lives)
        self.desk.store._ask(lambda: shutil.copytree(self.directory, left))
        self.heal()
        self.desk.store.close()
        self._open(left)

    def restart(self) -> None:
        self.heal()
        super().restart()

    def _open(self, directory: Path) -> None:
        super()._open(directory)
        self.opened()

    def opened(self) -> None:
        self.desk.store._spool._write = self.write
        self.desk.store._ask(lambda: self.desk.store._rows._connection.execute("PRAGMA busy_timeout = 1"))

    # --- what must be true ---

    def check(self) -> None:
        self.heal()
        self.desk.store.flush()
        self.drain()
        compare(self.directory, self.given)
        with closing(sqlite3.connect(self.directory / "queue-0.db")) as connection:

            def rows(sql: str) -> list[tuple[Any, ...]]:
                return connection.execute(sql).fetchall()

            self._room(rows)
            self._mail(rows)
            self._ends(rows)
            self._reports(rows)
            self._nothing_is_left_over(rows)

    def drain(self) -> None:
        while self.desk.answered():
            self.desk._callbacks.get()()

    def _room(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        pointed = rows("SELECT segment, count(*), sum(length) FROM messages WHERE segment IS NOT NULL GROUP BY segment")
        assert self.desk.store.live_segments() == {number: (count, size) for number, count, size in pointed}
        unfinished = {row[0] for row in rows("SELECT DISTINCT queue_id FROM recipients WHERE status NOT IN "
                                             f"({', '.join(repr(each) for each in sorted(_FINAL))})")}  # fmt: skip
        assert {row[0] for row in rows("SELECT queue_id FROM messages WHERE segment IS NOT NULL")} == unfinished

    def _mail(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        there = {
            row[0]: row[1:] for row in rows('SELECT queue_id, segment, generation, "offset", length FROM messages')
        }
        gone = self.acknowledged.keys() - there.keys()
        assert len(gone) <= self.forgotten
        for number, (segment, *_) in there.items():
            if segment is not None and number in self.acknowledged:
                location = self.desk.store._history.location(number)
                assert location is not None
                assert self.desk.store._spool.read(location, number)[1] == self.acknowledged[number]

    def _ends(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        ended: set[int] = set()
        for number, kind in rows("SELECT recipient_id, kind FROM events WHERE recipient_id IS NOT NULL ORDER BY id"):
            if number in ended:
                assert kind == "warning", (number, kind)
            if kind in _FINAL:
                ended.add(number)

    def _reports(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        told: Counter[tuple[str, str]] = Counter()
        for (number,) in rows("SELECT queue_id FROM messages WHERE origin = 'dsn'"):
            parent, mailboxes = self.reports[number]
            told.update((parent, mailbox) for mailbox in mailboxes)
        expected: Counter[tuple[str, str]] = Counter()
        here = set()
        for number, mailbox, status, parent in rows(
            "SELECT r.queue_id, r.mailbox, r.status, m.parent FROM recipients AS r JOIN messages AS m USING (queue_id)"
        ):
            here.add(number)
            notify = "-" if parent else self.wanted[number][mailbox]
            if status in _FAILED and (not notify or "FAILURE" in notify):
                refused = (number, mailbox) in self.untold and (number, mailbox) not in told
                expected[number, mailbox] += 0 if refused else 1
        if self.forgotten:  # a message and its report are not forgotten at one time
            assert not {key: n for key, n in told.items() if key[0] in here and n != expected[key]}
        else:
            assert told == +expected
        assert rows(
            "SELECT count(*) FROM events AS e WHERE kind = 'report' AND NOT EXISTS"
            " (SELECT 1 FROM messages AS m WHERE m.queue_id = e.queue_id)"
        ) == [(0,)]

    def _nothing_is_left_over(self, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        for table in ("attempts", "events", "recipients"):
            assert rows(f"SELECT queue_id FROM {table} WHERE queue_id NOT IN (SELECT queue_id FROM messages)") == []
        assert rows(
            "SELECT recipient_id FROM operator_wishes WHERE recipient_id NOT IN"
            " (SELECT id FROM recipients WHERE lease IS NOT NULL)"
        ) == []  # fmt: skip
        kinds = "'delivered', 'deferred', 'bounced', 'expired'"
        befell = rows(
            f"SELECT count(*) FROM events JOIN messages USING (queue_id) WHERE kind IN ({kinds}) AND origin = ''"
        )
        counted = rows("SELECT coalesce(sum(n), 0) FROM counts WHERE kind != 'submitted'")
        assert self.purged or counted == befell


@pytest.mark.parametrize("seed", [8, 15, 32, 33])
def test_mail_outcomes_reports_and_room_add_up(tmp_path: Path, seed: int) -> None:
    ledger = Ledger(tmp_path, seed)
    ledger.opened()
    often = [ledger.submit, ledger.claim, ledger.attempt, ledger.time]
    seldom = [
        ledger.give_back, ledger.too_late, ledger.put_aside, ledger.hold, ledger.free, ledger.plan, ledger.order,
        ledger.expire, ledger.restart, ledger.crash, ledger.suppress, ledger.compact, ledger.fail, ledger.heal,
    ]  # fmt: skip
    for step in range(300):
        if step == 150:  # until then nothing is missing
            seldom.append(ledger.purge)
        try:
            ledger.random.choice(often * 3 + seldom)()
        except (sqlite3.Error, OSError):
            assert ledger.full  # whoever asked was told
        if step % 30 == 29:
            ledger.check()
    ledger.heal()
    ledger.restart()
    ledger.check()
    ledger.desk.store.close()
