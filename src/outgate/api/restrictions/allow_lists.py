"""Allow-lists: the legacy list of networks of an instance, with an end. Ours, in the vendor's style.

Standards: RFC 9110 (PUT makes or replaces; If-Match), RFC 3339.
Promises: every list has an end, 400 days ahead at most; one that ends within 14 days says so and what to do; a PUT
    without `If-Match` never replaces what somebody else has written.
Dangers: a list lets in beside the rules, whatever they refuse: it is for moving to zones, not for staying.
Not here: rows (`store.allow_lists`), what it lets in (`relay.access`), the log's warnings (`relay.endings`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.restrictions import models
from outgate.api.restrictions.addresses import read_networks
from outgate.api.restrictions.common import (
    BODY_LIMIT,
    account_listed,
    audit_fields,
    correlated,
    etag,
    expected_if_given,
    stale,
)
from outgate.api.schema import Body, json_body
from outgate.base.clock import Clock, rfc3339
from outgate.model.access import AllowList
from outgate.relay.endings import DAY_S, days_left, warning
from outgate.store.access import MOST_ADDRESSES, Changed
from outgate.store.allow_lists import AllowListQueries
from outgate.store.tenancy import Conflict, NotThere

_LONGEST_DAYS = 400
_ONE = "/v1/allow_lists/{instance_id}"
_INSTANCE_ID = Path(description="The instance whose list it is.")


class NewAllowList(Body):
    """Body of a PUT: all of a list."""

    networks: list[str] = Field(
        min_length=1,
        description="Addresses, subnets (192.0.2.0/24) and ranges (first-last), none wider than a /8, for IPv6 a /16.",
        json_schema_extra={"maxItems": MOST_ADDRESSES},
    )
    ends_at: str = Field(
        max_length=64,
        description=f"From then on it grants nothing; at most {_LONGEST_DAYS} days ahead.",
        json_schema_extra={"format": "date-time"},
    )
    note: str = Field("", max_length=300)


_BODY = json_body(NewAllowList, limit=BODY_LIMIT)


def routes(lists: AllowListQueries, gate: Gate, clock: Clock) -> APIRouter:
    """Return the operations on allow-lists."""
    router = APIRouter(redirect_slashes=False, dependencies=[Depends(correlated)])
    _reads(router, lists, gate, clock)
    _puts(router, lists, gate, clock)
    _deletes(router, lists, gate)
    return router


def _reads(router: APIRouter, lists: AllowListQueries, gate: Gate, clock: Clock) -> None:
    @router.get(
        "/v1/allow_lists",
        **described(
            "list_allow_lists",
            "List the instances' legacy allow-lists, those that end first first",
            answer=models.AllowListList,
            example=models.ALLOW_LISTS,
        ),
    )
    def find(request: Request, account_id: str = Depends(account_listed(gate, "list_allow_lists"))) -> JSONResponse:
        now = clock.now()
        found = [_document(request, each, now) for each in lists.all(account_id)]
        return JSONResponse({"count": len(found), "allow_lists": found})

    @router.get(
        _ONE,
        **described(
            "get_allow_list",
            "Get an instance's allow-list, also one that has ended",
            answer=models.AllowList,
            example=models.ALLOW_LIST,
            headers=("ETag",),
        ),
    )
    def get(
        request: Request, instance_id: str = _INSTANCE_ID, caller: Caller = Depends(gate.allow("get_allow_list"))
    ) -> JSONResponse:
        found = lists.get(caller.account_id, instance_id)
        if found is None:
            raise NotFound("allow-list of instance", instance_id)
        return JSONResponse(_document(request, found, clock.now()), headers=etag(found))


def _puts(router: APIRouter, lists: AllowListQueries, gate: Gate, clock: Clock) -> None:
    description = described(
        "put_allow_list",
        "Make an instance's allow-list, or with If-Match replace all of it",
        answer=models.AllowList,
        body=NewAllowList,
        errors=(409, 412),
        example=models.ALLOW_LIST,
        body_example=models.NEW_ALLOW_LIST,
        headers=("ETag",),
    )
    description["responses"][201] = description["responses"][200]

    @router.put(_ONE, **description)
    def put(
        request: Request,
        instance_id: str = _INSTANCE_ID,
        caller: Caller = Depends(gate.allow("put_allow_list")),
        given: str | None = Depends(_condition),
        versions: frozenset[str] | None = Depends(expected_if_given),
        wanted: NewAllowList = Depends(_BODY),
    ) -> JSONResponse:
        now = clock.now()
        networks = read_networks(wanted.networks, "networks")
        ends_at = _end(wanted.ends_at, now)
        with _refusals(instance_id, replacing=given is not None):
            if given is None:
                kept = lists.create(
                    caller.account_id,
                    instance_id,
                    networks=networks,
                    ends_at=ends_at,
                    note=wanted.note,
                    by=caller.subject,
                )
            else:
                kept = lists.replace(
                    caller.account_id,
                    instance_id,
                    expected=versions,
                    networks=networks,
                    ends_at=ends_at,
                    note=wanted.note,
                    by=caller.subject,
                )
        return JSONResponse(_document(request, kept, now), 201 if given is None else 200, etag(kept))


def _deletes(router: APIRouter, lists: AllowListQueries, gate: Gate) -> None:
    @router.delete(
        _ONE, **described("delete_allow_list", "End an instance's allow-list now", status=204, errors=(412,))
    )
    def remove(
        instance_id: str = _INSTANCE_ID,
        caller: Caller = Depends(gate.allow("delete_allow_list")),
        versions: frozenset[str] | None = Depends(expected_if_given),
    ) -> Response:
        with _refusals(instance_id, replacing=True):
            lists.delete(caller.account_id, instance_id, expected=versions)
        return Response(status_code=204)


async def _condition(request: Request) -> str | None:
    return request.headers.get("if-match")


def _end(text: str, now: float) -> float:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text:
            raise ValueError(text)
        ends_at = float(int(moment.timestamp()))
    except (ValueError, OverflowError):
        raise BadRequest("ends_at", "must be a time with its offset, such as 2027-01-31T00:00:00Z") from None
    if ends_at <= now:
        raise BadRequest("ends_at", "must be in the future; to end the list now, delete it")
    if ends_at > now + _LONGEST_DAYS * DAY_S:
        raise BadRequest("ends_at", f"must be within {_LONGEST_DAYS} days; what is to stay belongs in a zone")
    return ends_at


@contextmanager
def _refusals(instance_id: str, *, replacing: bool) -> Generator[None]:
    """Turn what the store says against a change into an HTTP refusal."""
    try:
        yield
    except NotThere:
        raise NotFound("allow-list of instance" if replacing else "instance", instance_id) from None
    except Changed:
        raise stale("allow-list") from None
    except Conflict as error:
        raise Clash("If-Match", f"is needed: {error}; send its ETag to replace it") from None


def _document(request: Request, found: AllowList, now: float) -> dict[str, object]:
    return {
        "instance_id": found.instance_id,
        "networks": [address.value for address in found.networks],
        "ends_at": rfc3339(found.ends_at),
        "ends_in_days": days_left(found.ends_at, now),
        "ended": found.ends_at <= now,
        "warning": warning(found, now),
        "note": found.note,
        **audit_fields(request, found, f"allow_lists/{found.instance_id}"),
    }
