"""Read and judge the body of a network infrastructure: its kind and region, and all of a VPN.

Standards: RFC 8259; the vendor's OpenAPI constraints on NetworkInfrastructure (the three kinds, the connection, the
    eight fields of ipsecPolicy); RFC 4632 (address ranges).
Promises: pure; a body is read whole or refused with every field that is wrong, in the vendor's spelling; what is
    accepted is kept as it was sent, but for the shared keys.
Dangers: what stands where a shared key belongs is never echoed; of a value where an object or an array belongs, only
    the type is told, and of an unknown field only the name. A wrong scalar of another field is told back to who sent
    it.
Not here: rules that need what is stored: kinds of a program, regions, what may change (`store.infrastructures`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import cast

from outgate.api.cloud_manager.problems import Invalid, Violation, printable
from outgate.model.egress import Mode
from outgate.store.infrastructures import Wanted

CREATE = "createNetworkInfrastructure.arg1"
UPDATE = "updateNetworkInfrastructure.arg2"
KINDS = tuple(mode.value for mode in (Mode.FLEXIBLE, Mode.DEDICATED, Mode.VPN))
IPSEC_POLICY: dict[str, tuple[str, ...]] = {
    "dhGroup": ("DHGroup24", "ECP384", "ECP256", "DHGroup14", "DHGroup2048", "DHGroup2", "DHGroup1", "None"),
    "ikeEncryption": ("AES256", "AES192", "AES128", "DES3", "DES"),
    "ikeIntegrity": ("SHA384", "SHA256", "SHA1", "MD5"),
    "ipsecEncryption": (
        *("GCMAES256", "GCMAES192", "GCMAES128", "AES256", "AES192", "AES128", "DES3", "DES"),
        "None",
    ),
    "ipsecIntegrity": ("GCMAES256", "GCMAES192", "GCMAES128", "SHA256", "SHA1", "MD5"),
    "pfsGroup": ("PFS24", "ECP384", "ECP256", "PFS2048", "PFS2", "PFS1", "None"),
}
IPSEC_LEAST: dict[str, tuple[int, int]] = {"saDatasize": (1024, 2**63 - 1), "saLifetime": (300, 2**31 - 1)}
_LARGEST_PREFIX = 26
_MOST_RANGES, _MOST_RESOLVERS, _MOST_DOMAINS = 100, 16, 100
_SHARED_KEY = re.compile(r"[ -~]{1,256}")
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,63}")
_RANGE = re.compile(r"[0-9A-Fa-f:.]+/[0-9]{1,3}")
_DOMAIN = re.compile(r"(\*\.)?[A-Za-z0-9_]([-A-Za-z0-9_.]{0,250}[A-Za-z0-9])?\.?")
_VPN_ONLY = ("addressSpace", "dns", "connections")
# What a client may send back as it got it, without effect.
_READ_ONLY = frozenset(
    {"id", "programId", "created", "updated", "status", "statusDetails", "_links", "egressAddresses", "gatewayAddress"}
)
_FIELDS = frozenset({"kind", "region", "isPrimaryRegion", *_VPN_ONLY})
_MASK = "****"

_Network = IPv4Network | IPv6Network
_Wrong = list[Violation]


def wanted(body: object, place: str) -> Wanted:
    """Read the body of a POST (`place` is `CREATE`) or a PUT (`UPDATE`). Raises `Invalid`."""
    if not isinstance(body, dict):
        raise Invalid([Violation(place, "type", "must be an object with kind and region")])
    document = cast("dict[str, object]", body)
    wrong: _Wrong = []
    _only(place, document, _FIELDS | _READ_ONLY, wrong)
    kind = _one_of(f"{place}.kind", document.get("kind"), KINDS, wrong)
    region = _text(f"{place}.region", document.get("region"), wrong)
    primary = document.get("isPrimaryRegion")
    if primary is not None and not isinstance(primary, bool):
        wrong.append(Violation(f"{place}.isPrimaryRegion", "type", "must be true or false", _told(primary)))
        primary = None
    kept: dict[str, object] = {}
    keys: dict[str, str] = {}
    if kind == Mode.VPN.value:
        kept, keys = _vpn(place, document, wrong)
    elif kind:
        for name in _VPN_ONLY:
            if document.get(name):
                wrong.append(Violation(f"{place}.{name}", "kind", f"is for vpn only, not for {kind}", _MASK))
    if wrong:
        raise Invalid(wrong)
    return Wanted(Mode(kind), region, primary, kept, keys)


def _vpn(place: str, document: dict[str, object], wrong: _Wrong) -> tuple[dict[str, object], dict[str, str]]:
    _address_space(f"{place}.addressSpace", document.get("addressSpace"), wrong)
    field = f"{place}.connections"
    connections = _list(field, document.get("connections"), "one connection", 1, wrong)
    kept: list[dict[str, object]] = []
    keys: dict[str, str] = {}
    reachable: list[_Network] | None = None
    for index, entry in enumerate(connections):
        connection = _object(f"{field}[{index}]", entry, "name, gateway, sharedKey and ipsecPolicy", wrong)
        if connection is not None:
            name, key, reachable = _connection(f"{field}[{index}]", connection, wrong)
            keys[name] = key
            kept.append({part: value for part, value in connection.items() if part != "sharedKey"})
    _dns(f"{place}.dns", document.get("dns"), reachable, wrong)
    return {"addressSpace": document.get("addressSpace"), "dns": document.get("dns"), "connections": kept}, keys


def _address_space(field: str, given: object, wrong: _Wrong) -> None:
    for index, entry in enumerate(_list(field, given, "exactly one address range", 1, wrong)):
        found = _network(f"{field}[{index}]", entry, wrong)
        if found is None:
            continue
        if found.version != 4:
            wrong.append(Violation(f"{field}[{index}]", "pattern", "must be an IPv4 range", str(found)))
        elif found.prefixlen > _LARGEST_PREFIX:
            message = f"must be /{_LARGEST_PREFIX} or bigger: at most {_LARGEST_PREFIX} after the slash"
            wrong.append(Violation(f"{field}[{index}]", "size", message, str(found)))


def _connection(field: str, connection: dict[str, object], wrong: _Wrong) -> tuple[str, str, list[_Network] | None]:
    """Judge a connection; return its name, its key, and what lies behind its gateway (None: not told rightly)."""
    _only(field, connection, {"name", "gateway", "sharedKey", "ipsecPolicy"}, wrong)
    name = connection.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = f'is required and must match "{_NAME.pattern}"'
        wrong.append(Violation(f"{field}.name", "pattern", message, _MASK))
        name = ""
    key = connection.get("sharedKey")
    if not isinstance(key, str) or _SHARED_KEY.fullmatch(key) is None:
        message = "is required with every create and update: 1 to 256 printable ASCII characters"
        wrong.append(Violation(f"{field}.sharedKey", "required", message, _MASK))
        key = ""
    reachable: list[_Network] | None = None
    gateway = _object(f"{field}.gateway", connection.get("gateway"), "address and addressSpace", wrong)
    if gateway is not None:
        _only(f"{field}.gateway", gateway, {"address", "addressSpace"}, wrong)
        _unicast(f"{field}.gateway.address", gateway.get("address"), wrong)
        reachable = _networks(f"{field}.gateway.addressSpace", gateway.get("addressSpace"), wrong)
    policy = _object(f"{field}.ipsecPolicy", connection.get("ipsecPolicy"), "all its eight fields", wrong)
    if policy is not None:
        _policy(f"{field}.ipsecPolicy", policy, wrong)
    return name, key, reachable


def _policy(field: str, policy: dict[str, object], wrong: _Wrong) -> None:
    _only(field, policy, {*IPSEC_POLICY, *IPSEC_LEAST}, wrong)
    for name, allowed in IPSEC_POLICY.items():
        _one_of(f"{field}.{name}", policy.get(name), allowed, wrong)
    for name, (least, most) in IPSEC_LEAST.items():
        value = policy.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            message = "is required" if value is None else "must be an integer"
            wrong.append(Violation(f"{field}.{name}", "required" if value is None else "type", message, _told(value)))
        elif not least <= value <= most:
            message = f"must be between {least} and {most}"
            wrong.append(Violation(f"{field}.{name}", "range", message, value))


def _dns(field: str, given: object, reachable: list[_Network] | None, wrong: _Wrong) -> None:
    dns = _object(field, given, "resolvers", wrong)
    if dns is None:
        return
    _only(field, dns, {"resolvers", "domains"}, wrong)
    entries = _list(f"{field}.resolvers", dns.get("resolvers"), "addresses of resolvers", _MOST_RESOLVERS, wrong)
    for index, entry in enumerate(entries):
        found = _unicast(f"{field}.resolvers[{index}]", entry, wrong)
        if found is None or reachable is None:
            continue
        if not any(found.version == each.version and found in each for each in reachable):
            message = "must lie in the gateway's addressSpace: the tunnel leads nowhere else"
            wrong.append(Violation(f"{field}.resolvers[{index}]", "range", message, str(found)))
    domains = dns.get("domains")
    if domains is None or domains == []:
        return
    for index, entry in enumerate(_list(f"{field}.domains", domains, "domain names", _MOST_DOMAINS, wrong)):
        if not isinstance(entry, str) or _DOMAIN.fullmatch(entry) is None:
            wrong.append(Violation(f"{field}.domains[{index}]", "pattern", "must be a domain name", _told(entry)))


def _networks(field: str, given: object, wrong: _Wrong) -> list[_Network] | None:
    entries = _list(field, given, "address ranges", _MOST_RANGES, wrong)
    found = [_network(f"{field}[{index}]", entry, wrong) for index, entry in enumerate(entries)]
    good = [each for each in found if each is not None]
    return good if good and len(good) == len(entries) else None


def _network(field: str, entry: object, wrong: _Wrong) -> _Network | None:
    message = "must be an address range such as 10.0.0.0/24"
    if not isinstance(entry, str) or _RANGE.fullmatch(entry) is None:
        wrong.append(Violation(field, "pattern", message, _told(entry)))
        return None
    try:
        return ip_network(entry)
    except ValueError:
        pass
    try:
        meant = ip_network(entry, strict=False)
    except ValueError:
        wrong.append(Violation(field, "pattern", message, _told(entry)))
        return None
    wrong.append(Violation(field, "pattern", f"has bits beyond its prefix: {meant} is the range", _told(entry)))
    return None


def _unicast(field: str, entry: object, wrong: _Wrong) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(entry) if isinstance(entry, str) else None
    except ValueError:
        found = None
    scoped = isinstance(found, IPv6Address) and found.scope_id is not None
    if found is None or found.is_multicast or found.is_unspecified or scoped:
        wrong.append(Violation(field, "pattern", "must be an IP address of one host", _told(entry)))
        return None
    return found


def _only(field: str, given: dict[str, object], known: Collection[str], wrong: _Wrong) -> None:
    for name in [name for name in given if name not in known][:20]:
        wrong.append(Violation(f"{field}.{printable(name[:100])}", "unknown", "is not a field of this object", _MASK))


def _object(field: str, given: object, with_what: str, wrong: _Wrong) -> dict[str, object] | None:
    if isinstance(given, dict):
        return cast("dict[str, object]", given)
    code = "required" if given is None else "type"
    wrong.append(Violation(field, code, f"is required: an object with {with_what}", _type_of(given)))
    return None


def _list(field: str, given: object, of_what: str, most: int, wrong: _Wrong) -> list[object]:
    """Return the entries of a list of 1 to `most`, or none after saying what is wrong."""
    if not isinstance(given, list):
        code = "required" if given is None else "type"
        wrong.append(Violation(field, code, f"is required: an array of {of_what}", _type_of(given)))
        return []
    entries = cast("list[object]", given)
    if not 1 <= len(entries) <= most:
        held = "exactly 1 entry" if most == 1 else f"1 to {most} entries"
        wrong.append(Violation(field, "size", f"must hold {held}, not {len(entries)}", len(entries)))
        return []
    return entries


def _one_of(field: str, value: object, allowed: Collection[str], wrong: _Wrong) -> str:
    if isinstance(value, str) and value in allowed:
        return value
    code = "required" if value is None else "enum"
    wrong.append(Violation(field, code, f"must be one of {', '.join(allowed)}", _told(value)))
    return ""


def _text(field: str, value: object, wrong: _Wrong) -> str:
    if isinstance(value, str) and 0 < len(value) <= 100 and printable(value) == value:
        return value
    wrong.append(
        Violation(field, "required" if value is None else "type", "must be the name of a region", _told(value))
    )
    return ""


def _told(value: object) -> object:
    """Return what may be told of a wrong value where a scalar belongs."""
    return _type_of(value) if isinstance(value, dict | list) else value


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in ((dict, "an object"), (list, "an array"), (str, "a string"), (bool, "a boolean")):
        if isinstance(value, kind):
            return name
    return "a number"
