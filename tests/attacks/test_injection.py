"""Injection: what a client says is a value, wherever it is put: in a header, a query, a log line."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from pathlib import Path

import httpx2
import pytest

from outgate.base.log import JsonFormatter
from outgate.message.fields import read
from support.api_service import api_service
from support.receiver import Receiver
from support.relay import Client, TestRelay, relay

NAMES = [
    "client.test\r\nX-Evil: 1", "client.test)\r\n\tX-Evil: 1", "client;x", "a(b", "a)b", 'a"b', "<a@b>", "a\tb", "a\0b", "a\x0bX-Evil:1", "a\x1cb", "a\x85b", "a\u2028b",
    "{{7*7}}", "$[env:HOME]", "%s%n", "x" * 255,
]  # fmt: skip
SQL = [
    "' OR 1=1 --",
    "'; DROP TABLE smtp_users; --",
    '" OR ""="',
    "a' UNION SELECT * FROM api_keys --",
    "%",
    "_",
    "\\",
    "a\0b",
    "1e999",
    "*",
]


async def plain(running: TestRelay, user: str, password: str, number: int = 0) -> str:
    """Log in from an address of its own: guesses from one would be slowed."""
    client = await running.client(login=False, source=f"127.{100 + number}.0.1")
    answer = await client.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())
    client.close()
    return answer


async def test_nothing_that_a_client_says_makes_a_field(tmp_path: Path) -> None:
    receiver, taken = Receiver(keep=True), 0
    async with relay(tmp_path / "data", deliver_to=receiver.start()) as running:
        for number, name in enumerate(NAMES):
            client = await running.client(login=False)
            client.writer.write(b"EHLO " + name.encode() + b"\r\nNOOP\r\n")
            while not (await client.heard()).startswith("250 2.0.0 "):
                pass
            login = base64.b64encode(f"\0{running.tenant.smtp_user}\0{running.tenant.smtp_password}".encode()).decode()
            assert (await client.say("AUTH PLAIN " + login)).startswith("235 ")
            assert (await client.envelope()).startswith("354 ")
            odd = name.replace("\r\n", "\r\n ").replace("\0", "").encode()
            sent = (
                b"From: a@example.test\r\nSubject: " + odd + b"\r\nMessage-ID: <%d@x" % number + odd + b">\r\n\r\nx\r\n"
            )
            control = any(octet < 32 and octet != 9 for octet in odd.replace(b"\r\n ", b""))
            assert (await client.send(sent)).startswith("550 5.6.0 " if control else "250 ")
            taken += not control
            client.close()
        assert taken > 10
        async with asyncio.timeout(60):
            while len(receiver.contents) < taken:
                await asyncio.sleep(0.01)
    await receiver.stop()
    for content in receiver.contents:
        fields = [name for name, _ in read(content).fields]
        assert fields == ["dkim-signature", "received", "date", "from", "subject", "message-id"]
        assert b"\nX-Evil" not in content
        assert re.match(rb" from [\w.:\[\]-]+ \(\[127\.0\.0\.1\]\)", read(content).fields[1][1])


async def test_a_user_name_is_looked_up_as_it_is_and_forges_no_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "outgate")
    async with relay(tmp_path / "data") as running:
        right = running.tenant.smtp_password
        user = running.tenant.smtp_user
        for number, name in enumerate([*SQL, *NAMES, user + "' --", user.upper()]):
            assert (await plain(running, name, right, number)).startswith(("535 5.7.8", "501 5.5.2")), name
        assert (await plain(running, user, "' OR '1'='1")).startswith("535 5.7.8")
        assert (await plain(running, user, right)).startswith("235 ")
    for record in caplog.records:
        line = JsonFormatter().format(record)
        assert "\n" not in line and "\r" not in line and json.loads(line)["event"]
        assert right not in line


def test_queries_and_paths_of_the_api_are_values(tmp_path: Path) -> None:
    with api_service(tmp_path) as service, httpx2.Client(headers=service.headers()) as http:
        made = http.post(f"{service.smtp_url}/config", json={"name": "Shop", "domain": "shop.test"}).json()["id"]
        for word in SQL:
            found = http.get(f"{service.smtp_url}/config", params={"search": word})
            assert found.status_code in (200, 400), word
            assert found.status_code == 400 or found.json()["total_count"] == 0, word
            quoted = "".join(f"%{octet:02x}" for octet in word.encode())
            assert http.get(f"{service.smtp_url}/config/{quoted}").status_code in (400, 404)
            assert http.get(f"{service.smtp_url}/config/{made}/users/{quoted}").status_code in (400, 404)
            assert http.get(f"{service.en_url}/v1/instances/{quoted}/smtp/config").status_code in (400, 404)
            assert http.post(f"{service.smtp_url}/config", json={"name": "x", "domain": word}).status_code == 400
        assert http.get(f"{service.smtp_url}/config").json()["total_count"] == 1


async def test_auth_in_the_clear_is_neither_offered_nor_taken(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        client = Client(*await asyncio.open_connection("127.0.0.1", running.submission))
        await client.heard()
        client.writer.write(b"EHLO client.test\r\nNOOP\r\n")
        said = (await client.reader.readuntil(b"250 2.0.0 Ok\r\n")).decode()
        assert "STARTTLS" in said and "AUTH" not in said
        login = base64.b64encode(f"\0{running.tenant.smtp_user}\0{running.tenant.smtp_password}".encode()).decode()
        for attempt in (f"AUTH PLAIN {login}", "AUTH PLAIN", "AUTH LOGIN", "auth login dXNlcg=="):
            assert (await client.say(attempt)).startswith("538 5.7.11 ")
        assert (await client.say("MAIL FROM:<a@example.test>")).startswith("530 5.7.0 ")
        client.close()
