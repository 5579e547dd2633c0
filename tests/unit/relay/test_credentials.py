"""Logins: the slow hash runs where it must, and never tells who exists."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from dataclasses import replace as changed

import pytest
from argon2.exceptions import VerifyMismatchError

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Sender
from outgate.relay.credentials import Busy, Credentials, password_hasher
from support.submission import CHEAP, USER, sender

GOOD = sender(verifier=CHEAP.hash("right"))


@dataclass
class Senders:
    known: dict[str, Sender] = field(default_factory=lambda: {USER: GOOD})
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None
    gate: threading.Event | None = None

    def sender(self, username: str) -> Sender | None:
        self.asked.append(username)
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return self.known.get(username)


@dataclass
class CountingHasher:
    verified: list[str] = field(default_factory=list)

    def verify(self, verifier: str, password: str) -> bool:
        self.verified.append(verifier)
        if verifier.startswith("broken"):
            raise VerifyMismatchError
        return CHEAP.verify(verifier, password)


def check(
    credentials: Credentials, user: str = USER, password: str = "right"
) -> tuple[Sender | None, Exception | None]:
    done = threading.Event()
    found: list[tuple[Sender | None, Exception | None]] = []

    def took(result: Sender | None, error: Exception | None) -> None:
        found.append((result, error))
        done.set()

    credentials.check(user, password, took)
    assert done.wait(10)
    return found[0]


@pytest.fixture
def senders() -> Senders:
    return Senders()


@pytest.fixture
def credentials(senders: Senders):  # type: ignore[no-untyped-def]
    made = Credentials(senders, FrozenClock())
    made._hasher = CountingHasher()  # type: ignore[assignment]
    yield made
    made.close()


def test_right_wrong_and_unknown_each_cost_one_hash(credentials: Credentials) -> None:
    hasher: CountingHasher = credentials._hasher  # type: ignore[assignment]
    assert check(credentials) == (GOOD, None)
    assert check(credentials, password="wrong") == (None, None)
    assert check(credentials, user="zzzzzzzzzzzzzzzzzz00") == (None, None)
    assert len(hasher.verified) == 3
    assert hasher.verified[2] == credentials._dummy


def test_unknown_names_are_checked_at_the_real_price() -> None:
    made = Credentials(Senders(), FrozenClock())
    profile = password_hasher()
    assert not profile.check_needs_rehash(made._dummy)
    made.close()


def test_a_right_login_is_remembered_until_its_verifier_changes(senders: Senders, credentials: Credentials) -> None:
    assert credentials.remembered(USER, "right") is None
    check(credentials)
    assert credentials.remembered(USER, "right") is GOOD
    assert credentials.remembered(USER, "wrong") is None
    assert credentials.remembered(USER + "r", "ight") is None
    senders.known[USER] = changed(GOOD, configurations={})  # a change of something else costs no new hash
    credentials.forget()
    found = credentials.remembered(USER, "right")
    assert found is not None and found.configurations == {}
    senders.known[USER] = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    credentials.forget()
    assert credentials.remembered(USER, "right") is None
    senders.known[USER] = GOOD
    credentials.forget()
    assert credentials.remembered(USER, "right") is None  # once void, it is checked anew


def test_a_deleted_user_is_not_remembered(senders: Senders, credentials: Credentials) -> None:
    check(credentials)
    del senders.known[USER]
    credentials.forget()
    assert credentials.remembered(USER, "right") is None


def test_a_wrong_login_is_not_remembered(credentials: Credentials) -> None:
    check(credentials, password="wrong")
    assert credentials.remembered(USER, "wrong") is None


def test_a_rotation_while_we_look_is_not_overlooked(senders: Senders, credentials: Credentials) -> None:
    senders.gate = threading.Event()
    done = threading.Event()
    credentials.check(USER, "right", lambda *_: done.set())
    while not senders.asked:
        pass
    senders.known[USER] = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    credentials.forget()
    senders.gate.set()
    assert done.wait(10)
    assert credentials.remembered(USER, "right") is None


def test_current_follows_the_store(senders: Senders, credentials: Credentials) -> None:
    assert credentials.current(GOOD) is GOOD
    assert credentials.current(GOOD) is GOOD
    assert len(senders.asked) == 1  # memory, until something changes
    senders.known[USER] = changed(GOOD, configurations={})
    credentials.forget()
    found = credentials.current(GOOD)
    assert found is not None and found.configurations == {}


def test_a_rotated_password_and_a_deleted_user_void_the_login(senders: Senders, credentials: Credentials) -> None:
    rotated = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    senders.known[USER] = rotated
    assert credentials.current(GOOD) is None
    del senders.known[USER]
    credentials.forget()
    assert credentials.current(GOOD) is None


def test_a_bounded_number_may_wait(senders: Senders) -> None:
    credentials = Credentials(senders, FrozenClock(), waiting=2)
    senders.gate = threading.Event()
    done = [threading.Event(), threading.Event()]
    for event in done:
        credentials.check(USER, "x", lambda *_, event=event: event.set())
    with pytest.raises(Busy):
        credentials.check(USER, "x", lambda *_: None)
    senders.gate.set()
    assert all(event.wait(10) for event in done)
    assert check(credentials, password="x") == (None, None)  # there is room again
    credentials.close()


def test_a_failing_store_is_an_error_and_not_a_wrong_password(senders: Senders, credentials: Credentials) -> None:
    senders.error = OSError("database")
    found, error = check(credentials)
    assert found is None and isinstance(error, OSError)
    senders.error = None
    assert check(credentials)[0] is GOOD


def test_a_verifier_that_is_none_is_a_wrong_password(senders: Senders) -> None:
    senders.known[USER] = changed(GOOD, credential=changed(GOOD.credential, verifier="nonsense"))
    credentials = Credentials(senders, FrozenClock())
    assert check(credentials) == (None, None)
    credentials.close()
