"""VPCs and subnets: list, create, get, delete.

Standards: the vendor's VPC service, of which this is the least that endpoint gateways need.
Promises: a subnet lies in one of the operator's networks, and overlaps no other.
Dangers: a subnet says which addresses of this machine may be listened on.
Not here: reserved addresses (`reserved`), rows (`store.vpc`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from outgate.api.errors import BadRequest
from outgate.api.identity.tokens import Caller
from outgate.api.schema import Body, json_body
from outgate.api.vpc import documents, models
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
from outgate.model.vpc import LONGEST_PREFIX
from outgate.store.vpc import VpcQueries

VPC_ID = Path(description="The VPC's id.", max_length=128)
SUBNET_ID = Path(description="The subnet's id.", max_length=128)
_ZONES = 3


class NewVpc(Body):
    """Body of a create."""

    name: Name | None = None
    resource_group: Identity | None = None
    classic_access: bool = False
    address_prefix_management: str | None = Field(None, max_length=64)


class ZoneName(Body):
    """A zone of the region."""

    name: str = Field(min_length=1, max_length=63)


class NewSubnet(Body):
    """Body of a create: by its block of addresses."""

    vpc: Identity
    ipv4_cidr_block: str | None = Field(None, min_length=9, max_length=18)
    name: Name | None = None
    zone: ZoneName | None = None
    ip_version: str = Field("ipv4", json_schema_extra={"enum": ["ipv4"]})
    resource_group: Identity | None = None


_VPC_BODY = json_body(NewVpc, limit=BODY_LIMIT, optional=True)
_SUBNET_BODY = json_body(NewSubnet, limit=BODY_LIMIT)


def routes(store: VpcQueries, door: Door, region: str, allowed: Collection[str]) -> APIRouter:
    """Return the operations."""
    router = APIRouter(redirect_slashes=False)
    _vpcs(router, store, door, region)
    _subnets(router, store, door, [ipaddress.ip_network(network, strict=False) for network in allowed])
    return router


def _vpcs(router: APIRouter, store: VpcQueries, door: Door, region: str) -> None:
    @router.get("/vpcs", **described("list_vpcs", "List VPCs", answer=models.VpcList, example=models.VPCS))
    def find(
        request: Request,
        caller: Caller = Depends(door.allow("list_vpcs")),
        page: Paging = Depends(paging),
        group: str | None = Query(None, alias="resource_group.id", max_length=128, description="Only of this group."),
        classic_access: bool | None = Query(None, description="Only those that have it: none."),
    ) -> JSONResponse:
        found = [
            vpc
            for vpc in store.vpcs(caller.account_id)
            if group in (None, resource_group_id(caller.account_id)) and not classic_access
        ]
        return JSONResponse(
            page.document(
                request,
                "vpcs",
                found,
                key=lambda vpc: (vpc.created_at, vpc.id),
                shown=lambda vpc: documents.vpc(request, vpc),
            )
        )

    @router.post(
        "/vpcs",
        **described(
            "create_vpc",
            "Make a VPC",
            answer=models.Vpc,
            status=201,
            body=NewVpc,
            body_optional=True,
            errors=(409,),
            example=models.VPC,
            body_example=models.NEW_VPC,
        ),
    )
    def create(
        request: Request, caller: Caller = Depends(door.allow("create_vpc")), wanted: NewVpc = Depends(_VPC_BODY)
    ) -> JSONResponse:
        if wanted.classic_access:
            raise BadRequest("classic_access", "must be false: there is no classic infrastructure here")
        require_default_group(wanted.resource_group, caller.account_id)
        with refusals():
            vpc = store.create_vpc(caller.account_id, region, wanted.name or made_up_name("vpc"), by=caller.subject)
        told("vpc.created", caller, vpc=vpc.crn)
        return JSONResponse(documents.vpc(request, vpc), 201)

    @router.get("/vpcs/{vpc_id}", **described("get_vpc", "Get a VPC", answer=models.Vpc, example=models.VPC))
    def get(request: Request, vpc_id: str = VPC_ID, caller: Caller = Depends(door.allow("get_vpc"))) -> JSONResponse:
        with refusals():
            return JSONResponse(documents.vpc(request, store.vpc(caller.account_id, vpc_id)))

    @router.delete("/vpcs/{vpc_id}", **described("delete_vpc", "Delete a VPC that is empty", status=204, errors=(409,)))
    def remove(vpc_id: str = VPC_ID, caller: Caller = Depends(door.allow("delete_vpc"))) -> Response:
        with refusals():
            store.delete_vpc(caller.account_id, vpc_id)
        told("vpc.deleted", caller, vpc=vpc_id)
        return Response(status_code=204)


def _subnets(
    router: APIRouter,
    store: VpcQueries,
    door: Door,
    allowed: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> None:
    @router.get(
        "/subnets", **described("list_subnets", "List subnets", answer=models.SubnetList, example=models.SUBNETS)
    )
    def find(
        request: Request,
        caller: Caller = Depends(door.allow("list_subnets")),
        page: Paging = Depends(paging),
        group: str | None = Query(None, alias="resource_group.id", max_length=128, description="Only of this group."),
        zone: str | None = Query(None, alias="zone.name", max_length=63, description="Only in this zone."),
        vpc_id: str | None = Query(None, alias="vpc.id", max_length=128, description="Only of this VPC."),
        vpc_crn: str | None = Query(None, alias="vpc.crn", max_length=512, description="Only of this VPC."),
        vpc_name: str | None = Query(None, alias="vpc.name", max_length=63, description="Only of this VPC."),
    ) -> JSONResponse:
        found = [
            (subnet, held)
            for subnet, held in store.subnets(caller.account_id)
            if group in (None, resource_group_id(caller.account_id))
            and zone in (None, subnet.zone)
            and vpc_id in (None, subnet.vpc.id)
            and vpc_crn in (None, subnet.vpc.crn)
            and vpc_name in (None, subnet.vpc.name)
        ]
        return JSONResponse(
            page.document(
                request,
                "subnets",
                found,
                key=lambda item: (item[0].created_at, item[0].id),
                shown=lambda item: documents.subnet(request, *item),
            )
        )

    @router.post(
        "/subnets",
        **described(
            "create_subnet",
            "Make a subnet of a block of addresses",
            answer=models.Subnet,
            status=201,
            body=NewSubnet,
            errors=(409,),
            example=models.SUBNET,
            body_example=models.NEW_SUBNET,
        ),
    )
    def create(
        request: Request,
        caller: Caller = Depends(door.allow("create_subnet")),
        wanted: NewSubnet = Depends(_SUBNET_BODY),
    ) -> JSONResponse:
        require_default_group(wanted.resource_group, caller.account_id)
        network = _network(wanted, allowed)
        with refusals(network="ipv4_cidr_block", address="ipv4_cidr_block"):
            vpc = store.vpc(caller.account_id, wanted.vpc.resolved("vpc"))
            subnet = store.create_subnet(
                caller.account_id,
                vpc.id,
                name=wanted.name or made_up_name("subnet"),
                zone=_zone(wanted.zone, vpc.region),
                network=network,
                by=caller.subject,
            )
        told("vpc.subnet_created", caller, subnet=subnet.id, network=network)
        return JSONResponse(documents.subnet(request, subnet, 0), 201)

    @router.get(
        "/subnets/{subnet_id}", **described("get_subnet", "Get a subnet", answer=models.Subnet, example=models.SUBNET)
    )
    def get(
        request: Request, subnet_id: str = SUBNET_ID, caller: Caller = Depends(door.allow("get_subnet"))
    ) -> JSONResponse:
        with refusals():
            subnet = store.subnet(caller.account_id, subnet_id)
            held = len(store.reserved_ips(caller.account_id, subnet_id))
        return JSONResponse(documents.subnet(request, subnet, held))

    @router.delete(
        "/subnets/{subnet_id}",
        **described("delete_subnet", "Delete a subnet that no gateway has an address in", status=204, errors=(409,)),
    )
    def remove(subnet_id: str = SUBNET_ID, caller: Caller = Depends(door.allow("delete_subnet"))) -> Response:
        with refusals():
            store.delete_subnet(caller.account_id, subnet_id)
        told("vpc.subnet_deleted", caller, subnet=subnet_id)
        return Response(status_code=204)


def _network(wanted: NewSubnet, allowed: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    field = "ipv4_cidr_block"
    if wanted.ip_version != "ipv4":
        raise BadRequest("ip_version", "must be ipv4")
    if wanted.ipv4_cidr_block is None:
        raise BadRequest(field, "is required: a number of addresses alone is not enough here")
    try:
        network = ipaddress.IPv4Network(wanted.ipv4_cidr_block)
    except ValueError:
        raise BadRequest(field, "must be IPv4 in CIDR without host bits, as 10.0.0.0/24") from None
    if network.prefixlen > LONGEST_PREFIX:
        raise BadRequest(field, f"must be a /{LONGEST_PREFIX} at least")
    if not any(isinstance(each, ipaddress.IPv4Network) and network.subnet_of(each) for each in allowed):
        among = ", ".join(str(each) for each in allowed) or "none"
        raise BadRequest(field, f"must be in a network that relay.private_networks names ({among})")
    return str(network)


def _zone(given: ZoneName | None, region: str) -> str:
    zones = [f"{region}-{number}" for number in range(1, _ZONES + 1)]
    if given is None:
        return zones[0]
    if given.name not in zones:
        raise BadRequest("zone.name", f"must be one of {', '.join(zones)}")
    return given.name
