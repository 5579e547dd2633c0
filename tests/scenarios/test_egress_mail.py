"""Mail through a forward that looks: smtplib, swaks and openssl against a real server, in every TLS mode, right and wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import smtplib
import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from outgate.egress import mail_watch
from outgate.egress.audit import Connection
from outgate.egress.mail_watch import NOTICES, MailWatch
from support.clients import run
from support.egress_peers import Bench, Target, closed, dial, forward, tunnel_address

pytestmark = pytest.mark.scenario
AUTHORITY = trustme.CA()
STARTTLS, IMPLICIT = 30587, 30465
LETTER = b"Subject: AUTH\r\n\r\nAUTH PLAIN eA==\r\n..\r\nend\r\n"


@dataclass
class MailServer:
    """A server that takes any login and any mail, and remembers every line outside TLS and every message."""

    address: str
    offers: bool = True
    lines: list[bytes] = field(default_factory=list)
    mail: list[bytes] = field(default_factory=list)
    logins: int = 0
    refuses_starttls: bool = False

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert(self.address).configure_cert(made)
        return made

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.example ESMTP\r\n")
        while line := await reader.readline():
            secure = writer.get_extra_info("ssl_object") is not None
            if not secure:
                self.lines.append(line)
            verb = line[:8].strip().upper()
            if verb.startswith(b"EHLO"):
                more = b"" if secure or not self.offers else b"250-STARTTLS\r\n"
                writer.write(b"250-mx.example\r\n250-AUTH PLAIN\r\n" + more + b"250 8BITMIME\r\n")
            elif verb == b"STARTTLS" and self.refuses_starttls:
                writer.write(b"454 4.7.0 not now\r\n")
            elif verb == b"STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.start_tls(self.context())
            elif verb.startswith(b"AUTH"):
                self.logins += 1
                writer.write(b"235 in\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                self.mail.append((await reader.readuntil(b"\r\n.\r\n"))[:-3])
                writer.write(b"250 taken\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")


@dataclass
class Between:
    """Forwards to the server: to its port with STARTTLS and to the one where TLS begins at once."""

    address: str
    server: MailServer
    bench: Bench

    def notices(self) -> list[str]:
        return [line["code"] for line in self.bench.lines("notice")]

    async def ended(self) -> dict[str, Any]:
        """Return the line at close of the only connection, once it is there."""
        async with asyncio.timeout(20):
            while not (lines := self.bench.lines("close")):
                await asyncio.sleep(0.01)
        return lines[0]


@contextlib.asynccontextmanager
async def between(directory: Path, *, refuse: bool = False, **server: bool) -> AsyncGenerator[Between]:
    address = tunnel_address()
    mail = MailServer(address, **server)
    async with Target(mail.serve) as clear, Target(mail.serve, mail.context()) as secure, Bench(directory) as bench:
        rules = [
            forward(address, STARTTLS, "target.example", clear.port, mail=True),
            forward(address, IMPLICIT, "target.example", secure.port, mail=True),
        ]

        def watch_for(known: Connection) -> MailWatch:
            return MailWatch(
                implicit_tls=known.port == secure.port,
                refuse_auth=refuse,
                noticed=lambda code, words: bench.forwarder.ledger.noticed(known, code=code, reason=words),
            )

        bench.forwarder.watch_for = watch_for
        await bench.engine.apply("10", rules)
        yield Between(address, mail, bench)


def trusting() -> ssl.SSLContext:
    made = ssl.create_default_context()
    AUTHORITY.configure_trust(made)
    return made


def send(client: smtplib.SMTP, *, login: bool = True) -> None:
    if login:
        client.login("user", "secret")
    client.sendmail("a@shop.example", ["you@customer.example"], LETTER)
    client.quit()


def by_starttls(address: str) -> None:
    with smtplib.SMTP(address, STARTTLS, timeout=20) as client:
        client.starttls(context=trusting())
        send(client)


def by_implicit_tls(address: str) -> None:
    with smtplib.SMTP_SSL(address, IMPLICIT, timeout=20, context=trusting()) as client:
        send(client)


def in_clear(address: str) -> None:
    with smtplib.SMTP(address, STARTTLS, timeout=20) as client:
        send(client, login=False)


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("client", [by_starttls, by_implicit_tls, in_clear])
def test_what_is_right_passes_and_is_not_remarked_on(
    tmp_path: Path, client: Callable[[str], None], refuse: bool
) -> None:
    async def scenario() -> None:
        async with between(tmp_path, refuse=refuse) as place:
            await asyncio.to_thread(client, place.address)
            assert place.server.mail == [LETTER.replace(b"\r\n..", b"\r\n...")]
            assert place.server.logins == (client is not in_clear)
            line = await place.ended()
            # (smtplib closes on the server's last TLS record unread, which is a reset.)
            assert place.notices() == [] and line["reason"] in ("finished", "client closed", "client reset")

    asyncio.run(scenario())


def test_a_login_in_the_clear_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between(tmp_path) as place:

            def client() -> None:
                with smtplib.SMTP(place.address, STARTTLS, timeout=20) as session:
                    send(session)

            await asyncio.to_thread(client)
            assert place.server.logins == 1
            line = await place.ended()
            assert line["notices"] == ["mail.clear-auth"]
            (notice,) = place.bench.lines("notice")
            assert notice["reason"] == NOTICES["mail.clear-auth"] and "smtp.starttls=true" in notice["reason"]

    asyncio.run(scenario())


def test_a_login_in_the_clear_is_refused_where_that_is_set(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between(tmp_path, refuse=True) as place:

            def client() -> None:
                with (
                    smtplib.SMTP(place.address, STARTTLS, timeout=20) as session,
                    pytest.raises(smtplib.SMTPAuthenticationError, match=r"538.*5\.7\.11.*smtp\.starttls=true"),
                ):
                    session.login("user", "secret")

            await asyncio.to_thread(client)
            line = await place.ended()
            assert (line["reason"], line["notices"]) == ("mail.clear-auth", ["mail.clear-auth"])
            # Split over segments, behind EHLO, in another case: nothing of it arrives.
            for pieces in (
                [b"EHLO x\r\nAU", b"tH PLAIN c2Vj", b"cmV0\r\n"],
                [b"NOOP\nAUTH PLAIN x\r\n"],
                [b"\0AUTH x\n"],
            ):
                reader, writer = await dial(place.address, STARTTLS)
                assert await reader.readline() == b"220 mx.example ESMTP\r\n"
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                said = await closed(reader)
                assert said.splitlines()[-1].startswith((b"538 5.7.11", b"554"))
                writer.close()
            assert place.server.logins == 0
            assert not [line for line in place.server.lines if b"AUTH" in line.upper()]

    asyncio.run(scenario())


@pytest.mark.parametrize("refuse", [False, True])
def test_tls_to_the_port_of_starttls(tmp_path: Path, refuse: bool) -> None:
    async def scenario() -> None:
        async with between(tmp_path, refuse=refuse) as place:
            command = ["openssl", "s_client", "-connect", f"{place.address}:{STARTTLS}", "-brief"]
            done = await asyncio.to_thread(run, command)
            assert done.returncode != 0
            await place.ended()
            assert place.notices() == ["mail.tls-to-starttls"]

    asyncio.run(scenario())


def test_openssl_in_both_modes(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = tmp_path / "ca.pem"
        AUTHORITY.cert_pem.write_to_path(authority)
        async with between(tmp_path, refuse=True) as place:
            for port, options in ((STARTTLS, ["-starttls", "smtp"]), (IMPLICIT, [])):
                command = ["openssl", "s_client", "-connect", f"{place.address}:{port}", *options]
                command += ["-CAfile", str(authority), "-verify_return_error", "-quiet", "-crlf"]
                done = await asyncio.to_thread(run, command, "EHLO x\nAUTH PLAIN eA==\nQUIT\n")
                assert "235 in" in done.stdout, done.stderr
            assert place.notices() == []

    asyncio.run(scenario())


def test_swaks_in_every_mode(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with between(tmp_path, refuse=True) as place:

            async def swaks(port: int, *options: str) -> tuple[int, str]:
                command = ["swaks", "--server", place.address, "--port", str(port), "--timeout", "20"]
                command += ["--from", "a@shop.example", "--to", "you@customer.example", *options]
                done = await asyncio.to_thread(run, command)
                return done.returncode, done.stdout + done.stderr

            login = ("--auth", "PLAIN", "--auth-user", "user", "--auth-password", "secret")
            assert (await swaks(STARTTLS, "--tls", *login))[0] == 0
            assert (await swaks(IMPLICIT, "--tls-on-connect", *login))[0] == 0
            assert (await swaks(STARTTLS, "--pipeline"))[0] == 0
            assert place.server.logins == 2 and len(place.server.mail) == 3 and place.notices() == []
            code, said = await swaks(STARTTLS, *login)
            assert code != 0 and "538 5.7.11" in said
            assert place.server.logins == 2 and place.notices() == ["mail.clear-auth"]
            secret = base64.b64encode(b"\0user\0secret")
            assert not [line for line in place.server.lines if secret in line]

    asyncio.run(scenario())


def test_who_waits_for_a_greeting_where_tls_begins_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_watch, "SILENT_S", 0.05)

    async def scenario() -> None:
        async with between(tmp_path) as place:
            reader, writer = await dial(place.address, IMPLICIT)
            async with asyncio.timeout(20):
                while not place.notices():
                    await asyncio.sleep(0.01)
            writer.close()
            await closed(reader)
            assert place.notices() == ["mail.waits-for-greeting"]
            assert "smtp.ssl=true" in place.bench.lines("notice")[0]["reason"]

    asyncio.run(scenario())


def test_clear_text_to_implicit_tls_and_what_servers_do_wrong(tmp_path: Path) -> None:
    async def noticed(port: int, said: list[bytes], folder: str, **server: bool) -> list[str]:
        directory = tmp_path / folder
        directory.mkdir()
        async with between(directory, **server) as place:
            reader, writer = await dial(place.address, port)
            for line in said:
                if port == STARTTLS:
                    await reader.readuntil(b" ")
                writer.write(line)
                await writer.drain()
            writer.write_eof()
            await closed(reader)
            writer.close()
            line = await place.ended()
            assert line["notices"] == place.notices()
            return place.notices()

    async def scenario() -> None:
        assert await noticed(IMPLICIT, [b"EHLO x\r\n"], "clear") == ["mail.clear-to-implicit-tls"]
        assert await noticed(STARTTLS, [b"EHLO x\r\n"], "bare", offers=False) == ["mail.starttls-not-offered"]
        refused = [b"EHLO x\r\nSTARTTLS\r\n"]
        assert await noticed(STARTTLS, refused, "refused", refuses_starttls=True) == ["mail.starttls-refused"]

    asyncio.run(scenario())
