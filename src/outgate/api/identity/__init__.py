"""The identity API: an API key becomes an access token.

Standards: the vendor's IAM token operation (form in, JSON out); RFC 6749 (token answers), RFC 7517 (keys).
Promises: an unknown, expired or malformed key gets the same 400 in the vendor's error body.
Dangers: the body holds a secret: it is neither logged nor echoed.
Not here: tokens (`tokens`), roles (`gate`), making API keys (`store.identity`).
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from outgate.api.errors import ApiError, RequestIds, TooLarge, UnsupportedMedia, trace_of
from outgate.api.identity.tokens import LIFETIME_S, TokenIssuer
from outgate.api.schema import read_body
from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.store.control import ControlStore

_log = Log("outgate.identity")
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_LIMIT = 16 * 1024


class IamError(Exception):
    """A refusal in the vendor's form: code, message, status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def build(*, store: ControlStore, tokens: TokenIssuer, clock: Clock) -> FastAPI:
    """Return the identity API: `POST /identity/token`, `GET /identity/keys`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(RequestIds, more_info="https://cloud.ibm.com/docs/account?topic=account-userapikey")
    app.add_exception_handler(IamError, _refused)
    app.add_exception_handler(ApiError, _unread)
    app.add_exception_handler(HTTPException, _unrouted)

    def token(request: Request, fields: dict[str, str]) -> JSONResponse:
        key = store.identity.find_api_key(fields["apikey"])
        if key is None:
            _log.warning("identity.refused", client=request.client.host if request.client else "")
            raise IamError("BXNIM0415E", "Provided API key could not be found.")
        now = int(clock.now())
        access = tokens.issue(f"iam-{key.id}", key.account_id, key.roles, _client_id(request))
        answer = {
            "access_token": access,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            "expiration": now + LIFETIME_S,
            "scope": "ibm openid",
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def exchange(request: Request) -> JSONResponse:
        return await run_in_threadpool(token, request, await _form(request))

    def keys() -> JSONResponse:
        return JSONResponse(tokens.jwks())

    app.add_api_route("/identity/token", exchange, methods=["POST"], response_model=None)
    app.add_api_route("/identity/keys", keys, methods=["GET"], response_model=None)
    return app


async def _form(request: Request) -> dict[str, str]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("the content type must be application/x-www-form-urlencoded")
    raw = await read_body(request, _LIMIT)
    try:
        given = parse_qs(raw.decode("utf-8"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise IamError("BXNIM0110E", "The form could not be read.") from None
    fields = {name: values[0] for name, values in given.items() if len(values) == 1}
    if not fields.get("grant_type"):
        raise IamError("BXNIM0109E", "Property missing or empty: 'grant_type'.")
    if fields["grant_type"] != _GRANT:
        raise IamError("BXNIM0108E", f"Property 'grant_type' must be '{_GRANT}'.")
    if not fields.get("apikey"):
        raise IamError("BXNIM0109E", "Property missing or empty: 'apikey'.")
    if fields.get("response_type", "cloud_iam") != "cloud_iam":
        raise IamError("BXNIM0108E", "Property 'response_type' must be 'cloud_iam'.")
    return fields


def _client_id(request: Request) -> str:
    """Return the name in a Basic authorisation, as the vendor's clients may send one, else "default"."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "default"
    try:
        name = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return "default"
    return name[:100] or "default"


def _body(request: Request, code: str, message: str) -> dict[str, object]:
    context = {
        "requestId": trace_of(request),
        "requestType": "incoming.Identity_Token",
        "url": str(request.url.replace(query="")),
        "host": request.url.hostname or "",
    }
    return {"errorCode": code, "errorMessage": message, "context": context}


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IamError)
    return JSONResponse(_body(request, error.code, error.message), error.status)


def _unread(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    code = "BXNIM0113E" if isinstance(error, (TooLarge, UnsupportedMedia)) else "BXNIM0110E"
    return JSONResponse(_body(request, code, str(error)), error.status, error.headers)


def _unrouted(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(_body(request, "BXNIM0111E", error.detail), error.status_code, error.headers)
