"""Network zones and rules in the control database, and the snapshot that the relay decides by.

Standards: RFC 9110 (If-Match: a version is compared in the transaction that changes the row).
Promises: every method is one transaction; a snapshot is of one moment and says until when it is true; names of zones
    are unique per account; a rule names zones that exist, with 1000 addresses at most in all, also after a zone is
    replaced or deleted.
Not here: validation and ETags on the wire (`api.restrictions`), what a rule's document says (`rule_document`),
    changes of allow-lists (`allow_lists`), decisions (`relay.access`).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import Connection, Row, String, delete, func, insert, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.exc import IntegrityError

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.access import Address, Rule, Snapshot, Zone
from outgate.store import rule_document
from outgate.store.allow_lists import all_allow_lists
from outgate.store.database import ACCESS, Database
from outgate.store.rule_document import ALL_APIS, CONTROL_PLANE, SMTP_API, SMTP_API_DEV
from outgate.store.tables import accounts, instances, rules, zones
from outgate.store.tenancy_rows import Changed, Conflict, NotThere, TooMany

__all__ = [
    "ALL_APIS",
    "CONTROL_PLANE",
    "MOST_ADDRESSES",
    "MOST_RULES",
    "MOST_ZONES",
    "SMTP_API",
    "SMTP_API_DEV",
    "AccessQueries",
    "Changed",
    "InUse",
    "NoZone",
    "TooManyAddresses",
    "Usage",
]

MOST_ZONES = 500
MOST_RULES = 4020
MOST_ADDRESSES = 1000


class InUse(Exception):
    """Rules name the zone; `rule_ids` are theirs, oldest first."""

    def __init__(self, zone_id: str, rule_ids: tuple[str, ...]) -> None:
        super().__init__(f"zone {zone_id} is named by {len(rule_ids)} rules")
        self.rule_ids = rule_ids


class NoZone(LookupError):
    """A rule names a zone that its account does not have; `zone_id` as given."""

    def __init__(self, zone_id: str) -> None:
        super().__init__(f"there is no zone {zone_id[:64]!r}")
        self.zone_id = zone_id


class TooManyAddresses(TooMany):
    """The zones of a rule would have more than 1000 addresses; `rule_id` is "" for one that is being made."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"the zones of a rule have at most {MOST_ADDRESSES} addresses in all")
        self.rule_id = rule_id


@dataclass(frozen=True, slots=True)
class Usage:
    """How many zones and rules an account has, and since when there is the account."""

    zones: int
    rules: int
    created_at: float


class AccessQueries:
    """Read and change zones and rules. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_zone(
        self,
        account_id: str,
        *,
        name: str,
        description: str,
        addresses: tuple[Address, ...],
        excluded: tuple[Address, ...],
        by: str,
    ) -> Zone:
        """Make a zone. Raises `Conflict` (field "name"), `TooMany` (500 zones)."""
        now = self._clock.now()
        zone = Zone(
            ids.hex_id(),
            account_id,
            name,
            description,
            addresses,
            excluded,
            ids.hex_id(),
            now,
            now,
            by,
            by,
        )
        try:
            with self._database.writing(access=True) as connection:
                mine = zones.c.account_id == account_id
                if (connection.scalar(select(func.count()).select_from(zones).where(mine)) or 0) >= MOST_ZONES:
                    raise TooMany(f"an account has at most {MOST_ZONES} zones: delete one first")
                connection.execute(insert(zones).values(**_zone_values(zone)))
        except IntegrityError as error:
            raise Conflict("name", f"the account has a zone named {name!r} already") from error
        return zone

    def zone(self, account_id: str, zone_id: str) -> Zone | None:
        """Return a zone of an account, or None."""
        with self._database.reading() as connection:
            row = _find_zone(connection, account_id, zone_id)
            return None if row is None else _zone_of(row)

    def zones(self, account_id: str, *, name: str | None = None) -> tuple[Zone, ...]:
        """Return an account's zones, oldest first; only the one of that name if given."""
        query = select(zones).where(zones.c.account_id == account_id).order_by(zones.c.created_at, zones.c.id)
        if name is not None:
            query = query.where(zones.c.name == name)
        with self._database.reading() as connection:
            return tuple(_zone_of(row) for row in connection.execute(query))

    def replace_zone(
        self,
        account_id: str,
        zone_id: str,
        *,
        expected: Set[str] | None,
        name: str,
        description: str,
        addresses: tuple[Address, ...],
        excluded: tuple[Address, ...],
        by: str,
    ) -> Zone:
        """Replace all of a zone if its version is one of `expected` (None: any).

        Raises `NotThere`, `Changed`, `Conflict` (field "name"), `TooManyAddresses` (a rule that names it).
        """
        try:
            with self._database.writing(access=True) as connection:
                row = _current(_find_zone(connection, account_id, zone_id), f"zone {zone_id}", expected)
                zone = replace(
                    _zone_of(row),
                    name=name,
                    description=description,
                    addresses=addresses,
                    excluded=excluded,
                    version=ids.hex_id(),
                    updated_at=self._clock.now(),
                    updated_by=by,
                )
                connection.execute(update(zones).where(zones.c.id == zone_id).values(**_zone_values(zone)))
                sizes = _zone_sizes(connection, account_id)
                for rule_id, named in _rules_naming(connection, account_id, zone_id):
                    _check_size(sizes, named, rule_id)
        except IntegrityError as error:
            raise Conflict("name", f"the account has a zone named {name!r} already") from error
        return zone

    def delete_zone(self, account_id: str, zone_id: str, *, expected: Set[str] | None = None) -> None:
        """Delete a zone if its version is one of `expected` (None: any). Raises `NotThere`, `Changed`, `InUse`."""
        with self._database.writing(access=True) as connection:
            _current(_find_zone(connection, account_id, zone_id), f"zone {zone_id}", expected)
            using = tuple(rule_id for rule_id, _ in _rules_naming(connection, account_id, zone_id))
            if using:
                raise InUse(zone_id, using)
            connection.execute(delete(zones).where(zones.c.id == zone_id))

    def create_rule(
        self, account_id: str, *, description: str, document: dict[str, object], enforcement: str, by: str
    ) -> Rule:
        """Make a rule from its document (contexts, resources, operations: sound JSON of the vendor's).

        Raises `TooMany` (4020 rules), `NoZone`, `TooManyAddresses`.
        """
        now, rule_id = self._clock.now(), ids.hex_id()
        with self._database.writing(access=True) as connection:
            mine = rules.c.account_id == account_id
            if (connection.scalar(select(func.count()).select_from(rules).where(mine)) or 0) >= MOST_RULES:
                raise TooMany(f"an account has at most {MOST_RULES} rules: delete one first")
            _check_zones(connection, account_id, rule_document.named_zones(document), "")
            connection.execute(
                insert(rules).values(
                    id=rule_id,
                    account_id=account_id,
                    description=description,
                    document=document,
                    enforcement=enforcement,
                    version=ids.hex_id(),
                    created_at=now,
                    updated_at=now,
                    created_by=by,
                    updated_by=by,
                )
            )
            return _rule_of(connection.execute(select(rules).where(rules.c.id == rule_id)).one())

    def replace_rule(
        self,
        account_id: str,
        rule_id: str,
        *,
        expected: Set[str] | None,
        description: str,
        document: dict[str, object],
        enforcement: str,
        by: str,
    ) -> Rule:
        """Replace all of a rule if its version is one of `expected` (None: any).

        Raises `NotThere`, `Changed`, `NoZone`, `TooManyAddresses`.
        """
        with self._database.writing(access=True) as connection:
            _current(_find_rule(connection, account_id, rule_id), f"rule {rule_id}", expected)
            _check_zones(connection, account_id, rule_document.named_zones(document), rule_id)
            connection.execute(
                update(rules)
                .where(rules.c.id == rule_id)
                .values(
                    description=description,
                    document=document,
                    enforcement=enforcement,
                    version=ids.hex_id(),
                    updated_at=self._clock.now(),
                    updated_by=by,
                )
            )
            return _rule_of(connection.execute(select(rules).where(rules.c.id == rule_id)).one())

    def delete_rule(self, account_id: str, rule_id: str, *, expected: Set[str] | None = None) -> None:
        """Delete a rule if its version is one of `expected` (None: any). Raises `NotThere`, `Changed`."""
        with self._database.writing(access=True) as connection:
            _current(_find_rule(connection, account_id, rule_id), f"rule {rule_id}", expected)
            connection.execute(delete(rules).where(rules.c.id == rule_id))

    def rule(self, account_id: str, rule_id: str) -> Rule | None:
        """Return a rule of an account, or None."""
        with self._database.reading() as connection:
            row = _find_rule(connection, account_id, rule_id)
            return None if row is None else _rule_of(row)

    def rules(self, account_id: str) -> tuple[Rule, ...]:
        """Return an account's rules, oldest first."""
        query = select(rules).where(rules.c.account_id == account_id).order_by(rules.c.created_at, rules.c.id)
        with self._database.reading() as connection:
            return tuple(_rule_of(row) for row in connection.execute(query))

    def usage(self, account_id: str) -> Usage | None:
        """Return how much of its limits an account uses, or None for an unknown one."""
        held = [
            select(func.count())
            .select_from(table)
            .where(table.c.account_id == account_id)
            .scalar_subquery()
            .label(name)
            for name, table in (("zones", zones), ("rules", rules))
        ]
        query = select(*held, accounts.c.created_at).where(accounts.c.id == account_id)
        with self._database.reading() as connection:
            row: Row[Any] | None = connection.execute(query).one_or_none()
            return None if row is None else Usage(row.zones, row.rules, row.created_at)

    def revision(self) -> int:
        """Return a number that grows with every change of who may connect: a snapshot's generation."""
        return self._database.revision(ACCESS)

    def snapshot(self) -> Snapshot:
        """Return all zones, rules, allow-lists and instances of this moment, ready to be compiled by `relay.access`."""
        # Both are read first: a change, or an end, that falls in between is noticed again.
        generation, now = self.revision(), self._clock.now()
        with self._database.reading() as connection:
            return Snapshot(
                generation,
                _all_zones(connection),
                _all_rules(connection),
                _all_instances(connection),
                all_allow_lists(connection),
                now,
            )

    def is_current(self, generation: int, until: float) -> bool:
        """Say whether a snapshot of that generation, true `until` a moment, still is. Some microseconds."""
        return self._clock.now() < until and self.revision() == generation


def _find_zone(connection: Connection, account_id: str, zone_id: str) -> Row[Any] | None:
    query = select(zones).where(zones.c.id == zone_id, zones.c.account_id == account_id)
    return connection.execute(query).one_or_none()


def _find_rule(connection: Connection, account_id: str, rule_id: str) -> Row[Any] | None:
    query = select(rules).where(rules.c.id == rule_id, rules.c.account_id == account_id)
    return connection.execute(query).one_or_none()


def _current(row: Row[Any] | None, name: str, expected: Set[str] | None) -> Row[Any]:
    if row is None:
        raise NotThere(name)
    if expected is not None and row.version not in expected:
        raise Changed(f"{name} was changed")
    return row


def _rules_naming(connection: Connection, account_id: str, zone_id: str) -> list[tuple[str, frozenset[str]]]:
    """Return the rules that name a zone, oldest first, each with all the zones that it names."""
    # The text tells most rules apart without reading their JSON; an id elsewhere in it is sorted out below.
    mentions = sql_cast(rules.c.document, String).contains(zone_id, autoescape=True)
    query = select(rules.c.id, rules.c.document).where(rules.c.account_id == account_id, mentions)
    found = connection.execute(query.order_by(rules.c.created_at, rules.c.id))
    named = [(str(row.id), rule_document.named_zones(cast(dict[str, object], row.document))) for row in found]
    return [(rule_id, zone_ids) for rule_id, zone_ids in named if zone_id in zone_ids]


def _check_zones(connection: Connection, account_id: str, named: frozenset[str], rule_id: str) -> None:
    sizes = _zone_sizes(connection, account_id)
    unknown = min(named - sizes.keys(), default=None)
    if unknown is not None:
        raise NoZone(unknown)
    _check_size(sizes, named, rule_id)


def _zone_sizes(connection: Connection, account_id: str) -> dict[str, int]:
    size = func.json_array_length(zones.c.addresses) + func.json_array_length(zones.c.excluded)
    query = select(zones.c.id, size.label("size")).where(zones.c.account_id == account_id)
    return {row.id: row.size for row in connection.execute(query)}


def _check_size(sizes: dict[str, int], named: frozenset[str], rule_id: str) -> None:
    if sum(sizes.get(zone_id, 0) for zone_id in named) > MOST_ADDRESSES:
        raise TooManyAddresses(rule_id)


def _all_zones(connection: Connection) -> tuple[Zone, ...]:
    return tuple(_zone_of(row) for row in connection.execute(select(zones)))


def _all_rules(connection: Connection) -> tuple[Rule, ...]:
    # In order, so that it does not depend on the database which of several rules is said to have decided.
    ordered = select(rules).order_by(rules.c.created_at, rules.c.id)
    return tuple(_rule_of(row) for row in connection.execute(ordered))


def _all_instances(connection: Connection) -> tuple[tuple[str, str, str], ...]:
    found = connection.execute(select(instances.c.id, instances.c.account_id, instances.c.region))
    return tuple((row.id, row.account_id, row.region) for row in found)


def _zone_values(zone: Zone) -> dict[str, object]:
    return {
        "id": zone.id,
        "account_id": zone.account_id,
        "name": zone.name,
        "description": zone.description,
        "addresses": [[address.type, address.value] for address in zone.addresses],
        "excluded": [[address.type, address.value] for address in zone.excluded],
        "version": zone.version,
        "created_at": zone.created_at,
        "updated_at": zone.updated_at,
        "created_by": zone.created_by,
        "updated_by": zone.updated_by,
    }


def _zone_of(row: Row[Any]) -> Zone:
    return Zone(
        row.id,
        row.account_id,
        row.name,
        row.description,
        tuple(Address(kind, value) for kind, value in row.addresses),
        tuple(Address(kind, value) for kind, value in row.excluded),
        row.version,
        row.created_at,
        row.updated_at,
        row.created_by,
        row.updated_by,
    )


def _rule_of(row: Row[Any]) -> Rule:
    document = cast(dict[str, object], row.document)
    resource = rule_document.resource(document)
    return Rule(
        row.id,
        row.account_id,
        row.description,
        rule_document.contexts(document),
        resource.get("serviceInstance", ""),
        resource.get("region", ""),
        # The SMTP interface has no report mode: such a rule, made for all APIs, is none for SMTP.
        rule_document.governs_smtp(document) and row.enforcement != "report",
        row.enforcement,
        document,
        row.version,
        row.created_at,
        row.updated_at,
        row.created_by,
        row.updated_by,
    )
