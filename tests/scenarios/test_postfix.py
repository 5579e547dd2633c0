"""A Postfix whose relayhost is Outgate: its whole queue leaves through us, its own bounces included."""

from __future__ import annotations

import os
import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from outgate.sandbox.tenant import SMTP_API
from support.clients import all_queued, arrived, judged, queued_as
from support.postfix import Postfix
from support.running import Running, wait_for

pytestmark = [
    pytest.mark.scenario,
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can start a Postfix"),
]
FROM = "orders@shop.test"
TO = "you@customer.test"
HOUR = 3600


@pytest.fixture(scope="module")
def postfix(running: Running) -> Iterator[Postfix]:
    """One instance for all tests; when they are done nothing may be left in its queue."""
    instance = Postfix(running)
    try:
        yield instance.start()
        assert instance.queue() == []
        assert not re.findall(r"(?:warning|error|fatal|panic): .*", instance.maillog())
    finally:
        instance.stop()


def letter(subject: str, to: str = TO, body: str = "Thank you.\n") -> bytes:
    return f"From: Shop <{FROM}>\nTo: {to}\nSubject: {subject}\n\n{body}".encode()


def sent(postfix: Postfix, recipient: str) -> str:
    """Wait until Postfix has handed over a mail to `recipient`; return our queue id for it."""
    lines = wait_for(lambda: postfix.lines(recipient), lambda found: any("status=sent" in line for line in found))
    return queued_as(next(line for line in lines if "status=sent" in line))


def bounce_to(running: Running, address: str) -> tuple[dict[str, Any], Any]:
    """Wait for the bounce that an address gets; return the inbox's item and the parsed mail."""
    found = wait_for(
        lambda: [item for item in judged(running) if item["envelope"] == {"mail_from": "", "rcpt_to": [address]}], bool
    )
    assert len(found) == 1, found
    return found[0], message_from_bytes(running.raw(found[0]["id"]), policy=SMTP)


# -- mail ------------------------------------------------------------------------------------------------------


def test_what_sendmail_hands_in(running: Running, postfix: Postfix) -> None:
    """Several recipients, dots at the start of lines, eight bits, and a line longer than SMTP allows."""
    everyone = [TO, "two@customer.test", "three@elsewhere.test"]
    body = ".\n..\n.hidden\nGrüße aus 東京\n" + "x" * 2500 + "\nend\n"
    mime = b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    postfix.sendmail(mime + letter("by sendmail", ", ".join(everyone), body), FROM, *everyone)
    ids = {sent(postfix, recipient) for recipient in everyone}
    (queue_id,) = ids  # one transaction for all of them
    running.settled(queue_id)
    got = [item for item in judged(running) if item["subject"] == "by sendmail"]
    assert {address for item in got for address in item["envelope"]["rcpt_to"]} == set(everyone)
    for item in got:
        assert (item["spf"]["result"], item["dkim"]["result"]) == ("pass", "pass")
        raw = running.raw(item["id"])
        text = raw.partition(b"\r\n\r\n")[2].decode()
        assert text.startswith(".\r\n..\r\n.hidden\r\nGrüße aus 東京\r\n") and text.endswith("x\r\nend\r\n")
        assert max(len(line) for line in raw.split(b"\r\n")) <= 998  # Postfix breaks it, so that we need not refuse
        assert re.sub(r"\s", "", text).count("x") == 2500


def test_what_smtp_hands_in_with_addresses_in_utf8(running: Running, postfix: Postfix) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"Shop <{FROM}>", "jörg@bücher.test", "Grüße"
    message.set_content("Hallo, Jörg\n", cte="8bit")
    with smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as client:
        assert client.send_message(message) == {}
    item, raw = arrived(running, sent(postfix, "jörg@bücher.test"))
    assert item["envelope"]["rcpt_to"][0].startswith("jörg@")
    assert raw.endswith("\r\n\r\nHallo, Jörg\r\n".encode())


def test_more_recipients_than_a_message_may_have(running: Running, postfix: Postfix) -> None:
    """Postfix asks for no more than 50 at once: 60 become two messages."""
    everyone = [f"you{number}@customer.test" for number in range(60)]
    postfix.sendmail(letter("to sixty"), FROM, *everyone)
    queue_ids = {sent(postfix, recipient) for recipient in everyone}
    counts = sorted(len(running.settled(queue_id)["recipients"]) for queue_id in queue_ids)
    assert sum(counts) == 60 and counts[-1] == 50


def test_tls_from_the_start(running: Running, postfix: Postfix) -> None:
    postfix.sendmail(letter("wrapped"), FROM, "you@implicit.test")
    queue_id = sent(postfix, "you@implicit.test")
    arrived(running, queue_id)
    assert running.api.call("GET", running.api.messages(queue_id))["client"]["listener"] == "submissions"


def test_a_whole_burst(running: Running, postfix: Postfix) -> None:
    for number in range(20):
        postfix.sendmail(letter(f"burst {number}"), FROM, f"burst{number}@customer.test")
    queue_ids = {sent(postfix, f"burst{number}@customer.test") for number in range(20)}
    assert len(queue_ids) == 20
    for queue_id in queue_ids:
        assert running.settled(queue_id)["recipients"][0]["status"] == "delivered"


# -- its bounces -----------------------------------------------------------------------------------------------


def test_a_refused_message_comes_back(running: Running, postfix: Postfix) -> None:
    """The bounce has a null sender, and the attachment in it: that is what a report may carry."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "with-file@shop.test", TO, "the bill"
    message.set_content("See there.\n")
    message.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="bill.pdf")
    postfix.sendmail(message.as_bytes(), "with-file@shop.test", TO)
    item, report = bounce_to(running, "with-file@shop.test")
    assert (item["spf"]["result"], item["dkim"]["result"]) == ("pass", "pass"), (item["helo"], item["spf"])
    assert item["dkim"]["domain"] == "shop.test" and item["spf"]["identity"] == "helo"
    assert report["From"].addresses[0].addr_spec == "MAILER-DAEMON@shop.test"
    assert report.get_content_type() == "multipart/report"
    told, status, original = report.iter_parts()
    assert "554 5.7.1 Attachments are not allowed" in re.sub(r"\s+", " ", told.get_content())
    fields = status.get_payload()[1]
    assert (fields["Action"], fields["Status"]) == ("failed", "5.7.1")
    assert original.get_content_type() == "message/rfc822"
    assert original.get_content()["Subject"] == "the bill"
    assert next(original.get_content().iter_attachments()).get_filename() == "bill.pdf"


def test_a_refused_recipient_comes_back_and_the_others_do_not(running: Running, postfix: Postfix) -> None:
    postfix.sendmail(letter("to a literal"), "literal@shop.test", "fine@customer.test", "root@[192.0.2.1]")
    arrived(running, sent(postfix, "fine@customer.test"))
    _, report = bounce_to(running, "literal@shop.test")
    told = next(report.iter_parts()).get_content()
    assert "<root@[192.0.2.1]>" in told and "fine@customer.test" not in told
    assert "553 5.1.2 That address is not delivered to" in re.sub(r"\s+", " ", told)


def test_a_sender_of_another_domain_is_told_so(running: Running, postfix: Postfix) -> None:
    postfix.sendmail(letter("borrowed"), "ceo@elsewhere.test", TO)
    _, report = bounce_to(running, "ceo@elsewhere.test")
    told = re.sub(r"\s+", " ", next(report.iter_parts()).get_content())
    assert "550 5.7.1 Sender address is not in a verified domain of this user" in told


# -- what is not for ever --------------------------------------------------------------------------------------


@contextmanager
def another_network_demanded(running: Running) -> Iterator[None]:
    """Add a rule to the tenant's own: all that apply must allow."""
    api, dev = running.api, running.dev
    zone = api.call(
        "POST",
        api.restrictions("v1/zones"),
        {
            "name": "Elsewhere",
            "account_id": dev["account_id"],
            "addresses": [{"type": "ipAddress", "value": "192.0.2.1"}],
        },
    )
    attributes = [
        {"name": "accountId", "value": dev["account_id"]},
        {"name": "serviceName", "value": "event-notifications"},
    ]
    rule = api.call(
        "POST",
        api.restrictions("v1/rules"),
        {
            "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone["id"]}]}],
            "resources": [{"attributes": attributes}],
            "operations": {"api_types": [{"api_type_id": SMTP_API}]},
        },
    )
    yield
    api.call("DELETE", api.restrictions(f"v1/rules/{rule['id']}"))
    wait_for(lambda: greeting(running), lambda said: said.startswith("220 "))


def greeting(running: Running) -> str:
    with smtplib.SMTP(timeout=30) as client:
        code, text = client.connect(*running.address("submission"))
        return f"{code} {text.decode()}"


def test_while_access_is_withdrawn_mail_waits(running: Running, postfix: Postfix) -> None:
    """Postfix takes a 554 in place of a greeting for a server that is away, not for a verdict on the mail."""
    with another_network_demanded(running):
        wait_for(lambda: greeting(running), lambda said: said == "554 5.7.1 Access denied")
        postfix.sendmail(letter("withdrawn"), "withdrawn@shop.test", "waiting@customer.test")
        assert "554 5.7.1 Access denied" in postfix.deferred("withdrawn@shop.test")
    postfix.flush()
    arrived(running, sent(postfix, "waiting@customer.test"))


def test_while_the_domain_is_suspended_mail_waits(running: Running, postfix: Postfix) -> None:
    api, zone = running.api, running.api.sandbox(f"zone/{running.dev['domain']}/TXT")
    record = api.call("GET", api.configurations(running.dev["smtp_config_id"]))["config"]["spf"]["txt_value"]
    api.call("PUT", zone, {"values": [], "ttl": 5})
    for hours in (6, 72):
        api.call("POST", api.sandbox("clock"), {"advance_s": hours * HOUR})
    postfix.sendmail(letter("suspended"), "suspended@shop.test", "patient@customer.test")
    why = postfix.deferred("suspended@shop.test")
    assert "450 4.7.1 Sending for the domain is suspended: its SPF fails" in why
    api.call("PUT", zone, {"values": [record], "ttl": 5})
    api.call("POST", api.sandbox("clock"), {"advance_s": HOUR})
    postfix.flush()
    arrived(running, sent(postfix, "patient@customer.test"))


def test_a_password_that_is_rotated_away_bounces_nothing(running: Running, postfix: Postfix) -> None:
    """A failed login is for Postfix a reason to wait: its administrator has time to put the new one in."""
    api, dev = running.api, running.dev
    users = f"{api.configurations(dev['smtp_config_id'])}/users"
    fresh = api.call("POST", users, {})
    postfix.log_in_anew(fresh["username"], "wrong")
    postfix.sendmail(letter("rotated"), "rotated@shop.test", "later@customer.test")
    assert "535 5.7.8 Authentication credentials invalid" in postfix.deferred("rotated@shop.test")
    postfix.log_in_anew(fresh["username"], fresh["password"])
    postfix.flush()
    arrived(running, sent(postfix, "later@customer.test"))


def test_the_queue_is_empty_and_all_that_left_went_through_us(running: Running, postfix: Postfix) -> None:
    wait_for(postfix.queue, lambda left: not left)
    handed_over = [line for line in postfix.maillog().splitlines() if "status=sent" in line]
    assert handed_over
    for line in handed_over:
        assert "relay=127.0.0.1[127.0.0.1]" in line and len(all_queued(line)) == 1, line
