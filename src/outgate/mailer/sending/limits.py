"""How a mail service uses connections.

Standards: none.
Promises: pure; what makes no sense is a `ValueError`.
Not here: what the limits are for (`mailer.sending.steps`, `mailer.sending.idle`), the time-outs of each wait
(`smtp.connecting`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How a service uses connections: how many at once, how many seconds each may be idle, how many messages each may
    carry; and how many seconds a whole `send` may take, waiting for its turn included."""

    connections: int = 8
    idle: float = 60.0
    messages: int = 100
    send: float = 600.0

    def __post_init__(self) -> None:
        if self.connections < 1 or self.messages < 1 or self.idle < 0 or not self.send > 0:
            raise ValueError("limits: at least one connection, one message, and some time")
