"""The HTTP(S) proxy, spoken to over real sockets: tunnels, plain requests, refusals, limits, and what is told of them."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from support.egress_peers import Target, echo, on_both_loops
from support.http_proxy import RawTarget, World, answer_of, rule

BIG = bytes(range(256)) * 16_384  # 4 MiB


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello from {request.path_qs}", headers={"X-Host": request.headers["Host"]})


async def _digest(request: web.Request) -> web.StreamResponse:
    """Answer with the digest of what came, behind a large body in chunks."""
    digest = hashlib.sha256()
    async for piece in request.content.iter_any():
        digest.update(piece)
    response = web.StreamResponse(headers={"X-Digest": digest.hexdigest()})
    await response.prepare(request)
    await response.write(BIG)
    await response.write_eof()
    return response


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve an aiohttp application; yield its port."""
    application = web.Application(client_max_size=2**30)
    application.router.add_get("/hello", _hello)
    application.router.add_route("*", "/digest", _digest)
    runner = web.AppRunner(application)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await server.start()
    assert server._server is not None
    try:
        yield server._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("target.example").configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def curl(*arguments: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--noproxy", "", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out


# --- real clients -----------------------------------------------------------------------------------------------


@on_both_loops
async def test_aiohttp_reaches_plain_and_tls_sites(tmp_path: Path, authority: trustme.CA) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    async with World(tmp_path) as world, site() as plain, site(server_tls(authority)) as secure:
        proxy = "http://{}:{}".format(*world.address)
        connector = aiohttp.TCPConnector(ssl=client_tls(authority))
        async with aiohttp.ClientSession(connector=connector) as session:
            for scheme, port in (("http", plain), ("https", secure)):
                url = f"{scheme}://target.example:{port}"
                async with session.get(f"{url}/hello?a=b", proxy=proxy) as answer:
                    assert await answer.text() == "hello from /hello?a=b"
                    assert answer.headers["X-Host"] == f"target.example:{port}"
                async with session.post(f"{url}/digest", data=io.BytesIO(BIG), proxy=proxy) as answer:
                    assert answer.headers["X-Digest"] == digest
                    assert hashlib.sha256(await answer.read()).hexdigest() == digest

                async def pieces() -> AsyncIterator[bytes]:
                    for begin in range(0, len(BIG), 65_521):
                        yield BIG[begin : begin + 65_521]

                async with session.put(f"{url}/digest", data=pieces(), proxy=proxy) as answer:
                    assert answer.headers["X-Digest"] == digest and await answer.read() == BIG
        closes = await world.closes(4)
        plain_lines = [line for line in closes if line["proxy"]["method"] != "CONNECT"]
        assert [line["proxy"]["method"] for line in plain_lines] == ["GET", "POST", "PUT"]
        assert all(line["reason"] == "finished" and line["source"].startswith("127.0.0.2:") for line in plain_lines)
        assert plain_lines[1]["bytes_up"] > len(BIG) < plain_lines[1]["bytes_down"]
        assert {line["proxy"]["name"] for line in closes} == {"target.example"}
        assert "hello" not in (tmp_path / "egress-audit.jsonl").read_text()


async def test_curl_python_and_urllib_reach_plain_and_tls_sites(tmp_path: Path, authority: trustme.CA) -> None:
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    upload = tmp_path / "big"
    upload.write_bytes(BIG)
    async with World(tmp_path) as world, site() as plain, site(server_tls(authority)) as secure:
        proxy = "http://{}:{}".format(*world.address)
        for scheme, port in (("http", plain), ("https", secure)):
            url = f"{scheme}://target.example:{port}"
            assert await curl("-x", proxy, "--cacert", str(pem), f"{url}/hello") == (0, b"hello from /hello")
            got = await curl(
                "-x", proxy, "--cacert", str(pem), "-T", str(upload), f"{url}/digest", "-o", str(tmp_path / "o")
            )
            assert got == (0, b"") and (tmp_path / "o").read_bytes() == BIG
        code, out = await curl("-x", proxy, "-v", "--head", f"http://target.example:{plain}/hello")
        assert code == 0 and b"HTTP/1.1 200" in out

        def tunnelled() -> bytes:
            connection = http.client.HTTPSConnection(*world.address, context=client_tls(authority), timeout=30)
            connection.set_tunnel("target.example", secure)
            connection.request("GET", "/hello")
            body = connection.getresponse().read()
            connection.close()
            return body

        def opened() -> bytes:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
            with opener.open(f"http://target.example:{plain}/hello", timeout=30) as answer:
                return answer.read()

        assert await asyncio.to_thread(tunnelled) == b"hello from /hello"
        assert await asyncio.to_thread(opened) == b"hello from /hello"
        refused, out = await curl("-x", proxy, f"http://nowhere.example:{plain}/")
        assert refused == 0 and out.startswith(b"Outgate: the name of nowhere.example:")


# --- tunnels ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_tunnel_carries_what_was_sent_behind_the_head_and_keeps_a_half_close(tmp_path: Path) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256(await reader.read()).hexdigest()  # until the client has closed its side
        writer.write(digest.encode() + BIG)
        await writer.drain()

    async with World(tmp_path) as world, Target(late) as target:
        reader, writer = await world.dial()
        writer.write(
            f"CONNECT target.example:{target.port} HTTP/1.1\r\nHost: target.example\r\n\r\n".encode() + b"early "
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        writer.write(BIG)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        assert answer == hashlib.sha256(b"early " + BIG).hexdigest().encode() + BIG
        assert target.peers[0][0] == "127.0.0.2"
        [line] = await world.closes(1)
        assert (line["bytes_up"], line["bytes_down"]) == (6 + len(BIG), 64 + len(BIG))
        assert line["reason"] == "finished" and line["proxy"]["method"] == "CONNECT"
        assert line["proxy"]["port"] == target.port and line["target"] == f"127.0.0.1:{target.port}"
        [decision] = world.lines("decision")
        assert decision["connection_id"] == line["connection_id"] and decision["refusal"] == ""
        assert decision["exception"] == "127.0.0.0/8"
        assert world.gate.open("10") == world.gate.proxied("10") == 0


async def test_a_tunnel_by_address_and_one_over_http_1_0(tmp_path: Path) -> None:
    async with World(tmp_path) as world, Target(echo) as target:
        for head in (
            "CONNECT 127.0.0.1:{} HTTP/1.0\r\n\r\n",
            "CONNECT 127.0.0.1:{0} HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\n\r\n",
        ):
            reader, writer = await world.dial()
            writer.write(head.format(target.port).encode() + b"ping")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == b"ping"
            writer.close()


# --- plain requests ---------------------------------------------------------------------------------------------


def get(target: RawTarget, path: str = "/", *fields: str, method: str = "GET", name: str = "target.example") -> bytes:
    lines = [f"{method} http://{name}:{target.port}{path} HTTP/1.1", f"Host: {name}:{target.port}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


@on_both_loops
async def test_a_request_goes_on_without_the_fields_of_its_hop(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok"
    )
    async with World(tmp_path) as world, RawTarget(answer) as target:
        reader, writer = await world.dial()
        fields = ("Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==", "Connection: X-Mine, keep-alive",
                  "X-Mine: 1", "TE: trailers", "Keep-Alive: 5", "X-Kept: yes", "Via: 1.0 before", "Upgrade: h2c")  # fmt: skip
        writer.write(get(target, "/a?b=c", *fields))
        status, got, body = await answer_of(reader)
        writer.close()
        own = world.proxy.own.decode()
        assert (status, body) == (200, b"ok")
        assert got == {"server": "x", "content-length": "2", "via": f"1.1 {own}"}
        assert target.seen[0].decode().split("\r\n") == [
            "GET /a?b=c HTTP/1.1",
            f"Host: target.example:{target.port}",
            "X-Kept: yes",
            "Via: 1.0 before",
            f"Via: 1.1 {own}",
            "Connection: close",
            "",
            "",
        ]


async def test_requests_of_one_connection_are_served_in_their_order_each_with_its_own_lines(tmp_path: Path) -> None:
    async with World(tmp_path) as world, RawTarget() as first, RawTarget(b"HTTP/1.0 404 No\r\n\r\ngone") as second:
        reader, writer = await world.dial()
        body = get(first, "/1", "Content-Length: 3", method="POST") + b"abc"
        writer.write(body + get(second, "/2") + b"\r\n" + get(first, "/3"))
        assert [(await answer_of(reader))[::2] for _ in range(3)] == [(200, b"ok"), (404, b"gone"), (200, b"ok")]
        writer.write(get(first, "/4", "Connection: close"))
        assert (await answer_of(reader))[1]["connection"] == "close"
        assert await reader.read() == b""
        writer.close()
        assert [seen.split(b" ")[1] for seen in first.seen] == [b"/1", b"/3", b"/4"]
        assert first.seen[0].endswith(b"\r\n\r\nabc") and b"/2" in second.seen[0]
        lines = await world.closes(4)
        assert [line["proxy"]["port"] for line in lines] == [first.port, second.port, first.port, first.port]
        assert len({line["connection_id"] for line in lines}) == 4


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n", 304),
    ],
)
async def test_answers_without_content_keep_the_connection(
    tmp_path: Path, method: str, answer: bytes, status: int
) -> None:
    async with World(tmp_path) as world, RawTarget(answer) as target, RawTarget() as other:
        reader, writer = await world.dial()
        writer.write(get(target, method=method) + get(other))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) and (status == 204) != (b"ength" in head or b"chunked" in head)
        assert (await answer_of(reader))[::2] == (200, b"ok")
        writer.close()


async def test_an_old_client_gets_an_end_instead_of_chunks_and_no_interim_answers(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    )
    async with World(tmp_path) as world, RawTarget(answer) as target:
        raw = await world.say(
            f"GET http://target.example:{target.port} HTTP/1.0\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        head, _, body = raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"chunked" not in head and body == b"abc"
        assert b"Expect" not in target.seen[0] and target.seen[0].startswith(b"GET / HTTP/1.1\r\n")


async def test_trailers_go_both_ways_and_only_those_that_may(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        assert b"Transfer-Encoding: chunked" in head and b"Trailer: X-Sum" in head
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a\r\n\r\n"
        )

    seen: list[bytes] = []
    async with World(tmp_path) as world, RawTarget(serve) as target:
        reader, writer = await world.dial()
        head = get(target, "/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST")
        writer.write(head + b"4;ext=1\r\nbody\r\n0\r\nX-Sum: 9\r\nContent-Length: 5\r\nProxy-Thing: 1\r\n\r\n")
        status, got, body = await answer_of(reader)
        writer.close()
        assert (status, body, got["trailer x-sum"]) == (200, b"hi", "7") and "trailer set-cookie" not in got
        assert seen == [b"4\r\nbody\r\n0\r\nX-Sum: 9\r\n\r\n"]


@on_both_loops
async def test_chunks_of_one_octet_arrive_both_ways(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        seen = await reader.readuntil(b"0\r\n\r\n")
        sums.append(hashlib.sha256(b"".join(line for line in seen.split(b"\r\n")[1::2])).hexdigest())
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await writer.drain()

    content = BIG[:10_000].replace(b"\r", b"r").replace(b"\n", b"n").replace(b"0", b"o")
    chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in content) + b"0\r\n\r\n"
    sums: list[str] = []
    async with World(tmp_path) as world, RawTarget(serve) as target:
        reader, writer = await world.dial()
        writer.write(get(target, "/", "Transfer-Encoding: chunked", method="POST") + chunks)
        assert (await answer_of(reader))[::2] == (200, content)
        assert sums == [hashlib.sha256(content).hexdigest()]
        writer.close()


async def test_a_target_by_ipv6_address(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    seen: list[bytes] = []
    server = await asyncio.start_server(serve, "::1", 0)
    port = server.sockets[0].getsockname()[1]
    async with World(tmp_path, rule(sources=("::1",), exceptions=("::1/128",))) as world:
        reader, writer = await world.dial()
        writer.write(f"GET http://[0:0::1]:{port}/ HTTP/1.1\r\nHost: [::1]:{port}\r\n\r\n".encode())
        assert (await answer_of(reader))[2] == b"ok"
        writer.close()
        assert f"\r\nHost: [::1]:{port}\r\n".encode() in seen[0]
        assert world.lines("decision")[0]["target"] == f"[::1]:{port}"
    server.close()


async def test_a_client_that_expects_100_waits_for_the_target_to_say_so(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        assert b"Expect: 100-continue" in head
        if b"/no " in head:
            writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\n\r\n" + body)

    async with World(tmp_path) as world, RawTarget(serve) as target:
        reader, writer = await world.dial()
        fields = ("Expect: 100-continue", "Content-Length: 5")
        writer.write(get(target, "/yes", *fields, method="PUT"))
        assert (await answer_of(reader))[0] == 100
        writer.write(b"12345")
        assert (await answer_of(reader))[::2] == (201, b"12345")
        writer.write(get(target, "/no", *fields, method="PUT"))
        status, got, _ = await answer_of(reader)
        assert (status, got["connection"]) == (403, "close")
        assert await reader.read() == b""
        writer.close()


@on_both_loops
async def test_an_upgrade_becomes_a_tunnel(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        assert b"Upgrade: websocket" in head and b"Connection: upgrade" in head
        writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Accept: 1\r\n\r\nhello")
        await echo(reader, writer)

    async with World(tmp_path) as world, RawTarget(serve) as target:
        reader, writer = await world.dial()
        writer.write(get(target, "/ws", "Upgrade: websocket", "Connection: Upgrade") + b"early")
        status, got, _ = await answer_of(reader)
        assert (status, got["upgrade"], got["x-accept"], got["connection"]) == (101, "websocket", "1", "upgrade")
        assert await reader.readexactly(10) == b"helloearly"
        writer.write(BIG)
        writer.write_eof()
        assert await reader.read() == BIG
        writer.close()
        [line] = await world.closes(1)
        assert line["proxy"]["method"] == "GET" and line["bytes_up"] > len(BIG) + 5
        assert world.gate.open("10") == world.gate.proxied("10") == 0


async def test_options_for_the_proxy_itself_and_for_a_server_as_a_whole(tmp_path: Path) -> None:
    async with World(tmp_path) as world, RawTarget() as target:
        reader, writer = await world.dial()
        writer.write(b"OPTIONS * HTTP/1.1\r\nHost: whoever\r\n\r\n")
        status, got, _ = await answer_of(reader)
        assert status == 200 and "CONNECT" in got["allow"]
        writer.write(get(target, "", "Max-Forwards: 3", method="OPTIONS"))
        assert (await answer_of(reader))[2] == b"ok"
        assert target.seen[0].startswith(b"OPTIONS * HTTP/1.1\r\n") and b"Max-Forwards: 2\r\n" in target.seen[0]
        writer.write(get(target, "/", "Max-Forwards: 0", method="OPTIONS"))
        assert "CONNECT" in (await answer_of(reader))[1]["allow"] and len(target.seen) == 1
        writer.close()
