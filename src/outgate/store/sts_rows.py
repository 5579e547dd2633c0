"""MTA-STS policies of other people's domains, kept over restarts.

Standards: RFC 8461 section 5 (a policy counts until its max_age has passed).
Promises: one row per domain; nobody is told of a change: they are memory, not configuration.
Dangers: without them the next start would trust whoever answers first.
Not here: which are kept and how long (`relay.sts_policies`).
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, insert, select

from outgate.domains.mta_sts import Kept, Policy
from outgate.store.database import Database
from outgate.store.tables import sts_policies


class StsQueries:
    """Statements about kept policies. Thread-safe; each blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Kept]:
        """Return every policy, the longest unused first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(sts_policies).order_by(sts_policies.c.used_at)).all()
        return [
            Kept(
                row.domain, row.policy_id, Policy(row.mode, tuple(row.hosts), row.max_age), row.fetched_at, row.used_at
            )
            for row in rows
        ]

    def keep(self, kept: Kept) -> None:
        """Write a policy in place of its domain's earlier one."""
        with self._database.writing(noted=False) as connection:
            connection.execute(delete(sts_policies).where(sts_policies.c.domain == kept.domain))
            connection.execute(
                insert(sts_policies).values(
                    domain=kept.domain,
                    policy_id=kept.id,
                    mode=kept.policy.mode,
                    hosts=list(kept.policy.hosts),
                    max_age=kept.policy.max_age,
                    fetched_at=kept.fetched_at,
                    used_at=kept.used_at,
                )
            )

    def drop(self, domains: Collection[str]) -> None:
        """Forget the policies of these domains."""
        with self._database.writing(noted=False) as connection:
            for domain in domains:
                connection.execute(delete(sts_policies).where(sts_policies.c.domain == domain))
