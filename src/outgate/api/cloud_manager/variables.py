"""An environment's variables, and what an application is started with: operations of the Cloud Manager API.

Standards: the vendor's OpenAPI (1.0.0); `runtime` is ours.
Promises: all changes of a request or none; secrets leave by the runtime call only.
Not here: bodies (`validation`), shapes (`hal`), what is given at run time (`egress.runtime`).
"""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, validation
from outgate.api.cloud_manager.gateway import Places, Visit, body_of
from outgate.api.cloud_manager.problems import Invalid, Problem, Violation
from outgate.egress.runtime import runtime
from outgate.store.egress import DELETING, EgressQueries, EnvironmentMoving, VariableRefused


class VariableOperations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(self, store: EgressQueries, proxy_port: int) -> None:
        self._store = store
        self._places = Places(store)
        self._proxy_port = proxy_port

    async def variables(self, _request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        found = await asyncio.to_thread(self._store.variables, place.id)
        path = hal.environment_path(place)
        listed = hal.collection(
            "variables",
            [hal.variable(each, place) for each in found],
            f"{path}/variables",
            environment=path,
            program=hal.program_path(place.program_id),
        )
        return JSONResponse(listed)

    async def patch_variables(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        changes = validation.variable_changes(await body_of(request))
        patch = self._store.patch_variables
        try:
            await asyncio.to_thread(patch, place.id, changes, actor=visit.caller.subject)
        except EnvironmentMoving as moving:
            raise Problem(409, "moving", f"the environment is {moving.status}: it takes no change") from moving
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        except VariableRefused as refused:
            field, sent = "patchEnvironmentVariables.arg2", str(len(changes))
            if refused.index is not None:
                field += f"[{refused.index}].{refused.attribute}"
                sent = "secretString" if changes[refused.index].secret else "string"
            raise Invalid([Violation(field, "state", refused.message, sent)]) from refused
        return Response(status_code=204)

    async def runtime(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        service = validation.service_of(await body_of(request))
        if place.status == DELETING:
            raise Problem(409, "moving", f"the environment is {place.status}: nothing starts there")
        port, actor = self._proxy_port, visit.caller.subject
        found = await asyncio.to_thread(runtime, self._store, place, service, actor=actor, http_proxy_port=port)
        return JSONResponse(hal.runtime(found), headers={"cache-control": "no-store"})
