"""Metrics over HTTP: what is asked for, what is refused, and buckets that cover the window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from outgate.api.event_notifications.metrics import BounceMetrics, Metrics, bounce_document, metrics_document, width_s
from outgate.model.flow import Status
from outgate.store.metrics import Bounce
from support.api_service import Service, api_service
from support.tenant_mail import bounce, deliver, tenant_mail

START = 1_800_000_000.0
HOUR, DAY = 3600, 86_400
WINDOW = {"gte": "2027-01-15T08:00:00Z", "lte": "2027-01-15T12:00:00Z"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("metrics")) as running:
        yield running


@pytest.fixture(scope="module")
def config_id(service: Service) -> str:
    """A configuration with two messages: one delivered, one bounced."""
    mail = tenant_mail(service, "shop.test")
    deliver(mail, "ann@there.test", subject="Order 1", at=START + 1)
    bounce(mail, "bob@there.test", subject="Order 2", at=START + HOUR)
    return mail.config_id


def ask(service: Service, path: str, role: str = "reader", **query: str) -> httpx2.Response:
    url = f"{service.en_url}/v1/instances/{service.instance.id}/{path}"
    return httpx2.get(url, params=query, headers=service.headers(role), trust_env=False)


def counts(body: dict[str, Any]) -> dict[str, int]:
    return {metric["key"]: metric["doc_count"] for metric in body["metrics"]}


def test_all_five_keys_with_every_bucket(service: Service, config_id: str) -> None:
    answer = ask(service, "metrics", smtp_config_id=config_id, **WINDOW)
    assert answer.status_code == 200
    body = answer.json()
    Metrics.model_validate(body)
    assert counts(body) == {"submitted": 2, "success": 1, "deferred": 0, "bounced": 1, "opened": 0}
    hours = [f"2027-01-15T{hour:02}:00:00Z" for hour in range(8, 13)]
    for metric in body["metrics"]:
        assert [bucket["key_as_string"] for bucket in metric["histogram"]["buckets"]] == hours
    found = {m["key"]: [b["doc_count"] for b in m["histogram"]["buckets"]] for m in body["metrics"]}
    assert found["submitted"] == [1, 1, 0, 0, 0]
    assert found["bounced"] == [0, 1, 0, 0, 0]


def test_bounces_without_page_links(service: Service, config_id: str) -> None:
    answer = ask(service, "metrics/bounce", smtp_config_id=config_id, **WINDOW)
    assert answer.status_code == 200
    BounceMetrics.model_validate(answer.json())
    assert answer.json() == {
        "metrics": [
            {
                "email_address": "bob@there.test",
                "subject": "Order 2",
                "error_message": "550 5.1.1 no such mailbox",
                "timestamp": "2027-01-15T09:00:01Z",
                "ip_address": "10.0.0.1",
            }
        ],
        "total_count": 1,
        "offset": 0,
        "limit": 10,
    }
    past = ask(service, "metrics/bounce", smtp_config_id=config_id, offset="1", limit="5", **WINDOW).json()
    assert past == {"metrics": [], "total_count": 1, "offset": 1, "limit": 5}


@pytest.mark.parametrize(
    ("query", "submitted", "bounced"),
    [
        ({"email_to": "bob@THERE.test"}, 1, 1),
        ({"email_to": "nobody@there.test"}, 0, 0),
        ({"subject": "order 1"}, 1, 0),
        ({"email_from": "noreply@Shop.test"}, 2, 1),
        ({"username": "abcdefghijklmnopqr01"}, 2, 1),
        ({"username": "somebody"}, 0, 0),
        ({"gte": "2027-01-15t09:00:00z"}, 1, 1),
        ({"lte": "2027-01-15T09:59:59+01:00"}, 1, 0),
        ({"destination_id": "d"}, 0, 0),
        ({"subscription_id": "s"}, 0, 0),
        ({"source_id": "s"}, 0, 0),
        ({"notification_id": "n"}, 0, 0),
        ({"destination_type": "smtp_custom"}, 0, 0),
    ],
)
def test_filters(service: Service, config_id: str, query: dict[str, str], submitted: int, bounced: int) -> None:
    asked = {"smtp_config_id": config_id, **WINDOW, **query}
    body = ask(service, "metrics", **asked).json()
    assert (counts(body)["submitted"], counts(body)["bounced"]) == (submitted, bounced)
    assert ask(service, "metrics/bounce", **asked).json()["total_count"] == bounced


def test_custom_destinations_do_not_exist_here(service: Service) -> None:
    body = ask(service, "metrics", destination_type="smtp_custom", **WINDOW).json()
    assert set(counts(body).values()) == {0}
    assert all(len(metric["histogram"]["buckets"]) == 5 for metric in body["metrics"])
    assert ask(service, "metrics/bounce", destination_type="smtp_custom", **WINDOW).json()["metrics"] == []


@pytest.mark.parametrize("path", ["metrics", "metrics/bounce"])
def test_a_configuration_of_nobodys_is_404(service: Service, config_id: str, path: str) -> None:
    other = service.store.tenancy.create_instance(service.account_id, "eu-de", "other")
    url = f"{service.en_url}/v1/instances/{other.id}/{path}"
    answer = httpx2.get(url, params={"smtp_config_id": config_id, **WINDOW}, headers=service.headers(), trust_env=False)
    assert answer.status_code == 404
    for query in ({}, {"destination_id": "d"}, {"destination_type": "smtp_custom"}):
        assert ask(service, path, smtp_config_id="c0", **query, **WINDOW).status_code == 404


BAD: list[tuple[dict[str, str | None], str]] = [
    ({"gte": None}, "gte"),
    ({"lte": None}, "lte"),
    ({"gte": "yesterday"}, "gte"),
    ({"gte": ""}, "gte"),
    ({"gte": "2027-01-15"}, "gte"),
    ({"gte": "2027-01-15T08:00:00"}, "gte"),
    ({"gte": "20270115T080000Z"}, "gte"),
    ({"gte": "2027-02-30T08:00:00Z"}, "gte"),
    ({"gte": "2027-01-15T08:00:00.123456789Z"}, "gte"),
    ({"gte": "１027-01-15T08:00:00Z"}, "gte"),
    ({"lte": "2027-01-15T24:00:01Z"}, "lte"),
    ({"lte": "1800000000"}, "lte"),
    ({"gte": "2027-01-15T12:00:01Z"}, "gte"),
    ({"smtp_config_id": None}, "smtp_config_id"),
    ({"smtp_config_id": ""}, "smtp_config_id"),
    ({"smtp_config_id": "x" * 101}, "smtp_config_id"),
    ({"destination_type": "smtp"}, "destination_type"),
    ({"destination_type": ""}, "destination_type"),
    ({"destination_id": ""}, "destination_id"),
    ({"subscription_id": ""}, "subscription_id"),
    ({"source_id": ""}, "source_id"),
    ({"notification_id": "x" * 257}, "notification_id"),
    ({"email_to": "anna"}, "email_to"),
    ({"email_to": ""}, "email_to"),
    ({"email_to": "a@b@c"}, "email_to"),
    ({"email_to": f"a@{'x' * 253}"}, "email_to"),
    ({"email_from": "Anna <anna@there.test>"}, "email_from"),
    ({"subject": ""}, "subject"),
    ({"subject": "x" * 501}, "subject"),
    ({"username": ""}, "username"),
]


@pytest.mark.parametrize("path", ["metrics", "metrics/bounce"])
@pytest.mark.parametrize(("query", "names"), BAD)
def test_a_bad_value_is_named(service: Service, path: str, query: dict[str, str | None], names: str) -> None:
    asked = {"smtp_config_id": "c0", **WINDOW, **query}
    answer = ask(service, path, **{name: value for name, value in asked.items() if value is not None})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["target"]["name"] == names


@pytest.mark.parametrize(
    ("query", "names"),
    [({"limit": "0"}, "limit"), ({"limit": "101"}, "limit"), ({"limit": "x"}, "limit"), ({"offset": "-1"}, "offset")],
)
def test_a_bad_page_is_named(service: Service, query: dict[str, str], names: str) -> None:
    answer = ask(service, "metrics/bounce", smtp_config_id="c0", **WINDOW, **query)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["target"]["name"] == names


@pytest.mark.parametrize("path", ["metrics", "metrics/bounce"])
def test_roles(service: Service, config_id: str, path: str) -> None:
    for role in ("reader", "writer", "manager", "operator"):
        assert ask(service, path, role, smtp_config_id=config_id, **WINDOW).status_code == 200
    assert ask(service, path, "runtime", smtp_config_id=config_id, **WINDOW).status_code == 403
    assert ask(service, path, "runtime", gte="nonsense").status_code == 403


def test_any_time_of_the_calendar_can_be_asked_for(service: Service) -> None:
    for gte, lte in (
        ("0001-01-01T00:00:00+23:59", "0001-01-02T00:00:00Z"),
        ("9999-12-31T20:00:00Z", "9999-12-31T23:59:59-23:59"),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    ):
        answer = ask(service, "metrics", destination_type="smtp_custom", gte=gte, lte=lte)
        assert answer.status_code == 200, answer.text
        Metrics.model_validate(answer.json())


@pytest.mark.parametrize(
    ("seconds", "width"),
    [
        (0, HOUR),
        (2 * DAY, HOUR),
        (2 * DAY + 1, DAY),
        (92 * DAY, DAY),
        (398 * DAY, DAY),
        (400 * DAY, 2 * DAY),
        (3650 * DAY, 10 * DAY),
    ],
)
def test_buckets_grow_with_the_window(seconds: int, width: int) -> None:
    gte = START + 1234
    assert width_s(gte, gte + seconds) == width
    document: Any = metrics_document({"success": {int(gte) // width: 7}}, gte, gte + seconds, width)
    for metric in document["metrics"]:
        buckets = metric["histogram"]["buckets"]
        assert 1 <= len(buckets) <= 400
        assert metric["doc_count"] == sum(bucket["doc_count"] for bucket in buckets)
    assert document["metrics"][1]["histogram"]["buckets"][0]["doc_count"] == 7
    start = document["metrics"][0]["histogram"]["buckets"][0]["key_as_string"]
    assert start.endswith("T08:00:00Z" if width == HOUR else "T00:00:00Z")


@pytest.mark.parametrize(
    ("status", "reply", "reason", "said"),
    [
        (Status.BOUNCED, "550 5.1.1 no such mailbox", "bad-mailbox", "550 5.1.1 no such mailbox"),
        (Status.BOUNCED, "", "bad-mailbox", "bad-mailbox"),
        (Status.EXPIRED, "451 4.7.1 later", "policy", "expired: 451 4.7.1 later"),
        (Status.EXPIRED, "", "network", "expired: network"),
    ],
)
def test_a_bounce_says_why(status: Status, reply: str, reason: str, said: str) -> None:
    bounced = Bounce("Q", "a@one.test", "hello", status, reply, reason, START + 0.9, "192.0.2.7")
    assert bounce_document(bounced)["error_message"] == said


def test_the_published_description_has_both_operations(service: Service) -> None:
    document = httpx2.get(f"{service.en_url}/openapi.json", trust_env=False).json()
    for path, name in (("metrics", "get_metrics"), ("metrics/bounce", "get_bounce_metrics")):
        operation = document["paths"][f"/v1/instances/{{instance_id}}/{path}"]["get"]
        assert operation["operationId"] == name
        assert operation["responses"].keys() == {"200", "400", "401", "403", "404", "503"}
        parameters = {parameter["name"]: parameter for parameter in operation["parameters"]}
        for bound in ("gte", "lte"):
            assert parameters[bound]["required"]
            assert parameters[bound]["schema"]["format"] == "date-time"
        assert parameters["destination_type"]["schema"]["enum"] == ["smtp_custom"]
        example = operation["responses"]["200"]["content"]["application/json"]["example"]
        (Metrics if name == "get_metrics" else BounceMetrics).model_validate(example)
