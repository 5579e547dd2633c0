"""Which roles may call which operation of the restrictions API.

Standards: none.
Promises: an operation that is not listed here cannot be routed.
Not here: the check itself (`identity.gate`).
"""

from __future__ import annotations

_READ = frozenset({"reader", "writer", "manager", "authorizer", "operator"})
_MANAGE = frozenset({"manager"})

ROLES: dict[str, frozenset[str]] = {
    "create_zone": _MANAGE,
    "list_zones": _READ,
    "get_zone": _READ,
    "replace_zone": _MANAGE,
    "delete_zone": _MANAGE,
    "list_available_serviceref_targets": _READ,
    "get_serviceref_target": _READ,
    "create_rule": _MANAGE,
    "list_rules": _READ,
    "get_rule": _READ,
    "replace_rule": _MANAGE,
    "delete_rule": _MANAGE,
    "list_allow_lists": _READ,
    "get_allow_list": _READ,
    "put_allow_list": _MANAGE,
    "delete_allow_list": _MANAGE,
    "get_account_settings": _READ,
    "list_available_service_operations": _READ,
    "explain_access": _READ,
}
