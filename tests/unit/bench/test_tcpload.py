"""The egress's generator: it counts what came back as it was sent, and nothing else."""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def load(binaries: Path, verb: str, port: int, *numbers: int) -> tuple[int, dict[str, Any], str]:
    command = [str(binaries / "tcpload"), verb, "127.0.0.1", str(port), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, input="", timeout=60, check=False)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


@pytest.fixture
def echo(binaries: Path) -> Iterator[int]:
    command = [str(binaries / "tcpload"), "serve", "127.0.0.1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, port = process.stdout.readline().split()
        assert word == "ready"
        yield int(port)
        process.terminate()


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer(self.request.recv(100)))

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("verb", "numbers"),
    [("connections", (300, 20)), ("round-trips", (300,)), ("idle", (300,)), ("connections", (3, 20))],
)
def test_all_that_came_back_is_counted(binaries: Path, echo: int, verb: str, numbers: tuple[int, ...]) -> None:
    status, report, _ = load(binaries, verb, echo, *numbers)
    assert status == 0
    assert (report["done"], report["failed"]) == (numbers[0], 0)
    assert 0 < report["p50_us"] <= report["p99_us"]
    assert report["per_s"] == pytest.approx(report["done"] / report["seconds"], rel=1e-2)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda sent: sent[:-1] + b"?", "receive: Bad message"),
        (lambda sent: sent[:99], "receive: connection ended"),
        (lambda sent: b"", "receive: connection ended"),
    ],
)
def test_wrong_or_missing_octets_are_failures(binaries: Path, answer: Callable[[bytes], bytes], error: str) -> None:
    with answering(answer) as port:
        status, report, _ = load(binaries, "connections", port, 5, 2)
        assert (status, report["done"], report["failed"]) == (1, 0, 5)
        assert report["last_error"] == error
        status, report, said = load(binaries, "round-trips", port, 5)
        assert status == 2
        assert said == "what came back is not what was sent\n"


def test_nobody_there_is_told(binaries: Path) -> None:
    status, report, _ = load(binaries, "connections", 1, 5, 2)
    assert (status, report["failed"], report["last_error"]) == (1, 5, "connect: Connection refused")


@pytest.mark.parametrize(
    "words", [(), ("serve", "::1", "0"), ("connections", "127.0.0.1", "1", "x", "1"), ("fly", "127.0.0.1", "1")]
)
def test_a_wrong_command_line_is_told(binaries: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([str(binaries / "tcpload"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr
