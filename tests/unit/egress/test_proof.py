"""An address is proven, or the reason says what to do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from outgate.egress.proof import Proof, place
from outgate.egress.witness import Witness, ask, plain
from support.egress_peers import Target, closed, dial, on_both_loops, tunnel_address


async def nobody(name: str) -> Sequence[str]:
    raise AssertionError(f"{name} was looked up")


@asynccontextmanager
async def witness(**options: float) -> AsyncGenerator[str]:
    """Run a witness and yield where."""
    service = Witness(**options)  # type: ignore[arg-type]
    address, port = await service.start("127.0.0.1", 0)
    try:
        yield f"{address}:{port}"
    finally:
        await service.stop()


@on_both_loops
async def test_an_address_of_this_host_is_proven_without_a_witness() -> None:
    assert await Proof(witness="", resolve=nobody).of(tunnel_address()) == ""
    assert await Proof(witness="", resolve=nobody).of("::1") == ""


@on_both_loops
async def test_an_address_that_is_elsewhere_is_not() -> None:
    for address in ("192.0.2.7", "2001:db8::7"):
        reason = await Proof(witness="", resolve=nobody).of(address)
        assert f"{address} is not an address of this host" in reason
        assert "ip address add " + address in reason


@on_both_loops
async def test_the_witness_must_see_the_address_itself() -> None:
    address = tunnel_address()
    async with witness() as there:
        assert await Proof(witness=there, resolve=nobody).of(address) == ""

        async def resolve(name: str) -> Sequence[str]:
            assert name == "witness.example"
            return ["::1", "127.0.0.1"]  # only one of them can be asked from an IPv4 address

        named = f"witness.example:{place(there)[1]}"
        assert await Proof(witness=named, resolve=resolve).of(address) == ""
        assert "has no IPv6 address" in await Proof(witness=there, resolve=nobody).of("::1")


async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"198.51.100.9\r\n")


async def talker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP \x1b[2J\r\n")


async def babbler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x" * 100_000)
    await reader.read()


async def shy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@on_both_loops
async def test_another_address_at_the_witness_is_no_proof() -> None:
    address = tunnel_address()
    async with Target(liar) as target:
        reason = await Proof(witness=f"127.0.0.1:{target.port}", resolve=nobody).of(address)
        assert target.peers[0][0] == address
    assert f"from {address} arrives at the witness as 198.51.100.9" in reason and "exempt" in reason


@pytest.mark.parametrize("handler", [talker, babbler, shy])
def test_what_is_no_witness_is_called_so(handler: object) -> None:
    async def run() -> None:
        async with Target(handler) as target:  # type: ignore[arg-type]
            reason = await Proof(witness=f"127.0.0.1:{target.port}", resolve=nobody).of(tunnel_address())
        assert "no witness" in reason and "\x1b" not in reason

    asyncio.run(run())


@on_both_loops
async def test_a_witness_that_cannot_be_asked_is_no_proof() -> None:
    address = tunnel_address()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        reason = await Proof(witness=f"127.0.0.1:{port}", resolve=nobody, seconds=0.05).of(address)
        assert "does not answer" in reason and "outgate egress witness" in reason
    reason = await Proof(witness=f"127.0.0.1:{port}", resolve=nobody).of(address)
    assert "cannot be reached" in reason and "refused" in reason.lower()

    async def broken(name: str) -> Sequence[str]:
        raise OSError("no resolver")

    assert "cannot be found: no resolver" in await Proof(witness="w.example:7", resolve=broken).of(address)


@on_both_loops
async def test_the_witness_answers_whatever_is_sent_and_holds_nobody_for_long() -> None:
    async with witness(most=2, seconds=0.05) as there:
        host, port = place(there)
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 10_000):
            reader, writer = await dial(host, port, "127.0.0.9")
            writer.write(sent)
            writer.write_eof()
            assert await closed(reader) == b"127.0.0.9\r\n"
            writer.close()
        # Two that stay, and say no end: a third is turned away, and gets in once they are put out.
        held = [await dial(host, port) for _ in range(2)]
        for reader, _ in held:
            assert await reader.readline() == b"127.0.0.1\r\n"
        reader, writer = await dial(host, port)
        assert await closed(reader) == b""
        writer.close()
        for reader, writer in held:
            assert await closed(reader) == b""
            try:
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0)
            except ConnectionError:
                pass
            writer.close()
        assert await ask((host, port), "127.0.0.8", 5.0) == "127.0.0.8"


def test_addresses_have_one_spelling() -> None:
    assert plain("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain("fe80::1%eth0") == "fe80::1"
    assert plain("2001:DB8:0::1") == "2001:db8::1"


def test_a_place_is_a_host_and_a_port() -> None:
    assert place("Witness.example.:7") == ("witness.example", 7)
    assert place("[2001:db8::1]:65535") == ("2001:db8::1", 65535)
    for wrong in (
        "",
        "host",
        ":7",
        "host:",
        "host:0",
        "host:65536",
        "host:٣",
        "2001:db8::1",
        "a b:7",
        "http://host:7",
        "[host:7",
    ):
        with pytest.raises(ValueError, match="is not host:port"):
            place(wrong)
