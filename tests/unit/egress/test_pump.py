"""The pump over real sockets, on both loops and with both pollers: exact octets, half-close, back-pressure, resets."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from outgate.egress import pipes
from outgate.egress.poll import EpollPoller, Poller
from outgate.egress.pump import Ended, Flow, Pump
from support.pollers import Verdict, connected, on_all_ways


@dataclass
class Joined:
    """A join with the far ends of its two connections."""

    pump: Pump
    client: socket.socket
    target: socket.socket
    flow: Flow
    ends: list[Ended]
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self) -> Ended:
        await self.over.wait()
        return self.ends[0]


class Bench:
    """A pump on a poller."""

    def __init__(self, new_poller: Callable[[], Poller], *, idle_timeout_s: float = 600.0) -> None:
        self.poller = new_poller()
        self.pump = Pump(self.poller, idle_timeout_s=idle_timeout_s)
        self.joins: list[Joined] = []

    def join(self, **more: Any) -> Joined:
        client, near_client = connected()
        target, near_target = connected()
        ends: list[Ended] = []
        over = asyncio.Event()

        def ended(how: Ended) -> None:
            ends.append(how)
            over.set()

        flow = self.pump.join(near_client, near_target, ended=ended, **more)
        assert ends == []
        joined = Joined(self.pump, client, target, flow, ends, over)
        self.joins.append(joined)
        return joined

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pump.close()
        self.poller.stop()
        for joined in self.joins:
            joined.client.close()
            joined.target.close()
            assert len(joined.ends) == 1
        assert self.pump.open == 0


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, count: int = 65_536) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, count)


async def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await receive(sock, count - len(data))
        assert more
        data += more
    return data


async def to_the_end(sock: socket.socket) -> bytes:
    data = b""
    while more := await receive(sock):
        data += more
    return data


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@on_all_ways
async def test_half_close_is_kept_each_way(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        for first, second in (("client", "target"), ("target", "client")):
            joined = bench.join()
            early, late = getattr(joined, first), getattr(joined, second)
            await send(early, b"request")
            early.shutdown(socket.SHUT_WR)
            assert await to_the_end(late) == b"request"
            await send(late, b"an answer")
            assert await exactly(early, 9) == b"an answer"
            await send(late, b" and more")
            late.shutdown(socket.SHUT_WR)
            assert await to_the_end(early) == b" and more"
            how = await joined.end()
            assert how.reason == "finished"
            assert sorted((how.up, how.down)) == [7, 18]
            assert (joined.flow.up, joined.flow.down) == (how.up, how.down)


@on_all_ways
async def test_what_goes_out_first_is_not_counted(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join(to_target=b"header ", to_client=b"200 ")
        await send(joined.client, b"hello")
        assert await exactly(joined.target, 12) == b"header hello"
        await send(joined.target, b"hi")
        assert await exactly(joined.client, 6) == b"200 hi"
        joined.client.shutdown(socket.SHUT_WR)
        joined.target.shutdown(socket.SHUT_WR)
        how = await joined.end()
        assert (how.up, how.down) == (5, 2)


@on_all_ways
async def test_many_streams_both_ways_arrive_whole(new_poller: Callable[[], Poller]) -> None:
    chance = random.Random(7)
    async with Bench(new_poller) as bench:

        async def one_way(source: socket.socket, sink: socket.socket, size: int) -> None:
            sent, received = hashlib.sha256(), hashlib.sha256()

            async def write() -> None:
                left = size
                while left:
                    chunk = chance.randbytes(min(left, chance.choice((1, 100, 5_000, 70_000, 300_000))))
                    left -= len(chunk)
                    sent.update(chunk)
                    await send(source, chunk)
                source.shutdown(socket.SHUT_WR)

            writing = asyncio.ensure_future(write())
            while data := await receive(sink, chance.choice((1_000, 65_536, 1_000_000))):
                received.update(data)
            await writing
            assert received.digest() == sent.digest()

        async def both_ways() -> None:
            joined = bench.join()
            up, down = chance.randrange(3_000_000), chance.randrange(3_000_000)
            await asyncio.gather(one_way(joined.client, joined.target, up), one_way(joined.target, joined.client, down))
            how = await joined.end()
            assert (how.up, how.down, how.reason) == (up, down, "finished")

        await asyncio.gather(*(both_ways() for _ in range(12)))


@on_all_ways
async def test_a_reader_that_is_stuck_stops_the_writer(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        for writer_name, reader_name in (("client", "target"), ("target", "client")):
            joined = bench.join()
            writer, reader = getattr(joined, writer_name), getattr(joined, reader_name)
            block, sent, refusals = random.Random(3).randbytes(100_000), 0, 0
            while refusals < 20:
                try:
                    sent += writer.send(block)
                    refusals = 0
                except BlockingIOError:
                    refusals += 1
                    await asyncio.sleep(0.001)
            source = getattr(joined.flow, writer_name)
            held = source.fill + len(source.other.out or b"")
            assert 0 < held <= 256 * 1024
            # What was taken is in the buffers of two connections and in the bounded one of ours.
            assert sent - source.octets + held < 64 * 2**20
            assert source.octets < 64 * 2**20
            # The other direction is not held up.
            await send(reader, b"still here")
            assert await exactly(writer, 10) == b"still here"
            writer.shutdown(socket.SHUT_WR)
            received = 0
            while data := await receive(reader, 2**20):
                received += len(data)
            assert received == sent
            reader.close()
            assert (await joined.end()).reason == "finished"


@on_all_ways
async def test_a_reset_is_passed_on_behind_what_came_before(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        for name, other_name in (("client", "target"), ("target", "client")):
            joined = bench.join()
            breaking, other = getattr(joined, name), getattr(joined, other_name)
            await send(other, b"x")
            assert await exactly(breaking, 1) == b"x"
            await send(breaking, b"last words")
            await asyncio.sleep(0)
            reset(breaking)
            assert await exactly(other, 10) == b"last words"
            with pytest.raises(ConnectionResetError):
                await receive(other)
            assert (await joined.end()).reason == f"{name} reset"


@on_all_ways
async def test_a_reset_after_much_that_is_not_read_yet_loses_nothing(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join()
        data = random.Random(5).randbytes(400_000)
        await send(joined.target, data)
        while joined.flow.down < len(data):
            await asyncio.sleep(0)
        reset(joined.target)
        await asyncio.sleep(0)
        assert await exactly(joined.client, len(data)) == data
        with pytest.raises(ConnectionResetError):
            await receive(joined.client)
        assert (await joined.end()).reason == "target reset"


@on_all_ways
async def test_what_a_target_said_before_it_stopped_listening_arrives(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join()
        await send(joined.target, b"421 too much")
        joined.target.close()
        assert await exactly(joined.client, 12) == b"421 too much"
        assert await receive(joined.client) == b""
        # The target has closed and not only ended: it answers what still comes with a reset.
        try:
            while True:
                await send(joined.client, b"more")
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert (await joined.end()).reason == "target closed"


@on_all_ways
async def test_silence_ends_a_join(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller, idle_timeout_s=0.05) as bench:
        joined = bench.join()
        await send(joined.client, b"x")
        assert await exactly(joined.target, 1) == b"x"
        assert (await joined.end()).reason == "idle"
        with pytest.raises(ConnectionResetError):
            await receive(joined.client)


@on_all_ways
async def test_an_abort_resets_both_sides_once(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join()
        joined.flow.abort("drained")
        joined.flow.abort("shutdown")
        assert [how.reason for how in joined.ends] == ["drained"]
        for sock in (joined.client, joined.target):
            with pytest.raises(ConnectionResetError):
                await receive(sock)
        left = bench.join()
        bench.pump.close()
        assert left.ends[0].reason == "shutdown"


class Script:
    """A watch that upper-cases the client, holds the target until a full stop, and ends at a word."""

    def __init__(self, deadline_s: float | None = None) -> None:
        self.deadline_s = deadline_s
        self.held = b""
        self.seen: list[bytes] = []

    def client(self, data: bytes) -> Verdict:
        self.seen.append(data)
        if data == b"quit":
            return Verdict(on=b"QUIT", back=b"221 bye", end="said quit")
        if data == b"enough":
            return Verdict(on=b"ENOUGH", done=True)
        return Verdict(on=data.upper())

    def target(self, data: bytes) -> Verdict:
        if not data:
            return Verdict(on=self.held)
        self.held += data
        if not self.held.endswith(b"."):
            return Verdict()
        held, self.held = self.held, b""
        return Verdict(on=held, back=b"noted")

    def silent(self) -> Verdict:
        return Verdict(on=b"it says nothing", back=b"say something", done=True)


@on_all_ways
async def test_a_watch_holds_replaces_and_answers_until_it_is_done(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        script = Script()
        joined = bench.join(watch=script)
        await send(joined.client, b"helo")
        assert await exactly(joined.target, 4) == b"HELO"
        await send(joined.target, b"one")
        await send(joined.client, b"noop")
        assert await exactly(joined.target, 4) == b"NOOP"
        await send(joined.target, b" two.")
        assert await exactly(joined.client, 8) == b"one two."
        assert await exactly(joined.target, 5) == b"noted"
        await send(joined.client, b"enough")
        assert await exactly(joined.target, 6) == b"ENOUGH"
        await send(joined.client, b"quit")
        assert await exactly(joined.target, 4) == b"quit"
        assert b"quit" not in script.seen
        joined.client.close()
        assert await receive(joined.target) == b""
        joined.target.close()
        how = await joined.end()
        assert (how.up, how.down, how.reason) == (18, 8, "finished")


@on_all_ways
async def test_a_watch_gives_what_it_holds_at_the_end(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join(watch=Script())
        await send(joined.target, b"no full stop")
        joined.target.shutdown(socket.SHUT_WR)
        assert await to_the_end(joined.client) == b"no full stop"


@on_all_ways
async def test_a_watch_ends_the_join_after_its_answer(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join(watch=Script())
        await send(joined.client, b"quit")
        assert await to_the_end(joined.client) == b"221 bye"
        assert await to_the_end(joined.target) == b"QUIT"
        assert (await joined.end()).reason == "said quit"


@on_all_ways
async def test_a_watch_is_told_of_silence_once(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        quiet, talks = bench.join(watch=Script(0.02)), bench.join(watch=Script(0.02))
        await send(talks.client, b"a")
        assert await exactly(quiet.client, 13) == b"say something"
        assert await exactly(quiet.target, 15) == b"it says nothing"
        await send(quiet.client, b"quit")
        assert await exactly(quiet.target, 4) == b"quit"
        await send(talks.client, b"b")
        assert await exactly(talks.target, 2) == b"AB"


@on_all_ways
async def test_a_watch_that_fails_lets_nothing_through(new_poller: Callable[[], Poller]) -> None:
    class Broken(Script):
        def client(self, data: bytes) -> Verdict:
            raise LookupError(data)

    async with Bench(new_poller) as bench:
        joined = bench.join(watch=Broken())
        await send(joined.client, b"AUTH")
        with pytest.raises(ConnectionResetError):
            await receive(joined.target)
        assert (await joined.end()).reason == "watch failed"


@on_all_ways
async def test_who_is_told_the_end_and_resets_instead_keeps_nobody(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join(watch=Script())
        await send(joined.client, b"quit")
        assert await exactly(joined.client, 7) == b"221 bye"
        reset(joined.client)
        assert await to_the_end(joined.target) == b"QUIT"
        assert (await joined.end()).reason == "said quit"


@on_all_ways
async def test_a_client_that_ended_and_then_resets_frees_the_target(new_poller: Callable[[], Poller]) -> None:
    async with Bench(new_poller) as bench:
        joined = bench.join()
        await send(joined.client, b"x")
        joined.client.shutdown(socket.SHUT_WR)
        assert await to_the_end(joined.target) == b"x"
        reset(joined.client)
        # An own epoll tells of it at once; the loop's readers only with the next octet.
        if not isinstance(bench.poller, EpollPoller):
            await send(joined.target, b"who is there?")
        assert (await joined.end()).reason == "client closed"
        with pytest.raises(ConnectionError):
            await send(joined.target, b"nobody")


@on_all_ways
async def test_without_pipes_octets_go_by_memory(
    new_poller: Callable[[], Poller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "_PIPES", 0)
    data = random.Random(9).randbytes(3_000_000)
    async with Bench(new_poller) as bench:
        joined = bench.join()
        sending = asyncio.ensure_future(send(joined.client, data))
        assert hashlib.sha256(await exactly(joined.target, len(data))).digest() == hashlib.sha256(data).digest()
        await sending
        assert bench.pump.pipes.take() is None
