"""IBM's own VPC client, unmodified, against our API over HTTP; where mail comes in, see the laptop mode's story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator
from ibm_vpc import VpcV1
from ibm_vpc.vpc_v1 import (
    VPC,
    EndpointGateway,
    EndpointGatewayCollection,
    EndpointGatewayIpsPager,
    EndpointGatewayPatch,
    EndpointGatewayReservedIPReservedIPIdentityById,
    EndpointGatewayReservedIPReservedIPPrototypeTargetContext,
    EndpointGatewaysPager,
    EndpointGatewayTargetPrototypeEndpointGatewayTargetResourceTypeProviderCloudServicePrototype,
    ReservedIP,
    ReservedIPCollection,
    ReservedIPCollectionEndpointGatewayContext,
    ReservedIPTargetPrototypeEndpointGatewayIdentityEndpointGatewayIdentityById,
    SecurityGroupIdentityById,
    Subnet,
    SubnetCollection,
    SubnetIdentityById,
    SubnetPrototypeSubnetByCIDR,
    SubnetReservedIpsPager,
    SubnetsPager,
    VPCCollection,
    VPCIdentityByCRN,
    VPCIdentityByHref,
    VPCIdentityById,
    VpcsPager,
    ZoneIdentityByName,
)

from outgate.model.vpc import GatewayState
from support.api_service import PRIVATE_NAMES, Service, api_service

Target = EndpointGatewayTargetPrototypeEndpointGatewayTargetResourceTypeProviderCloudServicePrototype
NewIp = EndpointGatewayReservedIPReservedIPPrototypeTargetContext
US = "crn:v1:bluemix:public:event-notifications:us-south:::endpoint:private.smtp.us-south.outgate.test"
EU = "crn:v1:bluemix:public:event-notifications:eu-de:a/acc:0a1b::"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture
def client(service: Service) -> VpcV1:
    made = VpcV1(authenticator=BearerTokenAuthenticator(service.token()))
    made.set_service_url(service.vpc_url)
    return made


@pytest.fixture
def vpc(client: VpcV1) -> dict[str, Any]:
    return client.create_vpc(name="shop").get_result()


@pytest.fixture
def subnet(client: VpcV1, vpc: dict[str, Any]) -> dict[str, Any]:
    return make_subnet(client, vpc)


def make_subnet(client: VpcV1, vpc: dict[str, Any], block: str = "10.0.0.0/28", name: str = "mail") -> dict[str, Any]:
    wanted = SubnetPrototypeSubnetByCIDR(
        vpc=VPCIdentityById(vpc["id"]), ipv4_cidr_block=block, name=name, zone=ZoneIdentityByName("us-south-2")
    )
    response = client.create_subnet(wanted)
    assert response.get_status_code() == 201
    return response.get_result()


def make_gateway(client: VpcV1, vpc: dict[str, Any], crn: str = US, **more: Any) -> dict[str, Any]:
    target = Target(crn=crn, resource_type="provider_cloud_service")
    response = client.create_endpoint_gateway(target=target, vpc=VPCIdentityById(vpc["id"]), **more)
    assert response.get_status_code() == 201
    EndpointGateway.from_dict(response.get_result())
    return response.get_result()


def refused(status: int, call: Callable[[], object], *, target: str | None = None, says: str = "") -> None:
    with pytest.raises(ApiException) as caught:
        call()
    error = caught.value
    assert error.status_code == status, error
    body = error.http_response.json()
    assert body.keys() == {"errors", "trace"} and body["errors"]
    (entry, *_) = body["errors"]
    assert {"code", "message", "more_info"} <= entry.keys()
    assert says in entry["message"]
    if target is not None:
        assert entry["target"]["name"] == target


def test_networks(client: VpcV1, service: Service) -> None:
    made = client.create_vpc(name="shop")
    assert made.get_status_code() == 201
    vpc = made.get_result()
    VPC.from_dict(vpc)
    assert vpc["crn"] == f"crn:v1:bluemix:public:is:us-south:a/{service.account_id}::vpc:{vpc['id']}"
    assert client.get_vpc(vpc["id"]).get_result() == vpc
    VPCCollection.from_dict(client.list_vpcs().get_result())
    subnet = make_subnet(client, vpc)
    Subnet.from_dict(subnet)
    assert (subnet["available_ipv4_address_count"], subnet["total_ipv4_address_count"]) == (11, 16)
    assert client.get_subnet(subnet["id"]).get_result() == subnet
    SubnetCollection.from_dict(client.list_subnets().get_result())
    for filters, count in (
        ({"vpc_id": vpc["id"], "vpc_crn": vpc["crn"], "vpc_name": "shop", "zone_name": "us-south-2"}, 1),
        ({"vpc_id": "another"}, 0),
        ({"resource_group_id": subnet["resource_group"]["id"]}, 1),
        ({"resource_group_id": "another"}, 0),
    ):
        assert client.list_subnets(**filters).get_result()["total_count"] == count
    assert client.list_vpcs(resource_group_id="another").get_result()["vpcs"] == []
    assert client.list_vpcs(classic_access=True).get_result()["vpcs"] == []
    ip = client.create_subnet_reserved_ip(subnet["id"], address="10.0.0.9", name="nine").get_result()
    ReservedIP.from_dict(ip)
    assert client.get_subnet_reserved_ip(subnet["id"], ip["id"]).get_result() == ip
    assert client.get_subnet(subnet["id"]).get_result()["available_ipv4_address_count"] == 10
    refused(409, lambda: client.delete_vpc(vpc["id"]), says="a subnet")
    assert client.delete_subnet_reserved_ip(subnet["id"], ip["id"]).get_status_code() == 204
    refused(404, lambda: client.get_subnet_reserved_ip(subnet["id"], ip["id"]))
    assert client.delete_subnet(subnet["id"]).get_status_code() == 204
    assert client.delete_vpc(vpc["id"]).get_status_code() == 204
    refused(404, lambda: client.get_vpc(vpc["id"]))


def test_what_is_given_no_name_gets_one(client: VpcV1) -> None:
    vpc = client.create_vpc().get_result()
    wanted = SubnetPrototypeSubnetByCIDR(vpc=VPCIdentityByCRN(vpc["crn"]), ipv4_cidr_block="10.0.0.0/28")
    subnet = client.create_subnet(wanted).get_result()
    assert subnet["zone"]["name"] == "us-south-1"
    ip = client.create_subnet_reserved_ip(subnet["id"]).get_result()
    assert ip["address"] == "10.0.0.4"
    assert all(thing["name"].isascii() and thing["name"] for thing in (vpc, subnet, ip))


def test_bad_networks(client: VpcV1, vpc: dict[str, Any], subnet: dict[str, Any]) -> None:
    def block(text: str, **more: Any) -> Callable[[], object]:
        return lambda: client.create_subnet({"vpc": {"id": vpc["id"]}, "ipv4_cidr_block": text, **more})

    refused(400, block("10.0.0.1/24"), target="ipv4_cidr_block", says="CIDR")
    refused(400, block("10.0.1.0/30"), target="ipv4_cidr_block", says="/29")
    refused(400, block("192.0.2.0/24"), target="ipv4_cidr_block", says="relay.private_networks")
    for larger in ("10.0.0.0/7", "127.0.0.0/8", "127.20.0.0/15", "0.0.0.0/00"):
        refused(400, block(larger), target="ipv4_cidr_block", says="relay.private_networks")
    refused(409, block("10.0.0.0/24"), target="ipv4_cidr_block", says="another subnet")
    refused(400, block("10.0.1.0/24", zone={"name": "eu-de-1"}), target="zone.name", says="us-south-1")
    refused(400, block("10.0.1.0/24", ip_version="both"), target="ip_version")
    refused(400, block("10.0.1.0/24", name="ibm-x"), target="name", says="ibm-")
    refused(400, block("10.0.1.0/24", name="-x"), target="name")
    refused(409, block("10.0.1.0/24", name="mail"), target="name")
    refused(404, block("10.0.1.0/24", resource_group={"id": "x"}), says="resource group")
    refused(400, block("10.0.1.0/24", resource_group={}), target="resource_group")
    refused(404, lambda: client.create_subnet({"vpc": {"id": "x"}, "ipv4_cidr_block": "10.0.1.0/24"}), says="VPC")
    by_count = {"vpc": {"id": vpc["id"]}, "total_ipv4_address_count": 8, "zone": {"name": "us-south-1"}}
    refused(400, lambda: client.create_subnet(by_count), target="ipv4_cidr_block")
    refused(409, lambda: client.create_vpc(name="shop"), target="name")
    refused(400, lambda: client.create_vpc(classic_access=True), target="classic_access")
    reserve = client.create_subnet_reserved_ip
    refused(400, lambda: reserve(subnet["id"], address="10.0.0.3"), target="address", says="first four")
    refused(400, lambda: reserve(subnet["id"], address="10.0.0.400"), target="address", says="IPv4")
    refused(400, lambda: reserve(subnet["id"], auto_delete=True), target="auto_delete")
    reserve(subnet["id"], address="10.0.0.4")
    refused(409, lambda: reserve(subnet["id"], address="10.0.0.4"), target="address")


def test_a_gateway_with_a_new_address(client: VpcV1, service: Service, vpc: dict[str, Any], subnet: Any) -> None:
    made = make_gateway(
        client, vpc, name="mail", ips=[NewIp(SubnetIdentityById(subnet["id"]), name="smtp", auto_delete=True)]
    )
    assert (made["name"], made["lifecycle_state"], made["health_state"]) == ("mail", "pending", "inapplicable")
    assert made["service_endpoints"] == [PRIVATE_NAMES["us-south"]] and made["service_endpoint"]
    assert made["target"] == {"crn": US, "resource_type": "provider_cloud_service"}
    assert made["dns_resolution_binding_mode"] == "primary" and made["allow_dns_resolution_binding"] is True
    assert made["vpc"]["crn"] == vpc["crn"] and made["crn"].endswith(f"::endpoint-gateway:{made['id']}")
    (ip,) = made["ips"]
    assert (ip["address"], ip["name"]) == ("10.0.0.4", "smtp")
    assert service.store.gateways.settle(made["id"], ip["id"], GatewayState.STABLE, "")
    stable = client.get_endpoint_gateway(made["id"]).get_result()
    assert (stable["lifecycle_state"], stable["health_state"], stable["lifecycle_reasons"]) == ("stable", "ok", [])
    service.store.gateways.settle(made["id"], ip["id"], GatewayState.FAILED, "10.0.0.4 cannot be listened on")
    failed = client.get_endpoint_gateway(made["id"]).get_result()
    EndpointGateway.from_dict(failed)
    assert failed["lifecycle_reasons"][0]["message"].startswith("10.0.0.4") and failed["lifecycle_state"] == "failed"

    found = client.list_endpoint_gateway_ips(made["id"]).get_result()
    ReservedIPCollectionEndpointGatewayContext.from_dict(found)
    assert found["ips"][0]["target"]["id"] == made["id"] and found["ips"][0]["auto_delete"] is True
    assert client.get_endpoint_gateway_ip(made["id"], ip["id"]).get_result() == found["ips"][0]
    assert client.get_subnet_reserved_ip(subnet["id"], ip["id"]).get_result() == found["ips"][0]
    refused(404, lambda: client.get_endpoint_gateway_ip(made["id"], "another"))
    refused(409, lambda: client.delete_subnet_reserved_ip(subnet["id"], ip["id"]))
    refused(409, lambda: client.delete_subnet(subnet["id"]))

    deleted = client.delete_endpoint_gateway(made["id"])
    assert deleted.get_status_code() == 202
    going = client.get_endpoint_gateway(made["id"]).get_result()
    EndpointGateway.from_dict(going)
    assert (going["lifecycle_state"], going["health_state"]) == ("deleting", "inapplicable")
    refused(409, lambda: client.remove_endpoint_gateway_ip(made["id"], ip["id"]), says="being deleted")
    refused(409, lambda: client.update_endpoint_gateway(made["id"], {"name": "x"}))
    assert service.store.gateways.end(made["id"])
    refused(404, lambda: client.get_endpoint_gateway(made["id"]))
    refused(404, lambda: client.delete_endpoint_gateway(made["id"]))
    assert client.list_subnet_reserved_ips(subnet["id"]).get_result()["reserved_ips"] == []


def test_a_gateway_gets_its_address_later(client: VpcV1, vpc: dict[str, Any], subnet: dict[str, Any]) -> None:
    made = make_gateway(client, vpc, crn=EU)
    assert made["ips"] == [] and made["service_endpoints"] == [PRIVATE_NAMES["eu-de"]]
    ip = client.create_subnet_reserved_ip(subnet["id"]).get_result()
    response = client.add_endpoint_gateway_ip(made["id"], ip["id"])
    assert response.get_status_code() == 201
    ReservedIP.from_dict(response.get_result())
    assert client.add_endpoint_gateway_ip(made["id"], ip["id"]).get_status_code() == 200
    second = client.create_subnet_reserved_ip(subnet["id"]).get_result()
    refused(
        409, lambda: client.add_endpoint_gateway_ip(made["id"], second["id"]), says="one address per VPC and region"
    )
    refused(404, lambda: client.add_endpoint_gateway_ip(made["id"], "another"))
    assert client.remove_endpoint_gateway_ip(made["id"], ip["id"]).get_status_code() == 204
    refused(404, lambda: client.remove_endpoint_gateway_ip(made["id"], ip["id"]))
    assert "target" not in client.get_subnet_reserved_ip(subnet["id"], ip["id"]).get_result()
    bound = client.create_subnet_reserved_ip(
        subnet["id"],
        auto_delete=True,
        target=ReservedIPTargetPrototypeEndpointGatewayIdentityEndpointGatewayIdentityById(made["id"]),
    ).get_result()
    assert bound["target"]["id"] == made["id"]
    by_target = client.list_subnet_reserved_ips(subnet["id"], target_id=made["id"]).get_result()["reserved_ips"]
    assert [each["id"] for each in by_target] == [bound["id"]]


def test_a_gateway_takes_a_reserved_address(client: VpcV1, vpc: dict[str, Any], subnet: dict[str, Any]) -> None:
    ip = client.create_subnet_reserved_ip(subnet["id"], address="10.0.0.7").get_result()
    taken = [EndpointGatewayReservedIPReservedIPIdentityById(ip["id"])]
    made = make_gateway(client, vpc, ips=taken)
    assert made["ips"][0]["address"] == "10.0.0.7"
    refused(409, lambda: make_gateway(client, vpc, crn=EU, ips=taken), says="bound to")
    assert client.list_endpoint_gateways().get_result()["total_count"] == 1


def test_update(client: VpcV1, vpc: dict[str, Any]) -> None:
    made = make_gateway(client, vpc, name="mail", dns_resolution_binding_mode="disabled")
    assert made["allow_dns_resolution_binding"] is False
    patched = client.update_endpoint_gateway(
        made["id"], EndpointGatewayPatch(name="post", dns_resolution_binding_mode="per_resource_binding")
    ).get_result()
    EndpointGateway.from_dict(patched)
    assert (patched["name"], patched["dns_resolution_binding_mode"]) == ("post", "per_resource_binding")
    older = client.update_endpoint_gateway(made["id"], {"allow_dns_resolution_binding": True}).get_result()
    assert older["dns_resolution_binding_mode"] == "primary"
    refused(400, lambda: client.update_endpoint_gateway(made["id"], {"name": None}), target="name")
    refused(400, lambda: client.update_endpoint_gateway(made["id"], {"name": "No"}), target="name")
    refused(404, lambda: client.update_endpoint_gateway("another", {"name": "x"}))
    make_gateway(client, vpc, crn=EU, name="other")
    refused(409, lambda: client.update_endpoint_gateway(made["id"], {"name": "other"}), target="name")


def test_bad_gateways(client: VpcV1, vpc: dict[str, Any], subnet: dict[str, Any]) -> None:
    make_gateway(client, vpc, name="mail")

    def create(**more: Any) -> Callable[[], object]:
        body = {"target": Target(EU, "provider_cloud_service").to_dict(), "vpc": {"id": vpc["id"]}, **more}
        return lambda: client.create_endpoint_gateway(**body)

    refused(409, create(target=Target(US, "provider_cloud_service")), target="target", says="already")
    refused(409, create(name="mail"), target="name")
    refused(400, create(target=Target("crn:v1:x", "provider_cloud_service")), target="target.crn", says=US)
    refused(400, create(target={"resource_type": "provider_cloud_service"}), target="target.crn")
    infrastructure = {"name": "ibm-ntp-server", "resource_type": "provider_infrastructure_service"}
    refused(400, create(target=infrastructure), target="target.resource_type")
    refused(404, create(vpc=VPCIdentityById("another")), says="VPC")
    refused(400, create(vpc={}), target="vpc")
    new = {"subnet": {"id": subnet["id"]}}
    refused(400, create(ips=[new, new]), target="ips", says="one address per VPC and region")
    refused(400, create(ips=[{**new, "address": "10.0.0.2"}]), target="ips[0].address")
    refused(400, create(ips=[{**new, "address": "ten"}]), target="ips.0.address")
    refused(400, create(ips=[{**new, "id": "x"}]), target="ips[0]")
    refused(400, create(ips=[{}]), target="ips[0]")
    refused(404, create(ips=[{"id": "another"}]), says="reserved IP")
    refused(404, create(ips=[{"subnet": {"id": "another"}}]), says="subnet")
    refused(404, create(security_groups=[SecurityGroupIdentityById("another")]), says="security group")
    refused(400, create(dns_resolution_binding_mode="sometimes"), target="dns_resolution_binding_mode")
    elsewhere = client.create_vpc(name="elsewhere").get_result()
    away = make_subnet(client, elsewhere, "10.0.9.0/28")
    refused(409, create(ips=[{"subnet": {"id": away["id"]}}]), says="not in the gateway's VPC")
    assert client.list_endpoint_gateways().get_result()["total_count"] == 1
    assert client.list_subnet_reserved_ips(away["id"]).get_result()["reserved_ips"] == []
    default = vpc["default_security_group"]["id"]
    create(security_groups=[SecurityGroupIdentityById(default)], vpc=VPCIdentityByHref(vpc["href"]))()
    refused(409, lambda: client.delete_vpc(vpc["id"]))


def test_lists_pages_and_filters(client: VpcV1, service: Service) -> None:
    made: list[dict[str, Any]] = []
    for number in range(3):
        service.clock.advance(1)
        vpc = client.create_vpc(name=f"v{number}").get_result()
        make_subnet(client, vpc, f"10.1.{number}.0/28", f"s{number}")
        made += [make_gateway(client, vpc, name="us"), make_gateway(client, vpc, crn=EU, name="eu")]
    newest_first = [f"v{n}/{name}" for n in (2, 1, 0) for name in ("us", "eu")]
    for limit in (1, 2, 4, 6, 100):
        paged = EndpointGatewaysPager(client=client, limit=limit).get_all()
        assert sorted(each["id"] for each in paged) == sorted(each["id"] for each in made)
        assert [f"{g['vpc']['name']}" for g in paged] == [text[:2] for text in newest_first]
    first = client.list_endpoint_gateways(limit=2).get_result()
    EndpointGatewayCollection.from_dict(first)
    assert (first["limit"], first["total_count"], len(first["endpoint_gateways"])) == (2, 6, 2)
    assert "start=" in first["next"]["href"] and "start=" not in first["first"]["href"]
    assert "next" not in client.list_endpoint_gateways(limit=6).get_result()
    for filters, count in (
        ({"name": "eu"}, 3),
        ({"vpc_name": "v1"}, 2),
        ({"vpc_id": made[0]["vpc"]["id"], "name": "us"}, 1),
        ({"vpc_crn": made[0]["vpc"]["crn"]}, 2),
        ({"lifecycle_state": ["pending", "stable"]}, 6),
        ({"lifecycle_state": ["stable"]}, 0),
        ({"dns_resolution_binding_mode": ["primary"]}, 6),
        ({"dns_resolution_binding_mode": ["disabled"]}, 0),
        ({"resource_group_id": made[0]["resource_group"]["id"]}, 6),
        ({"resource_group_id": "another"}, 0),
    ):
        pager = EndpointGatewaysPager(client=client, limit=1, **filters)
        assert len(pager.get_all() if count else []) == count
        assert client.list_endpoint_gateways(**filters).get_result()["total_count"] == count
    assert len(VpcsPager(client=client, limit=1).get_all()) == 3
    assert len(SubnetsPager(client=client, limit=2).get_all()) == 3


def test_pages_of_reserved_addresses_in_every_order(client: VpcV1, subnet: dict[str, Any]) -> None:
    for number, name in ((5, "b"), (10, "ab"), (9, "a")):
        client.create_subnet_reserved_ip(subnet["id"], address=f"10.0.0.{number}", name=name)
    orders = {"address": [5, 9, 10], "-address": [10, 9, 5], "name": [9, 10, 5], "-name": [5, 10, 9]}
    for sort, numbers in orders.items():
        pager = SubnetReservedIpsPager(client=client, subnet_id=subnet["id"], limit=1, sort=sort)
        assert [each["address"] for each in pager.get_all()] == [f"10.0.0.{number}" for number in numbers]
    ReservedIPCollection.from_dict(client.list_subnet_reserved_ips(subnet["id"], sort="-created_at").get_result())
    refused(400, lambda: client.list_subnet_reserved_ips(subnet["id"], sort="size"), says="address")


def test_ips_of_a_gateway_are_paged(client: VpcV1, vpc: dict[str, Any], subnet: dict[str, Any]) -> None:
    made = make_gateway(client, vpc, ips=[NewIp(SubnetIdentityById(subnet["id"]))])
    for sort in (None, "-created_at", "name"):
        pager = EndpointGatewayIpsPager(client=client, endpoint_gateway_id=made["id"], limit=1, sort=sort)
        assert [each["address"] for each in pager.get_all()] == ["10.0.0.4"]


@pytest.mark.parametrize("start", ["x", "!!", "WyJhIl0", "e30", "W1tdXQ", "W251bGxd", "bnVsbA", "a" * 999])
def test_a_start_that_nobody_gave_out(client: VpcV1, vpc: dict[str, Any], start: str) -> None:
    make_gateway(client, vpc)
    refused(400, lambda: client.list_endpoint_gateways(start=start), target="start")


def test_resource_bindings_are_not_offered(client: VpcV1, vpc: dict[str, Any]) -> None:
    made = make_gateway(client, vpc)
    refused(404, lambda: client.list_endpoint_gateway_resource_bindings(made["id"]))


def test_versions_and_generations(client: VpcV1, service: Service) -> None:
    client.version = "2999-01-01"
    refused(400, client.list_vpcs, target="version", says="future")
    client.version = "1.0"
    refused(400, client.list_vpcs, target="version", says="date")
    client.version, client.generation = "2024-04-30", 1
    refused(400, client.list_vpcs, target="generation")
    bare = httpx2.get(f"{service.vpc_url}/vpcs", headers=service.headers())
    assert bare.status_code == 200
    wrong = httpx2.get(f"{service.vpc_url}/vpcs?limit=0", headers=service.headers()).json()["errors"][0]
    assert wrong["target"] == {"name": "limit", "type": "parameter"}


def test_who_may_not(client: VpcV1, service: Service, vpc: dict[str, Any]) -> None:
    made = make_gateway(client, vpc)

    def with_token(token: str) -> VpcV1:
        other = VpcV1(authenticator=BearerTokenAuthenticator(token))
        other.set_service_url(service.vpc_url + "/")
        return other

    refused(401, with_token("x").list_endpoint_gateways)
    reader = with_token(service.token("reader"))
    assert reader.list_endpoint_gateways().get_result()["total_count"] == 1
    refused(403, lambda: reader.update_endpoint_gateway(made["id"], {"name": "x"}))
    writer = with_token(service.token("writer"))
    assert writer.update_endpoint_gateway(made["id"], {"name": "x"}).get_result()["name"] == "x"
    refused(403, lambda: writer.delete_endpoint_gateway(made["id"]))
    stranger = with_token(service.token(account_id=service.store.tenancy.create_account()))
    assert stranger.list_endpoint_gateways().get_result()["endpoint_gateways"] == []
    for call in (stranger.get_endpoint_gateway, stranger.delete_endpoint_gateway, stranger.list_endpoint_gateway_ips):
        refused(404, lambda call=call: call(made["id"]))
    refused(404, lambda: stranger.get_vpc(vpc["id"]))


def test_an_api_key_is_exchanged(service: Service) -> None:
    client = VpcV1(authenticator=IAMAuthenticator(service.api_key, url=service.base))
    client.set_service_url(service.vpc_url)
    assert client.list_endpoint_gateways().get_result()["endpoint_gateways"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"target":1}', b'{"name":"\\ud800"}', b"[" * 5000])
def test_hostile_bodies(service: Service, body: bytes) -> None:
    url, headers = f"{service.vpc_url}/endpoint_gateways", {**service.headers(), "content-type": "application/json"}
    answer = httpx2.post(url, content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["errors"]
    assert httpx2.post(url, content=b" " * 40_000, headers=headers).status_code == 413
