"""Mail that goes to a real Exim: in chunks' neighbourhood, with limits of its own, put off and taken in the end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.mailing import advance, submit, zone
from support.receiving import ReceivingExim
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
DOMAIN, OTHER = "late.example", "also.example"
ACL = """\
  defer recipients = grey@late.example
        condition = ${if exists{GATE}{no}{yes}}
        message = 4.7.1 Greylisted, try again
  deny recipients = gone@late.example
       message = 5.1.1 no such user here
  accept recipients = grey@late.example
"""


class Exim(ReceivingExim):
    main = "recipients_max = 3\nrecipients_max_reject = false\nsmtp_accept_max_per_host = 1\n"


@pytest.fixture(scope="module")
def exim(running: Running) -> Iterator[Exim]:
    server = Exim(DOMAIN, "127.0.9.2", running.address("inbox")[1])
    server.settings = ACL.replace("GATE", str(server.directory / "gate"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def names(running: Running, exim: Exim) -> None:
    zone(running, DOMAIN, "MX", f"10 mx.{DOMAIN}.")
    zone(running, f"mx.{DOMAIN}", "A", exim.address)


def test_it_is_taken_over_tls(running: Running, exim: Exim) -> None:
    found = running.settled(submit(running, f"ann@{DOMAIN}", subject="taken"))
    (attempt,) = found["attempts"]
    assert found["recipients"][0]["status"] == "delivered"
    assert attempt["tls"].startswith("TLSv1.3")
    (mail,) = wait_for(exim.mails, bool)
    assert b"Subject: taken\n" in mail
    assert re.search(rb"with esmtps\s+\(TLS1\.3\)", mail)


def test_it_is_refused_and_says_why(running: Running, exim: Exim) -> None:
    found = running.settled(submit(running, f"gone@{DOMAIN}"))
    (recipient,) = found["recipients"]
    assert (recipient["status"], recipient["reason"]) == ("bounced", "bad-mailbox")
    assert recipient["reply"] == "550 5.1.1 no such user here"


def test_greylisting_is_waited_for(running: Running, exim: Exim) -> None:
    queue_id = submit(running, f"grey@{DOMAIN}", subject="grey")
    found = running.settled(queue_id, "deferred")
    assert found["recipients"][0]["reason"] == "greylisted"
    (exim.directory / "gate").touch()
    advance(running, 600)
    found = running.settled(queue_id)
    assert (found["recipients"][0]["status"], found["recipients"][0]["attempts"]) == ("delivered", 2)


def test_seven_recipients_of_a_server_that_takes_three_at_once(running: Running, exim: Exim) -> None:
    people = [f"ann+{number}@{DOMAIN}" for number in range(7)]
    found = running.settled(submit(running, *people, subject="seven"))
    assert {each["status"] for each in found["recipients"]} == {"delivered"}
    assert {each["attempts"] for each in found["recipients"]} == {1}
    assert len(wait_for(lambda: [m for m in exim.mails() if b"Subject: seven\n" in m], lambda m: len(m) >= 7)) == 7


def test_one_connection_per_client_is_respected(running: Running, exim: Exim) -> None:
    """More work than one connection, from a server that answers 421 to a second one: all is delivered."""
    queue_ids = [submit(running, f"bob@{DOMAIN}", subject=f"busy {number}") for number in range(40)]
    for queue_id in queue_ids:
        found = running.settled(queue_id)
        assert found["recipients"][0]["status"] == "delivered"
        assert found["recipients"][0]["attempts"] == 1
