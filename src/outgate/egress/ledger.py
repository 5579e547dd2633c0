"""What befell every connection, told once: to the audit, and to the figures per rule.

Standards: none.
Promises: each connection is told of as refused, or as opened and then closed; nothing else writes the audit; the line
    at close has the codes of all that was noticed meanwhile.
Dangers: a connection that is noticed and never closed is remembered: carriers close each one that they opened.
Not here: the file (`audit`), the sums (`figures`), who decides (`gate`, `reach`).
"""

from __future__ import annotations

from outgate.base.clock import Clock
from outgate.egress.audit import Audit, Connection
from outgate.egress.figures import Figures
from outgate.egress.refusal import Refused

_MOST_NOTICES = 16


class Ledger:
    """Told by whoever carries connections; lives on their event loop."""

    def __init__(self, audit: Audit, clock: Clock, figures: Figures | None = None) -> None:
        self.figures = Figures() if figures is None else figures
        self._audit = audit
        self._clock = clock
        self._notices: dict[str, list[str]] = {}

    def opened(self, connection: Connection, *, reason: str) -> None:
        """Note that a connection goes through."""
        now = self._clock.now()
        self.figures.opened(connection, now)
        self._audit.decision(now, connection, reason=reason)

    def refused(self, connection: Connection, refused: Refused) -> None:
        """Note that one does not, and why."""
        now = self._clock.now()
        self.figures.refused(connection, refused, now)
        self._audit.decision(now, connection, refusal=refused.kind, reason=str(refused))

    def noticed(self, connection: Connection, *, code: str, reason: str) -> None:
        """Note something about an open connection that its owner should know; each code once a connection."""
        codes = self._notices.setdefault(connection.id, [])
        if code in codes or len(codes) >= _MOST_NOTICES:
            return
        codes.append(code)
        self.figures.noticed(connection, code)
        self._audit.notice(self._clock.now(), connection, code=code, reason=reason)

    def closed(self, connection: Connection, *, bytes_up: int, bytes_down: int, duration_s: float, reason: str) -> None:
        """Note that an opened connection has ended."""
        codes = self._notices.pop(connection.id, ()) if self._notices else ()
        self.figures.closed(connection, bytes_up=bytes_up, bytes_down=bytes_down)
        self._audit.close_of(
            self._clock.now(),
            connection,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            duration_s=duration_s,
            reason=reason,
            notices=tuple(codes),
        )
