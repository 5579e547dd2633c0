"""Rule 8, the quota: how many messages of a configuration go out in an hour and in a day, and when there is room.

Standards: design section 5.8.
Promises: pure (time is an argument) but for a word in the log; never more than the quota in any hour or any 24 hours;
    what was taken and not used can be given back; a few microseconds for a message, and at most two days' minutes of
    memory for each configuration that has a quota.
Dangers: messages are counted by the minute, and a window is a minute longer than its name says, so that its edge
    never lets more through; room therefore comes at full minutes.
    What was counted while the clock was more than a day ahead of now counts for nothing beyond that day.
Not here: what a message over the quota is told (`relay.policy`), counts that outlive a restart (`store.quota_rows`),
mail that is planned anew (`relay.planning`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from outgate.base.log import Log
from outgate.model.tenancy import Quota

_log = Log("outgate.relay.quota")

_MINUTE = 60.0
_HOUR, _DAY = 61, 1441
"""Minutes in a window, with the one that has begun."""
DAY_S = _DAY * _MINUTE


class _Counts:
    """Messages by minute, oldest first; minutes only ever move on."""

    __slots__ = ("_by_minute", "total")

    def __init__(self) -> None:
        self._by_minute: deque[list[int]] = deque()
        self.total = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((minute, count) for minute, count in self._by_minute)

    def forget(self, before: int) -> None:
        by_minute = self._by_minute
        while by_minute and by_minute[0][0] < before:
            self.total -= by_minute.popleft()[1]

    def add(self, minute: int, count: int) -> None:
        by_minute = self._by_minute
        if by_minute and by_minute[-1][0] == minute:
            by_minute[-1][1] += count
        else:
            by_minute.append([minute, count])
        self.total += count

    def take_out(self, minute: int) -> None:
        for entry in reversed(self._by_minute):
            if entry[0] == minute and entry[1]:
                entry[1] -= 1
                self.total -= 1
                return

    def take_all_out(self, counted: Mapping[int, int]) -> None:
        for entry in self._by_minute:
            count = min(counted.get(entry[0], 0), entry[1])
            entry[1] -= count
            self.total -= count

    def room_at(self, most: int, length: int, minute: int) -> int:
        """Return the first minute, `minute` or later, at which fewer than `most` count within `length` minutes."""
        left = self.total
        if left < most:
            return minute
        for at, count in self._by_minute:
            left -= count
            if left < most:
                return at + length
        return minute + length


class _Ledger:
    """What one configuration has used. `at` is the minute it has come to: ahead of now while mail is held; `seen` is
    the latest that was now; `quota` is what mail that is held is held by."""

    __slots__ = ("all", "at", "day", "hour", "quota", "seen")

    def __init__(self, quota: Quota | None = None) -> None:
        self.quota = quota
        self.at = self.seen = 0
        self.hour, self.day, self.all = _Counts(), _Counts(), _Counts()

    def come_to(self, minute: int, now: int) -> None:
        self.seen = max(self.seen, now)
        if minute > self.at:
            self.at = minute
            self.hour.forget(minute - _HOUR + 1)
            self.day.forget(minute - _DAY + 1)
            self.all.forget(now - _DAY + 1)

    def room_at(self, quota: Quota) -> int:
        found = self.at
        if quota.per_hour is not None:
            found = self.hour.room_at(quota.per_hour, _HOUR, found)
        if quota.per_day is not None:
            found = max(found, self.day.room_at(quota.per_day, _DAY, self.at))
        return found

    def add(self, count: int = 1) -> None:
        for counts in (self.hour, self.day, self.all):
            counts.add(self.at, count)

    def take_out(self, minute: int) -> None:
        for counts in (self.hour, self.day, self.all):
            counts.take_out(minute)


class Quotas:
    """The ledgers of all configurations that have a quota. Belongs to one event loop."""

    def __init__(self) -> None:
        self._ledgers: dict[str, _Ledger] = {}

    def restore(self, counted: Iterable[tuple[str, int, int]], now: float) -> None:
        """Take up what earlier runs counted: (configuration, minute since the epoch, messages), oldest first."""
        for smtp_config_id, minute, count in counted:
            ledger = self._ledgers.setdefault(smtp_config_id, _Ledger())
            ledger.come_to(minute, minute_of(now))
            ledger.add(count)

    def room_at(self, smtp_config_id: str, quota: Quota, now: float) -> float:
        """Return when one more message may go: `now`, or the full minute (epoch seconds) at which there is room."""
        minute = minute_of(now)
        ledger = self._ledgers.get(smtp_config_id)
        if ledger is None:
            ledger = self._ledgers[smtp_config_id] = _Ledger()
        elif ledger.seen > minute + _DAY:
            ledger = self._clock_put_back(smtp_config_id, ledger, now)
        ledger.come_to(minute, minute)
        if ledger.at == minute:
            ledger.quota = quota  # nothing is held, so nothing was planned by another
        found = ledger.room_at(quota)
        return now if found <= minute else found * _MINUTE

    def take(self, smtp_config_id: str, at: float, now: float) -> None:
        """Count a message at the time that `room_at` gave."""
        ledger = self._ledgers[smtp_config_id]
        ledger.come_to(minute_of(at), minute_of(now))
        ledger.add()

    def give_back(self, smtp_config_id: str, at: float) -> None:
        """Take out what `take` counted: the message was refused by a later rule, or could not be stored."""
        ledger = self._ledgers.get(smtp_config_id)
        if ledger is not None:
            ledger.take_out(minute_of(at))

    def holding(self, now: float) -> dict[str, Quota | None]:
        """Return the configurations that have mail held, and the quota it is held by (None: as it was restored)."""
        minute = minute_of(now)
        return {each: ledger.quota for each, ledger in self._ledgers.items() if ledger.at > minute}

    def begin_again(self, smtp_config_id: str, quota: Quota | None, now: float) -> None:
        """Forget the times at which mail that is held was to go: all of it is about to get others (`plan`)."""
        former = self._ledgers.pop(smtp_config_id, None)
        if quota is not None:
            self._ledgers[smtp_config_id] = _Ledger(quota)
            self._keep(smtp_config_id, former or _Ledger(), minute_of(now), now)

    def take_out(self, smtp_config_id: str, counted: Mapping[int, int]) -> None:
        """Take out what was counted in these minutes: messages, by minute, that have not gone."""
        ledger = self._ledgers.get(smtp_config_id)
        if ledger is not None:
            for counts in (ledger.hour, ledger.day, ledger.all):
                counts.take_all_out(counted)

    def plan(self, smtp_config_id: str, quota: Quota | None, messages: int, now: float) -> list[float]:
        """Count so many messages; return when each may go."""
        if quota is None:
            return [now] * messages
        planned: list[float] = []
        for _ in range(messages):
            planned.append(self.room_at(smtp_config_id, quota, now))
            self.take(smtp_config_id, planned[-1], now)
        return planned

    def _clock_put_back(self, smtp_config_id: str, former: _Ledger, now: float) -> _Ledger:
        """Keep of a ledger what lies within a day of `now`, which is far behind what was now before."""
        _log.warning(
            "quota.clock_put_back",
            smtp_config_id=smtp_config_id,
            seconds=(former.seen - minute_of(now)) * _MINUTE,
            reason="what was counted while the clock was ahead is left out beyond a day from now",
            remedy="keep the clock right: look at what sets it (NTP), and restart to count anew what was stored",
        )
        ledger = self._ledgers[smtp_config_id] = _Ledger(former.quota)
        self._keep(smtp_config_id, former, minute_of(now) + _DAY, now)
        return ledger

    def _keep(self, smtp_config_id: str, former: _Ledger, until: int, now: float) -> None:
        self.restore(((smtp_config_id, at, count) for at, count in former.all if at <= until), now)


def minute_of(at: float) -> int:
    """Return the minute since the epoch that a time (epoch seconds) is in."""
    return math.floor(at / _MINUTE)
