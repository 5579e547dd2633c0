"""Pipes for moving octets from socket to socket inside the system.

Standards: Linux splice(2), pipe(7).
Promises: a bounded number of them, each empty when it is not lent; none to be had is an answer, not an error.
Dangers: a pipe with octets in it must be discarded, or they reach a stranger.
Not here: moving (`pump`).
"""

from __future__ import annotations

import fcntl
import os
import sys

# Larger pipes cost fewer calls for the same octets.
PIPE = 256 * 1024
_PIPES = 64
_F_SETPIPE_SZ = 1031


class Pipes:
    """Pipes for `splice`, a bounded number, each empty when it is not lent."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []
        self._made = 0

    def take(self) -> tuple[int, int] | None:
        """Return an empty pipe (its ends to read and to write), or None if there are too many."""
        if self._free:
            return self._free.pop()
        if self._made >= _PIPES or sys.platform != "linux":
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # no more files: octets go by memory
        self._made += 1
        try:
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # the user has all the pipe memory that it may have: a smaller one works too
        return pipe

    def give_back(self, pipe: tuple[int, int]) -> None:
        """Take back a pipe that is empty."""
        self._free.append(pipe)

    def discard(self, pipe: tuple[int, int]) -> None:
        """Take back a pipe that is not."""
        self._made -= 1
        for end in pipe:
            os.close(end)

    def close(self) -> None:
        """Close the pipes that are not lent."""
        while self._free:
            self.discard(self._free.pop())
