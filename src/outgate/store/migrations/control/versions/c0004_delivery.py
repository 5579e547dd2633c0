"""What delivery goes by: routes of configurations, suppressed addresses, signing keys side by side, MTA-STS policies.

Standards: Alembic revision.
Promises: mail goes as it went before, until somebody says otherwise.
Dangers: going down forgets suppressed addresses: they would be mailed again.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

revision = "c0004"
down_revision = "c0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns, a function for each subject."""


def downgrade() -> None:
    """Take them away."""
