"""Say which addresses may be dialled on behalf of others, and why not.

Standards: the IANA special-purpose address registries (RFC 6890), RFC 6052 and 8215 (NAT64), 3056 (6to4),
    4380 (Teredo), 5214 (ISATAP), 4291 (IPv4-mapped and IPv4-compatible), 2765 (IPv4-translated).
Promises: an IPv4 address that is denied is denied in each of its IPv6 spellings; what is not plainly a public
    unicast address is denied; each verdict has a reason, and names the exception that opened the way.
Dangers: check every address that a name resolves to, and connect to that address, never to the name again.
    A name as exception never opens link-local, metadata and unusable addresses: those take a network.
Not here: resolving (`net.dns`), connecting (`egress.reach`), the audit (`egress.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from outgate.base import addresses

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an address may be dialled; `reason` in words; `exception` is the setting that allowed it, or ""."""

    allowed: bool
    reason: str
    exception: str = ""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Exceptions ready to use: networks, exact names, and domains whose names below are meant."""

    networks: tuple[_Network, ...] = ()
    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()


def compile_exceptions(entries: Iterable[str]) -> Exceptions:
    """Read exceptions: an address or network (`10.1.0.0/16`), a name, or `*.domain` for all names below it.

    Raises `ValueError` that quotes the entry which is none of these."""
    networks: list[_Network] = []
    names: set[str] = set()
    suffixes: list[str] = []
    for entry in entries:
        text = entry.strip().lower().rstrip(".")
        network = _network(text)
        if network is not None:
            networks.append(network)
        elif text.startswith("*.") and _is_name(text[2:]):
            suffixes.append(text[1:])
        elif _is_name(text):
            names.add(text)
        else:
            raise ValueError(f"{entry!r} is not a network, a name or *.domain")
    return Exceptions(tuple(networks), frozenset(names), tuple(suffixes))


def spelt(entry: str) -> str:
    """Return an exception in its one spelling: `10.1.2.3/16` is `10.1.0.0/16`, names are lower case.

    Raises `ValueError` if the guard cannot read it, or it is an address with a slip: as a name nobody has it."""
    text = entry.strip().lower().rstrip(".")
    compile_exceptions((text,))
    network = _network(text)
    if network is not None:
        return str(network)
    if text.rpartition(".")[2].isdigit():
        raise ValueError(f"{entry!r} is not an address: write 10.1.2.3, 10.1.2.0/24 or a name")
    return text


def check(address: str, *, exceptions: Exceptions, name: str = "") -> Verdict:
    """Judge one address that `name` resolved to (`name` "" when the address itself was asked for).

    Anything that is not the usual spelling of an address (`127.1`, a scope id) is denied, never guessed at."""
    try:
        literal = ip_address(address)
    except ValueError:
        return Verdict(False, "not an IP address")
    if isinstance(literal, IPv6Address) and literal.scope_id is not None:
        return Verdict(False, "an address with a scope is link-local")
    found = _denied(there := addresses.place(literal))
    if found is None:
        return Verdict(True, "public address")
    opened = _exception(there, found, exceptions, name.lower().rstrip("."))
    if opened is None:
        return Verdict(False, found.reason)
    embedded = _embedded(there)
    if embedded is not None and not check(str(embedded), exceptions=exceptions, name=name).allowed:
        return Verdict(False, f"{found.reason} that leads to {embedded}")
    return Verdict(True, f"{found.reason}, allowed by exception", opened)


@dataclass(frozen=True, slots=True)
class _Denied:
    reason: str
    by_name: bool
    """Whether the exception of a name is enough to open it."""


def _denied(place: IPv4Address | IPv6Address) -> _Denied | None:
    for network, denied in _DENIED_4 if place.version == 4 else _DENIED_6:
        if place in network:
            return denied
    if isinstance(place, IPv6Address):
        if place not in _GLOBAL_6:
            return _Denied("not a public IPv6 address", False)
        embedded = _embedded(place)
        if embedded is not None and (inner := _denied(embedded)) is not None:
            return _Denied(f"ISATAP spelling of {inner.reason}", False)
    return None


def _exception(place: IPv4Address | IPv6Address, denied: _Denied, exceptions: Exceptions, name: str) -> str | None:
    for network in exceptions.networks:
        if place.version == network.version and place in network:
            return str(network)
    if not denied.by_name or not name:
        return None
    if name in exceptions.names:
        return name
    for suffix in exceptions.suffixes:
        if name.endswith(suffix):
            return f"*{suffix}"
    return None


def _embedded(place: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address of a transition mechanism leads to."""
    if isinstance(place, IPv4Address):
        return None
    number = int(place)
    if number <= 1:
        return None  # :: and ::1 lie among the IPv4-compatible addresses and lead nowhere else
    if place in _NAT64 or place in _TRANSLATED or place in _COMPATIBLE:
        return IPv4Address(number & 0xFFFFFFFF)
    if place.sixtofour is not None:
        return place.sixtofour
    if place.teredo is not None:
        return place.teredo[1]
    # ISATAP: the interface identifier is 0000:5efe or 0200:5efe and the IPv4 address.
    if (number >> 32) & 0xFDFFFFFF == 0x00005EFE:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def _network(text: str) -> _Network | None:
    try:
        return addresses.network(text)
    except ValueError:
        return None


def _is_name(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.replace("-", "a").replace("_", "a").isalnum() and label.isascii()
        for label in labels
    )


_NAT64 = IPv6Network("64:ff9b::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_GLOBAL_6 = IPv6Network("2000::/3")

# In order: the first that contains the address names the reason.
_DENIED_4: tuple[tuple[IPv4Network, _Denied], ...] = tuple(
    (IPv4Network(network), _Denied(reason, by_name))
    for network, reason, by_name in (
        ("0.0.0.0/8", "this host (0.0.0.0/8)", False),
        ("10.0.0.0/8", "private address", True),
        ("100.100.100.200/32", "metadata service", False),
        ("100.64.0.0/10", "carrier-grade NAT address", True),
        ("127.0.0.0/8", "loopback address", True),
        ("168.63.129.16/32", "metadata service", False),
        ("169.254.169.254/32", "metadata service", False),
        ("169.254.0.0/16", "link-local address", False),
        ("172.16.0.0/12", "private address", True),
        ("192.0.0.192/32", "metadata service", False),
        ("192.0.0.0/24", "protocol assignments (192.0.0.0/24)", False),
        ("192.0.2.0/24", "documentation address", True),
        ("192.88.99.0/24", "6to4 relay address", False),
        ("192.168.0.0/16", "private address", True),
        ("198.18.0.0/15", "benchmarking address", True),
        ("198.51.100.0/24", "documentation address", True),
        ("203.0.113.0/24", "documentation address", True),
        ("224.0.0.0/4", "multicast address", False),
        ("240.0.0.0/4", "reserved or broadcast address", False),
    )
)
_DENIED_6: tuple[tuple[IPv6Network, _Denied], ...] = tuple(
    (IPv6Network(network), _Denied(reason, by_name))
    for network, reason, by_name in (
        ("::1/128", "loopback address", True),
        ("::/128", "unspecified address", False),
        ("::/96", "IPv4-compatible address", False),
        ("::ffff:0:0:0/96", "IPv4-translated address", False),
        ("64:ff9b::/96", "NAT64 address", False),
        ("64:ff9b:1::/48", "local NAT64 address", False),
        ("100::/64", "discard-only address", False),
        ("2001::/32", "Teredo address", False),
        ("2001::/23", "protocol assignments (2001::/23)", False),
        ("2001:db8::/32", "documentation address", True),
        ("2002::/16", "6to4 address", False),
        ("3fff::/20", "documentation address", True),
        ("fd00:42::42/128", "metadata service", False),
        ("fd00:c1::a9fe:a9fe/128", "metadata service", False),
        ("fd00:ec2::/32", "metadata service", False),
        ("fd20:ce::254/128", "metadata service", False),
        ("fc00::/7", "private address", True),
        ("fe80::/10", "link-local address", False),
        ("fec0::/10", "site-local address", False),
        ("ff00::/8", "multicast address", False),
    )
)
