"""What the tests with real clients have in common: running one, reading its queue id, looking at what arrived."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from support.running import Running, wait_for

_QUEUED = re.compile(r"250 2\.0\.0 Ok: queued as ([0-9A-Z]+)")


def run(command: list[str], stdin: str | bytes = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a client to its end; return what it said. A client that is not installed fails the test by its name."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=120, **options)
    except FileNotFoundError:
        raise AssertionError(f"{command[0]} is missing: run `make packages` as root") from None
    said, complained = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    return subprocess.CompletedProcess(command, done.returncode, said, complained)


def queued_as(said: str) -> str:
    """Return the queue id in our answer to a message."""
    found = _QUEUED.search(said)
    assert found, said
    return found[1]


def all_queued(said: str) -> list[str]:
    """Return the queue ids of all messages that were taken, in order."""
    return _QUEUED.findall(said)


def arrived(running: Running, queue_id: str) -> tuple[dict[str, Any], bytes]:
    """Return the one mail in the inbox that a message became, and its source; both judges say pass."""
    found = running.settled(queue_id)
    assert {recipient["status"] for recipient in found["recipients"]} == {"delivered"}, found["recipients"]
    marker = f" id {queue_id}\r\n".encode()
    mine = [(item, raw) for item in judged(running) if marker in (raw := running.raw(item["id"]))]
    assert len(mine) == 1, [item["subject"] for item, _ in mine]
    item, raw = mine[0]
    assert (item["spf"]["result"], item["dkim"]["result"]) == ("pass", "pass"), item
    assert item["tls"].startswith("TLSv1.")
    return item, raw


def judged(running: Running) -> list[dict[str, Any]]:
    """Return the inbox once each mail in it is judged."""
    return wait_for(running.inbox, lambda items: all(item["dkim"]["result"] != "pending" for item in items))


def check_trail(running: Running, queue_id: str) -> str:
    """The message arrived, is judged well, and `outgate message show` tells its trail; return that."""
    arrived(running, queue_id)
    shown = running.outgate("message", "show", queue_id)
    assert shown.returncode == 0, shown.stderr
    assert queue_id in shown.stdout and "delivered" in shown.stdout
    return shown.stdout


def logged(running: Running, event: str) -> list[dict[str, Any]]:
    """Return the log's lines of one event, in order."""
    lines = [json.loads(line) for line in Path(running.log).read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]
