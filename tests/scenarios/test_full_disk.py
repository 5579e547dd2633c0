"""A full disk and a failing database: clients read 4xx, nothing acknowledged is lost, and it goes on by itself.

The disk is a small tmpfs in a mount namespace of the service's own (needs root, `unshare` and `mount`); nothing outside
it notices, and it is gone with the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shlex
import smtplib
import socketserver
import sqlite3
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
BIG = 200_000


class Receiver(socketserver.ThreadingTCPServer):
    """A receiving server with a gate before its answer to the final dot."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.gate = threading.Event()
        self.gate.set()
        self.read = threading.Event()
        self.seen: Counter[str] = Counter()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Talk(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        self.wfile.write(b"220 mx.test\r\n")
        while line := self.rfile.readline():
            if line[:4].upper() == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self._message(receiver)
            else:
                self.wfile.write(b"250 2.0.0 Ok\r\n")

    def _message(self, receiver: Receiver) -> None:
        name = ""
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            if line.lower().startswith(b"message-id:"):
                name = line.split()[1].decode()
        receiver.read.set()
        assert receiver.gate.wait(120)
        receiver.seen[name] += 1
        self.wfile.write(b"250 2.0.0 Ok\r\n")


class Confined(Running):
    """`outgate dev` whose data directory is a tmpfs that only it sees; `inside` is the way to it from here."""

    inside = Path()

    def start(self) -> Confined:
        place = shlex.quote(str(self.data))
        mount = f"mount -t tmpfs -o size=24m,mode=700 tmpfs {place}"
        self.command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"', sys.executable]
        super().start()
        assert self.process is not None
        self.inside = Path(f"/proc/{self.process.pid}/root{self.data}")
        return self

    def dev_json(self) -> Path:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.data}/dev.json")


class Client:
    """One that sends, and remembers what it was told."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.acknowledged: list[str] = []
        self.refused: list[tuple[int, bytes]] = []
        self._number = 0

    def send(self, size: int = 100) -> bool:
        """Send a message over a connection of its own; say whether it was taken."""
        dev = self.running.dev
        self._number += 1
        name = f"<{self._number}@{dev['domain']}>"
        text = f"From: a@{dev['domain']}\r\nMessage-ID: {name}\r\n\r\n" + ("x" * 70 + "\r\n") * (size // 72)
        # The authority is read once: it lies where others cannot look when the disk is a private one.
        with smtplib.SMTP(*self.running.address("submission"), timeout=60) as client:
            client.starttls(context=self.tls)
            client.login(dev["smtp_user"], dev["smtp_password"])
            try:
                client.sendmail(f"a@{dev['domain']}", ["b@there.test"], text)
            except smtplib.SMTPResponseException as error:
                self.refused.append((error.smtp_code, error.smtp_error))
                return False
        self.acknowledged.append(name)
        return True

    @property
    def tls(self) -> ssl.SSLContext:
        directory = self.running.inside if isinstance(self.running, Confined) else self.running.data
        return ssl.create_default_context(cafile=str(directory / "ca.pem"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.gate.set()
    made.shutdown()
    made.server_close()


def settings(receiver: Receiver) -> str:
    return f'[relay]\ndeliver_to = "127.0.0.1:{receiver.server_address[1]}"\n[store]\nsegment_bytes = 1048576\n'


def fill(directory: Path) -> None:
    """Leave no byte free."""
    with (directory / "filler").open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while filler.write(b"\0" * size):
                    pass
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            filler.write(b"\0")


def all_delivered_once(client: Client, receiver: Receiver) -> None:
    """Wait until all that was acknowledged is delivered by the record, and see that each came once."""
    running = client.running
    for name in client.acknowledged:
        found = wait_for(
            lambda name=name: running.api.call("GET", f"{running.api.messages()}?message_id={name[1:-1]}"),
            lambda found: found["messages"] and found["messages"][0]["recipients"][0]["status"] == "delivered",
        )
        assert found["messages"][0]["recipients"][0]["attempts"] == 1
    assert all(receiver.seen[name] == 1 for name in client.acknowledged)


def test_a_full_disk_refuses_for_now_loses_nothing_and_recovers_by_itself(tmp_path: Path, receiver: Receiver) -> None:
    running = Confined(tmp_path / "data", settings(receiver)).start()
    try:
        client = Client(running)
        assert client.send()
        receiver.read.clear()
        receiver.gate.clear()
        assert client.send()
        assert receiver.read.wait(60)  # it is at the receiving server, which has not answered yet
        fill(running.inside)
        for _ in range(40):  # what has room in files as long as they are may still be taken
            if len(client.refused) == 3:
                break
            client.send(BIG)
        assert {code for code, _ in client.refused} == {451}
        assert all(said.startswith(b"4.3.0 ") for _, said in client.refused)
        receiver.gate.set()  # the outcome comes while there is nowhere to write it
        wait_for(lambda: dict(receiver.seen), lambda seen: len(seen) >= 2)
        (running.inside / "filler").unlink()
        wait_for(client.send, bool)
        all_delivered_once(client, receiver)
        assert running.process is not None and running.process.poll() is None
    finally:
        receiver.gate.set()
        assert running.stop() == 0


def test_a_database_that_cannot_be_written_refuses_for_now_and_recovers(tmp_path: Path, receiver: Receiver) -> None:
    """Another process holds the file's write lock for longer than we wait."""
    running = Running(tmp_path / "data", settings(receiver)).start()
    try:
        client = Client(running)
        assert client.send()
        all_delivered_once(client, receiver)
        receiver.read.clear()
        receiver.gate.clear()
        assert client.send()
        assert receiver.read.wait(60)
        lock = sqlite3.connect(running.data / "queue-0.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        receiver.gate.set()
        assert not client.send()
        assert client.refused[0][0] == 451
        lock.execute("ROLLBACK")
        lock.close()
        wait_for(client.send, bool)
        all_delivered_once(client, receiver)
    finally:
        receiver.gate.set()
        assert running.stop() == 0


def test_writes_that_fail_refuse_for_now_and_recover(tmp_path: Path, receiver: Receiver) -> None:
    """The system lets the service write no file for a while (RLIMIT_FSIZE): the spool and SQLite both get an error."""
    running = Running(tmp_path / "data", settings(receiver)).start()
    try:
        client = Client(running)
        assert client.send()
        all_delivered_once(client, receiver)
        assert running.process is not None
        pid = running.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, usual[1]))
        assert not client.send() and not client.send(BIG)
        assert {code for code, _ in client.refused} == {451}
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
        wait_for(client.send, bool)
        all_delivered_once(client, receiver)
        assert running.process.poll() is None
    finally:
        assert running.stop() == 0
