"""Lives of signing keys in the control database: rotation with overlap, Ed25519 beside RSA, destruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import SigningKey, signing_key
from outgate.model.tenancy import Checked, KeptKey, KeyState, NewStanding, SmtpConfiguration, Verification
from outgate.relay.standing import Schedule, after
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import NewKey, new_dkim_key, new_key_like
from outgate.store.secrets import open_box
from outgate.store.signing_keys import check_name
from outgate.store.tenancy import Conflict, NotThere
from outgate.store.verification import Transition

SUCCESSFUL, FAILED, PENDING = Verification.SUCCESSFUL, Verification.FAILED, Verification.PENDING
ACTIVE, NEXT, RETIRED = KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRED
RSA, ED = NewKey("rsa", "public", b"private"), NewKey("ed25519", "octets", b"private too")


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(tmp_path: Path, clock: FrozenClock) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    yield opened
    opened.close()


class Domain:
    """A configuration and what its zone has."""

    def __init__(self, store: ControlStore, *, second: bool = False) -> None:
        self.store = store
        instance = store.tenancy.create_instance(store.tenancy.create_account(), "eu-de", "test")
        self.made = store.tenancy.create_configuration(
            instance.id, name="n", domain="a.test", description="", key=RSA, second=ED if second else None
        )
        self.zone: set[str] = {self.made.key.selector}
        self.unknown: set[str] = set()

    @property
    def now(self) -> SmtpConfiguration:
        found = self.store.tenancy.configuration(self.made.instance_id, self.made.id)
        assert found is not None
        return found

    @property
    def keys(self) -> tuple[KeptKey, ...]:
        return self.store.signing_keys.keys(self.made.id)

    def key(self, state: KeyState, algorithm: str = "rsa") -> KeptKey:
        (found,) = (each for each in self.keys if each.state is state and each.key.algorithm == algorithm)
        return found

    def examine(self) -> list[Checked]:
        """Look at the records as the verifier does."""
        found = [Checked("a", SUCCESSFUL, "ok", ""), Checked("spf", SUCCESSFUL, "pass", "")]
        for kept in self.store.verification.keys_in_use(self.made.id):
            there = kept.key.selector in self.zone
            state = None if kept.key.selector in self.unknown else SUCCESSFUL if there else FAILED
            found.append(
                Checked(
                    check_name(kept),
                    state,
                    "ok" if there else "missing",
                    "as told",
                    kept.key.name("a.test"),
                    (),
                    None,
                    kept.key.id,
                )
            )
        return found

    def verify(self, found: Sequence[Checked] | None = None) -> Transition:
        def decide(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
            return after(configuration, checked, now, Schedule())

        (transition,) = self.store.verification.record(
            [(self.made.id, self.examine() if found is None else found)], decide, quiet=True
        )
        assert transition.after == self.now
        return transition

    def rotate(self) -> KeptKey:
        made = [RSA if kept.key.algorithm == "rsa" else ED for kept in self.keys if kept.state is ACTIVE]
        self.store.signing_keys.begin_rotation(self.made.id, made)
        return self.key(NEXT)


def test_a_rotation_changes_nothing_until_the_record_is_seen(store: ControlStore, clock: FrozenClock) -> None:
    domain = Domain(store)
    domain.verify()
    before = domain.now
    clock.advance(100)
    waiting = domain.rotate()
    assert waiting.key.selector != before.key.selector
    assert domain.now == before
    assert domain.verify().after.key == before.key and domain.now.dkim is SUCCESSFUL
    assert (domain.key(NEXT).published, domain.key(ACTIVE).published) == (FAILED, SUCCESSFUL)
    domain.zone.add(waiting.key.selector)
    clock.advance(50)
    revision = store.revision()
    turned = domain.verify()
    assert turned.differs and store.revision() > revision  # sessions read their senders anew
    assert domain.now.key == waiting.key and domain.now.standing == before.standing
    assert (domain.key(ACTIVE).key, domain.key(RETIRED).key) == (waiting.key, before.key)
    assert (domain.key(RETIRED).changed_at, domain.key(ACTIVE).published) == (clock.now(), SUCCESSFUL)
    assert store.tenancy.signing_key_pem(before.key.id) == RSA.pem  # it has mail to sign yet
    latest = next(each for each in store.verification.evidence(domain.made.id) if each.type == "dkim")
    assert latest.record == waiting.key.name("a.test") and "signs from now on" in latest.explanation


def test_the_next_record_alone_is_enough(store: ControlStore) -> None:
    """The old record was replaced by the new one: that is a switch, and no failure."""
    domain = Domain(store)
    domain.verify()
    waiting = domain.rotate()
    domain.zone = {waiting.key.selector}
    after = domain.verify().after
    assert (after.key, after.dkim, after.standing, after.failing) == (waiting.key, SUCCESSFUL, "verified", "")


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_findings_does_not_matter(store: ControlStore, order: int) -> None:
    domain = Domain(store, second=True)
    domain.zone |= {kept.key.selector for kept in domain.keys}
    domain.verify()
    domain.rotate()
    domain.zone = {kept.key.selector for kept in domain.keys if kept.state is NEXT}
    nexts = {kept.key.algorithm: kept.key for kept in domain.keys if kept.state is NEXT}
    after = domain.verify(domain.examine()[::order]).after
    assert (after.key, after.second, after.dkim) == (nexts["rsa"], nexts["ed25519"], SUCCESSFUL)


def test_without_either_record_it_is_a_failure_as_ever(store: ControlStore) -> None:
    domain = Domain(store)
    domain.verify()
    domain.rotate()
    domain.zone.clear()
    after = domain.verify().after
    assert (after.dkim, after.standing, after.failing) == (FAILED, "warning", "dkim")


def test_a_record_that_could_not_be_asked_for_turns_nothing(store: ControlStore) -> None:
    domain = Domain(store)
    domain.verify()
    waiting = domain.rotate()
    domain.zone.add(waiting.key.selector)
    domain.unknown = {waiting.key.selector}
    assert domain.verify().after.key == domain.made.key
    assert domain.key(NEXT).published is PENDING


def test_one_rotation_at_a_time_and_it_can_be_cancelled(store: ControlStore) -> None:
    domain = Domain(store)
    waiting = domain.rotate()
    with pytest.raises(Conflict, match="under way"):
        domain.rotate()
    found = domain.examine()
    assert [kept.key for kept in store.signing_keys.cancel_rotation(domain.made.id)] == [domain.made.key]
    with pytest.raises(NotThere):
        store.tenancy.signing_key_pem(waiting.key.id)
    with pytest.raises(Conflict, match="no rotation"):
        store.signing_keys.cancel_rotation(domain.made.id)
    # A check that began before it was cancelled finds a key that is no more.
    domain.verify([replace(one, state=SUCCESSFUL) for one in found])
    assert domain.now.key == domain.made.key
    assert domain.rotate().key.selector != waiting.key.selector


def test_what_was_found_of_a_former_key_counts_no_more(store: ControlStore, clock: FrozenClock) -> None:
    domain = Domain(store)
    domain.verify()
    waiting = domain.rotate()
    domain.zone = {waiting.key.selector}
    late = [Checked("dkim", FAILED, "missing", "", "", (), None, domain.made.key.id)]
    domain.verify()
    assert domain.verify(late).after.dkim is SUCCESSFUL
    assert domain.now.standing == "verified"


def test_ed25519_signs_while_its_record_is_there_and_never_suspends(store: ControlStore, clock: FrozenClock) -> None:
    domain = Domain(store, second=True)
    second = domain.key(NEXT, "ed25519").key
    after = domain.verify().after
    assert (after.second, after.standing, after.dkim) == (None, "verified", SUCCESSFUL)
    assert signing_key(after) == SigningKey(after.key.id, "a.test", after.key.selector)
    domain.zone.add(second.selector)
    after = domain.verify().after
    assert after.second == second and domain.key(ACTIVE, "ed25519").published is SUCCESSFUL
    assert signing_key(after) == SigningKey(after.key.id, "a.test", after.key.selector, second.id, second.selector)
    domain.zone.remove(second.selector)
    clock.advance(10)
    gone = domain.verify()
    assert gone.differs and (gone.after.second, gone.after.standing) == (None, "verified")
    clock.advance(30 * 86_400)
    assert domain.verify().after.standing == "verified"
    domain.zone.add(second.selector)
    assert domain.verify().after.second == second
    domain.unknown = {second.selector}
    assert domain.verify().after.second == second  # a resolver's failure is nobody's


def test_ed25519_comes_and_goes_by_an_operation(store: ControlStore) -> None:
    domain = Domain(store)
    store.signing_keys.add_second(domain.made.id, ED)
    first = domain.key(NEXT, "ed25519").key
    store.signing_keys.add_second(domain.made.id, ED)
    assert domain.key(NEXT, "ed25519").key == first
    domain.rotate()  # of RSA alone: the other signs nothing yet, and its record is waited for anyway
    assert [(kept.key.algorithm, kept.state) for kept in domain.keys] == [
        ("rsa", ACTIVE), ("rsa", NEXT), ("ed25519", NEXT),
    ]  # fmt: skip
    store.signing_keys.cancel_rotation(domain.made.id)
    assert domain.key(NEXT, "ed25519").key == first  # it replaces none
    domain.zone.add(first.selector)
    domain.verify()
    store.signing_keys.drop_second(domain.made.id)
    assert domain.now.second is None and domain.key(RETIRED, "ed25519").key == first
    store.signing_keys.drop_second(domain.made.id)
    with pytest.raises(NotThere):
        store.signing_keys.add_second("nobody", ED)


def test_private_halves_go_when_their_time_has_come(store: ControlStore, clock: FrozenClock) -> None:
    domain = Domain(store)
    waiting = domain.rotate()
    domain.zone.add(waiting.key.selector)
    domain.verify()
    assert store.signing_keys.unneeded(clock.now() - 1) == []
    clock.advance(100)
    assert store.signing_keys.unneeded(clock.now() - 100) == [domain.made.key.id]
    store.signing_keys.destroy([domain.made.key.id])
    assert store.signing_keys.unneeded(clock.now()) == []
    with pytest.raises(NotThere):
        store.tenancy.signing_key_pem(domain.made.key.id)
    assert domain.key(RETIRED).destroyed and not domain.key(ACTIVE).destroyed
    store.signing_keys.forget(clock.now() - 101)
    assert domain.key(RETIRED)
    store.signing_keys.forget(clock.now())
    assert [kept.key for kept in domain.keys] == [waiting.key]


def test_all_keys_of_a_deleted_configuration_go_in_the_end(store: ControlStore, clock: FrozenClock) -> None:
    domain = Domain(store, second=True)
    ours = {kept.key.id for kept in domain.keys}
    assert store.signing_keys.unneeded(clock.now()) == []
    store.tenancy.delete_configuration(domain.made.instance_id, domain.made.id)
    assert store.signing_keys.unneeded(clock.now() - 1) == []
    assert set(store.signing_keys.unneeded(clock.now())) == ours
    with pytest.raises(NotThere):
        store.signing_keys.begin_rotation(domain.made.id, [RSA])


def test_importing_a_key_ends_a_rotation(store: ControlStore) -> None:
    domain = Domain(store)
    domain.rotate()
    stored = store.tenancy.import_key(domain.made.id, new_dkim_key().pem, "bench")
    assert [(kept.key, kept.state) for kept in domain.keys] == [(stored, ACTIVE), (domain.made.key, RETIRED)]


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_no_two_keys_are_one(algorithm: str) -> None:
    assert new_key_like(algorithm).pem != new_key_like(algorithm).pem
