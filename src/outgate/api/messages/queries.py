"""Read the query of a search for mail: times, mailboxes, statuses.

Standards: RFC 3339 (times), RFC 5321 section 4.1.2 (mailboxes).
Promises: what cannot be read is a 400 that names the field; the published description says the same forms.
Not here: paging and bodies (`api.schema`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from outgate.api.errors import BadRequest
from outgate.model.flow import Status
from outgate.smtp import grammar

LONGEST_TIME = 28
LONGEST_MAILBOX = 254

# A query's absent value is no value at all, not `null`.
Text = str | SkipJsonSchema[None]
TIME = {"format": "date-time"}
MAILBOX = {"format": "email"}
StatusText = Annotated[str, WithJsonSchema({"type": "string", "enum": [status.value for status in Status]})]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def moment(field: str, text: str) -> float:
    """Return a time as epoch seconds. Raises `BadRequest`."""
    found = None
    if len(text) <= LONGEST_TIME and _TIME.fullmatch(text.upper()):
        try:
            found = datetime.fromisoformat(text.upper())
        except ValueError:
            found = None
    if found is None:
        raise BadRequest(
            field, f"must be a time in UTC such as 2026-11-21T07:03:00Z, {LONGEST_TIME} characters at most"
        )
    return found.timestamp()


def window(gte: str | None, lte: str | None) -> tuple[float | None, float | None]:
    """Return the two bounds as epoch seconds, None where there is none. Raises `BadRequest`."""
    first = None if gte is None else moment("gte", gte)
    last = None if lte is None else moment("lte", lte)
    if first is not None and last is not None and first > last:
        raise BadRequest("gte", f"must not be later than lte, but {gte} is later than {lte}")
    return first, last


def whole_mailbox(field: str, text: str | None) -> str | None:
    """Return `text` if it is a mailbox. Raises `BadRequest`."""
    if text is None:
        return None
    try:
        grammar.mailbox(text.encode("utf-8"))
    except grammar.BadSyntax as error:
        raise BadRequest(field, f"must be a whole mailbox such as ann@example.com: {error}") from None
    return text


def statuses(texts: Sequence[str]) -> tuple[Status, ...] | None:
    """Return the statuses asked for, None for any. Raises `BadRequest`."""
    try:
        return tuple(dict.fromkeys(Status(text) for text in texts)) or None
    except ValueError:
        raise BadRequest("status", f"must be one of {', '.join(status.value for status in Status)}") from None
