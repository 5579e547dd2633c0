"""Zones and rules over HTTP: ETags, what is refused and why, whose they are; the explanation; the control plane."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import Request
from pydantic import BaseModel

from outgate.api import restrictions
from outgate.api.errors import Forbidden
from outgate.api.restrictions import Enforcement, models
from outgate.api.restrictions.enforcement import peer_address
from outgate.store import access
from support.api_service import Service, api_service

SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"
CONTROL_PLANE = "crn:v1:bluemix:public:context-based-restrictions::::api-type:control-plane"
GOOD = {"type": "ipAddress", "value": "192.0.2.1"}


class Account:
    """An account of its own on the running service, with an instance and a caller of every role."""

    def __init__(self, service: Service, http: httpx2.Client) -> None:
        self.service = service
        self.http = http
        self.id = service.store.tenancy.create_account()
        self.instance = service.store.tenancy.create_instance(self.id, "eu-de", "mine")

    def call(self, method: str, path: str, *, roles: tuple[str, ...] = (), **more: Any) -> httpx2.Response:
        headers = {**self.service.headers(*roles, account_id=self.id), **more.pop("headers", {})}
        return self.http.request(method, f"{self.service.cbr_url}/v1/{path}", headers=headers, **more)

    def zone(self, name: str = "office", *addresses: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = {"name": name, "addresses": list(addresses) or [GOOD], **more}
        response = self.call("POST", "zones", json=body)
        assert response.status_code == 201, response.text
        return {**response.json(), "etag": response.headers["etag"]}

    def rule_body(self, zones: str = "", api: str = SMTP_API, mode: str = "enabled", **more: Any) -> dict[str, Any]:
        attributes = {"accountId": self.id, "serviceName": "event-notifications", "serviceInstance": self.instance.id}
        conditions = (
            [{"name": "networkZoneId", "value": zones}] if zones else [{"name": "endpointType", "value": "public"}]
        )
        return {
            "contexts": [{"attributes": conditions}],
            "resources": [{"attributes": [{"name": name, "value": value} for name, value in attributes.items()]}],
            "operations": {"api_types": [{"api_type_id": api}]},
            "enforcement_mode": mode,
            **more,
        }

    def rule(self, zones: str = "", **more: Any) -> dict[str, Any]:
        response = self.call("POST", "rules", json=self.rule_body(zones, **more))
        assert response.status_code == 201, response.text
        return {**response.json(), "etag": response.headers["etag"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def mine(service: Service, http: httpx2.Client) -> Account:
    return Account(service, http)


def check_refusal(response: httpx2.Response, status: int, names: str = "", says: str = "") -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["status_code"] == status
    assert response.headers["x-global-transaction-id"] == body["trace"]
    (first, *_) = body["errors"]
    assert says in first["message"]
    assert first.get("target", {}).get("name", "") == names, first


# -- If-Match ------------------------------------------------------------------------------------------------


def subject(account: Account, kind: str) -> tuple[str, dict[str, Any], str]:
    """Make a zone or rule; return its path, a body that replaces it, and its ETag."""
    if kind == "zones":
        made = account.zone()
        return f"zones/{made['id']}", {"name": "office", "addresses": [GOOD]}, made["etag"]
    made = account.rule()
    return f"rules/{made['id']}", account.rule_body(), made["etag"]


IF_MATCH = [
    ("the ETag", "{}", 200),
    ("any", "*", 200),
    ("one of several", '"other", {}', 200),
    ("without quotes", "{bare}", 200),
    ("another", '"0123456789abcdef0123456789abcdef"', 412),
    ("weak", "W/{}", 412),
    ("rubbish", "rubbish", 412),
    ("only a comma", ",", 412),
]


@pytest.mark.parametrize("kind", ["zones", "rules"])
@pytest.mark.parametrize(("given", "status"), [pytest.param(*row[1:], id=row[0]) for row in IF_MATCH])
def test_if_match(mine: Account, kind: str, given: str, status: int) -> None:
    path, body, etag = subject(mine, kind)
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    header = given.replace("{bare}", etag.strip('"')).replace("{}", etag)
    response = mine.call("PUT", path, json=body, headers={"if-match": header})
    if status == 412:
        check_refusal(response, 412, "If-Match", "get it anew")
        check_refusal(mine.call("DELETE", path, headers={"if-match": header}), 412, "If-Match")
        assert mine.call("GET", path).headers["etag"] == etag
    else:
        assert response.status_code == 200, response.text
        assert response.headers["etag"] not in ("", etag)
        assert mine.call("DELETE", path, headers={"if-match": response.headers["etag"]}).status_code == 204


@pytest.mark.parametrize("kind", ["zones", "rules"])
def test_if_match_is_required_to_replace_and_may_be_absent_to_delete(mine: Account, kind: str) -> None:
    path, body, _ = subject(mine, kind)
    check_refusal(mine.call("PUT", path, json=body), 400, "If-Match", "is required")
    check_refusal(mine.call("PUT", path, json=body, headers={"if-match": ""}), 400, "If-Match")
    response = mine.call("DELETE", path)
    assert (response.status_code, response.content) == (204, b"")
    check_refusal(mine.call("DELETE", path), 404, says="there is no")
    check_refusal(mine.call("PUT", path, json=body, headers={"if-match": "*"}), 404)


@pytest.mark.parametrize("kind", ["zones", "rules"])
def test_of_many_who_saw_the_same_one_replaces_it(mine: Account, kind: str) -> None:
    path, body, etag = subject(mine, kind)

    def put(number: int) -> int:
        changed = {**body, "description": f"number {number}"}
        return mine.call("PUT", path, json=changed, headers={"if-match": etag}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(put, range(16))) == [200] + [412] * 15


# -- what is refused -----------------------------------------------------------------------------------------


ZONES: list[tuple[str, dict[str, Any], str]] = [
    ("no name", {"name": None}, "name"),
    ("an odd name", {"name": "a/b"}, "name"),
    ("a name with a line end", {"name": "a\n"}, "name"),
    ("an empty name", {"name": ""}, "name"),
    ("a long name", {"name": "a" * 129}, "name"),
    ("name a list", {"name": []}, "name"),
    ("a long description", {"description": "x" * 301}, "description"),
    ("no addresses", {"addresses": []}, "addresses"),
    ("addresses an object", {"addresses": {}}, "addresses"),
    ("1001 addresses", {"addresses": [GOOD] * 1001}, "addresses"),
    ("1000 and one", {"addresses": [GOOD] * 1000, "excluded": [GOOD]}, "addresses"),
    ("a bad address", {"addresses": [GOOD, {"type": "ipAddress", "value": "192.0.2.256"}]}, "addresses[1].value"),
    ("excluded service", {"excluded": [{"type": "serviceRef", "ref": {"account_id": "a", "service_name": "b"}}]}, "excluded[0].type"),
    ("excluded instance", {"excluded": [GOOD, {"type": "instance", "value": "crn:v1:a"}]}, "excluded[1].type"),
    ("account a number", {"account_id": 5}, "account_id"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "names"), [pytest.param(*row[1:], id=row[0]) for row in ZONES])
def test_bad_zone(mine: Account, change: dict[str, Any], names: str) -> None:
    body = {key: value for key, value in {"name": "n", "addresses": [GOOD], **change}.items() if value is not None}
    made = mine.zone()
    check_refusal(mine.call("POST", "zones", json=body), 400, names)
    check_refusal(mine.call("PUT", f"zones/{made['id']}", json=body, headers={"if-match": "*"}), 400, names)
    assert mine.call("GET", f"zones?account_id={mine.id}").json()["count"] == 1


ATTRIBUTE = "contexts[0].attributes[0]"


def condition(name: str, value: str) -> dict[str, Any]:
    return {"contexts": [{"attributes": [{"name": name, "value": value}]}]}


RULES: list[tuple[str, dict[str, Any], str]] = [
    ("unknown zone", condition("networkZoneId", "nowhere"), f"{ATTRIBUTE}.value"),
    ("a zone and nothing", condition("networkZoneId", "{zone},"), f"{ATTRIBUTE}.value"),
    ("only a comma", condition("networkZoneId", ","), f"{ATTRIBUTE}.value"),
    ("unknown endpoint", condition("endpointType", "outer"), f"{ATTRIBUTE}.value"),
    ("unknown factor", condition("mfa", "LEVEL4"), f"{ATTRIBUTE}.value"),
    ("unknown condition", condition("weather", "fair"), f"{ATTRIBUTE}.name"),
    ("a context without conditions", {"contexts": [{"attributes": []}]}, "contexts.0.attributes"),
    ("contexts an object", {"contexts": {}}, "contexts"),
    ("1001 contexts", {"contexts": condition("endpointType", "public")["contexts"] * 1001}, "contexts"),
    ("a long description", {"description": "x" * 301}, "description"),
    ("no resource", {"resources": []}, "resources"),
    ("two resources", {"resources": [{"attributes": [{"name": "accountId", "value": "a"}]}] * 2}, "resources"),
    ("no API", {"operations": {"api_types": []}}, "operations.api_types"),
    ("101 APIs", {"operations": {"api_types": [{"api_type_id": SMTP_API}] * 101}}, "operations.api_types"),
    ("an unknown API", {"operations": {"api_types": [{"api_type_id": "crn:v1:x"}]}}, "operations.api_types[0].api_type_id"),
    ("unknown mode", {"enforcement_mode": "maybe"}, "enforcement_mode"),
    ("report for SMTP", {"enforcement_mode": "report"}, "enforcement_mode"),
    ("mode null", {"enforcement_mode": None}, "enforcement_mode"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "names"), [pytest.param(*row[1:], id=row[0]) for row in RULES])
def test_bad_rule(mine: Account, change: dict[str, Any], names: str) -> None:
    made, zone = mine.rule(), mine.zone()
    body = {**mine.rule_body(), **change}
    if "{zone}" in str(body["contexts"]):
        body |= condition("networkZoneId", f"{zone['id']},")
    check_refusal(mine.call("POST", "rules", json=body), 400, names)
    check_refusal(mine.call("PUT", f"rules/{made['id']}", json=body, headers={"if-match": "*"}), 400, names)
    assert mine.call("GET", f"rules/{made['id']}").headers["etag"] == made["etag"]


@pytest.mark.parametrize("api", [SMTP_API, SMTP_API.replace("-dev", "")])
def test_report_beside_others_is_refused_for_both_spellings(mine: Account, api: str) -> None:
    made = mine.rule(api=CONTROL_PLANE, mode="report")
    both = {"api_types": [{"api_type_id": CONTROL_PLANE}, {"api_type_id": api}]}
    body = mine.rule_body(mode="report", operations=both)
    check_refusal(mine.call("POST", "rules", json=body), 400, "enforcement_mode", "no report mode")
    response = mine.call("PUT", f"rules/{made['id']}", json=body, headers={"if-match": "*"})
    check_refusal(response, 400, "enforcement_mode", "no report mode")


BODIES = [
    ("deep", b"[" * 20 + b"]" * 20, 400, {}),
    ("huge", b'{"name": "' + b"x" * (257 * 1024) + b'"}', 413, {}),
    ("a bomb", gzip.compress(b" " * 5_000_000), 413, {"content-encoding": "gzip"}),
    ("a list", b"[]", 400, {}),
    ("nothing", b"", 400, {}),
    ("a form", b"name=a", 415, {"content-type": "application/x-www-form-urlencoded"}),
]


@pytest.mark.parametrize("path", ["zones", "rules"])
@pytest.mark.parametrize(("raw", "status", "headers"), [pytest.param(*row[1:], id=row[0]) for row in BODIES])
def test_bad_body(mine: Account, path: str, raw: bytes, status: int, headers: dict[str, str]) -> None:
    sent = {"content-type": "application/json", **headers}
    assert mine.call("POST", path, content=raw, headers=sent).status_code == status
    again = mine.call("PUT", f"{path}/none", content=raw, headers={**sent, "if-match": "*"})
    assert again.status_code == status


def test_a_rule_may_have_no_contexts_and_then_allows_nobody(mine: Account) -> None:
    body = mine.rule_body()
    del body["contexts"]
    response = mine.call("POST", "rules", json=body)
    assert (response.status_code, response.json()["contexts"]) == (201, [])
    explained = mine.call("GET", f"explain?account_id={mine.id}&address=192.0.2.1").json()["instances"][0]
    assert "no context" in explained["smtp"]["rules"][0]["missing"][0]


def test_names_and_limits_that_are_taken_are_409(mine: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.zone("a")
    other = mine.zone("b")
    body = {"name": "a", "addresses": [GOOD]}
    check_refusal(mine.call("POST", "zones", json=body), 409, "name")
    check_refusal(mine.call("PUT", f"zones/{other['id']}", json=body, headers={"if-match": "*"}), 409, "name")
    mine.rule()
    monkeypatch.setattr(access, "MOST_ZONES", 2)
    monkeypatch.setattr(access, "MOST_RULES", 1)
    check_refusal(mine.call("POST", "zones", json={**body, "name": "c"}), 409, says="at most 2 zones: delete one")
    check_refusal(mine.call("POST", "rules", json=mine.rule_body()), 409, says="at most 1 rules: delete one")


def test_a_zone_that_rules_name_may_not_grow_beyond_them_nor_go(mine: Account) -> None:
    one = mine.zone("one", *[GOOD] * 500)
    two = mine.zone("two", *[GOOD] * 500)
    rule = mine.rule(f"{one['id']},{two['id']}")
    body = {"name": "two", "addresses": [GOOD] * 500, "excluded": [GOOD]}
    response = mine.call("PUT", f"zones/{two['id']}", json=body, headers={"if-match": two["etag"]})
    check_refusal(response, 400, "addresses", rule["id"])
    check_refusal(mine.call("DELETE", f"zones/{two['id']}"), 409, says=rule["id"])
    three = mine.zone("three")
    more = mine.rule_body(f"{one['id']},{two['id']},{three['id']}")
    response = mine.call("PUT", f"rules/{rule['id']}", json=more, headers={"if-match": "*"})
    check_refusal(response, 400, "contexts", "1000 addresses")


def test_many_rules_in_the_way_are_counted_and_some_named(mine: Account) -> None:
    zone = mine.zone()
    made = [mine.rule(zone["id"]) for _ in range(7)]
    response = mine.call("DELETE", f"zones/{zone['id']}")
    check_refusal(response, 409, says="7 rule(s) name this zone")
    assert sum(rule["id"] in response.text for rule in made) == 5


# -- whose they are ------------------------------------------------------------------------------------------


def test_what_is_another_account_s_reads_like_nothing(mine: Account, service: Service, http: httpx2.Client) -> None:
    theirs = Account(service, http)
    zone, rule = theirs.zone(), theirs.rule()
    for path, body in (
        (f"zones/{zone['id']}", {"name": "n", "addresses": [GOOD]}),
        (f"rules/{rule['id']}", mine.rule_body()),
    ):
        check_refusal(mine.call("GET", path), 404)
        check_refusal(mine.call("PUT", path, json=body, headers={"if-match": "*"}), 404)
        check_refusal(mine.call("DELETE", path), 404)
        assert theirs.call("GET", path).status_code == 200
    check_refusal(mine.call("POST", "rules", json=mine.rule_body(zone["id"])), 400, f"{ATTRIBUTE}.value", "not there")
    made = mine.rule()
    response = mine.call("PUT", f"rules/{made['id']}", json=theirs.rule_body(), headers={"if-match": "*"})
    check_refusal(response, 403)
    for path in (
        f"account_settings/{theirs.id}",
        f"rules?account_id={theirs.id}",
        f"explain?account_id={theirs.id}&address=192.0.2.1",
    ):
        check_refusal(mine.call("GET", path), 403)
    path = f"explain?account_id={mine.id}&address=192.0.2.1&instance_id={theirs.instance.id}"
    check_refusal(mine.call("GET", path), 404, says="there is no instance")


def test_only_a_manager_changes_and_an_operator_explains(mine: Account) -> None:
    for role in ("reader", "writer", "operator"):
        for method in ("PUT", "DELETE"):
            for path in ("zones/x", "rules/x"):
                check_refusal(mine.call(method, path, roles=(role,)), 403, says="manager")
    explained = f"explain?account_id={mine.id}&address=192.0.2.1"
    for role in ("reader", "writer", "manager", "operator"):
        assert mine.call("GET", explained, roles=(role,)).status_code == 200
    check_refusal(mine.call("GET", explained, roles=("runtime",)), 403)


# -- the explanation -----------------------------------------------------------------------------------------


BAD_QUERIES = [
    ("no address", "", "address"),
    ("a name", "&address=localhost", "address"),
    ("a network", "&address=192.0.2.0/24", "address"),
    ("a scope", "&address=fe80::1%25eth0", "address"),
    ("long", f"&address={'1' * 65}", "address"),
    ("direct", "&address=192.0.2.1&endpoint_type=direct", "endpoint_type"),
]


@pytest.mark.parametrize(("query", "names"), [pytest.param(*row[1:], id=row[0]) for row in BAD_QUERIES])
def test_bad_question(mine: Account, query: str, names: str) -> None:
    check_refusal(mine.call("GET", f"explain?account_id={mine.id}{query}"), 400, names)


def test_an_explanation_follows_the_rules_as_they_change(mine: Account) -> None:
    def explain(address: str, **more: str) -> dict[str, Any]:
        query = {"account_id": mine.id, "address": address, **more}
        found = mine.call("GET", "explain", params=query).json()
        models.Explanation.model_validate(found)
        assert found["address"] == "192.0.2.66"
        (instance,) = found["instances"]
        assert (instance["instance_id"], instance["region"]) == (mine.instance.id, "eu-de")
        return instance

    before = explain("192.0.2.66")
    assert (before["smtp"]["decision"], before["smtp"]["rule_id"], before["smtp"]["rules"]) == ("Deny", "", [])
    assert "create an enabled rule" in before["smtp"]["remedy"]
    assert (before["control_plane"]["decision"], before["control_plane"]["remedy"]) == ("Permit", "")
    zone = mine.zone(
        "office", {"type": "subnet", "value": "192.0.2.0/24"}, excluded=[{"type": "ipAddress", "value": "192.0.2.66"}]
    )
    rule = mine.rule(zone["id"])
    denied = explain("::ffff:192.0.2.66", instance_id=mine.instance.id)["smtp"]
    assert (denied["decision"], denied["rule_id"]) == ("Deny", rule["id"])
    assert denied["rules"][0]["contexts"][0]["missing"] == ["zone 'office' excludes 192.0.2.66"]
    assert rule["id"] in denied["remedy"]
    body = {"name": "office", "addresses": [{"type": "subnet", "value": "192.0.2.0/24"}]}
    assert mine.call("PUT", f"zones/{zone['id']}", json=body, headers={"if-match": zone["etag"]}).status_code == 200
    permitted = explain("192.0.2.66", endpoint_type="private")["smtp"]
    assert (permitted["decision"], permitted["rule_id"], permitted["remedy"]) == ("Permit", rule["id"], "")


def test_an_explanation_for_who_comes_through_a_gateway(mine: Account) -> None:
    vpc = f"crn:v1:bluemix:public:is:us-south:a/{mine.id}::vpc:r006-1"
    mine.rule(mine.zone("shop", {"type": "vpc", "value": vpc})["id"])

    def explain(**more: str) -> Any:
        return mine.call("GET", "explain", params={"account_id": mine.id, "address": "192.0.2.1", **more})

    found = explain(vpc=vpc).json()
    models.Explanation.model_validate(found)
    assert (found["endpoint_type"], found["vpc"]) == ("private", vpc)
    assert found["instances"][0]["smtp"]["decision"] == "Permit"
    other = explain(vpc=vpc + "0").json()["instances"][0]["smtp"]
    assert other["decision"] == "Deny" and "or the VPC" in other["remedy"]
    check_refusal(explain(vpc=vpc, endpoint_type="public"), 400, "endpoint_type")


# -- the document --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(service: Service, http: httpx2.Client) -> dict[str, Any]:
    response = http.get(f"{service.cbr_url}/openapi.json")
    assert response.status_code == 200
    return response.json()


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    operations = {
        operation["operationId"]: (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == restrictions.ROLES.keys()
    for name, (method, _, operation) in operations.items():
        statuses = set(operation["responses"])
        assert {"400", "401", "403", "404"} <= statuses and "422" not in statuses
        parameters = {parameter["name"]: parameter["required"] for parameter in operation.get("parameters", ())}
        assert "x-correlation-id" in parameters
        if name.startswith("replace"):
            assert parameters["If-Match"] is True and "412" in statuses
        if name.startswith("delete"):
            assert parameters["If-Match"] is False and {"204", "412"} <= statuses
        if method in ("post", "put"):
            assert {"413", "415"} <= statuses and operation["requestBody"]["required"]
    assert "409" in operations["delete_zone"][2]["responses"] and "409" in operations["replace_zone"][2]["responses"]
    listed = {parameter["name"] for parameter in operations["list_rules"][2]["parameters"]}
    assert listed >= {
        "account_id", "region", "resource", "resource_type", "service_instance", "service_name", "service_type",
        "service_group_id", "zone_id", "sort", "enforcement_mode",
    }  # fmt: skip


EXAMPLES: list[tuple[type[BaseModel], dict[str, object]]] = [
    (models.Zone, models.ZONE),
    (models.ZoneList, models.ZONES),
    (models.Rule, models.RULE),
    (models.RuleList, models.RULES),
    (models.AccountSettings, models.SETTINGS),
    (models.Explanation, models.EXPLANATION),
]


@pytest.mark.parametrize(("model", "example"), EXAMPLES, ids=[row[0].__name__ for row in EXAMPLES])
def test_examples_are_what_they_show(model: type[BaseModel], example: dict[str, object]) -> None:
    model.model_validate(example)


def test_answers_have_the_described_shapes(mine: Account) -> None:
    every = [
        GOOD,
        {"type": "ipRange", "value": "192.0.2.1-192.0.2.9"},
        {"type": "subnet", "value": "2001:db8::/32"},
        {"type": "vpc", "value": "crn:v1:bluemix:public:is:us-south:a/1::vpc:x"},
        {"type": "instance", "value": "crn:v1:bluemix:public:x:us-south:a/1:y::"},
        {"type": "serviceRef", "ref": {"account_id": mine.id, "service_name": "containers", "location": "eu-de"}},
    ]
    zone = mine.zone("office", *every, description="d", excluded=every[:3])
    rule = mine.rule(zone["id"])
    more = mine.rule_body(mode="report", contexts=condition("mfa", "LEVEL1,LEVEL2")["contexts"])
    del more["operations"]
    assert mine.call("POST", "rules", json=more).status_code == 201
    for path, model in (
        (f"zones/{zone['id']}", models.Zone),
        (f"zones?account_id={mine.id}", models.ZoneList),
        (f"rules/{rule['id']}", models.Rule),
        (f"rules?account_id={mine.id}", models.RuleList),
        (f"account_settings/{mine.id}", models.AccountSettings),
        ("operations", models.OperationsList),
        ("zones/serviceref_targets", models.ServiceRefTargetList),
        (f"explain?account_id={mine.id}&address=2001:db8::1", models.Explanation),
    ):
        response = mine.call("GET", path)
        assert response.status_code == 200, response.text
        model.model_validate(response.json())


# -- the control plane ---------------------------------------------------------------------------------------


class Lines(logging.Handler):
    """Keeps the fields of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append({"event": record.getMessage(), **record.fields})  # type: ignore[attr-defined]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, kept = logging.getLogger("outgate.restrictions"), Lines()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


def request_from(host: str | None) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "server": ("api.test", 80),
            "path": "/v1/x",
            "query_string": b"",
            "headers": [],
            "client": None if host is None else (host, 4711),
            "state": {"trace": "t-1"},
        }
    )


def test_the_control_plane_is_restricted_from_the_next_call_on(mine: Account, lines: Lines) -> None:
    enforcement = Enforcement(mine.service.store)

    def check(host: str | None) -> None:
        enforcement.check(request_from(host), mine.instance, "iam-tester")

    check("203.0.113.9")
    assert lines.seen == []  # nothing was evaluated
    rule = mine.rule(mine.zone()["id"], api=CONTROL_PLANE)
    check("192.0.2.1")
    check("::ffff:192.0.2.1")
    for host in ("203.0.113.9", "testclient", "", None):
        with pytest.raises(Forbidden) as refused:
            check(host)
        assert (refused.value.status, refused.value.problems[0].code) == (403, "authorization_error")
    first, *_, last = lines.seen
    assert first == {
        "event": "access.decision",
        "api": "control-plane",
        "decision": "Permit",
        "enforced": True,
        "rule": rule["id"],
        "address": "192.0.2.1",
        "endpoint": "public",
        "instance": mine.instance.id,
        "subject": "iam-tester",
        "reason": f"rule {rule['id']} allows 192.0.2.1 (public)",
        "method": "GET",
        "path": "/v1/x",
        "trace": "t-1",
    }
    assert (last["decision"], last["address"]) == ("Deny", "")
    assert mine.call("DELETE", f"rules/{rule['id']}").status_code == 204
    check("203.0.113.9")


def test_a_rule_in_report_mode_is_logged_and_refuses_nobody(mine: Account, lines: Lines) -> None:
    rule = mine.rule(mine.zone()["id"], api=CONTROL_PLANE, mode="report")
    mine.rule(api=CONTROL_PLANE, mode="disabled")
    Enforcement(mine.service.store).check(request_from("203.0.113.9"), mine.instance, "iam-tester")
    told = [(line["rule"], line["decision"], line["enforced"]) for line in lines.seen]
    assert told == [(rule["id"], "Deny", False)]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, ""),
        ("x", "x"),
    ],
)
def test_peer_address(host: str | None, address: str) -> None:
    assert peer_address(request_from(host)) == address
