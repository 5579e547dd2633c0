"""Standing of configurations, authorisation forms, rotation of credentials, API keys that tell who made them.

Standards: Alembic revision.
Promises: a configuration whose SPF and DKIM were successful stands verified, and is looked at again at once.
Dangers: going down forgets who is suspended and which forms were answered.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c0002"
down_revision = "c0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns, indexes and the forms."""
    op.add_column(
        "smtp_configurations", sa.Column("standing", sa.String(), nullable=False, server_default="unverified")
    )
    op.add_column("smtp_configurations", sa.Column("standing_since", sa.Float(), nullable=False, server_default="0"))
    op.add_column("smtp_configurations", sa.Column("failing", sa.String(), nullable=False, server_default=""))
    op.add_column("smtp_configurations", sa.Column("recheck_at", sa.Float()))
    op.execute(
        "UPDATE smtp_configurations SET standing = 'verified', standing_since = updated_at, recheck_at = 0"
        " WHERE spf = 'SUCCESSFUL' AND dkim = 'SUCCESSFUL' AND deleted_at IS NULL"
    )
    op.create_index(
        "smtp_configurations_listed",
        "smtp_configurations",
        ["instance_id", "created_at", "id", "deleted_at"],
        sqlite_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "smtp_configurations_recheck",
        "smtp_configurations",
        ["recheck_at"],
        sqlite_where=sa.text("recheck_at IS NOT NULL"),
    )
    op.create_table(
        "authorization_forms",
        sa.Column("smtp_config_id", sa.String(), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("submitted_at", sa.Float(), nullable=False),
        sa.Column("submitted_by", sa.String(), nullable=False),
        sa.Column("decision", sa.String()),
        sa.Column("decided_at", sa.Float()),
        sa.Column("decided_by", sa.String()),
        sa.Column("reason", sa.String()),
        sa.ForeignKeyConstraint(["smtp_config_id"], ["smtp_configurations.id"]),
        sa.PrimaryKeyConstraint("smtp_config_id"),
    )
    op.add_column("evidence", sa.Column("record", sa.String(), nullable=False, server_default=""))
    op.add_column("credentials", sa.Column("former_verifier", sa.String()))
    op.add_column("credentials", sa.Column("former_until", sa.Float()))
    op.add_column("api_keys", sa.Column("description", sa.String(), nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("created_by", sa.String(), nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("updated_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("api_keys", sa.Column("version", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Take them away."""
    for column in ("version", "updated_at", "created_by", "description"):
        op.drop_column("api_keys", column)
    op.drop_column("credentials", "former_until")
    op.drop_column("credentials", "former_verifier")
    op.drop_column("evidence", "record")
    op.drop_table("authorization_forms")
    op.drop_index("smtp_configurations_recheck", "smtp_configurations")
    op.drop_index("smtp_configurations_listed", "smtp_configurations")
    for column in ("recheck_at", "failing", "standing_since", "standing"):
        op.drop_column("smtp_configurations", column)
