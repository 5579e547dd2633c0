"""A long queue: start-up, memory and look-ups with 100,000 deferred messages of 10 KB, and a million events.

    .venv/bin/python bench/deferred.py [--messages 100000] [--size 10240] [--finished 0] [--keep DIR] [--storm]

Fills a data directory of `outgate dev` through the real store, starts the service with a receiving server that answers
451 to every recipient, and prints one line of JSON: seconds from the process's start to `ready`, resident memory then
and at most while it retries for half a minute, milliseconds (middle, worst) of the API's answers to look-ups by queue
id, Message-ID and recipient and to pages of the list. `--finished` adds as many messages that were delivered, two
events each and one recipient. A directory that is kept is filled once. With `--storm` all is due at the start, and
the look-ups are made while it is tried.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import random
import smtplib
import sqlite3
import ssl
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from outgate.base.clock import SystemClock
from outgate.base.ids import queue_id
from outgate.model.flow import Job, SigningKey, Status
from outgate.store.sqlite import open_queue
from support.queue_mail import accepted, attempt
from support.running import Running

_WAVE = 500
_DOMAINS = 2000


class Refusing:
    """A receiving server on a thread of its own: every recipient gets 451."""

    def __init__(self) -> None:
        self.answered = 0
        self.port = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 refusing\r\n")
        while line := (await reader.readline()).upper():
            if line.startswith(b"EHLO"):
                writer.write(b"250-refusing\r\n250 PIPELINING\r\n")
            elif line.startswith(b"RCPT"):
                self.answered += 1
                writer.write(b"451 4.7.1 come back later\r\n")
            elif line.startswith(b"DATA"):
                writer.write(b"554 5.5.1 no recipients\r\n")
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
        writer.close()


def first_mail(running: Running) -> SigningKey:
    """Send one mail the usual way; return the key that it was signed with."""
    dev = running.dev
    host, port = running.address("submission")
    with smtplib.SMTP(host, port) as client:
        client.starttls(context=ssl.create_default_context(cafile=dev["ca_file"]))
        client.login(dev["smtp_user"], dev["smtp_password"])
        client.sendmail(f"a@{dev['domain']}", ["b@there.test"], f"From: a@{dev['domain']}\r\n\r\nhello\r\n")
    with sqlite3.connect(running.data / "queue-0.db") as connection:
        return SigningKey(*connection.execute("SELECT key_id, key_domain, key_selector FROM messages").fetchone())


def fill(running: Running, key: SigningKey, deferred: int, finished: int, size: int) -> None:
    """Put mail into the queue of a service that is down."""
    dev, clock, chance = running.dev, SystemClock(), random.Random(1)
    inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    store = open_queue(running.data, shard="0", clock=clock, segment_bytes=64 << 20, notify=inbox.put)
    content = b"Subject: x\r\n\r\n" + b"0123456789abcdef0123456789abcd\r\n" * (size // 32)
    now = clock.now()

    def made(number: int, done: bool) -> Any:
        mailbox = f"r{number}@d{number % _DOMAINS}.test"
        # What is finished was spread over the month before; what waits came within the last hours.
        at = now - (86_400 * 29 * (1 - number / max(finished, 1)) if done else chance.random() * 36_000)
        message = accepted(mailbox, content=b"x\r\n" if done else content, at=at, instance=dev["instance_id"])
        return replace(
            message,
            queue_id=queue_id("0", at),
            smtp_config_id=dev["smtp_config_id"],
            signing_key=key,
            header_from=f"a@{dev['domain']}",
            message_id=f"<{'done' if done else 'wait'}-{number}@{dev['domain']}>",
            submission=replace(message.submission, reverse_path=f"a@{dev['domain']}"),
        )

    for total, done in ((finished, True), (deferred, False)):
        for first in range(0, total, _WAVE):
            left = min(_WAVE, total - first)

            def answered(error: Exception | None, jobs: tuple[Job, ...], done: bool = done) -> None:
                nonlocal left
                assert error is None, error
                left -= 1
                for job in jobs:
                    status = Status.DELIVERED if done else Status.DEFERRED
                    next_at = None if done else now + chance.random() * 7200
                    store.record(attempt(job, status, at=job.accepted_at + 1, next_at=next_at))

            for number in range(first, first + left):
                store.submit(made(number, done), answered)
            while left:
                inbox.get()()
    store.close()


def memory_mb(pid: int, field: str = "VmRSS:") -> float:
    """Return a figure of a process's memory, in MB (10^6 octets)."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return round(int(status.partition(field)[2].split()[0]) * 1024 / 1e6, 1)


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process has used: on a machine that others use, the truer figure."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def asked(running: Running, query: str) -> tuple[float, dict[str, Any]]:
    """Return how many milliseconds an answer takes, and the answer."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        running.api.messages() + query, headers={"Authorization": f"Bearer {running.dev['token']}"}
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        body = answer.read()
    return (time.perf_counter() - began) * 1000, json.loads(body)


def look_up(running: Running, deferred: int, finished: int) -> dict[str, list[float]]:
    """Ask for messages in every way, some twenty times each; return the middle and the worst."""
    chance = random.Random(2)
    took: dict[str, list[float]] = {}
    total = deferred + finished
    for _ in range(20):
        number = chance.randrange(deferred)
        mailbox = urllib.parse.quote(f"r{number}@d{number % _DOMAINS}.test")
        ms, found = asked(running, f"?message_id={urllib.parse.quote(f'wait-{number}@' + running.dev['domain'])}")
        took.setdefault("message_id", []).append(ms)
        one = found["messages"][0]
        for name, query in (
            ("queue_id", f"/{one['queue_id']}"),
            ("recipient", f"?recipient={mailbox}"),
            ("page_first", "?limit=100"),
            ("page_deferred", "?status=deferred&limit=100"),
            ("page_delivered", "?status=delivered&limit=100"),
            ("page_recipient_status", f"?recipient={mailbox}&status=deferred"),
            ("page_deep", f"?limit=100&offset={total * 9 // 10}"),
        ):
            took.setdefault(name, []).append(asked(running, query)[0])
    return {name: [round(statistics.median(each), 1), round(max(each), 1)] for name, each in took.items()}


def main() -> None:
    """Fill, start, measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=100_000)
    options.add_argument("--finished", type=int, default=0)
    options.add_argument("--size", type=int, default=10_240)
    options.add_argument("--keep", type=Path)
    options.add_argument("--fill-only", action="store_true")
    options.add_argument("--storm", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = given.keep or Path(directory)
        refusing = Refusing()
        running = Running(place / "data", f'[relay]\ndeliver_to = "127.0.0.1:{refusing.port}"\n')
        if not (place / "filled").exists():
            running.start()
            key = first_mail(running)
            running.stop()
            began = time.monotonic()
            fill(running, key, given.messages, given.finished, given.size)
            (place / "filled").touch()
            print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        if given.fill_only:
            return
        if given.storm:
            with closing(sqlite3.connect(place / "data" / "queue-0.db")) as connection, connection:
                connection.execute("UPDATE recipients SET due_at = 1 WHERE due_at IS NOT NULL AND lease IS NULL")
        began = time.monotonic()
        running.start()
        ready_s = round(time.monotonic() - began, 2)
        assert running.process is not None
        pid = running.process.pid
        figures: dict[str, Any] = {"messages": given.messages, "finished": given.finished, "ready_s": ready_s}
        figures |= {"cpu_s_at_ready": cpu_s(pid), "rss_at_ready_mb": memory_mb(pid)}
        figures["lookup_ms"] = look_up(running, given.messages, given.finished)
        most, end = 0.0, time.monotonic() + 30
        while time.monotonic() < end:
            most = max(most, memory_mb(pid))
            time.sleep(0.5)
        figures |= {"rss_most_mb": most, "rss_peak_mb": memory_mb(pid, "VmHWM:"), "retried": refusing.answered}
        running.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
