"""Read and judge the two bodies that clients send: changes of variables, and advanced networking.

Standards: RFC 8259; the vendor's OpenAPI constraints on Variable, PortForward and nonProxyHosts.
Promises: pure; a body is read whole or refused with every field that is wrong, in the vendor's spelling.
Dangers: a variable's value is never echoed, whatever its type: it may be a secret sent with the wrong one.
Not here: rules that need what is stored: type changes, the count of variables (`store.egress`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import cast

from outgate.api.cloud_manager.problems import Invalid, Violation, printable
from outgate.egress import forward_rules
from outgate.egress.forward_rules import PORT_ORIG
from outgate.egress.runtime import SERVICES
from outgate.model.egress import Mode, PortForward
from outgate.store.egress import VARIABLES_LIMIT, VariableChange

VALUE_LIMIT = 2048
FORWARDS_LIMIT = len(PORT_ORIG)
"""Each needs a portOrig of its own."""
HOSTS_LIMIT = 1000
SECRET_LIMIT = 499
NAME_PATTERN = r"[a-zA-Z_][a-zA-Z_0-9]*"
_MASK = "****"
_NAME = re.compile(NAME_PATTERN)
_IGNORED_PREFIXES = ("INTERNAL_", "ADOBE_", "CONST_")
# Ours to set at run time: a customer's value would be overwritten, so it is shown as ignored.
_IGNORED_NAMES = frozenset({"AEM_HTTP_PROXY_PORT", "AEM_HTTPS_PROXY_PORT"})
_REFUSED_NAMES = frozenset({"AEM_PROXY_HOST"})
_TYPES = {"string": False, "secretString": True}
_VARIABLES = "patchEnvironmentVariables.arg2"
_NETWORKING = "enableEnvironmentAdvancedNetworkingConfiguration.arg2"
# What a client may send back as it got it, without effect.
_READ_ONLY = frozenset(
    {"programId", "environmentId", "networkInfrastructureId", "advancedNetworkingEnabled", "_links"}
    | {"tunnelAddress", "egressAddresses", "engine", "engines", "advice", "status", "statusDetails"}
)
_WRITTEN = frozenset({"portForwards", "nonProxyHosts"})


def variable_changes(body: object) -> tuple[VariableChange, ...]:
    """Read the body of a PATCH of variables. Raises `Invalid`."""
    if not isinstance(body, list):
        raise Invalid([Violation(_VARIABLES, "type", "must be an array of variables")])
    wrong: list[Violation] = []
    changes: list[VariableChange] = []
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(cast("list[object]", body)):
        place = f"{_VARIABLES}[{index}]"
        if not isinstance(entry, dict):
            wrong.append(Violation(place, "type", "must be an object with name and value"))
            continue
        found: list[Violation] = []
        change = _variable(place, cast("dict[str, object]", entry), found)
        if not found and (change.name, change.service) in seen:
            message = "must not be given twice for the same service"
            found.append(Violation(f"{place}.name", "duplicate", message, change.name))
        seen.add((change.name, change.service))
        wrong += found
        changes.append(change)
    if sum(bool(change.value) for change in changes) > VARIABLES_LIMIT:
        message = f"must not hold more than {VARIABLES_LIMIT} variables"
        wrong.append(Violation(_VARIABLES, "size", message, len(changes)))
    if wrong:
        raise Invalid(wrong)
    return tuple(changes)


def _variable(place: str, entry: dict[str, object], wrong: list[Violation]) -> VariableChange:
    name = _variable_name(place, entry.get("name"), wrong)
    value = _variable_value(place, entry, wrong)
    kind, service = entry.get("type"), entry.get("service")
    secret: bool | None = None
    if kind is not None or value:
        # A deletion need not say the type; all else is a string unless it says so.
        secret = _TYPES.get(kind if isinstance(kind, str) else "" if kind is not None else "string")
        if secret is None:
            wrong.append(Violation(f"{place}.type", "enum", f"must be one of {', '.join(_TYPES)}", kind))
    if service is not None and service not in SERVICES:
        message = f"must be one of {', '.join(SERVICES)}, or absent for all"
        wrong.append(Violation(f"{place}.service", "enum", message, service))
    most = SECRET_LIMIT if secret else VALUE_LIMIT
    if len(value) > most:
        kind_name = "secretString" if secret else "string"
        message = f"must have at most {most} characters in a {kind_name}, not {len(value)}"
        wrong.append(Violation(f"{place}.value", "size", message, _MASK))
    ignored = name.startswith(_IGNORED_PREFIXES) or name in _IGNORED_NAMES
    return VariableChange(name, service if isinstance(service, str) else "", secret, value, ignored)


def _variable_name(place: str, name: object, wrong: list[Violation]) -> str:
    field = f"{place}.name"
    if not isinstance(name, str):
        wrong.append(Violation(field, "required", "must be a string", name))
        return ""
    if not 2 <= len(name) <= 100:
        wrong.append(Violation(field, "size", "size must be between 2 and 100", name[:200]))
    elif _NAME.fullmatch(name) is None:
        wrong.append(Violation(field, "pattern", f'must match "{NAME_PATTERN}"', printable(name)))
    elif name in _REFUSED_NAMES:
        wrong.append(Violation(field, "reserved", "is reserved: the environment's tunnel sets it", name))
    return name


def _variable_value(place: str, entry: dict[str, object], wrong: list[Violation]) -> str:
    field = f"{place}.value"
    value = entry.get("value")
    if "value" not in entry or value is None:
        wrong.append(Violation(field, "required", 'is required; "" deletes the variable', None))
        return ""
    if not isinstance(value, str):
        # The vendor's command line sends what looks like JSON as JSON; what was typed is meant.
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "\0" in value or printable(value) != value:
        message = "must be text without NUL and without unpaired surrogates"
        wrong.append(Violation(field, "pattern", message, _MASK))
        return ""
    return value


def networking(body: object, mode: Mode) -> tuple[tuple[PortForward, ...], tuple[str, ...]]:
    """Read the body of a PUT of advanced networking: forwards and non-proxy hosts. Raises `Invalid`."""
    if not isinstance(body, dict):
        raise Invalid([Violation(_NETWORKING, "type", "must be an object; {} asks for no rules")])
    document = cast("dict[str, object]", body)
    wrong = [
        Violation(f"{_NETWORKING}.{printable(name)}", "unknown", "is not a field of advanced networking")
        for name in [each[:100] for each in document if each not in _WRITTEN and each not in _READ_ONLY][:20]
    ]
    judged: list[forward_rules.Wrong] = []
    forwards = forward_rules.forwards(*_few(document, "portForwards", FORWARDS_LIMIT, judged), judged)
    hosts = forward_rules.hosts(*_few(document, "nonProxyHosts", HOSTS_LIMIT, judged), judged)
    wrong += [Violation(each.field, each.code, each.message, each.value) for each in judged]
    if hosts and mode is Mode.FLEXIBLE:
        message = "must be empty with flexiblePortEgress: there is no dedicated way out to spare"
        wrong.append(Violation(f"{_NETWORKING}.nonProxyHosts", "mode", message, list(hosts)))
    if wrong:
        raise Invalid(wrong)
    return forwards, hosts


def _few(document: dict[str, object], name: str, most: int, wrong: list[forward_rules.Wrong]) -> tuple[str, object]:
    """Return a list's place and what is to be judged of it: nothing if it is too long, for each entry may be wrong."""
    place = f"{_NETWORKING}.{name}"
    given = document.get(name, [])
    if isinstance(given, list) and len(cast("list[object]", given)) > most:
        count = len(cast("list[object]", given))
        wrong.append(forward_rules.Wrong(place, "size", f"must hold {most} entries at most, not {count}", count))
        return place, []
    return place, given


def advice(forwards: Sequence[PortForward]) -> list[dict[str, object]]:
    """Return what is allowed and advised against in forwards that are in the store."""
    found: list[dict[str, object]] = []
    for index, each in enumerate(forwards):
        if each.port_dest in {80, 443}:
            message = f"HTTP(S) to port {each.port_dest} needs no forward: it leaves without one, or by the HTTP proxy"
            found.append({"field": f"portForwards[{index}].portDest", "message": message})
        if each.port_orig == PORT_ORIG.stop - 1:
            message = "31000 is in the vendor's schema and not in its prose (30000 to 30999): use another port"
            found.append({"field": f"portForwards[{index}].portOrig", "message": message})
    return found


def service_of(body: object) -> str:
    """Read the body of a runtime call: `{"service": "author"}`. Raises `Invalid`."""
    place = "startEnvironmentRuntime.arg2"
    if not isinstance(body, dict):
        raise Invalid([Violation(place, "type", 'must be an object: {"service": "author"}')])
    service = cast("dict[str, object]", body).get("service")
    if not isinstance(service, str) or service not in SERVICES:
        message = f"must be one of {', '.join(SERVICES)}"
        raise Invalid([Violation(f"{place}.service", "enum", message, service)])
    return service
