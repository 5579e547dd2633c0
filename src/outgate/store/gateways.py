"""Endpoint gateways: what is wanted of them, and what has become of that.

Standards: the vendor's VPC service; of a private endpoint, one address per VPC and region.
Promises: every method is one transaction, and what the vendor forbids is refused in it; a state that is reported late
    changes nothing: it counts only while the gateway still has the address that it is about.
Dangers: `wanted` and what follows it are for `relay.gateways`: they look at every account.
Not here: networks (`vpc`), listeners (`relay.gateways`), JSON (`api.vpc`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.vpc import EndpointGateway, GatewayState, ReservedIp
from outgate.store.database import Database
from outgate.store.gateway_rows import (
    bind_ip,
    find_gateway,
    gateway_query,
    gateways_of,
    let_go,
    require_free_name,
    require_settled,
    set_state,
)
from outgate.store.tables import endpoint_gateways, vpcs
from outgate.store.tenancy_rows import Conflict, TooMany
from outgate.store.vpc_rows import Missing, find_subnet, find_vpc, insert_ip

MOST_GATEWAYS = 100


@dataclass(frozen=True, slots=True)
class NewIp:
    """An address to reserve for a new gateway: the lowest free one of the subnet if `address` is None."""

    subnet_id: str
    address: str | None
    name: str
    auto_delete: bool


class GatewayQueries:
    """Read and change endpoint gateways. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self,
        account_id: str,
        vpc_id: str,
        *,
        name: str,
        target: str,
        region: str,
        service_endpoint: str,
        dns_mode: str,
        ip: NewIp | str | None,
        by: str,
    ) -> EndpointGateway:
        """Make a gateway; `ip` is a new address, the id of a reserved one, or None for none yet.

        Raises `Missing`, `BadAddress`, `TooMany` (100 in an account), `Conflict` (name or target taken in the VPC,
        address in use or of another VPC)."""
        now, gateway_id = self._clock.now(), f"r006-{ids.new_uuid()}"
        with self._database.writing() as connection:
            find_vpc(connection, account_id, vpc_id)
            if len(gateways_of(connection, gateway_query().where(vpcs.c.account_id == account_id))) >= MOST_GATEWAYS:
                raise TooMany(f"an account has at most {MOST_GATEWAYS} endpoint gateways: delete one first")
            others = endpoint_gateways.c.vpc_id == vpc_id
            require_free_name(connection, vpc_id, name)
            same = select(endpoint_gateways.c.name).where(
                others, endpoint_gateways.c.service_endpoint == service_endpoint
            )
            if (other := connection.scalar(same)) is not None:
                raise Conflict("target", f"the VPC has gateway {other!r} to {service_endpoint} already")
            connection.execute(
                insert(endpoint_gateways).values(
                    id=gateway_id,
                    vpc_id=vpc_id,
                    name=name,
                    target=target,
                    region=region,
                    service_endpoint=service_endpoint,
                    dns_mode=dns_mode,
                    state=GatewayState.PENDING,
                    reason="",
                    created_at=now,
                    created_by=by,
                )
            )
            if isinstance(ip, NewIp):
                subnet = find_subnet(connection, account_id, ip.subnet_id)
                ip = insert_ip(
                    connection,
                    subnet,
                    address=ip.address,
                    name=ip.name,
                    auto_delete=ip.auto_delete,
                    now=now,
                    by=by,
                ).id
            if ip is not None:
                bind_ip(connection, account_id, gateway_id, ip)
            return find_gateway(connection, account_id, gateway_id)

    def gateway(self, account_id: str, gateway_id: str) -> EndpointGateway:
        """Return a gateway of an account. Raises `Missing`."""
        with self._database.reading() as connection:
            return find_gateway(connection, account_id, gateway_id)

    def gateways(self, account_id: str) -> tuple[EndpointGateway, ...]:
        """Return an account's gateways, newest first."""
        with self._database.reading() as connection:
            return gateways_of(connection, gateway_query().where(vpcs.c.account_id == account_id))

    def change(self, account_id: str, gateway_id: str, *, name: str | None, dns_mode: str | None) -> EndpointGateway:
        """Change what is not None. Raises `Missing`, `Conflict` (name taken; the gateway is being deleted)."""
        with self._database.writing(noted=False) as connection:
            gateway = find_gateway(connection, account_id, gateway_id)
            require_settled(gateway)
            if name is not None and name != gateway.name:
                require_free_name(connection, gateway.vpc.id, name)
            connection.execute(
                update(endpoint_gateways)
                .where(endpoint_gateways.c.id == gateway_id)
                .values(name=name or gateway.name, dns_mode=dns_mode or gateway.dns_mode)
            )
            return find_gateway(connection, account_id, gateway_id)

    def delete(self, account_id: str, gateway_id: str) -> None:
        """Have a gateway go: it ends once nobody listens for it any more. Raises `Missing`."""
        with self._database.writing() as connection:
            find_gateway(connection, account_id, gateway_id)
            connection.execute(
                update(endpoint_gateways)
                .where(endpoint_gateways.c.id == gateway_id)
                .values(state=GatewayState.DELETING, reason="")
            )

    def bind(self, account_id: str, gateway_id: str, ip_id: str) -> tuple[ReservedIp, bool]:
        """Give a gateway a reserved address; say whether it had it not before.

        Raises `Missing`, `Conflict` (it has another, the address is in use or of another VPC, it is being deleted)."""
        with self._database.writing() as connection:
            return bind_ip(connection, account_id, gateway_id, ip_id)

    def unbind(self, account_id: str, gateway_id: str, ip_id: str) -> None:
        """Take its address from a gateway. Raises `Missing`, `Conflict` (it is being deleted)."""
        with self._database.writing() as connection:
            gateway = find_gateway(connection, account_id, gateway_id)
            if gateway.ip is None or gateway.ip.id != ip_id:
                raise Missing("reserved IP of this gateway", ip_id)
            require_settled(gateway)
            let_go(connection, gateway.ip)
            set_state(connection, gateway_id, GatewayState.UPDATING, "")

    # -- for whoever listens

    def wanted(self) -> tuple[EndpointGateway, ...]:
        """Return the gateways of all accounts, oldest first."""
        with self._database.reading() as connection:
            return gateways_of(connection, gateway_query())[::-1]

    def settle(self, gateway_id: str, ip_id: str | None, state: GatewayState, reason: str) -> bool:
        """Say what has become of a gateway with that address (None: without); False if it is another one by now."""
        with self._database.writing(noted=False) as connection:
            found = gateways_of(connection, gateway_query().where(endpoint_gateways.c.id == gateway_id))
            if not found or found[0].state is GatewayState.DELETING:
                return False
            bound = found[0].ip
            if (None if bound is None else bound.id) != ip_id:
                return False
            set_state(connection, gateway_id, state, reason)
            return True

    def end(self, gateway_id: str) -> bool:
        """Forget a gateway that is being deleted, and let its address go; False if it is not."""
        with self._database.writing(noted=False) as connection:
            found = gateways_of(connection, gateway_query().where(endpoint_gateways.c.id == gateway_id))
            if not found or found[0].state is not GatewayState.DELETING:
                return False
            if found[0].ip is not None:
                let_go(connection, found[0].ip)
            connection.execute(delete(endpoint_gateways).where(endpoint_gateways.c.id == gateway_id))
            return True
