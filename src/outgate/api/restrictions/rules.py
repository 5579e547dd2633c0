"""Rules: create, list, get.

Standards: the vendor's contract; both spellings of the SMTP interface's API type.
Promises: a rule names zones that exist, one resource of Event Notifications, and API types we have;
    `report` is refused where the SMTP interface is named, which has no such mode.
Dangers: `disabled` grants nothing. What would narrow a rule but is not judged here is refused.
Not here: compiling (`store.access`), evaluation (`relay.access`).
"""

from __future__ import annotations

from typing import Literal, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from outgate.api.errors import BadRequest, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.restrictions.addresses import MOST_ADDRESSES
from outgate.api.restrictions.common import (
    BODY_LIMIT,
    account_listed,
    audit_fields,
    crn,
    etag,
    in_order,
    require_own,
)
from outgate.api.schema import Body, json_body
from outgate.model.access import Rule
from outgate.store.access import (
    ALL_APIS,
    CONTROL_PLANE,
    SMTP_API,
    SMTP_API_DEV,
    AccessQueries,
)
from outgate.store.tenancy import TooMany

SERVICE = "event-notifications"
_API_TYPES = (ALL_APIS, CONTROL_PLANE, SMTP_API, SMTP_API_DEV)
_CONTEXT_NAMES = ("networkZoneId", "endpointType", "mfa")
_RESOURCE_NAMES = ("accountId", "serviceName", "serviceInstance", "region")
_ENDPOINTS = frozenset({"public", "private", "direct"})
_MFA = frozenset({"LEVEL1", "LEVEL2", "LEVEL3", "IAM_ACCOUNT_SETTING"})
_OPERATORS = ("stringEquals", "equals")


class Attribute(Body):
    """A condition of a context."""

    name: str = Field(min_length=1, max_length=100)
    value: str = Field(min_length=1, max_length=4000)


class ContextBody(Body):
    """One way to satisfy the rule."""

    attributes: list[Attribute] = Field(min_length=1, max_length=10)


class ResourceAttribute(Attribute):
    """What the rule protects, one attribute of it."""

    operator: str | None = None


class Resource(Body):
    """What the rule protects."""

    attributes: list[ResourceAttribute] = Field(min_length=1, max_length=10)
    tags: list[object] = Field(default_factory=list[object])


class ApiType(Body):
    """An API by its id."""

    api_type_id: str = Field(min_length=1, max_length=300)


class Operations(Body):
    """The APIs that the rule opens."""

    api_types: list[ApiType] = Field(min_length=1, max_length=100)


class NewRule(Body):
    """Body of a create."""

    contexts: list[ContextBody] = Field(max_length=1000)
    resources: list[Resource] = Field(min_length=1, max_length=1)
    description: str = Field("", max_length=300)
    operations: Operations | None = None
    enforcement_mode: Literal["enabled", "disabled", "report"] = "enabled"


def routes(access: AccessQueries, gate: Gate) -> APIRouter:
    """Return the operations on rules."""
    router = APIRouter(redirect_slashes=False)

    @router.post("/v1/rules", response_model=None)
    def create(
        request: Request,
        caller: Caller = Depends(gate.allow("create_rule")),
        body: NewRule = Depends(json_body(NewRule, limit=BODY_LIMIT)),
    ) -> JSONResponse:
        _check_resource(body.resources[0], caller)
        _check_contexts(body.contexts, access, caller.account_id)
        _check_operations(body)
        try:
            rule = access.create_rule(
                caller.account_id,
                description=body.description,
                document=_stored(body),
                enforcement=body.enforcement_mode,
                by=caller.subject,
            )
        except TooMany as error:
            raise BadRequest("", str(error)) from None
        return JSONResponse(_document(request, rule), 201, etag(rule))

    @router.get("/v1/rules", response_model=None)
    def find(
        request: Request,
        account_id: str = Depends(account_listed(gate, "list_rules")),
        sort: str | None = Query(None, max_length=200),
    ) -> JSONResponse:
        found = [rule for rule in access.rules(account_id) if _matches(rule, request)]
        documents = [_document(request, rule) for rule in in_order(found, sort)]
        return JSONResponse({"count": len(documents), "rules": documents})

    @router.get("/v1/rules/{rule_id}", response_model=None)
    def get(request: Request, rule_id: str, caller: Caller = Depends(gate.allow("get_rule"))) -> JSONResponse:
        rule = access.rule(caller.account_id, rule_id)
        if rule is None:
            raise NotFound("rule", rule_id)
        return JSONResponse(_document(request, rule), headers=etag(rule))

    return router


def _check_resource(resource: Resource, caller: Caller) -> None:
    place = "resources[0].attributes"
    found: dict[str, str] = {}
    for at, attribute in enumerate(resource.attributes):
        if attribute.name not in _RESOURCE_NAMES:
            raise BadRequest(f"{place}[{at}].name", f"must be one of {', '.join(_RESOURCE_NAMES)}")
        if attribute.name in found:
            raise BadRequest(f"{place}[{at}].name", f"{attribute.name} is given twice")
        if attribute.operator is not None and attribute.operator not in _OPERATORS:
            raise BadRequest(f"{place}[{at}].operator", f"must be one of {', '.join(_OPERATORS)}")
        found[attribute.name] = attribute.value
    for name in ("accountId", "serviceName"):
        if name not in found:
            raise BadRequest(place, f"needs {name}")
    if found["serviceName"] != SERVICE:
        raise BadRequest(place, f"has a serviceName without restrictions here: only {SERVICE} has them")
    if resource.tags:
        raise BadRequest("resources[0].tags", "must be empty: resources have no tags here")
    require_own(caller, found["accountId"])


def _check_contexts(contexts: list[ContextBody], access: AccessQueries, account_id: str) -> None:
    sizes = {zone.id: len(zone.addresses) + len(zone.excluded) for zone in access.zones(account_id)}
    named: set[str] = set()
    for number, context in enumerate(contexts):
        seen: set[str] = set()
        for at, attribute in enumerate(context.attributes):
            place = f"contexts[{number}].attributes[{at}]"
            if attribute.name not in _CONTEXT_NAMES:
                raise BadRequest(f"{place}.name", f"must be one of {', '.join(_CONTEXT_NAMES)}")
            if attribute.name in seen:
                raise BadRequest(f"{place}.name", f"{attribute.name} is given twice in one context")
            seen.add(attribute.name)
            values = [part.strip() for part in attribute.value.split(",")]
            if attribute.name == "networkZoneId":
                unknown = next((value for value in values if value not in sizes), None)
                if unknown is not None:
                    raise BadRequest(f"{place}.value", f"names a zone that is not there: {unknown[:64]!r}")
                named.update(values)
            else:
                allowed = _ENDPOINTS if attribute.name == "endpointType" else _MFA
                if not allowed.issuperset(values):
                    raise BadRequest(f"{place}.value", f"must be of {', '.join(sorted(allowed))}")
    if sum(sizes[zone] for zone in named) > MOST_ADDRESSES:
        raise BadRequest("contexts", f"name zones with more than {MOST_ADDRESSES} addresses in all")


def _check_operations(body: NewRule) -> None:
    types = [] if body.operations is None else [entry.api_type_id for entry in body.operations.api_types]
    for at, api_type in enumerate(types):
        if api_type not in _API_TYPES:
            place = f"operations.api_types[{at}].api_type_id"
            raise BadRequest(place, f"is not an API of {SERVICE}: {', '.join(_API_TYPES)} are")
    if body.enforcement_mode == "report" and not {SMTP_API, SMTP_API_DEV}.isdisjoint(types):
        raise BadRequest("enforcement_mode", "must be enabled or disabled: the SMTP interface has no report mode")


def _stored(body: NewRule) -> dict[str, object]:
    document = body.model_dump(include={"contexts", "resources", "operations"}, exclude_none=True)
    return cast(dict[str, object], document)


def _document(request: Request, rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "crn": crn(rule.account_id, "rule", rule.id),
        "description": rule.description,
        **rule.document,
        "enforcement_mode": rule.enforcement,
        **audit_fields(request, rule, "rules"),
    }


_FILTERS = {
    "region": "region",
    "resource": "resource",
    "resource_type": "resourceType",
    "service_instance": "serviceInstance",
    "service_name": "serviceName",
    "service_type": "serviceType",
    "service_group_id": "service_group_id",
}


def _matches(rule: Rule, request: Request) -> bool:
    """Say whether a rule meets the query's filters, each by equality."""
    query = request.query_params
    resources = cast(list[dict[str, list[dict[str, str]]]], rule.document["resources"])
    attributes = {entry["name"]: entry["value"] for entry in resources[0]["attributes"]}
    for parameter, name in _FILTERS.items():
        if parameter in query and attributes.get(name) != query[parameter]:
            return False
    zone = query.get("zone_id")
    if zone is not None and not any(zone in context.zone_ids for context in rule.contexts):
        return False
    return query.get("enforcement_mode", rule.enforcement) == rule.enforcement
