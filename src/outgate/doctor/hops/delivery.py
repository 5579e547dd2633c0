"""Hop 12: a marked test mail, sent by the mailer itself, and what became of it.

Standards: RFC 3834 (Auto-Submitted: nobody shall answer it).
Promises: nothing is sent unless an address is given; one mail, once; at an Outgate relay its fate is followed for a
    bounded time, elsewhere the reply is told and what is not known.
Dangers: a mail is accepted before it is delivered: "accepted" is not "arrived".
Not here: sending (`mailer.client`), the record (`doctor.witnesses`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.message import EmailMessage

from outgate.doctor.commands import show_message, unsuppress
from outgate.doctor.hops.facts import Facts
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.witnesses import Fate
from outgate.mailer.client import MailService
from outgate.mailer.config import Forwards
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.limits import Limits
from outgate.mailer.sending.result import SendResult
from outgate.mailer.values import ConfigError

_SUBJECT = "Test mail of outgate doctor"
_POLL_S = 0.25


def delivery(facts: Facts) -> Iterator[Finding]:
    """Send the test mail, if one is wanted, and follow it."""
    asked = facts.asked
    trapped = facts.trapped(Hop.DELIVERY)
    if not asked.send_to:
        yield facts.seen(Hop.DELIVERY, State.UNKNOWN, "no mail was sent: --send-to ADDRESS sends one, and follows it")
        yield from trapped
        return
    assert facts.contact is not None
    if facts.contact.connection is None or facts.direct or facts.blind or facts.nameless:
        yield facts.seen(Hop.DELIVERY, State.UNKNOWN, "no mail was sent: the way could not be followed from here")
        return
    facts.contact.close()
    asked.tell(f"sending a mail to {asked.send_to}")
    try:
        result = _send(facts)
    except (MessageError, ConfigError) as error:
        yield facts.broken(Hop.DELIVERY, "message", f"no mail could be made: {error}", "give another address")
        return
    except SendFailed as error:
        remedy = "start the doctor again; if it stays so, look at the server's log: up to here it answered"
        yield facts.broken(Hop.DELIVERY, "send-failed", str(error), remedy)
        return
    if not result.accepted:
        text = f"the server did not take the mail to {asked.send_to}: {result.reply}"
        remedy = "read the reply: the recipient, the content or a quota is meant"
        yield facts.broken(Hop.DELIVERY, "mail-refused", text, remedy)
        return
    yield from _followed(facts, result)
    yield from trapped


def _send(facts: Facts) -> SendResult:
    asked, config = facts.asked, facts.config
    assert config is not None
    message = EmailMessage()
    try:
        message["To"] = asked.send_to
        message["Subject"] = _SUBJECT
        message["Auto-Submitted"] = "auto-generated"
    except (ValueError, IndexError):
        raise MessageError(f"{asked.send_to!r} cannot be an address") from None
    message.set_content(
        "This mail was sent by `outgate doctor`, to see whether mail gets from an application to you.\n"
        "Nothing is to be done about it.\n"
    )
    with MailService(
        config,
        forwards=facts.around.forwards or Forwards("", {}),
        tunnel_names=(facts.around.env.get("AEM_PROXY_HOST") or "",),
        cafile=asked.trust.file or None,
        tokens=facts.tokens,
        timeouts=asked.patience.timeouts,
        limits=Limits(send=asked.patience.answer * 6),
    ) as service:
        return service.send(message)


def _followed(facts: Facts, result: SendResult) -> Iterator[Finding]:
    """Follow the mail at a relay of Outgate until it has arrived or will not for now."""
    asked = facts.asked
    named = f", queue id {result.queue_id}" if result.queue_id else ""
    accepted = f"accepted: {result.reply}{named}"
    if not result.queue_id or not asked.outgate.local:
        text = f"{accepted}; whether it arrives is not known here: ask the server's operator"
        yield facts.seen(Hop.DELIVERY, State.OK, text)
        return
    asked.tell(f"following {result.queue_id}")
    until = time.monotonic() + asked.follow_s
    fate = asked.outgate.fate(result.queue_id, asked.send_to)
    while isinstance(fate, Fate) and not fate.settled and time.monotonic() < until:
        time.sleep(_POLL_S)
        fate = asked.outgate.fate(result.queue_id, asked.send_to)
    show = show_message(result.queue_id)
    if isinstance(fate, str):
        yield facts.seen(Hop.DELIVERY, State.OK, f"{accepted}; whether it arrives is not known here: {fate}")
    elif fate.status == "delivered":
        yield facts.seen(Hop.DELIVERY, State.OK, f"delivered to {asked.send_to}{named}: {fate.said}")
    elif not fate.settled:
        text = f"{accepted}; after {asked.follow_s:g} seconds it is {fate.status}"
        yield facts.seen(Hop.DELIVERY, State.UNKNOWN, f"{text}: {show}")
    else:
        text = f"the mail to {asked.send_to} is {fate.status}{named}: {fate.said}"
        remedy = _REMEDIES.get(fate.status, "read what the record says of it")
        change = unsuppress(asked.send_to) if fate.status == "suppressed" else show
        yield facts.broken(Hop.DELIVERY, f"mail-{fate.status}", text, remedy, change)


_REMEDIES = {
    "bounced": "read the receiving server's reply: it says what is wrong with the recipient or the mail",
    "deferred": "wait: it is tried again; the reply says what the receiving server waits for",
    "suppressed": "take the address off the list of suppressed ones, if it is good again",
    "held": "mend what holds it: the domain's checks, a quota, or an operator's hold",
}
