"""Turn rows of the egress tables into the nouns of `model.egress`; write who changed them.

Standards: none.
Promises: each function runs one statement at most; a secret's value never leaves its row.
Not here: transactions and changes (`egress`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from outgate.model.egress import (
    AdvancedNetworking,
    Environment,
    GuardException,
    Mode,
    NetworkInfrastructure,
    PortForward,
    Program,
    Variable,
)
from outgate.store import tables as t


def find_environment(connection: Connection, environment_id: str) -> Environment | None:
    row = connection.execute(select(t.environments).where(t.environments.c.id == environment_id)).one_or_none()
    return None if row is None else environment(row)


def infrastructures(connection: Connection, program_id: str) -> tuple[NetworkInfrastructure, ...]:
    table = t.network_infrastructures
    query = select(table).where(table.c.program_id == program_id).order_by(table.c.created_at, table.c.id)
    return tuple(infrastructure(row) for row in connection.execute(query))


def networking(connection: Connection, environment_id: str) -> AdvancedNetworking | None:
    return all_networking(connection, environment_id).get(environment_id)


def all_networking(connection: Connection, environment_id: str = "") -> dict[str, AdvancedNetworking]:
    table, way = t.advanced_networking, t.network_infrastructures
    query = select(table, way.c.kind, way.c.program_id).join(way, way.c.id == table.c.infrastructure_id)
    if environment_id:
        query = query.where(table.c.environment_id == environment_id)
    return {
        row.environment_id: AdvancedNetworking(
            row.environment_id,
            row.program_id,
            row.infrastructure_id,
            Mode(row.kind),
            tuple(PortForward(name, orig, dest) for name, orig, dest in row.port_forwards),
            tuple(row.non_proxy_hosts),
            row.generation,
            row.reason,
        )
        for row in connection.execute(query)
    }


def variable_rows(connection: Connection, environment_id: str) -> Sequence[Row[Any]]:
    query = select(t.variables).where(t.variables.c.environment_id == environment_id)
    return connection.execute(query.order_by(t.variables.c.name, t.variables.c.service)).all()


def program(row: Row[Any]) -> Program:
    return Program(
        row.id, row.org_id, row.tenant_id, row.name, row.created_at, row.updated_at, row.status, bool(row.sandbox)
    )


def environment(row: Row[Any]) -> Environment:
    return Environment(
        row.id,
        row.program_id,
        row.name,
        row.type,
        row.region,
        row.status,
        row.tunnel_address,
        tuple(row.client_networks),
        row.created_at,
        row.updated_at,
        row.description,
        tuple(row.secondary_regions),
    )


def infrastructure(row: Row[Any]) -> NetworkInfrastructure:
    return NetworkInfrastructure(
        row.id,
        row.program_id,
        Mode(row.kind),
        row.region,
        row.status,
        tuple(row.addresses),
        dict(row.document),
        row.created_at,
        row.updated_at,
        bool(row.is_primary),
        row.generation,
        row.reason,
    )


def exceptions(connection: Connection) -> tuple[GuardException, ...]:
    table = t.guard_exceptions
    found = connection.execute(select(table).order_by(table.c.created_at, table.c.id))
    return tuple(
        GuardException(row.id, row.entry, row.environment_id, row.note, row.created_at, row.created_by) for row in found
    )


def variable(row: Row[Any]) -> Variable:
    return Variable(row.name, row.service, row.secret, "" if row.secret else row.value, row.status, row.updated_at)


def write_audit(
    connection: Connection, at: float, actor: str, action: str, target: str, detail: dict[str, object]
) -> None:
    values = {"at": at, "actor": actor, "action": action, "target": target, "detail": detail}
    connection.execute(insert(t.audit).values(**values))
