"""Build the load generators and the sink, and run them.

Standards: C11.
Promises: a binary is built again when its source is newer; what is missing for that is named.
Dangers: none.
Not here: what the programs do (smtpload.c, smtpsink.c, tcpload.c).
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parents[1]
PACKAGES = BENCH.parent / "tests" / "packages.sh"
_COMPILER_NEEDS = ("cc=gcc", "/usr/include/stdio.h=libc6-dev", "/usr/include/openssl/ssl.h=libssl-dev")
_LIBRARIES = {"smtpload": ["-lssl", "-lcrypto"], "smtpsink": [], "tcpload": []}


class BenchError(Exception):
    """The measurement cannot go on; the text says what to do."""


def carry_out(run: Callable[[Path, ExitStack], bool], *, keep: bool) -> int:
    """Run a benchmark in a directory of its own, and remove that unless `keep`; return the exit status: 0 when all
    holds, 1 when something fails, 2 when it could not be measured."""
    # SIGTERM ends like Ctrl-C does: through the exit stack, which stops servers and removes hosts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="outgate-bench-"))
    # Peers drop their privileges and still have to reach their own directories in here.
    directory.chmod(0o755)
    try:
        with ExitStack() as stack:
            return 0 if run(directory, stack) else 1
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if keep:
            print(f"files: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def need_packages(*needs: str) -> None:
    """Install what is missing of `needs` (see tests/packages.sh). Raises `BenchError` when that is not possible."""
    if subprocess.run(["sh", str(PACKAGES), *needs], check=False).returncode != 0:
        raise BenchError("packages are missing (see above)")


def build(directory: Path) -> None:
    """Put smtpload, smtpsink and tcpload into `directory`. Raises `BenchError`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, libraries in _LIBRARIES.items():
        sources = [BENCH / f"{name}.c", BENCH / "common.h"]
        binary = directory / name
        if binary.exists() and all(binary.stat().st_mtime > source.stat().st_mtime for source in sources):
            continue
        need_packages(*_COMPILER_NEEDS)
        command = ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(sources[0]), *libraries]
        if subprocess.run(command, check=False).returncode != 0:
            raise BenchError(f"cannot compile {sources[0]}")


class Sink:
    """A running smtpsink: `with Sink(...) as sink`."""

    def __init__(self, binaries: Path, samples: Path, sample_every: int, *, address: str = "127.0.0.1") -> None:
        samples.mkdir(parents=True, exist_ok=True)
        self.samples = samples
        self._process = subprocess.Popen(
            [
                str(binaries / "smtpsink"),
                *("--listen", address, "--sample-dir", str(samples), "--sample-every", str(sample_every)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 3 or words[0] != "ready":
            self.close()
            raise BenchError("the sink did not start")
        self.port = int(words[1])
        self.control = f"{address}:{words[2]}"

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Submission:
    """Where and as whom to hand mail in."""

    host: str
    port: int
    user: str
    password: str
    ca_file: Path
    server_name: str


@dataclass(frozen=True, slots=True)
class Load:
    """How much mail, and in what shape."""

    count: int
    connections: int
    per_connection: int
    size: int
    to: str = ""
    """The recipient; "%" in it is the number of a site: `sites` of them in turn, from `first_site` on."""
    sites: int = 1
    first_site: int = 0


def hand_in(binaries: Path, to: Submission, load: Load, sink: Sink, *, sender: str, limit_s: float) -> dict[str, Any]:
    """Run smtpload once and return its report, with `run_id` added.

    `limit_s` seconds at most for handing in, and as many again for the sink to have everything. Raises `BenchError`
    when there is no report at all; refusals are in the report.
    """
    run_id = secrets.token_hex(4)
    options = {
        "--host": to.host,
        "--port": to.port,
        "--user": to.user,
        "--password": to.password,
        "--ca": to.ca_file,
        "--server-name": to.server_name,
        "--from": sender,
        "--count": load.count,
        "--conns": load.connections,
        "--msgs-per-conn": load.per_connection,
        "--size": load.size,
        "--sink-control": sink.control,
        "--runid": run_id,
        "--timeout": limit_s,
        "--e2e-wait": limit_s,
    }
    if load.to:
        options |= {"--to": load.to, "--sites": load.sites, "--first-site": load.first_site}
    command = [str(binaries / "smtpload"), *(str(word) for pair in options.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * limit_s + 30, check=False)
    if not done.stdout:
        raise BenchError(f"smtpload: {done.stderr.strip()}")
    return {**json.loads(done.stdout), "run_id": run_id}
