"""Accounting: the CPU of everything a server forks, and the most memory it had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from measure.accounting import Cgroup, MemoryWatch, Tree, open_account

# More than is asked for: the kernel counts in steps.
BURN = "import time\nwhile time.process_time() < 0.25: pass\n"


@contextmanager
def python(program: str, wrap: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `program` until it has printed a line, and end it afterwards."""
    command = [*(wrap or []), sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_tree_counts_a_child_that_has_ended() -> None:
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint(flush=True)\ninput()"
    with python(program) as process:
        account = Tree(lambda: [process.pid])
        assert account.pids() == [process.pid]
        assert account.cpu_seconds() >= 0.2


def test_a_tree_counts_living_grandchildren() -> None:
    leaf = f"{BURN}print(flush=True)\ninput()"
    middle = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {leaf!r}])"
    with python(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {middle!r}])") as process:
        account = Tree(lambda: [process.pid])
        family = account.pids()
        assert len(family) == 3
        assert account.cpu_seconds() >= 0.2
        for pid in family[1:]:
            os.kill(pid, 9)


def test_a_tree_without_its_root_is_empty() -> None:
    assert Tree(list).cpu_seconds() == 0


@pytest.mark.parametrize(
    ("unified", "file", "text"),
    [
        (True, "cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"),
        (False, "cpuacct.usage", "1500000000\n"),
    ],
)
def test_a_cgroup_is_read_in_seconds_and_entered_by_the_command_itself(
    tmp_path: Path, unified: bool, file: str, text: str
) -> None:
    account = Cgroup("x", tmp_path, unified=unified)
    (directory,) = tmp_path.iterdir()
    (directory / file).write_text(text)
    (directory / "cgroup.procs").touch()
    done = subprocess.run(
        account.wrap([sys.executable, "-c", "import os; print(os.getpid())"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert account.cpu_seconds() == 1.5
    assert account.pids() == [int(done.stdout)]


def test_without_a_cgroup_the_tree_is_read(tmp_path: Path) -> None:
    assert isinstance(open_account("x", list, tmp_path), Tree)
    (tmp_path / "cpuacct").mkdir()
    assert isinstance(open_account("x", list, tmp_path), Cgroup)


def test_the_peak_outlives_the_memory() -> None:
    with python("block = b'x' * 80_000_000\ndel block\nprint(flush=True)\ninput()") as process:
        with MemoryWatch(Tree(lambda: [process.pid])) as watch:
            pass
        assert 80e6 <= watch.peak < 300e6
