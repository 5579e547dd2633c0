"""Rules and settings over HTTP: who sets them, what a change leaves alone, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from outgate.model.tenancy import MailRules
from support.api_service import Service, api_service


@pytest.fixture
def url(configuration_url: str) -> str:
    return configuration_url


def test_rules_are_changed_one_at_a_time(service: Service, http: httpx2.Client, url: str) -> None:
    operator = service.headers("operator")
    found = http.get(f"{url}/rules", headers=service.headers("reader")).json()
    untouched = {"per_hour": None, "per_day": None, "over": "refuse", "html": "off", "nature": "", "marketing": None}
    assert {name: found[name] for name in untouched} == untouched and found["unsubscribe_required"] is False

    def change(**values: object) -> dict[str, Any]:
        answer = http.patch(f"{url}/rules", json=values, headers=operator)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert change(per_hour=5, over="hold")["per_hour"] == 5
    after = change(html="warn")
    assert (after["per_hour"], after["over"], after["html"]) == (5, "hold", "warn")
    assert change(marketing=True)["unsubscribe_required"] is True
    after = change(per_hour=None, marketing=None)
    assert after["per_hour"] is None and after["unsubscribe_required"] is False
    assert change(per_hour=7)["over"] == "hold"  # what becomes of mail over a limit outlives the limit
    after = change(per_hour=None)
    assert http.get(f"{url}/rules", headers=operator).json() == after


def test_the_form_says_what_kind_of_mail_it_is(service: Service, http: httpx2.Client, url: str) -> None:
    form = {**FORM_EXAMPLE, "nature": "marketing"}
    assert http.post(f"{url}/authorization", json=form, headers=service.headers("writer")).status_code == 202
    found = http.get(f"{url}/rules", headers=service.headers("reader")).json()
    assert (found["nature"], found["marketing"], found["unsubscribe_required"]) == ("marketing", None, True)
    configuration = service.store.tenancy.configuration_by_domain(service.instance.id, "shop.test")
    assert configuration is not None and configuration.rules == MailRules(nature="marketing")
    after = http.patch(f"{url}/rules", json={"marketing": False}, headers=service.headers("operator")).json()
    assert after["unsubscribe_required"] is False


@pytest.mark.parametrize(
    ("body", "field"),
    [({"over": "hold"}, "over"), ({"over": "hold", "per_hour": None}, "over"), ({"per_hour": True}, "per_hour"), ({"per_day": 5.0}, "per_day"), ({"per_day": 10**30}, "per_day"), ({"per_hour": 0}, "per_hour"), ({"per_day": -1}, "per_day"), ({"per_hour": "5"}, "per_hour"), ({"over": "bounce"}, "over"), ({"html": None}, "html"), ({"marketing": 1}, "marketing")],
)  # fmt: skip
def test_what_cannot_be_set(service: Service, http: httpx2.Client, url: str, body: object, field: str) -> None:
    refused = http.patch(f"{url}/rules", json=body, headers=service.headers("operator"))
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["target"]["name"] == field


def test_only_an_operator_changes_what_customers_are_held_to(service: Service, http: httpx2.Client, url: str) -> None:
    for place, body in ((f"{url}/rules", {"per_hour": 5}), (f"{service.smtp_url}/settings", {"attachments": True})):
        for role in ("reader", "writer", "manager", "authorizer"):
            assert http.patch(place, json=body, headers=service.headers(role)).status_code == 403
        assert http.get(place, headers=service.headers("reader")).status_code == 200
    assert service.store.tenancy.instance(service.instance.id) == service.instance


def test_attachments_of_an_instance(service: Service, http: httpx2.Client) -> None:
    operator, place = service.headers("operator"), f"{service.smtp_url}/settings"
    assert http.get(place, headers=operator).json() == {"instance_id": service.instance.id, "attachments": False}
    assert http.patch(place, json={"attachments": True}, headers=operator).json()["attachments"] is True
    found = service.store.tenancy.instance(service.instance.id)
    assert found is not None and found.attachments
    assert http.patch(place, json={}, headers=operator).status_code == 400


def test_a_configuration_that_is_gone(service: Service, http: httpx2.Client, url: str) -> None:
    http.delete(url, headers=service.headers("writer"))
    assert http.patch(f"{url}/rules", json={"per_hour": 5}, headers=service.headers("operator")).status_code == 404


@pytest.mark.parametrize(
    ("rate", "set_before", "per_hour", "per_day"),
    [(200, {}, 200, None), ("200 an hour", {}, None, None), (200, {"per_day": 50}, None, 50), (200, {"per_hour": 5}, 5, None)],
)  # fmt: skip
def test_a_rate_that_a_person_approves_is_the_quota(
    tmp_path: Path, http: httpx2.Client, rate: object, set_before: dict[str, int], per_hour: object, per_day: object
) -> None:
    with api_service(tmp_path, authorization="manual") as service:
        body = {"name": "Shop", "domain": "shop.test"}
        made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers("writer")).json()
        url = f"{service.smtp_url}/config/{made['id']}"
        if set_before:
            http.patch(f"{url}/rules", json=set_before, headers=service.headers("operator"))
        form = {**FORM_EXAMPLE, "sending_rate": rate}
        assert http.post(f"{url}/authorization", json=form, headers=service.headers("writer")).status_code == 202
        before = http.get(f"{url}/rules", headers=service.headers("reader")).json()
        assert before["per_hour"] == set_before.get("per_hour")
        http.post(f"{url}/authorization/approve", headers=service.headers("authorizer"))
        after = http.get(f"{url}/rules", headers=service.headers("reader")).json()
        assert (after["per_hour"], after["per_day"], after["over"]) == (per_hour, per_day, "refuse")


def test_a_rate_that_is_rejected_is_no_quota(tmp_path: Path, http: httpx2.Client) -> None:
    with api_service(tmp_path, authorization="manual") as service:
        body = {"name": "Shop", "domain": "shop.test"}
        made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers("writer")).json()
        url = f"{service.smtp_url}/config/{made['id']}"
        form = {**FORM_EXAMPLE, "sending_rate": 200}
        assert http.post(f"{url}/authorization", json=form, headers=service.headers("writer")).status_code == 202
        said = http.post(f"{url}/authorization/reject", json={"reason": "x"}, headers=service.headers("authorizer"))
        assert said.status_code == 200, said.text
        assert http.get(f"{url}/rules", headers=service.headers("reader")).json()["per_hour"] is None


def test_quotas_of_those_that_are_there(service: Service, http: httpx2.Client, url: str) -> None:
    http.patch(f"{url}/rules", json={"per_hour": 5}, headers=service.headers("operator"))
    (configuration,) = service.store.tenancy.quotas([url.rpartition("/")[2], "unknown"])
    http.delete(url, headers=service.headers("writer"))
    assert service.store.tenancy.quotas([configuration]) == {}
