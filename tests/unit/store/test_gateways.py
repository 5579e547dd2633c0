"""VPCs and endpoint gateways: what the vendor forbids is refused in the transaction; late reports change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.vpc import EndpointGateway, GatewayState, Subnet, Vpc, capacity
from outgate.store import gateways as gateways_module
from outgate.store import vpc as vpc_module
from outgate.store import vpc_rows
from outgate.store.control import ControlStore, open_control
from outgate.store.gateways import NewIp
from outgate.store.secrets import open_box
from outgate.store.tenancy import Conflict, TooMany
from outgate.store.vpc_rows import BadAddress, Missing

STABLE, FAILED = GatewayState.STABLE, GatewayState.FAILED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    opened.tenancy.create_account("acc")
    opened.tenancy.create_account("other")
    yield opened
    opened.close()


@pytest.fixture
def vpc(store: ControlStore) -> Vpc:
    return store.vpc.create_vpc("acc", "us-south", "one", by="me")


@pytest.fixture
def subnet(store: ControlStore, vpc: Vpc) -> Subnet:
    return make_subnet(store, vpc)


def make_subnet(store: ControlStore, vpc: Vpc, network: str = "10.0.0.0/29", name: str = "s") -> Subnet:
    return store.vpc.create_subnet(vpc.account_id, vpc.id, name=name, zone="us-south-1", network=network, by="me")


def create(
    store: ControlStore, vpc: Vpc, ip: NewIp | str | None = None, *, name: str = "g", endpoint: str = "private.a.test"
) -> EndpointGateway:
    return store.gateways.create(
        vpc.account_id,
        vpc.id,
        name=name,
        target="crn:v1:x",
        region="us-south",
        service_endpoint=endpoint,
        dns_mode="primary",
        ip=ip,
        by="me",
    )


def reserve(store: ControlStore, subnet: Subnet, name: str, address: str | None = None, **more: object) -> str:
    values = {"auto_delete": False, "gateway_id": None, **more}
    return store.vpc.reserve(subnet.vpc.account_id, subnet.id, address=address, name=name, by="me", **values).id  # type: ignore[arg-type]


def test_a_crn_tells_account_and_region(vpc: Vpc) -> None:
    assert vpc.crn == f"crn:v1:bluemix:public:is:us-south:a/acc::vpc:{vpc.id}"


def test_the_first_four_addresses_and_the_last_are_nobodys(store: ControlStore, subnet: Subnet) -> None:
    for number in (0, 1, 2, 3, 7, 8):
        with pytest.raises(BadAddress, match=rf"10\.0\.0\.{number}"):
            reserve(store, subnet, "x", f"10.0.0.{number}")
    taken = [store.vpc.reserved_ip("acc", subnet.id, reserve(store, subnet, f"n{n}")).address for n in range(3)]
    assert taken == ["10.0.0.4", "10.0.0.5", "10.0.0.6"] and capacity(subnet.network) == 3
    with pytest.raises(Conflict, match="no free address"):
        reserve(store, subnet, "full")
    (middle,) = [ip for ip in store.vpc.reserved_ips("acc", subnet.id) if ip.address == "10.0.0.5"]
    store.vpc.release("acc", subnet.id, middle.id)
    assert store.vpc.reserved_ip("acc", subnet.id, reserve(store, subnet, "again")).address == "10.0.0.5"


def test_a_reserved_address_and_its_name_are_taken(store: ControlStore, subnet: Subnet) -> None:
    reserve(store, subnet, "x", "10.0.0.4")
    with pytest.raises(Conflict) as caught:
        reserve(store, subnet, "y", "10.0.0.4")
    assert caught.value.field == "address"
    with pytest.raises(Conflict) as caught:
        reserve(store, subnet, "x")
    assert caught.value.field == "name"


def test_names_and_networks_are_taken_once(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    with pytest.raises(Conflict, match="VPC named 'one'"):
        store.vpc.create_vpc("acc", "us-south", "one", by="me")
    theirs = store.vpc.create_vpc("other", "us-south", "one", by="me")
    with pytest.raises(Conflict, match=r"addresses of 10\.0\.0\.0/24"):
        make_subnet(store, theirs, "10.0.0.0/24")
    with pytest.raises(Conflict, match="named 's'"):
        make_subnet(store, vpc, "10.0.1.0/24")
    with pytest.raises(BadAddress, match="/29"):
        make_subnet(store, vpc, "10.0.1.0/30", "small")
    assert make_subnet(store, theirs, "10.0.1.0/24").vpc == theirs


def test_limits(store: ControlStore, vpc: Vpc, subnet: Subnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpc_module, "MOST_VPCS", 1)
    monkeypatch.setattr(vpc_module, "MOST_SUBNETS", 1)
    monkeypatch.setattr(vpc_rows, "MOST_RESERVED", 1)
    monkeypatch.setattr(gateways_module, "MOST_GATEWAYS", 1)
    with pytest.raises(TooMany, match="1 VPCs"):
        store.vpc.create_vpc("acc", "us-south", "two", by="me")
    with pytest.raises(TooMany, match="1 subnets"):
        make_subnet(store, vpc, "10.0.1.0/24", "two")
    reserve(store, subnet, "x")
    with pytest.raises(TooMany, match="1 reserved"):
        reserve(store, subnet, "y")
    create(store, vpc)
    with pytest.raises(TooMany, match="1 endpoint gateways"):
        create(store, vpc, name="h", endpoint="private.b.test")


def test_a_gateway_with_a_new_address(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    made = create(store, vpc, NewIp(subnet.id, None, "ip", True))
    assert made.state is GatewayState.PENDING and made.ip is not None
    assert (made.ip.address, made.ip.gateway_id, made.ip.gateway_name) == ("10.0.0.4", made.id, "g")
    assert store.gateways.gateways("acc") == (made,) == store.gateways.wanted()
    assert store.gateways.gateways("other") == ()
    assert store.vpc.subnets("acc") == ((subnet, 1),)


def test_one_gateway_per_target_and_name_in_a_vpc(store: ControlStore, vpc: Vpc) -> None:
    create(store, vpc)
    with pytest.raises(Conflict) as caught:
        create(store, vpc, name="h")
    assert caught.value.field == "target"
    with pytest.raises(Conflict) as caught:
        create(store, vpc, endpoint="private.b.test")
    assert caught.value.field == "name"
    other = create(store, vpc, name="h", endpoint="private.b.test")
    with pytest.raises(Conflict):
        store.gateways.change("acc", other.id, name="g", dns_mode=None)
    changed = store.gateways.change("acc", other.id, name="i", dns_mode="disabled")
    assert (changed.name, changed.dns_mode) == ("i", "disabled")
    assert store.gateways.change("acc", other.id, name="i", dns_mode=None) == changed


def test_a_refused_gateway_leaves_nothing(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    with pytest.raises(BadAddress):
        create(store, vpc, NewIp(subnet.id, "10.0.0.1", "ip", True))
    with pytest.raises(Missing):
        create(store, vpc, "nothing")
    assert store.gateways.wanted() == () and store.vpc.reserved_ips("acc", subnet.id) == ()


def test_an_address_is_bound_once_and_in_its_own_vpc(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    ip = reserve(store, subnet, "x")
    mine = create(store, vpc, ip)
    assert store.gateways.bind("acc", mine.id, ip)[1] is False
    second = create(store, vpc, name="h", endpoint="private.b.test")
    with pytest.raises(Conflict, match="bound to"):
        store.gateways.bind("acc", second.id, ip)
    elsewhere = store.vpc.create_vpc("acc", "us-south", "two", by="me")
    away = create(store, elsewhere)
    free = reserve(store, subnet, "y")
    with pytest.raises(Conflict, match="not in the gateway's VPC"):
        store.gateways.bind("acc", away.id, free)
    with pytest.raises(Conflict, match="one address per VPC and region"):
        store.gateways.bind("acc", mine.id, free)
    with pytest.raises(Missing):
        store.gateways.bind("other", mine.id, free)
    assert reserve(store, subnet, "z", gateway_id=second.id, auto_delete=True)
    assert store.gateways.gateway("acc", second.id).ip is not None


def test_unbinding_ends_what_was_to_be_deleted_by_itself(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    gateway = create(store, vpc, NewIp(subnet.id, None, "ip", True))
    assert gateway.ip is not None
    with pytest.raises(Missing):
        store.gateways.unbind("acc", gateway.id, "another")
    with pytest.raises(Conflict, match="has the reserved IP"):
        store.vpc.release("acc", subnet.id, gateway.ip.id)
    with pytest.raises(Conflict, match="has an address in the subnet"):
        store.vpc.delete_subnet("acc", subnet.id)
    store.gateways.unbind("acc", gateway.id, gateway.ip.id)
    assert store.vpc.reserved_ips("acc", subnet.id) == ()
    kept = reserve(store, subnet, "kept")
    store.gateways.bind("acc", gateway.id, kept)
    assert store.gateways.gateway("acc", gateway.id).state is GatewayState.UPDATING
    store.gateways.unbind("acc", gateway.id, kept)
    assert store.vpc.reserved_ip("acc", subnet.id, kept).gateway_id == ""


def test_a_late_report_changes_nothing(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    gateway = create(store, vpc, NewIp(subnet.id, None, "ip", False))
    assert gateway.ip is not None
    assert store.gateways.settle(gateway.id, gateway.ip.id, FAILED, "taken")
    assert store.gateways.gateway("acc", gateway.id).reason == "taken"
    assert not store.gateways.settle(gateway.id, None, STABLE, "")
    assert store.gateways.settle(gateway.id, gateway.ip.id, STABLE, "")
    assert not store.gateways.end(gateway.id)
    store.gateways.delete("acc", gateway.id)
    assert not store.gateways.settle(gateway.id, gateway.ip.id, STABLE, "")
    assert store.gateways.gateway("acc", gateway.id).state is GatewayState.DELETING


def test_a_gateway_that_goes_takes_no_change_and_ends_once(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    gateway = create(store, vpc, NewIp(subnet.id, None, "ip", True))
    assert gateway.ip is not None
    store.gateways.delete("acc", gateway.id)
    store.gateways.delete("acc", gateway.id)
    for change in (
        lambda: store.gateways.change("acc", gateway.id, name="x", dns_mode=None),
        lambda: store.gateways.bind("acc", gateway.id, gateway.ip.id),  # type: ignore[union-attr]
        lambda: store.gateways.unbind("acc", gateway.id, gateway.ip.id),  # type: ignore[union-attr]
    ):
        with pytest.raises(Conflict, match="being deleted"):
            change()
    with pytest.raises(Conflict, match="has a subnet"):
        store.vpc.delete_vpc("acc", vpc.id)
    assert store.gateways.end(gateway.id) and not store.gateways.end(gateway.id)
    with pytest.raises(Missing):
        store.gateways.gateway("acc", gateway.id)
    assert store.vpc.reserved_ips("acc", subnet.id) == ()
    store.vpc.delete_subnet("acc", subnet.id)
    create(store, vpc)
    with pytest.raises(Conflict, match="has an endpoint gateway"):
        store.vpc.delete_vpc("acc", vpc.id)


def test_what_others_must_act_on_moves_the_revision(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    before = store.revision()
    gateway = create(store, vpc, NewIp(subnet.id, None, "ip", False))
    made = store.revision()
    assert made > before
    store.gateways.settle(gateway.id, gateway.ip.id if gateway.ip else None, STABLE, "")
    assert store.revision() == made
    store.gateways.delete("acc", gateway.id)
    assert store.revision() > made


def test_another_accounts_things_are_not_there(store: ControlStore, vpc: Vpc, subnet: Subnet) -> None:
    gateway = create(store, vpc)
    ip = reserve(store, subnet, "x")
    theirs = create(store, store.vpc.create_vpc("other", "us-south", "theirs", by="them"))
    for ask in (
        lambda: store.gateways.bind("other", theirs.id, ip),
        lambda: store.gateways.bind("acc", theirs.id, ip),
        lambda: store.vpc.vpc("other", vpc.id),
        lambda: store.vpc.delete_vpc("other", vpc.id),
        lambda: store.vpc.subnet("other", subnet.id),
        lambda: store.vpc.delete_subnet("other", subnet.id),
        lambda: store.vpc.reserved_ips("other", subnet.id),
        lambda: store.vpc.reserved_ip("other", subnet.id, ip),
        lambda: store.vpc.release("other", subnet.id, ip),
        lambda: store.gateways.gateway("other", gateway.id),
        lambda: store.gateways.delete("other", gateway.id),
        lambda: store.gateways.unbind("other", gateway.id, ip),
    ):
        with pytest.raises(Missing):
            ask()
    for ask in (
        lambda: store.vpc.reserved_ip("acc", subnet.id, "nothing"),
        lambda: store.vpc.release("acc", subnet.id, "nothing"),
    ):
        with pytest.raises(Missing):
            ask()
