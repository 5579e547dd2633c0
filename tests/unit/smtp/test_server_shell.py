"""The listener on real sockets: PROXY headers, TLS, deadlines, back-pressure, and turnstile given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trustme

from outgate.smtp.asyncio.server import (
    Connection,
    Listener,
    ListenerOptions,
    Peer,
    Timeouts,
    listening_socket,
)
from outgate.smtp.events import Closed, Event, MessageReceived
from outgate.smtp.fairness import Turnstile
from outgate.smtp.proxy_header import encode_v2
from outgate.smtp.reply import reply
from outgate.smtp.server import Limits, ServerMachine
from support.dialogue import ScriptedSession


@pytest.fixture(scope="module")
def contexts() -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("relay.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    yield server, client


@dataclass
class Waiting(ScriptedSession):
    """Leaves messages unanswered, so that the test can answer late, and tells when the session is over."""

    connection: Connection | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    hold: bool = False
    broken: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self.over.set()
        if isinstance(event, MessageReceived):
            if self.broken:
                raise RuntimeError("a bug")
            if self.hold:
                self.messages.append(event.content)
                self.asked.set()
                return
        super().handle(event)


@dataclass
class Served:
    listener: Listener
    sessions: list[Waiting]
    peers: list[Peer]
    born: asyncio.Queue[Waiting]

    @property
    def port(self) -> int:
        return self.listener.address[1]

    async def dial(self, **options: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, **options)  # type: ignore[arg-type]

    async def all_given_back(self) -> None:
        """Wait until no connection holds a place."""
        while self.listener.options.turnstile.inside or self.listener.connections:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def served(
    context: ssl.SSLContext | None = None,
    *,
    implicit: bool = False,
    timeouts: Timeouts | None = None,
    trusted: Callable[[str], bool] = lambda address: False,
    welcome: Callable[[Peer], bool] = lambda peer: True,
    turnstile: Turnstile | None = None,
    limits: Limits | None = None,
    hold: bool = False,
    broken: bool = False,
) -> AsyncIterator[Served]:
    sessions: list[Waiting] = []
    peers: list[Peer] = []
    born: asyncio.Queue[Waiting] = asyncio.Queue()

    def factory(peer: Peer, connection: Connection) -> Waiting:
        machine = ServerMachine(
            "relay.example",
            limits=limits or Limits(),
            tls=implicit,
            offer_tls=context is not None,
            tls_required=False,
            auth_required=False,
        )
        session = Waiting(machine, connection=connection, hold=hold, broken=broken)
        sessions.append(session)
        peers.append(peer)
        born.put_nowait(session)
        return session

    options = ListenerOptions(context, implicit, timeouts or Timeouts(), trusted, welcome, turnstile or Turnstile())
    listener = Listener(listening_socket("127.0.0.1", 0), options, factory)
    listener.start()
    made = Served(listener, sessions, peers, born)
    try:
        yield made
    finally:
        await listener.stop()
        for connection in listener.connections:
            connection._abort("the test is over")
        await made.all_given_back()


ENDLESS = Limits(useless=1 << 30)
"""For floods of NOOP, which would end the session otherwise."""
ENVELOPE = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


CHUNK = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 3\r\nx\r\n"


async def read_until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    return await reader.readuntil(end)


async def narrow(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial with a small window: what is not read soon stays on the other side."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=sock, limit=1024)


# -- PROXY headers --------------------------------------------------------------------------------------------


async def test_a_trusted_proxy_is_believed(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with served(trusted=lambda address: address == "127.0.0.1") as s:
        reader, writer = await s.dial()
        writer.write(encode_v2(("192.0.2.7", 4711), ("127.0.0.1", 25)) + b"EHLO c\r\n")
        assert (await reader.readline()).startswith(b"220 ")
        assert s.peers == [Peer("192.0.2.7", 4711, via="127.0.0.1")]
        assert await read_until(reader, b"RCPTMAX=50\r\n")
        writer.close()


async def test_a_header_in_pieces_of_one_octet() -> None:
    async with served(trusted=lambda address: True) as s:
        reader, writer = await s.dial()
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\nEHLO c\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert (await reader.readline()).startswith(b"220 ")
        assert s.peers[0].address == "192.0.2.7"
        assert (await reader.readline()) == b"250-relay.example\r\n"
        writer.close()


async def test_a_mapped_address_is_the_ipv4_address() -> None:
    async with served(trusted=lambda address: True) as s:
        reader, writer = await s.dial()
        writer.write(encode_v2(("192.0.2.7", 1), ("::1", 25)))
        await reader.readline()
        assert s.peers[0].address == "192.0.2.7"
        writer.close()


async def test_the_proxys_own_health_check_is_the_proxy() -> None:
    async with served(trusted=lambda address: True) as s:
        reader, writer = await s.dial()
        writer.write(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        await reader.readline()
        assert s.peers == [Peer("127.0.0.1", writer.get_extra_info("sockname")[1])]
        writer.close()


async def test_header_and_client_hello_in_one_packet(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    async with served(server, implicit=True, trusted=lambda address: True) as s:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="relay.example")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        reader, writer = await s.dial()
        writer.write(encode_v2(("192.0.2.7", 1), ("127.0.0.1", 25)) + outgoing.read())

        async def until(step: Callable[[], object]) -> object:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    data = await reader.read(65536)
                    assert data, "closed"
                    incoming.write(data)
                else:
                    writer.write(outgoing.read())
                    return result

        await until(tls.do_handshake)
        assert (await until(lambda: tls.read(100))) == b"220 relay.example ESMTP\r\n"
        assert s.peers[0].address == "192.0.2.7"
        writer.close()


@pytest.mark.parametrize("sent", [b"EHLO c\r\n", b"\x16\x03\x01", b"PROXY TCP4 a b c d\r\n"])
async def test_a_trusted_peer_without_a_header_is_cut_off(sent: bytes) -> None:
    async with served(trusted=lambda address: True) as s:
        reader, writer = await s.dial()
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert s.sessions == []
        writer.close()


async def test_a_header_that_never_comes_has_a_deadline() -> None:
    async with served(trusted=lambda address: True, timeouts=Timeouts(handshake=0.01)) as s:
        reader, writer = await s.dial()
        assert await reader.read() == b""
        assert s.sessions == []
        writer.close()


async def test_a_peer_that_leaves_within_its_header() -> None:
    async with served(trusted=lambda address: True) as s:
        reader, writer = await s.dial()
        writer.write(b"PROXY TCP4 ")
        writer.write_eof()
        assert await reader.read() == b""
        assert s.sessions == []
        writer.close()


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\n", encode_v2(("192.0.2.7", 1), ("127.0.0.1", 25))]
)
async def test_a_header_from_anybody_else_is_a_protocol_error(header: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as s:
        reader, writer = await s.dial()
        assert await reader.readline() == b"220 relay.example ESMTP\r\n"
        with caplog.at_level("INFO", "outgate.smtp"):
            writer.write(header + b"EHLO c\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert (await reader.read()).replace(b"500 5.5.2 Command not recognised\r\n", b"") == b""
            await s.all_given_back()
        assert s.peers == [Peer("127.0.0.1", writer.get_extra_info("sockname")[1])]
        assert any("proxy_trusted" in str(getattr(record, "fields", "")) for record in caplog.records)
        writer.close()


# -- TLS ------------------------------------------------------------------------------------------------------


async def test_implicit_tls_sends_no_octet_to_whom_nobody_welcomes(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with served(contexts[0], implicit=True, welcome=lambda peer: False) as s:
        reader, writer = await s.dial()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert s.sessions == []
        writer.close()


async def test_fifty_hasty_clients_lose_nothing(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts

    async def talk(port: int) -> bytes:
        """Speak from memory: EHLO leaves in the same packet as the handshake's last message."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.write(b"EHLO c\r\n")
        await reader.readuntil(b"STARTTLS\r\n")
        writer.write(b"STARTTLS\r\n")
        assert (await reader.readline()).startswith(b"220 ")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="relay.example")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await reader.read(65536)
                assert data, "closed in the handshake"
                incoming.write(data)
        tls.write(b"EHLO again\r\n")
        tls.write(b"NOOP\r\nQUIT\r\n")
        writer.write(outgoing.read())
        heard = b""
        while b"221" not in heard:
            try:
                heard += tls.read(65536)
            except ssl.SSLWantReadError:
                data = await reader.read(65536)
                assert data, f"closed after {heard!r}"
                incoming.write(data)
        writer.close()
        return heard

    async with served(server) as s:
        heard = await asyncio.gather(*(talk(s.port) for _ in range(50)))
        for said in heard:
            assert said.startswith(b"250-relay.example\r\n")
            assert b"STARTTLS" not in said
            assert said.endswith(b"250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n")
        await s.all_given_back()
        assert all(session.machine.tls for session in s.sessions)


@pytest.mark.parametrize("packets", [1, 2])
async def test_nothing_behind_starttls_is_ever_obeyed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], packets: int
) -> None:
    async with served(contexts[0]) as s:
        reader, writer = await s.dial()
        await reader.readline()
        writer.write(b"EHLO c\r\n")
        await reader.readuntil(b"STARTTLS\r\n")
        injected = b"MAIL FROM:<injected@b.example>\r\n"
        if packets == 1:
            writer.write(b"STARTTLS\r\n" + injected)
        else:
            writer.write(b"STARTTLS\r\n")
            assert (await reader.readline()).startswith(b"220 ")
            writer.write(injected)
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                pass
        await s.sessions[0].over.wait()
        assert not s.sessions[0].machine.tls
        assert "MailFrom" not in [type(event).__name__ for event in s.sessions[0].events]
        await s.all_given_back()
        writer.close()


@pytest.mark.parametrize("implicit", [False, True])
async def test_who_offers_nothing_we_take_is_told_by_an_alert(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], implicit: bool
) -> None:
    """The event loops drop OpenSSL's own alert with the connection."""
    weak = ssl.create_default_context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA256")
    async with served(contexts[0], implicit=implicit) as s:
        with pytest.raises(ssl.SSLError) as caught:
            if implicit:
                await s.dial(ssl=weak, server_hostname="relay.example")
            else:
                reader, writer = await s.dial()
                writer.write(b"EHLO c\r\n")
                await reader.readuntil(b"STARTTLS\r\n")
                writer.write(b"STARTTLS\r\n")
                await reader.readline()
                await writer.start_tls(weak, server_hostname="relay.example")
        assert "ALERT_HANDSHAKE_FAILURE" in caught.value.reason
        await s.all_given_back()


@pytest.mark.parametrize("how", ["fin", "rst", "silent", "garbage"])
@pytest.mark.parametrize("implicit", [False, True])
async def test_a_handshake_that_fails_gives_its_place_back(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], how: str, implicit: bool
) -> None:
    async with served(
        contexts[0], implicit=implicit, timeouts=Timeouts(handshake=0.02), turnstile=Turnstile(per_address=1)
    ) as s:
        reader, writer = await s.dial()
        while not s.listener.options.turnstile.inside:
            await asyncio.sleep(0)
        if not implicit:
            await reader.readline()
            writer.write(b"EHLO c\r\n")
            await reader.readuntil(b"STARTTLS\r\n")
            writer.write(b"STARTTLS\r\n")
            assert (await reader.readline()).startswith(b"220 ")
        if how == "fin":
            writer.close()
        elif how == "rst":
            option = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            writer.transport.abort()
        elif how == "garbage":
            writer.write(b"this is no client hello\r\n")
        with contextlib.suppress(ConnectionResetError):
            while how in ("silent", "garbage") and await reader.read(65536):
                pass
        writer.close()
        await s.all_given_back()


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_is_accepted_while_the_listener_closes_is_not_lost_open(turns: int) -> None:
    async with served() as s:
        troubles: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        await asyncio.sleep(0)
        client = socket.create_connection(("127.0.0.1", s.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await s.listener.close()
        await asyncio.sleep(0)
        gc.collect()  # an open socket that nobody has is a warning
        assert not troubles
        client.close()


async def test_out_of_descriptors_a_listener_takes_a_breather_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as s:
        accept, refused = socket.socket.accept, []

        def none_left(self: socket.socket) -> tuple[socket.socket, object]:
            if not refused:
                refused.append(self)
                raise OSError(errno.EMFILE, "Too many open files")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", none_left)
        monkeypatch.setattr("outgate.smtp.asyncio.server._BREATHER_S", 0)
        reader, writer = await s.dial()
        assert (await reader.readline()).startswith(b"220 ") and len(refused) == 1
        writer.close()


# -- deadlines and back-pressure ------------------------------------------------------------------------------


async def test_a_silent_client_reads_a_421() -> None:
    async with served(timeouts=Timeouts(command=0.02)) as s:
        reader, writer = await s.dial()
        assert (await reader.read()).splitlines()[-1].startswith(b"421 4.4.2")
        await s.all_given_back()
        writer.close()


async def test_octet_by_octet_is_no_progress_for_a_command() -> None:
    async with served(timeouts=Timeouts(command=0.05)) as s:
        reader, writer = await s.dial()
        await reader.readline()
        session = await s.born.get()
        while not session.over.is_set():
            with contextlib.suppress(ConnectionError):
                writer.write(b"N")
            await asyncio.sleep(0)
        await s.all_given_back()
        writer.close()


async def test_data_has_its_own_deadline() -> None:
    async with served(timeouts=Timeouts(command=300.0, data=0.02)) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE + b"half a li")
        assert (await reader.read()).splitlines()[-1].startswith(b"421 4.4.2")
        assert s.sessions[0].messages == []
        writer.close()


async def test_octet_by_octet_is_no_progress_between_chunks() -> None:
    async with served(timeouts=Timeouts(command=0.05, data=0.05)) as s:
        reader, writer = await s.dial()
        writer.write(CHUNK)
        await reader.readuntil(b"octets received\r\n")
        session = await s.born.get()
        while not session.over.is_set():
            with contextlib.suppress(ConnectionError):
                writer.write(b"B")
            await asyncio.sleep(0)
        await s.all_given_back()
        writer.close()


@pytest.mark.parametrize("way", ["data", "one chunk", "many chunks"])
async def test_a_message_that_drips_is_given_up(way: str) -> None:
    async with served(timeouts=Timeouts(data=0.05, rate=1e9)) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE if way == "data" else CHUNK if way == "many chunks" else CHUNK + b"BDAT 1000000\r\n")
        session = await s.born.get()
        while not session.over.is_set():  # it is never silent for long
            with contextlib.suppress(ConnectionError):
                writer.write(b"BDAT 1\r\nx" if way == "many chunks" else b"x")
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionResetError):  # what it goes on sending is not read any more
            assert (await reader.read()).splitlines()[-1].startswith(b"421 4.4.2")
        assert session.messages == []
        await s.all_given_back()
        writer.close()


async def test_a_slow_link_that_is_legal_survives() -> None:
    async with served(timeouts=Timeouts(data=0.05, rate=1.0)) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE)
        session = await s.born.get()
        connection = session.connection
        assert connection is not None
        windows: set[float] = set()
        while len(windows) < 5:
            writer.write(b"x\r\n")
            windows.add(connection._pace._since)
            await asyncio.sleep(0)
        writer.write(b".\r\n")
        said = b""
        while b"queued" not in said:
            said = await reader.readline()
            assert said, "closed"
        writer.close()


async def test_while_we_owe_an_answer_no_clock_runs() -> None:
    async with served(timeouts=Timeouts(command=0.01, data=0.01, handshake=0.01, rate=1e9), hold=True) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\n")
        session = await s.born.get()
        await session.asked.wait()
        loop = asyncio.get_running_loop()
        later: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.1, later.set_result, None)  # ten deadlines long
        await later
        assert not session.over.is_set() and session.machine._last is None
        session.machine.answer(reply(250, "2.0.0", "late"))
        assert session.connection is not None
        session.connection.pump()
        said = b""
        while b"late" not in said:
            said += await reader.readline()
        writer.close()


async def test_a_flood_behind_an_open_question_is_left_in_the_socket() -> None:
    async with served(hold=True, limits=ENDLESS) as s:
        _, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\n")
        session = await s.born.get()
        await session.asked.wait()
        flood = b"NOOP\r\n" * 2_000_000
        writer.write(flood)
        machine = session.machine
        while not machine.full:
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(machine._input) < 65_536 + 2 * 262_144
        assert writer.transport.get_write_buffer_size() > 0
        writer.transport.abort()
        machine.answer(reply(250, "2.0.0", "Ok"))  # it goes on reading, and notices
        session.connection.pump()  # type: ignore[union-attr]
        await session.over.wait()


async def test_a_client_that_does_not_read_gets_no_more_replies_made() -> None:
    async with served(timeouts=Timeouts(command=0.1, handshake=0.02), limits=ENDLESS) as s:
        _, writer = await narrow(s.port)
        writer.write(b"NOOP\r\n" * 3_000_000)
        session = await s.born.get()
        connection = session.connection
        assert connection is not None and connection.transport is not None
        most = 0
        while not session.over.is_set():
            most = max(most, connection.transport.get_write_buffer_size())
            await asyncio.sleep(0)
        assert 65_536 < most < 3_000_000
        assert writer.transport.get_write_buffer_size() > 0  # we did not even read all of it
        await s.all_given_back()  # and do not wait for ever for it to read its 421
        writer.transport.abort()


async def test_a_late_reader_gets_everything() -> None:
    async with served(limits=ENDLESS) as s:
        reader, writer = await narrow(s.port)
        count = 300_000
        writer.write(b"NOOP\r\n" * count + b"QUIT\r\n")
        session = await s.born.get()
        while not session.connection._slow:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader._limit = 1 << 20  # type: ignore[attr-defined]
        greeting = await reader.readline()
        octets = len(await reader.read()) - len(b"221 2.0.0 Bye\r\n")
        assert greeting.startswith(b"220 ") and octets == count * len(b"250 2.0.0 Ok\r\n")
        writer.close()


# -- ends -----------------------------------------------------------------------------------------------------


async def test_connection_lost_while_a_commit_is_under_way() -> None:
    async with served(hold=True) as s:
        _, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\n")
        session = await s.born.get()
        await session.asked.wait()
        writer.transport.abort()
        await session.over.wait()
        session.connection.pump()  # type: ignore[union-attr]
        await s.all_given_back()
        assert session.messages == [b"x\r\n"]


async def test_a_bug_in_the_session_is_a_421_and_not_silence() -> None:
    async with served(broken=True) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\n")
        assert (await reader.read()).splitlines()[-1].startswith(b"421 4.3.0")
        await s.all_given_back()
        assert s.sessions[0].machine._content._intake.held == 0
        writer.close()


@pytest.mark.parametrize("more", [b"QUIT\r\n", b"NOOP\r\n"])
async def test_a_client_that_only_reads_on_has_all_its_answers(more: bytes) -> None:
    async with served(hold=True) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\n" + ENVELOPE + b"y\r\n.\r\n" + more)
        writer.write_eof()
        session = await s.born.get()
        assert session.connection is not None
        for number in (b"1", b"2"):
            await session.asked.wait()
            session.asked.clear()
            await read_until(reader, b"354 End data with <CR><LF>.<CR><LF>\r\n")
            session.machine.answer(reply(250, "2.0.0", f"stored {number.decode()}"))
            session.connection.pump()
            assert await reader.readline() == b"250 2.0.0 stored " + number + b"\r\n"
        assert (await reader.read())[:3] == (b"221" if more == b"QUIT\r\n" else b"250")
        await s.all_given_back()
        writer.close()


async def test_a_client_that_only_reads_on_gets_no_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with served(contexts[0], hold=True) as s:
        reader, writer = await s.dial()
        writer.write(ENVELOPE + b"x\r\n.\r\nSTARTTLS\r\n")
        writer.write_eof()
        session = await s.born.get()
        assert session.connection is not None
        await session.asked.wait()
        session.machine.answer(reply(250, "2.0.0", "stored"))
        session.connection.pump()
        assert (await reader.read()).endswith(b"250 2.0.0 stored\r\n220 2.0.0 Ready to start TLS\r\n")
        await s.all_given_back()
        writer.close()


@pytest.mark.parametrize("how", ["quit", "fin", "rst", "errors"])
async def test_each_end_gives_the_place_back(how: str) -> None:
    async with served(turnstile=Turnstile(per_address=1)) as s:
        for _ in range(3):
            reader, writer = await s.dial()
            assert (await reader.readline()).startswith(b"220 ")
            if how == "quit":
                writer.write(b"QUIT\r\n")
            elif how == "errors":
                writer.write(b"FROB\r\n" * 10)
            elif how == "fin":
                writer.write_eof()
            else:
                option = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                writer.transport.abort()
            if how != "rst":
                await reader.read()
            writer.close()
            await s.all_given_back()


async def test_who_leaves_before_the_handshake_begins_is_no_failure_of_ours(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(contexts[0]) as s:
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", s.port))
            await loop.sock_recv(sock, 100)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.send(b"EHLO c\r\nSTARTTLS\r\n")
            sock.close()  # in one step with the command: our 220 cannot be sent
            await (await s.born.get()).over.wait()
            await s.all_given_back()
    assert not [record for record in caplog.records if record.getMessage() == "task.failed"]


async def test_one_address_cannot_have_all_the_turnstile() -> None:
    async with served(turnstile=Turnstile(per_address=2)) as s:
        kept = [await s.dial() for _ in range(2)]
        for reader, _ in kept:
            assert (await reader.readline()).startswith(b"220 ")
        reader, writer = await s.dial()
        assert await reader.read() == b"421 4.3.2 Too many connections, please try again later\r\n"
        writer.close()
        other = await s.dial(local_addr=("127.0.0.9", 0))
        assert (await other[0].readline()).startswith(b"220 ")
        for _, writer in (*kept, other):
            writer.close()


async def test_there_is_an_end_to_all_connections_of_all_listeners(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    turnstile = Turnstile(most=2)
    async with served(turnstile=turnstile) as s, served(contexts[0], implicit=True, turnstile=turnstile) as t:
        kept = [await s.dial() for _ in range(2)]
        for reader, _ in kept:
            assert (await reader.readline()).startswith(b"220 ")
        reader, writer = await s.dial()
        assert (await reader.read()).startswith(b"421 4.3.2 ")
        writer.close()
        reader, writer = await t.dial()  # in the clear there is nothing to say before a handshake
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        for _, writer in kept:
            writer.close()
        await s.all_given_back()
        reader, writer = await s.dial()
        assert (await reader.readline()).startswith(b"220 ")
        writer.close()


async def test_who_is_not_welcome_takes_no_place(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with served(contexts[0], implicit=True, welcome=lambda peer: False, turnstile=Turnstile(most=1)) as s:
        for _ in range(3):
            reader, writer = await s.dial()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        await s.all_given_back()


async def test_a_chunk_that_nobody_wants_is_read_and_not_kept() -> None:
    async with served() as s:
        reader, writer = await s.dial()
        writer.write(b"EHLO c\r\nBDAT 30000000 LAST\r\n" + b"x" * 30_000_000 + b"NOOP\r\n")
        session = await s.born.get()
        most = 0
        reading = asyncio.ensure_future(reader.readuntil(b"503 5.5.1 Bad sequence of commands\r\n250 2.0.0 Ok\r\n"))
        while not reading.done():
            most = max(most, len(session.machine._input))
            await asyncio.sleep(0)
        await reading
        assert most <= 65_536 and session.machine._content._intake.held == 0
        writer.close()


async def test_stop_says_421_and_takes_nobody_in_afterwards() -> None:
    async with served(trusted=lambda address: address == "127.0.0.9") as s:
        reader, writer = await s.dial()
        await reader.readline()
        late_reader, late = await s.dial(local_addr=("127.0.0.9", 0))  # its header is still to come
        while not s.listener._admitting:
            await asyncio.sleep(0)
        await s.listener.stop()
        assert (await reader.read()).startswith(b"421 4.3.2")
        with contextlib.suppress(ConnectionError):
            late.write(encode_v2(("192.0.2.7", 1), ("127.0.0.1", 25)))
            assert await late_reader.read() == b""
        assert len(s.sessions) == 1
        with pytest.raises(OSError):
            await s.dial()
        writer.close()
        late.close()
