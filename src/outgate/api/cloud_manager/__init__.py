"""The Cloud Manager API: programs, environments, their variables and advanced networking.

Standards: the vendor's OpenAPI (1.0.0), as far as an application's way out needs it; RFC 9457.
Promises: nothing is half-applied; a change of networking answers at once with the environment `updating`,
    which becomes `ready` when the engine has applied it; secrets leave by the runtime call only.
Not here: who may call (`gateway`), bodies (`validation`), shapes (`hal`), refusals (`problems`), applying
    (`egress.reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, validation
from outgate.api.cloud_manager.gateway import READ, RUNTIME, WRITE, Authenticates, Gateway, Places, Visit
from outgate.api.cloud_manager.problems import Invalid, Problem, Violation, install
from outgate.api.errors import UnsupportedMedia
from outgate.api.schema import parse_json, read_body
from outgate.egress.runtime import runtime
from outgate.model.egress import Environment, Mode, NetworkInfrastructure
from outgate.store.egress import FAILED, READY, EgressQueries, EnvironmentMoving, VariableRefused

# 200 variables of 2,048 characters, each of which JSON may write as six.
_BODY_LIMIT = 4 * 1024 * 1024
_TYPES = frozenset({"dev", "stage", "prod", "rde", "preprod"})


def build(
    *,
    store: EgressQueries,
    authenticator: Authenticates,
    changed: Callable[[], None],
    shared_addresses: Sequence[str],
    http_proxy_port: int = 3128,
    account_of_key: Callable[[str], str | None] | None = None,
) -> FastAPI:
    """Return the API, to be mounted anywhere. `changed` is called after each change of networking.

    `account_of_key` tells whose API key a text is: such a key of the caller's account is as good an x-api-key as
    the client that the token is for. It may block."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install(app)
    gateway = Gateway(authenticator, account_of_key)
    api = _Operations(store, changed, tuple(shared_addresses), http_proxy_port)
    program = "/api/program/{program_id}"
    environment = program + "/environment/{environment_id}"

    def route(method: str, path: str, operation: Callable[..., Awaitable[Response]], roles: frozenset[str]) -> None:
        async def endpoint(request: Request, visit: Visit = Depends(gateway.needs(roles))) -> Response:
            return await operation(request, visit, **request.path_params)

        app.add_api_route(path, endpoint, methods=[method], name=operation.__name__)

    route("GET", "/api/programs", api.programs, READ)
    route("GET", program, api.program, READ)
    route("GET", program + "/environments", api.environments, READ)
    route("GET", program + "/networkInfrastructures", api.infrastructures, READ)
    route("GET", program + "/networkInfrastructure/{infrastructure_id}", api.infrastructure, READ)
    route("GET", environment, api.environment, READ)
    route("GET", environment + "/variables", api.variables, READ)
    route("PATCH", environment + "/variables", api.patch_variables, WRITE)
    route("GET", environment + "/advancedNetworking", api.networking, READ)
    route("PUT", environment + "/advancedNetworking", api.put_networking, WRITE)
    route("DELETE", environment + "/advancedNetworking", api.delete_networking, WRITE)
    route("POST", environment + "/runtime", api.runtime, RUNTIME)
    return app


class _Operations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(
        self, store: EgressQueries, changed: Callable[[], None], shared: tuple[str, ...], proxy_port: int
    ) -> None:
        self._store = store
        self._places = Places(store)
        self._changed = changed
        self._shared = shared
        self._proxy_port = proxy_port

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
        changes = validation.variable_changes(await _body(request))
        patch = self._store.patch_variables
        try:
            await asyncio.to_thread(patch, place.id, changes, actor=visit.caller.subject)
        except VariableRefused as refused:
            field, sent = "patchEnvironmentVariables.arg2", str(len(changes))
            if refused.index is not None:
                field += f"[{refused.index}].{refused.attribute}"
                sent = "secretString" if changes[refused.index].secret else "string"
            raise Invalid([Violation(field, "state", refused.message, sent)]) from refused
        return Response(status_code=204)

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
        body = await _body(request)
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

    async def runtime(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        place = await self._places.environment(visit, program_id, environment_id)
        service = validation.service_of(await _body(request))
        port, actor = self._proxy_port, visit.caller.subject
        found = await asyncio.to_thread(runtime, self._store, place, service, actor=actor, http_proxy_port=port)
        return JSONResponse(hal.runtime(found), headers={"cache-control": "no-store"})

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


async def _body(request: Request) -> object:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMedia("send the body with Content-Type: application/json")
    body: object = parse_json(await read_body(request, _BODY_LIMIT))
    return body
