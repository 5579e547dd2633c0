"""`python -m outgate.mailer send` as a process, against a real SMTP server."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys

from outgate.mailer.config import PID
from support.mail_service import PASSWORD, Place, place


class TestCommand:
    async def run(self, there: Place, *arguments: str, stdin: str = "", cwd: str | None = None) -> tuple[int, str, str]:
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
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, cwd=cwd,
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
        odd = tmp_path / os.fsdecode(b"price-\xff.txt")
        odd.write_text("a name that is no text")
        async with place(tmp_path) as there:
            for arguments in (
                ["--to", "nobody"],
                ["--to", "a@x.test", "--attach", "/nowhere"],
                ["--to", "a@x.test", "--subject", "a\nb"],
                ["--to", "a@x.test", "--header", "no colon"],
                ["--to", "a@x.test", "--header", "To: b@x.test"],
                ["--to", "a@x.test", "--header", "X: a\nBcc: b@x.test"],
                ["--to", "a@x.test", "--header", "Content-Type: multipart/mixed"],
                ["--to", "a@x.test", "--header", "content-type: text/html"],
                ["--to", "a@x.test", "--header", "MIME-Version: 1.0"],
                ["--to", "a@x.test", "--header", "Message-ID: <"],
                ["--to", "a@x.test", "--from", "Junk <"],
                ["--to", "a@x.test", "--attach", str(odd)],
            ):
                status, _, err = await self.run(
                    there, "--config", str(tmp_path / "mail.cfg.json"), "--body", "b", *arguments
                )
                assert status == 2 and err.startswith("outgate.mailer: ") and "index" not in err

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
