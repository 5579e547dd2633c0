"""Mail that goes to a real Postfix: taken, refused, put off, and told what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import dkim
import pytest

from support.mailing import advance, submit, zone
from support.receiving import ReceivingPostfix
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
DOMAIN = "big.example"
SETTINGS = """\
smtpd_recipient_restrictions = check_recipient_access inline:{ { later@big.example = 450 4.2.0 Greylisted, come back later }, { full@big.example = 452 4.2.2 Mailbox full } }, reject_unauth_destination
message_size_limit = 20000
smtpd_recipient_limit = 3
smtpd_recipient_overshoot_limit = 1
"""


@pytest.fixture(scope="module")
def postfix(running: Running) -> Iterator[ReceivingPostfix]:
    server = ReceivingPostfix(DOMAIN, "127.0.9.1", running.address("inbox")[1], SETTINGS)
    try:
        yield server.start()
        assert not re.findall(r"(?:error|fatal|panic): .*", server.log())
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def names(running: Running, postfix: ReceivingPostfix) -> None:
    zone(running, DOMAIN, "MX", f"10 mx.{DOMAIN}.")
    zone(running, f"mx.{DOMAIN}", "A", postfix.address)


def taken(postfix: ReceivingPostfix, subject: str, copies: int = 1) -> list[bytes]:
    """Wait until that many mails of this subject lie in the mailbox."""
    return wait_for(
        lambda: [mail for mail in postfix.mails() if f"Subject: {subject}\n".encode() in mail],
        lambda found: len(found) >= copies,
    )


def test_it_is_taken_over_tls_and_its_signature_holds(running: Running, postfix: ReceivingPostfix) -> None:
    found = running.settled(submit(running, f"ann@{DOMAIN}", subject="taken", body="one\r\n.two  dots\r\n\r\n\r\n"))
    (attempt,) = found["attempts"]
    assert attempt["outcomes"][0]["status"] == "delivered"
    assert attempt["host"] == f"mx.{DOMAIN}" and attempt["tls"].startswith("TLSv1.3")
    (mail,) = taken(postfix, "taken")
    assert b"one\n.two  dots\n" in mail
    assert re.search(rb"using TLSv1.3 with cipher", mail)

    def record(name: bytes, timeout: int = 5) -> bytes:
        dev = running.dev
        key = running.api.call("GET", running.api.configurations(f"{dev['smtp_config_id']}"))["config"]["dkim"]
        return key["txt_value"].encode() if name.rstrip(b".") == key["txt_name"].encode() else b""

    assert dkim.verify(mail.replace(b"\n", b"\r\n"), dnsfunc=record)


def test_recipients_share_a_transaction_and_each_has_its_own_outcome(
    running: Running, postfix: ReceivingPostfix
) -> None:
    people = [f"ann@{DOMAIN}", f"nobody@{DOMAIN}", f"later@{DOMAIN}"]
    queue_id = submit(running, *people, subject="three")
    found = running.settled(queue_id, "delivered", "bounced", "deferred")
    states = {each["mailbox"]: (each["status"], each["reason"]) for each in found["recipients"]}
    assert states == {
        people[0]: ("delivered", "accepted"),
        people[1]: ("bounced", "bad-mailbox"),
        people[2]: ("deferred", "greylisted"),
    }
    (attempt,) = found["attempts"]
    assert [each["reply"] for each in attempt["conversation"] if "RCPT" in each["did"]]
    taken(postfix, "three")


def test_what_is_put_off_is_tried_again(running: Running, postfix: ReceivingPostfix) -> None:
    queue_id = submit(running, f"full@{DOMAIN}", subject="full")
    found = running.settled(queue_id, "deferred")
    assert found["recipients"][0]["reason"] == "full"
    assert found["recipients"][0]["next_attempt_at"]
    advance(running, 3600)
    found = wait_for(
        lambda: running.api.call("GET", running.api.messages(queue_id)),
        lambda now: now["recipients"][0]["attempts"] >= 2,
    )
    assert found["recipients"][0]["status"] == "deferred"


def test_more_recipients_than_it_takes_at_once_all_get_their_mail(running: Running, postfix: ReceivingPostfix) -> None:
    people = [f"ann+{number}@{DOMAIN}" for number in range(5)]
    found = running.settled(submit(running, *people, subject="many"))
    assert {each["status"] for each in found["recipients"]} == {"delivered"}
    assert {each["attempts"] for each in found["recipients"]} == {1}


def test_a_message_that_is_too_large_for_it_bounces(running: Running, postfix: ReceivingPostfix) -> None:
    found = running.settled(
        submit(running, f"ann@{DOMAIN}", subject="large", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 400)
    )
    assert (found["recipients"][0]["status"], found["recipients"][0]["reason"]) == ("bounced", "too-large")
