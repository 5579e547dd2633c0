"""The Event Notifications API, SMTP interface: configurations, verification, users, messages.

Standards: the vendor's published REST contract; message look-up is ours, in the same style.
Promises: the vendor's own clients work unmodified; an instance of another account reads like none at all;
    nothing is stored when the answer is an error.
Dangers: a user's password is in one answer only, the one that creates it.
Not here: what verification asks (`relay.onboarding`), rows (`store.tenancy`), restrictions (`restrictions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.event_notifications import authorization as authorization_routes
from outgate.api.event_notifications import configurations, metrics, rules, signing, users
from outgate.api.event_notifications import endpoints as endpoint_routes
from outgate.api.event_notifications.parts import Hasher, Parts, SmtpRecords, Verifier
from outgate.api.event_notifications.roles import ROLES
from outgate.api.event_notifications.routes import RouteProbe
from outgate.api.event_notifications.routes import routes as mail_routes
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.messages import EgressTrail, History
from outgate.api.messages import routes as message_routes
from outgate.api.openapi import publish
from outgate.api.restrictions.enforcement import Enforcement
from outgate.api.suppressions import routes as suppression_routes
from outgate.base.clock import Clock
from outgate.relay.endpoints import OpenEndpoint
from outgate.store.control import ControlStore

MORE_INFO = "https://cloud.ibm.com/apidocs/event-notifications"

_ABOUT = (
    "The SMTP interface of the vendor's Event Notifications API: configurations, verification, users, metrics. Ours"
    " beside it: endpoints, the authorisation form, evidence of checks, rotation of passwords and signing keys,"
    " suppressed addresses, and what became of each message."
)

__all__ = ["ROLES", "Hasher", "MailReads", "RouteProbe", "SmtpRecords", "Verifier", "build"]


class MailReads(History, metrics.MetricsReads, Protocol):
    """What the API reads of the queue store: messages, and counts of what became of them."""


def build(
    *,
    store: ControlStore,
    authenticator: Authenticator,
    verifier: Verifier,
    hasher: Hasher,
    records: SmtpRecords,
    history: MailReads,
    egress_trail: EgressTrail,
    authorization: Literal["automatic", "manual"],
    clock: Clock,
    probe: RouteProbe,
    default_routes: Sequence[str] = ("direct",),
    endpoints: Callable[[], Sequence[OpenEndpoint]] = tuple,
    grace_s: float = 259_200.0,
    reach_s: float = 15 * 86_400.0,
    keep_s: float = 7 * 86_400.0,
    ed25519: bool = False,
) -> FastAPI:
    """Return the API, to be mounted at `/event-notifications`; its paths begin with `/v1/instances/{id}`.

    `probe` tries routes; `default_routes` names those of configurations that have none.
    `endpoints` tells where mail can be handed in. `grace_s` is how long a domain that fails its checks may still send;
    `reach_s` how long after its acceptance something may still happen to a message;
    `keep_s` how long after that the record of a key that signed it must stay; all in seconds. `ed25519`: a new
    configuration gets such a key too."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    gate = Gate(authenticator, ROLES)
    parts = Parts(store, gate, Enforcement(store), verifier, hasher, records, authorization, grace_s, clock, ed25519)
    app.include_router(configurations.routes(parts))
    app.include_router(authorization_routes.routes(parts))
    app.include_router(rules.routes(parts))
    app.include_router(signing.routes(parts, reach_s + keep_s))
    app.include_router(mail_routes(parts, probe, tuple(default_routes)))
    app.include_router(users.routes(parts))
    app.include_router(message_routes(parts.instance, history, egress_trail))
    app.include_router(metrics.routes(parts, history, reach_s))
    app.include_router(endpoint_routes.routes(gate, endpoints))
    app.include_router(suppression_routes(parts.instance, gate, store.suppressions, clock))
    publish(app, "Outgate: Event Notifications, SMTP interface", _ABOUT)
    return app
