"""IBM's own context-based-restrictions client, unmodified, against our API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator
from ibm_platform_services.context_based_restrictions_v1 import (
    AddressIPAddress,
    AddressIPAddressRange,
    AddressServiceRef,
    AddressSubnet,
    ContextBasedRestrictionsV1,
    NewRuleOperations,
    NewRuleOperationsApiTypesItem,
    Resource,
    ResourceAttribute,
    RuleContext,
    RuleContextAttribute,
    ServiceRefValue,
)

from outgate.relay.access import AccessTable
from support.api_service import Service, api_service

SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture
def client(service: Service) -> ContextBasedRestrictionsV1:
    made = ContextBasedRestrictionsV1(authenticator=BearerTokenAuthenticator(service.token()))
    made.set_service_url(service.cbr_url)
    return made


def create_zone(client: ContextBasedRestrictionsV1, service: Service, name: str = "office") -> dict:
    return client.create_zone(
        name=name,
        account_id=service.account_id,
        description="where we work",
        addresses=[
            AddressIPAddress(type="ipAddress", value="169.23.56.234"),
            AddressIPAddressRange(type="ipRange", value="169.23.22.0-169.23.22.255"),
            AddressSubnet(type="subnet", value="192.0.2.0/24"),
            AddressServiceRef(
                type="serviceRef", ref=ServiceRefValue(account_id=service.account_id, service_name="containers")
            ),
        ],
        excluded=[AddressIPAddress(type="ipAddress", value="192.0.2.66")],
    ).get_result()


def create_rule(
    client: ContextBasedRestrictionsV1, service: Service, zones: str, *, operations: bool = True, **more: str
) -> dict:
    return client.create_rule(
        contexts=[
            RuleContext(
                attributes=[
                    RuleContextAttribute(name="networkZoneId", value=zones),
                    RuleContextAttribute(name="endpointType", value="public"),
                ]
            )
        ],
        resources=[
            Resource(
                attributes=[
                    ResourceAttribute(name="accountId", value=service.account_id),
                    ResourceAttribute(name="serviceName", value="event-notifications", operator="stringEquals"),
                    ResourceAttribute(name="serviceInstance", value=service.instance.id),
                ]
            )
        ],
        operations=NewRuleOperations(api_types=[NewRuleOperationsApiTypesItem(api_type_id=SMTP_API)])
        if operations
        else None,
        **more,
    ).get_result()


def test_create_get_and_list_zones(client: ContextBasedRestrictionsV1, service: Service) -> None:
    made = create_zone(client, service)
    assert re.fullmatch(r"[0-9a-f]{32}", made["id"])
    assert (made["address_count"], made["excluded_count"], made["name"]) == (4, 1, "office")
    assert made["addresses"][3] == {
        "type": "serviceRef",
        "ref": {"account_id": service.account_id, "service_name": "containers"},
    }
    assert made["href"] == f"{service.cbr_url}/v1/zones/{made['id']}"
    assert made["created_by_id"] == made["last_modified_by_id"] == "iam-tester"
    response = client.get_zone(zone_id=made["id"], x_correlation_id="my-correlation")
    assert response.get_result() == made
    assert response.get_headers()["ETag"]
    assert response.get_headers()["X-Correlation-Id"] == "my-correlation"
    create_zone(client, service, "annex")
    listed = client.list_zones(account_id=service.account_id, sort="name").get_result()
    assert listed["count"] == 2
    assert [zone["name"] for zone in listed["zones"]] == ["annex", "office"]
    summary = listed["zones"][1]
    assert summary["addresses_preview"] == made["addresses"][:3]
    assert "addresses" not in summary
    named = client.list_zones(account_id=service.account_id, name="annex").get_result()
    assert named["count"] == 1


def test_second_zone_of_a_name_is_409(client: ContextBasedRestrictionsV1, service: Service) -> None:
    create_zone(client, service)
    with pytest.raises(ApiException) as refused:
        create_zone(client, service)
    assert refused.value.status_code == 409


def test_bad_address_is_400_and_named(client: ContextBasedRestrictionsV1, service: Service) -> None:
    with pytest.raises(ApiException) as refused:
        client.create_zone(
            name="bad",
            account_id=service.account_id,
            addresses=[
                AddressIPAddress(type="ipAddress", value="192.0.2.1"),
                AddressIPAddress(type="ipAddress", value="192.0.2.256"),
            ],
        )
    assert refused.value.status_code == 400
    assert "addresses[1].value" in refused.value.message
    assert client.list_zones(account_id=service.account_id).get_result()["count"] == 0


def test_rule_opens_the_instance(client: ContextBasedRestrictionsV1, service: Service) -> None:
    one, two = create_zone(client, service), create_zone(client, service, "annex")
    closed = AccessTable(service.store.access.snapshot())
    assert not closed.decide(service.instance.id, "192.0.2.1", "public").allowed
    made = create_rule(client, service, f"{one['id']},{two['id']}", description="let the office in")
    assert made["enforcement_mode"] == "enabled"
    assert made["operations"] == {"api_types": [{"api_type_id": SMTP_API}]}
    assert made["contexts"][0]["attributes"][0]["value"] == f"{one['id']},{two['id']}"
    response = client.get_rule(rule_id=made["id"])
    assert response.get_result() == made
    assert response.get_headers()["ETag"]
    table = AccessTable(service.store.access.snapshot())
    assert table.generation != closed.generation
    assert table.decide(service.instance.id, "192.0.2.1", "public").allowed
    assert not table.decide(service.instance.id, "192.0.2.66", "public").allowed
    assert not table.decide(service.instance.id, "192.0.2.1", "private").allowed
    assert not table.decide(service.instance.id, "198.51.100.1", "public").allowed


def test_list_rules_with_filters(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    wanted = create_rule(client, service, zone["id"])
    create_rule(client, service, zone["id"], enforcement_mode="disabled")
    listed = client.list_rules(account_id=service.account_id).get_result()
    assert listed["count"] == 2
    found = client.list_rules(
        account_id=service.account_id,
        enforcement_mode="enabled",
        zone_id=zone["id"],
        service_instance=service.instance.id,
        service_name="event-notifications",
    ).get_result()
    assert [rule["id"] for rule in found["rules"]] == [wanted["id"]]
    none = client.list_rules(account_id=service.account_id, region="eu-de").get_result()
    assert none == {"count": 0, "rules": []}


def test_report_mode_is_refused_for_the_smtp_api(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    with pytest.raises(ApiException) as refused:
        create_rule(client, service, zone["id"], enforcement_mode="report")
    assert refused.value.status_code == 400
    assert "enforcement_mode" in refused.value.message


def test_report_mode_for_all_apis_grants_nothing_over_smtp(
    client: ContextBasedRestrictionsV1, service: Service
) -> None:
    zone = create_zone(client, service)
    create_rule(client, service, zone["id"], operations=False, enforcement_mode="report")
    table = AccessTable(service.store.access.snapshot())
    assert not table.decide(service.instance.id, "192.0.2.1", "public").allowed
