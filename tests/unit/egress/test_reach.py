"""Reaching targets over real sockets: what may be dialled, from where, in which order, and how many ports that takes."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence

import pytest

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Answer, Question
from outgate.egress.budget import Budget, Counted, Ports, port_range
from outgate.egress.plan import Way
from outgate.egress.poll import Poller
from outgate.egress.reach import Reach, Reached, Route
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode
from outgate.net.dns import Resolver
from outgate.net.guard import compile_exceptions
from support.pollers import on_all_ways


def way(*sources: str, exceptions: Iterable[str] = ("127.0.0.0/8",)) -> Way:
    return Way(Mode.FLEXIBLE, sources or ("127.0.0.2",), compile_exceptions(exceptions))


class Book:
    """Names and their addresses, as a resolver with a memory knows them."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        await asyncio.sleep(0)
        return self.names[name]

    def at_hand(self, name: str) -> Sequence[str] | None:
        return self.names.get(name)


async def nobody(name: str) -> Sequence[str]:
    raise AssertionError(f"{name} was asked for")


def answered(reach: Reach, route: Route) -> asyncio.Future[Reached | Refused]:
    answer: asyncio.Future[Reached | Refused] = asyncio.get_running_loop().create_future()
    reach.dial(route, answer.set_result)
    return answer


@on_all_ways
async def test_the_door_for_those_who_wait(new_poller: Callable[[], Poller]) -> None:
    poller = new_poller()
    book = Book(target=["127.0.0.1"])
    reach = Reach(book.resolve, connect_timeout_s=5, poller=poller)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reached = await reach.connect("target", port, way())
        far, client = server.accept()
        assert client == reached.socket.getsockname()
        assert client[0] == "127.0.0.2"
        assert (reached.address, reached.exception) == ("127.0.0.1", "127.0.0.0/8")
        # It is the caller's alone: whoever watches it later is told of what has come meanwhile.
        assert not poller.knows(reached.socket.fileno())
        assert reached.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(reached.socket, b"x")
        assert far.recv(1) == b"x"
        far.close()
        reached.socket.close()
    with pytest.raises(Refused) as refused:
        await reach.connect("target", port, way())
    assert refused.value.kind == "refused"
    assert reach.budget() == []
    reach.close()
    poller.stop()


@on_all_ways
async def test_who_gives_up_waiting_leaves_nothing_open(new_poller: Callable[[], Poller]) -> None:
    poller = new_poller()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        reach = Reach(nobody, connect_timeout_s=0.1, poller=poller)
        waiting = asyncio.ensure_future(reach.connect("127.0.0.1", port, way()))
        while not reach.budget():
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert reach.budget() == []
        with pytest.raises(Refused, match=r"127\.0\.0\.1:\d+ from 127\.0\.0\.2: no answer in 0\.1 s") as refused:
            await reach.connect("127.0.0.1", port, way())
        assert refused.value.kind == "timeout"
        for filler in fillers:
            filler.close()
    reach.close()
    poller.stop()


@on_all_ways
async def test_what_is_at_hand_takes_no_task(new_poller: Callable[[], Poller]) -> None:
    poller = new_poller()
    book = Book(known=["127.0.0.1"])
    reach = Reach(nobody, connect_timeout_s=5, at_hand=book.at_hand, poller=poller)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tasks = len(asyncio.all_tasks())
        answers = [answered(reach, Route(name, port, way())) for name in ("known", "127.0.0.1")]
        assert len(asyncio.all_tasks()) == tasks
        for answer in answers:
            how = await answer
            assert isinstance(how, Reached)
            poller.close(how.socket)
    assert reach.budget() == []
    poller.stop()


@on_all_ways
async def test_a_target_that_rebinds_is_refused_with_the_next_connection(new_poller: Callable[[], Poller]) -> None:
    poller = new_poller()
    book = Book(target=["127.0.0.1"])
    reach = Reach(nobody, connect_timeout_s=5, at_hand=book.at_hand, poller=poller)
    with socket.create_server(("127.0.0.1", 0)) as server:
        route = Route("target", server.getsockname()[1], way(exceptions=("127.0.0.1",)))
        how = await answered(reach, route)
        assert isinstance(how, Reached)
        poller.close(how.socket)
        book.names["target"] = ["10.0.0.7"]
        how = await answered(reach, route)
        assert isinstance(how, Refused)
        assert (how.kind, str(how)) == ("guard", "target is 10.0.0.7: private address")
        how = await answered(reach, Route("10.0.0.7", 25, way()))
        assert str(how) == "10.0.0.7: private address"
        # An exception for the address does not make it one for the name's next address, and the verdicts stay apart.
        book.names["target"] = ["10.0.0.7", "127.0.0.1"]
        how = await answered(reach, route)
        assert isinstance(how, Reached)
        poller.close(how.socket)
    poller.stop()


async def test_an_answer_is_at_hand_for_as_long_as_it_may_be_believed() -> None:
    clock = FrozenClock()
    resolver = Resolver([("127.0.0.1", 9)], clock)
    said = {"A": Answer("ok", ("192.0.2.7",), 30), "AAAA": Answer("nodata", (), 20)}

    async def find(question: Question, _allowance: object = None) -> Answer:
        return said[question.rdtype]

    resolver.find = find
    assert resolver.at_hand("target.example") is None
    assert await resolver.addresses("target.example") == ["192.0.2.7"]
    assert resolver.at_hand("target.example") == ["192.0.2.7"]
    clock.advance(19)
    assert resolver.at_hand("target.example") == ["192.0.2.7"]
    clock.advance(1)
    assert resolver.at_hand("target.example") is None
    said["A"] = Answer("ok", ("10.0.0.7",), 30)
    clock.advance(10)
    assert await resolver.addresses("target.example") == ["10.0.0.7"]
    assert resolver.at_hand("target.example") == ["10.0.0.7"]


@on_all_ways
async def test_addresses_are_tried_in_order_and_share_the_time(new_poller: Callable[[], Poller]) -> None:
    poller = new_poller()
    with socket.socket() as full, socket.create_server(("127.0.0.9", 0)) as server:
        port = server.getsockname()[1]
        full.bind(("127.0.0.8", port))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.8", port))
        # Denied, refusing, silent, and one that answers.
        book = Book(target=["10.0.0.7", "127.0.0.7", "127.0.0.8", "127.0.0.9"], silent=["127.0.0.8", "127.0.0.8"])
        reach = Reach(nobody, connect_timeout_s=0.3, at_hand=book.at_hand, poller=poller)
        how = await answered(reach, Route("target", port, way()))
        assert isinstance(how, Reached)
        assert how.address == "127.0.0.9"
        poller.close(how.socket)
        how = await answered(reach, Route("silent", port, way()))
        assert isinstance(how, Refused)
        assert (how.kind, "no answer in 0.15 s" in str(how)) == ("timeout", True)
        for filler in fillers:
            filler.close()
    assert reach.budget() == []
    poller.stop()


@on_all_ways
async def test_ports_are_counted_per_source_and_target(
    new_poller: Callable[[], Poller], caplog: pytest.LogCaptureFixture
) -> None:
    poller = new_poller()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = Reach(nobody, connect_timeout_s=5, poller=poller)
        reach.ports = Ports(alert=0.5, limits=lambda: (40_000, 40_003))
        taken = [await reach.connect("127.0.0.1", port, way()) for _ in range(3)]
        other = await reach.connect("127.0.0.1", port, way("127.0.0.3"))
        assert reach.budget() == [
            Budget("127.0.0.2", "127.0.0.1", port, 3, 4),
            Budget("127.0.0.3", "127.0.0.1", port, 1, 4),
        ]
        warnings = [record for record in caplog.records if "egress.source_ports" in record.message]
        assert len(warnings) == 1
        for reached in (*taken, other):
            reached.socket.close()
            reached.socket.close()
        assert reach.budget() == []
        again = [await reach.connect("127.0.0.1", port, way()) for _ in range(2)]
        assert sum("egress.source_ports" in record.message for record in caplog.records) == 2
        for reached in again:
            reached.socket.close()
    poller.stop()


@on_all_ways
async def test_when_the_ports_of_a_source_are_used_up_another_is_taken(
    new_poller: Callable[[], Poller], monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = new_poller()

    def connect_ex(self: socket.socket, address: tuple[str, int]) -> int:
        if self.getsockname()[0] == "127.0.0.2":
            return errno.EADDRNOTAVAIL
        return socket.socket.connect_ex(self, address)

    # The system says so only after tens of thousands of connections.
    monkeypatch.setattr(Counted, "connect_ex", connect_ex, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = Reach(nobody, connect_timeout_s=5, poller=poller)
        port = server.getsockname()[1]
        for _ in range(2):
            reached = await reach.connect("127.0.0.1", port, way("127.0.0.2", "127.0.0.3"))
            assert reached.socket.getsockname()[0] == "127.0.0.3"
            reached.socket.close()
        with pytest.raises(Refused, match="used up; give the way more addresses") as refused:
            await reach.connect("127.0.0.1", port, way("127.0.0.2"))
        assert refused.value.kind == "source"
    assert reach.budget() == []
    poller.stop()


def test_the_range_of_this_host() -> None:
    first, last = port_range()
    assert 0 < first < last < 65_536


@on_all_ways
async def test_what_belongs_into_the_tunnel_leaves_by_no_other_way(new_poller: Callable[[], Poller]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        reach = Reach(Book(target=["127.0.0.1"]).resolve, connect_timeout_s=5, poller=(poller := new_poller()))
        inside = Way(Mode.VPN, ("127.0.0.2",), compile_exceptions(["127.0.0.0/8"]), ("127.0.0.0/16",))
        with pytest.raises(Refused, match="only the VPN leads there") as caught:
            await reach.connect("target", port, inside)
        assert caught.value.kind == "closed"
        # Nor does an AAAA record that spells an IPv4 address.
        mapped = Reach(Book(target=["::ffff:127.0.0.1"]).resolve, connect_timeout_s=5, poller=poller)
        with pytest.raises(Refused, match=r"target is 127\.0\.0\.1: only the VPN leads there"):
            await mapped.connect("target", port, inside)
        outside = Way(Mode.VPN, ("127.0.0.2",), compile_exceptions(["127.0.0.0/8"]), ("127.5.0.0/16", "2001:db8::/32"))
        (await reach.connect("target", port, outside)).socket.close()
        reached = await mapped.connect("target", port, outside)
        assert (reached.address, reached.socket.getsockname()[0]) == ("127.0.0.1", "127.0.0.2")
        reached.socket.close()
        reach.close()
        mapped.close()
        poller.stop()
