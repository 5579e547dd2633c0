"""What can go wrong in a conversation, told apart by who broke the rules.

Standards: RFC 5321.
Promises: any bytes at all give events, replies or `RemoteProtocolError`, never another exception.
Not here: refusals by policy; those are replies, not errors.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Somebody broke the rules of the conversation."""


class LocalProtocolError(ProtocolError):
    """Our own caller asked a machine for something the standard does not allow in this state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what no standard allows; the connection is of no further use."""


class SpokeEarly(RemoteProtocolError):
    """The peer spoke between its 220 to STARTTLS and the handshake: so would someone in between (RFC 3207 section
    6)."""

    def __init__(self) -> None:
        super().__init__("the peer spoke between its 220 to STARTTLS and the handshake")
