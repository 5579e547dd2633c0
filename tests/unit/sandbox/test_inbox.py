"""The inbox over real SMTP, its misbehaviour, its judges, and the calls that script it."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outgate.base.clock import Clock, FrozenClock, OffsetClock
from outgate.domains import dkim
from outgate.net.tls import verified_context
from outgate.sandbox.ca import SandboxCa
from outgate.sandbox.inbox import Inbox
from outgate.sandbox.judges import Judges
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone
from outgate.smtp.asyncio.server import listening_socket

MESSAGE = b"From: a@shop.test\r\nTo: b@x.test\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\n.dot\r\n..\r\nbody\r\n"


@dataclass
class Running:
    """An inbox under test."""

    inbox: Inbox
    zone: Zone
    port: int
    ca_file: Path

    async def send(self, act: Callable[[smtplib.SMTP], Any], *, tls: bool = False) -> Any:
        """Run `act` on a client in a thread; exceptions come back as they are."""

        def talk() -> Any:
            with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=10) as client:
                if tls:
                    client.starttls(context=verified_context(self.ca_file))
                return act(client)

        return await asyncio.to_thread(talk)

    async def mail(self, to: str = "b@x.test", message: bytes = MESSAGE, **more: Any) -> Any:
        return await self.send(lambda client: client.sendmail("a@shop.test", [to], message), **more)


@asynccontextmanager
async def running(directory: Path, *, clock: Clock | None = None, most: int = 100) -> AsyncIterator[Running]:
    clock = clock or OffsetClock()
    zone = Zone()
    names = NameServer(zone)
    address = await names.start()
    ca = SandboxCa(directory)
    inbox = Inbox(
        directory / "inbox",
        clock=clock,
        context=ca.context(["mx.outgate.test"]),
        judges=lambda: Judges(address, clock),
        most=most,
    )
    _, port = inbox.start(listening_socket("127.0.0.1", 0))
    try:
        yield Running(inbox, zone, port, ca.ca_file)
    finally:
        await inbox.stop()
        await names.stop()


def sign(zone: Zone, message: bytes, at: int) -> bytes:
    """Publish a key for shop.test and return the message signed with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    public = b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    zone.put("sel._domainkey.shop.test", "TXT", [f"v=DKIM1; k=rsa; p={public}"])
    wire = message.replace(b"\r\n.", b"\r\n..")
    unsigned = dkim.prepare(b"", wire, domain="shop.test", selector="sel", timestamp=at)
    return unsigned.finish(key.sign(unsigned.signed, padding.PKCS1v15(), SHA256())) + message


async def test_a_message_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    async with running(tmp_path, clock=FrozenClock(1_800_000_000)) as run:
        await run.mail(tls=True)
        await run.inbox.settled()
        (item,) = run.inbox.items()
        assert item["envelope"] == {"mail_from": "a@shop.test", "rcpt_to": ["b@x.test"]}
        assert item["tls"].startswith("TLSv1.3 TLS_")
        assert item["received_at"] == "2027-01-15T08:00:00.000Z"
        assert (item["client_address"], item["helo"], item["subject"]) == ("127.0.0.1", "client.test", "grüße")
        assert run.inbox.raw(item["id"]) == MESSAGE
        assert run.inbox.raw("nobody") is None


async def test_it_survives_a_restart_and_can_be_emptied(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.mail()
        await run.inbox.settled()
        before = run.inbox.items()
        assert before[0]["tls"] == ""
    async with running(tmp_path) as run:
        assert run.inbox.items() == before
        assert run.inbox.raw(before[0]["id"]) == MESSAGE
        run.inbox.clear()
        assert run.inbox.items() == []
        assert run.inbox.raw(before[0]["id"]) is None
    async with running(tmp_path) as run:
        assert run.inbox.items() == []
    assert list((tmp_path / "inbox").iterdir()) == []


async def test_what_was_not_judged_is_judged_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.mail()
        await run.inbox.settled()
        (item,) = run.inbox.items()
        item.update(dkim={"result": "pending"}, spf={"result": "pending"})
        run.inbox._write_item(item["id"], item)
    async with running(tmp_path) as run:
        await run.inbox.settled()
        assert run.inbox.items()[0]["dkim"]["result"] == "none"


async def test_of_too_many_the_oldest_go(tmp_path: Path) -> None:
    async with running(tmp_path, most=2) as run:
        for number in range(3):
            await run.mail(f"{number}@x.test")
        recipients = [item["envelope"]["rcpt_to"] for item in run.inbox.items()]
        assert recipients == [["1@x.test"], ["2@x.test"]]
        assert len(list((tmp_path / "inbox").glob("*.eml"))) == 2


async def test_the_judges_pass_what_is_right(tmp_path: Path) -> None:
    clock = OffsetClock()
    async with running(tmp_path, clock=clock) as run:
        run.zone.put("shop.test", "TXT", ["v=spf1 include:spf.outgate.test ~all"])
        run.zone.put("spf.outgate.test", "TXT", ["v=spf1 ip4:127.0.0.1 -all"])
        await run.mail(message=sign(run.zone, MESSAGE, int(clock.now())))
        await run.inbox.settled()
        (item,) = run.inbox.items()
        assert item["dkim"] | {"signatures": []} == {
            "result": "pass", "domain": "shop.test", "selector": "sel", "reason": "", "signatures": []
        }  # fmt: skip
        assert (item["spf"]["result"], item["spf"]["domain"]) == ("pass", "shop.test")


async def test_the_judges_live_in_the_sandboxs_time(tmp_path: Path) -> None:
    clock = OffsetClock()
    clock.advance(30 * 86_400)  # to dkimpy's own clock this signature is from the far future
    async with running(tmp_path, clock=clock) as run:
        await run.mail(message=sign(run.zone, MESSAGE, int(clock.now())))
        await run.inbox.settled()
        assert run.inbox.items()[0]["dkim"]["result"] == "pass"


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 -all", "fail"),  # loopback gets no favour
        ("v=spf1 ip4:127.0.0.2 ~all", "softfail"),
        ("v=spf1 mx -all", "pass"),
        ("v=spf1 nonsense", "permerror"),
        ("", "none"),
    ],
)
async def test_the_spf_judge(record: str, result: str, tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        if record:
            run.zone.put("shop.test", "TXT", [record])
        await run.mail()
        await run.inbox.settled()
        assert run.inbox.items()[0]["spf"]["result"] == result


async def test_the_judges_when_dns_fails(tmp_path: Path) -> None:
    clock = OffsetClock()
    async with running(tmp_path, clock=clock) as run:
        signed = sign(run.zone, MESSAGE, int(clock.now()))
        run.zone.put_failure("sel._domainkey.shop.test", "TXT", "SERVFAIL")
        run.zone.put_failure("shop.test", "TXT", "SERVFAIL")
        await run.mail(message=signed)
        await run.inbox.settled()
        (item,) = run.inbox.items()
        assert (item["dkim"]["result"], item["spf"]["result"]) == ("temperror", "temperror")


async def test_a_changed_message_fails(tmp_path: Path) -> None:
    clock = OffsetClock()
    async with running(tmp_path, clock=clock) as run:
        await run.mail(message=sign(run.zone, MESSAGE, int(clock.now())).replace(b"body", b"nobody"))
        await run.inbox.settled()
        dkim_verdict = run.inbox.items()[0]["dkim"]
        assert dkim_verdict["result"] == "fail"
        assert "body hash" in dkim_verdict["reason"]


# -- misbehaviour ---------------------------------------------------------------------------------------------


async def test_refusals_by_recipient_and_turns(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "*@SLOW.test", "at": "rcpt", "reply": "451 4.7.1 later", "times": 2}])
        for _ in range(2):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                await run.mail("b@slow.test")
            assert refused.value.recipients["b@slow.test"] == (451, b"4.7.1 later")
        await run.mail("b@other.test")
        await run.mail("b@slow.test")
        assert len(run.inbox.items()) == 2


@pytest.mark.parametrize(
    ("at", "reply", "error"),
    [
        ("connect", "554 5.7.1 no", smtplib.SMTPConnectError),
        ("connect", "421 4.3.2 busy", smtplib.SMTPConnectError),
        ("mail", "550 5.1.8 bad sender", smtplib.SMTPSenderRefused),
        ("data", "451 4.3.0 not now", smtplib.SMTPDataError),
        ("dot", "552 5.2.2 full", smtplib.SMTPDataError),
        ("dot", "421 4.3.2 bye", smtplib.SMTPDataError),
    ],
)
async def test_refusals_at_each_moment(at: str, reply: str, error: type[Exception], tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "*", "at": at, "reply": reply, "times": 1}])
        with pytest.raises(error) as refused:
            await run.mail()
        assert refused.value.smtp_code == int(reply[:3])  # type: ignore[attr-defined]
        assert run.inbox.items() == []
        await run.mail()
        assert len(run.inbox.items()) == 1


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "dot"])
async def test_dropped_connections(at: str, tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "b@*", "at": at, "drop": True, "times": 1}])
        with pytest.raises((smtplib.SMTPException, OSError)):
            await run.mail()
        assert run.inbox.items() == []
        await run.mail()


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "dot"])
async def test_delays(at: str, tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "*", "at": at, "delay_s": 0.05, "times": 1}])
        loop = asyncio.get_running_loop()
        began = loop.time()
        await run.mail()
        assert loop.time() - began >= 0.05
        assert len(run.inbox.items()) == 1


async def test_a_behaviour_at_connect_meets_clients_that_kept_their_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        client = await asyncio.to_thread(lambda: smtplib.SMTP("127.0.0.1", run.port, timeout=10))
        await asyncio.to_thread(client.ehlo)
        run.inbox.behave([{"at": "rcpt", "drop": True}])
        assert (await asyncio.to_thread(client.noop))[0] == 250
        run.inbox.behave([{"at": "connect", "reply": "421 4.3.2 busy"}])
        assert (await asyncio.to_thread(client.getreply))[0] == 421
        client.close()


async def test_a_friendly_reply_of_its_own_at_the_dot_still_stores(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "*", "at": "dot", "reply": "250 2.6.0 thanks"}])
        await run.mail()
        assert len(run.inbox.items()) == 1


async def test_an_impatient_client_may_leave_during_a_delay(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.inbox.behaviours.put([{"recipient": "*", "at": "connect", "delay_s": 0.05, "times": 1}])
        with socket.create_connection(("127.0.0.1", run.port)):
            pass
        await run.mail()
        assert len(run.inbox.items()) == 1


async def test_starttls_is_checked_by_name_of_the_mx(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        context = verified_context(run.ca_file)

        def talk() -> str | None:
            with smtplib.SMTP("127.0.0.1", run.port, timeout=10) as client:
                client._host = "mx.outgate.test"  # type: ignore[attr-defined]
                client.starttls(context=context)
                assert isinstance(client.sock, ssl.SSLSocket)
                return client.sock.version()

        assert await asyncio.to_thread(talk) == "TLSv1.3"
