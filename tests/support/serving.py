"""A real `outgate egress serve` in its own process, what it carries to, and who asks it how it stands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from outgate.egress import status_socket
from support.running import await_ready

SETTINGS = '[egress]\nguard_exceptions = ["127.0.0.0/8"]\ndrain_s = 20.0\n'


class Serving:
    """`outgate egress serve` over a file of rules (`rules`), or over a control store (`data`)."""

    def __init__(self, directory: Path, *, data: Path | None = None, config: str = SETTINGS) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.rules = directory / "rules.json"
        self.state = data or directory / "state"
        self.config = directory / "egress.toml"
        self.config.write_text(config)
        self.log = directory / "egress.log"
        self.python = [sys.executable]
        self.environment: dict[str, str] | None = None
        self.process: subprocess.Popen[str] | None = None
        self._source = ["--data", str(data)] if data else ["--rules", str(self.rules), "--state", str(self.state)]

    def write(self, *environments: dict[str, Any]) -> None:
        """Replace the file of rules, as an editor does: beside it, then by its name."""
        beside = self.rules.with_suffix(".new")
        beside.write_text(json.dumps({"environments": environments}))
        os.replace(beside, self.rules)

    def command(self) -> list[str]:
        serve = [*self.python, "-m", "outgate.cli", "egress", "serve", "--config", str(self.config)]
        return serve + self._source

    def start(self) -> Serving:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment
            )
        await_ready(self.process, self.log)
        return self

    def refused(self) -> str:
        """Return what a start says that ends at once with 2."""
        done = subprocess.run(
            self.command(), capture_output=True, text=True, timeout=60, env=self.environment, check=False
        )
        assert done.returncode == 2, done
        return done.stderr

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Return the exit code, once there is one."""
        assert self.process is not None and self.process.stdout is not None
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.ended()

    def status(self) -> dict[str, Any]:
        return status_socket.read(self.state)

    def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the status once it is as wanted."""
        end = time.monotonic() + 30
        while not reached(status := self.status()):
            assert time.monotonic() < end, status
            time.sleep(0.02)
        return status


@contextmanager
def serving(directory: Path, *environments: dict[str, Any], **more: Any) -> Iterator[Serving]:
    """Run one over a file of rules with these environments."""
    service = Serving(directory, **more)
    service.write(*environments)
    service.start()
    try:
        yield service
    finally:
        assert service.stop() == 0, service.log.read_text()[-3000:]


def environment(address: str, *forwards: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Return an environment of a file: forwards from a port to a port of 127.0.0.1."""
    rules = [{"name": "127.0.0.1", "portOrig": orig, "portDest": dest} for orig, dest in forwards]
    return {"tunnelAddress": address, "clientNetworks": ["127.0.0.0/8"], "portForwards": rules} | more


class Echo:
    """A server on 127.0.0.1 that sends back what comes, in upper case; `peers` are who called."""

    def __init__(self) -> None:
        self.peers: list[str] = []

    def __enter__(self) -> Echo:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                accepted, peer = self._listening.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            Thread(target=self._answer, args=(accepted,), daemon=True).start()

    def _answer(self, accepted: socket.socket) -> None:
        with accepted:
            try:
                while data := accepted.recv(65_536):
                    accepted.sendall(data.upper())
            except OSError:
                return


def carried(address: str, port: int) -> bool:
    """Return whether octets go to and fro through a port; False where it is closed or resets."""
    try:
        with socket.create_connection((address, port), timeout=10) as client:
            client.sendall(b"hello")
            return client.recv(100) == b"HELLO"
    except OSError:
        return False
