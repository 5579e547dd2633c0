"""Guessing of passwords, slowed by address and by name, without locking an owner out.

Standards: none; time is an argument, in seconds.
Promises: a login that is remembered as right never comes here; an address from which a name logged in rightly within
a week is neither refused nor made to wait for a check of that name, whoever else fails there or with that name;
elsewhere a name is refused only where it failed itself within the hour; memory is bounded; whether a name exists
makes no difference.
Dangers: who shares an address with a name's owner may guess that name there without being refused: such guesses still
wait for their answers and for their turns, and a password has 190 random bits. Where the owner never logged in, whoever
shares the address can have his name refused there, or hold the places in which he would wait.
Not here: the waiting itself (`relay.session`, `relay.turns`), the log lines (there too).

How it counts. Each wrong login raises a level that sinks with time, of the address (an IPv6 client owns its /64, so
that is one address), of the network around it (IPv4 /24, IPv6 /48, eight times as patient: for who owns many), and of
the name. A few failures are free. Then answers to further failures come late, twice as late each time; from
`refused_at` on checks of names that failed there are refused unhashed until the level has sunk, which leaves four
guesses a minute. A level goes no further than a minute's worth above that, so what was guessed all at once refuses
nobody for longer.

Other names wait there as long as anybody does, and are then checked, for one guesser must not shut out all behind
his address. That leaves who tries many names one guess of each. Names have twenty random signs, so nobody has a list
of those that exist, and what such guesses cost is bounded by places: an address holds at most half of those in which
logins wait, and of those in the queue of the hash, where turns go round the addresses.

Many clients may share one address: a tunnel that sends no PROXY header, a NAT. What fails there most is one client
with an old password that tries it for ever. That is no guess: the same wrong login again counts a tenth, and only up
to half of what has an address refused, however many of its processes try. Right logins of others lower the level, by
one in six seconds at most, so that a thief cannot wash guesses with an account of his own for free. And clients who
logged in from there before go on as they did, also while strangers are refused.

A name that many addresses fail with is never refused for that, which would lock its owner out wherever he comes from:
checks of it wait some seconds first, except from addresses where it logged in rightly of late. What fails at those
does not count against the name: it is the owner's own mistake, or at the address's cost. Those addresses may be so
many that they fill the places in which logins wait: whoever finds none then is checked at once.

A restart forgets what failed. Who is familiar is found again in the mail that was accepted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from outgate.smtp.fairness import source_of

REFUSED_AT = 20
FAMILIAR_S = 7 * 86_400.0
_FREE = 5.0
_SINKS = 1 / 15
_ABOVE = 4.0
_NETWORK = 8.0
_AGAIN = 0.1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_LOWERED_EVERY_S = 6.0
_FAILED_S = 3_600.0
_LAST_LOGINS = 8
_KEPT = 10_000
_NAME = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Slowed:
    """What a login has to put up with: seconds to wait, None to be refused; why, and what the operator can do.

    `for_others`: it waits for what others did elsewhere, and is not turned away if there is no place to wait in."""

    wait_s: float | None
    reason: str
    remedy: str
    for_others: bool = False


@dataclass(slots=True)
class _Level:
    """How much failed: `value` at the time `at`; when a right login lowered it; what failed last."""

    value: float = 0.0
    at: float = 0.0
    lowered_at: float = -_LOWERED_EVERY_S
    last: tuple[bytes, ...] = ()

    def sink(self, now: float, rate: float) -> float:
        """Let time pass; return the level now."""
        self.value = max(0.0, self.value - max(0.0, now - self.at) * rate)
        self.at = now
        return self.value


class _Kept(Generic[T]):
    """A dictionary that forgets what was written longest ago."""

    __slots__ = ("_items", "_most")

    def __init__(self, most: int) -> None:
        self._items: dict[str, T] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> T | None:
        return self._items.get(key)

    def put(self, key: str, item: T) -> None:
        self._items.pop(key, None)
        if len(self._items) >= self._most:
            del self._items[next(iter(self._items))]
        self._items[key] = item


@lru_cache(maxsize=4096)
def _network_of(address: str) -> str:
    return _around(address, 48 if ":" in address else 24)


def _around(address: str, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))


class Guessing:
    """Remember what failed and who is familiar; say who must wait. Not thread-safe."""

    def __init__(self, refused_at: int = REFUSED_AT, *, kept: int = _KEPT) -> None:
        """`refused_at` is the level of an address from which names that failed there are refused; `kept` bounds each
        memory."""
        self._refused_at = float(refused_at)
        self._sources: _Kept[_Level] = _Kept(kept)
        self._names: _Kept[_Level] = _Kept(kept)
        self._familiar: _Kept[float] = _Kept(kept)
        # When a name last failed at an address or in a network.
        self._failed: _Kept[float] = _Kept(2 * kept)

    def remember(self, seen: Iterable[tuple[str, str, float]]) -> None:
        """Take up who sent from where and when last, oldest first: (name, address, time)."""
        for name, address, at in seen:
            self._familiar.put(_pair(name, source_of(address)), at)

    def before(self, name: str, address: str, now: float) -> Slowed | None:
        """Say whether a login may be checked now (None), after a while, or not at all."""
        if self._is_familiar(name, address, now):
            return None
        waits: Slowed | None = None
        for key, patience, what in self._places(address):
            level = self._sources.get(key)
            if level is not None and level.sink(now, _SINKS * patience) >= self._refused_at * patience:
                failed_at = self._failed.get(_pair(name, key))
                waits = Slowed(
                    _LONGEST_WAIT_S if failed_at is None or now - failed_at >= _FAILED_S else None,
                    f"too many wrong logins from {what} {key}",
                    "find the client there that has a wrong password; in about a minute all is as before",
                )
                if waits.wait_s is None:
                    return waits
        if waits is not None:
            return waits
        level = self._names.get(name[:_NAME])
        wait = 0.0 if level is None else _wait(level.sink(now, _SINKS), 1.0)
        if not wait:
            return None
        return Slowed(
            wait,
            "many logins with this user name failed of late",
            "nothing: addresses where it logged in of late do not wait; `login.failed` tells who fails with it",
            for_others=True,
        )

    def failed(self, name: str, address: str, login: bytes, now: float) -> Slowed | None:
        """Count a wrong login; say how long its answer must wait. `login` is a digest of name and password."""
        wait, by = 0.0, 1.0
        for key, patience, _ in self._places(address):
            # An address at its highest adds nothing to its network's: one alone never has all refused.
            by = self._raise(self._sources, key, patience, by, login, now)
            level = self._sources.get(key)
            wait = max(wait, _wait(level.value if level else 0.0, patience))
            self._failed.put(_pair(name, key), now)
        if not self._is_familiar(name, address, now):
            self._raise(self._names, name[:_NAME], 1.0, 1.0, login, now)
        if not wait:
            return None
        return Slowed(
            wait,
            f"several wrong logins from {source_of(address)} or its network",
            "give the client there the right password, or rotate it and use the new one",
        )

    def right(self, name: str, address: str, now: float) -> None:
        """Note a right login: the name is familiar there, and its address a little less suspect."""
        self._familiar.put(_pair(name, source_of(address)), now)
        if not len(self._sources):
            return
        for key, patience, _ in self._places(address):
            level = self._sources.get(key)
            if level is None or now - level.lowered_at < _LOWERED_EVERY_S:
                continue
            level.lowered_at = now
            level.value = max(0.0, level.sink(now, _SINKS * patience) - 1.0)

    def _raise(self, levels: _Kept[_Level], key: str, patience: float, by: float, login: bytes, now: float) -> float:
        """Count a failure; return by how much the level rose."""
        level = levels.get(key) or _Level(at=now)
        before = level.sink(now, _SINKS * patience)
        most = self._refused_at + _ABOVE
        if login in level.last:
            by, most = min(by, _AGAIN), self._refused_at / 2
        else:
            level.last = (*level.last[1 - _LAST_LOGINS :], login)
        level.value = max(before, min(before + by, most * patience))
        levels.put(key, level)
        return level.value - before

    def _is_familiar(self, name: str, address: str, now: float) -> bool:
        seen = self._familiar.get(_pair(name, source_of(address)))
        return seen is not None and now - seen < FAMILIAR_S

    def _places(self, address: str) -> tuple[tuple[str, float, str], tuple[str, float, str]]:
        return (source_of(address), 1.0, "the address"), (_network_of(address), _NETWORK, "the network")


def _pair(name: str, place: str) -> str:
    return f"{place} {name[:_NAME]}"


def _wait(level: float, patience: float) -> float:
    """Return the seconds that a level asks for; none while it is low."""
    over = level / patience - _FREE
    return 0.0 if over <= 0.0 else min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(over, 10.0))
