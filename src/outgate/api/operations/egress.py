"""The egress for who runs it: how it stands, where environments are, addresses, the guard's exceptions, the audit.

Standards: none; in the style of the vendor's APIs.
Promises: a change answers what is stored now, has its actor in the audit of changes, and is applied at once; what is
    refused changes nothing and names the field.
Dangers: it is everybody's egress: a caller with the role operator sees and changes environments of every program. An
    exception changes the rules of its environments: whatever they have open is drained (`egress.drain_s`).
Not here: shapes (`egress_models`), what is counted (`egress.status`), what customers change (`api.cloud_manager`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from outgate.api.errors import BadRequest, Clash, NotFound, Unavailable
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.operations import egress_models as models
from outgate.api.schema import Page, json_body
from outgate.base.clock import rfc3339
from outgate.egress.audit import Audit, Wanted, endpoint
from outgate.egress.refusal import Kind
from outgate.egress.status import Document
from outgate.model.egress import EgressTarget, Environment, GuardException, NetworkInfrastructure
from outgate.store.control import ControlStore
from outgate.store.egress import EnvironmentMoving
from outgate.store.placement import BadPlace, listenable
from outgate.store.tenancy_rows import Conflict, TooMany


@dataclass(frozen=True, slots=True)
class EgressParts:
    """What the operations ask and tell. `status` raises `OSError` while the egress cannot be asked; `proof` says of an
    address "" (proven), why not, or None (not known); `changed` has the engine look at the store at once."""

    store: ControlStore
    audit: Audit
    status: Callable[[], Awaitable[Document]]
    proof: Callable[[str], str | None]
    changed: Callable[[], None]
    shared_addresses: Sequence[str]
    dedicated_addresses: Sequence[str]
    vpn_address: str
    exceptions: Sequence[str]


def routes(gate: Gate, parts: EgressParts) -> APIRouter:
    """Return the operations."""
    router = APIRouter(prefix="/egress", redirect_slashes=False)
    _standing(router, gate, parts)
    _environments(router, gate, parts)
    _exceptions(router, gate, parts)
    _audit(router, gate, parts)
    return router


def _standing(router: APIRouter, gate: Gate, parts: EgressParts) -> None:
    @router.get(
        "/status",
        **described(
            "show_egress",
            "Show what is in force, with live and total figures",
            answer=models.StatusAnswer,
            example=models.STATUS_EXAMPLE,
        ),
    )
    async def status(
        _caller: Caller = Depends(gate.allow("show_egress")),
        environment: str = Query("", max_length=64, description="Only this environment."),
    ) -> JSONResponse:
        try:
            found = await parts.status()
        except OSError as error:
            raise Unavailable(f"the egress cannot be asked: {error}; is `outgate egress serve` running?") from None
        if environment:
            kept = [each for each in found["environments"] if each["environment"] == environment]
            found = {**found, "environments": kept, "open": sum(each["open"] for each in kept)}
        return JSONResponse(found)

    @router.get(
        "/addresses",
        **described(
            "list_egress_addresses",
            "List the addresses that leave: shared, dedicated, whose they are, and whether they are proven",
            answer=models.AddressesAnswer,
            example=models.ADDRESSES_EXAMPLE,
        ),
    )
    async def addresses(_caller: Caller = Depends(gate.allow("list_egress_addresses"))) -> JSONResponse:
        allotted = await asyncio.to_thread(parts.store.infrastructures.allotted)
        try:
            ports = (await parts.status())["source_ports"]
        except OSError:
            ports = None
        pool = dict.fromkeys(parts.dedicated_addresses)
        dedicated = [
            _address_document(address, allotted.get(address), address in pool, parts.proof(address))
            for address in dict.fromkeys((*pool, *allotted))
        ]
        shared = list(parts.shared_addresses)
        return JSONResponse({"shared": shared, "dedicated": dedicated, "source_ports": ports})


def _environments(router: APIRouter, gate: Gate, parts: EgressParts) -> None:
    settings = (*parts.shared_addresses, *parts.dedicated_addresses, parts.vpn_address)
    leaving = {str(ip_address(each)) for each in settings if each}

    @router.get(
        "/environments",
        **described(
            "list_egress_environments",
            "List the environments of all programs, and where they are",
            answer=models.EnvironmentsAnswer,
            example=models.ENVIRONMENTS_EXAMPLE,
        ),
    )
    def environments(
        request: Request,
        _caller: Caller = Depends(gate.allow("list_egress_environments")),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        found = parts.store.egress.targets()
        shown = [_environment_document(each.environment, each) for each in found[offset : offset + limit]]
        return JSONResponse(Page(limit, offset).document(request.url, len(found), "environments", shown))

    @router.patch(
        "/environments/{environment_id}",
        **described(
            "place_egress_environment",
            "Set an environment's tunnel address and the networks that its applications dial from",
            answer=models.EnvironmentShown,
            body=models.PlaceBody,
            errors=(409,),
            example=models.ENVIRONMENT_EXAMPLE,
            body_example=models.PLACE_BODY_EXAMPLE,
        ),
    )
    async def place(
        environment_id: str,
        caller: Caller = Depends(gate.allow("place_egress_environment")),
        body: models.PlaceBody = Depends(json_body(models.PlaceBody)),
    ) -> JSONResponse:
        if body.tunnelAddress is None and body.clientNetworks is None:
            raise BadRequest("", "nothing is to be changed: give tunnelAddress, clientNetworks or both")

        def change() -> Document:
            address = None if body.tunnelAddress is None else listenable(body.tunnelAddress)
            if address in leaving:
                raise BadPlace("tunnel_address", "traffic leaves from that address")
            made = parts.store.placement.place(
                environment_id, tunnel_address=address, client_networks=body.clientNetworks, actor=caller.subject
            )
            return _environment_document(made, parts.store.egress.target(made.id))

        with _refusals("environment", environment_id):
            document = await asyncio.to_thread(change)
        parts.changed()
        return JSONResponse(document)


def _exceptions(router: APIRouter, gate: Gate, parts: EgressParts) -> None:
    @router.get(
        "/exceptions",
        **described(
            "list_guard_exceptions",
            "List what the guard lets through though it is not public",
            answer=models.ExceptionsAnswer,
            example=models.EXCEPTIONS_EXAMPLE,
        ),
    )
    def exceptions(_caller: Caller = Depends(gate.allow("list_guard_exceptions"))) -> JSONResponse:
        settings = [_setting_document(entry) for entry in parts.exceptions]
        found = [*settings, *(_exception_document(each) for each in parts.store.guard_exceptions.all())]
        return JSONResponse({"total_count": len(found), "exceptions": found})

    @router.post(
        "/exceptions",
        **described(
            "add_guard_exception",
            "Let a network or a name through, for one environment or for all",
            answer=models.ExceptionShown,
            status=201,
            body=models.ExceptionBody,
            errors=(409,),
            example=models.EXCEPTION_EXAMPLE,
            body_example=models.EXCEPTION_BODY_EXAMPLE,
        ),
    )
    async def add(
        caller: Caller = Depends(gate.allow("add_guard_exception")),
        body: models.ExceptionBody = Depends(json_body(models.ExceptionBody)),
    ) -> JSONResponse:
        try:
            made = await asyncio.to_thread(
                parts.store.guard_exceptions.add,
                body.entry,
                environment_id=body.environment,
                note=body.reason,
                actor=caller.subject,
            )
        except ValueError as error:
            raise BadRequest("entry", f"cannot be an exception: {error}") from None
        except LookupError as error:
            raise BadRequest("environment", f"names no environment: {error}") from None
        except Conflict as error:
            raise Clash(error.field, f"stands already: {error}") from None
        except TooMany as error:
            raise Clash("", str(error)) from None
        parts.changed()
        return JSONResponse(_exception_document(made), 201)

    @router.delete(
        "/exceptions/{exception_id}",
        **described(
            "remove_guard_exception",
            "Take an exception away: new connections are judged without it, open ones are drained",
            status=204,
        ),
    )
    async def remove(exception_id: str, caller: Caller = Depends(gate.allow("remove_guard_exception"))) -> Response:
        try:
            await asyncio.to_thread(parts.store.guard_exceptions.remove, exception_id, actor=caller.subject)
        except LookupError:
            raise NotFound("exception", exception_id) from None
        parts.changed()
        return Response(status_code=204)


def _audit(router: APIRouter, gate: Gate, parts: EgressParts) -> None:
    @router.get(
        "/audit",
        **described(
            "read_egress_audit",
            "Read what was let through and what was refused, the newest first",
            answer=models.AuditAnswer,
            example=models.AUDIT_EXAMPLE,
        ),
    )
    def lines(
        _caller: Caller = Depends(gate.allow("read_egress_audit")),
        environment: str = Query("", max_length=64, description="Only of this environment."),
        refusal: Kind | None = Query(None, description="Only refusals of this class."),
        client: str = Query("", max_length=64, description="Only of this client: `address` or `address:port`."),
        before: float | None = Query(None, ge=0, le=1e11, description="Only older ones (epoch seconds): `older`."),
        limit: int = Query(50, ge=1, le=500),
    ) -> JSONResponse:
        found = parts.audit.search(Wanted(environment, refusal or "", _client(client), before), limit)
        return JSONResponse({"lines": list(found.lines), "older": found.older})


@contextmanager
def _refusals(what: str, name: str) -> Generator[None]:
    """Turn what stands in a place's way into an HTTP refusal."""
    try:
        yield
    except LookupError:
        raise NotFound(what, name) from None
    except EnvironmentMoving as error:
        raise Clash("", f"the environment is {error.status}: change it once it is ready or failed") from None
    except Conflict as error:
        raise Clash(_FIELDS[error.field], f"is taken: {error}") from None
    except BadPlace as error:
        raise BadRequest(_FIELDS[error.field], f"cannot be used: {error}") from None


_FIELDS = {"tunnel_address": "tunnelAddress", "client_networks": "clientNetworks"}


def _client(text: str) -> str:
    """Return a client as the audit spells it. Raises `BadRequest`."""
    if not text:
        return ""
    bare, _, port = text.rpartition(":")
    for address, of_port in ((text.strip("[]"), ""), (bare.strip("[]"), port)):
        try:
            spelt = str(ip_address(address))
        except ValueError:
            continue
        if of_port.isascii() and of_port.isdecimal():
            return endpoint(spelt, int(of_port))
        if not of_port:
            return f"[{spelt}]" if ":" in spelt else spelt
    raise BadRequest("client", "must be an address such as 10.8.1.20, or address and port such as 10.8.1.20:51514")


def _environment_document(environment: Environment, target: EgressTarget | None) -> Document:
    wanted = None if target is None else target.networking
    return {
        "id": environment.id,
        "program": environment.program_id,
        "name": environment.name,
        "type": environment.type,
        "region": environment.region,
        "status": environment.status,
        "tunnelAddress": environment.tunnel_address,
        "clientNetworks": list(environment.client_networks),
        "mode": "none" if wanted is None else wanted.mode.value,
        "forwards": 0 if wanted is None else len(wanted.port_forwards),
        "generation": None if wanted is None else wanted.generation,
        "reason": "" if wanted is None else wanted.reason,
    }


def _address_document(
    address: str, owner: NetworkInfrastructure | None, pooled: bool, proof: str | None
) -> dict[str, Any]:
    reason = proof or ""
    if owner is not None and owner.reason and not reason:
        reason = owner.reason
    return {
        "address": address,
        "pooled": pooled,
        "state": "free" if owner is None else "allotted",
        "program": None if owner is None else owner.program_id,
        "infrastructure": None if owner is None else owner.id,
        "kind": None if owner is None else owner.kind.value,
        "status": None if owner is None else owner.status,
        "proven": None if proof is None else not proof,
        "reason": reason,
    }


def _exception_document(exception: GuardException) -> Document:
    return {
        "id": exception.id,
        "entry": exception.entry,
        "environment": exception.environment_id,
        "reason": exception.note,
        "created_at": rfc3339(exception.created_at),
        "created_by": exception.created_by,
    }


def _setting_document(entry: str) -> Document:
    return {
        "id": None,
        "entry": entry,
        "environment": "",
        "reason": "setting egress.guard_exceptions",
        "created_at": None,
        "created_by": "",
    }
