"""What `docs/clients.md` tells people to use is what works: each snippet sends a mail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.clients import judged, queued_as, run
from support.documented import snippet
from support.npm import nodemailer
from support.running import Running

pytestmark = pytest.mark.scenario


@pytest.fixture
def environment(running: Running) -> dict[str, str]:
    return dict(os.environ, SMTP_USER=running.dev["smtp_user"], SMTP_PASSWORD=running.dev["smtp_password"])


def test_smtplib(running: Running, environment: dict[str, str]) -> None:
    done = run([sys.executable, "-c", snippet(running, "smtplib")], env=environment)
    assert done.returncode == 0, done.stderr
    check_one_arrived(running)


def test_nodemailer(running: Running, environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"NODE_PATH": str(nodemailer(tmp_path))}
    done = run(["node", "-e", snippet(running, "nodemailer")], env=environment)
    assert done.returncode == 0, done.stderr
    assert queued_as(done.stdout) == check_one_arrived(running)


def test_msmtp(running: Running, tmp_path: Path) -> None:
    configuration, secret, log = tmp_path / "msmtprc", tmp_path / "password", tmp_path / "log"
    secret.write_text(running.dev["smtp_password"])
    text = snippet(running, "msmtp").replace("USER", running.dev["smtp_user"])
    configuration.write_text(text.replace("/etc/outgate/smtp-password", str(secret)).replace("~/.msmtp.log", str(log)))
    configuration.chmod(0o600)
    letter = "From: orders@shop.test\nTo: you@customer.test\nSubject: Your order\n\nThank you.\n"
    done = run(["msmtp", "-C", str(configuration), "you@customer.test"], letter)
    assert done.returncode == 0, done.stderr
    assert queued_as(log.read_text()) == check_one_arrived(running)


def test_swaks(running: Running, environment: dict[str, str]) -> None:
    done = run(["sh", "-c", snippet(running, "swaks and openssl")], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert queued_as(done.stdout) == check_one_arrived(running)


def test_openssl(running: Running) -> None:
    done = run(["sh", "-c", snippet(running, "swaks and openssl", 1)])
    assert done.returncode == 0, done.stderr
    assert "Verify return code: 0 (ok)" in done.stdout and "221 2.0.0 Bye" in done.stdout


def check_one_arrived(running: Running) -> str:
    """Wait for the one mail that was sent and that both judges find good, and take it away; return its queue id."""
    (listed,) = running.api.call("GET", f"{running.api.messages()}?limit=1")["messages"]
    running.settled(listed["queue_id"])
    (item,) = judged(running)
    assert (item["spf"]["result"], item["dkim"]["result"]) == ("pass", "pass")
    running.api.call("DELETE", running.api.sandbox("inbox"))
    return listed["queue_id"]
