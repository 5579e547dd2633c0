"""Rules compile to what the relay decides by; nothing that SMTP cannot show opens the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.access import Address, Context, Rule, Zone
from outgate.store import access
from outgate.store.access import Changed, InUse, NoZone, TooManyAddresses
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from outgate.store.tenancy import Conflict, NotThere, TooMany


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    opened.tenancy.create_account("acc")
    yield opened
    opened.close()


def some(count: int, network: str = "192.0.2") -> tuple[Address, ...]:
    return tuple(Address("ipAddress", f"{network}.{number}") for number in range(count))


def create_zone(store: ControlStore, name: str = "z", addresses: int = 1, account: str = "acc") -> Zone:
    return store.access.create_zone(account, name=name, description="", addresses=some(addresses), excluded=(), by="me")


def replace_zone(store: ControlStore, zone: Zone, *, expected: set[str] | None = None, **changes: object) -> Zone:
    values = {"name": zone.name, "description": "", "addresses": zone.addresses, "excluded": (), "by": "you", **changes}
    return store.access.replace_zone("acc", zone.id, expected=expected, **values)  # type: ignore[arg-type]


def create(
    store: ControlStore,
    *contexts: dict[str, str],
    api_types: tuple[str, ...] = (),
    enforcement: str = "enabled",
    **resource: str,
) -> Rule:
    document: dict[str, object] = {
        "contexts": [
            {"attributes": [{"name": name, "value": value} for name, value in context.items()]} for context in contexts
        ],
        "resources": [{"attributes": [{"name": name, "value": value} for name, value in resource.items()]}],
    }
    if api_types:
        document["operations"] = {"api_types": [{"api_type_id": api_type} for api_type in api_types]}
    return store.access.create_rule("acc", description="", document=document, enforcement=enforcement, by="me")


def test_contexts_and_resource_are_compiled(store: ControlStore) -> None:
    one, two = create_zone(store, "one"), create_zone(store, "two")
    rule = create(
        store,
        {"networkZoneId": f"{one.id}, {two.id}", "endpointType": "public"},
        {"endpointType": "private,direct"},
        accountId="acc",
        serviceName="event-notifications",
        serviceInstance="i1",
        region="eu-de",
    )
    assert rule.contexts == (Context((one.id, two.id), ("public",)), Context((), ("private", "direct")))
    assert (rule.instance_id, rule.region, rule.account_id) == ("i1", "eu-de", "acc")
    assert store.access.rule("acc", rule.id) == rule
    assert store.access.rule("other", rule.id) is None
    assert store.access.snapshot().rules == (rule,)


@pytest.mark.parametrize(
    ("api_types", "enforcement", "smtp"),
    [
        ((), "enabled", True),
        ((access.ALL_APIS,), "enabled", True),
        ((access.SMTP_API,), "enabled", True),
        ((access.SMTP_API_DEV,), "disabled", True),
        ((access.CONTROL_PLANE, access.SMTP_API), "enabled", True),
        ((access.CONTROL_PLANE,), "enabled", False),
        ((), "report", False),
    ],
)
def test_smtp_flag(store: ControlStore, api_types: tuple[str, ...], enforcement: str, smtp: bool) -> None:
    rule = create(store, {"endpointType": "public"}, api_types=api_types, enforcement=enforcement)
    assert rule.smtp is smtp


def test_context_with_multi_factor_login_never_opens_smtp(store: ControlStore) -> None:
    rule = create(store, {"mfa": "LEVEL1"}, {"mfa": "LEVEL2", "networkZoneId": create_zone(store).id})
    assert rule.contexts == ()


def test_zones_keep_their_addresses(store: ControlStore) -> None:
    addresses = (Address("subnet", "192.0.2.0/24"), Address("serviceRef", '{"account_id": "a"}'))
    zone = store.access.create_zone(
        "acc", name="z", description="d", addresses=addresses, excluded=(Address("ipAddress", "192.0.2.1"),), by="me"
    )
    assert store.access.zone("acc", zone.id) == zone
    assert store.access.zone("other", zone.id) is None
    assert store.access.zones("acc", name="z") == store.access.snapshot().zones == (zone,)
    with pytest.raises(Conflict) as refused:
        store.access.create_zone("acc", name="z", description="", addresses=addresses, excluded=(), by="me")
    assert refused.value.field == "name"
    store.tenancy.create_account("other")
    store.access.create_zone("other", name="z", description="", addresses=addresses, excluded=(), by="me")


def test_limits_per_account(store: ControlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_ZONES", 1)
    monkeypatch.setattr(access, "MOST_RULES", 1)
    store.access.create_zone("acc", name="a", description="", addresses=(), excluded=(), by="me")
    with pytest.raises(TooMany):
        store.access.create_zone("acc", name="b", description="", addresses=(), excluded=(), by="me")
    create(store, {"endpointType": "public"})
    with pytest.raises(TooMany):
        create(store, {"endpointType": "public"})


def test_a_zone_is_replaced_whole_and_gets_a_new_version(store: ControlStore) -> None:
    made = create_zone(store)
    changed = replace_zone(store, made, name="y", addresses=some(2), expected={"other", made.version})
    assert (changed.name, len(changed.addresses), changed.updated_by, changed.created_by) == ("y", 2, "you", "me")
    assert changed.version != made.version
    assert store.access.zone("acc", made.id) == changed
    assert replace_zone(store, changed, name="y").version != changed.version  # None stands for any version


def test_what_stands_against_replacing_and_deleting_a_zone(store: ControlStore) -> None:
    made, other = create_zone(store), create_zone(store, "other")
    with pytest.raises(Changed):
        replace_zone(store, made, expected={"old"})
    with pytest.raises(Changed):
        store.access.delete_zone("acc", made.id, expected=set())
    with pytest.raises(Conflict):
        replace_zone(store, made, name="other")
    for account, zone_id in (("acc", "none"), ("another", made.id)):
        with pytest.raises(NotThere):
            store.access.replace_zone(
                account, zone_id, expected=None, name="n", description="", addresses=(), excluded=(), by="x"
            )
        with pytest.raises(NotThere):
            store.access.delete_zone(account, zone_id)
    assert set(store.access.zones("acc")) == {made, other}
    store.access.delete_zone("acc", made.id, expected={made.version})
    assert store.access.zone("acc", made.id) is None


def test_a_zone_that_rules_name_stays(store: ControlStore) -> None:
    zone = create_zone(store)
    rules = [create(store, {"networkZoneId": zone.id}), create(store, {"networkZoneId": zone.id, "mfa": "LEVEL1"})]
    with pytest.raises(InUse) as refused:
        store.access.delete_zone("acc", zone.id)
    assert set(refused.value.rule_ids) == {rule.id for rule in rules}
    for rule in rules:
        store.access.delete_rule("acc", rule.id, expected={rule.version})
    store.access.delete_zone("acc", zone.id)


def test_a_rule_is_replaced_whole_and_deleted(store: ControlStore) -> None:
    rule = create(store, {"endpointType": "public"}, serviceInstance="i1")
    document: dict[str, object] = {"contexts": [], "resources": [{"attributes": []}]}

    def replace(version: set[str] | None, account: str = "acc", rule_id: str = rule.id) -> Rule:
        return store.access.replace_rule(
            account, rule_id, expected=version, description="d", document=document, enforcement="disabled", by="you"
        )

    changed = replace({rule.version})
    assert (changed.contexts, changed.instance_id, changed.enforcement, changed.smtp) == ((), "", "disabled", True)
    assert (changed.created_by, changed.updated_by) == ("me", "you")
    assert store.access.rule("acc", rule.id) == changed
    with pytest.raises(Changed):
        replace({rule.version})
    with pytest.raises(NotThere):
        replace(None, account="another")
    with pytest.raises(Changed):
        store.access.delete_rule("acc", rule.id, expected={rule.version})
    with pytest.raises(NotThere):
        store.access.delete_rule("another", rule.id)
    store.access.delete_rule("acc", rule.id)
    with pytest.raises(NotThere):
        replace(None)


def test_a_rule_names_zones_of_its_account_only(store: ControlStore) -> None:
    store.tenancy.create_account("other")
    foreign = create_zone(store, account="other")
    for zone_id in ("none", foreign.id):
        with pytest.raises(NoZone) as refused:
            create(store, {"networkZoneId": f"{create_zone(store, zone_id).id},{zone_id}"})
        assert refused.value.zone_id == zone_id
    assert store.access.rules("acc") == ()


def test_the_zones_of_a_rule_have_1000_addresses_at_most_also_when_one_grows(store: ControlStore) -> None:
    one, two = create_zone(store, "one", 250), create_zone(store, "two", 250)
    rule = create(store, {"networkZoneId": one.id}, {"networkZoneId": two.id})
    more = (*some(250), *some(250, "198.51.100"), *some(250, "203.0.113"))
    replace_zone(store, one, addresses=more)
    with pytest.raises(TooManyAddresses) as refused:
        replace_zone(store, one, addresses=more, excluded=some(1))
    assert refused.value.rule_id == rule.id
    found = store.access.zone("acc", one.id)
    assert found is not None and (len(found.addresses), found.excluded) == (750, ())
    three = create_zone(store, "three")
    with pytest.raises(TooManyAddresses):
        create(store, {"networkZoneId": f"{one.id},{two.id},{three.id}"})


@pytest.mark.parametrize("kind", ["zone", "rule"])
def test_of_two_that_saw_the_same_version_one_changes_it(store: ControlStore, kind: str) -> None:
    zone, rule = create_zone(store), create(store, {"endpointType": "public"})
    document: dict[str, object] = {"contexts": [], "resources": [{"attributes": []}]}

    def zone_change(number: int) -> None:
        replace_zone(store, zone, expected={zone.version}, name=f"z{number}")

    def rule_change(number: int) -> None:
        store.access.replace_rule(
            "acc",
            rule.id,
            expected={rule.version},
            description=str(number),
            document=document,
            enforcement="enabled",
            by="x",
        )

    def won(change: Callable[[int], None], number: int) -> bool:
        try:
            change(number)
        except Changed:
            return False
        return True

    change = zone_change if kind == "zone" else rule_change
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda number: won(change, number), range(16)))
    assert results.count(True) == 1


def test_usage(store: ControlStore) -> None:
    store.tenancy.create_account("other")
    create_zone(store)
    create_zone(store, account="other")
    usage = store.access.usage("acc")
    assert usage is not None and (usage.zones, usage.rules) == (1, 0)
    assert store.access.usage("none") is None


def test_a_condition_that_lists_nothing_opens_nothing(store: ControlStore) -> None:
    assert create(store, {"networkZoneId": " , "}, {"endpointType": ""}).contexts == ()
