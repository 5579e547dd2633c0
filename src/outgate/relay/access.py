"""Rules 1 and 4, the network: which addresses any zone welcomes, and which an instance's rules allow.

Standards: the vendor's context-based restrictions (zones, rules, contexts), as design section 5 orders them.
Promises: SMTP is default deny, the control plane is open until a rule restricts it; pure; a table is made from one
snapshot and never changes, so threads may share it; a decision names the rule that made it.
Dangers: a VPC of a zone matches only who came through that VPC's endpoint gateway, a service matches nobody;
    `disabled` grants nothing. An allow-list
    counts as a zone that every enabled rule of its instance names, with a rule of its own where there is none: whom it
    holds is let in, whatever the rules say; whom it does not hold loses nothing by it.
Not here: where zones and rules are kept (`store.access`), what the client is told (`relay.policy`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TypeVar

from outgate.base.clock import rfc3339
from outgate.model.access import AllowList, Rule, Snapshot, Zone
from outgate.relay.explanation import AllowListVerdict, Api, Asked, RuleVerdict, judge, judge_allow_list, judge_zone
from outgate.relay.ranges import EVERYWHERE, NOWHERE, Ip, Ranges, holding
from outgate.store.rule_document import governs_control, governs_smtp

_REMEMBERED = 10_000
_TOLD = 5
ENDPOINTS = ("public", "private")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an address may use an API of an instance. `rule_id` is the rule that decided ("" if none applies).

    `enforced` is False for a rule in report mode: its denial is told and refuses nobody."""

    allowed: bool
    rule_id: str
    reason: str
    enforced: bool = True

    @property
    def verdict(self) -> str:
        """Return the vendor's word for it."""
        return "Permit" if self.allowed else "Deny"


@dataclass(frozen=True, slots=True)
class ApiExplanation:
    """What an address meets at one API of an instance: the decision and every rule that concerns it."""

    decision: Decision
    rules: tuple[RuleVerdict, ...]


@dataclass(frozen=True, slots=True)
class InstanceExplanation:
    """What an address meets at an instance; `allow_list` is None where there is none."""

    instance_id: str
    region: str
    smtp: ApiExplanation
    control: ApiExplanation
    allow_list: AllowListVerdict | None


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A zone, ready to be asked: what it holds less its exclusions, and its VPCs, which these hold for too."""

    version: str
    open: Ranges
    vpcs: frozenset[str]
    excluded: Ranges


@lru_cache(maxsize=4096)
def _parsed(address: str) -> Ip:
    return ipaddress.ip_address(address)


class AccessTable:
    """All zones, rules and allow-lists of one moment, ready to be asked; it is not true any more from `until` on."""

    __slots__ = (
        "_control",
        "_controlled",
        "_decided",
        "_instances",
        "_listed",
        "_networks",
        "_smtp",
        "_snapshot",
        "_welcomed",
        "generation",
        "until",
    )

    def __init__(self, snapshot: Snapshot, former: AccessTable | None = None) -> None:
        """Compile a snapshot: some microseconds for each address of a zone that a rule names, so not on an event loop
        where there are many. What has not changed since the `former` table is taken from it."""
        self.generation = snapshot.generation
        self.until = snapshot.until
        self._snapshot = snapshot
        named = {zone for rule in snapshot.rules for context in rule.contexts for zone in context.zone_ids}
        known = {} if former is None else former._networks
        self._networks = {
            zone.id: known[zone.id] if zone.id in known and known[zone.id].version == zone.version else _compiled(zone)
            for zone in snapshot.zones
            if zone.id in named
        }
        listed = {} if former is None else former._listed
        self._listed = {
            each.instance_id: listed[each.instance_id]
            if each.instance_id in listed and listed[each.instance_id][0].version == each.version
            else (each, holding(each.networks))
            for each in snapshot.allow_lists
            if snapshot.counts(each)
        }
        # By account, as a rule of one is nothing to another.
        self._smtp: dict[str, list[Rule]] = {}
        self._control: dict[str, list[Rule]] = {}
        for rule in snapshot.rules:
            if rule.smtp and rule.enforcement == "enabled":
                self._smtp.setdefault(rule.account_id, []).append(rule)
            if rule.enforcement != "disabled" and governs_control(rule.document):
                self._control.setdefault(rule.account_id, []).append(rule)
        self._instances = {instance: (account, region) for instance, account, region in snapshot.instances}
        # What was asked before: a table never changes, so neither does an answer.
        self._welcomed: dict[tuple[str, str, str], Decision] = {}
        self._decided: dict[tuple[str, str, str, str], Decision] = {}
        self._controlled: dict[tuple[str, str, str, str], tuple[Decision, tuple[Decision, ...]]] = {}

    def welcome(self, address: str, endpoint: str, vpc: str = "") -> Decision:
        """Decide whether some instance lets this address in over SMTP: all that is known at connect.

        `vpc` is the CRN of the VPC whose endpoint gateway it came through, "" if none. The rule is the one that let
        it in; against it, those that refused, as a comma list of a few."""
        key = (address, endpoint, vpc)
        found = self._welcomed.get(key)
        if found is None:
            found = self._welcome(_asked(address, endpoint, vpc))
            _keep(self._welcomed, key, found)
        return found

    def _welcome(self, asked: Asked) -> Decision:
        for instance in self._listed:
            decided = self._by_list(instance, asked)
            if decided is not None:
                return decided
        willing = {account for account, rules in self._smtp.items() if any(self._allows(rule, asked) for rule in rules)}
        refused: dict[str, None] = {}
        for instance, (account, _) in self._instances.items():
            # Where no rule of the account allows, the first that applies refuses: no need to ask each instance.
            if account in willing:
                decided = self._decide(instance, asked)
                if decided.allowed:
                    return Decision(True, decided.rule_id, f"{decided.reason} at some instance")
                refused[decided.rule_id] = None
        for account, rules in self._smtp.items():
            if account not in willing:
                refused.update((rule.id, None) for rule in rules[:_TOLD])
        told = ",".join([rule_id for rule_id in refused if rule_id][:_TOLD])
        return Decision(False, told, f"{asked} is in no instance's zone")

    def decide(self, instance_id: str, address: str, endpoint: str, vpc: str = "") -> Decision:
        """Decide on SMTP for one instance: its allow-list lets in, else every enabled rule that applies must allow, and
        one at least must apply."""
        key = (instance_id, address, endpoint, vpc)
        found = self._decided.get(key)
        if found is None:
            found = self._decide(instance_id, _asked(address, endpoint, vpc))
            _keep(self._decided, key, found)
        return found

    def _decide(self, instance_id: str, asked: Asked) -> Decision:
        decided = self._by_list(instance_id, asked) or self._strictest(
            self._rules_of(self._smtp, instance_id), instance_id, asked
        )
        return decided or Decision(False, "", "no enabled rule covers the SMTP interface of this instance")

    def decide_control(
        self, instance_id: str, address: str, endpoint: str, vpc: str = ""
    ) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide on the REST API of one instance: every enabled rule that applies must allow; without one it is open.

        Return that decision, and those of the rules in report mode. Text that is no address is in no zone."""
        key = (instance_id, address, endpoint, vpc)
        found = self._controlled.get(key)
        if found is None:
            found = self._decide_control(instance_id, address, endpoint, vpc)
            _keep(self._controlled, key, found)
        return found

    def _decide_control(
        self, instance_id: str, address: str, endpoint: str, vpc: str
    ) -> tuple[Decision, tuple[Decision, ...]]:
        try:
            asked = _asked(address, endpoint, vpc)
        except ValueError:
            asked = Asked(None, address, endpoint, vpc)
        rules = self._rules_of(self._control, instance_id)
        enabled = [rule for rule in rules if rule.enforcement == "enabled"]
        decided = self._strictest(enabled, instance_id, asked)
        account, region = self._instances.get(instance_id, ("", ""))
        reported = tuple(
            self._by_rule(rule, asked)
            for rule in rules
            if rule.enforcement == "report" and _applies(rule, instance_id, account, region)
        )
        return decided or Decision(True, "", "no enabled rule restricts the control plane of this instance"), reported

    def _strictest(self, rules: Sequence[Rule], instance_id: str, asked: Asked) -> Decision | None:
        """Return the first denial among the rules that apply, else the last permission, else None."""
        account, region = self._instances.get(instance_id, ("", ""))
        decided = None
        for rule in rules:
            if _applies(rule, instance_id, account, region):
                decided = self._by_rule(rule, asked)
                if not decided.allowed:
                    break
        return decided

    def _by_list(self, instance_id: str, asked: Asked) -> Decision | None:
        """Return the permission of an instance's allow-list if it holds the address."""
        found = self._listed.get(instance_id)
        if found is None or asked.at is None or asked.at not in found[1]:
            return None
        until = rfc3339(found[0].ends_at)
        return Decision(True, "", f"the allow-list of instance {instance_id} holds {asked.address} until {until}")

    def _rules_of(self, by_account: dict[str, list[Rule]], instance_id: str) -> Sequence[Rule]:
        account, _ = self._instances.get(instance_id, ("", ""))
        return by_account.get(account, ())

    def _by_rule(self, rule: Rule, asked: Asked) -> Decision:
        allowed = self._allows(rule, asked)
        said = "allows" if allowed else "has no context for"
        return Decision(allowed, rule.id, f"rule {rule.id} {said} {asked}", rule.enforcement == "enabled")

    def _allows(self, rule: Rule, asked: Asked) -> bool:
        for context in rule.contexts:
            if context.endpoint_types and asked.endpoint not in context.endpoint_types:
                continue
            if not context.zone_ids:
                return True
            if asked.at is not None and any(self._holds(zone, asked.at, asked.vpc) for zone in context.zone_ids):
                return True
        return False

    def _holds(self, zone_id: str, at: Ip, vpc: str) -> bool:
        zone = self._networks.get(zone_id)
        if zone is None:
            return False
        return at in zone.open or (vpc in zone.vpcs and at not in zone.excluded)

    @property
    def allow_lists(self) -> tuple[AllowList, ...]:
        """Return every allow-list, ended ones too."""
        return self._snapshot.allow_lists

    def subnets(self, instance_id: str) -> tuple[list[str], float]:
        """Return `effective_subnets` of this moment."""
        return effective_subnets(self._snapshot, instance_id)

    def explain(
        self, account_id: str, address: str, endpoint: str, instance_id: str = "", vpc: str = ""
    ) -> tuple[InstanceExplanation, ...]:
        """Explain what an address meets at each instance of an account, or at one. Raises `ValueError`: no address."""
        asked = _asked(address, endpoint, vpc)
        lists = {each.instance_id: each for each in self._snapshot.allow_lists}
        zones = {zone.id: judge_zone(zone, asked) for zone in self._snapshot.zones if zone.account_id == account_id}

        def judged(instance: str, region: str, api: Api) -> tuple[RuleVerdict, ...]:
            governs = governs_smtp if api == "smtp" else governs_control
            return tuple(
                judge(rule, zones, asked, api)
                for rule in self._snapshot.rules
                if _applies(rule, instance, account_id, region) and governs(rule.document)
            )

        def explained(instance: str, region: str) -> InstanceExplanation:
            control, _ = self.decide_control(instance, address, endpoint, vpc)
            listed = lists.get(instance)
            return InstanceExplanation(
                instance,
                region,
                ApiExplanation(self.decide(instance, address, endpoint, vpc), judged(instance, region, "smtp")),
                ApiExplanation(control, judged(instance, region, "control-plane")),
                None if listed is None else judge_allow_list(listed, asked, counts=self._snapshot.counts(listed)),
            )

        return tuple(
            explained(instance, region)
            for instance, account, region in self._snapshot.instances
            if account == account_id and instance_id in ("", instance)
        )


def effective_subnets(snapshot: Snapshot, instance_id: str) -> tuple[list[str], float]:
    """Return the networks from which SMTP lets anybody in to an instance over some endpoint, the fewest that say it,
    and when a zone, rule or allow-list that concerns it last changed (seconds since 1970, 0.0 if there is none).

    By address alone: what only who comes through a VPC's gateway may do is not in it."""
    account, region = next(((a, r) for instance, a, r in snapshot.instances if instance == instance_id), ("", ""))
    concerned = [
        rule for rule in snapshot.rules if _applies(rule, instance_id, account, region) and governs_smtp(rule.document)
    ]
    counting = [rule for rule in concerned if rule.smtp and rule.enforcement == "enabled"]
    named = {zone for rule in concerned for context in rule.contexts for zone in context.zone_ids}
    zones = {zone.id: zone for zone in snapshot.zones if zone.id in named}
    networks = {zone.id: holding(zone.addresses) - holding(zone.excluded) for zone in zones.values()}
    open_to = NOWHERE
    # Judged per endpoint: two rules that allow an address over different endpoints let it in over neither.
    for endpoint in ENDPOINTS if counting else ():
        granted = (_granted(rule, networks, endpoint) for rule in counting)
        open_to |= reduce(lambda one, other: one & other, granted, EVERYWHERE)
    changed = [subject.updated_at for subject in (*concerned, *zones.values())]
    for listed in (each for each in snapshot.allow_lists if each.instance_id == instance_id):
        if snapshot.counts(listed):
            open_to |= holding(listed.networks)
        # One that has ended changed who gets in by that.
        changed.append(listed.updated_at if snapshot.counts(listed) else max(listed.updated_at, listed.ends_at))
    return open_to.networks(), max(changed, default=0.0)


def _granted(rule: Rule, networks: dict[str, Ranges], endpoint: str) -> Ranges:
    granted = NOWHERE
    for context in rule.contexts:
        if context.endpoint_types and endpoint not in context.endpoint_types:
            continue
        if not context.zone_ids:
            return EVERYWHERE
        for zone in context.zone_ids:
            granted |= networks.get(zone, NOWHERE)
    return granted


def _compiled(zone: Zone) -> _Compiled:
    excluded = holding(zone.excluded)
    vpcs = frozenset(entry.value for entry in zone.addresses if entry.type == "vpc" and entry.value)
    return _Compiled(zone.version, holding(zone.addresses) - excluded, vpcs, excluded)


def _asked(address: str, endpoint: str, vpc: str) -> Asked:
    return Asked(_parsed(address), address, endpoint, vpc)


def _applies(rule: Rule, instance_id: str, account: str, region: str) -> bool:
    return rule.account_id == account and rule.instance_id in ("", instance_id) and rule.region in ("", region)


def _keep(remembered: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(remembered) >= _REMEMBERED:
        remembered.clear()
    remembered[key] = value
