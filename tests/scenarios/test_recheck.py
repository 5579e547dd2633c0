"""A domain's records go away and come back: warning, suspension, held mail, restoration; and what is no reason."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
HOUR = 3600
DAY = 24 * HOUR


class Tenant:
    """One verified domain of its own, with a user, in a running laptop mode."""

    def __init__(self, running: Running, domain: str) -> None:
        self.running, self.domain = running, domain
        api = running.api
        made = api.call("POST", api.configurations(), {"name": domain, "domain": domain})
        self.url = f"{api.configurations()}/{made['id']}"
        self.records = {
            (domain, "A"): "127.0.0.1",
            (made["config"]["spf"]["txt_name"], "TXT"): made["config"]["spf"]["txt_value"],
            (made["config"]["dkim"]["txt_name"], "TXT"): made["config"]["dkim"]["txt_value"],
        }
        self.dkim = (made["config"]["dkim"]["txt_name"], "TXT")
        self.spf = (domain, "TXT")
        self.a = (domain, "A")
        for record in self.records:
            self.publish(record)
        assert self.verify() == {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL", "en_authorization": "SUCCESSFUL"}
        self.user = api.call("POST", f"{self.url}/users", {})

    def publish(self, record: tuple[str, str]) -> None:
        self.zone(record, {"values": [self.records[record]], "ttl": 5})

    def remove(self, record: tuple[str, str]) -> None:
        self.zone(record, {"values": [], "ttl": 5})

    def zone(self, record: tuple[str, str], body: dict[str, Any]) -> None:
        name, rdtype = record
        self.running.api.call("PUT", self.running.api.sandbox(f"zone/{name}/{rdtype}"), body)

    def verify(self, types: str = "spf,dkim,en_authorization") -> dict[str, str]:
        answer = self.running.api.call("PATCH", f"{self.url}/verify?type={types}")
        return {each["type"]: each["verification"] for each in answer["status"]}

    def checks(self) -> dict[str, Any]:
        return self.running.api.call("GET", f"{self.url}/checks?limit=100")

    def standing(self) -> tuple[str, str]:
        found = self.checks()
        return found["standing"], found["failing"]

    def send(self, recipient: str = "you@customer.test") -> tuple[int, str]:
        """Send a mail; return code and text of the answer to its content."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = f"shop@{self.domain}", recipient, "a letter"
        message.set_content("Hello.\n")
        host, port = self.running.address("submission")
        context = ssl.create_default_context(cafile=self.running.dev["ca_file"])
        with smtplib.SMTP(host, port, timeout=30) as client:
            client.starttls(context=context)
            client.login(self.user["username"], self.user["password"])
            client.mail(f"shop@{self.domain}")
            client.rcpt(recipient)
            code, text = client.data(message.as_string())
        return code, text.decode()

    def sent(self, recipient: str = "you@customer.test") -> str:
        """Send a mail that is accepted; return its queue id."""
        code, text = self.send(recipient)
        assert code == 250, text
        return text.rpartition(" ")[2]

    def status(self, queue_id: str) -> str:
        found = self.running.api.call("GET", self.running.api.messages(queue_id))
        return found["recipients"][0]["status"]


def refused(tenant: Tenant) -> bool:
    """Say whether the tenant's user may not log in."""
    try:
        tenant.send()
    except smtplib.SMTPAuthenticationError:
        return True
    return False


def advance(running: Running, seconds: float) -> None:
    running.api.call("POST", running.api.sandbox("clock"), {"advance_s": seconds})


@pytest.fixture
def slow(running: Running) -> Iterator[Running]:
    """Have every server say "later" while a test runs."""
    api = running.api
    later = [{"recipient": "*", "at": "rcpt", "reply": "451 4.7.1 later", "times": 100_000}]
    api.call("PUT", api.sandbox("inbox/behaviour"), later)
    yield running
    api.call("PUT", api.sandbox("inbox/behaviour"), [])


@pytest.mark.parametrize(("check", "says"), [("dkim", "DKIM"), ("spf", "SPF"), ("a", "A record")])
def test_warned_suspended_and_restored(running: Running, check: str, says: str) -> None:
    tenant = Tenant(running, f"{check}-gone.test")
    record = getattr(tenant, check)
    advance(running, 6 * HOUR)
    assert tenant.standing() == ("verified", "")
    tenant.remove(record)
    advance(running, 6 * HOUR)
    assert tenant.standing() == ("warning", check)
    warned = tenant.checks()
    assert warned["suspends_at"] > warned["standing_since"]
    assert running.settled(tenant.sent())["recipients"][0]["status"] == "delivered"
    advance(running, 71 * HOUR)
    assert tenant.standing() == ("warning", check)
    tenant.sent()
    advance(running, HOUR)
    assert tenant.standing() == ("suspended", check)
    code, text = tenant.send()
    assert (code, text) == (450, f"4.7.1 Sending for the domain is suspended: its {says} fails")
    told = running.log.read_text()
    assert record[0] in told and '"event": "domain.suspended"' in told
    tenant.publish(record)
    advance(running, HOUR)
    assert tenant.standing() == ("verified", "")
    assert running.settled(tenant.sent())["recipients"][0]["status"] == "delivered"
    results = [each["result"] for each in tenant.checks()["checks"] if each["type"] == check]
    assert results[0] == results[-1] and results[1] != results[0]  # what it was, what it became, what it is again
    asked = next(each for each in tenant.checks()["checks"] if each["type"] == check)["asked"]
    assert asked[0]["name"] == record[0] and asked[0]["at"] and asked[0]["servers"][0]["status"] == "ok"


def test_mail_is_held_and_released(slow: Running) -> None:
    tenant = Tenant(slow, "held.test")
    tenant.remove(tenant.dkim)
    advance(slow, 6 * HOUR)
    advance(slow, 66 * HOUR)
    queue_id = tenant.sent()
    slow.settled(queue_id, "deferred")
    advance(slow, 6 * HOUR)
    assert tenant.standing() == ("suspended", "dkim")
    slow.settled(queue_id, "held")
    advance(slow, 5 * DAY)  # its lifetime is a day, and stands still
    assert tenant.status(queue_id) == "held"
    slow.api.call("PUT", slow.api.sandbox("inbox/behaviour"), [])
    tenant.publish(tenant.dkim)
    advance(slow, HOUR)
    assert tenant.standing() == ("verified", "")
    found = slow.settled(queue_id)
    assert found["recipients"][0]["status"] == "delivered"
    told = [(each["event"], each["detail"]) for each in found["timeline"]]
    assert any(event == "held" and "suspended" in detail for event, detail in told), told
    assert any("released" in detail for _, detail in told), told
    shown = slow.outgate("message", "show", queue_id).stdout
    assert "held" in shown and "released" in shown


def test_mail_that_is_held_for_fourteen_days_expires(slow: Running) -> None:
    tenant = Tenant(slow, "forgotten.test")
    queue_id = tenant.sent()
    slow.settled(queue_id, "deferred")
    slow.api.call("DELETE", tenant.url)
    slow.settled(queue_id, "held")
    advance(slow, 14 * DAY - HOUR)
    assert tenant.status(queue_id) == "held"
    advance(slow, HOUR + 60)
    assert tenant.status(queue_id) == "expired"


def test_a_withdrawn_authorisation_holds_too(slow: Running) -> None:
    tenant = Tenant(slow, "withdrawn.test")
    queue_id = tenant.sent()
    slow.settled(queue_id, "deferred")
    slow.api.call("POST", f"{tenant.url}/authorization/reject", {"reason": "complaints"})
    slow.settled(queue_id, "held")
    code, text = tenant.send()
    assert (code, text) == (450, "4.7.1 The domain's authorisation is not verified")
    assert tenant.verify("en_authorization") == {"en_authorization": "FAILED"}
    shown = slow.outgate("smtp", "authorization", "show", tenant.domain)
    assert "complaints" in shown.stdout


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "DROP"])
def test_a_resolvers_failure_is_never_the_domains(running: Running, rcode: str) -> None:
    tenant = Tenant(running, f"{rcode.lower()}.test")
    for record in tenant.records:
        tenant.zone(record, {"rcode": rcode})
    for _ in range(2):
        advance(running, 9 * DAY)
        assert tenant.standing() == ("verified", "")
    assert running.settled(tenant.sent())["recipients"][0]["status"] == "delivered"
    assert tenant.verify("spf,dkim") == {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL"}
    latest = {each["type"]: each["result"] for each in reversed(tenant.checks()["checks"])}
    assert {latest["a"], latest["spf"], latest["dkim"]} == {"temperror"}


def test_check_now_of_a_verified_domain_warns_and_does_not_cut_it_off(running: Running) -> None:
    tenant = Tenant(running, "now.test")
    tenant.remove(tenant.spf)
    assert tenant.verify("spf") == {"spf": "FAILED"}
    assert tenant.standing() == ("warning", "spf")
    tenant.sent()
    tenant.publish(tenant.spf)
    assert tenant.verify("spf") == {"spf": "SUCCESSFUL"}
    assert tenant.standing() == ("verified", "")


def test_deleting_a_user_stops_new_mail_only(slow: Running) -> None:
    tenant = Tenant(slow, "nobody.test")
    queue_id = tenant.sent()
    slow.settled(queue_id, "deferred")
    slow.api.call("DELETE", f"{tenant.url}/users/{tenant.user['id']}")
    slow.api.call("PUT", slow.api.sandbox("inbox/behaviour"), [])
    wait_for(lambda: refused(tenant), lambda is_refused: is_refused)  # within a second
    advance(slow, HOUR)
    assert slow.settled(queue_id)["recipients"][0]["status"] == "delivered"
