"""tests/packages.sh: silent when all is there, and otherwise a message that names the command to run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packages.sh"


def run(*needs: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    command = [shutil.which("sh") or "/bin/sh", str(SCRIPT), *needs]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize(
    "need", ["sh=dash", "/bin/sh=dash", "no-such-command|sh=dash", "/no/such/file|/bin/sh=dash", "perl:strict=perl"]
)
def test_silent_when_all_is_there(need: str) -> None:
    done = run(need, "cat=coreutils")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def commands(directory: Path, **programs: str) -> str:
    for name, text in programs.items():
        file = directory / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_an_ordinary_user_is_told_what_to_run(tmp_path: Path) -> None:
    path = commands(tmp_path, id="echo 1000", apt_get="echo apt was run")
    done = run("no-such-command|perl:No::Such::Module=some-package", "sh=dash", "/no/such/file=other", path=path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "sudo apt-get install --no-install-recommends some-package other\n" in done.stderr.replace(" \n", "\n")
