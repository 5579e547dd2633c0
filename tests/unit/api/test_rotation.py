"""Rotate a credential: a new password, shown once; the one before good for as long as was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from outgate.model.tenancy import Sender
from outgate.relay import passwords
from outgate.relay.credentials import Credentials
from support.api_service import Service


@pytest.fixture
def credentials(service: Service) -> Iterator[Credentials]:
    made = Credentials(service.store.tenancy, service.store.identity, service.clock)
    yield made
    made.close()


def login(credentials: Credentials, username: str, password: str) -> Sender | None:
    known = credentials.remembered(username, password)
    if known is not None:
        return known
    found: list[Sender | None] = []
    done = threading.Event()

    def took(sender: Sender | None, error: Exception | None) -> None:
        assert error is None
        found.append(sender)
        done.set()

    credentials.check(username, password, took)
    assert done.wait(30)
    return found[0]


def configure(service: Service, http: httpx2.Client, domain: str) -> str:
    body = {"name": "n", "domain": domain}
    made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers()).json()
    return f"{service.smtp_url}/config/{made['id']}/users"


def test_both_passwords_are_good_for_the_overlap(
    service: Service, http: httpx2.Client, credentials: Credentials
) -> None:
    headers = service.headers("writer")
    users = configure(service, http, "shop.test")
    user = http.post(users, json={}, headers=headers).json()
    name, old = user["username"], user["password"]
    session = login(credentials, name, old)
    assert session is not None

    answer = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 3600}, headers=headers)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    rotated = answer.json()
    new = rotated["password"]
    assert (rotated["id"], rotated["username"]) == (user["id"], name)
    assert new != old
    assert rotated["former_valid_until"] > rotated["updated_at"]
    assert "password" not in http.get(f"{users}/{user['id']}", headers=headers).json()

    credentials.forget()
    assert login(credentials, name, new) is not None
    assert login(credentials, name, old) is not None
    assert credentials.current(session) is not None
    assert login(credentials, name, "neither") is None
    service.clock.advance(3601)
    assert login(credentials, name, new) is not None
    assert login(credentials, name, old) is None
    assert credentials.current(session) is None


def test_a_wrong_password_costs_one_computation_also_while_two_are_good(
    service: Service, http: httpx2.Client, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time must not tell which names exist."""
    computed: list[bytes] = []
    compute = passwords._compute

    def counted(secret: bytes, like: Any) -> bytes:
        computed.append(secret)
        return compute(secret, like)

    monkeypatch.setattr(passwords, "_compute", counted)
    headers = service.headers("writer")
    users = configure(service, http, "shop.test")
    user = http.post(users, json={}, headers=headers).json()
    known: set[str] = set()
    for _ in range(2):  # the second rotation's salt is still the first one's
        rotated = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 60}, headers=headers).json()
        for name, password, right in (
            (user["username"], "wrong", False),
            ("zzzzzzzzzzzzzzzzzz00", "wrong", False),
            (user["username"], rotated["password"], True),
            (user["username"], user["password"], True),
        ):
            computed.clear()
            assert (login(credentials, name, password) is not None) is right
            assert len(computed) == (0 if right and password in known else 1)
            known.add(password)
        user["password"] = rotated["password"]
        service.clock.advance(61)
        credentials.forget()
    http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 0}, headers=headers)
    found = service.store.tenancy.credential(user["username"])
    assert found is not None and found[0].former_verifier is None


def test_a_second_rotation_waits_for_the_first(service: Service, http: httpx2.Client, credentials: Credentials) -> None:
    """A repeated call must not end the password that was promised to stay good."""
    headers = service.headers("writer")
    users = configure(service, http, "shop.test")
    user = http.post(users, json={}, headers=headers).json()
    first = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 3600}, headers=headers).json()
    again = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 60}, headers=headers)
    assert again.status_code == 409
    assert again.json()["errors"][0]["target"]["name"] == "overlap_s"
    assert login(credentials, user["username"], user["password"]) is not None
    assert login(credentials, user["username"], first["password"]) is not None
    cut = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 0}, headers=headers).json()
    credentials.forget()
    assert login(credentials, user["username"], user["password"]) is None
    assert login(credentials, user["username"], first["password"]) is None
    assert login(credentials, user["username"], cut["password"]) is not None
    assert http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 60}, headers=headers).status_code == 200


def test_without_overlap_the_old_one_ends_at_once(
    service: Service, http: httpx2.Client, credentials: Credentials
) -> None:
    headers = service.headers("writer")
    users = configure(service, http, "shop.test")
    user = http.post(users, json={}, headers=headers).json()
    rotated = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": 0}, headers=headers).json()
    assert rotated["former_valid_until"] is None
    assert login(credentials, user["username"], user["password"]) is None
    assert login(credentials, user["username"], rotated["password"]) is not None


def test_a_clone_rotates_with_it(service: Service, http: httpx2.Client, credentials: Credentials) -> None:
    headers = service.headers("writer")
    shop, blog = configure(service, http, "shop.test"), configure(service, http, "blog.test")
    user = http.post(shop, json={}, headers=headers).json()
    clone = http.post(f"{blog}?username_to_clone={user['username']}", json={}, headers=headers).json()
    rotated = http.post(f"{blog}/{clone['id']}/rotate", headers=headers).json()
    sender = login(credentials, user["username"], rotated["password"])
    assert sender is not None and set(sender.configurations) == {"shop.test", "blog.test"}
    assert login(credentials, user["username"], user["password"]) is not None  # a day, if nothing is said


@pytest.mark.parametrize("overlap", [-1, 604_801, "1 day", 1.5, True, None])
def test_a_wrong_overlap_is_named(service: Service, http: httpx2.Client, overlap: object) -> None:
    users = configure(service, http, "shop.test")
    user = http.post(users, json={}, headers=service.headers()).json()
    answer = http.post(f"{users}/{user['id']}/rotate", json={"overlap_s": overlap}, headers=service.headers())
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["target"]["name"] == "overlap_s"


def test_an_unknown_user_is_404(service: Service, http: httpx2.Client) -> None:
    users = configure(service, http, "shop.test")
    assert http.post(f"{users}/nobody/rotate", headers=service.headers()).status_code == 404
