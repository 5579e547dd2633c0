"""What delivery keeps: status events, reports of our own, where a recipient goes and was last tried.

Standards: Alembic revision.
Promises: what was recorded before is kept.
Dangers: going down forgets what operators asked for.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "q0004"
down_revision = "q0003"
branch_labels = None
depends_on = None

_TEXTS = (("recipients", "route"), ("recipients", "site"), ("messages", "origin"), ("messages", "parent"))


def upgrade() -> None:
    """Add tables, columns and indexes, a function for each subject."""
    _texts()


def downgrade() -> None:
    """Take them away."""
    _no_texts()


def _texts() -> None:
    for table, name in _TEXTS:
        op.add_column(table, sa.Column(name, sa.String(), nullable=False, server_default=""))


def _no_texts() -> None:
    for table, name in _TEXTS:
        op.drop_column(table, name)
