"""Which roles may call which operation on the queue and on the egress.

Standards: none.
Promises: an operation that is not listed here cannot be routed; both are everybody's, so only who runs the service
    sees and changes it.
Not here: the check itself (`api.identity.gate`).
"""

from __future__ import annotations

_OPERATE = frozenset({"operator"})

ROLES: dict[str, frozenset[str]] = {
    "show_queue": _OPERATE,
    "list_queue_messages": _OPERATE,
    "hold_queue": _OPERATE,
    "release_queue": _OPERATE,
    "retry_queue": _OPERATE,
    "cancel_queue": _OPERATE,
    "reroute_queue": _OPERATE,
    "list_holds": _OPERATE,
    "list_sources": _OPERATE,
    "list_ways": _OPERATE,
    "show_egress": _OPERATE,
    "list_egress_addresses": _OPERATE,
    "list_egress_environments": _OPERATE,
    "place_egress_environment": _OPERATE,
    "list_guard_exceptions": _OPERATE,
    "add_guard_exception": _OPERATE,
    "remove_guard_exception": _OPERATE,
    "read_egress_audit": _OPERATE,
}
