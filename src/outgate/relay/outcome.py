"""From a reply, or the lack of one, to what it means: delivered, deferred or bounced, and why.

Standards: RFC 5321 section 4.2.1 (the first digit decides), RFC 3463, 7372, 7505, 8689 and the registry of enhanced
codes (the reason), RFC 2034 (an enhanced code that contradicts its reply changes nothing about it).
Promises: pure; any code and any text give an outcome, in time proportional to at most 1000 signs of it; 2xx is
delivered, 5xx bounced, everything else and every failure to talk deferred; a lost answer after the final dot is
deferred and says that the message may have arrived; a refusal in a session that broke the protocol bounces nobody.
Dangers: what servers write is a hint, not a protocol: wording names the reason, never the outcome.
Not here: when to try again (`relay.queue`), the conversation (`smtp.client`), who is told (`relay.reports`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from outgate.model.flow import JobRecipient, Outcome, Status
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import TransactionResult

_LONGEST = 1000
"""Signs of a reply's text that are read and kept."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason class: its word in logs, metrics and the API, what it means, and what the sender of a message can do."""

    word: str
    meaning: str
    advice: str


_WAIT = "Nothing needs to be done at your end; send the message again later if it matters."
_OPERATOR = "Tell whoever runs your mail service: this is theirs to mend."

REASONS = (
    Reason("accepted", "the server took the message", ""),
    Reason("bad-mailbox", "the address does not exist there", "Check how the address is spelt."),
    Reason("bad-domain", "the domain does not exist, or has no mail server", "Check the part behind the @."),
    Reason("no-mail", "the domain takes no mail at all", "Check the address, or reach the person another way."),
    Reason("inactive", "the mailbox is disabled", "Reach the person another way."),
    Reason("full", "the mailbox is full", "Ask the person to make room, then send the message again."),
    Reason("mailbox-busy", "the mailbox could not be used at that time", _WAIT),
    Reason("bad-sender", "the server does not accept the sender's address", "Check that your own address takes mail."),
    Reason("too-large", "the message is larger than the server takes", "Send a link in place of a file."),
    Reason("content", "the server objects to what is in the message", "Take out links or parts that look like spam."),
    Reason("smtputf8", "the server cannot take addresses with such signs", "Use an address without them."),
    Reason("policy", "a rule of the receiving side forbids it", "Ask the receiving side what the rule is."),
    Reason("reputation", "the server refuses mail from our address or domain, as on a blocklist", _OPERATOR),
    Reason("rate", "the server takes no more from us for now", "Send fewer messages at once, and the rest later."),
    Reason("greylisted", "the server makes new senders wait", _WAIT),
    Reason("auth", "SPF, DKIM, DMARC or reverse DNS did not satisfy the server", _OPERATOR),
    Reason("login", "the next server asks for a login, or refuses ours", _OPERATOR),
    Reason("tls", "no connection with the encryption that one side demands", "Tell the receiving side's postmaster."),
    Reason("protocol", "the servers did not understand each other", _OPERATOR),
    Reason("unavailable", "the server was not available", _WAIT),
    Reason("server-error", "the server had trouble of its own", _WAIT),
    Reason("loop", "mail for the address goes round in circles", "Tell the receiving side's postmaster."),
    Reason("network", "no server could be reached", _WAIT),
    Reason("source", "the address of ours that it leaves from is not this machine's", _OPERATOR),
    Reason("timeout", "the server did not answer in time", _WAIT),
    Reason("route", "the route that it was to take could not be used", _OPERATOR),
    Reason("dns", "the domain's mail server could not be looked up", _WAIT),
    Reason("expired", "the next server gave up after trying for its own while", _WAIT),
    Reason("held-too-long", "the domain was not allowed to send, for as long as mail is held", _OPERATOR),
    Reason("unknown", "the connection ended behind the last octet", "Ask whether it arrived."),
    Reason("internal", "our own fault", _OPERATOR),
    Reason("incident", "a person has to look at the stored message", _OPERATOR),
    Reason("other", "the server gave no reason that we know", "Read its answer above."),
)  # fmt: skip

# What an enhanced code says for sure: subject.detail. The class digit before it repeats the reply's and is not looked
# at.
EXACT = {
    "1.1": "bad-mailbox", "1.2": "bad-domain", "1.3": "bad-mailbox", "1.4": "bad-mailbox", "1.6": "bad-mailbox",
    "1.7": "bad-sender", "1.8": "bad-sender", "1.10": "no-mail",
    "2.2": "full", "2.3": "too-large",
    "3.1": "server-error", "3.3": "protocol", "3.4": "too-large", "3.5": "server-error",
    "4.3": "dns", "4.4": "dns", "4.6": "loop", "4.7": "expired",
    "5.3": "rate", "6.7": "smtputf8", "6.9": "smtputf8",
    "7.8": "login", "7.10": "tls", "7.11": "tls", "7.12": "login", "7.13": "login", "7.14": "login",
    "7.17": "bad-mailbox", "7.18": "bad-mailbox",
    "7.20": "auth", "7.21": "auth", "7.22": "auth", "7.23": "auth", "7.24": "auth", "7.25": "auth", "7.26": "auth",
    "7.27": "bad-sender", "7.28": "rate", "7.29": "auth", "7.30": "tls",
    # Exchange Online's own: sender authentication, its pace, addresses it does not trust.
    "7.508": "rate", "7.509": "auth", "7.515": "auth", "7.650": "rate", "7.708": "reputation",
}  # fmt: skip

# Where the code leaves it open, words decide: the first line of which a phrase begins at a word of the text. Each is
# what widespread servers write: Postfix, Exim and Exchange in their own replies, the large mailbox providers in the
# lists of replies that they publish for senders.
WORDING = (
    ("loop", ("too many hops", "hop count", "mail loop", "loops back")),
    ("greylisted", ("greylist", "graylist", "grey list", "gray list")),
    ("rate", ("rate limit", "ratelimit", "too many", "unusual rate", "throttl", "sending limit", "unexpected volume",
              "server busy", "receiving mail at a rate", "receiving mail too quickly")),
    ("tls", ("starttls", "tls required", "require tls", "requires tls", "encryption required", "tls is required")),
    ("auth", ("dmarc", "spf", "dkim", "unauthenticated", "reverse dns", "rdns", "ptr record", "cannot find your")),
    ("login", ("authentication required", "was not authenticated", "authentication fail", "credentials")),
    ("full", ("mailbox full", "mailbox is full", "over quota", "overquota", "quota exceeded", "exceeded storage",
              "storage allocation", "out of storage")),
    ("bad-sender", ("sender address rejected", "sender domain", "domain of sender", "sender rejected",
                    "sender verify failed")),
    ("inactive", ("account disabled", "account is disabled", "mailbox disabled", "mailbox is disabled",
                  "account inactive", "account has been disabled", "inactive mailbox", "mailbox is inactive")),
    ("bad-mailbox", ("user unknown", "unknown user", "no such user", "no such mailbox", "no such recipient",
                     "user not found", "recipient not found", "mailbox not found", "does not exist", "doesn t exist",
                     "invalid recipient", "unknown recipient", "invalid mailbox",
                     "recipient address rejected access denied")),
    ("too-large", ("message size", "message too large", "message too big", "size limit", "maximum size",
                   "message is too large")),
    ("reputation", ("blocklist", "block list", "blacklist", "black list", "denylist", "blocked using", "spamhaus",
                    "spamcop", "barracudacentral", "rbl", "dnsbl", "reputation", "banned", "listed at", "listed in")),
    ("content", ("spam", "virus", "malware", "phish", "unsolicited", "content", "junk", "attachment")),
    ("policy", ("relay", "policy", "access denied", "prohibited", "not allowed", "not permitted", "not authori")),
    ("reputation", ("blocked", "your ip")),
)  # fmt: skip

# What else an enhanced code hints at, when no word said more; then its subject, then the reply's own code.
HINT = {
    "1.0": "bad-mailbox", "2.1": "inactive", "4.5": "network", "7.0": "policy", "7.1": "policy", "7.5": "tls",
    "7.6": "tls", "7.9": "login",
}  # fmt: skip
SUBJECT = {"4": "network", "5": "protocol", "6": "content", "7": "policy"}
BASIC = {
    421: "unavailable", 450: "mailbox-busy", 451: "server-error", 452: "full", 454: "tls",
    500: "protocol", 501: "protocol", 502: "protocol", 503: "protocol", 504: "protocol", 555: "protocol",
    521: "no-mail", 556: "no-mail", 530: "login", 534: "login", 535: "login", 538: "tls",
    550: "bad-mailbox", 551: "bad-mailbox", 552: "full", 553: "bad-mailbox", 554: "policy",
}  # fmt: skip
# Where code and enhanced code together say what neither says alone.
TOGETHER = {
    (421, "7.0"): "rate",
    (450, "2.0"): "mailbox-busy",
    (451, "7.500"): "rate",
    (454, "7.0"): "tls",
    (530, "7.0"): "login",
}

FAILURES = {
    "network": Status.DEFERRED,
    "timeout": Status.DEFERRED,
    "tls": Status.DEFERRED,
    "dns": Status.DEFERRED,
    "protocol": Status.DEFERRED,
    "source": Status.DEFERRED,
    "unknown": Status.DEFERRED,
    "internal": Status.DEFERRED,
    "incident": Status.HELD,
    "bad-domain": Status.BOUNCED,
    "no-mail": Status.BOUNCED,
    "loop": Status.BOUNCED,
}
"""What it means that no server gave a reply, by the kind of failure."""

_ADDRESS = re.compile(r"<[^<>]*>")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_CODE = re.compile(r"[0-9]\.([0-9]{1,3})\.([0-9]{1,3})")
_BY_WORD = {reason.word: reason for reason in REASONS}


def explained(word: str) -> Reason:
    """Return the reason class of a word; `other` for one that is not known."""
    return _BY_WORD.get(word) or _BY_WORD["other"]


def reason(reply: Reply) -> str:
    """Return the reason class of a reply: one word for logs, metrics and filters."""
    if reply.ok:
        return "accepted"
    if not 400 <= reply.code <= 599:
        return "protocol"
    match = _CODE.fullmatch(reply.enhanced)
    detail = "" if match is None else f"{int(match[1])}.{int(match[2])}"
    return (
        EXACT.get(detail)
        or _worded(reply.text)
        or TOGETHER.get((reply.code, detail))
        or HINT.get(detail)
        or (SUBJECT.get(detail.partition(".")[0]) if detail else None)
        or BASIC.get(reply.code, "other")
    )


def _worded(text: str) -> str | None:
    """Return the class that the words of a reply name, if any does."""
    plain = _NO_WORD.sub(" ", _ADDRESS.sub(" ", text[:_LONGEST]).lower())
    words = f" {plain} "
    for word, phrases in WORDING:
        if any(f" {phrase}" in words for phrase in phrases):
            return word
    return None


def of_reply(recipient: JobRecipient, reply: Reply, *, handed_on: bool = False) -> Outcome:
    """Return what `reply` means for `recipient`; `handed_on`: the server also took over what DSN asks for."""
    if reply.ok:
        status = Status.DELIVERED
    elif 500 <= reply.code <= 599:
        status = Status.BOUNCED
    else:
        status = Status.DEFERRED
    text = reply.text[:_LONGEST]
    return Outcome(
        recipient.id,
        status,
        reply.code,
        reply.enhanced,
        text,
        reason(reply),
        handed_on=handed_on and status is Status.DELIVERED,
    )


def of_transaction(recipients: tuple[JobRecipient, ...], result: TransactionResult) -> tuple[Outcome, ...]:
    """Return an outcome per recipient of a transaction: the first reply that decides for each."""
    outcomes: list[Outcome] = []
    for index, recipient in enumerate(recipients):
        deciding = result.reply_for(index)
        if deciding is None or (result.broken and not deciding.ok):
            # Where a reply too many came, a refusal may have been meant for another recipient.
            outcomes.append(_unfinished(recipient, result))
            continue
        outcome = of_reply(recipient, deciding, handed_on=result.dsn)
        # What is said to RCPT, or to the content where nobody else was to have it.
        personal = deciding is result.recipients[index] or (len(recipients) == 1 and deciding is result.final)
        outcomes.append(replace(outcome, personal=True) if personal and not deciding.ok else outcome)
    return tuple(outcomes)


def _unfinished(recipient: JobRecipient, result: TransactionResult) -> Outcome:
    why = result.error or "the connection ended"
    if result.sent_all:
        return failed(recipient, f"{why}, after the whole message was sent: it may have arrived", "unknown")
    if result.broken:
        return failed(recipient, why, "protocol")
    return failed(recipient, why, "timeout" if why.startswith("timeout") else "network")


def failed(recipient: JobRecipient, text: str, reason_class: str) -> Outcome:
    """Return a deferral without a reply: `reason_class` is "network", "dns", "tls", "timeout", …"""
    return Outcome(recipient.id, Status.DEFERRED, 0, "", text[:_LONGEST], reason_class)


def rejected(recipient: JobRecipient, enhanced: str, text: str, reason_class: str) -> Outcome:
    """Return a bounce that we decide ourselves, for example for a domain that takes no mail (null MX)."""
    return Outcome(recipient.id, Status.BOUNCED, 550, enhanced, text[:_LONGEST], reason_class)


def held(recipient: JobRecipient, text: str) -> Outcome:
    """Return an outcome that waits for a person."""
    return Outcome(recipient.id, Status.HELD, 0, "", text[:_LONGEST], "incident")
