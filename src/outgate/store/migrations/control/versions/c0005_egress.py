"""What the egress goes by: states of programs and infrastructures, VPN keys, what the guard lets through.

Standards: Alembic revision.
Promises: what left before leaves as before.
Dangers: going down forgets exceptions and shared keys, and environments that are being deleted.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c0005"
down_revision = "c0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns, a function for each subject."""
    _places()
    _infrastructures()
    _exceptions()


def downgrade() -> None:
    """Take them away."""
    _no_exceptions()
    _no_infrastructures()
    _no_places()


def _places() -> None:
    op.add_column("programs", sa.Column("status", sa.String(), nullable=False, server_default="ready"))
    op.add_column("programs", sa.Column("sandbox", sa.Boolean(), nullable=False, server_default="0"))
    op.add_column("environments", sa.Column("description", sa.String(), nullable=False, server_default=""))
    op.add_column("environments", sa.Column("secondary_regions", sa.JSON(), nullable=False, server_default="[]"))


def _no_places() -> None:
    # The release before moves nothing out of these states.
    op.execute("DELETE FROM environments WHERE status = 'deleting'")
    op.execute("UPDATE environments SET status = 'ready' WHERE status = 'creating'")
    for table, names in (("programs", ("status", "sandbox")), ("environments", ("description", "secondary_regions"))):
        for name in names:
            op.drop_column(table, name)


def _infrastructures() -> None:
    table = "network_infrastructures"
    op.add_column(table, sa.Column("is_primary", sa.Boolean(), nullable=False, server_default="1"))
    op.add_column(table, sa.Column("generation", sa.Integer(), nullable=False, server_default="1"))
    op.add_column(table, sa.Column("reason", sa.String(), nullable=False, server_default=""))
    op.add_column(table, sa.Column("sealed", sa.LargeBinary()))
    # It stood among the vendor's fields before.
    op.execute(
        "UPDATE network_infrastructures SET is_primary = 0 WHERE json_extract(document, '$.isPrimaryRegion') = 0"
    )


def _no_infrastructures() -> None:
    for name in ("is_primary", "generation", "reason", "sealed"):
        op.drop_column("network_infrastructures", name)


def _exceptions() -> None:
    op.create_table(
        "guard_exceptions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("entry", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("entry", "environment_id"),
    )


def _no_exceptions() -> None:
    op.drop_table("guard_exceptions")
