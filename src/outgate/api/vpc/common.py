"""What the operations of the VPC API share: its door, its names, its links, its pages, its errors.

Standards: the vendor's VPC service (`version`, `generation`, `start`, `first`, `next`), RFC 3339.
Promises: `next` is there only when there is more; a page goes on where the last one ended, whatever was made or
    deleted meanwhile; a caller without a token learns nothing else.
Dangers: a `start` token is the caller's text: it is compared, never trusted.
Not here: operations (`networks`, `reserved`, `gateways`), shapes (`models`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, Field

from outgate.api.errors import ApiError, BadRequest, Clash, NotFound, Problem
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.schema import Body
from outgate.base import ids
from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.store.tenancy import Conflict, TooMany
from outgate.store.vpc_rows import BadAddress, Missing

MORE_INFO = "https://cloud.ibm.com/apidocs/vpc/latest"
BODY_LIMIT = 32 * 1024
_log = Log("outgate.vpc")
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LONGEST_TOKEN = 1000

T = TypeVar("T")
Key = tuple[float | str, ...]


class Door:
    """Who may call, and in which version of the API."""

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock

    def allow(self, operation: str) -> Callable[..., Awaitable[Caller]]:
        """Return a dependency that gives the caller. Raises `Unauthorized`, `Forbidden`, `BadRequest`."""
        allowed = self._gate.allow(operation)

        async def check(
            request: Request,
            caller: Caller = Depends(allowed),
            version: str | None = Query(
                None,
                max_length=32,
                description="The API's version: a date that is not in the future.",
                json_schema_extra={"format": "date"},
            ),
            generation: int | None = Query(None, description="Always 2.", json_schema_extra={"enum": [2]}),
        ) -> Caller:
            if version is None or generation is None:
                _log.info("vpc.unversioned", path=request.url.path, caller=caller.subject)
            if version is not None:
                self._check_version(version)
            if generation not in (None, 2):
                raise _bad_parameter("generation", "must be 2")
            return caller

        return check

    def _check_version(self, text: str) -> None:
        try:
            given = date.fromisoformat(text) if _DATE.fullmatch(text) else None
        except ValueError:
            given = None
        if given is None:
            raise _bad_parameter("version", "must be a date as 2026-10-06")
        # Where the caller is it may be tomorrow already.
        if given > datetime.fromtimestamp(self._clock.now(), UTC).date() + timedelta(days=1):
            raise _bad_parameter("version", "must not be in the future")


def _bad_parameter(name: str, message: str) -> BadRequest:
    error = BadRequest(name, message)
    error.problems = (Problem("bad_request", f"'{name}' {message}", name, "parameter"),)
    return error


def refusal(status: int, trace: str, problems: Sequence[Problem], more_info: str) -> dict[str, object]:
    """Return the error body of the vendor's VPC service."""
    found: list[dict[str, object]] = []
    for problem in problems:
        entry: dict[str, object] = {"code": problem.code, "message": problem.message, "more_info": more_info}
        if problem.field:
            entry["target"] = {"name": problem.field, "type": problem.place}
        found.append(entry)
    return {"errors": found, "trace": trace}


class OverQuota(ApiError):
    """409: a limit on how many there may be."""

    status = 409

    def __init__(self, message: str) -> None:
        super().__init__((Problem("over_quota", message),))


@contextmanager
def refusals(**fields: str) -> Generator[None]:
    """Turn what the store says against a change into an HTTP refusal; `fields` are its fields' names in the request."""
    try:
        yield
    except Missing as error:
        raise NotFound(error.what, error.name[:64]) from None
    except Conflict as error:
        raise Clash(fields.get(error.field, error.field), str(error)) from None
    except BadAddress as error:
        raise BadRequest(fields.get("address", "address"), f"is refused: {error}") from None
    except TooMany as error:
        raise OverQuota(str(error)) from None


# -- names and identities


def _own_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("must have 1 to 63 of a-z, 0-9 and -, a letter first and no - last")
    if text.startswith("ibm-"):
        raise ValueError("must not begin with ibm-: such names are the provider's")
    return text


Name = Annotated[
    str,
    AfterValidator(_own_name),
    Field(json_schema_extra={"minLength": 1, "maxLength": 63, "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"}),
]


class Identity(Body):
    """What names a thing: its id, its CRN or its href."""

    id: str | None = Field(None, min_length=1, max_length=128)
    crn: str | None = Field(None, min_length=1, max_length=512)
    href: str | None = Field(None, min_length=1, max_length=2048)

    def resolved(self, field: str) -> str:
        """Return the id. Raises `BadRequest`."""
        if self.id is not None:
            return self.id
        if self.crn is not None:
            return self.crn.rpartition(":")[2]
        if self.href is not None:
            return self.href.partition("?")[0].rstrip("/").rpartition("/")[2]
        raise BadRequest(field, "needs an id, a crn or an href")


def made_up_name(kind: str) -> str:
    """Return a name for what was given none."""
    return f"{kind}-{ids.hex_id()[:12]}"


def derived(*parts: str) -> str:
    """Return the id of what belongs to something else and is kept nowhere: the same for the same parts, always."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(parts)))


def require_default_group(given: Identity | None, account_id: str) -> None:
    """Refuse any resource group but the one that there is. Raises `NotFound`, `BadRequest`."""
    if given is not None and (named := given.resolved("resource_group")) != resource_group_id(account_id):
        raise NotFound("resource group", named[:64])


def resource_group_id(account_id: str) -> str:
    """Return the id of an account's one resource group."""
    return derived(account_id, "resource-group").replace("-", "")


# -- pages


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is wanted."""

    limit: int
    start: str | None

    def document(
        self,
        request: Request,
        name: str,
        items: Sequence[T],
        *,
        key: Callable[[T], Key],
        shown: Callable[[T], Any],
        descending: bool = False,
    ) -> dict[str, object]:
        """Return one page of a list in the order of `key`, which tells any two apart. Raises `BadRequest`."""
        found = sorted(items, key=key, reverse=descending)
        after = None if self.start is None else _read_token(self.start)
        try:
            rest = [item for item in found if after is None or (key(item) < after if descending else key(item) > after)]
        except TypeError:
            raise _bad_start() from None
        page = rest[: self.limit]
        answer: dict[str, object] = {
            name: [shown(item) for item in page],
            "first": {"href": _page_href(request, self.limit, None)},
            "limit": self.limit,
            "total_count": len(found),
        }
        if len(rest) > len(page):
            answer["next"] = {"href": _page_href(request, self.limit, _token(key(page[-1])))}
        return answer


def paging(
    limit: int = Query(50, ge=1, le=100, description="How many at most."),
    start: str | None = Query(
        None, min_length=1, max_length=_LONGEST_TOKEN, description="Where to go on: from the `next` of a page."
    ),
) -> Paging:
    """Read `limit` and `start` from the query."""
    return Paging(limit, start)


def _page_href(request: Request, limit: int, start: str | None) -> str:
    url = request.url.remove_query_params("start").include_query_params(limit=limit)
    return str(url if start is None else url.include_query_params(start=start))


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _read_token(text: str) -> Key:
    try:
        read = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _bad_start() from None
    if not isinstance(read, list) or not all(isinstance(part, float | int | str) for part in read):
        raise _bad_start()
    return tuple(read)


def _bad_start() -> BadRequest:
    return _bad_parameter("start", "must be the one that the last page's `next` has")


def link(request: Request, path: str) -> str:
    """Return the URL of a path below the base that the request was sent to."""
    root = str(request.scope.get("root_path", ""))
    return str(request.url.replace(path=f"{root}/{path}", query=""))


def told(event: str, caller: Caller, **what: object) -> None:
    """Log who changed what."""
    _log.info(event, account=caller.account_id, by=caller.subject, **what)
