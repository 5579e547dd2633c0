"""What the statements on endpoint gateways share: look-ups, and binding an address.

Standards: of a private endpoint, one address per VPC and region (the vendor's page on SMTP).
Promises: every function runs inside the caller's transaction; what belongs to another account is not found.
Dangers: for `vpc` and `gateways` only.
Not here: transactions, networks (`vpc_rows`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, update

from outgate.model.vpc import EndpointGateway, GatewayState, ReservedIp
from outgate.store.tables import endpoint_gateways, reserved_ips, subnets, vpcs
from outgate.store.tenancy_rows import Conflict
from outgate.store.vpc_rows import Missing, ip_of, ip_query, joined_vpc, vpc_columns


def gateway_query() -> Select[Any]:
    """Select gateways with their VPCs, newest first, those of one moment by name."""
    joined = endpoint_gateways.join(vpcs, vpcs.c.id == endpoint_gateways.c.vpc_id)
    order = (endpoint_gateways.c.created_at.desc(), endpoint_gateways.c.name, endpoint_gateways.c.id)
    return select(endpoint_gateways, *vpc_columns()).select_from(joined).order_by(*order)


def gateways_of(connection: Connection, query: Select[Any]) -> tuple[EndpointGateway, ...]:
    """Return the gateways of a `gateway_query`, each with its address."""
    rows = connection.execute(query).all()
    bound = ip_query().where(reserved_ips.c.gateway_id.in_([row.id for row in rows]))
    ips = {row.gateway_id: ip_of(row) for row in connection.execute(bound)} if rows else {}
    return tuple(
        EndpointGateway(
            row.id,
            joined_vpc(row),
            row.name,
            row.target,
            row.region,
            row.service_endpoint,
            row.dns_mode,
            GatewayState(row.state),
            row.reason,
            ips.get(row.id),
            row.created_at,
            row.created_by,
        )
        for row in rows
    )


def find_gateway(connection: Connection, account_id: str, gateway_id: str) -> EndpointGateway:
    """Return a gateway of an account. Raises `Missing`."""
    query = gateway_query().where(endpoint_gateways.c.id == gateway_id, vpcs.c.account_id == account_id)
    found = gateways_of(connection, query)
    if not found:
        raise Missing("endpoint gateway", gateway_id)
    return found[0]


def let_go(connection: Connection, ip: ReservedIp) -> None:
    """Unbind an address, which ends it if it was to be deleted by itself."""
    mine = reserved_ips.c.id == ip.id
    if ip.auto_delete:
        connection.execute(delete(reserved_ips).where(mine))
    else:
        connection.execute(update(reserved_ips).where(mine).values(gateway_id=None))


def require_settled(gateway: EndpointGateway) -> None:
    """Raise `Conflict` for a gateway that is being deleted."""
    if gateway.state is GatewayState.DELETING:
        raise Conflict("", "the endpoint gateway is being deleted")


def require_free_name(connection: Connection, vpc_id: str, name: str) -> None:
    """Raise `Conflict` if a gateway of the VPC has that name."""
    mine = endpoint_gateways.c.vpc_id == vpc_id
    query = select(func.count()).select_from(endpoint_gateways).where(mine, endpoint_gateways.c.name == name)
    if connection.scalar(query):
        raise Conflict("name", f"the VPC has an endpoint gateway named {name!r} already")


def bind_ip(connection: Connection, account_id: str, gateway_id: str, ip_id: str) -> tuple[ReservedIp, bool]:
    """Bind a reserved address to a gateway; say whether it was not so before. Raises `Missing`, `Conflict`."""
    gateway = find_gateway(connection, account_id, gateway_id)
    require_settled(gateway)
    mine = (reserved_ips.c.id == ip_id, vpcs.c.account_id == account_id)
    query = ip_query().join(vpcs, vpcs.c.id == subnets.c.vpc_id).where(*mine)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise Missing("reserved IP", ip_id)
    ip = ip_of(row)
    if ip.gateway_id == gateway_id:
        return ip, False
    if ip.gateway_id:
        raise Conflict("id", f"{ip.address} is bound to endpoint gateway {ip.gateway_id} already")
    if row.vpc_id != gateway.vpc.id:
        raise Conflict("id", f"{ip.address} is not in the gateway's VPC {gateway.vpc.id}")
    if gateway.ip is not None:
        raise Conflict(
            "id",
            f"the gateway has {gateway.ip.address}: {gateway.service_endpoint} takes one address per VPC and region",
        )
    connection.execute(update(reserved_ips).where(reserved_ips.c.id == ip_id).values(gateway_id=gateway_id))
    state = GatewayState.PENDING if gateway.state is GatewayState.PENDING else GatewayState.UPDATING
    set_state(connection, gateway_id, state, "")
    return replace(ip, gateway_id=gateway_id, gateway_name=gateway.name), True


def set_state(connection: Connection, gateway_id: str, state: GatewayState, reason: str) -> None:
    """Write down what a gateway is doing."""
    mine = endpoint_gateways.c.id == gateway_id
    connection.execute(update(endpoint_gateways).where(mine).values(state=state, reason=reason))
