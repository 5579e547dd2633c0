"""Mail is stuck, and an operator sees why and frees it: with the command line, against a real laptop mode."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from support.running import Running, wait_for

pytestmark = pytest.mark.scenario

HOUR = 3600
LATER = [{"recipient": "*@stuck.test", "at": "rcpt", "reply": "451 4.7.1 greylisted, come back"}]


@pytest.fixture(autouse=True)
def behaves(running: Running) -> Iterator[None]:
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), LATER)
    yield
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), [])


def send(running: Running, *recipients: str) -> str:
    """Send a mail; return its queue id."""
    dev = running.dev
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"shop@{dev['domain']}", ", ".join(recipients), "a letter"
    message.set_content("Hello.\n")
    host, port = running.address("submission")
    with smtplib.SMTP(host, port, timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=dev["ca_file"]))
        client.login(dev["smtp_user"], dev["smtp_password"])
        client.mail(message["From"])
        for recipient in recipients:
            client.rcpt(recipient)
        code, text = client.data(message.as_bytes(policy=SMTP))
    assert code == 250, text
    found = re.search(r"queued as (\S+)", text.decode())
    assert found, text
    return found[1]


def advance(running: Running, seconds: float) -> None:
    running.api.call("POST", running.api.sandbox("clock"), {"advance_s": seconds})


def ask(running: Running, *arguments: str) -> Any:
    done = running.outgate("queue", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def states(running: Running, queue_id: str) -> dict[str, str]:
    found = running.api.call("GET", running.api.messages(queue_id))
    return {each["mailbox"]: each["status"] for each in found["recipients"]}


def inbox_of(running: Running, recipient: str) -> int:
    return sum(recipient in json.dumps(each) for each in running.inbox())


def trail(running: Running, queue_id: str) -> str:
    done = running.outgate("message", "show", queue_id)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stuck_mail_is_seen_held_released_and_delivered(running: Running) -> None:
    queue_id = send(running, "ann@stuck.test")
    running.settled(queue_id, "deferred")
    shown = running.outgate("queue")
    assert shown.returncode == 0, shown.stderr
    (row,) = [line for line in shown.stdout.splitlines() if "greylisted" in line]
    assert "451 4.7.1 greylisted, come back" in row
    site = row.split()[0]
    (before,) = [each for each in ask(running)["sites"] if each["site"] == site]
    assert before["recipients"] >= 1 and before["next_attempt_at"] and before["reply"].startswith("451 4.7.1")

    held = running.outgate("queue", "hold", "--domain", "STUCK.test", "--reason", "the site asked for a pause")
    assert held.returncode == 0, held.stderr
    assert "1 recipient(s) of 1 message(s) held" in held.stdout and "what comes is held too" in held.stdout
    assert states(running, queue_id) == {"ann@stuck.test": "held"}
    (standing,) = ask(running, "holds")["holds"]
    assert standing["selection"]["domain"] == "stuck.test" and standing["reason"] == "the site asked for a pause"
    shown = running.outgate("queue").stdout
    assert f"held: domain stuck.test: the site asked for a pause (by {standing['by']})" in shown

    # What comes is held before it is tried, what is due is not tried, and other domains of the site go on.
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), [])
    coming = send(running, "bob@stuck.test", "carl@free.test")
    wait_for(lambda: states(running, coming), lambda now: now["carl@free.test"] == "delivered")
    advance(running, 30 * HOUR)
    assert states(running, queue_id) == {"ann@stuck.test": "held"}
    assert states(running, coming)["bob@stuck.test"] == "held"
    assert inbox_of(running, "ann@stuck.test") == inbox_of(running, "bob@stuck.test") == 0

    freed = running.outgate("queue", "release", "--domain", "stuck.test")
    assert freed.returncode == 0 and "2 recipient(s) of 2 message(s) released" in freed.stdout, freed
    running.settled(queue_id, "delivered")
    running.settled(coming, "delivered")
    assert inbox_of(running, "ann@stuck.test") == inbox_of(running, "bob@stuck.test") == 1
    assert ask(running, "holds")["holds"] == []
    told = trail(running, queue_id)
    assert f"held: the site asked for a pause (by {standing['by']})" in told
    assert f"released (by {standing['by']})" in told


def test_retry_now_reroute_and_cancel(running: Running) -> None:
    queue_id = send(running, "dora@stuck.test")
    running.settled(queue_id, "deferred")
    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), [])
    tried = running.outgate("queue", "retry", "--message", queue_id)
    assert tried.returncode == 0 and "1 recipient(s) of 1 message(s) to be tried now" in tried.stdout, tried
    running.settled(queue_id, "delivered")
    assert "to be tried now (by " in trail(running, queue_id)

    running.api.call("PUT", running.api.sandbox("inbox/behaviour"), LATER)
    first, second = send(running, "eve@stuck.test"), send(running, "finn@stuck.test", "gus@free.test")
    for each in (first, second):
        wait_for(lambda each=each: states(running, each), lambda now: "deferred" in now.values())
    wrong = running.outgate("queue", "reroute", "moon", "--message", first)
    assert wrong.returncode == 1 and "there are direct" in wrong.stderr, wrong
    other = running.outgate("queue", "reroute", "direct", "--message", first)
    assert other.returncode == 0 and "1 recipient(s) of 1 message(s) rerouted" in other.stdout, other
    wait_for(lambda: len(trail(running, first).split("451 4.7.1")), lambda count: count > 2)
    listed = ask(running, "messages", "--message", first)["recipients"]
    assert [(each["recipient"], each["route"]) for each in listed] == [("eve@stuck.test", "direct")]

    unasked = running.outgate("queue", "cancel", "--domain", "stuck.test", stdin=subprocess.DEVNULL)
    assert unasked.returncode == 2 and "--yes" in unasked.stderr, unasked
    dry = ask(running, "cancel", "--domain", "stuck.test", "--dry-run")
    assert (dry["changed"], dry["messages"]) == (2, 2)
    ended = running.outgate("queue", "cancel", "--domain", "stuck.test", "--yes", "--reason", "sent by mistake")
    assert ended.returncode == 0 and "2 recipient(s) of 2 message(s) cancelled" in ended.stdout, ended
    assert states(running, first) == {"eve@stuck.test": "cancelled"}
    assert states(running, second) == {"finn@stuck.test": "cancelled", "gus@free.test": "delivered"}
    assert "sent by mistake" in trail(running, second)
    advance(running, 30 * HOUR)
    assert inbox_of(running, "finn@stuck.test") == 0


def test_a_hold_stands_over_a_restart(running: Running) -> None:
    assert running.outgate("queue", "hold", "--domain", "later.test").returncode == 0
    queue_id = send(running, "hans@later.test")
    wait_for(lambda: states(running, queue_id), lambda now: now == {"hans@later.test": "held"})
    running.kill()
    running.start()
    again = send(running, "ida@later.test")
    wait_for(lambda: states(running, again), lambda now: now == {"ida@later.test": "held"})
    assert ask(running, "holds")["total_count"] == 1
    assert running.outgate("queue", "release", "--domain", "later.test").returncode == 0
    for each in (queue_id, again):
        running.settled(each, "delivered")


@pytest.mark.parametrize("how", ["q", "interrupt"])
def test_top_is_live_and_ends_cleanly(running: Running, how: str) -> None:
    queue_id = send(running, f"{how}@stuck.test")
    running.settled(queue_id, "deferred")
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(OUTGATE_DATA=str(running.data), TERM="xterm", COLUMNS="160", LINES="30")
        os.execv(sys.executable, [sys.executable, "-m", "outgate.cli", "queue", "top", "--interval", "0.2"])
    seen = b""
    end = time.monotonic() + 60
    try:
        # Two frames at least: it is live.
        while seen.count(b"q ends") < 2 or b"greylisted" not in seen:
            assert time.monotonic() < end, seen
            if select.select([terminal], [], [], 1.0)[0]:
                seen += os.read(terminal, 65536)
        if how == "q":
            os.write(terminal, b"q")
        else:
            os.kill(child, signal.SIGINT)
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        _, status = os.waitpid(child, 0)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, seen
    assert b"\x1b[?1049l" in seen and b"\x1b[?25h" in seen  # the screen and the cursor are back
    assert b"Traceback" not in seen


def test_top_without_a_terminal_is_one_frame(running: Running) -> None:
    shown = running.outgate("queue", "top")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("SITE") and "sites;" in shown.stdout and "\x1b" not in shown.stdout
