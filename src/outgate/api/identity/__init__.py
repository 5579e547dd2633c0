"""The identity API: API keys, and the access tokens they become.

Standards: the vendor's IAM token operation and IAM Identity operations on API keys.
Promises: the vendor's own clients work unmodified; a key's text is in one answer only.
Dangers: keys and tokens pass through here in clear: neither is logged or echoed.
Not here: checking tokens for the other APIs (`tokens`, `gate`), rows (`store.identity`).
"""

from __future__ import annotations

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.identity import exchange, keys
from outgate.api.identity.gate import Gate
from outgate.api.identity.roles import ALL_ROLES, ROLES
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.api.openapi import publish
from outgate.base.clock import Clock
from outgate.store.control import ControlStore

MORE_INFO = "https://cloud.ibm.com/apidocs/iam-identity-token-api"

__all__ = ["ALL_ROLES", "ROLES", "build"]


def build(*, store: ControlStore, tokens: TokenIssuer, authenticator: Authenticator, clock: Clock) -> FastAPI:
    """Return the identity API: `/identity/token`, `/identity/keys` and `/v1/apikeys`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    exchange.install(app)
    app.include_router(exchange.routes(store, tokens, clock))
    app.include_router(keys.routes(store, Gate(authenticator, ROLES), clock))
    publish(app, "Identity", "API keys, and the access tokens they become; in the form of the vendor's IAM Identity.")
    return app
