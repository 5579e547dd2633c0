"""`openssl s_client`: the vendor's documented dialogue, and what TLS we offer on both ports."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from support.clients import arrived, check_trail, logged, queued_as, run
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
LISTENERS = ("submission", "submissions")
ANY_CIPHER = "DEFAULT:@SECLEVEL=0"  # so that it is the server who says no


def s_client(running: Running, listener: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Connect, say `quit`, and return what the client reports once we have closed."""
    host, port = running.address(listener)
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", running.dev["ca_file"]]
    if listener == "submission":
        command += ["-starttls", "smtp"]
    return run([*command, "-crlf", "-ign_eof", *options], "quit\n")


def refused(running: Running, listener: str, alert: str, why: str, *options: str) -> None:
    """The handshake fails, the client is told with an alert, and our log says why."""
    event = "session.aborted" if listener == "submission" else "listener.handshake"
    before = len(logged(running, event))
    done = s_client(running, listener, *options)
    assert done.returncode != 0 and f"alert {alert}" in done.stderr, done.stderr
    line = wait_for(lambda: logged(running, event)[before:], bool)[0]
    assert why in line.get("reason", line.get("error")), line


def test_as_the_vendor_documents_it(running: Running) -> None:
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
    line = stdout.readline()
    while "AUTH PLAIN LOGIN" not in line:
        assert line, "no AUTH was offered"
        line = stdout.readline()
    if line[3] == "-":
        heard()
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
    check_trail(running, queued_as(answer))
    # The documented message has no empty line behind its header; the relay puts one there before it signs.
    _, raw = arrived(running, queued_as(answer))
    assert b"Subject: IBM Cloud Event Notifications SMTP interface\r\n\r\nGet the all events" in raw


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_tls_versions_of_today(running: Running, listener: str, option: str, version: str) -> None:
    done = s_client(running, listener, option, "-verify_return_error")
    assert done.returncode == 0, done.stderr
    assert f"New, {version}, Cipher is " in done.stdout and "221 2.0.0 Bye" in done.stdout
    assert "GCM" in done.stdout or "CHACHA20" in done.stdout


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(running: Running, listener: str, option: str) -> None:
    refused(running, listener, "protocol version", "UNSUPPORTED_PROTOCOL", option, "-cipher", ANY_CIPHER)


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(
    "ciphers",
    [
        "ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA256",  # no authenticated encryption
        "AES256-GCM-SHA384:AES128-SHA:DHE-RSA-AES256-GCM-SHA384",  # no forward secrecy, no ECDHE
        "aNULL:eNULL",
        "3DES:CAMELLIA:ARIA:PSK",
    ],
)
def test_weak_ciphers_are_refused(running: Running, listener: str, ciphers: str) -> None:
    refused(running, listener, "handshake failure", "NO_SHARED_CIPHER", "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")


@pytest.mark.parametrize("listener", LISTENERS)
def test_the_certificate_names_us_and_nobody_else(running: Running, listener: str) -> None:
    ours = running.dev["smtp_host_name"]
    done = s_client(running, listener, "-servername", ours, "-verify_hostname", ours, "-verify_return_error")
    assert done.returncode == 0 and f"Verified peername: {ours}" in done.stdout, done.stderr
    done = s_client(running, listener, "-servername", ours, "-verify_hostname", "mx.other.test", "-verify_return_error")
    assert done.returncode != 0 and "hostname mismatch" in done.stderr, done.stderr


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed(running: Running, listener: str, version: str, tmp_path: Path) -> None:
    """A client that comes back saves the key exchange: it matters to those who connect for each message."""
    kept = str(tmp_path / "session.pem")
    first = s_client(running, listener, version, "-sess_out", kept)
    assert "New, " in first.stdout, first.stderr
    again = s_client(running, listener, version, "-sess_in", kept, "-verify_return_error")
    assert again.returncode == 0 and "Reused, " in again.stdout, again.stdout + again.stderr
    assert "221 2.0.0 Bye" in again.stdout
