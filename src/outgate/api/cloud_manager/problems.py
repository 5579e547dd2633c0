"""Refusals as the Cloud Manager clients understand them.

Standards: RFC 9457 (application/problem+json); the vendor's problem types and gateway errors.
Promises: every answer carries x-request-id; a validation names each field with code, message and value; what
    the gateway refuses (token, client, organisation, role) is `{error_code, message}` in plain JSON; parameters of a
    query are refused as BadRequestError; a store that cannot be used is a 503, and nothing was stored.
Dangers: `invalidValue` is shown to people: for values of variables it is masked.
Not here: what is valid (`validation`), the envelope of the other APIs (`api.errors`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outgate.api.errors import ApiError, Unauthorized
from outgate.base import ids
from outgate.base.log import Log

_log = Log("outgate.api.cloud_manager")
_ERROR = "http://ns.adobe.com/adobecloud/error"
_VALIDATION = "http://ns.adobe.com/adobecloud/validation-exception"
_TITLES = {
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: its place as the vendor spells it, a code, what must be, and what was sent."""

    field: str
    code: str
    message: str
    invalid_value: object = None


class Invalid(Exception):
    """400: fields are wrong."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations[0].message)
        self.violations = tuple(violations)


class BadParameters(Exception):
    """400: parameters of the query are wrong; each name with the reason."""

    def __init__(self, wrong: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {reason}" for name, reason in wrong.items()))
        self.wrong = dict(wrong)


class Problem(Exception):
    """Any other refusal of an operation: status, code and what to do next."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class GatewayError(Exception):
    """401 or 403 before the operation is reached."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message


def printable(text: str) -> str:
    """Return text that can be written as UTF-8: JSON may carry half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shown(value: object) -> object:
    """Return what was sent in a form that is short, can be written, and is never "nothing" to JavaScript."""
    if not value:
        # The vendor's client leaves out the field's name when the value is null, 0, false or empty.
        return json.dumps(value)
    if isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value  # 1e999 is infinite to Python, and JSON cannot say so
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(text[:300])


def _problem_json(status: int, body: Mapping[str, object], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({**body, "status": status}, status, headers, media_type="application/problem+json")


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Invalid)
    errors = {
        each.field: {
            "field": each.field,
            "code": each.code,
            "message": each.message,
            "invalidValue": _shown(each.invalid_value),
        }
        for each in error.violations
    }
    return _problem_json(400, {"type": _VALIDATION, "title": "Constraint Violations", "errors": errors})


def _parameters(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadParameters)
    body = {
        "type": _ERROR,
        "title": "Validation failed",
        "missingParams": [],
        "invalidParams": [{"name": name, "reason": reason} for name, reason in error.wrong.items()],
        # The vendor's client shows these and not the ones above.
        "errors": [{"code": "parameter", "message": f"{name} {reason}"} for name, reason in error.wrong.items()],
    }
    return _problem_json(400, body)


def _problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    if error.status == 400:
        # The clients print strings of a validation as they are; other problems of status 400 they do not know.
        return _problem_json(400, {"type": _VALIDATION, "title": "Bad Request", "errors": [error.message]})
    errors = [{"code": error.code, "message": error.message}]
    return _problem_json(error.status, {"type": _ERROR, "title": _title(error.status), "errors": errors})


def _gateway(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, GatewayError)
    return JSONResponse({"error_code": error.error_code, "message": error.message}, error.status)


def _shared(_request: Request, error: Exception) -> JSONResponse:
    """Answer what the shared readers and the authenticator refuse."""
    assert isinstance(error, ApiError)
    if isinstance(error, Unauthorized):
        return JSONResponse({"error_code": "401013", "message": str(error)}, 401, error.headers)
    status, message = error.status, printable(str(error))
    if status == 400:
        return _problem_json(400, {"type": _VALIDATION, "title": "Bad Request", "errors": [message]})
    errors = [{"code": error.problems[0].code, "message": message}]
    return _problem_json(status, {"type": _ERROR, "title": _title(status), "errors": errors}, error.headers)


def _busy(request: Request, error: Exception) -> JSONResponse:
    _log.error("api.store_failed", path=request.url.path, error=repr(error))
    message = "the store cannot be used now, and nothing was stored: try again"
    body = {"type": _ERROR, "title": _title(503), "errors": [{"code": "unavailable", "message": message}]}
    return _problem_json(503, body, {"retry-after": "5"})


def _unrouted(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = {404: "there is no such resource", 405: "this resource does not have that method"}
    message = said.get(error.status_code, str(error.detail))
    body = {"type": _ERROR, "title": _title(error.status_code), "errors": [{"code": "route", "message": message}]}
    headers = None if error.headers is None else dict(error.headers)
    if error.status_code == 405:
        # The framework names the methods of the first route of that path only.
        headers = {"allow": ", ".join(sorted(_methods(request)))}
    return _problem_json(error.status_code, body, headers)


def _methods(request: Request) -> set[str]:
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


def _title(status: int) -> str:
    return _TITLES.get(status, "Error")


def install(app: FastAPI) -> None:
    """Make `app` answer every refusal in the vendor's shapes, and every answer with x-request-id."""
    app.add_exception_handler(Invalid, _invalid)
    app.add_exception_handler(BadParameters, _parameters)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(GatewayError, _gateway)
    app.add_exception_handler(ApiError, _shared)
    # Locked, full, or its disk is failing: the transaction has been undone.
    app.add_exception_handler(OperationalError, _busy)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_middleware(_RequestIds)


class _RequestIds:
    """ASGI middleware: an id for each request, and our own failures as a problem that shows nothing but it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = ids.new_uuid()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode("ascii"))]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _log.debug("api.client_gone", request_id=request_id, path=scope["path"])
        except Exception as error:
            _log.exception("api.failed", request_id=request_id, path=scope["path"], error=repr(error))
            if started:
                raise
            message = f"something failed here; the log has it under {request_id}"
            errors = [{"code": "internal", "message": message}]
            answer = _problem_json(500, {"type": _ERROR, "title": "Internal Error", "errors": errors})
            await answer(scope, receive, send_with_id)
