"""What zones, rules and allow-lists share: whose account, the body's limit, ETags and If-Match, audit fields, sorting.

Standards: RFC 9110 (ETag, If-Match with strong comparison).
Promises: an ETag changes with every replacement; sorting by an unknown field is refused.
Dangers: `If-Match` is only read here: whether it is met is decided in the store, with the change, in one transaction.
Not here: the operations (`zones`, `rules`, `allow_lists`, `catalogue`, `explain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fastapi import Depends, Header, Query, Request

from outgate.api.errors import BadRequest, Forbidden, Outdated
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.base.clock import rfc3339
from outgate.model.access import AllowList, Rule, Zone

# A zone may have 1000 addresses: with IPv6 ranges that is more than other bodies ever need.
BODY_LIMIT = 256 * 1024
SORT_FIELDS = ("name", "description", "created_at", "last_modified_at")
_FIELD = rf"-?({'|'.join(SORT_FIELDS)})"

Subject = TypeVar("Subject", Zone, Rule)


def stale(kind: str) -> Outdated:
    """Return the refusal for an ETag that is not the one that a thing of that kind has now."""
    return Outdated(f"the {kind} has another ETag now: get it anew, then decide again")


def account_listed(gate: Gate, operation: str) -> Callable[..., str]:
    """Return a dependency: the account that a list is asked for, which must be the caller's."""
    allowed = gate.allow(operation)

    def check(
        caller: Caller = Depends(allowed),
        account_id: str = Query(min_length=1, max_length=128, description="The account: that of the token."),
    ) -> str:
        require_own(caller, account_id)
        return account_id

    return check


def require_own(caller: Caller, account_id: str) -> None:
    """Raise `Forbidden` unless the account is the caller's."""
    if account_id != caller.account_id:
        raise Forbidden("the token is not for that account")


async def correlated(
    x_correlation_id: str | None = Header(None, description="Echoed in the answer; made up if absent."),
    transaction_id: str | None = Header(None, description="The older name of X-Correlation-Id.", deprecated=True),
) -> None:
    """Have the document name the headers that `errors.RequestIds` reads."""


async def expected(
    if_match: str = Header(
        alias="If-Match", min_length=1, max_length=1000, description="The ETag of what is replaced, or `*` for any."
    ),
) -> frozenset[str] | None:
    """Return the versions that `If-Match` allows, None for any. Raises 400 that names the header if it is absent."""
    return _versions(if_match)


async def expected_if_given(
    if_match: str | None = Header(
        None, alias="If-Match", max_length=1000, description="If given: the ETag of what is deleted, or `*` for any."
    ),
) -> frozenset[str] | None:
    """Return the versions that `If-Match` allows, None for any or if it is absent."""
    return None if if_match is None else _versions(if_match)


def _versions(text: str) -> frozenset[str] | None:
    if text.strip() == "*":
        return None
    # A version has no comma. Bare ones are taken too: some callers keep an ETag without its quotes. A weak one
    # (W/"…") stays what it is and so never matches, as RFC 9110 wants it.
    return frozenset(part.strip().removeprefix('"').removesuffix('"') for part in text.split(","))


def etag(subject: Zone | Rule | AllowList) -> dict[str, str]:
    """Return the headers of an answer that shows one zone, rule or allow-list."""
    return {"ETag": f'"{subject.version}"'}


def audit_fields(request: Request, subject: Zone | Rule | AllowList, path: str) -> dict[str, object]:
    """Return `href`, which is `path` below the base, and who made and changed it when."""
    return {
        "href": href(request, path),
        "created_at": rfc3339(subject.created_at, milliseconds=True),
        "created_by_id": subject.created_by,
        "last_modified_at": rfc3339(subject.updated_at, milliseconds=True),
        "last_modified_by_id": subject.updated_by,
    }


def href(request: Request, path: str) -> str:
    """Return the URL of `/v1/<path>` below the base that the request was sent to."""
    root = str(request.scope.get("root_path", ""))
    return str(request.url.replace(path=f"{root}/v1/{path}", query=""))


def crn(account_id: str, kind: str, subject_id: str) -> str:
    """Return the vendor's name of a zone or rule; `kind` is "zone", "rule" or "account_settings"."""
    return f"crn:v1:bluemix:public:context-based-restrictions:global:a/{account_id}::{kind}:{subject_id}"


def sorting() -> Any:
    """Return the declaration of the query's `sort`."""
    return Query(
        None,
        max_length=200,
        description=f"A comma list of {', '.join(SORT_FIELDS)}; with a leading `-` in descending order.",
        json_schema_extra={"pattern": f"^{_FIELD}(,{_FIELD})*$"},
    )


def in_order(subjects: Iterable[Subject], sort: str | None) -> list[Subject]:
    """Sort by a comma list of fields, `-` for descending, as the vendor's handbook has it. Raises `BadRequest`."""
    ordered = list(subjects)
    for part in reversed([part.strip() for part in (sort or "").split(",") if part.strip()]):
        name, descending = part.removeprefix("-"), part.startswith("-")
        if name not in SORT_FIELDS:
            raise BadRequest("sort", f"must be of {', '.join(SORT_FIELDS)}")
        ordered.sort(key=_sort_key(name), reverse=descending)
    return ordered


def _sort_key(name: str) -> Callable[[Zone | Rule], Any]:
    field = {"last_modified_at": "updated_at"}.get(name, name)
    return lambda subject: getattr(subject, field, "")
