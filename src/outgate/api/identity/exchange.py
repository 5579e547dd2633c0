"""An API key becomes an access token, and the keys that tokens are checked with.

Standards: the vendor's IAM token operation (form in, JSON out, an error body of its own); RFC 6749 (token answers),
    RFC 7517 (keys).
Promises: an unknown, expired or malformed key gets the same 400; no token outlives its key's end date.
Dangers: the body holds a secret: it is neither logged nor echoed.
Not here: tokens (`tokens`), making API keys (`keys`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from outgate.api.errors import BadRequest, TooLarge, UnsupportedMedia, trace_of
from outgate.api.identity import examples
from outgate.api.identity.documents import PublicKeysShown, TokenRefused, TokenShown
from outgate.api.identity.tokens import LIFETIME_S, TokenIssuer
from outgate.api.openapi import described, shape
from outgate.api.schema import read_body
from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.store.control import ControlStore

_log = Log("outgate.identity")
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_LIMIT = 16 * 1024
_FORM: dict[str, object] = {
    "type": "object",
    "required": ["grant_type", "apikey"],
    "properties": {
        "grant_type": {"type": "string", "const": _GRANT},
        "apikey": {"type": "string"},
        "response_type": {"type": "string", "const": "cloud_iam"},
    },
}


class IamError(Exception):
    """A refusal in the vendor's form: code, message, status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def install(app: FastAPI) -> None:
    """Make `app` answer an `IamError` in the vendor's form."""

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, IamError)
        context = {
            "requestId": trace_of(request),
            "requestType": "incoming.Identity_Token",
            "url": str(request.url.replace(query="")),
            "host": request.url.hostname or "",
        }
        body = {"errorCode": error.code, "errorMessage": error.message, "context": context}
        return JSONResponse(body, error.status)

    app.add_exception_handler(IamError, refused)


def routes(store: ControlStore, tokens: TokenIssuer, clock: Clock) -> APIRouter:
    """Return `POST /identity/token` and `GET /identity/keys`."""
    router = APIRouter(redirect_slashes=False)

    def token(request: Request, fields: dict[str, str]) -> JSONResponse:
        key = store.identity.find_api_key(fields["apikey"])
        now = int(clock.now())
        lifetime = LIFETIME_S if key is None or key.expires_at is None else min(LIFETIME_S, int(key.expires_at) - now)
        if key is None or lifetime < 1:
            _log.warning("identity.refused", client=request.client.host if request.client else "")
            raise IamError("BXNIM0415E", "Provided API key could not be found.")
        access = tokens.issue(key.subject, key.account_id, key.roles, _client_id(request), lifetime, now)
        answer = {
            "access_token": access,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": lifetime,
            "expiration": now + lifetime,
            "scope": "ibm openid",
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    @router.post("/identity/token", **_token_described())
    async def exchange(request: Request) -> JSONResponse:
        return await run_in_threadpool(token, request, await _form(request))

    @router.get(
        "/identity/keys",
        **described(
            "get_keys",
            "The public keys that tokens are checked with",
            answer=PublicKeysShown,
            example=examples.PUBLIC_KEYS,
            public=True,
        ),
    )
    def keys() -> JSONResponse:
        return JSONResponse(tokens.jwks())

    return router


def _token_described() -> dict[str, Any]:
    route = described(
        "get_token", "Exchange an API key for an access token", answer=TokenShown, example=examples.TOKEN, public=True
    )
    responses = {status: said for status, said in route["responses"].items() if status == 200}
    for status, said in (
        (400, "The form is wrong, or the API key is not known or has ended."),
        (413, "The body is too long."),
        (415, "The body is not a form."),
    ):
        responses[status] = {"description": said, "content": shape(TokenRefused)}
    responses[400]["content"]["application/json"]["example"] = examples.REFUSED
    example = {"grant_type": _GRANT, "apikey": "<the key's text>", "response_type": "cloud_iam"}
    form = {"application/x-www-form-urlencoded": {"schema": _FORM, "example": example}}
    return {**route, "responses": responses, "openapi_extra": {"requestBody": {"required": True, "content": form}}}


async def _form(request: Request) -> dict[str, str]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        raise IamError("BXNIM0113E", "The content type must be application/x-www-form-urlencoded.", 415)
    try:
        raw = await read_body(request, _LIMIT)
    except (TooLarge, UnsupportedMedia) as error:
        raise IamError("BXNIM0113E", str(error), error.status) from None
    except BadRequest as error:
        raise IamError("BXNIM0110E", f"The form could not be read: {error}.") from None
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
    """Return the name in a Basic authorisation, as the vendor's clients may send one, else "default".

    It is the token's `client_id`, which is what Cloud Manager's gateway wants to see in x-api-key."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "default"
    try:
        name = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return "default"
    return name[:100] or "default"
