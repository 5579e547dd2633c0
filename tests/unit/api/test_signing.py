"""Signing keys over HTTP: what to publish, what to do with each record, rotation, Ed25519; the vendor's shape stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator
from ibm_eventnotifications.event_notifications_v1 import EventNotificationsV1, SMTPConfiguration

from outgate.api.event_notifications.models import SigningKeys
from outgate.base.clock import rfc3339
from outgate.model.tenancy import Checked, NewStanding, Standing, Verification
from outgate.store.signing_keys import check_name
from support.api_service import Service

KEEP_S = (15 + 7) * 86_400.0


class Dkim:
    """The keys of one configuration over HTTP."""

    def __init__(self, service: Service, http: httpx2.Client) -> None:
        self.service, self.http = service, http
        body = {"name": "Shop", "domain": "shop.test"}
        made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers("writer")).json()
        self.id = made["id"]
        self.url = f"{service.smtp_url}/config/{made['id']}"

    def call(
        self, method: str, path: str = "/dkim", *, status: int = 200, role: str = "writer", body: object = None
    ) -> Any:
        answer = self.http.request(method, self.url + path, json=body, headers=self.service.headers(role))
        assert answer.status_code == status, answer.text
        if status == 200 and path.startswith("/dkim"):
            SigningKeys.model_validate(answer.json())
        return answer.json()

    def states(self) -> list[tuple[str, str]]:
        return [(key["algorithm"], key["state"]) for key in self.call("GET")["keys"]]

    def seen(self) -> None:
        """Have every record of a key in use be seen."""
        store = self.service.store.verification
        found = [
            Checked(check_name(kept), Verification.SUCCESSFUL, "ok", "", key_id=kept.key.id)
            for kept in store.keys_in_use(self.id)
        ]
        store.record([(self.id, found)], lambda *_: NewStanding(Standing.VERIFIED, 1.0, "", None))


@pytest.fixture
def dkim(service: Service) -> Iterator[Dkim]:
    with httpx2.Client(trust_env=False, timeout=60) as http:
        yield Dkim(service, http)


def test_a_new_configuration_has_one_key_whose_record_is_to_be_published(dkim: Dkim) -> None:
    found = dkim.call("GET", role="reader")
    (key,) = found["keys"]
    record = dkim.call("GET", "")["config"]["dkim"]
    assert (key["txt_name"], key["txt_value"], key["verification"]) == tuple(record.values())
    assert (found["ed25519"], found["rotating"], key["state"], key["removable_at"]) == (False, False, "active", None)
    assert "Publish its record" in key["advice"]
    dkim.seen()
    assert dkim.call("GET")["keys"][0]["advice"] == "Signs new mail. Leave its record as it is."


def test_a_rotation_from_its_beginning_to_its_end(dkim: Dkim, service: Service) -> None:
    dkim.seen()
    vendor = dkim.call("GET", "")
    found = dkim.call("POST", "/dkim/rotate")
    active, following = found["keys"]
    assert found["rotating"] and (active["state"], following["state"]) == ("active", "next")
    assert following["txt_name"] != active["txt_name"] and following["txt_value"] != active["txt_value"]
    assert "Publish its record, then verify" in following["advice"] and "Leave the other records" in following["advice"]
    again = dkim.call("GET", "")
    assert again["config"] == vendor["config"]  # what the vendor's clients see does not change until it has to
    dkim.call("POST", "/dkim/rotate", status=409)
    dkim.seen()
    found = dkim.call("GET")
    assert not found["rotating"] and dkim.states() == [("rsa", "active"), ("rsa", "retired")]
    after, retired = found["keys"]
    assert after["txt_name"] == following["txt_name"]
    assert dkim.call("GET", "")["config"]["dkim"] == {
        "txt_name": following["txt_name"], "txt_value": following["txt_value"], "verification": "SUCCESSFUL",
    }  # fmt: skip
    (kept,) = [each for each in service.store.signing_keys.keys(dkim.id) if each.state == "retired"]
    assert retired["removable_at"] == rfc3339(kept.changed_at + KEEP_S)
    assert retired["advice"].startswith(f"Signs no new mail. Leave its record until {retired['removable_at']}")
    service.clock.advance(KEEP_S + 1)
    assert dkim.call("GET")["keys"][1]["advice"].endswith("remove it.")


def test_a_rotation_can_be_cancelled(dkim: Dkim) -> None:
    dkim.call("DELETE", "/dkim/rotate", status=409)
    first = dkim.call("GET")
    dkim.call("POST", "/dkim/rotate")
    assert dkim.call("DELETE", "/dkim/rotate") == first
    assert dkim.call("POST", "/dkim/rotate")["rotating"]


def test_ed25519_is_asked_for_and_given_up(dkim: Dkim) -> None:
    dkim.seen()
    found = dkim.call("PATCH", body={"ed25519": True})
    assert found["ed25519"] and not found["rotating"]
    _, second = found["keys"]
    assert second["state"] == "next" and second["txt_value"].startswith("v=DKIM1; k=ed25519; p=")
    assert len(second["txt_value"]) == len("v=DKIM1; k=ed25519; p=") + 44
    assert "beside the RSA key" in second["advice"]
    dkim.seen()
    dkim.call("POST", "/dkim/rotate")
    assert dkim.states() == [("rsa", "active"), ("ed25519", "active"), ("rsa", "next"), ("ed25519", "next")]
    assert dkim.call("GET", "")["config"]["dkim"]["txt_value"].startswith("v=DKIM1; k=rsa;")
    found = dkim.call("PATCH", body={"ed25519": False})
    assert not found["ed25519"] and found["rotating"]
    assert dkim.states() == [("rsa", "active"), ("rsa", "next"), ("ed25519", "retired")]
    dkim.call("PATCH", body={"ed25519": "maybe"}, status=400)


def test_who_may_only_read_changes_nothing(dkim: Dkim) -> None:
    for method, path, body in (("POST", "/dkim/rotate", None), ("DELETE", "/dkim/rotate", None), ("PATCH", "/dkim", {"ed25519": True})):  # fmt: skip
        dkim.call(method, path, status=403, role="reader", body=body)
    dkim.service.store.tenancy.delete_configuration(dkim.service.instance.id, dkim.id)
    dkim.call("POST", "/dkim/rotate", status=404)


def test_the_vendors_client_reads_a_configuration_in_any_state_of_rotation(dkim: Dkim, service: Service) -> None:
    client = EventNotificationsV1(authenticator=BearerTokenAuthenticator(service.token()))
    client.set_service_url(service.en_url)

    def read() -> SMTPConfiguration:
        answer = client.get_smtp_configuration(instance_id=service.instance.id, id=dkim.id).get_result()
        assert answer.keys() == {"id", "name", "description", "domain", "config", "updated_at"}
        assert answer["config"]["dkim"].keys() == {"txt_name", "txt_value", "verification"}
        return SMTPConfiguration.from_dict(answer)

    dkim.call("PATCH", body={"ed25519": True})
    dkim.seen()
    before = read()
    dkim.call("POST", "/dkim/rotate")
    assert read().config.dkim.to_dict() == before.config.dkim.to_dict()
    dkim.seen()
    assert read().config.dkim.txt_name != before.config.dkim.txt_name
