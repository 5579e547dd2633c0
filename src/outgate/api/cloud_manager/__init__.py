"""The Cloud Manager API: programs, environments, their variables and advanced networking.

Standards: the vendor's OpenAPI (1.0.0), as far as an application's way out needs it; RFC 9457.
Promises: nothing is half-applied; a change of networking answers at once with the environment `updating`,
    which becomes `ready` when the engine has applied it; secrets leave by the runtime call only.
Not here: who may call (`gateway`, `roles`), programs and environments (`places`), variables (`variables`), bodies
    (`validation`), shapes (`hal`), refusals (`problems`), applying (`egress.reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, validation
from outgate.api.cloud_manager.gateway import Authenticates, Gateway, Places, Visit, body_of
from outgate.api.cloud_manager.places import PlaceOperations
from outgate.api.cloud_manager.problems import Problem, install
from outgate.api.cloud_manager.roles import ROLES
from outgate.api.cloud_manager.variables import VariableOperations
from outgate.model.egress import Environment, Mode, NetworkInfrastructure
from outgate.store.egress import FAILED, READY, EgressQueries, EnvironmentMoving
from outgate.store.places import Grounds, PlaceQueries

__all__ = ["ROLES", "build"]


def build(
    *,
    store: EgressQueries,
    places: PlaceQueries,
    grounds: Grounds,
    authenticator: Authenticates,
    changed: Callable[[], None],
    shared_addresses: Sequence[str],
    http_proxy_port: int = 3128,
    account_of_key: Callable[[str], str | None] | None = None,
) -> FastAPI:
    """Return the API, to be mounted anywhere. `changed` is called after each change that the engine must act on.

    `account_of_key` tells whose API key a text is: such a key of the caller's account is as good an x-api-key as
    the client that the token is for. It may block."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install(app)
    gateway = Gateway(authenticator, account_of_key)
    place = PlaceOperations(store, places, grounds, changed)
    variable = VariableOperations(store, http_proxy_port)
    api = _Operations(store, changed, tuple(shared_addresses))
    program = "/api/program/{program_id}"
    environment = program + "/environment/{environment_id}"

    def route(method: str, path: str, call: Callable[..., Awaitable[Response]], operation: str) -> None:
        async def endpoint(request: Request, visit: Visit = Depends(gateway.needs(ROLES[operation]))) -> Response:
            return await call(request, visit, **request.path_params)

        app.add_api_route(path, endpoint, methods=[method], name=operation, operation_id=operation)

    tenant = "/api/tenant/{tenant_id}"
    route("GET", "/api/programs", place.programs, "getPrograms")
    route("GET", "/api/tenants", place.tenants, "getTenants")
    route("GET", tenant, place.tenant, "getTenant")
    route("GET", tenant + "/programs", place.tenant_programs, "getProgramsForTenant")
    route("POST", tenant + "/programs", place.add_program, "addProgram")
    route("GET", program, place.program, "getProgram")
    route("DELETE", program, place.delete_program, "deleteProgram")
    route("GET", program + "/regions", place.regions, "getProgramRegions")
    route("GET", program + "/environments", place.environments, "getEnvironments")
    route("POST", program + "/environments", place.create_environment, "createEnvironment")
    route("GET", environment, place.environment, "getEnvironment")
    route("DELETE", environment, place.delete_environment, "deleteEnvironment")
    route("GET", environment + "/variables", variable.variables, "getEnvironmentVariables")
    route("PATCH", environment + "/variables", variable.patch_variables, "patchEnvironmentVariables")
    route("POST", environment + "/runtime", variable.runtime, "startEnvironmentRuntime")

    infrastructures = program + "/networkInfrastructures"
    infrastructure = program + "/networkInfrastructure/{infrastructure_id}"
    route("GET", infrastructures, api.infrastructures, "getNetworkInfrastructures")
    route("GET", infrastructure, api.infrastructure, "getNetworkInfrastructure")

    networking = environment + "/advancedNetworking"
    route("GET", networking, api.networking, "getEnvironmentAdvancedNetworkingConfigurationList")
    route("PUT", networking, api.put_networking, "enableEnvironmentAdvancedNetworkingConfiguration")
    route("DELETE", networking, api.delete_networking, "disableEnvironmentAdvancedNetworkingConfiguration")
    return app


class _Operations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(self, store: EgressQueries, changed: Callable[[], None], shared: tuple[str, ...]) -> None:
        self._store = store
        self._places = Places(store)
        self._changed = changed
        self._shared = shared

    async def infrastructures(self, _request: Request, visit: Visit, program_id: str) -> Response:
        program = await self._places.program(visit, program_id)
        found = await asyncio.to_thread(self._store.infrastructures, program.id)
        path = hal.program_path(program.id)
        entries = [hal.infrastructure(each) for each in found]
        return JSONResponse(
            hal.collection("networkInfrastructures", entries, f"{path}/networkInfrastructures", program=path)
        )

    async def infrastructure(
        self, _request: Request, visit: Visit, program_id: str, infrastructure_id: str
    ) -> Response:
        program = await self._places.program(visit, program_id)
        found = await asyncio.to_thread(self._store.infrastructure, program.id, infrastructure_id)
        if found is None:
            raise Problem(404, "not_found", f"the program has no network infrastructure {infrastructure_id}")
        return JSONResponse(hal.infrastructure(found))

    async def networking(self, _request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        found = await asyncio.to_thread(self._store.networking, place.id)
        entries: list[hal.Json] = []
        if found is not None:
            way = await asyncio.to_thread(self._store.infrastructure, place.program_id, found.infrastructure_id)
            entries.append(hal.networking(found, place, self._leaves_from(way)))
        path = hal.environment_path(place)
        return JSONResponse(
            hal.collection("networkingConfigurations", entries, f"{path}/advancedNetworking", environment=path)
        )

    async def put_networking(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        body = await body_of(request)
        way = await self._way_out(place)
        forwards, hosts = validation.networking(body, way.kind)
        put = self._store.put_networking
        try:
            after = await asyncio.to_thread(put, place.id, way.id, forwards, hosts, actor=visit.caller.subject)
        except EnvironmentMoving as moving:
            raise _moving(moving.status) from moving
        self._changed()
        return JSONResponse(hal.environment(after))

    async def delete_networking(
        self, _request: Request, visit: Visit, program_id: str, environment_id: str
    ) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        try:
            after = await asyncio.to_thread(self._store.delete_networking, place.id, actor=visit.caller.subject)
        except EnvironmentMoving as moving:
            raise _moving(moving.status) from moving
        except LookupError as error:
            raise Problem(404, "not_found", f"{error} in environment {place.id}") from error
        self._changed()
        return JSONResponse(hal.environment(after))

    async def _way_out(self, place: Environment) -> NetworkInfrastructure:
        """Return the infrastructure an environment leaves by: its region's, else the program's first."""
        found = await asyncio.to_thread(self._store.infrastructures, place.program_id)
        here = [each for each in found if each.region == place.region] or list(found)
        if not here:
            message = "The program has no network infrastructure: create one and wait until it is ready"
            raise Problem(400, "infrastructure", message)
        way = here[0]
        if way.status == FAILED:
            message = f"Network infrastructure {way.id} has failed: delete and create it again"
            raise Problem(400, "infrastructure", message)
        if way.status != READY:
            message = f"network infrastructure {way.id} is {way.status}: try again when it is ready"
            raise Problem(409, "infrastructure", message)
        return way

    def _leaves_from(self, way: NetworkInfrastructure | None) -> Sequence[str]:
        if way is None or way.status != READY:
            return ()
        return way.addresses or (self._shared if way.kind is Mode.FLEXIBLE else ())


def _moving(status: str) -> Problem:
    return Problem(409, "moving", f"the environment is {status}: try again when it is ready")
