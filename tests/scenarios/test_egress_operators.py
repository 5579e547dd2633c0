"""An operator at a running egress: why nothing gets there, an exception, live figures, clients; by the command line."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.egress_peers import tunnel_address
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
TARGET = "127.0.0.99"
CONFIG = '[dev]\ntunnel_address = "{tunnel}"\n[egress]\nguard_exceptions = ["127.0.0.0/26"]\n'


@contextmanager
def echo() -> Iterator[int]:
    """Echo at the target, a connection in a thread of its own; yield the port."""

    def serve() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            Thread(target=answer, args=(accepted,), daemon=True).start()

    def answer(accepted: socket.socket) -> None:
        with accepted:
            while data := accepted.recv(1000):
                accepted.sendall(data)

    with socket.create_server((TARGET, 0)) as listening:
        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


def said(connection: socket.socket, octets: bytes) -> bytes:
    """Return what comes back; nothing if the connection is refused."""
    try:
        connection.sendall(octets)
        return connection.recv(100)
    except ConnectionError:
        return b""


def tried(tunnel: str) -> bytes:
    try:
        with socket.create_connection((tunnel, 30000), timeout=20) as client:
            return said(client, b"hello")
    except ConnectionError:
        return b""


class Operator:
    def __init__(self, laptop: Running) -> None:
        self.laptop = laptop

    def __call__(self, *arguments: str) -> str:
        done = self.laptop.outgate("egress", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return self.json("audit", *arguments)["lines"]


def test_an_operator_finds_out_lets_through_watches_and_closes(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    laptop = Running(tmp_path / "dev", CONFIG.format(tunnel=tunnel)).start()
    try:
        with echo() as port:
            walk(Operator(laptop), tunnel, port)
    finally:
        assert laptop.stop() == 0


def walk(operator: Operator, tunnel: str, port: int) -> None:
    api, dev = operator.laptop.api, operator.laptop.dev
    number = dev["environment_id"]
    rule = {"name": TARGET, "portDest": port, "portOrig": 30000}
    api.call("PUT", api.environment("advancedNetworking"), {"portForwards": [rule]})

    def settled() -> str:
        (environment,) = operator.json("environments")["environments"]
        return f"{environment['status']} {environment['reason']}"

    wait_for(settled, lambda state: state == "ready ")
    assert tried(tunnel) == b""
    (line,) = operator.lines("--refusal", "guard")
    assert (line["reason"], line["forward"]) == (f"{TARGET}: loopback address", rule)
    assert "1 guard" in operator("status")

    operator("exceptions", "add", TARGET, "--environment", number, "--reason", "a test")
    wait_for(lambda: tried(tunnel), lambda answer: answer == b"hello")
    opened = operator.lines("--client", "127.0.0.1", "--limit", "500")
    assert {each["exception"] for each in opened if each["event"] == "close"} == {f"{TARGET}/32"}

    with socket.create_connection((tunnel, 30000), timeout=20) as client:
        assert said(client, b"0123456789") == b"0123456789"
        here = f"127.0.0.1:{client.getsockname()[1]}"
        found = operator.json("status")
        forward = found["environments"][0]["rules"][0]
        assert (forward["listen"], forward["target"], forward["open"]) == (f"{tunnel}:30000", f"{TARGET}:{port}", 1)
        # What the open one has carried counts, beside those that have ended.
        assert forward["octets_up"] == 5 * (forward["opened"] - 1) + 10
        (ports,) = [each for each in found["source_ports"] if each["target"] == f"{TARGET}:{port}"]
        assert (ports["source"], ports["used"]) == ("127.0.0.2", 1)
        with urllib.request.urlopen(f"{dev['console_url']}part/environment", timeout=30) as page:
            assert f"<code>{tunnel}:30000</code></td><td>1</td>" in page.read().decode()

        # Taken away: new ones are refused at once, the open one may finish.
        operator("exceptions", "remove", f"{TARGET}/32")
        wait_for(lambda: tried(tunnel), lambda answer: answer == b"")
        assert said(client, b"still") == b"still"
    wait_for(lambda: operator.lines("--client", here), lambda lines: lines[0]["event"] == "close")
    decision, close = operator.lines("--client", here)[::-1]
    assert (decision["source"].partition(":")[0], close["bytes_up"], close["bytes_down"]) == ("127.0.0.2", 15, 15)

    operator("environment", "set", number, "--no-clients")
    wait_for(settled, lambda state: state == "ready ")
    assert tried(tunnel) == b""
    (line,) = operator.lines("--refusal", "client-network", "--limit", "1")
    assert line["reason"].startswith("127.0.0.1 is in no client network")
    actions = [row["action"] for row in audited(operator.laptop.data)]
    assert [each for each in actions if each.startswith(("guard", "environment.place"))] == [
        "guard_exception.add",
        "guard_exception.remove",
        "environment.place",
    ]


def audited(data: Path) -> list[dict[str, Any]]:
    """Return who changed what, oldest first, as the file has it."""
    import sqlite3

    connection = sqlite3.connect(f"file:{data / 'control.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM audit ORDER BY id")]
    finally:
        connection.close()
