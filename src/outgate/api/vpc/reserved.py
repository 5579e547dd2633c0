"""Reserved addresses of a subnet: list, create, get, delete.

Standards: the vendor's VPC service.
Promises: an address that a gateway has cannot be deleted; one that is bound by nothing is not deleted by itself.
Not here: binding one that is there already (`gateways`), rows (`store.vpc`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from outgate.api.errors import BadRequest
from outgate.api.identity.tokens import Caller
from outgate.api.schema import Body, json_body
from outgate.api.vpc import documents, models
from outgate.api.vpc.common import BODY_LIMIT, Door, Identity, Key, Name, Paging, made_up_name, paging, refusals, told
from outgate.api.vpc.models import described
from outgate.api.vpc.networks import SUBNET_ID
from outgate.model.vpc import ReservedIp
from outgate.store.vpc import VpcQueries

IP_ID = Path(description="The reserved IP's id.", max_length=128)
SORT = Query(
    None, max_length=64, description="`address`, `created_at` or `name`; with a leading `-` in descending order."
)


class NewReservedIp(Body):
    """Body of a create: the lowest free address if none is given."""

    address: str | None = Field(None, min_length=7, max_length=15)
    auto_delete: bool = False
    name: Name | None = None
    target: Identity | None = None


_BODY = json_body(NewReservedIp, limit=BODY_LIMIT, optional=True)


def routes(store: VpcQueries, door: Door, changed: Callable[[], None]) -> APIRouter:
    """Return the operations; `changed` is called once a gateway has got an address."""
    router = APIRouter(redirect_slashes=False)
    _reads(router, store, door)
    _changes(router, store, door, changed)
    return router


def _reads(router: APIRouter, store: VpcQueries, door: Door) -> None:
    @router.get(
        "/subnets/{subnet_id}/reserved_ips",
        **described(
            "list_subnet_reserved_ips",
            "List the reserved IPs of a subnet",
            answer=models.ReservedIpList,
            example=models.RESERVED_IPS,
        ),
    )
    def find(
        request: Request,
        subnet_id: str = SUBNET_ID,
        caller: Caller = Depends(door.allow("list_subnet_reserved_ips")),
        page: Paging = Depends(paging),
        sort: str | None = SORT,
        target_id: str | None = Query(None, alias="target.id", max_length=128, description="Only what it has."),
        target_name: str | None = Query(None, alias="target.name", max_length=63, description="Only what it has."),
    ) -> JSONResponse:
        with refusals():
            subnet = store.subnet(caller.account_id, subnet_id)
            found = [
                ip
                for ip in store.reserved_ips(caller.account_id, subnet_id)
                if target_id in (None, ip.gateway_id) and target_name in (None, ip.gateway_name)
            ]
        return JSONResponse(
            page.document(
                request,
                "reserved_ips",
                found,
                **order(sort),
                shown=lambda ip: documents.reserved_ip(request, ip, subnet.vpc.region, caller.account_id),
            )
        )

    @router.get(
        "/subnets/{subnet_id}/reserved_ips/{reserved_ip_id}",
        **described(
            "get_subnet_reserved_ip", "Get a reserved IP", answer=models.ReservedIp, example=models.RESERVED_IP
        ),
    )
    def get(
        request: Request,
        subnet_id: str = SUBNET_ID,
        reserved_ip_id: str = IP_ID,
        caller: Caller = Depends(door.allow("get_subnet_reserved_ip")),
    ) -> JSONResponse:
        with refusals():
            subnet = store.subnet(caller.account_id, subnet_id)
            ip = store.reserved_ip(caller.account_id, subnet_id, reserved_ip_id)
        return JSONResponse(documents.reserved_ip(request, ip, subnet.vpc.region, caller.account_id))


def _changes(router: APIRouter, store: VpcQueries, door: Door, changed: Callable[[], None]) -> None:
    @router.post(
        "/subnets/{subnet_id}/reserved_ips",
        **described(
            "create_subnet_reserved_ip",
            "Reserve an address, and bind it to a gateway if one is named",
            answer=models.ReservedIp,
            status=201,
            body=NewReservedIp,
            body_optional=True,
            errors=(409,),
            example=models.RESERVED_IP,
            body_example=models.NEW_RESERVED_IP,
        ),
    )
    def create(
        request: Request,
        subnet_id: str = SUBNET_ID,
        caller: Caller = Depends(door.allow("create_subnet_reserved_ip")),
        wanted: NewReservedIp = Depends(_BODY),
    ) -> JSONResponse:
        if wanted.auto_delete and wanted.target is None:
            raise BadRequest("auto_delete", "must be false for an address that is bound to nothing")
        address = read_address(wanted.address, "address")
        with refusals(id="target"):
            subnet = store.subnet(caller.account_id, subnet_id)
            ip = store.reserve(
                caller.account_id,
                subnet_id,
                address=address,
                name=wanted.name or made_up_name("ip"),
                auto_delete=wanted.auto_delete,
                gateway_id=None if wanted.target is None else wanted.target.resolved("target"),
                by=caller.subject,
            )
        told("vpc.ip_reserved", caller, ip=ip.id, address=ip.address, gateway=ip.gateway_id)
        if ip.gateway_id:
            changed()
        return JSONResponse(documents.reserved_ip(request, ip, subnet.vpc.region, caller.account_id), 201)

    @router.delete(
        "/subnets/{subnet_id}/reserved_ips/{reserved_ip_id}",
        **described("delete_subnet_reserved_ip", "End a reservation that nothing uses", status=204, errors=(409,)),
    )
    def remove(
        subnet_id: str = SUBNET_ID,
        reserved_ip_id: str = IP_ID,
        caller: Caller = Depends(door.allow("delete_subnet_reserved_ip")),
    ) -> Response:
        with refusals():
            store.release(caller.account_id, subnet_id, reserved_ip_id)
        told("vpc.ip_released", caller, ip=reserved_ip_id)
        return Response(status_code=204)


def read_address(text: str | None, field: str) -> str | None:
    """Return an IPv4 address in its one spelling, or None. Raises `BadRequest`."""
    if text is None:
        return None
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise BadRequest(field, "must be an IPv4 address") from None


def order(sort: str | None) -> dict[str, Any]:
    """Return what `Paging.document` needs for a `sort` of reserved addresses: by address if None."""
    text = sort or "address"
    keys: dict[str, Callable[[ReservedIp], Key]] = {
        "address": lambda ip: (int(ipaddress.IPv4Address(ip.address)), ip.id),
        "created_at": lambda ip: (ip.created_at, ip.id),
        "name": lambda ip: (ip.name, ip.id),
    }
    key = keys.get(text.removeprefix("-"))
    if key is None:
        raise BadRequest("sort", f"must be one of {', '.join(keys)}, with - before it for descending order")
    return {"key": key, "descending": text.startswith("-")}
