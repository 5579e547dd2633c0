"""Who may do what: one table of roles per API, asked before anything else is read.

Standards: RFC 9110 (401, 403).
Promises: a caller without a token learns nothing but that; an operation that is not in the table is nobody's.
Not here: tokens (`tokens`), whether a thing belongs to the caller's account (each API).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request

from outgate.api.errors import Forbidden
from outgate.api.identity.tokens import Authenticator, Caller


class Gate:
    """An API's door: its authenticator and its table of operation to roles."""

    def __init__(self, authenticator: Authenticator, roles: Mapping[str, frozenset[str]]) -> None:
        self._authenticator = authenticator
        self._roles = roles

    def allow(self, operation: str) -> Callable[[Request], Awaitable[Caller]]:
        """Return a dependency that gives the caller, or raises `Unauthorized` or `Forbidden`.

        Raises `KeyError` at once for an operation that the table lacks.
        """
        wanted = self._roles[operation]

        async def check(request: Request) -> Caller:
            caller = await self._authenticator.authenticate(request.headers.get("authorization"))
            if caller.roles.isdisjoint(wanted):
                raise Forbidden(f"this needs one of the roles {', '.join(sorted(wanted))}")
            return caller

        return check
