"""Network infrastructures in the store: the rules of a program, addresses nobody shares, sealed keys, late results."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from outgate.model.egress import Mode
from outgate.store.egress import EnvironmentMoving
from outgate.store.infrastructures import (
    InfrastructureMoving,
    InfrastructureQueries,
    InfrastructureRefused,
    Wanted,
    way_of,
)
from outgate.store.secrets import SealError
from support.egress_store import ACCOUNT, ORG, World, bare_program, world

POOL = ("127.0.0.3", "127.0.0.5")
FLEXIBLE = Wanted(Mode.FLEXIBLE, "va7")
DEDICATED = Wanted(Mode.DEDICATED, "va7")
KEY = "made-for-this-test-only"


def vpn(key: str = KEY, space: str = "10.0.0.0/26") -> Wanted:
    document: dict[str, object] = {"addressSpace": [space], "connections": [{"name": "one"}]}
    return Wanted(Mode.VPN, "va7", None, document, {"one": key})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        bare_program(made, "5", secondary=("nld2",))
        yield made


@pytest.fixture
def ways(place: World) -> InfrastructureQueries:
    return place.control.infrastructures


def refused(ways: InfrastructureQueries, program: str, wanted: Wanted) -> InfrastructureRefused:
    before = ways.all()
    with pytest.raises(InfrastructureRefused) as caught:
        ways.add(program, wanted, pool=POOL, actor="x")
    assert ways.all() == before
    return caught.value


def settled(ways: InfrastructureQueries, program: str, wanted: Wanted, pool: tuple[str, ...] = POOL) -> str:
    made = ways.add(program, wanted, pool=pool, actor="x")
    assert ways.settle_infrastructure(made.id, 1, "ready")
    return made.id


def test_from_creating_to_gone(place: World, ways: InfrastructureQueries) -> None:
    made = ways.add("5", DEDICATED, pool=POOL, actor="person")
    assert (made.status, made.generation, made.primary, made.addresses) == ("creating", 1, True, ("127.0.0.3",))
    assert ways.find("5", made.id) == made
    assert ways.find("4", made.id) is None
    with pytest.raises(InfrastructureMoving, match="creating"):
        ways.withdraw("5", made.id, actor="person")
    assert ways.settle_infrastructure(made.id, 1, "ready")
    going = ways.withdraw("5", made.id, actor="person")
    assert (going.status, going.generation) == ("deleting", 2)
    assert ways.allotted() == {"127.0.0.3": going}, "its address is not free before it is gone"
    with pytest.raises(InfrastructureMoving, match="deleting"):
        ways.withdraw("5", made.id, actor="person")
    assert not ways.finish_infrastructure(made.id, 1)
    assert ways.finish_infrastructure(made.id, 2)
    assert not ways.finish_infrastructure(made.id, 2)
    assert (ways.find("5", made.id), ways.allotted()) == (None, {})
    with pytest.raises(LookupError, match=made.id):
        ways.withdraw("5", made.id, actor="person")
    actions = [(row.actor, row.action) for row in place.store.audit(target=made.id)]
    assert actions == [
        ("egress", "infrastructure.gone"),
        ("person", "infrastructure.delete"),
        ("egress", "infrastructure.ready"),
        ("person", "infrastructure.create"),
    ]


def test_a_result_counts_for_its_generation_only(ways: InfrastructureQueries) -> None:
    made = ways.add("5", DEDICATED, pool=POOL, actor="x")
    assert not ways.settle_infrastructure(made.id, 2, "ready")
    assert not ways.settle_infrastructure("99", 1, "ready")
    assert ways.settle_infrastructure(made.id, 1, "failed", "127.0.0.3 is not on this host")
    assert not ways.settle_infrastructure(made.id, 1, "failed", "127.0.0.3 is not on this host")
    found = ways.find("5", made.id)
    assert found is not None and (found.status, found.reason) == ("failed", "127.0.0.3 is not on this host")
    assert ways.settle_infrastructure(made.id, 1, "ready"), "an address may come later"
    found = ways.find("5", made.id)
    assert found is not None and (found.status, found.reason) == ("ready", "")
    ways.withdraw("5", made.id, actor="x")
    assert not ways.settle_infrastructure(made.id, 2, "ready"), "what goes never comes back"
    for status, reason in (("deleting", ""), ("ready", "why"), ("failed", "")):
        with pytest.raises(ValueError, match="settles"):
            ways.settle_infrastructure(made.id, 2, status, reason)


class TestRulesOfAProgram:
    def test_none_for_a_sandbox(self, place: World, ways: InfrastructureQueries) -> None:
        with place.control._database.writing() as connection:
            connection.exec_driver_sql("UPDATE programs SET sandbox = 1 WHERE id = '5'")
        assert refused(ways, "5", FLEXIBLE).code == "sandbox"

    def test_none_while_the_program_moves(self, place: World, ways: InfrastructureQueries) -> None:
        with place.control._database.writing() as connection:
            connection.exec_driver_sql("UPDATE programs SET status = 'deleting' WHERE id = '5'")
        assert (refused(ways, "5", FLEXIBLE).code, refused(ways, "5", FLEXIBLE).conflict) == ("moving", True)
        with pytest.raises(LookupError, match="no such program"):
            ways.add("99", FLEXIBLE, pool=POOL, actor="x")

    def test_production_comes_first(self, place: World, ways: InfrastructureQueries) -> None:
        place.store.add_program(ORG, ACCOUNT, "Bare", program_id="6")
        place.store.add_environment(
            "6", "stage", kind="stage", region="va7", tunnel_address="127.1.0.6", client_networks=[]
        )
        assert refused(ways, "6", FLEXIBLE).code == "production"

    def test_one_kind_and_one_per_region(self, ways: InfrastructureQueries) -> None:
        settled(ways, "5", FLEXIBLE)
        assert (refused(ways, "5", DEDICATED).code, refused(ways, "5", DEDICATED).conflict) == ("kind", True)
        assert (refused(ways, "5", FLEXIBLE).code, refused(ways, "5", FLEXIBLE).conflict) == ("exists", True)
        assert refused(ways, "5", Wanted(Mode.DEDICATED, "nld2")).code == "kind"
        second = ways.add("5", Wanted(Mode.FLEXIBLE, "nld2"), pool=POOL, actor="x")
        assert second.primary is False

    def test_the_primary_region_first_then_those_of_production(self, ways: InfrastructureQueries) -> None:
        for region in ("nld2", "deu6", "VA7", ""):
            found = refused(ways, "5", Wanted(Mode.FLEXIBLE, region))
            assert (found.code, found.field) == ("region", "region"), region
        settled(ways, "5", FLEXIBLE)
        assert refused(ways, "5", Wanted(Mode.FLEXIBLE, "deu6")).field == "region"
        assert refused(ways, "5", Wanted(Mode.FLEXIBLE, "nld2", True)).field == "isPrimaryRegion"
        assert ways.add("5", Wanted(Mode.FLEXIBLE, "nld2", False), pool=POOL, actor="x").region == "nld2"

    def test_an_environment_leaves_by_its_region_else_by_the_primary(
        self, place: World, ways: InfrastructureQueries
    ) -> None:
        settled(ways, "5", FLEXIBLE)
        settled(ways, "5", Wanted(Mode.FLEXIBLE, "nld2"))
        found = ways.of_program("5")
        chosen: dict[str, str] = {}
        for region in ("va7", "nld2", "sgp5"):
            environment = place.store.add_environment(
                "5", region, kind="dev", region=region, tunnel_address="127.1.0.7", client_networks=[]
            )
            way = way_of(environment, found)
            assert way is not None
            chosen[region] = way.region
        assert chosen == {"va7": "va7", "nld2": "nld2", "sgp5": "va7"}
        assert way_of(place.environment, ()) is None


class TestAddresses:
    def test_each_has_its_own_until_none_is_left(self, place: World, ways: InfrastructureQueries) -> None:
        for number in ("6", "7"):
            bare_program(place, number)
        first, second = (ways.add(number, DEDICATED, pool=POOL, actor="x") for number in ("5", "6"))
        assert (first.addresses, second.addresses) == (("127.0.0.3",), ("127.0.0.5",))
        found = refused(ways, "7", DEDICATED)
        assert found.code == "pool"
        assert "egress.dedicated_addresses" in found.message
        assert ways.add("7", FLEXIBLE, pool=(), actor="x").addresses == ()
        ways.settle_infrastructure(first.id, 1, "ready")
        ways.withdraw("5", first.id, actor="x")
        ways.finish_infrastructure(first.id, 2)
        assert ways.add("5", vpn(), pool=POOL, actor="x").addresses == ("127.0.0.3",), "a VPN has one too"

    def test_another_spelling_is_the_same_address(self, place: World, ways: InfrastructureQueries) -> None:
        bare_program(place, "6")
        ways.add("5", DEDICATED, pool=("2001:db8::1",), actor="x")
        made = ways.add("6", DEDICATED, pool=("2001:DB8:0::1", "127.0.0.5"), actor="x")
        assert made.addresses == ("127.0.0.5",)

    def test_of_many_at_once_no_two_have_one(self, place: World, ways: InfrastructureQueries) -> None:
        numbers = [str(number) for number in range(20, 32)]
        for number in numbers:
            bare_program(place, number)
        pool = tuple(f"127.0.1.{number}" for number in range(8))

        def add(number: str) -> str:
            try:
                return ways.add(number, DEDICATED, pool=pool, actor="x").addresses[0]
            except InfrastructureRefused as refused:
                return refused.code

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(add, numbers))
        assert sorted(found) == sorted([*pool, *["pool"] * 4])
        assert set(ways.allotted()) == set(pool)


class TestVpn:
    def test_it_is_edited_and_nothing_else(self, place: World, ways: InfrastructureQueries) -> None:
        made = ways.add("5", vpn(), pool=POOL, actor="x")
        with pytest.raises(InfrastructureMoving, match="creating"):
            ways.replace("5", made.id, vpn("second-key"), actor="x")
        ways.settle_infrastructure(made.id, 1, "failed", "no data path")
        after = ways.replace("5", made.id, vpn("second-key"), actor="x")
        assert (after.status, after.generation, after.reason) == ("updating", 2, "")
        assert after.addresses == made.addresses
        assert ways.shared_keys(made.id) == {"one": "second-key"}
        assert not ways.settle_infrastructure(made.id, 1, "ready")
        with pytest.raises(InfrastructureRefused, match="cannot be edited"):
            ways.replace("4", "7", FLEXIBLE, actor="x")
        with pytest.raises(LookupError):
            ways.replace("4", made.id, vpn(), actor="x")

    @pytest.mark.parametrize(
        ("wanted", "field"),
        [
            (FLEXIBLE, "kind"),
            (Wanted(Mode.VPN, "nld2"), "region"),
            (vpn(space="10.0.1.0/26"), "addressSpace"),
        ],
    )
    def test_what_cannot_be_changed(self, ways: InfrastructureQueries, wanted: Wanted, field: str) -> None:
        made = settled(ways, "5", vpn())
        with pytest.raises(InfrastructureRefused, match="cannot be changed") as caught:
            ways.replace("5", made, wanted, actor="x")
        assert caught.value.field == field
        found = ways.find("5", made)
        assert found is not None and (found.status, found.generation) == ("ready", 1)
        assert ways.shared_keys(made) == {"one": KEY}

    def test_its_keys_are_sealed_for_its_row(self, place: World, ways: InfrastructureQueries, tmp_path: Path) -> None:
        bare_program(place, "6")
        one, two = settled(ways, "5", vpn("first-shared-key")), settled(ways, "6", vpn("second-shared-key"))
        assert ways.shared_keys(one) == {"one": "first-shared-key"}
        assert ways.shared_keys("99") == ways.shared_keys("7") == {}
        assert "shared-key" not in repr((vpn("first-shared-key"), ways.all(), place.store.audit()))
        with closing(sqlite3.connect(tmp_path / "control.db")) as connection, connection:
            connection.execute(
                "UPDATE network_infrastructures SET sealed ="
                " (SELECT sealed FROM network_infrastructures WHERE id = ?) WHERE id = ?",
                (two, one),
            )
        with pytest.raises(SealError):
            ways.shared_keys(one)


class TestNetworkingAndItsWay:
    def test_an_enabled_environment_keeps_it(self, place: World, ways: InfrastructureQueries) -> None:
        place.store.put_networking("11", "7", [], [], actor="x")
        with pytest.raises(InfrastructureRefused, match="environment 11") as caught:
            ways.withdraw("4", "7", actor="x")
        assert (caught.value.code, caught.value.conflict) == ("enabled", False)
        place.store.settle("11", 1, "")
        place.store.delete_networking("11", actor="x")
        assert ways.withdraw("4", "7", actor="x").status == "deleting"

    def test_what_is_not_ready_cannot_be_chosen(self, place: World, ways: InfrastructureQueries) -> None:
        ways.withdraw("4", "7", actor="x")
        with pytest.raises(InfrastructureMoving, match="7 is deleting"):
            place.store.put_networking("10", "7", [], [], actor="x")
        assert place.store.environment("4", "10").status == "ready"
        with pytest.raises(LookupError, match="no network infrastructure 99"):
            place.store.put_networking("10", "99", [], [], actor="x")
        other = settled(ways, "5", FLEXIBLE)
        with pytest.raises(LookupError):
            place.store.put_networking("10", other, [], [], actor="x")

    def test_taken_away_or_chosen_but_not_both(self, place: World, ways: InfrastructureQueries) -> None:
        for number in range(20, 32):
            bare_program(place, str(number))
        made = {str(number): settled(ways, str(number), FLEXIBLE) for number in range(20, 32)}

        def choose(program: str) -> bool:
            try:
                place.store.put_networking(program + "0", made[program], [], [], actor="x")
            except (InfrastructureMoving, EnvironmentMoving):
                return False
            return True

        def withdraw(program: str) -> bool:
            try:
                ways.withdraw(program, made[program], actor="x")
            except InfrastructureRefused:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            chosen = [threads.submit(choose, program) for program in made]
            withdrawn = [threads.submit(withdraw, program) for program in made]
        assert all(one.result() != other.result() for one, other in zip(chosen, withdrawn, strict=True))
