"""The authorisation form over HTTP: its answers, who decides, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from outgate.model.tenancy import Verification
from support.api_service import Service, api_service

FORM = dict(FORM_EXAMPLE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path, authorization="manual") as running:
        yield running


@pytest.fixture
def url(service: Service, http: httpx2.Client) -> str:
    body = {"name": "Shop", "domain": "shop.test"}
    made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers("writer")).json()
    return f"{service.smtp_url}/config/{made['id']}"


def state(service: Service, http: httpx2.Client, url: str) -> str:
    return http.get(url, headers=service.headers("reader")).json()["config"]["en_authorization"]["verification"]


def test_submitted_approved_and_withdrawn(service: Service, http: httpx2.Client, url: str) -> None:
    writer, judge, reader = (service.headers(role) for role in ("writer", "authorizer", "reader"))
    assert http.get(f"{url}/authorization", headers=reader).status_code == 404
    early = http.post(f"{url}/authorization/approve", headers=judge)
    assert early.status_code == 409
    assert "customer answers it first" in early.json()["errors"][0]["message"]

    submitted = http.post(f"{url}/authorization", json=FORM, headers=writer)
    assert submitted.status_code == 202
    document = submitted.json()
    assert {name: document[name] for name in FORM} == FORM
    assert (document["verification"], document["decision"], document["submitted_by"]) == ("PENDING", None, "iam-tester")
    assert http.get(f"{url}/authorization", headers=reader).json() == document

    for role in ("reader", "writer", "manager", "operator"):
        for decision in ("approve", "reject"):
            refused = http.post(f"{url}/authorization/{decision}", json={"reason": "x"}, headers=service.headers(role))
            assert refused.status_code == 403, (role, decision)
    assert state(service, http, url) == "PENDING"

    approved = http.post(f"{url}/authorization/approve", headers=judge)
    assert (approved.status_code, approved.json()["decision"]) == (200, "approved")
    assert state(service, http, url) == "SUCCESSFUL"
    assert http.post(f"{url}/authorization/approve", headers=judge).status_code == 200

    other = http.post(f"{url}/authorization", json={**FORM, "nature": "marketing"}, headers=writer)
    assert other.status_code == 409
    assert "iam-tester has approved the answers" in other.json()["errors"][0]["message"]
    kept = http.get(f"{url}/authorization", headers=reader).json()
    assert (kept["nature"], kept["decided_by"]) == ("transactional", "iam-tester")

    withdrawn = http.post(f"{url}/authorization/reject", json={"reason": "complaints"}, headers=judge)
    assert (withdrawn.status_code, withdrawn.json()["reason"]) == (200, "complaints")
    assert state(service, http, url) == "FAILED"
    assert http.post(f"{url}/authorization", json=FORM, headers=writer).json()["verification"] == "PENDING"
    assert state(service, http, url) == "PENDING"


def test_what_is_decided_on_is_what_was_read(service: Service, http: httpx2.Client, url: str) -> None:
    writer, judge = service.headers("writer"), service.headers("authorizer")
    first = http.post(f"{url}/authorization", json=FORM, headers=writer).headers["ETag"]
    second = http.post(f"{url}/authorization", json={**FORM, "unsubscribe": "none"}, headers=writer).headers["ETag"]
    assert http.get(f"{url}/authorization", headers=judge).headers["ETag"] == second != first
    for path, body in (("approve", None), ("reject", {"reason": "no"})):
        late = http.post(f"{url}/authorization/{path}", json=body, headers={**judge, "If-Match": first})
        assert late.status_code == 412
    assert state(service, http, url) == "PENDING"
    approved = http.post(f"{url}/authorization/approve", headers={**judge, "If-Match": second})
    assert (approved.status_code, approved.headers["ETag"]) == (200, second)


def test_every_decision_stays_in_the_evidence(service: Service, http: httpx2.Client, url: str) -> None:
    http.post(f"{url}/authorization", json=FORM, headers=service.headers("writer"))
    for number in range(5):
        http.post(f"{url}/authorization/reject", json={"reason": f"no {number}"}, headers=service.headers("authorizer"))
    told = http.get(f"{url}/checks", headers=service.headers("reader")).json()["checks"]
    assert [each["explanation"] for each in told] == [f"rejected by iam-tester: no {n}" for n in (4, 3, 2, 1, 0)]


def test_long_answers_in_any_script_fit(service: Service, http: httpx2.Client, url: str) -> None:
    texts = (
        "subscriber_list",
        "bounces_and_complaints",
        "unsubscribe",
        "sending_rate",
        "list_cleaning",
        "html_validation",
    )
    body = json.dumps({**FORM, **dict.fromkeys(texts, "Я" * 4000)})  # six octets a letter
    headers = {**service.headers("writer"), "Content-Type": "application/json"}
    assert http.post(f"{url}/authorization", content=body, headers=headers).status_code == 202


def test_verify_reports_and_never_grants(service: Service, http: httpx2.Client, url: str) -> None:
    service.verifier.results = {"en_authorization": Verification.PENDING}
    http.post(f"{url}/authorization", json=FORM, headers=service.headers("writer"))
    answer = http.patch(f"{url}/verify?type=en_authorization", headers=service.headers("writer"))
    assert answer.json() == {"status": [{"type": "en_authorization", "verification": "PENDING"}]}
    assert state(service, http, url) == "PENDING"


WRONG = [
    *((name, {key: value for key, value in FORM.items() if key != name}) for name in FORM),
    ("nature", {**FORM, "nature": "spam"}),
    ("website", {**FORM, "website": "no website"}),
    ("website", {**FORM, "website": ""}),
    ("subscriber_list", {**FORM, "subscriber_list": "  "}),
    ("subscriber_list", {**FORM, "subscriber_list": "a\x00b"}),
    ("unsubscribe", {**FORM, "unsubscribe": 5}),
    ("sending_rate", {**FORM, "sending_rate": 0}),
    ("contacts", {**FORM, "contacts": []}),
    ("contacts", {**FORM, "contacts": [f"p{number}@shop.test" for number in range(5)]}),
    ("contacts", {**FORM, "contacts": ["post@shop.test", "POST@shop.test"]}),
    ("contacts.1", {**FORM, "contacts": ["post@shop.test", "post"]}),
    ("reply_to", {**FORM, "reply_to": "<>"}),
    ("reply_to", {**FORM, "reply_to": "a@b.test\r\nBcc: c@d.test"}),
    ("consent_statement", {**FORM, "consent_statement": False}),
    ("unsubscribe_link_statement", {**FORM, "unsubscribe_link_statement": "true"}),
    ("html_validation", {**FORM, "html_validation": "x" * 4001}),
]


@pytest.mark.parametrize(("names", "body"), WRONG, ids=[f"{number}-{row[0]}" for number, row in enumerate(WRONG)])
def test_a_wrong_answer_is_named(
    service: Service, http: httpx2.Client, url: str, names: str, body: dict[str, object]
) -> None:
    refused = http.post(f"{url}/authorization", json=body, headers=service.headers("writer"))
    assert refused.status_code == 400, refused.text
    assert any(error["target"]["name"].startswith(names) for error in refused.json()["errors"]), refused.text
    assert http.get(f"{url}/authorization", headers=service.headers("reader")).status_code == 404


@pytest.mark.parametrize("rate", [200, "200 an hour"])
def test_the_rate_is_a_number_or_told_in_words(service: Service, http: httpx2.Client, url: str, rate: object) -> None:
    answer = http.post(f"{url}/authorization", json={**FORM, "sending_rate": rate}, headers=service.headers("writer"))
    assert (answer.status_code, answer.json()["sending_rate"]) == (202, rate)


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " "}, {"reason": 5}, {"reason": "x" * 1001}])
def test_a_rejection_has_a_reason(service: Service, http: httpx2.Client, url: str, body: dict[str, object]) -> None:
    http.post(f"{url}/authorization", json=FORM, headers=service.headers("writer"))
    refused = http.post(f"{url}/authorization/reject", json=body, headers=service.headers("authorizer"))
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["target"]["name"] == "reason"
    assert state(service, http, url) == "PENDING"


def test_another_account_sees_none_of_it(service: Service, http: httpx2.Client, url: str) -> None:
    stranger = service.store.tenancy.create_account()
    headers = service.headers("reader", "writer", "manager", "authorizer", account_id=stranger)
    for method, path in (("POST", ""), ("GET", ""), ("POST", "/approve"), ("POST", "/reject")):
        answer = http.request(method, f"{url}/authorization{path}", json=FORM, headers=headers)
        assert answer.status_code == 404, (method, path)
