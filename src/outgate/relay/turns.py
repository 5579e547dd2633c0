"""Places for those who have to wait, and turns in a few threads: bounded, and fair between where they come from.

Standards: none.
Promises: a source never holds more places than it leaves free, so a flood from one leaves half of them to others, a
flood from nine leaves a tenth; turns go round the sources, so who comes from elsewhere waits for one of theirs each.
Dangers: work runs in a thread of the pool and must not raise.
Not here: what waits (`relay.credentials`, `relay.checking`, `relay.session`), what a source is (`relay.guessing`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Busy(Exception):
    """More wait than we are ready to keep."""


class Places:
    """A bounded number of places. Not thread-safe."""

    __slots__ = ("_held", "_most", "_taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._held: dict[str, int] = {}

    def take(self, source: str) -> bool:
        """Take a place for a source, or say that there is none for it."""
        held = self._held.get(source, 0)
        if held >= self._most - self._taken:
            return False
        self._held[source] = held + 1
        self._taken += 1
        return True

    def give_back(self, source: str) -> None:
        """Free a place that a source took."""
        held = self._held.pop(source) - 1
        if held:
            self._held[source] = held
        self._taken -= 1


class Turns:
    """Run work in `threads`, at most `waiting` pieces waiting or running. Thread-safe."""

    def __init__(self, threads: int, waiting: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = Places(waiting)
        # In the order of their turns; a source that had its turn goes to the end.
        self._lines: dict[str, deque[Callable[[], None]]] = {}
        self._lock = threading.Lock()

    def submit(self, source: str, work: Callable[[], None]) -> None:
        """Have `work` done when its source's turn comes. Raises `Busy` if there is no place for that source."""
        with self._lock:
            if not self._places.take(source):
                raise Busy
            self._lines.setdefault(source, deque()).append(work)
        self._pool.submit(self._one)

    def close(self) -> None:
        """Stop the threads; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self) -> None:
        with self._lock:
            source = next(iter(self._lines))
            line = self._lines.pop(source)
            work = line.popleft()
            if line:
                self._lines[source] = line
        try:
            work()
        finally:
            with self._lock:
                self._places.give_back(source)
