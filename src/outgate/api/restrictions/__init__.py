"""The restrictions API: network zones and the rules that open an instance to them.

Standards: the vendor's context-based restrictions contract (paths, models, ETag, correlation ids); allow-lists and the
    explanation of an address are ours, in the same style.
Promises: the vendor's own client works unmodified; what is stored can be compiled by the relay as it stands;
    zones and rules of another account read like none at all; `openapi.json` describes every operation.
Dangers: a rule opens the way in: what cannot be judged here (tags, resource groups) is refused, not ignored.
Not here: decisions (`relay.access`), compiling (`store.rule_document`). `Enforcement` is for the API that rules govern.
"""

from __future__ import annotations

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.openapi import publish
from outgate.api.restrictions import allow_lists, catalogue, explain, rules, zones
from outgate.api.restrictions.enforcement import CurrentTable, Enforcement
from outgate.api.restrictions.roles import ROLES
from outgate.base.clock import Clock
from outgate.store.control import ControlStore

MORE_INFO = "https://cloud.ibm.com/apidocs/context-based-restrictions"
_ABOUT = (
    "Network zones and the rules that name them. SMTP lets nobody in to an instance until an enabled rule does; its "
    "REST API is open until one restricts it. A rule allows if one of its contexts does; all that apply must allow. "
    "The allow-list of an instance lets in to SMTP beside its rules, until its end."
)

__all__ = ["ROLES", "Enforcement", "build"]


def build(*, store: ControlStore, authenticator: Authenticator, clock: Clock) -> FastAPI:
    """Return the API, to be mounted at `/context-based-restrictions`; its paths begin with `/v1/`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    gate = Gate(authenticator, ROLES)
    app.include_router(catalogue.routes(store.access, gate))
    app.include_router(zones.routes(store.access, gate))
    app.include_router(rules.routes(store.access, gate))
    app.include_router(allow_lists.routes(store.allow_lists, gate, clock))
    app.include_router(explain.routes(CurrentTable(store), gate))
    publish(app, "Outgate: context-based restrictions", _ABOUT)
    return app
