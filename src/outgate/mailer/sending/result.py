"""What a server said to a message, and what that means to whoever sent it.

Standards: RFC 5321 section 4.2 (replies), RFC 3463 (enhanced codes).
Promises: pure; every recipient has a reply, or it is no result; a queue id is a word that the server named.
Dangers: a message that was taken for some recipients only is a result, not an error: `accepted` is False then.
Not here: what cannot be sent or reached (`mailer.sending.errors`, `mailer.sending.remedies`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgate.smtp.masks import Masks
    from outgate.smtp.reply import Reply
    from outgate.smtp.transaction import Step

# How servers name a message that they took: ours and Postfix, Exim, Haraka, sendmail and OpenSMTPD, Exchange.
_QUEUED = (
    r"\bqueued as ([0-9A-Za-z.\-_]{1,64})",
    r"^OK id=([0-9A-Za-z.\-_]{1,64})",
    r"^Message Queued \(([0-9A-Za-z.\-_]{1,64})\)",
    r"^([0-9A-Za-z]{8,64}) Message accepted for delivery",
    r"\bInternalId=([0-9]{1,64})",
)


class SendRefused(Exception):
    """The server did not take the message for everybody; `result` has what it said to each."""

    def __init__(self, text: str, result: SendResult) -> None:
        super().__init__(text)
        self.result = result


@dataclass(frozen=True, slots=True)
class SendResult:
    """What the server said. `reply` settles the message, `recipients` each address; `queue_id` is "" if the
    server took nothing or told none.

    `server` is the real one, behind the tunnel. `stage` is where `reply` was given: "greeting", "hello", "tls", "auth",
    "envelope" or "content". `conversation` are the steps of the session (epoch seconds, what we did, what was said),
    with `debug.email` only. No field holds a secret, should the server have repeated one."""

    reply: Reply
    queue_id: str
    recipients: Mapping[str, Reply]
    server: str = ""
    stage: str = "content"
    conversation: tuple[Step, ...] = ()

    @property
    def accepted(self) -> bool:
        """Say whether the server took the message for every recipient."""
        return all(reply.ok for reply in self.recipients.values())

    @property
    def refused(self) -> Mapping[str, Reply]:
        """Return the recipients whom the server did not take the message for, and why."""
        return {address: reply for address, reply in self.recipients.items() if not reply.ok}

    def raise_for_refusal(self) -> None:
        """Raise `SendRefused` unless the message was taken for every recipient."""
        if refused := self.refused:
            raise SendRefused(_refusal(self, refused), self)


def _refusal(result: SendResult, refused: Mapping[str, Reply]) -> str:
    server = f"{result.server}: " if result.server else ""
    if result.stage == "auth":
        advice = _hint(result.reply) or (
            ". Check smtp.user and smtp.password (with oauth.flow: whether the refresh token is smtp.user's own),"
            " and where they are set"
        )
        return f"{server}the login was refused: {result.reply}{advice}"
    if len(refused) == len(result.recipients):
        return f"{server}refused: {result.reply}{_hint(result.reply)}"
    each = "; ".join(f"{address}: {reply}" for address, reply in list(refused.items())[:10])
    return f"{server}taken for {len(result.recipients) - len(refused)} of {len(result.recipients)} recipients; {each}"


def _hint(reply: Reply) -> str:
    return ". It may be tried again later" if 400 <= reply.code < 500 else ""


def result_of(
    replies: Mapping[str, Reply],
    final: Reply | None,
    *,
    masks: Masks,
    server: str = "",
    conversation: tuple[Step, ...] = (),
) -> SendResult:
    """Return the result of a transaction: what settled each recipient, and the reply to the content, if it came."""
    shown = {recipient: masks.reply(reply) for recipient, reply in replies.items()}
    refusal = next((reply for reply in shown.values() if not reply.ok), None)
    deciding = masks.reply(final) if final is not None else refusal
    assert deciding is not None
    found = queue_id(deciding.text) if deciding.ok else ""
    stage = "content" if final is not None else "envelope"
    return SendResult(deciding, found, shown, server, stage, conversation)


def refused_by(
    reply: Reply,
    recipients: Iterable[str],
    *,
    stage: str,
    masks: Masks,
    server: str = "",
    conversation: tuple[Step, ...] = (),
) -> SendResult:
    """Return the result of a session that the server ended before any message: the same reply for everybody."""
    shown = masks.reply(reply)
    return SendResult(shown, "", dict.fromkeys(recipients, shown), server, stage, conversation)


def queue_id(text: str) -> str:
    """Return the id that a server gave a message, "" if its reply names none."""
    for pattern in _QUEUED:
        if found := re.search(pattern, text):
            return found[1]
    return ""


def lines_of(steps: Iterable[Step]) -> Iterator[tuple[str, str]]:
    """Return a conversation as it would look without pipelining: ("C", a line of ours), ("S", a line of a reply)."""
    for step in steps:
        said = step.did.split(" + ") if step.did else []
        heard = step.reply.split(" | ")
        for number in range(max(len(said), len(heard))):
            if number < len(said):
                yield "C", said[number]
            if number < len(heard):
                yield from (("S", line) for line in heard[number].split(" / "))
