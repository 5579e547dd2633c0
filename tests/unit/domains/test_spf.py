"""check_host on cases of our own, each from a sentence of RFC 7208."""

from __future__ import annotations

import pytest

from outgate.domains.ask import Answer, Asked, Question, answer_from, witnessed
from outgate.domains.spf import SpfResult, check_host
from support.names import answers

ZONE: dict[tuple[str, str], list[str] | str] = {
    ("mail.example.com", "A"): ["192.0.2.1"],
    ("mail.example.com", "AAAA"): ["2001:db8::1"],
    ("example.com", "A"): ["192.0.2.10", "192.0.2.11"],
    ("example.com", "MX"): ["10 mail.example.com", "20 gone.example.com"],
    ("pass.example.com", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"],
    ("soft.example.com", "TXT"): ["v=spf1 ~all"],
    ("neutral.example.com", "TXT"): ["v=spf1 ?all"],
    ("broken.example.com", "TXT"): ["v=spf1 nonsense -all"],
    ("servfail.example.com", "TXT"): "servfail",
    ("timeout.example.com", "TXT"): "timeout",
    ("servfail.example.com", "A"): "servfail",
    ("servfail.example.com", "MX"): "servfail",
    ("ex.example.com", "TXT"): ["%{i} is not one of %{d}'s hosts"],
    ("two.example.com", "TXT"): ["one", "two"],
    ("bad-ex.example.com", "TXT"): ["%{z}"],
    ("many.example.com", "MX"): [f"10 m{number}.example.com" for number in range(11)],
    ("ten.example.com", "MX"): ["10 mail.example.com" for _ in range(9)] + ["10 m9.example.com"],
    ("m9.example.com", "A"): ["192.0.2.99"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["liar.other.test", "mail.example.com"],
    ("99.2.0.192.in-addr.arpa", "PTR"): [f"p{number}.example.com" for number in range(12)],
    ("p10.example.com", "A"): ["192.0.2.99"],
    ("liar.other.test", "A"): ["198.51.100.1"],
    **{(f"p{number}.example.com", "A"): ["198.51.100.7"] for number in range(10)},
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"): ["mail.example.com"],
    ("1.2.0.192.in-addr._spf.example.com", "A"): ["127.0.0.2"],
    ("bob.lp.example.com", "A"): ["127.0.0.2"],
    ("here%20there.example.com", "A"): ["127.0.0.2"],
    ("a.b.example.com", "A"): ["192.0.2.1"],
}


def check(record: str | list[str], ip: str = "192.0.2.1", **more: object) -> SpfResult:
    """Evaluate `record` published at `me.example.com`."""
    records = [record] if isinstance(record, str) else record
    zone = {**ZONE, ("me.example.com", "TXT"): records, **more.pop("zone", {})}  # type: ignore[dict-item]
    sender, helo = str(more.pop("sender", "bob@me.example.com")), str(more.pop("helo", "helo.example.com"))
    return answer_from(check_host(ip, "me.example.com", sender, helo, receiver="us.test", now=7), answers(zone))


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1", "neutral"),
        ("v=spf1 +all", "pass"),
        ("v=spf1 -all", "fail"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("V=SPF1 -ALL", "fail"),
        ("v=spf1   -all ", "fail"),
        # 5.6 ip4 and ip6
        ("v=spf1 ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 ip4:192.0.2.2/31 -all", "fail"),
        ("v=spf1 ip4:192.0.2.0/31 -all", "pass"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "pass"),
        ("v=spf1 ip6:::/0 -all", "fail"),
        # 5.3 a
        ("v=spf1 a:example.com -all", "fail"),
        ("v=spf1 a:example.com/28 -all", "pass"),
        ("v=spf1 a:mail.example.com -all", "pass"),
        ("v=spf1 a:mail.example.com. -all", "pass"),
        ("v=spf1 a:example.com/0//128 -all", "pass"),
        ("v=spf1 a:example.com//0 -all", "fail"),
        ("v=spf1 a:gone.example.com -all", "fail"),
        # 5.4 mx
        ("v=spf1 mx:example.com -all", "pass"),
        ("v=spf1 mx:ten.example.com -all", "pass"),
        ("v=spf1 mx:many.example.com -all", "permerror"),
        # 5.2 include: pass matches; fail, softfail, neutral do not; none and permerror are permerrors
        ("v=spf1 include:pass.example.com -all", "pass"),
        ("v=spf1 -include:pass.example.com ~all", "fail"),
        ("v=spf1 include:soft.example.com -all", "fail"),
        ("v=spf1 include:neutral.example.com -all", "fail"),
        ("v=spf1 include:gone.example.com -all", "permerror"),
        ("v=spf1 include:broken.example.com -all", "permerror"),
        ("v=spf1 include:servfail.example.com -all", "temperror"),
        # 5.5 ptr
        ("v=spf1 ptr:example.com -all", "pass"),
        ("v=spf1 ptr:other.test -all", "fail"),
        ("v=spf1 ptr:ample.com -all", "fail"),
        # 5.7 exists
        ("v=spf1 exists:%{ir}.%{v}._spf.example.com -all", "pass"),
        ("v=spf1 exists:gone.example.com -all", "fail"),
        # 6.1 redirect
        ("v=spf1 redirect=pass.example.com", "pass"),
        ("v=spf1 redirect=gone.example.com", "permerror"),
        ("v=spf1 redirect=soft.example.com -all", "fail"),
        ("v=spf1 a:gone.example.com redirect=soft.example.com", "softfail"),
        ("v=spf1 redirect=timeout.example.com", "temperror"),
        # 4.4 temporary failures
        ("v=spf1 a:servfail.example.com -all", "temperror"),
        ("v=spf1 mx:servfail.example.com -all", "temperror"),
        ("v=spf1 exists:servfail.example.com -all", "temperror"),
        # 6: unknown modifiers are skipped, their macros still checked
        ("v=spf1 moo=a:b/c moo=again -all", "fail"),
        ("v=spf1 moo=%{d -all", "permerror"),
    ],
)  # fmt: skip
def test_results(record: str, result: str) -> None:
    assert check(record).result == result


@pytest.mark.parametrize(
    "term",
    [
        "all:x", "all/8", "ip4", "ip4:", "ip4:192.0.2", "ip4:192.0.2.1/33", "ip4:192.0.2.1/", "ip4:192.0.2.1/08",
        "ip4:192.0.2.01", "ip4:::1", "ip6:192.0.2.1", "ip6:::1/129", "ip6:fe80::1%eth0", "ip4:192.0.2.1//24",
        "include", "include:", "exists", "exists:", "a:", "a:/24", "a/33", "a//129", "a/", "a:localhost", "a:foo.123",
        "a:foo.-bar", "a:foo..", "mx/24/32", "ptr/24", "ptr:", "include:a.b/24", "=x", "-", "*all", "all.",
        "a,", "redirect=", "exp=", "a:%{q}.b.c", "a:%{d0}.b.c", "a:%{}.b.c", "a:%.b.c", "a:%{c}.b.c", "a:%{t}.b.c",
        "a:b.c%", "redirect=a.b redirect=c.d", "exp=a.b EXP=c.d", "a\tb", "a:é.b",
    ],
)  # fmt: skip
def test_a_syntax_error_anywhere_is_a_permerror_before_anything_is_asked(term: str) -> None:
    asked: list[Question] = []
    zone = {**ZONE, ("me.example.com", "TXT"): [f"v=spf1 +all {term}"]}
    result = answer_from(check_host("192.0.2.1", "me.example.com", "", ""), answers(zone, asked))
    assert result.result == "permerror"
    assert [question.rdtype for question in asked] == ["TXT"]


@pytest.mark.parametrize(
    ("record", "ip", "result"),
    [
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::1", "pass"),
        ("v=spf1 ip6:2001:db8::1 -all", "2001:db8::2", "fail"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "2001:db8::1", "fail"),
        ("v=spf1 a:mail.example.com -all", "2001:db8::1", "pass"),
        ("v=spf1 a:mail.example.com/0 -all", "2001:db8::2", "fail"),
        ("v=spf1 a:mail.example.com//64 -all", "2001:db8::2", "pass"),
        ("v=spf1 mx:example.com -all", "2001:db8::1", "pass"),
        ("v=spf1 ptr:example.com -all", "2001:db8::1", "pass"),
        ("v=spf1 exists:example.com -all", "2001:db8::1", "pass"),
        ("v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1", "pass"),
    ],
)
def test_ipv6(record: str, ip: str, result: str) -> None:
    assert check(record, ip).result == result


@pytest.mark.parametrize(
    "domain", ["localhost", "", "a..b", "x" * 64 + ".test", ".".join(["abcdefgh"] * 29), "gone.test"]
)
def test_a_domain_that_is_none_has_no_policy(domain: str) -> None:
    assert answer_from(check_host("192.0.2.1", domain, "", ""), answers(ZONE)).result == "none"


def test_only_one_record_of_version_1() -> None:
    assert check(["v=spf1 -all", "v=spf1 +all"]).result == "permerror"
    assert check(["v=spf10 -all", "other", "v=spf1"]).result == "neutral"
    assert check("v=spf1-all").result == "none"


def test_failing_look_up_of_the_policy_is_a_temperror() -> None:
    for domain in ("servfail.example.com", "timeout.example.com"):
        result = answer_from(check_host("192.0.2.1", domain, "", ""), answers(ZONE))
        assert result.result == "temperror"
        assert domain in result.cause


def test_ten_terms_may_look_up() -> None:
    ten = " ".join(["a:example.com"] * 10)
    assert check(f"v=spf1 {ten} ip4:192.0.2.1 -all").result == "pass"
    assert check(f"v=spf1 {ten} a:mail.example.com -all").result == "permerror"
    nine = " ".join(["a:example.com"] * 9)
    assert check(f"v=spf1 {nine} redirect=pass.example.com").result == "pass"
    assert check(f"v=spf1 {ten} redirect=pass.example.com").result == "permerror"
    assert check("v=spf1 ip4:192.0.2.1 include:me.example.com").result == "pass"
    assert check("v=spf1 include:me.example.com").result == "permerror"  # around in a circle


def test_terms_behind_the_match_do_not_count() -> None:
    assert check("v=spf1 +all " + " ".join(["a:example.com"] * 20)).result == "pass"


def test_two_look_ups_may_find_nothing() -> None:
    assert check("v=spf1 a:gone.example.com mx:gone.example.com ip4:192.0.2.1").result == "pass"
    assert check("v=spf1 a:gone.example.com mx:gone.example.com exists:gone.example.com +all").result == "permerror"


def test_more_than_ten_pointers_are_ignored_beyond_the_tenth() -> None:
    assert check("v=spf1 ptr:example.com -all", "192.0.2.99").result == "fail"


def test_a_failing_pointer_does_not_match() -> None:
    zone = {("1.2.0.192.in-addr.arpa", "PTR"): "servfail"}
    assert check("v=spf1 ptr:example.com -all", zone=zone).result == "fail"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("%{d}.x.test", "me.example.com.x.test"),
        ("%{d2}.x.test", "example.com.x.test"),
        ("%{d9}.x.test", "me.example.com.x.test"),
        ("%{dr}.x.test", "com.example.me.x.test"),
        ("%{d2r}.x.test", "example.me.x.test"),
        ("%{l}.x.test", "strong-bad.x.test"),
        ("%{lr-}.x.test", "bad.strong.x.test"),
        ("%{l1r-}.x.test", "strong.x.test"),
        ("%{o}.x.test", "me.example.com.x.test"),
        ("%{s}.x.test", "strong-bad@me.example.com.x.test"),
        ("%{S}.x.test", "strong-bad%40me.example.com.x.test"),
        ("%{h}.x.test", "helo.example.com.x.test"),
        ("%{ir}.%{v}.x.test", "1.2.0.192.in-addr.x.test"),
        ("%{p}.x.test", "mail.example.com.x.test"),
        ("a%%b%-c%_d.x.test", "a%b%20c d.x.test"),
        ("x.%{d}", "x.me.example.com"),
    ],
)
def test_macros(spec: str, name: str) -> None:
    asked: list[Question] = []
    zone = {**ZONE, ("me.example.com", "TXT"): [f"v=spf1 exists:{spec} -all"]}
    answer_from(
        check_host("192.0.2.1", "me.example.com", "strong-bad@me.example.com", "helo.example.com"),
        answers(zone, asked),
    )
    assert asked[-1] == Question(name, "A")


def test_macros_of_ipv6_are_nibbles() -> None:
    asked: list[Question] = []
    zone = {("me.example.com", "TXT"): ["v=spf1 exists:%{ir}.%{v}.x.test"]}
    answer_from(check_host("2001:db8::cb01", "me.example.com", "", ""), answers(zone, asked))
    assert asked[-1].name == "1.0.b.c." + "0." * 20 + "8.b.d.0.1.0.0.2.ip6.x.test"


def test_a_name_beyond_253_octets_loses_labels_on_the_left() -> None:
    asked: list[Question] = []
    zone = {("me.example.com", "TXT"): ["v=spf1 exists:" + "%{l}." * 12 + "x.test"]}
    answer_from(
        check_host("192.0.2.1", "me.example.com", "twenty-five-letters-long-@me.example.com", ""), answers(zone, asked)
    )
    assert asked[-1].name == "twenty-five-letters-long-." * 9 + "x.test"


def test_the_null_sender_is_postmaster() -> None:
    asked: list[Question] = []
    zone = {("me.example.com", "TXT"): ["v=spf1 exists:%{l}.%{o}"]}
    answer_from(check_host("192.0.2.1", "me.example.com", "", "helo.test"), answers(zone, asked))
    assert asked[-1].name == "postmaster.me.example.com"


@pytest.mark.parametrize(
    ("exp", "text"),
    [
        ("ex.example.com", "192.0.2.1 is not one of me.example.com's hosts"),
        ("gone.example.com", ""),
        ("two.example.com", ""),
        ("bad-ex.example.com", ""),
        ("servfail.example.com", ""),
    ],
)
def test_explanations(exp: str, text: str) -> None:
    result = check(f"v=spf1 -all exp={exp}")
    assert (result.result, result.explanation) == ("fail", text)


def test_explanation_macros() -> None:
    zone = {("e.test", "TXT"): ["%{c} %{r} %{t} see http://%{d}/?s=%{S}"]}
    result = check("v=spf1 exp=e.test -all", "2001:db8::9", zone=zone)
    assert result.explanation == "2001:db8::9 us.test 7 see http://me.example.com/?s=bob%40me.example.com"


def test_an_included_explanation_is_not_used_but_a_redirects_is() -> None:
    zone = {("ex2.example.com", "TXT"): ["v=spf1 -all exp=ex.example.com"]}
    assert check("v=spf1 include:ex2.example.com -all", zone=zone).explanation == ""
    redirected = check("v=spf1 redirect=ex2.example.com", zone=zone)
    assert redirected.explanation == "192.0.2.1 is not one of ex2.example.com's hosts"


def test_an_included_explanation_is_not_even_asked_for() -> None:
    asked: list[Question] = []
    zone = {
        ("me.example.com", "TXT"): ["v=spf1 include:ex2.example.com -all"],
        ("ex2.example.com", "TXT"): ["v=spf1 -all exp=ex.example.com"],
    }
    answer_from(check_host("192.0.2.1", "me.example.com", "", ""), answers(zone, asked))
    assert [question.name for question in asked] == ["me.example.com", "ex2.example.com"]


def test_an_explanation_that_breaks_a_limit_changes_nothing() -> None:
    result = check("v=spf1 a:gone.example.com a:gone2.example.com -all exp=%{p}.gone.example.com", "192.0.2.77")
    assert (result.result, result.explanation) == ("fail", "")


def test_evidence_is_everything_asked() -> None:
    zone = {**ZONE, ("me.example.com", "TXT"): ["v=spf1 a:gone.example.com mx:example.com -all"]}
    evaluation = witnessed(check_host("192.0.2.1", "me.example.com", "", ""), lambda: 1_800_000_000.0)
    result, asked = answer_from(evaluation, answers(zone))
    assert result == SpfResult("pass", "mx:example.com of me.example.com")
    assert [(one.question.name, one.question.rdtype, one.answer.status) for one in asked] == [
        ("me.example.com", "TXT", "ok"),
        ("gone.example.com", "A", "nxdomain"),
        ("example.com", "MX", "ok"),
        ("mail.example.com", "A", "ok"),
    ]
    assert asked[0].document()["records"] == ["v=spf1 a:gone.example.com mx:example.com -all"]


def test_evidence_of_much_text_is_cut() -> None:
    asked = Asked(Question("x.test", "TXT"), Answer("ok", (b"\xff" * 1000, *[b"x"] * 99)), 0.0)
    records = asked.document()["records"]
    assert isinstance(records, list)
    assert (len(records), len(records[0]), records[-1]) == (11, 501, "… 90 more")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        next(check_host("nonsense", "me.example.com", "", ""))
