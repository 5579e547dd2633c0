"""Guessing: whatever happens, owners get in, thieves are held, memory stays small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.relay.guessing import Guessing

NAMES = st.sampled_from(["alice", "bob", "nobody", ""])
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["failed", "failed", "failed", "right"]),
        NAMES,
        ADDRESSES,
        st.integers(0, 30),
        st.floats(0, 120),
        st.integers(1, 40),
    ),
    max_size=60,
)
START = 1_800_000_000.0


def play(guessing: Guessing, steps: list[tuple[str, str, str, int, float, int]]) -> tuple[float, set[tuple[str, str]]]:
    """Run the steps; return the time, and who logged in rightly from where."""
    now, familiar = START, set[tuple[str, str]]()
    for what, name, address, password, passed, times in steps:
        now += passed
        if what == "right":
            guessing.right(name, address, now)
            familiar.add((name, address))
            continue
        for number in range(times):
            slowed = guessing.failed(name, address, f"{name} {password + number}".encode(), now)
            assert slowed is None or (slowed.wait_s is not None and 0 < slowed.wait_s <= 8)
    return now, familiar


@given(STEPS)
def test_whoever_logged_in_from_there_is_never_slowed(steps: list[tuple[str, str, str, int, float, int]]) -> None:
    guessing = Guessing()
    now, familiar = play(guessing, steps)
    for name, address in familiar:
        assert guessing.before(name, address, now) is None


@given(STEPS, NAMES)
def test_no_name_is_refused_at_an_address_where_nothing_failed(
    steps: list[tuple[str, str, str, int, float, int]], name: str
) -> None:
    guessing = Guessing()
    now, _ = play(guessing, steps)
    slowed = guessing.before(name, "203.0.113.9", now)
    assert slowed is None or (slowed.wait_s is not None and slowed.wait_s <= 8)


@given(STEPS, NAMES, ADDRESSES)
def test_every_refusal_ends_within_a_minute_of_the_last_failure(
    steps: list[tuple[str, str, str, int, float, int]], name: str, address: str
) -> None:
    guessing = Guessing()
    now, _ = play(guessing, steps)
    slowed = guessing.before(name, address, now + 61)
    assert slowed is None or slowed.wait_s is not None


@given(STEPS)
def test_an_address_gets_few_new_guesses_checked(steps: list[tuple[str, str, str, int, float, int]]) -> None:
    """Whatever went before, a thief who tries a new password each second has few of them looked at."""
    guessing = Guessing()
    now, _ = play(guessing, steps)
    looked_at = 0
    for second in range(600):
        if (slowed := guessing.before("victim", "203.0.113.9", now + second)) is None or slowed.wait_s is not None:
            looked_at += 1
            guessing.failed("victim", "203.0.113.9", f"guess {second}".encode(), now + second)
            guessing.right("own", "203.0.113.9", now + second)
    assert looked_at <= 20 + 600 / 15 + 600 / 6 + 2


@given(STEPS, NAMES, ADDRESSES)
def test_a_name_is_refused_only_where_it_failed_itself(
    steps: list[tuple[str, str, str, int, float, int]], name: str, address: str
) -> None:
    guessing = Guessing()
    now, _ = play(guessing, [step for step in steps if step[0] == "right" or step[1] != name])
    slowed = guessing.before(name, address, now)
    assert slowed is None or (slowed.wait_s is not None and 0 < slowed.wait_s <= 8)


@given(STEPS, st.integers(1, 4))
def test_memory_is_bounded_whatever_comes(steps: list[tuple[str, str, str, int, float, int]], kept: int) -> None:
    guessing = Guessing(kept=kept)
    play(guessing, steps)
    assert max(map(len, (guessing._sources, guessing._names, guessing._familiar))) <= kept
    assert len(guessing._failed) <= 2 * kept
