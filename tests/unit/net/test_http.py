"""Fetching from servers that nobody here has chosen: names, addresses, sizes and time are held to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from outgate.net.http import Fetcher, FetchFailed
from support.policies import PolicyServer, document

HOST, PATH = "mta-sts.a.test", "/.well-known/mta-sts.txt"


@asynccontextmanager
async def server(*names: str) -> AsyncIterator[tuple[PolicyServer, ssl.SSLContext]]:
    ca, context, trust = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(*(names or (HOST,))).configure_cert(context)
    ca.configure_trust(trust)
    async with PolicyServer(context) as found:
        yield found, trust


def fetcher(s: PolicyServer, trust: ssl.SSLContext, *addresses: str, **options: object) -> Fetcher:
    async def look_up(name: str) -> list[str]:
        return list(addresses or ("127.0.0.1",))

    given = {"permitted": lambda name, address: address != "10.0.0.1", "deadline": 20.0} | options
    return Fetcher(**{"addresses": look_up} | given, context=lambda: trust, port=s.port)  # type: ignore[arg-type]


async def failure(s: PolicyServer, trust: ssl.SSLContext, *addresses: str, **options: object) -> str:
    with pytest.raises(FetchFailed) as caught:
        await fetcher(s, trust, *addresses, **options).text(HOST, PATH, 100)
    return str(caught.value)


async def test_a_document() -> None:
    async with server() as (s, trust):
        s.answers[HOST] = document("hello\r\n", "text/plain; charset=utf-8")
        assert await fetcher(s, trust).text(HOST, PATH, 7) == b"hello\r\n"
        (request,) = s.requests
        assert request.startswith(f"GET {PATH} HTTP/1.1\r\n".encode())
        assert b"\r\nAccept-Encoding: identity\r\n" in request and b"ookie" not in request


async def test_the_certificate_must_be_the_hosts() -> None:
    async with server("other.test") as (s, trust):
        assert "certificate" in (await failure(s, trust)).lower()
    async with server() as (s, _):
        assert "certificate" in (await failure(s, ssl.create_default_context())).lower()
        assert not s.asked


async def test_only_addresses_that_are_permitted_are_connected_to() -> None:
    async with server() as (s, trust):
        s.answers[HOST] = document("x")
        assert "may not be connected to: 10.0.0.1" in await failure(s, trust, "10.0.0.1")
        assert not s.asked
        assert await fetcher(s, trust, "10.0.0.1", "127.0.0.1").text(HOST, PATH, 9) == b"x"


async def test_without_an_address_there_is_nothing() -> None:
    async with server() as (s, trust):

        async def nowhere(name: str) -> list[str]:
            return []

        assert "no address" in await failure(s, trust, addresses=nowhere)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (document("x", status="404 Not Found"), "404"),
        (document("x", status="301 Moved").replace(b"Content-Type", b"Location: https://other.test/\r\nC"), "301"),
        (document("x", "text/html"), "text/html"),
        (document("x" * 101), "longer than 100"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 90\r\n\r\nshort", "https://"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "https://"),
        (b"250 Ok\r\n\r\n", "https://"),
        (b"", "https://"),
    ],
)
async def test_what_is_no_document(response: bytes, words: str) -> None:
    async with server() as (s, trust):
        s.answers[HOST] = response
        assert words in await failure(s, trust)
        assert set(s.asked) == {HOST} and len(s.asked) <= 2


async def test_an_answer_without_an_end_is_left() -> None:
    async with server() as (s, trust):
        s.answers[HOST] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        s.endless = b"x" * 10_000
        assert "longer than 100" in await failure(s, trust)
        assert s.sent < 20_000_000


async def test_what_was_compressed_is_not_unpacked() -> None:
    async with server() as (s, trust):
        s.answers[HOST] = document("packed").replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type")
        assert await fetcher(s, trust).text(HOST, PATH, 100) == b"packed"


async def test_all_of_it_has_one_deadline() -> None:
    async with server() as (s, trust):
        s.held = asyncio.Event()
        assert "not fetched within 0.05 s" in await failure(s, trust, deadline=0.05)
