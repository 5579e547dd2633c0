"""What idle clients cost: 2,000 TLS sessions, logged in, that then say nothing.

    .venv/bin/python bench/idle.py [--sessions 2000]

Half of them come by STARTTLS, half by TLS from the first byte, from 20 loopback addresses. Prints the resident memory
of the server before and with them, and after they have gone. Exit status 1 if they take more than 120 MB together, or
if one of them was not served.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ssl
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from measure.servers import Outgate, prepare_ground
from measure.tools import Submission

from outgate.connection import read_dev_json

MOST_MB = 120.0
_ADDRESSES = 20
_AT_ONCE = 50


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, in MB (10^6 octets)."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


class Client:
    """One session, kept open."""

    def __init__(self, number: int, at: Submission, submissions: int, context: ssl.SSLContext) -> None:
        self._source = f"127.0.1.{1 + number % _ADDRESSES}"
        self._implicit = number % 2 == 0
        self._port = submissions if self._implicit else at.port
        self._at = at
        self._context = context

    async def open(self) -> None:
        """Connect, begin TLS, log in. Raises `ConnectionError` if the server does not answer as it should."""
        name = {"ssl": self._context, "server_hostname": self._at.server_name} if self._implicit else {}
        self._reader, self._writer = await asyncio.open_connection(
            self._at.host, self._port, local_addr=(self._source, 0), limit=4096, **name
        )
        await self._expect("220")
        if not self._implicit:
            await self._say("EHLO idle.example", "250")
            await self._say("STARTTLS", "220")
            await self._writer.start_tls(self._context, server_hostname=self._at.server_name)
        await self._say("EHLO idle.example", "250")
        login = base64.b64encode(f"\0{self._at.user}\0{self._at.password}".encode()).decode()
        await self._say(f"AUTH PLAIN {login}", "235")

    async def close(self) -> None:
        """Say good-bye."""
        await self._say("QUIT", "221")
        self._writer.close()

    async def _say(self, line: str, code: str) -> None:
        self._writer.write(line.encode() + b"\r\n")
        await self._expect(code)

    async def _expect(self, code: str) -> None:
        while True:
            line = (await self._reader.readline()).decode()
            if line[3:4] != "-":
                break
        if not line.startswith(code):
            raise ConnectionError(f"{line!r} instead of {code}")


async def measure(pid: int, at: Submission, submissions: int, sessions: int) -> tuple[float, float, float]:
    """Return the server's memory in MB: with one client after another, with all of them, and when they have gone."""
    context = ssl.create_default_context(cafile=at.ca_file)
    for number in range(20):  # what is loaded and allocated once is not the sessions'
        client = Client(number, at, submissions, context)
        await client.open()
        await client.close()
    before = resident_mb(pid)
    clients = [Client(number, at, submissions, context) for number in range(sessions)]
    for start in range(0, sessions, _AT_ONCE):
        await asyncio.gather(*(client.open() for client in clients[start : start + _AT_ONCE]))
    during = resident_mb(pid)
    for start in range(0, sessions, _AT_ONCE):
        await asyncio.gather(*(client.close() for client in clients[start : start + _AT_ONCE]))
    return before, during, resident_mb(pid)


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("--sessions", type=int, default=2000)
    options.add_argument("--outgate", default=str(Path(sys.executable).parent / "outgate"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="outgate-bench-") as name, ExitStack() as stack:
        ground = prepare_ground(Path(name), sink_port=9)
        outgate = Outgate(ground, [given.outgate])
        stack.callback(outgate.stop)
        at = outgate.start()
        facts = read_dev_json(Path(name) / outgate.name / "data")
        port = int(facts["submissions"].rpartition(":")[2])
        before, during, after = asyncio.run(measure(facts["pid"], at, port, given.sessions))
    took = during - before
    print(f"before {before:.1f} MB, with {given.sessions} idle TLS sessions {during:.1f} MB, afterwards {after:.1f} MB")
    print(f"they take {took:.1f} MB, {took / given.sessions * 1000:.1f} kB each; at most {MOST_MB:.0f} MB")
    return 0 if took <= MOST_MB * given.sessions / 2000 else 1


if __name__ == "__main__":
    sys.exit(main())
