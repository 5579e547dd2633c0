"""What zones and rules share: whose account, the body's limit, ETags, audit fields, sorting.

Standards: RFC 9110 (ETag).
Promises: an ETag changes with every replacement; sorting by an unknown field is refused.
Not here: the operations (`zones`, `rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fastapi import Depends, Query, Request

from outgate.api.errors import BadRequest, Forbidden
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.base.clock import rfc3339
from outgate.model.access import Rule, Zone

# A zone may have 1000 addresses: with IPv6 ranges that is more than other bodies ever need.
BODY_LIMIT = 256 * 1024
SORT_FIELDS = ("name", "description", "created_at", "last_modified_at")

Subject = TypeVar("Subject", Zone, Rule)


def account_listed(gate: Gate, operation: str) -> Callable[..., str]:
    """Return a dependency: the account that a list is asked for, which must be the caller's."""
    allowed = gate.allow(operation)

    def check(caller: Caller = Depends(allowed), account_id: str = Query(min_length=1, max_length=128)) -> str:
        require_own(caller, account_id)
        return account_id

    return check


def require_own(caller: Caller, account_id: str) -> None:
    """Raise `Forbidden` unless the account is the caller's."""
    if account_id != caller.account_id:
        raise Forbidden("the token is not for that account")


def etag(subject: Zone | Rule) -> dict[str, str]:
    """Return the headers of an answer that shows one zone or rule."""
    return {"ETag": f'"{subject.version}"'}


def audit_fields(request: Request, subject: Zone | Rule, kind: str) -> dict[str, object]:
    """Return `href` and who made and changed it when; `kind` is "zones" or "rules"."""
    base = str(request.url.replace(query="")).partition(f"/v1/{kind}")[0]
    return {
        "href": f"{base}/v1/{kind}/{subject.id}",
        "created_at": rfc3339(subject.created_at, milliseconds=True),
        "created_by_id": subject.created_by,
        "last_modified_at": rfc3339(subject.updated_at, milliseconds=True),
        "last_modified_by_id": subject.updated_by,
    }


def crn(account_id: str, kind: str, subject_id: str) -> str:
    """Return the vendor's name of a zone or rule; `kind` is "zone" or "rule"."""
    return f"crn:v1:bluemix:public:context-based-restrictions:global:a/{account_id}::{kind}:{subject_id}"


def in_order(subjects: Iterable[Subject], sort: str | None) -> list[Subject]:
    """Sort by a comma list of fields, `-` for descending, as the vendor's handbook has it. Raises `BadRequest`."""
    ordered = list(subjects)
    for part in reversed([part.strip() for part in (sort or "").split(",") if part.strip()]):
        name, descending = part.lstrip("-"), part.startswith("-")
        if name not in SORT_FIELDS:
            raise BadRequest("sort", f"must be of {', '.join(SORT_FIELDS)}")
        ordered.sort(key=_sort_key(name), reverse=descending)
    return ordered


def _sort_key(name: str) -> Callable[[Zone | Rule], Any]:
    field = {"last_modified_at": "updated_at"}.get(name, name)
    return lambda subject: getattr(subject, field, "")
