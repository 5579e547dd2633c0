"""MTA-STS records and policies: read as RFC 8461 writes them, and matched."""

from __future__ import annotations

import pytest

from outgate.domains.mta_sts import LONGEST, LONGEST_AGE, MOST_HOSTS, BadPolicy, Policy, policy_id, read_policy, ruling

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1; more=x:y;"], "1"),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=1;"], None),
        ([b"v=STSv2; id=1;"], None),
        ([b"v=STSv1; id=;"], None),
        ([b"v=STSv1; id=a-b;"], None),
        ([b"v=STSv1; id=" + b"1" * 33], None),
        ([b"v=STSv1; other=1;"], None),
        ([b"v=STSv1; id=1; more=x=y;"], None),
        ([b"v=STSv1; id=1; two words;"], None),
        ([b"V=STSv1; id=1;"], None),
        ([], None),
    ],
)
def test_the_record(records: list[bytes], found: str | None) -> None:
    assert policy_id(records) == found


def test_a_policy() -> None:
    assert read_policy(GOOD) == Policy("enforce", ("mx1.example.com", "*.example.net"), 604_800)
    assert read_policy(GOOD.replace(b"\r\n", b"\n")) == read_policy(GOOD)
    assert read_policy(b"max_age:1\nmode:none\nversion:STSv1") == Policy("none", (), 1)
    assert read_policy(GOOD.replace(b"604800", b"9999999999")).max_age == LONGEST_AGE
    twice = GOOD + b"mode: none\r\nmax_age: 1\r\nversion: STSv9\r\nx-new: something: else\r\n"
    assert read_policy(twice) == read_policy(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"STSv1", b"STSv2", "version"),
        (b"version: STSv1\r\n", b"", "version"),
        (b"enforce", b"Enforce", "mode"),
        (b"mode: enforce\r\n", b"", "mode"),
        (b"604800", b"a week", "max_age"),
        (b"604800", b"60480000000", "max_age"),
        (b"max_age: 604800\r\n", b"", "max_age"),
        (b"*.example.net", b"*.*.example.net", "mx is neither"),
        (b"*.example.net", b"mx*.example.net", "mx is neither"),
        (b"*.example.net", b"*", "mx is neither"),
        (b"*.example.net", "bücher.example".encode(), "mx is neither"),
        (b"mx: mx1.example.com\r\nmx: *.example.net\r\n", b"", "names no mx"),
        (b"mx: *", b"mx *", "not a field"),
        (b"mx: *", b"\xff", "UTF-8"),
        (b"max_age", b"mx: a.example\r\n" * MOST_HOSTS + b"max_age", "more than"),
        (b"max_age", b"x: " + b"y" * LONGEST + b"\r\nmax_age", "longer"),
    ],
)
def test_what_is_no_policy(old: bytes, new: bytes, words: str) -> None:
    assert old in GOOD
    with pytest.raises(BadPolicy, match=words):
        read_policy(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mx1.example.com", True), ("MX1.Example.Com.", True), ("a.mx1.example.com", False), ("example.com", False),
        ("a.example.net", True), ("b.a.example.net", False), ("example.net", False), (".example.net", True),
    ],
)  # fmt: skip
def test_a_wildcard_is_one_label(host: str, named: bool) -> None:
    assert read_policy(GOOD).names(host) is named


@pytest.mark.parametrize(
    ("mode", "named", "other"),
    [("enforce", "verify", "skip"), ("testing", "note verify", "note skip"), ("none", "", "")],
)
def test_what_a_mode_wants(mode: str, named: str, other: str) -> None:
    policy = Policy(mode, ("mx.a.test",), 1)
    assert (ruling(policy, "mx.a.test"), ruling(policy, "mx.b.test"), ruling(None, "mx.a.test")) == (named, other, "")
