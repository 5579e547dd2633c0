"""Real clients send a mail each; each is found by queue id with its trail."""

from __future__ import annotations

import base64
import re
import shutil
import smtplib
import ssl
import subprocess
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from support.running import Running

pytestmark = pytest.mark.scenario


def letter(running: Running, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Shop <orders@{running.dev['domain']}>"
    message["To"] = "you@customer.test"
    message["Subject"] = subject
    message.set_content("Thank you for your order.\n.\n..two dots\n")
    return message


def queued_as(reply: str) -> str:
    found = re.search(r"250 2\.0\.0 Ok: queued as ([0-9A-Z]+)", reply)
    assert found, reply
    return found[1]


def check_trail_of_raw(running: Running, queue_id: str) -> bytes:
    check_trail(running, queue_id)
    return next(raw for item in running.inbox() if queue_id.encode() in (raw := running.raw(item["id"])))


def check_trail(running: Running, queue_id: str) -> str:
    """The message arrived, is judged well, and `outgate message show` tells its trail."""
    found = running.settled(queue_id)
    assert [recipient["status"] for recipient in found["recipients"]] == ["delivered"]
    shown = running.outgate("message", "show", queue_id)
    assert shown.returncode == 0, shown.stderr
    assert queue_id in shown.stdout and "delivered" in shown.stdout
    mine = [item for item in running.inbox() if queue_id.encode() in running.raw(item["id"])]
    assert len(mine) == 1
    assert (mine[0]["spf"]["result"], mine[0]["dkim"]["result"]) == ("pass", "pass")
    assert mine[0]["tls"].startswith("TLSv1.")
    return shown.stdout


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_smtplib(running: Running, listener: str) -> None:
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    host, port = running.address(listener)
    if listener == "submission":
        client: smtplib.SMTP = smtplib.SMTP(host, port, timeout=30)
        client.starttls(context=context)
    else:
        client = smtplib.SMTP_SSL(host, port, timeout=30, context=context)
    with client:
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        message = letter(running, f"smtplib {listener}")
        client.mail(f"bounces@{running.dev['domain']}")
        client.rcpt("you@customer.test")
        code, text = client.data(message.as_bytes(policy=SMTP))
    assert code == 250
    told = check_trail(running, queued_as(f"{code} {text.decode()}"))
    assert listener in told and "MAIL FROM:<bounces@" in told


def test_swaks(running: Running) -> None:
    assert shutil.which("swaks"), "swaks is missing: run `make packages` as root"
    host, port = running.address("submission")
    done = subprocess.run(
        [
            *(
                "swaks",
                "--server",
                host,
                "--port",
                str(port),
                "--tls",
                "--tls-verify",
                "--tls-ca-path",
                running.dev["ca_file"],
            ),
            *(
                "--auth",
                "LOGIN",
                "--auth-user",
                running.dev["smtp_user"],
                "--auth-password",
                running.dev["smtp_password"],
            ),
            *("--from", f"swaks@{running.dev['domain']}", "--to", "you@customer.test", "--h-Subject", "swaks"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_trail(running, queued_as(done.stdout))


def test_openssl_s_client_as_the_vendor_documents_it(running: Running) -> None:
    """`openssl s_client -starttls smtp`: auth login, mail from without brackets, lower case, LF from a terminal."""
    host, port = running.address("submission")
    client = subprocess.Popen(
        [
            "openssl",
            "s_client",
            "-starttls",
            "smtp",
            "-crlf",
            "-quiet",
            "-verify_return_error",
            "-CAfile",
            running.dev["ca_file"],
            "-connect",
            f"{host}:{port}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    )
    assert client.stdin is not None and client.stdout is not None
    stdin, stdout = client.stdin, client.stdout

    def heard() -> str:
        while True:
            line = stdout.readline().rstrip("\r\n")
            assert line, "the dialogue ended early"
            if line[3:4] != "-":
                return line

    def say(line: str) -> str:
        stdin.write(line + "\n")
        stdin.flush()
        return heard()

    def in_base64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    # s_client has said EHLO before STARTTLS and shows the last line of that; after TLS it is our turn.
    stdin.write("ehlo client.example\n")
    stdin.flush()
    line = heard()
    while "AUTH PLAIN LOGIN" not in line:
        line = heard()
    assert say("auth login") == "334 VXNlcm5hbWU6"
    assert say(in_base64(running.dev["smtp_user"])) == "334 UGFzc3dvcmQ6"
    assert say(in_base64(running.dev["smtp_password"])) == "235 2.7.0 Authentication successful"
    assert say(f"mail from: mailer@{running.dev['domain']}") == "250 2.1.0 Ok"
    assert say("rcpt to: recipient@test.test") == "250 2.1.5 Ok"
    assert say("data") == "354 End data with <CR><LF>.<CR><LF>"
    stdin.write(f"from: Mailer <mailer@{running.dev['domain']}>\nto: Recipient <recipent@test.test>\n")
    stdin.write(
        "Subject: IBM Cloud Event Notifications SMTP interface\nGet the all events securely from IBM EN SMTP Interface\n"
    )
    answer = say(".")
    assert say("quit").startswith("221 ")
    client.stdin.close()
    client.stdout.close()
    client.wait(timeout=30)
    # The documented message has no empty line behind its header; the relay puts one there before it signs.
    raw = check_trail_of_raw(running, queued_as(answer))
    assert b"Subject: IBM Cloud Event Notifications SMTP interface\r\n\r\nGet the all events" in raw
