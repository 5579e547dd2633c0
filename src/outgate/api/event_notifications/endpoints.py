"""Where mail is handed in and where it leaves from: the endpoints, as they are open now.

Standards: none; the vendor publishes the same as two tables of its documentation.
Promises: private addresses of endpoint gateways are not told: they belong to accounts.
Not here: what an endpoint is (`relay.endpoints`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from outgate.api.event_notifications import examples
from outgate.api.event_notifications.models import Endpoints
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.relay.endpoints import OpenEndpoint


def routes(gate: Gate, endpoints: Callable[[], Sequence[OpenEndpoint]]) -> APIRouter:
    """Return the operation on endpoints."""
    router = APIRouter(redirect_slashes=False)

    @router.get(
        "/v1/endpoints",
        **described(
            "list_endpoints",
            "List the endpoints: the regions each serves, its names, ports and addresses",
            answer=Endpoints,
            example=examples.ENDPOINTS,
        ),
    )
    def find(_caller: Caller = Depends(gate.allow("list_endpoints"))) -> JSONResponse:
        return JSONResponse({"endpoints": [_document(each) for each in endpoints()]})

    return router


def _document(open_now: OpenEndpoint) -> dict[str, Any]:
    endpoint = open_now.endpoint
    return {
        "id": endpoint.id,
        "regions": list(endpoint.regions),
        "public_name": endpoint.public_name,
        "private_name": endpoint.private_name,
        "submission_port": open_now.submission,
        "submissions_port": open_now.submissions,
        "addresses": list(open_now.addresses),
        "outgoing_addresses": list(endpoint.outgoing_addresses),
        "ehlo_name": endpoint.ehlo_name,
    }
