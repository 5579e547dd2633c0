"""The addresses of a zone, and the networks of an allow-list: what clients write, checked, and back.

Standards: RFC 4291, RFC 4632 (addresses, subnets); the vendor's CRN for networks.
Promises: what is accepted here can be compiled; an address that can never match is refused with its place.
Dangers: a subnet with host bits set is refused: it would let in more than was written.
Not here: matching (`relay.access`).
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from pydantic import Field

from outgate.api.errors import BadRequest
from outgate.api.schema import Body
from outgate.model.access import Address
from outgate.relay.ranges import Ip
from outgate.store.access import MOST_ADDRESSES

_BY_VALUE = ("ipAddress", "ipRange", "subnet", "vpc", "instance")
_LONGEST_NETWORK = 100
_WIDEST = {4: 8, 6: 16}
_EXCLUDABLE = ("ipAddress", "ipRange", "subnet")


class Ref(Body):
    """The service that a `serviceRef` address means."""

    account_id: str = Field(min_length=1, max_length=128)
    service_type: str | None = Field(None, max_length=128)
    service_name: str | None = Field(None, max_length=128)
    service_instance: str | None = Field(None, max_length=128)
    location: str | None = Field(None, max_length=128)


class ZoneAddress(Body):
    """One address as it comes: a type with a value, or `serviceRef` with a `ref`."""

    type: str = Field(json_schema_extra={"enum": [*_BY_VALUE, "serviceRef"]})
    value: str | None = Field(None, min_length=2, max_length=300)
    ref: Ref | None = None


def read_addresses(given: list[ZoneAddress], field: str, *, excluded: bool = False) -> tuple[Address, ...]:
    """Return the checked addresses. Raises `BadRequest` that names the entry: `addresses[3].value`."""
    if len(given) > MOST_ADDRESSES:
        raise BadRequest(field, f"may have {MOST_ADDRESSES} entries at most")
    return tuple(_read(entry, f"{field}[{at}]", excluded) for at, entry in enumerate(given))


def read_networks(given: list[str], field: str) -> tuple[Address, ...]:
    """Return the checked networks of an allow-list, each once and in one spelling.

    Raises `BadRequest` that names the entry: `networks[3]`. None is wider than a /8, for IPv6 a /16: nobody has more,
    and whoever means everybody makes a rule that says so."""
    if len(given) > MOST_ADDRESSES:
        raise BadRequest(field, f"may have {MOST_ADDRESSES} entries at most")
    return tuple(dict.fromkeys(_network(text.strip(), f"{field}[{at}]") for at, text in enumerate(given)))


def _network(text: str, place: str) -> Address:
    kind = "subnet" if "/" in text else "ipRange" if "-" in text else "ipAddress"
    try:
        if len(text) > _LONGEST_NETWORK:
            raise ValueError("it is too long for one")
        first, last = _ends(kind, _checked(kind, text))
    except ValueError as error:
        raise BadRequest(place, f"is not an address, a subnet or a range: {error}") from None
    widest = _WIDEST[first.version]
    if int(last) - int(first) >= 1 << first.max_prefixlen - widest:
        raise BadRequest(
            place,
            f"is wider than a /{widest}: name the networks that you have; "
            "who is to let in everybody needs a rule with a context without zones",
        )
    if first == last:
        return Address("ipAddress", str(first))
    return Address(kind, str(ipaddress.ip_network(text)) if kind == "subnet" else f"{first}-{last}")


def _ends(kind: str, checked: str) -> tuple[Ip, Ip]:
    if kind == "subnet":
        network = ipaddress.ip_network(checked)
        return network.network_address, network.broadcast_address
    first, _, last = checked.partition("-")
    return ipaddress.ip_address(first), ipaddress.ip_address(last or first)


def address_document(address: Address) -> dict[str, Any]:
    """Return an address in the vendor's form."""
    if address.type == "serviceRef":
        return {"type": address.type, "ref": json.loads(address.value)}
    return {"type": address.type, "value": address.value}


def _read(entry: ZoneAddress, place: str, excluded: bool) -> Address:
    if excluded and entry.type not in _EXCLUDABLE:
        raise BadRequest(f"{place}.type", f"must be one of {', '.join(_EXCLUDABLE)}")
    if entry.type == "serviceRef":
        if entry.ref is None:
            raise BadRequest(f"{place}.ref", "is required for a serviceRef")
        if entry.ref.service_name is None and entry.ref.service_type is None:
            raise BadRequest(f"{place}.ref", "needs a service_name or a service_type")
        return Address("serviceRef", json.dumps(entry.ref.model_dump(exclude_none=True), sort_keys=True))
    if entry.type not in _BY_VALUE:
        raise BadRequest(f"{place}.type", f"must be one of {', '.join((*_BY_VALUE, 'serviceRef'))}")
    if entry.value is None:
        raise BadRequest(f"{place}.value", "is required")
    try:
        return Address(entry.type, _checked(entry.type, entry.value.strip()))
    except ValueError as error:
        raise BadRequest(f"{place}.value", f"is not a valid {entry.type}: {error}") from None


def _checked(kind: str, value: str) -> str:
    if kind == "ipAddress":
        _ip(value)
    elif kind == "subnet":
        if "/" not in value or "%" in value:
            raise ValueError("write a subnet as 192.0.2.0/24")
        try:
            network = ipaddress.ip_network(value)
        except ValueError as error:
            if "host bits" in str(error):
                raise ValueError(f"write it as {ipaddress.ip_network(value, strict=False)}") from None
            raise
        if network.prefixlen >= 96:
            _ip(str(network.network_address))
    elif kind == "ipRange":
        first, dash, last = value.partition("-")
        low, high = _ip(first.strip()), _ip(last.strip())
        if not dash or low.version != high.version or int(low) > int(high):
            raise ValueError("write a range as first-last, both of one version, the lower first")
        return f"{first.strip()}-{last.strip()}"
    elif not value.startswith("crn:v1:"):
        raise ValueError("write it as a CRN, which begins with crn:v1:")
    return value


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text:
        raise ValueError("an address with a scope means something on one machine only")
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"an IPv4-mapped address means the IPv4 one: write {address.ipv4_mapped}")
    return address
