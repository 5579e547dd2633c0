"""Servers that mean harm, over real sockets: each ends as an outcome whose reason a person understands, in bounded
memory and time, and no message goes where it must not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme

from outgate.model.flow import Attempt, Status
from outgate.relay.dialling import DeliveryLimits
from support.delivering import Desk
from support.scripted_peer import Peer

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Behaviour = Callable[[Reader, Writer], Awaitable[None]]
SOON = DeliveryLimits(reply=0.3, probe=0.1, final=0.3, content=0.3)
MEMORY = 8 << 20
EHLO = b"250-mx.test\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n"


@contextlib.asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[int]:
    """Run a server of one behaviour; what it has still to say in the end is cut."""
    tasks: set[asyncio.Task[None]] = set()

    async def session(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def verdict(port: int, *, tls: ssl.SSLContext | None = None) -> Attempt:
    """Deliver a message there; check that it ended well for us: bounded memory, nothing kept, words for a person."""
    desk = Desk(port, limits=SOON, tls=tls)
    tracemalloc.start()
    try:
        attempt = await desk.sent("m", text=b"secret\r\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert desk.delivery.busy == 0 and len(desk.attempts) == 1
    (outcome,) = attempt.outcomes
    assert len(outcome.text) <= 1000 and outcome.text.isprintable() and len(outcome.text) > 5
    assert sum(len(step.reply) + len(step.did) for step in attempt.steps) < 300_000
    await desk.delivery.stop()
    while desk.delivery._sites:
        await asyncio.sleep(0)
    return attempt


async def flood(writer: Writer, piece: bytes) -> None:
    """Say `piece` until the other end goes."""
    piece *= max(1, 65_536 // len(piece))
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


async def drip(writer: Writer, piece: bytes) -> None:
    """Say `piece` a little at a time, for ever: never silent for as long as a reply may take."""
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)


def at(stage: str, act: Behaviour) -> Behaviour:
    """Serve well up to `stage` (greeting, EHLO, MAIL, RCPT, DATA, dot), and then act."""

    async def behave(reader: Reader, writer: Writer) -> None:
        if stage == "greeting":
            await act(reader, writer)
            return
        writer.write(b"220 mx.test\r\n")
        while line := await reader.readuntil(b"\r\n"):
            verb = line.split(b" ")[0].strip().upper().decode()
            if verb == stage:
                await act(reader, writer)
                return
            writer.write({"EHLO": EHLO, "DATA": b"354 go\r\n"}.get(verb, b"250 2.0.0 Ok\r\n"))
            if verb == "DATA":
                await reader.readuntil(b"\r\n.\r\n")
                if stage == "dot":
                    await act(reader, writer)
                    return
                writer.write(b"250 2.0.0 Ok\r\n")

    return behave


STAGES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "dot"]
FLOODS = {
    "an endless reply": (b"250-more\r\n" * 100, "has no end|fits nothing"),
    "lines of 1 MB": (b"250 " + b"x" * (1 << 20) + b"\r\n", "longer than 4096"),
    "a line without end": (b"2" * 65_536, "longer than 4096"),
    "noise": (bytes(range(128, 256)) * 100 + b"\r\n", "not a reply|longer than"),
    "bare line feeds": (b"250-a\n250 b\n" * 100, "LF without CR"),
    "NULs": (b"250 a\0b\r\n", "NUL"),
    "codes that differ": (b"250-a\r\n550 b\r\n", "different codes"),
    "codes there are none of": (b"999 what\r\n", "not a reply"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FLOODS)
async def test_who_says_too_much_or_nonsense(name: str, stage: str) -> None:
    piece, expected = FLOODS[name]
    async with serving(at(stage, lambda reader, writer: flood(writer, piece))) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED and outcome.code == 0
    assert re.search(expected, outcome.text), outcome.text
    assert outcome.reason == {"greeting": "network", "EHLO": "network", "dot": "unknown"}.get(stage, "protocol")


@pytest.mark.parametrize("stage", STAGES)
async def test_who_drips_a_reply_does_not_keep_us_for_ever(stage: str) -> None:
    async with serving(at(stage, lambda reader, writer: drip(writer, b"2"))) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED and "timeout" in outcome.text
    assert outcome.reason in ("unknown" if stage == "dot" else "network", "timeout")


@pytest.mark.parametrize("stage", STAGES)
async def test_who_drips_whole_lines_of_one_reply_does_not_either(stage: str) -> None:
    async with serving(at(stage, lambda reader, writer: drip(writer, b"250-a\r\n"))) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED and re.search("timeout|no end|fits nothing", outcome.text)


@pytest.mark.parametrize("stage", STAGES)
async def test_who_closes(stage: str) -> None:
    async def close(reader: Reader, writer: Writer) -> None:
        return None

    async with serving(at(stage, close)) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED
    assert re.search("closed|lost|reset", outcome.text, re.I), outcome.text
    assert outcome.reason == ("unknown" if stage == "dot" else "network")
    assert ("may have arrived" in outcome.text) == (stage == "dot")


@pytest.mark.parametrize(
    ("stage", "said", "status", "expected"),
    [
        ("greeting", b"354 go on\r\n", Status.DEFERRED, "fits nothing"),
        ("greeting", b"554 5.7.1 go away\r\n", Status.DEFERRED, "554"),
        ("EHLO", b"354 go on\r\n", Status.DEFERRED, "fits nothing"),
        ("EHLO", b"450 4.3.2 not now\r\n", Status.DEFERRED, "not now"),
        ("MAIL", b"354 go on\r\n", Status.DEFERRED, "fits nothing"),
        ("RCPT", b"334 VXNlcg==\r\n", Status.DEFERRED, "fits nothing"),
        ("DATA", b"250 2.0.0 Ok\r\n", Status.DEFERRED, "fits nothing"),
        ("dot", b"354 more\r\n", Status.DEFERRED, "fits nothing"),
        ("dot", b"554 5.6.0 not this\r\n", Status.BOUNCED, "not this"),
    ],
)
async def test_codes_that_do_not_belong_there(stage: str, said: bytes, status: Status, expected: str) -> None:
    async def act(reader: Reader, writer: Writer) -> None:
        writer.write(said)
        await reader.readuntil(b"QUIT\r\n")

    async with serving(at(stage, act)) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is status and expected in outcome.text, outcome.text


async def test_replies_to_what_was_not_asked_deliver_nothing() -> None:
    """250s ahead of time must not stand for a message that was never taken."""

    async def ahead(reader: Reader, writer: Writer) -> None:
        writer.write(b"220 mx.test\r\n" + EHLO + b"250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n")
        await reader.read(-1)

    async with serving(ahead) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED and "fits nothing" in outcome.text


@pytest.mark.parametrize("last", [b"250 2.1.5 Ok\r\n", b"450 4.2.0 later\r\n", b"550 5.1.1 nobody\r\n"])
@pytest.mark.parametrize("late", [False, True])
async def test_who_answers_the_question_twice_cannot_have_a_reply_taken_for_another(late: bool, last: bytes) -> None:
    """The second answer comes at once, or when it is read as if it were the one to MAIL."""
    spoken: list[bytes] = []
    connections = 0

    async def twice(reader: Reader, writer: Writer) -> None:
        nonlocal connections
        connections += 1
        again = b""
        writer.write(b"220 mx.test\r\n")
        while line := await reader.readuntil(b"\r\n"):
            verb = line.split(b" ")[0].strip().upper()
            spoken.append(line)
            if verb == b"RSET" and connections == 1:
                again = b"250 2.0.0 and again\r\n"
                writer.write(b"250 2.0.0 Ok\r\n" + (b"" if late else again))
            elif verb == b"MAIL":
                writer.write((again if late else b"") + b"250 2.1.0 Ok\r\n")
            elif b"<gone@" in line:
                writer.write(b"550 5.1.1 nobody\r\n")
            elif b"<last@" in line:
                writer.write(last)
            else:
                writer.write({b"EHLO": EHLO, b"DATA": b"354 go\r\n"}.get(verb, b"250 2.0.0 Ok\r\n"))
            if verb == b"DATA":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 2.0.0 Ok\r\n")

    async with serving(twice) as port:
        desk = Desk(port, limits=DeliveryLimits(probe_after=0.0))
        await desk.sent("m")
        paths = ["a@one.test", "gone@one.test", "c@one.test", "last@one.test"]
        attempt = await desk.sent("n", *paths)
        await desk.delivery.stop()
    statuses = {r.mailbox: o.status for r, o in zip(attempt.recipients, attempt.outcomes, strict=True)}
    if late:
        assert set(statuses.values()) == {Status.DEFERRED} and attempt.outcomes[0].reason == "protocol"
        assert {each.personal for each in attempt.outcomes} == {False}
    else:  # noticed before anything was sent: the message has gone over another connection
        assert connections == 2 and statuses["a@one.test"] is statuses["c@one.test"] is Status.DELIVERED
        assert statuses["gone@one.test"] is Status.BOUNCED
        assert spoken.index(b"RSET\r\n") < [n for n, line in enumerate(spoken) if line.startswith(b"EHLO")][1]


@pytest.mark.parametrize(
    ("injected", "expected"),
    [(b"250 injected\r\n", "spoke between"), (b"EHLO x\r\n", "spoke between"), (b"\r\n", "spoke between")],
)
async def test_what_is_injected_after_the_220_to_starttls_is_never_read_as_if_it_were_inside(
    injected: bytes, expected: str
) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.test").configure_cert(server)
    async with Peer(context=server, after_tls_reply=injected) as peer:
        desk = Desk(peer.port, limits=SOON, tls=client_context())
        attempt = await desk.sent("m")
        (outcome,) = attempt.outcomes
        steps = " ".join(step.reply for step in attempt.steps)
        assert expected in steps + outcome.text
        # TLS was opportunistic: the message may go in the clear, on another connection, but none of the injected counts.
        assert outcome.status is Status.DEFERRED or peer.connections == 2
        await desk.delivery.stop()


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    "answer", [b"", b"\x16\x03\x03\x40\x00" + b"\0" * 64, b"250 what is TLS?\r\n", b"\x15\x03\x03\0\2\2\x28"]
)
async def test_tls_that_fails_has_its_step_and_an_end(answer: bytes) -> None:
    async def behave(reader: Reader, writer: Writer) -> None:
        writer.write(b"220 mx.test\r\n")
        while line := await reader.readuntil(b"\r\n"):
            verb = line.split(b" ")[0].strip().upper()
            if verb == b"STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.drain()
                await reader.read(100)
                writer.write(answer)
                await writer.drain()
                return
            writer.write(b"250-mx.test\r\n250 STARTTLS\r\n" if verb == b"EHLO" else b"451 4.3.0 not without TLS\r\n")

    async with serving(behave) as port:
        attempt = await verdict(port, tls=client_context())
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.DEFERRED
    assert any(step.did == "TLS handshake" or "tls" in step.did.lower() for step in attempt.steps)


async def test_who_does_not_read_ends_too() -> None:
    """A server that says 354 and then reads nothing more."""

    async def stare(reader: Reader, writer: Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"354 go\r\n")
        await asyncio.sleep(3600)

    async with serving(at("DATA", stare)) as port:
        desk = Desk(port, limits=SOON)
        attempt = await desk.sent("m", text=(b"x" * 70 + b"\r\n") * 200_000)
        (outcome,) = attempt.outcomes
        assert outcome.status is Status.DEFERRED and "timeout" in outcome.text
        # What was not read has not left: it is certain that the message has not arrived.
        assert outcome.reason == "timeout"
        await desk.delivery.stop()


async def test_a_server_that_hides_commands_in_its_words_gets_them_shown_as_text() -> None:
    async def colour(reader: Reader, writer: Writer) -> None:
        writer.write(b"550 5.1.1 \x1b[2J\x1b]0;owned\x07 gone \x7f\xc2\x9b\r\n")
        await reader.readuntil(b"QUIT\r\n")

    async with serving(at("MAIL", colour)) as port:
        attempt = await verdict(port)
    (outcome,) = attempt.outcomes
    assert outcome.status is Status.BOUNCED and "?[2J" in outcome.text
    assert all(step.reply.isprintable() for step in attempt.steps)
