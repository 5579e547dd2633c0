"""Network zones and rules in the control database, and the snapshot that the relay decides by.

Standards: none; a rule's document is the vendor's JSON, read here only to compile it.
Promises: every method is one transaction; a snapshot is of one moment; names of zones are unique per account.
Dangers: a context that asks for something SMTP cannot show (multi-factor login) can never match: it is left
    out of the compiled rule, because a context without conditions would match everybody.
Not here: validation and ETags on the wire (`api.restrictions`), decisions (`relay.access`).
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.access import Address, Context, Rule, Snapshot, Zone
from outgate.store.database import Database
from outgate.store.tables import instances, rules, zones
from outgate.store.tenancy_rows import Conflict, TooMany

MOST_ZONES = 500
MOST_RULES = 4020

ALL_APIS = "crn:v1:bluemix:public:context-based-restrictions::::api-type:"
CONTROL_PLANE = "crn:v1:bluemix:public:context-based-restrictions::::api-type:control-plane"
SMTP_API = "crn:v1:bluemix:public:event-notifications::::api-type:smtp-configuration"
SMTP_API_DEV = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"
_SMTP_APIS = frozenset({ALL_APIS, SMTP_API, SMTP_API_DEV})


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
            with self._database.writing() as connection:
                mine = zones.c.account_id == account_id
                if (connection.scalar(select(func.count()).select_from(zones).where(mine)) or 0) >= MOST_ZONES:
                    raise TooMany(f"an account has at most {MOST_ZONES} zones: delete one first")
                connection.execute(insert(zones).values(**_zone_values(zone)))
        except IntegrityError as error:
            raise Conflict("name", f"the account has a zone named {name!r} already") from error
        return zone

    def zone(self, account_id: str, zone_id: str) -> Zone | None:
        """Return a zone of an account, or None."""
        query = select(zones).where(zones.c.id == zone_id, zones.c.account_id == account_id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _zone_of(row)

    def zones(self, account_id: str, *, name: str | None = None) -> tuple[Zone, ...]:
        """Return an account's zones, oldest first; only the one of that name if given."""
        query = select(zones).where(zones.c.account_id == account_id).order_by(zones.c.created_at, zones.c.id)
        if name is not None:
            query = query.where(zones.c.name == name)
        with self._database.reading() as connection:
            return tuple(_zone_of(row) for row in connection.execute(query))

    def create_rule(
        self, account_id: str, *, description: str, document: dict[str, object], enforcement: str, by: str
    ) -> Rule:
        """Make a rule from its document (contexts, resources, operations: sound JSON of the vendor's).

        Raises `TooMany` (4020 rules).
        """
        now = self._clock.now()
        values: dict[str, object] = {
            "id": ids.hex_id(),
            "account_id": account_id,
            "description": description,
            "document": document,
            "enforcement": enforcement,
            "version": ids.hex_id(),
            "created_at": now,
            "updated_at": now,
            "created_by": by,
            "updated_by": by,
        }
        with self._database.writing() as connection:
            mine = rules.c.account_id == account_id
            if (connection.scalar(select(func.count()).select_from(rules).where(mine)) or 0) >= MOST_RULES:
                raise TooMany(f"an account has at most {MOST_RULES} rules: delete one first")
            connection.execute(insert(rules).values(**values))
            return _rule_of(connection.execute(select(rules).where(rules.c.id == values["id"])).one())

    def rule(self, account_id: str, rule_id: str) -> Rule | None:
        """Return a rule of an account, or None."""
        query = select(rules).where(rules.c.id == rule_id, rules.c.account_id == account_id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _rule_of(row)

    def rules(self, account_id: str) -> tuple[Rule, ...]:
        """Return an account's rules, oldest first."""
        query = select(rules).where(rules.c.account_id == account_id).order_by(rules.c.created_at, rules.c.id)
        with self._database.reading() as connection:
            return tuple(_rule_of(row) for row in connection.execute(query))

    def snapshot(self) -> Snapshot:
        """Return all zones, rules and instances of this moment, ready to be compiled by `relay.access`."""
        # Read first: a change that lands in between leaves the generation behind, so it is noticed again.
        generation = self._database.version()
        with self._database.reading() as connection:
            return Snapshot(generation, _all_zones(connection), _all_rules(connection), _all_instances(connection))


def _all_zones(connection: Connection) -> tuple[Zone, ...]:
    return tuple(_zone_of(row) for row in connection.execute(select(zones)))


def _all_rules(connection: Connection) -> tuple[Rule, ...]:
    return tuple(_rule_of(row) for row in connection.execute(select(rules)))


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
    document = cast(dict[str, Any], row.document)
    resource = _attributes(document["resources"][0])
    types = _api_types(document)
    return Rule(
        row.id,
        row.account_id,
        row.description,
        _contexts(document["contexts"]),
        resource.get("serviceInstance", ""),
        resource.get("region", ""),
        # The SMTP interface has no report mode: such a rule, made for all APIs, is none for SMTP.
        (not types or not _SMTP_APIS.isdisjoint(types)) and row.enforcement != "report",
        row.enforcement,
        document,
        row.version,
        row.created_at,
        row.updated_at,
        row.created_by,
        row.updated_by,
    )


def _contexts(documents: list[dict[str, Any]]) -> tuple[Context, ...]:
    compiled: list[Context] = []
    for document in documents:
        wanted = _attributes(document)
        if wanted.keys() - {"networkZoneId", "endpointType"}:
            continue
        compiled.append(Context(_listed(wanted, "networkZoneId"), _listed(wanted, "endpointType")))
    return tuple(compiled)


def _attributes(document: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in document["attributes"]}


def _listed(wanted: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in wanted.get(name, "").split(",") if part.strip())


def _api_types(document: dict[str, Any]) -> frozenset[str]:
    operations = cast(dict[str, Any], document.get("operations") or {})
    return frozenset(entry["api_type_id"] for entry in operations.get("api_types", ()))
