"""The reconciler: states move as the engine really gets there, and a failure keeps what was in force."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from outgate.egress.reconcile import Reconciler
from outgate.model.egress import Mode, PortForward
from support.egress_peers import Bench, on_both_loops, tunnel_address
from support.egress_store import World, world


def made(place: World, bench: Bench, poll_s: float = 3600.0) -> Reconciler:
    return Reconciler(
        store=place.store,
        engine=bench.engine,
        shared_addresses=["127.0.0.2"],
        proxy_protocol_targets=[],
        changes=place.control.data_version,
        poll_s=poll_s,
    )


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
            reconciler = made(place, bench)
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
            reconciler = made(place, bench, poll_s=0.01)
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
            reconciler = made(place, bench, poll_s=0.01)
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
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = made(place, bench)
            put(place, 30000, environment="11")
            await reconciler.reconcile()
            # 10 is served before 11, and wants what 11 gives up.
            put(place, 30000, environment="10")
            put(place, 30001, environment="11")
            await reconciler.reconcile()
            assert (status(place), status(place, "11")) == ("ready", "ready")
            assert in_force(bench) == {("10", 30000), ("11", 30001)}


@on_both_loops
async def test_two_environments_with_one_address_and_port(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = made(place, bench)
            put(place, 30000, environment="11")
            await reconciler.reconcile()
            put(place, 30000, environment="10")
            await reconciler.reconcile()
            assert (status(place), status(place, "11")) == ("failed", "ready")
            assert in_force(bench) == {("11", 30000)}


@on_both_loops
async def test_a_vpn_fails_closed(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.VPN, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            put(place, 30000)
            reconciler = made(place, bench)
            await reconciler.reconcile()
            assert (status(place), in_force(bench)) == ("failed", set())


@on_both_loops
async def test_a_store_that_fails_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench:
            reconciler = made(place, bench, poll_s=0.01)
            await reconciler.start()
            calls = 0

            def failing() -> int:
                nonlocal calls
                calls += 1
                if calls == 1:
                    raise OSError("the disk is busy")
                return place.control.data_version()

            reconciler._changes = failing
            put(place, 30000)
            reconciler.poke()
            await until_ready(place)
            assert in_force(bench) == {("10", 30000)}
            await reconciler.close()
