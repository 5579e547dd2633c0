"""Which roles may call which operation of the VPC API.

Standards: none; at the vendor's an Operator binds addresses, an Editor creates and deletes.
Promises: an operation that is not listed here cannot be routed; a manager may do all of it.
Not here: the check itself (`api.identity.gate`).
"""

from __future__ import annotations

_READ = frozenset({"reader", "writer", "manager", "authorizer", "operator"})
_WRITE = frozenset({"writer", "manager"})
_MANAGE = frozenset({"manager"})

ROLES: dict[str, frozenset[str]] = {
    "list_vpcs": _READ,
    "create_vpc": _MANAGE,
    "get_vpc": _READ,
    "delete_vpc": _MANAGE,
    "list_subnets": _READ,
    "create_subnet": _MANAGE,
    "get_subnet": _READ,
    "delete_subnet": _MANAGE,
    "list_subnet_reserved_ips": _READ,
    "create_subnet_reserved_ip": _MANAGE,
    "get_subnet_reserved_ip": _READ,
    "delete_subnet_reserved_ip": _MANAGE,
    "list_endpoint_gateways": _READ,
    "create_endpoint_gateway": _MANAGE,
    "get_endpoint_gateway": _READ,
    "update_endpoint_gateway": _WRITE,
    "delete_endpoint_gateway": _MANAGE,
    "list_endpoint_gateway_ips": _READ,
    "get_endpoint_gateway_ip": _READ,
    "add_endpoint_gateway_ip": _WRITE,
    "remove_endpoint_gateway_ip": _WRITE,
}
