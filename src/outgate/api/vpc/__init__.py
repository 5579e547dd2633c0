"""The VPC API: endpoint gateways, and as much of networks as they need.

Standards: the vendor's VPC service, generation 2 (paths, models, errors, PATCH as RFC 7396).
Promises: the vendor's own client works unmodified; what belongs to another account reads like nothing at all;
    `openapi.json` describes every operation.
Dangers: who makes subnets and gateways has this machine listen on their addresses: only inside the operator's networks.
Not here: DNS sharing between VPCs, security groups, network ACLs (404); listeners (`relay.gateways`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from fastapi import FastAPI

from outgate.api import errors
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator
from outgate.api.openapi import publish
from outgate.api.vpc import gateways, networks, reserved
from outgate.api.vpc.common import MORE_INFO, Door, refusal
from outgate.api.vpc.roles import ROLES
from outgate.base.clock import Clock
from outgate.store.control import ControlStore

_ABOUT = (
    "Endpoint gateways: an address in a VPC for the private SMTP endpoint of a region. Who connects there has the "
    "endpoint type `private` and matches network zones that name the VPC's CRN. Every call takes `version` (a date "
    "that is not in the future) and `generation` (2)."
)

__all__ = ["ROLES", "build"]


def build(
    *,
    store: ControlStore,
    authenticator: Authenticator,
    clock: Clock,
    region: str,
    private_names: Mapping[str, str],
    networks_allowed: Collection[str],
    changed: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return the API, to be mounted at `/vpc/v1`.

    `region` is where VPCs are made, `private_names` the private endpoint of each region, `networks_allowed` those that
    subnets must lie in; `changed` is called, in any thread, once gateways have changed."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO, refusal)
    door = Door(Gate(authenticator, ROLES), clock)
    app.include_router(networks.routes(store.vpc, door, region, networks_allowed))
    app.include_router(reserved.routes(store.vpc, door, changed))
    app.include_router(gateways.routes(store.gateways, door, private_names, changed))
    publish(app, "Outgate: VPC endpoint gateways", _ABOUT)
    return app
