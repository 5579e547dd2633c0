"""The command line against a real `outgate dev`."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from outgate.connection import Api, Refusal
from support.running import Running

pytestmark = pytest.mark.scenario


def api_of(running: Running, api_key: str) -> Api:
    """Return calls with a token that is got for an API key."""
    form = urlencode({"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": api_key}).encode()
    status, body = running.status(
        "POST",
        f"{running.dev['identity_url']}/identity/token",
        form,
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert status == 200, body
    return Api(running.dev | {"token": json.loads(body)["access_token"]})


def status_of(api: Api, method: str, url: str, body: object = None) -> int:
    try:
        api.call(method, url, body)
    except Refusal as refused:
        return refused.status
    return 200


def outgate(running: Running, *arguments: str, code: int = 0) -> str:
    done = running.outgate(*arguments)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_a_key_may_what_its_role_may_until_it_is_deleted(running: Running) -> None:
    clear = outgate(running, "key", "create", "report", "--role", "reader", "--expires", "90d").strip()
    (made,) = [
        key for key in json.loads(outgate(running, "key", "list", "--json"))["apikeys"] if key["name"] == "report"
    ]
    api = api_of(running, clear)
    assert status_of(api, "GET", api.configurations()) == 200
    assert status_of(api, "GET", api.environment("variables")) == 200
    body: dict[str, Any] = {"name": "Mine", "domain": "mine.test"}
    assert status_of(api, "POST", api.configurations(), body) == 403
    assert status_of(api, "POST", api.identity("v1/apikeys"), {"name": "more"}) == 403
    assert status_of(api, "POST", api.environment("runtime"), {"service": "author"}) == 403
    assert "void" in outgate(running, "key", "delete", made["id"])
    for url in (api.configurations(), api.environment("variables"), api.identity("v1/apikeys"), api.sandbox("inbox")):
        assert status_of(api, "GET", url) == 401
    assert "there is no API key" in outgate(running, "key", "show", made["id"], code=1)
    assert clear not in running.log.read_text()


def test_a_key_ends_with_its_date(running: Running) -> None:
    clear = outgate(running, "key", "create", "short", "--expires", "30m").strip()
    api = api_of(running, clear)
    assert status_of(api, "GET", api.configurations()) == 200
    running.api.call("POST", running.api.sandbox("clock"), {"advance_s": 1801})
    assert status_of(api, "GET", api.configurations()) == 401


def test_why_an_address_may_send_or_not(running: Running) -> None:
    assert "SMTP: Permit" in outgate(running, "access", "explain", "127.0.0.1")
    stranger = outgate(running, "access", "explain", "127.66.0.1", code=1)
    assert "SMTP: Deny" in stranger and "excludes 127.66.0.1" in stranger
    assert "Loopback" in outgate(running, "access", "zones")
    assert "enabled" in outgate(running, "access", "rules")


def test_a_domain_from_its_records_to_a_new_password(running: Running) -> None:
    domain = running.dev["domain"]
    shown = outgate(running, "smtp", "show", domain)
    assert f"{domain}. IN TXT " in shown and "verified" in shown
    assert "SUCCESSFUL" in outgate(running, "smtp", "verify", domain)
    assert "spf" in outgate(running, "smtp", "checks", domain)
    assert domain in outgate(running, "smtp", "list")
    (user,) = json.loads(outgate(running, "smtp", "users", domain, "--json"))["users"]
    assert user["username"] == running.dev["smtp_user"]
    assert len(outgate(running, "smtp", "rotate", domain, user["id"], "--overlap", "24h").strip()) >= 20


def test_a_check_that_fails_ends_with_one(running: Running) -> None:
    running.api.call("POST", running.api.configurations(), {"name": "Bare", "domain": "bare.test"})
    said = outgate(running, "smtp", "verify", "bare.test", "--type", "dkim", code=1)
    assert "FAILED" in said and "dkim" in said


def test_wrong_use(running: Running) -> None:
    assert "none.test" in outgate(running, "smtp", "show", "none.test", code=1)
    assert "--type" in outgate(running, "smtp", "verify", "bare.test", "--type", "mx", code=2)
    assert "No such command" in outgate(running, "key", "mint", code=2)
    assert "dev.json" in outgate(running, "key", "list", "--data", "/nowhere", code=3)
