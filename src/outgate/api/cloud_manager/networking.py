"""Advanced networking of an environment: what leaves from it, and by which of the program's infrastructures.

Standards: the vendor's OpenAPI (getEnvironmentAdvancedNetworkingConfigurationList, enable…, disable…).
Promises: a PUT replaces all of it or changes nothing; of two at once one is taken, the other is told to wait; it
    answers at once with the environment `updating`, which becomes `ready` or `failed` when the engine has got there.
Not here: bodies (`validation`), shapes (`hal`), transactions (`store.egress`), applying (`egress.reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, validation
from outgate.api.cloud_manager.gateway import Places, Visit, body_of
from outgate.api.cloud_manager.problems import Problem
from outgate.egress.plan import Terms, plan
from outgate.model.egress import Environment, Mode, NetworkInfrastructure
from outgate.store.egress import EgressQueries, EnvironmentMoving
from outgate.store.infrastructures import FAILED, READY, InfrastructureMoving, InfrastructureQueries, way_of


@dataclass(frozen=True, slots=True)
class Addresses:
    """What this installation leaves from: `shared` by all, a pool of `dedicated` ones, the VPN's own end."""

    shared: tuple[str, ...] = ()
    dedicated: tuple[str, ...] = ()
    vpn: str = ""

    def pool(self) -> tuple[str, ...]:
        """Return the addresses that may be allotted: never one that others leave from."""
        return tuple(each for each in self.dedicated if each not in self.shared and each != self.vpn)

    def of(self, way: NetworkInfrastructure | None) -> Sequence[str]:
        """Return what leaves by an infrastructure leaves from."""
        if way is None or way.status != READY:
            return ()
        return way.addresses or (self.shared if way.kind is Mode.FLEXIBLE else ())


class NetworkingOperations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(
        self,
        store: EgressQueries,
        infrastructures: InfrastructureQueries,
        changed: Callable[[], None],
        addresses: Addresses,
        terms: Terms,
    ) -> None:
        """`changed` is called after each change; `terms` decide what carries a forward."""
        self._store = store
        self._infrastructures = infrastructures
        self._places = Places(store)
        self._changed = changed
        self._addresses = addresses
        self._terms = terms

    async def networking(self, _request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        """Return the list, which has one entry or none."""
        place = await self._places.environment(visit, program_id, environment_id)
        found = await asyncio.to_thread(self._store.networking, place.id)
        entries: list[hal.Json] = []
        if found is not None:
            way = await asyncio.to_thread(self._infrastructures.find, place.program_id, found.infrastructure_id)
            engines = await asyncio.to_thread(self._engines, place.id)
            advice = validation.advice(found.port_forwards)
            addresses = self._addresses.of(way)
            entries.append(hal.networking(found, place, addresses=addresses, engines=engines, advice=advice))
        path = hal.environment_path(place)
        return JSONResponse(
            hal.collection("networkingConfigurations", entries, f"{path}/advancedNetworking", environment=path)
        )

    async def put_networking(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        """Replace all of it."""
        place = await self._places.environment(visit, program_id, environment_id)
        body = await body_of(request)
        way = await self._way_out(place)
        forwards, hosts = validation.networking(body, way.kind)
        put = self._store.put_networking
        try:
            after = await asyncio.to_thread(put, place.id, way.id, forwards, hosts, actor=visit.caller.subject)
        except EnvironmentMoving as moving:
            raise _moving(moving.status) from moving
        except InfrastructureMoving as moving:
            raise _not_ready(moving.infrastructure_id, moving.status) from moving
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        return JSONResponse(hal.environment(after))

    async def delete_networking(
        self, _request: Request, visit: Visit, program_id: str, environment_id: str
    ) -> Response:
        """Disable it."""
        place = await self._places.environment(visit, program_id, environment_id)
        try:
            after = await asyncio.to_thread(self._store.delete_networking, place.id, actor=visit.caller.subject)
        except EnvironmentMoving as moving:
            raise _moving(moving.status) from moving
        except LookupError as error:
            raise Problem(404, "not_found", f"{error} in environment {place.id}") from error
        self._changed()
        return JSONResponse(hal.environment(after))

    def _engines(self, environment_id: str) -> list[hal.Engine]:
        """Return what carries each forward that shall be in force. Blocks."""
        target = self._store.target(environment_id)
        found = () if target is None else plan([target], self._terms).forwards
        return [hal.Engine(each.listen_port, each.engine, each.engine_reason) for each in found]

    async def _way_out(self, place: Environment) -> NetworkInfrastructure:
        """Return the infrastructure an environment leaves by. Raises `Problem` if there is none that is ready."""
        found = await asyncio.to_thread(self._infrastructures.of_program, place.program_id)
        way = way_of(place, found)
        if way is None:
            none = "" if not found else f" for region {place.region} nor for its primary one"
            message = f"The program has no network infrastructure{none}: create one and wait until it is ready"
            raise Problem(400, "infrastructure", message)
        if way.status != READY:
            raise _not_ready(way.id, way.status, way.reason)
        return way


def _moving(status: str) -> Problem:
    return Problem(409, "moving", f"the environment is {status}: try again when it is ready")


def _not_ready(infrastructure_id: str, status: str, reason: str = "") -> Problem:
    if status == FAILED:
        why = f" ({reason})" if reason else ""
        message = (
            f"Network infrastructure {infrastructure_id} has failed{why}: correct it, or delete and create it again"
        )
        return Problem(400, "infrastructure", message)
    message = f"network infrastructure {infrastructure_id} is {status}: try again when it is ready"
    return Problem(409, "infrastructure", message)
