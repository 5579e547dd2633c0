"""The shapes of what the VPC API answers, and an example of each.

Standards: the vendor's published models.
Promises: every field that is answered is named here, and no other.
Dangers: these describe; what an answer holds is decided in `documents`.
Not here: what a request may hold (`networks`, `reserved`, `gateways`).
"""

from __future__ import annotations

import functools
from typing import Literal

from outgate.api import openapi
from outgate.api.openapi import Shown, Time

LifecycleState = Literal["deleting", "failed", "pending", "stable", "suspended", "updating", "waiting"]


class ErrorTarget(Shown):
    """The part of the request that is wrong."""

    name: str
    type: Literal["field", "parameter", "header"]


class ErrorEntry(Shown):
    """One thing that is wrong."""

    code: str
    message: str
    more_info: str
    target: ErrorTarget | None = None


class Errors(Shown):
    """The vendor's error body; `errors` is never empty."""

    errors: list[ErrorEntry]
    trace: str


described = functools.partial(openapi.described, refusal=Errors)


class Reference(Shown):
    """A thing that is named."""

    crn: str
    href: str
    id: str
    name: str


class VpcReference(Reference):
    """The VPC that something is in."""

    resource_type: Literal["vpc"]


class RoutingTable(Reference):
    """A routing table: there is the default one only."""

    resource_type: Literal["routing_table"]


class ResourceGroup(Shown):
    """The account's one resource group."""

    href: str
    id: str
    name: str


class Resolver(Shown):
    """Who resolves names in a VPC."""

    servers: list[str]
    type: Literal["system"]
    configuration: Literal["default"]


class Dns(Shown):
    """How names are resolved in a VPC."""

    enable_hub: bool
    resolution_binding_count: int
    resolver: Resolver


class Href(Shown):
    """A link to a page."""

    href: str


class _Page(Shown):
    first: Href
    limit: int
    next: Href | None = None
    total_count: int


class Vpc(VpcReference):
    """A VPC."""

    created_at: Time
    classic_access: bool
    cse_source_ips: list[str]
    default_network_acl: Reference
    default_routing_table: RoutingTable
    default_security_group: Reference
    dns: Dns
    health_reasons: list[str]
    health_state: Literal["ok"]
    public_address_ranges: list[str]
    resource_group: ResourceGroup
    status: Literal["available"]


class VpcList(_Page):
    """A page of VPCs, oldest first."""

    vpcs: list[Vpc]


class Zone(Shown):
    """A zone of a region."""

    href: str
    name: str


class Subnet(Reference):
    """A subnet: its first four addresses and its last cannot be reserved."""

    resource_type: Literal["subnet"]
    created_at: Time
    available_ipv4_address_count: int
    ip_version: Literal["ipv4"]
    ipv4_cidr_block: str
    network_acl: Reference
    resource_group: ResourceGroup
    routing_table: RoutingTable
    status: Literal["available"]
    total_ipv4_address_count: int
    vpc: VpcReference
    zone: Zone


class SubnetList(_Page):
    """A page of subnets, oldest first."""

    subnets: list[Subnet]


class IpReference(Shown):
    """A reserved IP that is named."""

    address: str
    href: str
    id: str
    name: str
    resource_type: Literal["subnet_reserved_ip"]


class IpTarget(Reference):
    """The endpoint gateway that has an address."""

    resource_type: Literal["endpoint_gateway"]


class ReservedIp(IpReference):
    """A reserved IP, and what it is bound to."""

    auto_delete: bool
    created_at: Time
    lifecycle_state: LifecycleState
    owner: Literal["user", "provider"]
    target: IpTarget | None = None


class ReservedIpList(_Page):
    """A page of the reserved IPs of a subnet."""

    reserved_ips: list[ReservedIp]


class GatewayIpList(_Page):
    """The reserved IPs of a gateway."""

    ips: list[ReservedIp]


class LifecycleReason(Shown):
    """Why a gateway is not stable."""

    code: str
    message: str
    more_info: str


class GatewayTarget(Shown):
    """What a gateway leads to."""

    crn: str
    resource_type: Literal["provider_cloud_service"]


class EndpointGateway(Reference):
    """An endpoint gateway; `service_endpoints` are the names that lead to its address."""

    resource_type: Literal["endpoint_gateway"]
    created_at: Time
    allow_dns_resolution_binding: bool
    dns_resolution_binding_mode: Literal["disabled", "primary", "per_resource_binding"]
    health_state: Literal["ok", "degraded", "faulted", "inapplicable"]
    ips: list[IpReference]
    lifecycle_reasons: list[LifecycleReason]
    lifecycle_state: LifecycleState
    resource_group: ResourceGroup
    security_groups: list[Reference]
    service_endpoint: str
    service_endpoints: list[str]
    target: GatewayTarget
    vpc: VpcReference


class EndpointGatewayList(_Page):
    """A page of endpoint gateways, newest first."""

    endpoint_gateways: list[EndpointGateway]


_BASE = "https://mail.example.com/vpc/v1"
_ACCOUNT = "abd0df10f1c24c6a9d5b4bd1d4b5b7f9"
_VPC_ID = "r006-4727d842-f94f-4a2d-824a-9bc9b02c523b"
_SUBNET_ID = "0717-7ec86020-1c6e-4889-b3f0-a15f2e50f87e"
_IP_ID = "0717-6d353a0f-aeb1-4ae1-832e-1110d10981bb"
_GATEWAY_ID = "r006-d7cc5196-9864-48c4-82d8-3f30da41fcc5"
_TARGET = "crn:v1:bluemix:public:event-notifications:us-south:::endpoint:private.smtp.us-south.mail.example.com"
_AT = "2026-11-21T07:03:00.000Z"


def _named(kind: str, path: str, thing_id: str, name: str, place: str = "us-south") -> dict[str, object]:
    return {
        "crn": f"crn:v1:bluemix:public:is:{place}:a/{_ACCOUNT}::{kind}:{thing_id}",
        "href": f"{_BASE}/{path}/{thing_id}",
        "id": thing_id,
        "name": name,
    }


_GROUP: dict[str, object] = {"href": f"{_BASE}/resource_groups/3fad", "id": "3fad", "name": "Default"}
_ACL = _named("network-acl", "network_acls", "r006-a4e28308", "shop-default")
_SECURITY = _named("security-group", "security_groups", "r006-be5df5ca", "shop-default")
_TABLE = {
    **_named("routing-table", f"vpcs/{_VPC_ID}/routing_tables", "r006-6885e83f", "shop-default"),
    "resource_type": "routing_table",
}
_VPC = {**_named("vpc", "vpcs", _VPC_ID, "shop"), "resource_type": "vpc"}
NEW_VPC: dict[str, object] = {"name": "shop"}
VPC: dict[str, object] = {
    **_VPC,
    "created_at": _AT,
    "classic_access": False,
    "cse_source_ips": [],
    "default_network_acl": _ACL,
    "default_routing_table": _TABLE,
    "default_security_group": _SECURITY,
    "dns": {
        "enable_hub": False,
        "resolution_binding_count": 0,
        "resolver": {"servers": [], "type": "system", "configuration": "default"},
    },
    "health_reasons": [],
    "health_state": "ok",
    "public_address_ranges": [],
    "resource_group": _GROUP,
    "status": "available",
}


def _page(path: str, name: str, item: dict[str, object]) -> dict[str, object]:
    return {name: [item], "first": {"href": f"{_BASE}/{path}?limit=50"}, "limit": 50, "total_count": 1}


VPCS = _page("vpcs", "vpcs", VPC)
NEW_SUBNET: dict[str, object] = {
    "vpc": {"id": _VPC_ID},
    "ipv4_cidr_block": "10.0.0.0/24",
    "name": "mail",
    "zone": {"name": "us-south-1"},
}
SUBNET: dict[str, object] = {
    **_named("subnet", "subnets", _SUBNET_ID, "mail", "us-south-1"),
    "resource_type": "subnet",
    "created_at": _AT,
    "available_ipv4_address_count": 250,
    "ip_version": "ipv4",
    "ipv4_cidr_block": "10.0.0.0/24",
    "network_acl": _ACL,
    "resource_group": _GROUP,
    "routing_table": _TABLE,
    "status": "available",
    "total_ipv4_address_count": 256,
    "vpc": _VPC,
    "zone": {"href": f"{_BASE}/regions/us-south/zones/us-south-1", "name": "us-south-1"},
}
SUBNETS = _page("subnets", "subnets", SUBNET)
NEW_RESERVED_IP: dict[str, object] = {"address": "10.0.0.4", "name": "smtp"}
_IP: dict[str, object] = {
    "address": "10.0.0.4",
    "href": f"{_BASE}/subnets/{_SUBNET_ID}/reserved_ips/{_IP_ID}",
    "id": _IP_ID,
    "name": "smtp",
    "resource_type": "subnet_reserved_ip",
}
_GATEWAY = {
    **_named("endpoint-gateway", "endpoint_gateways", _GATEWAY_ID, "mail"),
    "resource_type": "endpoint_gateway",
}
RESERVED_IP: dict[str, object] = {
    **_IP,
    "auto_delete": False,
    "created_at": _AT,
    "lifecycle_state": "stable",
    "owner": "user",
    "target": _GATEWAY,
}
RESERVED_IPS = _page(f"subnets/{_SUBNET_ID}/reserved_ips", "reserved_ips", RESERVED_IP)
GATEWAY_IPS = _page(f"endpoint_gateways/{_GATEWAY_ID}/ips", "ips", RESERVED_IP)
NEW_GATEWAY: dict[str, object] = {
    "target": {"crn": _TARGET, "resource_type": "provider_cloud_service"},
    "vpc": {"id": _VPC_ID},
    "name": "mail",
    "ips": [{"subnet": {"id": _SUBNET_ID}, "name": "smtp", "auto_delete": True}],
}
GATEWAY: dict[str, object] = {
    **_GATEWAY,
    "created_at": _AT,
    "allow_dns_resolution_binding": True,
    "dns_resolution_binding_mode": "primary",
    "health_state": "ok",
    "ips": [_IP],
    "lifecycle_reasons": [],
    "lifecycle_state": "stable",
    "resource_group": _GROUP,
    "security_groups": [_SECURITY],
    "service_endpoint": "private.smtp.us-south.mail.example.com",
    "service_endpoints": ["private.smtp.us-south.mail.example.com"],
    "target": {"crn": _TARGET, "resource_type": "provider_cloud_service"},
    "vpc": _VPC,
}
GATEWAYS = _page("endpoint_gateways", "endpoint_gateways", GATEWAY)
