"""The resolver against a real name server: statuses, cache, TCP, failures."""

from __future__ import annotations

import asyncio
import socket

import dns.flags
import dns.message
import pytest

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Answer, Question
from outgate.net.allowance import Allowance
from outgate.net.dns import Exchange, ExchangeAnswer, Resolver, answer_all
from outgate.sandbox.nameserver import respond
from outgate.sandbox.zone import Zone
from support.names import RESOLVER, Peer, peers, served


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.put("a.example", "A", ["192.0.2.1", "192.0.2.2"], 60)
    zone.put("a.example", "AAAA", ["2001:db8::1"], 60)
    zone.put("a.example", "TXT", ['"one" "two"', "three; four"], 60)
    zone.put("a.example", "MX", ["20 B.example.", "10 a.example."], 60)
    zone.put("null.example", "MX", ["0 ."], 60)
    zone.put("alias.example", "CNAME", ["a.example."], 30)
    zone.put("big.example", "TXT", [f"{number:03} " + "x" * 200 for number in range(20)], 60)
    zone.put("none.example", "MX", [], 60)
    zone.put("1.2.0.192.in-addr.arpa", "PTR", ["A.example."], 60)
    return zone


async def test_records_in_our_form(zone: Zone) -> None:
    async with served(zone) as resolver:
        answer = await resolver.ask(Question("A.Example.", "a"))
        assert (answer.status, sorted(answer.records), answer.ttl) == ("ok", ["192.0.2.1", "192.0.2.2"], 60)
        assert answer.server.startswith("127.0.0.1:")
        assert sorted((await resolver.ask(Question("a.example", "TXT"))).records) == [b"onetwo", b"three; four"]
        assert sorted((await resolver.ask(Question("a.example", "MX"))).records) == ["10 a.example", "20 b.example"]
        assert (await resolver.ask(Question("1.2.0.192.in-addr.arpa", "PTR"))).records == ("a.example",)


async def test_negative_answers_are_told_apart(zone: Zone) -> None:
    async with served(zone) as resolver:
        assert (await resolver.ask(Question("none.example", "MX"))).status == "nodata"
        assert (await resolver.ask(Question("a.example", "SRV"))).status == "nodata"
        assert (await resolver.ask(Question("gone.example", "A"))).status == "nxdomain"


async def test_aliases_are_followed_and_the_least_ttl_counts(zone: Zone) -> None:
    async with served(zone) as resolver:
        answer = await resolver.ask(Question("alias.example", "A"))
        assert (len(answer.records), answer.ttl) == (2, 30)


async def test_a_long_answer_comes_over_tcp(zone: Zone) -> None:
    async with served(zone) as resolver:
        answer = await resolver.ask(Question("big.example", "TXT"))
        assert len(answer.records) == 20


async def test_exchanges_and_addresses(zone: Zone) -> None:
    async with served(zone) as resolver:
        assert await resolver.exchanges("a.example") == ExchangeAnswer(
            "ok", (Exchange(10, "a.example"), Exchange(20, "b.example"))
        )
        assert await resolver.exchanges("null.example") == ExchangeAnswer("ok", (Exchange(0, ""),))
        assert await resolver.exchanges("gone.example") == ExchangeAnswer("nxdomain", ())
        addresses = await resolver.addresses("alias.example")
        assert (sorted(addresses[:2]), addresses[2:]) == (["192.0.2.1", "192.0.2.2"], ["2001:db8::1"])
        assert await resolver.addresses("gone.example") == []


async def test_memory_lasts_as_long_as_the_clock_says(zone: Zone) -> None:
    clock = FrozenClock()
    async with served(zone, clock) as resolver:
        await resolver.ask(Question("a.example", "A"))
        zone.put("a.example", "A", ["192.0.2.9"], 60)
        clock.advance(59)
        known = await resolver.ask(Question("a.example", "A"))
        assert (len(known.records), known.ttl, known.server) == (2, 1, "cache")
        clock.advance(1)
        assert (await resolver.ask(Question("a.example", "A"))).records == ("192.0.2.9",)


async def test_negative_answers_are_remembered_too(zone: Zone) -> None:
    clock = FrozenClock()
    async with served(zone, clock) as resolver:
        await resolver.ask(Question("none.example", "MX"))
        zone.put("none.example", "MX", ["10 a.example."])
        assert (await resolver.ask(Question("none.example", "MX"))).status == "nodata"
        clock.advance(61)
        assert (await resolver.ask(Question("none.example", "MX"))).status == "ok"


async def test_fresh_asks_again_and_renews_the_memory(zone: Zone) -> None:
    async with served(zone) as resolver:
        await resolver.ask(Question("a.example", "A"))
        zone.put("a.example", "A", ["192.0.2.9"], 60)
        assert (await resolver.ask(Question("a.example", "A"), fresh=True)).records == ("192.0.2.9",)
        assert (await resolver.ask(Question("a.example", "A"))).records == ("192.0.2.9",)


async def test_failures_are_statuses_and_not_remembered(zone: Zone) -> None:
    zone.put_failure("a.example", "A", "SERVFAIL")
    zone.put_failure("a.example", "MX", "REFUSED")
    async with served(zone) as resolver:
        assert (await resolver.ask(Question("a.example", "A"))).status == "servfail"
        assert (await resolver.ask(Question("a.example", "MX"))).status == "refused"
        zone.put("a.example", "A", ["192.0.2.1"])
        assert (await resolver.ask(Question("a.example", "A"))).status == "ok"


async def test_no_answer_is_a_timeout(zone: Zone) -> None:
    zone.put_failure("a.example", "A", "DROP")
    async with served(zone, timeout=0.05, rounds=1) as resolver:
        assert (await resolver.ask(Question("a.example", "A"))).status == "timeout"


@pytest.mark.parametrize("fault", ["edns-formerr", "edns-notimp", "edns-badvers"])
async def test_a_server_without_edns_is_asked_without(zone: Zone, fault: str) -> None:
    peer = Peer(zone, fault)
    async with peers({RESOLVER: peer}) as port:
        resolver = Resolver([(RESOLVER, port)], FrozenClock(), rounds=1)
        assert len((await resolver.ask(Question("big.example", "TXT"))).records) == 20
    assert [(query.edns, query.tcp) for query in peer.queries] == [(True, False), (False, False), (False, True)]


async def test_the_last_round_goes_without_edns_to_who_was_silent(zone: Zone) -> None:
    silent, failing = Peer(zone, "edns-drop"), Peer(zone, "servfail")
    servers = {RESOLVER: failing, "127.0.0.54": silent}
    async with peers(servers) as port:
        resolver = Resolver([(address, port) for address in servers], FrozenClock(), timeout=0.1, rounds=2)
        assert (await resolver.ask(Question("a.example", "A"))).status == "ok"
    assert [query.edns for query in failing.queries] == [True, True]
    assert [query.edns for query in silent.queries] == [True, False]


async def test_an_allowance_counts_the_packets_of_a_resolver_too(zone: Zone) -> None:
    async with served(zone) as resolver:
        check = Allowance(3)
        for name, rdtype, status in (
            ("big.example", "TXT", "ok"),  # two packets, for it comes over TCP
            ("a.example", "A", "ok"),
            ("a.example", "A", "ok"),  # from memory
            ("a.example", "AAAA", "limit"),
        ):
            assert (await resolver.ask(Question(name, rdtype), allowance=check)).status == status
        assert (await resolver.ask(Question("a.example", "AAAA"))).status == "ok"


async def test_the_root_can_be_asked_past_the_memory(zone: Zone) -> None:
    async with served(zone) as resolver:
        assert (await resolver.find(Question("", "NS"))).records == ("ns.outgate.test",)


async def test_a_name_that_cannot_be_asked(zone: Zone) -> None:
    async with served(zone) as resolver:
        for name in ("", "a..b", "x" * 64 + ".example", "é.example", "a." * 127 + "example"):
            assert (await resolver.ask(Question(name, "A"))).status == "badname"


async def test_escapes_mean_nothing(zone: Zone) -> None:
    async with served(zone) as resolver:
        assert (await resolver.ask(Question("\\097.example", "A"))).status == "nxdomain"


async def test_the_next_server_is_asked_when_one_fails(zone: Zone) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        async with served(zone) as good:
            resolver = Resolver([deaf.getsockname(), *good._servers], FrozenClock(), timeout=0.05, rounds=1)
            assert (await resolver.ask(Question("a.example", "A"))).status == "ok"


async def test_the_same_question_is_asked_once_at_a_time(zone: Zone) -> None:
    asked: list[str] = []
    answer = zone.answer

    def counted(query):
        asked.append(query.question[0].name.to_text())
        return answer(query)

    zone.answer = counted  # type: ignore[method-assign]
    async with served(zone) as resolver:
        found = await asyncio.gather(*(resolver.ask(Question("a.example", "A")) for _ in range(5)))
        assert {one.status for one in found} == {"ok"}
        assert asked == ["a.example."]


async def test_the_cache_is_bounded(zone: Zone) -> None:
    async with served(zone, cache_size=2) as resolver:
        for rdtype in ("A", "AAAA", "TXT"):
            await resolver.ask(Question("a.example", rdtype))
        servers = [(await resolver.ask(Question("a.example", rdtype))).server for rdtype in ("TXT", "AAAA")]
        assert servers == ["cache", "cache"]
        assert (await resolver.ask(Question("a.example", "A"))).server != "cache"


async def test_answers_of_strangers_are_not_taken(zone: Zone) -> None:
    """Datagrams that fit in all but one thing, and one from another port, come first: the true answer is awaited."""
    loop = asyncio.get_running_loop()

    class Forger(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            true = respond(zone, data, 1232)
            assert true is not None
            self.transport.sendto(bytes([true[0] ^ 0xFF]) + true[1:], addr)
            self.transport.sendto(data, addr)  # no response at all
            self.transport.sendto(true.replace(b"\1a\7example", b"\1b\7example"), addr)  # to another question
            self.transport.sendto(true.replace(b"\0\x1c\0\1", b"\0\1\0\1", 1), addr)
            self.transport.sendto(true[:-3], addr)  # broken off
            self.transport.sendto(true[:2] + b"\x81\x80" + bytes(8), addr)  # success without a question
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", 0))
                other.sendto(data, addr)
            self.transport.sendto(respond(zone, data, 1232), addr)

    transport, _ = await loop.create_datagram_endpoint(Forger, local_addr=("127.0.0.1", 0))
    try:
        resolver = Resolver([transport.get_extra_info("sockname")], FrozenClock())
        assert (await resolver.ask(Question("a.example", "AAAA"))).records == ("2001:db8::1",)
    finally:
        transport.close()


async def test_an_older_answer_that_comes_late_does_not_replace_a_fresher_one(zone: Zone) -> None:
    loop = asyncio.get_running_loop()
    queries: list[tuple[bytes, tuple[str, int]]] = []
    arrived = asyncio.Event()

    class Slow(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            queries.append((data, addr))
            arrived.set()

    transport, _ = await loop.create_datagram_endpoint(Slow, local_addr=("127.0.0.1", 0))
    try:
        resolver = Resolver([transport.get_extra_info("sockname")], FrozenClock(), timeout=5)
        first = asyncio.ensure_future(resolver.ask(Question("a.example", "AAAA")))
        await arrived.wait()
        arrived.clear()
        second = asyncio.ensure_future(resolver.ask(Question("a.example", "AAAA"), fresh=True))
        await arrived.wait()
        old = respond(zone, queries[0][0], 1232)
        zone.put("a.example", "AAAA", ["2001:db8::2"], 60)
        transport.sendto(respond(zone, queries[1][0], 1232), queries[1][1])
        assert (await second).records == ("2001:db8::2",)
        transport.sendto(old, queries[0][1])
        assert (await first).records == ("2001:db8::1",)
        assert (await resolver.ask(Question("a.example", "AAAA"))).records == ("2001:db8::2",)
    finally:
        transport.close()


async def test_answer_all_drives_an_evaluation(zone: Zone) -> None:
    def evaluation():
        first: Answer = yield Question("a.example", "AAAA")
        second: Answer = yield Question("gone.example", "A")
        return first.records, second.status

    async with served(zone) as resolver:
        assert await answer_all(evaluation(), resolver) == (("2001:db8::1",), "nxdomain")


@pytest.mark.parametrize("trusted", [True, False])
async def test_only_the_word_of_a_trusted_resolver_is_read(trusted: bool) -> None:
    peer, asked = Peer(Zone(address=RESOLVER)), list[dns.message.Message]()
    peer.zone.put("x.example", "MX", ["10 mx.example."], 60)
    peer.zone.put("mx.example", "A", ["192.0.2.1"], 60)
    answer = peer.reply

    def authentic(wire: bytes, *, tcp: bool) -> bytes | None:
        asked.append(dns.message.from_wire(wire))
        said = answer(wire, tcp=tcp)
        return said and said[:3] + bytes([said[3] | 0x20]) + said[4:]

    peer.reply = authentic  # type: ignore[method-assign]
    async with peers({RESOLVER: peer}) as port:
        resolver = Resolver([(RESOLVER, port)], FrozenClock(), trusted=trusted)
        assert (await resolver.ask(Question("x.example", "MX"))).secure is trusted
        assert (await resolver.exchanges("x.example")).secure is trusted
        assert (await resolver.hosts("mx.example")).secure is trusted
        assert (await resolver.ask(Question("nobody.example", "TLSA"))).secure is trusted
        assert (await resolver.ask(Question("x.example", "MX"))).secure is trusted  # from memory too
    for query in asked:
        assert bool(query.flags & dns.flags.AD) is trusted is bool(query.ednsflags & dns.flags.DO)
