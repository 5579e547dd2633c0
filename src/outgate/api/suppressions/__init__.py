"""Suppressed addresses of an instance: list, add, show, remove; import and export as CSV.

Standards: RFC 4180 (CSV); the rest is ours, in the style of the vendor's API, which has no such operation.
Promises: what is added counts for the next message; adding what is there replaces it, so the same call again is
    harmless; a file with a fault in it is refused whole, and the answer names its lines.
Dangers: addresses are shown in full: to the instance's own callers only. An import holds its file in memory: one for
    each instance at a time, and a few in all.
Not here: rows (`store.suppressions`), the form of files (`lines`), what becomes of mail (`relay`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from outgate.api.errors import ApiError, BadRequest, Clash, NotFound, Problem, Unavailable, UnsupportedMedia
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.messages.queries import Text, moment
from outgate.api.openapi import described
from outgate.api.schema import Page, json_body, page, read_body
from outgate.api.suppressions import lines, models
from outgate.base.clock import Clock, rfc3339
from outgate.base.log import Log
from outgate.model.suppression import LONGEST_SOURCE, NewSuppression, Suppression
from outgate.model.tenancy import Instance
from outgate.smtp.grammar import BadSyntax
from outgate.store.suppressions import SuppressionQueries
from outgate.store.tenancy import TooMany

_log = Log("outgate.suppression")
_LIST = "/v1/instances/{instance_id}/smtp/suppressions"
# A local part may have a slash: the path's converter takes all that is left.
_ONE = _LIST + "/{address:path}"
_BODY_LIMIT = 1024 * 1024
_IMPORTS_MOST = 4
_UPLOAD_S = 300.0

InstanceFor = Callable[[str], Callable[..., Instance]]


def routes(instance_for: InstanceFor, gate: Gate, store: SuppressionQueries, clock: Clock) -> APIRouter:
    """Return the operations on suppressed addresses; `instance_for` makes the door of each."""
    router = APIRouter(redirect_slashes=False)
    _adds(router, instance_for, gate, store, clock)
    _imports(router, instance_for, gate, store, clock)
    _exports(router, instance_for, store)
    _reads(router, instance_for, store)
    _removes(router, instance_for, gate, store)
    return router


def _reads(router: APIRouter, instance_for: InstanceFor, store: SuppressionQueries) -> None:
    @router.get(
        _LIST,
        **described(
            "list_suppressions",
            "List suppressed addresses, newest first; `search` is part of the address",
            answer=models.SuppressionsList,
            example=models.LIST_EXAMPLE,
        ),
    )
    def find(
        request: Request,
        instance: Instance = Depends(instance_for("list_suppressions")),
        wanted: Page = Depends(page),
        reason: Text = Query(None, min_length=1, max_length=40, description="As hard_bounce, complaint, unsubscribe."),
        source: Text = Query(None, min_length=1, max_length=LONGEST_SOURCE, description="Who wanted it, in full."),
    ) -> JSONResponse:
        total, found = store.page(
            instance.id,
            search=wanted.search,
            reason=reason,
            source=source,
            limit=wanted.limit,
            offset=wanted.offset,
        )
        return JSONResponse(wanted.document(request.url, total, "suppressions", [_document(each) for each in found]))

    @router.get(
        _ONE,
        **described("get_suppression", "Show a suppressed address", answer=models.Suppression, example=models.EXAMPLE),
    )
    def get(address: str, instance: Instance = Depends(instance_for("get_suppression"))) -> JSONResponse:
        try:
            found = store.get(instance.id, address)
        except BadSyntax:
            found = None
        if found is None:
            raise NotFound("suppressed address", address)
        return JSONResponse(_document(found))


def _adds(router: APIRouter, instance_for: InstanceFor, gate: Gate, store: SuppressionQueries, clock: Clock) -> None:
    @router.post(
        _LIST,
        **described(
            "add_suppressions",
            "Suppress addresses, or give them another reason or end",
            answer=models.Added,
            status=201,
            body=models.NewEntries,
            errors=(409,),
            body_example=models.BODY_EXAMPLE,
            example=models.ADDED_EXAMPLE,
        ),
    )
    def add(
        instance: Instance = Depends(instance_for("add_suppressions")),
        caller: Caller = Depends(gate.allow("add_suppressions")),
        body: models.NewEntries = Depends(json_body(models.NewEntries, limit=_BODY_LIMIT)),
    ) -> JSONResponse:
        now = clock.now()
        entries: list[NewSuppression] = []
        for number, each in enumerate(body.suppressions):
            ends = None if each.expires_at is None else moment("expires_at", each.expires_at)
            if ends is not None and ends <= now:
                raise BadRequest(f"suppressions.{number}.expires_at", "must be later than now, or absent for no end")
            entries.append(NewSuppression(each.address, each.reason, _by(caller), each.detail, ends))
        _add(store, instance.id, entries)
        _log.info("suppression.changed", instance=instance.id, by=caller.subject, added=len(entries))
        found = store.several(instance.id, [entry.address for entry in entries])
        return JSONResponse({"suppressions": [_document(each) for each in found]}, 201)


def _imports(router: APIRouter, instance_for: InstanceFor, gate: Gate, store: SuppressionQueries, clock: Clock) -> None:
    under_way: set[str] = set()

    def store_file(instance_id: str, octets: bytes, source: str) -> dict[str, int]:
        try:
            entries, ended = lines.read(octets, source=source, now=clock.now())
        except lines.BadFile as error:
            raise _refusal(error.faults) from None
        new = _add(store, instance_id, entries)
        return {"added": new, "replaced": len(entries) - new, "ended": ended}

    @router.post(
        _LIST + "/import",
        **described(
            "import_suppressions",
            f"Add the addresses of a CSV file, all of them or none; {lines.MOST_ROWS} rows and"
            f" {lines.MOST_OCTETS >> 20} MiB at most",
            answer=models.Imported,
            body=models.CsvText,
            body_type="text/csv",
            errors=(409,),
            body_example=models.IMPORT_EXAMPLE,
            example=models.IMPORTED_EXAMPLE,
        ),
    )
    async def load(
        request: Request,
        instance: Instance = Depends(instance_for("import_suppressions")),
        caller: Caller = Depends(gate.allow("import_suppressions")),
    ) -> JSONResponse:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/csv":
            raise UnsupportedMedia("the content type must be text/csv")
        if instance.id in under_way or len(under_way) >= _IMPORTS_MOST:
            raise Unavailable("another import is under way: try again when it is done")
        under_way.add(instance.id)
        try:
            octets = await _upload(request)
            done = await asyncio.to_thread(store_file, instance.id, octets, _by(caller, "import by "))
        finally:
            under_way.discard(instance.id)
        _log.info("suppression.imported", instance=instance.id, by=caller.subject, **done)
        return JSONResponse(done)


async def _upload(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_UPLOAD_S):
            return await read_body(request, lines.MOST_OCTETS)
    except TimeoutError:
        raise BadRequest("", f"the file did not come within {_UPLOAD_S:.0f} seconds") from None


def _exports(router: APIRouter, instance_for: InstanceFor, store: SuppressionQueries) -> None:
    operation = described("export_suppressions", "Give all suppressed addresses as CSV, which an import takes again")
    operation["responses"][200]["content"] = {
        "text/csv": {"schema": {"type": "string"}, "example": json.dumps(models.EXPORT_EXAMPLE)}
    }

    @router.get(_LIST + "/export", response_class=Response, **operation)
    def give(instance: Instance = Depends(instance_for("export_suppressions"))) -> StreamingResponse:
        def text() -> Iterator[str]:
            yield lines.HEAD
            for some in store.all(instance.id):
                yield lines.write(some)

        headers = {"Content-Disposition": 'attachment; filename="suppressions.csv"'}
        return StreamingResponse(text(), media_type="text/csv", headers=headers)


def _removes(router: APIRouter, instance_for: InstanceFor, gate: Gate, store: SuppressionQueries) -> None:
    @router.delete(
        _ONE,
        **described("remove_suppression", "Suppress an address no longer: the next message is sent to it", status=204),
    )
    def remove(
        address: str,
        instance: Instance = Depends(instance_for("remove_suppression")),
        caller: Caller = Depends(gate.allow("remove_suppression")),
    ) -> Response:
        try:
            removed = store.remove(instance.id, address)
        except BadSyntax:
            removed = False
        if not removed:
            raise NotFound("suppressed address", address)
        _log.info("suppression.changed", instance=instance.id, by=caller.subject, removed=1)
        return Response(status_code=204)


def _add(store: SuppressionQueries, instance_id: str, entries: Sequence[NewSuppression]) -> int:
    try:
        return store.add(instance_id, entries)
    except TooMany as error:
        raise Clash("", str(error)) from None


def _by(caller: Caller, before: str = "") -> str:
    return f"{before}{caller.subject}"[:LONGEST_SOURCE]


def _refusal(faults: Sequence[lines.Fault]) -> ApiError:
    refusal = BadRequest("", "nothing was imported")
    refusal.problems = tuple(Problem("bad_request", f"line {each.line}: {each.text}") for each in faults)
    return refusal


def _document(entry: Suppression) -> dict[str, Any]:
    ends = entry.expires_at
    return {
        "address": entry.address,
        "reason": entry.reason,
        "source": entry.source,
        "detail": entry.detail,
        "created_at": rfc3339(entry.created_at, milliseconds=True),
        "expires_at": None if ends is None else rfc3339(ends, milliseconds=True),
    }
