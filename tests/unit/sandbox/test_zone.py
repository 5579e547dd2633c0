"""The zone's answers and what it lets in."""

from __future__ import annotations

import json
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from outgate.sandbox.zone import Entry, Zone, ZoneError


def ask(zone: Zone, name: str, rdtype: str) -> tuple[str, list[str]] | None:
    response = zone.answer(dns.message.make_query(name, rdtype))
    if response is None:
        return None
    records = [rdata.to_text() for rrset in response.answer for rdata in rrset]
    return dns.rcode.to_text(response.rcode()), records


def test_a_test_name_is_served_by_the_inbox() -> None:
    zone = Zone(address="127.0.0.9")
    assert ask(zone, "nobody.told.test", "MX") == ("NOERROR", ["10 mx.outgate.test."])
    assert ask(zone, "mx.outgate.test", "A") == ("NOERROR", ["127.0.0.9"])
    assert ask(zone, "nobody.told.test", "A") == ("NOERROR", [])
    assert ask(zone, "nobody.told.test", "TXT") == ("NOERROR", [])


def test_other_names_are_there_only_when_put() -> None:
    zone = Zone()
    assert ask(zone, "wknd.site", "MX") == ("NXDOMAIN", [])
    zone.put("mail.wknd.site", "A", ["192.0.2.1"])
    assert ask(zone, "wknd.site", "MX") == ("NOERROR", [])  # because of the name below it
    assert ask(zone, "MAIL.wknd.SITE", "A") == ("NOERROR", ["192.0.2.1"])


def test_an_mx_of_its_own_comes_before_the_inbox() -> None:
    zone = Zone()
    zone.put("other.test", "MX", ["5 mail.other.test."])
    assert ask(zone, "other.test", "MX") == ("NOERROR", ["5 mail.other.test."])
    zone.put("other.test", "MX", [])
    assert ask(zone, "other.test", "MX") == ("NOERROR", [])
    zone.delete("other.test", "MX")
    assert ask(zone, "other.test", "MX") == ("NOERROR", ["10 mx.outgate.test."])


@pytest.mark.parametrize("rcode", ["SERVFAIL", "NXDOMAIN", "REFUSED"])
def test_failures_on_purpose(rcode: str) -> None:
    zone = Zone()
    zone.put_failure("x.test", "A", rcode)
    assert ask(zone, "x.test", "A") == (rcode, [])
    assert ask(zone, "x.test", "MX") == ("NOERROR", ["10 mx.outgate.test."])
    zone.put_failure("x.test", "A", "DROP")
    assert ask(zone, "x.test", "A") is None


def test_aliases_are_followed_and_circles_end() -> None:
    zone = Zone()
    zone.put("www.x.test", "CNAME", ["x.test."])
    zone.put("x.test", "A", ["192.0.2.1"])
    zone.put("mail.example", "CNAME", ["alias.test."])
    zone.put("a.test", "CNAME", ["b.test."])
    zone.put("b.test", "CNAME", ["a.test."])
    assert ask(zone, "www.x.test", "A") == ("NOERROR", ["x.test.", "192.0.2.1"])
    assert ask(zone, "mail.example", "MX") == ("NOERROR", ["alias.test.", "10 mx.outgate.test."])
    assert ask(zone, "a.test", "A") == ("SERVFAIL", [])
    assert zone.addresses("www.x.test") == ["192.0.2.1"]
    assert zone.addresses("not..aname") == []


def test_negative_answers_carry_their_life() -> None:
    zone = Zone()
    zone.put("x.test", "A", [], 77)
    for rdtype, ttl in (("A", 77), ("TXT", 0)):
        response = zone.answer(dns.message.make_query("x.test", rdtype))
        assert response is not None
        (soa,) = response.authority
        assert (soa.rdtype, soa.ttl, soa[0].minimum) == (dns.rdatatype.SOA, ttl, ttl)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("x.test", "test."),
        ("a.b.shop.test", "shop.test."),
        ("shop.test", "shop.test."),
        ("a.own.test", "own.test."),
        ("alias.test", "shop.test."),
        ("gone.site", "site."),
        ("gone.example", "."),
        ("example", "."),
        ("unasked.test", "test."),
    ],
)
def test_a_negative_answer_shows_the_zone_it_is_from(name: str, owner: str) -> None:
    zone = Zone()
    zone.put("shop.test", "NS", ["ns1.shop.test."])
    zone.put("own.test", "SOA", ["ns1.own.test. h.own.test. 7 1 1 1 99"], 60)
    zone.put("alias.test", "CNAME", ["a.shop.test."])
    zone.put("wknd.site", "A", ["192.0.2.1"])
    zone.put_failure("unasked.test", "TXT", "NXDOMAIN")
    response = zone.answer(dns.message.make_query(name, "TXT"))
    assert response is not None
    (soa,) = response.authority
    assert (soa.name.to_text(), soa.rdtype) == (owner, dns.rdatatype.SOA)
    assert soa[0].to_text().startswith("ns1.own.test. h.own.test. 7 " if owner == "own.test." else "ns.outgate.test. ")


@pytest.mark.parametrize("apex", [".", "test"])
def test_the_zone_speaks_for_the_root_and_for_test(apex: str) -> None:
    zone = Zone(address="127.0.0.9")
    assert ask(zone, apex, "NS") == ("NOERROR", ["ns.outgate.test."])
    assert ask(zone, "ns.outgate.test", "A") == ("NOERROR", ["127.0.0.9"])
    rcode, records = ask(zone, apex, "SOA") or ("", [])
    assert (rcode, records[0].split()[:3]) == ("NOERROR", ["ns.outgate.test.", "hostmaster.outgate.test.", "1"])
    for rdtype in ("NS", "SOA"):
        response = zone.answer(dns.message.make_query(apex, rdtype))
        assert response is not None
        assert response.answer[0].ttl == 0  # nobody put it
    assert ask(zone, "shop.test", "NS") == ("NOERROR", [])  # it lies in the zone above
    assert ask(zone, "shop.test", "SOA") == ("NOERROR", [])


def test_other_top_level_domains_are_zones_as_soon_as_they_exist() -> None:
    zone = Zone()
    assert ask(zone, "site", "NS") == ("NXDOMAIN", [])
    zone.put("wknd.site", "A", ["192.0.2.1"])
    assert ask(zone, "site", "NS") == ("NOERROR", ["ns.outgate.test."])
    assert ask(zone, "wknd.site", "NS") == ("NOERROR", [])
    assert (ask(zone, "site", "SOA") or ("", []))[1]


def test_name_servers_that_are_put_make_a_zone() -> None:
    zone = Zone()
    zone.put("shop.test", "NS", ["ns1.shop.test."], 60)
    assert ask(zone, "shop.test", "NS") == ("NOERROR", ["ns1.shop.test."])
    assert (ask(zone, "shop.test", "SOA") or ("", []))[1][0].startswith("ns.outgate.test. ")
    zone.put("shop.test", "SOA", ["ns1.shop.test. h.shop.test. 7 1 1 1 1"])
    assert ask(zone, "shop.test", "SOA") == ("NOERROR", ["ns1.shop.test. h.shop.test. 7 1 1 1 1"])
    zone.put("test", "NS", [])
    assert ask(zone, "test", "NS") == ("NOERROR", [])
    zone.put_failure("shop.test", "NS", "SERVFAIL")
    zone.delete("shop.test", "SOA")
    assert ask(zone, "shop.test", "NS") == ("SERVFAIL", [])
    assert ask(zone, "shop.test", "SOA") == ("NOERROR", [])
    zone.put("ns.outgate.test", "A", ["192.0.2.53"])
    assert ask(zone, "ns.outgate.test", "A") == ("NOERROR", ["192.0.2.53"])


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        ('"a b" "c"', [b"a b", b"c"]),
        ("v=DKIM1; k=rsa; p=AB==", [b"v=DKIM1; k=rsa; p=AB=="]),
        ("v=spf1 a -all", [b"v=spf1 a -all"]),
        ('"a\\"b"', [b'a"b']),
        ("x" * 300, [b"x" * 255, b"x" * 45]),
        ('"' + "x" * 300 + '"', [b"x" * 255, b"x" * 45]),
        ("", [b""]),
    ],
)
def test_text(value: str, strings: list[bytes]) -> None:
    zone = Zone()
    zone.put("x.test", "TXT", [value])
    response = zone.answer(dns.message.make_query("x.test", "TXT"))
    assert response is not None
    assert list(response.answer[0][0].strings) == strings


@pytest.mark.parametrize(
    ("name", "rdtype", "values"),
    [
        ("x.test", "A", ["192.0.2.300"]),
        ("x.test", "A", ["192.0.2.1", "nonsense"]),
        ("x.test", "MX", ["mail.x.test."]),
        ("x.test", "MX", ["70000 mail.x.test."]),
        ("x.test", "CNAME", ["a.test.", "b.test."]),
        ("x.test", "NOSUCH", ["x"]),
        ("x.test", "ANY", ["x"]),
        ("a..b", "A", ["192.0.2.1"]),
        ("x" * 64 + ".test", "A", ["192.0.2.1"]),
        ("x.test", "TXT", ['"open']),
        ("x.test", "A", ["192.0.2.1"] * 101),
    ],
)
def test_what_cannot_be_put_changes_nothing(name: str, rdtype: str, values: list[str], tmp_path: Path) -> None:
    zone = Zone(tmp_path / "zone.json")
    zone.put("x.test", "A", ["192.0.2.7"])
    with pytest.raises(ZoneError):
        zone.put(name, rdtype, values)
    assert ask(zone, "x.test", "A") == ("NOERROR", ["192.0.2.7"])
    assert len(json.loads((tmp_path / "zone.json").read_text())["records"]) == 1
    with pytest.raises(ZoneError):
        zone.put("x.test", "A", ["192.0.2.1"], -1)
    with pytest.raises(ZoneError):
        zone.put_failure("x.test", "A", "BADSIG")


def test_it_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "zone.json"
    zone = Zone(file)
    zone.put("Bücher.example", "A", ["192.0.2.1"], 9)
    zone.put("x.test", "TXT", ['"one" "two"'])
    zone.put("y.test", "MX", [])
    zone.put_failure("z.test", "A", "SERVFAIL")
    zone.put("gone.test", "A", ["192.0.2.1"])
    zone.delete("gone.test", "A")
    again = Zone(file)
    assert again.get("xn--bcher-kva.example", "a") == Entry(("192.0.2.1",), 9)
    assert ask(again, "x.test", "TXT") == ("NOERROR", ['"one" "two"'])
    assert ask(again, "y.test", "MX") == ("NOERROR", [])
    assert ask(again, "z.test", "A") == ("SERVFAIL", [])
    assert again.get("gone.test", "A") is None
    assert again.delete("gone.test", "A") is False


def test_what_is_no_question_for_us() -> None:
    zone = Zone()
    query = dns.message.make_query("x.test", "AXFR")
    assert dns.rcode.to_text(zone.answer(query).rcode()) == "REFUSED"  # type: ignore[union-attr]
    query = dns.message.make_query("x.test", "A", rdclass="CH")
    assert dns.rcode.to_text(zone.answer(query).rcode()) == "REFUSED"  # type: ignore[union-attr]
    query = dns.message.make_query("x.test", "A")
    query.set_opcode(4)
    assert dns.rcode.to_text(zone.answer(query).rcode()) == "NOTIMP"  # type: ignore[union-attr]
    query = dns.message.make_query("x.test", "A")
    query.question.clear()
    assert dns.rcode.to_text(zone.answer(query).rcode()) == "FORMERR"  # type: ignore[union-attr]
