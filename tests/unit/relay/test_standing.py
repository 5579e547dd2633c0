"""How a domain stands: each step of verified → warning → suspended → restored, and what never counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.tenancy import Checked, DkimKey, NewStanding, SmtpConfiguration, Standing, Verification
from outgate.relay.standing import Schedule, after

PENDING, SUCCESSFUL, FAILED = Verification.PENDING, Verification.SUCCESSFUL, Verification.FAILED
UNVERIFIED, VERIFIED, WARNING, SUSPENDED = Standing
HOUR = 3600.0
SCHEDULE = Schedule(6 * HOUR, 72 * HOUR, HOUR)
STATES = {"ok": SUCCESSFUL, "bad": FAILED, "?": None}


class Domain:
    """A configuration that is checked again and again."""

    def __init__(self, standing: Standing = UNVERIFIED) -> None:
        state = PENDING if standing is UNVERIFIED else SUCCESSFUL
        key = DkimKey("k", "c", "sel", "rsa", "")
        self.now = 1000 * HOUR
        self.it = SmtpConfiguration(
            "c",
            "i",
            "n",
            "",
            "a.test",
            state,
            state,
            SUCCESSFUL,
            key,
            0.0,
            0.0,
            standing,
            0.0 if state is PENDING else 1.0,
        )

    def check(self, hours: float = 0.0, **results: str) -> NewStanding:
        """Let hours pass, then find these results ("ok", "bad", "?") for a, spf and dkim."""
        self.now += hours * HOUR
        checked = [Checked(check, STATES[result], result, "") for check, result in results.items()]
        for one in checked:
            if one.state is not None and one.check != "a":
                self.it = replace(self.it, **{one.check: one.state})
        found = after(self.it, checked, self.now, SCHEDULE)
        self.it = replace(
            self.it,
            standing=found.standing,
            standing_since=found.since,
            failing=found.failing,
            recheck_at=found.recheck_at,
        )
        return found


def test_it_is_verified_once_all_is_found() -> None:
    domain = Domain()
    assert domain.check(spf="ok", a="ok") == NewStanding(UNVERIFIED, 0.0, "", None)
    assert domain.check(1, dkim="bad") == NewStanding(UNVERIFIED, 0.0, "dkim", None)
    assert domain.check(1, dkim="ok") == NewStanding(VERIFIED, domain.now, "", domain.now + 6 * HOUR)


@pytest.mark.parametrize("check", ["spf", "dkim", "a"])
def test_warned_suspended_restored(check: str) -> None:
    domain = Domain(VERIFIED)
    bad = {"a": "ok", "spf": "ok", "dkim": "ok", check: "bad", **({"spf": "bad"} if check == "a" else {})}
    warned = domain.check(6, **bad)
    since = domain.now
    assert warned == NewStanding(WARNING, since, check, since + 6 * HOUR)
    for hours in (6, 12, 18, 24, 30, 36, 42, 48, 54, 60):
        assert domain.check(6, **bad).standing is WARNING, hours
    assert domain.it.recheck_at == since + 66 * HOUR
    assert domain.check(10, **bad).recheck_at == since + 72 * HOUR  # the end of the grace is not slept over
    assert domain.check(2, **bad) == NewStanding(SUSPENDED, domain.now, check, domain.now + HOUR)
    suspended_at = domain.now
    assert domain.check(1, **bad) == NewStanding(SUSPENDED, suspended_at, check, domain.now + HOUR)
    good = dict.fromkeys(bad, "ok")
    assert domain.check(1, **good) == NewStanding(VERIFIED, domain.now, "", domain.now + 6 * HOUR)


def test_back_within_the_grace_is_no_suspension_and_the_next_failure_has_its_own_grace() -> None:
    domain = Domain(VERIFIED)
    domain.check(6, spf="bad", dkim="ok", a="ok")
    assert domain.check(71, spf="ok", dkim="ok", a="ok").standing is VERIFIED
    assert domain.check(6, spf="bad", dkim="ok", a="ok").standing is WARNING
    assert domain.check(71, spf="bad", dkim="ok", a="ok").standing is WARNING
    assert domain.check(1, spf="bad", dkim="ok", a="ok").standing is SUSPENDED


def test_a_failed_look_up_neither_suspends_nor_restores() -> None:
    domain = Domain(VERIFIED)
    for _ in range(100):
        assert domain.check(6, spf="?", dkim="?", a="?") == NewStanding(VERIFIED, 1.0, "", domain.now + HOUR)
    domain.check(6, spf="bad", dkim="ok", a="ok")
    since = domain.now
    for _ in range(40):  # the grace is long over, but nobody has seen it fail since
        found = domain.check(6, spf="?", dkim="ok", a="?")
        assert (found.standing, found.since, found.failing) == (WARNING, since, "spf")
    assert domain.check(6, spf="bad", dkim="?", a="ok").standing is SUSPENDED
    assert domain.check(1, spf="?", dkim="ok", a="ok").standing is SUSPENDED
    assert domain.check(1, spf="ok", dkim="?", a="ok").standing is VERIFIED


def test_another_check_that_fails_meanwhile_is_named() -> None:
    domain = Domain(VERIFIED)
    domain.check(6, spf="bad", dkim="bad", a="bad")
    assert domain.it.failing == "a"
    assert domain.check(6, spf="bad", dkim="bad", a="ok").failing == "spf"
    assert domain.check(0, spf="ok", a="ok").failing == "dkim"  # asked for by hand, one check alone
    assert domain.it.standing is WARNING


def test_looks_spread_out() -> None:
    domain = Domain(VERIFIED)
    checked = [Checked("spf", SUCCESSFUL, "pass", "")]
    assert after(domain.it, checked, 0.0, SCHEDULE, 0.0).recheck_at == 6 * HOUR
    assert after(domain.it, checked, 0.0, SCHEDULE, 1.0).recheck_at == pytest.approx(5.4 * HOUR)


RESULT = st.sampled_from(["ok", "bad", "?"])


@given(st.lists(st.tuples(st.floats(0.1, 30), RESULT, RESULT), max_size=40))
def test_a_suspension_needs_two_definite_failures_a_grace_apart(rounds: list[tuple[float, str, str]]) -> None:
    domain = Domain(VERIFIED)
    first_failure: float | None = None
    for hours, spf, dkim in rounds:
        before = domain.it.standing
        found = domain.check(hours, a="ok", spf=spf, dkim=dkim)
        failed = "bad" in (spf, dkim)
        if found.standing is VERIFIED:
            first_failure = None
        elif before is VERIFIED:
            assert failed
            first_failure = domain.now
        if found.standing is SUSPENDED and before is not SUSPENDED:
            assert failed and first_failure is not None and domain.now - first_failure >= 72 * HOUR
        assert found.recheck_at is not None and domain.now < found.recheck_at <= domain.now + 6 * HOUR
