"""How well a way out works: a score from what failed on it, when it rests, and when it is tried again.

Standards: none; ours.
Promises: pure, the time is an argument; a score lies above 0 and at most at 1; another failure never raises it, a
success or the passing of time never lowers it; how many ways are remembered is bounded.
Dangers: time alone lets nothing come back: a way that rests is taken again when a try of it went well.
Not here: which ways there are and whose turn it is (`relay.transports`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_HALF_LIFE_S = 300.0
_MOST = 8.0
_LOW, _HIGH = 0.3, 0.5
"""Below the one a way rests, from the other on it is taken again: between them it stays as it was."""
_PAUSE_FIRST_S, _PAUSE_MOST_S = 30.0, 1800.0
_TRY_S = 300.0
"""How long a try may be under way before another is allowed: it may never tell how it went."""
_CALM = 0.1
"""Burden below which a way has been well for so long that its next pause is a short one again."""
_WAYS = 10_000
# What a failure weighs. A login that is refused and a certificate that is wrong do not mend themselves soon.
_WEIGHTS = {"network": 1.0, "dns": 1.0, "unavailable": 1.0, "timeout": 1.5, "tls": 2.0, "login": 3.0, "loop": 3.0}


@dataclass(frozen=True, slots=True)
class Health:
    """One way's. `burden` is what failures have left at the time `at`; `failures` came without a success between them,
    the last for the reason `last`. `resting` since `since`: it is tried at `try_at`, after a pause of `pause` seconds.
    `trying_until`: somebody tries it now."""

    burden: float = 0.0
    at: float = 0.0
    failures: int = 0
    last: str = ""
    resting: bool = False
    since: float = 0.0
    try_at: float = 0.0
    pause: float = 0.0
    trying_until: float = 0.0

    def burden_at(self, now: float) -> float:
        """Return what is left of the burden: half after five minutes. A clock that goes back changes nothing."""
        return self.burden * 0.5 ** (max(now - self.at, 0.0) / _HALF_LIFE_S)

    def score(self, now: float) -> float:
        """Return how well it works: 1 is perfectly."""
        return 1.0 / (1.0 + self.burden_at(now))

    def may_be_tried(self, now: float) -> bool:
        """Say whether it rests, and is due for a try that nobody makes yet."""
        return self.resting and now >= self.try_at and now >= self.trying_until


def failed(health: Health, reason: str, now: float) -> Health:
    """Return what a failure makes of it; `reason` is a class word ("network", "timeout", "login", …)."""
    before = health.burden_at(now)
    after = replace(
        health,
        burden=min(before + _WEIGHTS.get(reason, 1.0), _MOST),
        at=max(now, health.at),
        failures=health.failures + 1,
        last=reason,
        pause=0.0 if before < _CALM and not health.resting else health.pause,
        trying_until=0.0,
    )
    if health.resting and now < health.try_at:
        return after  # what was under way when it began to rest
    if not health.resting and after.score(now) >= _LOW:
        return after
    pause = min(after.pause * 2, _PAUSE_MOST_S) or _PAUSE_FIRST_S
    since = health.since if health.resting else now
    return replace(after, resting=True, since=since, pause=pause, try_at=now + pause)


def worked(health: Health, now: float) -> Health:
    """Return what a success makes of it: three quarters of the burden are gone; it rests no more if that is enough."""
    burden = health.burden_at(now) / 4
    after = replace(health, burden=burden, at=max(now, health.at), failures=0, trying_until=0.0)
    if after.resting and after.score(now) >= _HIGH:
        return replace(after, resting=False, since=now, try_at=0.0)
    return replace(after, try_at=min(after.try_at, now)) if after.resting else after


def tried(health: Health, now: float) -> Health:
    """Note that somebody tries it now: others wait for how that goes."""
    return replace(health, trying_until=now + _TRY_S)


class Healths:
    """The health of all ways, by key; one that nothing is known of is well."""

    def __init__(self, most: int = _WAYS) -> None:
        self._most = most
        self._known: dict[tuple[str, ...], Health] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, key: tuple[str, ...]) -> Health:
        """Return a way's health."""
        return self._known.get(key, _WELL)

    def failed(self, key: tuple[str, ...], reason: str, now: float) -> Health:
        """Note a failure; return the health after it."""
        after = failed(self.of(key), reason, now)
        if key not in self._known and len(self._known) >= self._most:
            self._forget(now)
        self._known[key] = after
        return after

    def worked(self, key: tuple[str, ...], now: float) -> Health:
        """Note a success; return the health after it. One that is well again is forgotten."""
        known = self._known.get(key)
        if known is None:
            return _WELL
        after = self._known[key] = worked(known, now)
        if not after.resting and after.burden < _CALM:
            del self._known[key]
        return after

    def tried(self, key: tuple[str, ...], now: float) -> None:
        """Note that a way that rests is tried now."""
        if key in self._known:
            self._known[key] = tried(self._known[key], now)

    def known(self) -> list[tuple[tuple[str, ...], Health]]:
        """Return all of which something is known."""
        return list(self._known.items())

    def _forget(self, now: float) -> None:
        # A tenth at once, the best first: forgetting those changes least.
        best = sorted(self._known, key=lambda key: self._known[key].burden_at(now))
        for key in best[: max(1, self._most // 10)]:
            del self._known[key]


_WELL = Health()
