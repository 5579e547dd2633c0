"""IBM's own context-based-restrictions client, unmodified, against our API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator
from ibm_platform_services.context_based_restrictions_v1 import (
    AccountSettings,
    AddressIPAddress,
    AddressIPAddressRange,
    AddressServiceRef,
    AddressSubnet,
    ContextBasedRestrictionsV1,
    NewRuleOperations,
    NewRuleOperationsApiTypesItem,
    OperationsList,
    Resource,
    ResourceAttribute,
    Rule,
    RuleContext,
    RuleContextAttribute,
    RuleList,
    ServiceRefTargetList,
    ServiceRefValue,
    Zone,
    ZoneList,
)

from outgate.relay.access import AccessTable
from support.api_service import Service, api_service

SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture(params=["bearer", "iam"])
def client(service: Service, request: pytest.FixtureRequest) -> ContextBasedRestrictionsV1:
    """The client with a token that it was given, and with one that it gets by itself for an API key."""
    if request.param == "bearer":
        authenticator = BearerTokenAuthenticator(service.token())
    else:
        authenticator = IAMAuthenticator(service.api_key, url=service.base)
    made = ContextBasedRestrictionsV1(authenticator=authenticator)
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


def contexts(zones: str) -> list[RuleContext]:
    return [
        RuleContext(
            attributes=[
                RuleContextAttribute(name="networkZoneId", value=zones),
                RuleContextAttribute(name="endpointType", value="public"),
            ]
        )
    ]


def resources(service: Service) -> list[Resource]:
    return [
        Resource(
            attributes=[
                ResourceAttribute(name="accountId", value=service.account_id),
                ResourceAttribute(name="serviceName", value="event-notifications", operator="stringEquals"),
                ResourceAttribute(name="serviceInstance", value=service.instance.id),
            ]
        )
    ]


def smtp(api_type: str = SMTP_API) -> NewRuleOperations:
    return NewRuleOperations(api_types=[NewRuleOperationsApiTypesItem(api_type_id=api_type)])


def create_rule(
    client: ContextBasedRestrictionsV1, service: Service, zones: str, *, operations: bool = True, **more: str
) -> dict:
    return client.create_rule(
        contexts=contexts(zones), resources=resources(service), operations=smtp() if operations else None, **more
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
    assert made["created_by_id"] == made["last_modified_by_id"]
    assert made["created_by_id"].startswith("iam-")
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


def test_replace_zone_with_its_etag(client: ContextBasedRestrictionsV1, service: Service) -> None:
    made = create_zone(client, service)
    seen = client.get_zone(zone_id=made["id"]).get_headers()["ETag"]
    wanted = {
        "name": "home",
        "account_id": service.account_id,
        "addresses": [AddressIPAddress(type="ipAddress", value="2001:db8::1")],
    }
    response = client.replace_zone(zone_id=made["id"], if_match=seen, **wanted)
    changed = response.get_result()
    assert response.get_status_code() == 200
    assert (changed["name"], changed["description"], changed["address_count"], changed["excluded"]) == (
        "home",
        "",
        1,
        [],
    )
    assert {key: changed[key] for key in ("id", "crn", "href", "created_at")} == {
        key: made[key] for key in ("id", "crn", "href", "created_at")
    }
    now = response.get_headers()["ETag"]
    assert now != seen
    with pytest.raises(ApiException) as refused:
        client.replace_zone(zone_id=made["id"], if_match=seen, **{**wanted, "name": "late"})
    assert refused.value.status_code == 412
    assert "If-Match" in refused.value.message
    assert client.get_zone(zone_id=made["id"]).get_result() == changed
    assert client.get_zone(zone_id=made["id"]).get_headers()["ETag"] == now
    client.replace_zone(zone_id=made["id"], if_match="*", **wanted)


def test_replace_rule_with_its_etag(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    made = create_rule(client, service, zone["id"])
    seen = client.get_rule(rule_id=made["id"]).get_headers()["ETag"]
    wanted = {
        "contexts": contexts(zone["id"]),
        "resources": resources(service),
        "operations": smtp(SMTP_API.replace("-dev", "")),
        "enforcement_mode": "disabled",
    }
    response = client.replace_rule(rule_id=made["id"], if_match=seen, **wanted)
    changed = response.get_result()
    assert (changed["enforcement_mode"], changed["id"], changed["href"]) == ("disabled", made["id"], made["href"])
    assert changed["operations"] == {"api_types": [{"api_type_id": SMTP_API.replace("-dev", "")}]}
    assert response.get_headers()["ETag"] != seen
    with pytest.raises(ApiException) as refused:
        client.replace_rule(rule_id=made["id"], if_match=seen, **wanted)
    assert refused.value.status_code == 412
    with pytest.raises(ApiException) as refused:
        client.replace_rule(rule_id=made["id"], if_match="*", **{**wanted, "enforcement_mode": "report"})
    assert refused.value.status_code == 400
    assert client.get_rule(rule_id=made["id"]).get_result() == changed


def test_delete_zone_and_rule(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    rule = create_rule(client, service, zone["id"])
    with pytest.raises(ApiException) as refused:
        client.delete_zone(zone_id=zone["id"])
    assert refused.value.status_code == 409
    assert rule["id"] in refused.value.message
    for delete, get, subject in (
        (client.delete_rule, client.get_rule, {"rule_id": rule["id"]}),
        (client.delete_zone, client.get_zone, {"zone_id": zone["id"]}),
    ):
        response = delete(**subject)
        assert (response.get_status_code(), response.get_result() or b"") == (204, b"")
        for again in (delete, get):
            with pytest.raises(ApiException) as refused:
                again(**subject)
            assert refused.value.status_code == 404
    assert client.list_rules(account_id=service.account_id).get_result() == {"count": 0, "rules": []}
    assert client.list_zones(account_id=service.account_id).get_result() == {"count": 0, "zones": []}


def test_a_withdrawn_rule_closes_the_instance(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    rule = create_rule(client, service, zone["id"])
    assert AccessTable(service.store.access.snapshot()).decide(service.instance.id, "192.0.2.1", "public").allowed
    client.delete_rule(rule_id=rule["id"])
    assert not AccessTable(service.store.access.snapshot()).decide(service.instance.id, "192.0.2.1", "public").allowed


def test_account_settings(client: ContextBasedRestrictionsV1, service: Service) -> None:
    zone = create_zone(client, service)
    create_rule(client, service, zone["id"])
    found = client.get_account_settings(account_id=service.account_id).get_result()
    assert (found["id"], found["zone_count_limit"], found["rule_count_limit"]) == (service.account_id, 500, 4020)
    assert (found["current_zone_count"], found["current_rule_count"], found["current_tags_rule_count"]) == (1, 1, 0)
    assert found["href"] == f"{service.cbr_url}/v1/account_settings/{service.account_id}"
    assert AccountSettings.from_dict(found).to_dict().keys() == found.keys()
    with pytest.raises(ApiException) as refused:
        client.get_account_settings(account_id=service.store.tenancy.create_account())
    assert refused.value.status_code == 403


def test_available_operations(client: ContextBasedRestrictionsV1) -> None:
    found = client.list_available_service_operations(service_name="event-notifications").get_result()
    modes = {each["display_name"]: each["enforcement_modes"] for each in found["api_types"]}
    assert modes == {
        "All APIs": ["enabled", "disabled", "report"],
        "Control plane": ["enabled", "disabled", "report"],
        "SMTP interface": ["enabled", "disabled"],
    }
    assert SMTP_API in {each["api_type_id"] for each in found["api_types"]}
    assert OperationsList.from_dict(found).to_dict() == found
    assert client.list_available_service_operations().get_result() == found
    for other in ({"service_name": "containers"}, {"service_group_id": "IAM"}, {"resource_type": "zone"}):
        assert client.list_available_service_operations(**other).get_result() == {"api_types": []}


def test_service_reference_targets(client: ContextBasedRestrictionsV1) -> None:
    for kind in (None, "all", "platform_service"):
        found = client.list_available_serviceref_targets(type=kind).get_result()
        assert ServiceRefTargetList.from_dict(found).to_dict() == {"count": 0, "targets": []}
    with pytest.raises(ApiException) as refused:
        client.get_serviceref_target(service_name="containers")
    assert refused.value.status_code == 404


def test_the_client_s_own_models_hold_all_that_is_answered(
    client: ContextBasedRestrictionsV1, service: Service
) -> None:
    zone = create_zone(client, service)
    rule = create_rule(client, service, zone["id"])

    def same_fields(made: dict, read: dict) -> None:
        assert made.keys() == read.keys()

    same_fields(Zone.from_dict(zone).to_dict(), zone)
    same_fields(Rule.from_dict(rule).to_dict(), rule)
    for listed, model, name in (
        (client.list_zones(account_id=service.account_id).get_result(), ZoneList, "zones"),
        (client.list_rules(account_id=service.account_id).get_result(), RuleList, "rules"),
    ):
        same_fields(model.from_dict(listed).to_dict()[name][0], listed[name][0])


@pytest.mark.parametrize("mode", ["enabled", "disabled", "report"])
def test_list_rules_sorted_and_by_zone(client: ContextBasedRestrictionsV1, service: Service, mode: str) -> None:
    one, two = create_zone(client, service), create_zone(client, service, "annex")
    made = [
        create_rule(client, service, zone, operations=False, description=name, enforcement_mode=mode)
        for zone, name in ((one["id"], "b"), (f"{one['id']},{two['id']}", "a"))
    ]
    by_name = client.list_rules(account_id=service.account_id, sort="-description").get_result()["rules"]
    assert [rule["description"] for rule in by_name] == ["b", "a"]
    named = client.list_rules(account_id=service.account_id, zone_id=two["id"], enforcement_mode=mode).get_result()
    assert [rule["id"] for rule in named["rules"]] == [made[1]["id"]]
    for other in ("resource", "resource_type", "service_type", "service_group_id", "region"):
        assert client.list_rules(account_id=service.account_id, **{other: "x"}).get_result()["count"] == 0
