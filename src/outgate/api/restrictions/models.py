"""The shapes of what the restrictions API answers, and an example of each.

Standards: the vendor's published models; the explanation is ours.
Promises: every field that is answered is named here, and no other.
Dangers: these describe; what an answer holds is decided where it is made (`zones`, `rules`, `catalogue`, `explain`).
Not here: what a request may hold (`zones`, `rules`, `addresses`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from outgate.api.openapi import Shown, Time
from outgate.store.rule_document import SMTP_API_DEV

AddressType = Literal["ipAddress", "ipRange", "subnet", "vpc", "instance", "serviceRef"]
Mode = Literal["enabled", "disabled", "report"]


class ServiceRef(Shown):
    """The service that an address means."""

    account_id: str
    service_type: str | None = None
    service_name: str | None = None
    service_instance: str | None = None
    location: str | None = None


class Address(Shown):
    """One entry of a zone: a `value`, or a `ref` for a serviceRef."""

    type: AddressType
    value: str | None = None
    ref: ServiceRef | None = None


class _Audited(Shown):
    href: str
    created_at: Time
    created_by_id: str
    last_modified_at: Time
    last_modified_by_id: str


class _Zone(_Audited):
    id: str
    crn: str
    name: str
    description: str
    address_count: int
    excluded_count: int


class Zone(_Zone):
    """A network zone."""

    account_id: str
    addresses: list[Address]
    excluded: list[Address]


class ZoneSummary(_Zone):
    """A zone as lists show it: with its first three addresses."""

    addresses_preview: list[Address]


class ZoneList(Shown):
    """All zones that were asked for."""

    count: int
    zones: list[ZoneSummary]


class ContextAttribute(Shown):
    """A condition: networkZoneId (one or a comma list), endpointType or mfa."""

    name: Literal["networkZoneId", "endpointType", "mfa"]
    value: str


class RuleContext(Shown):
    """One way to satisfy a rule: all of its conditions."""

    attributes: list[ContextAttribute]


class RuleResourceAttribute(Shown):
    """What a rule protects, one attribute of it."""

    name: Literal["accountId", "serviceName", "serviceInstance", "region"]
    value: str
    operator: Literal["stringEquals", "equals"] | None = None


class RuleResource(Shown):
    """What a rule protects."""

    attributes: list[RuleResourceAttribute]
    tags: list[str] = Field(default_factory=list[str])


class RuleApiType(Shown):
    """An API by its id."""

    api_type_id: str


class RuleOperations(Shown):
    """The APIs that a rule is for."""

    api_types: list[RuleApiType]


class Rule(_Audited):
    """A rule; without `operations` it is for all APIs."""

    id: str
    crn: str
    description: str
    contexts: list[RuleContext]
    resources: list[RuleResource]
    operations: RuleOperations | None = None
    enforcement_mode: Mode


class RuleList(Shown):
    """All rules that were asked for."""

    count: int
    rules: list[Rule]


class AllowList(_Audited):
    """The legacy allow-list of an instance; `warning` says what to do from 14 days before its end ("" until then)."""

    instance_id: str
    networks: list[str]
    ends_at: Time
    ends_in_days: int
    ended: bool
    warning: str
    note: str


class AllowListList(Shown):
    """All allow-lists of the account."""

    count: int
    allow_lists: list[AllowList]


class AccountSettings(_Audited):
    """An account's limits and how much of them it uses."""

    id: str
    crn: str
    rule_count_limit: int
    zone_count_limit: int
    tags_rule_count_limit: int
    current_rule_count: int
    current_zone_count: int
    current_tags_rule_count: int


class Action(Shown):
    """An action that belongs to an API."""

    action_id: str
    description: str


class AvailableApi(Shown):
    """An API that rules can be for."""

    api_type_id: str
    display_name: str
    description: str
    type: str
    actions: list[Action]
    enforcement_modes: list[Mode]


class OperationsList(Shown):
    """All APIs that rules can be for."""

    api_types: list[AvailableApi]


class Location(Shown):
    """Where a service is."""

    name: str
    display_name: str | None = None
    kind: str | None = None


class ServiceRefTarget(Shown):
    """A service that a zone can name."""

    service_name: str
    service_type: str | None = None
    display_name: str | None = None
    locations: list[Location] | None = None


class ServiceRefTargetList(Shown):
    """All services that a zone can name."""

    count: int
    targets: list[ServiceRefTarget]


class ExplainedZone(Shown):
    """What a zone makes of the address; `unseen` counts its entries that are not matched by address."""

    zone_id: str
    name: str
    holds: bool
    excludes: bool
    unseen: int


class ExplainedContext(Shown):
    """Whether a context allows, and what it lacks; no `endpoint_types` are all."""

    allows: bool
    endpoint_types: list[str]
    zones: list[ExplainedZone]
    missing: list[str]


class ExplainedRule(Shown):
    """Whether a rule allows, whether that counts, and what is missing."""

    rule_id: str
    description: str
    enforcement_mode: Mode
    allows: bool
    enforced: bool
    contexts: list[ExplainedContext]
    missing: list[str]


class ExplainedApi(Shown):
    """The decision, the rule that made it ("" if none did), why, and what would change it ("" if it is Permit)."""

    decision: Literal["Permit", "Deny"]
    rule_id: str
    reason: str
    remedy: str
    rules: list[ExplainedRule]


class ExplainedAllowList(Shown):
    """What the instance's allow-list makes of the address: it lets in whom it holds until it has ended."""

    ends_at: Time
    ended: bool
    holds: bool
    missing: list[str]


class ExplainedInstance(Shown):
    """What the address meets at one instance: over SMTP, and at its REST API (the control plane)."""

    instance_id: str
    region: str
    smtp: ExplainedApi
    control_plane: ExplainedApi
    allow_list: ExplainedAllowList | None


class Explanation(Shown):
    """What an address meets at the instances of an account, as the rules are now; `vpc` is "" for no gateway."""

    account_id: str
    address: str
    endpoint_type: Literal["public", "private"]
    vpc: str
    instances: list[ExplainedInstance]


_ACCOUNT = "abd0df10f1c24c6a9d5b4bd1d4b5b7f9"
_ZONE = "65810ac762004f22ac19f8f8edf70a34"
_RULE = "30fd58c9b75f40e854b89c432318b4a2"
_INSTANCE = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
_SUBNET: dict[str, object] = {"type": "subnet", "value": "192.0.2.0/24"}
_BASE = "https://mail.example.com/context-based-restrictions/v1"


def _audited(path: str) -> dict[str, object]:
    return {
        "href": f"{_BASE}/{path}",
        "created_at": "2026-11-21T07:03:00.000Z",
        "created_by_id": "iam-5f0c",
        "last_modified_at": "2026-11-21T07:03:00.000Z",
        "last_modified_by_id": "iam-5f0c",
    }


_ZONE_BASE: dict[str, object] = {
    "id": _ZONE,
    "crn": f"crn:v1:bluemix:public:context-based-restrictions:global:a/{_ACCOUNT}::zone:{_ZONE}",
    "name": "office",
    "description": "where we work",
    "address_count": 1,
    "excluded_count": 1,
    **_audited(f"zones/{_ZONE}"),
}
NEW_ZONE: dict[str, object] = {
    "name": "office",
    "account_id": _ACCOUNT,
    "description": "where we work",
    "addresses": [_SUBNET],
    "excluded": [{"type": "ipAddress", "value": "192.0.2.66"}],
}
ZONE: dict[str, object] = {
    **_ZONE_BASE,
    "account_id": _ACCOUNT,
    "addresses": [_SUBNET],
    "excluded": [{"type": "ipAddress", "value": "192.0.2.66"}],
}
ZONES: dict[str, object] = {"count": 1, "zones": [{**_ZONE_BASE, "addresses_preview": [_SUBNET]}]}
NEW_RULE: dict[str, object] = {
    "description": "the office may send",
    "contexts": [
        {
            "attributes": [
                {"name": "networkZoneId", "value": _ZONE},
                {"name": "endpointType", "value": "public"},
            ]
        }
    ],
    "resources": [
        {
            "attributes": [
                {"name": "accountId", "value": _ACCOUNT},
                {"name": "serviceName", "value": "event-notifications"},
                {"name": "serviceInstance", "value": _INSTANCE},
            ],
            "tags": [],
        }
    ],
    "operations": {"api_types": [{"api_type_id": SMTP_API_DEV}]},
    "enforcement_mode": "enabled",
}
RULE: dict[str, object] = {
    "id": _RULE,
    "crn": f"crn:v1:bluemix:public:context-based-restrictions:global:a/{_ACCOUNT}::rule:{_RULE}",
    **NEW_RULE,
    **_audited(f"rules/{_RULE}"),
}
RULES: dict[str, object] = {"count": 1, "rules": [RULE]}
NEW_ALLOW_LIST: dict[str, object] = {
    "networks": ["192.0.2.0/24", "198.51.100.7", "2001:db8::1-2001:db8::9"],
    "ends_at": "2027-01-31T00:00:00Z",
    "note": "until the office has its zone",
}
ALLOW_LIST: dict[str, object] = {
    "instance_id": _INSTANCE,
    **NEW_ALLOW_LIST,
    "ends_in_days": 71,
    "ended": False,
    "warning": "",
    **_audited(f"allow_lists/{_INSTANCE}"),
}
ALLOW_LISTS: dict[str, object] = {"count": 1, "allow_lists": [ALLOW_LIST]}
SETTINGS: dict[str, object] = {
    "id": _ACCOUNT,
    "crn": f"crn:v1:bluemix:public:context-based-restrictions:global:a/{_ACCOUNT}::account_settings:{_ACCOUNT}",
    "rule_count_limit": 4020,
    "zone_count_limit": 500,
    "tags_rule_count_limit": 0,
    "current_rule_count": 1,
    "current_zone_count": 1,
    "current_tags_rule_count": 0,
    **_audited(f"account_settings/{_ACCOUNT}"),
}
EXPLANATION: dict[str, object] = {
    "account_id": _ACCOUNT,
    "address": "192.0.2.66",
    "endpoint_type": "public",
    "vpc": "",
    "instances": [
        {
            "instance_id": _INSTANCE,
            "region": "eu-de",
            "smtp": {
                "decision": "Deny",
                "rule_id": _RULE,
                "reason": f"rule {_RULE} has no context for 192.0.2.66 (public)",
                "remedy": f"have rule {_RULE} name a zone that holds 192.0.2.66 for the public endpoint",
                "rules": [
                    {
                        "rule_id": _RULE,
                        "description": "the office may send",
                        "enforcement_mode": "enabled",
                        "allows": False,
                        "enforced": True,
                        "contexts": [
                            {
                                "allows": False,
                                "endpoint_types": ["public"],
                                "zones": [
                                    {"zone_id": _ZONE, "name": "office", "holds": True, "excludes": True, "unseen": 0}
                                ],
                                "missing": ["zone 'office' excludes 192.0.2.66"],
                            }
                        ],
                        "missing": ["no context allows 192.0.2.66 over the public endpoint"],
                    }
                ],
            },
            "control_plane": {
                "decision": "Permit",
                "rule_id": "",
                "reason": "no enabled rule restricts the control plane of this instance",
                "remedy": "",
                "rules": [],
            },
            "allow_list": {
                "ends_at": "2026-11-01T00:00:00Z",
                "ended": True,
                "holds": True,
                "missing": ["the allow-list ended at 2026-11-01T00:00:00Z: it grants nothing"],
            },
        }
    ],
}
