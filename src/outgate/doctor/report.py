"""What the doctor finds: hops in their order, findings, and the exit code that they lead to.

Standards: none.
Promises: pure; nothing that a finding holds is a secret: whoever makes one puts names into it, never values.
Not here: the checks themselves, how a report is printed (`doctor.printing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Hop(StrEnum):
    """The way of a mail, in order: the doctor stops at the first hop that is broken."""

    FILE = "file"
    PLACEHOLDERS = "placeholders"
    VARIABLES = "variables"
    FORWARD = "forward"
    TUNNEL = "tunnel"
    TARGET_DNS = "target DNS"
    TCP = "TCP"
    TLS = "TLS"
    EHLO = "EHLO"
    AUTH = "AUTH"
    SENDER = "sender"
    DELIVERY = "delivery"


class State(StrEnum):
    """How a hop stands. UNKNOWN: it could not be looked at from here (`text` says why); the walk goes on."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen at a hop.

    `rule` is a stable id ("env-reads-secret"; "" for what is fine), `text` one sentence of what is so, `remedy` the one
    thing to change. `change` is the exact line to write, or the exact command to run, "" if there is none. `file`,
    `line`, `column` (from 1; 0 unknown) say where the line stands."""

    hop: Hop
    state: State
    text: str
    rule: str = ""
    remedy: str = ""
    change: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


# Classes of trouble by who can mend it; 0, 1, 2 and 3 mean what they mean for every command.
_EXITS = {
    Hop.FILE: 10,
    Hop.PLACEHOLDERS: 11,
    Hop.VARIABLES: 12,
    Hop.FORWARD: 13,
    Hop.TUNNEL: 14,
    Hop.TARGET_DNS: 15,
    Hop.TCP: 16,
    Hop.TLS: 17,
    Hop.EHLO: 18,
    Hop.AUTH: 19,
    Hop.SENDER: 20,
    Hop.DELIVERY: 21,
}


@dataclass(slots=True)
class Report:
    """All findings of one walk, in order."""

    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def broken(self) -> Finding | None:
        """Return the first finding that breaks the way, None if nothing does."""
        return next((each for each in self.findings if each.state is State.BROKEN), None)

    @property
    def exit_code(self) -> int:
        """Return 0 if the way is whole, else the class of its first broken hop: 10 file, 11 placeholders, 12 variables,
        13 forward, 14 tunnel, 15 target DNS, 16 TCP, 17 TLS, 18 EHLO, 19 AUTH, 20 sender, 21 delivery."""
        broken = self.broken
        return 0 if broken is None else _EXITS[broken.hop]
