"""Where checks of a message that take long are made: in a thread, a bounded number waiting, in turns.

Standards: none.
Promises: each check that is taken is answered exactly once, with its result or with its error; the event loop never
    waits for one; no instance takes more places than it leaves free, nor more turns than the others that wait; no
    thread is made before the first check.
Dangers: `done` is called in the thread. A check shares the interpreter with the event loop: one thread is enough.
Not here: the checks (`relay.policy`, `relay.content`), places and turns (`relay.turns`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from outgate.relay.turns import Turns

_T = TypeVar("_T")


class Checking:
    """A thread for long checks."""

    def __init__(self, *, waiting: int = 100) -> None:
        self._turns = Turns(1, waiting, "content")

    def submit(
        self, instance_id: str, check: Callable[[], _T], done: Callable[[_T | None, Exception | None], object]
    ) -> None:
        """Run `check` in the thread when it is the instance's turn, and call `done` there with its result, or None
        and its error. Raises `turns.Busy` if there is no place for the instance."""
        self._turns.submit(instance_id, partial(_run, check, done))

    def close(self) -> None:
        """Stop the thread; waiting checks are dropped."""
        self._turns.close()


def _run(check: Callable[[], _T], done: Callable[[_T | None, Exception | None], object]) -> None:
    try:
        found = check()
    except Exception as error:
        done(None, error)
    else:
        done(found, None)
