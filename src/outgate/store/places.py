"""Programs and environments: made and taken away by customers, tunnel addresses allotted.

Standards: SQL through SQLAlchemy Core; the vendor's rules for programs and environments.
Promises: a refused change changes nothing; no two environments ever have the same tunnel address, for it is allotted in
    the transaction that makes the environment and free only once the engine has closed it.
Dangers: an environment that is taken away loses its networking, variables and secrets at once; its row stays,
    `deleting`, until the engine has closed its listeners (`egress.finish_deletion`).
Not here: the shape of bodies (`api.cloud_manager.place_bodies`), what the engine says of environments (`egress`),
    network infrastructures (`infrastructures`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from sqlalchemy import Connection, delete, func, insert, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.egress import Environment, Program
from outgate.store import egress_rows as rows
from outgate.store import tables as t
from outgate.store.database import Database

CREATING, DELETING = "creating", "deleting"
# Their environment takes no deletion now: it is on its way elsewhere.
_MOVING = frozenset({CREATING, "updating", DELETING, "deleted", "restoring", "resetting"})
_PRODUCTION = "prod"


class PlaceRefused(Exception):
    """A change goes against what is there: `code` is a word for it, `field` the wrong one or "", `message` says why
    and what helps."""

    def __init__(self, code: str, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the operator gives new environments: regions, a network to take tunnel addresses from but for those
    `taken` by others, and the networks that their applications dial from."""

    regions: tuple[str, ...]
    tunnel_network: IPv4Network | IPv6Network
    client_networks: tuple[str, ...]
    taken: frozenset[str] = field(default=frozenset[str]())


@dataclass(frozen=True, slots=True)
class NewEnvironment:
    """What a customer asks for."""

    name: str
    kind: str
    region: str
    description: str = ""
    secondary_regions: tuple[str, ...] = ()


class PlaceQueries:
    """Read and change programs and environments. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def page(self, org_id: str, tenant_id: str, start: int, limit: int) -> tuple[int, tuple[Program, ...]]:
        """Return how many programs there are, and `limit` of them from `start` on, oldest first."""
        theirs = (t.programs.c.org_id == org_id, t.programs.c.tenant_id == tenant_id)
        count = select(func.count()).select_from(t.programs).where(*theirs)
        query = select(t.programs).where(*theirs).order_by(t.programs.c.created_at, t.programs.c.id)
        with self._database.reading() as connection:
            total = connection.execute(count).scalar_one()
            found = connection.execute(query.offset(start).limit(limit)).all()
        return total, tuple(rows.program(row) for row in found)

    def create_program(self, org_id: str, tenant_id: str, name: str, *, sandbox: bool, actor: str) -> Program:
        """Make a program, ready at once: nothing but its row is needed. Raises `PlaceRefused` if the name is taken."""
        now = self._clock.now()
        with self._database.writing() as connection:
            same = (t.programs.c.org_id == org_id, t.programs.c.tenant_id == tenant_id, t.programs.c.name == name)
            if (other := connection.execute(select(t.programs.c.id).where(*same)).scalar()) is not None:
                raise PlaceRefused("exists", f"program {other} has that name already", field="name")
            made = Program(_free_id(connection, "program"), org_id, tenant_id, name, now, now, sandbox=sandbox)
            connection.execute(
                insert(t.programs).values(
                    id=made.id,
                    org_id=org_id,
                    tenant_id=tenant_id,
                    name=name,
                    created_at=now,
                    updated_at=now,
                    status=made.status,
                    sandbox=sandbox,
                )
            )
            rows.write_audit(connection, now, actor, "program.create", made.id, {"name": name, "sandbox": sandbox})
        return made

    def delete_program(self, program_id: str, *, actor: str) -> None:
        """Take an empty program away. Raises `PlaceRefused`, `LookupError` if it is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environments = _ids(connection, t.environments, program_id)
            infrastructures = _ids(connection, t.network_infrastructures, program_id)
            held = [
                f"{noun} {', '.join(found)}"
                for noun, found in (("environment", environments), ("network infrastructure", infrastructures))
                if found
            ]
            if held:
                message = f"the program still has {' and '.join(held)}: delete them and wait until they are gone"
                raise PlaceRefused("not_empty", message)
            if connection.execute(delete(t.programs).where(t.programs.c.id == program_id)).rowcount == 0:
                raise LookupError("there is no such program")
            rows.write_audit(connection, now, actor, "program.delete", program_id, {})

    def create_environment(
        self, program_id: str, wanted: NewEnvironment, grounds: Grounds, *, actor: str
    ) -> Environment:
        """Make an environment, `creating` until the engine knows it. Raises `PlaceRefused`, `LookupError`."""
        now = self._clock.now()
        with self._database.writing() as connection:
            if connection.execute(select(t.programs.c.id).where(t.programs.c.id == program_id)).scalar() is None:
                raise LookupError("there is no such program")
            if wanted.kind == _PRODUCTION and (other := _production(connection, program_id)) is not None:
                message = f"must not be prod: environment {other} is the program's production environment"
                raise PlaceRefused("exists", message, field="type")
            address = _next_free(grounds, set(connection.execute(select(t.environments.c.tunnel_address)).scalars()))
            made = _free_id(connection, "environment")
            connection.execute(
                insert(t.environments).values(
                    id=made,
                    program_id=program_id,
                    name=wanted.name,
                    type=wanted.kind,
                    region=wanted.region,
                    status=CREATING,
                    tunnel_address=address,
                    client_networks=list(grounds.client_networks),
                    created_at=now,
                    updated_at=now,
                    description=wanted.description,
                    secondary_regions=list(wanted.secondary_regions),
                )
            )
            detail: dict[str, object] = {"name": wanted.name, "type": wanted.kind, "tunnel_address": address}
            rows.write_audit(connection, now, actor, "environment.create", made, detail)
            return _environment(connection, program_id, made)

    def withdraw_environment(self, program_id: str, environment_id: str, *, actor: str) -> Environment:
        """Begin to take an environment away; return it, now `deleting`. The engine finishes that.

        Raises `PlaceRefused` (code `moving` if it is in a state that takes no change), `LookupError` if it is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _environment(connection, program_id, environment_id)
            if before.status in _MOVING:
                message = f"the environment is {before.status}: try again when it is ready"
                raise PlaceRefused("moving", message)
            ways = _ids(connection, t.network_infrastructures, program_id)
            if before.type == _PRODUCTION and ways:
                # Their region is the production environment's: without it they have no place.
                message = f"network infrastructure {', '.join(ways)} needs the production environment: delete it first"
                raise PlaceRefused("needed", message)
            here = t.advanced_networking.c.environment_id == environment_id
            connection.execute(delete(t.advanced_networking).where(here))
            connection.execute(delete(t.variables).where(t.variables.c.environment_id == environment_id))
            place = t.environments.c.id == environment_id
            connection.execute(update(t.environments).where(place).values(status=DELETING, updated_at=now))
            rows.write_audit(connection, now, actor, "environment.delete", environment_id, {"name": before.name})
            return _environment(connection, program_id, environment_id)


def _environment(connection: Connection, program_id: str, environment_id: str) -> Environment:
    found = rows.find_environment(connection, environment_id)
    if found is None or found.program_id != program_id:
        raise LookupError("there is no such environment")
    return found


def _production(connection: Connection, program_id: str) -> str | None:
    query = select(t.environments.c.id).where(t.environments.c.program_id == program_id)
    found: str | None = connection.execute(query.where(t.environments.c.type == _PRODUCTION)).scalar()
    return found


def _ids(connection: Connection, table: t.Table, program_id: str) -> Sequence[str]:
    query = select(table.c.id).where(table.c.program_id == program_id).order_by(table.c.created_at, table.c.id)
    return connection.execute(query).scalars().all()


def _free_id(connection: Connection, noun: str) -> str:
    """Return an id that no program or environment has: their ids are short, and one may come up twice."""
    table = t.programs if noun == "program" else t.environments
    while True:
        made = ids.number_id()
        if connection.execute(select(table.c.id).where(table.c.id == made)).scalar() is None:
            return made


def _next_free(grounds: Grounds, used: Collection[str]) -> str:
    for host in grounds.tunnel_network.hosts():
        if (address := str(host)) not in used and address not in grounds.taken:
            return address
    message = f"no tunnel address is free: the operator must widen egress.tunnel_network ({grounds.tunnel_network})"
    raise PlaceRefused("exhausted", message)
