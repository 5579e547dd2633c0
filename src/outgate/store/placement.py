"""Where an environment's applications find the egress and where they dial from: what operators decide, not customers.

Standards: SQL through SQLAlchemy Core.
Promises: no two environments have the same tunnel address through this door; a refused change changes nothing; each
    change moves the environment to `updating`, so that the engine applies it anew, and has its audit row.
Dangers: whoever is in the client networks may use everything that the environment may.
Not here: whether this host has the address (`egress.listeners` says so), what customers change (`egress`).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Connection, select, update

from outgate.base import addresses
from outgate.base.clock import Clock
from outgate.model.egress import Environment
from outgate.store import egress_rows as rows
from outgate.store import tables as t
from outgate.store.database import Database
from outgate.store.egress import MOVING, UPDATING, EnvironmentMoving
from outgate.store.tenancy_rows import Conflict

MOST_NETWORKS = 100
_GONE = "deleted"


class BadPlace(ValueError):
    """No environment can be there; `field` is `tunnel_address` or `client_networks`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class PlacementQueries:
    """Place environments. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def place(
        self,
        environment_id: str,
        *,
        tunnel_address: str | None = None,
        client_networks: Sequence[str] | None = None,
        actor: str,
    ) -> Environment:
        """Give an environment another tunnel address or other client networks (None: as they are); return it, now
        `updating`.

        Raises `BadPlace` for an address that nobody can listen on or a network that is none, `Conflict` if another
        environment has the address, `EnvironmentMoving`, `LookupError`."""
        changes: dict[str, Any] = {}
        if tunnel_address is not None:
            changes["tunnel_address"] = listenable(tunnel_address)
        if client_networks is not None:
            changes["client_networks"] = readable(client_networks)
        now = self._clock.now()
        with self._database.writing() as connection:
            before = rows.find_environment(connection, environment_id)
            if before is None or before.status == _GONE:
                raise LookupError(f"there is no environment {environment_id}")
            if before.status in MOVING:
                raise EnvironmentMoving(before.status)
            if tunnel_address is not None:
                _check_free(connection, changes["tunnel_address"], environment_id)
            place = t.environments.c.id == environment_id
            connection.execute(update(t.environments).where(place).values(**changes, status=UPDATING, updated_at=now))
            # What the engine has in hand for the old place must not count as done for this one.
            networking = t.advanced_networking
            connection.execute(
                update(networking)
                .where(networking.c.environment_id == environment_id)
                .values(generation=networking.c.generation + 1, reason="", updated_at=now)
            )
            rows.write_audit(connection, now, actor, "environment.place", environment_id, changes)
            after = rows.find_environment(connection, environment_id)
        assert after is not None
        return after


def listenable(text: str) -> str:
    """Return an address in its usual spelling. Raises `BadPlace` if nobody can listen on it alone."""
    try:
        return addresses.of_one_host(text.strip())
    except ValueError as error:
        raise BadPlace("tunnel_address", str(error)) from None


def readable(texts: Sequence[str]) -> list[str]:
    """Return networks in their usual spelling, each once. Raises `BadPlace` that quotes what is none."""
    if len(texts) > MOST_NETWORKS:
        raise BadPlace("client_networks", f"there may be {MOST_NETWORKS} networks at most")
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[str(addresses.network(text.strip()))] = None
        except ValueError:
            raise BadPlace("client_networks", f"{text!r} is not a network such as 10.1.0.0/16") from None
    return list(found)


def _check_free(connection: Connection, address: str, environment_id: str) -> None:
    query = select(t.environments).where(t.environments.c.id != environment_id, t.environments.c.status != _GONE)
    for row in connection.execute(query):
        other = rows.environment(row)
        if _same(other.tunnel_address, address):
            raise Conflict(
                "tunnel_address", f"{address} is the tunnel address of environment {other.id} ({other.name})"
            )


def _same(stored: str, address: str) -> bool:
    try:
        return ip_address(stored) == ip_address(address)
    except ValueError:
        return False
