"""The published description of the Cloud Manager API: what each operation takes and answers.

Standards: OpenAPI 3.1; the vendor's operationIds, models and problem types; RFC 9457.
Promises: every status that an operation may answer is listed, refusals in the shape and media type that they really
    have: problems of an operation, and what the gateway refuses.
Dangers: schemas of answers describe, they do not filter: what an answer holds is decided by `hal`.
Not here: how a document is made of this (`api.openapi`), the descriptions of network infrastructures and advanced
    networking (`network_documents`).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from outgate.api import openapi
from outgate.api.cloud_manager import models
from outgate.api.cloud_manager.place_bodies import PAGE, TYPES

TITLE = "Outgate: Cloud Manager"
ABOUT = (
    "Programs, their environments and variables, network infrastructures and advanced networking, as the vendor's "
    "Cloud Manager API has them. Ids are strings; hrefs are paths below this API's base URL; every answer carries "
    "`x-request-id`, and a refusal is a problem document that the vendor's clients understand."
)
_HEADERS = ("x-request-id",)
_AT = "2026-11-21T07:03:00.000Z"
_ORG = "1AAA222B3C4444D55E666666@AdobeOrg"
_TENANT = "3b0f6d2c9a514c7c8e5d1f2a7b6c4d3e"
REL = "http://ns.adobe.com/adobecloud/rel/"


def described(
    operation: str,
    summary: str,
    *,
    answer: type[BaseModel] | None = None,
    status: int = 200,
    body: type[BaseModel] | None = None,
    errors: tuple[int, ...] = (),
    example: object = None,
    body_example: object = None,
    query: tuple[tuple[str, str, dict[str, object]], ...] = (),
) -> dict[str, Any]:
    """Return what a route needs so that the document tells all of it; `errors` are statuses beside 400, 401, 403, 404
    and 503 (and 413, 415 with a body), `query` has parameters: name, description, schema."""
    made = openapi.described(
        operation,
        summary,
        answer=answer,
        status=status,
        body=body,
        errors=errors,
        example=example,
        body_example=body_example,
        headers=_HEADERS,
    )
    for code, response in made["responses"].items():
        if code >= 400:
            gateway = code in (401, 403)
            model, media = (
                (models.GatewayRefusal, "application/json")
                if gateway
                else (models.ProblemShown, "application/problem+json")
            )
            response["description"] = _SAID.get(code, response["description"])
            response["content"] = openapi.shape(model, media)
            response["headers"] = {name: {"schema": {"type": "string"}} for name in _HEADERS}
    said = [
        _parameter("header", "x-api-key", "The client that the token is for, or a key of its account.", required=True),
        _parameter("header", "x-gw-ims-org-id", "The organisation that the program belongs to.", required=True),
    ]
    said += [{**_parameter("query", name, text), "schema": schema} for name, text, schema in query]
    made["openapi_extra"]["parameters"] = said
    return made


_SAID = {
    400: "The request is wrong: fields, a body that cannot be read, or parameters.",
    403: "The gateway refuses the client, the organisation or the role.",
    404: "There is no such thing.",
    412: "It still holds something: delete that first.",
}


def _parameter(where: str, name: str, text: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1} if required else {"type": "string"}
    return {"name": name, "in": where, "description": text, "required": required, "schema": schema}


def in_path(path: str) -> list[dict[str, Any]]:
    """Return the parameters of a path with names in braces."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [_parameter("path", name, f"The {name.removesuffix('_id')}'s id.", required=True) for name in names]


def link(href: str) -> dict[str, object]:
    """Return a link as answers have it, for examples."""
    return {"href": href, "templated": False}


_LIGHT: dict[str, object] = {
    "id": "14",
    "name": "Shop",
    "enabled": True,
    "tenantId": _TENANT,
    "status": "ready",
    "createdAt": _AT,
    "updatedAt": _AT,
    "_links": {"self": link("/api/program/14"), REL + "tenant": link(f"/api/tenant/{_TENANT}")},
}
_PROGRAM: dict[str, object] = {
    **_LIGHT,
    "imsOrgId": _ORG,
    "type": "aem_cloud_service",
    "capabilities": {"sandbox": False},
    "_links": {
        "self": link("/api/program/14"),
        REL + "tenant": link(f"/api/tenant/{_TENANT}"),
        REL + "environments": link("/api/program/14/environments"),
        REL + "networkInfrastructures": link("/api/program/14/networkInfrastructures"),
        REL + "regions": link("/api/program/14/regions"),
    },
}
_TENANT_EXAMPLE: dict[str, object] = {
    "id": _TENANT,
    "imsOrgId": _ORG,
    "imsTenantId": _TENANT,
    "description": "",
    "status": "ready",
    "_links": {"self": link(f"/api/tenant/{_TENANT}"), REL + "programs": link(f"/api/tenant/{_TENANT}/programs")},
}
_ENVIRONMENT_PATH = "/api/program/14/environment/1042"
ENVIRONMENT_EXAMPLE: dict[str, object] = {
    "id": "1042",
    "programId": "14",
    "name": "shop-prod",
    "description": "",
    "type": "prod",
    "status": "ready",
    "region": "va7",
    "availableLogOptions": [],
    "createdAt": _AT,
    "updatedAt": _AT,
    "_links": {
        "self": link(_ENVIRONMENT_PATH),
        REL + "program": link("/api/program/14"),
        REL + "variables": link(f"{_ENVIRONMENT_PATH}/variables"),
        REL + "advancedNetworking": link(f"{_ENVIRONMENT_PATH}/advancedNetworking"),
    },
}
_VARIABLE: dict[str, object] = {
    "name": "EMAIL_USERNAME",
    "type": "string",
    "value": "myApiKey",
    "service": "author",
    "status": "ready",
    "_links": {
        "self": link(f"{_ENVIRONMENT_PATH}/variables"),
        REL + "environment": link(_ENVIRONMENT_PATH),
    },
}
_RUNTIME: dict[str, object] = {
    "variables": {"EMAIL_USERNAME": "myApiKey"},
    "secrets": {},
    "reserved": {"AEM_PROXY_HOST": "127.1.0.1", "AEM_HTTP_PROXY_PORT": "3128", "AEM_HTTPS_PROXY_PORT": "3128"},
    "runModes": ["author", "dev"],
    "tunnelAddress": "127.1.0.1",
    "portForwards": [{"name": "smtp.mymail.com", "portDest": 465, "portOrig": 30465}],
}
_CONNECTIVITY: dict[str, object] = {
    "resolvers": [
        {
            "name": "default",
            "dns_resolution": {"ips": ["198.51.100.25"]},
            "port_open": True,
            "http_connectivity": {
                "error": "Not an HTTP/HTTPS service",
                "note": "TLS is spoken there, HTTP is not",
            },
            "reachability": "Reachable",
        }
    ]
}


def listed(name: str, entries: list[object], path: str, **more: object) -> dict[str, object]:
    """Return a list as answers have it, for examples."""
    found = {"_totalNumberOfItems": len(entries), "_embedded": {name: entries}, "_links": {"self": link(path)}}
    return {**found, **more}


_PROGRAMS = listed(
    "programs",
    [_LIGHT],
    "/api/programs",
    _page={"start": 0, "limit": PAGE, "orderBy": "+createdAt", "property": []},
)
_PAGED: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("start", "The first to be shown, from 0.", {"type": "integer", "minimum": 0, "default": 0}),
    ("limit", "How many are shown at most.", {"type": "integer", "minimum": 1, "maximum": PAGE, "default": PAGE}),
)

_ALL = (
    described("getPrograms", "List programs", answer=models.ProgramList, example=_PROGRAMS, query=_PAGED),
    described(
        "getTenants",
        "List the tenants that the caller may see",
        answer=models.TenantList,
        example=listed("tenants", [_TENANT_EXAMPLE], "/api/tenants"),
    ),
    described("getTenant", "Get a tenant", answer=models.TenantShown, example=_TENANT_EXAMPLE),
    described(
        "getProgramsForTenant", "List a tenant's programs", answer=models.ProgramList, example=_PROGRAMS, query=_PAGED
    ),
    described(
        "addProgram",
        "Make a program",
        answer=models.ProgramShown,
        status=201,
        body=models.NewProgram,
        errors=(409,),
        example=_PROGRAM,
        body_example={"name": "Shop", "type": "aem_cloud_service", "capabilities": {"sandbox": False}},
    ),
    described("getProgram", "Get a program", answer=models.ProgramShown, example=_PROGRAM),
    described(
        "deleteProgram",
        "Delete a program that has no environments and no network infrastructures",
        answer=models.ProgramShown,
        errors=(412,),
        example={**_PROGRAM, "status": "deleting"},
    ),
    described(
        "getProgramRegions",
        "List the regions that a program may use",
        answer=models.RegionList,
        example=listed("regions", [{"name": "va7"}, {"name": "deu6"}], "/api/program/14/regions"),
    ),
    described(
        "getEnvironments",
        "List a program's environments",
        answer=models.EnvironmentList,
        example=listed("environments", [ENVIRONMENT_EXAMPLE], "/api/program/14/environments"),
        query=(("type", "Only those of this type.", {"type": "string", "enum": list(TYPES)}),),
    ),
    described(
        "createEnvironment",
        "Make an environment; it is `creating` until the gateway knows it",
        answer=models.EnvironmentShown,
        status=201,
        body=models.NewEnvironment,
        errors=(409,),
        example={**ENVIRONMENT_EXAMPLE, "status": "creating"},
        body_example={"name": "shop-prod", "type": "prod", "region": "va7"},
    ),
    described("getEnvironment", "Get an environment", answer=models.EnvironmentShown, example=ENVIRONMENT_EXAMPLE),
    described(
        "deleteEnvironment",
        "Delete an environment with its variables and its networking; it is `deleting` until the gateway has closed it",
        answer=models.EnvironmentShown,
        status=201,
        errors=(409,),
        example={**ENVIRONMENT_EXAMPLE, "status": "deleting"},
    ),
    described(
        "getEnvironmentVariables",
        "List an environment's variables, secrets without their values",
        answer=models.VariableList,
        example=listed("variables", [_VARIABLE], f"{_ENVIRONMENT_PATH}/variables"),
    ),
    described(
        "patchEnvironmentVariables",
        "Set and delete variables, all or none",
        status=204,
        body=models.VariableChanges,
        errors=(409,),
        body_example=[
            {"name": "EMAIL_USERNAME", "value": "myApiKey", "service": "author"},
            {"name": "EMAIL_PASSWORD", "value": "a-password", "type": "secretString"},
        ],
    ),
    described(
        "startEnvironmentRuntime",
        "Get what a service is started with, secrets in clear; each use is in the audit",
        answer=models.RuntimeShown,
        body=models.Started,
        errors=(409,),
        example=_RUNTIME,
        body_example={"service": "author"},
    ),
    described(
        "testEnvironmentConnectivity",
        "Test whether the environment's connections get to a host and port; 200 whatever comes of it",
        answer=models.ConnectivityShown,
        body=models.ConnectivityWanted,
        errors=(409,),
        example=_CONNECTIVITY,
        body_example={"host": "smtp.mymail.com", "port": 465},
    ),
)
DESCRIBED: dict[str, dict[str, Any]] = {each["operation_id"]: each for each in _ALL}
