"""Zones: create, list, get.

Standards: the vendor's contract.
Promises: a name is unique in its account; `excluded` has addresses, ranges and subnets only.
Not here: addresses (`addresses`), rows (`store.access`).
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.restrictions.addresses import MOST_ADDRESSES, ZoneAddress, address_document, read_addresses
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
from outgate.model.access import Zone
from outgate.store.access import AccessQueries
from outgate.store.tenancy import Conflict, TooMany

_NAME = re.compile(r"[a-zA-Z0-9 \-_]{1,128}")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("must have 1 to 128 of a-z, A-Z, 0-9, space, - and _")
    return text


class NewZone(Body):
    """Body of a create; the account is the caller's if absent."""

    name: Annotated[str, AfterValidator(_name)]
    account_id: str | None = Field(None, min_length=1, max_length=128)
    addresses: list[ZoneAddress] = Field(min_length=1)
    description: str = Field("", max_length=300)
    excluded: list[ZoneAddress] = Field(default_factory=list[ZoneAddress])


def routes(access: AccessQueries, gate: Gate) -> APIRouter:
    """Return the operations on zones."""
    router = APIRouter(redirect_slashes=False)

    @router.post("/v1/zones", response_model=None)
    def create(
        request: Request,
        caller: Caller = Depends(gate.allow("create_zone")),
        body: NewZone = Depends(json_body(NewZone, limit=BODY_LIMIT)),
    ) -> JSONResponse:
        require_own(caller, body.account_id or caller.account_id)
        addresses = read_addresses(body.addresses, "addresses")
        excluded = read_addresses(body.excluded, "excluded", excluded=True)
        if len(addresses) + len(excluded) > MOST_ADDRESSES:
            raise BadRequest("addresses", f"and 'excluded' may have {MOST_ADDRESSES} entries together")
        try:
            zone = access.create_zone(
                caller.account_id,
                name=body.name,
                description=body.description,
                addresses=addresses,
                excluded=excluded,
                by=caller.subject,
            )
        except Conflict as error:
            raise Clash(error.field, f"is taken: {error}") from None
        except TooMany as error:
            raise BadRequest("", str(error)) from None
        return JSONResponse(_document(request, zone), 201, etag(zone))

    @router.get("/v1/zones", response_model=None)
    def find(
        request: Request,
        account_id: str = Depends(account_listed(gate, "list_zones")),
        name: str | None = Query(None, max_length=128),
        sort: str | None = Query(None, max_length=200),
    ) -> JSONResponse:
        found = in_order(access.zones(account_id, name=name), sort)
        return JSONResponse({"count": len(found), "zones": [_summary(request, zone) for zone in found]})

    @router.get("/v1/zones/{zone_id}", response_model=None)
    def get(request: Request, zone_id: str, caller: Caller = Depends(gate.allow("get_zone"))) -> JSONResponse:
        zone = access.zone(caller.account_id, zone_id)
        if zone is None:
            raise NotFound("zone", zone_id)
        return JSONResponse(_document(request, zone), headers=etag(zone))

    return router


def _document(request: Request, zone: Zone) -> dict[str, object]:
    return {
        **_described(zone),
        "account_id": zone.account_id,
        "addresses": [address_document(address) for address in zone.addresses],
        "excluded": [address_document(address) for address in zone.excluded],
        **audit_fields(request, zone, "zones"),
    }


def _summary(request: Request, zone: Zone) -> dict[str, object]:
    return {
        **_described(zone),
        "addresses_preview": [address_document(address) for address in zone.addresses[:3]],
        **audit_fields(request, zone, "zones"),
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
