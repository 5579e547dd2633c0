"""How a domain stands after it was checked: verified → warning → suspended → restored.

Standards: none; design section 5.7.
Promises: pure; a look-up that failed never counts against a domain; a domain is suspended only by a definite
    failure, and only when the grace since the first one is over; a pass restores by itself.
Dangers: `spf` and `dkim` of the configuration are what was last found for certain, which may be older than the
    findings: a failure counts only if it is among the findings.
Not here: asking (`relay.onboarding`), keeping (`store.verification`), when to ask (`relay.recheck`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outgate.model.tenancy import Checked, NewStanding, SmtpConfiguration, Standing, Verification

_ORDER = ("a", "spf", "dkim")
"""The check that is named first as the one that stands in the way: without an A record SPF fails too."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds between two looks at a verified domain, the grace before a failing one is suspended, and how soon a
    look is repeated that could not be answered or that found a suspended domain."""

    interval: float = 21_600.0
    grace: float = 259_200.0
    soon: float = 3_600.0


def after(
    configuration: SmtpConfiguration,
    checked: Sequence[Checked],
    now: float,
    schedule: Schedule,
    jitter01: float = 0.0,
) -> NewStanding:
    """Return how a configuration, its states brought up to date, stands after these findings.

    `jitter01` (0 to 1) makes the next look up to a tenth of the interval earlier, so that looks spread out."""
    failed = {one.check for one in checked if one.state is Verification.FAILED and one.check in _ORDER}
    unknown = any(one.state is None and one.check in _ORDER for one in checked)
    standing, since = configuration.standing, configuration.standing_since
    if configuration.spf == configuration.dkim == Verification.SUCCESSFUL and not failed:
        if standing is not Standing.VERIFIED:
            standing, since = Standing.VERIFIED, now
    elif failed:
        if standing is Standing.VERIFIED:
            standing, since = Standing.WARNING, now
        elif standing is Standing.WARNING and now >= since + schedule.grace:
            standing, since = Standing.SUSPENDED, now
    failing = _in_the_way(configuration, failed)
    return NewStanding(standing, since, failing, _next_look(standing, since, now, unknown, schedule, jitter01))


def _in_the_way(configuration: SmtpConfiguration, failed: set[str]) -> str:
    """Name the check that stands in the way: one that failed now, else one whose last certain result is a failure."""
    if failed:
        return next(check for check in _ORDER if check in failed)
    if configuration.spf is Verification.FAILED:
        return "a" if configuration.failing == "a" else "spf"
    return "dkim" if configuration.dkim is Verification.FAILED else ""


def _next_look(
    standing: Standing, since: float, now: float, unknown: bool, schedule: Schedule, jitter01: float
) -> float | None:
    if standing is Standing.UNVERIFIED:
        return None
    pause = schedule.interval * (1.0 - 0.1 * jitter01)
    if unknown or standing is Standing.SUSPENDED:
        pause = min(pause, schedule.soon)
    if standing is Standing.WARNING and now < since + schedule.grace < now + pause:
        return since + schedule.grace
    return now + pause
