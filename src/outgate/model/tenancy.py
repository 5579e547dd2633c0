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


@dataclass(frozen=True, slots=True)
class Instance:
    """A service instance: the tenant. `attachments` says whether its mail may carry any."""

    id: str
    account_id: str
    region: str
    name: str
    attachments: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A signing key of a configuration; the private half is sealed in the store. `public` is base64 (DER SPKI
    for RSA)."""

    id: str
    smtp_config_id: str
    selector: str
    algorithm: str
    public: str


@dataclass(frozen=True, slots=True)
class SmtpConfiguration:
    """A domain that may send through an instance once all three verifications are successful."""

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

    @property
    def verified(self) -> bool:
        """Say whether mail may be sent: SPF, DKIM and authorisation all successful."""
        return self.spf == self.dkim == self.authorization == Verification.SUCCESSFUL


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one check of a configuration asked and found. `type` is spf, dkim, a or en_authorization; `result` is
    the check's own word (pass, softfail, temperror, …); `asked` holds the look-ups with their answers."""

    smtp_config_id: str
    type: str
    result: str
    explanation: str
    asked: tuple[object, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and its password's verifier (argon2id). Users point at it; clones share it."""

    id: str
    instance_id: str
    username: str
    verifier: str
    updated_at: float


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
    by domain."""

    credential: Credential
    instance: Instance
    configurations: dict[str, SmtpConfiguration]
