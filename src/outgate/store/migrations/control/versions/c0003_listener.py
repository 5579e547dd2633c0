"""What the submission listener needs: endpoint gateways, allow-lists, keys as passwords, rules of content and quota.

Standards: Alembic revision.
Promises: nobody's mail is treated otherwise before an operator says so.
Dangers: going down forgets gateways and allow-lists: who came in through them stays out. It deletes API keys with the
role smtp that are bound to instances: unbound, they would open all of their account.
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
    op.create_table(
        "vpcs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("crn", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("crn"),
        sa.UniqueConstraint("account_id", "name"),
    )
    op.create_table(
        "subnets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("vpc_id", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("network", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("vpc_id", "name"),
    )
    op.create_table(
        "endpoint_gateways",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("vpc_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("service_endpoint", sa.String(), nullable=False),
        sa.Column("dns_mode", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("vpc_id", "name"),
        sa.UniqueConstraint("vpc_id", "service_endpoint"),
    )
    op.create_table(
        "reserved_ips",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("subnet_id", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("auto_delete", sa.Boolean(), nullable=False),
        sa.Column("gateway_id", sa.String()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"]),
        sa.ForeignKeyConstraint(["gateway_id"], ["endpoint_gateways.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("gateway_id"),
        sa.UniqueConstraint("subnet_id", "address"),
        sa.UniqueConstraint("subnet_id", "name"),
    )


def _no_gateways() -> None:
    for table in ("reserved_ips", "endpoint_gateways", "subnets", "vpcs"):
        op.drop_table(table)


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
    keys = sa.table("api_keys", sa.column("id"), sa.column("roles", sa.JSON), sa.column("instances", sa.JSON))
    connection = op.get_bind()
    for key in connection.execute(sa.select(keys).where(keys.c.instances.is_not(None))).all():
        if key.instances is not None and "smtp" in key.roles:
            connection.execute(sa.delete(keys).where(keys.c.id == key.id))
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
