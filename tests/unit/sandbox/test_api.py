"""The sandbox's calls, as scripts make them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate.api.errors import Unauthorized
from outgate.base.clock import OffsetClock
from outgate.sandbox.api import build
from outgate.sandbox.ca import SandboxCa
from outgate.sandbox.inbox import Inbox, Received
from outgate.sandbox.judges import Judges
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone

MESSAGE = b"From: a@shop.test\r\nSubject: hello\r\n\r\nbody\r\n"


class OneToken:
    async def authenticate(self, authorization: str | None) -> object:
        if authorization != "Bearer good":
            raise Unauthorized
        return "somebody"


class Parts:
    def __init__(self, directory: Path, address: tuple[str, int]) -> None:
        self.zone = Zone()
        self.clock = OffsetClock()
        self.inbox = Inbox(
            directory / "inbox",
            clock=self.clock,
            context=SandboxCa(directory).context(["mx.outgate.test"]),
            judges=lambda: Judges(address, self.clock),
        )
        app = build(self.zone, self.inbox, self.advance, OneToken())
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://sandbox", headers={"Authorization": "Bearer good"}
        )

    async def advance(self, seconds: float) -> float:
        return self.clock.advance(seconds)

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return await self.http.request(method, path, json=body, **more)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    names = NameServer(Zone())
    made = Parts(tmp_path, await names.start())
    yield made
    await made.http.aclose()
    await made.inbox.stop()
    await names.stop()


async def test_records_are_put_and_taken(parts: Parts) -> None:
    answer = await parts.call("PUT", "/zone/shop.test/txt", {"values": ['"v=spf1 -all"'], "ttl": 9})
    assert (answer.status_code, answer.json()["ttl"]) == (200, 9)
    entry = parts.zone.get("shop.test", "TXT")
    assert entry is not None and (entry.values, entry.ttl) == (('"v=spf1 -all"',), 9)
    await parts.call("PUT", "/zone/shop.test/A", {"values": []})
    entry = parts.zone.get("shop.test", "A")
    assert entry is not None and (entry.values, entry.ttl) == ((), 5)
    await parts.call("PUT", "/zone/shop.test/A", {"rcode": "DROP"})
    entry = parts.zone.get("shop.test", "A")
    assert entry is not None and entry.rcode == "DROP"
    for _ in range(2):
        assert (await parts.call("DELETE", "/zone/shop.test/A")).status_code == 204
    assert parts.zone.get("shop.test", "A") is None


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/zone/shop.test/A", {"values": ["x"]}, "'x' is not a A record"),
        ("/zone/shop.test/NOPE", {"values": ["x"]}, "'NOPE' is not a record type"),
        ("/zone/a..b/A", {"values": ["192.0.2.1"]}, "'a..b' is not a domain name"),
        ("/zone/shop.test/A", {}, "either 'values'"),
        ("/zone/shop.test/A", {"values": [], "rcode": "DROP"}, "either 'values'"),
        ("/zone/shop.test/A", {"values": [], "TTL": 5}, "either 'values'"),
        ("/zone/shop.test/A", {"values": "192.0.2.1"}, "list of strings"),
        ("/zone/shop.test/A", {"values": [1]}, "list of strings"),
        ("/zone/shop.test/A", {"values": [], "ttl": "5"}, "'ttl' is a number"),
        ("/zone/shop.test/A", {"values": [], "ttl": -5}, "ttl is 0 to"),
        ("/zone/shop.test/A", {"rcode": "BAD"}, "rcode is one of"),
        ("/zone/shop.test/A", [], "not a JSON object"),
        ("/inbox/behaviour", {}, "the body is a list"),
        ("/inbox/behaviour", [{"at": "never", "drop": True}], "'at' is one of"),
    ],
)
async def test_bad_calls_say_what_and_how(path: str, body: Any, named: str, parts: Parts) -> None:
    answer = await parts.call("PUT", path, body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert "send " in answer.json()["remedy"]


async def test_what_is_no_json(parts: Parts) -> None:
    for content, status in ((b"{", 400), (b"[" * 100_000, 400), (b" " * 2_000_000, 413)):
        answer = await parts.http.put("/zone/shop.test/A", content=content)
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "remedy"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/zone/shop.test/A"), ("DELETE", "/zone/shop.test/A"), ("GET", "/inbox"), ("GET", "/inbox/x"),
        ("DELETE", "/inbox"), ("PUT", "/inbox/behaviour"), ("POST", "/clock"),
    ],
)  # fmt: skip
async def test_every_call_needs_the_token(method: str, path: str, parts: Parts) -> None:
    for headers in ({"Authorization": "Bearer bad"}, {"Authorization": ""}):
        answer = await parts.call(method, path, {"values": []}, headers=headers)
        assert (answer.status_code, set(answer.json())) == (401, {"error", "remedy"})
    assert parts.zone.get("shop.test", "A") is None


async def test_the_inbox_is_listed_judged_read_and_emptied(parts: Parts) -> None:
    item_id = await parts.inbox.store(Received("127.0.0.1", "h.test", "", "a@shop.test", ("b@x.test",), MESSAGE))
    (item,) = (await parts.call("GET", "/inbox")).json()
    assert item["id"] == item_id
    assert (item["dkim"]["result"], item["spf"]["result"]) == ("none", "none")
    assert {"envelope", "tls", "received_at", "client_address", "subject"} <= set(item)
    answer = await parts.call("GET", f"/inbox/{item_id}")
    assert (answer.content, answer.headers["content-type"]) == (MESSAGE, "message/rfc822")
    assert (await parts.call("DELETE", "/inbox")).status_code == 204
    assert (await parts.call("GET", "/inbox")).json() == []
    missing = await parts.call("GET", f"/inbox/{item_id}")
    assert (missing.status_code, missing.json()["remedy"]) == (404, "GET /sandbox/inbox lists the ids")


async def test_behaviour_is_replaced(parts: Parts) -> None:
    later = {"recipient": "*@slow.test", "at": "rcpt", "reply": "451 4.7.1 later", "times": 2}
    assert (await parts.call("PUT", "/inbox/behaviour", [later])).json() == [later]
    assert parts.inbox.behaviours.take("rcpt", ["x@slow.test"]) is not None
    assert (await parts.call("PUT", "/inbox/behaviour", [])).json() == []
    assert parts.inbox.behaviours.take("rcpt", ["x@slow.test"]) is None


async def test_the_clock_moves_forward_only(parts: Parts) -> None:
    before = parts.clock.now()
    answer = await parts.call("POST", "/clock", {"advance_s": 3600})
    assert answer.status_code == 200
    assert 3600 <= parts.clock.now() - before < 3660
    assert answer.json()["now"].endswith("Z")
    for bad in (0, -1, "1", None, True, 10**12):
        assert (await parts.call("POST", "/clock", {"advance_s": bad})).status_code == 400
    assert parts.clock.now() - before < 3660


async def test_what_is_not_there(parts: Parts) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("POST", "/inbox", 405)):
        answer = await parts.call(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "remedy"})
