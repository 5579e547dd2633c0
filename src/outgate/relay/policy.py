"""The rule book: each rule is one function from facts to a verdict, with reply, log reason and remedy.

Standards: RFC 5321, 6409 section 6, RFC 3463 (codes); order and meaning are design section 5.
Promises: pure (time is an argument); the first rule that refuses decides; replies are generic, reasons exact.
Dangers: a reply must not tell which rule refused: `reason` and `remedy` go to the log only.
Not here: addresses and zones (`relay.access`), passwords (`relay.credentials`), MIME (`message.mime`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from outgate.base.clock import rfc3339
from outgate.message import trace
from outgate.message.fields import BadHeader, Header, mailboxes, read, separated, shown, without
from outgate.model.flow import Accepted, SigningKey, Submission
from outgate.model.tenancy import Instance, Sender, SmtpConfiguration, Standing, Verification
from outgate.relay.content import attachment
from outgate.relay.endpoints import Door, Endpoints
from outgate.smtp.grammar import BadSyntax, Mailbox, mailbox
from outgate.smtp.reply import Reply, reply

NOT_WELCOME = reply(554, "5.7.1", "Access denied")
WITHDRAWN = reply(421, "4.7.0", "Access withdrawn, closing")
CLOSING = reply(421, "4.3.2", "Service closing, please try again")
NOT_ALLOWED = reply(550, "5.7.1", "Not authorised")
SENDER_NOT_ALLOWED = reply(550, "5.7.1", "Sender address is not in a verified domain of this user")
FROM_NOT_ALLOWED = reply(550, "5.7.1", "From address is not in a verified domain of this user")
FROM_UNREADABLE = reply(550, "5.6.0", "The message needs one From field with one address")
HEADER_UNREADABLE = reply(550, "5.6.0", "The header of the message cannot be read")
ATTACHMENT = reply(554, "5.7.1", "Attachments are not allowed")
LITERAL = reply(553, "5.1.3", "Address literals are not delivered to")


@dataclass(frozen=True, slots=True)
class Refused:
    """A verdict against: what the client reads, what the log says, and what to do about it."""

    reply: Reply
    reason: str
    remedy: str


def endpoint(instance: Instance, door: Door, endpoints: Endpoints) -> Refused | None:
    """Rule 4, before the network: mail of an instance is taken at the endpoint of its region, and there only."""
    home = endpoints.of_region(instance.region)
    if home is door.of:
        return None
    return Refused(
        NOT_ALLOWED,
        f"instance {instance.id} is in region {instance.region}, which endpoint {home.id} serves, not {door.of.id}",
        f"connect to {home.name(door.endpoint)} instead",
    )


def reverse_path(sender: Sender, path: Mailbox) -> Refused | None:
    """Rule 5 at MAIL: the reverse-path is null or in a domain of the credential."""
    if not path.text or path.domain in sender.configurations:
        return None
    return Refused(
        SENDER_NOT_ALLOWED,
        f"reverse-path domain {path.domain} is none of {sorted(sender.configurations)}",
        f"create an SMTP configuration for {path.domain} and a user for it, or send from one of its domains",
    )


def forward_path(path: Mailbox) -> Refused | None:
    """Rule 9 at RCPT: the recipient has a domain that mail can be routed to."""
    if path.literal:
        return Refused(LITERAL, "an address literal", "use a domain name")
    return None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules at the end of data may know beside the submission."""

    sender: Sender
    host_name: str
    queue_id: str
    now: float
    lifetime: float


def accept(submission: Submission, facts: Facts) -> Accepted | Refused:
    """Apply rules 5, 6 and 10 to a whole message; make what the queue stores, or refuse."""
    try:
        header = read(submission.content)
    except BadHeader as error:
        return Refused(HEADER_UNREADABLE, str(error), "send a message as RFC 5322 describes it")
    if header.unseparated:
        content, header = separated(submission.content, header)
        submission = replace(submission, content=content)
    author = header_from(header)
    if isinstance(author, Refused):
        return author
    configuration = facts.sender.configurations.get(author.domain)
    if configuration is None:
        return Refused(
            FROM_NOT_ALLOWED,
            f"header From domain {author.domain} is none of {sorted(facts.sender.configurations)}",
            f"send from one of the user's domains, or clone the user to a configuration for {author.domain}",
        )
    refused = state(configuration)
    if refused is not None:
        return refused
    if not facts.sender.instance.attachments:
        why = attachment(submission.content, header, null_reverse_path=not submission.reverse_path)
        if why is not None:
            return Refused(ATTACHMENT, why, "send a link instead, or have the instance allow attachments")
    return _accepted(submission, header, author, configuration, facts)


def header_from(header: Header) -> Mailbox | Refused:
    """Rule 5 at the end of data: exactly one From field with exactly one readable address."""
    fields = header.all("from")
    remedy = "send exactly one From field with exactly one address"
    if len(fields) != 1:
        return Refused(FROM_UNREADABLE, f"{len(fields)} From fields", remedy)
    try:
        addresses = mailboxes(fields[0])
        if len(addresses) != 1:
            return Refused(FROM_UNREADABLE, f"{len(addresses)} addresses in From", remedy)
        author = mailbox(addresses[0])
    except (BadHeader, BadSyntax) as error:
        return Refused(FROM_UNREADABLE, f"From: {error}", remedy)
    return author


_CHECKS = {"a": "A record", "spf": "SPF", "dkim": "DKIM"}


def state(configuration: SmtpConfiguration) -> Refused | None:
    """Rules 6 and 7: the domain was verified, is not suspended and is authorised; the reply says what is in the way."""
    domain = configuration.domain
    if configuration.standing is Standing.SUSPENDED:
        name = _CHECKS.get(configuration.failing, "DNS")
        return Refused(
            reply(450, "4.7.1", f"Sending for the domain is suspended: its {name} fails"),
            f"{domain}: suspended since {rfc3339(configuration.standing_since)}, {name} fails",
            f"put back the {_record(configuration)} that configuration {configuration.id} shows, then verify it",
        )
    checks = (
        (_CHECKS.get(configuration.failing, "SPF"), configuration.spf),
        ("DKIM", configuration.dkim),
        ("authorisation", configuration.authorization),
    )
    # Within the grace a domain sends on: what was found since is a warning.
    for name, result in checks[2:] if configuration.standing is not Standing.UNVERIFIED else checks:
        if result is not Verification.SUCCESSFUL:
            return Refused(
                reply(450, "4.7.1", f"The domain's {name} is not verified"),
                f"{domain}: {name} is {result}",
                _remedy(name, configuration),
            )
    return None


def _remedy(name: str, configuration: SmtpConfiguration) -> str:
    if name == "authorisation":
        return f"answer the authorisation form of configuration {configuration.id} and have it approved"
    return f"publish the record that configuration {configuration.id} shows, then verify it"


def _record(configuration: SmtpConfiguration) -> str:
    """Name the DNS record that stands in the way, for the log."""
    if configuration.failing == "dkim":
        return f"TXT record at {configuration.key.selector}._domainkey.{configuration.domain}"
    return f"{'A' if configuration.failing == 'a' else 'TXT'} record at {configuration.domain}"


def _accepted(
    submission: Submission, header: Header, author: Mailbox, configuration: SmtpConfiguration, facts: Facts
) -> Accepted:
    added = trace.received(
        helo=submission.helo,
        address=submission.client.address,
        by=facts.host_name,
        tls=submission.tls,
        utf8=submission.smtputf8,
        queue_id=facts.queue_id,
        at=facts.now,
    )
    message_id = header.first("message-id")
    if message_id is None:
        added += trace.message_id(facts.queue_id, configuration.domain)
        message_id = f"<{facts.queue_id}@{configuration.domain}>".encode()
    if header.first("date") is None:
        added += trace.date_field(facts.now)
    content = without(submission.content, header, "bcc")
    if content is not submission.content:
        submission = replace(submission, content=content)
    return Accepted(
        queue_id=facts.queue_id,
        submission=submission,
        instance_id=configuration.instance_id,
        smtp_config_id=configuration.id,
        signing_key=SigningKey(configuration.key.id, configuration.domain, configuration.key.selector),
        trace=added,
        message_id=message_id.decode("utf-8", "replace"),
        header_from=author.text,
        subject=shown(header.first("subject") or b""),
        accepted_at=facts.now,
        expires_at=facts.now + facts.lifetime,
    )
