"""Listeners follow the store's gateways: opened, failed, tried again, drained, and taken up after a restart."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.vpc import EndpointGateway, GatewayState, Subnet
from outgate.relay.gateways import Gateways
from outgate.store.control import ControlStore, open_control
from outgate.store.gateways import NewIp
from outgate.store.secrets import open_box
from outgate.store.vpc_rows import Missing

STABLE, FAILED, DELETING = GatewayState.STABLE, GatewayState.FAILED, GatewayState.DELETING
NAME = "private.smtp.test"


class Machine:
    """Addresses that can be listened on, and those that cannot; closing waits until the test lets it."""

    def __init__(self) -> None:
        self.opened: dict[str, tuple[str, str]] = {}
        self.taken: set[str] = set()
        self.names: list[tuple[str, str]] = []
        self.drained = asyncio.Event()
        self.drained.set()
        self.closing: list[str] = []

    def open(self, address: str, *, vpc: str, region: str) -> None:
        if address in self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        assert address not in self.opened
        self.opened[address] = (vpc, region)

    async def close(self, address: str) -> None:
        self.closing.append(address)
        await self.drained.wait()
        del self.opened[address]
        self.closing.remove(address)

    def withdraw(self, name: str, address: str) -> None:
        if (name, address) in self.names:
            self.names.remove((name, address))

    def gateways(self, store: ControlStore, **more: Any) -> Gateways:
        given: dict[str, Any] = {"networks": ["10.0.0.0/8"], **more}
        return Gateways(
            store.gateways,
            open=self.open,
            close=self.close,
            publish=lambda name, address: self.names.append((name, address)),
            withdraw=self.withdraw,
            **given,
        )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    opened.tenancy.create_account("acc")
    yield opened
    opened.close()


@pytest.fixture
async def machine() -> Machine:
    return Machine()


def subnet(store: ControlStore, name: str = "one", network: str = "10.0.0.0/24") -> Subnet:
    vpc = store.vpc.create_vpc("acc", "us-south", name, by="me")
    return store.vpc.create_subnet("acc", vpc.id, name=name, zone="us-south-1", network=network, by="me")


def create(store: ControlStore, where: Subnet, ip: NewIp | None = None) -> EndpointGateway:
    return store.gateways.create(
        "acc",
        where.vpc.id,
        name="g",
        target="crn",
        region="us-south",
        service_endpoint=NAME,
        dns_mode="primary",
        ip=ip or NewIp(where.id, None, "ip", True),
        by="me",
    )


def state(store: ControlStore, gateway: EndpointGateway) -> GatewayState:
    return store.gateways.gateway("acc", gateway.id).state


async def test_a_gateway_is_stable_once_its_address_is_open(store: ControlStore, machine: Machine) -> None:
    where = subnet(store)
    made = create(store, where)
    gateways = machine.gateways(store)
    await gateways.look()
    assert machine.opened == {"10.0.0.4": (where.vpc.crn, "us-south")} and machine.names == [(NAME, "10.0.0.4")]
    assert state(store, made) is STABLE and gateways.listens("10.0.0.4")
    await gateways.look()
    assert len(machine.names) == 1


async def test_an_address_that_cannot_be_had_fails_with_its_name_and_is_tried_again(
    store: ControlStore, machine: Machine
) -> None:
    made = create(store, subnet(store))
    machine.taken = {"10.0.0.4"}
    gateways = machine.gateways(store)
    await gateways.look()
    found = store.gateways.gateway("acc", made.id)
    assert found.state is FAILED and "10.0.0.4" in found.reason and "already in use" in found.reason
    machine.taken = set()
    await gateways.look()
    assert (state(store, made), store.gateways.gateway("acc", made.id).reason) == (STABLE, "")


@pytest.mark.parametrize("networks", [[], ["10.0.1.0/24", "fd00::/8"]])
async def test_an_address_outside_the_networks_of_now_is_not_opened(
    store: ControlStore, machine: Machine, networks: list[str]
) -> None:
    made = create(store, subnet(store))
    await machine.gateways(store).look()
    assert state(store, made) is STABLE
    machine.opened.clear()  # the process ended, and the setting was narrowed
    machine.names.clear()
    again = machine.gateways(store, networks=networks)
    await again.look()
    found = store.gateways.gateway("acc", made.id)
    assert found.state is FAILED and not machine.opened and not machine.names
    assert "10.0.0.4" in found.reason and "relay.private_networks" in found.reason


async def test_a_failed_one_is_tried_again_by_itself(store: ControlStore, machine: Machine) -> None:
    made = create(store, subnet(store))
    machine.taken = {"10.0.0.4"}
    gateways = machine.gateways(store, retry_s=0.01)
    await gateways.start()
    assert state(store, made) is FAILED
    machine.taken = set()
    while state(store, made) is not STABLE:
        await asyncio.sleep(0.01)
    await gateways.stop()


async def test_a_gateway_without_an_address_is_stable_and_gets_one_later(store: ControlStore, machine: Machine) -> None:
    where = subnet(store)
    made = store.gateways.create(
        "acc", where.vpc.id, name="g", target="crn", region="us-south", service_endpoint=NAME, dns_mode="primary",
        ip=None, by="me",
    )  # fmt: skip
    gateways = machine.gateways(store)
    await gateways.look()
    assert state(store, made) is STABLE and machine.opened == {}
    store.vpc.reserve("acc", where.id, address=None, name="ip", auto_delete=False, gateway_id=made.id, by="me")
    assert state(store, made) is GatewayState.UPDATING
    await gateways.look()
    assert state(store, made) is STABLE and list(machine.opened) == ["10.0.0.4"]


async def test_a_gateway_that_goes_is_there_until_it_is_drained(store: ControlStore, machine: Machine) -> None:
    where = subnet(store)
    made = create(store, where)
    gateways = machine.gateways(store)
    await gateways.start()
    machine.drained.clear()
    store.gateways.delete("acc", made.id)
    await gateways.look()
    assert state(store, made) is DELETING and machine.names == [] and not gateways.listens("10.0.0.4")
    await gateways.look()
    assert state(store, made) is DELETING
    machine.drained.set()
    while store.gateways.wanted():
        await asyncio.sleep(0.01)
    assert machine.opened == {} and store.vpc.reserved_ips("acc", where.id) == ()
    with pytest.raises(Missing):
        state(store, made)
    await gateways.stop()


async def test_names_that_cannot_be_told_keep_no_address_open_or_shut(
    store: ControlStore, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, address: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(machine, "withdraw", full)
    monkeypatch.setattr(machine, "names", type("", (), {"append": lambda self, entry: full(*entry)})())
    made = create(store, subnet(store))
    gateways = machine.gateways(store)
    await gateways.start()
    assert state(store, made) is STABLE and list(machine.opened) == ["10.0.0.4"]
    store.gateways.delete("acc", made.id)
    gateways.poke()
    while store.gateways.wanted():
        await asyncio.sleep(0.01)
    assert machine.opened == {}
    await gateways.stop()


async def test_an_address_is_not_opened_for_another_before_it_is_drained(store: ControlStore, machine: Machine) -> None:
    where = subnet(store)
    first = create(store, where, NewIp(where.id, "10.0.0.9", "ip", False))
    gateways = machine.gateways(store)
    await gateways.start()
    machine.drained.clear()
    assert first.ip is not None
    store.gateways.unbind("acc", first.id, first.ip.id)
    await gateways.look()
    assert state(store, first) is STABLE and machine.closing == ["10.0.0.9"]
    store.gateways.bind("acc", first.id, first.ip.id)
    await gateways.look()
    assert state(store, first) is GatewayState.UPDATING
    machine.drained.set()
    while state(store, first) is not STABLE:
        await asyncio.sleep(0.01)
    assert list(machine.opened) == ["10.0.0.9"]
    await gateways.stop()


async def test_a_restart_takes_up_what_was_and_ends_what_was_going(store: ControlStore, machine: Machine) -> None:
    stays, goes = create(store, subnet(store)), create(store, subnet(store, "two", "10.0.1.0/24"))
    first = machine.gateways(store)
    await first.look()
    assert len(machine.opened) == 2
    machine.opened.clear()  # the process ended
    machine.names.clear()
    store.gateways.delete("acc", goes.id)
    again = machine.gateways(store)
    await again.start()
    assert list(machine.opened) == ["10.0.0.4"] and store.gateways.wanted()[0].id == stays.id
    assert (NAME, "10.0.1.4") not in machine.names
    await again.stop()


async def test_a_poke_from_a_thread_is_enough(store: ControlStore, machine: Machine) -> None:
    gateways = machine.gateways(store)
    gateways.poke()  # before it has a loop: nothing to do, and no error
    await gateways.start()
    made = create(store, subnet(store))
    await asyncio.to_thread(gateways.poke)
    while state(store, made) is not STABLE:
        await asyncio.sleep(0.01)
    await gateways.stop()


async def test_a_store_that_fails_for_a_moment_is_asked_again(
    store: ControlStore, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways = machine.gateways(store, retry_s=0.01)
    await gateways.start()
    real, failures = store.gateways.wanted, iter([OSError("no")])

    def wanted() -> Any:
        for failure in failures:
            raise failure
        return real()

    monkeypatch.setattr(store.gateways, "wanted", wanted)
    made = create(store, subnet(store))
    gateways.poke()
    while state(store, made) is not STABLE:
        await asyncio.sleep(0.01)
    await gateways.stop()
