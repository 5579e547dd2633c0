"""DMARC advice: which policy applies, what is wrong with a record, how far the walk goes."""

from __future__ import annotations

import pytest
from checkdmarc.dmarc import DMARCError, parse_dmarc_record
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.masking import masked
from outgate.domains.ask import Answer, Question, answer_from
from outgate.domains.dmarc import DmarcAdvice, advise_dmarc, is_dmarc, parse_dmarc
from support.names import answers

RUA = "rua=mailto:dmarc@shop.test"


def advice(records: dict[str, list[str] | str], domain: str = "shop.test") -> DmarcAdvice:
    """Return the advice for `domain`, where `records` are by the domain that has them."""
    zone = {(f"_dmarc.{name}", "TXT"): values for name, values in records.items()}
    return answer_from(advise_dmarc(domain), answers(zone))


@pytest.mark.parametrize(
    ("record", "result", "words"),
    [
        (f"v=DMARC1; p=none; {RUA}", "none", "raise it"),
        (f"v=DMARC1; p=quarantine; {RUA}", "quarantine", "suspect"),
        (f"v=DMARC1;p=reject;{RUA};", "reject", "refuse"),
        (f"V = DMARC1 ; P = Reject ; {RUA} ; ", "reject", "refuse"),
        ("v=DMARC1; p=reject", "reject", "add rua="),
        ("v=DMARC1; p=reject; rua=dmarc@shop.test", "reject", "no address for reports"),
        (f"v=DMARC1; p=reject; t=y; {RUA}", "reject", "t=y"),
        (f"v=DMARC1; p=reject; pct=50; {RUA}", "reject", "pct= is no longer a tag"),
        (f"v=DMARC1; p=reject; aspf=s; {RUA}", "reject", "in shop.test itself (aspf=s)"),
        (f"v=DMARC1; p=reject; aspf=x; {RUA}", "reject", "aspf='x' is none of r, s"),
        (f"v=DMARC1; p=reject; adkim=s; {RUA}", "reject", "its d= is shop.test itself"),
        (f"v=DMARC1; p=reject; nonsense; {RUA}", "reject", "'nonsense' is not tag=value"),
        (f"v=DMARC1; p=reject; zz=new; {RUA}", "reject", "refuse"),
        (f"v=DMARC1; {RUA}", "none", "no p="),
        (f"v=DMARC1; p=nope; {RUA}", "none", "p='nope' is none of"),
        (f"v=DMARC1; p=reject; sp=nope; {RUA}", "none", "sp='nope'"),
        ("v=DMARC1; p=nope", "malformed", "p='nope'"),
        ("v=DMARC1; p=reject; sp=nope", "malformed", "sp='nope'"),
        (f"v=DMARC1; p=none; p=reject; {RUA}", "malformed", "twice"),
        ("v=dmarc1; p=none", "malformed", "to the letter"),
        ("v=DMARC1 p=none", "malformed", "to the letter"),
        (" v=DMARC1; p=none", "malformed", "to the letter"),
        ('"v=DMARC1; p=none"', "malformed", "to the letter"),
        ("v=DMARC2; p=none", "malformed", "to the letter"),
        ("p=none; v=DMARC1", "missing", "publish"),
        ("v=spf1 -all", "missing", "publish"),
        ("", "missing", "publish"),
    ],
)
def test_a_domains_own_record(record: str, result: str, words: str) -> None:
    found = advice({"shop.test": [record]})
    assert (found.result, found.domain) == (result, "shop.test")
    assert words in found.explanation
    assert found.record == ("" if result == "missing" else record)


def test_missing_several_and_unknown() -> None:
    assert advice({}).result == "missing"
    told = advice({}).explanation
    assert 'at _dmarc.shop.test, to begin with "v=DMARC1; p=none"; add "; rua=mailto:…"' in told
    assert masked(told) == told  # the log can tell it as it is
    several = advice({"shop.test": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]})
    assert (several.result, several.record) == ("several", "v=DMARC1; p=none | v=DMARC1; p=reject")
    assert advice({"shop.test": ["v=DMARC1; p=none", "something else"]}).result == "none"
    for status in ("servfail", "timeout", "split"):
        assert advice({"shop.test": status}).result == "temperror"
        assert advice({"test": status}).result == "temperror"
    assert advice({}, "a" * 63 + ".test" * 40).result == "malformed"


@pytest.mark.parametrize(
    ("records", "result", "domain"),
    [
        ({"shop.test": "p=reject"}, "reject", "shop.test"),
        ({"shop.test": "p=reject; sp=none"}, "none", "shop.test"),
        ({"shop.test": "p=none; np=reject"}, "none", "shop.test"),  # the name exists: it has an address
        ({"a.b.shop.test": "p=none", "shop.test": "p=reject"}, "none", "a.b.shop.test"),
        # Of several above, the organizational domain's counts: the one with the fewest labels.
        ({"b.shop.test": "p=none", "shop.test": "p=reject"}, "reject", "shop.test"),
        ({"b.shop.test": "p=none; psd=n", "shop.test": "p=reject"}, "none", "b.shop.test"),
        ({"b.shop.test": "p=none", "test": "p=quarantine"}, "quarantine", "test"),
        # A public suffix: the domain one label below is the organizational one, if it has a record.
        ({"shop.test": "p=reject", "test": "p=none; psd=y"}, "reject", "shop.test"),
        ({"b.shop.test": "p=reject", "test": "p=none; sp=quarantine; psd=y"}, "quarantine", "test"),
        ({"b.shop.test": "p=reject", "shop.test": "p=none; psd=y"}, "reject", "b.shop.test"),
        ({"shop.test": "p=none; psd=y", "test": "p=reject"}, "none", "shop.test"),
        ({"shop.test": "p=reject; psd=u"}, "reject", "shop.test"),
    ],
)
def test_inheritance(records: dict[str, str], result: str, domain: str) -> None:
    found = advice({name: [f"v=DMARC1; {text}; {RUA}"] for name, text in records.items()}, "a.b.shop.test")
    assert (found.result, found.domain) == (result, domain)
    assert ("inherits" in found.explanation) is (domain != "a.b.shop.test")


def test_what_is_broken_above_is_passed_over_and_told_if_there_is_nothing_else() -> None:
    broken = ["v=DMARC1; p=none", "v=DMARC1; p=reject"]
    found = advice({"b.shop.test": broken, "shop.test": [f"v=DMARC1; p=reject; {RUA}"]}, "a.b.shop.test")
    assert (found.result, found.domain) == ("reject", "shop.test")
    found = advice({"b.shop.test": broken, "shop.test": ["v=dmarc1; p=none"]}, "a.b.shop.test")
    assert (found.result, found.domain) == ("several", "b.shop.test")


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        ("test", ["test"]),
        ("Shop.test.", ["shop.test", "test"]),
        ("a.b.c.d.e.f.g", ["a.b.c.d.e.f.g", "b.c.d.e.f.g", "c.d.e.f.g", "d.e.f.g", "e.f.g", "f.g", "g"]),
        (
            "z.y.x.a.b.c.d.mail.shop.test",
            ["z.y.x.a.b.c.d.mail.shop.test", "a.b.c.d.mail.shop.test", "b.c.d.mail.shop.test", "c.d.mail.shop.test",
             "d.mail.shop.test", "mail.shop.test", "shop.test", "test"],
        ),
    ],
)  # fmt: skip
def test_the_walk(domain: str, names: list[str]) -> None:
    asked: list[Question] = []
    answer_from(advise_dmarc(domain), answers({}, asked))
    assert asked == [Question(f"_dmarc.{name}", "TXT") for name in names]


def test_a_domain_with_a_record_is_not_walked_from() -> None:
    asked: list[Question] = []
    answer_from(advise_dmarc("a.shop.test"), answers({("_dmarc.a.shop.test", "TXT"): ["v=DMARC1; p=none"]}, asked))
    assert len(asked) == 1


texts = st.binary(max_size=60) | st.builds(lambda rest: b"v=DMARC1;" + rest, st.binary(max_size=60))
labels = st.text("abc-_", min_size=1, max_size=5)


@given(
    st.lists(labels, min_size=1, max_size=20).map(".".join),
    st.lists(st.lists(texts, max_size=2) | st.sampled_from(["servfail", "nxdomain"]), max_size=9),
)
def test_any_bytes_come_to_advice_within_eight_questions(domain: str, found: list[list[bytes] | str]) -> None:
    asked: list[Question] = []

    def answer(question: Question) -> Answer:
        asked.append(question)
        records = found[len(asked) - 1] if len(asked) <= len(found) else []
        if isinstance(records, str):
            return Answer(records)
        return Answer("ok" if records else "nodata", tuple(records))

    result = answer_from(advise_dmarc(domain), answer)
    assert 1 <= len(asked) <= 8
    assert result.result in {"none", "quarantine", "reject", "missing", "several", "malformed", "temperror"}
    assert (result.record == "") is (result.result in ("missing", "temperror"))
    assert result.domain == domain or domain.endswith("." + result.domain)
    assert len(result.explanation) < 2000


policies = st.sampled_from(["none", "reject", "Quarantine", "nope"])
tags = st.one_of(
    st.tuples(st.sampled_from(["p", "sp", "np"]), policies),
    st.tuples(st.sampled_from(["adkim", "aspf"]), st.sampled_from(["r", "S", "x"])),
    st.tuples(st.just("t"), st.sampled_from(["y", "n"])),
    st.tuples(st.just("psd"), st.sampled_from(["y", "n", "u"])),
    st.tuples(st.just("fo"), st.sampled_from(["0", "1", "d:s"])),
    st.tuples(st.sampled_from(["pct", "zz"]), st.just("1")),
)
separators = st.sampled_from([";", "; ", " ; "])


@given(st.lists(tags, max_size=5), separators, st.sampled_from(["=", " = "]), st.booleans())
def test_checkdmarc_reads_the_same(parts: list[tuple[str, str]], separator: str, equals: str, ended: bool) -> None:
    text = separator.join(["v=DMARC1", *(name + equals + value for name, value in parts)]) + (";" if ended else "")
    assert is_dmarc(text.encode())
    ours = parse_dmarc(text.encode())
    try:
        theirs = parse_dmarc_record(text, "shop.test")["tags"]
    except DMARCError:
        assert ours.policy == ""  # void, or without a policy that can be read and an address for reports
        return
    assert ours.policy == theirs["p"]["value"]
    assert ours.inherited_policy == theirs["sp"]["value"]
    for name in ("adkim", "aspf", "t", "psd", "fo", "np"):
        if theirs[name]["explicit"]:
            assert ours.tags[name] == theirs[name]["value"]
        else:
            assert name not in ours.tags
