"""The pages, asked as a browser asks; a real browser looks at them in scenarios/test_browser.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from markupsafe import escape
from starlette.testclient import TestClient

from outgate.console.views import ConsoleData, build
from support.console_tenant import DEV as TENANT

ID = "I01M7YMPV63KG885VD"
QUEUE_ID = "001M7YMPV5C5XLK54Z"
SOURCE = f"Received: from a by b with ESMTPSA id {QUEUE_ID}; today\r\nFrom: a@shop.test\r\nSubject: Hi\r\n\r\nHello\r\n".encode()


def item(item_id: str = ID, **other: Any) -> dict[str, Any]:
    return {
        "id": item_id, "envelope": {"mail_from": "a@shop.test", "rcpt_to": ["you@customer.test"]}, "tls": "TLSv1.3 X",
        "received_at": "2026-11-21T07:03:01.000Z", "client_address": "127.0.0.1", "helo": "out", "subject": "Hi", "size": 9,
        "dkim": {"result": "pass", "domain": "shop.test", "signatures": []}, "spf": {"result": "pass"}, **other,
    }  # fmt: skip


def message(**other: Any) -> dict[str, Any]:
    recipient = {
        "mailbox": "you@customer.test", "status": "delivered", "attempts": 1, "next_attempt_at": None, "reply": f"250 2.0.0 Ok: {ID}", "reason": "",
    }  # fmt: skip
    return {
        "queue_id": QUEUE_ID, "accepted_at": "2026-11-21T07:03:01.000Z", "username": "user", "size": 123, "header_from": "a@shop.test",
        "reverse_path": "r@shop.test", "subject": "Hi", "message_id": "<1@x>", "recipients": [recipient], "egress": [], "attempts": [],
        "client": {"address": "127.0.0.1", "port": 5, "via": "", "listener": "submission", "endpoint": "public", "tls": "TLSv1.3 X"}, **other,
    }  # fmt: skip


@dataclass
class World:
    """What the pages are given."""

    mails: dict[str, bytes] = field(default_factory=lambda: {ID: SOURCE})
    listed: list[dict[str, Any]] = field(default_factory=lambda: [item()])
    sent: list[dict[str, Any]] = field(default_factory=lambda: [message()])
    variables: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    offset: float = 0.0
    reason: str = ""
    rules: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def items(self) -> list[dict[str, Any]]:
        return self.listed

    def raw(self, item_id: str) -> bytes | None:
        return self.mails.get(item_id)

    def data(self) -> ConsoleData:
        return ConsoleData(
            dev=lambda: TENANT | {"tunnel_address": "127.0.0.1"},
            inbox=self,
            messages=lambda: self.sent,
            message=lambda queue_id: next((each for each in self.sent if each["queue_id"] == queue_id), None),
            variables=lambda: self.variables,
            networking=lambda: {
                "tunnelAddress": "127.0.0.1",
                "mode": "flexiblePortEgress",
                "portForwards": [],
                "reason": self.reason,
                "rules": self.rules,
            },
            clock_offset=lambda: self.offset,
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with TestClient(build(world.data()), follow_redirects=False, headers={"accept": "text/html"}) as opened:
        yield opened


def part(page: httpx2.Response) -> str:
    """Return where a refreshing part asks next."""
    return page.text.partition('hx-get="')[2].partition('"')[0]


def test_every_response_has_the_policy(client: TestClient) -> None:
    paths = ["/", "/part/inbox", f"/inbox/{ID}", f"/inbox/{ID}/html", f"/inbox/{ID}/source", f"/messages/{QUEUE_ID}"]
    paths += ["/find?queue_id=X", "/find", "/nothing", "/inbox/none", "/static/console.css", "/static/none"]
    for path in paths:
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in client.post("/").headers["content-security-policy"]


def test_the_policy_of_a_mails_html_is_a_sandbox(client: TestClient, world: World) -> None:
    world.mails[ID] = b"Content-Type: text/html; charset=utf-16\r\n\r\n<p>hi"
    policy = client.get(f"/inbox/{ID}/html").headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'; ")
    assert "script-src" not in policy and "'self'" not in policy.replace("frame-ancestors 'self'", "")


@pytest.mark.parametrize(
    "path", ["/inbox/none", "/inbox/none/html", "/inbox/none/source", f"/inbox/{ID}/html", "/messages/NONE", "/find?queue_id=a-b", "/find?queue_id=%CE%A9", "/nothing", "/vpc/v1/vpcs"]
)  # fmt: skip
def test_what_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_program_is_told_in_json_what_is_not_there(client: TestClient) -> None:
    answer = client.get("/vpc/v1/vpcs", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert "There is no page <code>/&lt;b&gt;</code>" in client.get("/<b>").text


def test_finding(client: TestClient) -> None:
    answer = client.get("/find?queue_id=%20" + QUEUE_ID.lower())
    assert (answer.status_code, answer.headers["location"]) == (303, f"/messages/{QUEUE_ID}")
    assert client.get("/find?queue_id=").headers["location"] == "/"
    assert "<code>&lt;SCRIPT&gt;</code>" in client.get("/find?queue_id=<script>").text


def test_a_part_is_sent_again_only_when_it_has_changed(client: TestClient, world: World) -> None:
    for path in ("/part/inbox", "/part/messages", f"/part/messages/{QUEUE_ID}", "/part/environment"):
        first = client.get(path)
        assert first.status_code == 200
        assert part(first).startswith(f"{path}?seen=")
        assert client.get(part(first)).status_code == 204
        world.listed[0]["subject"] = world.sent[0]["subject"] = f"changed for {path}"
        world.sent[0]["header_from"] = f"{path}@shop.test"
        world.variables.append({"name": "A", "value": path, "type": "string", "service": ""})
        again = client.get(part(first))
        assert again.status_code == 200
        assert part(again) != part(first)
    assert client.get("/part/messages/NONE").status_code == 204


def test_mail_and_trail_lead_to_each_other(client: TestClient, world: World) -> None:
    assert f'href="/messages/{QUEUE_ID}"' in client.get(f"/inbox/{ID}").text
    assert f'href="/inbox/{ID}"' in client.get(f"/messages/{QUEUE_ID}").text
    world.sent, listed, world.listed = [], world.listed, []
    assert client.get(f"/inbox/{ID}").status_code == 404
    world.listed = listed
    assert QUEUE_ID not in client.get(f"/inbox/{ID}").text.partition("<pre")[0]
    world.sent, world.listed = [message()], []
    assert "Open in the inbox" not in client.get(f"/messages/{QUEUE_ID}").text


def test_a_message_and_its_reports_lead_to_each_other(client: TestClient, world: World) -> None:
    waits = {"mailbox": "you@customer.test", "status": "deferred", "attempts": 2, "reply": "452 4.2.2 <b>full",
             "next_attempt_at": "2026-11-22T00:00:01.000Z", "reason": "full"}  # fmt: skip
    later = {"at": "2026-11-22T00:00:00.000Z", "event": "retried", "recipient": "", "detail": "", "attempt": None,
             "actor": "<i>me"}  # fmt: skip
    world.sent[0] |= {"reports": ["0REPORT"], "recipients": [waits], "timeline": [later]}
    world.sent.append(message(queue_id="0REPORT", parent=QUEUE_ID))
    page = client.get(f"/messages/{QUEUE_ID}").text
    assert '<a href="/messages/0REPORT">' in page
    assert "<b>full</b>: 452 4.2.2 &lt;b&gt;full" in page
    assert "Next attempt 2026-11-22 00:00:01 UTC." in page
    assert '<span class="time">2026-11-22 00:00:00.000</span>' in page  # another day than the one it came
    assert "(by &lt;i&gt;me)" in page
    world.sent[0]["recipients"] = [waits | {"status": "held", "reason": "operator"}]
    held = client.get(f"/messages/{QUEUE_ID}").text
    assert "<b>operator</b>" in held and "452 4.2.2" not in held.partition("</dl>")[0]
    for path in ("/messages/0REPORT", "/"):
        assert f'<a href="/messages/{QUEUE_ID}">' in client.get(path).text


def test_odd_mails_have_a_page(client: TestClient, world: World) -> None:
    odd = {
        "no body": (b"Subject: x\r\n", "<pre"),
        "nothing": (b"", "<pre"),
        "8 bit": ("Subject: x\r\nFrom: Zoë <z@x>\r\n\r\nä".encode(), "Zoë"),
        "broken charset": (b"Content-Type: text/plain; charset=no\r\n\r\nabc", "abc"),
        "surrogates": (b"Content-Type: text/plain; charset=unicode_escape\r\n\r\n\\ud800", "<pre"),
        "broken MIME": (b"Content-Type: multipart/mixed\r\n\r\n--x", "It has no text."),
        "too deep": (b"".join(b"Content-Type: multipart/x; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000)), "cannot be told apart"),
        "long": (b"Subject: x\r\n\r\n" + b"y" * 300_000, "the first part of it here"),
    }  # fmt: skip
    for name, (raw, expected) in odd.items():
        world.mails[ID] = raw
        world.listed = [item(subject="\ud800 lone", spf={"result": "pending"}, dkim={"result": "pending"}, tls="")]
        answer = client.get(f"/inbox/{ID}")
        assert answer.status_code == 200, name
        assert expected in answer.text, name
        assert client.get(f"/inbox/{ID}/source").content == raw


def test_values_are_escaped_everywhere(client: TestClient, world: World) -> None:
    evil = "<img src=x onerror=alert(1)>\"'"
    world.listed = [
        item(
            subject=evil,
            envelope={"mail_from": evil, "rcpt_to": [evil] * 5},
            helo=evil,
            spf={"result": evil, "explanation": evil},
        )
    ]
    recipient = message()["recipients"][0] | {"mailbox": evil, "status": evil, "reply": evil, "reason": evil}
    sent = message(subject=evil, header_from=evil, message_id=evil, recipients=[recipient] * 7)
    world.sent = [sent | {"parent": evil, "reports": [evil], "reverse_path": evil}]
    world.variables = [{"name": evil, "value": evil, "type": "string", "service": evil}]
    for path in ("/", f"/inbox/{ID}", f"/messages/{QUEUE_ID}"):
        shown = client.get(path)
        assert shown.status_code == 200
        assert "<img" not in shown.text
        assert "&lt;img src=x" in shown.text


@pytest.mark.parametrize("evil", ["{{ 7777 * 7777 }}", "{% if true %}{{ 7777 * 7777 }}{% endif %}", "${7777*7777}", "$[env:HOME]", "{{ self.__init__ }}", "<%= 7777 * 7777 %>"])  # fmt: skip
def test_a_mails_words_are_no_template(client: TestClient, world: World, evil: str) -> None:
    world.mails[ID] = f"Subject: {evil}\r\nFrom: {evil}\r\n\r\n{evil}\r\n".encode()
    world.listed = [item(subject=evil, helo=evil)]
    recipient = message()["recipients"][0] | {"reply": evil, "status": evil}
    world.sent = [message(subject=evil, header_from=evil, recipients=[recipient])]
    for path in ("/", f"/inbox/{ID}", f"/messages/{QUEUE_ID}"):
        shown = client.get(path).text
        assert escape(evil) in shown and "60481729" not in shown


def test_the_overview_says_when_the_clock_is_ahead_and_when_there_is_more(client: TestClient, world: World) -> None:
    assert "real time" not in client.get("/").text
    world.offset, world.listed = 3600.0, [item(f"I{number:017}") for number in range(120)]
    shown = client.get("/").text
    assert "The clock is 3600 s ahead of real time." in shown
    assert "The newest 100 of 120." in shown


def test_a_secret_is_not_on_the_page(client: TestClient, world: World) -> None:
    world.variables = [{"name": "P", "value": "hush-hush", "type": "secretString", "service": ""}]
    shown = client.get("/").text
    assert "secret, not shown" in shown and "hush-hush" not in shown
    assert TENANT["token"] not in shown


def test_the_environment_says_why_its_forwards_are_not_in_force(client: TestClient, world: World) -> None:
    assert "Not in force" not in client.get("/").text
    world.reason = "port <30465> is taken"
    assert "Not in force: port &lt;30465&gt; is taken" in client.get("/part/environment").text
    last = {"kind": "guard", "reason": "<x> is 10.0.0.1: private address"}
    forward = {
        "listen": "127.0.0.1:30465",
        "type": "forward",
        "open": 2,
        "opened": 7,
        "refused": {"guard": 3, "dns": 1},
    }
    world.rules = [forward | {"last_refusal": last}, forward | {"type": "proxy", "last_refusal": None}]
    told = client.get("/part/environment").text
    assert "<td>2</td><td>7</td><td>4</td><td>guard: &lt;x&gt; is 10.0.0.1: private address</td>" in told
    assert "</code> proxy</td><td>2</td><td>7</td><td>4</td><td></td>" in told
