"""Which DNS servers are asked: those of settings, else the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.net import resolv_conf


def test_a_file_in_its_order_and_three_at_most() -> None:
    text = "# nameserver 9.9.9.9\nsearch a.example\nnameserver 192.0.2.1 # here\n nameserver\t2001:db8::1\n"
    text += "nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"
    assert resolv_conf.servers(text) == (("192.0.2.1", 53), ("2001:db8::1", 53), ("fe80::1%eth0", 53))


@pytest.mark.parametrize("text", ["", "search a.example\n", "nameserver x\n"])
def test_without_any_this_machine_is_asked(text: str) -> None:
    assert resolv_conf.servers(text) == (("127.0.0.1", 53),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:DB8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_settings(text: str, expected: tuple[str, int]) -> None:
    assert resolv_conf.server(text) == expected


@pytest.mark.parametrize(
    "text", ["", "dns.example", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.300:53", "[::1]", "::1:x"]
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        resolv_conf.server(text)


def test_settings_come_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert resolv_conf.chosen([], file) == (("127.0.0.1", 53),)
    file.write_text("nameserver 192.0.2.1\n")
    assert resolv_conf.chosen([], file) == (("192.0.2.1", 53),)
    assert resolv_conf.chosen(["192.0.2.2:54"], file) == (("192.0.2.2", 54),)
