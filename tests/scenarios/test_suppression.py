"""A mailbox that is gone is written to once: the second mail is taken and not sent, and a person can undo that."""

from __future__ import annotations

import json
import smtplib
import ssl
from email.message import EmailMessage

import pytest

from support.running import Running, wait_for

pytestmark = pytest.mark.scenario


def submit(running: Running, recipient: str, subject: str) -> str:
    """Send a small mail over STARTTLS; return the queue id."""
    message = EmailMessage()
    message["From"] = f"shop@{running.dev['domain']}"
    message["To"] = recipient
    message["Subject"] = subject
    message.set_content("Hello.\n")
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    with smtplib.SMTP(*running.address("submission"), timeout=30) as client:
        client.starttls(context=context)
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        client.mail(f"shop@{running.dev['domain']}")
        client.rcpt(recipient)
        code, text = client.data(message.as_string())
    assert code == 250, text
    return text.decode().rpartition(" ")[2]


def subjects(running: Running) -> list[str]:
    """Return the subjects of what has come, but for reports to the sender."""
    return [item["subject"] for item in running.inbox() if item["envelope"]["mail_from"]]


def test_a_hard_bounce_is_the_last_mail_until_somebody_says_otherwise(running: Running) -> None:
    api = running.api
    gone = [{"recipient": "gone@*", "at": "rcpt", "reply": "550 5.1.1 no such mailbox", "times": 1}]
    api.call("PUT", api.sandbox("inbox/behaviour"), gone)

    first = submit(running, "gone@customer.test", "first")
    assert running.settled(first)["recipients"][0]["status"] == "bounced"
    (entry,) = wait_for(lambda: api.call("GET", api.suppressions())["suppressions"], bool)
    assert (entry["address"], entry["reason"]) == ("gone@customer.test", "hard_bounce")
    assert (entry["source"], entry["detail"]) == (f"bounce of {first}", "550 5.1.1 no such mailbox")
    assert entry["expires_at"] is not None

    second = submit(running, "Gone@CUSTOMER.test", "second")
    found = running.settled(second)
    assert (found["recipients"][0]["status"], found["recipients"][0]["attempts"]) == ("suppressed", 0)
    listed = json.loads(running.outgate("message", "list", "--status", "suppressed", "--json").stdout)
    assert [each["queue_id"] for each in listed["messages"]] == [second]
    assert listed["messages"][0]["statuses"] == {"suppressed": 1}
    told = running.outgate("message", "show", second).stdout
    assert "suppressed: hard bounce of 2" in told and "outgate suppression remove gone@customer.test" in told
    assert subjects(running) == []

    shown = running.outgate("suppression", "show", "gone@customer.test")
    assert shown.returncode == 0 and f"bounce of {first}" in shown.stdout
    removed = running.outgate("suppression", "remove", "gone@customer.test")
    assert removed.returncode == 0, removed.stderr
    third = submit(running, "gone@customer.test", "third")
    assert running.settled(third)["recipients"][0]["status"] == "delivered"
    assert subjects(running) == ["third"]


def test_a_list_that_is_brought_along_counts_at_once(running: Running) -> None:
    csv = "address,reason\nann@elsewhere.test,unsubscribe\nbob@elsewhere.test,complaint\n"
    done = running.outgate("suppression", "import", "-", "--json", input=csv)
    assert json.loads(done.stdout) == {"added": 2, "replaced": 0, "ended": 0}, done.stderr
    assert running.settled(submit(running, "ann@elsewhere.test", "no"))["recipients"][0]["status"] == "suppressed"
    exported = running.outgate("suppression", "export").stdout
    assert "ann@elsewhere.test,unsubscribe," in exported and "bob@elsewhere.test,complaint," in exported
