"""Write programs, environments, networks and variables as the Cloud Manager API shows them.

Standards: HAL (draft-kelly-json-hal); the vendor's models and relations.
Promises: every id is a string; every href is a path that begins with /api, wherever the API is mounted;
    a secret's value has no key at all.
Dangers: clients compare ids with strict equality and put their own base before an href.
Not here: reading bodies (`validation`), refusals (`problems`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outgate.base.clock import rfc3339
from outgate.egress.plan import FORWARDER
from outgate.egress.runtime import Runtime
from outgate.model.egress import (
    AdvancedNetworking,
    Environment,
    Mode,
    NetworkInfrastructure,
    PortForward,
    Program,
    Variable,
)

_REL = "http://ns.adobe.com/adobecloud/rel/"
# What it is that could not be had, for programs that read `statusDetails`.
_ERROR_CODES = {
    Mode.FLEXIBLE: "SHARED_ADDRESS_UNAVAILABLE",
    Mode.DEDICATED: "DEDICATED_ADDRESS_UNAVAILABLE",
    Mode.VPN: "VPN_UNAVAILABLE",
}

Json = dict[str, object]


def program_path(program_id: str) -> str:
    """Return the path of a program."""
    return f"/api/program/{program_id}"


def environment_path(environment: Environment) -> str:
    """Return the path of an environment."""
    return f"{program_path(environment.program_id)}/environment/{environment.id}"


def _links(path: str, **relations: str) -> Json:
    links: Json = {"self": {"href": path, "templated": False}}
    for name, href in relations.items():
        links[_REL + name] = {"href": href, "templated": False}
    return links


def collection(name: str, entries: Sequence[Json], path: str, **relations: str) -> Json:
    """Return a list with everything in it."""
    return {
        "_totalNumberOfItems": len(entries),
        "_embedded": {name: list(entries)},
        "_links": _links(path, **relations),
    }


def programs(entries: Sequence[Program], total: int, path: str, start: int, limit: int) -> Json:
    """Return a page of a list of programs in their light form, with the paging block that only such lists have."""
    listed = collection("programs", [_light(entry) for entry in entries], path)
    listed["_totalNumberOfItems"] = total
    page: Json = {"start": start, "limit": limit, "orderBy": "+createdAt", "property": []}
    links = _links(f"{path}?start={start}&limit={limit}" if start else path)
    pages: dict[str, int] = {}
    if start + len(entries) < total:
        pages["next"] = start + limit
    if start > 0:
        pages["prev"] = max(0, start - limit)
    for name, first in pages.items():
        page[name] = first
        links[name] = {"href": f"{path}?start={first}&limit={limit}", "templated": False}
    return {**listed, "_page": page, "_links": links}


def _light(entry: Program) -> Json:
    """Return a program as lists have it."""
    return {
        "id": entry.id,
        "name": entry.name,
        "enabled": True,
        "tenantId": entry.tenant_id,
        "status": entry.status,
        "createdAt": rfc3339(entry.created_at, milliseconds=True),
        "updatedAt": rfc3339(entry.updated_at, milliseconds=True),
        "_links": _links(program_path(entry.id), tenant=tenant_path(entry.tenant_id)),
    }


def program(entry: Program) -> Json:
    """Return a program."""
    path = program_path(entry.id)
    relations = {name: f"{path}/{name}" for name in ("environments", "networkInfrastructures", "regions")}
    return {
        **_light(entry),
        "imsOrgId": entry.org_id,
        "type": "aem_cloud_service",
        "capabilities": {"sandbox": entry.sandbox},
        "_links": _links(path, tenant=tenant_path(entry.tenant_id), **relations),
    }


def tenant_path(tenant_id: str) -> str:
    """Return the path of a tenant."""
    return f"/api/tenant/{tenant_id}"


def tenant(tenant_id: str, org_id: str) -> Json:
    """Return a tenant: the account that its programs belong to."""
    path = tenant_path(tenant_id)
    return {
        "id": tenant_id,
        "imsOrgId": org_id,
        "imsTenantId": tenant_id,
        "description": "",
        "status": "ready",
        "_links": _links(path, programs=f"{path}/programs"),
    }


def region(name: str) -> Json:
    """Return a region."""
    return {"name": name}


def environment(entry: Environment) -> Json:
    """Return an environment."""
    path = environment_path(entry)
    shown: Json = {
        "id": entry.id,
        "programId": entry.program_id,
        "name": entry.name,
        "description": entry.description,
        "type": entry.type,
        "status": entry.status,
        "region": entry.region,
        "availableLogOptions": [],
        "createdAt": rfc3339(entry.created_at, milliseconds=True),
        "updatedAt": rfc3339(entry.updated_at, milliseconds=True),
        "_links": _links(
            path,
            program=program_path(entry.program_id),
            variables=f"{path}/variables",
            advancedNetworking=f"{path}/advancedNetworking",
        ),
    }
    if entry.secondary_regions:
        shown["secondaryRegionDeployments"] = [{"region": name} for name in entry.secondary_regions]
    return shown


def infrastructure(entry: NetworkInfrastructure, gateway_address: str = "") -> Json:
    """Return a network infrastructure; its own addresses and a VPN's local end, which the vendor has no fields for,
    beside."""
    path = program_path(entry.program_id)
    shown: Json = {
        **entry.document,
        "id": entry.id,
        "programId": entry.program_id,
        "kind": entry.kind.value,
        "region": entry.region,
        "isPrimaryRegion": entry.primary,
        "status": entry.status,
        "egressAddresses": list(entry.addresses),
        "created": rfc3339(entry.created_at, milliseconds=True),
        "updated": rfc3339(entry.updated_at, milliseconds=True),
        "_links": _links(f"{path}/networkInfrastructure/{entry.id}", program=path),
    }
    if entry.kind is Mode.VPN and gateway_address:
        shown["gatewayAddress"] = gateway_address
    if entry.reason:
        details = {"kind": entry.kind.value, "region": entry.region, "egressAddresses": list(entry.addresses)}
        shown["statusDetails"] = {
            "errorCode": _ERROR_CODES[entry.kind],
            "publicDetails": details,
            "message": entry.reason,
        }
    return shown


def port_forward(entry: PortForward) -> Json:
    """Return one forward."""
    return {"name": entry.name, "portDest": entry.port_dest, "portOrig": entry.port_orig}


@dataclass(frozen=True, slots=True)
class Engine:
    """What carries the forward at `port_orig`, and why that."""

    port_orig: int
    engine: str
    reason: str


def networking(
    entry: AdvancedNetworking,
    place: Environment,
    *,
    addresses: Sequence[str],
    engines: Sequence[Engine],
    advice: Sequence[Json],
) -> Json:
    """Return what an environment asked for, with what operators and engine decide beside it, read-only."""
    path = environment_path(place)
    shown: Json = {
        "programId": place.program_id,
        "environmentId": place.id,
        "networkInfrastructureId": entry.infrastructure_id,
        "advancedNetworkingEnabled": True,
        "portForwards": [port_forward(each) for each in entry.port_forwards],
        "nonProxyHosts": list(entry.non_proxy_hosts),
        "tunnelAddress": place.tunnel_address,
        "egressAddresses": list(addresses),
        "engine": FORWARDER,
        "engines": [{"portOrig": each.port_orig, "engine": each.engine, "reason": each.reason} for each in engines],
        "advice": list(advice),
        "status": place.status,
        "_links": _links(f"{path}/advancedNetworking", environment=path),
    }
    if entry.reason:
        shown["statusDetails"] = {"message": entry.reason}
    return shown


def variable(entry: Variable, place: Environment) -> Json:
    """Return a variable; a secret without its value."""
    shown: Json = {"name": entry.name, "type": "secretString" if entry.secret else "string"}
    if not entry.secret:
        shown["value"] = entry.value
    if entry.service:
        shown["service"] = entry.service
    shown["status"] = entry.status
    shown["_links"] = _links(f"{environment_path(place)}/variables", environment=environment_path(place))
    return shown


def runtime(entry: Runtime) -> Json:
    """Return what an application is started with, secrets in clear."""
    return {
        "variables": entry.variables,
        "secrets": entry.secrets,
        "reserved": entry.reserved,
        "runModes": list(entry.run_modes),
        "tunnelAddress": entry.tunnel_address,
        "portForwards": [port_forward(each) for each in entry.port_forwards],
    }
