"""PROXY headers on both listeners: believed from whom the settings name, a protocol error from anybody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outgate.smtp.proxy_header import SIGNATURE, crc32c, encode_v2
from support.receiver import Receiver
from support.relay import Client, TestRelay, letter, relay

TRUSTED = "127.0.0.2"
V2 = encode_v2(("127.0.0.9", 4711), ("127.0.0.1", 465))


def v1(source: str, kind: str = "TCP4") -> bytes:
    return f"PROXY {kind} {source} {'::1' if kind == 'TCP6' else '127.0.0.1'} 4711 465\r\n".encode()


def with_vectors(*vectors: bytes) -> bytes:
    more = b"".join(vectors)
    return V2[:14] + (len(V2) - 16 + len(more)).to_bytes(2, "big") + V2[16:] + more


def summed(*vectors: bytes) -> bytes:
    blank = with_vectors(*vectors, b"\x03\x00\x04" + bytes(4))
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")


def broken(header: bytes) -> bytes:
    return header[:-1] + bytes([header[-1] ^ 1])


GOOD = {
    "v1": v1("127.0.0.9"),
    "v1 mapped": v1("::ffff:127.0.0.9", "TCP6"),
    "v2": V2,
    "v2 mixed": encode_v2(("127.0.0.9", 1), ("::1", 465)),
    "v2 with vectors": with_vectors(b"\x01\x00\x02h2", b"\xea\x00\x05\x01vpce"),
    "v2 with checksum": summed(b"\x02\x00\x01x"),
}
BAD = {
    "none": b"EHLO client.test\r\n",
    "v1 odd port": v1("127.0.0.9").replace(b"4711", b"04711"),
    "v1 odd address": v1("127.0.0.09"),
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 107,
    "v1 UDP": v1("127.0.0.9").replace(b"TCP4", b"UDP4"),
    "v2 UDP": V2[:13] + b"\x12" + V2[14:],
    "v2 socket file": SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
    "v2 version": V2[:12] + b"\x31" + V2[13:],
    "v2 checksum": broken(summed()),
    "v2 vectors": with_vectors(b"\x01\x00\x09h2"),
}  # fmt: skip


@asynccontextmanager
async def proxied(tmp_path: Path, **settings: object) -> AsyncIterator[tuple[TestRelay, Receiver]]:
    receiver = Receiver(keep=True)
    place = receiver.start()
    async with relay(tmp_path / "data", deliver_to=place, proxy_trusted=[f"{TRUSTED}/32"], **settings) as running:
        yield running, receiver
    await receiver.stop()


async def dial(
    running: TestRelay, listener: str, header: bytes, *, address: str = TRUSTED, tls: bool = True, piece: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect from `address` and send `header` first, `piece` octets at a time; then TLS on 465."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((address, 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", getattr(running, listener)))
    for at in range(0, len(header), piece or len(header) or 1):
        await loop.sock_sendall(sock, header[at : at + (piece or len(header))])
        await asyncio.sleep(0)
    options = {"ssl": running.trust, "server_hostname": "relay.test"} if listener == "submissions" and tls else {}
    return await asyncio.open_connection(sock=sock, **options)  # type: ignore[arg-type]


async def silence(reader: asyncio.StreamReader) -> bytes:
    """Return all that is said until the connection ends, in whichever way."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65_536):
            said += piece
    return said


@pytest.mark.parametrize("listener", ["submission", "submissions"])
async def test_a_trusted_peers_header_says_who_the_client_is(tmp_path: Path, listener: str) -> None:
    async with proxied(tmp_path) as (running, _):
        for name, header in GOOD.items():
            for piece in (0, 1):
                reader, writer = await dial(running, listener, header, piece=piece)
                assert (await reader.readline()).startswith(b"220 "), name
                peers = [each.peer for each in running.service.listeners.connections]
                assert [(peer.address, peer.via) for peer in peers] == [("127.0.0.9", TRUSTED)], name
                writer.write(b"QUIT\r\n")
                assert (await silence(reader)).startswith(b"221 ")
                writer.close()
                while running.service.listeners.connections:
                    await asyncio.sleep(0)


@pytest.mark.parametrize("listener", ["submission", "submissions"])
async def test_a_trusted_peer_without_a_good_header_hears_nothing(tmp_path: Path, listener: str) -> None:
    async with proxied(tmp_path) as (running, _):
        for name, header in BAD.items():
            reader, writer = await dial(running, listener, header, tls=False)
            assert await silence(reader) == b"", name
            writer.close()


@pytest.mark.parametrize("header", [GOOD["v1"], GOOD["v2"], b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
async def test_anybody_elses_header_ends_the_connection(tmp_path: Path, listener: str, header: bytes) -> None:
    async with proxied(tmp_path) as (running, _):
        reader, writer = await dial(running, listener, header, address="127.0.0.1", tls=False)
        writer.write(b"EHLO client.test\r\nNOOP\r\n")
        said = await silence(reader)
        assert b"250" not in said and b"NOOP" not in said
        if listener == "submission":  # the greeting, and a word for each empty line of a version 2 header
            lines = said.splitlines()
            assert lines[0].startswith(b"220 ") and all(line.startswith(b"500 ") for line in lines[1:])
        writer.close()
        client = await running.client()  # and without one it is welcome
        assert (await client.say("NOOP")).startswith("250 ")
        client.close()


async def test_the_clients_own_address_is_judged_and_not_the_proxys(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (running, _):
        stranger = encode_v2(("127.66.0.1", 1), ("127.0.0.1", 587))
        reader, writer = await dial(running, "submission", stranger)
        assert (await silence(reader)).startswith(b"554 5.7.1 ")
        writer.close()
        reader, writer = await dial(running, "submissions", stranger, tls=False)
        assert await silence(reader) == b""
        writer.close()


async def test_the_proxys_own_checks_are_the_proxy(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (running, _):
        for header in (SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x00", b"PROXY UNKNOWN ignored\r\n"):
            reader, writer = await dial(running, "submission", header)
            assert (await reader.readline()).startswith(b"220 ")
            peers = [each.peer for each in running.service.listeners.connections]
            assert [(peer.address, peer.via) for peer in peers] == [(TRUSTED, None)]
            writer.write(b"QUIT\r\n")
            await silence(reader)
            writer.close()
            while running.service.listeners.connections:
                await asyncio.sleep(0)


async def test_the_places_of_an_address_are_the_clients(tmp_path: Path) -> None:
    async with proxied(tmp_path, connections_per_address=2) as (running, _):
        one, other = (encode_v2((address, 1), ("127.0.0.1", 587)) for address in ("127.0.0.9", "127.0.0.10"))
        kept = [await dial(running, "submission", header) for header in (one, one, other, other)]
        for reader, _writer in kept:
            assert (await reader.readline()).startswith(b"220 ")
        reader, writer = await dial(running, "submission", one)
        assert not (await silence(reader)).startswith(b"220 ")
        for _reader, each in (*kept, (reader, writer)):
            each.close()


async def test_mail_through_a_proxy_tells_the_clients_address(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (running, receiver):
        reader, writer = await dial(running, "submissions", summed())
        client = Client(reader, writer)
        await client.heard()
        await client.say("EHLO client.test")
        text = f"\0{running.tenant.smtp_user}\0{running.tenant.smtp_password}"
        assert (await client.say("AUTH PLAIN " + base64.b64encode(text.encode()).decode())).startswith("235 ")
        await client.envelope()
        assert (await client.send(letter())).startswith("250 ")
        client.close()
        async with asyncio.timeout(60):
            while not receiver.contents:
                await asyncio.sleep(0.01)
        assert b"([127.0.0.9])" in receiver.contents[0] and TRUSTED.encode() not in receiver.contents[0]


async def test_header_and_handshake_in_one_packet(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (running, _):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = running.trust.wrap_bio(incoming, outgoing, server_hostname="relay.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        reader, writer = await dial(running, "submissions", V2 + outgoing.read(), tls=False)
        heard = b""
        while not heard:
            incoming.write(await reader.read(65_536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                heard = tls.read(100)
            writer.write(outgoing.read())
        assert heard.startswith(b"220 ")
        writer.close()
