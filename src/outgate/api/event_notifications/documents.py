"""The vendor's JSON for configurations and users, and the bodies that make them.

Standards: the vendor's models, field for field; RFC 7208 (SPF) and RFC 6376 (DKIM) for the records offered;
    RFC 5890 (A-labels).
Promises: `config` always has all three checks, `description` is always there; a DKIM record's text has 500
    characters at most.
Dangers: a configuration answers `created_at` when made and `updated_at` ever after.
Not here: routes (`configurations`, `users`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from outgate.api.event_notifications.parts import SmtpRecords
from outgate.api.schema import Body, PlainText
from outgate.base.clock import rfc3339
from outgate.model.tenancy import Evidence, SmtpConfiguration, SmtpUser, Standing
from outgate.smtp import grammar

# A DNS name has 253 characters, and the DKIM record puts a UUID and "._domainkey." in front.
LONGEST_DOMAIN = 253 - len("00000000-0000-0000-0000-000000000000._domainkey.")


def _domain(text: str) -> str:
    try:
        name = grammar.domain(text)
    except grammar.BadSyntax:
        raise ValueError("must be a domain name such as mail.example.com") from None
    labels = name.split(".")
    if len(labels) < 2 or labels[-1].isdecimal():
        raise ValueError("must be a full domain name such as example.com")
    if len(name) > LONGEST_DOMAIN:
        raise ValueError(f"is too long for its DKIM record: {LONGEST_DOMAIN} characters at most, as A-labels")
    return name


class NewConfiguration(Body):
    """Body of operation 1."""

    name: PlainText = Field(min_length=1, max_length=250)
    domain: Annotated[str, AfterValidator(_domain)] = Field(min_length=1, max_length=512)
    description: PlainText = Field("", max_length=250)


class ChangedConfiguration(Body):
    """Body of operation 4: either or both."""

    name: PlainText | None = Field(None, min_length=1, max_length=250)
    description: PlainText | None = Field(None, max_length=250)


class NewUser(Body):
    """Body of operation 8."""

    description: PlainText = Field("", max_length=250)


class ChangedUser(Body):
    """Body of operation 11."""

    description: PlainText | None = Field(None, max_length=250)


class Rotation(Body):
    """How long the password before is good beside the new one: a day, a week at most, 0 for not at all."""

    overlap_s: int = Field(86_400, ge=0, le=604_800)


def spf_text(records: SmtpRecords) -> str:
    """Return the SPF record that a customer is asked to publish."""
    return f"v=spf1 include:{records.spf_host} ~all"


def dkim_name(configuration: SmtpConfiguration) -> str:
    """Return where a customer publishes the DKIM key."""
    return configuration.key.name(configuration.domain)


def dkim_text(configuration: SmtpConfiguration) -> str:
    """Return the DKIM record that a customer is asked to publish."""
    return configuration.key.text


def configuration_document(
    configuration: SmtpConfiguration, records: SmtpRecords, *, created: bool = False
) -> dict[str, object]:
    """Return SMTPConfiguration, or SMTPCreateResponse if `created`."""
    document: dict[str, object] = {
        "id": configuration.id,
        "name": configuration.name,
        "description": configuration.description,
        "domain": configuration.domain,
        "config": {
            "spf": {
                "txt_name": configuration.domain,
                "txt_value": spf_text(records),
                "verification": configuration.spf.value,
            },
            "dkim": {
                "txt_name": dkim_name(configuration),
                "txt_value": dkim_text(configuration),
                "verification": configuration.dkim.value,
            },
            "en_authorization": {"verification": configuration.authorization.value},
        },
    }
    if created:
        return {**document, "created_at": rfc3339(configuration.created_at)}
    return {**document, "updated_at": rfc3339(configuration.updated_at)}


def created_user_document(user: SmtpUser, password: str | None) -> dict[str, object]:
    """Return SMTPUserResponse; without `password` for a clone, which has the one of its source."""
    document: dict[str, object] = {
        "id": user.id,
        "smtp_config_id": user.smtp_config_id,
        "description": user.description,
        "domain": user.domain,
        "username": user.username,
        "created_at": rfc3339(user.created_at),
    }
    return document if password is None else {**document, "password": password}


def user_document(user: SmtpUser) -> dict[str, object]:
    """Return SMTPUser."""
    return {**created_user_document(user, None), "updated_at": rfc3339(user.updated_at)}


def checks_document(
    configuration: SmtpConfiguration, evidence: Sequence[Evidence], grace_s: float
) -> dict[str, object]:
    """Return how a configuration stands and why; `grace_s` is how long a failing one may still send."""
    warned = configuration.standing is Standing.WARNING
    since = configuration.standing_since
    return {
        "smtp_config_id": configuration.id,
        "domain": configuration.domain,
        "standing": configuration.standing.value,
        "standing_since": rfc3339(since) if since else None,
        "failing": configuration.failing,
        "suspends_at": rfc3339(since + grace_s) if warned else None,
        "recheck_at": None if configuration.recheck_at is None else rfc3339(configuration.recheck_at),
        "checks": [
            {
                "type": each.type,
                "result": each.result,
                "explanation": each.explanation,
                "record": each.record,
                "at": rfc3339(each.at),
                "asked": list(each.asked),
            }
            for each in evidence
        ],
    }
