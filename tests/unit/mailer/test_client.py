"""The mail service against a real SMTP server with real TLS."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from outgate.mailer import ConfigError, MailService, MessageError, SendFailed
from outgate.smtp.connecting import ClientTimeouts
from support.scripted_peer import Peer, server_context

PASSWORD = "hush-hush-4711"
TIMEOUTS = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=1)


def mail() -> EmailMessage:
    message = EmailMessage()
    message["To"] = "a@x.test"
    message["Bcc"] = "b@x.test"
    message["Subject"] = "Hello"
    message.set_content("text\n.dot\n")
    return message


class Place:
    """A server, an application's configuration beside it, and the CA both know."""

    def __init__(self, folder: Path, peer: Peer, ca: trustme.CA) -> None:
        self.folder = folder
        self.peer = peer
        self.cafile = folder / "ca.pem"
        ca.cert_pem.write_to_path(self.cafile)
        self.config = {
            "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
            "smtp.port": str(peer.port),
            "smtp.user": "user",
            "smtp.password": "$[secret:EMAIL_PASSWORD]",
            "from.address": "noreply@wknd.site",
            "smtp.ssl": peer.implicit,
        }
        self.env = {"AEM_PROXY_HOST": "127.0.0.1"}
        self.forwards: object = [{"name": "smtp.mymail.com", "portDest": 465, "portOrig": peer.port}]

    def service(self, **options: object) -> MailService:
        file = self.folder / "mail.cfg.json"
        file.write_text(json.dumps(self.config))
        given = {"env": self.env, "secrets": {"EMAIL_PASSWORD": PASSWORD}, "forwards": self.forwards} | options
        return MailService.load(file, cafile=self.cafile, timeouts=TIMEOUTS, **given)


@asynccontextmanager
async def place(folder: Path, *, implicit: bool = True, name: str = "smtp.mymail.com", **options: object):
    ca = trustme.CA()
    options.setdefault("auth", "PLAIN LOGIN")
    async with Peer(context=server_context(ca, name), implicit=implicit, **options) as peer:
        yield Place(folder, peer, ca)


def send(service: MailService, *messages: EmailMessage):
    with service:
        return [service.send(message) for message in messages or (mail(),)]


class TestSending:
    @pytest.mark.parametrize("implicit", [True, False])
    async def test_the_whole_way(self, tmp_path, implicit: bool) -> None:
        async with place(tmp_path, implicit=implicit) as there:
            (result,) = await asyncio.to_thread(send, there.service())
            peer = there.peer
            assert result.accepted and result.queue_id == "Q1"
            assert str(result.reply) == "250 2.0.0 Ok: queued as Q1"
            assert set(result.recipients) == {"a@x.test", "b@x.test"}
            assert peer.logins == [("user", PASSWORD)]
            assert peer.server_names == ["smtp.mymail.com"]
            assert peer.commands[-1] == "QUIT"
            envelope = peer.envelopes[0]
            assert envelope[0].startswith("MAIL FROM:<noreply@wknd.site> SIZE=")
            assert envelope[1:] == ["RCPT TO:<a@x.test>", "RCPT TO:<b@x.test>"]
            assert b"\r\n..dot\r\n" in peer.messages[0] and b"b@x.test" not in peer.messages[0]

    async def test_the_connection_is_kept(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            results = await asyncio.to_thread(send, there.service(), mail(), mail(), mail())
            assert [result.queue_id for result in results] == ["Q1", "Q2", "Q3"]
            assert there.peer.connections == 1 and len(there.peer.logins) == 1

    async def test_a_connection_that_closed_meanwhile_is_made_again(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            service = there.service()
            await asyncio.to_thread(service.send, mail())
            for writer in there.peer._writers:
                writer.transport.abort()
            result = await asyncio.to_thread(service.send, mail())
            assert result.accepted and there.peer.connections == 2
            await asyncio.to_thread(service.close)

    async def test_without_a_user_there_is_no_login(self, tmp_path) -> None:
        async with place(tmp_path, auth="") as there:
            there.config["smtp.user"] = ""
            (result,) = await asyncio.to_thread(send, there.service())
            assert result.accepted and there.peer.logins == []

    async def test_auth_login_where_plain_is_not_offered(self, tmp_path) -> None:
        async with place(tmp_path, auth="LOGIN") as there:
            await asyncio.to_thread(send, there.service())
            assert there.peer.logins == [("user", PASSWORD)]

    async def test_message_without_recipients(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            message = EmailMessage()
            message.set_content("x")
            with pytest.raises(MessageError, match="receiver"):
                there.service().send(message)


class TestRefusals:
    @pytest.mark.parametrize(
        ("answers", "code"),
        [
            ({"MAIL": b"550 5.7.1 not your domain\r\n", "RCPT": b"503 x\r\n", "DATA": b"503 x\r\n"}, 550),
            ({"RCPT": b"450 4.2.1 later\r\n", "DATA": b"554 x\r\n"}, 450),
            ({"dot": b"554 5.7.1 attachments are not allowed\r\n"}, 554),
            ({"AUTH": b"535 5.7.8 no\r\n"}, 535),
            ({"greeting": b"554 5.7.1 stranger\r\n"}, 554),
        ],
    )
    async def test_are_results(self, tmp_path, answers: dict[str, bytes], code: int) -> None:
        async with place(tmp_path, answers=answers) as there:
            (result,) = await asyncio.to_thread(send, there.service())
            assert not result.accepted and result.reply.code == code and result.queue_id == ""
            assert {reply.code for reply in result.recipients.values()} == {code}


class TestFailures:
    async def fails(self, there: Place, expected: type[Exception] = SendFailed, **options: object) -> str:
        with pytest.raises(expected) as caught:
            await asyncio.to_thread(send, there.service(**options))
        return str(caught.value)

    async def test_the_error_names_the_real_server(self, tmp_path) -> None:
        async with place(tmp_path, name="other.test") as there:
            text = await self.fails(there)
            assert text.startswith(f"smtp.mymail.com:465 via 127.0.0.1:{there.peer.port}: TLS: the certificate")
            assert there.peer.logins == []

    async def test_an_unknown_authority(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            trustme.CA().cert_pem.write_to_path(there.cafile)
            assert "certificate was not accepted" in await self.fails(there)

    @pytest.mark.parametrize("implicit", [True, False])
    async def test_a_tunnel_port_without_a_forward_lists_the_names(self, tmp_path, implicit: bool) -> None:
        async with place(tmp_path, implicit=implicit, name="smtp.real.test") as there:
            there.forwards = []
            text = await self.fails(there, ConfigError)
            assert f"port {there.peer.port}" in text and text.endswith("is for: smtp.real.test")
            assert there.peer.logins == [] and there.peer.messages == []

    async def test_the_look_checks_the_chain(self, tmp_path) -> None:
        async with place(tmp_path, name="smtp.real.test") as there:
            there.forwards = []
            trustme.CA().cert_pem.write_to_path(there.cafile)
            assert "look at the server behind it failed" in await self.fails(there, ConfigError)

    async def test_chain_only_is_laxer_by_choice(self, tmp_path) -> None:
        async with place(tmp_path, name="whatever.test") as there:
            there.forwards = []
            (result,) = await asyncio.to_thread(send, there.service(tls_names="chain-only"))
            assert result.accepted
            trustme.CA().cert_pem.write_to_path(there.cafile)
            await self.fails(there, tls_names="chain-only")

    async def test_proxy_tunnel_is_the_forwards_address(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            there.env = {}
            there.forwards = {"tunnelAddress": "127.0.0.1", "portForwards": there.forwards}
            (result,) = await asyncio.to_thread(send, there.service())
            assert result.accepted

    async def test_no_password_in_the_clear(self, tmp_path) -> None:
        async with Peer(auth="PLAIN") as peer:
            there = Place(tmp_path, peer, trustme.CA())
            text = await self.fails(there)
            assert "login: no TLS, so the password was not sent" in text
            assert not any(command.startswith("AUTH") for command in peer.commands)

    async def test_required_tls_that_is_not_offered(self, tmp_path) -> None:
        async with Peer(auth="PLAIN") as peer:
            there = Place(tmp_path, peer, trustme.CA())
            there.config["smtp.requiretls"] = True
            assert "does not offer STARTTLS" in await self.fails(there)

    async def test_nobody_listens(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            pass
        assert "Connection refused" in await self.fails(there)

    async def test_a_lost_answer_may_mean_arrival(self, tmp_path) -> None:
        async with place(tmp_path, hang_up_at="dot") as there:
            with pytest.raises(SendFailed, match="may have arrived") as caught:
                await asyncio.to_thread(send, there.service())
            assert caught.value.may_have_arrived

    @pytest.mark.parametrize("stage", ["greeting", "EHLO", "dot"])
    async def test_a_silent_server(self, tmp_path, stage: str) -> None:
        async with place(tmp_path, silent_at=stage) as there:
            service = there.service()
            service._timeouts = ClientTimeouts(connect=5, handshake=5, reply=0.05, final=0.05, content=5, quit=0.05)
            with pytest.raises(SendFailed, match="timeout"):
                await asyncio.to_thread(service.send, mail())
            service.close()

    async def test_bytes_behind_the_220_never_pass_as_encrypted(self, tmp_path) -> None:
        async with place(tmp_path, implicit=False, after_tls_reply=b"250 forged\r\n") as there:
            await self.fails(there)
            assert there.peer.logins == []

    async def test_a_bad_ca_file(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            there.cafile.write_text("no certificate")
            await self.fails(there, ConfigError)


def test_nothing_of_the_password_in_repr() -> None:
    from outgate.mailer.config import MailConfig

    config = MailConfig("h", 25, "user", PASSWORD, "", True, False, False, False, False)
    assert PASSWORD not in repr(config)


class TestCommand:
    async def run(self, there: Place, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        there.service()  # writes the file
        (there.folder / "secrets").mkdir(exist_ok=True)
        (there.folder / "secrets" / "EMAIL_PASSWORD").write_text(PASSWORD + "\n")
        (there.folder / "forwards.json").write_text(json.dumps({"tunnelAddress": "", "portForwards": there.forwards}))
        env = there.env | {
            "OUTGATE_SECRETS": str(there.folder / "secrets"),
            "OUTGATE_FORWARDS": str(there.folder / "forwards.json"),
            "SSL_CERT_FILE": str(there.cafile),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "outgate.mailer", "send", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env,
        )  # fmt: skip
        out, err = await process.communicate(stdin.encode())
        text = err.decode()
        assert "Traceback" not in text and PASSWORD not in text + out.decode()
        assert process.returncode is not None
        return process.returncode, out.decode(), text

    async def test_accepted(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            attachment = tmp_path / "order.pdf"
            attachment.write_bytes(b"%PDF")
            status, out, _ = await self.run(
                there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--to", "b@x.test",
                "--subject", "Hi", "--attach", str(attachment), stdin="from standard input\n",
            )  # fmt: skip
            assert (status, out) == (0, "250 2.0.0 Ok: queued as Q1\nqueue id: Q1\n")
            message = there.peer.messages[0]
            assert b"Subject: Hi" in message and b"from standard input" in message
            assert b'filename="order.pdf"' in message

    async def test_json(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            status, out, _ = await self.run(
                there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--body", "b", "--json"
            )
            assert status == 0
            assert json.loads(out) == {
                "reply": "250 2.0.0 Ok: queued as Q1",
                "queue_id": "Q1",
                "recipients": {"a@x.test": "250 2.0.0 Ok: queued as Q1"},
            }

    async def test_refused(self, tmp_path) -> None:
        async with place(tmp_path, answers={"dot": b"554 5.7.1 no attachments\r\n"}) as there:
            status, out, _ = await self.run(
                there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--body", "b"
            )
            assert (status, out) == (1, "554 5.7.1 no attachments\n")

    async def test_wrong_configuration(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            (tmp_path / "bad.cfg.json").write_text('{\n  "smtp.host": }')
            status, _, err = await self.run(
                there, "--config", str(tmp_path / "bad.cfg.json"), "--to", "a@x.test", "--body", "b"
            )
            assert status == 2 and "bad.cfg.json: line 2, column 16: expected a value" in err

    async def test_wrong_message(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            for arguments in (
                ["--to", "nobody"],
                ["--to", "a@x.test", "--attach", "/nowhere"],
                ["--to", "a@x.test", "--subject", "a\nb"],
            ):
                status, _, err = await self.run(
                    there, "--config", str(tmp_path / "mail.cfg.json"), "--body", "b", *arguments
                )
                assert status == 2 and err.startswith("outgate.mailer: ")

    async def test_no_connection(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            pass
        status, _, err = await self.run(
            there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--body", "b"
        )
        assert status == 3 and "smtp.mymail.com:465 via 127.0.0.1" in err
