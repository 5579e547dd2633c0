"""Guessing is slowed by address and by name, and nobody's owner is locked out."""

from __future__ import annotations

import pytest

from outgate.relay.guessing import REFUSED_AT, Guessing
from outgate.smtp.fairness import source_of

NOW = 1_800_000_000.0
OWNER, THIEF = "192.0.2.1", "198.51.100.7"
NAME = "abcdefghijklmnopqr42"


def guess(guessing: Guessing, times: int, *, name: str = NAME, address: str = THIEF, now: float = NOW) -> list[float]:
    """Fail so many times with as many passwords; return how long each answer waits."""
    waits: list[float] = []
    for number in range(times):
        slowed = guessing.failed(name, address, f"{name} {number} {now}".encode(), now)
        waits.append(0.0 if slowed is None or slowed.wait_s is None else slowed.wait_s)
    return waits


def refused(guessing: Guessing, name: str, address: str, now: float = NOW) -> bool:
    slowed = guessing.before(name, address, now)
    return slowed is not None and slowed.wait_s is None


def waits(guessing: Guessing, name: str, address: str, now: float = NOW) -> float:
    slowed = guessing.before(name, address, now)
    return 0.0 if slowed is None or slowed.wait_s is None else slowed.wait_s


def test_a_few_failures_are_free_and_then_answers_come_later_and_later() -> None:
    assert guess(Guessing(), 10) == [0, 0, 0, 0, 0, 1, 2, 4, 8, 8]


def test_an_address_that_goes_on_is_refused_for_a_while() -> None:
    guessing = Guessing()
    guess(guessing, REFUSED_AT - 1)
    assert not refused(guessing, NAME, THIEF)
    guess(guessing, 200)
    slowed = guessing.before(NAME, THIEF, NOW)
    assert slowed is not None and slowed.wait_s is None
    assert THIEF in slowed.reason and slowed.remedy
    assert not refused(guessing, NAME, OWNER)
    assert refused(guessing, NAME, THIEF, NOW + 55)
    assert not refused(guessing, NAME, THIEF, NOW + 61)
    guess(guessing, 1, now=NOW + 61)
    assert refused(guessing, NAME, THIEF, NOW + 61)  # one guess, and the level is back


def test_a_name_that_did_not_fail_at_a_refused_address_waits_there_and_is_checked() -> None:
    guessing = Guessing()
    guess(guessing, 200)
    slowed = guessing.before("another", THIEF, NOW)
    assert slowed is not None and slowed.wait_s == 8 and not slowed.for_others
    assert THIEF in slowed.reason and slowed.remedy
    assert guess(guessing, 1, name="another") == [8]
    assert refused(guessing, "another", THIEF)  # each name has one guess
    for second in range(0, 3600, 10):
        guess(guessing, 1, now=NOW + second)
    assert waits(guessing, "another", THIEF, NOW + 3601) == 8  # in an hour
    assert guessing.before("another", OWNER, NOW) is None


def test_whoever_tries_many_names_waits_for_each() -> None:
    guessing = Guessing()
    for number in range(500):
        if number > REFUSED_AT:
            assert waits(guessing, f"n{number}", THIEF) == 8
        guess(guessing, 1, name=f"n{number}")
        assert refused(guessing, f"n{number}", THIEF) is (number >= REFUSED_AT - 1)


def test_who_sent_from_where_is_familiar_there() -> None:
    guessing = Guessing()
    guessing.remember([(NAME, "2001:db8:1:2::1", NOW - 6 * 86_400), ("another", OWNER, NOW - 8 * 86_400)])
    for address in ("2001:db8:1:2::7", OWNER):
        guess(guessing, 40, address=address)
        guess(guessing, 40, name="another", address=address)
    assert guessing.before(NAME, "2001:db8:1:2::9", NOW) is None
    assert refused(guessing, NAME, OWNER)
    assert refused(guessing, "another", OWNER)  # more than a week ago


def test_what_sinks_is_forgotten() -> None:
    guessing = Guessing()
    guess(guessing, 10)
    assert guess(guessing, 1, now=NOW + 3600) == [0]


def test_a_clock_that_goes_back_lowers_nothing() -> None:
    guessing = Guessing()
    guess(guessing, 30)
    assert refused(guessing, NAME, THIEF, NOW - 3600)


def test_the_same_wrong_login_again_is_no_guess() -> None:
    guessing = Guessing()
    for minute in range(600):
        guessing.failed(NAME, THIEF, b"old password", NOW + 6 * minute)
    assert guessing.before("another", THIEF, NOW + 3600) is None
    assert guessing.failed(NAME, THIEF, b"old password", NOW + 3600) is None


def test_one_wrong_login_that_many_try_without_end_refuses_nobody_beside_them() -> None:
    guessing = Guessing()
    for number in range(5000):
        slowed = guessing.failed(NAME, THIEF, b"old password", NOW + number / 10)
        assert guessing.before("another", THIEF, NOW + number / 10) is None
    assert slowed is not None and slowed.wait_s == 8  # they themselves wait for their answers
    guess(guessing, REFUSED_AT, now=NOW + 500)
    assert refused(guessing, NAME, THIEF, NOW + 500)
    guessing.failed(NAME, THIEF, b"old password", NOW + 500)  # nor is it a way to be refused no longer
    assert refused(guessing, NAME, THIEF, NOW + 500)


def test_an_ipv6_client_is_its_network() -> None:
    guessing = Guessing()
    for number in range(40):
        guess(guessing, 1, name=f"n{number}", address=f"2001:db8:1:2::{number:x}")
    assert refused(guessing, "n3", "2001:db8:1:2:ffff::1") and waits(guessing, NAME, "2001:db8:1:2:ffff::1") == 8
    assert guessing.before("n3", "2001:db8:1:3::1", NOW) is None
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::") != source_of("2001:db8:1:3::1")


@pytest.mark.parametrize(("form", "near", "far"), [
    ("198.51.100.{}", "198.51.100.250", "198.51.101.1"),
    ("2001:db8:1:{:x}::1", "2001:db8:1:ffff::1", "2001:db8:2::1"),
])  # fmt: skip
def test_many_addresses_of_one_network_are_refused_together(form: str, near: str, far: str) -> None:
    guessing = Guessing()
    for number in range(200):
        guess(guessing, 1, name=f"n{number}", address=form.format(number))
    assert refused(guessing, "n7", near) and waits(guessing, NAME, near) == 8
    assert guessing.before("n7", far, NOW) is None


def test_one_bad_address_does_not_refuse_its_network() -> None:
    guessing = Guessing()
    guess(guessing, 1000)
    assert not refused(guessing, NAME, "198.51.100.8")
    assert guessing.before("another", "198.51.100.8", NOW) is None


def test_a_name_that_many_addresses_fail_with_waits_and_is_never_refused() -> None:
    guessing = Guessing()
    guessing.right(NAME, OWNER, NOW)
    for number in range(2000):
        guess(guessing, 1, address=f"10.{number // 250}.{number % 250}.1", now=NOW + number)
    later = NOW + 2000
    slowed = guessing.before(NAME, "203.0.113.1", later)
    assert slowed is not None and slowed.wait_s == 8 and slowed.for_others
    assert guessing.before(NAME, OWNER, later) is None
    assert guessing.before("another", "203.0.113.1", later) is None


def test_a_familiar_address_is_let_through_whatever_others_do_there() -> None:
    guessing = Guessing()
    guessing.right(NAME, OWNER, NOW)
    guess(guessing, 100, name="somebody", address=OWNER)
    assert refused(guessing, "somebody", OWNER)
    assert guessing.before(NAME, OWNER, NOW) is None
    guess(guessing, 100, address=OWNER)
    assert guessing.before(NAME, OWNER, NOW) is None
    assert guessing.before(NAME, THIEF, NOW) is None  # the owner's own mistakes do not count against the name
    assert guessing.failed(NAME, OWNER, b"x", NOW) is not None  # but a wrong answer waits
    assert refused(guessing, NAME, OWNER, NOW + 8 * 86_400) is False
    assert guess(guessing, 40, name=NAME, address=OWNER, now=NOW + 8 * 86_400) and refused(
        guessing, NAME, OWNER, NOW + 8 * 86_400
    )  # a week without a right login


def test_right_logins_lower_the_level_of_their_address_slowly() -> None:
    guessing = Guessing()
    guess(guessing, REFUSED_AT, name="broken", address=OWNER)
    assert refused(guessing, "broken", OWNER)
    guessing.right(NAME, OWNER, NOW)
    assert not refused(guessing, "broken", OWNER)
    guess(guessing, 1, name="broken2", address=OWNER)
    for _ in range(100):
        guessing.right(NAME, OWNER, NOW)  # a thief with an account of his own does not wash guesses with it
    assert refused(guessing, "broken", OWNER)
    guessing.right(NAME, OWNER, NOW + 6)
    assert not refused(guessing, "broken", OWNER, NOW + 6)


def test_washing_from_the_start_does_not_help_either() -> None:
    guessing = Guessing()
    for number in range(100):
        guess(guessing, 1, name=f"n{number}", address=THIEF)
        guessing.right("own", THIEF, NOW)
    assert refused(guessing, "n0", THIEF) and waits(guessing, NAME, THIEF) == 8


def test_memory_is_bounded() -> None:
    guessing = Guessing(kept=50)
    for number in range(500):
        address = f"10.{number // 250}.{number % 250}.1"
        guess(guessing, 1, name=f"n{number}", address=address)
        guessing.right(f"n{number}", address, NOW)
    assert max(map(len, (guessing._sources, guessing._names, guessing._familiar))) == 50
    assert len(guessing._failed) == 100
    assert guessing.before("n499", "10.1.249.1", NOW) is None


def test_a_name_without_end_is_kept_short() -> None:
    guessing = Guessing()
    guess(guessing, 10, name="x" * 10_000)
    assert all(len(key) <= 64 for key in guessing._names._items)
