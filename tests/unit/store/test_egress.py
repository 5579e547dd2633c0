"""The egress tables: consistent changes, sealed secrets, states that only move forward."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from outgate.model.egress import Mode, PortForward
from outgate.store.egress import EnvironmentMoving, VariableChange, VariableRefused
from outgate.store.secrets import SealError
from support.egress_store import ACCOUNT, ORG, World, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_programs_belong_to_an_organisation_and_an_account(place: World) -> None:
    store = place.store
    assert [each.id for each in store.programs(ORG, ACCOUNT)] == ["4"]
    assert store.programs(ORG, "b" * 32) == store.programs("other", ACCOUNT) == ()
    assert store.program("4") == place.program
    assert store.program("5") is None


def test_an_environment_is_found_in_its_own_program_only(place: World) -> None:
    store = place.store
    store.add_program(ORG, ACCOUNT, "Other", program_id="5")
    assert store.environment("4", "10") == place.environment
    assert store.environment("5", "10") is None
    assert [each.id for each in store.environments("4", "stage")] == ["11"]
    ways = place.control.infrastructures
    assert ways.find("5", "7") is None
    assert ways.find("4", "7") == place.way


def test_generations_grow_and_a_late_result_counts_for_nothing(place: World) -> None:
    store = place.store
    assert store.put_networking("10", "7", [PortForward("a", 30000, 1)], [], actor="x").status == "updating"
    with pytest.raises(EnvironmentMoving, match="updating"):
        store.put_networking("10", "7", [], [], actor="x")
    assert store.settle("10", 1, "") is True
    assert store.settle("10", 1, "") is False
    store.put_networking("10", "7", [PortForward("b", 30001, 2)], [], actor="x")
    assert store.settle("10", 1, "") is False
    assert store.settle("10", None, "") is False
    wanted = store.networking("10")
    assert (wanted.generation, wanted.mode, wanted.program_id) == (2, Mode.FLEXIBLE, "4")
    assert wanted.port_forwards == (PortForward("b", 30001, 2),)
    assert store.settle("10", 2, "no port") is True
    assert (store.environment("4", "10").status, store.networking("10").reason) == ("failed", "no port")
    assert store.settle("99", 1, "") is False


def test_deleting_what_is_not_enabled_does_not_move_the_environment(place: World) -> None:
    with pytest.raises(LookupError, match="not enabled"):
        place.store.delete_networking("10", actor="x")
    assert place.store.environment("4", "10").status == "ready"
    with pytest.raises(LookupError):
        place.store.delete_networking("99", actor="x")


def test_of_many_at_once_one_is_taken(place: World) -> None:
    def put(port: int) -> bool:
        try:
            place.store.put_networking("10", "7", [PortForward("a", port, 1)], [], actor="x")
        except EnvironmentMoving:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(put, range(30000, 30016)))
    assert results.count(True) == 1
    assert place.store.networking("10").generation == 1


def test_targets_close_an_infrastructure_that_is_not_ready(place: World) -> None:
    store = place.store
    store.add_infrastructure("4", Mode.DEDICATED, "va7", addresses=["127.0.0.5"], infrastructure_id="8")
    store.add_infrastructure("4", Mode.DEDICATED, "va7", addresses=["127.0.0.3"], infrastructure_id="9")
    store.put_networking("10", "8", [], [], actor="x")
    store.put_networking("11", "9", [], [], actor="x")
    place.control.infrastructures.settle_infrastructure("8", 1, "failed", "127.0.0.5 is not on this host")
    first, second = store.targets()
    assert (first.mode, first.egress_addresses) == (Mode.NONE, ())
    assert (second.mode, second.egress_addresses) == (Mode.DEDICATED, ("127.0.0.3",))
    assert second.networking == store.networking("11")


def secret(name: str, value: str) -> VariableChange:
    return VariableChange(name, "", True, value)


def test_a_secret_is_sealed_for_its_row(place: World, tmp_path: Path) -> None:
    store = place.store
    store.patch_variables("10", [secret("ONE", "first-secret"), secret("TWO", "second-secret")], actor="x")
    assert store.runtime("10", "author") == ({}, {"ONE": "first-secret", "TWO": "second-secret"})
    assert [each.value for each in store.variables("10")] == ["", ""]
    assert "first-secret" not in repr(secret("ONE", "first-secret"))
    with closing(sqlite3.connect(tmp_path / "control.db")) as connection, connection:
        connection.execute(
            "UPDATE variables SET sealed = (SELECT sealed FROM variables WHERE name = 'TWO') WHERE name = 'ONE'"
        )
    with pytest.raises(SealError):
        store.runtime("10", "author")


def test_a_variable_may_be_a_secret_for_one_service_and_plain_for_all(place: World) -> None:
    changes = [VariableChange("KEY", "", False, "plain"), VariableChange("KEY", "author", True, "sealed")]
    place.store.patch_variables("10", changes, actor="x")
    assert place.store.runtime("10", "author") == ({}, {"KEY": "sealed"})
    assert place.store.runtime("10", "publish") == ({"KEY": "plain"}, {})


def test_a_refusal_names_its_place_and_undoes_the_rest(place: World) -> None:
    place.store.patch_variables("10", [secret("KEY", "a")], actor="x")
    changes = [VariableChange("NEW", "", False, "x"), VariableChange("KEY", "", False, "b")]
    with pytest.raises(VariableRefused) as refused:
        place.store.patch_variables("10", changes, actor="x")
    assert (refused.value.index, refused.value.attribute) == (1, "type")
    assert [each.name for each in place.store.variables("10")] == ["KEY"]
    with pytest.raises(LookupError):
        place.store.patch_variables("99", [secret("KEY", "a")], actor="x")


def test_the_audit_tells_who_did_what_and_no_value(place: World) -> None:
    place.store.patch_variables("10", [secret("KEY", "hidden-value")], actor="person")
    place.store.put_networking("10", "7", [], [], actor="person")
    place.store.settle("10", 1, "no port")
    place.store.record("other", "something", "11", {"a": 1})
    rows = place.store.audit(target="10")
    assert [(row.actor, row.action) for row in rows] == [
        ("egress", "networking.failed"),
        ("person", "networking.replace"),
        ("person", "variables.change"),
    ]
    assert rows[2].detail == {"names": ["KEY"]}
    assert "hidden-value" not in repr(place.store.audit())
    assert place.store.audit(limit=1)[0].target == "11"
