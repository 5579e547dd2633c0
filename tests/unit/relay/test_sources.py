"""Outgoing addresses: looked at by binding them, suspended and restored, chosen by site."""

from __future__ import annotations

import asyncio

import pytest

from outgate.base.clock import FrozenClock
from outgate.relay.endpoints import Endpoint
from outgate.relay.sources import Sources, bound


def endpoint(name: str, *addresses: str) -> Endpoint:
    return Endpoint(name, (), f"{name}.test", f"private.{name}.test", ("127.0.0.1",), addresses, f"out.{name}.test")


def test_a_real_bind_tells_what_is_plumbed() -> None:
    assert bound("127.0.0.1") == "" and bound("127.0.0.77") == "" and bound("::1") == ""
    assert "assign" in bound("192.0.2.77") and "assign" in bound("2001:db8::77")


def test_what_is_not_plumbed_is_suspended_and_said_and_restored_when_it_is_back() -> None:
    missing = {"192.0.2.77": "Cannot assign requested address"}
    clock = FrozenClock(1000.0)
    sources = Sources([endpoint("dal", "127.0.0.1", "192.0.2.77")], clock, trouble=lambda a: missing.get(a, ""))
    assert [each.suspended for each in sources.all] == [False, False]
    sources.check()
    before = sources.generation
    (good, bad) = sources.all
    assert not good.suspended and good.checked_at == 1000.0
    assert (bad.suspended, bad.reason, bad.since, bad.endpoints) == (True, missing["192.0.2.77"], 1000.0, ("dal",))
    assert sources.suspended("192.0.2.77") and not sources.suspended("127.0.0.1")
    clock.advance(60)
    sources.check()
    assert sources.generation == before and sources.all[1].since == 1000.0 and sources.all[1].checked_at == 1060.0
    missing.clear()
    clock.advance(60)
    sources.check()
    assert sources.generation == before + 1
    assert (sources.all[1].suspended, sources.all[1].reason, sources.all[1].since) == (False, "", 1120.0)


def test_the_real_bind_decides() -> None:
    sources = Sources([endpoint("dal", "127.0.0.1", "192.0.2.77")], FrozenClock())
    sources.check()
    assert [each.suspended for each in sources.all] == [False, True]


def test_nothing_is_chosen_that_is_another_endpoints_or_suspended() -> None:
    sources = Sources([endpoint("dal", "192.0.2.77", "::1"), endpoint("fra", "127.0.0.5")], FrozenClock())
    sources.check()
    assert sources.choose("dal", "198.51.100.1", "mx.test") is None
    assert sources.choose("dal", "2001:db8::1", "mx.test") == "::1"
    assert sources.choose("fra", "198.51.100.1", "mx.test") == "127.0.0.5"
    assert sources.choose("fra", "2001:db8::1", "mx.test") is None
    why = sources.why_none("dal", "198.51.100.1")
    assert "192.0.2.77" in why and "dal" in why and "outgoing_addresses" in why
    assert "no IPv6 address" in sources.why_none("fra", "2001:db8::1")


def test_sites_are_spread_and_keep_their_address_when_another_goes() -> None:
    addresses = tuple(f"127.0.0.{number}" for number in range(10, 14))
    missing: set[str] = set()
    sources = Sources([endpoint("dal", *addresses)], FrozenClock(), trouble=lambda a: "gone" if a in missing else "")
    sites = [f"mx{number}.test" for number in range(400)]
    before = {site: sources.choose("dal", "198.51.100.1", site) for site in sites}
    counts = [list(before.values()).count(address) for address in addresses]
    assert min(counts) > 50, counts
    assert before == {site: sources.choose("dal", "198.51.100.1", site) for site in sites}
    missing.add(addresses[0])
    sources.check()
    after = {site: sources.choose("dal", "198.51.100.1", site) for site in sites}
    assert addresses[0] not in after.values()
    assert all(after[site] == before[site] for site in sites if before[site] != addresses[0])


async def test_it_looks_at_the_start_and_again_and_again() -> None:
    looked: list[str] = []
    seen = asyncio.Event()

    def trouble(address: str) -> str:
        looked.append(address)
        if len(looked) == 3:
            seen.set()
        return ""

    sources = Sources([endpoint("dal", "127.0.0.1")], FrozenClock(), trouble=trouble)
    sources.start(0.001)
    assert looked == ["127.0.0.1"]
    await seen.wait()
    await sources.stop()


def test_the_log_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    Sources([endpoint("dal", "192.0.2.77")], FrozenClock()).check()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "source.suspended")
    fields = record.__dict__["fields"]
    assert fields["address"] == "192.0.2.77" and "interface" in fields["remedy"] and fields["reason"]
