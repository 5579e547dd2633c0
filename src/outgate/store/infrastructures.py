"""Network infrastructures: made, edited and taken away by customers, moved on by the engine, addresses allotted.

Standards: SQL through SQLAlchemy Core; the vendor's rules for network infrastructures.
Promises: a refused change changes nothing; no two infrastructures ever have the same dedicated address, for it is
    allotted in the transaction that makes the infrastructure; shared keys are sealed before they reach a statement;
    a result of the engine counts only for the generation that it is about.
Dangers: `shared_keys` returns them in clear: for the VPN's data path only.
Not here: the shape of bodies (`api.cloud_manager.infrastructure_bodies`), what an environment asks for (`egress`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast

from sqlalchemy import Connection, delete, insert, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.egress import Environment, Mode, NetworkInfrastructure
from outgate.store import egress_rows as rows
from outgate.store import tables as t
from outgate.store.database import Database
from outgate.store.secrets import SecretBox

READY, FAILED = "ready", "failed"
CREATING, UPDATING, DELETING = "creating", "updating", "deleting"
# While an infrastructure is in one of these, only the engine may change it.
MOVING = frozenset({CREATING, UPDATING, DELETING})
# What leaves from an address of its own; VPN needs one for what does not enter its tunnel.
WITH_ADDRESS = frozenset({Mode.DEDICATED, Mode.VPN})
_GOING = frozenset({"deleting", "deleted"})
_TABLE, _COLUMN = "network_infrastructures", "sealed"


class InfrastructureMoving(Exception):
    """The infrastructure is in a state in which it takes no change, or may not be used; `status` names it."""

    def __init__(self, infrastructure_id: str, status: str) -> None:
        super().__init__(f"network infrastructure {infrastructure_id} is {status}")
        self.infrastructure_id = infrastructure_id
        self.status = status


class InfrastructureRefused(Exception):
    """A change goes against what is stored. `field` names the wrong one or is ""; `conflict`: something else that is
    there stands in the way."""

    def __init__(self, code: str, message: str, *, field: str = "", conflict: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.conflict = conflict


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a customer asks for. `document` has the VPN's fields without the shared keys, which are beside it by name
    of connection; `primary` None: not said."""

    kind: Mode
    region: str
    primary: bool | None = None
    document: dict[str, object] = field(default_factory=dict[str, object])
    shared_keys: dict[str, str] = field(default_factory=dict[str, str], repr=False)


class InfrastructureQueries:
    """Read and change network infrastructures. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock

    # What customers do

    def of_program(self, program_id: str) -> tuple[NetworkInfrastructure, ...]:
        """Return a program's infrastructures, oldest first."""
        with self._database.reading() as connection:
            return rows.infrastructures(connection, program_id)

    def find(self, program_id: str, infrastructure_id: str) -> NetworkInfrastructure | None:
        """Return one of a program's infrastructures, or None."""
        return next((each for each in self.of_program(program_id) if each.id == infrastructure_id), None)

    def add(self, program_id: str, wanted: Wanted, *, pool: Sequence[str], actor: str) -> NetworkInfrastructure:
        """Make an infrastructure, `creating`; one with an address of its own gets the first free one of `pool`.

        Raises `InfrastructureRefused`, `LookupError` if the program is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            primary = _judge_new(connection, program_id, wanted)
            taken = _taken(_all(connection))
            addresses = [_next_free(pool, taken)] if wanted.kind in WITH_ADDRESS else []
            made = _free_id(connection)
            connection.execute(
                insert(t.network_infrastructures).values(
                    id=made,
                    program_id=program_id,
                    kind=wanted.kind.value,
                    region=wanted.region,
                    status=CREATING,
                    addresses=addresses,
                    document=wanted.document,
                    created_at=now,
                    updated_at=now,
                    is_primary=primary,
                    generation=1,
                    reason="",
                    sealed=self._seal(made, wanted.shared_keys),
                )
            )
            detail: dict[str, object] = {"kind": wanted.kind.value, "region": wanted.region, "addresses": addresses}
            rows.write_audit(connection, now, actor, "infrastructure.create", made, detail)
            return _one(connection, made)

    def replace(self, program_id: str, infrastructure_id: str, wanted: Wanted, *, actor: str) -> NetworkInfrastructure:
        """Replace what may be edited of a VPN; return it, now `updating`.

        Raises `InfrastructureMoving`, `InfrastructureRefused`, `LookupError` if it is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _of_program(connection, program_id, infrastructure_id)
            if before.kind is not Mode.VPN:
                raise InfrastructureRefused("kind", f"{before.kind.value} cannot be edited: delete it and create anew")
            if before.status in MOVING:
                raise InfrastructureMoving(before.id, before.status)
            _judge_same(before, wanted)
            self._move(
                connection,
                before,
                UPDATING,
                document=wanted.document,
                sealed=self._seal(before.id, wanted.shared_keys),
            )
            rows.write_audit(
                connection, now, actor, "infrastructure.replace", before.id, {"generation": before.generation + 1}
            )
            return _one(connection, before.id)

    def withdraw(self, program_id: str, infrastructure_id: str, *, actor: str) -> NetworkInfrastructure:
        """Begin to take an infrastructure away; return it, now `deleting`. The engine finishes that.

        Raises `InfrastructureMoving`, `InfrastructureRefused`, `LookupError` if it is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _of_program(connection, program_id, infrastructure_id)
            if before.status in MOVING:
                raise InfrastructureMoving(before.id, before.status)
            enabled = _enabled(connection, program_id)
            if enabled:
                message = (
                    f"advanced networking is enabled in environment {', '.join(enabled)}: "
                    "disable it in every environment of the program first"
                )
                raise InfrastructureRefused("enabled", message)
            self._move(connection, before, DELETING)
            rows.write_audit(
                connection, now, actor, "infrastructure.delete", before.id, {"generation": before.generation + 1}
            )
            return _one(connection, before.id)

    # What the engine does

    def settle_infrastructure(self, infrastructure_id: str, generation: int, status: str, reason: str = "") -> bool:
        """Record that a generation is `ready`, or `failed` and why.

        Returns False, changing nothing, if it is gone or going, another generation is wanted by now, or the same is
        recorded. Raises `ValueError` for any other status, or a failure without a reason."""
        if status not in {READY, FAILED} or (status == FAILED) != bool(reason):
            raise ValueError(f"an infrastructure settles as ready, or failed with a reason, not {status} ({reason!r})")
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _maybe(connection, infrastructure_id)
            if before is None or before.generation != generation or before.status == DELETING:
                return False
            if (before.status, before.reason) == (status, reason):
                return False
            values = {"status": status, "reason": reason, "updated_at": now}
            connection.execute(_change(infrastructure_id).values(**values))
            detail: dict[str, object] = {"generation": generation, **({"reason": reason} if reason else {})}
            rows.write_audit(connection, now, "egress", f"infrastructure.{status}", infrastructure_id, detail)
        return True

    def finish_infrastructure(self, infrastructure_id: str, generation: int) -> bool:
        """Take away what is `deleting`, once nothing leaves by it any more; its address is free from then on.

        Returns False, changing nothing, if it is gone, not deleting, or of another generation."""
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _maybe(connection, infrastructure_id)
            if before is None or before.generation != generation or before.status != DELETING:
                return False
            place = t.network_infrastructures.c.id == infrastructure_id
            connection.execute(delete(t.network_infrastructures).where(place))
            detail: dict[str, object] = {"addresses": list(before.addresses)}
            rows.write_audit(connection, now, "egress", "infrastructure.gone", infrastructure_id, detail)
        return True

    def all(self) -> tuple[NetworkInfrastructure, ...]:
        """Return every infrastructure of every program, oldest first."""
        with self._database.reading() as connection:
            return _all(connection)

    def allotted(self) -> dict[str, NetworkInfrastructure]:
        """Return who has which address, by address as it is written in the settings."""
        return {address: each for each in self.all() for address in each.addresses}

    def shared_keys(self, infrastructure_id: str) -> dict[str, str]:
        """Return a VPN's shared keys in clear, by name of connection; {} if it has none or is gone."""
        table = t.network_infrastructures
        with self._database.reading() as connection:
            sealed = connection.execute(select(table.c.sealed).where(table.c.id == infrastructure_id)).scalar()
        if sealed is None:
            return {}
        opened = self._box.open(sealed, table=_TABLE, column=_COLUMN, row=infrastructure_id)
        return cast("dict[str, str]", json.loads(opened))

    def _move(self, connection: Connection, before: NetworkInfrastructure, status: str, **values: Any) -> None:
        values |= {"status": status, "generation": before.generation + 1, "reason": ""}
        connection.execute(_change(before.id).values(updated_at=self._clock.now(), **values))

    def _seal(self, infrastructure_id: str, keys: dict[str, str]) -> bytes | None:
        if not keys:
            return None
        return self._box.seal(json.dumps(keys).encode(), table=_TABLE, column=_COLUMN, row=infrastructure_id)


def usable(connection: Connection, program_id: str, infrastructure_id: str) -> NetworkInfrastructure:
    """Return an infrastructure of the program by which something may leave.

    Raises `InfrastructureMoving` if it is not ready, `LookupError` if the program does not have it."""
    found = _of_program(connection, program_id, infrastructure_id)
    if found.status != READY:
        raise InfrastructureMoving(found.id, found.status)
    return found


def way_of(environment: Environment, found: Iterable[NetworkInfrastructure]) -> NetworkInfrastructure | None:
    """Return which of its program's infrastructures an environment leaves by: its region's, else the primary's."""
    entries = tuple(found)
    here = (each for each in entries if each.region == environment.region)
    return next(here, None) or next((each for each in entries if each.primary), None)


def _judge_new(connection: Connection, program_id: str, wanted: Wanted) -> bool:
    """Return whether the region is the program's primary one. Raises `InfrastructureRefused`, `LookupError`."""
    row = connection.execute(select(t.programs).where(t.programs.c.id == program_id)).one_or_none()
    if row is None:
        raise LookupError("there is no such program")
    program = rows.program(row)
    if program.sandbox:
        raise InfrastructureRefused("sandbox", "a sandbox program has no advanced networking: use another program")
    if program.status != READY:
        message = f"the program is {program.status}: try again when it is ready"
        raise InfrastructureRefused("moving", message, conflict=True)
    production = _production(connection, program_id)
    if production is None:
        message = "the program has no production environment: create one (type prod) first"
        raise InfrastructureRefused("production", message)
    existing = rows.infrastructures(connection, program_id)
    for each in existing:
        if each.kind is not wanted.kind:
            message = (
                f"a program has one kind of network infrastructure: {each.id} is {each.kind.value} ({each.status});"
                f" delete it before you create {wanted.kind.value}"
            )
            raise InfrastructureRefused("kind", message, conflict=True)
        if each.region == wanted.region:
            message = f"region {each.region} has a network infrastructure: {each.id}, {each.status}"
            raise InfrastructureRefused("exists", message, conflict=True)
    _judge_region(production, existing, wanted)
    return wanted.region == production.region


def _judge_region(production: Environment, existing: Sequence[NetworkInfrastructure], wanted: Wanted) -> None:
    if wanted.region == production.region:
        return
    if wanted.region not in production.secondary_regions:
        allowed = ", ".join((production.region, *production.secondary_regions))
        message = f"must be a region of the production environment: {allowed}"
        raise InfrastructureRefused("region", message, field="region")
    if wanted.primary:
        message = f"must be false: {production.region} is the program's primary region"
        raise InfrastructureRefused("region", message, field="isPrimaryRegion")
    if not any(each.primary for each in existing):
        message = f"must be {production.region} for the program's first one; the additional regions come after it"
        raise InfrastructureRefused("region", message, field="region")


def _judge_same(before: NetworkInfrastructure, wanted: Wanted) -> None:
    for name, kept, sent in (
        ("kind", before.kind, wanted.kind),
        ("region", before.region, wanted.region),
        ("addressSpace", before.document.get("addressSpace"), wanted.document.get("addressSpace")),
        ("isPrimaryRegion", wanted.primary and before.primary, wanted.primary),
    ):
        if kept != sent:
            shown = kept if isinstance(kept, str) else json.dumps(kept)
            message = f"cannot be changed (it is {shown}): delete the network infrastructure and create it anew"
            raise InfrastructureRefused("immutable", message, field=name)


def _production(connection: Connection, program_id: str) -> Environment | None:
    table = t.environments
    query = select(table).where(table.c.program_id == program_id, table.c.type == "prod")
    found = connection.execute(query.order_by(table.c.created_at, table.c.id)).all()
    return next((rows.environment(row) for row in found if row.status not in _GOING), None)


def _enabled(connection: Connection, program_id: str) -> list[str]:
    table, place = t.advanced_networking, t.environments
    query = select(place.c.id).join(table, table.c.environment_id == place.c.id)
    return [row.id for row in connection.execute(query.where(place.c.program_id == program_id).order_by(place.c.id))]


def _next_free(pool: Sequence[str], taken: frozenset[str]) -> str:
    for address in pool:
        if str(ip_address(address)) not in taken:
            return address
    has = f"all {len(pool)} are in use" if pool else "it is empty"
    message = (
        f"no dedicated address is free in the pool of this installation ({has}): "
        "its operator must add addresses to egress.dedicated_addresses, or an infrastructure must be deleted"
    )
    raise InfrastructureRefused("pool", message)


def _taken(existing: Iterable[NetworkInfrastructure]) -> frozenset[str]:
    return frozenset(str(ip_address(address)) for each in existing for address in each.addresses)


def _all(connection: Connection) -> tuple[NetworkInfrastructure, ...]:
    table = t.network_infrastructures
    found = connection.execute(select(table).order_by(table.c.created_at, table.c.id))
    return tuple(rows.infrastructure(row) for row in found)


def _maybe(connection: Connection, infrastructure_id: str) -> NetworkInfrastructure | None:
    table = t.network_infrastructures
    row = connection.execute(select(table).where(table.c.id == infrastructure_id)).one_or_none()
    return None if row is None else rows.infrastructure(row)


def _one(connection: Connection, infrastructure_id: str) -> NetworkInfrastructure:
    found = _maybe(connection, infrastructure_id)
    assert found is not None
    return found


def _of_program(connection: Connection, program_id: str, infrastructure_id: str) -> NetworkInfrastructure:
    found = _maybe(connection, infrastructure_id)
    if found is None or found.program_id != program_id:
        raise LookupError(f"the program has no network infrastructure {infrastructure_id}")
    return found


def _change(infrastructure_id: str) -> Any:
    return update(t.network_infrastructures).where(t.network_infrastructures.c.id == infrastructure_id)


def _free_id(connection: Connection) -> str:
    """Return a number that no infrastructure has: there are only some millions of them."""
    while _maybe(connection, made := ids.number_id()) is not None:
        pass
    return made
