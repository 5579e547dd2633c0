"""The command starts quickly, whichever way it is called."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from outgate import __version__
from outgate.cli import cli


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


def test_every_command_argument_and_option_has_its_sentence() -> None:
    waiting: list[tuple[str, Any]] = [("outgate", typer.main.get_command(cli))]
    seen = 0
    while waiting:
        path, command = waiting.pop()
        assert str(command.help).rstrip().endswith("."), path
        for param in command.params:
            seen += 1
            assert str(param.help).endswith("."), f"{path}: {param.name}"
            if param.param_type_name == "argument":
                shown = param.metavar or param.name  # its choices, or a word for what comes there
                assert shown.isupper() or "|" in shown, f"{path}: {shown}"
        waiting += [(f"{path} {name}", each) for name, each in getattr(command, "commands", {}).items()]
    assert seen > 200
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
