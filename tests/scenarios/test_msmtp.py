"""msmtp: the small client behind cron and scripts, configured as `docs/clients.md` says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.clients import arrived, check_trail, queued_as, run
from support.running import Running

pytestmark = pytest.mark.scenario
LETTER = "From: Shop <orders@shop.test>\nTo: you@customer.test\nSubject: msmtp\n\nGrüße\n.\n..two dots\n"


class Msmtp:
    """One account in a configuration file of its own."""

    def __init__(self, running: Running, directory: Path) -> None:
        self.running, self.directory = running, directory
        self.log = directory / "msmtp.log"

    def send(self, listener: str, *settings: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Send the letter to you@customer.test; `settings` are further lines of the configuration."""
        dev = self.running.dev
        host, port = self.running.address(listener)
        lines = [
            "account outgate",
            f"host {host}",
            f"port {port}",
            "tls on",
            f"tls_starttls {'on' if listener == 'submission' else 'off'}",
            f"tls_trust_file {dev['ca_file']}",
            f"from bounces@{dev['domain']}",
            f"user {dev['smtp_user']}",
            f"logfile {self.log}",
            *settings,
            "account default : outgate",
        ]
        configuration = self.directory / "msmtprc"
        configuration.write_text("\n".join(lines) + "\n")
        configuration.chmod(0o600)
        return run(["msmtp", "-C", str(configuration), *options, "--", "you@customer.test"], LETTER)


@pytest.fixture
def msmtp(running: Running, tmp_path: Path) -> Msmtp:
    return Msmtp(running, tmp_path)


@pytest.mark.parametrize("mechanism", ["plain", "login"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_sends(msmtp: Msmtp, listener: str, mechanism: str) -> None:
    secret = msmtp.directory / "secret"
    secret.write_text(msmtp.running.dev["smtp_password"] + "\n")
    done = msmtp.send(listener, f"auth {mechanism}", f"passwordeval cat {secret}")
    assert done.returncode == 0, done.stderr
    queue_id = queued_as(msmtp.log.read_text())
    assert "MAIL FROM:<bounces@shop.test>" in check_trail(msmtp.running, queue_id)
    _, raw = arrived(msmtp.running, queue_id)
    assert raw.endswith("\r\n\r\nGrüße\r\n.\r\n..two dots\r\n".encode())


def test_picks_a_mechanism_by_itself(msmtp: Msmtp) -> None:
    done = msmtp.send("submission", "auth on", f"password {msmtp.running.dev['smtp_password']}", options=("--debug",))
    assert done.returncode == 0, done.stderr
    assert "AUTH PLAIN" in done.stdout
    arrived(msmtp.running, queued_as(msmtp.log.read_text()))


def test_a_wrong_password_is_told_in_words(msmtp: Msmtp) -> None:
    done = msmtp.send("submission", "auth plain", "password wrong")
    assert done.returncode == 77  # EX_NOPERM
    assert "535 5.7.8 Authentication credentials invalid" in done.stderr
    assert "EX_NOPERM" in msmtp.log.read_text()


def test_another_domain_is_refused_in_words(msmtp: Msmtp) -> None:
    password = f"password {msmtp.running.dev['smtp_password']}"
    done = msmtp.send("submission", "auth plain", password, options=("--from=me@elsewhere.test",))
    assert done.returncode != 0
    assert "550 5.7.1 Sender address is not in a verified domain of this user" in done.stderr


def test_a_certificate_of_strangers_is_not_taken(msmtp: Msmtp) -> None:
    """The client looks: with the system's authorities ours is nobody."""
    password = f"password {msmtp.running.dev['smtp_password']}"
    done = msmtp.send("submissions", "auth plain", password, "tls_trust_file system")
    assert done.returncode != 0
    assert "certificate" in done.stderr
