"""Zones: create, list, get, replace, delete.

Standards: the vendor's contract.
Promises: a name is unique in its account; `excluded` has addresses, ranges and subnets only; a zone that a rule
    names can neither be deleted nor outgrow what that rule may hold.
Not here: addresses (`addresses`), rows (`store.access`), services that a zone can name (`catalogue`).
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AfterValidator, Field

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.restrictions import models
from outgate.api.restrictions.addresses import ZoneAddress, address_document, read_addresses
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
from outgate.model.access import Address, Zone
from outgate.store.access import MOST_ADDRESSES, AccessQueries, Changed, InUse, TooManyAddresses
from outgate.store.tenancy import Conflict, NotThere, TooMany

_NAME = re.compile(r"[a-zA-Z0-9 \-_]{1,128}")
_SHOWN_IDS = 5
_ZONE_ID = Path(description="The zone's id.")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("must have 1 to 128 of a-z, A-Z, 0-9, space, - and _")
    return text


class NewZone(Body):
    """Body of a create or replace; the account is the caller's if absent."""

    name: Annotated[
        str,
        AfterValidator(_name),
        Field(json_schema_extra={"minLength": 1, "maxLength": 128, "pattern": r"^[a-zA-Z0-9 \-_]+$"}),
    ]
    account_id: str | None = Field(None, min_length=1, max_length=128)
    addresses: list[ZoneAddress] = Field(min_length=1, json_schema_extra={"maxItems": MOST_ADDRESSES})
    description: str = Field("", max_length=300)
    excluded: list[ZoneAddress] = Field(
        default_factory=list[ZoneAddress], json_schema_extra={"maxItems": MOST_ADDRESSES}
    )


_BODY = json_body(NewZone, limit=BODY_LIMIT)


def routes(access: AccessQueries, gate: Gate) -> APIRouter:
    """Return the operations on zones."""
    router = APIRouter(redirect_slashes=False, dependencies=[Depends(correlated)])
    _creates(router, access, gate)
    _reads(router, access, gate)
    _changes(router, access, gate)
    return router


def _creates(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.post(
        "/v1/zones",
        **described(
            "create_zone",
            "Make a network zone",
            answer=models.Zone,
            status=201,
            body=NewZone,
            errors=(409,),
            example=models.ZONE,
            body_example=models.NEW_ZONE,
            headers=("ETag",),
        ),
    )
    def create(
        request: Request, caller: Caller = Depends(gate.allow("create_zone")), wanted: NewZone = Depends(_BODY)
    ) -> JSONResponse:
        addresses, excluded = _addresses(wanted, caller)
        with _refusals(""):
            zone = access.create_zone(
                caller.account_id,
                name=wanted.name,
                description=wanted.description,
                addresses=addresses,
                excluded=excluded,
                by=caller.subject,
            )
        return JSONResponse(_document(request, zone), 201, etag(zone))


def _reads(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.get("/v1/zones", **described("list_zones", "List zones", answer=models.ZoneList, example=models.ZONES))
    def find(
        request: Request,
        account_id: str = Depends(account_listed(gate, "list_zones")),
        name: str | None = Query(None, max_length=128, description="Only the zone of this name."),
        sort: str | None = sorting(),
    ) -> JSONResponse:
        found = in_order(access.zones(account_id, name=name), sort)
        return JSONResponse({"count": len(found), "zones": [_summary(request, zone) for zone in found]})

    @router.get(
        "/v1/zones/{zone_id}",
        **described("get_zone", "Get a zone", answer=models.Zone, example=models.ZONE, headers=("ETag",)),
    )
    def get(
        request: Request, zone_id: str = _ZONE_ID, caller: Caller = Depends(gate.allow("get_zone"))
    ) -> JSONResponse:
        zone = access.zone(caller.account_id, zone_id)
        if zone is None:
            raise NotFound("zone", zone_id)
        return JSONResponse(_document(request, zone), headers=etag(zone))


def _changes(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.put(
        "/v1/zones/{zone_id}",
        **described(
            "replace_zone",
            "Replace all of a zone",
            answer=models.Zone,
            body=NewZone,
            errors=(409, 412),
            example=models.ZONE,
            body_example=models.NEW_ZONE,
            headers=("ETag",),
        ),
    )
    def replace(
        request: Request,
        zone_id: str = _ZONE_ID,
        caller: Caller = Depends(gate.allow("replace_zone")),
        versions: frozenset[str] | None = Depends(expected),
        wanted: NewZone = Depends(_BODY),
    ) -> JSONResponse:
        addresses, excluded = _addresses(wanted, caller)
        with _refusals(zone_id):
            zone = access.replace_zone(
                caller.account_id,
                zone_id,
                expected=versions,
                name=wanted.name,
                description=wanted.description,
                addresses=addresses,
                excluded=excluded,
                by=caller.subject,
            )
        return JSONResponse(_document(request, zone), headers=etag(zone))

    @router.delete(
        "/v1/zones/{zone_id}",
        **described("delete_zone", "Delete a zone that no rule names", status=204, errors=(409, 412)),
    )
    def remove(
        zone_id: str = _ZONE_ID,
        caller: Caller = Depends(gate.allow("delete_zone")),
        versions: frozenset[str] | None = Depends(expected_if_given),
    ) -> Response:
        with _refusals(zone_id):
            access.delete_zone(caller.account_id, zone_id, expected=versions)
        return Response(status_code=204)


def _addresses(wanted: NewZone, caller: Caller) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    require_own(caller, wanted.account_id or caller.account_id)
    addresses = read_addresses(wanted.addresses, "addresses")
    excluded = read_addresses(wanted.excluded, "excluded", excluded=True)
    if len(addresses) + len(excluded) > MOST_ADDRESSES:
        raise BadRequest("addresses", f"and 'excluded' may have {MOST_ADDRESSES} entries together")
    return addresses, excluded


@contextmanager
def _refusals(zone_id: str) -> Generator[None]:
    """Turn what the store says against a change into an HTTP refusal."""
    try:
        yield
    except NotThere:
        raise NotFound("zone", zone_id) from None
    except Changed:
        raise stale("zone") from None
    except Conflict as error:
        raise Clash(error.field, f"is taken: {error}") from None
    except InUse as error:
        shown = ", ".join(error.rule_ids[:_SHOWN_IDS]) + (", …" if len(error.rule_ids) > _SHOWN_IDS else "")
        remedy = "have them name other zones, or delete them, then delete the zone"
        raise Clash("", f"{len(error.rule_ids)} rule(s) name this zone: {shown}; {remedy}") from None
    except TooManyAddresses as error:
        raise BadRequest(
            "addresses",
            f"would give rule {error.rule_id} zones with more than {MOST_ADDRESSES} addresses in all: "
            "have it name fewer zones first, or make this one smaller",
        ) from None
    except TooMany as error:
        raise Clash("", str(error)) from None


def _document(request: Request, zone: Zone) -> dict[str, object]:
    return {
        **_described(zone),
        "account_id": zone.account_id,
        "addresses": [address_document(address) for address in zone.addresses],
        "excluded": [address_document(address) for address in zone.excluded],
        **audit_fields(request, zone, f"zones/{zone.id}"),
    }


def _summary(request: Request, zone: Zone) -> dict[str, object]:
    return {
        **_described(zone),
        "addresses_preview": [address_document(address) for address in zone.addresses[:3]],
        **audit_fields(request, zone, f"zones/{zone.id}"),
    }


def _described(zone: Zone) -> dict[str, object]:
    return {
        "id": zone.id,
        "crn": crn(zone.account_id, "zone", zone.id),
        "name": zone.name,
        "description": zone.description,
        "address_count": len(zone.addresses),
        "excluded_count": len(zone.excluded),
    }
