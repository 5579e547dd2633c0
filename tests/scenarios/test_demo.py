"""`outgate demo` does what it tells, and only then ends with 0."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.scenario


def test_demo_shows_the_whole_way() -> None:
    done = subprocess.run([sys.executable, "-m", "outgate.cli", "demo"], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "250 2.0.0 Ok: queued as",
        "PROXY v2 header",
        "spf=pass",
        "dkim=pass",
        "delivered",
        "554 5.7.1 Access denied",
        "550 5.7.1",
        "554 5.7.1 Attachments are not allowed",
        "All of it happened as told.",
    ):
        assert told in done.stdout, told
