"""Octets through the egress, between hosts: whole, in both directions, no faster than they are read, and drained.

Needs root, `ip` and `nft` (tests/packages.sh installs them).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from outgate.smtp import proxy_header
from support.egress_peers import echo
from support.egress_world import (
    ONE,
    OTHER,
    PROXY,
    TARGET,
    A,
    EgressWorld,
    Service,
    Serving,
    answer,
    dial,
    dialled,
    egress_world,
    environment,
    forward,
    rest,
    serving_in,
)
from support.running import wait_for

pytestmark = pytest.mark.scenario

DRAIN_S = 1.5
STREAMS, SIZE = 200, 10_000_000
WITH_HEADER = 7107


@pytest.fixture(scope="module")
def world() -> Iterator[EgressWorld]:
    with egress_world() as made:
        yield made


@pytest.fixture(scope="module")
def serving(world: EgressWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    settings = {"drain_s": DRAIN_S, "proxy_protocol_targets": [f"target.example:{WITH_HEADER}"]}
    with serving_in(world, tmp_path_factory.mktemp("egress"), **settings) as made:
        yield made


async def digest(taken: socket.socket) -> bytes:
    """Return the hash of all that comes."""
    loop = asyncio.get_running_loop()
    seen, block = hashlib.blake2b(), memoryview(bytearray(2**18))
    while length := await loop.sock_recv_into(taken, block):
        seen.update(block[:length])
    return seen.digest()


async def serve(
    listener: socket.socket, clients: int, handle: Callable[[socket.socket], Coroutine[Any, Any, None]]
) -> None:
    """Handle as many clients, side by side."""
    with listener:
        async with asyncio.TaskGroup() as handling:
            for _ in range(clients):
                taken, _ = await asyncio.get_running_loop().sock_accept(listener)
                handling.create_task(handle(taken))


async def test_two_hundred_streams_of_ten_megabytes_arrive_whole(world: EgressWorld, serving: Serving) -> None:
    content = os.urandom(SIZE - 8)
    base = hashlib.blake2b(content)
    loop = asyncio.get_running_loop()

    def expected(number: bytes) -> bytes:
        found = base.copy()
        found.update(number)
        return found.digest()

    async def send(taken: socket.socket, number: bytes) -> None:
        await loop.sock_sendall(taken, content)
        await loop.sock_sendall(taken, number)
        taken.shutdown(socket.SHUT_WR)

    async def receiving(taken: socket.socket) -> None:
        """Answer the hash of what came, once it has ended."""
        with taken:
            await loop.sock_sendall(taken, await digest(taken))

    async def sending(taken: socket.socket) -> None:
        """Answer a number with a stream that ends in it."""
        with taken:
            await send(taken, await loop.sock_recv(taken, 8))
            assert await loop.sock_recv(taken, 1) == b""

    async def up(number: bytes) -> None:
        with world.a.socket() as made:
            await loop.sock_connect(made, (ONE, 30001))
            await send(made, number)
            assert await loop.sock_recv(made, 64) == expected(number)

    async def down(number: bytes) -> None:
        with world.a.socket() as made:
            await loop.sock_connect(made, (ONE, 30002))
            await loop.sock_sendall(made, number)
            assert await digest(made) == expected(number)

    serving.in_force(environment(forward(30001, 7101), forward(30002, 7102)))
    async with asyncio.TaskGroup() as everything:
        everything.create_task(serve(world.outside.listener(TARGET, 7101), STREAMS // 2, receiving))
        everything.create_task(serve(world.outside.listener(TARGET, 7102), STREAMS // 2, sending))
        for number in range(STREAMS):
            everything.create_task((up if number % 2 else down)(number.to_bytes(8)))
    for port, field in ((30001, "bytes_up"), (30002, "bytes_down")):
        closes = wait_for(
            lambda port=port: [line for line in serving.audit("close") if line["forward"]["portOrig"] == port],
            lambda found: len(found) == STREAMS // 2,
            20,
        )
        assert {(line[field], line["reason"]) for line in closes} == {(SIZE, "finished")}


async def test_either_side_may_end_first_and_read_on(world: EgressWorld, serving: Serving) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        writer.write(b"answer to " + request)

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"all I say")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with Service(world.outside, TARGET, 7103, late), Service(world.outside, TARGET, 7104, early):
        serving.in_force(environment(forward(30001, 7103), forward(30002, 7104)))
        assert await answer(world.a, ONE, 30001, b"request") == b"answer to request"
        async with dialled(world.a, ONE, 30002) as (reader, writer):
            assert await reader.read() == b"all I say"
            writer.write(b"and what I say")
            writer.write_eof()
            assert await heard == b"and what I say"


async def test_targets_that_do_not_read_stop_their_clients_and_cost_little(
    world: EgressWorld, serving: Serving
) -> None:
    clients = 20
    go_on = asyncio.Event()
    totals: list[int] = []

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        total = 0
        while data := await reader.read(2**20):
            total += len(data)
        totals.append(total)

    loop = asyncio.get_running_loop()
    block = bytes(2**20)

    async def push(made: socket.socket) -> int:
        """Send until nothing goes for a while; return how much went."""
        sent = 0
        while True:
            try:
                sent += made.send(block)
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(made, writable.set)
                try:
                    await asyncio.wait_for(writable.wait(), 1.0)
                except TimeoutError:
                    return sent
                finally:
                    loop.remove_writer(made)
            else:
                assert sent < 200 * len(block), "nothing stops the client"
                await asyncio.sleep(0)

    async with Service(world.outside, TARGET, 7105, lazy):
        serving.in_force(environment(forward(30001, 7105)))
        before = serving.resident_mb()
        sockets = [world.a.socket() for _ in range(clients)]
        for made in sockets:
            await loop.sock_connect(made, (ONE, 30001))
        sent = await asyncio.gather(*(push(made) for made in sockets))
        # The kernel's buffers hold what is on its way; the process, next to nothing of it.
        assert serving.resident_mb() - before < clients * 2
        go_on.set()
        for made in sockets:
            made.shutdown(socket.SHUT_WR)
        for made in sockets:
            assert await loop.sock_recv(made, 1) == b""
            made.close()
    assert sorted(totals) == sorted(sent)


async def test_a_withdrawn_forward_lets_go_in_time(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7106, echo):
        kept = forward(30002, 7106)
        serving.in_force(environment(forward(30001, 7106), kept))
        pairs = [await dial(world.a, ONE, port) for port in (30001, 30001, 30002)]
        for reader, writer in pairs:
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
        (busy, busy_writer), (idle, idle_writer), (other, other_writer) = pairs
        withdrawn = time.monotonic()
        serving.told(environment(kept))
        serving.await_force(environment(kept))
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, ONE, 30001)
        # What is open may finish ...
        busy_writer.write(b"last words")
        busy_writer.write_eof()
        assert await busy.read() == b"last words"
        # ... but not stay for ever, ...
        assert await rest(idle) == b""
        assert time.monotonic() - withdrawn >= DRAIN_S - 0.1
        (drained,) = wait_for(lambda: serving.audit("close", reason="drained"), bool, 20)
        assert drained["forward"]["portOrig"] == 30001
        # ... and what is not withdrawn stays.
        other_writer.write(b"still here")
        assert await other.readexactly(10) == b"still here"
        for writer in (busy_writer, idle_writer, other_writer):
            writer.close()


async def test_listed_targets_get_the_application_s_address_first(world: EgressWorld, serving: Serving) -> None:
    seen: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async with (
        Service(world.outside, TARGET, WITH_HEADER, record),
        Service(world.outside, OTHER, WITH_HEADER, record),
    ):
        serving.in_force(environment(forward(30001, WITH_HEADER), forward(30002, WITH_HEADER, "other.example")))
        async with dialled(world.a, ONE, 30001) as (reader, writer):
            client = writer.get_extra_info("sockname")
            writer.write(b"EHLO")
            writer.write_eof()
            assert await reader.read() == b""
        found = proxy_header.parse(seen[0])
        assert found is not None
        header, length = found
        assert header.source == client and client[0] == A
        assert header.destination == (ONE, 30001)
        assert seen[0][length:] == b"EHLO"
        # Others get what the client says, and nothing else.
        await answer(world.a, ONE, 30002, b"EHLO")
        assert seen[1] == b"EHLO"


async def test_a_client_s_reset_reaches_the_target(world: EgressWorld, serving: Serving) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")
        try:
            ended.set_result(await reader.read())
        except ConnectionResetError:
            ended.set_result(b"reset")

    async with Service(world.outside, TARGET, 7108, wait):
        serving.in_force(environment(forward(30001, 7108)))
        reader, writer = await dial(world.a, ONE, 30001)
        assert await reader.readexactly(4) == b"here"
        opened = writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        assert await asyncio.wait_for(ended, 20) == b"reset"


async def test_a_tunnel_of_the_proxy_is_drained_like_a_forward(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7109, echo):
        serving.in_force(environment())
        async with dialled(world.a, ONE, PROXY) as (reader, writer):
            writer.write(b"CONNECT target.example:7109 HTTP/1.1\r\nHost: target.example:7109\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            serving.told()
            serving.await_force()
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"
            assert await rest(reader) == b""
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, ONE, PROXY)
