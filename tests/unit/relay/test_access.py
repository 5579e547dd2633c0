"""Rules 1 and 4: default deny, zones with exclusions, all applicable rules must allow."""

from __future__ import annotations

from dataclasses import replace

from outgate.model.access import Address, Context, Rule, Snapshot, Zone
from outgate.relay.access import AccessTable


def zone(name: str, *addresses: tuple[str, str], excluded: tuple[tuple[str, str], ...] = ()) -> Zone:
    return Zone(
        name,
        "acc",
        name,
        "",
        tuple(Address(*a) for a in addresses),
        tuple(Address(*a) for a in excluded),
        "1",
        0,
        0,
        "",
        "",
    )


def rule(
    name: str,
    *zones: str,
    endpoints: tuple[str, ...] = (),
    enforcement: str = "enabled",
    instance: str = "",
    smtp: bool = True,
) -> Rule:
    contexts = (Context(zones, endpoints),)
    return Rule(name, "acc", "", contexts, instance, "", smtp, enforcement, {}, "1", 0, 0, "", "")


def table(zones: list[Zone], rules: list[Rule]) -> AccessTable:
    return AccessTable(Snapshot(1, tuple(zones), tuple(rules), (("i1", "acc", "us-south"), ("i2", "acc", "eu-de"))))


LOOPBACK = zone("z1", ("subnet", "127.0.0.0/8"), ("ipAddress", "::1"), excluded=(("subnet", "127.66.0.0/16"),))


def test_without_a_rule_nobody_gets_in() -> None:
    access = table([LOOPBACK], [])
    assert not access.welcome("127.0.0.1", "public")
    assert not access.decide("i1", "127.0.0.1", "public").allowed


def test_a_zone_and_a_rule_let_in_but_not_the_excluded() -> None:
    access = table([LOOPBACK], [rule("r1", "z1")])
    assert access.welcome("127.0.0.1", "public")
    assert access.welcome("::1", "public")
    assert not access.welcome("127.66.0.1", "public")
    assert not access.welcome("192.0.2.1", "public")
    decision = access.decide("i1", "127.0.0.1", "public")
    assert decision.allowed and decision.rule_id == "r1"


def test_disabled_grants_nothing_and_other_apis_do_not_count() -> None:
    assert not table([LOOPBACK], [rule("r1", "z1", enforcement="disabled")]).welcome("127.0.0.1", "public")
    assert not table([LOOPBACK], [rule("r1", "z1", smtp=False)]).welcome("127.0.0.1", "public")


def test_all_applicable_rules_must_allow() -> None:
    office = zone("z2", ("ipRange", "127.0.0.1-127.0.0.9"))
    access = table([LOOPBACK, office], [rule("r1", "z1"), rule("r2", "z2", instance="i1")])
    assert access.decide("i1", "127.0.0.5", "public").allowed
    refused = access.decide("i1", "127.0.0.10", "public")
    assert not refused.allowed and refused.rule_id == "r2"
    assert access.decide("i2", "127.0.0.10", "public").allowed
    assert access.welcome("127.0.0.10", "public")


def test_a_rule_of_another_account_neither_opens_nor_closes_an_instance() -> None:
    theirs = replace(rule("theirs", instance="i1"), account_id="other")
    stranger = "127.66.0.1"
    assert not table([LOOPBACK], [theirs]).decide("i1", stranger, "public").allowed
    assert not table([LOOPBACK], [theirs]).welcome(stranger, "public")
    closing = replace(rule("closing", "nowhere", instance="i1"), account_id="other")
    assert table([LOOPBACK], [rule("r1", "z1"), closing]).decide("i1", "127.0.0.1", "public").allowed


def test_endpoint_type_is_part_of_a_context() -> None:
    access = table([LOOPBACK], [rule("r1", "z1", endpoints=("private",))])
    assert not access.welcome("127.0.0.1", "public")
    assert access.welcome("127.0.0.1", "private")


def test_a_context_without_zones_allows_any_address() -> None:
    assert table([], [rule("r1")]).welcome("198.51.100.7", "public")


def test_overlapping_and_adjacent_ranges_merge() -> None:
    wide = zone("z3", ("ipRange", "10.0.0.5-10.0.0.20"), ("subnet", "10.0.0.0/29"), ("ipAddress", "10.0.0.21"))
    access = table([wide], [rule("r1", "z3")])
    assert all(access.welcome(f"10.0.0.{n}", "public") for n in range(22))
    assert not access.welcome("10.0.0.22", "public")
