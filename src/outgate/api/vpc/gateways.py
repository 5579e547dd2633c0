"""Endpoint gateways and their addresses: list, create, get, update, delete, bind, unbind.

Standards: the vendor's VPC service; RFC 7396 (merge patch).
Promises: what was answered 201, 202 or 204 is stored, and listeners follow; a target that is none of ours is refused
    with one that would do.
Dangers: 202 means that it goes, not that it is gone: it is there until its connections have ended.
Not here: listeners (`relay.gateways`), rows (`store.gateways`), CRNs of targets (`targets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from outgate.api.errors import BadRequest, NotFound
from outgate.api.identity.tokens import Caller
from outgate.api.schema import Body, json_body
from outgate.api.vpc import documents, models, targets
from outgate.api.vpc.common import (
    BODY_LIMIT,
    Door,
    Identity,
    Name,
    Paging,
    made_up_name,
    paging,
    refusals,
    require_default_group,
    resource_group_id,
    told,
)
from outgate.api.vpc.models import described
from outgate.api.vpc.reserved import IP_ID, SORT, order, read_address
from outgate.model.vpc import EndpointGateway, ReservedIp
from outgate.store.gateways import GatewayQueries, NewIp
from outgate.store.vpc_rows import Missing

GATEWAY_ID = Path(description="The endpoint gateway's id.", max_length=128)
_CLOUD_SERVICE = "provider_cloud_service"
DnsMode = Literal["disabled", "primary", "per_resource_binding"]


class NewTarget(Body):
    """What a gateway leads to: an endpoint of Event Notifications, by CRN."""

    resource_type: str = Field(max_length=64, json_schema_extra={"enum": [_CLOUD_SERVICE]})
    crn: str | None = Field(None, min_length=1, max_length=2048)
    name: str | None = Field(None, max_length=128)


class NewIpHere(Identity):
    """An address for a gateway: one that is reserved (id or href), or a new one of a subnet."""

    subnet: Identity | None = None
    address: str | None = Field(None, min_length=7, max_length=15)
    name: Name | None = None
    auto_delete: bool = False


class NewGateway(Body):
    """Body of a create."""

    target: NewTarget
    vpc: Identity
    name: Name | None = None
    ips: list[NewIpHere] | None = Field(None, max_length=20)
    security_groups: list[Identity] | None = Field(None, max_length=5)
    resource_group: Identity | None = None
    dns_resolution_binding_mode: DnsMode | None = None
    allow_dns_resolution_binding: bool | None = None


class GatewayChange(Body):
    """Body of a merge patch: what is absent stays."""

    name: Name | None = None
    dns_resolution_binding_mode: DnsMode | None = None
    allow_dns_resolution_binding: bool | None = None


_NEW = json_body(NewGateway, limit=BODY_LIMIT)
_CHANGE = json_body(GatewayChange, limit=BODY_LIMIT)


def routes(
    store: GatewayQueries, door: Door, private_names: Mapping[str, str], changed: Callable[[], None]
) -> APIRouter:
    """Return the operations; `changed` is called once listeners have something to follow."""
    router = APIRouter(redirect_slashes=False)
    _creates(router, store, door, private_names, changed)
    _reads(router, store, door)
    _changes(router, store, door, changed)
    _bindings(router, store, door, changed)
    return router


def _creates(
    router: APIRouter,
    store: GatewayQueries,
    door: Door,
    private_names: Mapping[str, str],
    changed: Callable[[], None],
) -> None:
    @router.post(
        "/endpoint_gateways",
        **described(
            "create_endpoint_gateway",
            "Make an endpoint gateway",
            answer=models.EndpointGateway,
            status=201,
            body=NewGateway,
            errors=(409,),
            example=models.GATEWAY,
            body_example=models.NEW_GATEWAY,
        ),
    )
    def create(
        request: Request,
        caller: Caller = Depends(door.allow("create_endpoint_gateway")),
        wanted: NewGateway = Depends(_NEW),
    ) -> JSONResponse:
        target = _target(wanted.target, private_names)
        vpc_id = wanted.vpc.resolved("vpc")
        require_default_group(wanted.resource_group, caller.account_id)
        _require_default_security(wanted.security_groups or [], vpc_id)
        with refusals(id="ips", address="ips[0].address", subnet="ips[0].subnet"):
            made = store.create(
                caller.account_id,
                vpc_id,
                name=wanted.name or made_up_name("gateway"),
                target=wanted.target.crn or "",
                region=target.region,
                service_endpoint=target.name,
                dns_mode=_dns_mode(wanted) or "primary",
                ip=_ip(wanted.ips or []),
                by=caller.subject,
            )
        address = "" if made.ip is None else made.ip.address
        told("vpc.gateway_created", caller, gateway=made.id, vpc=made.vpc.crn, address=address, target=target.name)
        changed()
        return JSONResponse(documents.gateway(request, made), 201)


def _target(given: NewTarget, private_names: Mapping[str, str]) -> targets.Target:
    if given.resource_type != _CLOUD_SERVICE:
        raise BadRequest("target.resource_type", f"must be {_CLOUD_SERVICE}: nothing else is here to lead to")
    if given.crn is None:
        raise BadRequest("target.crn", "is required")
    try:
        return targets.find(given.crn, private_names)
    except targets.BadTarget as error:
        raise BadRequest("target.crn", str(error)) from None


def _require_default_security(given: list[Identity], vpc_id: str) -> None:
    for at, group in enumerate(given):
        named = group.resolved(f"security_groups[{at}]")
        if named != documents.security_group_id(vpc_id):
            raise NotFound("security group", named[:64])


def _ip(given: list[NewIpHere]) -> NewIp | str | None:
    if len(given) > 1:
        raise BadRequest("ips", "may have one entry: the endpoint takes one address per VPC and region")
    for entry in given:
        if entry.subnet is None:
            return entry.resolved("ips[0]")
        if entry.id is not None or entry.href is not None:
            raise BadRequest("ips[0]", "must name a reserved IP or a subnet, not both")
        return NewIp(
            entry.subnet.resolved("ips[0].subnet"),
            read_address(entry.address, "ips[0].address"),
            entry.name or made_up_name("ip"),
            entry.auto_delete,
        )
    return None


def _dns_mode(given: NewGateway | GatewayChange) -> str | None:
    if given.dns_resolution_binding_mode is not None:
        return given.dns_resolution_binding_mode
    older = given.allow_dns_resolution_binding
    return None if older is None else "primary" if older else "disabled"


def _reads(router: APIRouter, store: GatewayQueries, door: Door) -> None:
    @router.get(
        "/endpoint_gateways",
        **described(
            "list_endpoint_gateways",
            "List endpoint gateways, newest first",
            answer=models.EndpointGatewayList,
            example=models.GATEWAYS,
        ),
    )
    def find(
        request: Request,
        caller: Caller = Depends(door.allow("list_endpoint_gateways")),
        page: Paging = Depends(paging),
        name: str | None = Query(None, max_length=63, description="Only of this name."),
        group: str | None = Query(None, alias="resource_group.id", max_length=128, description="Only of this group."),
        states: str | None = Query(
            None, alias="lifecycle_state", max_length=200, description="Only in one of these states: a comma list."
        ),
        vpc_id: str | None = Query(None, alias="vpc.id", max_length=128, description="Only of this VPC."),
        vpc_crn: str | None = Query(None, alias="vpc.crn", max_length=512, description="Only of this VPC."),
        vpc_name: str | None = Query(None, alias="vpc.name", max_length=63, description="Only of this VPC."),
        modes: str | None = Query(
            None,
            alias="dns_resolution_binding_mode",
            max_length=200,
            description="Only with one of these modes: a comma list.",
        ),
    ) -> JSONResponse:
        def wanted(gateway: EndpointGateway) -> bool:
            return (
                name in (None, gateway.name)
                and group in (None, resource_group_id(caller.account_id))
                and (states is None or gateway.state.value in states.split(","))
                and vpc_id in (None, gateway.vpc.id)
                and vpc_crn in (None, gateway.vpc.crn)
                and vpc_name in (None, gateway.vpc.name)
                and (modes is None or gateway.dns_mode in modes.split(","))
            )

        return JSONResponse(
            page.document(
                request,
                "endpoint_gateways",
                [gateway for gateway in store.gateways(caller.account_id) if wanted(gateway)],
                key=lambda gateway: (-gateway.created_at, gateway.name, gateway.id),
                shown=lambda gateway: documents.gateway(request, gateway),
            )
        )

    @router.get(
        "/endpoint_gateways/{gateway_id}",
        **described(
            "get_endpoint_gateway", "Get an endpoint gateway", answer=models.EndpointGateway, example=models.GATEWAY
        ),
    )
    def get(
        request: Request, gateway_id: str = GATEWAY_ID, caller: Caller = Depends(door.allow("get_endpoint_gateway"))
    ) -> JSONResponse:
        with refusals():
            return JSONResponse(documents.gateway(request, store.gateway(caller.account_id, gateway_id)))


def _changes(router: APIRouter, store: GatewayQueries, door: Door, changed: Callable[[], None]) -> None:
    @router.patch(
        "/endpoint_gateways/{gateway_id}",
        **described(
            "update_endpoint_gateway",
            "Change the name or the DNS mode of an endpoint gateway",
            answer=models.EndpointGateway,
            body=GatewayChange,
            body_type="application/merge-patch+json",
            errors=(409,),
            example=models.GATEWAY,
            body_example={"name": "mail"},
        ),
    )
    def change(
        request: Request,
        gateway_id: str = GATEWAY_ID,
        caller: Caller = Depends(door.allow("update_endpoint_gateway")),
        wanted: GatewayChange = Depends(_CHANGE),
    ) -> JSONResponse:
        for field in wanted.model_fields_set:
            if getattr(wanted, field) is None:
                raise BadRequest(field, "cannot be taken away")
        with refusals():
            gateway = store.change(caller.account_id, gateway_id, name=wanted.name, dns_mode=_dns_mode(wanted))
        told("vpc.gateway_changed", caller, gateway=gateway_id, name=gateway.name)
        return JSONResponse(documents.gateway(request, gateway))

    @router.delete(
        "/endpoint_gateways/{gateway_id}",
        **described(
            "delete_endpoint_gateway",
            "Have an endpoint gateway go: it is `deleting` until its connections have ended, then 404",
            status=202,
        ),
        response_class=Response,
    )
    def remove(
        gateway_id: str = GATEWAY_ID, caller: Caller = Depends(door.allow("delete_endpoint_gateway"))
    ) -> Response:
        with refusals():
            store.delete(caller.account_id, gateway_id)
        told("vpc.gateway_deleted", caller, gateway=gateway_id)
        changed()
        return Response(status_code=202)


def _bindings(router: APIRouter, store: GatewayQueries, door: Door, changed: Callable[[], None]) -> None:
    @router.get(
        "/endpoint_gateways/{gateway_id}/ips",
        **described(
            "list_endpoint_gateway_ips",
            "List the reserved IPs of an endpoint gateway: one or none",
            answer=models.GatewayIpList,
            example=models.GATEWAY_IPS,
        ),
    )
    def find(
        request: Request,
        gateway_id: str = GATEWAY_ID,
        caller: Caller = Depends(door.allow("list_endpoint_gateway_ips")),
        page: Paging = Depends(paging),
        sort: str | None = SORT,
    ) -> JSONResponse:
        with refusals():
            gateway = store.gateway(caller.account_id, gateway_id)
        return JSONResponse(
            page.document(
                request,
                "ips",
                [] if gateway.ip is None else [gateway.ip],
                **order(sort),
                shown=lambda ip: _ip_document(request, ip, gateway),
            )
        )

    @router.get(
        "/endpoint_gateways/{gateway_id}/ips/{reserved_ip_id}",
        **described(
            "get_endpoint_gateway_ip",
            "Get a reserved IP that is bound to the endpoint gateway",
            answer=models.ReservedIp,
            example=models.RESERVED_IP,
        ),
    )
    def get(
        request: Request,
        gateway_id: str = GATEWAY_ID,
        reserved_ip_id: str = IP_ID,
        caller: Caller = Depends(door.allow("get_endpoint_gateway_ip")),
    ) -> JSONResponse:
        with refusals():
            gateway = store.gateway(caller.account_id, gateway_id)
            if gateway.ip is None or gateway.ip.id != reserved_ip_id:
                raise Missing("reserved IP of this gateway", reserved_ip_id)
        return JSONResponse(_ip_document(request, gateway.ip, gateway))

    bound = described(
        "add_endpoint_gateway_ip",
        "Bind a reserved IP to an endpoint gateway; 200 if it was so before",
        answer=models.ReservedIp,
        status=201,
        errors=(409,),
        example=models.RESERVED_IP,
    )
    bound["responses"][200] = bound["responses"][201]

    @router.put("/endpoint_gateways/{gateway_id}/ips/{reserved_ip_id}", **bound)
    def add(
        request: Request,
        gateway_id: str = GATEWAY_ID,
        reserved_ip_id: str = IP_ID,
        caller: Caller = Depends(door.allow("add_endpoint_gateway_ip")),
    ) -> JSONResponse:
        with refusals():
            ip, new = store.bind(caller.account_id, gateway_id, reserved_ip_id)
            gateway = store.gateway(caller.account_id, gateway_id)
        told("vpc.ip_bound", caller, gateway=gateway_id, address=ip.address)
        changed()
        return JSONResponse(_ip_document(request, ip, gateway), 201 if new else 200)

    @router.delete(
        "/endpoint_gateways/{gateway_id}/ips/{reserved_ip_id}",
        **described(
            "remove_endpoint_gateway_ip",
            "Take a reserved IP from an endpoint gateway; with auto_delete it ends",
            status=204,
            errors=(409,),
        ),
    )
    def remove(
        gateway_id: str = GATEWAY_ID,
        reserved_ip_id: str = IP_ID,
        caller: Caller = Depends(door.allow("remove_endpoint_gateway_ip")),
    ) -> Response:
        with refusals():
            store.unbind(caller.account_id, gateway_id, reserved_ip_id)
        told("vpc.ip_unbound", caller, gateway=gateway_id, ip=reserved_ip_id)
        changed()
        return Response(status_code=204)


def _ip_document(request: Request, ip: ReservedIp, gateway: EndpointGateway) -> dict[str, Any]:
    return documents.reserved_ip(request, ip, gateway.vpc.region, gateway.vpc.account_id)
