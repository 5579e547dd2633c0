"""A domain's records go away and come back: warning, suspension, held mail, restoration; and what is no reason."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from support.running import Running, wait_for
from support.sending_domain import DAY, HOUR, Tenant, advance

pytestmark = pytest.mark.scenario


def refused(tenant: Tenant) -> bool:
    """Say whether the tenant's user may not log in."""
    try:
        tenant.send()
    except smtplib.SMTPAuthenticationError:
        return True
    except smtplib.SMTPResponseException as answer:
        # The login was still right and has just been withdrawn: QUIT is told so.
        return answer.smtp_code == 421
    return False


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
