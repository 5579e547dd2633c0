"""Rules 1 and 4: default deny, zones with exclusions, all applicable rules must allow; the control plane; the why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outgate.model.access import Address, AllowList, Context, Rule, Snapshot, Zone
from outgate.relay import access as access_module
from outgate.relay.access import AccessTable, effective_subnets
from outgate.relay.ranges import Ranges
from outgate.store.rule_document import ALL_APIS, CONTROL_PLANE, SMTP_API


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
    api: str = SMTP_API,
) -> Rule:
    contexts = (Context(zones, endpoints),)
    document: dict[str, object] = {"operations": {"api_types": [{"api_type_id": api}]}}
    return Rule(name, "acc", "", contexts, instance, "", smtp, enforcement, document, "1", 0, 0, "", "")


def control(name: str, *zones: str, api: str = CONTROL_PLANE, **more: str) -> Rule:
    return rule(name, *zones, smtp=False, api=api, **more)  # type: ignore[arg-type]


def snapshot(zones: list[Zone], rules: list[Rule]) -> Snapshot:
    return Snapshot(1, tuple(zones), tuple(rules), (("i1", "acc", "us-south"), ("i2", "acc", "eu-de")))


def table(zones: list[Zone], rules: list[Rule]) -> AccessTable:
    return AccessTable(snapshot(zones, rules))


LOOPBACK = zone("z1", ("subnet", "127.0.0.0/8"), ("ipAddress", "::1"), excluded=(("subnet", "127.66.0.0/16"),))


def test_without_a_rule_nobody_gets_in() -> None:
    access = table([LOOPBACK], [])
    assert not access.welcome("127.0.0.1", "public").allowed
    assert not access.decide("i1", "127.0.0.1", "public").allowed


def test_a_zone_and_a_rule_let_in_but_not_the_excluded() -> None:
    access = table([LOOPBACK], [rule("r1", "z1")])
    assert access.welcome("127.0.0.1", "public").allowed
    assert access.welcome("::1", "public").allowed
    assert not access.welcome("127.66.0.1", "public").allowed
    assert not access.welcome("192.0.2.1", "public").allowed
    decision = access.decide("i1", "127.0.0.1", "public")
    assert decision.allowed and decision.rule_id == "r1"


def test_disabled_grants_nothing_and_other_apis_do_not_count() -> None:
    assert not table([LOOPBACK], [rule("r1", "z1", enforcement="disabled")]).welcome("127.0.0.1", "public").allowed
    assert not table([LOOPBACK], [rule("r1", "z1", smtp=False)]).welcome("127.0.0.1", "public").allowed


def test_all_applicable_rules_must_allow() -> None:
    office = zone("z2", ("ipRange", "127.0.0.1-127.0.0.9"))
    access = table([LOOPBACK, office], [rule("r1", "z1"), rule("r2", "z2", instance="i1")])
    assert access.decide("i1", "127.0.0.5", "public").allowed
    refused = access.decide("i1", "127.0.0.10", "public")
    assert not refused.allowed and refused.rule_id == "r2"
    assert access.decide("i2", "127.0.0.10", "public").allowed
    assert access.welcome("127.0.0.10", "public").allowed


def test_a_rule_of_another_account_neither_opens_nor_closes_an_instance() -> None:
    theirs = replace(rule("theirs", instance="i1"), account_id="other")
    stranger = "127.66.0.1"
    assert not table([LOOPBACK], [theirs]).decide("i1", stranger, "public").allowed
    assert not table([LOOPBACK], [theirs]).welcome(stranger, "public").allowed
    closing = replace(rule("closing", "nowhere", instance="i1"), account_id="other")
    assert table([LOOPBACK], [rule("r1", "z1"), closing]).decide("i1", "127.0.0.1", "public").allowed


def test_endpoint_type_is_part_of_a_context() -> None:
    access = table([LOOPBACK], [rule("r1", "z1", endpoints=("private",))])
    assert not access.welcome("127.0.0.1", "public").allowed
    assert access.welcome("127.0.0.1", "private").allowed


VPC, OTHER = (
    "crn:v1:bluemix:public:is:us-south:a/acc::vpc:r006-1",
    "crn:v1:bluemix:public:is:us-south:a/acc::vpc:r006-2",
)


def test_a_vpc_matches_who_comes_through_its_gateway_from_any_address_but_the_excluded() -> None:
    shop = zone("z9", ("vpc", VPC), ("ipAddress", "10.0.0.9"), excluded=(("subnet", "127.66.0.0/24"),))
    access = table([shop], [rule("r1", "z9", endpoints=("private",), instance="i1")])
    assert access.welcome("127.66.1.1", "private", VPC).allowed
    assert access.decide("i1", "127.66.1.1", "private", VPC).allowed
    for vpc in ("", OTHER):
        assert not access.welcome("127.66.1.1", "private", vpc).allowed
        assert not access.decide("i1", "127.66.1.1", "private", vpc).allowed
        assert access.decide("i1", "10.0.0.9", "private", vpc).allowed
    refused = access.decide("i1", "127.66.0.1", "private", VPC)
    assert not refused.allowed and VPC in refused.reason
    assert not access.decide("i1", "127.66.1.1", "public").allowed
    assert effective_subnets(snapshot([shop], [rule("r1", "z9")]), "i1")[0] == ["10.0.0.9/32"]


def test_a_zone_of_vpcs_only_lists_no_networks() -> None:
    shop = zone("z9", ("vpc", VPC))
    assert effective_subnets(snapshot([shop], [rule("r1", "z9")]), "i1")[0] == []


def test_why_a_vpc_is_let_in_or_not() -> None:
    shop = zone("z9", ("vpc", VPC), ("serviceRef", "{}"), excluded=(("ipAddress", "10.0.0.1"),))
    access = table([shop], [rule("r1", "z9", endpoints=("private",))])
    (found,) = access.explain("acc", "10.0.0.2", "private", "i1", VPC)
    assert found.smtp.decision.allowed and found.smtp.rules[0].contexts[0].zones[0].unseen == 1
    (found,) = access.explain("acc", "10.0.0.1", "private", "i1", VPC)
    assert found.smtp.rules[0].contexts[0].missing == ("zone 'z9' excludes 10.0.0.1",)
    (found,) = access.explain("acc", "10.0.0.2", "private", "i1", OTHER)
    (missing,) = found.smtp.rules[0].contexts[0].missing
    assert (
        missing == f"zone 'z9' does not hold 10.0.0.2, nor {OTHER}; 1 of its entries are not matched by address or VPC"
    )
    (found,) = access.explain("acc", "10.0.0.2", "private", "i1")
    assert found.smtp.rules[0].contexts[0].zones[0].unseen == 2


def test_a_context_without_zones_allows_any_address() -> None:
    assert table([], [rule("r1")]).welcome("198.51.100.7", "public").allowed


def test_overlapping_and_adjacent_ranges_merge() -> None:
    wide = zone("z3", ("ipRange", "10.0.0.5-10.0.0.20"), ("subnet", "10.0.0.0/29"), ("ipAddress", "10.0.0.21"))
    access = table([wide], [rule("r1", "z3")])
    assert all(access.welcome(f"10.0.0.{n}", "public").allowed for n in range(22))
    assert not access.welcome("10.0.0.22", "public").allowed


# -- the allow-list --------------------------------------------------------------------------------------------


def listing(*networks: str, instance: str = "i1", ends_at: float = 200.0, updated_at: float = 5.0) -> AllowList:
    addresses = tuple(Address("subnet", network) for network in networks)
    return AllowList(instance, addresses, ends_at, "", "1", 0, updated_at, "", "")


def test_a_list_lets_in_beside_the_rules_and_cuts_nobody_off() -> None:
    listed = replace(snapshot([LOOPBACK], [rule("r1", "z1")]), allow_lists=(listing("192.0.2.0/24"),), taken_at=100)
    access = AccessTable(listed)
    decision = access.decide("i1", "192.0.2.1", "private")
    assert decision.allowed and decision.rule_id == ""
    assert decision.reason == "the allow-list of instance i1 holds 192.0.2.1 until 1970-01-01T00:03:20Z"
    assert access.welcome("192.0.2.1", "public").allowed
    assert access.decide("i1", "127.0.0.1", "public").rule_id == "r1"
    assert not access.decide("i2", "192.0.2.1", "public").allowed
    assert "192.0.2.0/24" in access.subnets("i1")[0] and "192.0.2.0/24" not in access.subnets("i2")[0]


def test_without_any_rule_a_list_is_one_of_its_own() -> None:
    access = AccessTable(replace(snapshot([], []), allow_lists=(listing("192.0.2.0/24"),), taken_at=100))
    assert access.decide("i1", "192.0.2.1", "public").allowed and access.welcome("192.0.2.1", "public").allowed
    assert not access.decide("i1", "198.51.100.1", "public").allowed
    assert access.subnets("i1") == (["192.0.2.0/24"], 5.0)


def test_a_list_that_has_ended_grants_nothing_and_says_when() -> None:
    ended = replace(snapshot([], []), allow_lists=(listing("192.0.2.0/24"),), taken_at=200.0)
    access = AccessTable(ended)
    assert not access.decide("i1", "192.0.2.1", "public").allowed and not access.welcome("192.0.2.1", "public").allowed
    assert access.subnets("i1") == ([], 200.0)
    assert access.until == float("inf")
    (first, _) = access.explain("acc", "192.0.2.1", "public")
    assert first.allow_list is not None and first.allow_list.holds and first.allow_list.ended
    assert first.allow_list.missing == ("the allow-list ended at 1970-01-01T00:03:20Z: it grants nothing",)


def test_a_table_holds_until_the_next_list_ends() -> None:
    lists = (listing("192.0.2.0/24", ends_at=300), listing("192.0.2.0/24", instance="i2", ends_at=250))
    first = AccessTable(replace(snapshot([], []), allow_lists=lists, taken_at=100))
    assert first.until == 250
    later = AccessTable(replace(snapshot([], []), allow_lists=lists, taken_at=260), first)
    assert later.until == 300
    assert later.decide("i1", "192.0.2.1", "public").allowed and not later.decide("i2", "192.0.2.1", "public").allowed


def test_a_list_that_was_changed_is_compiled_anew() -> None:
    old = listing("192.0.2.0/24")
    first = AccessTable(replace(snapshot([], []), allow_lists=(old,), taken_at=100))
    new = replace(old, networks=(Address("ipAddress", "192.0.2.1"),), version="2")
    table = AccessTable(replace(snapshot([], []), allow_lists=(new,), taken_at=100), first)
    assert table.decide("i1", "192.0.2.1", "public").allowed
    assert not table.decide("i1", "192.0.2.2", "public").allowed


# -- the control plane ----------------------------------------------------------------------------------------


def test_the_control_plane_is_open_until_a_rule_restricts_it() -> None:
    for rules in (
        [],
        [rule("smtp", "z1")],
        [control("r", "z1", instance="i2")],
        [control("r", "z1", enforcement="disabled")],
    ):
        decision, reported = table([LOOPBACK], rules).decide_control("i1", "192.0.2.1", "public")
        assert (decision.allowed, decision.rule_id, decision.verdict, reported) == (True, "", "Permit", ())


@pytest.mark.parametrize("api", [CONTROL_PLANE, ALL_APIS])
def test_every_enabled_rule_for_the_control_plane_must_allow(api: str) -> None:
    office = zone("z2", ("ipRange", "127.0.0.1-127.0.0.9"))
    access = table([LOOPBACK, office], [control("r1", "z1", api=api), control("r2", "z2", api=api)])
    allowed, _ = access.decide_control("i1", "127.0.0.5", "public")
    assert (allowed.verdict, allowed.rule_id, allowed.enforced) == ("Permit", "r2", True)
    refused, _ = access.decide_control("i1", "127.0.0.10", "public")
    assert (refused.verdict, refused.rule_id) == ("Deny", "r2")
    assert access.decide_control("i1", "127.0.0.10", "public") is access.decide_control("i1", "127.0.0.10", "public")


def test_a_rule_without_operations_is_for_the_control_plane_too() -> None:
    access = table([LOOPBACK], [replace(rule("r1", "z1"), document={})])
    assert not access.decide_control("i1", "192.0.2.1", "public")[0].allowed
    assert access.decide("i1", "127.0.0.1", "public").allowed


def test_report_is_told_and_not_enforced() -> None:
    access = table(
        [LOOPBACK],
        [control("told", "z1", enforcement="report"), control("other", "nowhere", enforcement="report", instance="i2")],
    )
    decision, reported = access.decide_control("i1", "192.0.2.1", "public")
    assert decision.allowed and not decision.rule_id
    assert [(told.verdict, told.rule_id, told.enforced) for told in reported] == [("Deny", "told", False)]


def test_what_is_no_address_is_in_no_zone() -> None:
    everywhere = control("everywhere", instance="i2")
    access = table([LOOPBACK], [control("r1", "z1", instance="i1"), everywhere])
    for text in ("", "testclient", "/run/api.sock"):
        assert not access.decide_control("i1", text, "public")[0].allowed
        assert access.decide_control("i2", text, "public")[0].allowed


# -- the effective list ----------------------------------------------------------------------------------------


def test_the_effective_list_is_what_all_rules_allow_in_the_fewest_networks() -> None:
    wide = replace(zone("wide", ("ipRange", "10.0.0.0-10.0.1.255"), ("subnet", "2001:db8::/32")), updated_at=5.0)
    less = zone("less", ("subnet", "10.0.1.0/24"), ("subnet", "10.0.2.0/24"), excluded=(("ipAddress", "10.0.1.255"),))
    only = snapshot([wide, less], [replace(rule("r1", "wide"), updated_at=3.0)])
    assert effective_subnets(only, "i1") == (["10.0.0.0/23", "2001:db8::/32"], 5.0)
    both = snapshot([wide, less], [rule("r1", "wide"), replace(rule("r2", "less", instance="i1"), updated_at=9.0)])
    assert effective_subnets(both, "i1") == (
        ["10.0.1.0/25", "10.0.1.128/26", "10.0.1.192/27", "10.0.1.224/28", "10.0.1.240/29", "10.0.1.248/30", "10.0.1.252/31", "10.0.1.254/32"],
        9.0,
    )  # fmt: skip
    assert effective_subnets(both, "i2")[0] == ["10.0.0.0/23", "2001:db8::/32"]


def test_the_effective_list_at_its_ends() -> None:
    assert effective_subnets(snapshot([LOOPBACK], []), "i1") == ([], 0.0)
    assert effective_subnets(snapshot([LOOPBACK], [rule("r1", "z1")]), "unknown") == ([], 0.0)
    assert effective_subnets(snapshot([], [rule("r1")]), "i1")[0] == ["0.0.0.0/0", "::/0"]
    off = replace(rule("r1", "z1", enforcement="disabled"), updated_at=7.0)
    assert effective_subnets(snapshot([LOOPBACK], [off]), "i1") == ([], 7.0)
    assert effective_subnets(snapshot([LOOPBACK], [control("r1", "z1")]), "i1") == ([], 0.0)
    assert (
        effective_subnets(snapshot([LOOPBACK], [rule("r1", "gone"), rule("r2", endpoints=("direct",))]), "i1")[0] == []
    )


def test_two_rules_over_different_endpoints_let_nobody_in() -> None:
    rules = [rule("r1", "z1", endpoints=("public",)), rule("r2", "z1", endpoints=("private",))]
    assert effective_subnets(snapshot([LOOPBACK], rules), "i1")[0] == []


# -- the why -----------------------------------------------------------------------------------------------------


def test_an_explanation_says_what_each_rule_lacks() -> None:
    vpc = zone("vpc", ("vpc", "crn:v1:x"), ("ipAddress", "192.0.2.9"))
    multi: dict[str, object] = {"contexts": [{"attributes": [{"name": "mfa", "value": "LEVEL1"}]}]}
    access = table(
        [LOOPBACK, vpc],
        [
            rule("good", "z1"),
            rule("narrow", "z1", "vpc", endpoints=("private",), instance="i1"),
            rule("off", "z1", enforcement="disabled"),
            replace(rule("told", "z1", enforcement="report", smtp=False), document={}),
            replace(rule("mfa", "z1"), contexts=(), document=multi),
            rule("elsewhere", "z1", instance="i2"),
        ],
    )
    (found,) = access.explain("acc", "127.66.0.1", "public", "i1")
    assert (found.instance_id, found.region, found.smtp.decision.rule_id) == ("i1", "us-south", "good")
    told = {verdict.rule_id: verdict for verdict in found.smtp.rules}
    assert told.keys() == {"good", "narrow", "off", "told", "mfa"}
    assert told["good"].contexts[0].missing == ("zone 'z1' excludes 127.66.0.1",)
    narrow = told["narrow"].contexts[0]
    assert (narrow.endpoint_types, narrow.allows) == (("private",), False)
    assert narrow.missing == (
        "the endpoint type is public, not private",
        "zone 'z1' excludes 127.66.0.1",
        "zone 'vpc' does not hold 127.66.0.1; 1 of its entries are not matched by address",
    )
    assert "disabled" in told["off"].missing[0] and not told["off"].enforced
    assert "report mode" in told["told"].missing[0] and not told["told"].enforced
    assert "asks for mfa" in told["mfa"].missing[0]
    assert {verdict.rule_id for verdict in found.control.rules} == {"told", "mfa"}
    assert "refuses nobody" in found.control.rules[0].missing[0]


def test_an_explanation_of_a_permission_and_of_other_accounts() -> None:
    access = table([LOOPBACK], [rule("good", "z1", endpoints=("public",))])
    both = access.explain("acc", "127.0.0.1", "public")
    assert [each.instance_id for each in both] == ["i1", "i2"]
    verdict = both[0].smtp.rules[0]
    assert (verdict.allows, verdict.enforced, verdict.missing, verdict.contexts[0].missing) == (True, True, (), ())
    assert (verdict.contexts[0].zones[0].holds, verdict.contexts[0].zones[0].excludes) == (True, False)
    assert both[0].control.rules == () and both[0].control.decision.allowed
    assert access.explain("other", "127.0.0.1", "public") == ()
    with pytest.raises(ValueError):
        access.explain("acc", "localhost", "public")


def test_the_decision_at_connect_names_its_rules() -> None:
    access = table([LOOPBACK], [rule("r1", "z1")])
    assert (access.welcome("127.0.0.1", "public").rule_id, access.welcome("192.0.2.1", "public").rule_id) == (
        "r1",
        "r1",
    )
    assert table([LOOPBACK], []).welcome("127.0.0.1", "public").rule_id == ""


def test_mapped_addresses_are_the_ones_they_mean() -> None:
    mapped = Zone(
        "z1", "acc", "z", "", (Address("subnet", "192.0.2.0/24"), Address("ipAddress", "::ffff:198.51.100.1")),
        (Address("ipAddress", "::ffff:192.0.2.66"), Address("subnet", "::ffff:192.0.2.128/121")), "v", 0.0, 0.0, "", "",
    )  # fmt: skip
    access = table([mapped], [rule("r1", "z1")])
    for address, allowed in (
        ("192.0.2.1", True),
        ("198.51.100.1", True),
        ("192.0.2.66", False),
        ("192.0.2.200", False),
    ):
        assert access.welcome(address, "public").allowed is allowed, address


def test_what_has_not_changed_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    holding = access_module.holding

    def counted(addresses: tuple[Address, ...]) -> Ranges:
        compiled.append(len(addresses))
        return holding(addresses)

    monkeypatch.setattr(access_module, "holding", counted)
    unnamed = replace(LOOPBACK, id="z2")
    first = table([LOOPBACK, unnamed], [rule("r1", "z1")])
    assert len(compiled) == 2  # what a rule names: its addresses and its exclusions
    again = AccessTable(snapshot([LOOPBACK, unnamed], [rule("r1", "z1")]), first)
    assert len(compiled) == 2 and again.welcome("127.0.0.1", "public").allowed
    changed = replace(LOOPBACK, version="v2", addresses=(Address("ipAddress", "192.0.2.1"),))
    third = AccessTable(snapshot([changed], [rule("r1", "z1")]), again)
    assert len(compiled) == 4
    assert third.welcome("192.0.2.1", "public").allowed and not third.welcome("127.0.0.1", "public").allowed
