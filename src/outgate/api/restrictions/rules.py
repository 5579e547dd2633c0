"""Rules: create, list, get, replace, delete.

Standards: the vendor's contract; both spellings of the SMTP interface's API type.
Promises: a rule names zones that exist, one resource of Event Notifications, and API types we have;
    `report` is refused where the SMTP interface is named, which has no such mode.
Dangers: `disabled` grants nothing. What would narrow a rule but is not judged here is refused.
    Whether the zones exist and are small enough is decided in the store, with the change, in one transaction.
Not here: compiling (`store.rule_document`), evaluation (`relay.access`), which APIs there are (`catalogue`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, cast

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.restrictions import models
from outgate.api.restrictions.common import (
    BODY_LIMIT,
    account_listed,
    audit_fields,
    correlated,
    crn,
    etag,
    expected,
    expected_if_given,
    in_order,
    require_own,
    sorting,
    stale,
)
from outgate.api.schema import Body, json_body
from outgate.model.access import Rule
from outgate.store.access import MOST_ADDRESSES, AccessQueries, Changed, NoZone, TooManyAddresses
from outgate.store.rule_document import ALL_APIS, CONTROL_PLANE, SMTP_API, SMTP_API_DEV, named_zones, resource
from outgate.store.tenancy import NotThere, TooMany

SERVICE = "event-notifications"
_API_TYPES = (ALL_APIS, CONTROL_PLANE, SMTP_API, SMTP_API_DEV)
_CONTEXT_NAMES = ("networkZoneId", "endpointType", "mfa")
_RESOURCE_NAMES = ("accountId", "serviceName", "serviceInstance", "region")
_ENDPOINTS = frozenset({"public", "private", "direct"})
_MFA = frozenset({"LEVEL1", "LEVEL2", "LEVEL3", "IAM_ACCOUNT_SETTING"})
_OPERATORS = ("stringEquals", "equals")
_RULE_ID = Path(description="The rule's id.")


class Attribute(Body):
    """A condition of a context."""

    name: str = Field(min_length=1, max_length=100, json_schema_extra={"enum": list(_CONTEXT_NAMES)})
    value: str = Field(min_length=1, max_length=4000)


class ContextBody(Body):
    """One way to satisfy the rule."""

    attributes: list[Attribute] = Field(min_length=1, max_length=10)


class ResourceAttribute(Body):
    """What the rule protects, one attribute of it."""

    name: str = Field(min_length=1, max_length=100, json_schema_extra={"enum": list(_RESOURCE_NAMES)})
    value: str = Field(min_length=1, max_length=4000)
    operator: str | None = Field(None, json_schema_extra={"enum": [*_OPERATORS, None]})


class Resource(Body):
    """What the rule protects."""

    attributes: list[ResourceAttribute] = Field(min_length=1, max_length=10)
    tags: list[object] = Field(default_factory=list[object], json_schema_extra={"maxItems": 0})


class ApiType(Body):
    """An API by its id."""

    api_type_id: str = Field(min_length=1, max_length=300, json_schema_extra={"enum": list(_API_TYPES)})


class Operations(Body):
    """The APIs that the rule opens."""

    api_types: list[ApiType] = Field(min_length=1, max_length=100)


class NewRule(Body):
    """Body of a create or replace; a rule without contexts allows nobody."""

    contexts: list[ContextBody] = Field(default_factory=list[ContextBody], max_length=1000)
    resources: list[Resource] = Field(min_length=1, max_length=1)
    description: str = Field("", max_length=300)
    operations: Operations | None = None
    enforcement_mode: Literal["enabled", "disabled", "report"] = "enabled"


_BODY = json_body(NewRule, limit=BODY_LIMIT)


def routes(access: AccessQueries, gate: Gate) -> APIRouter:
    """Return the operations on rules."""
    router = APIRouter(redirect_slashes=False, dependencies=[Depends(correlated)])
    _creates(router, access, gate)
    _reads(router, access, gate)
    _changes(router, access, gate)
    return router


def _creates(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.post(
        "/v1/rules",
        **described(
            "create_rule",
            "Make a rule",
            answer=models.Rule,
            status=201,
            body=NewRule,
            errors=(409,),
            example=models.RULE,
            body_example=models.NEW_RULE,
            headers=("ETag",),
        ),
    )
    def create(
        request: Request, caller: Caller = Depends(gate.allow("create_rule")), wanted: NewRule = Depends(_BODY)
    ) -> JSONResponse:
        _check(wanted, caller)
        with _refusals("", wanted):
            rule = access.create_rule(
                caller.account_id,
                description=wanted.description,
                document=_stored(wanted),
                enforcement=wanted.enforcement_mode,
                by=caller.subject,
            )
        return JSONResponse(_document(request, rule), 201, etag(rule))


def _reads(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.get("/v1/rules", **described("list_rules", "List rules", answer=models.RuleList, example=models.RULES))
    def find(
        request: Request,
        account_id: str = Depends(account_listed(gate, "list_rules")),
        wanted: dict[str, str] = Depends(_wanted_attributes),
        zone_id: str | None = Query(
            None, max_length=128, description="Only rules with a context that names this zone."
        ),
        enforcement_mode: models.Mode | None = Query(None, description="Only rules in this mode."),
        sort: str | None = sorting(),
    ) -> JSONResponse:
        found = [
            rule
            for rule in access.rules(account_id)
            if wanted.items() <= resource(rule.document).items()
            and zone_id in (None, *named_zones(rule.document))
            and enforcement_mode in (None, rule.enforcement)
        ]
        documents = [_document(request, rule) for rule in in_order(found, sort)]
        return JSONResponse({"count": len(documents), "rules": documents})

    @router.get(
        "/v1/rules/{rule_id}",
        **described("get_rule", "Get a rule", answer=models.Rule, example=models.RULE, headers=("ETag",)),
    )
    def get(
        request: Request, rule_id: str = _RULE_ID, caller: Caller = Depends(gate.allow("get_rule"))
    ) -> JSONResponse:
        rule = access.rule(caller.account_id, rule_id)
        if rule is None:
            raise NotFound("rule", rule_id)
        return JSONResponse(_document(request, rule), headers=etag(rule))


def _changes(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.put(
        "/v1/rules/{rule_id}",
        **described(
            "replace_rule",
            "Replace all of a rule",
            answer=models.Rule,
            body=NewRule,
            errors=(412,),
            example=models.RULE,
            body_example=models.NEW_RULE,
            headers=("ETag",),
        ),
    )
    def replace(
        request: Request,
        rule_id: str = _RULE_ID,
        caller: Caller = Depends(gate.allow("replace_rule")),
        versions: frozenset[str] | None = Depends(expected),
        wanted: NewRule = Depends(_BODY),
    ) -> JSONResponse:
        _check(wanted, caller)
        with _refusals(rule_id, wanted):
            rule = access.replace_rule(
                caller.account_id,
                rule_id,
                expected=versions,
                description=wanted.description,
                document=_stored(wanted),
                enforcement=wanted.enforcement_mode,
                by=caller.subject,
            )
        return JSONResponse(_document(request, rule), headers=etag(rule))

    @router.delete("/v1/rules/{rule_id}", **described("delete_rule", "Delete a rule", status=204, errors=(412,)))
    def remove(
        rule_id: str = _RULE_ID,
        caller: Caller = Depends(gate.allow("delete_rule")),
        versions: frozenset[str] | None = Depends(expected_if_given),
    ) -> Response:
        with _refusals(rule_id):
            access.delete_rule(caller.account_id, rule_id, expected=versions)
        return Response(status_code=204)


async def _wanted_attributes(
    region: str | None = Query(None, max_length=128),
    resource: str | None = Query(None, max_length=128),
    resource_type: str | None = Query(None, max_length=128),
    service_instance: str | None = Query(None, max_length=128),
    service_name: str | None = Query(None, max_length=128),
    service_type: str | None = Query(None, max_length=128),
    service_group_id: str | None = Query(None, max_length=128),
) -> dict[str, str]:
    """Return the attributes that the resource of a listed rule must have, each by equality."""
    given = {
        "region": region,
        "resource": resource,
        "resourceType": resource_type,
        "serviceInstance": service_instance,
        "serviceName": service_name,
        "serviceType": service_type,
        "service_group_id": service_group_id,
    }
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def _refusals(rule_id: str, wanted: NewRule | None = None) -> Generator[None]:
    """Turn what the store says against a change into an HTTP refusal."""
    try:
        yield
    except NotThere:
        raise NotFound("rule", rule_id) from None
    except Changed:
        raise stale("rule") from None
    except NoZone as error:
        place = "contexts" if wanted is None else _place_of(error.zone_id, wanted)
        raise BadRequest(place, f"names a zone that is not there: {error.zone_id[:64]!r}") from None
    except TooManyAddresses:
        raise BadRequest("contexts", f"name zones with more than {MOST_ADDRESSES} addresses in all") from None
    except TooMany as error:
        raise Clash("", str(error)) from None


def _place_of(zone_id: str, wanted: NewRule) -> str:
    for number, context in enumerate(wanted.contexts):
        for at, attribute in enumerate(context.attributes):
            if attribute.name == "networkZoneId" and zone_id in _listed(attribute.value):
                return f"contexts[{number}].attributes[{at}].value"
    return "contexts"


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def _check(wanted: NewRule, caller: Caller) -> None:
    _check_resource(wanted.resources[0], caller)
    _check_contexts(wanted.contexts)
    _check_operations(wanted)


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


def _check_contexts(contexts: list[ContextBody]) -> None:
    for number, context in enumerate(contexts):
        seen: set[str] = set()
        for at, attribute in enumerate(context.attributes):
            place = f"contexts[{number}].attributes[{at}]"
            if attribute.name not in _CONTEXT_NAMES:
                raise BadRequest(f"{place}.name", f"must be one of {', '.join(_CONTEXT_NAMES)}")
            if attribute.name in seen:
                raise BadRequest(f"{place}.name", f"{attribute.name} is given twice in one context")
            seen.add(attribute.name)
            values = _listed(attribute.value)
            if attribute.name == "networkZoneId":
                # An empty entry would name no zone, and a condition without zones would match any address.
                if "" in values:
                    raise BadRequest(f"{place}.value", "must be zone ids with a comma between them")
                continue
            allowed = _ENDPOINTS if attribute.name == "endpointType" else _MFA
            if not allowed.issuperset(values):
                raise BadRequest(f"{place}.value", f"must be of {', '.join(sorted(allowed))}")


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
        **audit_fields(request, rule, f"rules/{rule.id}"),
    }
