"""Which roles may call which operation of the Event Notifications API.

Standards: none; the vendor publishes no table for the SMTP interface.
Promises: an operation that is not listed here cannot be routed.
Not here: the check itself (`identity.gate`).
"""

from __future__ import annotations

_READ = frozenset({"reader", "writer", "manager", "authorizer", "operator"})
_WRITE = frozenset({"writer", "manager"})
_SUPPRESS = frozenset({"writer", "manager", "operator"})
_DECIDE = frozenset({"authorizer"})
_OPERATE = frozenset({"operator"})

ROLES: dict[str, frozenset[str]] = {
    "create_smtp_configuration": _WRITE,
    "list_smtp_configurations": _READ,
    "get_smtp_configuration": _READ,
    "update_smtp_configuration": _WRITE,
    "delete_smtp_configuration": _WRITE,
    "update_verify_smtp": _WRITE,
    "get_smtp_checks": _READ,
    "get_smtp_allowed_ips": _READ,
    "submit_smtp_authorization": _WRITE,
    "get_smtp_authorization": _READ,
    "approve_smtp_authorization": _DECIDE,
    "reject_smtp_authorization": _DECIDE,
    "get_smtp_dkim": _READ,
    "update_smtp_dkim": _WRITE,
    "rotate_smtp_dkim": _WRITE,
    "cancel_smtp_dkim_rotation": _WRITE,
    "get_smtp_rules": _READ,
    "update_smtp_rules": _OPERATE,
    "get_smtp_routes": _READ,
    "replace_smtp_routes": _OPERATE,
    "test_smtp_route": _OPERATE,
    "get_smtp_settings": _READ,
    "update_smtp_settings": _OPERATE,
    "create_smtp_user": _WRITE,
    "list_smtp_users": _READ,
    "get_smtp_user": _READ,
    "update_smtp_user": _WRITE,
    "delete_smtp_user": _WRITE,
    "rotate_smtp_user": _WRITE,
    "list_endpoints": _READ,
    "list_messages": _READ,
    "get_message": _READ,
    "list_suppressions": _READ,
    "add_suppressions": _SUPPRESS,
    "get_suppression": _READ,
    "remove_suppression": _SUPPRESS,
    "import_suppressions": _SUPPRESS,
    "export_suppressions": _READ,
    "get_metrics": _READ,
    "get_bounce_metrics": _READ,
}
