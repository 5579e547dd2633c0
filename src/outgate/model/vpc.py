"""Private networks and the gateways that lead from them to a private endpoint.

Standards: the vendor's VPC service in our own words; RFC 4632 (subnets).
Promises: immutable; of a subnet the first four addresses and the last are nobody's, as the vendor has it.
Dangers: an address here is one of this machine's: two VPCs cannot both have it, other than at the vendor's.
Not here: JSON and hrefs (`api.vpc`), rows (`store.vpc`, `store.gateways`), listeners (`relay.gateways`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_FIRST = 4
LONGEST_PREFIX = 29
"""A subnet has eight addresses at least: with fewer none would be left to reserve."""


class GatewayState(StrEnum):
    """What a gateway is doing; `pending` and `updating` end in `stable` or `failed`, `deleting` in its end."""

    PENDING = "pending"
    UPDATING = "updating"
    STABLE = "stable"
    FAILED = "failed"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Vpc:
    """A private network of an account; `crn` is what zones name it by."""

    id: str
    account_id: str
    crn: str
    region: str
    name: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class Subnet:
    """A part of a VPC in one zone of its region; `network` is IPv4 in CIDR."""

    id: str
    vpc: Vpc
    zone: str
    network: str
    name: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class ReservedIp:
    """An address of a subnet that is kept for something; `gateway_id` and `gateway_name` are "" while it is unbound.

    With `auto_delete` it ends when it is unbound."""

    id: str
    subnet_id: str
    zone: str
    address: str
    name: str
    auto_delete: bool
    gateway_id: str
    gateway_name: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class EndpointGateway:
    """What gives the private endpoint of a region an address in a VPC: none as long as `ip` is None.

    `target` is the CRN that was asked for, `service_endpoint` the private name, `reason` says why it failed."""

    id: str
    vpc: Vpc
    name: str
    target: str
    region: str
    service_endpoint: str
    dns_mode: str
    state: GatewayState
    reason: str
    ip: ReservedIp | None
    created_at: float
    created_by: str


def reservable(network: str, address: str) -> bool:
    """Say whether an address is in a subnet and may be reserved. Raises `ValueError` for what is no address."""
    within, at = ipaddress.IPv4Network(network), ipaddress.IPv4Address(address)
    first = int(within.network_address) + _FIRST
    return first <= int(at) < int(within.broadcast_address)


def reservable_addresses(network: str) -> Iterator[str]:
    """Give the addresses of a subnet that may be reserved, lowest first."""
    within = ipaddress.IPv4Network(network)
    for number in range(int(within.network_address) + _FIRST, int(within.broadcast_address)):
        yield str(ipaddress.IPv4Address(number))


def capacity(network: str) -> int:
    """Return how many addresses of a subnet may be reserved."""
    return max(0, ipaddress.IPv4Network(network).num_addresses - _FIRST - 1)
