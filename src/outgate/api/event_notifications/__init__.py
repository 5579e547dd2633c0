"""The Event Notifications API, SMTP interface: configurations, verification, users, messages.

Standards: the vendor's published REST contract; message look-up is ours, in the same style.
Promises: the vendor's own clients work unmodified; an instance of another account reads like none at all;
    nothing is stored when the answer is an error.
Dangers: a user's password is in one answer only, the one that creates it.
Not here: what verification asks (`relay.onboarding`), rows (`store.tenancy`), restrictions (`restrictions`).
"""

from __future__ import annotations

from typing import Literal

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.event_notifications import configurations, users
from outgate.api.event_notifications.parts import Hasher, Parts, SmtpRecords, Verifier
from outgate.api.event_notifications.roles import ROLES
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.messages import EgressTrail, History
from outgate.api.messages import routes as message_routes
from outgate.base.clock import Clock
from outgate.store.control import ControlStore

MORE_INFO = "https://cloud.ibm.com/apidocs/event-notifications"

__all__ = ["ROLES", "Hasher", "SmtpRecords", "Verifier", "build"]


def build(
    *,
    store: ControlStore,
    authenticator: Authenticator,
    verifier: Verifier,
    hasher: Hasher,
    records: SmtpRecords,
    history: History,
    egress_trail: EgressTrail,
    authorization: Literal["automatic", "manual"],
    clock: Clock,
) -> FastAPI:
    """Return the API, to be mounted at `/event-notifications`; its paths begin with `/v1/instances/{id}`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    gate = Gate(authenticator, ROLES)
    parts = Parts(store, gate, verifier, hasher, records, authorization, clock)
    app.include_router(configurations.routes(parts))
    app.include_router(users.routes(parts))
    app.include_router(message_routes(parts.instance, history, egress_trail))
    return app
