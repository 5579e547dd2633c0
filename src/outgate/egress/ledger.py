"""What befell every connection, told once: to the audit, and to the figures per rule.

Standards: none.
Promises: each connection is told of as refused, or as opened and then closed; nothing else writes the audit.
Not here: the file (`audit`), who decides (`gate`, `reach`).
"""

from __future__ import annotations

from outgate.base.clock import Clock
from outgate.egress.audit import Audit, Connection
from outgate.egress.refusal import Refused


class Ledger:
    """Told by whoever carries connections; lives on their event loop."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def opened(self, connection: Connection, *, reason: str) -> None:
        """Note that a connection goes through."""
        self._audit.decision(self._clock.now(), connection, reason=reason)

    def refused(self, connection: Connection, refused: Refused) -> None:
        """Note that one does not, and why."""
        self._audit.decision(self._clock.now(), connection, refusal=refused.kind, reason=str(refused))

    def noticed(self, connection: Connection, *, code: str, reason: str) -> None:
        """Note something about an open connection that its owner should know."""
        self._audit.notice(self._clock.now(), connection, code=code, reason=reason)

    def closed(self, connection: Connection, *, bytes_up: int, bytes_down: int, duration_s: float, reason: str) -> None:
        """Note that an opened connection has ended."""
        self._audit.close_of(
            self._clock.now(),
            connection,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            duration_s=duration_s,
            reason=reason,
        )
