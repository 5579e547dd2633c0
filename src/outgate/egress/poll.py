"""Tell when sockets can be read and written: many sockets behind one entry of the running loop, no task for any.

Standards: epoll(7), edge-triggered, which is itself polled by the loop; where there is none, the loop's own readers.
Promises: what is told is a hint: whoever is told tries, and waits again when told to come back; a socket that is closed
    here keeps its number until the round is over, so that no hint reaches a stranger; an error in one watcher
    ends that watcher's turn only.
Dangers: with epoll nothing is told twice: read or write until the system says "not now", or ask to be told by `wait_*`.
Not here: what is done with the octets (`pump`), connecting (`reach`), accepting (`listeners`).
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Protocol

from outgate.base.log import Log

_log = Log("outgate.egress.poll")

# As epoll has them; the other poller speaks the same.
_IN, _PRI, _OUT, _ERR, _HUP, _RDHUP, _EDGE = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000, 1 << 31
READABLE = _IN | _PRI | _ERR | _HUP | _RDHUP
WRITABLE = _OUT | _ERR | _HUP
BROKEN = _ERR | _HUP
UNSURE = _PRI | _ERR | _HUP | _RDHUP
"""A short read is not the last one: there is an end, an error or urgent data behind it."""
_READING = _IN | _PRI | _RDHUP | _EDGE
_BOTH = _READING | _OUT
_ROUND = 256
_RESET = struct.pack("ii", 1, 0)


class Watcher(Protocol):
    """Whoever waits for a socket."""

    def ready(self, events: int) -> None:
        """Try again: `events` has bits of `READABLE`, `WRITABLE`, `UNSURE`."""
        ...


class Poller(Protocol):
    """What tells. Lives on one event loop. Sockets stay the callers'."""

    now: float
    """The loop's time at the beginning of this round, in seconds."""

    def add(self, fd: int, watcher: Watcher, *, write: bool = False) -> None:
        """Tell `watcher` of `fd`: when it can be read, and with `write` when it can be written too."""
        ...

    def knows(self, fd: int) -> bool:
        """Return whether someone watches `fd`."""
        ...

    def hand(self, fd: int, watcher: Watcher) -> None:
        """Tell `watcher` from now on, also of what the one before has been told."""
        ...

    def wait_read(self, fd: int) -> None:
        """Ask to be told when there is something to read, after a read said "not now"."""
        ...

    def wait_write(self, fd: int) -> bool:
        """Ask to be told when it can be written. True: it is told from now on each time after a "not now"."""
        ...

    def soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the next round, when others have had their turn."""
        ...

    def drop(self, fd: int) -> None:
        """Tell nobody of `fd` any more; before it is closed or handed to others."""
        ...

    def close(self, sock: socket.socket, *, reset: bool = False) -> None:
        """Drop and close a socket; with `reset` its peer is told that this is no ordinary end."""
        ...

    def stop(self) -> None:
        """Tell nobody anything any more."""
        ...


class _Rounds:
    """What both pollers share: who watches, rounds, and closing behind them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watchers: dict[int, Watcher] = {}
        self._in_round = False
        self._closing: list[socket.socket] = []
        self._turns: list[Callable[[], None]] = []
        self.now = loop.time()

    def knows(self, fd: int) -> bool:
        return fd in self._watchers

    def soon(self, callback: Callable[[], None]) -> None:
        if not self._turns:
            self._loop.call_soon(self._take_turns)
        self._turns.append(callback)

    def drop(self, fd: int) -> None:
        self._watchers.pop(fd, None)

    def close(self, sock: socket.socket, *, reset: bool = False) -> None:
        self.drop(sock.fileno())
        if reset:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # macOS refuses it for a connection that is already gone
        if self._in_round:
            self._closing.append(sock)
        else:
            sock.close()

    def _round(self, ready: list[tuple[int, int]]) -> None:
        watchers = self._watchers
        self.now = self._loop.time()
        self._in_round = True
        try:
            for fd, events in ready:
                watcher = watchers.get(fd)
                if watcher is None:
                    continue
                try:
                    watcher.ready(events)
                except Exception as error:
                    # One connection's fault must not take the turn of the others.
                    _log.exception("egress.watcher_failed", error=repr(error))
        finally:
            self._in_round = False
            if self._closing:
                for sock in self._closing:
                    sock.close()
                self._closing.clear()

    def _take_turns(self) -> None:
        turns, self._turns = self._turns, []
        self.now = self._loop.time()
        for turn in turns:
            try:
                turn()
            except Exception as error:
                _log.exception("egress.watcher_failed", error=repr(error))


class EpollPoller(_Rounds):
    """An epoll of our own whose descriptor is one reader of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._register = self._epoll.register
        loop.add_reader(self._epoll.fileno(), self._wake)

    def add(self, fd: int, watcher: Watcher, *, write: bool = False) -> None:
        self._watchers[fd] = watcher
        try:
            self._register(fd, _BOTH if write else _READING)
        except FileExistsError:
            # It was dropped, and comes back without having been closed.
            self._epoll.modify(fd, _BOTH if write else _READING)

    def hand(self, fd: int, watcher: Watcher) -> None:
        self._watchers[fd] = watcher
        self._epoll.modify(fd, _READING)

    def wait_read(self, fd: int) -> None:
        """Do nothing: each new octet is an edge."""

    def wait_write(self, fd: int) -> bool:
        self._epoll.modify(fd, _BOTH)
        return True

    def stop(self) -> None:
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._watchers.clear()

    def _wake(self) -> None:
        self._round(self._poll(0, _ROUND))


class LoopPoller(_Rounds):
    """The loop's own readers and writers, each for one time."""

    def add(self, fd: int, watcher: Watcher, *, write: bool = False) -> None:
        self._watchers[fd] = watcher
        self.wait_read(fd)
        if write:
            self.wait_write(fd)

    def hand(self, fd: int, watcher: Watcher) -> None:
        self.drop(fd)
        self.add(fd, watcher)

    def wait_read(self, fd: int) -> None:
        self._loop.add_reader(fd, self._readable, fd)

    def wait_write(self, fd: int) -> bool:
        self._loop.add_writer(fd, self._writable, fd)
        return False

    def drop(self, fd: int) -> None:
        super().drop(fd)
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def stop(self) -> None:
        for fd in list(self._watchers):
            self.drop(fd)

    def _readable(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        # Nothing says whether an end is behind the octets: it may be.
        self._round([(fd, _IN | _RDHUP)])

    def _writable(self, fd: int) -> None:
        self._loop.remove_writer(fd)
        self._round([(fd, _OUT)])


def poller(loop: asyncio.AbstractEventLoop) -> Poller:
    """Return the best poller of this system."""
    return EpollPoller(loop) if sys.platform == "linux" else LoopPoller(loop)
