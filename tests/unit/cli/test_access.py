"""`outgate access`, against the API."""

from __future__ import annotations

import json

import pytest

from outgate.model.access import Address
from support.api_service import Service

from .conftest import Outgate

SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"


@pytest.fixture(scope="module")
def rule_id(service: Service) -> str:
    access = service.store.access
    zone = access.create_zone(
        service.account_id,
        name="office",
        description="where we work",
        addresses=(Address("subnet", "192.0.2.0/24"),),
        excluded=(Address("ipAddress", "192.0.2.66"),),
        by="test",
    )
    attributes = [
        {"name": "accountId", "value": service.account_id},
        {"name": "serviceName", "value": "event-notifications"},
        {"name": "serviceInstance", "value": service.instance.id},
    ]
    document: dict[str, object] = {
        "contexts": [
            {
                "attributes": [
                    {"name": "networkZoneId", "value": zone.id},
                    {"name": "endpointType", "value": "public"},
                ]
            }
        ],
        "resources": [{"attributes": attributes}],
        "operations": {"api_types": [{"api_type_id": SMTP_API}]},
    }
    rule = access.create_rule(
        service.account_id, description="the office", document=document, enforcement="enabled", by="test"
    )
    return rule.id


def test_who_may(outgate: Outgate, service: Service, rule_id: str) -> None:
    result = outgate("access", "explain", "192.0.2.1")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == f"instance {service.instance.id}"
    assert any(line.startswith("SMTP: Permit") for line in lines)
    assert any(line.startswith("control plane: Permit") for line in lines)
    assert f"rule {rule_id} (enabled) allows  the office" in lines


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("192.0.2.66",), "zone 'office' excludes 192.0.2.66"),
        (("2001:DB8::1",), "zone 'office' does not hold 2001:db8::1"),
        (("192.0.2.1", "--endpoint", "private"), "the endpoint type is private, not public"),
    ],
)
def test_who_may_not_and_why(outgate: Outgate, rule_id: str, arguments: tuple[str, ...], says: str) -> None:
    result = outgate("access", "explain", *arguments)
    assert result.exit_code == 1
    assert "SMTP: Deny" in result.stdout and f"rule {rule_id} (enabled) does not allow" in result.stdout
    assert says in result.stdout and "remedy: " in result.stdout
    document = outgate("access", "explain", *arguments, "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)["instances"][0]["smtp"]["decision"] == "Deny"


def test_one_instance(outgate: Outgate, service: Service, rule_id: str) -> None:
    assert outgate("access", "explain", "192.0.2.1", "--instance", service.instance.id).exit_code == 0
    missing = outgate("access", "explain", "192.0.2.1", "--instance", "nobody's")
    assert missing.exit_code == 1 and "there is no instance" in missing.stderr


def test_lists(outgate: Outgate, rule_id: str) -> None:
    zones = outgate("access", "zones")
    assert zones.exit_code == 0
    assert zones.stdout.splitlines()[1].split()[1:4] == ["office", "1", "1"]
    assert json.loads(outgate("access", "zones", "--json").stdout)["count"] == 1
    rules = outgate("access", "rules")
    assert rules.stdout.splitlines()[1].split()[:2] == [rule_id, "enabled"]
    assert json.loads(outgate("access", "rules", "--json").stdout)["rules"][0]["id"] == rule_id


def test_wrong_use(outgate: Outgate) -> None:
    wrong = outgate("access", "explain", "office")
    assert wrong.exit_code == 2 and "'office' is no IP address" in wrong.stderr
    wrong = outgate("access", "explain", "192.0.2.1", "--endpoint", "secret")
    assert wrong.exit_code == 2 and "'secret' is not one of public, private" in wrong.stderr
    assert "Value error" not in wrong.stderr
    scoped = outgate("access", "explain", "fe80::1%lo")
    assert scoped.exit_code == 2 and "'fe80::1%lo' has a scope" in scoped.stderr
    for instance, says in (("", "must not be empty"), ("\udcff", "is not UTF-8")):
        wrong = outgate("access", "explain", "192.0.2.1", "--instance", instance)
        assert (wrong.exit_code, wrong.stdout) == (2, "")
        assert "--instance" in wrong.stderr and says in wrong.stderr
