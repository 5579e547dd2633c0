"""The sandbox's calls: zone, inbox and clock, for scripts and the page of the laptop mode.

Standards: the laptop mode's contract (design section 9).
Promises: every call needs a token; an error is `{"error": …, "remedy": …}`; a list of the inbox holds final
verdicts: it waits until all that has been received is judged.
Dangers: who may call this moves time and forges DNS: it is mounted in the laptop mode only.
Not here: what the calls do (`zone`, `inbox`, `behaviour`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from outgate.api.errors import ApiError
from outgate.base.clock import rfc3339
from outgate.sandbox.behaviour import BadBehaviour
from outgate.sandbox.inbox import Inbox
from outgate.sandbox.zone import RCODES, Zone, ZoneError

_LARGEST = 1_048_576
_FURTHEST_S = 366 * 86_400
_EXAMPLE = {
    "zone": 'send {"values": ["192.0.2.1"], "ttl": 5}, or {"rcode": "SERVFAIL"}',
    "behaviour": 'send [{"recipient": "*@slow.test", "at": "rcpt", "reply": "451 4.7.1 later", "times": 2}]',
    "clock": 'send {"advance_s": 3600}',
}


class Authenticator(Protocol):
    """Tells who calls (`api.identity.tokens`); raises `Unauthorized`."""

    async def authenticate(self, authorization: str | None) -> object: ...


class _Refused(Exception):
    """A call that cannot be done: status, what is wrong, what to do."""

    def __init__(self, status: int, error: str, remedy: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.remedy = remedy


def build(
    zone: Zone, inbox: Inbox, advance: Callable[[float], Awaitable[float]], authenticator: Authenticator
) -> FastAPI:
    """Return the application to mount at `/sandbox`.

    `advance` moves the clock forward by seconds, waits until everything newly due has been claimed, and returns the
    new time (epoch seconds)."""

    async def known(request: Request) -> None:
        await authenticator.authenticate(request.headers.get("authorization"))

    app = FastAPI(
        dependencies=[Depends(known)], openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    _install_errors(app)
    _zone_calls(app, zone)
    _inbox_calls(app, inbox)

    @app.post("/clock", response_model=None)
    async def clock(request: Request) -> Response:
        body = await _object(request, _EXAMPLE["clock"])
        seconds = body.get("advance_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _FURTHEST_S:
            raise _Refused(400, f"'advance_s' is more than 0 and at most {_FURTHEST_S} seconds", _EXAMPLE["clock"])
        now = await advance(float(seconds))
        return JSONResponse({"now": rfc3339(now, milliseconds=True), "epoch": now})

    return app


def _zone_calls(app: FastAPI, zone: Zone) -> None:
    @app.put("/zone/{name}/{rdtype}", response_model=None)
    async def put(name: str, rdtype: str, request: Request) -> Response:
        body = await _object(request, _EXAMPLE["zone"])
        unknown = sorted(set(body) - {"values", "ttl", "rcode"})
        if unknown or ("values" in body) == ("rcode" in body):
            raise _Refused(400, "the body has either 'values' (and 'ttl') or 'rcode'", _EXAMPLE["zone"])
        try:
            if "rcode" in body:
                zone.put_failure(name, rdtype, str(body["rcode"]))
            else:
                zone.put(name, rdtype, _values(body), _ttl(body))
        except ZoneError as error:
            remedy = f"{_EXAMPLE['zone']}; rcode is one of {', '.join(RCODES)}"
            raise _Refused(400, str(error), remedy) from None
        return JSONResponse({"name": name, "type": rdtype.upper(), **body})

    @app.delete("/zone/{name}/{rdtype}", response_model=None)
    async def delete(name: str, rdtype: str) -> Response:
        try:
            zone.delete(name, rdtype)
        except ZoneError as error:
            raise _Refused(400, str(error), "name a domain and a record type, such as /zone/shop.test/TXT") from None
        return Response(status_code=204)


def _inbox_calls(app: FastAPI, inbox: Inbox) -> None:
    @app.get("/inbox", response_model=None)
    async def items() -> Response:
        await inbox.settled()
        return JSONResponse(inbox.items())

    @app.get("/inbox/{item_id}", response_model=None)
    async def raw(item_id: str) -> Response:
        content = inbox.raw(item_id)
        if content is None:
            raise _Refused(404, f"the inbox has no message {item_id!r}", "GET /sandbox/inbox lists the ids")
        return Response(content, media_type="message/rfc822", headers={"X-Content-Type-Options": "nosniff"})

    @app.delete("/inbox", response_model=None)
    async def clear() -> Response:
        inbox.clear()
        return Response(status_code=204)

    @app.put("/inbox/behaviour", response_model=None)
    async def behaviour(request: Request) -> Response:
        try:
            return JSONResponse(inbox.behave(await _json(request, _EXAMPLE["behaviour"])))
        except BadBehaviour as error:
            raise _Refused(400, str(error), _EXAMPLE["behaviour"]) from None


def _values(body: Mapping[str, Any]) -> list[str]:
    values: object = body["values"]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in cast("list[object]", values)):
        raise _Refused(400, "'values' is a list of strings", _EXAMPLE["zone"])
    return cast("list[str]", values)


def _ttl(body: Mapping[str, Any]) -> int:
    ttl: object = body.get("ttl", 5)
    if not isinstance(ttl, int) or isinstance(ttl, bool):
        raise _Refused(400, "'ttl' is a number of seconds", _EXAMPLE["zone"])
    return ttl


async def _object(request: Request, example: str) -> dict[str, Any]:
    body = await _json(request, example)
    if not isinstance(body, dict):
        raise _Refused(400, "the body is not a JSON object", example)
    return cast("dict[str, Any]", body)


async def _json(request: Request, example: str) -> object:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise _Refused(413, f"the body is longer than {_LARGEST} octets", example)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "the body is not JSON", example) from None


def _install_errors(app: FastAPI) -> None:
    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, _Refused)
        return JSONResponse({"error": error.error, "remedy": error.remedy}, error.status)

    def unauthorized(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        body = {"error": str(error), "remedy": "send 'Authorization: Bearer <token>' with the token of dev.json"}
        return JSONResponse(body, error.status, error.headers)

    def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        remedy = "the calls are PUT and DELETE /zone/{name}/{type}, GET and DELETE /inbox, GET /inbox/{id}, "
        remedy += "PUT /inbox/behaviour, POST /clock"
        return JSONResponse({"error": error.detail, "remedy": remedy}, error.status_code, error.headers)

    app.add_exception_handler(_Refused, refused)
    app.add_exception_handler(ApiError, unauthorized)
    app.add_exception_handler(HTTPException, unrouted)
