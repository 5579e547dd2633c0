"""nodemailer: what most Node.js applications send with, configured as `docs/clients.md` says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.clients import arrived, check_trail, queued_as, run
from support.npm import nodemailer
from support.running import Running

pytestmark = pytest.mark.scenario
SEND = Path(__file__).parent / "nodemailer" / "send.cjs"
FROM = "Shop <orders@shop.test>"
TO = "you@customer.test"

Send = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nodemailer(tmp_path_factory.mktemp("npm"))


@pytest.fixture(params=["submission", "submissions"])
def send(running: Running, modules: Path, request: pytest.FixtureRequest) -> Send:
    """A function that sends messages and returns nodemailer's results; `more` goes into the transport's options."""
    dev = running.dev
    host, port = running.address(request.param)
    environment = dict(os.environ, NODE_PATH=str(modules), NODE_EXTRA_CA_CERTS=dev["ca_file"])
    transport = {
        "host": host,
        "port": port,
        "secure": request.param == "submissions",
        "requireTLS": True,
        "auth": {"user": dev["smtp_user"], "pass": dev["smtp_password"]},
    }

    def send(*messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        job = {"transport": transport | more, "messages": messages}
        done = run(["node", str(SEND)], json.dumps(job), env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return send


def test_text_and_html(running: Running, send: Send) -> None:
    (told,) = send(
        {"from": FROM, "to": TO, "subject": "Grüße", "text": ".\nHallo, Jörg\n", "html": "<p>Hallo, Jörg</p>"}
    )
    assert (told["accepted"], told["rejected"]) == ([TO], [])
    item, raw = arrived(running, queued_as(told["response"]))
    assert item["subject"] == "Grüße" and b"multipart/alternative" in raw
    assert "MAIL FROM:<orders@shop.test>" in check_trail(running, queued_as(told["response"]))


def test_many_messages_over_one_pooled_connection(running: Running, send: Send) -> None:
    messages = [{"from": FROM, "to": TO, "subject": f"number {number}", "text": "x"} for number in range(40)]
    told = send(*messages, pool=True, maxConnections=1, maxMessages=1000)
    queue_ids = [queued_as(each["response"]) for each in told]
    assert len(set(queue_ids)) == 40
    ports = {running.api.call("GET", running.api.messages(queue_id))["client"]["port"] for queue_id in queue_ids}
    assert len(ports) == 1
    assert arrived(running, queue_ids[39])[0]["subject"] == "number 39"


def test_a_recipient_in_utf8(running: Running, send: Send) -> None:
    (told,) = send({"from": FROM, "to": "Jörg <jörg@bücher.test>", "subject": "utf8", "text": "x"})
    item, raw = arrived(running, queued_as(told["response"]))
    assert item["envelope"]["rcpt_to"] == ["jörg@bücher.test"]
    assert b" with UTF8SMTPSA id " in raw


def test_eight_bits_as_they_are(running: Running, send: Send) -> None:
    raw = f"From: {FROM}\r\nTo: {TO}\r\nSubject: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n" + (
        "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n..\r\n"
    )
    (told,) = send({"envelope": {"from": "orders@shop.test", "to": [TO], "use8BitMime": True}, "raw": raw})
    _, got = arrived(running, queued_as(told["response"]))
    assert got.endswith("\r\n\r\nGrüße\r\n..\r\n".encode())


def test_delivery_reports_may_be_asked_for(running: Running, send: Send) -> None:
    """The option is used only where DSN is offered, and does no harm elsewhere."""
    dsn = {"id": "order 7", "return": "headers", "notify": ["failure", "delay"], "recipient": TO}
    (told,) = send({"from": FROM, "to": TO, "subject": "dsn", "text": "x", "dsn": dsn})
    arrived(running, queued_as(told["response"]))


def test_refusals_are_reported_with_their_codes(running: Running, send: Send) -> None:
    """And after each the same connection goes on."""
    good = {"from": FROM, "to": TO, "subject": "good", "text": "x"}
    attachment = {"filename": "bill.pdf", "content": "%PDF-1.7"}
    told = send(
        good | {"attachments": [attachment]},
        good | {"from": "ceo@elsewhere.test"},
        good | {"to": [TO, "root@[192.168.0.1]"]},
        good | {"to": [f"you{number}@customer.test" for number in range(51)]},
        good,
        pool=True,
        maxConnections=1,
    )
    file, sender, literal, many, last = told
    assert (file["responseCode"], file["response"]) == (554, "554 5.7.1 Attachments are not allowed")
    assert file["code"] == "EMESSAGE"
    assert (sender["responseCode"], sender["code"]) == (550, "EENVELOPE")
    assert (literal["accepted"], literal["rejected"]) == ([TO], ["root@[192.168.0.1]"])
    assert len(many["accepted"]) == 50 and many["rejected"] == ["you50@customer.test"]
    for each in (literal, many, last):
        arrived(running, queued_as(each["response"]))


def test_a_wrong_password(running: Running, send: Send) -> None:
    (told,) = send(
        {"from": FROM, "to": TO, "subject": "x", "text": "x"}, auth={"user": running.dev["smtp_user"], "pass": "wrong"}
    )
    assert (told["code"], told["responseCode"]) == ("EAUTH", 535)
    assert told["response"] == "535 5.7.8 Authentication credentials invalid"
