"""Every spelling of a denied IPv4 address is denied; no text at all surprises the guard."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from outgate.net import guard

NONE = guard.compile_exceptions([])
DENIED = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
]  # fmt: skip

denied_addresses = st.sampled_from(DENIED).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address)
)
rest = st.integers(0, 2**64 - 1)


def spellings(address: IPv4Address, noise: int, prefix: int) -> list[IPv6Address]:
    """Return every IPv6 address that leads to `address`, with free bits filled from the noise."""
    number = int(address)
    isatap = ((0x2606 << 112) | (prefix << 64 & (2**112 - 1))) & ~(2**64 - 1)
    return [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(number),
        IPv6Address(0xFFFF << 48 | number),
        IPv6Address(0x0064FF9B << 96 | number),
        IPv6Address(0x0064FF9B0001 << 80 | noise << 16 & (2**80 - 1) | number),
        IPv6Address(0x2002 << 112 | number << 80 | noise),
        IPv6Address(0x20010000 << 96 | noise << 32 & (2**96 - 1) | number ^ 0xFFFFFFFF),
        IPv6Address(0x20010000 << 96 | number << 64 | noise),
        IPv6Address(isatap | 0x00005EFE << 32 | number),
        IPv6Address(isatap | 0x02005EFE << 32 | number),
    ]


@given(denied_addresses, rest, rest)
def test_every_spelling_of_a_denied_address_is_denied(address: IPv4Address, noise: int, prefix: int) -> None:
    assert not guard.check(str(address), exceptions=NONE).allowed
    for spelling in spellings(address, noise, prefix):
        for text in (str(spelling), spelling.exploded, spelling.exploded.upper()):
            assert not guard.check(text, exceptions=NONE).allowed, text
    mapped = f"::ffff:{address}"
    assert not guard.check(mapped, exceptions=NONE).allowed


@given(denied_addresses, rest, rest)
def test_a_name_exception_does_not_open_the_other_spellings(address: IPv4Address, noise: int, prefix: int) -> None:
    exceptions = guard.compile_exceptions(["inner.example"])
    for spelling in spellings(address, noise, prefix)[1:]:
        # The very first of ::/96 is the loopback address itself, which a name may open.
        if spelling != IPv6Address("::1"):
            assert not guard.check(str(spelling), exceptions=exceptions, name="inner.example").allowed


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_gives_a_verdict(address: str, name: str) -> None:
    verdict = guard.check(address, exceptions=NONE, name=name)
    assert verdict.reason


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_ordinary_address_is_allowed_exactly_when_no_range_holds_it(address: IPv4Address) -> None:
    inside = any(address in network for network in [*DENIED, IPv4Network("192.88.99.0/24")])
    assert guard.check(str(address), exceptions=NONE).allowed is not inside
