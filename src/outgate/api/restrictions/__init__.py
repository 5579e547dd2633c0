"""The restrictions API: network zones and the rules that open an instance to them.

Standards: the vendor's context-based restrictions contract (paths, models, ETag, correlation ids).
Promises: the vendor's own client works unmodified; what is stored can be compiled by the relay as it stands;
    zones and rules of another account read like none at all.
Dangers: a rule opens the way in: what cannot be judged here (tags, resource groups) is refused, not ignored.
Not here: decisions (`relay.access`), compiling (`store.access`).
"""

from __future__ import annotations

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.restrictions import rules, zones
from outgate.api.restrictions.roles import ROLES
from outgate.store.control import ControlStore

MORE_INFO = "https://cloud.ibm.com/apidocs/context-based-restrictions"

__all__ = ["ROLES", "build"]


def build(*, store: ControlStore, authenticator: Authenticator) -> FastAPI:
    """Return the API, to be mounted at `/context-based-restrictions`; its paths begin with `/v1/`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    gate = Gate(authenticator, ROLES)
    app.include_router(zones.routes(store.access, gate))
    app.include_router(rules.routes(store.access, gate))
    return app
