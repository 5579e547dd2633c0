"""The addresses that mail leaves from, and how well the ways out work now.

Standards: none; ours.
Promises: an address that is suspended says since when, why, and what to do; a way that rests says until when.
Dangers: what is shown is this moment's, in memory: a restart begins with everything well.
Not here: what decides (`relay.sources`, `relay.health`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import Shown, Time, described
from outgate.base.clock import rfc3339
from outgate.relay.health import Health
from outgate.relay.sources import REMEDY, Source


class Status(Protocol):
    """What is asked of the running service."""

    def sources(self) -> Sequence[Source]: ...

    def ways(self) -> Sequence[tuple[tuple[str, ...], Health]]: ...

    def now(self) -> float: ...


class SourceShown(Shown):
    """One outgoing address, and the endpoints that mail leaves from it for."""

    address: str
    endpoints: list[str]
    state: Literal["ready", "suspended"]
    since: Time
    checked_at: Time | None
    reason: str
    remedy: str


class SourcesAnswer(Shown):
    """All outgoing addresses."""

    sources: list[SourceShown]


class WayShown(Shown):
    """One way out that has failed of late. `type` is "direct" (to a site, from an endpoint), "smart_host",
    "egress_forward" (an environment's), or "route" (a configuration's, for what only it can be blamed for: its login,
    its demands on TLS). `score` is 1 where all is well; a way that rests is tried at `try_at`."""

    type: str
    place: list[str]
    score: float
    failures: int
    reason: str
    state: Literal["used", "resting"]
    since: Time | None
    try_at: Time | None


class WaysAnswer(Shown):
    """The ways out that have failed of late, those that rest first, the worst 1000; all others are well."""

    ways: list[WayShown]


_MOST = 1000
_AT = "2026-11-21T07:03:00Z"
_SOURCES: dict[str, object] = {
    "sources": [
        {
            "address": "192.0.2.20",
            "endpoints": ["eu-de"],
            "state": "suspended",
            "since": _AT,
            "checked_at": _AT,
            "reason": "Cannot assign requested address",
            "remedy": REMEDY,
        }
    ]
}
_WAYS: dict[str, object] = {
    "ways": [
        {
            "type": "smart_host",
            "place": ["smtp.example.net", "587"],
            "score": 0.21,
            "failures": 4,
            "reason": "timeout",
            "state": "resting",
            "since": _AT,
            "try_at": "2026-11-21T07:04:00Z",
        }
    ]
}


def routes(gate: Gate, status: Status) -> APIRouter:
    """Return the operations."""
    router = APIRouter(redirect_slashes=False)

    @router.get(
        "/sources",
        **described("list_sources", "List the addresses that mail leaves from", answer=SourcesAnswer, example=_SOURCES),
    )
    async def sources(_caller: Caller = Depends(gate.allow("list_sources"))) -> JSONResponse:
        return JSONResponse({"sources": [_source(each) for each in status.sources()]})

    @router.get(
        "/ways",
        **described("list_ways", "List the ways out that have failed of late", answer=WaysAnswer, example=_WAYS),
    )
    async def ways(_caller: Caller = Depends(gate.allow("list_ways"))) -> JSONResponse:
        now = status.now()
        found = sorted(status.ways(), key=lambda each: (not each[1].resting, each[1].score(now), each[0]))[:_MOST]
        return JSONResponse({"ways": [_way(key, health, now) for key, health in found]})

    return router


def _source(source: Source) -> dict[str, object]:
    return {
        "address": source.address,
        "endpoints": list(source.endpoints),
        "state": "suspended" if source.suspended else "ready",
        "since": rfc3339(source.since),
        "checked_at": rfc3339(source.checked_at) if source.checked_at else None,
        "reason": source.reason,
        "remedy": REMEDY if source.suspended else "",
    }


def _way(key: tuple[str, ...], health: Health, now: float) -> dict[str, object]:
    return {
        "type": key[0],
        "place": list(key[1:]),
        "score": round(health.score(now), 3),
        "failures": health.failures,
        "reason": health.last,
        "state": "resting" if health.resting else "used",
        "since": rfc3339(health.since) if health.resting else None,
        "try_at": rfc3339(health.try_at) if health.resting else None,
    }
