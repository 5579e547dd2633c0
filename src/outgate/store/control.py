"""The control database: everything but messages, behind one door.

Standards: SQLite in WAL mode, synchronous=FULL.
Promises: opening runs the missing migrations; all methods are thread-safe; `data_version()` differs after any
    change by any process.
Dangers: everything here blocks: on an event loop wrap it in `asyncio.to_thread`, but for start-up and snapshots.
Not here: messages (`sqlite`), statements (`tenancy`, `signing_keys`, `verification`, `access`, `allow_lists`,
    `identity`, `egress`, `infrastructures`, `places`, `guard_exceptions`, `placement`, `routes`, `vpc`,
    `gateways`, `suppressions`, `sts_rows`).
"""

from __future__ import annotations

from pathlib import Path

from outgate.base.clock import Clock
from outgate.store.access import AccessQueries
from outgate.store.allow_lists import AllowListQueries
from outgate.store.database import Database
from outgate.store.egress import EgressQueries
from outgate.store.gateways import GatewayQueries
from outgate.store.guard_exceptions import GuardExceptionQueries
from outgate.store.identity import IdentityQueries
from outgate.store.infrastructures import InfrastructureQueries
from outgate.store.migrations import upgrade_control
from outgate.store.placement import PlacementQueries
from outgate.store.places import PlaceQueries
from outgate.store.routes import RouteQueries
from outgate.store.secrets import SecretBox
from outgate.store.signing_keys import SigningKeyQueries
from outgate.store.sts_rows import StsQueries
from outgate.store.suppressions import SuppressionQueries
from outgate.store.tenancy import TenancyQueries
from outgate.store.verification import VerificationQueries
from outgate.store.vpc import VpcQueries


class ControlStore:
    """The control database, by subject: `tenancy`, `signing_keys`, `verification`, `access`, `allow_lists`,
    `identity`, `egress`, `infrastructures`, `places`, `guard_exceptions`, `placement`, `routes`, `vpc`,
    `gateways`, `suppressions`, `sts`."""

    def __init__(self, database: Database, box: SecretBox, clock: Clock) -> None:
        self._database = database
        self.tenancy = TenancyQueries(database, box, clock)
        self.signing_keys = SigningKeyQueries(database, box, clock)
        self.verification = VerificationQueries(database, clock)
        self.access = AccessQueries(database, clock)
        self.allow_lists = AllowListQueries(database, clock)
        self.identity = IdentityQueries(database, box, clock)
        self.egress = EgressQueries(database, box, clock)
        self.infrastructures = InfrastructureQueries(database, box, clock)
        self.places = PlaceQueries(database, clock)
        self.guard_exceptions = GuardExceptionQueries(database, clock)
        self.placement = PlacementQueries(database, clock)
        self.routes = RouteQueries(database, box, clock)
        self.vpc = VpcQueries(database, clock)
        self.gateways = GatewayQueries(database, clock)
        self.suppressions = SuppressionQueries(database, clock)
        self.sts = StsQueries(database)

    def data_version(self) -> int:
        """Return a number that differs from earlier ones once anything was committed; costs microseconds."""
        return self._database.version()

    def revision(self) -> int:
        """Return a number that grows with every change that a running service must act on: not with evidence."""
        return self._database.revision()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


def open_control(path: Path, box: SecretBox, clock: Clock) -> ControlStore:
    """Open the control database at `path`, made (0600) or migrated as needed.

    Raises `migrations.SchemaError` if a newer release made it, `OSError`.
    """
    upgrade_control(path)
    return ControlStore(Database(path), box, clock)
