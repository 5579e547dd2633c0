"""Rules compile to what the relay decides by; nothing that SMTP cannot show opens the way in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.access import Address, Context, Rule
from outgate.store import access
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from outgate.store.tenancy import Conflict, TooMany


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    opened.tenancy.create_account("acc")
    yield opened
    opened.close()


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
    rule = create(
        store,
        {"networkZoneId": "z1, z2", "endpointType": "public"},
        {"endpointType": "private,direct"},
        accountId="acc",
        serviceName="event-notifications",
        serviceInstance="i1",
        region="eu-de",
    )
    assert rule.contexts == (Context(("z1", "z2"), ("public",)), Context((), ("private", "direct")))
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
    rule = create(store, {"mfa": "LEVEL1"}, {"mfa": "LEVEL2", "networkZoneId": "z1"})
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
