"""The legacy allow-list of each instance in the control database.

Standards: RFC 9110 (If-Match: a version is compared in the transaction that changes the row).
Promises: every method is one transaction; an instance has one list at most; a change is one of who may connect.
Dangers: a list that has ended stays in its row and counts for nothing: who reads it compares `ends_at` with the time.
Not here: what may stand in a list (`api.restrictions`), what it lets in (`relay.access`).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from outgate.base import ids
from outgate.base.clock import Clock
from outgate.model.access import Address, AllowList
from outgate.store.database import Database
from outgate.store.tables import allow_lists, instances
from outgate.store.tenancy_rows import Changed, Conflict, NotThere, find_instance


class AllowListQueries:
    """Read and change allow-lists. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def all(self, account_id: str) -> tuple[AllowList, ...]:
        """Return the lists of an account's instances, those that end first first."""
        with self._database.reading() as connection:
            return _found(connection, account_id)

    def get(self, account_id: str, instance_id: str) -> AllowList | None:
        """Return the list of an account's instance, or None."""
        with self._database.reading() as connection:
            return next(iter(_found(connection, account_id, instance_id)), None)

    def create(
        self, account_id: str, instance_id: str, *, networks: tuple[Address, ...], ends_at: float, note: str, by: str
    ) -> AllowList:
        """Make the list of an account's instance. Raises `NotThere` (the instance), `Conflict` (it has one)."""
        now = self._clock.now()
        made = AllowList(instance_id, networks, ends_at, note, ids.hex_id(), now, now, by, by)
        try:
            with self._database.writing(access=True) as connection:
                instance = find_instance(connection, instance_id)
                if instance is None or instance.account_id != account_id:
                    raise NotThere(f"instance {instance_id}")
                connection.execute(insert(allow_lists).values(**_values(made)))
        except IntegrityError as error:
            raise Conflict("", "the instance has an allow-list already") from error
        return made

    def replace(
        self,
        account_id: str,
        instance_id: str,
        *,
        expected: Set[str] | None,
        networks: tuple[Address, ...],
        ends_at: float,
        note: str,
        by: str,
    ) -> AllowList:
        """Replace all of a list if its version is one of `expected` (None: any). Raises `NotThere`, `Changed`."""
        with self._database.writing(access=True) as connection:
            changed = replace(
                _current(connection, account_id, instance_id, expected),
                networks=networks,
                ends_at=ends_at,
                note=note,
                version=ids.hex_id(),
                updated_at=self._clock.now(),
                updated_by=by,
            )
            mine = allow_lists.c.instance_id == instance_id
            connection.execute(update(allow_lists).where(mine).values(**_values(changed)))
        return changed

    def delete(self, account_id: str, instance_id: str, *, expected: Set[str] | None = None) -> None:
        """Delete a list if its version is one of `expected` (None: any). Raises `NotThere`, `Changed`."""
        with self._database.writing(access=True) as connection:
            _current(connection, account_id, instance_id, expected)
            connection.execute(delete(allow_lists).where(allow_lists.c.instance_id == instance_id))


def all_allow_lists(connection: Connection) -> tuple[AllowList, ...]:
    """Return every list, ended ones too: for a snapshot."""
    return tuple(_allow_list_of(row) for row in connection.execute(select(allow_lists)))


def _found(connection: Connection, account_id: str, instance_id: str | None = None) -> tuple[AllowList, ...]:
    query = select(allow_lists).join(instances).where(instances.c.account_id == account_id)
    if instance_id is not None:
        query = query.where(allow_lists.c.instance_id == instance_id)
    ordered = query.order_by(allow_lists.c.ends_at, allow_lists.c.instance_id)
    return tuple(_allow_list_of(row) for row in connection.execute(ordered))


def _current(connection: Connection, account_id: str, instance_id: str, expected: Set[str] | None) -> AllowList:
    for found in _found(connection, account_id, instance_id):
        if expected is not None and found.version not in expected:
            raise Changed(f"the allow-list of instance {instance_id} was changed")
        return found
    raise NotThere(f"the allow-list of instance {instance_id}")


def _values(given: AllowList) -> dict[str, object]:
    return {
        "instance_id": given.instance_id,
        "networks": [[address.type, address.value] for address in given.networks],
        "ends_at": given.ends_at,
        "note": given.note,
        "version": given.version,
        "created_at": given.created_at,
        "updated_at": given.updated_at,
        "created_by": given.created_by,
        "updated_by": given.updated_by,
    }


def _allow_list_of(row: Row[Any]) -> AllowList:
    return AllowList(
        row.instance_id,
        tuple(Address(kind, value) for kind, value in row.networks),
        row.ends_at,
        row.note,
        row.version,
        row.created_at,
        row.updated_at,
        row.created_by,
        row.updated_by,
    )
