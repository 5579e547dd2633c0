"""Routes of configurations, and whether the egress forward that one of them names can be used.

Standards: SQL through SQLAlchemy Core.
Promises: an order of routes is replaced whole, in one transaction; a password is sealed before it reaches a statement,
and kept only for the same login at the same place.
Dangers: `of` returns passwords in clear: for delivery only.
Not here: which route a message takes (`relay.transports`), JSON (`api.event_notifications.routes`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.routes import Forward, RouteSpec, RouteTls, RouteType
from outgate.store import egress_rows
from outgate.store.database import Database
from outgate.store.secrets import SecretBox
from outgate.store.tables import network_infrastructures, programs, routes, smtp_configurations
from outgate.store.tenancy_rows import NotThere

_TABLE, _COLUMN = "routes", "sealed"


class PasswordMissing(Exception):
    """A route has a user name and no password, and there is none to keep; `index` is its place in the order."""

    def __init__(self, index: int) -> None:
        super().__init__("the route has a user name and no password")
        self.index = index


class RouteQueries:
    """Read and change routes. Synchronous and thread-safe."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self._box = box
        self._clock = clock

    def of(self, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        """Return a configuration's routes in their order, with passwords in clear; none if it goes by the
        installation's. A deleted configuration still has them: its queued mail may go. Raises `SealError`."""
        with self._database.reading() as connection:
            return self._of(connection, smtp_config_id)

    def replace(
        self, instance_id: str, smtp_config_id: str, wanted: Sequence[RouteSpec], *, by: str
    ) -> tuple[RouteSpec, ...]:
        """Replace a configuration's routes; return them as they are now. One with a user name and no password keeps
        that of the route of its name, if it is the same login at the same place. One that is as it was keeps its id.

        Raises `PasswordMissing`, `NotThere`, `SealError`."""
        mine = (
            smtp_configurations.c.id == smtp_config_id,
            smtp_configurations.c.instance_id == instance_id,
            smtp_configurations.c.deleted_at.is_(None),
        )
        with self._database.writing() as connection:
            if connection.scalar(select(smtp_configurations.c.id).where(*mine)) is None:
                raise NotThere(f"configuration {smtp_config_id}")
            before = {spec.name: spec for spec in self._of(connection, smtp_config_id)}
            after = [_continued(index, spec, before.get(spec.name)) for index, spec in enumerate(wanted)]
            connection.execute(delete(routes).where(routes.c.smtp_config_id == smtp_config_id))
            for place, spec in enumerate(after):
                connection.execute(insert(routes).values(self._values(spec, smtp_config_id, place, by)))
        return tuple(after)

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]:
        """Return the names of the routes that these configurations have, or (none given) that any has."""
        query = select(routes.c.name).distinct().order_by(routes.c.name)
        if smtp_config_ids:
            query = query.where(routes.c.smtp_config_id.in_(smtp_config_ids))
        with self._database.reading() as connection:
            return tuple(connection.scalars(query))

    def forward(self, program_id: str, environment_id: str, port_orig: int) -> Forward:
        """Return an environment's forward at `port_orig` as a way out, or what stands in its way."""
        with self._database.reading() as connection:
            environment = egress_rows.find_environment(connection, environment_id)
            wanted = egress_rows.networking(connection, environment_id)
            way = None if wanted is None else _infrastructure(connection, wanted.infrastructure_id)
        if environment is None or environment.program_id != program_id:
            return Forward(trouble=f"there is no environment {environment_id} in program {program_id}")
        if wanted is None or way is None:
            return Forward(trouble=f"advanced networking is not enabled in environment {environment_id}")
        if way.status != "ready":
            return Forward(trouble=f"network infrastructure {way.id} is {way.status}, not ready")
        if environment.status not in ("ready", "updating"):  # what is being changed is open as before, or soon will be
            why = f": {wanted.reason}" if wanted.reason else ""
            return Forward(trouble=f"environment {environment_id} is {environment.status}, not ready{why}")
        found = next((each for each in wanted.port_forwards if each.port_orig == port_orig), None)
        if found is None:
            there = ", ".join(str(each.port_orig) for each in wanted.port_forwards) or "none"
            return Forward(
                trouble=f"environment {environment_id} has no forward at portOrig {port_orig} (there are: {there})"
            )
        return Forward(environment.tunnel_address, found.name, found.port_dest)

    def owner_of(self, program_id: str, environment_id: str) -> str | None:
        """Return the account whose environment it is; None if there is no such environment in the program."""
        with self._database.reading() as connection:
            environment = egress_rows.find_environment(connection, environment_id)
            if environment is None or environment.program_id != program_id:
                return None
            return connection.scalar(select(programs.c.tenant_id).where(programs.c.id == program_id))

    def _of(self, connection: Connection, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        query = select(routes).where(routes.c.smtp_config_id == smtp_config_id).order_by(routes.c.place)
        return tuple(self._spec(row) for row in connection.execute(query))

    def _spec(self, row: Row[Any]) -> RouteSpec:
        document: dict[str, Any] = row.document
        password = ""
        if row.sealed is not None:
            password = self._box.open(row.sealed, table=_TABLE, column=_COLUMN, row=row.id).decode()
        return RouteSpec(
            row.id,
            row.name,
            RouteType(row.type),
            document["host"],
            document["port"],
            document["program_id"],
            document["environment_id"],
            RouteTls(document["tls"]),
            document["verify"],
            tuple(document["names"]),
            document["authorities"],
            document["username"],
            password,
        )

    def _values(self, spec: RouteSpec, smtp_config_id: str, place: int, by: str) -> dict[str, object]:
        sealed = None
        if spec.password:
            sealed = self._box.seal(spec.password.encode(), table=_TABLE, column=_COLUMN, row=spec.id)
        document = {
            "host": spec.host,
            "port": spec.port,
            "program_id": spec.program_id,
            "environment_id": spec.environment_id,
            "tls": spec.tls.value,
            "verify": spec.verify,
            "names": list(spec.names),
            "authorities": spec.authorities,
            "username": spec.username,
        }
        return {
            "id": spec.id,
            "smtp_config_id": smtp_config_id,
            "place": place,
            "name": spec.name,
            "type": spec.type.value,
            "document": document,
            "sealed": sealed,
            "updated_at": self._clock.now(),
            "updated_by": by,
        }


def _continued(index: int, wanted: RouteSpec, before: RouteSpec | None) -> RouteSpec:
    """Return a wanted route with the password and the id that it keeps of what it was, or with a new id."""
    if wanted.username and not wanted.password:
        if before is None or not before.password or not wanted.keeps_password_of(before):
            raise PasswordMissing(index)
        wanted = replace(wanted, password=before.password)
    if before is not None and replace(wanted, id=before.id) == before:
        return before
    return replace(wanted, id=ids.new_uuid())


def _infrastructure(connection: Connection, infrastructure_id: str) -> Any:
    table = network_infrastructures
    return connection.execute(select(table.c.id, table.c.status).where(table.c.id == infrastructure_id)).one_or_none()
