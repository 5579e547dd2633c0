"""Lengths of time and end dates as people type them: `24h`, `90d`, `2027-01-31`.

Standards: RFC 3339.
Promises: pure; a text that is none of these is a `BadTime` that says what is.
Dangers: a month is no length: it is not read. A date without a time means to its end, in UTC.
Not here: what is too long (the API).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from outgate.base.clock import rfc3339

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LENGTH = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class BadTime(ValueError):
    """A text that is no time; the message says what is one."""


def seconds(text: str) -> int:
    """Return the seconds of a length such as `30m`, `24h`, `90d`. Raises `BadTime`."""
    found = _LENGTH.fullmatch(text.strip().lower())
    if found is None:
        raise BadTime(f"{text!r} is no length of time: write 30m, 24h, 90d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def end_date(text: str, now: float) -> str:
    """Return when something ends, in RFC 3339, from a length from `now`, a date (its end, UTC) or a time.

    Raises `BadTime`, also for what is past."""
    given = text.strip()
    try:
        ends = now + seconds(given) if _LENGTH.fullmatch(given.lower()) else _moment(given)
        written = rfc3339(int(ends))
    except (ValueError, OverflowError):
        raise BadTime(f"{text!r} is no end date: write 90d, 2027-01-31 or 2027-01-31T12:00:00Z") from None
    if ends <= now:
        raise BadTime(f"{text!r} is past")
    return written


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if _DATE.fullmatch(text):
        return (moment.replace(tzinfo=UTC) + timedelta(days=1)).timestamp()
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.timestamp()
