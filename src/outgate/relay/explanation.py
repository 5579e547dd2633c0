"""Why an address may or may not use an instance: each rule that concerns it, judged part by part, in words.

Standards: the vendor's context-based restrictions, as design section 5 orders them.
Promises: pure; says of each rule what it lacks, so that somebody can go and change it; what it says of a rule agrees
    with what `relay.access` decides by it.
Dangers: it tells which zones there are: for the account's own people only, never for the client that was refused.
Not here: the decision (`relay.access`), JSON (`api.restrictions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from outgate.base.clock import rfc3339
from outgate.model.access import AllowList, Context, Rule, Zone
from outgate.relay.ranges import Ip, holding
from outgate.store.rule_document import beyond_showing

Api = Literal["smtp", "control-plane"]
_BY_ADDRESS = frozenset({"ipAddress", "ipRange", "subnet"})


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants in: an address (`at` is None for text that is none), the endpoint it dials, and the CRN of the VPC
    whose endpoint gateway it comes through ("" if none)."""

    at: Ip | None
    address: str
    endpoint: str
    vpc: str = ""

    def __str__(self) -> str:
        return f"{self.address} ({self.endpoint}, {self.vpc})" if self.vpc else f"{self.address} ({self.endpoint})"


@dataclass(frozen=True, slots=True)
class ZoneVerdict:
    """What a zone makes of an address: `holds` is without, `excludes` by its exclusions; a VPC of it holds whoever
    comes through that VPC's gateway.

    `unseen` counts the entries (serviceRef, …; vpc for who came through no gateway) that nothing known of a
    connection can show to be met."""

    zone_id: str
    name: str
    holds: bool
    excludes: bool
    unseen: int


@dataclass(frozen=True, slots=True)
class AllowListVerdict:
    """What an instance's allow-list makes of an address: it lets in whom it `holds`, unless it has `ended`."""

    ends_at: float
    holds: bool
    ended: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextVerdict:
    """Whether a context allows; if not, `missing` says why. Empty `endpoint_types` are all."""

    allows: bool
    endpoint_types: tuple[str, ...]
    zones: tuple[ZoneVerdict, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """Whether a rule allows, and whether that counts (`enforced`); if one of both fails, `missing` says why."""

    rule_id: str
    description: str
    enforcement: str
    allows: bool
    enforced: bool
    contexts: tuple[ContextVerdict, ...]
    missing: tuple[str, ...]


def judge_zone(zone: Zone, asked: Asked) -> ZoneVerdict:
    """Judge a zone: for `judge`, which many rules may ask the same zone of."""
    seen = _BY_ADDRESS | {"vpc"} if asked.vpc else _BY_ADDRESS
    through = bool(asked.vpc) and any(entry.type == "vpc" and entry.value == asked.vpc for entry in zone.addresses)
    return ZoneVerdict(
        zone.id,
        zone.name,
        through or (asked.at is not None and asked.at in holding(zone.addresses)),
        asked.at is not None and asked.at in holding(zone.excluded),
        sum(entry.type not in seen for entry in zone.addresses),
    )


def judge_allow_list(allow_list: AllowList, asked: Asked, *, counts: bool) -> AllowListVerdict:
    """Judge the allow-list of an instance, which `counts` until it ends."""
    holds = asked.at is not None and asked.at in holding(allow_list.networks)
    missing: list[str] = []
    if not counts:
        missing.append(f"the allow-list ended at {rfc3339(allow_list.ends_at)}: it grants nothing")
    if not holds:
        missing.append(f"the allow-list does not hold {asked.address}")
    return AllowListVerdict(allow_list.ends_at, holds, not counts, tuple(missing))


def judge(rule: Rule, zones: Mapping[str, ZoneVerdict], asked: Asked, api: Api) -> RuleVerdict:
    """Judge a rule that concerns an API of an instance, as it would be if it were enabled."""
    contexts = tuple(_context(context, zones, asked) for context in rule.contexts)
    allows = any(context.allows for context in contexts)
    missing: list[str] = []
    if rule.enforcement == "disabled":
        missing.append("the rule is disabled: it neither grants nor refuses anything")
    elif rule.enforcement == "report" and api == "smtp":
        missing.append("the rule is in report mode, which the SMTP interface does not have: it counts as none there")
    elif rule.enforcement == "report":
        missing.append("the rule is in report mode: its verdict is logged and refuses nobody")
    beyond = beyond_showing(rule.document)
    if not allows and beyond:
        missing.append(f"a context asks for {', '.join(beyond)}, which nobody can show here: it never matches")
    if not allows and not contexts:
        missing.append("the rule has no context that an address could match: it allows nobody")
    elif not allows:
        missing.append(f"no context allows {asked.address} over the {asked.endpoint} endpoint")
    return RuleVerdict(
        rule.id, rule.description, rule.enforcement, allows, rule.enforcement == "enabled", contexts, tuple(missing)
    )


def _context(context: Context, zones: Mapping[str, ZoneVerdict], asked: Asked) -> ContextVerdict:
    judged = tuple(zones[zone_id] for zone_id in context.zone_ids if zone_id in zones)
    missing: list[str] = []
    if context.endpoint_types and asked.endpoint not in context.endpoint_types:
        missing.append(f"the endpoint type is {asked.endpoint}, not {' or '.join(context.endpoint_types)}")
    if context.zone_ids and not any(zone.holds and not zone.excludes for zone in judged):
        missing += [_absent(zone, asked) for zone in judged] or ["its zones are not there any more"]
    return ContextVerdict(not missing, context.endpoint_types, judged, tuple(missing))


def _absent(zone: ZoneVerdict, asked: Asked) -> str:
    if zone.holds:
        return f"zone {zone.name!r} excludes {asked.address}"
    absent = f"zone {zone.name!r} does not hold {asked.address}" + (f", nor {asked.vpc}" if asked.vpc else "")
    if zone.unseen:
        by = "address or VPC" if asked.vpc else "address"
        return f"{absent}; {zone.unseen} of its entries are not matched by {by}"
    return absent
