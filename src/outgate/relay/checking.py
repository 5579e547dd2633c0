"""Where checks of a message that take long are made: in a thread, a bounded number waiting.

Standards: none.
Promises: each check that is taken is answered exactly once, with its result or with its error; the event loop never
    waits for one; no thread is made before the first check.
Dangers: `done` is called in the thread. A check shares the interpreter with the event loop: one thread is enough.
Not here: the checks (`relay.policy`, `relay.content`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Crowded(Exception):
    """More checks wait than we are ready to queue."""


class Checking:
    """A thread for long checks."""

    def __init__(self, *, waiting: int = 100) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="content")
        self._waiting = waiting
        self._queued = 0
        self._lock = threading.Lock()

    def submit(self, check: Callable[[], _T], done: Callable[[_T | None, Exception | None], object]) -> None:
        """Run `check` in the thread and call `done` there with its result, or None and its error. Raises `Crowded`."""
        with self._lock:
            if self._queued >= self._waiting:
                raise Crowded
            self._queued += 1
        self._pool.submit(self._run, check, done)

    def close(self) -> None:
        """Stop the thread; waiting checks are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, check: Callable[[], _T], done: Callable[[_T | None, Exception | None], object]) -> None:
        try:
            found = check()
        except Exception as error:
            done(None, error)
        else:
            done(found, None)
        finally:
            with self._lock:
                self._queued -= 1
