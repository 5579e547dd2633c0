"""Programs and environments: the operations of the Cloud Manager API on what an application lives in.

Standards: the vendor's OpenAPI (1.0.0).
Promises: nothing is half-applied.
Not here: variables (`variables`), bodies (`validation`), shapes (`hal`).
"""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal
from outgate.api.cloud_manager.gateway import Places, Visit
from outgate.api.cloud_manager.problems import Invalid, Violation
from outgate.store.egress import EgressQueries

_TYPES = frozenset({"dev", "stage", "prod", "rde", "preprod"})


class PlaceOperations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(self, store: EgressQueries) -> None:
        self._store = store
        self._places = Places(store)

    async def programs(self, _request: Request, visit: Visit) -> Response:
        found = await asyncio.to_thread(self._store.programs, visit.org_id, visit.caller.account_id)
        return JSONResponse(hal.programs(found))

    async def program(self, _request: Request, visit: Visit, program_id: str) -> Response:
        return JSONResponse(hal.program(await self._places.program(visit, program_id)))

    async def environments(self, request: Request, visit: Visit, program_id: str) -> Response:
        program = await self._places.program(visit, program_id)
        kind = request.query_params.get("type", "")
        if kind and kind not in _TYPES:
            message = f"must be one of {', '.join(sorted(_TYPES))}"
            raise Invalid([Violation("getEnvironments.type", "enum", message, kind)])
        found = await asyncio.to_thread(self._store.environments, program.id, kind)
        path = hal.program_path(program.id)
        listed = hal.collection(
            "environments", [hal.environment(each) for each in found], f"{path}/environments", program=path
        )
        return JSONResponse(listed)

    async def environment(self, _request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        return JSONResponse(hal.environment(await self._places.environment(visit, program_id, environment_id)))
