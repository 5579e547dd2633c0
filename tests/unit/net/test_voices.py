"""What servers say, each and together: which messages speak for a name, and whose version is newer."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.domains.ask import Question
from outgate.net.dns import query
from outgate.net.voices import Version, Voice, alike, newest, read_version, read_voice, together

QUESTION = Question("a.shop.test", "TXT")
SOA = "shop.test. 60 IN SOA ns1.shop.test. hostmaster.shop.test. 7 3600 600 86400 30"
TXT = 'a.shop.test. 90 IN TXT "x" "y"'


def voice(
    answer: tuple[str, ...] = (), authority: tuple[str, ...] = (), rcode: str = "NOERROR", aa: bool = True
) -> Voice:
    response = dns.message.make_response(dns.message.from_wire(query(QUESTION).wire))
    response.set_rcode(dns.rcode.from_text(rcode))
    if aa:
        response.flags |= dns.flags.AA
    for section, texts in ((response.answer, answer), (response.authority, authority)):
        for text in texts:
            owner, ttl, rdclass, rdtype, value = text.split(" ", 4)
            section.append(dns.rrset.from_text(owner, int(ttl), rdclass, rdtype, value))
    return read_voice(dns.message.from_wire(response.to_wire()), QUESTION, "shop.test", "s")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (voice((TXT,)), ("ok", (b"xy",), 90)),
        (voice((), (SOA,)), ("nodata", (), 30)),
        (voice((), (SOA,), "NXDOMAIN"), ("nxdomain", (), 30)),
        (voice((), ("a.shop.test. 60 IN SOA ns1.shop.test. h.shop.test. 7 1 1 1 30",)), ("nodata", (), 30)),
        # Without the SOA of the zone, or of one in it that the name is in, there may well be something.
        (voice(), ("lame", (), 0)),
        (voice((), (), "NXDOMAIN"), ("lame", (), 0)),
        (voice((), ("shop.test. 60 IN NS ns1.shop.test.",)), ("lame", (), 0)),
        (voice((), (". 60 IN SOA a.root-servers.net. n.verisign-grs.com. 7 1 1 1 30",), "NXDOMAIN"), ("lame", (), 0)),
        (voice((), ("test. 60 IN SOA ns1.test. h.test. 7 1 1 1 30",)), ("lame", (), 0)),
        (voice((), ("b.shop.test. 60 IN SOA ns1.shop.test. h.shop.test. 7 1 1 1 30",)), ("lame", (), 0)),
        (voice((), ("a.shop.test. 60 IN NS ns1.other.test.",)), ("lame", (), 0)),
        (voice((), (". 60 IN NS a.root-servers.net.",)), ("lame", (), 0)),
        (voice((TXT,), aa=False), ("lame", (), 0)),
        (voice((), (SOA,), aa=False), ("lame", (), 0)),
        (voice((TXT,), (), "NXDOMAIN"), ("malformed", (), 0)),
        (voice((), (), "SERVFAIL"), ("servfail", (), 0)),
        (voice((), (), "REFUSED"), ("refused", (), 0)),
        (voice((), (), "FORMERR"), ("servfail", (), 0)),
        (voice(("a.shop.test. 60 IN CNAME b.other.test.",)), ("alias", ("b.other.test",), 60)),
        (voice(("a.shop.test. 60 IN CNAME gone.test.",), (SOA,), "NXDOMAIN"), ("alias", ("gone.test",), 60)),
        # Another name's records are nobody's business.
        (voice(('b.shop.test. 90 IN TXT "x"',), (SOA,)), ("nodata", (), 30)),
        (
            voice(("a.shop.test. 60 IN CNAME b.other.test.", 'b.other.test. 60 IN TXT "forged"')),
            ("alias", ("b.other.test",), 60),
        ),
    ],
)  # fmt: skip
def test_reading(found: Voice, expected: tuple[str, tuple[str | bytes, ...], int]) -> None:
    assert (found.status, found.records, found.ttl) == expected


def test_together() -> None:
    ok, other = Voice("1", "ok", ("a", "b"), 9), Voice("2", "ok", ("b", "a"), 5)
    gone, empty, failed = Voice("3", "nxdomain", (), 3), Voice("4", "nodata", (), 8), Voice("5", "timeout")
    assert (together([ok, other], "").records, together([ok, other], "").ttl) == (("a", "b"), 5)
    assert together([failed, gone], "").status == "nxdomain"
    assert (together([gone, empty], "").status, together([gone, empty], "").server) == ("nodata", "4")
    assert together([ok, gone], "").status == "split"
    assert (together([failed, Voice("6", "lame")], "x").status, together([failed], "x").heard[0].name) == ("lame", "x")
    assert together([], "").status == "unreachable"


def test_what_several_repeat_is_kept_once() -> None:
    first, second, third = alike([Voice("1", "ok", ("a", "b")), Voice("2", "ok", ("b", "a")), Voice("3", "ok", ("c",))])
    assert second.records is first.records
    assert (second.server, third.records) == ("2", ("c",))


@pytest.mark.parametrize(
    ("serials", "expected"),
    [
        ((1, 2), 2),
        ((2, 2, 1), 2),
        ((2**32 - 1, 0), 0),
        ((5, 5), None),
        ((0, 2**31), None),
        ((0, 2**31 - 1), 2**31 - 1),
        ((0, 2**30, 2**31, 3 * 2**30), None),
        ((), None),
    ],
)
def test_newest(serials: tuple[int, ...], expected: int | None) -> None:
    assert newest([Version("ns1.test.", serial) for serial in serials]) == expected


def test_what_cannot_be_compared() -> None:
    assert newest([Version("a.", 1), Version("b.", 2)]) is None
    assert newest([Version("a.", 1), None]) is None
    assert read_version(Voice("s", "nodata")) is None
    assert read_version(Voice("s", "ok", ("NS1.test. h.test. 4294967295 1 1 1 1",))) == Version("ns1.test.", 2**32 - 1)


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=5))
def test_the_newest_of_a_history_is_its_last(start: int, steps: set[int]) -> None:
    """However the numbers wrap around, secondaries that lag less than half the circle behind are outvoted."""
    last = max(steps)
    versions = [Version("p.", (start + step) % 2**32) for step in steps]
    assert newest(versions) == ((start + last) % 2**32 if len(steps) > 1 else None)
