"""One spelling for one place."""

from __future__ import annotations

import pytest

from outgate.base.addresses import network, of_one_host, plain


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/64", "::/64"),
        ("2001:DB8::1/32", "2001:db8::/32"),
    ],
)
def test_a_network_is_the_one_that_is_meant(written: str, meant: str) -> None:
    assert str(network(written)) == meant


def test_what_a_socket_tells_has_no_scope_and_is_ipv4_where_it_means_that() -> None:
    told = ("127.0.0.3", "::ffff:127.0.0.3", "0:0:0:0:0:FFFF:7F00:3", "fe80::1%lo", "::1")
    assert [plain(each) for each in told] == ["127.0.0.3", "127.0.0.3", "127.0.0.3", "fe80::1", "::1"]
    with pytest.raises(ValueError, match="does not appear"):
        plain("peer.example")


def test_an_address_of_one_host_has_one_spelling() -> None:
    assert [of_one_host(each) for each in ("::ffff:127.0.0.3", "2001:DB8:0::1")] == ["127.0.0.3", "2001:db8::1"]


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "fe80::1%lo", "255.255.255.255", "127.1", ""]
)
def test_what_is_not_the_address_of_one_host_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (an IP address|the address of one host)"):
        of_one_host(text)
