"""The control plane's restrictions, enforced: may this address use the REST API of that instance?

Standards: the vendor's context-based restrictions; its audit record `context-based-restrictions.policy.eval`.
Promises: a change of rules counts from the next call on; each evaluation of a rule is one `access.decision` line, also
    of rules in report mode, which refuse nobody.
Dangers: the address is that of the peer: behind a proxy that does not keep it, all callers have the proxy's. The
    restrictions API itself is never restricted, so that nobody can lock themselves out of repairing a rule.
Not here: evaluation (`relay.access`), SMTP (`relay.session`).
"""

from __future__ import annotations

import threading

from fastapi import Request

from outgate.api.errors import Forbidden, trace_of
from outgate.base import addresses
from outgate.base.log import Log
from outgate.model.tenancy import Instance
from outgate.relay.access import AccessTable, Decision
from outgate.store.control import ControlStore

_log = Log("outgate.restrictions")
_ENDPOINT = "public"


class CurrentTable:
    """The access table of this moment, made anew when the store has changed. Thread-safe; may read the store."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._table: AccessTable | None = None

    def get(self) -> AccessTable:
        """Return a table that knows of every change that was committed, and every list that ended, before the call."""
        table = self._table
        access = self._store.access
        if table is not None and access.is_current(table.generation, table.until):
            return table
        with self._lock:
            table = self._table
            if table is None or not access.is_current(table.generation, table.until):
                table = self._table = AccessTable(access.snapshot(), table)
            return table


class Enforcement:
    """Judges the callers of an instance's REST API. Thread-safe; blocks: for the threads of synchronous operations."""

    def __init__(self, store: ControlStore) -> None:
        self._current = CurrentTable(store)

    def subnets(self, instance_id: str) -> tuple[list[str], float]:
        """Return the networks that SMTP lets in to an instance, as CIDR, and when that last changed (0.0: never)."""
        return self._current.get().subnets(instance_id)

    def check(self, request: Request, instance: Instance, subject: str) -> None:
        """Raise `Forbidden` unless every enabled rule for the control plane of `instance` allows the peer's address.

        `subject` is who calls, for the log. Without such a rule nothing is asked for."""
        address = peer_address(request)
        decided, reported = self._current.get().decide_control(instance.id, address, _ENDPOINT)
        for decision in (*reported, decided):
            if decision.rule_id:
                _log_decision(decision, request, address, instance, subject)
        if not decided.allowed:
            raise Forbidden("a context-based restriction of this instance does not allow this address")


def peer_address(request: Request) -> str:
    """Return the peer's address without scope, an IPv4-mapped one as IPv4; "" or a name if it has no address."""
    host = request.client.host if request.client else ""
    try:
        return addresses.plain(host)
    except ValueError:
        return host


def _log_decision(decision: Decision, request: Request, address: str, instance: Instance, subject: str) -> None:
    _log.info(
        "access.decision",
        api="control-plane",
        decision=decision.verdict,
        enforced=decision.enforced,
        rule=decision.rule_id,
        address=address,
        endpoint=_ENDPOINT,
        instance=instance.id,
        subject=subject,
        reason=decision.reason,
        method=request.method,
        path=request.url.path,
        trace=trace_of(request),
    )
