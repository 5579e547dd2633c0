"""What goes wrong unforeseen, and output that cannot be written: one line, and no trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Process

# As `outgate` does it, with a verb that has a mistake in it.
BROKEN = """
from outgate import cli
@cli.cli.command()
def broken():
    print("as far as this")
    raise KeyError("queue\\n_id\\x9b")
cli.main()
"""
# Output may fail when it is printed, or only when the last of it is written.
UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")


def broken(debug: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OUTGATE_DEBUG": debug}
    command = [sys.executable, "-c", BROKEN, "broken"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=60, **more)


def closed(*numbers: int) -> dict[str, Any]:
    return {"preexec_fn": lambda: [os.close(number) for number in numbers]}


def test_a_mistake_of_ours_is_one_line() -> None:
    done = broken()
    assert (done.returncode, done.stdout) == (1, "as far as this\n")
    assert done.stderr.startswith("outgate: KeyError: ") and done.stderr.count("\n") == 1
    assert "OUTGATE_DEBUG=1" in done.stderr and "\x9b" not in done.stderr
    traced = broken("1")
    assert traced.returncode == 1 and "Traceback" in traced.stderr and "KeyError" in traced.stderr


@full
@UNBUFFERED
@pytest.mark.parametrize("arguments", [("key", "list"), ("key", "list", "--json"), ("--version",), ("--help",)])
def test_output_that_cannot_be_written(
    process: Process, monkeypatch: pytest.MonkeyPatch, unbuffered: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as nowhere:
        done = process(*arguments, stdout=nowhere)
        assert done.returncode == 1
        assert done.stderr.startswith("outgate: OSError: ") and done.stderr.count("\n") == 1
        neither = process(*arguments, stdout=nowhere, stderr=nowhere)
        assert neither.returncode == 1


@full
def test_an_error_that_cannot_be_written(process: Process) -> None:
    with open("/dev/full", "w") as nowhere:
        for wrong in (("key", "show", "x"), ("key", "mint")):
            assert process(*wrong, stderr=nowhere).returncode == 1


@UNBUFFERED
def test_who_reads_no_further_is_told_nothing(
    process: Process, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    done = process("key", "list", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_without_any_output(process: Process) -> None:
    assert process("key", "list", **closed(1)).returncode == 0
    assert process("key", "list", **closed(1, 2)).returncode == 0
    done = broken(**closed(1))
    assert done.returncode == 1 and done.stderr.startswith("outgate: KeyError: ") and done.stderr.count("\n") == 1
    assert broken(**closed(1, 2)).returncode == 1


@pytest.mark.parametrize(
    ("verb", "module", "extra"),
    [
        ("doctor", "dns.resolver", "doctor"),
        ("dev", "pydantic_settings", "sandbox"),
        ("egress", "dns.resolver", "egress"),
    ],
)
def test_what_is_not_installed_is_told_with_the_extra_that_brings_it(verb: str, module: str, extra: str) -> None:
    lacking = f"    import sys; sys.argv[1] = {verb!r}; sys.modules[{module!r}] = None; import {module}\n    raise "
    program = BROKEN.replace("    raise ", lacking)
    command = [sys.executable, "-c", program, "broken"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    name = module.partition(".")[0]
    assert (done.returncode, done.stderr) == (
        1,
        f"outgate: this needs {name}, which is not installed here: pip install 'outgate[{extra}]'\n",
    )


@pytest.mark.parametrize(("module", "extra"), [("typer", True), ("outgate.connection", False)])
def test_only_where_the_command_is_not_installed_its_extra_is_named(module: str, extra: bool) -> None:
    command = [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None; import outgate.cli"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 1 and ("outgate[cli]" in done.stderr) is extra, done.stderr
