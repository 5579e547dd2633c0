"""Carry one plain HTTP request to a connected target and its response back, both as streams.

Standards: RFC 9110 (sections 6.5, 7.8, 10.1.1, 15.2), RFC 9112.
Promises: both bodies move at once, in pieces that the other side has taken before more is read; what goes out is
    written anew from what was read, so the target sees one request; whatever either side does, a `Result` says what
    became of it.
Dangers: a client that has closed its sending side may be gone or may still listen: it is given `closed_s` for the
    response to begin. A response that ends early can only be shown by a reset: `broken` says so.
Not here: which target (`http_proxy`), heads (`proxy_request`, `proxy_response`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import h11

from outgate.base.tasks import cancel, spawn
from outgate.egress import proxy_response
from outgate.egress.proxy_request import Asked, onward_trailers

_PIECE = 64 * 1024
_INTERIMS = 32
# A piece may be thousands of chunks of one octet: others have their turn in between.
_EVENTS = 256


@dataclass(frozen=True, slots=True)
class Result:
    """How an exchange ended: `reason` in words, "finished" if well.

    `answer` is a status that the client has yet to be told (0: none); `broken`: its response ended early; `keep`: it
    may ask again, beginning with `rest`; `switched`: both sides speak another protocol from here, the target having
    begun with `begun`."""

    reason: str
    answer: int = 0
    broken: bool = False
    keep: bool = False
    switched: bool = False
    rest: bytes = b""
    begun: bytes = b""


class _Fault(Exception):
    """The exchange cannot go on."""

    def __init__(self, reason: str, answer: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Exchange:
    """One request and its response. `up` and `down` are the octets that the target got and gave."""

    def __init__(
        self,
        asked: Asked,
        client: socket.socket,
        target: socket.socket,
        *,
        own: bytes,
        first: bytes = b"",
        idle_s: float,
        closed_s: float,
        head_bytes: int,
    ) -> None:
        """`first` goes to the target before all else, and is not counted."""
        self._loop = asyncio.get_running_loop()
        self._asked = asked
        self._in = asked.inbound
        self._out = h11.Connection(h11.CLIENT, max_incomplete_event_size=head_bytes)
        self._client, self._target = client, target
        self._own = own
        self._first = first
        self._idle_s = idle_s
        self._closed_s = closed_s
        self._closed: asyncio.TimerHandle | None = None
        self.up = self.down = 0
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle
        self._fault: _Fault | None = None
        self._answering = self._writing = False
        self._watching = False
        self._uploaded = False
        self._more_up = self._more_down = False
        self._trailers = False
        self._interims = 0
        self._switched = False

    async def run(self, rest: bytes, last: Callable[[], bool]) -> Result:
        """Carry the exchange. `rest` came behind the head; `last` says whether the client's connection ends with it."""
        self._timer = self._loop.call_later(self._idle_s, self._check_idle)
        upload: asyncio.Task[None] | None = None
        try:
            assert self._asked.onward is not None
            if self._first:
                await self._sent(self._target, self._first, "target")
            begin = self._out.send(self._asked.onward) + self._taken(rest)
            if self._uploaded:
                await self._to_target(begin)
                self._watch()
            else:
                upload = spawn(self._upload(begin), "egress http upload")
            await self._download(last)
            return self._ended()
        except _Fault as fault:
            return self._failed(self._fault or fault)
        finally:
            self._timer.cancel()
            await cancel(upload)
            self._heard()

    def _ended(self) -> Result:
        rest = self._in.trailing_data[0]
        if self._switched:
            return Result("finished", switched=True, rest=rest, begun=self._out.trailing_data[0])
        keep = self._uploaded and self._in.our_state is h11.DONE and self._in.their_state is h11.DONE
        return Result("finished", keep=keep, rest=rest)

    def _failed(self, fault: _Fault) -> Result:
        return Result(fault.reason, 0 if self._answering else fault.answer, broken=self._answering)

    def _taken(self, data: bytes) -> bytes:
        """Return what the target gets for `data` of the client's body, or the first part of that: then `_more_up` is
        set, and b"" asks for more. Raises `_Fault`."""
        pieces: list[bytes] = []
        self._more_up = False
        try:
            if data:
                self._in.receive_data(data)
            while not self._uploaded:
                if len(pieces) >= _EVENTS:
                    self._more_up = True
                    break
                event = self._in.next_event()
                if isinstance(event, h11.Data):
                    pieces += self._out.send_with_data_passthrough(event) or ()
                elif isinstance(event, h11.EndOfMessage):
                    trailers = onward_trailers(event.headers.raw_items())
                    pieces.append(self._out.send(h11.EndOfMessage(headers=trailers)))
                    self._uploaded = True
                else:
                    break
        except h11.ProtocolError:
            raise _Fault("the client's body cannot be read", 400) from None
        return _joined(pieces)

    async def _upload(self, begin: bytes) -> None:
        """Send the request with its body, from `begin` on."""
        try:
            await self._to_target(begin)
            while not self._uploaded:
                data = b""
                if self._more_up:
                    await asyncio.sleep(0)
                else:
                    data = await self._received(self._client, "client")
                    if not data:
                        raise _Fault("client closed")
                await self._to_target(self._taken(data))
            self._watch()
        except _Fault as fault:
            # A target that takes no more may have answered already: that is for the download to find.
            if not fault.reason.startswith("target"):
                self._stop(fault)

    async def _download(self, last: Callable[[], bool]) -> None:
        """Pass the response on until it is whole, or the protocol is switched. Raises `_Fault`."""
        while True:
            data = await self._received(self._target, "target")
            if self._fault is not None:
                raise self._fault
            self._heard()
            self.down += len(data)
            self._out.receive_data(data)
            self._more_down = True
            while self._more_down:
                pieces: list[bytes] = []
                done = False
                try:
                    done = self._pass_on(pieces, last)
                except h11.ProtocolError:
                    # What came whole before it is the client's.
                    if self._answering:
                        await self._to_client(_joined(pieces))
                    said = "target closed" if not data else "the target's response cannot be read"
                    raise _Fault(said, 502) from None
                await self._to_client(_joined(pieces))
                if done:
                    return
                if self._more_down:
                    await asyncio.sleep(0)

    def _pass_on(self, pieces: list[bytes], last: Callable[[], bool]) -> bool:
        """Add to `pieces` what the client gets for the target's octets, or the first part of that: then `_more_down`
        stays set. Say whether the response has ended."""
        self._more_down = False
        while True:
            if len(pieces) >= _EVENTS:
                self._more_down = True
                return False
            event = self._out.next_event()
            if event is h11.NEED_DATA:
                return False
            if isinstance(event, h11.InformationalResponse):
                self._interim(event, pieces)
                if self._switched:
                    return True
            elif isinstance(event, h11.Response):
                response = proxy_response.onward(event, own=self._own, last=last() or not self._uploaded)
                pieces.append(self._in.send(response))
                self._answering = True
                # What has no length then goes on in chunks, and only chunks have something behind them.
                sized = any(name == b"content-length" for name, _ in response.headers)
                self._trailers = self._in.their_http_version == b"1.1" and not sized
            elif isinstance(event, h11.Data):
                pieces += self._in.send_with_data_passthrough(event) or ()
            elif isinstance(event, h11.EndOfMessage):
                fields = onward_trailers(event.headers.raw_items()) if self._trailers else []
                pieces.append(self._in.send(h11.EndOfMessage(headers=fields)))
                return True
            else:
                raise h11.RemoteProtocolError("the target's connection ended")

    def _interim(self, event: h11.InformationalResponse, pieces: list[bytes]) -> None:
        self._interims += 1
        if self._interims > _INTERIMS:
            raise h11.RemoteProtocolError("too many interim responses")
        if event.status_code == 101:
            if not self._uploaded:
                raise h11.RemoteProtocolError("the protocol was switched within a request")
            self._switched = self._answering = True
        elif self._in.their_http_version == b"1.0":
            return
        pieces.append(self._in.send(proxy_response.onward_interim(event)))

    async def _received(self, side: socket.socket, name: str) -> bytes:
        try:
            data = await self._loop.sock_recv(side, _PIECE)
        except OSError:
            raise self._reset(name) from None
        self._last = self._loop.time()
        return data

    async def _to_target(self, data: bytes) -> None:
        if data:
            await self._sent(self._target, data, "target")
            self.up += len(data)

    async def _to_client(self, data: bytes) -> None:
        if data:
            self._writing = True
            await self._sent(self._client, data, "client")
            self._writing = False

    async def _sent(self, side: socket.socket, data: bytes, name: str) -> None:
        try:
            await self._loop.sock_sendall(side, data)
        except OSError:
            raise self._reset(name) from None
        self._last = self._loop.time()

    def _reset(self, name: str) -> _Fault:
        return self._fault or _Fault(f"{name} reset", 502 if name == "target" else 0)

    def _watch(self) -> None:
        """See it if the client goes away while nothing has come from the target."""
        if not self.down and self._fault is None:
            self._watching = True
            self._loop.add_reader(self._client, self._look_at_client)

    def _look_at_client(self) -> None:
        """Look without taking: what the client asks next stays where it is."""
        try:
            data = self._client.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._stop(self._reset("client"))
            return
        self._unwatch()
        if not data:
            self._closed = self._loop.call_later(self._closed_s, self._stop, _Fault("client closed"))

    def _heard(self) -> None:
        """The target has begun: from here on writing tells whether the client is there."""
        self._unwatch()
        if self._closed is not None:
            self._closed.cancel()
            self._closed = None

    def _unwatch(self) -> None:
        # Only its own: an upload that waits for the client has a reader there too.
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._client)

    def _check_idle(self) -> None:
        left = self._last + self._idle_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self._stop(_Fault("idle", 504 if self._uploaded else 408))

    def _stop(self, fault: _Fault) -> None:
        """End the exchange from outside its reading and writing: both see the end of their sockets."""
        self._fault = self._fault or fault
        self._unwatch()
        # A client that does not take what it is sent, be it interim, would not take an answer either.
        sides = (self._target, self._client) if self._answering or self._writing else (self._target,)
        for side in sides:
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone by itself


def _joined(pieces: list[bytes]) -> bytes:
    """Return the pieces as one; most often there is one, as large as what was read, and copying it costs."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
