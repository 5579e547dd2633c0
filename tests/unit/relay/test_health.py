"""When a way out rests, and how it comes back."""

from __future__ import annotations

from outgate.relay import health
from outgate.relay.health import Health, Healths

WAY = ("smart_host", "a.test", "25")


def after(*reasons: str, now: float = 0.0) -> Health:
    it = Health()
    for reason in reasons:
        it = health.failed(it, reason, now)
    return it


def test_one_or_two_failures_are_borne_the_third_makes_it_rest() -> None:
    assert not after("network").resting and not after("network", "network").resting
    it = after("network", "network", "network")
    assert it.resting and it.failures == 3 and it.last == "network" and it.try_at == 30.0


def test_a_refused_login_makes_it_rest_at_once() -> None:
    assert after("login").resting and not after("tls").resting


def test_failures_that_are_long_ago_weigh_little() -> None:
    it = after("network", "network")
    assert not health.failed(it, "network", 1200.0).resting
    assert it.score(1200.0) > 0.8


def test_it_comes_back_by_a_try_after_a_pause_that_doubles() -> None:
    it = after("network", "network", "network")
    assert not it.may_be_tried(29.9) and it.may_be_tried(30.0)
    it = health.failed(health.tried(it, 30.0), "network", 31.0)
    assert it.resting and it.pause == 60.0 and it.try_at == 91.0 and it.since == 0.0
    it = health.worked(health.tried(it, 91.0), 91.0)
    assert not it.resting and it.failures == 0


def test_two_do_not_try_at_once_but_one_that_never_tells_does_not_bar_it_for_ever() -> None:
    it = health.tried(after("login"), 30.0)
    assert not it.may_be_tried(31.0)
    assert it.may_be_tried(30.0 + 301.0)


def test_what_was_under_way_when_it_began_to_rest_does_not_make_the_pause_longer() -> None:
    it = after("network", "network", "network")
    for _ in range(50):
        it = health.failed(it, "network", 1.0)
    assert (it.pause, it.try_at) == (30.0, 30.0) and it.failures == 53


def test_hysteresis_a_heavy_burden_needs_more_than_one_success() -> None:
    it = after(*["network"] * 20)
    it = health.worked(it, 0.0)
    assert it.resting and it.may_be_tried(0.0), "still below the upper mark: the next may try at once"
    it = health.worked(it, 0.0)
    assert not it.resting
    it = health.failed(it, "network", 0.0)
    assert not it.resting, "between the marks it stays as it was"


def test_one_that_falls_again_soon_rests_longer_and_one_that_was_well_for_long_does_not() -> None:
    it = after("network", "network", "network")
    it = health.worked(it, 30.0)
    soon = it
    for _ in range(3):
        soon = health.failed(soon, "network", 31.0)
    assert soon.resting and soon.pause == 60.0
    late = it
    for _ in range(4):
        late = health.failed(late, "network", 10_000.0)
    assert late.resting and late.pause == 30.0


def test_a_pause_has_an_end() -> None:
    it = after("login")
    for _ in range(20):
        it = health.failed(it, "login", it.try_at)
    assert it.pause == 1800.0


def test_ways_are_apart_and_what_is_well_again_is_forgotten() -> None:
    healths = Healths()
    healths.failed(WAY, "login", 0.0)
    assert healths.of(WAY).resting and not healths.of(("smart_host", "b.test", "25")).resting
    assert [key for key, _ in healths.known()] == [WAY]
    healths.worked(("never", "seen"), 0.0)
    for _ in range(3):
        healths.worked(WAY, 100.0)
    assert len(healths) == 0


def test_how_many_are_remembered_is_bounded_and_the_worst_stay() -> None:
    healths = Healths(most=20)
    for _ in range(4):
        healths.failed(WAY, "login", 0.0)
    for number in range(1000):
        healths.failed(("direct", "dal", f"mx{number}.test"), "network", 0.0)
    assert len(healths) <= 20 and healths.of(WAY).resting
