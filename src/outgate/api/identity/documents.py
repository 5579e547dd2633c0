"""The vendor's JSON for API keys and tokens, and the bodies that make and change keys.

Standards: the vendor's models ApiKey and ApiKeyList, and `roles` and `instances`, which are ours; RFC 3339
    and ISO 8601 (end dates).
Promises: every field that the vendor's model requires is there; a key's text is in the answer that makes it only,
    elsewhere `apikey` is "".
Dangers: end dates are answered in the vendor's form, `2026-12-31T23:59+0000`, other times in RFC 3339.
Not here: routes (`keys`, `exchange`), error bodies (`api.errors`, `exchange`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from outgate.api.errors import BadRequest
from outgate.api.identity.roles import Role
from outgate.api.openapi import Shown, Time
from outgate.api.schema import Body
from outgate.base.clock import rfc3339
from outgate.store.identity import ApiKey

_FURTHEST_S = 10 * 366 * 86_400
_WHEN = "such as 2026-12-31T23:59+0000 or 2026-12-31T23:59:00Z"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters in one line")
    return text


def _unset(given: object) -> object:
    if given not in (None, False, "", "none"):
        raise ValueError("is not offered here: leave it out")
    return given


Printable = Annotated[str, AfterValidator(_printable)]
_Instances = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=100)]
_NotOffered = Annotated[str | bool | None, AfterValidator(_unset)]


class NewApiKey(Body):
    """Body of `create_api_key`."""

    name: Printable = Field(min_length=1, max_length=250)
    iam_id: str | None = Field(
        None, max_length=250, description="Read and not used: each key is an identity of its own, `iam-<id>`."
    )
    account_id: str | None = Field(None, description="The caller's own account.")
    description: Printable = Field("", max_length=250)
    expires_at: str | None = Field(None, max_length=40, description=f"End date, {_WHEN}; none: the key does not end.")
    roles: list[Role] = Field(default=["reader"], min_length=1, max_length=7, description="Roles the caller has too.")
    instances: _Instances | None = Field(
        None, description="With the role smtp: whose SMTP users it is a password of; none: all of the account's."
    )
    apikey: _NotOffered = Field(None, description="Not offered: the text of a key is always made here.")
    store_value: _NotOffered = None
    support_sessions: _NotOffered = None
    action_when_leaked: _NotOffered = None


class ChangedApiKey(Body):
    """Body of `update_api_key`: what is absent stays."""

    name: Printable | None = Field(None, min_length=1, max_length=250)
    description: Printable | None = Field(None, max_length=250)
    expires_at: str | None = Field(
        None,
        max_length=40,
        description=f'End date, {_WHEN}; "": the key does not end. A later one takes all roles of the key.',
    )
    roles: list[Role] | None = Field(None, min_length=1, max_length=7, description="New ones the caller has too.")
    instances: _Instances | None = Field(
        None, description='With the role smtp: whose SMTP users it is a password of; ["*"]: all of the account\'s.'
    )
    support_sessions: _NotOffered = None
    action_when_leaked: _NotOffered = None


class ApiKeyShown(Shown):
    """The vendor's ApiKey, the key's roles, and the instances it is bound to, if it is.

    `disabled` is true once the end date is past."""

    id: str
    entity_tag: str
    crn: str
    locked: bool
    disabled: bool
    created_at: Time
    created_by: str
    modified_at: Time
    name: str
    description: str
    iam_id: str
    account_id: str
    apikey: str
    roles: list[Role]
    instances: list[str] | None = None
    expires_at: str | None = None


class ApiKeyListShown(Shown):
    """The vendor's ApiKeyList."""

    offset: int
    limit: int
    first: str
    previous: str | None = None
    next: str | None = None
    apikeys: list[ApiKeyShown]


class TokenShown(Shown):
    """The vendor's token answer; `expiration` is seconds since the epoch."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    expiration: int
    scope: str


class PublicKeysShown(Shown):
    """The public keys that tokens are checked with (RFC 7517)."""

    keys: list[dict[str, str]]


class TokenRefusedContext(Shown):
    """Where a token was refused."""

    requestId: str
    requestType: str
    url: str
    host: str


class TokenRefused(Shown):
    """The vendor's error body of the token operation, which is not that of the others."""

    errorCode: str
    errorMessage: str
    context: TokenRefusedContext


def end_date(text: str | None, now: float) -> float | None:
    """Read an end date: seconds since the epoch, None for none. Raises `BadRequest`."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text:
            raise ValueError(text)
        ends = float(int(moment.timestamp()))
    except (ValueError, OverflowError):
        raise BadRequest("expires_at", f"must be a time with its offset, {_WHEN}") from None
    if ends <= now:
        raise BadRequest("expires_at", "must be in the future")
    if ends > now + _FURTHEST_S:
        raise BadRequest("expires_at", 'must be within ten years; leave it out (or send "") for a key without end')
    return ends


def entity_tag(key: ApiKey) -> str:
    """Return a key's version as the vendor's clients send it back; never empty."""
    return key.version or "1"


def api_key_document(key: ApiKey, now: float, clear: str = "") -> dict[str, object]:
    """Return ApiKey; `clear` is the key's text, given in the answer that makes it only."""
    document: dict[str, object] = {
        "id": key.id,
        "entity_tag": entity_tag(key),
        "crn": f"crn:v1:bluemix:public:iam-identity::a/{key.account_id}::apikey:{key.id}",
        "locked": False,
        "disabled": key.ended(now),
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by,
        "modified_at": rfc3339(key.updated_at),
        "name": key.name,
        "description": key.description,
        "iam_id": key.subject,
        "account_id": key.account_id,
        "apikey": clear,
        "roles": sorted(key.roles),
    }
    if key.instances is not None:
        document["instances"] = sorted(key.instances)
    return document if key.expires_at is None else {**document, "expires_at": _vendor_time(key.expires_at)}


def _vendor_time(epoch: float) -> str:
    """Write a time as the vendor does, to the minute, and with seconds only where there are some."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S+0000" if moment.second else "%Y-%m-%dT%H:%M+0000")
