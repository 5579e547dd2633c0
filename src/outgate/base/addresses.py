"""Read addresses and networks as people and sockets write them: one spelling for one place.

Standards: RFC 4291 (section 2.5.5.2, IPv4-mapped addresses), RFC 4007 (scopes).
Promises: pure; an IPv4-mapped address or network is the IPv4 one that it means, for that is where the kernel sends.
Not here: which addresses may be dialled (`net.guard`).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MAPPED = 96


def place(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return where an address leads."""
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def plain(text: str) -> str:
    """Return an address in its usual spelling, without a scope. Raises `ValueError`."""
    return str(place(ip_address(text.partition("%")[0])))


def of_one_host(text: str) -> str:
    """Return an address that one host can have, to listen at or to leave from. Raises `ValueError`.

    What stands for any address of a host (`0.0.0.0`, `::`) is none, nor is one that takes a scope to be used."""
    try:
        address = place(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None
    scoped = isinstance(address, IPv6Address) and address.scope_id is not None
    if address.is_unspecified or address.is_multicast or scoped or str(address) == "255.255.255.255":
        raise ValueError(f"{address} is not the address of one host")
    return str(address)


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the network that an address or a range means, also with bits beyond its prefix. Raises `ValueError`."""
    found = ip_network(text, strict=False)
    if isinstance(found, IPv6Network) and found.prefixlen >= _MAPPED:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, found.prefixlen - _MAPPED))
    return found
