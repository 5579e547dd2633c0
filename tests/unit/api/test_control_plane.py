"""Rules for the control plane govern the REST API of their instance: enforced, reported, disabled."""

from __future__ import annotations

import logging

import httpx2
import pytest

from outgate.model.access import Address
from outgate.store.access import ALL_APIS, CONTROL_PLANE, SMTP_API
from support.api_service import Service


def restrict(service: Service, subnet: str, *api_types: str, enforcement: str = "enabled") -> str:
    zone = service.store.access.create_zone(
        service.account_id,
        name=f"zone {subnet}".translate(str.maketrans("./", "--")) + enforcement + str(len(api_types)),
        description="",
        addresses=(Address("subnet", subnet),),
        excluded=(),
        by="test",
    )
    resource = [
        {"name": "accountId", "value": service.account_id},
        {"name": "serviceName", "value": "event-notifications"},
        {"name": "serviceInstance", "value": service.instance.id},
    ]
    document: dict[str, object] = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone.id}]}],
        "resources": [{"attributes": resource}],
    }
    if api_types:
        document["operations"] = {"api_types": [{"api_type_id": each} for each in api_types]}
    return service.store.access.create_rule(
        service.account_id, description="", document=document, enforcement=enforcement, by="test"
    ).id


def status(service: Service) -> int:
    answer = httpx2.get(f"{service.smtp_url}/config", headers=service.headers("reader"), trust_env=False)
    if answer.status_code == 403:
        (error,) = answer.json()["errors"]
        assert error["code"] == "authorization_error"
        assert "restriction" in error["message"]
    return answer.status_code


@pytest.mark.parametrize("api_types", [(CONTROL_PLANE,), (ALL_APIS,), (SMTP_API, CONTROL_PLANE), ()])
def test_a_rule_that_does_not_name_us_refuses_us(service: Service, api_types: tuple[str, ...]) -> None:
    assert status(service) == 200
    restrict(service, "192.0.2.0/24", *api_types)
    assert status(service) == 403


def test_every_rule_must_allow(service: Service) -> None:
    restrict(service, "127.0.0.0/8", CONTROL_PLANE)
    assert status(service) == 200
    restrict(service, "192.0.2.0/24", CONTROL_PLANE)
    assert status(service) == 403


def test_rules_for_smtp_alone_and_disabled_ones_do_not_count(service: Service) -> None:
    restrict(service, "192.0.2.0/24", SMTP_API)
    restrict(service, "192.0.2.0/24", CONTROL_PLANE, enforcement="disabled")
    assert status(service) == 200


def test_a_reported_rule_is_told_and_not_enforced(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    rule = restrict(service, "192.0.2.0/24", CONTROL_PLANE, enforcement="report")
    with caplog.at_level(logging.INFO, "outgate.restrictions"):
        assert status(service) == 200
    (line,) = [record.fields for record in caplog.records if record.message == "access.decision"]  # type: ignore[attr-defined]
    assert (line["rule"], line["decision"], line["enforced"], line["address"]) == (rule, "Deny", False, "127.0.0.1")


def test_the_body_is_not_read_first(service: Service) -> None:
    restrict(service, "192.0.2.0/24", CONTROL_PLANE)
    answer = httpx2.post(f"{service.smtp_url}/config", content=b"{", headers=service.headers("writer"), trust_env=False)
    assert answer.status_code == 403
