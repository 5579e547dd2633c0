"""Connections that wait for their next message: which to take, which to keep, for how long.

Standards: RFC 5321 section 3.8 (an idle server may close).
Promises: pure, time is an argument; what was open at a `forget` never comes back, and what is opened behind it is not
kept; the one used last is taken first, so that few connections are kept busy and the others end.
Dangers: nobody is called when a connection grows too old: it is closed at the next send.
Not here: opening and closing (`mailer.sending.steps`), how many may be in use (`mailer.sending.blocking`,
`mailer.async_client`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

_L = TypeVar("_L")


@dataclass(slots=True)
class Held(Generic[_L]):
    """A connection in use: how many messages it has carried, and which generation it is of."""

    line: _L
    generation: int
    messages: int = 0
    since: float = 0.0


class Idle(Generic[_L]):
    """The connections of one service that are open and not in use."""

    __slots__ = ("_generation", "_held", "_lock", "_most_messages", "_seconds", "keeping")

    def __init__(self, lock: AbstractContextManager[object], *, seconds: float, most_messages: int) -> None:
        """Keep each for `seconds` of idleness at most, and until it has carried `most_messages`.

        `lock` is held for moments only; one of no effect will do where there is one thread."""
        self._held: list[Held[_L]] = []
        self._lock = lock
        self._seconds = seconds
        self._most_messages = most_messages
        self._generation = 0
        self.keeping = True
        """False: each connection ends with its message, since nobody will come to close it."""

    def take(self) -> Held[_L] | None:
        """Return the one that was used last, None if there is none."""
        with self._lock:
            return self._held.pop() if self._held else None

    def expired(self, now: float) -> list[_L]:
        """Return those that have been idle too long, for the caller to close."""
        with self._lock:
            old = [held.line for held in self._held if now - held.since > self._seconds]
            if old:
                self._held = [held for held in self._held if now - held.since <= self._seconds]
            return old

    def hold(self, line: _L) -> Held[_L]:
        """Return a new connection as one that is in use."""
        return Held(line, self._generation)

    def keep(self, held: Held[_L], now: float) -> bool:
        """Take back one that is open. False: it has done its work, close it."""
        with self._lock:
            if not self.keeping or held.generation != self._generation or held.messages >= self._most_messages:
                return False
            held.since = now
            self._held.append(held)
            return True

    def forget(self) -> list[_L]:
        """Return all that lie here, for the caller to close; no other is kept until `keeping` is set again."""
        with self._lock:
            self.keeping = False
            return self.abandon()

    def abandon(self) -> list[_L]:
        """Return all that lie here, without the lock: in a forked process whoever holds it may not be there."""
        lines = [held.line for held in self._held]
        self._held = []
        self._generation += 1
        return lines
