"""Allow-lists in the store: one an instance, of its account; each change is one of access; a snapshot has an end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.access import Address, AllowList
from outgate.model.tenancy import Instance
from outgate.store.access import Changed
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from outgate.store.tenancy import Conflict, NotThere

NETWORKS = (Address("subnet", "192.0.2.0/24"), Address("ipRange", "198.51.100.1-198.51.100.9"))


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(tmp_path: Path, clock: FrozenClock) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    opened.tenancy.create_account("acc")
    yield opened
    opened.close()


@pytest.fixture
def instance(store: ControlStore) -> Instance:
    return store.tenancy.create_instance("acc", "eu-de", "n")


def make(store: ControlStore, instance: Instance, ends_at: float = 1_800_000_100.0) -> AllowList:
    return store.allow_lists.create("acc", instance.id, networks=NETWORKS, ends_at=ends_at, note="old", by="me")


def change(store: ControlStore, instance: Instance, expected: set[str] | None, note: str = "new") -> AllowList:
    given = {"networks": NETWORKS[:1], "ends_at": 1_800_000_200.0, "note": note, "by": "you"}
    return store.allow_lists.replace("acc", instance.id, expected=expected, **given)  # type: ignore[arg-type]


def test_made_read_replaced_deleted(store: ControlStore, instance: Instance, clock: FrozenClock) -> None:
    assert store.allow_lists.get("acc", instance.id) is None
    made = make(store, instance)
    assert store.allow_lists.get("acc", instance.id) == made and store.allow_lists.all("acc") == (made,)
    clock.advance(5)
    changed = change(store, instance, {made.version})
    assert changed == store.allow_lists.get("acc", instance.id)
    assert (changed.created_by, changed.updated_by, changed.updated_at - changed.created_at) == ("me", "you", 5)
    assert changed.version != made.version and changed.networks == NETWORKS[:1]
    with pytest.raises(Changed):
        change(store, instance, {made.version})
    with pytest.raises(Changed):
        store.allow_lists.delete("acc", instance.id, expected={made.version})
    assert store.allow_lists.get("acc", instance.id) == changed
    store.allow_lists.delete("acc", instance.id)
    with pytest.raises(NotThere):
        store.allow_lists.delete("acc", instance.id)
    with pytest.raises(NotThere):
        change(store, instance, None)


def test_one_an_instance_and_only_of_the_account_s(store: ControlStore, instance: Instance) -> None:
    made = make(store, instance)
    with pytest.raises(Conflict):
        make(store, instance)
    store.tenancy.create_account("other")
    given = {"networks": NETWORKS, "ends_at": 1e10, "note": "", "by": "x"}
    with pytest.raises(NotThere):
        store.allow_lists.create("other", instance.id, **given)  # type: ignore[arg-type]
    with pytest.raises(NotThere):
        store.allow_lists.replace("other", instance.id, expected=None, **given)  # type: ignore[arg-type]
    with pytest.raises(NotThere):
        store.allow_lists.delete("other", instance.id)
    assert store.allow_lists.all("other") == () and store.allow_lists.all("acc") == (made,)


def test_those_that_end_first_come_first(store: ControlStore, instance: Instance) -> None:
    other = store.tenancy.create_instance("acc", "us-south", "m")
    make(store, instance, ends_at=1_900_000_000.0)
    make(store, other)
    assert [each.instance_id for each in store.allow_lists.all("acc")] == [other.id, instance.id]


def test_a_snapshot_is_current_until_a_change_or_the_next_end(
    store: ControlStore, instance: Instance, clock: FrozenClock
) -> None:
    before = store.access.snapshot()
    assert store.access.is_current(before.generation, before.until)
    made = make(store, instance)
    assert not store.access.is_current(before.generation, before.until)
    after = store.access.snapshot()
    assert after.allow_lists == (made,) and after.until == made.ends_at and after.counts(made)
    clock.advance(99)
    assert store.access.is_current(after.generation, after.until)
    clock.advance(1)
    assert not store.access.is_current(after.generation, after.until)
    ended = store.access.snapshot()
    assert ended.generation == after.generation and not ended.counts(made)
    assert store.access.is_current(ended.generation, ended.until)
    change(store, instance, None)
    assert store.access.revision() > ended.generation
    revision = store.access.revision()
    store.allow_lists.delete("acc", instance.id)
    assert store.access.revision() > revision


def test_of_many_who_saw_the_same_one_replaces_it(store: ControlStore, instance: Instance) -> None:
    made = make(store, instance)

    def won(number: int) -> bool:
        try:
            change(store, instance, {made.version}, str(number))
        except Changed:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(won, range(16))).count(True) == 1
