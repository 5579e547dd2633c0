"""API keys over REST: made, listed, shown, changed, deleted.

Standards: the vendor's IAM Identity operations on API keys; its REST error envelope.
Promises: nobody gives a key a role that he lacks, nor more time to a key with such a role; a key of another account
    reads like none at all; a deleted key voids its tokens at once; a change made from an older version is a 409;
    instances that a key is bound to are never widened by leaving something out.
Dangers: the answer that makes a key, and the header IAM-ApiKey, hold it in clear: neither is logged or echoed.
Not here: tokens (`exchange`, `tokens`), JSON (`documents`), rows (`store.identity`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from outgate.api.errors import ApiError, BadRequest, Clash, Forbidden, NotFound, Problem
from outgate.api.identity import examples
from outgate.api.identity.documents import (
    ApiKeyListShown,
    ApiKeyShown,
    ChangedApiKey,
    NewApiKey,
    api_key_document,
    end_date,
    entity_tag,
)
from outgate.api.identity.gate import Gate
from outgate.api.identity.roles import covered
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.schema import json_body
from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.store.control import ControlStore
from outgate.store.identity import ApiKey, IdentityQueries
from outgate.store.tenancy import TenancyQueries, TooMany

_log = Log("outgate.identity")
_ALL = "/v1/apikeys"
_ONE = "/v1/apikeys/{id}"


class _NoSuchText(ApiError):
    """404: no key of the account has that text; which it was is not said."""

    status = 404

    def __init__(self) -> None:
        super().__init__((Problem("not_found", "there is no API key with the text in IAM-ApiKey", "IAM-ApiKey"),))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which keys of the account are listed, and in which order."""

    iam_id: str | None
    limit: int
    offset: int
    sort: str
    descending: bool


def routes(store: ControlStore, gate: Gate, clock: Clock) -> APIRouter:
    """Return the operations on API keys."""
    router = APIRouter(redirect_slashes=False)
    _making(router, store, gate, clock)
    _reading(router, store.identity, gate, clock)
    _changing(router, store, gate, clock)
    return router


def _making(router: APIRouter, store: ControlStore, gate: Gate, clock: Clock) -> None:
    @router.post(
        _ALL,
        **described(
            "create_api_key",
            "Make an API key; its text is in this answer only",
            answer=ApiKeyShown,
            status=201,
            body=NewApiKey,
            errors=(409,),
            example=examples.CREATED,
            body_example=examples.NEW,
        ),
    )
    def create(
        caller: Caller = Depends(gate.allow("create_api_key")),
        _offered: None = Depends(_no_states),
        body: NewApiKey = Depends(json_body(NewApiKey)),
    ) -> JSONResponse:
        _own(caller, body.account_id)
        _may_give(caller, body.roles)
        bound = _bound(store.tenancy, caller, body.instances, body.roles)
        try:
            key, clear = store.identity.create_api_key(
                caller.account_id,
                body.name,
                body.roles,
                description=body.description,
                by=caller.subject,
                expires_at=end_date(body.expires_at, clock.now()),
                instances=bound,
            )
        except TooMany as error:
            raise Clash("", str(error)) from None
        _log.info("identity.key_made", key=key.id, roles=sorted(key.roles), by=caller.subject)
        return JSONResponse(api_key_document(key, clock.now(), clear), 201, {"Cache-Control": "no-store"})


def _reading(router: APIRouter, store: IdentityQueries, gate: Gate, clock: Clock) -> None:
    @router.get(
        _ALL,
        **described("list_api_keys", "List the account's API keys", answer=ApiKeyListShown, example=examples.LISTED),
    )
    def find(
        request: Request,
        caller: Caller = Depends(gate.allow("list_api_keys")),
        account_id: str | None = Query(None, max_length=128),
        wanted: _Wanted = Depends(_wanted),
    ) -> JSONResponse:
        _own(caller, account_id)
        keys = _in_order(store.api_keys(caller.account_id), wanted)
        here = keys[wanted.offset : wanted.offset + wanted.limit]
        now = clock.now()
        document: dict[str, object] = {"offset": wanted.offset, "limit": wanted.limit}
        document |= _links(request, wanted, len(keys))
        return JSONResponse({**document, "apikeys": [api_key_document(key, now) for key in here]})

    @router.get(
        _ALL + "/details",
        **described(
            "get_api_keys_details",
            "Find an API key by its text, which is sent in the header IAM-ApiKey",
            answer=ApiKeyShown,
            example=examples.SHOWN,
        ),
    )
    def details(
        caller: Caller = Depends(gate.allow("get_api_keys_details")),
        text: str | None = Header(None, alias="IAM-ApiKey", max_length=1024),
    ) -> JSONResponse:
        if not text:
            raise BadRequest("IAM-ApiKey", "is required: the header holds the text of the key")
        key = store.find_api_key(text)
        if key is None or key.account_id != caller.account_id:
            raise _NoSuchText
        return JSONResponse(api_key_document(key, clock.now()))

    @router.get(_ONE, **described("get_api_key", "Show an API key", answer=ApiKeyShown, example=examples.SHOWN))
    def get(key: ApiKey = Depends(_key(store, gate, "get_api_key"))) -> JSONResponse:
        return JSONResponse(api_key_document(key, clock.now()))


def _changing(router: APIRouter, store: ControlStore, gate: Gate, clock: Clock) -> None:
    changer = gate.allow("update_api_key")
    deleter = gate.allow("delete_api_key")

    @router.put(
        _ONE,
        **described(
            "update_api_key",
            "Change an API key; roles taken away void its tokens and logins at once",
            answer=ApiKeyShown,
            body=ChangedApiKey,
            errors=(409,),
            example=examples.SHOWN,
            body_example=examples.CHANGED,
        ),
    )
    def change(
        caller: Caller = Depends(changer),
        key: ApiKey = Depends(_key(store.identity, gate, "update_api_key")),
        version: str | None = Header(None, alias="If-Match", max_length=100),
        body: ChangedApiKey = Depends(json_body(ChangedApiKey)),
    ) -> JSONResponse:
        if not version:
            raise BadRequest("If-Match", "is required: the entity_tag of the key, or *")
        if version.strip().strip('"') not in ("*", entity_tag(key)):
            raise _outdated()
        roles = key.roles if body.roles is None else frozenset(body.roles)
        ends = key.expires_at if body.expires_at is None else end_date(body.expires_at, clock.now())
        bound = key.instances
        if body.instances is not None:
            bound = _bound(store.tenancy, caller, body.instances, roles)
        # Who gives a key more time, or more instances, gives all its roles anew.
        more = _later(ends, key.expires_at) or _wider(bound, key.instances)
        _may_give(caller, roles if more else roles - key.roles)
        changed = store.identity.replace_api_key(
            replace(
                key,
                name=key.name if body.name is None else body.name,
                description=key.description if body.description is None else body.description,
                roles=roles,
                expires_at=ends,
                instances=bound,
            )
        )
        if changed is None:
            raise _outdated()
        _log.info("identity.key_changed", key=key.id, roles=sorted(roles), by=caller.subject)
        return JSONResponse(api_key_document(changed, clock.now()))

    @router.delete(_ONE, **described("delete_api_key", "Delete an API key, which voids its tokens at once", status=204))
    def delete(
        caller: Caller = Depends(deleter), key: ApiKey = Depends(_key(store.identity, gate, "delete_api_key"))
    ) -> Response:
        if not store.identity.delete_api_key(key.id):
            raise NotFound("API key", key.id)
        _log.info("identity.key_deleted", key=key.id, by=caller.subject)
        return Response(status_code=204)


def _key(store: IdentityQueries, gate: Gate, operation: str) -> Callable[..., ApiKey]:
    """Return a dependency: the path's key, if the caller may do `operation` and it is his account's."""
    allowed = gate.allow(operation)

    def find(id: str, caller: Caller = Depends(allowed)) -> ApiKey:
        key = store.api_key(id)
        if key is None or key.account_id != caller.account_id:
            raise NotFound("API key", id)
        return key

    return find


def _no_states(
    lock: str | None = Header(None, alias="Entity-Lock"), disable: str | None = Header(None, alias="Entity-Disable")
) -> None:
    for name, given in (("Entity-Lock", lock), ("Entity-Disable", disable)):
        if (given or "false").strip().lower() != "false":
            raise BadRequest(name, "is not offered here: a key that must not be used is deleted, or has an end date")


def _wanted(
    iam_id: str | None = Query(None, max_length=250, description="Keys that are this identity, or that it made."),
    pagesize: int = Query(20, ge=1, le=100),
    pagetoken: int = Query(0, ge=0, le=2**31, description="From a link to another page."),
    sort: Literal["name", "description", "created_at", "created_by"] = "created_at",
    order: Literal["asc", "desc"] = "asc",
    wanted: str | None = Query(None, alias="filter", max_length=1000, description="Not offered."),
) -> _Wanted:
    if wanted:
        raise BadRequest("filter", "is not offered here: list the keys and choose")
    return _Wanted(iam_id, pagesize, pagetoken, sort, order == "desc")


def _in_order(keys: Iterable[ApiKey], wanted: _Wanted) -> list[ApiKey]:
    found = [key for key in keys if wanted.iam_id is None or wanted.iam_id in (key.subject, key.created_by)]
    return sorted(found, key=lambda key: getattr(key, wanted.sort), reverse=wanted.descending)


def _links(request: Request, wanted: _Wanted, total: int) -> dict[str, object]:
    def link(offset: int) -> str:
        return str(request.url.include_query_params(pagesize=wanted.limit, pagetoken=offset))

    links: dict[str, object] = {"first": link(0)}
    if wanted.offset:
        links["previous"] = link(max(0, wanted.offset - wanted.limit))
    if wanted.offset + wanted.limit < total:
        links["next"] = link(wanted.offset + wanted.limit)
    return links


def _own(caller: Caller, account_id: str | None) -> None:
    if account_id and account_id != caller.account_id:
        raise Forbidden("the token is not for that account")


def _later(ends: float | None, before: float | None) -> bool:
    """Say whether an end date, None for none, is later than the one before it."""
    return before is not None and (ends is None or ends > before)


def _wider(bound: frozenset[str] | None, before: frozenset[str] | None) -> bool:
    """Say whether a key opens instances, None for all, that it did not before."""
    return before is not None and (bound is None or not bound <= before)


def _bound(
    tenancy: TenancyQueries, caller: Caller, given: list[str] | None, roles: Iterable[str]
) -> frozenset[str] | None:
    """Return the instances that a key is to be bound to, None for all. Raises `BadRequest`."""
    if given is None:
        return None
    if "smtp" not in roles:
        raise BadRequest("instances", "binds what the role smtp may do, and the key has not that role")
    if given == ["*"]:
        return None
    own = {instance.id for instance in tenancy.instances(caller.account_id)}
    for number, instance_id in enumerate(given):
        if instance_id not in own:
            raise BadRequest(f"instances[{number}]", "is no instance of the account")
    return frozenset(given)


def _may_give(caller: Caller, roles: Iterable[str]) -> None:
    lacking = sorted(set(roles) - covered(caller.roles))
    if lacking:
        raise Forbidden(f"nobody gives a key a role that he lacks himself, or more time with it: {', '.join(lacking)}")


def _outdated() -> Clash:
    return Clash("If-Match", "is not the key's entity_tag: it has been changed since, get it anew")
