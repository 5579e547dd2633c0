"""Plain `outgate`, in an empty environment, sends a mail: standard library and idna only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.running import Running

pytestmark = pytest.mark.scenario
ROOT = Path(__file__).parents[2]


def test_plain_install_sends(running: Running, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(ROOT)], check=True, timeout=300)
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    assert {item["name"] for item in json.loads(listed.stdout)} <= {"outgate", "idna", "pip", "setuptools"}
    host, port = running.address("submissions")
    config = tmp_path / "com.day.cq.mailer.DefaultMailService.cfg.json"
    config.write_text(
        json.dumps(
            {
                "smtp.host": host,
                "smtp.port": port,
                "smtp.user": "$[env:EMAIL_USERNAME]",
                "smtp.password": "$[secret:EMAIL_PASSWORD]",
                "from.address": f"plain@{running.dev['domain']}",
                "smtp.ssl": True,
            }
        )
    )
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "EMAIL_PASSWORD").write_text(running.dev["smtp_password"])
    environment = {
        "PATH": os.environ["PATH"],
        "EMAIL_USERNAME": running.dev["smtp_user"],
        "OUTGATE_SECRETS": str(secrets),
        "SSL_CERT_FILE": running.dev["ca_file"],
    }
    done = subprocess.run(
        [str(python), "-m", "outgate.mailer", "send", "--config", str(config), "--to", "you@customer.test", "--json"],
        input="Hello from a plain install.\n",
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert running.settled(json.loads(done.stdout)["queue_id"])["recipients"][0]["status"] == "delivered"
