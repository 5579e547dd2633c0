"""The shapes of what the operations on suppressed addresses take and answer, and an example of each.

Standards: none; ours, in the vendor's style, which has no such operation.
Promises: real answers are held against these (a test drives the API by its description).
Not here: what fills them (`suppressions`), files (`lines`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, RootModel, WithJsonSchema

from outgate.api.errors import BadRequest
from outgate.api.messages.queries import LONGEST_MAILBOX, LONGEST_TIME, moment
from outgate.api.openapi import Shown, Time
from outgate.api.schema import Body
from outgate.api.suppressions.lines import HEAD, check_address
from outgate.model.suppression import LONGEST_DETAIL, MANUAL, REASON

MOST_AT_ONCE = 1000


def _address(text: str) -> str:
    check_address(text)
    return text


def _reason(text: str) -> str:
    if REASON.fullmatch(text) is None:
        raise ValueError("must be one word such as hard_bounce, complaint, unsubscribe or manual")
    return text


def _detail(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def _ends(text: str) -> str:
    try:
        moment("expires_at", text)
    except BadRequest as error:
        raise ValueError(str(error).partition(" ")[2]) from None
    return text


class NewEntry(Body):
    """An address to suppress; without `expires_at` for good."""

    address: Annotated[
        str,
        AfterValidator(_address),
        WithJsonSchema({"type": "string", "format": "email", "maxLength": LONGEST_MAILBOX}),
    ] = Field(max_length=LONGEST_MAILBOX)
    reason: Annotated[str, AfterValidator(_reason)] = Field(
        MANUAL, json_schema_extra={"pattern": f"^{REASON.pattern}$"}
    )
    detail: Annotated[str, AfterValidator(_detail)] = Field("", max_length=LONGEST_DETAIL)
    expires_at: Annotated[str, AfterValidator(_ends)] | None = Field(
        None, max_length=LONGEST_TIME, json_schema_extra={"format": "date-time"}
    )


class NewEntries(Body):
    """Addresses to suppress, all or none of them."""

    suppressions: list[NewEntry] = Field(min_length=1, max_length=MOST_AT_ONCE)


class CsvText(RootModel[str]):
    """Comma-separated values: the first line names the columns, `address` among them."""


class Suppression(Shown):
    """A suppressed address: `source` says who wants it so ("bounce of A06F…", an identity, an import), `detail` more of
    it, as the reply that refused; `expires_at` null: for good."""

    address: str
    reason: str
    source: str
    detail: str
    created_at: Time
    expires_at: Time | None


class Added(Shown):
    """The entries that are there now."""

    suppressions: list[Suppression]


class PageOfSuppressions(Shown):
    """Where another page is."""

    href: str


class SuppressionsList(Shown):
    """A page of suppressed addresses, newest first."""

    total_count: int = Field(ge=0)
    offset: int = Field(ge=0)
    limit: int = Field(ge=1, le=100)
    suppressions: list[Suppression]
    first: PageOfSuppressions
    previous: PageOfSuppressions | None = None
    next: PageOfSuppressions | None = None


class Imported(Shown):
    """What became of a file: entries that are new, those that stand in place of earlier ones, and those that were left
    out because they have ended."""

    added: int = Field(ge=0)
    replaced: int = Field(ge=0)
    ended: int = Field(ge=0)


EXAMPLE: dict[str, object] = {
    "address": "ann@example.net",
    "reason": "hard_bounce",
    "source": "bounce of A06F3K2M9QXT4C7B",
    "detail": "550 5.1.1 No such user here",
    "created_at": "2026-11-21T07:03:00.000Z",
    "expires_at": "2027-02-19T07:03:00.000Z",
}
BODY_EXAMPLE: dict[str, object] = {"suppressions": [{"address": "ann@example.net", "reason": "unsubscribe"}]}
ADDED_EXAMPLE: dict[str, object] = {
    "suppressions": [
        {**EXAMPLE, "reason": "unsubscribe", "source": "iam-ServiceId-shop", "detail": "", "expires_at": None}
    ]
}
LIST_EXAMPLE: dict[str, object] = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "suppressions": [EXAMPLE],
    "first": {
        "href": "http://127.0.0.1:8025/event-notifications/v1/instances/5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21"
        "/smtp/suppressions?limit=10&offset=0"
    },
}
IMPORT_EXAMPLE = (
    "address,reason,expires_at\r\nann@example.net,unsubscribe,\r\nbob@example.net,hard_bounce,2099-02-19T07:03:00Z\r\n"
)
IMPORTED_EXAMPLE: dict[str, object] = {"added": 2, "replaced": 0, "ended": 0}
EXPORT_EXAMPLE = f"{HEAD}ann@example.net,unsubscribe,iam-ServiceId-shop,,2026-11-21T07:03:00.000Z,\r\n"
