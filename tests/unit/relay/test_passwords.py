"""Verifiers: one computation, whatever is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from argon2.low_level import hash_secret_raw

from outgate.relay import passwords
from outgate.relay.passwords import new_verifier, password_hasher, which
from support.submission import CHEAP


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The salts of the computations that were made."""
    salts: list[bytes] = []

    def compute(secret: bytes, salt: bytes, *rest: Any) -> bytes:
        salts.append(salt)
        return hash_secret_raw(secret, salt, *rest)

    monkeypatch.setattr(passwords, "hash_secret_raw", compute)
    return salts


def test_a_verifier_is_its_passwords_alone() -> None:
    verifier = new_verifier("right")
    assert password_hasher().verify(verifier, "right")  # the library's own judgement
    assert which("right", [verifier]) == verifier
    assert which("wrong", [verifier]) is None
    assert new_verifier("right") != verifier


def test_two_verifiers_of_one_salt_cost_one_computation(computed: list[bytes]) -> None:
    former = new_verifier("old")
    latter = new_verifier("new", like=former)
    for password, found in (("new", latter), ("old", former), ("neither", None), ("", None)):
        computed.clear()
        assert which(password, [latter, former]) == found
        assert len(computed) == 1


def test_a_cheaper_verifier_lends_no_salt() -> None:
    latter = new_verifier("new", like=CHEAP.hash("old"))
    assert not password_hasher().check_needs_rehash(latter)
    assert which("new", [latter]) == latter


def test_verifiers_of_two_salts_are_both_tried(computed: list[bytes]) -> None:
    first, second = CHEAP.hash("a"), CHEAP.hash("b")
    assert which("b", [first, second]) == second
    assert which("a", [first, second]) == first
    assert len(computed) == 3


@pytest.mark.parametrize("verifier", ["", "nonsense", "$argon2id$v=19$m=8,t=1,p=1$$", "$argon2id$v=19$m=8,t=1$YQ$YQ"])
def test_what_is_no_verifier_matches_nothing_at_the_same_price(computed: list[bytes], verifier: str) -> None:
    assert which("x", [verifier]) is None
    assert len(computed) == 1


def test_nobodys_password_costs_what_somebodys_does(computed: list[bytes]) -> None:
    assert which("x", []) is None
    assert len(computed) == 1
    assert not password_hasher().check_needs_rehash(passwords._NOBODY)
