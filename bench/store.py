"""Measure what the store alone costs: messages accepted and delivered through `QueueStore`, CPU per thousand.

`python bench/store.py [--messages N] [--together N] [--directory DIR]`: one line of JSON. Synced as it always is, so
put the directory on the disk that counts. No network, no signature: what is left is the spool, the rows and threads.
"""

from __future__ import annotations

import argparse
import json
import queue
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from outgate.base.clock import SystemClock
from outgate.model.flow import Job
from outgate.store.sqlite import QueueStore, open_queue
from support.queue_mail import accepted, attempt


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _wave(store: QueueStore, inbox: queue.SimpleQueue[Callable[[], None]], number: int) -> None:
    """Have `number` messages stored at once, and each delivered as soon as it is."""
    at = time.time()
    left = number
    messages = [
        accepted(f"r{each}@dest.test", at=at, content=b"Subject: x\r\n\r\n" + b"x" * 4000) for each in range(number)
    ]

    def done(error: Exception | None, jobs: tuple[Job, ...]) -> None:
        nonlocal left
        assert error is None, error
        left -= 1
        for job in jobs:
            store.record(attempt(job, at=at + 1))

    for message in messages:
        store.submit(message, done)
    while left:
        inbox.get()()


def main() -> None:
    """Run, and print what it cost."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=20_000)
    options.add_argument("--together", type=int, default=20)
    options.add_argument("--directory", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        store = open_queue(Path(directory), shard="0", clock=SystemClock(), segment_bytes=64 << 20, notify=inbox.put)
        _wave(store, inbox, given.together)
        cpu, wall, done = _cpu(), time.monotonic(), 0
        while done < given.messages:
            _wave(store, inbox, given.together)
            done += given.together
        store.flush()
        cpu, wall = _cpu() - cpu, time.monotonic() - wall
        store.close()
        size = (Path(directory) / "queue-0.db").stat().st_size
    per = 1000 / done
    print(
        json.dumps(
            {
                "messages": done,
                "cpu_ms_per_1000": round(cpu * 1000 * per, 1),
                "wall_s": round(wall, 1),
                "file_bytes_per_message": round(size / done),
            }
        )
    )


if __name__ == "__main__":
    main()
