"""Which roles may call which operation of the Event Notifications API.

Standards: none; the vendor publishes no table for the SMTP interface.
Promises: an operation that is not listed here cannot be routed.
Not here: the check itself (`identity.gate`).
"""

from __future__ import annotations

_READ = frozenset({"reader", "writer", "manager"})
_WRITE = frozenset({"writer", "manager"})

ROLES: dict[str, frozenset[str]] = {
    "create_smtp_configuration": _WRITE,
    "list_smtp_configurations": _READ,
    "get_smtp_configuration": _READ,
    "update_verify_smtp": _WRITE,
    "create_smtp_user": _WRITE,
    "list_messages": _READ,
    "get_message": _READ,
}
