"""`python -m outgate.mailer send` as a process, against a real SMTP server."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import sys

import pytest

from outgate.mailer import MailService
from outgate.mailer.__main__ import main
from outgate.mailer.config import PID
from support.mail_service import PASSWORD, Place, place


class TestCommand:
    async def run(
        self,
        there: Place,
        *arguments: str,
        stdin: str = "",
        cwd: str | None = None,
        stdout: int = asyncio.subprocess.PIPE,
    ) -> tuple[int, str, str]:
        there.service()  # writes the file
        (there.folder / "secrets").mkdir(exist_ok=True)
        (there.folder / "secrets" / "EMAIL_PASSWORD").write_text(PASSWORD + "\n")
        (there.folder / "forwards.json").write_text(json.dumps({"tunnelAddress": "", "portForwards": there.forwards}))
        env = there.env | {
            "OUTGATE_SECRETS": str(there.folder / "secrets"),
            "OUTGATE_FORWARDS": str(there.folder / "forwards.json"),
            "SSL_CERT_FILE": str(there.cafile),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "outgate.mailer", "send", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=stdout, stderr=asyncio.subprocess.PIPE, env=env, cwd=cwd,
        )  # fmt: skip
        out, err = await process.communicate(stdin.encode())
        text = err.decode()
        told = (out or b"").decode()
        assert "Traceback" not in text and PASSWORD not in text + told
        assert process.returncode is not None
        return process.returncode, told, text

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
            status, out, err = await self.run(
                there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--body", "b"
            )
            assert (status, out) == (1, "554 5.7.1 no attachments\n")
            assert err.startswith("outgate.mailer: smtp.mymail.com:465 via 127.0.0.1:") and "refused: 554 5.7.1" in err

    async def test_wrong_configuration(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            (tmp_path / "bad.cfg.json").write_text('{\n  "smtp.host": }')
            status, _, err = await self.run(
                there, "--config", str(tmp_path / "bad.cfg.json"), "--to", "a@x.test", "--body", "b"
            )
            assert status == 2 and "bad.cfg.json: line 2, column 16: expected a value" in err

    async def test_output_that_cannot_be_written(self, tmp_path) -> None:
        """What was accepted is not sent again because its queue id has nowhere to go."""
        async with place(tmp_path, answers={"dot": "250 2.0.0 gr\u00fcn\r\n".encode()}) as there:
            mail = ("--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test")
            there.env["PYTHONIOENCODING"] = "ascii"
            assert await self.run(there, *mail, "--body", "b") == (0, "250 2.0.0 gr\\xfcn\n", "")
            with open("/dev/full", "w") as full:
                status, _, err = await self.run(there, *mail, "--body", "b", stdout=full.fileno())
            assert (status, err) == (
                0, "outgate.mailer: the result cannot be written (No space left on device), the exit status has it\n"
            )  # fmt: skip
            reading, writing = os.pipe()
            os.close(reading)
            assert await self.run(there, *mail, "--body", "b", stdout=writing) == (0, "", "")  # nobody reads on
            os.close(writing)
            assert len(there.peer.messages) == 3

    async def test_the_examples_in_the_help_are_commands(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            status, out, _ = await self.run(there, "--help")
            lines = [line.split("send ", 1)[1] for line in out.splitlines() if line.startswith("  python -m")]
            assert status == 0 and len(lines) == 3
            (tmp_path / "osgiconfig").mkdir()
            (tmp_path / "osgiconfig" / f"{PID}.cfg.json").write_bytes((tmp_path / "mail.cfg.json").read_bytes())
            (tmp_path / "report.pdf").write_bytes(b"%PDF")
            for line in lines:
                status, out, err = await self.run(there, *shlex.split(line), stdin="text\n", cwd=str(tmp_path))
                assert status == 0, err

    async def test_everything_about_the_message(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            (tmp_path / "old.eml").write_bytes(b"Subject: gr\xfc\xdfe\r\n\r\nbody")
            status, _, err = await self.run(
                there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--cc", "Ünal <c@x.test>",
                "--bcc", "d@x.test", "--from", "me@shop.test", "--header", "X-Order: 17", "--header", "Reply-To: r@x.test",
                "--body", "b", "--attach", str(tmp_path / "old.eml"), "--debug",
            )  # fmt: skip
            assert status == 0
            assert there.peer.envelopes[0][1:] == [f"RCPT TO:<{who}@x.test>" for who in "acd"]
            message = there.peer.messages[0]
            assert b"X-Order: 17\r\n" in message and b"Reply-To: r@x.test\r\n" in message
            assert b"application/octet-stream" in message and b"d@x.test" not in message
            assert "C: RCPT TO:<d@x.test>" in err and "S: 250 2.0.0 Ok: queued as Q1" in err

    async def test_no_connection(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            pass
        status, _, err = await self.run(
            there, "--config", str(tmp_path / "mail.cfg.json"), "--to", "a@x.test", "--body", "b"
        )
        assert status == 3 and "smtp.mymail.com:465 via 127.0.0.1" in err


TEXT = ["--to", "a@x.test", "--body", "b"]


@pytest.mark.parametrize(
    ("step", "said"), [("load", "interrupted"), ("send", "interrupted: the mail may have arrived, or not")]
)
def test_an_interruption_says_what_is_known_of_the_mail(tmp_path, monkeypatch, capsys, step: str, said: str) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "mail.cfg.json"
    file.write_text('{"smtp.host": "127.0.0.1", "smtp.port": "25", "from.address": "me@x.test"}')
    monkeypatch.setattr(MailService, step, interrupted)
    assert main(["send", "--config", str(file), *TEXT]) == 130
    assert capsys.readouterr().err == f"outgate.mailer: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["--to", "nobody", "--body", "b"], None, "an address in To is not valid"),
        ([*TEXT, "--attach", "/nowhere"], None, "/nowhere cannot be read: No such file or directory"),
        ([*TEXT, "--attach", "{folder}/price-\udcff.txt"], None, "give the file another"),
        ([*TEXT, "--subject", "a\nb"], None, "linefeed"),
        ([*TEXT, "--header", "no colon"], None, 'expected --header "Name: value"'),
        ([*TEXT, "--header", "To: b@x.test"], None, "at most 1 To"),
        ([*TEXT, "--header", "X: a\nBcc: b@x.test"], None, "linefeed"),
        ([*TEXT, "--header", "Content-Type: multipart/mixed"], None, "--header cannot set it"),
        ([*TEXT, "--header", "content-type: text/html"], None, "--header cannot set it"),
        ([*TEXT, "--header", "MIME-Version: 1.0"], None, "--header cannot set it"),
        ([*TEXT, "--header", "Message-ID: <"], None, "is not complete"),
        ([*TEXT, "--from", "Junk <"], None, "is not complete"),
        (["--to", "a@x.test"], None, "give --body"),
        (["--to", "a@x.test"], b"price: \x80 5", "octets that are no text"),
        ([*TEXT, "--subject", "gr\udcfcn"], None, "octets that are no text"),
        ([*TEXT, "--cafile", "/nowhere"], None, "/nowhere cannot be read: No such file or directory"),
        ([*TEXT, "--cafile", "{folder}"], None, " cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_is_a_line(tmp_path, monkeypatch, capsys, arguments, stdin: bytes | None, said: str) -> None:
    """Before a server is asked: there is none."""
    (tmp_path / "mail.cfg.json").write_text(
        '{"smtp.host": "127.0.0.1", "smtp.port": "25", "smtp.ssl": true, "from.address": "me@x.test"}'
    )
    (tmp_path / os.fsdecode(b"price-\xff.txt")).write_text("a name that is no text")
    given = [each.format(folder=tmp_path) for each in arguments]
    read = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8", "surrogateescape")
    monkeypatch.setattr(sys, "stdin", read)
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as a process has it
    assert main(["send", "--config", str(tmp_path / "mail.cfg.json"), *given]) == 2
    err = capsys.readouterr().err
    assert err.startswith("outgate.mailer: ") and said in err and err.count("\n") == 1 and "index" not in err
