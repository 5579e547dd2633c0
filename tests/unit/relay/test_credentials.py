"""Logins: the slow hash runs where it must, and never tells who exists."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Credential, Sender
from outgate.relay import credentials as credentials_module
from outgate.relay import passwords
from outgate.relay.credentials import Busy, Credentials
from outgate.store.identity import ApiKey
from support.submission import CHEAP, USER, sender

GOOD = sender(verifier=CHEAP.hash("right"))
KEY = ApiKey("ApiKey-1", "acc", "shop", frozenset({"smtp"}), 0.0, None)
KEY_TEXT = "0123456789abcdef" * 3
NOBODY = "zzzzzzzzzzzzzzzzzz00"


@dataclass
class Senders:
    known: dict[str, Sender] = field(default_factory=lambda: {USER: GOOD})
    asked: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    reading: Callable[[], None] = lambda: None
    error: Exception | None = None
    gate: threading.Event | None = None
    loop: threading.Thread | None = None  # where nothing is read

    def credential(self, username: str) -> tuple[Credential, str] | None:
        found = self.known.get(username)
        self.asked.append(username)
        if self.gate is not None:  # what was read before a change is judged after it
            assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return None if found is None else (found.credential, found.instance.account_id)

    def senders(self, usernames: Collection[str]) -> dict[str, Sender]:
        assert threading.current_thread() is not self.loop
        self.read += usernames
        found = {name: sender for name in usernames if (sender := self.known.get(name)) is not None}
        if usernames:
            self.reading()
        return found


@dataclass
class Keys:
    known: dict[str, ApiKey] = field(default_factory=lambda: {KEY_TEXT: KEY})
    asked: list[str] = field(default_factory=list)

    def find_api_key(self, clear: str) -> ApiKey | None:
        self.asked.append(clear)
        return self.known.get(clear)

    def api_key(self, key_id: str) -> ApiKey | None:
        return next((key for key in self.known.values() if key.id == key_id), None)


class Counting:
    """Compares passwords, and counts how many computations that takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.computed = 0
        compute = passwords._compute

        def counted(secret: bytes, like: Any) -> bytes:
            self.computed += 1
            return compute(secret, like)

        monkeypatch.setattr(passwords, "_compute", counted)


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


def away(work: Callable[[], object]) -> None:
    """Do something off the event loop, as the service does."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)


@pytest.fixture
def senders() -> Senders:
    return Senders()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
def credentials(senders: Senders, keys: Keys, clock: FrozenClock):  # type: ignore[no-untyped-def]
    before = set(threading.enumerate())
    made = Credentials(senders, keys, clock)
    yield made
    made.close()
    # A computation that is under way would be counted in the next test.
    for thread in set(threading.enumerate()) - before:
        thread.join(60)


LONG = "x" * 12_288
ROTATED = {"former_verifier": CHEAP.hash("old", salt=b"s" * 16), "former_until": FrozenClock().now() + 60}


@pytest.mark.parametrize(("user", "password"), [
    (USER, "wrong"), (USER, ""), (USER, LONG), (USER, "r\u00efght"), (USER, "r\xadight"), (USER, "right "),
    (NOBODY, "right"), (NOBODY, "wrong"), (NOBODY, KEY_TEXT), (LONG, "right"), ("", ""), (USER.upper(), "right"),
    (USER, "0" * 48), ("rotated", "wrong"), ("foreign", KEY_TEXT),
])  # fmt: skip
def test_whatever_is_wrong_costs_the_same(
    senders: Senders, keys: Keys, credentials: Credentials, counting: Counting, user: str, password: str
) -> None:
    """One row of a name, one of a key's text, one computation: no more and no less."""
    latter = CHEAP.hash("new", salt=b"s" * 16)
    senders.known["rotated"] = changed(GOOD, credential=changed(GOOD.credential, verifier=latter, **ROTATED))
    senders.known["foreign"] = changed(GOOD, instance=changed(GOOD.instance, account_id="another"))
    assert check(credentials, user, password) == (None, None)
    assert (len(senders.asked), len(senders.read), len(keys.asked), counting.computed) == (1, 0, 1, 1)
    assert all(len(asked) <= 256 for asked in senders.asked + keys.asked)
    assert credentials.remembered(user, password) is None


def test_the_right_password_costs_one_computation_and_then_none(
    senders: Senders, credentials: Credentials, counting: Counting
) -> None:
    assert check(credentials) == (GOOD, None)
    assert credentials.remembered(USER, "right") is GOOD
    assert counting.computed == 1


def test_what_is_remembered_ends_after_a_quarter_of_an_hour(credentials: Credentials, clock: FrozenClock) -> None:
    check(credentials)
    clock.advance(899)
    assert credentials.remembered(USER, "right") is GOOD
    clock.advance(2)
    assert credentials.remembered(USER, "right") is None
    check(credentials)
    assert credentials.remembered(USER, "right") is GOOD


def test_of_too_many_those_that_end_first_are_forgotten(
    senders: Senders, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "_REMEMBERED", 3)
    senders.known = {str(number): GOOD for number in range(5)}
    for user in ("0", "1", "2", "0", "3", "4"):  # a login that is remembered is not checked anew
        check(credentials, user)
    assert [user for user in senders.known if credentials.remembered(user, "right")] == ["2", "3", "4"]


def test_a_right_login_is_remembered_until_its_verifier_changes(senders: Senders, credentials: Credentials) -> None:
    assert credentials.remembered(USER, "right") is None
    check(credentials)
    assert credentials.remembered(USER, "right") is GOOD
    assert credentials.remembered(USER, "wrong") is None
    assert credentials.remembered(USER + "r", "ight") is None
    senders.known[USER] = changed(GOOD, configurations={})
    credentials.forget([GOOD])
    found = credentials.remembered(USER, "right")
    assert found is not None and found.configurations == {}
    senders.known[USER] = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    credentials.forget([GOOD])
    assert credentials.remembered(USER, "right") is None
    assert not credentials.is_remembered(USER, "right")
    senders.known[USER] = GOOD
    credentials.forget([GOOD])
    assert credentials.remembered(USER, "right") is None  # once void, it is checked anew


def test_a_remembered_login_is_read_anew_after_a_change_in_a_thread_and_without_a_hash(
    senders: Senders, credentials: Credentials, counting: Counting
) -> None:
    check(credentials)
    senders.known[USER] = changed(GOOD, configurations={})
    senders.loop = threading.current_thread()
    away(credentials.forget)
    assert credentials.remembered(USER, "right") is None
    assert credentials.is_remembered(USER, "right") and not credentials.is_remembered(USER, "wrong")
    assert not credentials.is_remembered(USER, LONG)
    found, _ = check(credentials)
    assert found is not None and found.configurations == {}
    assert credentials.remembered(USER, "right") == found
    assert counting.computed == 1


def test_who_is_only_to_be_read_does_not_wait_behind_guesses(senders: Senders, credentials: Credentials) -> None:
    check(credentials)
    credentials.forget()
    senders.gate = threading.Event()
    told: list[object] = []
    for number in range(100):
        credentials.check(USER, f"wrong {number}", lambda *_: told.append(1), source="flood")
    assert check(credentials) == (GOOD, None)
    assert not told
    senders.gate.set()


def test_a_remembered_login_that_is_void_is_checked_like_any_other(
    senders: Senders, credentials: Credentials, counting: Counting
) -> None:
    check(credentials)
    senders.known[USER] = changed(GOOD, credential=changed(GOOD.credential, verifier=CHEAP.hash("new")))
    credentials.forget()
    assert check(credentials) == (None, None)
    assert counting.computed == 2
    assert not credentials.is_remembered(USER, "right")


def test_a_deleted_user_is_not_remembered(senders: Senders, credentials: Credentials) -> None:
    check(credentials)
    del senders.known[USER]
    credentials.forget()
    assert check(credentials) == (None, None)
    assert credentials.remembered(USER, "right") is None and not credentials.is_remembered(USER, "right")


def test_a_wrong_login_is_not_remembered(credentials: Credentials) -> None:
    check(credentials, password="wrong")
    assert credentials.remembered(USER, "wrong") is None


def test_a_rotation_while_we_look_is_not_overlooked(senders: Senders, credentials: Credentials) -> None:
    """The verifier that the login was right for is not the one that the rest of the sender comes with."""
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
    check(credentials)
    senders.loop = threading.current_thread()
    read = len(senders.read)
    assert credentials.current(GOOD) is GOOD
    assert credentials.current(GOOD) is GOOD
    assert len(senders.read) == read  # memory
    senders.known[USER] = changed(GOOD, configurations={})
    away(lambda: credentials.forget([GOOD]))
    found = credentials.current(GOOD)
    assert found is not None and found.configurations == {}


def test_a_rotated_password_and_a_deleted_user_void_the_login(senders: Senders, credentials: Credentials) -> None:
    rotated = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    senders.known[USER] = rotated
    credentials.forget([GOOD])
    assert credentials.current(GOOD) is None
    del senders.known[USER]
    credentials.forget([GOOD])
    assert credentials.current(GOOD) is None


def test_who_is_not_in_memory_is_who_he_was_until_the_next_look(senders: Senders, credentials: Credentials) -> None:
    check(credentials)
    assert not credentials.is_due()
    senders.known[USER] = changed(GOOD, configurations={})
    senders.loop = threading.current_thread()
    away(credentials.forget)  # he logged in too late to be among those in use
    assert credentials.current(GOOD) is GOOD
    assert credentials.is_due()
    away(credentials.follow)
    found = credentials.current(GOOD)
    assert found is not None and found.configurations == {}
    assert not credentials.is_due()


def test_a_look_that_fails_is_made_again(senders: Senders, credentials: Credentials) -> None:
    def fail() -> None:
        raise OSError("database")

    credentials.current(GOOD)
    senders.reading = fail
    with pytest.raises(OSError, match="database"):
        credentials.follow()
    assert credentials.is_due()
    senders.reading = lambda: None
    credentials.follow()
    assert not credentials.is_due()


def test_what_was_read_before_a_change_is_read_again(senders: Senders, credentials: Credentials) -> None:
    """A login whose sender was read, but not yet told, when a change came; and one that came during the look."""
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(10)

    senders.reading = hold
    done = threading.Event()
    credentials.check(USER, "right", lambda *_: done.set())
    assert held.wait(10)
    senders.reading = lambda: None
    del senders.known[USER]
    credentials.forget()
    go.set()
    assert done.wait(10)
    while not credentials.is_due():
        pass
    credentials.follow()
    assert credentials.current(GOOD) is None


def test_what_was_read_during_a_look_is_kept(senders: Senders, credentials: Credentials) -> None:
    check(credentials)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(10)

    senders.reading = hold
    look = threading.Thread(target=lambda: credentials.forget([changed(GOOD, credential=other.credential)]))
    other = changed(GOOD, credential=changed(GOOD.credential, username="other"))
    look.start()
    assert held.wait(10)
    senders.reading = lambda: None
    senders.known[USER] = changed(GOOD, configurations={})
    found, _ = check(credentials)
    go.set()
    look.join(10)
    assert found is not None and found.configurations == {}
    assert credentials.remembered(USER, "right") == found
    assert not credentials.is_due()


def test_a_bounded_number_may_wait(senders: Senders) -> None:
    credentials = Credentials(senders, Keys(), FrozenClock(), waiting=3)
    senders.gate = threading.Event()
    done = [threading.Event(), threading.Event()]
    for number, event in enumerate(done):
        credentials.check(USER, f"x{number}", lambda *_, event=event: event.set(), source=f"source {number}")
    with pytest.raises(Busy):
        credentials.check(USER, "y", lambda *_: None, source="source 1")
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
    credentials = Credentials(senders, Keys(), FrozenClock())
    assert check(credentials) == (None, None)
    credentials.close()


def together(credentials: Credentials, gate: threading.Event, logins: Sequence[tuple[str, str]]) -> list[Sender | None]:
    """Begin logins while none can end, then let them; return what came of each."""
    found: list[Sender | None] = [None] * len(logins)
    done = [threading.Event() for _ in logins]

    def took(number: int) -> Callable[[Sender | None, Exception | None], None]:
        def take(result: Sender | None, error: Exception | None) -> None:
            found[number] = result
            done[number].set()

        return take

    for number, (user, password) in enumerate(logins):
        credentials.check(user, password, took(number))
    gate.set()
    assert all(event.wait(10) for event in done)
    return found


def test_logins_that_come_together_share_one_computation(
    senders: Senders, credentials: Credentials, counting: Counting
) -> None:
    senders.gate = threading.Event()
    logins = [(USER, "right")] * 20 + [(USER, "wrong")] * 20
    assert together(credentials, senders.gate, logins) == [GOOD] * 20 + [None] * 20
    assert counting.computed == 2
    assert not credentials._checking


def test_a_login_after_a_change_does_not_join_a_check_from_before(senders: Senders, credentials: Credentials) -> None:
    senders.gate = threading.Event()
    first, second = threading.Event(), threading.Event()
    found: list[Sender | None] = []
    credentials.check(USER, "new", lambda *_: first.set())
    while not senders.asked:
        pass
    credentials.forget()
    credentials.check(USER, "new", lambda sender, _: (found.append(sender), second.set()))  # type: ignore[func-returns-value]
    rotated = changed(GOOD, credential=changed(GOOD.credential, verifier=CHEAP.hash("new")))
    senders.known[USER] = rotated
    senders.gate.set()
    assert first.wait(10) and second.wait(10)
    assert found == [rotated]


def test_a_flood_of_wrong_logins_does_not_starve_right_ones(senders: Senders) -> None:
    credentials = Credentials(senders, Keys(), FrozenClock(), waiting=40)
    senders.gate = threading.Event()
    order: list[str] = []
    done = threading.Event()

    def told(name: str) -> Callable[[Sender | None, Exception | None], None]:
        def tell(sender: Sender | None, _: Exception | None) -> None:
            order.append(name if sender is not None else "wrong")
            if len(order) == 21:
                done.set()

        return tell

    busy = 0
    for number in range(100):
        try:
            credentials.check(USER, f"wrong {number}", told("flood"), source="flood")
        except Busy:
            busy += 1
    assert busy == 80
    credentials.check(USER, "right", told("owner"), source="owner")
    senders.gate.set()
    assert done.wait(10)
    assert "owner" in order[:3]
    credentials.close()


def test_a_failed_check_is_told_to_all_who_wait(senders: Senders, credentials: Credentials) -> None:
    senders.gate, senders.error = threading.Event(), OSError("database")
    assert together(credentials, senders.gate, [(USER, "right")] * 3) == [None] * 3
    senders.error = None
    assert check(credentials) == (GOOD, None)


# -- API keys as passwords ------------------------------------------------------------------------------------


def test_an_api_key_is_a_password_of_every_user_of_its_account(
    senders: Senders, credentials: Credentials, counting: Counting
) -> None:
    found, _ = check(credentials, USER, KEY_TEXT)
    assert found == changed(GOOD, key_id=KEY.id)
    assert credentials.remembered(USER, KEY_TEXT) == found
    assert counting.computed == 0  # its digest is enough
    assert credentials.remembered(USER, "right") is None
    assert check(credentials, NOBODY, KEY_TEXT) == (None, None)


@pytest.mark.parametrize("change", [
    {"roles": frozenset({"manager", "writer"})}, {"account_id": "another"}, {"instances": frozenset({"another"})},
    {"expires_at": FrozenClock().now()},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_a_key_that_does_not_open_the_instance(
    senders: Senders, keys: Keys, credentials: Credentials, change: dict[str, Any]
) -> None:
    bound = changed(KEY, instances=frozenset({"inst", "more"}))
    keys.known[KEY_TEXT] = bound
    session, _ = check(credentials, USER, KEY_TEXT)
    assert session is not None and credentials.current(session) is not None
    keys.known[KEY_TEXT] = changed(bound, **change)
    credentials.forget([session])
    assert credentials.current(session) is None
    assert credentials.remembered(USER, KEY_TEXT) is None
    assert check(credentials, USER, KEY_TEXT) == (None, None)
    keys.known[KEY_TEXT] = bound
    credentials.forget([session])
    assert credentials.remembered(USER, KEY_TEXT) is None  # once void, it is checked anew
    assert credentials.current(session) is not None


def test_a_key_ends_at_its_time_without_a_change_of_the_store(
    keys: Keys, credentials: Credentials, clock: FrozenClock
) -> None:
    keys.known[KEY_TEXT] = changed(KEY, expires_at=clock.now() + 60)
    session, _ = check(credentials, USER, KEY_TEXT)
    assert session is not None
    clock.advance(59)
    assert credentials.current(session) is not None and not credentials.is_due()
    clock.advance(1)
    assert credentials.is_due()
    assert credentials.current(session) is None
    assert credentials.remembered(USER, KEY_TEXT) is None
    credentials.follow()
    assert not credentials.is_due()


def test_the_next_end_is_the_nearest(
    senders: Senders, keys: Keys, credentials: Credentials, clock: FrozenClock
) -> None:
    """Also when a look reads it; an overlap's too."""
    session, _ = check(credentials, USER, KEY_TEXT)
    old, _ = check(credentials)
    assert session is not None and old is not None
    clock.advance(1e9)
    assert not credentials.is_due()
    keys.known[KEY_TEXT] = changed(KEY, expires_at=clock.now() + 60)
    credential = changed(
        GOOD.credential, verifier="another", former_verifier=GOOD.credential.verifier, former_until=clock.now() + 30
    )
    senders.known[USER] = changed(GOOD, credential=credential)
    credentials.forget([session, old])
    clock.advance(29)
    assert not credentials.is_due() and credentials.current(old) is not None
    clock.advance(1)
    assert credentials.is_due() and credentials.current(old) is None
    credentials.follow()
    clock.advance(29)
    assert not credentials.is_due() and credentials.current(session) is not None
    clock.advance(1)
    assert credentials.is_due() and credentials.current(session) is None


def test_between_commands_nothing_is_made(keys: Keys, credentials: Credentials) -> None:
    session, _ = check(credentials, USER, KEY_TEXT)
    assert session is not None
    assert credentials.current(session) is credentials.current(session)


def test_a_deleted_key_or_user_voids_the_login(senders: Senders, keys: Keys, credentials: Credentials) -> None:
    session, _ = check(credentials, USER, KEY_TEXT)
    assert session is not None
    rotated = changed(GOOD, credential=changed(GOOD.credential, verifier="another"))
    senders.known[USER] = rotated
    credentials.forget([session])
    assert credentials.current(session) == changed(rotated, key_id=KEY.id)  # the password is not what logged in
    del senders.known[USER]
    credentials.forget([session])
    assert credentials.current(session) is None
    senders.known[USER] = GOOD
    del keys.known[KEY_TEXT]
    credentials.forget([session])
    assert credentials.current(session) is None


def test_who_is_in_use_is_read_where_it_blocks_nobody(senders: Senders, credentials: Credentials) -> None:
    password, _ = check(credentials)
    key, _ = check(credentials, USER, KEY_TEXT)
    assert password is not None and key is not None
    senders.read.clear()
    credentials.forget([password, key, password])
    assert senders.read == [USER]
    assert credentials.current(password) is not None and credentials.current(key) is not None
    assert senders.read == [USER]
