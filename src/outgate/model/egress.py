"""Programs, environments and what may leave from them.

Standards: the vendor's Cloud Manager models in our own words.
Promises: immutable; ids are strings; times are epoch seconds.
Dangers: a secret variable's value is never in `Variable.value`: the store opens it for `environment run` only.
Not here: HAL and vendor spelling (`api.cloud_manager`), rulesets (`egress.plan`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How an environment's traffic leaves."""

    NONE = "none"
    FLEXIBLE = "flexiblePortEgress"
    DEDICATED = "dedicatedEgressIp"
    VPN = "vpn"


@dataclass(frozen=True, slots=True)
class Program:
    """A customer's programme: the owner of environments and network infrastructures."""

    id: str
    org_id: str
    tenant_id: str
    name: str
    created_at: float
    updated_at: float
    status: str = "ready"
    sandbox: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """A place where an application runs. `tunnel_address` is what `proxy.tunnel` means to it;
    `client_networks` are the networks its applications dial from."""

    id: str
    program_id: str
    name: str
    type: str
    region: str
    status: str
    tunnel_address: str
    client_networks: tuple[str, ...]
    created_at: float
    updated_at: float
    description: str = ""
    secondary_regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkInfrastructure:
    """The program's way out in one region: its kind (mode), state and addresses to leave from.

    `document` has the vendor's fields of the VPN without the shared keys; `generation` grows with every change;
    `reason` says why it is `failed`."""

    id: str
    program_id: str
    kind: Mode
    region: str
    status: str
    addresses: tuple[str, ...]
    document: dict[str, object]
    created_at: float
    updated_at: float
    primary: bool = True
    generation: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PortForward:
    """`port_orig` on the tunnel address leads to `name`:`port_dest`."""

    name: str
    port_orig: int
    port_dest: int


@dataclass(frozen=True, slots=True)
class AdvancedNetworking:
    """What one environment asked for. `generation` grows with every PUT; `reason` says why the last one is
    not in force ("" if it is, or is still on its way)."""

    environment_id: str
    program_id: str
    infrastructure_id: str
    mode: Mode
    port_forwards: tuple[PortForward, ...]
    non_proxy_hosts: tuple[str, ...]
    generation: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of an environment. `service` "" means all; `value` is "" for a secret."""

    name: str
    service: str
    secret: bool
    value: str
    status: str
    updated_at: float


@dataclass(frozen=True, slots=True)
class GuardException:
    """What the guard lets through though it is not public: a network, a name or `*.domain`, for one environment or
    ("") for all. `note` is the operator's reason."""

    id: str
    entry: str
    environment_id: str
    note: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class EgressTarget:
    """One environment as the egress engine must serve it (wanted state). `mode` is NONE unless `infrastructure` is
    ready; `exceptions` are the guard's, beside those of the settings."""

    environment: Environment
    mode: Mode
    egress_addresses: tuple[str, ...]
    networking: AdvancedNetworking | None
    infrastructure: NetworkInfrastructure | None = None
    exceptions: tuple[str, ...] = ()
