"""A mail transaction as a client makes it, and what became of it.

Standards: RFC 5321 section 3.3 (the three steps of a transaction).
Promises: a reply for every recipient that got one; the conversation can be read back step by step.
Dangers: behind the final dot a lost answer means "unknown" (`sent_all`), not "failed".
Not here: how it is made (`smtp.client`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from outgate.smtp import grammar
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.reply import Reply, reply

UTF8_NOT_OFFERED = reply(553, "5.6.7", "The next server does not offer SMTPUTF8, which this message needs")
"""Our own verdict, not the peer's: `TransactionResult.error` says so."""
REQUIRETLS_NOT_OFFERED = reply(550, "5.7.30", "The next server does not offer REQUIRETLS, which the sender requires")
"""Our own verdict likewise (RFC 8689 section 4.2.1)."""


class Step(NamedTuple):
    """One step of a conversation: when its reply was read (epoch seconds), what we said, the reply or error."""

    at: float
    did: str
    reply: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """One mail transaction to make. `reverse_path` "" is the null sender.

    `content` are buffers in wire form: dot-stuffed, every line ends in CR LF, without the final dot line.
    `size` is told to the peer in octets (0: not told). `requiretls`: no server may have it that does not promise to
    hold the next ones to TLS, unless it is the null sender's. `token` is the caller's own. `ret`, `envid`, and of each
    recipient `notify` and `orcpt` ("" for none; () for none of all) are what DSN asks for (RFC 3461), in the form of
    the wire; a peer that does not offer DSN is told nothing of it."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: tuple[bytes, ...]
    body_8bit: bool = False
    smtputf8: bool = False
    size: int = 0
    requiretls: bool = False
    token: object = None
    ret: str = ""
    envid: str = ""
    notify: tuple[str, ...] = ()
    orcpt: tuple[str, ...] = ()

    def mail_options(self) -> str:
        """Return DSN's parameters of MAIL, each behind a space."""
        return (f" RET={self.ret}" if self.ret else "") + (f" ENVID={self.envid}" if self.envid else "")

    def recipient_options(self, index: int) -> str:
        """Return DSN's parameters of RCPT for recipient number `index`, each behind a space."""
        notify = self.notify[index] if self.notify else ""
        orcpt = self.orcpt[index] if self.orcpt else ""
        return (f" NOTIFY={notify}" if notify else "") + (f" ORCPT={orcpt}" if orcpt else "")


@dataclass(slots=True)
class TransactionResult:
    """What became of a transaction. A reply that never came is None; `error` says why it ended without one.

    `sent_all`: the final dot was handed over, so without `final` nobody knows whether the peer has the
    message. `final` stays None when no recipient was taken. Times are epoch seconds, 0 if unknown. `dsn`: the peer
    offers DSN and was told what is asked for. `broken`: it ended because the peer broke the protocol."""

    transaction: Transaction
    mail: Reply | None = None
    recipients: tuple[Reply | None, ...] = ()
    data: Reply | None = None
    final: Reply | None = None
    sent_all: bool = False
    error: str = ""
    envelope_at: float = 0.0
    final_at: float = 0.0
    dsn: bool = False
    broken: bool = False

    def reply_for(self, index: int) -> Reply | None:
        """Return the reply that settles recipient number `index`: a 2xx only if the peer took the message.

        None: nothing settled it (see `error`), so it may be tried again."""
        if self.mail is None or not self.mail.ok:
            return self.mail
        own = self.recipients[index]
        if own is None or not own.ok:
            return own
        if self.data is None or self.data.code >= 400:
            return self.data
        return self.final

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the conversation, made when asked: the envelope, then the content."""
        transaction = self.transaction
        if self.mail is UTF8_NOT_OFFERED:
            return (Step(self.envelope_at, "looked for SMTPUTF8 among the extensions", self.error),)
        if self.mail is REQUIRETLS_NOT_OFFERED:
            return (Step(self.envelope_at, "looked for REQUIRETLS among the extensions", self.error),)
        said = [f"MAIL FROM:<{transaction.reverse_path}>" + (transaction.mail_options() if self.dsn else "")]
        heard = [str(self.mail)] if self.mail is not None else []
        if heard:
            said += [
                f"RCPT TO:<{recipient}>" + (transaction.recipient_options(index) if self.dsn else "")
                for index, recipient in enumerate(transaction.recipients)
            ]
            heard += [str(reply) for reply in self.recipients if reply is not None]
        if self.data is not None:
            said.append("DATA")
            heard.append(str(self.data))
        steps = [Step(self.envelope_at, " + ".join(said), " | ".join(heard) or self.error)]
        if self.sent_all:
            octets = sum(map(len, transaction.content))
            last = str(self.final) if self.final is not None else self.error
            steps.append(Step(self.final_at, f"{octets} octets of content and the final dot", last))
        elif self.error and heard:
            steps.append(Step(self.final_at, "", self.error))
        return tuple(steps)


def needs_utf8(transaction: Transaction) -> bool:
    """Say whether the peer must offer SMTPUTF8 for it."""
    if transaction.smtputf8 or not transaction.reverse_path.isascii():
        return True
    return not all(map(str.isascii, transaction.recipients))


def check(transaction: Transaction) -> None:
    """Raise `LocalProtocolError` for what would be read as something else on the wire."""
    if not transaction.recipients:
        raise LocalProtocolError("a transaction needs a recipient")
    check_paths(transaction)
    if "" in transaction.recipients:
        raise LocalProtocolError("a recipient needs an address")
    _check_options(transaction)
    for buffer in reversed(transaction.content):
        if buffer:
            if not buffer.endswith(b"\r\n"):
                raise LocalProtocolError("the content does not end in CR LF")
            break


def check_paths(transaction: Transaction) -> None:
    """Raise `LocalProtocolError` for a path that is none."""
    for path in (transaction.reverse_path, *transaction.recipients):
        if not path.isprintable() or " " in path or "<" in path or ">" in path:
            _check_quoted(path)


def _check_options(transaction: Transaction) -> None:
    for many in (transaction.notify, transaction.orcpt):
        if many and len(many) != len(transaction.recipients):
            raise LocalProtocolError("DSN asks for other recipients than there are")
    for value in (transaction.ret, transaction.envid, *transaction.notify, *transaction.orcpt):
        if value and (not value.isprintable() or " " in value):
            raise LocalProtocolError("a parameter of DSN is no parameter")


def _check_quoted(path: str) -> None:
    # Spaces and angle brackets are fine inside a quoted local-part, nowhere else.
    try:
        grammar.mailbox(path.encode("utf-8"))
    except (grammar.BadSyntax, UnicodeEncodeError):
        raise LocalProtocolError("a path is not an address") from None
