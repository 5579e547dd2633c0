"""Turnstile and pace: caps are exact, who leaves makes room, slow is slow and legal is legal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp.fairness import Pace, Turnstile


def test_caps_are_exact() -> None:
    turnstile = Turnstile(most=3, per_address=2)
    assert [turnstile.enter("a"), turnstile.enter("a")] == ["", ""]
    assert "from this address" in turnstile.enter("a")
    assert turnstile.enter("b") == ""
    assert "in all" in turnstile.enter("c")
    turnstile.leave("a")
    assert turnstile.enter("c") == "" and turnstile.inside == 3


def test_an_ipv6_client_is_its_network() -> None:
    turnstile = Turnstile(per_address=2)
    assert [turnstile.enter("2001:db8:1:2::1"), turnstile.enter("2001:db8:1:2::2")] == ["", ""]
    assert "from this address" in turnstile.enter("2001:db8:1:2:ffff::3")
    assert turnstile.enter("2001:db8:1:3::1") == ""
    turnstile.leave("2001:db8:1:2::1")
    assert turnstile.enter("2001:db8:1:2:ffff::3") == ""


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_connections_are_counted_right(moves: list[tuple[bool, str]]) -> None:
    turnstile = Turnstile(most=5, per_address=3)
    taken: list[str] = []
    for take, address in moves:
        if take:
            if not turnstile.enter(address):
                taken.append(address)
        elif address in taken:
            taken.remove(address)
            turnstile.leave(address)
        assert turnstile.inside == len(taken) <= 5
        assert all(taken.count(name) <= 3 for name in "abc")
    for address in taken:
        turnstile.leave(address)
    assert turnstile._by_address == {}


@pytest.mark.parametrize(("each", "slow"), [(100, False), (99, True)])
def test_pace_is_an_average_over_the_window(each: int, slow: bool) -> None:
    pace = Pace()
    verdicts: list[bool] = []
    for second in range(181 * 2):
        verdicts.append(pace.too_slow(1, float(second), 180.0, 100.0))
        pace.octets += each
    assert any(verdicts) is slow
    assert not any(verdicts[:180])


def test_a_link_that_stalls_within_the_window_survives() -> None:
    pace = Pace()
    assert not pace.too_slow(1, 0.0, 180.0, 100.0)
    pace.octets += 18_000  # all at once, then nothing
    assert not pace.too_slow(1, 180.0, 180.0, 100.0)
    assert pace.too_slow(1, 360.0, 180.0, 100.0)


def test_a_late_look_asks_for_more() -> None:
    pace = Pace()
    assert not pace.too_slow(1, 0.0, 180.0, 100.0)
    pace.octets += 18_000
    assert pace.too_slow(1, 181.0, 180.0, 100.0)


def test_another_message_begins_a_new_window() -> None:
    pace = Pace()
    for message in range(1, 5):
        assert not pace.too_slow(message, message * 1000.0, 180.0, 100.0)


def test_no_rate_is_any_rate() -> None:
    pace = Pace()
    assert not any(pace.too_slow(1, at * 200.0, 180.0, 0.0) for at in range(5))
