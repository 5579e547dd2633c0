"""Where mail goes by real DNS packets: aliases, circles, times to live, and servers that lie, keep silent or go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Question
from outgate.net.dns import Resolver
from outgate.relay.endpoints import Endpoint
from outgate.relay.routing import Router, Unroutable
from outgate.sandbox.zone import Zone
from support.names import RESOLVER, Peer, peers, served


def router(resolver: Resolver, sources: tuple[str, ...] = ("192.0.2.5",)) -> Router:
    endpoint = Endpoint("dal", (), "smtp.test", "private.smtp.test", ("192.0.2.9",), sources, "out.test")
    return Router(
        resolver, port=25, endpoint=endpoint, deliver_to="", own_names=("relay.test",), permitted=lambda n, a: True
    )


def zone(**records: str | list[str]) -> Zone:
    """Return a zone of example: `mx_a` is the MX of a.example, …; `cname_a` an alias; "_" stands for a dot."""
    found = Zone()
    for key, values in records.items():
        rdtype, _, name = key.partition("_")
        given = [values] if isinstance(values, str) else values
        found.put(f"{name.replace('_', '.')}.example", rdtype.upper(), given, 300)
    return found


async def hosts(resolver: Resolver, domain: str) -> list[tuple[str, str]]:
    return [(host.name, host.address) for host in (await router(resolver).route(domain)).hosts]


async def failure(resolver: Resolver, domain: str) -> Unroutable:
    with pytest.raises(Unroutable) as caught:
        await router(resolver).route(domain)
    return caught.value


async def test_a_domain_that_is_an_alias_has_the_mx_of_what_it_stands_for() -> None:
    it = zone(cname_x="y.example.", mx_y="10 mx.example.", a_mx="192.0.2.1", a_y="192.0.2.99")
    async with served(it) as resolver:
        assert await hosts(resolver, "x.example") == [("mx.example", "192.0.2.1")]


async def test_an_alias_without_mx_is_its_own_host() -> None:
    async with served(zone(cname_x="y.example.", a_y="192.0.2.1")) as resolver:
        assert await hosts(resolver, "x.example") == [("x.example", "192.0.2.1")]


async def test_an_mx_host_that_is_an_alias_keeps_its_name() -> None:
    it = zone(mx_x="10 mx.example.", cname_mx="b.example.", cname_b="c.example.", a_c=["192.0.2.1", "192.0.2.2"])
    async with served(it) as resolver:
        assert sorted(await hosts(resolver, "x.example")) == [("mx.example", "192.0.2.1"), ("mx.example", "192.0.2.2")]


async def test_aliases_in_a_circle_end_as_a_deferral() -> None:
    it = zone(cname_x="y.example.", cname_y="x.example.", mx_z="10 x.example.", cname_self="self.example.")
    async with served(it, timeout=0.5) as resolver:
        for domain in ("x.example", "z.example", "self.example"):
            error = await failure(resolver, domain)
            assert (error.permanent, error.reason) == (False, "dns"), domain


async def test_an_alias_to_the_null_mx_takes_no_mail() -> None:
    async with served(zone(cname_x="y.example.", mx_y="0 .")) as resolver:
        assert (await failure(resolver, "x.example")).enhanced == "5.1.10"


async def test_an_mx_that_is_ourselves_by_alias_of_the_domain_is_a_loop() -> None:
    it = zone(cname_x="y.example.", mx_y="10 relay.test.")
    async with served(it) as resolver:
        assert (await failure(resolver, "x.example")).reason == "loop"


async def test_what_dns_said_is_kept_for_its_ttl_and_no_longer() -> None:
    clock, it = FrozenClock(), Zone()
    it.put("x.example", "MX", ["10 a.example."], 300)
    it.put("a.example", "A", ["192.0.2.1"], 60)
    async with served(it, clock) as resolver:
        assert await hosts(resolver, "x.example") == [("a.example", "192.0.2.1")]
        it.put("x.example", "MX", ["10 b.example."], 300)
        it.put("a.example", "A", ["192.0.2.2"], 60)
        it.put("b.example", "A", ["192.0.2.3"], 60)
        clock.advance(59)
        assert await hosts(resolver, "x.example") == [("a.example", "192.0.2.1")]
        clock.advance(1)
        assert await hosts(resolver, "x.example") == [("a.example", "192.0.2.2")]
        clock.advance(239)
        assert await hosts(resolver, "x.example") == [("a.example", "192.0.2.2")]
        clock.advance(1)
        assert await hosts(resolver, "x.example") == [("b.example", "192.0.2.3")]


async def test_a_hundred_hosts_with_a_hundred_addresses_each_give_twenty() -> None:
    it = Zone()
    it.put("x.example", "MX", [f"{n} h{n}.example." for n in range(100)], 300)
    for number in range(100):
        it.put(f"h{number}.example", "A", [f"192.0.2.{n}" for n in range(100)], 300)
    async with served(it) as resolver:
        found = await hosts(resolver, "x.example")
        assert len(found) == 20 and {name for name, _ in found} == {"h0.example"}


async def test_sixty_thousand_octets_of_addresses_are_read_and_twenty_used() -> None:
    peer = Peer(Zone(address=RESOLVER))
    answer = _huge(4000)
    peer.reply = lambda wire, *, tcp: answer(wire, tcp)  # type: ignore[method-assign]
    async with _asking(peer) as resolver:
        found = (await router(resolver).route("x.example")).hosts
        assert len(found) == 20
        assert len((await resolver.ask(Question("x.example", "A"))).records) == 4000


def _huge(number: int) -> Callable[[bytes, bool], bytes]:
    """Return what answers questions for A with as many addresses, over TCP: 64 KB of them."""

    def answer(wire: bytes, tcp: bool) -> bytes:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        if dns.rdatatype.to_text(query.question[0].rdtype) == "A":
            if not tcp:
                response.flags |= dns.flags.TC
                return response.to_wire()
            addresses = [f"192.0.{n >> 8}.{n & 255}" for n in range(number)]
            response.answer.append(dns.rrset.from_text_list(query.question[0].name, 300, "IN", "A", addresses))
        return response.to_wire(max_size=65_535)

    return answer


@asynccontextmanager
async def _asking(peer: Peer, timeout: float = 30.0) -> AsyncIterator[Resolver]:
    async with peers({RESOLVER: peer}) as port:
        yield Resolver([(RESOLVER, port)], FrozenClock(), timeout=timeout, rounds=1)


@pytest.mark.parametrize("fault", ["servfail", "refused", "drop", "truncated-no-tcp", "wrong-id", "malformed"])
async def test_servers_that_fail_lie_or_keep_silent_are_a_deferral(fault: str) -> None:
    peer = Peer(zone(mx_x="10 mx.example.", a_mx="192.0.2.1"), fault)
    silent = fault in ("drop", "truncated-no-tcp", "wrong-id", "malformed")  # the last is as good as no answer
    async with _asking(peer, 0.2 if silent else 30.0) as resolver:
        error = await failure(resolver, "x.example")
        assert (error.permanent, error.reason) == (False, "dns")
        peer.fault, resolver._timeout = "", 30.0
        assert await hosts(resolver, "x.example") == [("mx.example", "192.0.2.1")]  # a failure is not remembered


async def test_a_server_that_fails_for_one_host_costs_that_host_alone() -> None:
    it = zone(mx_x=["10 a.example.", "20 b.example."], a_b="192.0.2.2")
    it.put_failure("a.example", "A", "SERVFAIL")
    it.put_failure("a.example", "AAAA", "SERVFAIL")
    async with served(it) as resolver:
        assert await hosts(resolver, "x.example") == [("b.example", "192.0.2.2")]


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [(("192.0.2.5",), {"A"}), (("2001:db8::5",), {"AAAA"}), (("192.0.2.5", "2001:db8::5"), {"A", "AAAA"})],
)
async def test_addresses_are_asked_for_only_of_families_that_can_be_left_from(
    sources: tuple[str, ...], wanted: set[str]
) -> None:
    peer = Peer(zone(mx_x="10 mx.example.", a_mx="192.0.2.1", aaaa_mx="2001:db8::1"))
    async with peers({RESOLVER: peer}) as port:
        await router(Resolver([(RESOLVER, port)], FrozenClock()), sources).route("x.example")
    assert {query.rdtype for query in peer.queries} == {"MX"} | wanted
    assert len(peer.queries) == 1 + len(wanted)


async def test_a_host_of_the_other_family_alone_is_no_host_without_an_address() -> None:
    peer = Peer(zone(mx_x="10 mx.example.", aaaa_mx="2001:db8::1"))
    async with peers({RESOLVER: peer}) as port:
        error = await failure(Resolver([(RESOLVER, port)], FrozenClock()), "x.example")
    assert not error.permanent  # it has one, though not for us: an address to leave from may come
    assert peer.asked("A") == peer.asked("AAAA") == ["mx.example"]
