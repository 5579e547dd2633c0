"""The operations API: how well the ways out work.

Standards: none; in the style of the vendor's APIs.
Promises: `openapi.json` describes every operation; nothing here is one customer's.
Dangers: a caller with the role operator sees what concerns every account.
Not here: what is shown (`ways`), the routes of a configuration (`api.event_notifications.routes`).
"""

from __future__ import annotations

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.openapi import publish
from outgate.api.operations import ways
from outgate.api.operations.roles import ROLES

MORE_INFO = "https://outgate.test/docs/operations"
_ABOUT = "For who runs the service (role operator): the addresses mail leaves from, and how well the ways out work."

__all__ = ["ROLES", "build"]


def build(*, status: ways.Status, authenticator: Authenticator) -> FastAPI:
    """Return the API, to be mounted at `/operations/v1`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    app.include_router(ways.routes(Gate(authenticator, ROLES), status))
    publish(app, "Outgate: operations", _ABOUT)
    return app
