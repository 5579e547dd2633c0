"""Where environments are: what the engine says of the place before does not count for the one after."""

from __future__ import annotations

from pathlib import Path

from support.egress_store import World, world


def status(place: World) -> str:
    found = place.store.environment("4", "10")
    assert found is not None
    return found.status


def test_what_was_applied_for_the_old_place_says_nothing_of_the_new_one(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.store.put_networking("10", "7", [], [], actor="test")
        assert place.store.settle("10", 1, "")
        place.control.placement.place("10", client_networks=["10.1.0.0/16"], actor="operator")
        # An engine that had read the store just before is done with what it read.
        assert not place.store.settle("10", 1, "")
        assert status(place) == "updating"
        assert place.store.settle("10", 2, "")
        assert status(place) == "ready"


def test_a_place_without_networking_is_ready_when_the_engine_has_seen_it(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.control.placement.place("10", tunnel_address="127.1.0.9", actor="operator")
        assert status(place) == "updating"
        assert place.store.settle("10", None, "") and status(place) == "ready"
