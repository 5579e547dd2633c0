"""The connectivity test: real name servers, real HTTP and HTTPS, dead, silent and forbidden ports."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from outgate.base.clock import FrozenClock
from outgate.egress.connectivity import Connectivity, Times
from outgate.egress.plan import Way
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode
from outgate.net.dns import Resolver
from outgate.net.guard import compile_exceptions
from outgate.net.tls import verified_context
from support.egress_peers import Handler, Target, on_both_loops
from support.names import Peer, peers
from support.ports import closed_port

HOST = "shop.example"
SOURCE = "127.0.0.2"
SERVERS = ("127.0.0.61", "127.0.0.62")
AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    return verified_context(authorities=AUTHORITY.cert_pem.bytes().decode())


def peer(*addresses: str, fault: str = "") -> Peer:
    """Return a name server that knows the host, or fails."""
    made = Peer(fault=fault)
    if addresses:
        made.zone.put(HOST, "A", [each for each in addresses if ":" not in each], 60)
        made.zone.put(HOST, "AAAA", [each for each in addresses if ":" in each], 60)
    return made


@asynccontextmanager
async def probing(
    *servers: Peer,
    exceptions: Iterable[str] = ("127.0.0.0/8",),
    sources: tuple[str, ...] = (SOURCE,),
    times: Times = Times(),
    dns_s: float = 2.0,
    verified: Callable[[], ssl.SSLContext] = trusting,
) -> AsyncGenerator[Connectivity]:
    """Yield a test that asks `servers`, one resolver each."""
    way = Way(Mode.DEDICATED, sources, compile_exceptions(exceptions))
    async with peers(dict(zip(SERVERS, servers, strict=False))) as port:
        clock = FrozenClock()
        resolvers = [Resolver([(each, port)], clock, timeout=dns_s, rounds=1) for each in SERVERS[: len(servers)]]
        ways: dict[str, Way | str] = {"10": way}
        yield Connectivity(
            resolvers=resolvers,
            ways=lambda environment, _host, _port: ways.get(environment, "advanced networking is not enabled"),
            times=times,
            verified=verified,
        )


def web(answer: bytes, seen: list[bytes] | None = None) -> Handler:
    """Return a server that reads a request and answers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n") and (line := await reader.readline()):
            request += line
            if not line.startswith((b"GET", b"Host", b"User", b"Acc", b"Conn", b"\r")):
                break  # no HTTP
        if seen is not None:
            seen.append(request)
        writer.write(answer)
        await writer.drain()

    return handle


def secure(handler: Handler, *names: str) -> Target:
    """Return a server that speaks TLS, with a certificate for `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return Target(handler, context)


def only(result: dict[str, object]) -> dict[str, Any]:
    """Return the one resolver's part."""
    (entry,) = result["resolvers"]  # type: ignore[misc]
    return entry  # type: ignore[no-any-return]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@on_both_loops
async def test_https_is_tried_first_and_from_the_environments_address() -> None:
    seen: list[bytes] = []
    async with secure(web(OK, seen), HOST) as target, probing(peer("127.0.0.1"), peer("127.0.0.1")) as connectivity:
        result = await connectivity.test("10", HOST, target.port)
        assert {address for address, _ in target.peers} == {SOURCE}
    assert result == {
        "resolvers": [
            {
                "name": "default",
                "dns_resolution": {"ips": ["127.0.0.1"]},
                "port_open": True,
                "http_connectivity": {"protocol": "HTTPS", "status_code": 200, "reason": "OK"},
                "reachability": "Reachable",
            }
        ]
    }
    assert seen[0].startswith(b"GET / HTTP/1.1\r\nHost: shop.example:%d\r\n" % target.port) and len(seen) == 1


@on_both_loops
async def test_http_is_tried_second() -> None:
    answer = b"HTTP/1.1 404 Not\x1b[2J F\xf6und\r\n\r\n"
    async with Target(web(answer)) as target, probing(peer("127.0.0.1")) as connectivity:
        entry = only(await connectivity.test("10", HOST, target.port))
    assert entry["http_connectivity"] == {"protocol": "HTTP", "status_code": 404, "reason": "Not?[2J F?und"}


@on_both_loops
async def test_a_certificate_that_proves_nothing_is_a_note() -> None:
    async with secure(web(OK), "other.example") as target, probing(peer("127.0.0.1")) as connectivity:
        entry = only(await connectivity.test("10", HOST, target.port))
    assert entry["reachability"] == "Reachable"
    http = entry["http_connectivity"]
    assert (http["protocol"], http["status_code"]) == ("HTTPS", 200)
    assert "certificate" in http["note"] and "shop.example" in http["note"]


async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mx.example ESMTP\r\n")
    await reader.read(1)


async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 " + b"x" * 100_000)
    await reader.read()


@pytest.mark.parametrize(
    ("handler", "note"),
    [(mail, "greets as a mail server"), (rude, ""), (endless, ""), (web(b"HTTP/9.9 200 OK\r\n"), "")],
)
def test_what_is_not_http_is_called_so(handler: Handler, note: str) -> None:
    async def run() -> None:
        async with Target(handler) as target, probing(peer("127.0.0.1")) as connectivity:
            entry = only(await connectivity.test("10", HOST, target.port))
        assert (entry["port_open"], entry["reachability"]) == (True, "Reachable")
        assert entry["http_connectivity"]["error"] == "Not an HTTP/HTTPS service"
        assert note in entry["http_connectivity"].get("note", "")

    asyncio.run(run())


@on_both_loops
async def test_tls_without_http_is_told_apart() -> None:
    async with secure(mail, HOST) as target, probing(peer("127.0.0.1")) as connectivity:
        entry = only(await connectivity.test("10", HOST, target.port))
    assert entry["http_connectivity"] == {
        "error": "Not an HTTP/HTTPS service",
        "note": "TLS is spoken there, HTTP is not",
    }


@on_both_loops
async def test_a_dead_port_and_a_silent_one() -> None:
    async with probing(peer("127.0.0.1"), times=Times(converse=0.05)) as connectivity:
        entry = only(await connectivity.test("10", HOST, closed_port()))
        assert (entry["port_open"], entry["reachability"]) == (False, "Unreachable: Port not accessible")
        assert entry["http_connectivity"]["error"] == "Connection refused"
        assert entry["dns_resolution"] == {"ips": ["127.0.0.1"]}
        with socket.create_server(("127.0.0.1", 0)) as silent:
            entry = only(await connectivity.test("10", HOST, silent.getsockname()[1]))
        assert (entry["port_open"], entry["reachability"]) == (True, "Reachable")
        assert entry["http_connectivity"]["error"] == "Connection timed out"


@on_both_loops
async def test_a_connection_that_nobody_answers() -> None:
    with socket.socket() as full:
        # A queue that is full lets no further connection in.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        async with probing(peer("127.0.0.1"), times=Times(connect=0.05)) as connectivity:
            entry = only(await connectivity.test("10", HOST, full.getsockname()[1]))
        for each in waiting:
            each.close()
    assert entry["http_connectivity"]["error"] == "Connection timed out" and not entry["port_open"]


@on_both_loops
async def test_resolvers_that_disagree_are_told_of_one_by_one() -> None:
    async with Target(web(OK)) as target, probing(peer("127.0.0.1"), peer("127.0.0.9")) as connectivity:
        result = await connectivity.test("10", HOST, target.port)
    one, two = result["resolvers"]  # type: ignore[misc]
    assert (one["name"], two["name"]) == ("resolver_1", "resolver_2")
    assert (one["reachability"], two["reachability"]) == ("Reachable", "Unreachable: Port not accessible")
    async with Target(web(OK)) as target, probing(peer("127.0.0.1"), peer(fault="servfail")) as connectivity:
        result = await connectivity.test("10", HOST, target.port)
    one, two = result["resolvers"]  # type: ignore[misc]
    assert one["port_open"] and two["dns_resolution"] == {"error": "No IPs resolved for host"}
    assert two["reachability"] == "Unreachable: DNS resolution failed" and not two["port_open"]
    assert two["http_connectivity"] == {"error": "No IPs resolved for host", "note": "the resolver says servfail"}


@on_both_loops
async def test_the_order_of_addresses_is_no_difference() -> None:
    async with (
        Target(web(OK)) as target,
        probing(peer("127.0.0.1", "127.0.0.9"), peer("127.0.0.9", "127.0.0.1")) as connectivity,
    ):
        entry = only(await connectivity.test("10", HOST, target.port))
    assert entry["name"] == "default" and entry["port_open"]


@on_both_loops
async def test_a_name_that_is_not() -> None:
    async with probing(peer(), peer()) as connectivity:
        entry = only(await connectivity.test("10", HOST, 443))
    assert entry["name"] == "default" and entry["dns_resolution"] == {"error": "No IPs resolved for host"}


@on_both_loops
async def test_a_resolver_that_is_silent_for_too_long_ends_the_test() -> None:
    async with probing(peer(fault="drop"), times=Times(total=0.05)) as connectivity:
        assert await connectivity.test("10", HOST, 443) == {"error": "Request timeout"}


@on_both_loops
async def test_the_end_finds_no_connection_that_nobody_has() -> None:
    slow = threading.Event()

    def reading_files() -> ssl.SSLContext:
        slow.wait(10)
        return trusting()

    times = Times(total=0.2)
    async with (
        Target(web(OK)) as target,
        probing(peer("127.0.0.1"), times=times, verified=reading_files) as connectivity,
    ):
        assert await connectivity.test("10", HOST, target.port) == {"error": "Request timeout"}
        slow.set()
        assert target.peers == []


@on_both_loops
async def test_names_are_asked_for_afresh() -> None:
    server = peer()
    async with Target(web(OK)) as target, probing(server) as connectivity:
        assert not only(await connectivity.test("10", HOST, target.port))["port_open"]
        server.zone.put(HOST, "A", ["127.0.0.1"], 60)
        assert only(await connectivity.test("10", HOST, target.port))["port_open"]


@on_both_loops
async def test_a_denied_address_is_told_of_and_never_dialled() -> None:
    async with Target(web(OK)) as target, probing(peer("127.0.0.1"), exceptions=()) as connectivity:
        open_port = only(await connectivity.test("10", HOST, target.port))
        refused = only(await connectivity.test("10", HOST, closed_port()))
        literal = only(await connectivity.test("10", "127.0.0.1", target.port))
        mapped = only(await connectivity.test("10", "::ffff:127.0.0.1", target.port))
        assert target.peers == []
    assert open_port == refused, "what listens there makes no difference"
    assert open_port["http_connectivity"]["error"] == "Address not allowed"
    assert "loopback address" in open_port["http_connectivity"]["note"]
    assert open_port["reachability"] == "Unreachable: Port not accessible"
    assert literal["http_connectivity"]["error"] == mapped["http_connectivity"]["error"] == "Address not allowed"


@on_both_loops
async def test_an_exception_by_name_counts_and_an_address_is_its_own_answer() -> None:
    async with Target(web(OK)) as target, probing(peer("127.0.0.1"), exceptions=[HOST]) as connectivity:
        assert only(await connectivity.test("10", HOST, target.port))["port_open"]
        assert not only(await connectivity.test("10", "127.0.0.1", target.port))["port_open"]
    async with Target(web(OK)) as target, probing(peer()) as connectivity:
        entry = only(await connectivity.test("10", "127.0.0.1", target.port))
        assert entry["dns_resolution"] == {"ips": ["127.0.0.1"]} and entry["port_open"]


@on_both_loops
async def test_without_an_address_to_leave_from_nothing_is_dialled() -> None:
    async with Target(web(OK)) as target, probing(peer("127.0.0.1"), sources=("192.0.2.1",)) as connectivity:
        entry = only(await connectivity.test("10", HOST, target.port))
        assert target.peers == []
    assert entry["http_connectivity"]["error"] == "No address to leave from"


@on_both_loops
async def test_an_environment_that_nothing_leaves_is_not_tested() -> None:
    server = peer("127.0.0.1")
    async with probing(server) as connectivity:
        with pytest.raises(Refused, match="advanced networking is not enabled") as caught:
            await connectivity.test("11", HOST, 443)
    assert caught.value.kind == "closed" and server.queries == []


@on_both_loops
async def test_nothing_is_left_open() -> None:
    async with Target(web(OK)) as target, probing(peer("127.0.0.1")) as connectivity:
        await connectivity.test("10", HOST, target.port)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await connectivity.test("10", HOST, target.port)
            await connectivity.test("10", HOST, closed_port())
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before
