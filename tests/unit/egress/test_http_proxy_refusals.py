"""What the HTTP(S) proxy refuses, how it says so, what it lets go, and by which way hosts leave."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from outgate.egress.gate import Limits
from outgate.egress.http_proxy import Patience
from outgate.egress.plan import Way
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode
from outgate.net.guard import compile_exceptions
from support.egress_peers import Target, echo, on_both_loops
from support.http_proxy import RawTarget, World, answer_of, rule
from support.ports import closed_port

LOOPBACK = compile_exceptions(["127.0.0.0/8"])
SHARED = Way(Mode.FLEXIBLE, ("127.0.0.2",), LOOPBACK)
DEDICATED = Way(Mode.DEDICATED, ("127.0.0.3",), LOOPBACK)


def connect(name: str, port: int) -> bytes:
    return f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()


def get(name: str, port: int) -> bytes:
    return f"GET http://{name}:{port}/path?secret=1 HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [connect, get])
@pytest.mark.parametrize(
    ("name", "kind", "code", "error", "said"),
    [
        ("nowhere.example", "dns", 502, "dns_error", "cannot be resolved"),
        ("broken.example", "dns", 502, "dns_error", "cannot be resolved"),
        ("inside.example", "guard", 403, "destination_ip_prohibited", "may not be dialled"),
        ("169.254.169.254", "guard", 403, "destination_ip_prohibited", "may not be dialled"),
        ("v6.example", "source", 503, "proxy_configuration_error", "no address to leave from"),
        ("target.example", "refused", 502, "connection_refused", "refused the connection"),
    ],
)
async def test_a_refusal_says_cause_and_remedy_and_the_audit_says_it_exactly(
    tmp_path: Path, ask: Any, name: str, kind: str, code: int, error: str, said: str
) -> None:
    async with World(tmp_path) as world:
        world.book |= {"broken.example": OSError("SERVFAIL from 10.9.9.9"), "inside.example": ["10.1.2.3"]}
        world.book["v6.example"] = ["2606:4700::1111"]
        port = closed_port()
        answer = (await world.say(ask(name, port))).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert status(answer.encode()) == code and f"Proxy-Status: outgate; error={error}\r\n" in head
        assert body.startswith("Outgate: ") and f"{name}:{port}" in body and said in body and body.count("\n") == 2
        for secret in ("10.1.2.3", "127.0.0.2", "127.0.0.1:", "10.9.9.9", "private", "metadata"):
            assert secret not in answer
        [line] = world.lines("decision")
        assert (line["refusal"], line["proxy"]["name"], line["proxy"]["port"]) == (kind, name, port)
        assert name == "target.example" or name in line["reason"] or "2606:" in line["reason"]
        assert "secret" not in (tmp_path / "egress-audit.jsonl").read_text() and world.lines("close") == []
        await world.empty()


async def test_a_target_that_does_not_answer_is_504_in_time(tmp_path: Path) -> None:
    async with World(tmp_path, limits=Limits(drain_s=0.0, connect_timeout_s=0.2)) as world:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        held = [socket.socket() for _ in range(4)]
        for each in held:
            each.setblocking(False)
            each.connect_ex(full.getsockname())  # its queue is full now, and what else comes waits unheard
        answer = await world.say(connect("target.example", full.getsockname()[1]))
        assert status(answer) == 504 and b"did not answer in time" in answer
        for each in (*held, full):
            each.close()


async def test_a_client_of_no_client_network_is_reset_unheard(tmp_path: Path) -> None:
    async with World(tmp_path, rule(client_networks=("127.9.0.0/16",))) as world:
        with pytest.raises(ConnectionError):
            reader, writer = await world.dial()
            writer.close()
            while await reader.read(100):
                pass
        [line] = world.lines("decision")
        assert line["refusal"] == "client-network"
        assert status(await world.say(b"GET / HTTP/1.1\r\n\r\n", source="127.9.0.1")) == 400


async def test_a_head_that_is_too_long_or_too_slow(tmp_path: Path) -> None:
    async with World(tmp_path, patience=Patience(head_bytes=2_000, head_s=0.15)) as world:
        for raw in (b"GET http://a.example/" + b"x" * 2_000, b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 400 + b"\r\n"):
            answer = await world.say(raw)
            assert status(answer) == 431 and b"fewer or shorter" in answer
        answer = await world.say(b"GET http://a.example/ HTTP/1.1\r\nHost: ")
        assert status(answer) == 408 and b"without long pauses" in answer
        assert await world.say(b"") == b""  # who asks nothing is let go without a word
        assert [line["refusal"] for line in world.lines("decision")] == ["request"] * 3


async def test_a_loop_is_found_by_via(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        own = world.proxy.own.decode()
        for asked in (get("target.example", 81), connect("target.example", 81)):
            raw = asked.replace(b"\r\n\r\n", f"\r\nVia: 1.0 other, 1.1 {own.upper()} (x)\r\n\r\n".encode())
            answer = await world.say(raw)
            assert status(answer) == 508 and b"proxy_loop_detected" in answer
        assert world.asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "target closed"),
        (b"SSH-2.0-x\r\n\r\n", "the target's response cannot be read"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "the target's response cannot be read",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "the target's response cannot be read"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "the target's response cannot be read"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40, "the target's response cannot be read"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "the target's response cannot be read"),
    ],
)
async def test_a_target_that_gives_no_response_is_502(tmp_path: Path, answer: bytes, reason: str) -> None:
    async with World(tmp_path) as world, RawTarget(answer) as target:
        raw = await world.say(get("target.example", target.port))
        assert b"HTTP/1.1 502 Bad Gateway\r\n" in raw and b"gave no HTTP response" in raw
        [line] = await world.closes(1)
        assert line["reason"] == reason


async def test_a_response_with_chunks_and_a_length_goes_on_with_one_framing(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nHTTP/1.1 666 no\r\n\r\n"
    async with World(tmp_path) as world, RawTarget(answer) as target, RawTarget() as other:
        reader, writer = await world.dial()
        writer.write(get("target.example", target.port) + get("target.example", other.port))
        status_, got, body = await answer_of(reader)
        assert (status_, body) == (200, b"hi") and "content-length" not in got
        assert (await answer_of(reader))[2] == b"ok"  # and not what the first target had added
        writer.close()


@pytest.mark.parametrize("status_line", [b"100 Continue", b"103 Early Hints", b"101 Switching Protocols"])
@on_both_loops
async def test_an_interim_response_has_no_length(tmp_path: Path, status_line: bytes) -> None:
    interim = b"HTTP/1.1 %b\r\nContent-Length: 9\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n" % status_line
    async with (
        World(tmp_path) as world,
        RawTarget(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as target,
    ):
        upgrade = b"\r\nUpgrade: echo\r\nConnection: upgrade, close\r\n\r\n"
        answer = await world.say(get("target.example", target.port).replace(b"\r\n\r\n", upgrade))
        first, _, rest = answer.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 " + status_line) and b"Length" not in first
        assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
async def test_a_response_that_breaks_off_is_seen_to(tmp_path: Path, answer: bytes) -> None:
    async with World(tmp_path) as world, RawTarget(answer) as target:
        for version in (b"1.0", b"1.1"):
            reader, writer = await world.dial()
            writer.write(get("target.example", target.port).replace(b"HTTP/1.1", b"HTTP/" + version))
            with pytest.raises(ConnectionError):
                while await reader.read(100):
                    pass
            writer.close()
        assert {line["reason"] for line in await world.closes(2)} == {"target closed"}


# --- limits and time --------------------------------------------------------------------------------------------


@on_both_loops
async def test_ports_80_and_443_do_not_count_but_are_bounded_and_others_count(tmp_path: Path) -> None:
    limits = Limits(connections_per_environment=2, proxy_connections_per_environment=5, drain_s=0.0)
    async with Target(echo) as target, World(tmp_path, limits=limits, ports={443: target.port}) as world:
        open_: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def tunnel(port: int) -> int:
            reader, writer = await world.dial()
            writer.write(connect("target.example", port))
            open_.append((reader, writer))
            code = status(await reader.readuntil(b"\r\n\r\n"))
            if code != 200:
                writer.close()
            return code

        assert [await tunnel(443), await tunnel(443), await tunnel(443)] == [200] * 3
        assert (world.gate.open("10"), world.gate.proxied("10")) == (0, 3)
        assert [await tunnel(target.port), await tunnel(target.port)] == [200] * 2
        assert (world.gate.open("10"), world.gate.proxied("10")) == (2, 5)
        assert await tunnel(443) == 503  # the proxy's own bound
        open_[0][1].close()
        await world.closes(1)
        assert await tunnel(target.port) == 503  # the environment's
        for _, writer in open_[1:]:
            writer.close()
        await world.closes(5)
        assert [line["reason"] for line in world.lines("decision") if line["refusal"] == "limit"] == [
            "the environment's proxy has 5 clients connected",
            "the environment has 2 connections open",
        ]
        assert world.gate.open("10") == world.gate.proxied("10") == 0


async def test_a_plain_request_gives_its_place_back_while_its_client_stays(tmp_path: Path) -> None:
    async with World(tmp_path) as world, RawTarget() as target:
        reader, writer = await world.dial()
        writer.write(get("target.example", target.port))
        assert (await answer_of(reader))[0] == 200
        await world.closes(1)
        assert (world.gate.open("10"), world.gate.proxied("10")) == (0, 1)
        writer.close()


async def test_silence_ends_a_request_a_tunnel_and_a_kept_connection(tmp_path: Path) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        if b"/path" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" if b"X-Half" in head else b"")
        await reader.read()

    limits, patience = Limits(idle_timeout_s=0.15, drain_s=0.0), Patience(keep_s=0.15)
    async with (
        World(tmp_path, limits=limits, patience=patience) as world,
        RawTarget(half) as silent,
        RawTarget() as quick,
    ):
        answer = await world.say(get("target.example", silent.port))
        assert status(answer) == 504
        begun = get("target.example", silent.port).replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\nhalf")
        assert status(await world.say(begun)) == 408
        more = get("target.example", silent.port).replace(b"\r\n\r\n", b"\r\nX-Half: 1\r\n\r\n")
        assert (await world.say(more)).endswith(b"half")
        assert b" 200 Connection" in await world.say(connect("target.example", silent.port))
        assert (await world.say(get("target.example", quick.port))).endswith(b"ok")  # and then an end
        assert [line["reason"] for line in await world.closes(5)] == ["idle"] * 4 + ["finished"]


async def test_a_client_that_leaves_does_not_keep_its_target(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with World(tmp_path, patience=Patience(closed_s=0.05)) as world, RawTarget(silent) as target:
        for how, reason in (("reset", "client reset"), ("close", "client closed")):
            asked.clear()
            _, writer = await world.dial()
            writer.write(get("target.example", target.port))
            await asked.wait()
            if how == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            while not world.lines("close") or world.lines("close")[-1]["reason"] != reason:
                await asyncio.sleep(0.005)
        assert world.gate.open("10") == 0


@on_both_loops
async def test_a_client_that_takes_no_answers_is_let_go_whatever_it_was_to_be_told(tmp_path: Path) -> None:
    async def interims(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        for _ in range(32):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % (b"x" * 60_000))
        await reader.read()

    async def asks(octets: bytes) -> None:
        for _ in range(1000):
            await loop.sock_sendall(sock, octets)

    loop = asyncio.get_running_loop()
    limits, patience = Limits(idle_timeout_s=0.2, drain_s=0.0), Patience(head_s=0.2)
    async with World(tmp_path, limits=limits, patience=patience) as world, RawTarget(interims) as target:
        options = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
        for octets in (get("target.example", target.port), options):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, world.address)
                asking = asyncio.ensure_future(asks(octets) if octets is options else loop.sock_sendall(sock, octets))
                while not len(world.proxy):
                    await asyncio.sleep(0.005)
                await world.empty()
                await asyncio.wait([asking])
                assert isinstance(asking.exception(), OSError if octets is options else NoneType)
        assert [line["reason"] for line in world.lines("close")] == ["idle"]


@on_both_loops
async def test_many_requests_in_one_piece_keep_nobody_waiting(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        reader, writer = await world.dial()
        writer.write(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        writer.write_eof()
        answers = asyncio.ensure_future(reader.read())
        served: set[int] = set()
        while not answers.done():
            served |= {session._served for session in world.proxy._sessions}  # pyright: ignore
            await asyncio.sleep(0)
        assert len(served) > 900
        assert (await answers).count(b"200 OK") == 1000
        writer.close()


@on_both_loops
async def test_an_empty_line_before_a_request_is_passed_over_in_whatever_pieces(tmp_path: Path) -> None:
    async with World(tmp_path) as world, RawTarget() as target:
        for first in (b"\r\n", b"\r"):
            reader, writer = await world.dial()
            writer.write(first)
            while not len(world.proxy):
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.01)
            writer.write(b"\r\n"[len(first) :] + get("target.example", target.port))
            assert (await answer_of(reader))[0] == 200
            writer.close()
            await world.empty()


async def poured(writer: asyncio.StreamWriter, most: int) -> int:
    """Write pieces of 1 MiB until the other side takes no more, or `most` are written; return how many were."""
    writer.transport.set_write_buffer_limits(high=0)
    for number in range(most):
        writer.write(bytes(2**20))
        try:
            await asyncio.wait_for(writer.drain(), 0.3)
        except TimeoutError:
            return number + 1
    return most


async def test_a_client_that_does_not_read_stops_the_target(tmp_path: Path) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n")
        given = await poured(writer, 64)
        stuck.set_result(given)
        await writer.drain()
        writer.write(bytes(2**20) * (64 - given) + b"\r\n0\r\n\r\n")
        await writer.drain()

    stuck: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with World(tmp_path) as world, RawTarget(pour) as target:
        reader, writer = await world.dial()
        writer.write(get("target.example", target.port))
        # Buffers of two connections in the system, and a piece of ours.
        assert await stuck < 32
        assert len((await answer_of(reader))[2]) == 64 * 2**20
        writer.close()


async def test_a_target_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        await go_on.wait()
        size = 0
        while size < 64 * 2**20:
            size += len(await reader.read(2**20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % size)

    go_on = asyncio.Event()
    async with World(tmp_path) as world, RawTarget(lazy) as target:
        reader, writer = await world.dial()
        fields = f"Host: target.example:{target.port}\r\nContent-Length: {64 * 2**20}\r\n\r\n"
        writer.write(f"POST http://target.example:{target.port}/ HTTP/1.1\r\n{fields}".encode())
        given = await poured(writer, 64)
        assert given < 32
        go_on.set()
        await writer.drain()
        writer.write(bytes(2**20) * (64 - given))
        assert (await answer_of(reader))[2] == b"%08d" % (64 * 2**20)
        writer.close()


# --- ways -------------------------------------------------------------------------------------------------------


async def test_a_dedicated_environment_leaves_from_its_address_and_spares_non_proxy_hosts(tmp_path: Path) -> None:
    proxy = rule(way=DEDICATED, spared=SHARED, non_proxy_hosts=("*.spared.example", "other.*", "127.0.0.*"))
    async with RawTarget() as target, World(tmp_path, proxy, ports={80: target.port, 443: target.port}) as world:
        world.book |= {name: ["127.0.0.1"] for name in ("a.spared.example", "spared.example", "other.example")}
        for name, port, source in (
            ("target.example", target.port, "127.0.0.3"),
            ("target.example", 80, "127.0.0.3"),
            ("spared.example", 80, "127.0.0.3"),
            ("A.Spared.Example.", 80, "127.0.0.2"),
            ("other.example", 80, "127.0.0.2"),
            ("127.0.0.1", 80, "127.0.0.2"),
            ("[::ffff:127.0.0.1]", 80, "127.0.0.2"),
        ):
            assert (await world.say(get(name, port).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))[
                -2:
            ] == b"ok"
            assert target.peers[-1] == source, name
        reader, writer = await world.dial()
        writer.write(connect("a.spared.example", 443))
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.close()
        assert target.peers[-1] == "127.0.0.2"
        for ask in (get, connect):
            answer = await world.say(ask("a.spared.example", target.port))
            assert status(answer) == 403 and b"80 and 443 only" in answer and b"nonProxyHosts" in answer
        assert [line["refusal"] for line in world.lines("decision") if line["refusal"]] == ["port", "port"]


async def test_without_a_way_for_spared_hosts_they_stay_closed(tmp_path: Path) -> None:
    async with World(tmp_path, rule(way=DEDICATED, non_proxy_hosts=("target.example",))) as world:
        assert status(await world.say(connect("target.example", 443))) == 503
        assert world.lines("decision")[0]["refusal"] == "closed"


# --- change and end ---------------------------------------------------------------------------------------------


@on_both_loops
async def test_withdrawn_rules_let_requests_finish_and_then_end_the_rest(tmp_path: Path) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    asked, answer = asyncio.Event(), asyncio.Event()
    async with World(tmp_path, limits=Limits(drain_s=0.3)) as world, RawTarget(wait) as target, Target(echo) as far:
        idle, idle_writer = await world.dial()
        busy, busy_writer = await world.dial()
        tunnel, tunnel_writer = await world.dial()
        tunnel_writer.write(connect("target.example", far.port))
        await tunnel.readuntil(b"\r\n\r\n")
        busy_writer.write(get("target.example", target.port))
        await asked.wait()
        await world.engine.apply("10", [])
        assert await idle.read() == b""  # it asked for nothing: gone at once
        answer.set()
        code, got, body = await answer_of(busy)
        assert (code, got["connection"], body) == (200, "close", b"ok") and await busy.read() == b""
        tunnel_writer.write(b"still")
        assert await tunnel.readexactly(5) == b"still"
        with pytest.raises(ConnectionError):
            await tunnel.read()
        assert {line["reason"] for line in await world.closes(2)} == {"finished", "drained"}
        for writer in (idle_writer, busy_writer, tunnel_writer):
            writer.close()


async def test_close_ends_all_and_tells_of_it(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with World(tmp_path) as world, RawTarget(silent) as target, Target(echo) as far:
        held = [await world.dial() for _ in range(3)]
        held[0][1].write(connect("target.example", far.port))
        await held[0][0].readuntil(b"\r\n\r\n")
        held[1][1].write(get("target.example", target.port))
        await asked.wait()
        assert len(world.proxy) == 3
        await world.proxy.close()
        assert len(world.proxy) == 0 and world.gate.open("10") == world.gate.proxied("10") == 0
        assert [line["reason"] for line in world.lines("close")] == ["shutdown", "shutdown"]
        for _, writer in held:
            writer.close()


async def test_a_client_that_is_ended_while_its_target_is_sought_is_told_of(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        sought, never = asyncio.Event(), asyncio.Event()

        async def resolve(name: str) -> list[str]:
            sought.set()
            await never.wait()
            return []

        world.proxy.reach._resolve = resolve  # type: ignore[attr-defined]
        _, writer = await world.dial()
        writer.write(connect("target.example", 8443))
        await sought.wait()
        await world.proxy.close()
        assert [(line["refusal"], line["reason"]) for line in world.lines("decision")] == [("withdrawn", "shutdown")]
        assert world.gate.open("10") == 0
        writer.close()


async def test_a_client_that_is_ended_before_it_was_served_leaves_nothing(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        world.proxy.accepted(world.rule, ours, ("127.0.0.1", 1), world.address)
        await world.proxy.close()
        assert len(world.proxy) == 0 and ours.fileno() < 0
        theirs.close()


async def test_what_goes_on_is_told_by_rule(tmp_path: Path) -> None:
    async with World(tmp_path) as world, Target(echo) as target:
        reader, writer = await world.dial()
        writer.write(connect("target.example", target.port))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"12345")
        await reader.readexactly(5)
        _, idle = await world.dial()
        while len(world.proxy) < 2:
            await asyncio.sleep(0.005)
        [live] = world.engine.live()
        assert (live.rule, live.open, live.up, live.down) == (world.rule, 2, 5, 5)
        idle.close()
        writer.close()


def test_each_class_of_refusal_has_an_answer() -> None:
    from typing import get_args

    from outgate.egress import proxy_response, refusal

    for kind in get_args(refusal.Kind):
        answer = proxy_response.refusal(Refused(kind, "10.0.0.1 is private"), "2001:db8::1", 25)
        raw = proxy_response.encode(answer, "GET")
        assert raw.startswith(b"HTTP/1.1 %d " % answer.status) and b"10.0.0.1" not in raw and b"{" not in raw
        assert proxy_response.encode(answer, "HEAD") == raw[: raw.index(b"\r\n\r\n") + 4]
