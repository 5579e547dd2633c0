"""Every refusal has the vendor's envelope, the right status, and names the field; nothing is stored."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from outgate.api import event_notifications, restrictions
from outgate.model.access import Address
from support.api_service import Service, api_service

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"
NOWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def config_id(service: Service, http: httpx2.Client) -> str:
    body = {"name": "Shop", "domain": "shop.test"}
    return http.post(f"{service.smtp_url}/config", json=body, headers=service.headers()).json()["id"]


@pytest.fixture(scope="module")
def zone_id(service: Service, http: httpx2.Client) -> str:
    body = {"name": "office", "addresses": [{"type": "ipAddress", "value": "192.0.2.1"}]}
    return http.post(f"{service.cbr_url}/v1/zones", json=body, headers=service.headers()).json()["id"]


def check_envelope(response: httpx2.Response, status: int, says: str = "", names: str | None = None) -> None:
    """Check a refusal's status, headers and body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"status_code", "trace", "errors"}
    assert body["status_code"] == status
    assert re.fullmatch(UUID, body["trace"])
    assert response.headers["x-global-transaction-id"] == body["trace"]
    assert response.headers["x-correlation-id"]
    assert body["errors"]
    for error in body["errors"]:
        assert error["code"] and error["message"]
        assert error["more_info"].startswith("https://")
    assert says in body["errors"][0]["message"]
    if names is not None:
        assert body["errors"][0]["target"] == {"type": "field", "name": names}
        assert f"'{names}'" in body["errors"][0]["message"]


CONFIGURATION: list[tuple[str, Any, str, str]] = [
    ("name absent", {"domain": "a.test"}, "name", "is required"),
    ("name empty", {"name": "", "domain": "a.test"}, "name", "at least 1"),
    ("name long", {"name": "x" * 251, "domain": "a.test"}, "name", "at most 250"),
    ("name a number", {"name": 5, "domain": "a.test"}, "name", "valid string"),
    ("name null", {"name": None, "domain": "a.test"}, "name", "valid string"),
    ("name with a line end", {"name": "a\nb", "domain": "a.test"}, "name", "must not contain"),
    ("name with markup", {"name": "<b>", "domain": "a.test"}, "name", "must not contain '<'"),
    ("name with half a character", {"name": "\ud800", "domain": "a.test"}, "name", ""),
    ("description long", {"name": "a", "domain": "a.test", "description": "x" * 251}, "description", "at most 250"),
    ("description a list", {"name": "a", "domain": "a.test", "description": []}, "description", "valid string"),
    ("domain absent", {"name": "a"}, "domain", "is required"),
    ("domain empty", {"name": "a", "domain": ""}, "domain", ""),
    ("domain one label", {"name": "a", "domain": "localhost"}, "domain", "full domain name"),
    ("domain an address", {"name": "a", "domain": "192.0.2.1"}, "domain", "full domain name"),
    ("domain a mailbox", {"name": "a", "domain": "a@b.test"}, "domain", "domain name"),
    ("domain with a space", {"name": "a", "domain": "a b.test"}, "domain", "domain name"),
    ("domain a wildcard", {"name": "a", "domain": "*.a.test"}, "domain", "domain name"),
    ("domain with an empty label", {"name": "a", "domain": "a..test"}, "domain", "domain name"),
    ("domain too long for DKIM", {"name": "a", "domain": ("x" * 60 + ".") * 3 + "xxxxxxxxxxxxxxxxxx.test"}, "domain", "DKIM"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "names", "says"), [pytest.param(*row[1:], id=row[0]) for row in CONFIGURATION])
def test_bad_configuration(service: Service, http: httpx2.Client, body: Any, names: str, says: str) -> None:
    raw = json.dumps(body).encode()
    response = http.post(
        f"{service.smtp_url}/config", content=raw, headers={**service.headers(), "content-type": "application/json"}
    )
    check_envelope(response, 400, says, names)


def test_every_wrong_field_is_named(service: Service, http: httpx2.Client) -> None:
    response = http.post(f"{service.smtp_url}/config", json={"name": 1, "domain": 2}, headers=service.headers())
    assert [error["target"]["name"] for error in response.json()["errors"]] == ["name", "domain"]


@dataclass
class Raw:
    """A request body as bytes, and what it gets."""

    content: bytes
    status: int
    says: str
    headers: dict[str, str] = field(default_factory=dict)


JSON = {"content-type": "application/json"}
GZIP = {**JSON, "content-encoding": "gzip"}
RAW = {
    "empty": Raw(b"", 400, "needs a JSON body"),
    "not JSON": Raw(b'{"name": ', 400, "line 1, column 10", JSON),
    "a list": Raw(b"[]", 400, "", JSON),
    "a number": Raw(b"5", 400, "", JSON),
    "NaN": Raw(b'{"name": NaN}', 400, "NaN", JSON),
    "a number of 5000 digits": Raw(b'{"name": ' + b"1" * 5000 + b"}", 400, "not JSON", JSON),
    "a name twice": Raw(b'{"name": "a", "name": "b"}', 400, "given twice", JSON),
    "UTF-16": Raw('{"name": "a"}'.encode("utf-16"), 400, "not UTF-8", JSON),
    "deep": Raw(b"[" * 20 + b"]" * 20, 400, "nested deeper", JSON),
    "very deep": Raw(b"[" * 30000 + b"]" * 30000, 400, "nested deeper", JSON),
    "65 KiB": Raw(b'{"name": "' + b"x" * 65 * 1024 + b'"}', 413, "65536 bytes", JSON),
    "a form": Raw(b"name=a", 415, "application/json", {"content-type": "application/x-www-form-urlencoded"}),
    "brotli": Raw(b"x", 415, "gzip", {**JSON, "content-encoding": "br"}),
    "gzip twice": Raw(b"x", 415, "gzip", {**JSON, "content-encoding": "gzip, gzip"}),
    "not gzip": Raw(b"{}", 400, "not gzip", GZIP),
    "half a gzip": Raw(gzip.compress(b'{"name": "a"}')[:-4], 400, "gzip", GZIP),
    "two gzips": Raw(gzip.compress(b"{}") + gzip.compress(b"{}"), 400, "gzip", GZIP),
    "a bomb": Raw(gzip.compress(b" " * 50_000_000), 413, "65536 bytes", GZIP),
}


@pytest.mark.parametrize("name", RAW)
def test_bad_body(service: Service, http: httpx2.Client, name: str) -> None:
    raw = RAW[name]
    response = http.post(
        f"{service.smtp_url}/config", content=raw.content, headers={**service.headers(), **raw.headers}
    )
    check_envelope(response, raw.status, raw.says)


def test_chunked_body_is_cut_off_at_the_limit(service: Service, http: httpx2.Client) -> None:
    response = http.post(
        f"{service.smtp_url}/config",
        content=(b"x" * 1024 for _ in range(100)),
        headers={**service.headers(), **JSON},
    )
    check_envelope(response, 413, "65536 bytes")


LISTS = [
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("limit=ten", "limit"),
    ("offset=-1", "offset"),
    ("offset=99999999999999999999", "offset"),
    ("search=", "search"),
    ("search=" + "x" * 101, "search"),
]


@pytest.mark.parametrize(("query", "names"), LISTS, ids=[row[0][:20] for row in LISTS])
def test_bad_list_query(service: Service, http: httpx2.Client, query: str, names: str) -> None:
    check_envelope(http.get(f"{service.smtp_url}/config?{query}", headers=service.headers()), 400, "", names)


@pytest.mark.parametrize("query", ["", "?type=", "?type=dmarc", "?type=spf,", "?type=SPF"])
def test_bad_verify_type(service: Service, http: httpx2.Client, config_id: str, query: str) -> None:
    response = http.patch(f"{service.smtp_url}/config/{config_id}/verify{query}", headers=service.headers())
    check_envelope(response, 400, "", "type")
    assert service.verifier.asked == []


@pytest.mark.parametrize("name", ["short", "ABCDEFGHIJKLMNOPQR00", "nobodynobodynobody00"])
def test_bad_username_to_clone(service: Service, http: httpx2.Client, config_id: str, name: str) -> None:
    url = f"{service.smtp_url}/config/{config_id}/users?username_to_clone={name}"
    check_envelope(http.post(url, json={}, headers=service.headers()), 400, "", "username_to_clone")


def test_a_domain_twice_is_409(service: Service, http: httpx2.Client, config_id: str) -> None:
    body = {"name": "again", "domain": "SHOP.test."}
    response = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers())
    check_envelope(response, 409, "shop.test", "domain")


def test_absent_body_makes_a_user(service: Service, http: httpx2.Client, config_id: str) -> None:
    response = http.post(f"{service.smtp_url}/config/{config_id}/users", headers=service.headers())
    assert response.status_code == 201
    assert response.json()["description"] == ""
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/config/{none}", "/config/{none}/verify", "/config/{none}/users", "/messages/{none}", "/nothing", "/config/"]
)  # fmt: skip
def test_unknown_is_404(service: Service, http: httpx2.Client, path: str) -> None:
    methods = {"/config/{none}/verify": "PATCH", "/config/{none}/users": "POST"}
    url = service.smtp_url + path.format(none=NOWHERE) + ("?type=spf" if path.endswith("verify") else "")
    check_envelope(http.request(methods.get(path, "GET"), url, headers=service.headers()), 404)


def test_unknown_instance_and_foreign_instance_read_the_same(service: Service, http: httpx2.Client) -> None:
    other = service.store.tenancy.create_account()
    foreign = http.get(f"{service.smtp_url}/config", headers=service.headers(account_id=other))
    unknown = http.get(
        f"{service.en_url}/v1/instances/{NOWHERE}/smtp/config", headers=service.headers(account_id=other)
    )
    check_envelope(foreign, 404, "no instance")
    check_envelope(unknown, 404, "no instance")


def test_wrong_method_is_405(service: Service, http: httpx2.Client) -> None:
    response = http.put(f"{service.smtp_url}/config", headers=service.headers())
    check_envelope(response, 405)
    assert response.headers["allow"]


def tokens(service: Service) -> dict[str, str | None]:
    good = service.token()
    head, claims, signature = good.split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "none": None,
        "basic": "Basic dTpw",
        "empty": "Bearer",
        "rubbish": "Bearer rubbish",
        "expired": f"Bearer {service.token(lifetime_s=0)}",
        "forged": f"Bearer {head}.{claims}.{flipped}",
        "unsigned": f"Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.",
        "long": f"Bearer {'x' * 9000}",
    }


@pytest.mark.parametrize("kind", ["none", "basic", "empty", "rubbish", "expired", "forged", "unsigned", "long"])
@pytest.mark.parametrize("api", ["en", "cbr"])
def test_bad_token_is_401_before_anything_else(service: Service, http: httpx2.Client, kind: str, api: str) -> None:
    token = tokens(service)[kind]
    url = f"{service.smtp_url}/config?limit=0" if api == "en" else f"{service.cbr_url}/v1/zones"
    response = http.get(url, headers={} if token is None else {"Authorization": token})
    check_envelope(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/config"), ("PATCH", "/config/{id}/verify?type=spf"), ("POST", "/config/{id}/users")],
)
def test_reader_may_not_write(service: Service, http: httpx2.Client, config_id: str, method: str, path: str) -> None:
    url = service.smtp_url + path.format(id=config_id)
    response = http.request(method, url, json={}, headers=service.headers("reader"))
    check_envelope(response, 403, "writer")
    assert http.get(f"{service.smtp_url}/config", headers=service.headers("reader")).status_code == 200


def test_writer_may_not_change_restrictions(service: Service, http: httpx2.Client) -> None:
    for path in ("zones", "rules"):
        response = http.post(f"{service.cbr_url}/v1/{path}", json={}, headers=service.headers("writer"))
        check_envelope(response, 403, "manager")


def test_every_route_has_roles(service: Service, http: httpx2.Client) -> None:
    assert all(roles for roles in (*event_notifications.ROLES.values(), *restrictions.ROLES.values()))
    for method, url in (
        ("POST", f"{service.smtp_url}/config"),
        ("GET", f"{service.smtp_url}/config"),
        ("GET", f"{service.smtp_url}/config/x"),
        ("PATCH", f"{service.smtp_url}/config/x/verify"),
        ("POST", f"{service.smtp_url}/config/x/users"),
        ("GET", f"{service.smtp_url}/messages"),
        ("GET", f"{service.smtp_url}/messages/x"),
        *((method, f"{service.cbr_url}/v1/{kind}") for method in ("GET", "POST") for kind in ("zones", "rules")),
        *(("GET", f"{service.cbr_url}/v1/{kind}/x") for kind in ("zones", "rules")),
    ):
        response = http.request(method, url, headers=service.headers("runtime"))
        check_envelope(response, 403, "needs one of the roles")


ADDRESSES: list[tuple[str, dict[str, Any], str]] = [
    ("unknown type", {"type": "host", "value": "a.test"}, "addresses[0].type"),
    ("no value", {"type": "ipAddress"}, "addresses[0].value"),
    ("a name", {"type": "ipAddress", "value": "a.test"}, "addresses[0].value"),
    ("a scope", {"type": "ipAddress", "value": "fe80::1%eth0"}, "addresses[0].value"),
    ("a mapped address", {"type": "ipAddress", "value": "::ffff:192.0.2.66"}, "addresses[0].value"),
    ("a mapped subnet", {"type": "subnet", "value": "::ffff:192.0.2.128/121"}, "addresses[0].value"),
    ("a mapped range", {"type": "ipRange", "value": "::ffff:192.0.2.1-::ffff:192.0.2.9"}, "addresses[0].value"),
    ("host bits", {"type": "subnet", "value": "192.0.2.1/24"}, "addresses[0].value"),
    ("no prefix", {"type": "subnet", "value": "192.0.2.0"}, "addresses[0].value"),
    ("a range backwards", {"type": "ipRange", "value": "192.0.2.9-192.0.2.1"}, "addresses[0].value"),
    ("a mixed range", {"type": "ipRange", "value": "192.0.2.9-2001:db8::1"}, "addresses[0].value"),
    ("a range without end", {"type": "ipRange", "value": "192.0.2.9"}, "addresses[0].value"),
    ("a vpc that is no CRN", {"type": "vpc", "value": "my-vpc"}, "addresses[0].value"),
    ("serviceRef without ref", {"type": "serviceRef", "value": "x1"}, "addresses[0].ref"),
    ("serviceRef without service", {"type": "serviceRef", "ref": {"account_id": "a"}}, "addresses[0].ref"),
    ("value a number", {"type": "ipAddress", "value": 5}, "addresses.0.value"),
]


@pytest.mark.parametrize(("address", "names"), [pytest.param(*row[1:], id=row[0]) for row in ADDRESSES])
def test_bad_address(service: Service, http: httpx2.Client, address: dict[str, Any], names: str) -> None:
    response = http.post(
        f"{service.cbr_url}/v1/zones", json={"name": "bad", "addresses": [address]}, headers=service.headers()
    )
    check_envelope(response, 400, "", names)


GOOD = {"type": "ipAddress", "value": "192.0.2.1"}
ZONES: list[tuple[str, dict[str, Any], str]] = [
    ("no name", {"addresses": [GOOD]}, "name"),
    ("odd name", {"name": "a/b", "addresses": [GOOD]}, "name"),
    ("long name", {"name": "a" * 129, "addresses": [GOOD]}, "name"),
    ("long description", {"name": "z", "addresses": [GOOD], "description": "x" * 301}, "description"),
    ("no addresses", {"name": "z", "addresses": []}, "addresses"),
    ("1001 addresses", {"name": "z", "addresses": [GOOD] * 1001}, "addresses"),
    ("1000 addresses and 1 excluded", {"name": "z", "addresses": [GOOD] * 1000, "excluded": [GOOD]}, "addresses"),
    ("excluded vpc", {"name": "z", "addresses": [GOOD], "excluded": [{"type": "vpc", "value": "crn:v1:a"}]}, "excluded[0].type"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "names"), [pytest.param(*row[1:], id=row[0]) for row in ZONES])
def test_bad_zone(service: Service, http: httpx2.Client, body: dict[str, Any], names: str) -> None:
    response = http.post(f"{service.cbr_url}/v1/zones", json=body, headers=service.headers())
    check_envelope(response, 400, "", names)


def test_zone_of_another_account_is_403_and_its_list_too(service: Service, http: httpx2.Client) -> None:
    body = {"name": "z", "account_id": "another", "addresses": [GOOD]}
    check_envelope(http.post(f"{service.cbr_url}/v1/zones", json=body, headers=service.headers()), 403)
    check_envelope(http.get(f"{service.cbr_url}/v1/zones?account_id=another", headers=service.headers()), 403)


@pytest.mark.parametrize("query", ["", "?account_id="])
def test_list_needs_an_account(service: Service, http: httpx2.Client, query: str) -> None:
    response = http.get(f"{service.cbr_url}/v1/rules{query}", headers=service.headers())
    check_envelope(response, 400, "", "account_id")


def test_bad_sort(service: Service, http: httpx2.Client) -> None:
    url = f"{service.cbr_url}/v1/zones?account_id={service.account_id}&sort=colour"
    check_envelope(http.get(url, headers=service.headers()), 400, "", "sort")


def test_foreign_zone_reads_like_none(service: Service, http: httpx2.Client, zone_id: str) -> None:
    other = service.store.tenancy.create_account()
    url = f"{service.cbr_url}/v1/zones/{zone_id}"
    assert http.get(url, headers=service.headers()).status_code == 200
    check_envelope(http.get(url, headers=service.headers(account_id=other)), 404, "no zone")
    check_envelope(http.get(f"{service.cbr_url}/v1/rules/none", headers=service.headers()), 404, "no rule")


RULES: list[tuple[str, dict[str, Any], str]] = [
    ("unknown zone", {"zone": "nowhere"}, "contexts[0].attributes[0].value"),
    ("unknown condition", {"context": "ipAddress"}, "contexts[0].attributes[0].name"),
    ("unknown endpoint", {"context": "endpointType", "zone": "outer"}, "contexts[0].attributes[0].value"),
    ("unknown service", {"service": "cloud-object-storage"}, "resources[0].attributes"),
    ("resource group", {"extra": "resourceGroupId"}, "resources[0].attributes[2].name"),
    ("service twice", {"extra": "serviceName"}, "resources[0].attributes[2].name"),
    ("unknown API", {"api": "crn:v1:x"}, "operations.api_types[0].api_type_id"),
    ("unknown mode", {"mode": "maybe"}, "enforcement_mode"),
    ("report for SMTP", {"mode": "report"}, "enforcement_mode"),
    ("report for SMTP without -dev", {"mode": "report", "api": SMTP_API.replace("-dev", "")}, "enforcement_mode"),
    ("tags", {"tags": [{"name": "a", "value": "b"}]}, "resources[0].tags"),
]


@pytest.mark.parametrize(("change", "names"), [pytest.param(*row[1:], id=row[0]) for row in RULES])
def test_bad_rule(service: Service, http: httpx2.Client, zone_id: str, change: dict[str, Any], names: str) -> None:
    attributes = [
        {"name": "accountId", "value": service.account_id},
        {"name": "serviceName", "value": change.get("service", "event-notifications")},
    ]
    if "extra" in change:
        attributes.append({"name": change["extra"], "value": "x"})
    condition = {"name": change.get("context", "networkZoneId"), "value": change.get("zone", zone_id)}
    body = {
        "contexts": [{"attributes": [condition]}],
        "resources": [{"attributes": attributes, "tags": change.get("tags", [])}],
        "operations": {"api_types": [{"api_type_id": change.get("api", SMTP_API)}]},
        "enforcement_mode": change.get("mode", "enabled"),
    }
    response = http.post(f"{service.cbr_url}/v1/rules", json=body, headers=service.headers())
    check_envelope(response, 400, "", names)


def test_a_rule_for_another_account_is_403(service: Service, http: httpx2.Client) -> None:
    other = service.store.tenancy.create_account()
    attributes = [{"name": "accountId", "value": other}, {"name": "serviceName", "value": "event-notifications"}]
    body = {"contexts": [], "resources": [{"attributes": attributes}]}
    check_envelope(http.post(f"{service.cbr_url}/v1/rules", json=body, headers=service.headers()), 403)
    assert service.store.access.rules(other) == ()


def test_rule_over_more_than_1000_addresses(service: Service, http: httpx2.Client) -> None:
    account = service.store.tenancy.create_account()
    some = tuple(Address("ipAddress", f"192.0.2.{number}") for number in range(200))
    zones = [
        service.store.access.create_zone(account, name=f"z{n}", description="", addresses=some, excluded=(), by="me")
        for n in range(6)
    ]

    def create(count: int) -> httpx2.Response:
        condition = {"name": "networkZoneId", "value": ",".join(zone.id for zone in zones[:count])}
        attributes = [{"name": "accountId", "value": account}, {"name": "serviceName", "value": "event-notifications"}]
        body = {"contexts": [{"attributes": [condition]}], "resources": [{"attributes": attributes}]}
        return http.post(f"{service.cbr_url}/v1/rules", json=body, headers=service.headers(account_id=account))

    check_envelope(create(6), 400, "1000 addresses", "contexts")
    assert create(5).status_code == 201


def test_correlation_id_is_echoed_and_cleaned(service: Service, http: httpx2.Client) -> None:
    def echoed(**headers: str) -> str:
        sent = {**service.headers(), **{name.replace("_", "-"): value for name, value in headers.items()}}
        return http.get(f"{service.smtp_url}/config", headers=sent).headers["x-correlation-id"]

    assert echoed(x_correlation_id="mine-1", transaction_id="other") == "mine-1"
    assert echoed(transaction_id="other") == "other"
    assert re.fullmatch(UUID, echoed(x_correlation_id="a b<script>"))
    assert re.fullmatch(UUID, echoed())


def test_a_failure_of_ours_is_500_without_details(
    service: Service, http: httpx2.Client, config_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret cause")

    monkeypatch.setattr(service.verifier, "verify", broken)
    response = http.patch(f"{service.smtp_url}/config/{config_id}/verify?type=spf", headers=service.headers())
    check_envelope(response, 500, "the log has it under")
    assert "secret" not in response.text


def test_nothing_was_stored(service: Service) -> None:
    assert service.store.tenancy.configurations(service.instance.id).total <= 1
    assert len(service.store.access.zones(service.account_id)) <= 1
    assert service.store.access.rules(service.account_id) == ()
