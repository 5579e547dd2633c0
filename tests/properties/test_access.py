"""Whatever the zones and rules: the list of allowed networks, the explanation and the decision say the same."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.access import Address, AllowList, Context, Rule, Snapshot, Zone
from outgate.relay.access import AccessTable, effective_subnets
from outgate.relay.ranges import EVERYWHERE, NOWHERE, Ranges, holding

# A small world, so that zones overlap, touch and exclude each other often; its ends are those of the versions.
V4 = [*range(16), *range(2**32 - 8, 2**32)]
V6 = [*range(8), *range(2**128 - 8, 2**128)]
four = st.sampled_from(V4).map(ipaddress.IPv4Address)
six = st.sampled_from(V6).map(ipaddress.IPv6Address)
ADDRESSES = [*map(ipaddress.IPv4Address, V4), *map(ipaddress.IPv6Address, V6)]


def span(pair: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]) -> Address:
    return Address("ipRange", f"{min(pair)}-{max(pair)}")


entries = st.one_of(
    (four | six).map(lambda address: Address("ipAddress", str(address))),
    st.tuples(four, four).map(span),
    st.tuples(six, six).map(span),  # type: ignore[arg-type]
    st.tuples(four, st.integers(0, 32)).map(lambda p: Address("subnet", str(ipaddress.ip_network(p, strict=False)))),
    st.tuples(six, st.integers(0, 128)).map(lambda p: Address("subnet", str(ipaddress.ip_network(p, strict=False)))),
    st.just(Address("vpc", "crn:v1:x")),
)
several = st.lists(entries, max_size=4).map(tuple)
zones = st.builds(
    lambda number, addresses, excluded: Zone(f"z{number}", "acc", "z", "", addresses, excluded, "1", 0, 0, "", ""),
    st.integers(0, 3),
    several,
    several,
)
contexts = st.builds(
    Context,
    st.lists(st.sampled_from(["z0", "z1", "z2", "z3"]), max_size=3).map(tuple),
    st.lists(st.sampled_from(["public", "private", "direct"]), max_size=2).map(tuple),
)
rules = st.builds(
    lambda account, found, instance, region, smtp, mode: Rule(
        "r", account, "", tuple(found), instance, region, smtp and mode != "report", mode,
        {} if smtp else {"operations": {"api_types": [{"api_type_id": "other"}]}}, "1", 0, 0, "", "",
    ),
    st.sampled_from(["acc", "acc", "acc", "other"]),
    st.lists(contexts, max_size=3),
    st.sampled_from(["", "i1", "i2"]),
    st.sampled_from(["", "", "eu-de", "us-south"]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["enabled", "enabled", "enabled", "disabled", "report"]),
)  # fmt: skip
NOW = 1000.0
allow_lists = st.builds(
    lambda instance, networks, ends_at: AllowList(instance, networks, ends_at, "", "1", 0, 0, "", ""),
    st.sampled_from(["i1", "i1", "i2"]),
    several,
    st.sampled_from([NOW - 1, NOW, NOW + 1]),
)
snapshots = st.builds(
    lambda some_zones, some_rules, lists: Snapshot(
        1,
        tuple({zone.id: zone for zone in some_zones}.values()),
        tuple(some_rules),
        (("i1", "acc", "eu-de"), ("i2", "acc", "us-south")),
        tuple({each.instance_id: each for each in lists}.values()),
        NOW,
    ),
    st.lists(zones, max_size=4),
    st.lists(rules, max_size=3),
    st.lists(allow_lists, max_size=2),
)


@given(snapshots)
def test_an_address_is_in_the_list_if_and_only_if_it_may_come_in(snapshot: Snapshot) -> None:
    table = AccessTable(snapshot)
    listed, _ = effective_subnets(snapshot, "i1")
    networks = [ipaddress.ip_network(text) for text in listed]
    for address in ADDRESSES:
        allowed = any(table.decide("i1", str(address), endpoint).allowed for endpoint in ("public", "private"))
        assert any(address in network for network in networks) is allowed, (address, listed)
    collapsed = [
        str(network) for version in (4, 6) for network in ipaddress.collapse_addresses(n for n in networks if n.version == version)
    ]  # fmt: skip
    assert listed == collapsed


@given(
    snapshots,
    st.sampled_from(ADDRESSES),
    st.sampled_from([("public", ""), ("private", ""), ("private", "crn:v1:x"), ("private", "crn:v1:y")]),
)
def test_an_explanation_agrees_with_the_decision(
    snapshot: Snapshot, address: ipaddress.IPv4Address, through: tuple[str, str]
) -> None:
    table = AccessTable(snapshot)
    endpoint, vpc = through
    for found in table.explain("acc", str(address), endpoint, vpc=vpc):
        smtp = [verdict for verdict in found.smtp.rules if verdict.enforced]
        assert found.smtp.decision == table.decide(found.instance_id, str(address), endpoint, vpc)
        listed = found.allow_list is not None and not found.allow_list.missing
        assert found.smtp.decision.allowed is (listed or (bool(smtp) and all(verdict.allows for verdict in smtp)))
        control = [verdict for verdict in found.control.rules if verdict.enforced]
        assert found.control.decision.allowed is all(verdict.allows for verdict in control)
        for verdict in (*found.smtp.rules, *found.control.rules):
            assert verdict.missing or (verdict.allows and verdict.enforced)
            assert all(context.missing or context.allows for context in verdict.contexts)
    welcome = any(table.decide(instance, str(address), endpoint, vpc).allowed for instance in ("i1", "i2"))
    assert table.welcome(str(address), endpoint, vpc).allowed is welcome


@given(snapshots, st.sampled_from(ADDRESSES))
def test_a_gateway_opens_nothing_that_a_zone_without_its_vpc_does_not(
    snapshot: Snapshot, address: ipaddress.IPv4Address
) -> None:
    table = AccessTable(snapshot)
    by_address = table.decide("i1", str(address), "private").allowed
    assert table.decide("i1", str(address), "private", "crn:v1:y").allowed is by_address
    if by_address:
        assert table.decide("i1", str(address), "private", "crn:v1:x").allowed


@given(snapshots, st.sampled_from(ADDRESSES), st.sampled_from(["public", "private"]))
def test_an_allow_list_lets_in_whom_it_holds_beside_whom_the_rules_let_in(
    snapshot: Snapshot, address: ipaddress.IPv4Address, endpoint: str
) -> None:
    table, without = AccessTable(snapshot), AccessTable(replace(snapshot, allow_lists=()))
    for instance in ("i1", "i2"):
        listed = any(
            address in holding(each.networks)
            for each in snapshot.allow_lists
            if each.instance_id == instance and each.ends_at > NOW
        )
        by_rules = without.decide(instance, str(address), endpoint).allowed
        assert table.decide(instance, str(address), endpoint).allowed is (listed or by_rules)
        control = table.decide_control(instance, str(address), endpoint)
        assert control == without.decide_control(instance, str(address), endpoint)


@given(several, several)
def test_sets_of_addresses_are_sets(one: tuple[Address, ...], other: tuple[Address, ...]) -> None:
    left, right = holding(one), holding(other)
    inside = {address for address in ADDRESSES if address in left}
    outside = {address for address in ADDRESSES if address in right}

    def members(ranges: Ranges) -> set[object]:
        return {address for address in ADDRESSES if address in ranges}

    assert members(left | right) == inside | outside
    assert members(left & right) == inside & outside
    assert members(left - right) == inside - outside
    assert left - NOWHERE == left == left & EVERYWHERE
    assert left - EVERYWHERE == NOWHERE
    assert EVERYWHERE - (EVERYWHERE - left) == left
