"""The vendor's JSON for configurations and users, and the bodies that make them.

Standards: the vendor's models, field for field; RFC 7208 (SPF) and RFC 6376 (DKIM) for the records offered;
    RFC 5890 (A-labels).
Promises: `config` always has all three checks, `description` is always there; a DKIM record's text has 500
    characters at most.
Dangers: a configuration answers `created_at` when made and `updated_at` ever after.
Not here: routes (`configurations`, `users`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from outgate.api.event_notifications.parts import SmtpRecords
from outgate.api.schema import Body, PlainText
from outgate.base.clock import rfc3339
from outgate.model.tenancy import SmtpConfiguration, SmtpUser
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


class NewUser(Body):
    """Body of operation 8."""

    description: PlainText = Field("", max_length=250)


def spf_text(records: SmtpRecords) -> str:
    """Return the SPF record that a customer is asked to publish."""
    return f"v=spf1 include:{records.spf_host} ~all"


def dkim_name(configuration: SmtpConfiguration) -> str:
    """Return where a customer publishes the DKIM key."""
    return f"{configuration.key.selector}._domainkey.{configuration.domain}"


def dkim_text(configuration: SmtpConfiguration) -> str:
    """Return the DKIM record that a customer is asked to publish."""
    return f"v=DKIM1; k={configuration.key.algorithm}; p={configuration.key.public}"


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
