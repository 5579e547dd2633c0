"""The documents of VPCs, subnets, reserved addresses and gateways.

Standards: the vendor's models: its client raises when a property is missing that it takes for required.
Promises: what we have none of (ACLs, routing tables, security groups) is named all the same, with ids that stay.
Not here: their shapes for the description (`models`).
"""

from __future__ import annotations

from fastapi import Request

from outgate.api.vpc.common import MORE_INFO, derived, link, resource_group_id
from outgate.base.clock import rfc3339
from outgate.model.vpc import EndpointGateway, GatewayState, ReservedIp, Subnet, Vpc, capacity

_HEALTHY = frozenset({GatewayState.STABLE, GatewayState.UPDATING})


def vpc(request: Request, it: Vpc) -> dict[str, object]:
    """Return a VPC."""
    return {
        **_reference(request, it.region, it.account_id, "vpc", it.id, it.name, crn=it.crn),
        "resource_type": "vpc",
        "created_at": _time(it.created_at),
        "classic_access": False,
        "cse_source_ips": [],
        "default_network_acl": _default(request, it, "network-acl"),
        "default_routing_table": _routing_table(request, it),
        "default_security_group": _default(request, it, "security-group"),
        "dns": {
            "enable_hub": False,
            "resolution_binding_count": 0,
            "resolver": {"servers": [], "type": "system", "configuration": "default"},
        },
        "health_reasons": [],
        "health_state": "ok",
        "public_address_ranges": [],
        "resource_group": _resource_group(request, it.account_id),
        "status": "available",
    }


def subnet(request: Request, it: Subnet, held: int) -> dict[str, object]:
    """Return a subnet in which `held` addresses are reserved."""
    return {
        **_reference(request, it.zone, it.vpc.account_id, "subnet", it.id, it.name),
        "resource_type": "subnet",
        "created_at": _time(it.created_at),
        "available_ipv4_address_count": capacity(it.network) - held,
        "ip_version": "ipv4",
        "ipv4_cidr_block": it.network,
        "network_acl": _default(request, it.vpc, "network-acl"),
        "resource_group": _resource_group(request, it.vpc.account_id),
        "routing_table": _routing_table(request, it.vpc),
        "status": "available",
        "total_ipv4_address_count": capacity(it.network) + 5,
        "vpc": _vpc_reference(request, it.vpc),
        "zone": {"href": link(request, f"regions/{it.vpc.region}/zones/{it.zone}"), "name": it.zone},
    }


def reserved_ip(request: Request, it: ReservedIp, region: str, account_id: str) -> dict[str, object]:
    """Return a reserved address of a subnet in that region."""
    bound: dict[str, object] = {}
    if it.gateway_id:
        target = _reference(request, region, account_id, "endpoint-gateway", it.gateway_id, it.gateway_name)
        bound["target"] = {**target, "resource_type": "endpoint_gateway"}
    return {
        **_ip_reference(request, it),
        "auto_delete": it.auto_delete,
        "created_at": _time(it.created_at),
        "lifecycle_state": "stable",
        "owner": "user",
        **bound,
    }


def gateway(request: Request, it: EndpointGateway) -> dict[str, object]:
    """Return an endpoint gateway."""
    reasons = [{"code": "internal_error", "message": it.reason, "more_info": MORE_INFO}] if it.reason else []
    return {
        **_reference(request, it.vpc.region, it.vpc.account_id, "endpoint-gateway", it.id, it.name),
        "resource_type": "endpoint_gateway",
        "created_at": _time(it.created_at),
        # What older clients know; the mode says more.
        "allow_dns_resolution_binding": it.dns_mode != "disabled",
        "dns_resolution_binding_mode": it.dns_mode,
        "health_state": "ok" if it.state in _HEALTHY else "inapplicable",
        "ips": [] if it.ip is None else [_ip_reference(request, it.ip)],
        "lifecycle_reasons": reasons,
        "lifecycle_state": it.state.value,
        "resource_group": _resource_group(request, it.vpc.account_id),
        "security_groups": [_default(request, it.vpc, "security-group")],
        "service_endpoint": it.service_endpoint,
        "service_endpoints": [it.service_endpoint],
        "target": {"crn": it.target, "resource_type": "provider_cloud_service"},
        "vpc": _vpc_reference(request, it.vpc),
    }


def security_group_id(vpc_id: str) -> str:
    """Return the id of a VPC's one security group."""
    return _default_id(vpc_id, "security-group")


def _reference(
    request: Request, place: str, account_id: str, kind: str, thing_id: str, name: str, *, crn: str = ""
) -> dict[str, object]:
    return {
        "crn": crn or f"crn:v1:bluemix:public:is:{place}:a/{account_id}::{kind}:{thing_id}",
        "href": link(request, f"{kind.replace('-', '_')}s/{thing_id}"),
        "id": thing_id,
        "name": name,
    }


def _vpc_reference(request: Request, it: Vpc) -> dict[str, object]:
    found = _reference(request, it.region, it.account_id, "vpc", it.id, it.name, crn=it.crn)
    return {**found, "resource_type": "vpc"}


def _ip_reference(request: Request, it: ReservedIp) -> dict[str, object]:
    return {
        "address": it.address,
        "href": link(request, f"subnets/{it.subnet_id}/reserved_ips/{it.id}"),
        "id": it.id,
        "name": it.name,
        "resource_type": "subnet_reserved_ip",
    }


def _default_id(vpc_id: str, kind: str) -> str:
    return f"r006-{derived(vpc_id, kind)}"


def _default(request: Request, it: Vpc, kind: str) -> dict[str, object]:
    return _reference(request, it.region, it.account_id, kind, _default_id(it.id, kind), f"{it.name}-default")


def _routing_table(request: Request, it: Vpc) -> dict[str, object]:
    table_id = _default_id(it.id, "routing-table")
    return {
        "crn": f"crn:v1:bluemix:public:is:{it.region}:a/{it.account_id}::routing-table:{it.id}/{table_id}",
        "href": link(request, f"vpcs/{it.id}/routing_tables/{table_id}"),
        "id": table_id,
        "name": f"{it.name}-default",
        "resource_type": "routing_table",
    }


def _resource_group(request: Request, account_id: str) -> dict[str, object]:
    group = resource_group_id(account_id)
    return {"href": link(request, f"resource_groups/{group}"), "id": group, "name": "Default"}


def _time(at: float) -> str:
    return rfc3339(at, milliseconds=True)
