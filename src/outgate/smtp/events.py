"""What the server machine asks or tells its owner. Questions wait for `answer`; the parser stops meanwhile.

Standards: RFC 5321 (each question is named after the command that led to it).
Promises: events are immutable; after a question nothing more is parsed until it is answered.
Not here: the client machine's events (`smtp.client`).
"""

from __future__ import annotations

from dataclasses import dataclass

from outgate.smtp.grammar import Mailbox
from outgate.smtp.sasl import Login


@dataclass(frozen=True, slots=True)
class Connected:
    """Question: a client is there. Answer with the greeting (220), or with 554 or 421 to send it away."""


@dataclass(frozen=True, slots=True)
class TlsRequested:
    """Told: the 220 to STARTTLS is in `outgoing`; send it, do the handshake, then call `tls_started`."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Question: is this login right? Answer 235, or 535."""

    mechanism: str
    login: Login


@dataclass(frozen=True, slots=True)
class MailFrom:
    """Question: may this reverse-path send? `size` is the client's claim in octets, 0 if it made none.

    `ret` is "FULL", "HDRS" or ""; `envid` is xtext as it came (RFC 3461), "" if there is none."""

    reverse_path: Mailbox
    size: int
    body_8bit: bool
    smtputf8: bool
    ret: str = ""
    envid: str = ""
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class RcptTo:
    """Question: is this forward-path welcome?

    `notify` is "NEVER" or some of "SUCCESS,FAILURE,DELAY" in this order, `orcpt` is `type;address` as it came, in
    xtext or the UTF-8 form of RFC 6533; both "" if not given."""

    forward_path: Mailbox
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """Question: will you take it? `content` is in wire form, without the final dot line, by DATA and BDAT alike."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Aborted:
    """Told: the mail transaction that was under way is gone (RSET, EHLO, QUIT, end of the connection)."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Told: nothing more will come; `outgoing` may still hold a last reply. `reason` is for the log, where the client
    is not told."""

    reason: str = ""


Question = Connected | Authenticate | MailFrom | RcptTo | MessageReceived
Event = Question | TlsRequested | Aborted | Closed
