"""What the statements on VPCs, subnets and reserved addresses share: look-ups, and how a row becomes a noun.

Standards: none.
Promises: every function runs inside the caller's transaction; what belongs to another account is not found.
Dangers: for `vpc`, `gateways` and `gateway_rows` only.
Not here: transactions, gateways (`gateway_rows`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from outgate.base import ids
from outgate.model.vpc import ReservedIp, Subnet, Vpc, reservable, reservable_addresses
from outgate.store.tables import endpoint_gateways, reserved_ips, subnets, vpcs
from outgate.store.tenancy_rows import Conflict, NotThere, TooMany

MOST_RESERVED = 1000


class Missing(NotThere):
    """The account has no `what` named `name`."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what} {name[:64]!r}")
        self.what = what
        self.name = name


class BadAddress(ValueError):
    """An address cannot be reserved in a subnet; the message says why and which could."""


def find_vpc(connection: Connection, account_id: str, vpc_id: str) -> Vpc:
    """Return a VPC of an account. Raises `Missing`."""
    row = connection.execute(select(vpcs).where(vpcs.c.id == vpc_id, vpcs.c.account_id == account_id)).one_or_none()
    if row is None:
        raise Missing("VPC", vpc_id)
    return vpc_of(row)


def vpc_of(row: Row[Any]) -> Vpc:
    """Read a VPC."""
    return Vpc(row.id, row.account_id, row.crn, row.region, row.name, row.created_at, row.created_by)


def subnet_query() -> Select[Any]:
    """Select subnets with their VPCs, oldest first."""
    joined = subnets.join(vpcs, vpcs.c.id == subnets.c.vpc_id)
    return select(subnets, *vpc_columns()).select_from(joined).order_by(subnets.c.created_at, subnets.c.id)


def subnet_of(row: Row[Any]) -> Subnet:
    """Read a row of `subnet_query`."""
    return Subnet(row.id, joined_vpc(row), row.zone, row.network, row.name, row.created_at, row.created_by)


def find_subnet(connection: Connection, account_id: str, subnet_id: str) -> Subnet:
    """Return a subnet of an account. Raises `Missing`."""
    query = subnet_query().where(subnets.c.id == subnet_id, vpcs.c.account_id == account_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise Missing("subnet", subnet_id)
    return subnet_of(row)


def ip_query() -> Select[Any]:
    """Select reserved addresses with the zone of their subnet and the name of their gateway, oldest first."""
    joined = reserved_ips.join(subnets, subnets.c.id == reserved_ips.c.subnet_id).outerjoin(
        endpoint_gateways, endpoint_gateways.c.id == reserved_ips.c.gateway_id
    )
    named = (subnets.c.zone, subnets.c.vpc_id, endpoint_gateways.c.name.label("gateway_name"))
    return select(reserved_ips, *named).select_from(joined).order_by(reserved_ips.c.created_at, reserved_ips.c.id)


def ip_of(row: Row[Any]) -> ReservedIp:
    """Read a row of `ip_query`."""
    return ReservedIp(
        row.id,
        row.subnet_id,
        row.zone,
        row.address,
        row.name,
        row.auto_delete,
        row.gateway_id or "",
        row.gateway_name or "",
        row.created_at,
        row.created_by,
    )


def insert_ip(
    connection: Connection,
    subnet: Subnet,
    *,
    address: str | None,
    name: str,
    auto_delete: bool,
    now: float,
    by: str,
) -> ReservedIp:
    """Reserve an address, unbound: the lowest free one if None. Raises `BadAddress`, `Conflict`, `TooMany`."""
    mine = reserved_ips.c.subnet_id == subnet.id
    taken = set(connection.scalars(select(reserved_ips.c.address).where(mine)))
    if len(taken) >= MOST_RESERVED:
        raise TooMany(f"a subnet has at most {MOST_RESERVED} reserved IPs: delete one first")
    if address is None:
        address = next((free for free in reservable_addresses(subnet.network) if free not in taken), None)
        if address is None:
            raise Conflict("subnet", f"{subnet.network} has no free address: delete a reserved IP first")
    elif not reservable(subnet.network, address):
        raise BadAddress(
            f"{address} cannot be reserved in {subnet.network}: its first four addresses and its last are nobody's"
        )
    elif address in taken:
        raise Conflict("address", f"{address} is reserved already")
    if connection.scalar(select(func.count()).select_from(reserved_ips).where(mine, reserved_ips.c.name == name)):
        raise Conflict("name", f"the subnet has a reserved IP named {name!r} already")
    ip_id = f"{subnet.id.partition('-')[0]}-{ids.new_uuid()}"
    connection.execute(
        insert(reserved_ips).values(
            id=ip_id,
            subnet_id=subnet.id,
            address=address,
            name=name,
            auto_delete=auto_delete,
            created_at=now,
            created_by=by,
        )
    )
    return ReservedIp(ip_id, subnet.id, subnet.zone, address, name, auto_delete, "", "", now, by)


def vpc_columns() -> list[Any]:
    """Return the columns of a joined VPC, under names that no other table has."""
    return [column.label(f"vpc_{column.name}") for column in vpcs.c if column.name != "id"] + [
        vpcs.c.id.label("vpc_own_id")
    ]


def joined_vpc(row: Row[Any]) -> Vpc:
    """Read the `vpc_columns` of a row."""
    return Vpc(
        row.vpc_own_id,
        row.vpc_account_id,
        row.vpc_crn,
        row.vpc_region,
        row.vpc_name,
        row.vpc_created_at,
        row.vpc_created_by,
    )
