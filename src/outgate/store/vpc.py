"""VPCs, their subnets and the addresses reserved in these.

Standards: the vendor's VPC service (limits, reserved addresses).
Promises: every method is one transaction; names are unique in their account, VPC or subnet; no two subnets overlap,
    whoever they belong to; what is in use is not deleted.
Dangers: whoever makes a subnet says which of this machine's addresses may be listened on: callers check that first.
Not here: gateways (`gateways`), JSON (`api.vpc`).
"""

from __future__ import annotations

import ipaddress

from sqlalchemy import delete, func, insert, select

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.vpc import LONGEST_PREFIX, ReservedIp, Subnet, Vpc
from outgate.store.database import Database
from outgate.store.gateway_rows import bind_ip
from outgate.store.tables import endpoint_gateways, reserved_ips, subnets, vpcs
from outgate.store.tenancy_rows import Conflict, TooMany
from outgate.store.vpc_rows import (
    BadAddress,
    Missing,
    find_subnet,
    find_vpc,
    insert_ip,
    ip_of,
    ip_query,
    subnet_of,
    subnet_query,
    vpc_of,
)

MOST_VPCS = 10
MOST_SUBNETS = 15


class VpcQueries:
    """Read and change VPCs, subnets and reserved addresses. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_vpc(self, account_id: str, region: str, name: str, *, by: str, vpc_id: str = "", crn: str = "") -> Vpc:
        """Make a VPC. Raises `Conflict` (field "name"), `TooMany` (10 in an account)."""
        vpc_id = vpc_id or f"r006-{ids.new_uuid()}"
        crn = crn or f"crn:v1:bluemix:public:is:{region}:a/{account_id}::vpc:{vpc_id}"
        vpc = Vpc(vpc_id, account_id, crn, region, name, self._clock.now(), by)
        mine = vpcs.c.account_id == account_id
        with self._database.writing(noted=False) as connection:
            if (connection.scalar(select(func.count()).select_from(vpcs).where(mine)) or 0) >= MOST_VPCS:
                raise TooMany(f"an account has at most {MOST_VPCS} VPCs: delete one first")
            if connection.scalar(select(func.count()).select_from(vpcs).where(mine, vpcs.c.name == name)):
                raise Conflict("name", f"the account has a VPC named {name!r} already")
            connection.execute(
                insert(vpcs).values(
                    id=vpc.id,
                    account_id=account_id,
                    crn=crn,
                    region=region,
                    name=name,
                    created_at=vpc.created_at,
                    created_by=by,
                )
            )
        return vpc

    def vpc(self, account_id: str, vpc_id: str) -> Vpc:
        """Return a VPC of an account. Raises `Missing`."""
        with self._database.reading() as connection:
            return find_vpc(connection, account_id, vpc_id)

    def vpcs(self, account_id: str) -> tuple[Vpc, ...]:
        """Return an account's VPCs, oldest first."""
        query = select(vpcs).where(vpcs.c.account_id == account_id).order_by(vpcs.c.created_at, vpcs.c.id)
        with self._database.reading() as connection:
            return tuple(vpc_of(row) for row in connection.execute(query))

    def delete_vpc(self, account_id: str, vpc_id: str) -> None:
        """Delete an empty VPC. Raises `Missing`, `Conflict` (a subnet or gateway is in it)."""
        with self._database.writing(noted=False) as connection:
            find_vpc(connection, account_id, vpc_id)
            for table, what in ((subnets, "a subnet"), (endpoint_gateways, "an endpoint gateway")):
                if connection.scalar(select(func.count()).select_from(table).where(table.c.vpc_id == vpc_id)):
                    raise Conflict("", f"the VPC has {what}: delete that first")
            connection.execute(delete(vpcs).where(vpcs.c.id == vpc_id))

    def create_subnet(
        self, account_id: str, vpc_id: str, *, name: str, zone: str, network: str, by: str, subnet_id: str = ""
    ) -> Subnet:
        """Make a subnet of IPv4 addresses, in CIDR.

        Raises `Missing`, `BadAddress` (too small), `Conflict` (field "name", or "network" for an overlap), `TooMany`
        (15 in a VPC)."""
        wanted = ipaddress.IPv4Network(network)
        if wanted.prefixlen > LONGEST_PREFIX:
            raise BadAddress(f"{network} is too small: a subnet is a /{LONGEST_PREFIX} at least")
        with self._database.writing(noted=False) as connection:
            vpc = find_vpc(connection, account_id, vpc_id)
            others = [subnet_of(row) for row in connection.execute(subnet_query())]
            mine = [other for other in others if other.vpc.id == vpc_id]
            if len(mine) >= MOST_SUBNETS:
                raise TooMany(f"a VPC has at most {MOST_SUBNETS} subnets: delete one first")
            if any(other.name == name for other in mine):
                raise Conflict("name", f"the VPC has a subnet named {name!r} already")
            if any(ipaddress.IPv4Network(other.network).overlaps(wanted) for other in others):
                raise Conflict("network", f"another subnet has addresses of {network}")
            made = Subnet(subnet_id or f"0717-{ids.new_uuid()}", vpc, zone, network, name, self._clock.now(), by)
            connection.execute(
                insert(subnets).values(
                    id=made.id,
                    vpc_id=vpc_id,
                    zone=zone,
                    network=network,
                    name=name,
                    created_at=made.created_at,
                    created_by=by,
                )
            )
        return made

    def subnet(self, account_id: str, subnet_id: str) -> Subnet:
        """Return a subnet of an account. Raises `Missing`."""
        with self._database.reading() as connection:
            return find_subnet(connection, account_id, subnet_id)

    def subnets(self, account_id: str) -> tuple[tuple[Subnet, int], ...]:
        """Return an account's subnets, oldest first, each with how many addresses are reserved in it."""
        counted = select(reserved_ips.c.subnet_id, func.count().label("held")).group_by(reserved_ips.c.subnet_id)
        with self._database.reading() as connection:
            held = {row.subnet_id: row.held for row in connection.execute(counted)}
            found = connection.execute(subnet_query().where(vpcs.c.account_id == account_id))
            return tuple((subnet_of(row), held.get(row.id, 0)) for row in found)

    def delete_subnet(self, account_id: str, subnet_id: str) -> None:
        """Delete a subnet with its unbound addresses. Raises `Missing`, `Conflict` (a gateway has an address in it)."""
        with self._database.writing(noted=False) as connection:
            find_subnet(connection, account_id, subnet_id)
            mine = reserved_ips.c.subnet_id == subnet_id
            bound = select(func.count()).select_from(reserved_ips).where(mine, reserved_ips.c.gateway_id.is_not(None))
            if connection.scalar(bound):
                raise Conflict("", "an endpoint gateway has an address in the subnet: take it from that first")
            connection.execute(delete(reserved_ips).where(mine))
            connection.execute(delete(subnets).where(subnets.c.id == subnet_id))

    def reserve(
        self,
        account_id: str,
        subnet_id: str,
        *,
        address: str | None,
        name: str,
        auto_delete: bool,
        gateway_id: str | None,
        by: str,
    ) -> ReservedIp:
        """Reserve an address, the lowest free one if None, and bind it to a gateway if one is named.

        Raises `Missing`, `BadAddress`, `TooMany`, `Conflict` (what is taken, or the gateway cannot have it)."""
        with self._database.writing(noted=gateway_id is not None) as connection:
            subnet = find_subnet(connection, account_id, subnet_id)
            ip = insert_ip(
                connection,
                subnet,
                address=address,
                name=name,
                auto_delete=auto_delete,
                now=self._clock.now(),
                by=by,
            )
            return ip if gateway_id is None else bind_ip(connection, account_id, gateway_id, ip.id)[0]

    def reserved_ip(self, account_id: str, subnet_id: str, ip_id: str) -> ReservedIp:
        """Return a reserved address of a subnet. Raises `Missing`."""
        with self._database.reading() as connection:
            find_subnet(connection, account_id, subnet_id)
            query = ip_query().where(reserved_ips.c.id == ip_id, reserved_ips.c.subnet_id == subnet_id)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise Missing("reserved IP", ip_id)
        return ip_of(row)

    def reserved_ips(self, account_id: str, subnet_id: str) -> tuple[ReservedIp, ...]:
        """Return the reserved addresses of a subnet, oldest first. Raises `Missing`."""
        with self._database.reading() as connection:
            find_subnet(connection, account_id, subnet_id)
            query = ip_query().where(reserved_ips.c.subnet_id == subnet_id)
            return tuple(ip_of(row) for row in connection.execute(query))

    def release(self, account_id: str, subnet_id: str, ip_id: str) -> None:
        """End a reservation. Raises `Missing`, `Conflict` (a gateway has it)."""
        with self._database.writing(noted=False) as connection:
            find_subnet(connection, account_id, subnet_id)
            query = ip_query().where(reserved_ips.c.id == ip_id, reserved_ips.c.subnet_id == subnet_id)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise Missing("reserved IP", ip_id)
            if row.gateway_id is not None:
                raise Conflict("", f"endpoint gateway {row.gateway_id} has the reserved IP: take it from that first")
            connection.execute(delete(reserved_ips).where(reserved_ips.c.id == ip_id))
