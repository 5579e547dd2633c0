"""The guard: what it denies, what opens it, and what it says."""

from __future__ import annotations

import pytest

from outgate.net import guard

NONE = guard.compile_exceptions([])


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("0.0.0.0", "this host"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade"),
        ("127.0.0.1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("198.18.0.1", "benchmarking"),
        ("203.0.113.9", "documentation"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:0:10.0.0.1", "IPv4-translated"),
        ("64:ff9b::8.8.8.8", "NAT64"),
        ("64:ff9b:1::1", "NAT64"),
        ("2002:7f00:1::1", "6to4"),
        ("2001:0:1:2::1", "Teredo"),
        ("2001:db8::1", "documentation"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:c1::a9fe:a9fe", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fc00::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%lo", "scope"),
        ("2606:4700::1%lo", "scope"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("4000::1", "not a public"),
        ("2606:4700::5efe:10.0.0.1", "ISATAP"),
        ("2606:4700::200:5efe:10.0.0.1", "ISATAP"),
        ("127.1", "not an IP address"),
        ("2130706433", "not an IP address"),
        ("0x7f.0.0.1", "not an IP address"),
        ("0177.0.0.1", "not an IP address"),
        ("127.0.0.1 ", "not an IP address"),
        ("", "not an IP address"),
    ],
)
def test_denied_with_a_reason(address: str, word: str) -> None:
    verdict = guard.check(address, exceptions=NONE)
    assert not verdict.allowed
    assert word in verdict.reason


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "193.0.6.139", "2606:4700:4700::1111", "::ffff:8.8.8.8", "2a00:1450::5efe:8.8.8.8"]
)
def test_public_addresses_are_allowed_without_an_exception(address: str) -> None:
    assert guard.check(address, exceptions=NONE) == guard.Verdict(True, "public address", "")


def test_a_network_opens_exactly_itself_and_is_named() -> None:
    exceptions = guard.compile_exceptions(["10.1.0.0/16", "169.254.169.254"])
    assert guard.check("10.1.2.3", exceptions=exceptions).exception == "10.1.0.0/16"
    assert guard.check("::ffff:10.1.2.3", exceptions=exceptions).allowed
    assert not guard.check("10.2.0.1", exceptions=exceptions).allowed
    assert guard.check("169.254.169.254", exceptions=exceptions).exception == "169.254.169.254/32"


def test_a_name_opens_private_addresses_for_itself_only() -> None:
    exceptions = guard.compile_exceptions(["Relay.Corp.example.", "*.inner.example"])
    assert guard.check("10.0.0.1", exceptions=exceptions, name="relay.corp.example").exception == ("relay.corp.example")
    assert guard.check("10.0.0.1", exceptions=exceptions, name="A.Inner.example.").exception == "*.inner.example"
    assert not guard.check("10.0.0.1", exceptions=exceptions, name="inner.example").allowed
    assert not guard.check("10.0.0.1", exceptions=exceptions, name="evilinner.example").allowed
    assert not guard.check("10.0.0.1", exceptions=exceptions).allowed


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.7.7", "0.0.0.0", "fd00:ec2::254", "224.0.0.1"])
def test_a_name_never_opens_metadata_or_link_local(address: str) -> None:
    exceptions = guard.compile_exceptions(["relay.corp.example"])
    assert not guard.check(address, exceptions=exceptions, name="relay.corp.example").allowed


def test_opening_nat64_does_not_open_what_lies_behind_it() -> None:
    exceptions = guard.compile_exceptions(["64:ff9b::/96"])
    assert guard.check("64:ff9b::8.8.8.8", exceptions=exceptions).allowed
    denied = guard.check("64:ff9b::10.0.0.1", exceptions=exceptions)
    assert not denied.allowed
    assert "10.0.0.1" in denied.reason
    both = guard.compile_exceptions(["64:ff9b::/96", "10.0.0.0/8"])
    assert guard.check("64:ff9b::10.0.0.1", exceptions=both).allowed


def test_the_ipv6_loopback_can_be_opened_too() -> None:
    assert guard.check("::1", exceptions=guard.compile_exceptions(["::1"])).exception == "::1/128"
    assert guard.check("::1", exceptions=guard.compile_exceptions(["a.example"]), name="a.example").allowed


@pytest.mark.parametrize("entry", ["", "*", "a b", "10.0.0.0/33", "*.", "http://x"])
def test_an_entry_that_means_nothing_is_an_error_that_quotes_it(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a network"):
        guard.compile_exceptions([entry])
