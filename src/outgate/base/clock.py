"""The time of day as an argument: everything timed asks a `Clock`, never `time.time()`.

Standards: none.
Promises: `now()` is seconds since the epoch (UTC); an offset survives restarts and never moves back.
Dangers: socket deadlines and TLS validity use the event loop's and OpenSSL's own clocks on purpose.
Not here: sleeping and scheduling (`relay.queue`).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Tell the time of day."""

    def now(self) -> float:
        """Return seconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's own time."""

    __slots__ = ()

    def now(self) -> float:
        return time.time()


class OffsetClock:
    """The machine's time plus an offset that can be advanced and is kept in a file (laptop mode, tests)."""

    __slots__ = ("_file", "_offset")

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._offset = 0.0
        if file is not None and file.exists():
            self._offset = float(file.read_text("ascii"))

    @property
    def offset(self) -> float:
        """Return the seconds this clock is ahead of the machine's."""
        return self._offset

    def now(self) -> float:
        return time.time() + self._offset

    def advance(self, seconds: float) -> float:
        """Move the clock forward by `seconds` (> 0), keep that, and return the new time."""
        if not seconds > 0:
            raise ValueError("a clock only moves forward: seconds must be greater than 0")
        self._offset += seconds
        if self._file is not None:
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(repr(self._offset), "ascii")
            os.replace(temporary, self._file)
        return self.now()


class FrozenClock:
    """A clock that stands still until told otherwise (tests)."""

    __slots__ = ("_now",)

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        self._now += seconds
        return self._now


def rfc3339(epoch: float, *, milliseconds: bool = False) -> str:
    """Write a time as RFC 3339 in UTC with `Z`: `2026-11-21T07:03:00Z`."""
    text = datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return text.replace("+00:00", "Z")
