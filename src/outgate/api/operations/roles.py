"""Which roles may call which operation of the operations API.

Standards: none.
Promises: an operation that is not listed here cannot be routed.
Not here: the check itself (`api.identity.gate`).
"""

from __future__ import annotations

_OPERATE = frozenset({"operator"})

ROLES: dict[str, frozenset[str]] = {
    "list_sources": _OPERATE,
    "list_ways": _OPERATE,
}
