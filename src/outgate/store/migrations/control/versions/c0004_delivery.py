"""What delivery goes by: routes of configurations, suppressed addresses, signing keys side by side, MTA-STS policies.

Standards: Alembic revision.
Promises: mail goes as it went before, until somebody says otherwise.
Dangers: going down forgets suppressed addresses: they would be mailed again.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c0004"
down_revision = "c0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns, a function for each subject."""
    _signing_keys()
    _routes()
    _suppressions()
    _sts_policies()


def downgrade() -> None:
    """Take them away."""
    _no_routes()
    _no_suppressions()
    _no_signing_keys()
    _no_sts_policies()


def _signing_keys() -> None:
    """A key has a state: what a configuration signs with is active, what it signed with before is retired now."""
    op.add_column("dkim_keys", sa.Column("state", sa.String(), nullable=False, server_default="active"))
    op.add_column("dkim_keys", sa.Column("changed_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("dkim_keys", sa.Column("published", sa.String(), nullable=False, server_default="PENDING"))
    op.add_column("smtp_configurations", sa.Column("second_key_id", sa.String()))
    op.create_index("dkim_keys_retired", "dkim_keys", ["changed_at"], sqlite_where=sa.text("state = 'retired'"))
    op.execute("UPDATE dkim_keys SET changed_at = created_at")
    # Nobody knows when a key was replaced: it counts from now.
    op.execute(
        "UPDATE dkim_keys SET state = 'retired', changed_at = CAST(strftime('%s', 'now') AS REAL)"
        " WHERE id NOT IN (SELECT key_id FROM smtp_configurations)"
    )
    op.execute(
        "UPDATE dkim_keys SET published = (SELECT dkim FROM smtp_configurations WHERE key_id = dkim_keys.id)"
        " WHERE state = 'active'"
    )


def _no_signing_keys() -> None:
    op.drop_index("dkim_keys_retired", "dkim_keys")
    op.drop_column("smtp_configurations", "second_key_id")
    for name in ("state", "changed_at", "published"):
        op.drop_column("dkim_keys", name)


def _routes() -> None:
    op.create_table(
        "routes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("smtp_config_id", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary()),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["smtp_config_id"], ["smtp_configurations.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("smtp_config_id", "place"),
        sa.UniqueConstraint("smtp_config_id", "name"),
    )


def _no_routes() -> None:
    op.drop_table("routes")


def _suppressions() -> None:
    op.create_table(
        "suppressions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    for name, columns in (
        ("suppressions_in_order", ["instance_id", "id", "expires_at"]),
        ("suppressions_by_reason", ["instance_id", "reason", "id", "expires_at"]),
        ("suppressions_by_source", ["instance_id", "source", "id", "expires_at"]),
    ):
        op.create_index(name, "suppressions", columns)
    op.create_index("suppressions_by_key", "suppressions", ["instance_id", "key"], unique=True)
    op.create_index(
        "suppressions_ending",
        "suppressions",
        ["expires_at", "instance_id"],
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_table(
        "suppression_totals",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"]),
        sa.PrimaryKeyConstraint("instance_id"),
    )


def _no_suppressions() -> None:
    op.drop_table("suppression_totals")
    op.drop_table("suppressions")


def _sts_policies() -> None:
    op.create_table(
        "sts_policies",
        sa.Column("domain", sa.String(), nullable=False, primary_key=True),
        sa.Column("policy_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("hosts", sa.JSON(), nullable=False),
        sa.Column("max_age", sa.Integer(), nullable=False),
        sa.Column("fetched_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=False),
    )


def _no_sts_policies() -> None:
    op.drop_table("sts_policies")
