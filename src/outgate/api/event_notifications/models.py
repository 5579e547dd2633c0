"""The shapes of answers of the Event Notifications API: the vendor's models, and ours beside them.

Standards: the vendor's models, field for field (OpenAPI 3.1 is made of these).
Promises: a test holds every real answer against these; nothing is in an answer that is not here.
Not here: making answers (`documents`), bodies of requests (`documents`, `authorization`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from outgate.api.openapi import Shown, Time

State = Literal["PENDING", "SUCCESSFUL", "FAILED"]


class Record(Shown):
    """A TXT record to publish, and whether it was found."""

    txt_name: str
    txt_value: str
    verification: State


class Authorized(Shown):
    """Whether a person let the configuration send."""

    verification: State


class Config(Shown):
    """The three checks; always all of them."""

    spf: Record
    dkim: Record
    en_authorization: Authorized


class SMTPCreateResponse(Shown):
    """A configuration just made."""

    id: str
    name: str
    description: str
    domain: str
    config: Config
    created_at: Time


class SMTPConfiguration(Shown):
    """A configuration."""

    id: str
    name: str
    description: str
    domain: str
    config: Config
    updated_at: Time


class Link(Shown):
    """Where another page is."""

    href: str


class Paged(Shown):
    """What every list has."""

    total_count: int = Field(ge=0)
    offset: int = Field(ge=0)
    limit: int = Field(ge=1, le=100)
    first: Link
    previous: Link | None = None
    next: Link | None = None


class SMTPConfigurationsList(Paged):
    """A page of configurations."""

    smtp_configurations: list[SMTPConfiguration]


class CheckState(Shown):
    """One check's state."""

    type: Literal["spf", "dkim", "en_authorization"]
    verification: State


class SMTPVerificationUpdateResponse(Shown):
    """What the checks that were asked for came to."""

    status: list[CheckState]


class SMTPAllowedIPs(Shown):
    """The networks that the rules let in over SMTP, as CIDR."""

    subnets: list[str]
    updated_at: Time


class SMTPUserResponse(Shown):
    """A user just made; `password` is shown only now, and not for a clone, which has its source's."""

    id: str
    smtp_config_id: str
    description: str
    domain: str
    username: str
    created_at: Time
    password: str | None = Field(None, min_length=3, max_length=250)


class SMTPUser(Shown):
    """A user."""

    id: str
    smtp_config_id: str
    description: str
    domain: str
    username: str
    created_at: Time
    updated_at: Time


class SMTPUsersList(Paged):
    """A page of users."""

    users: list[SMTPUser]


class RotatedUser(SMTPUser):
    """A user whose password was replaced: the new one, shown only now, and until when the one before is good."""

    password: str
    former_valid_until: Time | None


class Authorization(Shown):
    """The authorisation form with its answers, and what was decided."""

    smtp_config_id: str
    verification: State
    decision: Literal["approved", "rejected"] | None
    decided_at: Time | None
    decided_by: str | None
    reason: str | None
    submitted_at: Time | None = None
    submitted_by: str | None = None
    nature: Literal["marketing", "transactional"] | None = None
    website: str | None = None
    subscriber_list: str | None = None
    bounces_and_complaints: str | None = None
    unsubscribe: str | None = None
    sending_rate: str | int | None = None
    list_cleaning: str | None = None
    contacts: list[str] | None = None
    reply_to: str | None = None
    consent_statement: bool | None = None
    unsubscribe_link_statement: bool | None = None
    html_validation: str | None = None


class MailRulesAnswer(Shown):
    """What a configuration's mail is held to. `nature` is the form's word ("" while unanswered), `marketing` an
    operator's against it (null: none); a limit that is null is none."""

    smtp_config_id: str
    domain: str
    per_hour: int | None
    per_day: int | None
    over: Literal["refuse", "hold"]
    html: Literal["off", "warn", "refuse"]
    nature: Literal["", "marketing", "transactional"]
    marketing: bool | None
    unsubscribe_required: bool


class SigningKeyAnswer(Shown):
    """A signing key: its record, whether that was seen, and what to do about it. `removable_at`: when the record of a
    retired key may be removed."""

    algorithm: Literal["rsa", "ed25519"]
    selector: str
    state: Literal["active", "next", "retired"]
    since: Time
    txt_name: str = Field(max_length=255)
    txt_value: str = Field(max_length=500)
    verification: State
    removable_at: Time | None
    advice: str


class SigningKeys(Shown):
    """The signing keys of a configuration. `ed25519`: one signs, or is to sign, beside RSA; `rotating`: new ones wait
    for their records."""

    smtp_config_id: str
    domain: str
    ed25519: bool
    rotating: bool
    keys: list[SigningKeyAnswer]


class MailSettings(Shown):
    """What an instance's mail may carry."""

    instance_id: str
    attachments: bool


class CheckEvidence(Shown):
    """One check: what was asked, whom, what came back, when, and what follows."""

    type: Literal["a", "spf", "dkim", "dkim_next", "dkim_ed25519", "dkim_ed25519_next", "dmarc", "en_authorization"]
    result: str
    explanation: str
    record: str
    at: Time
    asked: list[dict[str, Any]]


class Checks(Shown):
    """How a configuration stands, since when, what comes next, and the evidence, newest first."""

    smtp_config_id: str
    domain: str
    standing: Literal["unverified", "verified", "warning", "suspended"]
    standing_since: Time | None
    failing: Literal["", "a", "spf", "dkim"]
    suspends_at: Time | None
    recheck_at: Time | None
    checks: list[CheckEvidence]


class Endpoint(Shown):
    """Where mail of some regions is handed in, and where it leaves from; a port is 0 if nothing listens."""

    id: str
    regions: list[str]
    public_name: str
    private_name: str
    submission_port: int = Field(ge=0, le=65535)
    submissions_port: int = Field(ge=0, le=65535)
    addresses: list[str]
    outgoing_addresses: list[str]
    ehlo_name: str


class Endpoints(Shown):
    """All endpoints; the first also serves the regions that none names."""

    endpoints: list[Endpoint]
