"""What a message is at each stage of its way through the relay, in reading order.

    Submission → Accepted | Refused → Job → Prepared → Outcome (per recipient, in an Attempt) → Event

Standards: RFC 5321, 6409 (words), RFC 3463 (enhanced codes).
Promises: every type is immutable; a stage takes one and returns the next, none calls an earlier stage.
Dangers: `content` is the wire form: dot-stuffed, every line ends in CR LF, without the final dot line.
Not here: what decides (`relay.policy`), what stores (`store`), what sends (`relay.delivery`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from outgate.domains.dane import Tlsa
from outgate.model.tenancy import SmtpConfiguration
from outgate.smtp.transaction import Step


class Status(StrEnum):
    """What has become of one recipient; the public sees delivered, deferred and bounced."""

    QUEUED = "queued"
    ATTEMPTING = "attempting"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    HELD = "held"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Say whether nothing more will happen to this recipient."""
        return self in _FINAL


_FINAL = frozenset({Status.DELIVERED, Status.BOUNCED, Status.SUPPRESSED, Status.EXPIRED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Client:
    """Who is on the other end of a session. Made by the listener (after a PROXY header, if one was due).

    `endpoint` is "public" or "private"; `listener` is "submission" (587) or "submissions" (465);
    `via` is the trusted proxy's address when a PROXY header named the client, else None; `vpc` is the CRN of the VPC
    whose endpoint gateway it came through, "" at the public endpoint."""

    address: str
    port: int
    endpoint: str
    listener: str
    via: str | None = None
    vpc: str = ""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path of an envelope: `mailbox` as given, `domain` in lower case A-labels.

    `notify` and `orcpt` are what DSN asks for, as in `smtp.events.RcptTo`; given twice, a mailbox is one recipient,
    whatever is asked for."""

    mailbox: str
    domain: str
    notify: str = field(default="", compare=False)
    orcpt: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Submission:
    """A whole message as a client handed it over. Made by the session at the end of data; read by policy.

    Now true: syntax is sound, TLS is on, the client is authenticated as `username`. `reverse_path` is ""
    for the null sender. `tls` reads like "TLSv1.3 TLS_AES_256_GCM_SHA384". Times are epoch seconds.
    `ret`, `envid` and `requiretls` are what the client asks of delivery, as in `smtp.events.MailFrom`."""

    session_id: str
    client: Client
    helo: str
    tls: str
    username: str
    reverse_path: str
    recipients: tuple[Recipient, ...]
    content: bytes
    received_at: float
    body_8bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Which keys sign a message: SDID (`domain`), the RSA key's `selector` and id in the store; and those of the
    Ed25519 key that signs beside it, "" if none does. Chosen when the message is accepted, for all its attempts."""

    key_id: str
    domain: str
    selector: str
    second_id: str = ""
    second_selector: str = ""


def signing_key(configuration: SmtpConfiguration) -> SigningKey:
    """Return which keys sign what is accepted now for a configuration."""
    key, second = configuration.key, configuration.second
    if second is None:
        return SigningKey(key.id, configuration.domain, key.selector)
    return SigningKey(key.id, configuration.domain, key.selector, second.id, second.selector)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that every rule let pass. Made by policy; the queue stores it, then the client reads 250.

    `trace` is what we prepend (Received, and Message-ID or Date where missing), CR LF lines. `counted_at` is when
    it counts for its configuration's quota (None: there is none); it is held until then if that is later than
    `accepted_at`. `warning` is what was found and let pass. `suppressed` are the mailboxes among its recipients that it
    is not sent to, and the words for the trail. `tls_optional`: the message says `TLS-Required: No` (RFC 8689
    section 5). `origin` is "" for a submission, "dsn" for a report of ours about the message `parent`."""

    queue_id: str
    submission: Submission
    instance_id: str
    smtp_config_id: str
    signing_key: SigningKey
    trace: bytes
    message_id: str
    header_from: str
    subject: str
    accepted_at: float
    expires_at: float
    counted_at: float | None = None
    warning: str = ""
    suppressed: Mapping[str, str] = field(default_factory=dict[str, str])
    origin: str = ""
    parent: str = ""
    tls_optional: bool = False


@dataclass(frozen=True, slots=True)
class Location:
    """Where in the spool a message's record lies: segment number, its generation, byte offset, byte length."""

    segment: int
    generation: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class JobRecipient:
    """A recipient within a job: its row id, mailbox, domain, how many attempts it has had, what DSN asks for, and
    whether the sender has been told that it is late (`warned`).

    `may_have_arrived`: an earlier attempt sent all and got no answer, so that a delivery now may be the second."""

    id: int
    mailbox: str
    domain: str
    attempts: int
    notify: str = ""
    orcpt: str = ""
    warned: bool = False
    may_have_arrived: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A message × one recipient domain × its due recipients, leased to this process. Made by the queue.

    `content` is at hand when the message was accepted a moment ago, else None: read it at `location`. `ret`, `envid`
    and `requiretls` are as in `Submission`, `tls_optional` and `origin` as in `Accepted`; `route` names the one route
    it must take, "" for the usual order."""

    queue_id: str
    instance_id: str
    smtp_config_id: str
    signing_key: SigningKey
    reverse_path: str
    domain: str
    recipients: tuple[JobRecipient, ...]
    location: Location
    accepted_at: float
    expires_at: float
    body_8bit: bool
    smtputf8: bool
    trace: bytes | None = None
    content: bytes | None = None
    ret: str = ""
    envid: str = ""
    requiretls: bool = False
    route: str = ""
    origin: str = ""
    tls_optional: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with everything that goes on the wire: `fields` (DKIM-Signature, trace) to prepend, `content`."""

    job: Job
    fields: bytes
    content: bytes


class TlsLevel(StrEnum):
    """What a connection must have before a message goes over it, weakest first."""

    NONE = "none"
    """STARTTLS is not used."""
    OPPORTUNISTIC = "opportunistic"
    """Encrypted where the server can, with any certificate."""
    ENCRYPTED = "encrypted"
    """Encrypted or not at all, with any certificate."""
    VERIFIED = "verified"
    """With a certificate that authorities vouch for and that has one of the demand's names."""
    DANE = "dane"
    """With a certificate that one of the demand's TLSA records matches."""


@dataclass(frozen=True, slots=True)
class TlsDemand:
    """What TLS to a host must be. Made by routing, kept by dialling. `names` are those a certificate may have (the
    host's own if there is none); `why` says who asks for it, for the trail ("MTA-STS enforce of example.com");
    `authorities` are the certificates (PEM) that may vouch for it, "" for the usual ones. `testing` is who would like a
    verified certificate, without insisting ("MTA-STS testing of example.com")."""

    level: TlsLevel = TlsLevel.OPPORTUNISTIC
    names: tuple[str, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()
    why: str = ""
    authorities: str = ""
    testing: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """What a smart host is told in AUTH."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Host:
    """One place to try: an MX's name ("" for an address literal), its address and port, and the address to leave
    from, which is of the same family (None: the system's choice); and what TLS to it must be.

    Hosts of equal `preference` stand beside each other and may be tried at the same time. `implicit`: TLS from the
    first octet; `login`: AUTH, in TLS."""

    name: str
    address: str
    port: int
    source: str | None = None
    tls: TlsDemand = TlsDemand()
    preference: int = 0
    implicit: bool = False
    login: Login | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a job goes. Made by routing. `site` names the set of MX hosts; `hosts` in the order to try;
    `reason` says why this route, for the trail; `endpoint` is the one it leaves from, as `ehlo_name`.

    `via` is "direct" or the name of the smart host or egress forward that carries it. Only work of equal `security`
    shares a connection: it names what was demanded of TLS for the whole site ("opportunistic", "sts example.com", …).
    `requiretls`: only a server that offers REQUIRETLS may have it."""

    site: str
    hosts: tuple[Host, ...]
    reason: str
    endpoint: str = ""
    ehlo_name: str = ""
    via: str = "direct"
    security: str = "opportunistic"
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt meant for one recipient. `code` 0 when no reply was read; `reason` is a class word
    ("accepted", "bad-mailbox", "policy", "network", "dns", "tls", "timeout", …). `personal`: the reply was to this
    recipient alone, not to a sender or a message that others share. `handed_on`: the server that took the message
    offers DSN, so what the sender is to be told of it is its business now."""

    recipient_id: int
    status: Status
    code: int
    enhanced: str
    text: str
    reason: str
    personal: bool = False
    handed_on: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one job: where, from where, over what, each step, and an outcome per recipient."""

    queue_id: str
    site: str
    host: str
    address: str
    source: str
    tls: str
    started_at: float
    finished_at: float
    route_reason: str
    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]
    next_attempt_at: float | None = None
    recipients: tuple[JobRecipient, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Report:
    """A message of ours about what became of another, stored together with the outcome that it reports, or not at all
    if that counts for none of `recipients` (row ids), which it is about; `delayed` are those whose sender is told by it
    that they are late."""

    message: Accepted
    recipients: tuple[int, ...]
    delayed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One fact in a message's life: the record behind status, metrics, trail and webhooks. Kept by the store.

    `kind` is a `Status` that a recipient has from then on, or a word: "accepted", "warning", "released" (held no
    more), "interrupted" (the service ended while it was under way), "report", "rerouted", … `recipient_id` None: it is
    about the whole message. `attempt_id` is the try that it came of, whose reply is `code`, `enhanced`, `text`; without
    a try, `text` are our words for it. `reason` is a class word, `actor` who did it ("" is the relay by itself),
    `due_at` when the recipient is tried next (None: it is not)."""

    queue_id: str
    at: float
    kind: str
    recipient_id: int | None = None
    attempt_id: int | None = None
    code: int = 0
    enhanced: str = ""
    text: str = ""
    reason: str = ""
    actor: str = ""
    due_at: float | None = None
