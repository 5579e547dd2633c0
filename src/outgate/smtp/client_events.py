"""What the client machine tells its owner.

Standards: RFC 5321 (each event is named after the step of a session that it ends).
Promises: events are immutable; the owner acts on one before it asks for the next.
Not here: the server machine's events (`smtp.events`), the machine (`smtp.client`).
"""

from __future__ import annotations

from dataclasses import dataclass

from outgate.smtp.reply import Reply
from outgate.smtp.transaction import TransactionResult


@dataclass(frozen=True, slots=True)
class Greeting:
    """The peer's first reply. If it is a 2xx, say `ehlo`; else `quit`."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Hello:
    """The reply to EHLO (or, if the peer knows only that, HELO), and the extensions by their names in capitals."""

    reply: Reply
    extensions: dict[str, str]


@dataclass(frozen=True, slots=True)
class TlsReady:
    """STARTTLS was answered 220: do the handshake now, then call `tls_started`, then `ehlo` again."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TlsRefused:
    """STARTTLS was refused; the session goes on in the clear."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The reply to AUTH: 2xx, or a refusal, with the status of an XOAUTH2 error challenge as its last line."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction has ended; `send` may be called again."""

    result: TransactionResult


@dataclass(frozen=True, slots=True)
class Closing:
    """Nothing more will come: the peer said 421 or answered QUIT (`reply`), or it went away (None)."""

    reply: Reply | None


Event = Greeting | Hello | TlsReady | TlsRefused | Authenticated | Done | Closing
