"""Copy octets between two connected sockets, both ways, until both have ended.

Standards: RFC 9293 (half-close, reset); Linux splice(2), SIOCOUTQ.
Promises: octets arrive in order, each once, whatever the schedule; the end of one direction is passed on and the other
    stays open; a side that does not read stops the other from being read, and what is held meanwhile is bounded:
    `_CHUNK` octets a direction, or a pipe of the pool (`pipes`); a reset is passed on as one, behind all that came
    before it; each join ends exactly once, with the octets of both directions and a reason.
Dangers: a peer that is gone without a word is found by TCP keep-alive, which whoever made the socket sets.
Not here: who may connect whereto (`gate`, `reach`), what is looked for in the octets (a `Watch`'s owner),
    when a socket is ready (`poll`).

Long, because the two sides of a join act on each other at every step: apart, each would be read with the other open.

Reasons: `finished`, `idle`, `client closed`, `target closed` (gone without waiting for the other direction), `client
reset`, `target reset`, `client lost`, `target lost` (no answer any more), `watch failed`, those of `Flow.abort`
(`drained`, `shutdown`) and of a `Verdict`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import functools
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from outgate.base.log import Log
from outgate.egress.pipes import PIPE, Pipes
from outgate.egress.poll import BROKEN, READABLE, UNSURE, WRITABLE, Poller

_log = Log("outgate.egress.pump")

_CHUNK = 64 * 1024
# What one direction may move before the others have their turn.
_BUDGET = 1024 * 1024
# How long a side may take to acknowledge its last octets before it is closed all the same.
_LINGER_S = 5.0
_LOOKS_S = (0.005, 0.25)
_SPLICE = hasattr(os, "splice")
_SPLICE_FLAGS = 3  # MOVE and NONBLOCK
_SIOCOUTQ = 0x5411
_LOST = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})


class Verdict(Protocol):
    """What a `Watch` makes of octets."""

    @property
    def on(self) -> bytes:
        """Return what goes to the other side."""
        ...

    @property
    def back(self) -> bytes:
        """Return what answers the sender."""
        ...

    @property
    def done(self) -> bool:
        """Say that the watch need not be asked any more."""
        ...

    @property
    def end(self) -> str:
        """Return why both sides are to be closed after that, or ""."""
        ...


class Watch(Protocol):
    """Sees the first octets of both directions. What it holds it must give in a later `on` (at the latest when it is
    done): the pump keeps no copy. Of b"" it is told at the end of that direction: the last time to give what it holds.
    """

    @property
    def deadline_s(self) -> float | None:
        """Return the seconds of the client's silence, from the join, after which `silent` is asked; None: never."""
        ...

    def client(self, data: bytes) -> Verdict:
        """Judge octets of the client: `on` goes to the target, `back` to the client."""
        ...

    def target(self, data: bytes) -> Verdict:
        """Judge octets of the target: `on` goes to the client, `back` to the target."""
        ...

    def silent(self) -> Verdict:
        """Judge that the client has said nothing at all by the deadline; read like a verdict of `client`."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How a join ended: octets that came from the client (`up`) and from the target (`down`)."""

    up: int
    down: int
    duration_s: float
    reason: str


class Pump:
    """Join sockets. Lives on one event loop."""

    def __init__(self, poller: Poller, *, idle_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.poller = poller
        self.pipes = Pipes()
        self.buffer = memoryview(bytearray(_CHUNK))
        self._idle_s = idle_timeout_s
        self._flows: set[Flow] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def join(
        self,
        client: socket.socket,
        target: socket.socket,
        *,
        to_target: bytes = b"",
        to_client: bytes = b"",
        watch: Watch | None = None,
        ended: Callable[[Ended], None],
    ) -> Flow:
        """Copy between two connected non-blocking sockets, which are the pump's from now on.

        `to_target` and `to_client` go out first and are not counted. `ended` is called once, never from in here."""
        flow = Flow(self, client, target, watch, ended)
        self._flows.add(flow)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._period_s, self._end_idle)
        flow.begin(to_target, to_client)
        return flow

    @property
    def open(self) -> int:
        """Return how many joins have not ended."""
        return len(self._flows)

    def close(self) -> None:
        """End every join with the reason `shutdown`."""
        for flow in list(self._flows):
            flow.abort("shutdown")
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self.pipes.close()

    def later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` in so many seconds."""
        return self._loop.call_later(seconds, callback)

    def time(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def forget(self, flow: Flow) -> None:
        """Take note that a join has ended."""
        self._flows.discard(flow)

    @property
    def _period_s(self) -> float:
        return max(self._idle_s / 8, 0.01)

    def _end_idle(self) -> None:
        since = self._loop.time() - self._idle_s
        idle = [each for each in self._flows if each.moved <= since]
        # First of all: whatever goes wrong at the end of one join, there is a next time for the others.
        self._sweep = self._loop.call_later(self._period_s, self._end_idle) if self._flows else None
        for flow in idle:
            flow.abort("idle")


class Flow:
    """One join."""

    __slots__ = (
        "_began",
        "_ended",
        "_linger_until",
        "_looks_s",
        "_pump",
        "_reason",
        "_reset",
        "_timer",
        "client",
        "leaving",
        "moved",
        "over",
        "target",
        "watch",
    )

    def __init__(
        self,
        pump: Pump,
        client: socket.socket,
        target: socket.socket,
        watch: Watch | None,
        ended: Callable[[Ended], None],
    ) -> None:
        self._pump = pump
        self._ended = ended
        self._reason = ""
        self._reset = False
        self._linger_until = 0.0
        self._looks_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._began = self.moved = pump.time()
        self.over = False
        self.leaving = False
        self.watch = watch
        self.client = End(pump, self, client)
        self.target = End(pump, self, target)
        self.client.other, self.target.other = self.target, self.client

    @property
    def up(self) -> int:
        """Return how many octets have come from the client so far."""
        return self.client.octets

    @property
    def down(self) -> int:
        """Return how many octets have come from the target so far."""
        return self.target.octets

    def abort(self, reason: str) -> None:
        """Reset both sides now; what is not out is lost. Nothing happens to a join that is over."""
        if self.over:
            return
        self._reset = True
        self._reason = self._reason or reason
        self._close()

    def begin(self, to_target: bytes, to_client: bytes) -> None:
        """Register the sockets; what there is to read already is told of in the next round."""
        client, target, poller = self.client, self.target, self._pump.poller
        if to_target:
            target.out = memoryview(to_target)
        if to_client:
            client.out = memoryview(to_client)
        if self.watch is not None and (seconds := self.watch.deadline_s) is not None:
            self._timer = self._pump.later(seconds, self._silent)
        for end in (client, target):
            if poller.knows(end.fd):
                poller.hand(end.fd, end)
            else:
                poller.add(end.fd, end)
        if to_target or to_client:
            poller.soon(self._first)

    def _first(self) -> None:
        self.client.pull()
        self.target.pull()

    def show(self, source: End, judge: Callable[[], Verdict]) -> None:
        """Do as a watch says about octets of `source`."""
        try:
            verdict = judge()
        except Exception as error:
            # What it would have kept back must not get through because it failed.
            _log.exception("egress.watch_failed", error=repr(error))
            self.abort("watch failed")
            return
        if verdict.on:
            source.other.add(verdict.on)
        if verdict.back:
            source.add(verdict.back)
        if verdict.done or verdict.end:
            self.watch = None
            self._cancel()
        if verdict.end:
            self.leave(verdict.end, reset=False)

    def _silent(self) -> None:
        self._timer = None
        self._pump.poller.now = self._pump.time()  # no round is under way
        if self.watch is not None and not self.client.octets and not self.over and not self.leaving:
            self.show(self.client, self.watch.silent)
            self._first()

    def broken(self, end: End, error: OSError | None, *, reading: bool) -> None:
        """Take note that a side is gone. What it sent before still goes to the other, then the other is reset."""
        if self.over:
            return
        if not self._reason:
            name = "client" if end is self.client else "target"
            how = "lost" if error is not None and error.errno in _LOST else "closed" if end.eof else "reset"
            self._reason = f"{name} {how}"
        if self.leaving:
            end.dead = True
            self.settle()
            return
        if reading or end.eof or end.other.deaf:
            end.dead = True
            self.leave(self._reason, reset=True)
            return
        if end.deaf:
            return
        # It takes nothing more; but what it said last may tell why.
        end.deaf = True
        end.forget_out()
        end.readable = True
        end.pull()

    def leave(self, reason: str, *, reset: bool) -> None:
        """Read no more; close the sides that are left once what they are to get has arrived there."""
        if self.over or self.leaving:
            return
        self._reason = self._reason or reason
        self._reset = reset
        self.leaving = True
        self._linger_until = self._pump.time() + _LINGER_S
        self._looks_s = _LOOKS_S[0]
        self._cancel()
        self.settle()

    def settle(self) -> None:
        """Look whether the last octets are out; close if so."""
        if self.over:
            return
        waiting = False
        for end in (self.client, self.target):
            if end.dead or end.deaf:
                continue
            if not end.other.flush():
                waiting = waiting or not end.dead
            elif not end.dead:
                if not self._reset:
                    end.say_end()
                waiting = waiting or (not end.dead and _unacknowledged(end.sock) > 0)
            if self.over:
                return
        if not waiting or self._pump.time() >= self._linger_until:
            self._close()
        elif self._timer is None:
            self._timer = self._pump.later(self._looks_s, self._look_again)
            self._looks_s = min(self._looks_s * 2, _LOOKS_S[1])

    def _look_again(self) -> None:
        self._timer = None
        self.settle()

    def finish(self) -> None:
        """Close both sides: both directions have ended, and all is in the system's hands."""
        self._reason = self._reason or "finished"
        self._close()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self.over = True
        self._cancel()
        pump, client, target = self._pump, self.client, self.target
        pump.poller.close(client.sock, reset=self._reset)
        pump.poller.close(target.sock, reset=self._reset)
        client.let_go()
        target.let_go()
        pump.forget(self)
        self._ended(Ended(client.octets, target.octets, pump.time() - self._began, self._reason))


class End:
    """One side of a join. `octets` counts what came in here, `out` waits to go out here; what came in here and waits
    in a pipe to go out at the `other` side is `fill`."""

    __slots__ = (
        "_bulk",
        "_pipe",
        "_poller",
        "_pump",
        "_sure",
        "_told",
        "dead",
        "deaf",
        "eof",
        "fd",
        "fill",
        "flow",
        "octets",
        "other",
        "out",
        "readable",
        "shut",
        "sock",
    )

    other: End

    def __init__(self, pump: Pump, flow: Flow, sock: socket.socket) -> None:
        self._pump = pump
        self._poller = pump.poller
        self._pipe: tuple[int, int] | None = None
        self._bulk = False
        self._sure = True
        self._told = False
        self.flow = flow
        self.sock = sock
        self.fd = sock.fileno()
        self.octets = 0
        self.out: memoryview | None = None
        self.fill = 0
        self.readable = False
        self.eof = False  # its peer will send nothing more
        self.shut = False  # and has been told that it will get nothing more
        self.deaf = False  # it takes nothing more
        self.dead = False

    def ready(self, events: int) -> None:
        """Move what can be moved."""
        flow = self.flow
        if flow.leaving:
            if events & BROKEN and self._error():
                self.dead = True  # nobody is left to acknowledge anything
            flow.settle()
            return
        if events & READABLE:
            self.readable = True
            if events & UNSURE:
                self._sure = False
                if events & BROKEN and self.eof and self._is_broken():
                    return
        if events & WRITABLE and (self.out is not None or self.other.fill or self.other.readable):
            self.other.pull()
            if flow.over:
                return
        if self.readable:
            self.pull()

    def pull(self) -> None:
        """Copy from here to the other side until there is nothing more, or no more can be taken."""
        flow, other = self.flow, self.other
        if flow.over or flow.leaving or other.deaf or ((other.out is not None or self.fill) and not self.flush()):
            return
        if self.eof:
            self._pass_end()
            return
        if flow.watch is not None:
            self._show(flow)
            return
        buffer, receive, send = self._pump.buffer, self.sock.recv_into, other.sock.send
        left = _BUDGET
        while self.readable:
            if self._bulk:
                left = self._splice(left)
                if left < 0:
                    return
                if self._bulk:
                    break
                continue
            try:
                count = receive(buffer)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                flow.broken(self, error, reading=True)
                return
            if not count:
                self._ended()
                return
            self.octets += count
            flow.moved = self._poller.now
            if count < _CHUNK:
                if self._sure:
                    self.readable = False
            else:
                self._bulk = _SPLICE and self._sure
            try:
                sent = send(buffer[:count])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                flow.broken(other, error, reading=False)
                return
            if sent < count:
                other.out = memoryview(bytes(buffer[sent:count]))
                other.wait()
                return
            left -= count
            if left <= 0:
                break
        if self.readable:
            self._poller.soon(self.pull)
        else:
            self._poller.wait_read(self.fd)

    def flush(self) -> bool:
        """Send what waits to go out at the other side; return whether all of it is out."""
        flow, other = self.flow, self.other
        if other.deaf or other.dead:
            return True
        try:
            if other.out is not None:
                sent = other.sock.send(other.out)
                flow.moved = self._poller.now
                if sent < len(other.out):
                    other.out = other.out[sent:]
                    other.wait()
                    return False
                other.out = None
            while self.fill:
                assert self._pipe is not None
                self.fill -= os.splice(self._pipe[0], other.fd, self.fill, flags=_SPLICE_FLAGS)
                flow.moved = self._poller.now
        except BlockingIOError:
            other.wait()
            return False
        except OSError as error:
            flow.broken(other, error, reading=False)
            return False
        if self._pipe is not None:
            self._pump.pipes.give_back(self._pipe)
            self._pipe = None
        return True

    def wait(self) -> None:
        """Ask to be told when more can go out here."""
        if not self._told:
            self._told = self._poller.wait_write(self.fd)

    def add(self, data: bytes) -> None:
        """Let `data` go out here, behind what waits already."""
        self.out = memoryview(data if self.out is None else bytes(self.out) + data)

    def forget_out(self) -> None:
        """Drop what waits to go out here."""
        self.out = None
        self.other.let_go()

    def let_go(self) -> None:
        """Give the pipe back; with octets in it, it is of no use to others."""
        if self._pipe is not None:
            if self.fill:
                self._pump.pipes.discard(self._pipe)
            else:
                self._pump.pipes.give_back(self._pipe)
            self._pipe = None
            self.fill = 0

    def say_end(self) -> None:
        """Tell this side's peer that nothing more comes."""
        if self.shut:
            return
        self.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.flow.broken(self, error, reading=False)

    def _ended(self) -> None:
        """Take note that this side's peer sends nothing more."""
        self.eof, self.readable = True, False
        flow = self.flow
        if self.deaf:
            flow.broken(self, None, reading=True)
            return
        if flow.watch is not None:
            self._ask(flow, flow.watch, b"")
            if flow.over or flow.leaving:
                return
            if self.out is not None:
                self.other.flush()
            if not self.flush():
                return
        self._pass_end()

    def _pass_end(self) -> None:
        """Pass the end on: all that came before it is out."""
        flow, other = self.flow, self.other
        if not (other.eof and self.shut):
            other.say_end()
        elif not flow.over and not flow.leaving:
            flow.finish()  # closing says it too

    def _ask(self, flow: Flow, watch: Watch, data: bytes) -> None:
        judge = watch.client if self is flow.client else watch.target
        flow.show(self, functools.partial(judge, data))

    def _show(self, flow: Flow) -> None:
        """Read by way of the watch, as long as it has one; then blindly."""
        other = self.other
        while self.readable:
            watch = flow.watch
            if watch is None:
                self.pull()
                other.pull()
                return
            # An answer that is not out stops the reading, as everything that is not out does.
            if self.out is not None and not other.flush():
                return
            if flow.over or flow.leaving:
                return
            try:
                data = self.sock.recv(_CHUNK)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                flow.broken(self, error, reading=True)
                return
            if not data:
                self._ended()
                return
            self.octets += len(data)
            flow.moved = self._poller.now
            self._ask(flow, watch, data)
            if flow.over or flow.leaving or not self.flush():
                return
        self._poller.wait_read(self.fd)

    def _splice(self, left: int) -> int:
        """Move octets by a pipe, without seeing them. Return what is left of the budget, or -1 if the turn is over."""
        pipes, flow, other = self._pump.pipes, self.flow, self.other
        if self._pipe is None:
            self._pipe = pipes.take()
            if self._pipe is None:
                self._bulk = False
                return left
        moved = 0
        while moved < left:
            try:
                count = os.splice(self.fd, self._pipe[1], PIPE, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                flow.broken(self, error, reading=True)
                return -1
            if not count:
                pipes.give_back(self._pipe)
                self._pipe = None
                self._ended()
                return -1
            self.octets += count
            self.fill = count
            moved += count
            flow.moved = self._poller.now
            try:
                while self.fill:
                    self.fill -= os.splice(self._pipe[0], other.fd, self.fill, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                other.wait()
                return -1
            except OSError as error:
                flow.broken(other, error, reading=False)
                return -1
        pipes.give_back(self._pipe)
        self._pipe = None
        if moved < _CHUNK or not self._sure:
            self._bulk = False
        return max(left - moved, 0)

    def _is_broken(self) -> bool:
        number = self._error()
        if number:
            self.flow.broken(self, OSError(number, os.strerror(number)), reading=True)
        return number != 0

    def _error(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _unacknowledged(sock: socket.socket) -> int:
    """Return how many octets the peer has not acknowledged; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        return struct.unpack("i", fcntl.ioctl(sock, _SIOCOUTQ, b"\0\0\0\0"))[0]
    except OSError:
        return 0
