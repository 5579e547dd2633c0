"""Asking authoritative servers, over real sockets: agreement, faults, contradiction, aliases, memory, pace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Answer, Heard, Question
from outgate.net.allowance import Allowance
from outgate.net.authority import Authority
from outgate.net.dns import Resolver
from outgate.net.pace import Pace
from outgate.sandbox.zone import Zone
from support.names import FAULTS, RESOLVER, Peer, authority, delegate, peers

NS1, NS2, NS3 = "127.0.0.11", "127.0.0.12", "127.0.0.13"
A = Question("shop.test", "A")


class World:
    """A recursive server and the servers of shop.test, which all know its address."""

    def __init__(self, *addresses: str, ttl: int = 300) -> None:
        addresses = addresses or (NS1, NS2)
        self.root = Peer(Zone(address=RESOLVER))
        delegate(self.root.zone, "shop.test", *addresses, ttl=ttl)
        self.servers = {address: Peer() for address in addresses}
        for peer in self.servers.values():
            peer.zone.put("shop.test", "NS", ["ns1.shop.test."], 300)
            peer.zone.put("shop.test", "A", ["192.0.2.1"], 300)
            peer.version("shop.test", 7)

    def __getitem__(self, address: str) -> Peer:
        return self.servers[address]

    def serve(self, clock: FrozenClock | None = None, **options: Any):
        return authority({RESOLVER: self.root} | self.servers, clock, **options)


async def test_every_server_is_asked_without_recursion() -> None:
    world = World()
    async with world.serve() as asker:
        answer = await asker.ask(A)
    assert (answer.status, answer.records, answer.ttl, answer.alias) == ("ok", ("192.0.2.1",), 300, "")
    assert [heard.server.partition(":")[0] for heard in answer.heard] == [NS1, NS2]
    assert {(heard.status, heard.records) for heard in answer.heard} == {("ok", ("192.0.2.1",))}
    for peer in world.servers.values():
        assert [(query.name, query.rdtype, query.recursive) for query in peer.queries] == [("shop.test", "A", False)]
    assert all(query.recursive for query in world.root.queries)


async def test_the_order_of_records_makes_no_difference_and_the_least_ttl_counts() -> None:
    world = World()
    world[NS1].zone.put("shop.test", "A", ["192.0.2.1", "192.0.2.2"], 300)
    world[NS2].zone.put("shop.test", "A", ["192.0.2.2", "192.0.2.1"], 20)
    async with world.serve() as asker:
        answer = await asker.ask(A)
    assert (answer.status, sorted(answer.records), answer.ttl) == ("ok", ["192.0.2.1", "192.0.2.2"], 20)


async def test_no_data_and_no_name_are_both_nothing() -> None:
    world = World()
    question = Question("gone.shop.test", "TXT")
    world[NS1].zone.put_failure("gone.shop.test", "TXT", "NXDOMAIN")
    async with world.serve() as asker:
        assert (await asker.ask(question)).status == "nodata"
        world[NS2].zone.put_failure("gone.shop.test", "TXT", "NXDOMAIN")
        assert (await asker.ask(question, fresh=True)).status == "nxdomain"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_its_servers_only(fault: str) -> None:
    world = World()
    world[NS1].fault = fault
    async with world.serve(timeout=1.0) as asker:
        answer = await asker.ask(A)
    assert (answer.status, answer.records) == ("ok", ("192.0.2.1",))
    status = {
        "drop": "timeout", "referral": "lame", "truncated": "ok", "truncated-no-tcp": "unreachable",
        "wrong-id": "timeout", "malformed": "timeout",
        "edns-formerr": "ok", "edns-notimp": "ok", "edns-badvers": "ok",
    }.get(fault, fault)  # fmt: skip
    assert [heard.status for heard in answer.heard] == [status, "ok"]


@pytest.mark.parametrize("zone", ["", "test"])
@pytest.mark.parametrize("rcode", ["", "NXDOMAIN"])
async def test_that_there_is_nothing_is_believed_of_servers_of_the_zone_only(zone: str, rcode: str) -> None:
    """A server on which the domain was never set up, or no longer is, answers from the zone above, and with AA."""
    world = World()
    for address in (NS1, NS2):
        world.servers[address] = peer = Peer()
        if zone:
            peer.zone.put(zone, "NS", ["ns1.nic.test."])
        if rcode:
            peer.zone.put_failure("shop.test", "A", rcode)
    async with world.serve() as asker:
        answer = await asker.ask(A)
        assert (answer.status, answer.failed) == ("lame", True)
        world[NS1].version("shop.test", 7)
        answer = await asker.ask(A)
        assert answer.status == ("nxdomain" if rcode else "nodata")
        assert [heard.status for heard in answer.heard] == [answer.status, "lame"]


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("drop", "servfail", "servfail"),
        ("refused", "drop", "refused"),
        ("lame", "drop", "lame"),
        ("drop", "drop", "timeout"),
    ],
)
async def test_when_nobody_knows_the_most_telling_failure_is_the_answer(first: str, second: str, status: str) -> None:
    world = World()
    world[NS1].fault, world[NS2].fault = first, second
    async with world.serve(timeout=1.0) as asker:
        answer = await asker.ask(A)
    assert (answer.status, answer.failed, answer.records, len(answer.heard)) == (status, True, (), 2)


async def test_a_server_that_is_silent_is_asked_again() -> None:
    world = World(NS1)
    world[NS1].fault = "drop"
    async with world.serve(timeout=0.05, tries=3) as asker:
        assert (await asker.ask(A)).status == "timeout"
    assert world[NS1].asked("A") == ["shop.test"] * 3


async def test_the_last_try_goes_without_edns() -> None:
    world = World(NS1)
    world[NS1].fault = "edns-drop"
    async with world.serve(timeout=1.0, tries=3) as asker:
        assert (await asker.ask(A)).status == "ok"
    assert [query.edns for query in world[NS1].queries] == [True, True, False]


async def test_a_server_without_edns_is_asked_without_and_recursion_stays_off() -> None:
    world = World(NS1)
    world[NS1].fault = "edns-formerr"
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "ok"
    assert [(query.edns, query.recursive) for query in world[NS1].queries] == [(True, False), (False, False)]


async def test_a_long_answer_comes_over_tcp() -> None:
    world = World()
    for peer in world.servers.values():
        peer.zone.put("shop.test", "TXT", [f"{number:03}" + "x" * 200 for number in range(20)], 60)
    async with world.serve() as asker:
        assert len((await asker.ask(Question("shop.test", "TXT"))).records) == 20
    assert [query.tcp for query in world[NS1].queries] == [True] or [query.tcp for query in world[NS1].queries] == [
        False,
        True,
    ]


# -- contradiction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [NS1, NS2, NS3])
@pytest.mark.parametrize("serials", [(7, 8), (2**32 - 1, 0), (2**32 - 5, 100)])
@pytest.mark.parametrize("truth", [["192.0.2.9"], []])
async def test_the_newest_version_of_the_zone_decides(stale: str, serials: tuple[int, int], truth: list[str]) -> None:
    world = World(NS1, NS2, NS3)
    for address, peer in world.servers.items():
        peer.version("shop.test", serials[address != stale])
        if address != stale:
            peer.zone.put("shop.test", "A", truth, 60)
    async with world.serve() as asker:
        answer = await asker.ask(A)
    assert (answer.status, answer.records) == ("ok" if truth else "nodata", tuple(truth))
    serial_of = {heard.server.partition(":")[0]: heard.serial for heard in answer.heard}
    assert serial_of == {address: serials[address != stale] for address in world.servers}


async def split(change: Callable[[World], None]) -> Answer:
    """Return the answer of two servers that contradict each other, after `change`."""
    world = World()
    world[NS2].zone.put("shop.test", "A", [], 60)
    change(world)
    async with world.serve() as asker:
        return await asker.ask(A)


async def test_servers_of_the_same_version_that_contradict_each_other_decide_nothing() -> None:
    answer = await split(lambda world: None)
    assert (answer.status, answer.failed, answer.void, answer.records) == ("split", True, False, ())
    assert [(heard.status, heard.serial) for heard in answer.heard] == [("ok", 7), ("nodata", 7)]


async def test_addresses_that_differ_with_every_answer_are_all_true() -> None:
    world = World()
    world[NS2].zone.put("shop.test", "A", ["192.0.2.2"], 20)
    async with world.serve() as asker:
        answer = await asker.ask(A)
        assert (answer.status, answer.records, answer.ttl) == ("ok", ("192.0.2.1", "192.0.2.2"), 20)
        assert [heard.records for heard in answer.heard] == [("192.0.2.1",), ("192.0.2.2",)]
        for address in world.servers:
            world[address].zone.put("shop.test", "TXT", [address], 60)
        assert (await asker.ask(Question("shop.test", "TXT"))).status == "split"  # not so with other records


async def test_addresses_of_an_older_version_are_not_among_them() -> None:
    world = World(NS1, NS2, NS3)
    world[NS1].version("shop.test", 6)
    for address, record in ((NS2, "192.0.2.2"), (NS3, "192.0.2.3")):
        world[address].zone.put("shop.test", "A", [record], 60)
    async with world.serve() as asker:
        assert (await asker.ask(A)).records == ("192.0.2.2", "192.0.2.3")


async def test_versions_of_different_primaries_cannot_be_compared() -> None:
    assert (await split(lambda world: world[NS2].version("shop.test", 9, "ns9.other.test."))).status == "split"


async def test_a_version_that_cannot_be_asked_decides_nothing() -> None:
    assert (await split(lambda world: world[NS2].zone.put_failure("shop.test", "SOA", "SERVFAIL"))).status == "split"


async def test_serials_half_the_circle_apart_cannot_be_compared() -> None:
    assert (await split(lambda world: world[NS2].version("shop.test", 7 + 2**31))).status == "split"


async def test_the_newest_servers_must_agree_among_themselves() -> None:
    world = World(NS1, NS2, NS3)
    world[NS1].version("shop.test", 6)
    world[NS2].zone.put("shop.test", "A", [], 60)
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "split"


async def test_a_zone_that_changes_while_it_is_asked_decides_nothing() -> None:
    world = World()
    world[NS1].version("shop.test", 8)
    for address, text in ((NS1, "new"), (NS2, "old")):
        world[address].zone.put("shop.test", "TXT", [text], 60)
    reply = world[NS1].reply

    def changing(wire: bytes, *, tcp: bool) -> bytes | None:
        answer = reply(wire, tcp=tcp)
        world[NS1].zone.put("shop.test", "TXT", ["newer"], 60)
        return answer

    world[NS1].reply = changing  # type: ignore[method-assign]
    async with world.serve() as asker:
        assert (await asker.ask(Question("shop.test", "TXT"))).status == "split"
        assert (await asker.ask(Question("shop.test", "TXT"))).records == (b"newer",)


@pytest.mark.parametrize("rdtype", ["A", "TXT"])
@pytest.mark.parametrize("removed", [True, False])
async def test_a_secondary_that_seems_to_be_ahead_does_not_outvote_the_primary(rdtype: str, removed: bool) -> None:
    """The primary counts 1, 2, 3 …, and a secondary has an old zone of the time when dates were counted."""
    world = World(NS1, NS2, NS3)
    for number, (address, peer) in enumerate(world.servers.items()):
        peer.version("shop.test", 2026010101 if address == NS2 else 5, "ns3.shop.test.")
        values = {"A": f"192.0.2.{number}", "TXT": f"v=spf1 ip4:192.0.2.{number}"}
        peer.zone.put("shop.test", rdtype, [] if address == NS2 and removed else [values[rdtype]], 60)
    async with world.serve() as asker:
        answer = await asker.ask(Question("shop.test", rdtype))
        assert (answer.status, answer.failed) == ("split", True)
        assert [heard.serial for heard in answer.heard] == [5, 2026010101, 5]
        # Had it been found out that the primary is another's address, the numbers would count.
        for peer in world.servers.values():
            peer.version("shop.test", 2026010101 if peer is world[NS2] else 5, "elsewhere.test.")
        answer = await asker.ask(Question("shop.test", rdtype), fresh=True)
        assert answer.status == ("nodata" if removed else "ok")


async def test_the_primary_is_known_by_its_address_whatever_its_name() -> None:
    world = World()
    for address in (NS1, NS2):
        world[address].version("shop.test", 9 if address == NS2 else 5, "Master.shop.test.")
    world[NS2].zone.put("shop.test", "A", [], 60)
    world.root.zone.put("master.shop.test", "A", [NS1], 0)
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "split"
        world.root.zone.put("master.shop.test", "A", ["192.0.2.53"])  # hidden: none of those that are asked
        assert (await asker.ask(A)).status == "nodata"


@pytest.mark.parametrize("primary", [NS1, NS2])
async def test_a_primary_that_is_silent_or_ahead_itself_contradicts_nobody(primary: str) -> None:
    world = World(NS1, NS2, NS3)
    for address, peer in world.servers.items():
        peer.version("shop.test", 8 if address == NS2 else 7, "ns1.shop.test." if primary == NS1 else "ns2.shop.test.")
    world[NS2].zone.put("shop.test", "A", [], 60)
    if primary == NS1:
        world[NS1].fault = "servfail"
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "nodata"


@pytest.mark.parametrize("primary", [".", "b\\195d.shop.test.", "gone.invalid."])
async def test_a_primary_that_leads_nowhere_is_nobody(primary: str) -> None:
    world = World()
    for address in (NS1, NS2):
        world[address].version("shop.test", 8 if address == NS2 else 7, primary)
    world[NS2].zone.put("shop.test", "A", [], 60)
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "nodata"


# -- aliases ----------------------------------------------------------------------------------------------------


def with_provider(world: World) -> Peer:
    """Add a provider's zone at NS3 to which a name of shop.test points."""
    provider = world.servers[NS3] = Peer()
    delegate(world.root.zone, "provider.test", NS3)
    provider.zone.put("key.provider.test", "TXT", ["right"], 40)
    for address in (NS1, NS2):
        world[address].zone.put("key.shop.test", "CNAME", ["key.provider.test."], 60)
    return provider


async def test_an_alias_is_followed_to_the_targets_own_servers() -> None:
    world = World()
    provider = with_provider(world)
    for address in (NS1, NS2):  # what they say about another's name is not believed
        world[address].zone.put("key.provider.test", "TXT", ["forged"], 60)
    async with world.serve() as asker:
        answer = await asker.ask(Question("key.shop.test", "TXT"))
    assert (answer.status, answer.records, answer.ttl, answer.alias) == ("ok", (b"right",), 40, "key.provider.test")
    assert provider.asked("TXT") == ["key.provider.test"]
    assert [(heard.status, heard.records, heard.name) for heard in answer.heard] == [
        ("alias", ("key.provider.test",), ""),
        ("alias", ("key.provider.test",), ""),
        ("ok", (b"right",), "key.provider.test"),
    ]


async def test_the_resolvers_word_on_the_servers_of_an_alias_is_not_mistaken_for_its_own() -> None:
    world = World()
    with_provider(world)
    world.root.zone.put("www.shop.test", "CNAME", ["provider.test."], 60)  # whose NS it then answers
    for address in (NS1, NS2):
        world[address].zone.put("www.shop.test", "CNAME", ["key.provider.test."], 60)
    async with world.serve() as asker:
        assert (await asker.ask(Question("www.shop.test", "TXT"))).records == (b"right",)


async def test_the_fault_of_an_aliass_target_is_a_failure() -> None:
    world = World()
    with_provider(world).fault = "servfail"
    async with world.serve() as asker:
        assert (await asker.ask(Question("key.shop.test", "TXT"))).status == "servfail"


async def test_an_alias_can_be_asked_for_itself() -> None:
    world = World()
    with_provider(world)
    async with world.serve() as asker:
        answer = await asker.ask(Question("key.shop.test", "CNAME"))
    assert (answer.records, answer.alias) == (("key.provider.test",), "")


def with_aliases(world: World, length: int) -> Callable[[int], str]:
    """Make a chain of `length` aliases that goes to and fro between two zones; return the names in it."""
    world.servers[NS3] = Peer()
    delegate(world.root.zone, "other.test", NS3)
    zones = ("shop.test", "other.test")
    for number in range(length):
        peer = world[(NS1, NS3)[number % 2]]
        peer.zone.put(f"a{number}.{zones[number % 2]}", "CNAME", [f"a{number + 1}.{zones[(number + 1) % 2]}."], 60)
    return lambda number: f"a{number}.{zones[number % 2]}"


@pytest.mark.parametrize(("length", "status"), [(1, "ok"), (8, "ok"), (9, "limit"), (12, "limit")])
async def test_eight_aliases_are_followed(length: int, status: str) -> None:
    world = World(NS1)
    name = with_aliases(world, length)
    world[(NS1, NS3)[length % 2]].zone.put(name(length), "TXT", ["end"], 60)
    async with world.serve() as asker:
        answer = await asker.ask(Question(name(0), "TXT"))
    assert (answer.status, answer.failed) == (status, status == "limit")
    assert answer.alias == name(min(length, 9))


@pytest.mark.parametrize("length", [1, 3])
async def test_aliases_in_a_circle_end(length: int) -> None:
    world = World(NS1)
    name = with_aliases(world, length)
    world[(NS1, NS3)[length % 2]].zone.put(name(length), "CNAME", [name(0) + "."], 60)
    async with world.serve() as asker:
        answer = await asker.ask(Question(name(0), "TXT"))
    assert (answer.status, answer.failed) == ("limit", True)
    assert len(answer.heard) == length + 1


async def test_servers_that_alias_differently_are_split() -> None:
    world = World()
    with_provider(world)
    world[NS2].zone.put("key.shop.test", "CNAME", ["old.provider.test."], 60)
    async with world.serve() as asker:
        assert (await asker.ask(Question("key.shop.test", "TXT"))).status == "split"


# -- finding the servers ----------------------------------------------------------------------------------------


async def test_the_deepest_zone_counts() -> None:
    world = World()
    inner = world.servers[NS3] = Peer()
    delegate(world.root.zone, "mail.shop.test", NS3)
    inner.zone.put("a.b.mail.shop.test", "A", ["192.0.2.3"], 60)
    async with world.serve() as asker:
        assert (await asker.ask(Question("a.b.mail.shop.test", "A"))).records == ("192.0.2.3",)
    assert world.root.asked("NS") == ["a.b.mail.shop.test", "b.mail.shop.test", "mail.shop.test"]
    assert not world[NS1].queries


async def test_a_name_below_a_label_whose_ns_cannot_be_asked() -> None:
    world = World()
    world.root.zone.put_failure("_domainkey.shop.test", "NS", "SERVFAIL")
    async with world.serve() as asker:
        assert (await asker.ask(Question("sel._domainkey.shop.test", "TXT"))).status == "nodata"


@pytest.mark.parametrize(("rcode", "status"), [("SERVFAIL", "servfail"), ("REFUSED", "refused"), ("DROP", "timeout")])
async def test_a_resolver_that_fails_is_a_failing_answer(rcode: str, status: str) -> None:
    world = World()
    world.root.zone.put_failure("shop.test", "NS", rcode)
    async with world.serve(timeout=1.0) as asker:
        assert (await asker.ask(A)).status == status


async def test_without_name_servers_the_resolver_is_believed() -> None:
    world = World()
    world.root.zone.put("plain.example", "A", ["192.0.2.5"], 60)
    world.root.zone.put("example", "NS", [])
    async with world.serve() as asker:
        assert (await asker.ask(Question("plain.example", "A"))).records == ("192.0.2.5",)
        assert (await asker.ask(Question("plain.example", "TXT"))).status == "nodata"
        assert (await asker.ask(Question("gone.invalid", "TXT"))).status == "nxdomain"
        world.root.zone.put_failure("plain.example", "A", "SERVFAIL")
        assert (await asker.ask(Question("plain.example", "A"), fresh=True)).status == "servfail"


@pytest.mark.parametrize(
    ("root", "status"), [([], "lame"), ("NXDOMAIN", "lame"), ("SERVFAIL", "servfail"), ("DROP", "timeout")]
)
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_resolver_that_does_not_know_the_root_is_not_believed(
    root: str | list[str], status: str, fresh: bool
) -> None:
    world = World()
    async with world.serve(timeout=1.0) as asker:
        assert (await asker.ask(Question("gone.invalid", "TXT"))).status == "nxdomain"
        if isinstance(root, str):
            world.root.zone.put_failure(".", "NS", root)
        else:
            world.root.zone.put(".", "NS", root)
        answer = await asker.ask(Question("gone.invalid", "A"), fresh=fresh)
        assert (answer.status, answer.failed) == (status, True)
        world.root.zone.put(".", "NS", ["a.root-servers.net."], 86_400)
        assert (await asker.ask(Question("gone.invalid", "A"), fresh=fresh)).status == "nxdomain"


async def test_only_the_resolver_that_knows_the_root_is_believed() -> None:
    """Of two resolvers the first sees nothing, and does not even answer when it is asked for the root."""
    clock, pace = FrozenClock(), Pace(per_server=1e6, overall=1e6)
    blind, sound = Peer(fault="nxdomain"), Peer(Zone(address=NS3))
    blind.zone.put_failure(".", "NS", "DROP")
    async with peers({NS1: blind, NS3: sound}) as port:
        resolver = Resolver([(NS1, port), (NS3, port)], clock, timeout=0.2, rounds=1, pace=pace)
        asker = Authority(resolver, clock, pace=pace, port=port)
        assert (await asker.ask(Question("shop.example", "A"))).status == "lame"
        blind.fault = "drop"
        assert (await asker.ask(Question("shop.example", "A"))).status == "nxdomain"


async def test_the_root_is_asked_for_once_in_a_check() -> None:
    world = World()
    world.root.zone.put(".", "NS", ["a.root-servers.net."], 86_400)
    async with world.serve() as asker:
        for number in (1, 2):
            check = Allowance(100)
            for name in ("a.invalid", "b.invalid"):
                assert (await asker.ask(Question(name, "A"), fresh=True, allowance=check)).status == "nxdomain"
            assert len([query for query in world.root.queries if query.name in ("", ".")]) == number


async def test_name_servers_without_an_address_are_a_failure() -> None:
    world = World()
    for host in ("ns1.shop.test", "ns2.shop.test"):
        world.root.zone.put(host, "A", [])
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "unreachable"
        world.root.zone.put_failure("ns2.shop.test", "A", "SERVFAIL")
        assert (await asker.ask(A, fresh=True)).status == "servfail"


async def test_only_permitted_servers_are_asked() -> None:
    world = World()
    judged: list[tuple[str, str]] = []

    def permitted(name: str, address: str) -> bool:
        judged.append((name, address))
        return address != NS1

    async with world.serve(permitted=permitted) as asker:
        assert (await asker.ask(A)).status == "ok"
    assert judged == [("ns1.shop.test", NS1), ("ns2.shop.test", NS2)]
    assert not world[NS1].queries


async def test_the_number_of_servers_is_bounded() -> None:
    world = World(NS1)
    world.root.zone.put("shop.test", "NS", [f"ns{number}.shop.test." for number in range(1, 60)], 60)
    for number in range(1, 60):
        world.root.zone.put(f"ns{number}.shop.test", "A", [f"127.0.1.{last}" for last in range(60)], 60)
    async with world.serve(timeout=1.0) as asker:
        answer = await asker.ask(A)
    assert len(answer.heard) == 8
    assert len(world.root.asked("A")) == 8


async def test_a_name_server_whose_name_cannot_be_asked_is_left_out() -> None:
    world = World(NS1)
    world.root.zone.put("shop.test", "NS", ["ns1.shop.test.", "b\\195d.shop.test.", "."], 60)
    async with world.serve() as asker:
        assert (await asker.ask(A)).status == "ok"


async def test_the_questions_for_one_answer_are_bounded() -> None:
    """Eight aliases, each through zones with eight servers each of which has two addresses to be asked for."""
    world = World(NS1)
    hosts = [f"ns{number}.shop.test" for number in range(1, 9)]
    world.root.zone.put("shop.test", "NS", [f"{host}." for host in hosts], 0)
    for last, host in enumerate(hosts):
        world.root.zone.put(host, "A", [f"127.0.0.{11 + last}"], 0)
        world.servers[f"127.0.0.{11 + last}"] = peer = Peer()
        for number in range(9):
            peer.zone.put(f"a{number}.shop.test", "CNAME", [f"a{number + 1}.shop.test."], 0)
    async with world.serve() as asker:
        assert (await asker.ask(Question("a0.shop.test", "TXT"))).status == "limit"
    asked = len(world.root.queries) + sum(len(peer.queries) for peer in world.servers.values())
    assert 100 < asked <= 150


async def test_an_allowance_is_for_all_questions_that_share_it() -> None:
    world = World()
    async with world.serve() as asker:
        # NS, two addresses of each of two hosts, and two servers.
        for packets, statuses in ((12, ["ok", "ok", "ok", "limit"]), (6, ["limit"] * 4), (100, ["ok"] * 4)):
            check = Allowance(packets)
            await asker.ask(A)
            before = len(world.root.queries) + sum(len(peer.queries) for peer in world.servers.values())
            answers = [await asker.ask(A, fresh=True, allowance=check) for _ in statuses]
            asked = len(world.root.queries) + sum(len(peer.queries) for peer in world.servers.values()) - before
            assert [answer.status for answer in answers] == statuses
            assert asked == (packets if "limit" in statuses else 13)
        assert not (await asker.ask(A)).failed  # what was limited is not remembered


async def test_every_packet_counts() -> None:
    """Tries that nobody answers, what comes again over TCP, and what is said again without EDNS."""
    for fault, packets, status in (("drop", 3, "timeout"), ("truncated", 2, "ok"), ("edns-formerr", 2, "ok")):
        world = World(NS1)
        world[NS1].fault = fault
        async with world.serve(timeout=1.0, tries=3) as asker:
            found = 3  # NS, and two addresses of the host
            short = await asker.ask(A, fresh=True, allowance=Allowance(found + packets - 1))
            enough = await asker.ask(A, fresh=True, allowance=Allowance(found + packets))
            assert (short.status, enough.status) == ("limit", status)
            assert len(world[NS1].queries) == 2 * packets - 1


async def test_what_an_allowance_leaves_of_the_servers_does_not_decide() -> None:
    """The one server that is still asked is out of date: its word alone would be taken for the domain's."""
    world = World()
    world[NS1].version("shop.test", 6)
    world[NS1].zone.put("shop.test", "A", [], 60)
    async with world.serve() as asker:
        for packets in range(20):
            answer = await asker.ask(A, fresh=True, allowance=Allowance(packets))
            assert answer.status == ("limit" if packets < 12 else "ok"), packets
        # Nor is it remembered that the zone had fewer servers than it has.
        assert (await asker.ask(Question("shop.test", "TXT"))).heard[1:]


async def test_servers_that_were_not_all_found_are_not_remembered() -> None:
    for packets in range(7):
        async with World().serve() as asker:
            assert (await asker.ask(A, allowance=Allowance(packets))).status == "limit"
            assert len((await asker.ask(A)).heard) == 2


async def test_where_to_ask_is_found_out_once_in_a_check_and_anew_in_the_next() -> None:
    world = World()
    async with world.serve() as asker:
        await asker.ask(A)
        for number in (2, 3):
            check = Allowance(100)
            for rdtype in ("A", "TXT", "MX"):
                await asker.ask(Question("shop.test", rdtype), fresh=True, allowance=check)
            assert len(world.root.asked("NS")) == number
            await asker.ask(Question("shop.test", "AAAA"))  # what others look up in between makes nothing fresh


async def test_a_name_of_very_many_labels() -> None:
    world = World()
    name = "a." * 100 + "shop.test"
    for peer in world.servers.values():
        peer.zone.put(name, "A", ["192.0.2.8"], 60)
    async with world.serve() as asker:
        assert (await asker.ask(Question(name, "A"))).records == ("192.0.2.8",)
    assert len(world.root.asked("NS")) == 19


async def test_a_name_that_cannot_be_asked() -> None:
    async with World().serve() as asker:
        assert (await asker.ask(Question("a..b", "A"))).status == "badname"


async def test_an_alias_to_a_name_that_cannot_be_asked() -> None:
    world = World(NS1)
    world[NS1].zone.put("shop.test", "CNAME", ["b\\195d.test."])
    async with world.serve() as asker:
        answer = await asker.ask(Question("shop.test", "TXT"))
    assert (answer.status, answer.failed) == ("badname", True)


# -- memory -----------------------------------------------------------------------------------------------------


async def test_an_answer_is_reused_for_a_minute_at_most() -> None:
    clock, world = FrozenClock(), World()
    async with world.serve(clock) as asker:
        first = await asker.ask(A)
        clock.advance(59)
        again = await asker.ask(A)
        assert (again.server, again.heard, again.ttl) == ("cache", first.heard, 1)
        clock.advance(1)
        assert (await asker.ask(A)).server != "cache"
        assert len(world[NS1].queries) == 2
        assert len(world.root.asked("NS")) == 1  # where to ask is remembered for longer


async def test_a_short_ttl_is_kept() -> None:
    clock, world = FrozenClock(), World()
    for peer in world.servers.values():
        peer.zone.put("shop.test", "A", ["192.0.2.1"], 5)
    async with world.serve(clock) as asker:
        await asker.ask(A)
        clock.advance(5)
        assert (await asker.ask(A)).server != "cache"


@pytest.mark.parametrize(("ttl", "kept"), [(120, 120), (86_400, 3600), (0, 0)])
async def test_servers_are_remembered_for_their_ttl_and_an_hour_at_most(ttl: int, kept: int) -> None:
    clock, world = FrozenClock(), World(ttl=ttl)
    async with world.serve(clock) as asker:
        await asker.ask(A)
        clock.advance(max(kept - 1, 0))
        await asker.ask(Question("shop.test", "TXT"))
        assert len(world.root.asked("NS")) == (1 if kept else 2)
        clock.advance(1)
        await asker.ask(Question("shop.test", "MX"))
        assert len(world.root.asked("NS")) == (2 if kept else 3)


async def test_names_of_one_zone_share_what_is_known_of_its_servers() -> None:
    world = World()
    async with world.serve() as asker:
        await asker.ask(A)
        await asker.ask(Question("sel._domainkey.shop.test", "TXT"))
        await asker.ask(Question("other._domainkey.shop.test", "TXT"))
    assert world.root.asked("NS") == [
        "shop.test", "sel._domainkey.shop.test", "_domainkey.shop.test", "other._domainkey.shop.test",
    ]  # fmt: skip


async def test_fresh_asks_the_servers_and_who_they_are() -> None:
    world = World(NS1)
    moved = world.servers[NS2] = Peer()
    moved.zone.put("shop.test", "A", ["192.0.2.2"], 300)
    async with world.serve() as asker:
        assert (await asker.ask(A)).records == ("192.0.2.1",)
        delegate(world.root.zone, "shop.test", NS2)
        assert (await asker.ask(A)).records == ("192.0.2.1",)
        assert (await asker.ask(A, fresh=True)).records == ("192.0.2.2",)
        assert (await asker.ask(A)).records == ("192.0.2.2",)


async def test_servers_that_all_fail_are_looked_for_anew_at_once() -> None:
    clock, world = FrozenClock(), World(NS1)
    moved = world.servers[NS2] = Peer()
    moved.zone.put("shop.test", "A", ["192.0.2.2"], 300)
    async with world.serve(clock) as asker:
        await asker.ask(A)
        delegate(world.root.zone, "shop.test", NS2)
        world[NS1].fault = "refused"
        clock.advance(60)
        assert (await asker.ask(A)).records == ("192.0.2.2",)


async def test_servers_that_all_fail_are_forgotten() -> None:
    world = World(NS1)
    world[NS1].fault = "refused"
    async with world.serve() as asker:
        for times in (1, 2):
            assert (await asker.ask(A)).status == "refused"
            assert (len(world.root.asked("NS")), len(world.root.asked("AAAA"))) == (times, times)
            assert len(world[NS1].queries) == times


async def test_the_same_question_is_asked_once_at_a_time() -> None:
    world = World()
    async with world.serve() as asker:
        found = await asyncio.gather(*(asker.ask(Question(name, "A")) for name in ("shop.test", "SHOP.test.") * 3))
    assert {answer.status for answer in found} == {"ok"}
    assert len(world[NS1].queries) == 1


async def test_a_fresh_question_does_not_join_one_that_is_under_way() -> None:
    world = World(NS1)
    world[NS1].held = asyncio.Event()
    async with world.serve() as asker:
        first = asyncio.ensure_future(asker.ask(A))
        while not world[NS1].queries:
            await asyncio.sleep(0)
        world[NS1].zone.put("shop.test", "A", ["192.0.2.2"], 300)
        second = asyncio.ensure_future(asker.ask(A, fresh=True))
        while len(world[NS1].queries) < 2:
            await asyncio.sleep(0)
        world[NS1].held.set()
        assert (await first).records == ("192.0.2.1",)
        assert (await second).records == ("192.0.2.2",)
        assert (await asker.ask(A)).records == ("192.0.2.2",)


async def test_when_the_last_who_waits_gives_up_nothing_more_is_sent() -> None:
    world = World(NS1)
    world[NS1].held = asyncio.Event()
    async with world.serve(timeout=0.1, tries=1_000) as asker:
        waiting = [asyncio.ensure_future(asker.ask(A)) for _ in range(3)]
        while len(world[NS1].queries) < 2:
            await asyncio.sleep(0.01)
        for one in waiting[:2]:
            one.cancel()
        asked = len(world[NS1].queries)
        while len(world[NS1].queries) < asked + 2:  # one still waits
            await asyncio.sleep(0.01)
        waiting[2].cancel()
        await asyncio.wait(waiting)
        asked = len(world[NS1].queries)
        await asyncio.sleep(0.35)
        assert len(world[NS1].queries) == asked


async def test_who_asks_just_then_does_not_join_what_was_given_up() -> None:
    world = World(NS1)
    world[NS1].held = asyncio.Event()
    async with world.serve() as asker:
        waiting = asyncio.ensure_future(asker.ask(A))
        while not world[NS1].queries:
            await asyncio.sleep(0)
        world[NS1].held.set()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (await asker.ask(A)).status == "ok"


async def test_who_joins_a_question_is_not_bound_by_anothers_allowance() -> None:
    world = World(NS1)
    world[NS1].held = asyncio.Event()
    async with world.serve(timeout=0.3, tries=2) as asker:
        poor = asyncio.ensure_future(asker.ask(A, allowance=Allowance(4)))  # enough to ask the server once
        while not world[NS1].queries:
            await asyncio.sleep(0)
        rich = asyncio.ensure_future(asker.ask(A, allowance=Allowance(10)))
        assert (await poor).status == "limit"
        world[NS1].held.set()
        assert (await rich).status == "ok"


async def test_answers_remembered_are_bounded() -> None:
    world = World(NS1)
    for rdtype in ("AAAA", "TXT"):
        world[NS1].zone.put("shop.test", rdtype, [], 60)
    async with world.serve(cache_size=2) as asker:
        for rdtype in ("A", "AAAA", "TXT"):
            await asker.ask(Question("shop.test", rdtype))
        assert (await asker.ask(Question("shop.test", "A"))).server != "cache"


# -- pace -------------------------------------------------------------------------------------------------------


async def test_every_packet_waits_for_its_turn() -> None:
    """Each server, the recursive one too, gets its packets spaced; TCP after truncation is a packet like others."""
    turns: list[str] = []

    class Noting(Pace):
        async def turn(self, server: str) -> None:
            turns.append(server)
            await super().turn(server)

    world = World()
    world[NS1].fault = "truncated"
    async with world.serve(pace=Noting(per_server=1e6, overall=1e6)) as asker:
        await asker.ask(A)
    assert turns.count(RESOLVER) == len(world.root.queries)
    assert (turns.count(NS1), turns.count(NS2)) == (2, 1)


async def test_questions_to_one_server_are_spaced() -> None:
    world = World(NS1)
    async with world.serve(pace=Pace(per_server=100, overall=1e6)) as asker:
        await asyncio.gather(*(asker.ask(Question(f"{number}.shop.test", "A")) for number in range(8)))
    at = sorted(query.at for query in world[NS1].queries)
    assert len(at) == 8
    # What a packet takes to arrive differs a little; the whole row shows that none was let through early.
    assert at[-1] - at[0] >= 7 * 0.01 - 0.005


async def test_the_resolver_of_an_authority_has_its_pace() -> None:
    clock = FrozenClock()
    with pytest.raises(ValueError, match="pace"):
        Authority(Resolver([("127.0.0.1", 53)], clock), clock, pace=Pace())


# -- evidence ---------------------------------------------------------------------------------------------------


def test_what_was_heard_as_a_document() -> None:
    heard = Heard("192.0.2.1:53", "ok", (b"v=spf1 \xff",), "a.test", 7)
    assert heard.document() == {
        "server": "192.0.2.1:53",
        "status": "ok",
        "records": ["v=spf1 \\xff"],
        "name": "a.test",
        "serial": 7,
    }
    assert Heard("192.0.2.1:53", "timeout").document() == {"server": "192.0.2.1:53", "status": "timeout", "records": []}


# -- the laptop's zone ------------------------------------------------------------------------------------------


async def test_the_laptops_zone_is_its_own_authority() -> None:
    """One server is the recursive and the only authoritative one, and another plays a single domain's."""
    zone = Zone(address=RESOLVER)
    zone.put("shop.test", "A", ["192.0.2.1"])
    zone.put("wknd.site", "A", ["192.0.2.2"])
    zone.put("key.shop.test", "CNAME", ["key.wknd.site."])
    zone.put("key.wknd.site", "TXT", ["found"])
    other = Peer()
    other.zone.put("own.test", "A", ["192.0.2.3"])
    zone.put("own.test", "NS", ["ns1.own.test."])
    zone.put("ns1.own.test", "A", [NS1])
    zone.put("own.test", "A", ["192.0.2.99"])
    async with authority({RESOLVER: Peer(zone), NS1: other}) as asker:
        for name, record in (("shop.test", "192.0.2.1"), ("wknd.site", "192.0.2.2"), ("own.test", "192.0.2.3")):
            answer = await asker.ask(Question(name, "A"), fresh=True)
            assert (answer.status, answer.records, len(answer.heard)) == ("ok", (record,), 1), name
        assert (await asker.ask(Question("key.shop.test", "TXT"))).records == (b"found",)
        assert (await asker.ask(Question("nobody.test", "TXT"))).status == "nodata"
        assert (await asker.ask(Question("gone.example", "TXT"))).status == "nxdomain"
        zone.put_failure("shop.test", "TXT", "SERVFAIL")
        assert (await asker.ask(Question("shop.test", "TXT"))).status == "servfail"


async def test_peers_share_a_port() -> None:
    servers = {f"127.0.0.{last}": Peer() for last in range(11, 14)}
    async with peers(servers) as port:
        for address in itertools.islice(servers, 2):
            resolver = Resolver([(address, port)], FrozenClock())
            assert (await resolver.ask(Question("x.test", "MX"))).status == "ok"
    assert [len(peer.queries) for peer in servers.values()] == [1, 1, 0]
