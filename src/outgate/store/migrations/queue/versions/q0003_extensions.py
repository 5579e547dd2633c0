"""What a client asks for with DSN and REQUIRETLS, and what quotas are counted by.

Standards: Alembic revision.
Promises: mail queued before asks for nothing.
Dangers: going down forgets what senders asked for.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "q0003"
down_revision = "q0002"
branch_labels = None
depends_on = None

_ASKED = (("messages", "ret"), ("messages", "envid"), ("recipients", "notify"), ("recipients", "orcpt"))


def upgrade() -> None:
    """Add columns and indexes, a function for each subject."""
    _asked()
    _quota()


def downgrade() -> None:
    """Take them away."""
    _no_quota()
    _no_asked()


def _asked() -> None:
    for table, name in _ASKED:
        op.add_column(table, sa.Column(name, sa.String(), nullable=False, server_default=""))
    op.add_column("messages", sa.Column("requiretls", sa.Boolean(), nullable=False, server_default="0"))


def _no_asked() -> None:
    op.drop_column("messages", "requiretls")
    for table, name in _ASKED:
        op.drop_column(table, name)


def _quota() -> None:
    op.add_column("messages", sa.Column("counted_at", sa.Float()))
    op.add_column("messages", sa.Column("warning", sa.String(), nullable=False, server_default=""))
    op.create_index(
        "messages_counted",
        "messages",
        ["smtp_config_id", "counted_at"],
        sqlite_where=sa.text("counted_at IS NOT NULL"),
    )


def _no_quota() -> None:
    op.drop_index("messages_counted", "messages")
    op.drop_column("messages", "warning")
    op.drop_column("messages", "counted_at")
