"""Senders hear what became of their mail: reports on failures, delays and successes, as asked for and to who can read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from support.clients import judged
from support.dsn import Dsn, read_dsn
from support.mailing import advance, submit, zone
from support.postfix import Postfix
from support.receiving import ReceivingPostfix
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
root = pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="only root can start a Postfix")
SENDER = "orders@shop.test"
HOUR = 3600


@pytest.fixture(autouse=True)
def empty_inbox(running: Running) -> Iterator[None]:
    """Each story has the inbox for itself, and its own addresses: one that was refused is suppressed from then on."""
    behave(running)
    running.api.call("DELETE", running.api.sandbox("inbox"))
    yield
    behave(running)


def behave(running: Running, *behaviours: dict[str, Any]) -> None:
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), list(behaviours))


def refuse(running: Running, recipient: str, reply: str = "550 5.1.1 no such mailbox") -> None:
    behave(running, {"recipient": recipient, "at": "rcpt", "reply": reply})


def told(running: Running, queue_id: str, to: str = SENDER) -> tuple[Dsn, str]:
    """Wait for the one report about a message, delivered and well judged; return it and its queue id."""
    found = wait_for(lambda: message(running, queue_id), lambda each: each["reports"])
    (report,) = found["reports"]
    running.settled(report, "delivered")
    items = wait_for(
        lambda: [item for item in judged(running) if item["envelope"] == {"mail_from": "", "rcpt_to": [to]}], bool
    )
    mine = [item for item in items if f"<{report}@shop.test>".encode() in running.raw(item["id"])]
    assert len(mine) == 1
    assert (mine[0]["dkim"]["result"], mine[0]["spf"]["result"]) == ("pass", "pass"), mine[0]
    return read_dsn(running.raw(mine[0]["id"])), report


def message(running: Running, queue_id: str) -> dict[str, Any]:
    return running.api.call("GET", running.api.messages(queue_id))


def untold(running: Running, queue_id: str) -> None:
    """Say that nobody was told of a message that is done with."""
    assert running.settled(queue_id)["reports"] == []
    assert [item for item in running.inbox() if not item["envelope"]["mail_from"]] == []


def test_a_refusal_comes_back_to_the_sender_signed(running: Running) -> None:
    refuse(running, "gone*")
    queue_id = submit(running, "you@customer.test", "gone2@customer.test", subject="the invoice")
    dsn, report = told(running, queue_id)
    assert dsn.message["From"].addresses[0].addr_spec == "MAILER-DAEMON@shop.test"
    (recipient,) = dsn.recipients
    assert recipient["final-recipient"] == "rfc822; gone2@customer.test"
    assert (recipient["action"], recipient["status"]) == ("failed", "5.1.1")
    assert recipient["diagnostic-code"] == "smtp; 550 5.1.1 no such mailbox"
    assert recipient["final-log-id"] == queue_id
    assert '"the invoice"' in dsn.text
    assert "does not exist there" in dsn.text and dsn.returned_type == "text/rfc822-headers"
    assert b"Subject: the invoice\r\n" in dsn.returned and b"Thank you" not in dsn.returned
    about = message(running, report)
    assert (about["origin"], about["parent"], about["username"], about["reverse_path"]) == ("dsn", queue_id, "", "")
    assert about["header_from"] == "MAILER-DAEMON@shop.test"
    original = message(running, queue_id)
    assert ("report", f"sent as {report} to {SENDER}") in [(e["event"], e["detail"]) for e in original["timeline"]]
    assert f"sent as {report} to {SENDER}" in running.outgate("message", "show", queue_id).stdout
    assert f"report about {queue_id}" in running.outgate("message", "show", report).stdout


def test_what_was_asked_for_is_honoured(running: Running) -> None:
    refuse(running, "gone*")
    queue_id = submit(
        running, "gone3@customer.test", mail_options=("RET=FULL", "ENVID=order+2B42"),
        rcpt_options=("NOTIFY=FAILURE", "ORCPT=rfc822;Old+2Bname@elsewhere.test"),
    )  # fmt: skip
    dsn, _ = told(running, queue_id)
    assert dsn.fields["original-envelope-id"] == "order+42"
    assert dsn.recipients[0]["original-recipient"] == "rfc822; Old+name@elsewhere.test"
    assert dsn.returned_type == "message/rfc822" and dsn.returned.endswith(b"\r\n\r\nThank you.\r\n")


def test_who_wants_to_hear_nothing_hears_nothing(running: Running) -> None:
    refuse(running, "gone*")
    for recipient, wish in (
        ("gone4@customer.test", "NEVER"),
        ("gone4@customer.test", "SUCCESS"),
        ("you@customer.test", "FAILURE,DELAY"),
    ):
        untold(running, submit(running, recipient, rcpt_options=(f"NOTIFY={wish}",)))
    null = submit(running, "gone04@customer.test", sender="")
    untold(running, null)


def test_a_success_is_told_by_us_where_the_next_server_cannot(running: Running) -> None:
    dsn, _ = told(running, submit(running, "you@customer.test", rcpt_options=("NOTIFY=SUCCESS,FAILURE",)))
    assert [(r["action"], r["status"]) for r in dsn.recipients] == [("relayed", "2.0.0")]
    assert dsn.message["Subject"] == "Delivery Status Notification (Success)"


def test_a_bounce_of_a_bounce_vanishes(running: Running) -> None:
    behave(
        running,
        {"recipient": "gone*", "at": "rcpt", "reply": "550 5.1.1 no such mailbox"},
        {"recipient": SENDER, "at": "rcpt", "reply": "550 5.1.1 no such mailbox either"},
    )
    queue_id = submit(running, "gone6@customer.test")
    (report,) = wait_for(lambda: message(running, queue_id)["reports"], bool)
    about = running.settled(report, "bounced")
    assert about["reports"] == [] and running.inbox() == []
    found = running.api.call("GET", running.api.messages() + "?limit=1")["messages"]
    assert found[0]["queue_id"] == report  # nothing came after it
    assert "report.undeliverable" in running.log.read_text()


@root
def test_a_real_postfix_reads_our_report(running: Running) -> None:
    """The sender's own server is a Postfix: it takes the report, and its mailbox holds it whole."""
    refuse(running, "gone*")
    port = running.address("inbox")[1]
    postfix = ReceivingPostfix("shop.test", "127.0.0.81", port)
    try:
        postfix.start()
        zone(running, "shop.test", "MX", "10 mx.shop.test.")
        zone(running, "mx.shop.test", "A", "127.0.0.81")
        advance(running, 10)
        submit(running, "gone8@customer.test", sender="ann@shop.test", mail_options=("RET=FULL",))
        (mail,) = wait_for(postfix.mails, bool)
    finally:
        for name, rdtype in (("shop.test", "MX"), ("mx.shop.test", "A")):
            running.api.call("DELETE", running.api.sandbox(f"zone/{name}/{rdtype}"))
        postfix.stop()
    wire = mail.replace(b"\n", b"\r\n")
    dsn = read_dsn(wire.partition(b"\r\n")[2] if wire.startswith(b"From ") else wire)
    assert dsn.recipients[0]["status"] == "5.1.1" and dsn.returned.endswith(b"Thank you.\r\n")
    advance(running, 10)


@root
def test_a_server_that_offers_dsn_is_told_the_wishes_and_reports_itself(running: Running) -> None:
    port = running.address("inbox")[1]
    # Its own reports go back through the inbox's door, where the sender's mailbox is.
    postfix = ReceivingPostfix("dsn.test", "127.0.0.82", port, f"relayhost = [127.0.0.1]:{port}")
    try:
        postfix.start()
        zone(running, "dsn.test", "MX", "10 mx.dsn.test.")
        zone(running, "mx.dsn.test", "A", "127.0.0.82")
        queue_id = submit(
            running, "ann@dsn.test", mail_options=("ENVID=their+2Bid", "RET=HDRS"),
            rcpt_options=("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@dsn.test"),
        )  # fmt: skip
        found = running.settled(queue_id, "delivered")
        said = [step["did"] for attempt in found["attempts"] for step in attempt["conversation"]]
        assert any(
            "RET=HDRS ENVID=their+2Bid" in did and "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@dsn.test" in did
            for did in said
        )
        items = wait_for(lambda: [each for each in judged(running) if not each["envelope"]["mail_from"]], bool)
    finally:
        postfix.stop()
    assert found["reports"] == []
    (item,) = items
    raw = running.raw(item["id"])
    assert item["envelope"]["rcpt_to"] == [SENDER] and b"Reporting-MTA: dns; mx.dsn.test" in raw
    assert b"Original-Envelope-Id: their+id" in raw and b"rfc822;first@dsn.test" in raw.replace(b"; ", b";")


@root
def test_a_postfix_that_hands_us_its_mail_passes_wishes_on_to_us(running: Running) -> None:
    postfix = Postfix(running)
    try:
        postfix.start()
        letter = f"From: Shop <{SENDER}>\nTo: you@customer.test\nSubject: by Postfix\n\nHello\n"
        handed = postfix.command(
            "sendmail", "-oi", "-N", "success", "-V", "by-postfix", "-f", SENDER, "you@customer.test", stdin=letter
        )
        assert handed.returncode == 0, handed.stderr
        items = wait_for(lambda: [each for each in judged(running) if not each["envelope"]["mail_from"]], bool)
        assert "delivery via relay" not in postfix.maillog()
    finally:
        postfix.stop()
    (item,) = items
    dsn = read_dsn(running.raw(item["id"]))
    assert dsn.fields["original-envelope-id"] == "by-postfix" and dsn.recipients[0]["action"] == "relayed"
    assert dsn.recipients[0]["original-recipient"] == "rfc822; you@customer.test"


def test_who_asks_hears_of_a_delay_and_in_the_end_of_the_failure(running: Running) -> None:
    refuse(running, "later@*", "451 4.3.0 come back later")
    queue_id = submit(running, "later@customer.test", rcpt_options=("NOTIFY=DELAY,FAILURE",))
    running.settled(queue_id, "deferred")
    for _ in range(6):
        advance(running, HOUR)
    wait_for(lambda: message(running, queue_id)["reports"], bool)
    dsn, _ = told(running, queue_id)
    assert (dsn.recipients[0]["action"], dsn.recipients[0]["status"]) == ("delayed", "4.3.0")
    assert "will-retry-until" in dsn.recipients[0] and "nothing is lost" in dsn.text
    for _ in range(20):
        advance(running, HOUR)
    found = running.settled(queue_id, "expired")
    assert len(found["reports"]) == 2
    running.settled(found["reports"][1], "delivered")
    texts = [running.raw(item["id"]) for item in judged(running) if not item["envelope"]["mail_from"]]
    last = read_dsn(next(raw for raw in texts if f"<{found['reports'][1]}@".encode() in raw))
    assert (last.recipients[0]["action"], last.recipients[0]["status"]) == ("failed", "4.4.7")
