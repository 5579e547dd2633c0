"""Key rotation with overlap in a real `outgate dev`: what is accepted before the switch is signed with the former key
whenever it leaves, what comes after with the new one; Ed25519 beside RSA; and when the old record may go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from support.running import Running, wait_for
from support.sending_domain import DAY, HOUR, Tenant, advance

pytestmark = pytest.mark.scenario


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `outgate dev` whose new configurations get an Ed25519 key too."""
    service = Running(tmp_path_factory.mktemp("dev") / "data", "[relay]\ndkim_ed25519 = true\n").start()
    yield service
    assert service.stop() == 0


class Signing:
    """The signing keys of a tenant, by the API."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.api = tenant.running.api

    def shown(self, method: str = "GET", path: str = "dkim") -> list[dict[str, Any]]:
        return self.api.call(method, f"{self.tenant.url}/{path}")["keys"]

    def publish(self, *states: str) -> None:
        for key in self.shown():
            if key["state"] in states:
                self.tenant.zone((key["txt_name"], "TXT"), {"values": [key["txt_value"]], "ttl": 5})

    def selectors(self, state: str) -> list[str]:
        """Return the RSA key's, then the Ed25519 key's."""
        found = {key["algorithm"]: key["selector"] for key in self.shown() if key["state"] == state}
        return [found[algorithm] for algorithm in ("rsa", "ed25519") if algorithm in found]

    def received(self, queue_id: str) -> list[tuple[str, str]]:
        """Return (selector, what dkimpy says) for each signature of a mail in the inbox, the first at the top."""

        def arrived() -> list[dict[str, Any]]:
            items = self.tenant.running.inbox()
            return [
                item
                for item in items
                if item["dkim"]["result"] != "pending" and queue_id.encode() in self.tenant.running.raw(item["id"])
            ]

        (item,) = wait_for(arrived, lambda found: len(found) == 1)
        return [(each["selector"], each["result"]) for each in item["dkim"]["signatures"]]


def passed(selectors: list[str]) -> list[tuple[str, str]]:
    return [(selector, "pass") for selector in selectors]


def later(running: Running, recipient: str) -> None:
    rules = [{"recipient": recipient, "at": "rcpt", "reply": "451 4.7.1 later", "times": 100_000}] if recipient else []
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), rules)


def test_the_laptops_own_domain_signs_with_both_from_the_start(running: Running) -> None:
    found = running.outgate("smtp", "dkim", "show", running.dev["domain"], "--json")
    assert found.returncode == 0, found.stderr
    keys = json.loads(found.stdout)["keys"]
    assert [(key["algorithm"], key["state"], key["verification"]) for key in keys] == [
        ("rsa", "active", "SUCCESSFUL"), ("ed25519", "active", "SUCCESSFUL"),
    ]  # fmt: skip


def test_rotation_with_overlap(running: Running) -> None:
    tenant = Tenant(running, "rotating.test")
    signing = Signing(tenant)
    # The vendor's part of a configuration shows the RSA record; with it alone published, RSA alone signs.
    rsa = signing.selectors("active")
    assert signing.received(tenant.sent()) == passed(rsa)
    signing.publish("next")
    assert tenant.verify("dkim") == {"dkim": "SUCCESSFUL"}
    before = signing.selectors("active")
    assert len(before) == 2 and before[0] == rsa[0]
    assert signing.received(wait_until_signed(tenant, signing, before)) == passed(before)

    # Told what to publish; until it is there, nothing changes.
    vendor = running.api.call("GET", tenant.url)["config"]["dkim"]
    asked = running.outgate("smtp", "dkim", "rotate", tenant.domain)
    assert asked.returncode == 0 and "Publish its record, then verify" in asked.stdout, asked
    following = signing.selectors("next")
    assert len(following) == 2 and not set(following) & set(before)
    for key in signing.shown():
        assert f"{key['txt_name']}. IN TXT" in asked.stdout
    assert tenant.verify("dkim") == {"dkim": "SUCCESSFUL"}
    assert running.api.call("GET", tenant.url)["config"]["dkim"] == vendor
    assert signing.received(tenant.sent()) == passed(before)

    # One that waits while the keys change.
    later(running, "slow@customer.test")
    waiting = tenant.sent("slow@customer.test")
    running.settled(waiting, "deferred")
    signing.publish("next")
    assert tenant.verify("dkim") == {"dkim": "SUCCESSFUL"}
    assert signing.selectors("active") == following and sorted(signing.selectors("retired")) == sorted(before)
    assert running.api.call("GET", tenant.url)["config"]["dkim"]["txt_name"].startswith(following[0])
    assert signing.received(wait_until_signed(tenant, signing, following)) == passed(following)

    later(running, "")
    advance(running, HOUR)
    assert running.settled(waiting)["recipients"][0]["status"] == "delivered"
    assert signing.received(waiting) == passed(before)

    # And when the old records may go.
    retired = [key for key in signing.shown() if key["state"] == "retired"]
    for key in retired:
        overlap = datetime.fromisoformat(key["removable_at"]) - datetime.fromisoformat(key["since"])
        assert overlap.total_seconds() == 15 * DAY + 7 * DAY  # lifetime, the longest hold, and a week
        assert f"Leave its record until {key['removable_at']}" in key["advice"]
    for _ in range(4):
        advance(running, 6 * DAY)
    shown = running.outgate("smtp", "dkim", "show", tenant.domain).stdout
    assert shown.count("nobody needs its record: remove it") == 2
    assert '"event": "dkim.key_destroyed"' in running.log.read_text()
    assert tenant.standing() == ("verified", "")


def wait_until_signed(tenant: Tenant, signing: Signing, selectors: list[str]) -> str:
    """Send until a mail is signed with these keys: open sessions learn of them within a second; return its queue id."""
    found: list[str] = []

    def send() -> list[tuple[str, str]]:
        found.append(tenant.sent())
        return signing.received(found[-1])

    wait_for(send, lambda seen: [selector for selector, _ in seen] == selectors)
    return found[-1]


def test_the_old_record_replaced_by_the_new_one_is_a_switch(running: Running) -> None:
    tenant = Tenant(running, "replaced.test")
    signing = Signing(tenant)
    signing.shown("POST", "dkim/rotate")
    following = signing.selectors("next")
    signing.publish("next")
    tenant.remove(tenant.dkim)
    advance(running, 6 * HOUR)  # nobody asks: the domain is looked at again by itself
    assert signing.selectors("active")[0] in following
    assert tenant.standing() == ("verified", "")
    advance(running, 4 * DAY)
    assert tenant.standing() == ("verified", "")


def test_a_missing_ed25519_record_stops_that_signature_and_nothing_else(running: Running) -> None:
    tenant = Tenant(running, "half.test")
    signing = Signing(tenant)
    signing.publish("next")
    tenant.verify("dkim")
    both = signing.selectors("active")
    wait_until_signed(tenant, signing, both)
    second = next(key for key in signing.shown() if key["algorithm"] == "ed25519")
    tenant.remove((second["txt_name"], "TXT"))
    assert tenant.verify("dkim") == {"dkim": "SUCCESSFUL"}
    wait_until_signed(tenant, signing, both[:1])
    advance(running, 5 * DAY)
    assert tenant.standing() == ("verified", "")
    assert "RSA signature alone" in next(key for key in signing.shown() if key["algorithm"] == "ed25519")["advice"]
