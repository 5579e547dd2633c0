"""The rule book: each rule is one function from facts to a verdict, with reply, log reason and remedy.

Standards: RFC 5321, 6409 section 6, RFC 3463 (codes); order and meaning are design section 5.
Promises: pure (time is an argument); the first rule that refuses decides; replies are generic, reasons exact; a
suppressed recipient changes no reply.
Dangers: a reply must not tell which rule refused: `reason` and `remedy` go to the log only.
Not here: addresses and zones (`relay.access`), passwords (`relay.credentials`), what a message holds
(`relay.content`), where the long checks run (`relay.checking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import idna

from outgate.base.clock import rfc3339
from outgate.message import trace
from outgate.message.fields import (
    BadHeader,
    Header,
    HeaderTooLarge,
    mailboxes,
    named,
    read,
    same_if_decoded,
    second_reading,
    separated,
    shown,
    unstuffed,
    without,
)
from outgate.message.mime import TextPart
from outgate.model.flow import Accepted, Recipient, Submission, signing_key
from outgate.model.tenancy import (
    HtmlCheck,
    Instance,
    OverQuota,
    Quota,
    Sender,
    SmtpConfiguration,
    Standing,
    Verification,
)
from outgate.relay import content
from outgate.relay.endpoints import Door, Endpoints
from outgate.relay.quota import Quotas
from outgate.smtp.grammar import BadSyntax, Mailbox, domain, mailbox
from outgate.smtp.reply import Reply, reply

NOT_WELCOME = reply(554, "5.7.1", "Access denied")
WITHDRAWN = reply(421, "4.7.0", "Access withdrawn, closing")
CLOSING = reply(421, "4.3.2", "Service closing, please try again")
NOT_ALLOWED = reply(550, "5.7.1", "Not authorised")
SENDER_NOT_ALLOWED = reply(550, "5.7.1", "Sender address is not in a verified domain of this user")
FROM_NOT_ALLOWED = reply(550, "5.7.1", "From address is not in a verified domain of this user")
FROM_UNREADABLE = reply(550, "5.6.0", "The message needs one From field with one address")
SENDER_FIELD = reply(550, "5.7.1", "Sender field is not in a verified domain of this user")
HEADER_UNREADABLE = reply(550, "5.6.0", "The header of the message cannot be read")
HEADER_TOO_LARGE = reply(552, "5.3.4", "The header of the message is too large")
LOOP = reply(554, "5.4.6", "Too many hops")
TOO_LARGE = reply(552, "5.3.4", "Message too big")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")
ATTACHMENT = reply(554, "5.7.1", "Attachments are not allowed")
NO_WAY_OUT = reply(554, "5.7.1", "A marketing message needs a link to unsubscribe")
LITERAL = reply(553, "5.1.2", "That address is not delivered to")
_MOST_HOPS = 50
_LONGEST_ID = 998
"""Octets of a Message-ID that are kept beside the message: no line may be longer."""
_REMEMBERED = 320
"""Octets of a From field whose author is remembered."""
_HELD_MOST_S = 86_400.0
"""Longest that a message is held for its quota, in seconds."""
_AT_ONCE = 8_192
"""Octets of a message that is searched for a link without a thread."""


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


def forward_path(path: Mailbox, may_be_dialled: Callable[[str], bool]) -> Refused | None:
    """Rule 9 at RCPT: the recipient has a domain that mail can be routed to, or is at an address (RFC 5321 section
    4.1.3) that `may_be_dialled`."""
    if path.literal and not may_be_dialled(path.domain.strip("[]").removeprefix("IPv6:")):
        return Refused(LITERAL, f"an address literal, {path.domain}, that the guard refuses", "use a domain name")
    return None


def nobody(_instance_id: str, _recipients: Sequence[Recipient]) -> Mapping[str, str]:
    """Suppress no recipient."""
    return {}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules at the end of data may know beside the submission. `lifetime` is in seconds; `suppressed` tells
    which recipients an instance's mail is not sent to, and why."""

    sender: Sender
    host_name: str
    queue_id: str
    now: float
    lifetime: float
    quotas: Quotas = field(default_factory=Quotas)
    most_recipients: int = 50
    most_octets: int = 31_457_280
    suppressed: Callable[[str, Sequence[Recipient]], Mapping[str, str]] = nobody


@dataclass(frozen=True, slots=True)
class Case:
    """A message whose author is known: what rules 6 to 10 judge."""

    submission: Submission
    header: Header
    author: Mailbox
    configuration: SmtpConfiguration
    facts: Facts


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A message that every rule let pass but those that take long: `check` belongs in a thread.

    It returns a verdict against, or the warning that goes with the message ("" if there is none); `finish` it then."""

    case: Case
    check: Callable[[], Refused | str]


def accept(submission: Submission, facts: Facts) -> Accepted | Refused | Unfinished:
    """Apply rules 5 to 10 to a whole message; make what the queue stores, or refuse.

    What is accepted counts for its quota: give it back (`give_back`) if it is not stored after all."""
    case = opened(submission, facts)
    if isinstance(case, Refused):
        return case
    for rule in RULES:
        refused = rule(case)
        if refused is not None:
            return refused
    check = look_inside(case)
    if check is None:
        return _accepted(case)
    if case.configuration.rules.html is not HtmlCheck.OFF or len(submission.content) > _AT_ONCE:
        return Unfinished(case, check)
    found = check()
    return found if isinstance(found, Refused) else _accepted(case)


def finish(case: Case, warning: str, facts: Facts) -> Accepted | Refused:
    """Accept a message whose long check let it pass, by the quota and the time of now: both may be others since."""
    configuration = facts.sender.configurations.get(case.author.domain, case.configuration)
    case = replace(case, configuration=configuration, facts=facts)
    return quota(case) or _accepted(case, warning)


def give_back(facts: Facts, accepted: Accepted) -> None:
    """Take an accepted message out of its quota: it was not stored."""
    if accepted.counted_at is not None:
        facts.quotas.give_back(accepted.smtp_config_id, accepted.counted_at)


def opened(submission: Submission, facts: Facts) -> Case | Refused:
    """Rule 5 at the end of data: one readable author, in a domain of the credential, which names the configuration."""
    remedy = "send a message as RFC 5322 describes it"
    try:
        header = read(submission.content)
        second_reading(submission.content, header, "from")
    except HeaderTooLarge as error:
        return Refused(HEADER_TOO_LARGE, str(error), "send fewer or shorter fields")
    except BadHeader as error:
        return Refused(HEADER_UNREADABLE, str(error), remedy)
    hops = sum(name == "received" for name, _ in header.fields)
    if hops > _MOST_HOPS:
        return Refused(LOOP, f"{hops} Received fields", "look for servers that hand the message to each other")
    if header.unseparated:
        content_, header = separated(submission.content, header)
        submission = replace(submission, content=content_)
    author = header_from(header, submission.smtputf8)
    if isinstance(author, Refused):
        return author
    configurations = facts.sender.configurations
    configuration = configurations.get(author.domain)
    if configuration is None:
        return Refused(
            FROM_NOT_ALLOWED,
            f"header From domain {author.domain} is none of {sorted(configurations)}",
            f"send from one of the user's domains, or clone the user to a configuration for {author.domain}",
        )
    return _sender_field(header, submission.smtputf8, facts.sender) or Case(
        submission, header, author, configuration, facts
    )


def header_from(header: Header, smtputf8: bool = True) -> Mailbox | Refused:
    """Return the author: exactly one From field with exactly one address that every reader finds, or refuse."""
    fields = header.all("from")
    if len(fields) != 1:
        return _no_author(f"{len(fields)} From fields")
    try:
        return _one_mailbox(fields[0], smtputf8)
    except (BadHeader, BadSyntax) as error:
        return _no_author(f"From: {error}")


def _no_author(reason: str) -> Refused:
    return Refused(FROM_UNREADABLE, reason, "send exactly one From field with exactly one address")


def _sender_field(header: Header, smtputf8: bool, sender: Sender) -> Refused | None:
    """Mail programs show who sent on behalf of the author: that is judged like the author."""
    fields = header.all("sender")
    if not fields:
        return None
    remedy = "send no Sender field, or one with one address in a domain of the user"
    if len(fields) != 1:
        return Refused(SENDER_FIELD, f"{len(fields)} Sender fields", remedy)
    try:
        domain = _one_mailbox(fields[0], smtputf8).domain
    except (BadHeader, BadSyntax) as error:
        return Refused(SENDER_FIELD, f"Sender: {error}", remedy)
    if domain in sender.configurations:
        return None
    return Refused(SENDER_FIELD, f"Sender domain {domain} is none of {sorted(sender.configurations)}", remedy)


def _one_mailbox(value: bytes, smtputf8: bool) -> Mailbox:
    """Return the one address of a field, if it is one to every reader. Raises `BadHeader`, `BadSyntax`."""
    return (_known_mailbox if len(value) <= _REMEMBERED else _read_mailbox)(value, smtputf8)


def _read_mailbox(value: bytes, smtputf8: bool) -> Mailbox:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadHeader("it is neither ASCII nor UTF-8") from None
    addresses = mailboxes(value)
    if len(addresses) != 1:
        raise BadHeader(f"{len(addresses)} addresses")
    same_if_decoded(value)
    found = mailbox(addresses[0])
    if "=?" in found.local:
        raise BadHeader("the part before the @ holds an encoded word")
    if found.local.startswith('"') and any(sign in "@<>,;:" for sign in found.local):
        raise BadHeader("the part before the @ looks like another address")
    for behind in named(value):
        # Nothing but the domain: some readers take space out of one, so `shop.co m` is another to them.
        if not _is_domain(behind.strip(), found.domain):
            raise BadHeader("the display name or a comment holds an address of another domain")
    if not found.ascii:
        if not smtputf8:
            raise BadHeader("the address is not ASCII, and MAIL did not say SMTPUTF8")
        given = found.text.rpartition("@")[2]
        # Signs that are mapped to others give one name to those who map and another to those who do not.
        if not given.isascii() and idna.decode(found.domain) != given.lower():
            raise BadHeader("the domain is not in its plain form")
    return found


def _is_domain(text: str, name: str) -> bool:
    try:
        return domain(text) == name
    except BadSyntax:
        return False


# An application's mails have few authors.
_known_mailbox = lru_cache(maxsize=4096)(_read_mailbox)


_CHECKS = {"a": "A record", "spf": "SPF", "dkim": "DKIM"}


def verified(case: Case) -> Refused | None:
    """Rule 6: SPF and DKIM have been verified, and the configuration is authorised; the reply says what is missing."""
    configuration = case.configuration
    checks = (
        (_CHECKS.get(configuration.failing, "SPF"), configuration.spf),
        ("DKIM", configuration.dkim),
        ("authorisation", configuration.authorization),
    )
    # What was verified once is rule 7's: within the grace a domain sends on.
    for name, result in checks[2:] if configuration.standing is not Standing.UNVERIFIED else checks:
        if result is not Verification.SUCCESSFUL:
            return Refused(
                reply(450, "4.7.1", f"The domain's {name} is not verified"),
                f"{configuration.domain}: {name} is {result}",
                _remedy(name, configuration),
            )
    return None


def standing(case: Case) -> Refused | None:
    """Rule 7: the domain is not suspended; the reply says which check fails."""
    configuration = case.configuration
    if configuration.standing is not Standing.SUSPENDED:
        return None
    name = _CHECKS.get(configuration.failing, "DNS")
    return Refused(
        reply(450, "4.7.1", f"Sending for the domain is suspended: its {name} fails"),
        f"{configuration.domain}: suspended since {rfc3339(configuration.standing_since)}, {name} fails",
        f"put back the {_record(configuration)} that configuration {configuration.id} shows, then verify it",
    )


def quota(case: Case) -> Refused | None:
    """Rule 8: the configuration's quota has room, or lets the message be held until it has."""
    rules = case.configuration.rules
    limits = rules.quota
    if limits is None:
        return None
    facts = case.facts
    at = facts.quotas.room_at(case.configuration.id, limits, facts.now)
    if at <= facts.now or (rules.over is OverQuota.HOLD and at - facts.now <= _HELD_MOST_S):
        return None
    when = f"{rfc3339(at)[:16].replace('T', ' ')} UTC"
    return Refused(
        reply(450, "4.7.1", f"The domain's sending quota is used up: there is room again at {when}"),
        f"{case.configuration.domain}: {_limits(limits)} used up until {when}",
        f"send less, or have an operator change the limits (`outgate smtp limits {case.configuration.domain}`)",
    )


def _limits(limits: Quota) -> str:
    spans = ((limits.per_hour, "an hour"), (limits.per_day, "a day"))
    return " and ".join(f"{most} messages {span}" for most, span in spans if most is not None)


def size(case: Case) -> Refused | None:
    """Rule 9: not more recipients, nor octets, than a message may have; SMTP asks this while it is handed over."""
    facts, submission = case.facts, case.submission
    if len(submission.recipients) > facts.most_recipients:
        reason = f"{len(submission.recipients)} recipients, {facts.most_recipients} at most"
        return Refused(TOO_MANY_RECIPIENTS, reason, "send the message in several copies with fewer recipients each")
    if len(submission.content) > facts.most_octets and len(unstuffed(submission.content)) > facts.most_octets:
        reason = f"{len(submission.content)} octets, {facts.most_octets} at most"
        return Refused(TOO_LARGE, reason, "send a link instead")
    return None


def attachments(case: Case) -> Refused | None:
    """Rule 10, first part: no attachments unless the instance allows them."""
    if case.facts.sender.instance.attachments:
        return None
    submission = case.submission
    why = content.attachment(submission.content, case.header, null_reverse_path=not submission.reverse_path)
    if why is None:
        return None
    instance = case.configuration.instance_id
    remedy = f"send a link instead, or have an operator allow them (`outgate smtp attachments allow`, {instance})"
    return Refused(ATTACHMENT, why, remedy)


RULES: tuple[Callable[[Case], Refused | None], ...] = (verified, standing, quota, size, attachments)
"""Rules 6 to 10 in their order; rule 5 made the case, and `look_inside` is what is left of rule 10."""


def look_inside(case: Case) -> Callable[[], Refused | str] | None:
    """Rule 10, second part: return the check of HTML and of the way to unsubscribe, or None if nothing asks for it."""
    rules = case.configuration.rules
    wants_link = rules.needs_unsubscribe and not content.list_unsubscribe(case.header)
    if rules.html is HtmlCheck.OFF and not wants_link:
        return None
    return partial(_inside, case.submission.content, case.header, rules.html, wants_link=wants_link)


def _inside(octets: bytes, header: Header, check: HtmlCheck, *, wants_link: bool) -> Refused | str:
    parts = content.texts_of(octets, header)
    warning = ""
    if check is not HtmlCheck.OFF:
        found = content.html_finding(parts)
        warning = found.unchecked
        if found.fault is not None:
            place = f"line {found.fault.line}, column {found.fault.column}"
            warning = f"HTML is not well-formed: {place}: {found.fault.text}"
            if check is HtmlCheck.REFUSE:
                answer = reply(554, "5.6.0", f"The HTML of the message is not well-formed ({place})")
                return Refused(
                    answer, warning, "mend the template, or have an operator only warn (`outgate smtp html`)"
                )
    return (_no_way_out(parts) if wants_link else None) or warning


def _no_way_out(parts: Sequence[TextPart] | None) -> Refused | None:
    link = content.unsubscribe_link(parts)
    if link.found:
        return None
    reason = "a marketing message without List-Unsubscribe and without a link to unsubscribe"
    return Refused(
        NO_WAY_OUT,
        f"{reason} in what was searched: {link.unsearched}" if link.unsearched else reason,
        "add a List-Unsubscribe field with an https or mailto address, or such a link to each text",
    )


def _remedy(name: str, configuration: SmtpConfiguration) -> str:
    if name == "authorisation":
        return f"answer the authorisation form of configuration {configuration.id} and have it approved"
    return f"publish the record that configuration {configuration.id} shows, then verify it"


def _record(configuration: SmtpConfiguration) -> str:
    """Name the DNS record that stands in the way, for the log."""
    if configuration.failing == "dkim":
        return f"TXT record at {configuration.key.selector}._domainkey.{configuration.domain}"
    return f"{'A' if configuration.failing == 'a' else 'TXT'} record at {configuration.domain}"


def _accepted(case: Case, warning: str = "") -> Accepted:
    submission, header, configuration, facts = case.submission, case.header, case.configuration, case.facts
    # After every rule, and never a refusal: on the wire nobody learns who is suppressed. It may raise, so it comes
    # before anything is counted.
    suppressed = facts.suppressed(configuration.instance_id, submission.recipients)
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
    octets = without(submission.content, header, "bcc", "resent-bcc")
    if octets is not submission.content:
        submission = replace(submission, content=octets)
    limits, counted_at = configuration.rules.quota, None
    if limits is not None:
        counted_at = facts.quotas.room_at(configuration.id, limits, facts.now)
        facts.quotas.take(configuration.id, counted_at, facts.now)
    return Accepted(
        queue_id=facts.queue_id,
        submission=submission,
        instance_id=configuration.instance_id,
        smtp_config_id=configuration.id,
        signing_key=signing_key(configuration),
        trace=added,
        message_id=message_id[:_LONGEST_ID].decode("utf-8", "replace"),
        header_from=case.author.text,
        subject=shown(header.first("subject") or b""),
        accepted_at=facts.now,
        expires_at=(counted_at or facts.now) + facts.lifetime,
        counted_at=counted_at,
        warning=warning,
        suppressed=suppressed,
        tls_optional=[value.lower() for value in header.all("tls-required")] == [b"no"],
    )
