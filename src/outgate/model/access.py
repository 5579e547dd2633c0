"""Who may connect: network zones, rules and the contexts they name, and the legacy allow-list of an instance.

Standards: the vendor's context-based restrictions in our own words.
Promises: immutable; evaluation is in `relay.access`, vendor spelling in `api.restrictions`.
Dangers: `enforcement` "disabled" grants nothing; without a rule nobody gets in.
Not here: JSON, ETags, paging.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Address:
    """One entry of a zone. `type` is ipAddress, ipRange, subnet, vpc or serviceRef; `value` as given."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Zone:
    """A named set of addresses less its exclusions. `version` changes with each replacement (ETag)."""

    id: str
    account_id: str
    name: str
    description: str
    addresses: tuple[Address, ...]
    excluded: tuple[Address, ...]
    version: str
    created_at: float
    updated_at: float
    created_by: str
    updated_by: str


@dataclass(frozen=True, slots=True)
class Context:
    """One way to satisfy a rule: all of it must match. Empty `zone_ids` or `endpoint_types` match anything."""

    zone_ids: tuple[str, ...]
    endpoint_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Contexts that open an API of an instance. `instance_id` and `region` "" mean any of the account's.

    `api_types` empty means all APIs; `smtp` tells whether the SMTP interface is among them.
    `document` is the vendor's JSON as received (contexts, resources, operations), kept to answer with."""

    id: str
    account_id: str
    description: str
    contexts: tuple[Context, ...]
    instance_id: str
    region: str
    smtp: bool
    enforcement: str
    document: dict[str, object]
    version: str
    created_at: float
    updated_at: float
    created_by: str
    updated_by: str


@dataclass(frozen=True, slots=True)
class AllowList:
    """Networks that SMTP lets in to one instance, over any endpoint, beside its rules and before `ends_at`."""

    instance_id: str
    networks: tuple[Address, ...]
    ends_at: float
    note: str
    version: str
    created_at: float
    updated_at: float
    created_by: str
    updated_by: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All zones, rules and allow-lists at one moment, `taken_at`; `generation` grows with every change."""

    generation: int
    zones: tuple[Zone, ...]
    rules: tuple[Rule, ...]
    instances: tuple[tuple[str, str, str], ...]
    """(instance id, account id, region) of every instance."""
    allow_lists: tuple[AllowList, ...] = ()
    """Those that have ended too: when they did is when access last changed."""
    taken_at: float = 0.0

    @property
    def until(self) -> float:
        """Return when the next allow-list ends: from then on it is not true any more, though no row changes."""
        return min((each.ends_at for each in self.allow_lists if self.counts(each)), default=inf)

    def counts(self, allow_list: AllowList) -> bool:
        """Say whether an allow-list had not ended at this moment."""
        return allow_list.ends_at > self.taken_at
