"""Scores are bounded and move one way with each thing that happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.relay import health
from outgate.relay.health import Health, Healths

REASONS = st.sampled_from(["network", "timeout", "unavailable", "tls", "login", "loop", "dns", "new-word"])
HAPPENED = st.lists(
    st.tuples(st.floats(0.0, 1e5), st.one_of(REASONS, st.sampled_from(["worked", "tried"]))), max_size=60
)


def lived(happened: list[tuple[float, str]]) -> tuple[Health, float]:
    it, now = Health(), 0.0
    for later, what in happened:
        now += later
        if what == "worked":
            it = health.worked(it, now)
        elif what == "tried":
            it = health.tried(it, now)
        else:
            it = health.failed(it, what, now)
        assert 0.0 < it.score(now) <= 1.0
        assert 0.0 <= it.pause <= 1800.0
        assert not it.resting or it.try_at <= now + it.pause
    return it, now


@given(HAPPENED, REASONS)
def test_a_failure_never_raises_the_score_nor_ends_a_rest(happened: list[tuple[float, str]], reason: str) -> None:
    it, now = lived(happened)
    worse = health.failed(it, reason, now)
    assert worse.score(now) <= it.score(now)
    assert worse.resting or not it.resting


@given(HAPPENED)
def test_a_success_never_lowers_the_score_nor_begins_a_rest(happened: list[tuple[float, str]]) -> None:
    it, now = lived(happened)
    better = health.worked(it, now)
    assert better.score(now) >= it.score(now)
    assert it.resting or not better.resting


@given(HAPPENED, st.floats(0.0, 1e7), st.floats(0.0, 1e7))
def test_time_never_lowers_it(happened: list[tuple[float, str]], one: float, more: float) -> None:
    it, now = lived(happened)
    assert it.score(now + one) <= it.score(now + one + more)


@given(HAPPENED)
def test_whatever_happened_a_way_comes_back_after_its_pause_and_some_successes(
    happened: list[tuple[float, str]],
) -> None:
    it, now = lived(happened)
    now = max(now, it.try_at, it.trying_until)
    for _ in range(3):
        assert not it.resting or it.may_be_tried(now)
        it = health.worked(it, now)
    assert not it.resting


@given(st.lists(st.tuples(st.integers(0, 100), REASONS), max_size=300), st.integers(1, 20))
def test_memory_is_bounded(happened: list[tuple[int, str]], most: int) -> None:
    healths = Healths(most=most)
    for number, reason in happened:
        healths.failed(("direct", "dal", str(number)), reason, 0.0)
        assert len(healths) <= most
