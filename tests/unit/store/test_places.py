"""Programs and environments in the store: what is refused changes nothing, and no two have one tunnel address."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest
from sqlalchemy import insert

from outgate.store import tables as t
from outgate.store.egress import VariableChange
from outgate.store.places import Grounds, NewEnvironment, PlaceRefused
from support.egress_store import ACCOUNT, GROUNDS, ORG, World, world

DEV = NewEnvironment("dev", "dev", "va7")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_at_once_each_gets_another_tunnel_address(place: World) -> None:
    grounds = Grounds(("va7",), ip_network("127.9.0.0/26"), ())
    with ThreadPoolExecutor(8) as threads:
        made = [
            each.result()
            for each in [
                threads.submit(place.control.places.create_environment, "4", DEV, grounds, actor="test")
                for _ in range(40)
            ]
        ]
    assert len({each.tunnel_address for each in made}) == len({each.id for each in made}) == 40


def test_at_once_one_name_makes_one_program(place: World) -> None:
    def make() -> bool:
        try:
            place.control.places.create_program(ORG, ACCOUNT, "Second", sandbox=False, actor="test")
        except PlaceRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        made = [each.result() for each in [threads.submit(make) for _ in range(16)]]
    assert made.count(True) == 1


@pytest.mark.parametrize(
    ("network", "first"), [("fd00::/64", "fd00::1"), ("192.0.2.7/32", "192.0.2.7"), ("192.0.2.0/31", "192.0.2.0")]
)
def test_any_network_gives_its_first_free_address(place: World, network: str, first: str) -> None:
    grounds = Grounds(("va7",), ip_network(network), ("fd01::/64",))
    made = place.control.places.create_environment("4", DEV, grounds, actor="test")
    assert (made.tunnel_address, made.client_networks, made.status) == (first, ("fd01::/64",), "creating")


def test_the_engine_moves_it_on_and_takes_it_away(place: World) -> None:
    store, places = place.store, place.control.places
    made = places.create_environment("4", DEV, GROUNDS, actor="ann")
    assert not store.finish_deletion(made.id)
    assert not store.settle(made.id, 1, "")
    assert store.settle(made.id, None, "") and not store.settle(made.id, None, "")
    assert store.environment("4", made.id).status == "ready"
    store.patch_variables(made.id, [VariableChange("KEY", "", True, "hidden")], actor="ann")
    store.put_networking(made.id, "7", (), (), actor="ann")
    assert store.settle(made.id, 1, "")
    with place.control._database.writing() as connection:  # pyright: ignore[reportPrivateUsage]
        values = {"id": "x", "entry": "10.0.0.0/8", "note": "", "created_at": 0.0, "created_by": "op"}
        connection.execute(insert(t.guard_exceptions).values(environment_id=made.id, **values))
    going = places.withdraw_environment("4", made.id, actor="ann")
    assert (going.status, store.networking(made.id), store.variables(made.id)) == ("deleting", None, ())
    # What the engine says of an earlier generation, or that it could not close it, takes nothing away.
    assert not store.settle(made.id, 1, "") and not store.settle(made.id, None, "a port would not close")
    assert store.finish_deletion(made.id) and not store.finish_deletion(made.id)
    assert store.environment("4", made.id) is None
    assert all(target.exceptions == () for target in store.targets())
    said = [(row.actor, row.action) for row in store.audit(target=made.id)]
    assert (said[0], said[1], said[-2], said[-1]) == (
        ("egress", "environment.deleted"),
        ("ann", "environment.delete"),
        ("egress", "environment.ready"),
        ("ann", "environment.create"),
    )


def test_settling_takes_away_too(place: World) -> None:
    place.control.places.withdraw_environment("4", "11", actor="ann")
    assert place.store.settle("11", None, "")
    assert place.store.environment("4", "11") is None


def test_what_is_refused_changes_nothing(place: World) -> None:
    places, store = place.control.places, place.store
    with pytest.raises(PlaceRefused, match="environment 10, 11 and network infrastructure 7") as held:
        places.delete_program("4", actor="ann")
    with pytest.raises(PlaceRefused, match="network infrastructure 7") as needed:
        places.withdraw_environment("4", "10", actor="ann")
    with pytest.raises(PlaceRefused, match="environment 10") as second:
        places.create_environment("4", NewEnvironment("p", "prod", "va7"), GROUNDS, actor="ann")
    store.put_networking("11", "7", (), (), actor="bob")
    with pytest.raises(PlaceRefused, match="updating") as moving:
        places.withdraw_environment("4", "11", actor="ann")
    codes = [each.value.code for each in (held, needed, second, moving)]
    assert codes == ["not_empty", "needed", "exists", "moving"]
    for unknown in ("5", "4"):
        with pytest.raises(LookupError):
            places.withdraw_environment(unknown, "12" if unknown == "4" else "10", actor="ann")
    with pytest.raises(LookupError):
        places.create_environment("5", DEV, GROUNDS, actor="ann")
    with pytest.raises(LookupError):
        places.delete_program("5", actor="ann")
    assert [row for row in store.audit() if row.actor == "ann"] == []
    assert [each.id for each in store.environments("4")] == ["10", "11"]
