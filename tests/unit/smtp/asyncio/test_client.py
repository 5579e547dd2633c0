"""The asyncio shell against a real server: STARTTLS, forgeries, silence, back-pressure, streams of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.base.tasks import spawn
from outgate.smtp.asyncio.client import ClientTimeouts, ConnectFailed, Connection, connect
from outgate.smtp.client import Transaction, TransactionResult
from outgate.smtp.errors import LocalProtocolError
from support.scripted_peer import HOSTILE, HOSTILE_TOKEN, Peer, assert_unseen, authority, server_context

CLOCK = FrozenClock(1234.5)
PATIENT = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=5)
SOON = ClientTimeouts(connect=5, handshake=0.1, reply=0.1, final=0.1, content=0.1, quit=0.1)


def mail(number: int = 0, size: int = 10) -> Transaction:
    return Transaction(f"a{number}@x.test", ("b@y.test",), (b"Subject: x\r\n\r\n", b"x" * size + b"\r\n"))


async def dial(peer: Peer, *, timeouts: ClientTimeouts = PATIENT, **options: object) -> Connection:
    return await connect("127.0.0.1", peer.port, ehlo_name="me.test", clock=CLOCK, timeouts=timeouts, **options)


async def send(connection: Connection, *transactions: Transaction) -> list[TransactionResult]:
    """Send all, as many at a time as the connection takes, and return the results."""
    results: list[TransactionResult] = []
    ended = asyncio.get_running_loop().create_future()
    waiting = list(transactions)

    def done(result: TransactionResult) -> None:
        results.append(result)
        if len(results) == len(transactions):
            ended.set_result(None)
        push()

    def push() -> None:
        while waiting and connection.ready:
            connection.send(waiting.pop(0), done)

    push()
    await asyncio.wait_for(ended, 20)
    return results


class TestSending:
    @pytest.mark.parametrize("mode", ["none", "opportunistic", "required", "implicit"])
    async def test_a_stream_of_messages(self, mode: str) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), implicit=mode == "implicit") as peer:
            connection = await dial(peer, tls=mode, context=context, server_name="mx.test")
            assert (connection.tls[:8] == "TLSv1.3 ") == (mode != "none")
            results = await send(connection, *(mail(number) for number in range(30)))
            assert [result.final.text for result in results] == [f"Ok: queued as Q{n + 1}" for n in range(30)]
            assert [envelope[0] for envelope in peer.envelopes] == [f"MAIL FROM:<a{n}@x.test>" for n in range(30)]
            assert peer.messages[0] == b"Subject: x\r\n\r\n" + b"x" * 10 + b"\r\n"
            assert results[0].steps[1].at == 1234.5
            await connection.quit()
            assert connection.closed and not connection.ready
            assert peer.commands[-1] == "QUIT" and peer.connections == 1
            assert peer.server_names == ([] if mode == "none" else ["mx.test"])

    async def test_the_trail_of_the_beginning(self) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test")) as peer:
            connection = await dial(peer, tls="required", context=context, server_name="mx.test")
            said = [step.did for step in connection.greeting_steps]
            assert said == [f"connect to 127.0.0.1:{peer.port}", "EHLO", "STARTTLS", "TLS handshake", "EHLO"]
            assert connection.greeting_steps[0].reply == "220 peer.test ESMTP"
            assert connection.greeting_steps[3].reply == connection.tls
            await connection.quit()

    async def test_large_content_waits_for_a_slow_reader(self) -> None:
        release = asyncio.Event()
        async with Peer(chunk=release.wait) as peer:
            connection = await dial(peer)
            results: list[TransactionResult] = []
            ended = asyncio.get_running_loop().create_future()

            def done(result: TransactionResult) -> None:
                results.append(result)
                ended.set_result(None)

            connection.send(mail(size=12_000_000), done)
            await _until(lambda: connection._paused)
            assert not connection.ready  # nothing is queued behind what the peer does not read
            release.set()
            await asyncio.wait_for(ended, 20)
            assert results[0].final.ok and len(peer.messages[0]) == 12_000_016
            await connection.quit()

    async def test_it_leaves_from_the_source_address(self) -> None:
        async with Peer() as peer:
            connection = await dial(peer, source="127.0.0.2")
            names = [writer.get_extra_info("peername")[0] for writer in peer._writers]
            assert names == ["127.0.0.2"]
            await connection.quit()

    async def test_a_transaction_the_connection_cannot_take(self) -> None:
        async with Peer() as peer:
            connection = await dial(peer)
            nobody: list[TransactionResult] = []
            with pytest.raises(LocalProtocolError):
                connection.send(Transaction("a@x.test", ("b\r\n@y.test",), (b"\r\n",)), nobody.append)
            assert connection.in_flight == 0
            connection.send(mail(), nobody.append)
            connection.send(mail(), nobody.append)
            assert connection.in_flight == 2 and not connection.ready
            with pytest.raises(LocalProtocolError):
                connection.send(mail(), nobody.append)
            await connection.quit()  # waits until both have ended
            assert [result.final.ok for result in nobody] == [True, True]

    async def test_a_callback_that_fails_harms_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        async with Peer() as peer:
            connection = await dial(peer)
            results: list[TransactionResult] = []

            def bad(_: TransactionResult) -> None:
                raise RuntimeError("a bug in the caller")

            connection.send(mail(), bad)
            connection.send(mail(), results.append)
            await connection.quit()
            assert results[0].final.ok


class TestFailingToConnect:
    async def fails(self, peer: Peer, **options: object) -> ConnectFailed:
        with pytest.raises(ConnectFailed) as caught:
            await dial(peer, **options)
        assert caught.value.steps
        return caught.value

    async def test_nobody_listens(self) -> None:
        async with Peer() as peer:
            pass
        error = await self.fails(peer)
        assert (error.stage, str(error)) == ("connect", "Connection refused")

    async def test_a_source_address_that_is_not_ours(self) -> None:
        async with Peer() as peer:
            assert (await self.fails(peer, source="192.0.2.1")).stage == "source"

    @pytest.mark.parametrize(
        ("answers", "stage", "code"),
        [
            ({"greeting": b"554 5.7.1 no\r\n"}, "greeting", 554),
            ({"greeting": b"421 4.3.2 no\r\n"}, "greeting", 421),
            ({"EHLO": b"450 no\r\n"}, "hello", 450),
            ({"STARTTLS": b"454 4.7.0 no\r\n"}, "tls", 454),
        ],
    )
    async def test_refusals(self, answers: dict[str, bytes], stage: str, code: int) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), answers=answers) as peer:
            error = await self.fails(peer, tls="required", context=context, server_name="mx.test")
            assert (error.stage, error.reply.code) == (stage, code)

    async def test_required_tls_that_is_not_offered(self) -> None:
        _, context = authority()
        async with Peer() as peer:
            error = await self.fails(peer, tls="required", context=context, server_name="mx.test")
            assert error.stage == "tls" and "does not offer" in str(error)
            connection = await dial(peer, tls="opportunistic", context=context)
            assert connection.tls == ""
            await connection.quit()

    @pytest.mark.parametrize("mode", ["required", "implicit"])
    async def test_a_wrong_certificate(self, mode: str) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "other.test"), implicit=mode == "implicit") as peer:
            error = await self.fails(peer, tls=mode, context=context, server_name="mx.test")
            assert error.stage == "tls" and error.certificate and "certificate" in str(error)

    async def test_bytes_behind_the_220_are_never_read_as_encrypted(self) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), after_tls_reply=b"250 forged\r\n") as peer:
            error = await self.fails(peer, tls="required", context=context, server_name="mx.test")
            assert error.stage == "tls" and "between its 220" in str(error)

    @pytest.mark.parametrize(("at", "stage"), [("greeting", "greeting"), ("EHLO", "hello"), ("handshake", "tls")])
    async def test_silence(self, at: str, stage: str) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), silent_at=at) as peer:
            error = await self.fails(peer, timeouts=SOON, tls="required", context=context, server_name="mx.test")
            assert error.stage == stage

    @pytest.mark.parametrize("at", ["greeting", "EHLO"])
    async def test_a_peer_that_hangs_up(self, at: str) -> None:
        async with Peer(hang_up_at=at) as peer:
            assert "connection" in str(await self.fails(peer))

    async def test_garbage_instead_of_a_greeting(self) -> None:
        async with Peer(answers={"greeting": b"HTTP/1.1 400 Bad Request\r\n\r\n"}) as peer:
            assert "not a reply" in str(await self.fails(peer))

    async def test_cancelling_closes_the_connection(self) -> None:
        async with Peer(silent_at="greeting") as peer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await dial(peer)
            await _until(lambda: not peer._writers)


class TestEndings:
    async def test_silence_ends_the_transaction(self) -> None:
        async with Peer(silent_at="dot") as peer:
            connection = await dial(peer, timeouts=SOON)
            closed: list[bool] = []
            connection.on_closed = lambda: closed.append(connection.closed)
            first, second = await send(connection, mail(1), mail(2))
            assert first.sent_all and first.error.startswith("timeout") and first.final is None
            assert not second.sent_all and second.mail is None
            assert closed == [True]

    async def test_a_reader_that_stops_ends_the_transaction(self) -> None:
        async with Peer(chunk=asyncio.Event().wait) as peer:
            connection = await dial(peer, timeouts=SOON)
            (result,) = await send(connection, mail(size=30_000_000))
            assert result.error.startswith("timeout") and result.sent_all

    async def test_a_peer_that_hangs_up_in_the_middle(self) -> None:
        async with Peer(hang_up_at="RCPT") as peer:
            connection = await dial(peer)
            (result,) = await send(connection, mail())
            assert result.error and not result.sent_all and result.recipients == (None,)

    async def test_a_peer_that_leaves_while_idle(self) -> None:
        async with Peer() as peer:
            connection = await dial(peer)
            told = asyncio.Event()
            connection.on_closed = told.set
            for writer in peer._writers:
                writer.write(b"421 4.4.2 idle\r\n")
            await asyncio.wait_for(told.wait(), 5)
            assert connection.closed and not connection.ready
            late = asyncio.Event()
            connection.on_closed = late.set
            await asyncio.wait_for(late.wait(), 5)
            await connection.quit()

    async def test_abort_ends_what_is_under_way(self) -> None:
        async with Peer(silent_at="dot") as peer:
            connection = await dial(peer)
            results: list[TransactionResult] = []
            connection.send(mail(), results.append)
            connection.abort()
            assert results[0].error == "the connection was aborted" and connection.closed

    async def test_quit_does_not_wait_for_ever(self) -> None:
        async with Peer(silent_at="QUIT") as peer:
            connection = await dial(peer, timeouts=SOON)
            await asyncio.wait_for(connection.quit(), 5)
            assert connection.closed


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class TestToken:
    """AUTH XOAUTH2 on an open connection."""

    @pytest.mark.parametrize("mode", ["required", "implicit"])
    @pytest.mark.parametrize("token", ["ya29.short", "ey" + "J0" * 1500])
    async def test_taken_and_refused(self, mode: str, token: str) -> None:
        ca, context = authority()
        tokens = {"u@x.test": token}
        async with Peer(
            context=server_context(ca, "mx.test"), implicit=mode == "implicit", auth="XOAUTH2", tokens=tokens
        ) as peer:
            connection = await dial(peer, tls=mode, context=context, server_name="mx.test")
            refused = await connection.login_with_token("u@x.test", "old")
            assert str(refused) == "535-5.7.8 Error: authentication failed / 535 5.7.8 (status 401)"
            assert (await connection.login_with_token("u@x.test", token)).ok
            assert (await send(connection, mail()))[0].final.ok
            assert token not in repr(connection.greeting_steps)
            assert connection.greeting_steps[-1].reply == "235 2.7.0 Accepted"
            await connection.quit()

    async def test_not_offered(self) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), auth="PLAIN") as peer:
            connection = await dial(peer, tls="required", context=context, server_name="mx.test")
            with pytest.raises(ConnectFailed, match="offers no AUTH XOAUTH2; it offers AUTH PLAIN") as caught:
                await connection.login_with_token("u", "t")
            assert caught.value.stage == "auth" and connection.ready
            await connection.quit()

    async def test_not_without_tls(self) -> None:
        async with Peer(auth="XOAUTH2") as peer:
            connection = await dial(peer)
            with pytest.raises(ConnectFailed, match="no TLS, so the token was not sent"):
                await connection.login_with_token("u", "t")
            await connection.quit()
            assert peer.commands == ["EHLO me.test", "QUIT"]

    @pytest.mark.parametrize(("trouble", "why"), [("silent_at", "timeout"), ("hang_up_at", "closed")])
    async def test_no_answer(self, trouble: str, why: str) -> None:
        ca, context = authority()
        script: dict[str, Any] = {trouble: "AUTH"}
        async with Peer(context=server_context(ca, "mx.test"), auth="XOAUTH2", **script) as peer:
            soon = ClientTimeouts(connect=5, handshake=5, reply=0.3, final=5, content=5, quit=5)
            connection = await dial(peer, tls="required", context=context, server_name="mx.test", timeouts=soon)
            with pytest.raises(ConnectFailed, match=why) as caught:
                await connection.login_with_token("u", "t")
            assert caught.value.stage == "auth" and connection.closed
            with pytest.raises(ConnectFailed, match="AUTH is not possible in state closed"):
                await connection.login_with_token("u", "t")

    async def test_cancelled(self) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), auth="XOAUTH2", silent_at="AUTH") as peer:
            connection = await dial(peer, tls="required", context=context, server_name="mx.test")
            task = spawn(connection.login_with_token("u", "t"), "login")
            await _until(lambda: bool(peer.logins))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.closed

    @pytest.mark.parametrize("answer", HOSTILE)
    async def test_a_server_that_repeats_the_token_is_not_quoted(self, answer: bytes) -> None:
        ca, context = authority()
        async with Peer(context=server_context(ca, "mx.test"), auth="XOAUTH2", answers={"AUTH": answer}) as peer:
            connection = await dial(peer, tls="required", context=context, server_name="mx.test")
            try:
                told = await connection.login_with_token("u@x.test", HOSTILE_TOKEN)
                seen = f"{told!r} {told.wire!r} {connection.greeting_steps} {connection.error}"
            except ConnectFailed as error:
                seen = f"{error} {error.reply!r} {error.steps} {connection.error}"
            assert_unseen(HOSTILE_TOKEN, "u@x.test", seen)
            connection.abort()
