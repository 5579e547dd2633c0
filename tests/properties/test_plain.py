"""A plain response is read as the full reader reads it: whatever it holds, and whatever has happened to its octets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgate.domains.ask import Answer, Question
from outgate.net.dns import Query, query, read_message

SERVER = "192.0.2.53:53"
ASKED = "site.example.org"
NAMES = st.sampled_from(
    ["site.example.org.", "SITE.Example.org.", "a.example.org.", "b.example.net.", "c.a.example.org.", "org.", "."]
)
ODD = st.sampled_from([r"a\.b.example.org.", r"\000.example.org.", "_x.example.org.", "*.example.org.", r"\200.org."])
TTLS = st.sampled_from([0, 1, 60, 300, 86_399, 86_400, 86_401, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])


@st.composite
def records(draw: st.DrawFn, kinds: list[str]) -> dns.rrset.RRset:
    """Make records of one of `kinds` for one owner."""
    name = st.one_of(NAMES, NAMES, ODD)
    target = draw(name)
    data = {
        "A": st.sampled_from(["192.0.2.1", "198.51.100.2", "0.0.0.0"]),
        "AAAA": st.sampled_from(["2001:db8::1", "::ffff:192.0.2.1", "::", "::1", "1:0:0:2::3", "::192.0.2.1"]),
        "MX": st.builds("{} {}".format, st.sampled_from([0, 10, 255, 65_535]), name),
        "TXT": st.sampled_from(
            ['"v=STSv1; id=1;"', '"v=" "STSv1"', '""', '"" "a"', r'"\000\255"', '"' + "x" * 255 + '"']
        ),
        "CNAME": st.just(target),
        "NS": st.just(target),
        "PTR": st.just(target),
        "SOA": st.builds("ns.{} root.{} 1 2 3 4 {}".format, NAMES, NAMES, TTLS.filter(lambda ttl: ttl < 1 << 31)).map(
            lambda text: text.replace("..", ".")
        ),
        "RRSIG": st.just("A 8 2 300 20300101000000 20200101000000 1 example.org. AAAA"),
        "NSEC": st.just("b.example.org. A MX RRSIG NSEC"),
        "CAA": st.just('0 issue "ca.example.net"'),
    }
    kind = draw(st.sampled_from(kinds))
    values = draw(st.lists(data[kind], min_size=1, max_size=1 if kind in ("CNAME", "SOA", "NSEC") else 4))
    made = dns.rrset.from_text(draw(name), 0, "IN", kind, *values)
    made.ttl = draw(TTLS)
    return made


@st.composite
def responses(draw: st.DrawFn) -> tuple[Query, dns.message.Message]:
    """Make a question and a response to it."""
    rdtype = draw(st.sampled_from(["A", "MX", "TXT", "AAAA"]))
    asked = query(Question(ASKED, rdtype), secure=draw(st.booleans()))
    message = dns.message.make_response(dns.message.from_wire(asked.wire), recursion_available=True)
    message.set_rcode(draw(st.sampled_from([0, 0, 0, 3, 3, 2, 5, 16])))
    message.flags |= draw(st.sampled_from([0, dns.flags.AD, dns.flags.AA, dns.flags.TC]))
    common = [rdtype, rdtype, "CNAME", "CNAME"]
    message.answer = draw(st.lists(records([*common, "A", "RRSIG", "CAA", "SOA"]), max_size=5))
    message.authority = draw(st.lists(records(["SOA", "SOA", "NS", "NSEC", "RRSIG", rdtype]), max_size=2))
    message.additional = draw(st.lists(records(["A", "AAAA", "TXT", "PTR"]), max_size=2))
    if draw(st.booleans()):
        message.use_edns(False)
    return asked, message


CHANGES = st.tuples(
    st.one_of(
        st.just([]),
        st.lists(st.tuples(st.integers(2, 400), st.sampled_from([*range(66), 0xBF, 0xC0, 0xC1, 0xFF])), max_size=4),
    ),
    st.sampled_from([0, 0, 0, 1, 5, 20]),
    st.sampled_from([b"", b"", b"", b"\0"]),
)


def changed(wire: bytes, changes: tuple[list[tuple[int, int]], int, bytes]) -> bytes:
    """Return a message with other octets at some places, without some at its end and with some more."""
    octets = bytearray(wire)
    for place, octet in changes[0]:
        octets[2 + place % (len(octets) - 2)] = octet
    return bytes(octets[: len(octets) - changes[1]]) + changes[2]


def full(asked: Query, wire: bytes, *, trusted: bool) -> Answer | None:
    """Return what the full reader says."""
    message = asked.read(wire)
    if message is None:
        return None
    return read_message(message, SERVER, secure=trusted and bool(message.flags & dns.flags.AD))


def agree(asked: Query, wire: bytes, *, trusted: bool = True) -> Answer | None:
    """Return what the reader of plain responses says after comparing it with what the full one does."""
    found = asked.read_plain(wire, SERVER, trusted=trusted)
    if found is not None:
        assert found == full(asked, wire, trusted=trusted)
        assert not wire[2] & 2  # cut off: what is missing is asked for again
    return found


@given(responses(), CHANGES, st.booleans())
def test_both_readers_agree(
    made: tuple[Query, dns.message.Message], changes: tuple[list[tuple[int, int]], int, bytes], trusted: bool
) -> None:
    asked, message = made
    wire = message.to_wire(max_size=65_535)
    agree(asked, wire, trusted=trusted)
    agree(asked, changed(wire, changes), trusted=trusted)


@given(st.binary(max_size=80), st.tuples(*[st.integers(0, 3)] * 3))
@example(b"\xc0\x0c\0\x0f\0\1\0\0\0\1\0\4\0\1\xc0\x0c", (1, 0, 0))
@example(b"\xc0\x1d\0\x0f\0\1\0\0\0\1\0\4\0\1\xc0\x22", (1, 0, 0))
def test_both_readers_agree_on_any_octets(rest: bytes, counts: tuple[int, ...]) -> None:
    asked = query(Question("a.example", "MX"))
    head = asked.wire[:2] + b"\x81\x80\0\1" + b"".join(count.to_bytes(2, "big") for count in counts)
    agree(asked, head + asked.wire[12 : asked.asks] + rest)


def respond(rdtype: str, *sections: list[tuple[Any, ...]], rcode: int = 0) -> tuple[Query, bytes]:
    """Make a question and the response with these records."""
    asked = query(Question(ASKED, rdtype))
    message = dns.message.make_response(dns.message.from_wire(asked.wire))
    message.set_rcode(dns.rcode.Rcode.make(rcode))
    for section, rrsets in zip(message.sections[1:], sections, strict=False):
        section.extend(dns.rrset.from_text(*rrset) for rrset in rrsets)
    return asked, message.to_wire(max_size=65_535)


SOA = ("example.org.", 300, "IN", "SOA", "ns.example.org. root.example.org. 1 2 3 4 60")
ALIAS = (ASKED + ".", 50, "IN", "CNAME", "Mail.example.net.")


@pytest.mark.parametrize(
    ("made", "answer"),
    [
        (
            respond(
                "MX",
                [(ASKED + ".", 300, "IN", "MX", "10 MX1.site.example.org.", "20 mx2.example.net.")],
                [("example.org.", 300, "IN", "NS", "ns.example.org.")],
                [("ns.example.org.", 300, "IN", "A", "192.0.2.7"), ("ns.example.org.", 300, "IN", "AAAA", "::1")],
            ),
            Answer("ok", ("10 mx1.site.example.org", "20 mx2.example.net"), 300, SERVER),
        ),
        (respond("MX", [(ASKED + ".", 9, "IN", "MX", "0 .")]), Answer("ok", ("0 ",), 9, SERVER)),
        (
            respond("A", [ALIAS, ("mail.example.net.", 60, "IN", "A", "192.0.2.1")]),
            Answer("ok", ("192.0.2.1",), 50, SERVER, "mail.example.net"),
        ),
        (
            respond("TXT", [(ASKED + ".", 100_000, "IN", "TXT", '"a" "b"', '"ab"')]),
            Answer("ok", (b"ab", b"ab"), 86_400, SERVER),
        ),
        (respond("TXT", [], [SOA], rcode=3), Answer("nxdomain", (), 60, SERVER)),
        (respond("AAAA", [], [SOA]), Answer("nodata", (), 60, SERVER)),
        (respond("AAAA", []), Answer("nodata", (), 0, SERVER)),
        (respond("A", [ALIAS], rcode=3), Answer("nxdomain", (), 0, SERVER, "mail.example.net")),
    ],
)
def test_what_a_thousand_sites_answer_is_plain(made: tuple[Query, bytes], answer: Answer) -> None:
    found = agree(*made)
    assert found is not None
    assert replace(found, records=tuple(sorted(found.records, key=str))) == answer  # dnspython sends them in any order


@pytest.mark.parametrize(
    "made",
    [
        respond("PTR", [(ASKED + ".", 300, "IN", "PTR", "a.example.")]),
        respond("A", [(ASKED + ".", 300, "IN", "A", "192.0.2.1")], rcode=3),
        respond("A", [], rcode=2),
        respond("A", [], rcode=16),
        respond("A", [], [], [("a.example.", 1, "IN", "CAA", '0 issue "b.example"')]),
        respond("A", [(ASKED + ".", 50, "IN", "CNAME", ASKED + ".")]),
        respond("MX", [(ASKED + ".", 300, "IN", "MX", r"1 a\.b.example.")]),
    ],
)
def test_what_is_not_plain_is_left_to_the_full_reader(made: tuple[Query, bytes]) -> None:
    assert agree(*made) is None and full(*made, trusted=True) is not None


def test_a_long_chain_of_aliases_and_a_message_full_of_records_end() -> None:
    chain = [(f"{ASKED if n == 0 else f'n{n}.example'}.", 1, "IN", "CNAME", f"n{n + 1}.example.") for n in range(40)]
    assert agree(*respond("A", chain)) is None
    many = [(f"n{n}.example.", 1, "IN", "A", "192.0.2.1") for n in range(1500)]
    assert agree(*respond("A", many)) == Answer("nodata", (), 0, SERVER)
