"""Programs, tenants, regions and environments: what an application lives in, as the Cloud Manager API has it.

Standards: the vendor's OpenAPI (1.0.0).
Promises: nothing is half-applied; an environment is answered `creating` or `deleting` at once, and becomes `ready` or
    is gone when the engine has seen it; a program is ready at once, and gone once it is deleted, for it holds nothing.
Dangers: a tenant is the account whose token calls: there is no other to be seen.
Not here: variables (`variables`), bodies (`place_bodies`), shapes (`hal`), rules that need what is stored
    (`store.places`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, place_bodies
from outgate.api.cloud_manager.gateway import Places, Visit, body_of
from outgate.api.cloud_manager.problems import Invalid, Problem, Violation
from outgate.store.egress import EgressQueries
from outgate.store.places import DELETING, Grounds, PlaceQueries, PlaceRefused


class PlaceOperations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(
        self, store: EgressQueries, places: PlaceQueries, grounds: Grounds, changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._queries = places
        self._grounds = grounds
        self._changed = changed
        self._places = Places(store)

    async def programs(self, request: Request, visit: Visit) -> Response:
        return await self._programs(request, visit, "/api/programs")

    async def tenants(self, _request: Request, visit: Visit) -> Response:
        only = hal.tenant(visit.caller.account_id, visit.org_id)
        return JSONResponse(hal.collection("tenants", [only], "/api/tenants"))

    async def tenant(self, _request: Request, visit: Visit, tenant_id: str) -> Response:
        return JSONResponse(hal.tenant(self._places.tenant(visit, tenant_id), visit.org_id))

    async def tenant_programs(self, request: Request, visit: Visit, tenant_id: str) -> Response:
        path = hal.tenant_path(self._places.tenant(visit, tenant_id))
        return await self._programs(request, visit, f"{path}/programs")

    async def add_program(self, request: Request, visit: Visit, tenant_id: str) -> Response:
        tenant = self._places.tenant(visit, tenant_id)
        name, sandbox = place_bodies.new_program(await body_of(request))
        create, actor = self._queries.create_program, visit.caller.subject
        try:
            made = await asyncio.to_thread(create, visit.org_id, tenant, name, sandbox=sandbox, actor=actor)
        except PlaceRefused as refused:
            raise Problem(409, refused.code, refused.message) from refused
        return JSONResponse(hal.program(made), 201)

    async def program(self, _request: Request, visit: Visit, program_id: str) -> Response:
        return JSONResponse(hal.program(await self._places.program(visit, program_id)))

    async def delete_program(self, _request: Request, visit: Visit, program_id: str) -> Response:
        program = await self._places.program(visit, program_id)
        try:
            await asyncio.to_thread(self._queries.delete_program, program.id, actor=visit.caller.subject)
        except PlaceRefused as refused:
            raise Problem(412, refused.code, refused.message) from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        return JSONResponse(hal.program(replace(program, status=DELETING)))

    async def regions(self, _request: Request, visit: Visit, program_id: str) -> Response:
        path = hal.program_path((await self._places.program(visit, program_id)).id)
        found = [hal.region(name) for name in self._grounds.regions]
        return JSONResponse(hal.collection("regions", found, f"{path}/regions", program=path))

    async def environments(self, request: Request, visit: Visit, program_id: str) -> Response:
        program = await self._places.program(visit, program_id)
        kind = place_bodies.environment_type(request.query_params)
        found = await asyncio.to_thread(self._store.environments, program.id, kind)
        path = hal.program_path(program.id)
        listed = hal.collection(
            "environments", [hal.environment(each) for each in found], f"{path}/environments", program=path
        )
        return JSONResponse(listed)

    async def create_environment(self, request: Request, visit: Visit, program_id: str) -> Response:
        program = await self._places.program(visit, program_id)
        wanted = place_bodies.new_environment(await body_of(request), self._grounds.regions)
        create, actor = self._queries.create_environment, visit.caller.subject
        try:
            made = await asyncio.to_thread(create, program.id, wanted, self._grounds, actor=actor)
        except PlaceRefused as refused:
            if refused.field:
                field = f"createEnvironment.arg1.{refused.field}"
                raise Invalid([Violation(field, refused.code, refused.message, wanted.kind)]) from refused
            raise Problem(409, refused.code, refused.message) from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        return JSONResponse(hal.environment(made), 201)

    async def environment(self, _request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        return JSONResponse(hal.environment(await self._places.environment(visit, program_id, environment_id)))

    async def delete_environment(
        self, _request: Request, visit: Visit, program_id: str, environment_id: str
    ) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        withdraw, actor = self._queries.withdraw_environment, visit.caller.subject
        try:
            going = await asyncio.to_thread(withdraw, place.program_id, place.id, actor=actor)
        except PlaceRefused as refused:
            raise Problem(409 if refused.code == "moving" else 400, refused.code, refused.message) from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        # 201 is the vendor's, for the deletion that has been begun.
        return JSONResponse(hal.environment(going), 201)

    async def _programs(self, request: Request, visit: Visit, path: str) -> Response:
        page = place_bodies.page(request.query_params)
        find, tenant = self._queries.page, visit.caller.account_id
        total, found = await asyncio.to_thread(find, visit.org_id, tenant, page.start, page.limit)
        return JSONResponse(hal.programs(found, total, path, page.start, page.limit))
