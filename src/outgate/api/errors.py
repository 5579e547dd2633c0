"""Refusals over HTTP: what can be wrong, and the vendor's envelope that says so.

Standards: RFC 9110 (status codes), RFC 6750 (401); the envelope `{status_code, trace, errors: [{code, message,
    more_info}]}` of Event Notifications, used for restrictions too.
Promises: every answer, also 404, 405 and 500, has that body and carries X-Global-Transaction-ID and
    X-Correlation-Id; `errors` is never empty; a failure of ours is logged with its trace and shows no detail.
Dangers: a message goes to the caller: no secret, path or statement belongs in one.
Not here: bodies and queries (`schema`), other vendors' error bodies (`cloud_manager`, `identity`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outgate.base import ids
from outgate.base.log import Log
from outgate.store.history import Crowded

_log = Log("outgate.api")
_CORRELATION = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}")
_PLACES = {"query": "parameter", "path": "parameter", "header": "header"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `field` names the part of the request ("" if none), `place` what kind of part it is:
    field, parameter or header."""

    code: str
    message: str
    field: str = ""
    place: str = "field"


class ApiError(Exception):
    """A refusal: an HTTP status and at least one problem."""

    status = 500

    def __init__(self, problems: Sequence[Problem], headers: dict[str, str] | None = None) -> None:
        super().__init__(problems[0].message)
        self.problems = tuple(problems)
        self.headers = headers or {}


class BadRequest(ApiError):
    """400: the request itself is wrong; names the field."""

    status = 400

    def __init__(self, field: str, message: str, *others: Problem) -> None:
        super().__init__((Problem("bad_request", f"'{field}' {message}" if field else message, field), *others))


class Unauthorized(ApiError):
    """401: no token, or not a good one."""

    status = 401

    def __init__(self, message: str = "the request needs a valid bearer token") -> None:
        super().__init__((Problem("unauthorized", message, ""),), {"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """403: the caller is known but lacks the role."""

    status = 403

    def __init__(self, message: str) -> None:
        super().__init__((Problem("authorization_error", message),))


class NotFound(ApiError):
    """404: there is no such thing, or it is not the caller's."""

    status = 404

    def __init__(self, what: str, name: str) -> None:
        super().__init__((Problem("not_found", f"there is no {what} {name!r}"),))


class Clash(ApiError):
    """409: something else has that name or place; names the field."""

    status = 409

    def __init__(self, field: str, message: str) -> None:
        super().__init__((Problem("conflict", f"'{field}' {message}" if field else message, field),))


class Outdated(ApiError):
    """412: what the caller has seen is not what is there now; `message` says what to do."""

    status = 412

    def __init__(self, message: str) -> None:
        super().__init__((Problem("precondition_failed", f"'If-Match' does not fit: {message}", "If-Match"),))


class TooLarge(ApiError):
    """413: the body is longer than this operation reads."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__((Problem("payload_too_large", f"the body may have {limit} bytes at most"),))


class UnsupportedMedia(ApiError):
    """415: the body is in a form that is not read."""

    status = 415

    def __init__(self, message: str) -> None:
        super().__init__((Problem("unsupported_media_type", message),))


class Unavailable(ApiError):
    """503: nothing was stored, and the same request may succeed later."""

    status = 503

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__((Problem("unavailable", message),), {"Retry-After": str(retry_after_s)})


def validation_problems(errors: Sequence[Any], *, skip: int = 0) -> tuple[Problem, ...]:
    """Turn pydantic's errors into problems that name the field; `skip` leading parts of each place are dropped."""
    return tuple(_problem(error, skip) for error in errors) or (Problem("bad_request", "the request is not valid"),)


def _problem(error: dict[str, Any], skip: int) -> Problem:
    place = ".".join(str(part) for part in error["loc"][skip:])
    wrong, said = str(error["type"]), str(error["msg"])
    if wrong == "missing":
        said = "is required"
    elif wrong == "value_error":
        said = str(error["ctx"]["error"])
    else:
        said = said.replace("Input should be", "must be").replace("String should", "must")
        said = said[0].lower() + said[1:]
    kind = _PLACES.get(str(error["loc"][0]), "field") if skip else "field"
    return Problem("bad_request", f"'{place}' {said}" if place else said, place, kind)


def trace_of(request: Request) -> str:
    """Return the trace id of this request (made by `RequestIds`)."""
    return str(request.scope["state"]["trace"])


def envelope(status: int, trace: str, problems: Sequence[Problem], more_info: str) -> dict[str, object]:
    """Return the vendor's error body."""
    errors: list[dict[str, object]] = []
    for problem in problems:
        entry: dict[str, object] = {"code": problem.code, "message": problem.message, "more_info": more_info}
        if problem.field:
            entry["target"] = {"type": "field", "name": problem.field}
        errors.append(entry)
    return {"status_code": status, "trace": trace, "errors": errors}


Shape = Callable[[int, str, Sequence[Problem], str], dict[str, object]]
"""Makes an error body, as `envelope` does."""


def install(app: FastAPI, more_info: str, shape: Shape = envelope) -> None:
    """Make `app` answer every error with what `shape` makes and every answer with the two id headers."""

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        body = shape(error.status, trace_of(request), error.problems, more_info)
        return JSONResponse(body, error.status, error.headers)

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = validation_problems(error.errors(), skip=1)
        return JSONResponse(shape(400, trace_of(request), problems, more_info), 400)

    def unrouted(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "method_not_allowed"}
        messages = {404: "there is no such resource", 405: "this resource does not have that method"}
        problem = Problem(codes.get(error.status_code, "bad_request"), messages.get(error.status_code, error.detail))
        body = shape(error.status_code, trace_of(request), (problem,), more_info)
        return JSONResponse(body, error.status_code, error.headers)

    def busy(request: Request, error: Exception) -> JSONResponse:
        _log.error("api.store_failed", trace=trace_of(request), path=request.url.path, error=repr(error))
        return refused(request, Unavailable("the store cannot be used now, and nothing was stored: try again"))

    def crowded(request: Request, error: Exception) -> JSONResponse:
        return refused(request, Unavailable(f"{error}: try again, or ask for less at once"))

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(Crowded, crowded)
    # Locked, full, or its disk is failing: the transaction has been undone.
    app.add_exception_handler(OperationalError, busy)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_middleware(RequestIds, more_info=more_info, shape=shape)


class RequestIds:
    """ASGI middleware: gives each request its ids, each answer their headers, and our own failures a 500."""

    def __init__(self, app: ASGIApp, more_info: str, shape: Shape = envelope) -> None:
        self._app = app
        self._more_info = more_info
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = ids.new_uuid()
        correlation = _correlation(scope) or trace
        # A fresh dictionary: the server shares one `state` between requests.
        scope["state"] = {**scope.get("state", {}), "trace": trace}
        started = False

        async def send_with_ids(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-global-transaction-id", trace.encode("ascii")),
                    (b"x-correlation-id", correlation.encode("ascii")),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_ids)
        except ClientDisconnect:
            _log.debug("api.client_gone", trace=trace, path=scope["path"])
        except Exception as error:
            _log.exception("api.failed", trace=trace, method=scope["method"], path=scope["path"], error=repr(error))
            if started:
                raise
            problem = Problem("internal_error", f"something failed here; the log has it under {trace}")
            answer = JSONResponse(self._shape(500, trace, (problem,), self._more_info), 500)
            await answer(scope, receive, send_with_ids)


def _correlation(scope: Scope) -> str | None:
    """Return the caller's correlation id if it is one; X-Correlation-Id comes before Transaction-Id."""
    given: dict[bytes, bytes] = dict(scope["headers"])
    for name in (b"x-correlation-id", b"transaction-id"):
        value = given.get(name, b"").decode("latin-1")
        if _CORRELATION.fullmatch(value):
            return value
    return None
