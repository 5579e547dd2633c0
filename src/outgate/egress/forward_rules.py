"""Judge port forwards and non-proxy hosts as clients and files write them.

Standards: RFC 8259; the vendor's OpenAPI constraints on PortForward and nonProxyHosts.
Promises: pure; everything that is wrong is told, each with its place in the document.
Not here: the body of a request (`api.cloud_manager.validation`), the file of rules (`rules_file`), what is in force
    (`plan`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from outgate.model.egress import PortForward

PORT_ORIG = range(30000, 31001)
HOST_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_HOST = re.compile(HOST_PATTERN.removeprefix("^").removesuffix("$"))


@dataclass(frozen=True, slots=True)
class Wrong:
    """One field that is wrong: its place, a code, what must be, and what was there."""

    field: str
    code: str
    message: str
    value: object = None


def forwards(place: str, given: object, wrong: list[Wrong]) -> tuple[PortForward, ...]:
    """Read `portForwards`, found at `place`; add to `wrong` whatever cannot be taken."""
    if not isinstance(given, list):
        wrong.append(Wrong(place, "type", "must be an array", given))
        return ()
    found: list[PortForward] = []
    first: dict[int, int] = {}
    for index, entry in enumerate(cast("list[object]", given)):
        field = f"{place}[{index}]"
        if not isinstance(entry, dict):
            wrong.append(Wrong(field, "type", "must be an object with name, portOrig and portDest", entry))
            continue
        rule = cast("dict[str, object]", entry)
        name = _host_name(f"{field}.name", rule.get("name"), wrong)
        port_dest = _port(f"{field}.portDest", rule.get("portDest"), range(1, 65536), wrong)
        port_orig = _port(f"{field}.portOrig", rule.get("portOrig"), PORT_ORIG, wrong)
        if port_orig in first:
            message = f"must be unique; portForwards[{first[port_orig]}] has it too"
            wrong.append(Wrong(f"{field}.portOrig", "duplicate", message, port_orig))
        elif port_orig:
            first[port_orig] = index
        found.append(PortForward(name, port_orig, port_dest))
    return tuple(found)


def hosts(place: str, given: object, wrong: list[Wrong]) -> tuple[str, ...]:
    """Read `nonProxyHosts`, found at `place`; add to `wrong` whatever cannot be taken."""
    if not isinstance(given, list):
        wrong.append(Wrong(place, "type", "must be an array", given))
        return ()
    found: list[str] = []
    for index, host in enumerate(cast("list[object]", given)):
        plain = host.removeprefix("*.") if isinstance(host, str) else ""
        if isinstance(host, str) and plain == host:
            plain = host.removesuffix(".*")
        if not isinstance(host, str) or len(host) > 253 or _HOST.fullmatch(plain) is None:
            message = "must be a host name, *.name or name.*"
            shown = _printable(host[:300]) if isinstance(host, str) else host
            wrong.append(Wrong(f"{place}[{index}]", "pattern", message, shown))
        else:
            found.append(host)
    return tuple(found)


def _printable(text: str) -> str:
    """Return text that can be written as UTF-8: JSON may carry half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _host_name(field: str, name: object, wrong: list[Wrong]) -> str:
    if not isinstance(name, str) or not name:
        wrong.append(Wrong(field, "required", "is required: the host that the forward leads to", name))
        return ""
    if len(name) > 253 or any(len(label) > 63 for label in name.split(".")):
        message = "must be a host name of at most 253 characters, 63 between dots"
        wrong.append(Wrong(field, "size", message, _printable(name[:300])))
    elif _HOST.fullmatch(name) is None:
        wrong.append(Wrong(field, "pattern", f'must match "{HOST_PATTERN}"', _printable(name)))
    return name


def _port(field: str, port: object, allowed: range, wrong: list[Wrong]) -> int:
    # True is an int to Python, and 465.0 is not an integer to the schema.
    if not isinstance(port, int) or isinstance(port, bool):
        message = "is required" if port is None else "must be an integer"
        wrong.append(Wrong(field, "required" if port is None else "type", message, port))
        return 0
    if port not in allowed:
        message = f"must be between {allowed.start} and {allowed.stop - 1}"
        wrong.append(Wrong(field, "range", message, port))
        return 0
    return port
