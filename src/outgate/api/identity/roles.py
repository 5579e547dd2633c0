"""Which roles there are, and which may call which operation of the identity API.

Standards: none; the vendor's platform roles are another set.
Promises: an operation that is not listed here cannot be routed; a token is asked for with a key, not with a role;
    who has a role may do whatever the roles that it covers may (a test asks every API); the role smtp may call nothing.
Not here: the check itself (`gate`), which roles a key may be given (`keys`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Role = Literal["reader", "writer", "manager", "authorizer", "operator", "runtime", "smtp"]
ALL_ROLES: tuple[Role, ...] = get_args(Role)

_READ = frozenset({"reader", "writer", "manager", "authorizer", "operator"})
_MANAGE = frozenset({"manager"})

# A writer may do whatever a reader may, a manager whatever a writer may, in every table; the others stand alone.
# A key with the role smtp is a password of the account's SMTP users, and a manager may rotate theirs.
_COVERED = {"writer": {"reader"}, "manager": {"reader", "writer", "smtp"}}

ROLES: dict[str, frozenset[str]] = {
    "create_api_key": _MANAGE,
    "list_api_keys": _READ,
    "get_api_keys_details": _READ,
    "get_api_key": _READ,
    "update_api_key": _MANAGE,
    "delete_api_key": _MANAGE,
}


def covered(roles: Iterable[str]) -> frozenset[str]:
    """Return the roles, and those that may do nothing that these may not."""
    return frozenset(roles).union(*(_COVERED.get(role, ()) for role in roles))
