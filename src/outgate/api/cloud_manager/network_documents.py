"""The published description of network infrastructures and advanced networking: what each operation takes and answers.

Standards: OpenAPI 3.1; the vendor's operationIds, models and spelling.
Promises: every field that is answered is named here, and no other (a test holds answers against them); spellings and
    limits are those by which bodies are judged.
Dangers: they describe bodies and do not read them.
Not here: how a document is made of this (`openapi`), reading bodies (`infrastructure_bodies`, `validation`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from outgate.api.cloud_manager.infrastructure_bodies import IPSEC_LEAST, IPSEC_POLICY, KINDS
from outgate.api.cloud_manager.models import EnvironmentShown, Forwarded, Hal, Links, Total
from outgate.api.cloud_manager.openapi import ENVIRONMENT_EXAMPLE, REL, described, link, listed
from outgate.api.cloud_manager.validation import FORWARDS_LIMIT, HOSTS_LIMIT
from outgate.api.openapi import Time
from outgate.egress.forward_rules import HOST_PATTERN, PORT_ORIG

Kind = Literal["flexiblePortEgress", "dedicatedEgressIp", "vpn"]


def _one_of(name: str) -> Any:
    return Field(json_schema_extra={"enum": list(IPSEC_POLICY[name])})


def _least(name: str) -> Any:
    least, most = IPSEC_LEAST[name]
    return Field(ge=least, le=most)


class IpsecPolicy(Hal):
    """What both ends of a VPN must agree on; IKEv2, route-based."""

    dh_group: str = _one_of("dhGroup")
    ike_encryption: str = _one_of("ikeEncryption")
    ike_integrity: str = _one_of("ikeIntegrity")
    ipsec_encryption: str = _one_of("ipsecEncryption")
    ipsec_integrity: str = _one_of("ipsecIntegrity")
    pfs_group: str = _one_of("pfsGroup")
    sa_datasize: int = _least("saDatasize")
    sa_lifetime: int = _least("saLifetime")


class VpnGateway(Hal):
    """The far end of a VPN, and the ranges behind it."""

    address: str
    address_space: list[str] = Field(min_length=1, max_length=100)


class ConnectionShown(Hal):
    """A VPN's connection, without its shared key."""

    name: str
    gateway: VpnGateway
    ipsec_policy: IpsecPolicy


class TakenConnection(ConnectionShown):
    """A VPN's connection."""

    shared_key: str = Field(
        min_length=1,
        max_length=256,
        pattern="^[ -~]+$",
        description="Sent with every create and update, and never shown.",
        json_schema_extra={"writeOnly": True},
    )


class Dns(Hal):
    """Who resolves names behind the VPN."""

    resolvers: list[str] = Field(min_length=1, max_length=16, description="Addresses behind the gateway.")
    domains: list[str] | None = None


class TakenInfrastructure(Hal):
    """A network infrastructure to be made, or the whole of a VPN. `addressSpace`, `dns` and `connections` are required
    for vpn and for nothing else."""

    kind: Kind
    region: str = Field(description="The production environment's region, or one more that it publishes from.")
    is_primary_region: bool | None = Field(None, description="Found out from the region; true is refused for others.")
    address_space: list[str] | None = Field(None, max_length=1, description="One IPv4 range, /26 or bigger.")
    dns: Dns | None = None
    connections: list[TakenConnection] | None = Field(None, max_length=1)


class FailureDetails(Hal):
    """What failed."""

    kind: Kind
    region: str
    egress_addresses: list[str]


class StatusDetails(Hal):
    """Why it failed."""

    error_code: str
    public_details: FailureDetails
    message: str


class InfrastructureShown(Hal):
    """A network infrastructure; a VPN without its shared key. `egressAddresses` are its own addresses, and
    `gatewayAddress` is a VPN's near end."""

    id: str
    program_id: str
    kind: Kind
    region: str
    is_primary_region: bool
    status: Literal["creating", "ready", "failed", "updating", "deleting"]
    status_details: StatusDetails | None = None
    address_space: list[str] | None = None
    dns: Dns | None = None
    connections: list[ConnectionShown] | None = None
    egress_addresses: list[str]
    gateway_address: str | None = None
    created: Time
    updated: Time
    links: Links


class Infrastructures(Hal):
    """All network infrastructures of a program."""

    network_infrastructures: list[InfrastructureShown]


class InfrastructureList(Hal):
    """The list of network infrastructures."""

    total: Total
    embedded: Annotated[Infrastructures, Field(alias="_embedded")]
    links: Links


class TakenForward(Hal):
    """A port of the tunnel and where it shall lead."""

    name: str = Field(max_length=253, pattern=HOST_PATTERN)
    port_dest: int = Field(ge=1, le=65535)
    port_orig: int = Field(ge=PORT_ORIG.start, le=PORT_ORIG.stop - 1, description="Unique; 31000 is advised against.")


class TakenNetworking(Hal):
    """All that an environment asks for; `{}` asks for no rules."""

    port_forwards: list[TakenForward] = Field([], max_length=FORWARDS_LIMIT)
    non_proxy_hosts: list[str] = Field(
        [],
        max_length=HOSTS_LIMIT,
        description="A name, *.name or name.*; not with flexiblePortEgress.",
    )


class EngineShown(Hal):
    """What carries the forward at `portOrig`, and why that."""

    port_orig: int
    engine: str
    reason: str


class Advice(Hal):
    """What is allowed and advised against."""

    field: str
    message: str


class NetworkingReason(Hal):
    """Why the last change is not in force."""

    message: str


class NetworkingShown(Hal):
    """What an environment asked for; all but `portForwards` and `nonProxyHosts` is read-only."""

    program_id: str
    environment_id: str
    network_infrastructure_id: str
    advanced_networking_enabled: bool
    port_forwards: list[Forwarded]
    non_proxy_hosts: list[str]
    tunnel_address: str
    egress_addresses: list[str]
    engine: str
    engines: list[EngineShown]
    advice: list[Advice]
    status: str
    status_details: NetworkingReason | None = None
    links: Links


class Networkings(Hal):
    """One entry, or none if advanced networking is not enabled."""

    networking_configurations: list[NetworkingShown]


class NetworkingList(Hal):
    """The list of an environment's configurations."""

    total: Total
    embedded: Annotated[Networkings, Field(alias="_embedded")]
    links: Links


_AT = "2026-11-21T07:03:00.000Z"
_WAY = "/api/program/14/networkInfrastructure/7001"
_CONNECTION: dict[str, object] = {
    "name": "connection-1",
    "gateway": {"address": "203.0.113.78", "addressSpace": ["10.151.0.0/16", "10.152.0.0/16"]},
    "ipsecPolicy": {
        "dhGroup": "ECP256",
        "ikeEncryption": "AES256",
        "ikeIntegrity": "SHA256",
        "ipsecEncryption": "AES256",
        "ipsecIntegrity": "SHA256",
        "pfsGroup": "ECP256",
        "saDatasize": 102400000,
        "saLifetime": 3600,
    },
}
_VPN: dict[str, object] = {
    "kind": "vpn",
    "region": "va7",
    "addressSpace": ["10.104.182.64/26"],
    "dns": {"resolvers": ["10.151.201.22"], "domains": ["shop.example"]},
    "connections": [{**_CONNECTION, "sharedKey": "a-key-that-both-ends-know"}],
}
_SHOWN: dict[str, object] = {
    "id": "7001",
    "programId": "14",
    "kind": KINDS[1],
    "region": "va7",
    "isPrimaryRegion": True,
    "status": "ready",
    "egressAddresses": ["192.0.2.40"],
    "created": _AT,
    "updated": _AT,
    "_links": {"self": link(_WAY), REL + "program": link("/api/program/14")},
}
_VPN_SHOWN: dict[str, object] = {
    **_SHOWN,
    "kind": "vpn",
    "status": "updating",
    "gatewayAddress": "192.0.2.31",
    **{name: _VPN[name] for name in ("addressSpace", "dns")},
    "connections": [_CONNECTION],
}
_NETWORKING_PATH = "/api/program/14/environment/1042/advancedNetworking"
_FORWARD: dict[str, object] = {"name": "smtp.mymail.com", "portDest": 465, "portOrig": 30465}
_NETWORKING: dict[str, object] = {
    "programId": "14",
    "environmentId": "1042",
    "networkInfrastructureId": "7001",
    "advancedNetworkingEnabled": True,
    "portForwards": [_FORWARD],
    "nonProxyHosts": ["*.example.com"],
    "tunnelAddress": "127.1.0.1",
    "egressAddresses": ["192.0.2.40"],
    "engine": "forwarder",
    "engines": [{"portOrig": 30465, "engine": "forwarder", "reason": "it carries SMTP, which is looked at"}],
    "advice": [],
    "status": "ready",
    "_links": {
        "self": link(_NETWORKING_PATH),
        REL + "environment": link("/api/program/14/environment/1042"),
    },
}
_UPDATING = {**ENVIRONMENT_EXAMPLE, "status": "updating"}

_ALL = (
    described(
        "getNetworkInfrastructures",
        "List a program's network infrastructures",
        answer=InfrastructureList,
        example=listed("networkInfrastructures", [_SHOWN], "/api/program/14/networkInfrastructures"),
    ),
    described(
        "createNetworkInfrastructure",
        "Make a network infrastructure; it is `creating` until the gateway has looked whether it can be used",
        answer=InfrastructureShown,
        status=201,
        body=TakenInfrastructure,
        errors=(409,),
        example={**_SHOWN, "status": "creating"},
        body_example={"kind": KINDS[1], "region": "va7"},
    ),
    described("getNetworkInfrastructure", "Get a network infrastructure", answer=InfrastructureShown, example=_SHOWN),
    described(
        "updateNetworkInfrastructure",
        "Replace what may be edited of a VPN; the others are deleted and made anew",
        answer=InfrastructureShown,
        body=TakenInfrastructure,
        errors=(409,),
        example=_VPN_SHOWN,
        body_example=_VPN,
    ),
    described(
        "deleteNetworkInfrastructure",
        "Delete a network infrastructure that no environment of the program uses; it is `deleting` until it is gone",
        answer=InfrastructureShown,
        errors=(409,),
        example={**_SHOWN, "status": "deleting"},
    ),
    described(
        "getEnvironmentAdvancedNetworkingConfigurationList",
        "Get what an environment asked for: one entry, or none",
        answer=NetworkingList,
        example=listed("networkingConfigurations", [_NETWORKING], _NETWORKING_PATH),
    ),
    described(
        "enableEnvironmentAdvancedNetworkingConfiguration",
        "Replace all that an environment asks for; it is `updating` until that is in force",
        answer=EnvironmentShown,
        body=TakenNetworking,
        errors=(409,),
        example=_UPDATING,
        body_example={"portForwards": [_FORWARD], "nonProxyHosts": ["*.example.com"]},
    ),
    described(
        "disableEnvironmentAdvancedNetworkingConfiguration",
        "Disable an environment's advanced networking; it is `updating` until all is closed",
        answer=EnvironmentShown,
        errors=(409,),
        example=_UPDATING,
    ),
)
DESCRIBED: dict[str, dict[str, Any]] = {each["operation_id"]: each for each in _ALL}
