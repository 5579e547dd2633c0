"""What waits to be written in the queue's next transaction: submissions, outcomes, and reports with theirs.

Standards: none.
Promises: a report and the outcome that it reports are never taken apart.
Dangers: a submission is answered once, by whoever settles it.
Not here: the thread that writes them (`sqlite`), their statements (`queue_rows`, `hold_rows`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outgate.model.flow import Accepted, Attempt, Job, Location, Report
from outgate.store.hold_rows import Hold, Suppress
from outgate.store.queue_rows import Release

Done = Callable[[Exception | None, tuple[Job, ...]], object]


def nothing(_error: Exception | None, _jobs: tuple[Job, ...]) -> None:
    """Do what follows where nobody waits for it."""


@dataclass(slots=True)
class Submission:
    accepted: Accepted
    done: Done
    error: Exception | None = None
    jobs: tuple[Job, ...] = ()
    settled: bool = False

    def fail(self, error: Exception) -> None:
        self.error, self.settled = error, True


@dataclass(slots=True)
class Reported:
    """An attempt with the report that it causes: both are kept, or neither."""

    attempt: Attempt
    about: Report
    report: Submission


Pending = Attempt | Release | Hold | Suppress | Reported
Stored = list[tuple[Submission, Location]]


def attempts(outcomes: Sequence[Pending]) -> list[Attempt]:
    found: list[Attempt] = []
    for each in outcomes:
        if isinstance(each, Attempt):
            found.append(each)
        elif isinstance(each, Reported):
            found.append(each.attempt)
    return found


def about_nobody(outcomes: Sequence[Pending], standing: set[int]) -> set[int]:
    """Return (by identity) the submissions of reports that are about nobody whose outcome stands."""
    reported = [each for each in outcomes if isinstance(each, Reported)]
    return {id(each.report) for each in reported if standing.isdisjoint(each.about.recipients)}


def each_alone(stored: Stored, outcomes: list[Pending]) -> list[tuple[Stored, list[Pending]]]:
    """Return each message and each outcome on its own, but a report with the outcome that it reports."""
    places = {id(submission): (submission, place) for submission, place in stored}
    apart: list[tuple[Stored, list[Pending]]] = []
    for each in outcomes:
        own = [places.pop(id(each.report))] if isinstance(each, Reported) else []
        apart.append((own, [each]))
    return [([one], []) for one in places.values()] + apart


def of_the_disk(error: Exception) -> bool:
    """Say whether a failure is the file's (locked, full, broken) and not a row's."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError | sqlite3.InterfaceError
    )
