"""The sandbox's name server in front of other people's resolvers: dnspython's blocking one, and bare packets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.zone import Zone


@pytest.fixture
async def zone() -> Zone:
    zone = Zone()
    zone.put("shop.test", "A", ["192.0.2.1"])
    zone.put("big.test", "TXT", [f"{number:03}" + "x" * 100 for number in range(9)])
    zone.put("huge.test", "TXT", [f"{number:03}" + "x" * 200 for number in range(60)])
    return zone


@pytest.fixture
async def address(zone: Zone) -> AsyncIterator[tuple[str, int]]:
    server = NameServer(zone)
    yield await server.start()
    await server.stop()


async def blocking(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def test_an_ordinary_resolver(address: tuple[str, int]) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address[0]], address[1]

    def ask(name: str, rdtype: str) -> list[str]:
        return sorted(rdata.to_text() for rdata in resolver.resolve(name, rdtype))

    assert await blocking(lambda: ask("shop.test", "A")) == ["192.0.2.1"]
    assert await blocking(lambda: ask("new.test", "MX")) == ["10 mx.outgate.test."]
    assert len(await blocking(lambda: ask("huge.test", "TXT"))) == 60
    with pytest.raises(dns.resolver.NXDOMAIN):
        await blocking(lambda: ask("example.com", "A"))
    with pytest.raises(dns.resolver.NoAnswer):
        await blocking(lambda: ask("shop.test", "AAAA"))


@pytest.mark.parametrize(
    ("name", "payload", "truncated"),
    [
        ("big.test", None, True),  # 512 octets without EDNS
        ("big.test", 1232, False),
        ("big.test", 600, True),
        ("big.test", 65_535, False),
        ("huge.test", 65_535, True),  # we send 1232 at most
        ("shop.test", None, False),
    ],
)
async def test_truncation(address: tuple[str, int], name: str, payload: int | None, truncated: bool) -> None:
    query = dns.message.make_query(name, "TXT", use_edns=payload is not None, payload=payload or 0)
    response = await blocking(lambda: dns.query.udp(query, address[0], port=address[1], timeout=5))
    assert bool(response.flags & dns.flags.TC) is truncated
    assert response.flags & dns.flags.AA
    assert (len(response.answer) == 0) is (truncated or name == "shop.test")
    assert (response.edns >= 0) is (payload is not None)
    whole = await blocking(lambda: dns.query.tcp(query, address[0], port=address[1], timeout=5))
    assert not whole.flags & dns.flags.TC


async def test_several_queries_on_one_connection_in_any_pieces(address: tuple[str, int]) -> None:
    queries = [dns.message.make_query(name, "A") for name in ("shop.test", "other.test", "shop.test")]
    stream = b"".join(query.to_wire(prepend_length=True) for query in queries)

    def talk() -> list[dns.message.Message]:
        with socket.create_connection(address, timeout=5) as connection:
            for at in range(0, len(stream), 7):
                connection.sendall(stream[at : at + 7])
            answers = []
            with connection.makefile("rb") as file:
                for _ in queries:
                    (length,) = struct.unpack("!H", file.read(2))
                    answers.append(dns.message.from_wire(file.read(length)))
            return answers

    answers = await blocking(talk)
    assert [answer.id for answer in answers] == [query.id for query in queries]


async def test_garbage_and_silence(address: tuple[str, int], zone: Zone) -> None:
    zone.put_failure("drop.test", "A", "DROP")
    good = dns.message.make_query("shop.test", "A")
    answer = dns.message.make_response(good).to_wire()

    def talk() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            for packet in (b"", b"\x00", b"\xff" * 40, answer, dns.message.make_query("drop.test", "A").to_wire()):
                sock.sendto(packet, address)
            sock.sendto(good.to_wire(), address)
            return sock.recv(2000)

    # The only answer is the one to the last packet: the others got none.
    assert dns.message.from_wire(await blocking(talk)).id == good.id


async def test_the_port_that_was_asked_for_or_an_error(zone: Zone, address: tuple[str, int]) -> None:
    with pytest.raises(OSError):
        await NameServer(zone).start(*address)
