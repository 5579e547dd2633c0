"""Network infrastructures of a program: listed, made, edited (a VPN only), taken away.

Standards: the vendor's OpenAPI (getNetworkInfrastructures, create…, get…, update…, delete…).
Promises: what is answered is a state on the way (`creating`, `updating`, `deleting`): the engine moves it on; shared
    keys go in and never come out.
Not here: bodies (`infrastructure_bodies`), shapes (`hal`), rules of a program and addresses (`store.infrastructures`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager import hal, infrastructure_bodies
from outgate.api.cloud_manager.gateway import Places, Visit, body_of
from outgate.api.cloud_manager.networking import Addresses
from outgate.api.cloud_manager.problems import Invalid, Problem, Violation
from outgate.model.egress import Mode, NetworkInfrastructure, Program
from outgate.store.egress import EgressQueries
from outgate.store.infrastructures import InfrastructureMoving, InfrastructureQueries, InfrastructureRefused


class InfrastructureOperations:
    """The operations, one method each. `visit` has passed the gateway."""

    def __init__(
        self,
        store: EgressQueries,
        infrastructures: InfrastructureQueries,
        changed: Callable[[], None],
        addresses: Addresses,
    ) -> None:
        """`changed` is called after each change."""
        self._infrastructures = infrastructures
        self._places = Places(store)
        self._changed = changed
        self._addresses = addresses

    async def infrastructures(self, _request: Request, visit: Visit, program_id: str) -> Response:
        """Return all of a program's."""
        program = await self._places.program(visit, program_id)
        found = await asyncio.to_thread(self._infrastructures.of_program, program.id)
        path = hal.program_path(program.id)
        entries = [self._shown(each) for each in found]
        return JSONResponse(
            hal.collection("networkInfrastructures", entries, f"{path}/networkInfrastructures", program=path)
        )

    async def infrastructure(
        self, _request: Request, visit: Visit, program_id: str, infrastructure_id: str
    ) -> Response:
        """Return one."""
        program = await self._places.program(visit, program_id)
        return JSONResponse(self._shown(await self._find(program, infrastructure_id)))

    async def create(self, request: Request, visit: Visit, program_id: str) -> Response:
        """Make one; the answer is 201 and it is `creating`."""
        program = await self._places.program(visit, program_id)
        place = infrastructure_bodies.CREATE
        wanted = infrastructure_bodies.wanted(await body_of(request), place)
        add, pool = self._infrastructures.add, self._addresses.pool()
        try:
            made = await asyncio.to_thread(add, program.id, wanted, pool=pool, actor=visit.caller.subject)
        except InfrastructureRefused as refused:
            raise _refused(refused, place, wanted.region) from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        shown = self._shown(made)
        return JSONResponse(shown, 201, {"location": f"{hal.program_path(program.id)}/networkInfrastructure/{made.id}"})

    async def replace(self, request: Request, visit: Visit, program_id: str, infrastructure_id: str) -> Response:
        """Edit a VPN; the answer is what it is from now on, `updating`."""
        program = await self._places.program(visit, program_id)
        before = await self._find(program, infrastructure_id)
        body, place = await body_of(request), infrastructure_bodies.UPDATE
        if before.kind is not Mode.VPN:
            message = (
                f"a network infrastructure of kind {before.kind.value} cannot be edited: delete it and create anew"
            )
            raise Problem(400, "kind", message)
        wanted = infrastructure_bodies.wanted(body, place)
        put = self._infrastructures.replace
        try:
            after = await asyncio.to_thread(put, program.id, before.id, wanted, actor=visit.caller.subject)
        except InfrastructureMoving as moving:
            raise _moving(moving) from moving
        except InfrastructureRefused as refused:
            raise _refused(refused, place, "changed") from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        return JSONResponse(self._shown(after))

    async def delete(self, _request: Request, visit: Visit, program_id: str, infrastructure_id: str) -> Response:
        """Begin to take one away; the answer shows it `deleting`, and it is gone when nothing leaves by it."""
        program = await self._places.program(visit, program_id)
        withdraw = self._infrastructures.withdraw
        try:
            after = await asyncio.to_thread(withdraw, program.id, infrastructure_id, actor=visit.caller.subject)
        except InfrastructureMoving as moving:
            raise _moving(moving) from moving
        except InfrastructureRefused as refused:
            raise _refused(refused, "", "") from refused
        except LookupError as error:
            raise Problem(404, "not_found", str(error)) from error
        self._changed()
        return JSONResponse(self._shown(after))

    async def _find(self, program: Program, infrastructure_id: str) -> NetworkInfrastructure:
        found = await asyncio.to_thread(self._infrastructures.find, program.id, infrastructure_id)
        if found is None:
            raise Problem(404, "not_found", f"the program has no network infrastructure {infrastructure_id}")
        return found

    def _shown(self, entry: NetworkInfrastructure) -> hal.Json:
        return hal.infrastructure(entry, self._addresses.vpn)


def _moving(moving: InfrastructureMoving) -> Problem:
    return Problem(409, "moving", f"{moving}: try again when it is ready or failed")


def _refused(refused: InfrastructureRefused, place: str, sent: str) -> Exception:
    if refused.field:
        return Invalid([Violation(f"{place}.{refused.field}", refused.code, refused.message, sent)])
    return Problem(409 if refused.conflict else 400, refused.code, refused.message)
