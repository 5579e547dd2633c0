"""Listeners over real sockets: whole or not at all, in batches, thousands of them, and when files run out."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Collection, Sequence

import pytest

from outgate.egress import listeners as module
from outgate.egress.holder import holder
from outgate.egress.listeners import Key, ListenError, Listeners
from outgate.egress.plan import Rule
from outgate.egress.poll import Poller
from support.egress_peers import forward, tunnel_address
from support.pollers import on_all_ways
from support.ports import reserved_port


class Collector:
    """A carrier that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[Rule, Key, Key]] = []
        self.gone: list[Rule] = []
        self.sockets: list[socket.socket] = []
        self.wanted = 0
        self.enough = asyncio.Event()

    def accepted(self, rule: Rule, sock: socket.socket, client: Key, dialled: Key) -> None:
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        self.got.append((rule, client, dialled))
        self.sockets.append(sock)
        if len(self.got) >= self.wanted:
            self.enough.set()

    def withdrawn(self, rules: Collection[Rule]) -> None:
        self.gone += rules

    def changed(self, rules: Sequence[tuple[Rule, Rule]]) -> None:
        self.gone += [old for old, _ in rules]

    async def until(self, count: int) -> None:
        """Wait until so many have come."""
        self.wanted = count
        self.enough.clear()
        if len(self.got) < count:
            await self.enough.wait()

    async def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Place:
    def __init__(self, new_poller: Callable[[], Poller]) -> None:
        self.poller = new_poller()
        self.carrier = Collector()
        self.listeners = Listeners(self.poller, lambda _: self.carrier, keepalive_s=60)

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listeners.close()
        await self.carrier.close()
        self.poller.stop()


@on_all_ways
async def test_connections_come_to_the_carrier_of_their_rule(new_poller: Callable[[], Poller]) -> None:
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        one, two = forward(tunnel, 30001, "one.example", 1), forward("::1", 0, "two.example", 2)
        await place.listeners.apply("10", [one])
        with socket.create_connection((tunnel, 30001)) as client:
            await place.carrier.until(1)
            assert place.carrier.got == [(one, client.getsockname(), (tunnel, 30001))]
        await place.listeners.apply("10", [one, two])
        assert place.listeners.rules() == (one, two)
        assert place.carrier.gone == []
        await place.listeners.apply("10", [two])
        assert [rule is one for rule in place.carrier.gone] == [True]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((tunnel, 30001))


@on_all_ways
async def test_many_at_once_are_all_accepted_and_nobody_waits_for_them(new_poller: Callable[[], Poller]) -> None:
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        await place.listeners.apply("10", [forward(tunnel, port, "a.example", 1) for port in (30001, 30002)])
        clients = [socket.create_connection((tunnel, 30001)) for _ in range(300)]
        clients.append(socket.create_connection((tunnel, 30002)))
        await place.carrier.until(301)
        order = [rule.listen_port for rule, _, _ in place.carrier.got]
        # The one of the quiet listener has its turn between the batches of the busy one.
        assert order.index(30002) < 300
        assert sorted({client for _, client, _ in place.carrier.got}) == sorted(c.getsockname() for c in clients)
        for client in clients:
            client.close()


@on_all_ways
async def test_a_listener_on_all_addresses_tells_which_one_was_dialled(new_poller: Callable[[], Poller]) -> None:
    async with Place(new_poller) as place:
        port = reserved_port("0.0.0.0")
        await place.listeners.apply("10", [forward("0.0.0.0", port, "a.example", 1)])
        with socket.create_connection(("127.77.1.2", port)) as client:
            await place.carrier.until(1)
            assert place.carrier.got[0][1:] == (client.getsockname(), ("127.77.1.2", port))


@on_all_ways
async def test_all_or_none_and_who_has_the_port(new_poller: Callable[[], Poller]) -> None:
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        old = forward(tunnel, 30001, "old.example", 1)
        await place.listeners.apply("10", [old])
        new = [forward(tunnel, port, "new.example", 1) for port in (30002, 30003)]
        with socket.create_server((tunnel, 30003)):
            with pytest.raises(ListenError) as caught:
                await place.listeners.apply("10", new)
            assert f"{tunnel}:30003 is taken by another program on this host" in str(caught.value)
            assert f"pid {os.getpid()}" in str(caught.value)
        with pytest.raises(ListenError, match=f"{tunnel}:30001 is taken by environment 10"):
            await place.listeners.apply("11", [forward(tunnel, 30001, "x.example", 1, environment_id="11")])
        with pytest.raises(ListenError, match=f"{tunnel}:30005 is wanted twice"):
            await place.listeners.apply("10", [forward(tunnel, 30005, name, 1) for name in ("a", "b")])
        assert place.listeners.rules() == (old,)
        assert place.carrier.gone == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((tunnel, 30002))


def test_nobody_holds_a_free_port() -> None:
    port = reserved_port()
    with socket.create_server(("127.0.0.1", port)):
        assert str(os.getpid()) in holder("127.0.0.1", port)
    assert holder("127.0.0.1", port) == ""
    assert holder("no address", port) == ""


def test_a_file_that_is_closed_while_it_looks_hides_no_holder() -> None:
    # The directory that is listed is open itself, below the listener, and closed before anything is read.
    low = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        for each in low:
            os.close(each)
        assert str(os.getpid()) in holder("127.0.0.1", probe.getsockname()[1])


@on_all_ways
async def test_without_files_accepting_pauses_and_goes_on(
    new_poller: Callable[[], Poller], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "outgate")
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        await place.listeners.apply("10", [forward(tunnel, 30001, "a.example", 1)])
        clients = [socket.create_connection((tunnel, 30001)) for _ in range(3)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
            await place.carrier.until(1)
            while not any("egress.accepting_paused" in record.message for record in caplog.records):
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await place.carrier.until(3)
        while not any("egress.accepting_again" in record.message for record in caplog.records):
            await asyncio.sleep(0)
        assert sum("egress.accepting_paused" in record.message for record in caplog.records) == 1
        for client in clients:
            client.close()


@on_all_ways
async def test_thousands_of_rules_and_a_change_of_one(new_poller: Callable[[], Poller]) -> None:
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        rules = [forward(tunnel, 20_000 + number, "a.example", 1) for number in range(3_000)]
        await place.listeners.apply("10", rules)
        again = [forward(tunnel, 20_000 + number, "a.example", 1) for number in range(3_000)]
        changed = forward(tunnel, 22_999, "b.example", 1)
        await place.listeners.apply("10", [*again[:-1], changed])
        assert place.carrier.gone == [rules[-1]]
        with socket.create_connection((tunnel, 22_999)):
            await place.carrier.until(1)
        assert place.carrier.got[0][0] is changed


@on_all_ways
async def test_a_connection_that_the_carrier_fails_with_keeps_no_other_waiting(
    new_poller: Callable[[], Poller],
) -> None:
    tunnel = tunnel_address()
    async with Place(new_poller) as place:
        taking = place.carrier.accepted
        failed: list[socket.socket] = []

        def fails_once(rule: Rule, sock: socket.socket, client: Key, dialled: Key) -> None:
            if not failed:
                failed.append(sock)
                raise RuntimeError("out of luck")
            taking(rule, sock, client, dialled)

        place.carrier.accepted = fails_once
        await place.listeners.apply("10", [forward(tunnel, 30001, "one.example", 1)])
        clients = [socket.create_connection((tunnel, 30001)) for _ in range(3)]
        await place.carrier.until(2)
        assert [got[1] for got in place.carrier.got] == [client.getsockname() for client in clients[1:]]
        assert failed[0].fileno() < 0
        for client in clients:
            client.close()
