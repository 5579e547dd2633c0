"""Names of gateways in the zone: several addresses, somebody else's record, and after a restart."""

from __future__ import annotations

from pathlib import Path

from outgate.sandbox.private_names import PrivateNames
from outgate.sandbox.zone import Zone

NAME = "private.smtp.test"


def test_a_name_leads_to_every_gateway_that_is_open() -> None:
    zone = Zone()
    names = PrivateNames(zone)
    names.publish(NAME, "127.20.0.4")
    names.publish(NAME, "127.20.1.4")
    names.publish(NAME, "127.20.1.4")
    assert zone.addresses(NAME) == ["127.20.0.4", "127.20.1.4"]
    names.withdraw(NAME, "127.20.0.4")
    assert zone.addresses(NAME) == ["127.20.1.4"]
    names.withdraw(NAME, "127.20.1.4")
    names.withdraw(NAME, "127.20.1.4")
    assert zone.get(NAME, "A") is None


def test_somebody_elses_record_stays() -> None:
    zone = Zone()
    names = PrivateNames(zone)
    for put in (lambda: zone.put(NAME, "A", ["127.0.0.9"]), lambda: zone.put(NAME, "A", []), lambda: zone.put_failure(NAME, "A", "SERVFAIL")):  # fmt: skip
        put()
        before = zone.get(NAME, "A")
        names.publish(NAME, "127.20.0.4")
        assert zone.get(NAME, "A") == before
        names.withdraw(NAME, "127.20.0.4")
        assert zone.get(NAME, "A") == before
    zone.delete(NAME, "A")
    names.publish(NAME, "127.20.0.4")
    zone.put(NAME, "A", ["127.0.0.9"])
    names.withdraw(NAME, "127.20.0.4")
    assert zone.addresses(NAME) == ["127.0.0.9"]


def test_a_record_that_somebody_put_is_theirs_whatever_it_holds() -> None:
    zone = Zone()
    names = PrivateNames(zone)
    zone.put(NAME, "A", ["127.20.0.4"])
    names.publish(NAME, "127.20.0.4")
    names.withdraw(NAME, "127.20.0.4")
    assert zone.addresses(NAME) == ["127.20.0.4"]
    zone.delete(NAME, "A")
    names.publish(NAME, "127.20.0.4")
    zone.put(NAME, "A", ["127.20.0.4"])
    names.publish(NAME, "127.20.1.4")
    names.withdraw(NAME, "127.20.0.4")
    assert zone.addresses(NAME) == ["127.20.0.4"]


def test_what_a_run_published_that_crashed_is_forgotten_by_the_next(tmp_path: Path) -> None:
    before = Zone(tmp_path / "zone.json")
    before.put("own.test", "A", ["127.20.0.4"])
    names = PrivateNames(before)
    names.publish(NAME, "127.20.0.4")
    names.publish(NAME, "127.20.1.4")
    names.publish("other.test", "127.20.1.4")
    zone = Zone(tmp_path / "zone.json")
    again = PrivateNames(zone)
    assert zone.get(NAME, "A") is None and zone.get("other.test", "A") is None
    assert zone.addresses("own.test") == ["127.20.0.4"]
    again.publish(NAME, "127.20.2.4")
    assert zone.addresses(NAME) == ["127.20.2.4"]


def test_addresses_of_both_versions_and_what_an_earlier_run_left() -> None:
    zone = Zone()
    names = PrivateNames(zone)
    names.publish("p4.external.example", "2001:db8::1")
    names.publish("p4.external.example", "192.0.2.1")
    assert sorted(zone.addresses("p4.external.example")) == ["192.0.2.1", "2001:db8::1"]
    names.withdraw("p4.external.example", "2001:db8::1")
    assert zone.addresses("p4.external.example") == ["192.0.2.1"]
    names.publish("p4.external.example", "2001:db8::2")
    zone.put("p5.external.example", "AAAA", ["2001:db8::9"])
    PrivateNames(zone)
    assert zone.addresses("p4.external.example") == []
    assert zone.addresses("p5.external.example") == ["2001:db8::9"]
