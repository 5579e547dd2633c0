"""Clients that are slow, huge or of another protocol: each costs its own connection, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from outgate.smtp.asyncio.server import Connection
from support.api_service import api_service
from support.relay import Client, TestRelay, letter, relay

HELLO = b"EHLO client.test\r\n"


async def clear(running: TestRelay, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", running.submission, local_addr=(address, 0))


async def implicit(running: TestRelay, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", running.submissions, local_addr=(address, 0))


async def all_that_is_said(reader: asyncio.StreamReader) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while piece := await reader.read(65_536):
            said += piece
    return said


def connections(running: TestRelay) -> list[Connection]:
    return running.service.listeners.connections


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


# -- other protocols ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT x:25 HTTP/1.1\r\n\r\n"]
)  # fmt: skip
async def test_a_browser_that_was_made_to_talk_to_us(tmp_path: Path, listener: str, request_: bytes) -> None:
    async with relay(tmp_path / "data") as running:
        if listener == "submission":
            reader, writer = await clear(running)
        else:
            client = await running.client(login=False)
            reader, writer = client.reader, client.writer
        writer.write(request_ + HELLO + b"MAIL FROM:<a@example.test>\r\n")
        said = await all_that_is_said(reader)
        assert said.splitlines()[-1].startswith(b"421 ") and b"250" not in said and b"HTTP" not in said
        writer.close()
        await until(lambda: not connections(running))


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", HELLO, b"\r\n" * 50, b"\x00" * 600])
async def test_clear_text_on_the_tls_port_reaches_no_session(tmp_path: Path, sent: bytes) -> None:
    async with relay(tmp_path / "data") as running:
        reader, writer = await implicit(running)
        writer.write(sent)
        said = await all_that_is_said(reader)
        assert b"220" not in said and b"HTTP" not in said
        writer.close()
        await until(lambda: not connections(running))


async def test_a_tls_handshake_on_the_clear_port_is_no_command(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        outgoing = ssl.MemoryBIO()
        tls = running.trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="relay.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        reader, writer = await clear(running)
        writer.write(outgoing.read() + b"\r\n")
        writer.write_eof()
        said = await all_that_is_said(reader)
        assert all(line[:3] in (b"220", b"500", b"421") for line in said.splitlines()), said
        writer.close()
        await until(lambda: not connections(running))


def test_mail_commands_on_the_http_port_are_a_bad_request(tmp_path: Path) -> None:
    async def talk(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO + b"MAIL FROM:<a@example.test>\r\n\r\n")  # it waits for a header's end
        said = await all_that_is_said(reader)
        writer.close()
        return said

    with api_service(tmp_path) as service:
        said = asyncio.run(talk(int(service.base.rpartition(":")[2])))
    assert said.startswith(b"HTTP/1.1 400 ") and b"MAIL" not in said


# -- slow ones ------------------------------------------------------------------------------------------------


async def stuck(running: TestRelay, number: int) -> asyncio.StreamWriter:
    """Open a connection that stops somewhere, each at another place."""
    address = f"127.0.0.{20 + number % 10}"
    match number % 6:
        case 0:
            _, writer = await clear(running, address)
        case 1:
            _, writer = await clear(running, address)
            writer.write(b"EHLO cli")
        case 2:
            reader, writer = await clear(running, address)
            writer.write(HELLO + b"STARTTLS\r\n")
            await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        case 3:
            _, writer = await implicit(running, address)
            writer.write(b"\x16\x03\x01\x02")
        case 4:
            client = await running.client()
            await client.envelope()
            client.writer.write(b"From: a@example.test\r\nSubj")
            writer = client.writer
        case _:
            _, writer = await clear(running, "127.0.0.2")  # its PROXY header does not come
            writer.write(b"PROXY TC")
    return writer


async def test_slow_clients_hold_up_nobody(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", proxy_trusted=["127.0.0.2/32"]) as running:
        held = [await stuck(running, number) for number in range(60)]
        client = await running.client()
        for number in range(5):
            assert (await client.envelope()).startswith("354 ")
            assert (await client.send(letter(number))).startswith("250 ")
        client.close()
        for writer in held:
            writer.transport.abort()
        await until(lambda: not connections(running))
        await until(lambda: not any(each._admitting for each in running.service.listeners._all))


async def test_slow_clients_are_ended_wherever_they_stop(tmp_path: Path) -> None:
    async with relay(
        tmp_path / "data", proxy_trusted=["127.0.0.2/32"], command_timeout_s=0.2, data_timeout_s=0.2
    ) as running:
        ends = []
        for address, sent in (("127.0.0.1", b""), ("127.0.0.1", b"EHLO cli"), ("127.0.0.3", HELLO + b"NOOP")):
            reader, writer = await clear(running, address)
            writer.write(sent)
            ends.append((await all_that_is_said(reader)).splitlines()[-1])
            writer.close()
        assert all(end.startswith(b"421 4.4.2 ") for end in ends)
        await until(lambda: not connections(running))


async def test_one_address_cannot_take_the_places_of_another(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", connections_per_address=3) as running:
        held = [await clear(running, "127.0.0.7") for _ in range(6)]
        served = 0
        for reader, _ in held:
            served += (await reader.readline()).startswith(b"220 ")
        assert served == 3
        reader, writer = await clear(running, "127.0.0.8")
        assert (await reader.readline()).startswith(b"220 ")
        for _, each in (*held, (reader, writer)):
            each.close()


async def test_a_client_that_never_reads_is_not_written_to_for_ever(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        reader, writer = await clear(running)
        await reader.readline()
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        (connection,) = connections(running)
        for _ in range(40):
            writer.write(b"NOOP\r\n" * 50_000)
        await until(lambda: connection._slow or connection._closing)
        if connection.session is not None and connection.transport is not None:
            assert connection.transport.get_write_buffer_size() < 4_000_000
            assert len(connection.session.machine._input) < 65_536 + 2 * 262_144
        other = await running.client()
        assert (await other.say("NOOP")) == "250 2.0.0 Ok"
        other.close()
        transport.abort()
        await until(lambda: not connections(running))


# -- huge ones ------------------------------------------------------------------------------------------------


async def test_oversized_commands_are_refused_and_forgotten(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", max_errors=100) as running:
        client = await running.client(login=False)
        for line in ("NOOP " + "x" * 2100, "EHLO " + "x" * 300, "x" * 100_000, "VRFY " + "x" * 1_000_000):
            assert (await client.say(line))[:3] in ("500", "501"), line[:20]
        for line in ("AUTH PLAIN " + "A" * 3000, "AUTH PLAIN " + "A" * 1_000_000):
            assert (await client.say(line))[:3] in ("500", "501", "535")
        assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert (await client.say("A" * 1_000_000)).startswith("500 5.5.2 ")
        for response in ("====", "A", "!!!!", "A" * 4000, "gIA=", "AAAA", "*", ""):
            assert (await client.say("AUTH PLAIN")) == "334 "
            assert (await client.say(response))[:7] in ("501 5.5", "535 5.7"), response
        (connection,) = connections(running)
        assert len(connection.session.machine._input) == 0  # type: ignore[union-attr]
        client.close()


async def test_oversized_envelopes_are_refused(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", max_errors=100) as running:
        client = await running.client()
        for path in ("x" * 65 + "@example.test", "a@" + "x" * 64 + ".test", "a@" + "x." * 130 + "test", "a" * 300):
            assert (await client.say(f"MAIL FROM:<{path}>")).startswith("501 5.1.7 "), path
        many = " ".join(f"K{number}=1" for number in range(200))
        assert (await client.say(f"MAIL FROM:<a@example.test> {many}"))[:3] in ("501", "555")
        for size in ("99999999999", "9" * 400, "31457281"):
            assert (await client.say(f"MAIL FROM:<a@example.test> SIZE={size}")).startswith("552 5.3.4 ")
        assert (await client.say("MAIL FROM:<a@example.test>")).startswith("250 ")
        answers = [await client.say(f"RCPT TO:<you{number}@receiver.test>") for number in range(52)]
        assert [answer[:9] for answer in answers] == ["250 2.1.5"] * 50 + ["452 4.5.3"] * 2
        client.close()


HEAD = b"From: a@example.test\r\nTo: you@receiver.test\r\n"


def nested(depth: int) -> bytes:
    levels = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return HEAD + levels + b"Content-Type: text/plain\r\n\r\nx\r\n"


HUGE = {
    "header": HEAD + b"X: y\r\n" * 50_000 + b"\r\nx\r\n",
    "one field": HEAD + b"X: " + b" y\r\n" * 80_000 + b"\r\nx\r\n",
    "line": HEAD + b"\r\n" + b"x" * 999 + b"\r\n",
    "From": b"From: " + b",\r\n ".join(b"a%d@example.test" % n for n in range(2000)) + b"\r\n\r\nx\r\n",
    "comments": b"From: " + b"(" * 900 + b"\r\n " + b")" * 900 + b" a@example.test\r\nFrom: b@example.test\r\n\r\nx\r\n",
    "message": HEAD + b"\r\n" + b"x" * 70 + b"\r\n" * 40_000,
    "MIME depth": nested(50),
    "MIME parts": HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1_500 + b"--b--\r\n",
}  # fmt: skip


async def test_oversized_messages_are_refused_at_their_end(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", max_message_bytes=500_000) as running:
        client = await running.client()
        for what, message in HUGE.items():
            sent = message if what != "message" else message + b"y\r\n" * 150_000
            assert (await client.envelope()).startswith("354 ")
            answer = await client.send(sent)
            assert re.match(r"55\d 5\.\d+\.\d+ ", answer), (what, answer)
        assert (await client.envelope()).startswith("354 ")  # and it is still in step
        assert (await client.send(letter())).startswith("250 ")
        client.close()


async def test_a_client_of_errors_only_is_sent_away(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        reader, writer = await clear(running)
        writer.write(b"FROB\r\n" * 100)
        said = (await all_that_is_said(reader)).splitlines()
        assert len(said) == 12 and said[-1].startswith(b"421 4.7.0 ")
        writer.close()


async def test_hostile_logins_leave_the_door_open_for_others(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        for _ in range(3):
            client = Client(*await asyncio.open_connection("127.0.0.1", running.submissions, ssl=running.trust, server_hostname="relay.test"))  # fmt: skip
            await client.heard()
            await client.say("EHLO client.test")
            client.writer.write(b"AUTH PLAIN AGEAYg==\r\n" * 200)
            client.writer.transport.abort()
        await until(lambda: not connections(running))
        good = await running.client()
        good.close()
