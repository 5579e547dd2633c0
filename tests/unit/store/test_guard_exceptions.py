"""What operators decide about the egress, in the store: exceptions of the guard, and where environments are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.net import guard
from outgate.store import guard_exceptions
from outgate.store.egress import EnvironmentMoving
from outgate.store.tenancy_rows import Conflict, TooMany
from support.egress_store import World, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_an_exception_is_stored_in_one_spelling_and_reaches_the_environments_it_is_for(place: World) -> None:
    before = place.control.data_version()
    store = place.control.guard_exceptions
    everywhere = store.add(" 10.1.2.3/16 ", environment_id="", note="the warehouse", actor="ann")
    place.clock.advance(1)
    here = store.add("DB.Example.", environment_id="10", note="", actor="ann")
    assert (everywhere.entry, here.entry, here.created_by) == ("10.1.0.0/16", "db.example", "ann")
    assert place.control.data_version() != before
    entries = {target.environment.id: target.exceptions for target in place.store.targets()}
    assert entries == {"10": ("10.1.0.0/16", "db.example"), "11": ("10.1.0.0/16",)}
    place.store.put_networking("10", "7", [], [], actor="ann")
    target = next(each for each in place.store.targets() if each.environment.id == "10")
    exceptions = guard.compile_exceptions(target.exceptions)
    assert guard.check("10.1.9.9", exceptions=exceptions).exception == "10.1.0.0/16"
    assert guard.check("192.168.0.1", exceptions=exceptions, name="db.example").exception == "db.example"
    store.remove(everywhere.id, actor="bob")
    assert store.all() == (here,)
    assert [(row.actor, row.action, row.target) for row in place.store.audit() if "guard" in row.action] == [
        ("bob", "guard_exception.remove", "all environments"),
        ("ann", "guard_exception.add", "10"),
        ("ann", "guard_exception.add", "all environments"),
    ]
    assert place.store.audit()[0].detail == {"id": everywhere.id, "entry": "10.1.0.0/16", "note": "the warehouse"}


def test_what_cannot_be_an_exception_changes_nothing(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.control.guard_exceptions
    first = store.add("*.corp.example", environment_id="10", note="", actor="ann")
    store.add("*.corp.example", environment_id="", note="the same for all is another", actor="ann")
    for entry in ("", "a b", "10.0.0.0/33", "http://x", "*.", "exämple"):
        with pytest.raises(ValueError, match="is not a network, a name or"):
            store.add(entry, environment_id="", note="", actor="ann")
    for entry in ("300.1.1.1", "10.1.2", "*.1"):
        with pytest.raises(ValueError, match="is not an address"):
            store.add(entry, environment_id="", note="", actor="ann")
    with pytest.raises(Conflict, match=r"\*\.corp\.example is let through for environment 10 already"):
        store.add("*.CORP.example", environment_id="10", note="", actor="ann")
    with pytest.raises(LookupError):
        store.add("a.example", environment_id="99", note="", actor="ann")
    with pytest.raises(LookupError):
        store.remove("nothing", actor="ann")
    monkeypatch.setattr(guard_exceptions, "MOST", 2)
    with pytest.raises(TooMany, match="remove some"):
        store.add("a.example", environment_id="", note="", actor="ann")
    assert len(store.all()) == 2 and len(place.store.audit()) == 2
    store.remove(first.id, actor="ann")
    assert store.add("*.corp.example", environment_id="10", note="", actor="ann").id != first.id


def test_an_environment_is_placed_anew_and_applied_again(place: World) -> None:
    environments = place.control.placement
    moved = environments.place("10", tunnel_address="127.1.0.9", actor="ann")
    assert (moved.tunnel_address, moved.client_networks, moved.status) == ("127.1.0.9", ("127.0.0.0/8",), "updating")
    with pytest.raises(EnvironmentMoving):
        environments.place("10", client_networks=[], actor="ann")
    assert place.store.settle("10", None, "")
    moved = environments.place("10", client_networks=["10.1.2.3/16", "10.1.0.0/16", "2001:DB8::/32"], actor="bob")
    assert moved.client_networks == ("10.1.0.0/16", "2001:db8::/32") and moved.tunnel_address == "127.1.0.9"
    rows = [row for row in place.store.audit(target="10") if row.action == "environment.place"]
    assert [(row.actor, row.detail) for row in rows] == [
        ("bob", {"client_networks": ["10.1.0.0/16", "2001:db8::/32"]}),
        ("ann", {"tunnel_address": "127.1.0.9"}),
    ]


def test_a_place_that_cannot_be_changes_nothing(place: World) -> None:
    environments = place.control.placement
    environments.place("11", tunnel_address="127.1.0.2", actor="ann")
    place.store.settle("11", None, "")
    with pytest.raises(Conflict, match=r"127\.1\.0\.1 is the tunnel address of environment 10 \(prod\)"):
        environments.place("11", tunnel_address="127.1.0.1", actor="ann")
    environments.place("11", tunnel_address="127.1.0.2", actor="ann")  # its own
    place.store.settle("11", None, "")
    for address in ("", "127.1", "host.example", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "fe80::1%eth0"):
        with pytest.raises(ValueError, match="address"):
            environments.place("11", tunnel_address=address, actor="ann")
    for networks in (["10.0.0.0/33"], ["x"], ["10.0.0.0/8"] * 101):
        with pytest.raises(ValueError, match="network"):
            environments.place("11", client_networks=networks, actor="ann")
    with pytest.raises(LookupError):
        environments.place("99", tunnel_address="127.1.0.3", actor="ann")
    assert place.store.environment("4", "11").status == "ready"
