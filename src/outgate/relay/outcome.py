"""From a reply, or the lack of one, to what it means: delivered, deferred or bounced, and why.

Standards: RFC 5321 section 4.2.1 (first digit), RFC 3463 (enhanced codes).
Promises: pure; 2xx delivered, 4xx and every failure to talk deferred, 5xx bounced; a lost answer after the
final dot is deferred and says that the message may have arrived.
Not here: when to try again (`relay.queue`), the conversation (`smtp.client`).
"""

from __future__ import annotations

import re
from dataclasses import replace

from outgate.model.flow import JobRecipient, Outcome, Status
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import TransactionResult

# Enhanced code → reason class, most exact first; then the basic code.
_ENHANCED = (
    (re.compile(r"[45]\.1\.[01236]"), "bad-mailbox"),
    (re.compile(r"[45]\.1\.[78]"), "bad-sender"),
    (re.compile(r"[45]\.1\.10"), "no-mail"),
    (re.compile(r"[45]\.2\.1"), "inactive"),
    (re.compile(r"[45]\.2\.2"), "full"),
    (re.compile(r"[45]\.2\.3|[45]\.3\.4"), "too-large"),
    (re.compile(r"[45]\.4\.[1245]"), "network"),
    (re.compile(r"[45]\.4\.6"), "loop"),
    (re.compile(r"[45]\.4\.7"), "expired"),
    (re.compile(r"[45]\.6\.\d+"), "content"),
    (re.compile(r"[45]\.7\.(?:2[0-9]|1[5-9]|[3-9]\b)"), "auth"),
    (re.compile(r"[45]\.7\.\d+"), "policy"),
)
_BASIC = {
    421: "unavailable",
    450: "mailbox-busy",
    451: "server-error",
    452: "full",
    501: "syntax",
    550: "bad-mailbox",
    551: "bad-mailbox",
    552: "full",
    553: "bad-mailbox",
    554: "policy",
}


def reason(reply: Reply) -> str:
    """Return the reason class of a reply: one word for logs, metrics and filters."""
    if reply.ok:
        return "accepted"
    for pattern, word in _ENHANCED:
        if pattern.fullmatch(reply.enhanced):
            return word
    return _BASIC.get(reply.code, "other")


def of_reply(recipient: JobRecipient, reply: Reply) -> Outcome:
    """Return what `reply` means for `recipient`."""
    if reply.ok:
        status = Status.DELIVERED
    elif reply.code >= 500:
        status = Status.BOUNCED
    else:
        status = Status.DEFERRED
    return Outcome(recipient.id, status, reply.code, reply.enhanced, reply.text[:1000], reason(reply))


def of_transaction(recipients: tuple[JobRecipient, ...], result: TransactionResult) -> tuple[Outcome, ...]:
    """Return an outcome per recipient of a transaction: the first reply that decides for each."""
    outcomes: list[Outcome] = []
    for index, recipient in enumerate(recipients):
        deciding = result.reply_for(index)
        if deciding is None:
            outcomes.append(_unfinished(recipient, result))
            continue
        outcome = of_reply(recipient, deciding)
        # What is said to RCPT, or to the content where nobody else was to have it.
        personal = deciding is result.recipients[index] or (len(recipients) == 1 and deciding is result.final)
        outcomes.append(replace(outcome, personal=True) if personal and not deciding.ok else outcome)
    return tuple(outcomes)


def _unfinished(recipient: JobRecipient, result: TransactionResult) -> Outcome:
    why = result.error or "the connection ended"
    if result.sent_all:
        return failed(recipient, f"{why}, after the whole message was sent: it may have arrived", "unknown")
    return failed(recipient, why, "network")


def failed(recipient: JobRecipient, text: str, reason_class: str) -> Outcome:
    """Return a deferral without a reply: `reason_class` is "network", "dns", "tls", "timeout", …"""
    return Outcome(recipient.id, Status.DEFERRED, 0, "", text[:1000], reason_class)


def rejected(recipient: JobRecipient, enhanced: str, text: str, reason_class: str) -> Outcome:
    """Return a bounce that we decide ourselves, for example for a domain that takes no mail (null MX)."""
    return Outcome(recipient.id, Status.BOUNCED, 550, enhanced, text[:1000], reason_class)


def held(recipient: JobRecipient, text: str) -> Outcome:
    """Return an outcome that waits for a person."""
    return Outcome(recipient.id, Status.HELD, 0, "", text[:1000], "incident")
