"""The vendor's gateway before every operation, what a caller may reach behind it, and what it sends.

Standards: the vendor's gateway errors.
Promises: token, client, organisation and role are checked before a body is read; a program of another account is
    answered as one that does not exist: ids are short, and who tries them all learns nothing.
Dangers: a program belongs to an organisation *and* to the account that is its tenant: both must be the caller's.
Not here: operations, which roles they need (`roles`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request

from outgate.api.cloud_manager.problems import GatewayError, Problem, printable
from outgate.api.errors import Unauthorized, UnsupportedMedia
from outgate.api.identity.tokens import Caller
from outgate.api.schema import parse_json, read_body
from outgate.model.egress import Environment, Program
from outgate.store.egress import EgressQueries

# 200 variables of 2,048 characters, each of which JSON may write as six.
_BODY_LIMIT = 4 * 1024 * 1024


class Authenticates(Protocol):
    """What checks tokens (`api.identity.tokens.Authenticator`)."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller or raise `Unauthorized`."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """A caller who has passed the gateway, and the organisation it speaks for."""

    caller: Caller
    org_id: str


class Gateway:
    """The vendor's gateway: token, client and organisation, before any operation."""

    def __init__(self, authenticator: Authenticates, account_of_key: Callable[[str], str | None] | None) -> None:
        self._authenticator = authenticator
        self._account_of_key = account_of_key

    def needs(self, roles: frozenset[str]) -> Callable[[Request], Awaitable[Visit]]:
        """Return a dependency that lets callers with one of `roles` pass, or raises `GatewayError`."""

        async def check(request: Request) -> Visit:
            headers = request.headers
            if not headers.get("authorization"):
                raise GatewayError(401, "401010", "Oauth token is missing: send Authorization: Bearer <token>")
            try:
                caller = await self._authenticator.authenticate(headers.get("authorization"))
            except Unauthorized as error:
                raise GatewayError(401, "401013", f"Oauth token is not valid: {error}") from error
            key = headers.get("x-api-key", "")
            if not key:
                raise GatewayError(403, "403000", "Api Key is required: send x-api-key")
            if key != caller.client_id and not await self._is_own_key(key, caller):
                raise GatewayError(403, "403003", "Api Key is invalid: it must be the client the token is for")
            org_id = headers.get("x-gw-ims-org-id", "")
            if not org_id:
                raise GatewayError(403, "403010", "Organization is required: send x-gw-ims-org-id")
            if caller.roles.isdisjoint(roles):
                wanted = " or ".join(sorted(roles))
                raise GatewayError(403, "403027", f"User lacks the role for this operation: {wanted}")
            return Visit(caller, org_id)

        return check

    async def _is_own_key(self, key: str, caller: Caller) -> bool:
        if self._account_of_key is None:
            return False
        return await asyncio.to_thread(self._account_of_key, key) == caller.account_id


class Places:
    """Find the programs and environments that a caller may reach."""

    def __init__(self, store: EgressQueries) -> None:
        self._store = store

    async def program(self, visit: Visit, program_id: str) -> Program:
        """Return a program of the caller's. Raises `Problem`, `GatewayError`."""
        found = await asyncio.to_thread(self._store.program, program_id)
        if found is None or found.tenant_id != visit.caller.account_id:
            raise Problem(404, "not_found", f"there is no program {printable(program_id[:100])}")
        if found.org_id != visit.org_id:
            raise GatewayError(403, "403025", "Organization is not allowed: the program is not this organization's")
        return found

    def tenant(self, visit: Visit, tenant_id: str) -> str:
        """Return the id of the caller's tenant if it is that one. Raises `Problem`."""
        if tenant_id != visit.caller.account_id:
            raise Problem(404, "not_found", f"there is no tenant {printable(tenant_id[:100])}")
        return tenant_id

    async def environment(self, visit: Visit, program_id: str, environment_id: str) -> Environment:
        """Return an environment of one. Raises `Problem`, `GatewayError`."""
        await self.program(visit, program_id)
        found = await asyncio.to_thread(self._store.environment, program_id, environment_id)
        if found is None:
            message = f"program {program_id} has no environment {printable(environment_id[:100])}"
            raise Problem(404, "not_found", message)
        return found


async def body_of(request: Request) -> object:
    """Return the JSON value that a request carries. Raises `ApiError`: 400, 413, 415."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMedia("send the body with Content-Type: application/json")
    body: object = parse_json(await read_body(request, _BODY_LIMIT))
    return body
