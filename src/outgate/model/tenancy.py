"""Tenants: instances, SMTP configurations, their verifications, credentials and users.

Standards: the vendor's models (Event Notifications, SMTP interface) in our own words.
Promises: immutable; times are epoch seconds; domains are lower-case A-labels.
Dangers: `Credential.verifier` is a hash; a clear password exists only in the answer that makes it.
Not here: vendor spellings and JSON (`api.event_notifications`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verification(StrEnum):
    """State of one of a configuration's three checks."""

    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"


class Standing(StrEnum):
    """Whether a configuration may send: never verified yet, verified, failing within the grace, or suspended."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    WARNING = "warning"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Instance:
    """A service instance: the tenant. `attachments` says whether its mail may carry any."""

    id: str
    account_id: str
    region: str
    name: str
    attachments: bool
    created_at: float


class KeyState(StrEnum):
    """Where a signing key is in its life: made and not in use yet, signing new mail, or signing no new mail."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A signing key of a configuration; the private half is sealed in the store. `public` is base64 (DER SPKI
    for "rsa", the 32 octets for "ed25519")."""

    id: str
    smtp_config_id: str
    selector: str
    algorithm: str
    public: str

    @property
    def text(self) -> str:
        """The TXT record that publishes it (RFC 6376 section 3.6.1); 500 characters at most."""
        return f"v=DKIM1; k={self.algorithm}; p={self.public}"

    def name(self, domain: str) -> str:
        """Return where `domain` publishes it."""
        return f"{self.selector}._domainkey.{domain}"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A signing key and its life. `published` is what was last found for certain of its DNS record; `changed_at` is
    when the state began; `destroyed`: the private half is gone.

    Of one algorithm a configuration has at most one key that is active and one that is next; Ed25519 may be next
    without an active one."""

    key: DkimKey
    state: KeyState
    published: Verification
    changed_at: float
    destroyed: bool = False


class OverQuota(StrEnum):
    """What becomes of a message over the quota: refused for now, or taken and held until there is room."""

    REFUSE = "refuse"
    HOLD = "hold"


class HtmlCheck(StrEnum):
    """What becomes of a message whose HTML is not well-formed."""

    OFF = "off"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Quota:
    """How many messages a configuration may send in any hour and in any 24 hours; None: as many as come."""

    per_hour: int | None
    per_day: int | None


@dataclass(frozen=True, slots=True)
class MailRules:
    """What a configuration's mail is held to beside the rules for all. `quota` None: none; `over` outlives
    the limits that it is about.

    `nature` is the authorisation form's word ("marketing", "transactional", "" while unanswered); `marketing` is an
    operator's word against it (None: as the form says)."""

    quota: Quota | None = None
    html: HtmlCheck = HtmlCheck.OFF
    nature: str = ""
    marketing: bool | None = None
    over: OverQuota = OverQuota.REFUSE

    @property
    def needs_unsubscribe(self) -> bool:
        """Say whether each message must offer a way to unsubscribe."""
        return self.nature == "marketing" if self.marketing is None else self.marketing


NO_RULES = MailRules()


@dataclass(frozen=True, slots=True)
class SmtpConfiguration:
    """A domain that may send through an instance once all three verifications are successful.

    `spf`, `dkim` and `authorization` are what was last found for certain; `standing` is what follows for sending:
    a domain that fails after it was verified may still send while it is warned. `failing` names the check that
    stands in the way ("a", "spf" or "dkim"), "" if none; `recheck_at` None: not looked at by itself.

    `key` (RSA) signs all its mail; `second` (Ed25519) signs beside it, None if there is none whose record was seen."""

    id: str
    instance_id: str
    name: str
    description: str
    domain: str
    spf: Verification
    dkim: Verification
    authorization: Verification
    key: DkimKey
    created_at: float
    updated_at: float
    standing: Standing = Standing.UNVERIFIED
    standing_since: float = 0.0
    failing: str = ""
    recheck_at: float | None = None
    rules: MailRules = NO_RULES
    second: DkimKey | None = None

    @property
    def verified(self) -> bool:
        """Say whether mail may be sent: SPF, DKIM and authorisation all successful."""
        return self.spf == self.dkim == self.authorization == Verification.SUCCESSFUL


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one check of a configuration asked and found. `type` is spf, dkim, a, dmarc or en_authorization; `result`
    is the check's own word (pass, softfail, temperror, …); `asked` holds the look-ups: what, whom, what came back,
    when; `record` is the name of the DNS record concerned."""

    smtp_config_id: str
    type: str
    result: str
    explanation: str
    asked: tuple[object, ...]
    at: float
    record: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to, before it is kept: as `Evidence`, with the state it leads to (None: nothing is known),
    when it began (None: now), and which signing key it is about ("": none in particular)."""

    check: str
    state: Verification | None
    result: str
    explanation: str
    record: str = ""
    asked: tuple[object, ...] = ()
    begun: float | None = None
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class NewStanding:
    """What follows from checks: the fields of a configuration that say how it stands from now on."""

    standing: Standing
    since: float
    failing: str
    recheck_at: float | None


@dataclass(frozen=True, slots=True)
class AuthorizationForm:
    """The vendor's eight questions answered, and what was decided: `decision` is "approved", "rejected" or None."""

    smtp_config_id: str
    answers: dict[str, object]
    submitted_at: float
    submitted_by: str
    decision: str | None = None
    decided_at: float | None = None
    decided_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and its password's verifier (argon2id). Users point at it; clones share it. `former_verifier` is
    the password's before the last rotation, good until `former_until`."""

    id: str
    instance_id: str
    username: str
    verifier: str
    updated_at: float
    former_verifier: str | None = None
    former_until: float | None = None


@dataclass(frozen=True, slots=True)
class SmtpUser:
    """The right of a credential to send for one configuration."""

    id: str
    smtp_config_id: str
    credential_id: str
    username: str
    domain: str
    description: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Sender:
    """What policy knows about an authenticated name: its instance and the configurations it may send for,
    by domain; `key_id` is the API key that served as its password, "" if none did."""

    credential: Credential
    instance: Instance
    configurations: dict[str, SmtpConfiguration]
    key_id: str = ""
