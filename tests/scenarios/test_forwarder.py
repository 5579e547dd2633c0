"""The forwarder over real sockets: who gets through, whereto, from where, and what the audit says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from outgate.egress.audit import Connection
from outgate.egress.engine import Engine, ListenError
from outgate.egress.forwarder import Live
from outgate.egress.gate import Limits
from outgate.egress.plan import Forward, Proxy
from outgate.smtp import proxy_header
from support.egress_peers import Bench, Target, closed, dial, echo, forward, on_both_loops, tunnel_address
from support.pollers import Verdict
from support.ports import closed_port


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@on_both_loops
async def test_a_connection_reaches_its_target_and_is_audited(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        await bench.engine.apply("10", [forward(tunnel, 30465, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30465)
        client = writer.get_extra_info("sockname")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert bench.engine.connections("10") == 1
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        # The source address is the plan's, and the audit names the very port.
        assert target.peers[0][0] == "127.0.0.2"
        await bench.engine.close()
        (opened,), (ended,) = bench.lines("decision"), bench.lines("close")
    assert opened["refusal"] == ""
    assert opened["client"] == f"127.0.0.1:{client[1]}"
    assert opened["target"] == f"127.0.0.1:{target.port}"
    assert opened["source"] == f"127.0.0.2:{target.peers[0][1]}"
    assert opened["exception"] == "127.0.0.0/8"
    assert opened["forward"] == {"portOrig": 30465, "name": "target.example", "portDest": target.port}
    assert (opened["program"], opened["environment"]) == ("4", "10")
    assert ended["connection_id"] == opened["connection_id"]
    assert (ended["bytes_up"], ended["bytes_down"], ended["reason"]) == (5, 5, "finished")
    assert bench.audit.find("127.0.0.1", client[1], bench.clock.now()) == [opened, ended]
    assert bench.engine.connections("10") == 0


@on_both_loops
async def test_a_client_outside_the_networks_is_reset_before_anything_is_resolved(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        inside = forward(tunnel, 30001, "target.example", target.port, client_networks=("127.50.0.0/16",))
        nobody = forward(tunnel, 30002, "target.example", target.port, client_networks=())
        await bench.engine.apply("10", [inside, nobody])
        for source, port in (("127.0.0.1", 30001), ("127.50.0.1", 30002)):
            reader, writer = await dial(tunnel, port, source)
            assert await closed(reader) == b""
            writer.close()
        assert [line["refusal"] for line in bench.lines("decision")] == ["client-network"] * 2
        assert bench.asked == []
        assert target.peers == []
        assert bench.lines("close") == []
        reader, writer = await dial(tunnel, 30001, "127.50.0.1")
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()


@on_both_loops
async def test_the_guard_refuses_and_says_why(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    book = {
        "rebound.example": ["10.0.0.7"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "nat64.example": ["64:ff9b::7f00:1"],
        "nowhere.example": [],
        "broken.example": OSError("SERVFAIL"),
    }
    async with Bench(tmp_path, book) as bench, Target(echo) as target:
        names = [*book, "127.0.0.1"]
        forwards = [forward(tunnel, 30000 + i, name, target.port, exceptions=()) for i, name in enumerate(names)]
        await bench.engine.apply("10", forwards)
        for number in range(len(names)):
            reader, writer = await dial(tunnel, 30000 + number)
            writer.write(b"hello")
            assert await closed(reader) == b""
            writer.close()
        lines = bench.lines("decision")
        assert [line["refusal"] for line in lines] == ["guard", "guard", "guard", "dns", "dns", "guard"]
        assert "10.0.0.7" in lines[0]["reason"]
        assert "SERVFAIL" in lines[4]["reason"]
        # An address is never asked of a resolver.
        assert "127.0.0.1" not in bench.asked
        assert target.peers == []


@on_both_loops
async def test_of_several_addresses_only_checked_ones_are_dialled(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    book = {"both.example": ["10.0.0.7", "127.0.0.1"]}
    async with Bench(tmp_path, book) as bench, Target(echo) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "both.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        assert bench.asked == ["both.example"]
        assert bench.lines("decision")[0]["target"] == f"127.0.0.1:{target.port}"


@on_both_loops
async def test_when_one_address_refuses_the_next_is_dialled(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path, {"two.example": ["127.7.7.7", "127.0.0.1"]}) as bench, Target(echo) as target:
        # The target listens on 127.0.0.1 only.
        await bench.engine.apply("10", [forward(tunnel, 30000, "two.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        assert bench.lines("decision")[0]["target"] == f"127.0.0.1:{target.port}"


@on_both_loops
async def test_a_target_that_refuses_and_a_source_that_is_not_plumbed(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    dead = closed_port()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        await bench.engine.apply(
            "10",
            [
                forward(tunnel, 30000, "target.example", dead),
                forward(tunnel, 30001, "target.example", target.port, sources=("192.0.2.1",)),
                forward(tunnel, 30002, "target.example", target.port, sources=("::1",)),
            ],
        )
        for number in range(3):
            reader, writer = await dial(tunnel, 30000 + number)
            assert await closed(reader) == b""
            writer.close()
        lines = bench.lines("decision")
        assert [line["refusal"] for line in lines] == ["refused", "source", "source"]
        assert "192.0.2.1" in lines[1]["reason"]
        assert target.peers == []


@on_both_loops
async def test_half_close_is_kept_in_both_directions(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    server_saw = asyncio.get_running_loop().create_future()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak only after the client has said all it has to say."""
        request = await reader.read()
        writer.write(b"answer to " + request)
        await writer.drain()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End our direction first, then read on."""
        writer.write(b"greeting")
        writer.write_eof()
        server_saw.set_result(await reader.read())

    async with Bench(tmp_path) as bench, Target(late) as first, Target(early) as second:
        await bench.engine.apply(
            "10",
            [
                forward(tunnel, 30000, "target.example", first.port),
                forward(tunnel, 30001, "target.example", second.port),
            ],
        )
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"request")
        writer.write_eof()
        assert await reader.read() == b"answer to request"
        writer.close()
        reader, writer = await dial(tunnel, 30001)
        assert await reader.read() == b"greeting"
        writer.write(b"and more")
        writer.write_eof()
        assert await server_saw == b"and more"
        writer.close()


@on_both_loops
async def test_what_a_client_sends_before_the_target_is_reached_arrives_first(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    gate = asyncio.Event()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        inner = bench.resolve

        async def slow(name: str) -> object:
            await gate.wait()
            return await inner(name)

        bench.reach._resolve = slow  # type: ignore[assignment]
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"early and ended")
        writer.write_eof()
        await asyncio.sleep(0)
        gate.set()
        assert await reader.read() == b"early and ended"
        writer.close()


@on_both_loops
async def test_fifty_streams_of_a_megabyte_each_way_arrive_whole(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])

        async def stream() -> None:
            sent = os.urandom(1_000_000)
            reader, writer = await dial(tunnel, 30000)
            received = hashlib.sha256()

            async def collect() -> None:
                while data := await reader.read(65_536):
                    received.update(data)

            collecting = asyncio.ensure_future(collect())
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
            await collecting
            writer.close()
            assert received.digest() == hashlib.sha256(sent).digest()

        await asyncio.gather(*(stream() for _ in range(50)))
        await bench.engine.close()
        closes = bench.lines("close")
        assert [(line["bytes_up"], line["bytes_down"]) for line in closes] == [(1_000_000, 1_000_000)] * 50


@on_both_loops
async def test_a_target_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    go_on = asyncio.Event()
    seen = asyncio.get_running_loop().create_future()

    async def lazy(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        total = 0
        while data := await reader.read(2**20):
            total += len(data)
        seen.set_result(total)

    async with Bench(tmp_path) as bench, Target(lazy) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        _, writer = await dial(tunnel, 30000)
        writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        chunk = bytes(2**20)
        while sent < 64:
            writer.write(chunk)
            sent += 1
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                break
        # Kernel buffers of two connections and two of ours: far below what an unbounded pipe would have taken.
        assert sent < 64
        go_on.set()
        await writer.drain()
        writer.write_eof()
        assert await seen == sent * len(chunk)
        writer.close()


@on_both_loops
async def test_the_proxy_header_comes_first_and_names_the_client(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    saw = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        saw.set_result(await reader.read())

    async with Bench(tmp_path) as bench, Target(record) as target:
        rule = forward(tunnel, 30465, "target.example", target.port, proxy_header=True)
        await bench.engine.apply("10", [rule])
        _, writer = await dial(tunnel, 30465, "127.77.0.9")
        client = writer.get_extra_info("sockname")
        writer.write(b"EHLO")
        writer.write_eof()
        found = proxy_header.parse(await saw)
        assert found is not None
        header, length = found
        assert header.source == (client[0], client[1]) == ("127.77.0.9", client[1])
        assert header.destination == (tunnel, 30465)
        assert (await saw)[length:] == b"EHLO"
        # The counts are the application's octets, without the header.
        writer.close()
        await bench.engine.close()
        assert bench.lines("close")[0]["bytes_up"] == 4
        assert bench.lines("decision")[0]["proxy_header"] is True


@on_both_loops
async def test_a_change_drains_old_connections_and_spares_the_others(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as one, Target(echo) as two:
        kept = forward(tunnel, 30000, "target.example", one.port)
        await bench.engine.apply("10", [kept, forward(tunnel, 30001, "target.example", one.port)])
        stays, stays_writer = await dial(tunnel, 30000)
        drains, drains_writer = await dial(tunnel, 30001)
        for reader, writer in ((stays, stays_writer), (drains, drains_writer)):
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
        await bench.engine.apply("10", [kept, forward(tunnel, 30001, "target.example", two.port)])
        assert await closed(drains) == b""
        drains_writer.close()
        stays_writer.write(b"2")
        assert await stays.readexactly(1) == b"2"
        stays_writer.close()
        reader, writer = await dial(tunnel, 30001)
        writer.write(b"3")
        assert await reader.readexactly(1) == b"3"
        writer.close()
        assert len(two.peers) == 1
        assert [line["reason"] for line in bench.lines("close")].count("drained") == 1


@on_both_loops
async def test_a_withdrawn_forward_lets_its_connections_finish(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    limits = Limits(drain_s=3600.0)
    async with Bench(tmp_path, limits=limits) as bench, Target(echo) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        await bench.engine.apply("10", [])
        assert bench.engine.forwards() == ()
        with pytest.raises(ConnectionRefusedError):
            await dial(tunnel, 30000)
        writer.write(b"2")
        assert await reader.readexactly(1) == b"2"
        writer.close()


@on_both_loops
async def test_what_is_still_being_reached_when_its_forward_goes_is_not_opened(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(_name: str) -> list[str]:
        asked.set()
        await gate.wait()
        return ["127.0.0.1"]

    async with Bench(tmp_path, limits=Limits(drain_s=3600.0)) as bench, Target(echo) as target:
        bench.reach._resolve = slow
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        await asked.wait()
        await bench.engine.apply("10", [])
        gate.set()
        assert await closed(reader) == b""
        writer.close()
        assert [line["refusal"] for line in bench.lines("decision")] == ["withdrawn"]


@on_both_loops
async def test_a_client_that_goes_while_its_target_is_being_reached_gives_its_place_back(tmp_path: Path) -> None:
    tunnel = tunnel_address()

    async def never(_name: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    with socket.socket() as full, contextlib.ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(place)
        async with Bench(tmp_path, limits=Limits(connect_timeout_s=2.0)) as bench:
            bench.reach._resolve = never
            rules = [forward(tunnel, 30000, "target.example", 1), forward(tunnel, 30001, "127.0.0.1", place[1])]
            proxy = Proxy("10", "4", tunnel, 30002, rules[0].way, ("127.0.0.0/8",))
            await bench.engine.apply("10", [*rules, proxy])
            clients = [(await dial(tunnel, port))[1] for port in (30000, 30001, 30001, 30002)]
            clients[2].write(b"QUIT\r\n")
            clients[2].write_eof()
            clients[3].write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (place[1], place[1]))
            while bench.engine.connections("10") < 4:
                await asyncio.sleep(0)
            for number in (0, 1, 3):
                _reset(clients[number])
            while bench.engine.connections("10"):
                await asyncio.sleep(0.01)
            lines = bench.lines("decision")
            assert [line["refusal"] for line in lines] == ["withdrawn"] * 3 + ["timeout"]
            assert lines[-1]["reason"] == "127.0.0.1: no connection within 0.4 s of the client's end"
            clients[2].close()


@on_both_loops
async def test_a_target_that_believes_headers_gets_one_by_the_proxy_too(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = await reader.readuntil(b"\r\n\r\n")  # no more, if it is that of a header
        heard.append(begin + (await reader.readuntil(b"\r\n\r\n") if begin == b"\r\n\r\n" else b""))

    async with Bench(tmp_path) as bench, Target(listen) as target:
        bench.proxy.header_to = lambda _name, port, address: (address, port) == ("127.0.0.1", target.port)
        way = forward(tunnel, 1, "target.example", 1).way
        await bench.engine.apply("10", [Proxy("10", "4", tunnel, 30002, way, ("127.0.0.0/8",))])
        host = f"alias.example:{target.port}"
        bench.book["alias.example"] = ["127.0.0.1"]
        ways = f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nearly", f"GET http://{host}/ HTTP/1.1\r\nHost: {host}"
        for number, request in enumerate(ways):
            reader, writer = await dial(tunnel, 30002)
            client = writer.get_extra_info("sockname")
            writer.write(request.encode() + b"\r\n\r\n")
            await closed(reader)
            writer.close()
            header = proxy_header.encode_v2(client, (tunnel, 30002))
            assert heard[number].startswith(header + (b"early\r\n", b"GET / HTTP/1.1\r\n")[number])
        assert [line["proxy_header"] for line in bench.lines("close")] == [True, True]
        # Early octets are the client's, the header is not.
        assert bench.lines("close")[0]["bytes_up"] == len(b"early\r\n\r\n")


@on_both_loops
async def test_a_shared_address_that_is_not_there_leaves_its_work_to_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        sources = ("192.0.2.1", "127.0.0.2")
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port, sources=sources)])
        for _ in range(3):
            reader, writer = await dial(tunnel, 30000)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
    assert {peer[0] for peer in target.peers} == {"127.0.0.2"}
    assert sum("egress.source_missing" in record.message for record in caplog.records) == 1


@on_both_loops
async def test_the_address_family_without_a_way_out_hides_no_other_failure(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    book = {"both.example": ["127.0.0.1", "::1"], "six.example": ["::1"]}
    dead = closed_port()
    async with Bench(tmp_path, book) as bench:
        names = ("both.example", "six.example")
        await bench.engine.apply(
            "10",
            [forward(tunnel, 30000 + i, name, dead, exceptions=("127.0.0.0/8", "::1")) for i, name in enumerate(names)],
        )
        for number in range(2):
            reader, writer = await dial(tunnel, 30000 + number)
            assert await closed(reader) == b""
            writer.close()
        assert [line["refusal"] for line in bench.lines("decision")] == ["refused", "source"]


@on_both_loops
async def test_an_address_that_gets_the_header_under_any_name(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    saw = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        saw.set_result(await reader.read())

    async with Bench(tmp_path) as bench, Target(record) as target:
        bench.forwarder.header_to = lambda _name, port, address: (address, port) == ("127.0.0.1", target.port)
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        _, writer = await dial(tunnel, 30000)
        writer.write_eof()
        found = proxy_header.parse(await saw)
        assert found is not None
        assert found[0].source == writer.get_extra_info("sockname")
        writer.close()
        assert bench.lines("decision")[0]["proxy_header"] is True


@on_both_loops
async def test_a_taken_port_leaves_all_old_forwards_in_force(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        old = forward(tunnel, 30000, "target.example", target.port)
        await bench.engine.apply("10", [old])
        with socket.create_server((tunnel, 30002)):
            new = [forward(tunnel, port, "target.example", target.port) for port in (30001, 30002)]
            with pytest.raises(ListenError, match=f"{tunnel}:30002 is taken by another program"):
                await bench.engine.apply("10", new)
        assert bench.engine.forwards() == (old,)
        with pytest.raises(ConnectionRefusedError):
            await dial(tunnel, 30001)
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        with pytest.raises(ListenError, match=f"{tunnel}:30000 is taken by environment 10"):
            await bench.engine.apply("11", [forward(tunnel, 30000, "target.example", target.port, environment_id="11")])
        with pytest.raises(ListenError, match="an address that this host does not have"):
            await bench.engine.apply("10", [forward("192.0.2.1", 30000, "target.example", target.port)])


@on_both_loops
async def test_a_port_given_up_can_be_taken_at_once(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        for round_number in range(5):
            environment = str(round_number % 2)
            rule = forward(tunnel, 30000, "target.example", target.port, environment_id=environment)
            await bench.engine.apply(environment, [rule])
            await bench.engine.apply(environment, [])


@on_both_loops
async def test_the_limit_of_an_environment_is_kept_and_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tunnel = tunnel_address()
    limits = Limits(connections_per_environment=3, connections_alert=2, drain_s=0.0)
    async with Bench(tmp_path, limits=limits) as bench, Target(echo) as target:
        other = forward(tunnel, 30001, "target.example", target.port, environment_id="11")
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        await bench.engine.apply("11", [other])
        open_ones = [await dial(tunnel, 30000) for _ in range(3)]
        for reader, writer in open_ones:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        reader, writer = await dial(tunnel, 30000)
        assert await closed(reader) == b""
        writer.close()
        assert bench.lines("decision")[-1]["refusal"] == "limit"
        assert sum("egress.many_connections" in record.message for record in caplog.records) == 1
        reader, writer = await dial(tunnel, 30001)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        reader, writer = open_ones.pop()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        while bench.engine.connections("10") > 2:
            await asyncio.sleep(0)
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        for _, writer in open_ones:
            writer.close()


@on_both_loops
async def test_an_idle_connection_ends_with_that_reason(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    limits = Limits(idle_timeout_s=0.05)
    async with Bench(tmp_path, limits=limits) as bench, Target(echo) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        assert await closed(reader) == b""
        writer.close()
        assert bench.lines("close")[0]["reason"] == "idle"


@on_both_loops
async def test_a_target_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with socket.socket() as full:
        # A listener whose backlog is full does not answer a SYN.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with Bench(tmp_path, limits=Limits(connect_timeout_s=0.2)) as bench:
            await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", port)])
            reader, writer = await dial(tunnel, 30000)
            assert await closed(reader) == b""
            writer.close()
            assert bench.lines("decision")[0]["refusal"] == "timeout"
        for filler in fillers:
            filler.close()


@on_both_loops
async def test_a_reset_by_the_target_ends_the_client_after_what_was_sent(tmp_path: Path) -> None:
    tunnel = tunnel_address()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        await reader.readexactly(1)
        _reset(writer)

    async with Bench(tmp_path) as bench, Target(reset) as target:
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        assert await reader.readexactly(3) == b"bye"
        writer.write(b"x")
        assert await closed(reader) == b""
        writer.close()
        while bench.engine.connections("10"):
            await asyncio.sleep(0)
        assert bench.lines("close")[0]["reason"] == "target reset"


@on_both_loops
async def test_closing_ends_everything_also_what_is_still_being_reached(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        asked = asyncio.Event()

        async def never(_name: str) -> list[str]:
            asked.set()
            await asyncio.Event().wait()
            return []

        await bench.engine.apply(
            "10",
            [forward(tunnel, 30000, "127.0.0.1", target.port), forward(tunnel, 30001, "never.example", 1)],
        )
        bench.reach._resolve = never
        joined = await dial(tunnel, 30000)
        joined[1].write(b"x")
        assert await joined[0].readexactly(1) == b"x"
        reaching = await dial(tunnel, 30001)
        await asked.wait()
        await bench.engine.close()
        for reader, writer in (joined, reaching):
            assert await closed(reader) == b""
            writer.close()
        assert bench.engine.connections("10") == 0
        assert [line["reason"] for line in bench.lines("close")] == ["shutdown"]


@on_both_loops
async def test_live_figures_of_what_is_open(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        busy, quiet = (forward(tunnel, port, "target.example", target.port) for port in (30000, 30001))
        await bench.engine.apply("10", [busy, quiet])
        assert bench.engine.live() == []
        peers = [await dial(tunnel, 30000) for _ in range(2)]
        for size, (reader, writer) in zip((1000, 10), peers, strict=True):
            writer.write(bytes(size))
            await reader.readexactly(size)
        assert bench.engine.live() == [Live(busy, 2, 1010, 1010)]
        (budget,) = bench.engine.budget()
        assert (budget.source, budget.target, budget.port, budget.used) == ("127.0.0.2", "127.0.0.1", target.port, 2)
        for reader, writer in peers:
            writer.write_eof()
            await reader.read()
            writer.close()
        while bench.engine.connections("10"):
            await asyncio.sleep(0)
        assert (bench.engine.live(), bench.engine.budget()) == ([], [])


class Refusing:
    """A watch that lets nobody log in."""

    deadline_s = None

    def __init__(self) -> None:
        self.heard = b""

    def client(self, data: bytes) -> Verdict:
        if data.startswith(b"AUTH"):
            return Verdict(back=b"538 not in the clear", end="clear-auth")
        return Verdict(on=data)

    def target(self, data: bytes) -> Verdict:
        self.heard += data
        return Verdict(on=data)

    def silent(self) -> Verdict:
        return Verdict()


@on_both_loops
async def test_what_carries_mail_is_looked_into(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        watches: list[tuple[Connection, Refusing]] = []

        def watch_for(connection: Connection) -> Refusing:
            watches.append((connection, Refusing()))
            return watches[-1][1]

        bench.forwarder.watch_for = watch_for
        rules = [forward(tunnel, 30000 + mail, "target.example", target.port, mail=bool(mail)) for mail in (0, 1)]
        await bench.engine.apply("10", rules)
        for port in (30000, 30001):
            reader, writer = await dial(tunnel, port)
            writer.write(b"EHLO")
            assert await reader.readexactly(4) == b"EHLO"
            writer.write(b"AUTH PLAIN")
            said = await reader.readexactly(10 if port == 30000 else 20)
            assert said == (b"AUTH PLAIN" if port == 30000 else b"538 not in the clear")
            if port == 30001:
                assert await reader.read() == b""
            writer.close()
        while bench.engine.connections("10"):
            await asyncio.sleep(0)
        ((connection, watch),) = watches
        assert watch.heard == b"EHLO"
        (ended,) = [line for line in bench.lines("close") if line["connection_id"] == connection.id]
        assert (ended["reason"], ended["bytes_up"], ended["bytes_down"]) == ("clear-auth", 14, 4)


@on_both_loops
async def test_a_rule_that_nobody_carries_changes_nothing(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:
        engine = Engine(bench.forwarder)
        rules = tuple(forward(tunnel, port, "target.example", target.port) for port in (30000, 30001))
        await engine.apply("10", rules)
        # Neither on a port of its own nor in the place of a forward.
        for port in (3128, 30001):
            proxy = Proxy("10", "4", tunnel, port, rules[0].way, ("127.0.0.0/8",))
            with pytest.raises(ListenError, match=f"{tunnel}:{port}: nothing here carries such a rule"):
                await engine.apply("10", [proxy])
            assert set(engine.rules()) == set(rules)
        reader, writer = await dial(tunnel, 30000)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        writer.close()
        await engine.close()


@on_both_loops
async def test_what_is_still_being_reached_when_the_drain_ends_is_refused(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    asked = asyncio.Event()

    async def never(_name: str) -> list[str]:
        asked.set()
        await asyncio.Event().wait()
        return []

    async with Bench(tmp_path) as bench:
        bench.reach._resolve = never
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", 1)])
        reader, writer = await dial(tunnel, 30000)
        await asked.wait()
        await bench.engine.apply("10", [])
        assert await closed(reader) == b""
        writer.close()
        assert [line["refusal"] for line in bench.lines("decision")] == ["withdrawn"]
        assert bench.engine.connections("10") == 0


@on_both_loops
async def test_what_was_still_being_reached_when_its_forward_went_ends_once_and_does_not_spare_the_others(
    tmp_path: Path,
) -> None:
    tunnel = tunnel_address()
    go_on = asyncio.Event()
    async with Bench(tmp_path, limits=Limits(drain_s=0.2)) as bench, Target(echo) as target:
        inner = bench.resolve

        async def slow(name: str) -> object:
            await go_on.wait()
            return await inner(name)

        rule = forward(tunnel, 30000, "target.example", target.port)
        await bench.engine.apply("10", [rule])
        established = [await dial(tunnel, 30000) for _ in range(5)]
        for reader, writer in established:
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
        bench.reach._resolve = slow  # type: ignore[assignment]
        waiting = [await dial(tunnel, 30000) for _ in range(5)]
        while bench.engine.connections("10") < 10:
            await asyncio.sleep(0)
        await bench.engine.apply("10", [])
        go_on.set()
        for reader, writer in (*waiting, *established):
            assert await closed(reader) == b""
            writer.close()
        assert bench.engine.connections("10") == 0
        assert [line["refusal"] for line in bench.lines("decision")] == [""] * 5 + ["withdrawn"] * 5
        assert [line["reason"] for line in bench.lines("close")] == ["drained"] * 5


@on_both_loops
async def test_a_forward_that_comes_back_while_it_drains_lets_new_connections_in(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path, limits=Limits(drain_s=60.0)) as bench, Target(echo) as target:
        rule = forward(tunnel, 30000, "target.example", target.port)
        connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for number in range(3):
            await bench.engine.apply("10", [])
            await bench.engine.apply("10", [rule])
            connections.append(await dial(tunnel, 30000))
            for reader, writer in connections:
                writer.write(b"1")
                assert await reader.readexactly(1) == b"1"
            assert bench.engine.connections("10") == number + 1
            assert sum(live.open for live in bench.engine.live()) == number + 1
        for _, writer in connections:
            writer.close()


@on_both_loops
async def test_a_change_keeps_the_connections_that_it_still_allows(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    async with Bench(tmp_path) as bench, Target(echo) as target:

        def rule(networks: tuple[str, ...], **more: Any) -> Forward:
            return forward(tunnel, 30000, "target.example", target.port, client_networks=networks, **more)

        async def opened(client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await dial(tunnel, 30000, client)
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
            return reader, writer

        await bench.engine.apply("10", [rule(("127.0.0.1",))])
        one, one_writer = await opened("127.0.0.1")
        # Wider in every way: it goes on.
        wider = rule(("127.0.0.0/8",), sources=("127.0.0.2", "127.0.0.3"), exceptions=("127.0.0.0/8", "10.0.0.0/8"))
        await bench.engine.apply("10", [wider])
        two, two_writer = await opened("127.0.0.9")
        assert bench.engine.live() == [Live(wider, 2, 2, 2)]
        for number, (narrower, how) in enumerate(
            (
                # Each ends the one connection that it does not allow any more, whichever way that is.
                (rule(("127.0.0.1",), sources=("127.0.0.2", "127.0.0.3")), "client"),
                (rule(("127.0.0.1",), sources=("127.0.0.4",)), "source"),
            )
        ):
            await bench.engine.apply("10", [narrower])
            reader, writer = ((two, two_writer), (one, one_writer))[number]
            assert await closed(reader) == b"", how
            writer.close()
            if not number:
                one_writer.write(b"2")
                assert await one.readexactly(1) == b"2"
        three, three_writer = await opened("127.0.0.1")
        await bench.engine.apply("10", [rule(("127.0.0.1",), sources=("127.0.0.4",), exceptions=())])
        assert await closed(three) == b""
        three_writer.close()
        assert [line["reason"] for line in bench.lines("close")] == ["drained"] * 3
        assert bench.engine.connections("10") == 0
        assert bench.engine.live() == []


@on_both_loops
async def test_what_is_being_reached_when_its_forward_widens_is_reached_by_the_new_one(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    go_on = asyncio.Event()
    async with Bench(tmp_path) as bench, Target(echo) as target:

        async def slow(_name: str) -> list[str]:
            await go_on.wait()
            return ["127.0.0.1"]

        bench.reach._resolve = slow
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port)])
        reader, writer = await dial(tunnel, 30000)
        while not bench.engine.connections("10"):
            await asyncio.sleep(0)
        await bench.engine.apply("10", [forward(tunnel, 30000, "target.example", target.port, sources=("127.0.0.5",))])
        go_on.set()
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        assert [peer[0] for peer in target.peers] == ["127.0.0.5"]
        writer.close()
