"""The connectivity test of an environment: an operation of the Cloud Manager API, ours, in the shape of the vendor's.

Standards: the vendor's result shape (its own test is in its UI only), RFC 9457 for refusals.
Promises: who tests, and what, is in the audit before anything is dialled; one test at a time for an environment.
Dangers: whoever may test has this gateway dial: it does so as a connection of the environment would, and no further.
Not here: the test (`egress.connectivity`).
"""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_address
from typing import Protocol, cast

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from outgate.api.cloud_manager.gateway import Places, Visit, body_of
from outgate.api.cloud_manager.problems import Invalid, Problem, Violation, printable
from outgate.egress.forward_rules import HOST_PATTERN
from outgate.egress.refusal import Refused
from outgate.store.egress import EgressQueries

_BODY = "testEnvironmentConnectivity.arg2"
_HOST = re.compile(HOST_PATTERN.removeprefix("^").removesuffix("$"))
_LIMIT_S = 5
NO_GATEWAY = "no egress runs here: ask where the gateway of this environment runs (`outgate egress test` there)"


class Tests(Protocol):
    """What makes the test (`egress.connectivity.Connectivity`)."""

    async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
        """Return the result in the vendor's shape. Raises `Refused`."""
        ...


class ConnectivityOperations:
    """The operation. `visit` has passed the gateway."""

    def __init__(self, store: EgressQueries, tests: Tests | None) -> None:
        self._store = store
        self._places = Places(store)
        self._tests = tests
        self._busy: set[str] = set()

    async def test(self, request: Request, visit: Visit, program_id: str, environment_id: str) -> Response:
        """Test a host and port; the answer is 200 whatever came of it."""
        place = await self._places.environment(visit, program_id, environment_id)
        host, port = _wanted(await body_of(request))
        if self._tests is None:
            raise Problem(409, "closed", NO_GATEWAY)
        if place.id in self._busy:
            raise Problem(409, "busy", f"a test of this environment is under way: try again in {_LIMIT_S} seconds")
        self._busy.add(place.id)
        try:
            await asyncio.to_thread(
                self._store.record,
                visit.caller.subject,
                "connectivity.test",
                place.id,
                {"host": host, "port": port},
            )
            found = await self._tests.test(place.id, host, port)
        except Refused as refused:
            raise Problem(409, refused.kind, f"nothing leaves this environment: {refused}") from refused
        finally:
            self._busy.discard(place.id)
        return JSONResponse(found, headers={"cache-control": "no-store"})


def _wanted(body: object) -> tuple[str, int]:
    """Return host and port of a body. Raises `Invalid` with every field that is wrong."""
    if not isinstance(body, dict):
        raise Invalid([Violation(_BODY, "type", 'must be an object: {"host": "smtp.example.com", "port": 465}')])
    document, wrong = cast("dict[str, object]", body), list[Violation]()
    host, port = document.get("host"), document.get("port")
    field, found = f"{_BODY}.host", ""
    if not isinstance(host, str) or not host:
        wrong.append(Violation(field, "required", "is required: a host name or an address", host))
    elif len(host) > 254 or any(len(label) > 63 for label in host.split(".")):
        message = "must be a host name of at most 253 characters, 63 between dots"
        wrong.append(Violation(field, "size", message, printable(host[:300])))
    else:
        found = _host(host)
        if not found:
            message = f'must be an address or a name that matches "{HOST_PATTERN}"'
            wrong.append(Violation(field, "pattern", message, printable(host)))
    field = f"{_BODY}.port"
    # True is an int to Python, and 465.0 is not an integer to the schema.
    if not isinstance(port, int) or isinstance(port, bool):
        message = "is required" if port is None else "must be an integer"
        wrong.append(Violation(field, "required" if port is None else "type", message, port))
    elif not 1 <= port <= 65_535:
        wrong.append(Violation(field, "range", "must be between 1 and 65535", port))
    if wrong:
        raise Invalid(wrong)
    return found, cast("int", port)


def _host(text: str) -> str:
    """Return a host as it is asked for, "" for what is none."""
    if "%" in text:
        return ""  # a scope is of this host, and may hold anything
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        name = text.lower().removesuffix(".")
        return name if _HOST.fullmatch(name) else ""
