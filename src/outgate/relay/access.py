"""Rules 1 and 4, the network: which addresses any zone welcomes, and which an instance's rules allow.

Standards: the vendor's context-based restrictions (zones, rules, contexts), as design section 5 orders them.
Promises: default deny; pure; a table is made from one snapshot and never changes; a decision names the rule
that made it.
Dangers: a zone that names a VPC or a service matches nobody by address alone; `disabled` grants nothing.
Not here: where zones and rules are kept (`store.access`), what the client is told (`relay.policy`).
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from outgate.model.access import Address, Context, Rule, Snapshot, Zone

_REMEMBERED = 10_000
_Ranges = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an address may use an instance. `rule_id` is the rule that decided ("" if none applies)."""

    allowed: bool
    rule_id: str
    reason: str


@lru_cache(maxsize=4096)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address)


class _Network:
    """A zone compiled: sorted, merged ranges of integers per IP version, exclusions taken out by a second set."""

    __slots__ = ("_excluded", "_included")

    def __init__(self, zone: Zone) -> None:
        self._included = {version: _merge(zone.addresses, version) for version in (4, 6)}
        self._excluded = {version: _merge(zone.excluded, version) for version in (4, 6)}

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        number, version = int(address), address.version
        return _within(self._included[version], number) and not _within(self._excluded[version], number)


def _merge(addresses: tuple[Address, ...], version: int) -> _Ranges:
    ranges = sorted(r for r in (_range(address, version) for address in addresses) if r is not None)
    starts: list[int] = []
    ends: list[int] = []
    for first, last in ranges:
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return tuple(starts), tuple(ends)


def _range(address: Address, version: int) -> tuple[int, int] | None:
    if address.type == "ipRange":
        first, _, last = address.value.partition("-")
        low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        return (int(low), int(high)) if low.version == version else None
    if address.type in ("ipAddress", "subnet"):
        network = ipaddress.ip_network(address.value, strict=False)
        if network.version == version:
            return int(network.network_address), int(network.broadcast_address)
    return None


def _within(ranges: _Ranges, number: int) -> bool:
    starts, ends = ranges
    at = bisect_right(starts, number) - 1
    return at >= 0 and number <= ends[at]


class AccessTable:
    """All zones and rules of one moment, ready to be asked."""

    __slots__ = ("_decided", "_instances", "_networks", "_rules", "_welcomed", "generation")

    def __init__(self, snapshot: Snapshot) -> None:
        self.generation = snapshot.generation
        self._networks = {zone.id: _Network(zone) for zone in snapshot.zones}
        self._rules = tuple(rule for rule in snapshot.rules if rule.smtp)
        self._instances = {instance: (account, region) for instance, account, region in snapshot.instances}
        # What was asked before: a table never changes, so neither does an answer.
        self._welcomed: dict[tuple[str, str], bool] = {}
        self._decided: dict[tuple[str, str, str], Decision] = {}

    def welcome(self, address: str, endpoint: str) -> bool:
        """Say whether some instance would let this address in: all that is known at connect."""
        key = (address, endpoint)
        if key not in self._welcomed:
            if len(self._welcomed) >= _REMEMBERED:
                self._welcomed.clear()
            self._welcomed[key] = self._welcome(address, endpoint)
        return self._welcomed[key]

    def _welcome(self, address: str, endpoint: str) -> bool:
        at = _parsed(address)
        if not any(
            rule.enforcement == "enabled" and self._allows(rule, at, endpoint) is not None for rule in self._rules
        ):
            return False
        return any(self._decide(instance, address, endpoint).allowed for instance in self._instances)

    def decide(self, instance_id: str, address: str, endpoint: str) -> Decision:
        """Decide for one instance: every enabled rule that applies must allow, and one at least must apply."""
        key = (instance_id, address, endpoint)
        if key not in self._decided:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            self._decided[key] = self._decide(instance_id, address, endpoint)
        return self._decided[key]

    def _decide(self, instance_id: str, address: str, endpoint: str) -> Decision:
        account, region = self._instances.get(instance_id, ("", ""))
        at = _parsed(address)
        last = ""
        for rule in self._rules:
            if rule.enforcement != "enabled" or not _applies(rule, instance_id, account, region):
                continue
            last = rule.id
            if self._allows(rule, at, endpoint) is None:
                return Decision(False, rule.id, f"rule {rule.id} has no context for {address} ({endpoint})")
        if not last:
            return Decision(False, "", "no enabled rule covers the SMTP interface of this instance")
        return Decision(True, last, f"rule {last} allows {address} ({endpoint})")

    def _allows(
        self, rule: Rule, address: ipaddress.IPv4Address | ipaddress.IPv6Address, endpoint: str
    ) -> Context | None:
        for context in rule.contexts:
            if context.endpoint_types and endpoint not in context.endpoint_types:
                continue
            if not context.zone_ids or any(
                address in self._networks[zone] for zone in context.zone_ids if zone in self._networks
            ):
                return context
        return None


def _applies(rule: Rule, instance_id: str, account: str, region: str) -> bool:
    return rule.account_id == account and rule.instance_id in ("", instance_id) and rule.region in ("", region)
