"""Verification over a real name server: states, evidence, and what a failing resolver may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from outgate.base.clock import FrozenClock
from outgate.domains.ask import Answer, Asked, Heard, Question
from outgate.model.tenancy import Checked, Standing, Verification
from outgate.net.allowance import Allowance
from outgate.relay.onboarding import Finding, Verifier
from outgate.sandbox.zone import Zone
from outgate.store.verification import Decide, Transition
from support.names import RESOLVER, Peer, authority, delegate, served
from support.onboarding import Kept, configuration, leaving, public_key, verifier

PENDING, SUCCESSFUL, FAILED = Verification.PENDING, Verification.SUCCESSFUL, Verification.FAILED


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.put("shop.test", "A", ["127.0.0.1"])
    zone.put("shop.test", "TXT", ["v=spf1 include:spf.outgate.test ~all"])
    zone.put("spf.outgate.test", "TXT", ["v=spf1 ip4:192.0.2.1 ip4:192.0.2.2 ip6:2001:db8::1 -all"])
    zone.put("sel._domainkey.shop.test", "TXT", [f"v=DKIM1; k=rsa; p={public_key()}"])
    return zone


async def test_all_is_well(zone: Zone) -> None:
    kept = Kept()
    async with served(zone) as resolver:
        states = await verifier(resolver, kept).verify(configuration(), ["spf", "dkim", "en_authorization"])
    assert states == {"spf": SUCCESSFUL, "dkim": SUCCESSFUL, "en_authorization": PENDING}
    assert [(entry["check"], entry["state"], entry["result"]) for entry in kept.told] == [
        ("a", SUCCESSFUL, "ok"),
        ("spf", SUCCESSFUL, "pass"),
        ("dkim", SUCCESSFUL, "ok"),
        ("dmarc", None, "missing"),
    ]
    assert kept.decided is not None and kept.decided.standing is Standing.VERIFIED
    asked = [(entry["name"], entry["type"], entry["status"]) for entry in kept.of("spf")["asked"]]
    assert asked == [("shop.test", "TXT", "ok"), ("spf.outgate.test", "TXT", "ok")]
    assert kept.of("dkim")["asked"][0]["records"] == [f"v=DKIM1; k=rsa; p={public_key()}"]


async def test_one_address_that_does_not_pass_is_enough(zone: Zone) -> None:
    kept = Kept()
    async with served(zone) as resolver:
        states = await verifier(resolver, kept, "192.0.2.1", "192.0.2.3").verify(configuration(SUCCESSFUL), ["spf"])
    assert states == {"spf": FAILED}
    assert kept.of("spf")["result"] == "softfail"
    assert "192.0.2.3" in kept.of("spf")["explanation"]


async def test_the_addresses_are_those_of_the_instances_endpoint_exactly(zone: Zone) -> None:
    zone.put("spf.outgate.test", "TXT", ["v=spf1 ip4:192.0.2.1 -all"])
    here, there = leaving("192.0.2.1"), leaving("192.0.2.2")
    async with served(zone) as resolver:
        check = Verifier(
            resolver, Kept(), endpoint_of=lambda it: (here if it == "i" else there)(it), clock=FrozenClock()
        )
        for instance, result in (("i", "pass"), ("j", "softfail")):
            found = await check.examine(replace(configuration(), instance_id=instance), ["spf"], fresh=True)
            assert [finding.result for finding in found if finding.check == "spf"] == [result]


async def test_a_domain_without_an_address_fails(zone: Zone) -> None:
    kept = Kept()
    zone.put("shop.test", "A", [])
    async with served(zone) as resolver:
        assert await verifier(resolver, kept).verify(configuration(), ["spf"]) == {"spf": FAILED}
    assert (kept.of("a")["result"], kept.of("spf")["result"]) == ("missing", "no-address")
    assert (kept.of("a")["state"], kept.of("spf")["state"]) == (FAILED, FAILED)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "DROP"])
@pytest.mark.parametrize("name", [("shop.test", "A"), ("shop.test", "TXT"), ("spf.outgate.test", "TXT")])
@pytest.mark.parametrize("before", [SUCCESSFUL, PENDING, FAILED])
async def test_a_resolvers_failure_keeps_the_state(
    zone: Zone, rcode: str, name: tuple[str, str], before: Verification
) -> None:
    it = configuration(before)
    kept = Kept(it)
    zone.put_failure(*name, rcode)
    async with served(zone, timeout=0.05, rounds=1) as resolver:
        assert await verifier(resolver, kept).verify(it, ["spf"]) == {"spf": before}
    told = kept.of("spf")
    assert (told["state"], told["result"]) == (None, "temperror")
    assert "the state is kept" in told["explanation"]


async def test_a_definite_failure_beats_an_unknown_address(zone: Zone) -> None:
    zone.put_failure("shop.test", "A", "SERVFAIL")
    zone.put("shop.test", "TXT", ["v=spf1 -all"])
    async with served(zone) as resolver:
        assert await verifier(resolver, Kept()).verify(configuration(SUCCESSFUL), ["spf"]) == {"spf": FAILED}


@pytest.mark.parametrize(
    ("values", "state", "result"),
    [
        (["v=DKIM1; k=rsa; p="], FAILED, "revoked"),
        (["v=DKIM1; k=rsa; p=AAAA"], FAILED, "malformed"),
        ([], FAILED, "missing"),
    ],
)
async def test_wrong_keys(zone: Zone, values: list[str], state: Verification, result: str) -> None:
    kept = Kept()
    zone.put("sel._domainkey.shop.test", "TXT", values)
    async with served(zone) as resolver:
        assert await verifier(resolver, kept).verify(configuration(dkim=SUCCESSFUL), ["dkim"]) == {"dkim": state}
    assert kept.of("dkim")["result"] == result


async def test_a_key_that_cannot_be_asked_for_keeps_the_state(zone: Zone) -> None:
    it = configuration(dkim=SUCCESSFUL)
    kept = Kept(it)
    zone.put_failure("sel._domainkey.shop.test", "TXT", "SERVFAIL")
    async with served(zone) as resolver:
        states = await verifier(resolver, kept).verify(it, ["dkim"])
    assert states == {"dkim": SUCCESSFUL}
    assert kept.of("dkim")["state"] is None


async def test_check_now_looks_past_the_cache(zone: Zone) -> None:
    zone.put("sel._domainkey.shop.test", "TXT", [], 3600)
    async with served(zone) as resolver:
        check = verifier(resolver, Kept())
        assert await check.verify(configuration(), ["dkim"]) == {"dkim": FAILED}
        zone.put("sel._domainkey.shop.test", "TXT", [f"p={public_key()}"])
        assert await check.verify(configuration(), ["dkim"]) == {"dkim": SUCCESSFUL}


async def test_there_are_no_other_checks(zone: Zone) -> None:
    async with served(zone) as resolver:
        kept = Kept()
        with pytest.raises(ValueError, match="mx"):
            await verifier(resolver, kept).verify(configuration(), ["spf", "mx"])
        assert kept.told == []
        with pytest.raises(ValueError, match="en_authorization"):  # a person's business, not to be found out
            await verifier(resolver, kept).examine(configuration(), ["en_authorization"], fresh=True)


# -- finding out ------------------------------------------------------------------------------------------------


def brief(findings: Sequence[Finding]) -> list[tuple[str, Verification | None, str, str]]:
    return [(finding.check, finding.state, finding.result, finding.record) for finding in findings]


async def test_examining_keeps_nothing_and_names_the_records(zone: Zone) -> None:
    kept = Kept()
    async with served(zone) as resolver:
        findings = await verifier(resolver, kept).examine(configuration(), ["dkim", "spf", "dmarc"], fresh=False)
    assert kept.told == []
    assert brief(findings) == [
        ("dkim", SUCCESSFUL, "ok", "sel._domainkey.shop.test"),
        ("a", SUCCESSFUL, "ok", "shop.test"),
        ("spf", SUCCESSFUL, "pass", "shop.test"),
        ("dmarc", None, "missing", "_dmarc.shop.test"),
    ]


async def test_without_fresh_memory_counts(zone: Zone) -> None:
    async with served(zone) as resolver:
        check = verifier(resolver, Kept())
        await check.examine(configuration(), ["dkim"], fresh=False)
        zone.put("sel._domainkey.shop.test", "TXT", [])
        assert (await check.examine(configuration(), ["dkim"], fresh=False))[0].state is SUCCESSFUL
        assert (await check.examine(configuration(), ["dkim"], fresh=True))[0].state is FAILED


async def test_an_ipv6_address_alone_does_not_do(zone: Zone) -> None:
    zone.put("shop.test", "A", [])
    zone.put("shop.test", "AAAA", ["2001:db8::1"])
    async with served(zone) as resolver:
        address, spf = await verifier(resolver, Kept()).examine(configuration(), ["spf"], fresh=True)
    assert (address.state, address.result, spf.state, spf.result) == (FAILED, "missing", FAILED, "no-address")
    assert "AAAA" in address.explanation


async def test_an_address_that_cannot_be_asked_for_says_nothing(zone: Zone) -> None:
    zone.put_failure("shop.test", "A", "SERVFAIL")
    async with served(zone) as resolver:
        address, spf = await verifier(resolver, Kept()).examine(configuration(), ["spf"], fresh=True)
    assert (address.state, address.result, spf.state, spf.result) == (None, "temperror", None, "temperror")


async def test_a_failing_look_up_that_check_host_passes_over_is_not_held_against_the_domain(zone: Zone) -> None:
    zone.put("shop.test", "TXT", ["v=spf1 ptr:outgate.test -all"])
    zone.put("1.2.0.192.in-addr.arpa", "PTR", ["out.outgate.test."])
    zone.put("out.outgate.test", "A", ["192.0.2.1"])
    async with served(zone) as resolver:
        check = verifier(resolver, Kept(), "192.0.2.1")
        assert await check.verify(configuration(), ["spf"]) == {"spf": SUCCESSFUL}
        for name in (("1.2.0.192.in-addr.arpa", "PTR"), ("out.outgate.test", "A")):
            before = zone.get(*name)
            assert before is not None
            zone.put_failure(*name, "SERVFAIL")
            _, spf = await check.examine(configuration(), ["spf"], fresh=True)
            assert (spf.state, spf.result) == (None, "temperror")
            zone.put(*name, before.values)
        zone.put("1.2.0.192.in-addr.arpa", "PTR", ["other.test."])
        assert await check.verify(configuration(), ["spf"]) == {"spf": FAILED}


async def test_an_explanation_that_cannot_be_asked_for_changes_nothing(zone: Zone) -> None:
    zone.put("shop.test", "TXT", ["v=spf1 -all exp=why.shop.test"])
    zone.put_failure("why.shop.test", "TXT", "SERVFAIL")
    async with served(zone) as resolver:
        assert await verifier(resolver, Kept()).verify(configuration(SUCCESSFUL), ["spf"]) == {"spf": FAILED}


async def test_dmarc_leaves_its_evidence_when_asked_for_and_no_state(zone: Zone) -> None:
    kept = Kept()
    zone.put("_dmarc.test", "TXT", ["v=DMARC1; p=reject; rua=mailto:a@test"])
    async with served(zone) as resolver:
        assert await verifier(resolver, kept).verify(configuration(), ["dmarc"]) == {}
        assert brief(await verifier(resolver, kept).examine(configuration(), ["dmarc"], fresh=True)) == [
            ("dmarc", None, "reject", "_dmarc.test")
        ]
    assert [(entry["check"], entry["state"], entry["result"]) for entry in kept.told] == [("dmarc", None, "reject")]


async def test_evidence_says_what_was_asked_whom_what_came_back_and_when(zone: Zone) -> None:
    kept = Kept()
    delegate(zone, "shop.test", "127.0.0.11", "127.0.0.12")
    good, bad = Peer(), Peer(fault="servfail")
    good.zone.put("sel._domainkey.shop.test", "TXT", [f"p={public_key()}"], 77)
    async with authority({RESOLVER: Peer(zone), "127.0.0.11": good, "127.0.0.12": bad}) as asker:
        assert await verifier(asker, kept).verify(configuration(), ["dkim"]) == {"dkim": SUCCESSFUL}
    (asked,) = kept.of("dkim")["asked"]
    port = asked["server"].partition(":")[2]
    assert asked == {
        "name": "sel._domainkey.shop.test",
        "type": "TXT",
        "status": "ok",
        "records": [f"p={public_key()}"],
        "ttl": 77,
        "server": f"127.0.0.11:{port}",
        "at": "2027-01-15T08:00:00.000Z",
        "servers": [
            {"server": f"127.0.0.11:{port}", "status": "ok"},  # with these records
            {"server": f"127.0.0.12:{port}", "status": "servfail", "records": []},
        ],
    }


async def test_a_check_that_takes_for_ever_is_given_up_and_nothing_is_known() -> None:
    class Silent:
        async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    it = configuration(SUCCESSFUL, SUCCESSFUL)
    check = Verifier(Silent(), Kept(it), endpoint_of=leaving("192.0.2.1"), clock=FrozenClock(), limit_s=0.01)
    assert await check.verify(it, ["spf", "dkim"]) == {"spf": SUCCESSFUL, "dkim": SUCCESSFUL}
    findings = await check.examine(it, ["spf", "dkim", "dmarc"], fresh=True)
    assert [(finding.check, finding.state) for finding in findings] == [
        ("a", None), ("spf", None), ("dkim", None), ("dmarc", None)
    ]  # fmt: skip


# -- what a check may cost --------------------------------------------------------------------------------------


def providers(root: Zone, servers: dict[str, Peer], number: int, each: int) -> None:
    """Add `number` zones p0.test …, all at the same `each` addresses, half of them the second of a host."""
    addresses = [f"127.0.0.{31 + last}" for last in range(each)]
    peer = Peer()
    for zone in (f"p{n}.test" for n in range(number)):
        hosts = [f"ns{n}.{zone}" for n in range((each + 1) // 2)]
        root.put(zone, "NS", [f"{host}." for host in hosts], 300)
        peer.zone.put(zone, "NS", [f"{host}." for host in hosts], 300)
        for n, host in enumerate(hosts):
            root.put(host, "A", addresses[2 * n : 2 * n + 2], 300)
    servers |= dict.fromkeys(addresses, peer)


def packets(servers: dict[str, Peer]) -> int:
    return sum(len(peer.queries) for peer in {id(peer): peer for peer in servers.values()}.values())


async def test_a_policy_that_needs_all_its_look_ups_is_within_what_a_check_may_send() -> None:
    root = Zone(address=RESOLVER)
    delegate(root, "shop.test", *(f"127.0.0.{11 + last}" for last in range(4)))
    shop = Peer()
    servers = {RESOLVER: Peer(root)} | {f"127.0.0.{11 + last}": shop for last in range(4)}
    providers(root, servers, 9, 8)
    shop.zone.put("shop.test", "NS", ["ns1.shop.test."])
    shop.zone.put("shop.test", "A", ["192.0.2.80"])
    includes = " ".join(f"include:_spf.p{n}.test" for n in range(9))
    shop.zone.put("shop.test", "TXT", [f"v=spf1 {includes} mx -all"])
    shop.zone.put("shop.test", "MX", [f"10 mx{n}.shop.test." for n in range(5)])
    for n in range(5):
        shop.zone.put(f"mx{n}.shop.test", "A", [f"192.0.2.{n}"])
        shop.zone.put(f"mx{n}.shop.test", "AAAA", [f"2001:db8::{n}"])
    for n in range(9):
        servers["127.0.0.31"].zone.put(f"_spf.p{n}.test", "TXT", ["v=spf1 ip4:198.51.100.0/24 -all"])
    async with authority(servers) as asker:
        check = verifier(asker, Kept(), "192.0.2.1", "192.0.2.4", "2001:db8::4")
        findings = await check.examine(configuration(), ["spf"], fresh=True)
    assert [(finding.check, finding.state) for finding in findings] == [("a", SUCCESSFUL), ("spf", SUCCESSFUL)]
    assert 200 < packets(servers) < 400


async def test_a_hostile_policy_ends_and_the_state_is_kept() -> None:
    """Ten times mx with ten hosts each, each behind aliases through other zones: more than ten thousand packets."""
    root = Zone(address=RESOLVER)
    delegate(root, "shop.test", "127.0.0.11")
    shop = Peer()
    servers = {RESOLVER: Peer(root), "127.0.0.11": shop}
    providers(root, servers, 8, 8)
    shop.zone.put("shop.test", "NS", ["ns1.shop.test."], 0)
    shop.zone.put("shop.test", "A", ["192.0.2.80"], 0)
    shop.zone.put("shop.test", "TXT", ["v=spf1 " + " ".join(f"mx:m{n}.shop.test" for n in range(10)) + " -all"], 0)
    for n in range(10):
        shop.zone.put(f"m{n}.shop.test", "MX", [f"10 h{n}-{host}.shop.test." for host in range(10)], 0)
        for name in (f"h{n}-{host}" for host in range(10)):
            shop.zone.put(f"{name}.shop.test", "CNAME", [f"{name}.p0.test."], 0)
            for at in range(6):
                servers["127.0.0.31"].zone.put(f"{name}.p{at}.test", "CNAME", [f"{name}.p{at + 1}.test."], 0)
            servers["127.0.0.31"].zone.put(f"{name}.p6.test", "A", ["198.51.100.1"], 0)
    it = configuration(SUCCESSFUL, SUCCESSFUL)
    kept = Kept(it)
    async with authority(servers) as asker:
        assert await verifier(asker, kept).verify(it, ["spf"]) == {"spf": SUCCESSFUL}
    told = kept.of("spf")
    assert (told["state"], told["result"]) == (None, "temperror")
    assert "limit" in told["explanation"]
    assert 300 < packets(servers) <= 400 + 150  # and what DMARC may need


async def test_when_a_check_is_given_up_nothing_more_is_sent() -> None:
    root = Zone(address=RESOLVER)
    delegate(root, "shop.test", "127.0.0.11")
    servers = {RESOLVER: Peer(root), "127.0.0.11": Peer(fault="drop")}
    async with authority(servers, timeout=0.05, tries=1000) as asker:
        check = Verifier(asker, Kept(), endpoint_of=leaving("192.0.2.1"), clock=FrozenClock(), limit_s=0.3)
        findings = await check.examine(configuration(), ["spf", "dkim"], fresh=False)
        assert {finding.result for finding in findings} == {"temperror"}
        sent = packets(servers)
        await asyncio.sleep(0.2)
        assert packets(servers) == sent > 3


# -- at once ----------------------------------------------------------------------------------------------------


class Slow:
    """Knows nothing of anyone, but only when it is let; counts what is asked at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now = self.most = 0
        self.let = asyncio.Event()
        self.at_once: set[str] = set()

    async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
        assert fresh and allowance is not None
        self.asked.append(question.name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if question.name not in self.at_once:
                await self.let.wait()
        finally:
            self.now -= 1
        return Answer("nxdomain")


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_verifications_of_one_configuration_that_meet_are_one() -> None:
    slow, kept = Slow(), Kept()
    check = verifier(slow, kept)
    types = (["dkim", "en_authorization"], ["en_authorization", "dkim"], ["dkim", "en_authorization"])
    tasks = [asyncio.ensure_future(check.verify(configuration(), each)) for each in types]
    await settled()
    slow.let.set()
    states = await asyncio.gather(*tasks)
    assert states == [{"dkim": FAILED, "en_authorization": PENDING}] * 3
    assert slow.asked.count("sel._domainkey.shop.test") == 1
    assert [entry["check"] for entry in kept.told] == ["dkim", "dmarc"]
    await check.verify(configuration(), ["dkim"])  # what ended before one came is not for it
    assert slow.asked.count("sel._domainkey.shop.test") == 2
    assert not check._turns


async def test_verifications_of_one_configuration_by_other_types_wait() -> None:
    slow = Slow()
    check = verifier(slow, Kept())
    first = asyncio.ensure_future(check.verify(configuration(), ["dkim"]))
    second = asyncio.ensure_future(check.verify(configuration(), ["spf"]))
    await settled()
    assert set(slow.asked) == {"sel._domainkey.shop.test", "_dmarc.shop.test"}
    slow.let.set()
    assert (await first, await second) == ({"dkim": FAILED}, {"spf": FAILED})


async def test_what_was_found_before_one_came_is_not_for_it() -> None:
    slow = Slow()
    slow.at_once.add("_dmarc.shop.test")
    check = verifier(slow, Kept())
    first = asyncio.ensure_future(check.verify(configuration(), ["dkim"]))
    second = asyncio.ensure_future(check.verify(configuration(), ["spf"]))
    await settled()
    slow.let.set()
    slow.let = asyncio.Event()  # for the second
    await first
    third = asyncio.ensure_future(check.verify(configuration(), ["dkim"]))
    await settled()
    slow.let.set()
    await asyncio.gather(second, third)
    assert slow.asked.count("sel._domainkey.shop.test") == 2


async def test_a_verification_that_is_given_up_leaves_its_turn() -> None:
    slow = Slow()
    check = verifier(slow, Kept())
    first = asyncio.ensure_future(check.verify(configuration(), ["dkim"]))
    second = asyncio.ensure_future(check.verify(configuration(), ["dkim"]))
    await settled()
    first.cancel()
    slow.let.set()
    assert await second == {"dkim": FAILED}
    assert first.cancelled()


async def test_only_so_many_configurations_are_verified_at_once() -> None:
    class KeptOfAny(Kept):
        def record(
            self, findings: Sequence[tuple[str, Sequence[Checked]]], decide: Decide, *, quiet: bool = False
        ) -> list[Transition]:
            return super().record([("c", findings[0][1])], decide, quiet=quiet)

    slow = Slow()
    check = Verifier(slow, KeptOfAny(), endpoint_of=leaving("192.0.2.1"), clock=FrozenClock(), at_once=3)
    tasks = [
        asyncio.ensure_future(check.verify(replace(configuration(), id=f"c{number}"), ["dmarc"])) for number in range(9)
    ]
    await settled()
    assert (len(slow.asked), slow.now) == (3, 3)
    slow.let.set()
    await asyncio.gather(*tasks)
    assert slow.most == 3


# -- evidence ---------------------------------------------------------------------------------------------------


def test_what_several_servers_said_is_written_once() -> None:
    heard = (
        Heard("1", "ok", (b"old",)),
        Heard("2", "ok", (b"new",), serial=8),
        Heard("3", "ok", (b"old",), serial=7),
        Heard("4", "timeout"),
        Heard("5", "nodata"),
        Heard("6", "ok", (b"old",), name="b.test"),
    )
    document = Asked(Question("a.test", "TXT"), Answer("ok", (b"new",), 5, "2", "", heard), 0.0).document()
    assert document["servers"] == [
        {"server": "1", "status": "ok", "records": ["old"]},
        {"server": "2", "status": "ok", "serial": 8},
        {"server": "3", "status": "ok", "serial": 7, "like": "1"},
        {"server": "4", "status": "timeout", "records": []},
        {"server": "5", "status": "nodata", "records": []},
        {"server": "6", "status": "ok", "records": ["old"], "name": "b.test"},
    ]


def test_records_in_evidence_are_cut() -> None:
    records = (b"x" * 500, b"y" * 501, *(b"z" for _ in range(10)))
    texts = Asked(Question("a.test", "TXT"), Answer("ok", records), 0.0).document()["records"]
    assert texts == ["x" * 500, "y" * 500 + "…", *("z" * 8), "… 2 more"]


def test_evidence_is_bounded_whatever_a_domain_publishes() -> None:
    long = tuple(b"x" * 2000 for _ in range(60))
    heard = tuple(Heard(f"192.0.2.{number}:53", "ok", (b"%d" % number * 400,) * 60) for number in range(13))
    asked = tuple(Asked(Question(f"{n}.test", "TXT"), Answer("ok", long, 5, "x", "", heard), 0.0) for n in range(230))
    kept = Finding("spf", None, "x", "x", "a.test", asked).checked().asked
    assert len(kept) == 230
    assert len(json.dumps(kept)) < 130_000
