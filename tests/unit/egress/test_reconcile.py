"""The reconciler: states move as the engine really gets there, and a failure keeps what was in force."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest
from sqlalchemy import update

from outgate.egress.gate import Limits
from outgate.egress.plan import NO_SHARED, NO_TUNNEL, Terms, Way
from outgate.egress.proving import Proving
from outgate.egress.reconcile import Names
from outgate.model.egress import Mode, PortForward
from outgate.store import tables as t
from support.egress_peers import Bench, Target, dial, echo, on_both_loops, tunnel_address
from support.egress_store import World, world
from support.reconciling import Proofs, reconciler_for


def put(place: World, *ports: int, environment: str = "10") -> None:
    rules = [PortForward("target.example", port, 25) for port in ports]
    place.store.put_networking(environment, "7", rules, [], actor="test")


def status(place: World, environment: str = "10") -> str:
    found = place.store.environment("4", environment)
    assert found is not None
    return found.status


def in_force(bench: Bench) -> set[tuple[str, int]]:
    return {(each.environment_id, each.listen_port) for each in bench.engine.forwards()}


async def until_ready(place: World, environment: str = "10") -> None:
    async with asyncio.timeout(30):
        while status(place, environment) == "updating":
            await asyncio.sleep(0.005)


@on_both_loops
async def test_updating_becomes_ready_when_applied(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        put(place, 30000)
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            assert status(place) == "updating"
            await reconciler.start()
            assert status(place) == "ready"
            assert in_force(bench) == {("10", 30000)}
            put(place, 30001, 30002)
            reconciler.poke()
            await until_ready(place)
            assert in_force(bench) == {("10", 30001), ("10", 30002)}
            place.store.delete_networking("10", actor="test")
            assert status(place) == "updating"
            reconciler.poke()
            await until_ready(place)
            assert (status(place), in_force(bench)) == ("ready", set())
            await reconciler.close()


@on_both_loops
async def test_a_change_by_somebody_else_is_noticed_without_a_poke(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench, poll_s=0.01)
            await reconciler.start()
            put(place, 30000)
            await until_ready(place)
            assert in_force(bench) == {("10", 30000)}
            await reconciler.close()


@on_both_loops
async def test_a_taken_port_fails_with_its_name_and_heals_when_it_is_free(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with world(tmp_path, tunnel=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench, poll_s=0.01)
            put(place, 30000)
            await reconciler.start()
            with socket.create_server((tunnel, 30001)):
                put(place, 30001)
                reconciler.poke()
                await until_ready(place)
                assert status(place) == "failed"
                wanted = place.store.networking("10")
                assert wanted is not None
                assert f"{tunnel}:30001 is taken" in wanted.reason
                assert in_force(bench) == {("10", 30000)}
            async with asyncio.timeout(30):
                while status(place) == "failed":
                    await asyncio.sleep(0.005)
            assert (status(place), in_force(bench)) == ("ready", {("10", 30001)})
            wanted = place.store.networking("10")
            assert wanted is not None
            assert wanted.reason == ""
            await reconciler.close()


@on_both_loops
async def test_ports_may_change_hands_in_one_pass(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with world(tmp_path, tunnel=tunnel, beside=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            put(place, 30000, environment="11")
            await reconciler.reconcile()
            # 10 is served before 11, and wants what 11 gives up.
            put(place, 30000, environment="10")
            place.store.delete_networking("11", actor="test")
            await reconciler.reconcile()
            assert (status(place), status(place, "11")) == ("ready", "ready")
            assert in_force(bench) == {("10", 30000)}


@on_both_loops
async def test_two_environments_with_one_address_and_port(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with world(tmp_path, tunnel=tunnel, beside=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            put(place, 30000, environment="11")
            await reconciler.reconcile()
            put(place, 30000, environment="10")
            await reconciler.reconcile()
            assert (status(place), status(place, "11")) == ("failed", "ready")
            assert in_force(bench) == {("11", 30000)}


@on_both_loops
async def test_the_same_port_on_two_tunnel_addresses(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            put(place, 30000, environment="10")
            put(place, 30000, environment="11")
            await reconciler_for(place, bench).reconcile()
            assert (status(place), status(place, "11")) == ("ready", "ready")
            assert in_force(bench) == {("10", 30000), ("11", 30000)}


@on_both_loops
async def test_a_vpn_fails_closed(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.VPN, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            put(place, 30000)
            reconciler = reconciler_for(place, bench)
            await reconciler.reconcile()
            assert (status(place), in_force(bench)) == ("failed", set())
            way = place.control.infrastructures.find("4", "7")
            assert (way.status, way.reason) == ("failed", NO_TUNNEL)
            assert reconciler.way("10", "mx.example", 25) == NO_TUNNEL


def infrastructure(place: World) -> tuple[str, str]:
    found = place.control.infrastructures.find("4", "7")
    assert found is not None
    return found.status, found.reason


@on_both_loops
async def test_a_dedicated_address_is_proven_again_and_again(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            proofs = Proofs()
            proofs.wrong["127.0.0.3"] = "this host does not have 127.0.0.3"
            put(place, 30000)
            reconciler = reconciler_for(place, bench, proofs=proofs, poll_s=0.005, interval_s=300.0)
            await reconciler.start()
            assert infrastructure(place) == ("failed", proofs.wrong["127.0.0.3"])
            assert (status(place), in_force(bench)) == ("failed", set())
            assert proofs.wrong["127.0.0.3"] in str(reconciler.way("10", "mx.example", 25))

            proofs.wrong.clear()
            place.clock.advance(300.0)
            async with asyncio.timeout(30):
                while status(place) == "failed":
                    await asyncio.sleep(0.005)
            assert (infrastructure(place), in_force(bench)) == (("ready", ""), {("10", 30000)})
            way = reconciler.way("10", "mx.example", 25)
            assert isinstance(way, Way)
            assert (way.mode, way.sources) == (Mode.DEDICATED, ("127.0.0.3",))

            proofs.wrong["127.0.0.3"] = "it is gone"
            place.clock.advance(300.0)
            async with asyncio.timeout(30):
                while status(place) == "ready":
                    await asyncio.sleep(0.005)
            assert (infrastructure(place), in_force(bench)) == (("failed", "it is gone"), set())
            await reconciler.close()
            assert proofs.asked == ["127.0.0.3"] * 3


@on_both_loops
async def test_a_new_way_out_is_ready_once_it_is_proven(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            unsettle(place, "creating")
            asked, answer = asyncio.Event(), asyncio.Event()

            async def prove(_: str) -> str:
                asked.set()
                await answer.wait()
                return ""

            proving = Proving(prove, place.clock, interval_s=300.0)
            reconciler = reconciler_for(place, bench, proving=proving)
            await reconciler.reconcile()
            await asked.wait()
            assert infrastructure(place) == ("creating", "")
            answer.set()
            await proving.settled()
            await reconciler.reconcile()
            assert infrastructure(place) == ("ready", "")


def unsettle(place: World, state: str) -> None:
    with place.store._database.writing() as connection:
        connection.execute(update(t.network_infrastructures).values(status=state))


@on_both_loops
async def test_what_is_deleting_goes_once_nothing_of_it_is_in_force(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            put(place, 30000)
            reconciler = reconciler_for(place, bench)
            await reconciler.reconcile()
            place.control.places.withdraw_environment("4", "11", actor="test")
            await reconciler.reconcile()
            assert place.store.environment("4", "11") is None
            place.store.delete_networking("10", actor="test")
            await reconciler.reconcile()
            place.control.infrastructures.withdraw("4", "7", actor="test")
            await reconciler.reconcile()
            assert place.control.infrastructures.find("4", "7") is None
            assert in_force(bench) == set()
            assert reconciler.way("10", "mx.example", 25) == "advanced networking is not enabled: nothing leaves"


@on_both_loops
async def test_a_dedicated_address_is_nobody_elses_while_something_leaves_from_it(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED, tunnel=(tunnel := tunnel_address())) as place:
        async with Bench(tmp_path, limits=Limits(drain_s=600.0)) as bench, Target(echo) as target:
            rules = [PortForward("target.example", 30000, target.port)]
            place.store.put_networking("10", "7", rules, [], actor="test")
            reconciler = reconciler_for(place, bench, poll_s=0.01)
            await reconciler.start()
            reader, writer = await dial(tunnel, 30000)
            writer.write(b"held")
            assert await reader.readexactly(4) == b"held"
            place.store.delete_networking("10", actor="test")
            await until_ready(place)
            place.control.infrastructures.withdraw("4", "7", actor="test")
            await reconciler.reconcile()
            assert infrastructure(place)[0] == "deleting"
            assert "127.0.0.3" in place.control.infrastructures.allotted()
            writer.close()
            async with asyncio.timeout(30):
                while place.control.infrastructures.all():
                    await asyncio.sleep(0.005)
            await reconciler.close()


@on_both_loops
async def test_flexible_without_a_shared_address_says_so(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            await reconciler_for(place, bench, terms=Terms()).reconcile()
            assert infrastructure(place) == ("failed", NO_SHARED)


@on_both_loops
async def test_a_taken_port_keeps_no_other_way_open(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with world(tmp_path, tunnel=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            put(place, 30000)
            await reconciler.reconcile()
            reconciler._terms = Terms(shared_addresses=("127.0.0.5",))
            with socket.create_server((tunnel, 30001)):
                put(place, 30001)
                await reconciler.reconcile()
            assert (status(place), in_force(bench)) == ("failed", set())
            assert f"{tunnel}:30001 is taken" in str(reconciler.way("10", "mx.example", 25))


@on_both_loops
async def test_names_lead_to_what_is_ready_and_are_withdrawn(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            known: set[tuple[str, str]] = set()
            names = Names(
                "external.example",
                "127.0.0.4",
                lambda name, address: known.add((name, address)),
                lambda name, address: known.discard((name, address)),
            )
            proofs = Proofs()
            reconciler = reconciler_for(place, bench, names=names, proofs=proofs)
            await reconciler.start()
            assert known == {("p4.external.example", "127.0.0.3")}
            proofs.wrong["127.0.0.3"] = "gone"
            place.clock.advance(300.0)
            await reconciler.look()
            assert known == set()
            proofs.wrong.clear()
            place.clock.advance(300.0)
            await reconciler.look()
            assert known == {("p4.external.example", "127.0.0.3")}
            await reconciler.close()
            assert known == set()


@on_both_loops
async def test_a_store_that_fails_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench, poll_s=0.01)
            await reconciler.start()
            calls = 0

            def failing() -> int:
                nonlocal calls
                calls += 1
                if calls == 1:
                    raise OSError("the disk is busy")
                return place.control.data_version()

            reconciler._wanted.changes = failing
            put(place, 30000)
            reconciler.poke()
            await until_ready(place)
            assert in_force(bench) == {("10", 30000)}
            await reconciler.close()


@on_both_loops
async def test_a_store_that_stays_away_is_told_once_and_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench, poll_s=0.001)
            await reconciler.start()
            calls, many = 0, asyncio.Event()

            def failing() -> int:
                nonlocal calls
                calls += 1
                if calls > 20:
                    many.set()
                raise OSError("the disk is gone")

            with caplog.at_level(logging.INFO):
                reconciler._wanted.changes = failing
                async with asyncio.timeout(30):
                    await many.wait()
                reconciler._wanted.changes = place.control.data_version
                put(place, 30000)
                async with asyncio.timeout(30):
                    while "egress.reconciled_again" not in caplog.messages:
                        await asyncio.sleep(0.005)
            await reconciler.close()
            assert (status(place), in_force(bench)) == ("ready", {("10", 30000)})
            assert caplog.messages.count("egress.reconcile_failed") == 1


@on_both_loops
async def test_a_store_that_takes_no_word_leaves_no_state_out(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            put(place, 30000, environment="10")
            put(place, 30000, environment="11")
            reconciler = reconciler_for(place, bench)

            def settle(*_: object) -> bool:
                raise OSError("database is locked")

            reconciler._wanted.settle = settle
            with pytest.raises(OSError, match="locked"):
                await reconciler.reconcile()
            assert [state.target.environment.id for state in reconciler.states()] == ["10", "11"]
            assert all(state.in_force is not None for state in reconciler.states())


@on_both_loops
async def test_an_address_that_is_not_proven_is_not_left_from_whatever_the_store_says(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            proofs = Proofs()
            put(place, 30000)
            reconciler = reconciler_for(place, bench, proofs=proofs, poll_s=0.005)
            await reconciler.start()
            assert in_force(bench) == {("10", 30000)}

            def changes() -> int:
                raise OSError("database is locked")

            reconciler._wanted.changes = changes
            proofs.wrong["127.0.0.3"] = "seen from elsewhere"
            place.clock.advance(300.0)
            async with asyncio.timeout(30):
                while in_force(bench):
                    await asyncio.sleep(0.005)
            assert reconciler.way("10", "mx.example", 25) == "seen from elsewhere"
            assert next((state.in_force, state.reason) for state in reconciler.states()) == (
                None,
                "seen from elsewhere",
            )
            reconciler._wanted.changes = place.control.data_version
            async with asyncio.timeout(30):
                while status(place) != "failed":
                    await asyncio.sleep(0.005)
            await reconciler.close()


def at_addresses(place: World, addresses: dict[str, str]) -> None:
    """Put environments at tunnel addresses, all at once, as several orders between two passes do."""
    with place.store._database.writing() as connection:
        for environment, address in addresses.items():
            row = t.environments.c.id == environment
            connection.execute(update(t.environments).where(row).values(tunnel_address=address, status="updating"))


@on_both_loops
async def test_two_environments_may_swap_their_tunnel_addresses_in_one_pass(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with world(tmp_path, tunnel=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            put(place, 30000, environment="10")
            put(place, 30000, environment="11")
            await reconciler.reconcile()
            at_addresses(place, {"10": place.other.tunnel_address, "11": tunnel})
            await reconciler.reconcile()
            assert (status(place), status(place, "11")) == ("ready", "ready")
            heard = {(each.environment_id, each.listen_address) for each in bench.engine.forwards()}
            assert heard == {("10", place.other.tunnel_address), ("11", tunnel)}


@on_both_loops
async def test_where_another_environment_is_by_now_no_old_rules_stay(tmp_path: Path) -> None:
    tunnel, elsewhere = tunnel_address(), tunnel_address()
    with world(tmp_path, tunnel=tunnel) as place:
        async with Bench(tmp_path) as bench:
            reconciler = reconciler_for(place, bench)
            put(place, 30000)
            await reconciler.reconcile()
            with socket.create_server((elsewhere, 30000)):
                at_addresses(place, {"10": elsewhere})
                await reconciler.reconcile()
                assert (status(place), in_force(bench)) == ("failed", {("10", 30000)})
                # 11 has no networking: whatever its applications dial there is closed.
                at_addresses(place, {"11": tunnel})
                await reconciler.reconcile()
            assert (status(place), status(place, "11"), in_force(bench)) == ("failed", "ready", set())
