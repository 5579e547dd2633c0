"""Held recipients are found by how long they have been held.

Standards: Alembic revision.
Promises: an index only; no row changes.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "q0002"
down_revision = "q0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("recipients_held", "recipients", ["updated_at"], sqlite_where=sa.text("status = 'held'"))


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("recipients_held", "recipients")
