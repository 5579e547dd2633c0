"""Allow-lists end: who is told, from when on, and how often.

Standards: none.
Promises: a list is told of from 14 days before its end, once a day and when the service starts; its end is told
when it comes, and by a service that starts within a day after it, for it may have been down then.
Dangers: what was told is kept in memory: a service that starts often tells as often.
Not here: that a list counts for nothing once it has ended (`model.access`, `relay.access`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from outgate.base.clock import rfc3339
from outgate.base.log import Log
from outgate.model.access import AllowList

_log = Log("outgate.access")
DAY_S = 86_400.0
WARN_S = 14 * DAY_S
_SHOWN = 20
_REMEDY = (
    "name these networks in a zone of an enabled rule for the SMTP API (GET allowed_ips then still lists them), "
    "or have the list end later with `outgate access allow-list set --until`"
)


def days_left(ends_at: float, now: float) -> int:
    """Return in how many days, begun ones too, a list ends; 0 if it has ended."""
    return max(0, ceil((ends_at - now) / DAY_S))


def warning(allow_list: AllowList, now: float) -> str:
    """Return what somebody should know of a list's end: "" while that is more than 14 days ahead."""
    left = allow_list.ends_at - now
    if left > WARN_S:
        return ""
    if left > 0:
        return f"ends in {days_left(allow_list.ends_at, now)} day(s): {_REMEDY}"
    return f"has ended, and grants nothing: {_REMEDY}"


class Endings:
    """What was told of allow-lists that end. For one event loop."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, float], float] = {}
        self._looked: float | None = None

    def look(self, allow_lists: Sequence[AllowList], now: float) -> float:
        """Log what is to be told at `now` of all lists there are; return when to look next (inf: when they change)."""
        since, self._looked = now - DAY_S if self._looked is None else self._looked, now
        told: dict[tuple[str, float], float] = {}
        due = inf
        for each in allow_lists:
            key = (each.instance_id, each.ends_at)
            if each.ends_at <= now:
                if each.ends_at > since:
                    _tell("access.allow_list_ended", each, now)
                continue
            first = each.ends_at - WARN_S
            last = self._told.get(key)
            if now >= (first if last is None else last + DAY_S):
                _tell("access.allow_list_ends", each, now)
                last = now
            if last is not None:
                told[key] = last
            due = min(due, each.ends_at, first if last is None else last + DAY_S)
        self._told = told
        return due


def _tell(event: str, allow_list: AllowList, now: float) -> None:
    _log.warning(
        event,
        instance=allow_list.instance_id,
        ends_at=rfc3339(allow_list.ends_at),
        ends_in_days=days_left(allow_list.ends_at, now),
        networks=[address.value for address in allow_list.networks[:_SHOWN]],
        count=len(allow_list.networks),
        remedy=_REMEDY,
    )
