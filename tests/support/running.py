"""A real `outgate dev` in its own process, for scenarios."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from outgate.connection import Api


class Running:
    """`outgate dev` on free ports; started again on the same data after `kill`."""

    def __init__(self, data: Path, config: str = "") -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self.config = data.parent / f"{data.name}.toml"
        self.config.write_text(config)
        self.process: subprocess.Popen[str] | None = None
        self.command = [sys.executable]
        self.log = data.parent / f"{data.name}.log"
        self.ports: dict[str, int] = {}
        self.dev: dict[str, Any] = {}

    def start(self) -> Running:
        command = [*self.command, "-m", "outgate.cli", "dev", "--data", str(self.data), "--config", str(self.config)]
        for name in ("http", "submission", "submissions", "dns", "inbox", "proxy"):
            command += [f"--{name}-port", str(self.ports.get(name, 0))]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        await_ready(self.process, self.log)
        self.dev = json.loads(self.dev_json().read_text())
        return self

    def dev_json(self) -> Path:
        return self.data / "dev.json"

    def keep_ports(self) -> None:
        """Have the next start use the same ports again."""
        dev = self.dev
        for name, key in (
            ("submission", "submission"),
            ("submissions", "submissions"),
            ("dns", "dns"),
            ("inbox", "inbox"),
        ):
            self.ports[name] = int(dev[key].rpartition(":")[2])
        self.ports["http"] = int(dev["console_url"].rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._gone()

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._gone()

    def _gone(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        return code

    @property
    def api(self) -> Api:
        return Api(self.dev)

    def address(self, key: str) -> tuple[str, int]:
        host, _, port = self.dev[key].rpartition(":")
        return host, int(port)

    def outgate(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line against this instance."""
        environment = dict(os.environ, OUTGATE_DATA=str(self.data))
        return subprocess.run(
            [sys.executable, "-m", "outgate.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            **kwargs,
        )

    def settled(self, queue_id: str, *states: str) -> dict[str, Any]:
        """Wait until every recipient of a message is in one of `states` (final ones if none are given)."""
        wanted = set(states) or {"delivered", "bounced", "expired", "suppressed", "cancelled"}
        return wait_for(
            lambda: self.api.call("GET", self.api.messages(queue_id)),
            lambda found: all(recipient["status"] in wanted for recipient in found["recipients"]),
        )

    def inbox(self) -> list[dict[str, Any]]:
        return self.api.call("GET", self.api.sandbox("inbox"))

    def raw(self, item_id: str) -> bytes:
        request = urllib.request.Request(
            self.api.sandbox(f"inbox/{item_id}"), headers={"Authorization": f"Bearer {self.dev['token']}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def status(
        self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Make one HTTP call without any header of ours; return status and body."""
        request = urllib.request.Request(url, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def await_ready(process: subprocess.Popen[str], log: Path) -> None:
    """Return once a process says that it is ready; else fail with the end of its log."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 60)
    line = process.stdout.readline() if readable else ""
    assert line.startswith("ready"), f"not ready: {line!r}\n{log.read_text()[-3000:]}"


def wait_for(ask: Any, enough: Any, seconds: float = 60.0) -> Any:
    """Ask again until `enough`; a generous end, so that a failure says what was seen."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if enough(found):
            return found
        assert time.monotonic() < deadline, f"last seen: {str(found)[:800]}"
        time.sleep(0.05)
