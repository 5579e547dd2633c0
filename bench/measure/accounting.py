"""Account for the CPU and memory of a server, whatever it forks.

Standards: Linux cgroup v1 (cpuacct) and v2, /proc.
Promises: CPU of processes that ended between two readings is counted; closing a cgroup's account leaves no process.
Dangers: without a cgroup the resolution is a clock tick (10 ms), and a process that leaves its parent's tree
is lost; resident sizes are summed, so pages that processes share count once for each.
Not here: the machine as a whole (other work on it does not show in these figures, but slows caches down).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Account(Protocol):
    """What one server and its descendants use."""

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command that starts `command` inside this account."""
        ...

    def pids(self) -> list[int]:
        """Return the living processes."""
        ...

    def cpu_seconds(self) -> float:
        """Return user and system time so far."""
        ...

    def close(self) -> None:
        """End what is still running in the account, if it can tell, and give back what it holds of the system."""
        ...


class Cgroup:
    """An account kept by the kernel: exact, and nothing escapes it."""

    kind = "cgroup"

    def __init__(self, name: str, parent: Path, *, unified: bool) -> None:
        self._directory = parent / f"outgate-bench-{os.getpid()}-{name}"
        self._unified = unified
        self._directory.mkdir()

    def wrap(self, command: Sequence[str]) -> list[str]:
        # The shell moves itself in and becomes the command: its process number stays the same.
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self._directory / "cgroup.procs"), *command]

    def pids(self) -> list[int]:
        return [int(line) for line in (self._directory / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        if self._unified:
            first = (self._directory / "cpu.stat").read_text().split("\n", 1)[0]
            return int(first.removeprefix("usage_usec ")) / 1e6
        return int((self._directory / "cpuacct.usage").read_text()) / 1e9

    def close(self) -> None:
        # What a server left behind would disturb the next measurement. Asked first, then made to.
        for number in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(50):
                pids = self.pids()
                if not pids:
                    break
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.1)
        with contextlib.suppress(OSError):
            self._directory.rmdir()


class Tree:
    """An account read from /proc: the root processes and all that descends from them."""

    kind = "proc"

    def __init__(self, roots: Callable[[], list[int]]) -> None:
        self._roots = roots

    def wrap(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def pids(self) -> list[int]:
        return list(_family(self._roots()))

    def cpu_seconds(self) -> float:
        # A parent's record has the time of the children that it has waited for.
        return sum(_family(self._roots()).values())

    def close(self) -> None:
        pass


def open_account(name: str, roots: Callable[[], list[int]], cgroups: Path = CGROUPS) -> Account:
    """Return a cgroup's account if we may make one, else one that reads the tree under `roots()`."""
    if (cgroups / "cgroup.controllers").exists():
        candidates = [(cgroups, True)]
    else:
        candidates = [(cgroups / part, False) for part in ("cpuacct", "cpu,cpuacct")]
    for parent, unified in candidates:
        if parent.is_dir():
            with contextlib.suppress(OSError):
                return Cgroup(name, parent, unified=unified)
    return Tree(roots)


def _family(roots: list[int]) -> dict[int, float]:
    """Return the CPU seconds of each process that descends from `roots`, themselves included."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold spaces and brackets: count from its end.
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            parents[int(entry)] = int(fields[1])
            seconds[int(entry)] = sum(int(ticks) for ticks in fields[11:15]) / _TICKS
    found = {pid: seconds[pid] for pid in roots if pid in seconds}
    grown = True
    while grown:
        more = {pid: seconds[pid] for pid, parent in parents.items() if parent in found and pid not in found}
        found.update(more)
        grown = bool(more)
    return found


def resident_bytes(pids: Sequence[int]) -> int:
    """Return the sum of the resident sizes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def peak_bytes(pid: int) -> int:
    """Return the most that one process ever had resident, by the kernel's own mark (VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class MemoryWatch:
    """Sample an account's resident size in a thread, from `with` to its end; the result is in `peak`."""

    def __init__(self, account: Account, every_s: float = 0.2) -> None:
        self.peak = 0
        self._account = account
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        with contextlib.suppress(OSError):
            pids = self._account.pids()
            mark = peak_bytes(pids[0]) if len(pids) == 1 else 0
            self.peak = max(self.peak, mark, resident_bytes(pids))
