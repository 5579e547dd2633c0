"""A relay in the test's own process: real stores, real sockets, one tenant for example.test."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from outgate import settings as settings_module
from outgate.app import RelayService
from outgate.base.clock import OffsetClock
from outgate.model.tenancy import Checked, Verification
from outgate.net.dns import Resolver
from outgate.relay.endpoints import Door
from outgate.relay.passwords import password_hasher
from outgate.relay.standing import Schedule, after
from outgate.sandbox import tenant as tenants
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box


@dataclass
class TestRelay:
    __test__ = False

    service: RelayService
    control: ControlStore
    tenant: tenants.Tenant
    clock: OffsetClock
    trust: ssl.SSLContext
    submission: int
    submissions: int

    async def client(self, *, login: bool = True, source: str = "127.0.0.1") -> Client:
        """Connect to the TLS listener, say EHLO, log in; wrong logins from one `source` are slowed."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.submissions, ssl=self.trust, server_hostname="relay.test", local_addr=(source, 0)
        )
        client = Client(reader, writer)
        assert (await client.heard()).startswith("220 ")
        await client.say("EHLO client.test")
        if login:
            text = f"\0{self.tenant.smtp_user}\0{self.tenant.smtp_password}"
            answer = await client.say("AUTH PLAIN " + base64.b64encode(text.encode()).decode())
            assert answer.startswith("235 "), answer
        return client


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: str = ""
    name: str = ""

    async def heard(self) -> str:
        """Return the last line of the next reply; "" at the end."""
        while True:
            line = (await self.reader.readline()).decode()
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    async def say(self, line: str) -> str:
        self.writer.write(line.encode() + b"\r\n")
        return await self.heard()

    async def envelope(self, sender: str = "a@example.test", *recipients: str) -> str:
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 ")
        for recipient in recipients or ("you@receiver.test",):
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
        return await self.say("DATA")

    async def send(self, message: bytes) -> str:
        """Send a message that is dot-stuffed already; return the reply."""
        self.writer.write(message + b".\r\n")
        return await self.heard()

    def close(self) -> None:
        self.writer.close()


def letter(number: object = 0, sender: str = "a@example.test") -> bytes:
    return (
        f"From: {sender}\r\nTo: you@receiver.test\r\nSubject: number {number}\r\nMessage-ID: <{number}@example.test>\r\n"
        f"Date: Sat, 21 Nov 2026 07:03:00 +0000\r\n\r\nHello {number}\r\n"
    ).encode()


@asynccontextmanager
async def relay(data: Path, *, sync: Any = None, **settings: Any) -> AsyncIterator[TestRelay]:
    """Run a relay; `settings` are the relay section's."""
    data.mkdir(exist_ok=True)
    clock = OffsetClock(data / "clock")
    control = open_control(data / "control.db", open_box(data / "master.key"), clock)
    tenant = tenants.choose(data / "tenant.json")
    configuration = tenants.make_relay_side(
        control,
        tenant,
        domain="example.test",
        key_pem=None,
        selector="",
        verifier=password_hasher().hash(tenant.smtp_password),
    )
    passed = [Checked(check, Verification.SUCCESSFUL, "pass", "set by a test") for check in ("spf", "dkim")]
    control.verification.record(
        [(configuration.id, passed)], lambda it, checked, now: after(it, checked, now, Schedule())
    )
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("relay.test").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    options = {} if sync is None else {"sync": sync}
    service = RelayService(
        settings_module.load(None, relay=settings),
        data=data,
        control=control,
        clock=clock,
        resolver=Resolver([("127.0.0.1", 9)], clock),
        context=context,
        permitted=lambda name, address: True,
        **options,
    )
    home = service.endpoint_of(tenant.instance_id)
    submission = service.listen("127.0.0.1", 0, Door("submission", "public", home))
    submissions = service.listen("127.0.0.1", 0, Door("submissions", "public", home))
    await service.changed()
    await service.start()
    try:
        yield TestRelay(service, control, tenant, clock, trust, submission, submissions)
    finally:
        await service.stop()
        control.close()
