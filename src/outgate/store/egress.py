"""Programs, environments, network infrastructures, advanced networking, variables, and who changed them.

Standards: SQL through SQLAlchemy Core.
Promises: a change of networking replaces all of it in one transaction and moves the environment to `updating`;
    secrets are sealed before they reach a statement; a refused change changes nothing.
Dangers: `runtime` returns secrets in clear: for `environment run` only, and only after its audit row.
Not here: the vendor's spelling and limits of single fields (`api.cloud_manager`), rulesets (`egress.plan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.egress import (
    AdvancedNetworking,
    EgressTarget,
    Environment,
    Mode,
    NetworkInfrastructure,
    PortForward,
    Program,
    Variable,
)
from outgate.store import egress_rows as rows
from outgate.store import tables as t
from outgate.store.database import Database
from outgate.store.infrastructures import usable
from outgate.store.secrets import SecretBox

VARIABLES_LIMIT = 200
READY = "ready"
UPDATING = "updating"
FAILED = "failed"
IGNORED = "ignored"
CREATING, DELETING = "creating", "deleting"
# While an environment is in one of these, nothing about it may be changed.
MOVING = frozenset({CREATING, UPDATING, DELETING, "deleted", "restoring", "resetting"})
# From these the engine moves it on.
_SETTLES = frozenset({CREATING, UPDATING, READY, FAILED})


class EnvironmentMoving(Exception):
    """The environment is in a state in which it takes no change; `status` names it."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the environment is {status}")
        self.status = status


class VariableRefused(Exception):
    """A change of variables goes against what is stored; `index` is its place in the list, or None."""

    def __init__(self, index: int | None, attribute: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.attribute = attribute
        self.message = message


@dataclass(frozen=True, slots=True)
class VariableChange:
    """One entry of a change: an empty `value` deletes. `secret` None means: as it is stored (deletion only)."""

    name: str
    service: str
    secret: bool | None
    value: str = field(repr=False)
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who did what to which thing, and when (epoch seconds)."""

    at: float
    actor: str
    action: str
    target: str
    detail: dict[str, object]


class EgressQueries:
    """Read and change what belongs to the egress. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock

    # Programs and environments

    def add_program(self, org_id: str, tenant_id: str, name: str, *, program_id: str = "") -> Program:
        """Add a program. `tenant_id` is the account whose tokens reach it."""
        now = self._clock.now()
        program = Program(program_id or ids.number_id(), org_id, tenant_id, name, now, now)
        with self._database.writing() as connection:
            connection.execute(
                insert(t.programs).values(
                    id=program.id,
                    org_id=org_id,
                    tenant_id=tenant_id,
                    name=name,
                    created_at=now,
                    updated_at=now,
                )
            )
        return program

    def programs(self, org_id: str, tenant_id: str) -> tuple[Program, ...]:
        """Return an organisation's programs, oldest first."""
        query = select(t.programs).where(t.programs.c.org_id == org_id, t.programs.c.tenant_id == tenant_id)
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(t.programs.c.created_at, t.programs.c.id)).all()
        return tuple(rows.program(row) for row in found)

    def program(self, program_id: str) -> Program | None:
        """Return a program, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(t.programs).where(t.programs.c.id == program_id)).one_or_none()
        return None if row is None else rows.program(row)

    def add_environment(
        self,
        program_id: str,
        name: str,
        *,
        kind: str,
        region: str,
        tunnel_address: str,
        client_networks: Sequence[str],
        environment_id: str = "",
    ) -> Environment:
        """Add a ready environment of a `kind` (dev, stage, prod, rde, preprod)."""
        now = self._clock.now()
        environment = Environment(
            environment_id or ids.number_id(),
            program_id,
            name,
            kind,
            region,
            READY,
            tunnel_address,
            tuple(client_networks),
            now,
            now,
        )
        with self._database.writing() as connection:
            connection.execute(
                insert(t.environments).values(
                    id=environment.id,
                    program_id=program_id,
                    name=name,
                    type=kind,
                    region=region,
                    status=READY,
                    tunnel_address=tunnel_address,
                    client_networks=list(client_networks),
                    created_at=now,
                    updated_at=now,
                )
            )
        return environment

    def environments(self, program_id: str, kind: str = "") -> tuple[Environment, ...]:
        """Return a program's environments, oldest first; only those of type `kind` if given."""
        query = select(t.environments).where(t.environments.c.program_id == program_id)
        if kind:
            query = query.where(t.environments.c.type == kind)
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(t.environments.c.created_at, t.environments.c.id)).all()
        return tuple(rows.environment(row) for row in found)

    def environment(self, program_id: str, environment_id: str) -> Environment | None:
        """Return an environment of this program, or None."""
        with self._database.reading() as connection:
            found = rows.find_environment(connection, environment_id)
        return found if found is not None and found.program_id == program_id else None

    # Network infrastructures

    def add_infrastructure(
        self,
        program_id: str,
        kind: Mode,
        region: str,
        *,
        addresses: Sequence[str] = (),
        document: dict[str, object] | None = None,
        status: str = READY,
        primary: bool = True,
        infrastructure_id: str = "",
    ) -> NetworkInfrastructure:
        """Add a program's way out as it is, past the rules for customers (`store.infrastructures`).

        `addresses` are its own (dedicated); `document` holds the vendor's fields."""
        now = self._clock.now()
        made = NetworkInfrastructure(
            infrastructure_id or ids.number_id(),
            program_id,
            kind,
            region,
            status,
            tuple(addresses),
            dict(document or {}),
            now,
            now,
            primary,
        )
        with self._database.writing() as connection:
            connection.execute(
                insert(t.network_infrastructures).values(
                    id=made.id,
                    program_id=program_id,
                    kind=kind.value,
                    region=region,
                    status=status,
                    addresses=list(made.addresses),
                    document=made.document,
                    created_at=now,
                    updated_at=now,
                    is_primary=primary,
                )
            )
        return made

    # Advanced networking

    def networking(self, environment_id: str) -> AdvancedNetworking | None:
        """Return what an environment asked for, or None if advanced networking is not enabled there."""
        with self._database.reading() as connection:
            return rows.networking(connection, environment_id)

    def put_networking(
        self,
        environment_id: str,
        infrastructure_id: str,
        forwards: Sequence[PortForward],
        non_proxy_hosts: Sequence[str],
        *,
        actor: str,
    ) -> Environment:
        """Replace all of an environment's networking; return the environment, now `updating`.

        Raises `EnvironmentMoving`, `InfrastructureMoving` if what it would leave by is not ready, `LookupError` if
        either is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environment = _take(connection, environment_id, now)
            usable(connection, environment.program_id, infrastructure_id)
            before = rows.networking(connection, environment_id)
            values: dict[str, Any] = {
                "infrastructure_id": infrastructure_id,
                "port_forwards": [[each.name, each.port_orig, each.port_dest] for each in forwards],
                "non_proxy_hosts": list(non_proxy_hosts),
                "generation": 1 if before is None else before.generation + 1,
                "reason": "",
                "updated_at": now,
            }
            if before is None:
                connection.execute(insert(t.advanced_networking).values(environment_id=environment_id, **values))
            else:
                place = t.advanced_networking.c.environment_id == environment_id
                connection.execute(update(t.advanced_networking).where(place).values(**values))
            detail = {"port_forwards": values["port_forwards"], "generation": values["generation"]}
            self._audit(connection, actor, "networking.replace", environment_id, detail)
        return environment

    def delete_networking(self, environment_id: str, *, actor: str) -> Environment:
        """Disable an environment's networking; return the environment, now `updating`.

        Raises `EnvironmentMoving`, `LookupError` if it was not enabled or the environment is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environment = _take(connection, environment_id, now)
            place = t.advanced_networking.c.environment_id == environment_id
            if connection.execute(delete(t.advanced_networking).where(place)).rowcount == 0:
                raise LookupError("advanced networking is not enabled")
            self._audit(connection, actor, "networking.disable", environment_id, {})
        return environment

    def settle(self, environment_id: str, generation: int | None, reason: str) -> bool:
        """Record how the engine got on with a generation (None: disabled): "" is success, else why it failed.

        An environment that is `creating` is `ready` once the engine has none of its rules in force, as it has none; one
        that is `deleting` goes (`finish_deletion`). Returns False, changing nothing, if another generation is wanted
        by now, or the same is recorded."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environment = rows.find_environment(connection, environment_id)
            wanted = rows.networking(connection, environment_id)
            if environment is None or (None if wanted is None else wanted.generation) != generation:
                return False
            if environment.status == DELETING:
                return not reason and self._finish(connection, environment_id, now)
            status = FAILED if reason else READY
            recorded = "" if wanted is None else wanted.reason
            if environment.status not in _SETTLES or (environment.status, recorded) == (status, reason):
                return False
            place = t.environments.c.id == environment_id
            connection.execute(update(t.environments).where(place).values(status=status, updated_at=now))
            if wanted is not None:
                entry = t.advanced_networking.c.environment_id == environment_id
                connection.execute(update(t.advanced_networking).where(entry).values(reason=reason))
            action = "networking.failed" if reason else "networking.applied"
            if environment.status == CREATING:
                action = "environment.failed" if reason else "environment.ready"
            detail: dict[str, object] = {"generation": generation, **({"reason": reason} if reason else {})}
            self._audit(connection, "egress", action, environment_id, detail)
        return True

    def finish_deletion(self, environment_id: str) -> bool:
        """Take away an environment that is `deleting`, once the engine has closed all of it; its tunnel address is free
        from then on. Returns False, changing nothing, if it is gone or not deleting."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environment = rows.find_environment(connection, environment_id)
            if environment is None or environment.status != DELETING:
                return False
            return self._finish(connection, environment_id, now)

    def _finish(self, connection: Connection, environment_id: str, now: float) -> bool:
        for table in (t.guard_exceptions, t.advanced_networking, t.variables):
            connection.execute(delete(table).where(table.c.environment_id == environment_id))
        connection.execute(delete(t.environments).where(t.environments.c.id == environment_id))
        rows.write_audit(connection, now, "egress", "environment.deleted", environment_id, {})
        return True

    def targets(self) -> tuple[EgressTarget, ...]:
        """Return every environment as the engine must serve it, in one consistent view, oldest first."""
        with self._database.reading() as connection:
            return _targets(connection)

    def target(self, environment_id: str) -> EgressTarget | None:
        """Return one environment as the engine must serve it, or None if it is gone."""
        with self._database.reading() as connection:
            return next(iter(_targets(connection, environment_id)), None)

    # Variables

    def variables(self, environment_id: str) -> tuple[Variable, ...]:
        """Return an environment's variables by name and service; a secret's value is ""."""
        with self._database.reading() as connection:
            return tuple(rows.variable(row) for row in rows.variable_rows(connection, environment_id))

    def patch_variables(self, environment_id: str, changes: Sequence[VariableChange], *, actor: str) -> None:
        """Set and delete variables, all or none. Raises `VariableRefused`, `EnvironmentMoving` if the
        environment is being taken away, `LookupError` if it is gone."""
        now = self._clock.now()
        with self._database.writing() as connection:
            environment = rows.find_environment(connection, environment_id)
            if environment is None:
                raise LookupError("there is no such environment")
            if environment.status == DELETING:
                raise EnvironmentMoving(environment.status)
            known = {(row.name, row.service): row for row in rows.variable_rows(connection, environment_id)}
            for index, change in enumerate(changes):
                row = known.get((change.name, change.service))
                self._change(connection, environment_id, index, change, row, now)
            count = select(func.count()).where(t.variables.c.environment_id == environment_id)
            if connection.execute(count).scalar_one() > VARIABLES_LIMIT:
                message = f"an environment has {VARIABLES_LIMIT} variables at most"
                raise VariableRefused(None, "", message)
            names = sorted({change.name for change in changes})
            self._audit(connection, actor, "variables.change", environment_id, {"names": names})

    def _change(
        self,
        connection: Connection,
        environment_id: str,
        index: int,
        change: VariableChange,
        row: Row[Any] | None,
        now: float,
    ) -> None:
        if row is not None and change.secret is not None and change.secret != row.secret:
            has = "secretString" if row.secret else "string"
            message = f"cannot be changed: {change.name} is a {has}; send that type, or delete it and create it again"
            raise VariableRefused(index, "type", message)
        if not change.value:
            if row is not None:
                connection.execute(delete(t.variables).where(t.variables.c.id == row.id))
            return
        row_id = ids.new_uuid() if row is None else str(row.id)
        secret = bool(change.secret)
        sealed = None
        if secret:
            sealed = self._box.seal(change.value.encode("utf-8"), table="variables", column="sealed", row=row_id)
        values: dict[str, Any] = {
            "secret": secret,
            "value": "" if secret else change.value,
            "sealed": sealed,
            "status": IGNORED if change.ignored else READY,
            "updated_at": now,
        }
        if row is None:
            place = {"id": row_id, "environment_id": environment_id, "name": change.name, "service": change.service}
            connection.execute(insert(t.variables).values(**place, **values))
        else:
            connection.execute(update(t.variables).where(t.variables.c.id == row_id).values(**values))

    def runtime(self, environment_id: str, service: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the variables and the secrets, in clear, that a service of an environment starts with.

        One that names the service comes before one for all; ignored ones are left out."""
        clear: dict[str, str] = {}
        secrets: dict[str, str] = {}
        with self._database.reading() as connection:
            found = rows.variable_rows(connection, environment_id)
        # "" sorts first, so what names the service overwrites what is for all.
        for row in sorted(found, key=lambda row: row.service):
            if row.service not in {"", service} or row.status == IGNORED:
                continue
            clear.pop(row.name, None)
            secrets.pop(row.name, None)
            if row.secret:
                opened = self._box.open(row.sealed, table="variables", column="sealed", row=row.id)
                secrets[row.name] = opened.decode("utf-8")
            else:
                clear[row.name] = row.value
        return clear, secrets

    # Audit

    def record(self, actor: str, action: str, target: str, detail: dict[str, object]) -> None:
        """Write one audit row; durable when this returns."""
        with self._database.writing() as connection:
            self._audit(connection, actor, action, target, detail)

    def audit(self, *, target: str = "", limit: int = 100) -> tuple[AuditRow, ...]:
        """Return the newest audit rows, newest first; only those about `target` if given."""
        query = select(t.audit).order_by(t.audit.c.id.desc()).limit(limit)
        if target:
            query = query.where(t.audit.c.target == target)
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return tuple(AuditRow(row.at, row.actor, row.action, row.target, dict(row.detail)) for row in found)

    def _audit(self, connection: Connection, actor: str, action: str, target: str, detail: dict[str, object]) -> None:
        rows.write_audit(connection, self._clock.now(), actor, action, target, detail)


def _take(connection: Connection, environment_id: str, now: float) -> Environment:
    """Move an environment to `updating` and return it as it is then."""
    before = rows.find_environment(connection, environment_id)
    if before is None:
        raise LookupError("there is no such environment")
    if before.status in MOVING:
        raise EnvironmentMoving(before.status)
    place = t.environments.c.id == environment_id
    connection.execute(update(t.environments).where(place).values(status=UPDATING, updated_at=now))
    after = rows.find_environment(connection, environment_id)
    assert after is not None
    return after


def _targets(connection: Connection, environment_id: str = "") -> tuple[EgressTarget, ...]:
    query = select(t.environments).order_by(t.environments.c.created_at, t.environments.c.id)
    if environment_id:
        query = query.where(t.environments.c.id == environment_id)
    environments = [rows.environment(row) for row in connection.execute(query)]
    networking = rows.all_networking(connection, environment_id)
    exceptions = rows.exceptions(connection)
    ways = {row.id: rows.infrastructure(row) for row in connection.execute(select(t.network_infrastructures))}
    targets: list[EgressTarget] = []
    for environment in environments:
        wanted = networking.get(environment.id)
        way = None if wanted is None else ways[wanted.infrastructure_id]
        # An infrastructure that is not (or no longer) ready lets nothing out.
        ready = way is not None and way.status == READY
        mode = way.kind if way is not None and ready else Mode.NONE
        addresses = way.addresses if way is not None and ready else ()
        entries = tuple(each.entry for each in exceptions if each.environment_id in {"", environment.id})
        targets.append(EgressTarget(environment, mode, addresses, wanted, way, entries))
    return tuple(targets)
