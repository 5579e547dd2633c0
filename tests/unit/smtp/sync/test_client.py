"""The blocking shell against a real server: time-outs and losses become results, TLS is checked."""

import asyncio
import os
import socket
import ssl
import time
from types import SimpleNamespace

import pytest

from outgate.base.clock import SystemClock
from outgate.smtp.client import ClientMachine, Transaction
from outgate.smtp.connecting import ClientTimeouts, ConnectFailed, KeepAlive
from outgate.smtp.reply import Reply
from outgate.smtp.sync.client import Connection, connect
from support.scripted_peer import HOSTILE, HOSTILE_TOKEN, Peer, assert_unseen, authority, server_context

MAIL = Transaction("a@x.test", ("b@y.test",), (b"one\r\n", b"two\r\n"))
QUICK = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=5)


def dial(peer: Peer, *, timeouts: ClientTimeouts = QUICK, **options: object) -> Connection:
    return connect("127.0.0.1", peer.port, ehlo_name="me.test", timeouts=timeouts, **({"tls": "none"} | options))


def test_all_addresses_of_a_name_share_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], []

    class Unanswered(socket.socket):
        def connect(self, _) -> None:
            given.append(self.gettimeout())
            now[0] += given[-1]
            raise TimeoutError

    place = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place] * 4)
    monkeypatch.setattr(socket, "socket", Unanswered)
    monkeypatch.setattr("outgate.smtp.sync.client.time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(ConnectFailed, match="timeout"):
        connect("mx.test", 25, ehlo_name="me.test", tls="none", timeouts=QUICK, seconds=8)
    assert given == [2.0, 2.0, 2.0, 2.0]


async def test_an_address_of_a_kind_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of IPv6 where the system has none."""
    async with Peer() as peer:
        lacking = (socket.AF_INET6, socket.SOCK_STREAM, 999, "", ("::1", peer.port, 0, 0))
        there = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", peer.port))

        def talk() -> None:
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [lacking, there])
            dial(peer).close()

        await asyncio.to_thread(talk)


@pytest.mark.parametrize(("deadline", "seconds"), [(None, 1.0), (0.5, 0.5)])
def test_who_goes_on_talking_after_the_goodbye_is_left(
    monkeypatch: pytest.MonkeyPatch, deadline: float | None, seconds: float
) -> None:
    now = [0.0]

    class Dripping:
        def settimeout(self, seconds: float) -> None:
            now[0] += min(seconds, 0.375)

        def recv(self, _) -> bytes:
            return b"x"

    monkeypatch.setattr("outgate.smtp.sync.client.time", SimpleNamespace(monotonic=lambda: now[0]))
    connection = Connection(Dripping(), ClientMachine(ehlo_name="me.test"), "peer", QUICK, SystemClock())
    connection.deadline = deadline
    connection._until_end()
    assert now == [seconds]


async def test_several_messages_on_one_connection() -> None:
    async with Peer() as peer:

        def talk() -> list[str]:
            with dial(peer, source="127.0.0.2") as connection:
                assert connection.usable()
                return [connection.send(MAIL).final.text for _ in range(3)]

        assert await asyncio.to_thread(talk) == [f"Ok: queued as Q{number}" for number in (1, 2, 3)]
        assert peer.messages == [b"one\r\ntwo\r\n"] * 3
        assert peer.commands[-1] == "QUIT" and peer.connections == 1


async def test_a_large_message_arrives_whole() -> None:
    async with Peer() as peer:
        line = b"x" * 998 + b"\r\n"
        large = Transaction("a@x.test", ("b@y.test",), (line * 3000, line * 3000))

        def talk() -> bool:
            with dial(peer) as connection:
                return connection.send(large).final.ok

        assert await asyncio.to_thread(talk)
        assert peer.messages == [line * 6000]


@pytest.mark.parametrize("mode", ["required", "opportunistic", "implicit"])
async def test_tls(mode: str) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), implicit=mode == "implicit", auth="LOGIN") as peer:

        def talk() -> None:
            with dial(peer, tls=mode, context=context, server_name="mx.test") as connection:
                assert connection.tls.startswith("TLSv1.3 ") and connection.certificate_names == ("mx.test",)
                assert connection.login("u", "p").ok
                assert connection.send(MAIL).final.ok
                assert not any(step.did == "p" for step in connection.greeting_steps)

        await asyncio.to_thread(talk)
        assert peer.logins == [("u", "p")]


@pytest.mark.parametrize("mode", ["required", "implicit"])
async def test_a_wrong_name_ends_it(mode: str) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "other.test"), implicit=mode == "implicit") as peer:
        with pytest.raises(ConnectFailed, match=r"not valid for 'mx\.test'") as caught:
            await asyncio.to_thread(lambda: dial(peer, tls=mode, context=context, server_name="mx.test"))
        assert caught.value.stage == "tls" and caught.value.certificate


async def test_bytes_behind_the_220() -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), after_tls_reply=b"250 forged\r\n") as peer:
        with pytest.raises(ConnectFailed) as caught:
            await asyncio.to_thread(lambda: dial(peer, tls="required", context=context, server_name="mx.test"))
        assert caught.value.stage == "tls"


@pytest.mark.parametrize(("at", "stage"), [("greeting", "greeting"), ("EHLO", "hello"), ("handshake", "tls")])
async def test_a_silent_peer(at: str, stage: str) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), silent_at=at) as peer:
        soon = ClientTimeouts(connect=5, handshake=0.1, reply=0.1, final=0.1, content=1, quit=0.1)
        with pytest.raises(ConnectFailed, match="timeout") as caught:
            await asyncio.to_thread(
                lambda: dial(peer, timeouts=soon, tls="required", context=context, server_name="mx.test")
            )
        assert caught.value.stage == stage


async def test_each_reply_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes its time with each of many recipients is none that does not answer."""
    now = time.monotonic()
    receive = Connection._receive

    def later(connection: Connection) -> None:
        nonlocal now
        receive(connection)
        now += 1

    many = Transaction("a@x.test", tuple(f"{number}@y.test" for number in range(20)), (b"one\r\n",))
    async with Peer(offer=("8BITMIME",)) as peer:

        def talk() -> bool:
            with dial(peer) as connection:
                return connection.send(many).final.ok

        monkeypatch.setattr(Connection, "_receive", later)
        monkeypatch.setattr(f"{Connection.__module__}.time", SimpleNamespace(monotonic=lambda: now))
        assert await asyncio.to_thread(talk)


async def test_silence_after_the_dot_is_unknown() -> None:
    async with Peer(silent_at="dot") as peer:

        def talk() -> None:
            soon = ClientTimeouts(connect=5, handshake=5, reply=5, final=0.1, content=5, quit=0.1)
            connection = dial(peer, timeouts=soon)
            result = connection.send(MAIL)
            assert result.sent_all and result.final is None and result.error.startswith("timeout")
            assert connection.closed and not connection.usable()
            connection.close()

        await asyncio.to_thread(talk)


async def test_a_peer_that_leaves_while_idle_is_noticed() -> None:
    async with Peer() as peer:
        connection = await asyncio.to_thread(dial, peer)
        for writer in peer._writers:
            writer.write(b"421 4.4.2 idle\r\n")
            await writer.drain()
        await asyncio.to_thread(_until_unusable, connection)
        connection.close()


async def test_a_part_of_a_record_is_nothing_to_wait_for() -> None:
    ca, context = authority()
    patient = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=600)
    async with Peer(context=server_context(ca, "mx.test"), implicit=True) as peer:
        connection = await asyncio.to_thread(
            lambda: dial(peer, tls="implicit", context=context, server_name="mx.test", timeouts=patient)
        )
        for writer in peer._writers:
            os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03")
        for _ in range(3):
            assert await asyncio.to_thread(connection.usable)
        connection.close()


@pytest.mark.parametrize("silent_at", ["greeting", "handshake", "MAIL", "dot"])
async def test_a_deadline_is_for_the_whole(silent_at: str) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), silent_at=silent_at) as peer:

        def talk() -> str:
            try:
                connection = dial(peer, tls="required", context=context, server_name="mx.test", seconds=0.3)
            except ConnectFailed as error:
                return str(error)
            connection.deadline = time.monotonic() + 0.05
            error = connection.send(MAIL).error
            assert connection.closed
            connection.close()
            return error

        assert (await asyncio.to_thread(talk)).startswith("timeout")


async def test_an_idle_connection_asks_whether_the_peer_is_there() -> None:
    async with Peer() as peer:
        for keep_alive, asked in ((KeepAlive(), 1), (None, 0)):
            connection = await asyncio.to_thread(lambda given=keep_alive: dial(peer, keep_alive=given))
            assert connection._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == asked
            connection.close()


def _until_unusable(connection: Connection) -> None:
    while connection.usable():
        pass


@pytest.mark.parametrize(("mode", "stage"), [("required", "tls"), ("none", "auth")])
async def test_no_tls_no_password(mode: str, stage: str) -> None:
    async with Peer(auth="PLAIN") as peer:

        def talk() -> None:
            with dial(peer, tls=mode, context=ssl.create_default_context()) as connection:
                connection.login("u", "p")

        with pytest.raises(ConnectFailed) as caught:
            await asyncio.to_thread(talk)
        assert caught.value.stage == stage
        assert not any(command.startswith("AUTH") for command in peer.commands)


async def test_refused_greeting_carries_the_reply() -> None:
    async with Peer(answers={"greeting": b"554 5.7.1 go away\r\n"}) as peer:
        with pytest.raises(ConnectFailed) as caught:
            await asyncio.to_thread(dial, peer)
        assert caught.value.reply.code == 554 and caught.value.stage == "greeting"
        assert peer.commands == ["QUIT"]


def token_login(peer: Peer, context: ssl.SSLContext, user: str, token: str) -> tuple[Reply, str]:
    """Log in and return the verdict and all steps as text."""
    with dial(peer, tls="required", context=context, server_name="mx.test") as connection:
        answer = connection.login_with_token(user, token)
        return answer, repr(connection.greeting_steps)


@pytest.mark.parametrize("token", ["ya29.short", "ey" + "J0" * 1500])
async def test_a_token(token: str) -> None:
    ca, context = authority()
    peer = Peer(context=server_context(ca, "mx.test"), auth="PLAIN XOAUTH2", tokens={"u@x.test": token})
    async with peer:
        answer, steps = await asyncio.to_thread(token_login, peer, context, "u@x.test", token)
        assert answer.ok and "AUTH XOAUTH2" in steps and token not in steps
        answer, steps = await asyncio.to_thread(token_login, peer, context, "u@x.test", token + "x")
        assert str(answer) == "535-5.7.8 Error: authentication failed / 535 5.7.8 (status 401)"
        assert peer.logins == [("u@x.test", token), ("u@x.test", token + "x")]


async def test_a_session_goes_on_after_a_refused_token() -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), auth="XOAUTH2", tokens={"u": "good"}) as peer:

        def talk() -> None:
            with dial(peer, tls="required", context=context, server_name="mx.test") as connection:
                assert connection.login_with_token("u", "old").code == 535
                assert connection.login_with_token("u", "good").ok
                assert connection.send(MAIL).final.ok

        await asyncio.to_thread(talk)


@pytest.mark.parametrize(("offer", "said"), [("PLAIN LOGIN", "AUTH PLAIN LOGIN"), ("", "no AUTH at all")])
async def test_xoauth2_is_not_offered(offer: str, said: str) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), auth=offer) as peer:
        with pytest.raises(ConnectFailed, match=f"offers no AUTH XOAUTH2; it offers {said}") as caught:
            await asyncio.to_thread(token_login, peer, context, "u", "t")
        assert caught.value.stage == "auth" and not peer.logins


async def test_no_tls_no_token() -> None:
    async with Peer(auth="XOAUTH2") as peer:

        def talk() -> None:
            with dial(peer) as connection:
                connection.login_with_token("u", "t")

        with pytest.raises(ConnectFailed, match="no TLS, so the token was not sent"):
            await asyncio.to_thread(talk)
        assert not any(command.startswith("AUTH") for command in peer.commands)


@pytest.mark.parametrize("answer", HOSTILE)
async def test_a_server_that_repeats_the_token_is_not_quoted(answer: bytes) -> None:
    ca, context = authority()
    async with Peer(context=server_context(ca, "mx.test"), auth="XOAUTH2", answers={"AUTH": answer}) as peer:
        try:
            told, steps = await asyncio.to_thread(token_login, peer, context, "u@x.test", HOSTILE_TOKEN)
            seen = f"{told!r} {told.wire!r} {steps}"
        except ConnectFailed as error:
            seen = f"{error} {error.reply!r} {error.steps}"
        assert_unseen(HOSTILE_TOKEN, "u@x.test", seen)
