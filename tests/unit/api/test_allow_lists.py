"""Allow-lists over HTTP: whose they are, what may stand in them, their end, and that nobody writes over another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from outgate.base.clock import rfc3339
from support.api_service import Service, api_service

DAY = 86_400


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("api")) as running:
        yield running


class Account:
    """An account of its own on the running service, with an instance."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.id = service.store.tenancy.create_account()
        self.instance = service.store.tenancy.create_instance(self.id, "eu-de", "mine")

    def call(self, method: str, path: str = "", *, roles: tuple[str, ...] = (), **more: Any) -> httpx2.Response:
        headers = {**self.service.headers(*roles, account_id=self.id), **more.pop("headers", {})}
        url = f"{self.service.cbr_url}/v1/{path or f'allow_lists/{self.instance.id}'}"
        return httpx2.request(method, url, headers=headers, trust_env=False, **more)

    def body(self, *networks: str, days: float = 90, **more: Any) -> dict[str, Any]:
        ends_at = rfc3339(self.service.clock.now() + days * DAY)
        return {"networks": list(networks) or ["192.0.2.0/24"], "ends_at": ends_at, **more}

    def explained(self, address: str) -> dict[str, Any]:
        query = f"explain?account_id={self.id}&address={address}"
        return self.call("GET", query).json()["instances"][0]


@pytest.fixture
def mine(service: Service) -> Account:
    return Account(service)


def test_made_shown_replaced_and_ended(mine: Account) -> None:
    assert mine.call("GET").status_code == 404
    made = mine.call("PUT", json=mine.body("192.0.2.0/24", note="old"))
    assert made.status_code == 201 and made.headers["etag"], made.text
    document = made.json()
    assert document["ends_in_days"] == 90 and document["warning"] == "" and document["ended"] is False
    shown = mine.call("GET")
    assert shown.json() == document and shown.headers["etag"] == made.headers["etag"]
    assert mine.call("GET", f"allow_lists?account_id={mine.id}").json() == {"count": 1, "allow_lists": [document]}
    changed = mine.call("PUT", json=mine.body("192.0.2.7"), headers={"If-Match": made.headers["etag"]})
    assert changed.status_code == 200 and changed.json()["networks"] == ["192.0.2.7"]
    assert changed.json()["created_at"] == document["created_at"] and changed.json()["note"] == ""
    assert mine.explained("192.0.2.7")["smtp"]["decision"] == "Permit"
    assert mine.call("DELETE", headers={"If-Match": made.headers["etag"]}).status_code == 412
    assert mine.call("DELETE").status_code == 204
    assert mine.explained("192.0.2.7")["smtp"]["decision"] == "Deny"
    assert mine.call("DELETE").status_code == 404


def test_nobody_writes_over_what_he_has_not_seen(mine: Account) -> None:
    lost = mine.call("PUT", json=mine.body(), headers={"If-Match": "*"})
    assert lost.status_code == 404
    assert mine.call("PUT", json=mine.body()).status_code == 201
    again = mine.call("PUT", json=mine.body("198.51.100.1"))
    assert again.status_code == 409 and "ETag" in again.json()["errors"][0]["message"]
    assert mine.call("PUT", json=mine.body(), headers={"If-Match": '"other"'}).status_code == 412
    assert mine.call("PUT", json=mine.body("198.51.100.1"), headers={"If-Match": "*"}).status_code == 200


def test_it_is_the_account_s_and_a_manager_s(mine: Account, service: Service) -> None:
    assert mine.call("PUT", json=mine.body(), roles=("writer",)).status_code == 403
    assert mine.call("PUT", json=mine.body()).status_code == 201
    other = Account(service)
    path = f"allow_lists/{mine.instance.id}"
    assert other.call("GET", path).status_code == 404
    assert other.call("DELETE", path).status_code == 404
    for headers in ({}, {"If-Match": "*"}):
        assert other.call("PUT", path, json=mine.body(), headers=headers).status_code == 404
    assert other.call("GET", f"allow_lists?account_id={mine.id}").status_code == 403
    assert other.call("GET", f"allow_lists?account_id={other.id}").json()["count"] == 0
    assert mine.call("GET", roles=("reader",)).status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("192.0.2.7/32", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_one_spelling(mine: Account, given: str, kept: str) -> None:
    assert mine.call("PUT", json=mine.body(given, given)).json()["networks"] == [kept]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("office", "is not an address"),
        ("192.0.2.1/24", "write it as 192.0.2.0/24"),
        ("192.0.2.9-192.0.2.1", "lower first"),
        ("192.0.2.1-2001:db8::1", "of one version"),
        ("fe80::1%lo", "scope"),
        ("::ffff:192.0.2.1", "write 192.0.2.1"),
        ("0.0.0.0/0", "wider than a /8"),
        ("0.0.0.0-255.255.255.255", "wider than a /8"),
        ("10.0.0.0-11.0.0.0", "wider than a /8"),
        ("::/0", "wider than a /16"),
        ("1" * 200, "too long"),
        ("", "is not an address"),
    ],
)
def test_bad_network_is_named(mine: Account, given: str, says: str) -> None:
    refused = mine.call("PUT", json=mine.body("192.0.2.1", given))
    assert refused.status_code == 400
    (problem,) = refused.json()["errors"]
    assert problem["target"]["name"] == "networks[1]" and says in problem["message"]
    assert mine.call("GET").status_code == 404


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"networks": []}, "networks"),
        ({"networks": ["192.0.2.1"] * 1001}, "networks"),
        ({"networks": [1]}, "networks.0"),
        ({"ends_at": None}, "ends_at"),
        ({"ends_at": "2027-01-31"}, "ends_at"),
        ({"ends_at": "2027-01-31T00:00:00"}, "ends_at"),
        ({"ends_at": "2000-01-31T00:00:00Z"}, "ends_at"),
        ({"ends_at": "9999-12-31T23:59:59-23:59"}, "ends_at"),
        ({"note": "x" * 301}, "note"),
    ],
)
def test_bad_list(mine: Account, change: dict[str, Any], names: str) -> None:
    refused = mine.call("PUT", json={**mine.body(), **change})
    assert refused.status_code == 400, refused.text
    assert refused.json()["errors"][0]["target"]["name"] == names


def test_an_end_is_needed_and_within_400_days(mine: Account) -> None:
    body = mine.body()
    del body["ends_at"]
    assert mine.call("PUT", json=body).status_code == 400
    assert mine.call("PUT", json=mine.body(days=400.5)).status_code == 400
    assert mine.call("PUT", json=mine.body(days=399.5)).status_code == 201


def test_it_warns_and_ends_by_itself(mine: Account, service: Service) -> None:
    assert mine.call("PUT", json=mine.body(days=20)).json()["warning"] == ""
    service.clock.advance(7 * DAY)
    warned = mine.call("GET").json()
    assert warned["ends_in_days"] == 13 and warned["warning"].startswith("ends in 13 day(s): name these networks")
    assert mine.explained("192.0.2.1")["allow_list"] == {
        "ends_at": warned["ends_at"],
        "ended": False,
        "holds": True,
        "missing": [],
    }
    service.clock.advance(13 * DAY)
    ended = mine.call("GET").json()
    assert ended["ended"] is True and ended["ends_in_days"] == 0 and ended["warning"].startswith("has ended")
    explained = mine.explained("192.0.2.1")
    assert explained["smtp"]["decision"] == "Deny"
    assert explained["allow_list"]["missing"] == [f"the allow-list ended at {ended['ends_at']}: it grants nothing"]
