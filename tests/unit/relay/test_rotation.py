"""Rotation and Ed25519 over a real name server and a real store: the verification leads from key to key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import KeptKey, KeyState, SmtpConfiguration, Verification
from outgate.relay.onboarding import Verifier
from outgate.relay.recheck import Recheck
from outgate.relay.standing import Schedule
from outgate.sandbox.zone import Zone
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import new_dkim_key, new_ed25519_key
from outgate.store.secrets import open_box
from support.names import served
from support.onboarding import leaving


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(tmp_path: Path, clock: FrozenClock) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    yield opened
    opened.close()


@pytest.fixture
def configuration(store: ControlStore) -> SmtpConfiguration:
    instance = store.tenancy.create_instance(store.tenancy.create_account(), "eu-de", "test")
    return store.tenancy.create_configuration(
        instance.id, name="n", domain="shop.test", description="", key=new_dkim_key(), second=new_ed25519_key()
    )


@pytest.fixture
def zone(store: ControlStore, configuration: SmtpConfiguration) -> Zone:
    zone = Zone()
    zone.put("shop.test", "A", ["127.0.0.1"])
    zone.put("shop.test", "TXT", ["v=spf1 ip4:192.0.2.1 -all"])
    publish(zone, *store.signing_keys.keys(configuration.id))
    return zone


def publish(zone: Zone, *keys: KeptKey) -> None:
    for kept in keys:
        zone.put(kept.key.name("shop.test"), "TXT", [kept.key.text], ttl=1)


def waiting(store: ControlStore, configuration: SmtpConfiguration) -> list[KeptKey]:
    return [kept for kept in store.signing_keys.keys(configuration.id) if kept.state is KeyState.NEXT]


def now_is(store: ControlStore, configuration: SmtpConfiguration) -> SmtpConfiguration:
    found = store.tenancy.configuration(configuration.instance_id, configuration.id)
    assert found is not None
    return found


async def test_both_keys_are_turned_by_a_check(
    store: ControlStore,
    configuration: SmtpConfiguration,
    zone: Zone,
    clock: FrozenClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with served(zone) as resolver:
        check = Verifier(resolver, store.verification, endpoint_of=leaving("192.0.2.1"), clock=clock)
        assert await check.verify(configuration, ["spf", "dkim"]) == {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL"}
        found = now_is(store, configuration)
        assert found.second is not None
        made = [new_dkim_key(), new_ed25519_key()]
        store.signing_keys.begin_rotation(configuration.id, made)
        clock.advance(10)
        assert await check.verify(found, ["dkim"]) == {"dkim": "SUCCESSFUL"}
        assert (now_is(store, configuration).key, now_is(store, configuration).second) == (found.key, found.second)
        results = {each.type: each.result for each in reversed(store.verification.evidence(configuration.id))}
        assert (results["dkim_next"], results["dkim_ed25519_next"], results["dkim_ed25519"]) == (
            "missing",
            "missing",
            "ok",
        )
        publish(zone, *waiting(store, configuration))
        clock.advance(10)
        assert await check.verify(found, ["dkim"]) == {"dkim": "SUCCESSFUL"}
    after = now_is(store, configuration)
    assert after.second is not None
    assert (after.key.public, after.second.public) == tuple(key.public for key in made)


async def test_the_round_that_never_ends_turns_keys_too_and_a_missing_ed25519_record_suspends_nobody(
    store: ControlStore, configuration: SmtpConfiguration, zone: Zone, clock: FrozenClock
) -> None:
    schedule = Schedule()
    changes: list[float] = []

    async def changed() -> None:
        changes.append(clock.now())

    async with served(zone, clock) as resolver:
        check = Verifier(resolver, store.verification, endpoint_of=leaving("192.0.2.1"), clock=clock)
        await check.verify(configuration, ["spf", "dkim"])
        second = now_is(store, configuration).second
        assert second is not None
        round_ = Recheck(check, store.verification, clock, schedule=schedule, changed=changed, jitter=lambda: 0.0)
        round_.start()
        zone.put(second.name("shop.test"), "TXT", [])
        for _ in range(20):
            clock.advance(schedule.interval)
            await round_.poke()
        found = now_is(store, configuration)
        assert (found.second, found.standing, found.dkim) == (None, "verified", Verification.SUCCESSFUL)
        assert len(changes) == 1
        store.signing_keys.begin_rotation(configuration.id, [new_dkim_key()])
        (following,) = waiting(store, configuration)
        zone.put(configuration.key.name("shop.test"), "TXT", [])
        publish(zone, following)
        clock.advance(schedule.interval)
        await round_.poke()
        found = now_is(store, configuration)
        assert (found.key, found.standing, found.dkim) == (following.key, "verified", Verification.SUCCESSFUL)
        assert len(changes) == 2
        await round_.stop()
