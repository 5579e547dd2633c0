"""Any sequence of changes leaves exactly the last accepted one in force, listeners and proxy alike: each is dialled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.egress.reconcile import Reconciler
from outgate.model.egress import PortForward
from support.egress_peers import Bench, Target, dial, echo, tunnel_address
from support.egress_store import World, next_to, world
from support.reconciling import reconciler_for

PORTS = range(30000, 30005)
PROXY = 3128

put = st.tuples(st.just("put"), st.sampled_from(["10", "11"]), st.sets(st.sampled_from(PORTS), max_size=4))
delete = st.tuples(st.just("delete"), st.sampled_from(["10", "11"]), st.just(frozenset[int]()))
# Another program takes a port, or gives up those it has; a process ends and another begins.
other = st.tuples(
    st.sampled_from(["take", "free"]), st.sampled_from(["10", "11"]), st.sets(st.sampled_from(PORTS), max_size=1)
)
restart = st.tuples(st.just("restart"), st.just(""), st.just(frozenset[int]()))
steps = st.lists(put | put | delete | other | restart, max_size=10)


@dataclass
class Model:
    """What must be in force: the last change of each environment that could be had, else the one before."""

    shared: bool
    wanted: dict[str, set[int] | None] = field(default_factory=lambda: {"10": None, "11": None})
    in_force: dict[str, set[int] | None] = field(default_factory=lambda: {"10": None, "11": None})
    taken: dict[str, set[int]] = field(default_factory=lambda: {"10": set(), "11": set()})

    def follow(self) -> None:
        """Go as far as a pass goes: whoever gives up a port gives it up before another may want it."""
        for _ in range(2):
            for environment, ports in self.wanted.items():
                if ports is None or self.can_be_had(environment, ports):
                    self.in_force[environment] = ports

    def can_be_had(self, environment: str, ports: set[int]) -> bool:
        mine = self.in_force[environment]
        new = ports - (mine or set())
        if new & self.taken[environment]:
            return False
        # On one address the proxy's port alone keeps a second environment out.
        beside = "11" if environment == "10" else "10"
        return not (self.shared and mine is None and self.in_force[beside] is not None)


@settings(max_examples=25, deadline=None)
@given(steps, st.booleans())
def test_the_last_accepted_change_is_in_force(changes: list[tuple[str, str, set[int]]], shared: bool) -> None:
    asyncio.run(_play(changes, shared))


async def _play(changes: list[tuple[str, str, set[int]]], shared: bool) -> None:
    tunnel = tunnel_address()
    addresses = {"10": tunnel, "11": tunnel if shared else next_to(tunnel)}
    model = Model(shared)
    held: dict[str, list[socket.socket]] = {"10": [], "11": []}
    with tempfile.TemporaryDirectory() as name, world(Path(name), tunnel=tunnel, beside=addresses["11"]) as place:
        async with Target(echo) as target, contextlib.AsyncExitStack() as stack:
            bench = await stack.enter_async_context(Bench(Path(name)))
            reconciler = reconciler_for(place, bench)
            for step, environment, ports in changes:
                if step == "restart":
                    await bench.engine.close()
                    bench = await stack.enter_async_context(Bench(Path(name)))
                    reconciler = reconciler_for(place, bench)
                    model.in_force = {"10": None, "11": None}
                elif step in {"take", "free"}:
                    _others(step, environment, ports, model, held, addresses)
                else:
                    _change(place, step, environment, ports, model, target.port)
                await asyncio.gather(reconciler.reconcile(), reconciler.reconcile())
                model.follow()
            await _check(place, reconciler, model, addresses)
    for sockets in held.values():
        for each in sockets:
            each.close()


def _change(place: World, step: str, environment: str, ports: set[int], model: Model, port: int) -> None:
    if step == "put":
        rules = [PortForward("target.example", each, port) for each in sorted(ports)]
        place.store.put_networking(environment, "7", rules, [], actor="test")
        model.wanted[environment] = set(ports)
    elif model.wanted[environment] is not None:
        place.store.delete_networking(environment, actor="test")
        model.wanted[environment] = None


def _others(
    step: str,
    environment: str,
    ports: set[int],
    model: Model,
    held: dict[str, list[socket.socket]],
    addresses: dict[str, str],
) -> None:
    places = ["10", "11"] if model.shared else [environment]
    if step == "free":
        for place in places:
            for each in held[place]:
                each.close()
            held[place].clear()
            model.taken[place].clear()
        return
    for port in ports:
        with contextlib.suppress(OSError):  # one of ours has it
            held[environment].append(socket.create_server((addresses[environment], port)))
            for place in places:
                model.taken[place].add(port)


async def _check(place: World, reconciler: Reconciler, model: Model, addresses: dict[str, str]) -> None:
    for address in set(addresses.values()):
        mine = [ports for environment, ports in model.in_force.items() if addresses[environment] == address]
        expected = {port for ports in mine for port in ports or ()}
        others = {
            port for environment, taken in model.taken.items() if addresses[environment] == address for port in taken
        }
        assert {port for port in PORTS if port not in others and await _carries(address, port)} == expected - others
        assert await _answers(address, PROXY) == any(ports is not None for ports in mine)
    for environment, wanted in model.wanted.items():
        found = place.store.environment("4", environment)
        assert found is not None
        reached = wanted == model.in_force[environment]
        assert (found.status, isinstance(reconciler.way(environment, "mx.example", 25), str)) == (
            "ready" if reached else "failed",
            model.in_force[environment] is None,
        )


async def _carries(address: str, port: int) -> bool:
    try:
        reader, writer = await dial(address, port)
    except ConnectionRefusedError:
        return False
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    writer.close()
    return True


async def _answers(address: str, port: int) -> bool:
    try:
        reader, writer = await dial(address, port)
    except ConnectionRefusedError:
        return False
    writer.write(b"GET / HTTP/1.1\r\nHost: nowhere.example\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 4")
    writer.close()
    return True
