"""What the submission listener needs: endpoint gateways, allow-lists, keys as passwords, rules of content and quota.

Standards: Alembic revision.
Promises: nobody's mail is treated otherwise before an operator says so.
Dangers: going down forgets gateways and allow-lists: who came in through them stays out.
Not here: the schema as it is now (`store.tables`).
"""

from __future__ import annotations

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
    pass


def _no_allow_lists() -> None:
    pass


def _keys() -> None:
    pass


def _no_keys() -> None:
    pass


def _rules() -> None:
    pass


def _no_rules() -> None:
    pass
