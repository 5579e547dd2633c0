"""Which roles may call which operation of the restrictions API.

Standards: none.
Promises: an operation that is not listed here cannot be routed.
Not here: the check itself (`identity.gate`).
"""

from __future__ import annotations

_READ = frozenset({"reader", "writer", "manager"})
_MANAGE = frozenset({"manager"})

ROLES: dict[str, frozenset[str]] = {
    "create_zone": _MANAGE,
    "list_zones": _READ,
    "get_zone": _READ,
    "create_rule": _MANAGE,
    "list_rules": _READ,
    "get_rule": _READ,
}
