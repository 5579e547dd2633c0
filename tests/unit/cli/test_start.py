"""The command starts quickly, whichever way it is called."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from outgate import __version__
from outgate.cli import cli

GROUPS = ("environment", "message", "smtp", "access", "key")


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    heavy = {"fastapi", "sqlalchemy", "pydantic", "cryptography", "uvicorn", "dns", "joserfc", "asyncio"}
    # What typer itself brings is not ours to forbid.
    code = f"import sys, typer; before = set(sys.modules); import outgate.cli; print({heavy} & (set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("command", [["-m", "outgate.cli"], ["-c", "from outgate.cli import main; main()"]])
def test_the_ways_to_call_it(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"outgate {__version__}\n")


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_help(group: str) -> None:
    result = CliRunner().invoke(cli, [group, "--help"] if group else ["--help"])
    assert result.exit_code == 0
    assert "dev" in result.stdout if not group else group in result.stdout
