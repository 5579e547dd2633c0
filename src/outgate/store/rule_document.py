"""What a rule's document says: the vendor's JSON of contexts, resources and operations, read to compile it.

Standards: the vendor's context-based restrictions (attribute names, ids of API types, both spellings of the SMTP one).
Promises: pure; a document without operations is for all APIs.
Dangers: a context that asks for something that nobody can show here (multi-factor login) can never match: it is left
    out of the compiled ones, because a context without conditions would match everybody.
Not here: whether a document is sound (`api.restrictions`), rows (`access`), decisions (`relay.access`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from outgate.model.access import Context

ALL_APIS = "crn:v1:bluemix:public:context-based-restrictions::::api-type:"
CONTROL_PLANE = "crn:v1:bluemix:public:context-based-restrictions::::api-type:control-plane"
SMTP_API = "crn:v1:bluemix:public:event-notifications::::api-type:smtp-configuration"
SMTP_API_DEV = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"
_SMTP = frozenset({ALL_APIS, SMTP_API, SMTP_API_DEV})
_CONTROL = frozenset({ALL_APIS, CONTROL_PLANE})
_SHOWN = frozenset({"networkZoneId", "endpointType"})


def governs_smtp(document: Mapping[str, object]) -> bool:
    """Say whether the SMTP interface is among the rule's APIs, whatever its mode."""
    types = _api_types(document)
    return not types or not _SMTP.isdisjoint(types)


def governs_control(document: Mapping[str, object]) -> bool:
    """Say whether the control plane, which is the REST API of the instance, is among the rule's APIs."""
    types = _api_types(document)
    return not types or not _CONTROL.isdisjoint(types)


def contexts(document: Mapping[str, object]) -> tuple[Context, ...]:
    """Return the contexts that an address and an endpoint can satisfy."""
    compiled: list[Context] = []
    for entry in _entries(document, "contexts"):
        wanted = _attributes(entry)
        found = {name: _listed(wanted, name) for name in wanted}
        # A condition that lists nothing is met by nobody; compiled, it would be one that everybody meets.
        if wanted.keys() <= _SHOWN and all(found.values()):
            compiled.append(Context(found.get("networkZoneId", ()), found.get("endpointType", ())))
    return tuple(compiled)


def beyond_showing(document: Mapping[str, object]) -> tuple[str, ...]:
    """Return the conditions, such as `mfa`, for which contexts were left out; sorted, each once."""
    wanted = {name for entry in _entries(document, "contexts") for name in _attributes(entry)}
    return tuple(sorted(wanted - _SHOWN))


def named_zones(document: Mapping[str, object]) -> frozenset[str]:
    """Return the ids of all zones that the contexts name, also of contexts that cannot match."""
    return frozenset(
        zone for entry in _entries(document, "contexts") for zone in _listed(_attributes(entry), "networkZoneId")
    )


def resource(document: Mapping[str, object]) -> dict[str, str]:
    """Return what the rule protects: `accountId`, `serviceName` and what narrows it."""
    return _attributes(_entries(document, "resources")[0])


def _entries(document: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], document.get(name) or [])


def _attributes(entry: dict[str, Any]) -> dict[str, str]:
    return {attribute["name"]: attribute["value"] for attribute in entry["attributes"]}


def _listed(wanted: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in wanted.get(name, "").split(",") if part.strip())


def _api_types(document: Mapping[str, object]) -> frozenset[str]:
    operations = cast(dict[str, Any], document.get("operations") or {})
    return frozenset(entry["api_type_id"] for entry in operations.get("api_types", ()))
