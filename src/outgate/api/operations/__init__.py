"""The operations API: how deep the queue is, the operators' verbs on what is in it, and how well the ways out work.

Standards: none; in the style of the vendor's APIs.
Promises: an order without a selection is refused; an answer says what changed, what is under way, and what was left
    alone; who gave an order, and why, is in the trail of each message; `openapi.json` describes every operation.
Dangers: the queue is everybody's: a caller with the role operator sees and changes mail of every account.
Not here: what the verbs do (`relay.operators`), one message's way (`api.messages`), addresses and routes (`ways`),
    the egress (`egress`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse

from outgate.api import errors
from outgate.api.errors import BadRequest, NotFound, Unavailable
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Authenticator, Caller
from outgate.api.openapi import described, publish
from outgate.api.operations import egress as egress_operations
from outgate.api.operations import models, ways
from outgate.api.operations.documents import (
    done_document,
    hold_document,
    recipient_document,
    site_document,
)
from outgate.api.operations.egress import EgressParts
from outgate.api.operations.roles import ROLES
from outgate.api.schema import Page, json_body
from outgate.base.clock import Clock
from outgate.model.operations import Order, Scope, Verb
from outgate.relay.operators import NoSuchRoute, Operators
from outgate.smtp import grammar
from outgate.store.sqlite import QueueClosed

MORE_INFO = "https://outgate.test/docs/operations"
_ABOUT = (
    "The queue of the whole service, for who runs it (role operator): sites by depth, age, next attempt and why; and "
    "what can be done to mail by message, instance, configuration, site or recipient domain: hold, release, retry now, "
    "cancel, reroute. Also the addresses mail leaves from, and how well the ways out work. And the egress: figures, "
    "where environments are, dedicated addresses, the guard's exceptions, the audit."
)

__all__ = ["ROLES", "EgressParts", "build"]


def build(
    *,
    operators: Operators,
    status: ways.Status,
    egress: EgressParts,
    authenticator: Authenticator,
    clock: Clock,
    configured: Callable[[str], bool] = lambda _smtp_config_id: True,
    instanced: Callable[[str], bool] = lambda _instance_id: True,
) -> FastAPI:
    """Return the API, to be mounted at `/operations/v1`, in the event loop of `operators`. `configured` and `instanced`
    say whether there is a configuration or instance of that id: a hold on what is not there would hold nothing."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app, MORE_INFO)
    gate = Gate(authenticator, ROLES)
    door = _Door(operators, gate, clock, configured, instanced)
    router = APIRouter(redirect_slashes=False)
    _reads(router, door)
    _holding(router, door)
    _moving(router, door)
    app.include_router(router)
    app.include_router(ways.routes(gate, status))
    app.include_router(egress_operations.routes(gate, egress))
    publish(app, "Outgate: operations", _ABOUT)
    return app


class _Door:
    """What the operations share."""

    def __init__(
        self,
        operators: Operators,
        gate: Gate,
        clock: Clock,
        configured: Callable[[str], bool],
        instanced: Callable[[str], bool],
    ) -> None:
        self.operators = operators
        self.allow = gate.allow
        self.now = clock.now
        self._configured = configured
        self._instanced = instanced

    async def order(
        self, caller: Caller, verb: Verb, body: models.OrderBody, *, route: str = "", standing: bool | None = False
    ) -> JSONResponse:
        """Carry out or weigh an order, and answer what it came to."""
        scope = _scope(body.selection)
        if scope.empty:
            raise BadRequest("selection", "must name messages, an instance, a configuration, a site or a domain")
        stands = not scope.queue_ids if standing is None else standing
        if stands and scope.queue_ids:
            raise BadRequest("standing", "is not for single messages: leave it out, or name what comes")
        if stands:
            self._check_there(scope)
        order = Order(verb, scope, caller.subject, self.now(), body.reason, route)
        with _refusals():
            # All or none: who mistypes one of several ids must not believe that it is held.
            if missing := sorted({*scope.queue_ids}.difference(await self.operators.known(scope.queue_ids))):
                raise NotFound("message", ", ".join(missing))
            if body.dry_run:
                done = await self.operators.weigh(order)
            else:
                done = await self.operators.carry_out(order, standing=stands)
        return JSONResponse(done_document(order, done, dry_run=body.dry_run, standing=stands and not body.dry_run))

    def _check_there(self, scope: Scope) -> None:
        if scope.smtp_config_id and not self._configured(scope.smtp_config_id):
            raise BadRequest("selection.smtp_config_id", "names no configuration: a hold would hold nothing")
        if scope.instance_id and not self._instanced(scope.instance_id):
            raise BadRequest("selection.instance_id", "names no instance: a hold would hold nothing")


@contextmanager
def _refusals() -> Generator[None]:
    """Turn what stands in the way into an HTTP refusal."""
    try:
        yield
    except NoSuchRoute as error:
        raise BadRequest("route", f"names no route here: there are {', '.join(error.names)}") from None
    except (sqlite3.OperationalError, QueueClosed, OSError):
        raise Unavailable("the queue cannot be written just now; give the order again: nothing is done twice") from None


def _scope(selection: models.Selection) -> Scope:
    return Scope(
        tuple(dict.fromkeys(selection.queue_ids)),
        selection.instance_id,
        selection.smtp_config_id,
        selection.site,
        _domain(selection.domain, "selection.domain"),
    )


def _domain(text: str, field: str) -> str:
    """Return a domain as recipients have it, "" for none. Raises `BadRequest`."""
    if not text:
        return ""
    try:
        return grammar.domain(text)
    except grammar.BadSyntax as error:
        raise BadRequest(field, f"must be a domain such as example.net: {error}") from None


def _wanted(
    instance_id: str = Query("", max_length=64),
    smtp_config_id: str = Query("", max_length=64),
    site: str = Query("", max_length=4000, description="The site last tried, or the domain where none was tried yet."),
    domain: str = Query("", max_length=255, description="The recipients' domain."),
) -> Scope:
    """Read which mail is wanted from the query."""
    return Scope((), instance_id, smtp_config_id, site, _domain(domain, "domain"))


def _reads(router: APIRouter, door: _Door) -> None:
    @router.get(
        "/queue",
        **described(
            "show_queue",
            "Show the sites that mail waits for",
            answer=models.Queue,
            example=models.QUEUE_EXAMPLE,
        ),
    )
    async def show(
        request: Request,
        _caller: Caller = Depends(door.allow("show_queue")),
        wanted: Scope = Depends(_wanted),
        sort: Literal["depth", "age"] = Query("depth", description="The deepest first, or the oldest."),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        with _refusals():
            found = await door.operators.depths(wanted, by_age=sort == "age", limit=limit, offset=offset)
        sites = [site_document(depth, live, hold, door.now()) for depth, live, hold in found.page]
        document = Page(limit, offset).document(request.url, found.sites, "sites", sites)
        return JSONResponse({**document, "recipients": sum(found.sums.values()), **found.sums})

    @router.get(
        "/queue/messages",
        **described(
            "list_queue_messages",
            "List the recipients that mail waits for, the oldest first",
            answer=models.QueuedRecipients,
            example=models.RECIPIENTS_EXAMPLE,
        ),
    )
    async def find(
        request: Request,
        _caller: Caller = Depends(door.allow("list_queue_messages")),
        wanted: Scope = Depends(_wanted),
        queue_id: list[str] = Query([], max_length=100, description="Only these messages."),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        scope = Scope(tuple(queue_id), *wanted.key)
        with _refusals():
            total, found = await door.operators.waiting(scope, limit, offset)
        items = [recipient_document(each) for each in found]
        return JSONResponse(Page(limit, offset).document(request.url, total, "recipients", items))

    @router.get(
        "/holds",
        **described("list_holds", "List the holds that stand", answer=models.Holds, example=models.HOLDS_EXAMPLE),
    )
    async def holds(_caller: Caller = Depends(door.allow("list_holds"))) -> JSONResponse:
        found = [hold_document(hold) for hold in door.operators.holds()]
        return JSONResponse({"total_count": len(found), "holds": found})


def _order(verb: Verb, summary: str, body: type[models.OrderBody], body_example: object) -> dict[str, Any]:
    return described(
        f"{verb.value}_queue",
        summary,
        answer=models.Done,
        body=body,
        example=models.done_example(verb.value),
        body_example=body_example,
    )


def _holding(router: APIRouter, door: _Door) -> None:
    example = models.ORDER_BODY_EXAMPLE

    @router.post("/queue/hold", **_order(Verb.HOLD, "Hold mail, also what comes", models.HoldBody, example))
    async def hold(
        caller: Caller = Depends(door.allow("hold_queue")),
        body: models.HoldBody = Depends(json_body(models.HoldBody)),
    ) -> JSONResponse:
        return await door.order(caller, Verb.HOLD, body, standing=body.standing)

    @router.post(
        "/queue/release",
        **_order(Verb.RELEASE, "End operators' holds; what they held is due now", models.OrderBody, example),
    )
    async def release(
        caller: Caller = Depends(door.allow("release_queue")),
        body: models.OrderBody = Depends(json_body(models.OrderBody)),
    ) -> JSONResponse:
        return await door.order(caller, Verb.RELEASE, body)


def _moving(router: APIRouter, door: _Door) -> None:
    example = models.ORDER_BODY_EXAMPLE

    @router.post("/queue/retry", **_order(Verb.RETRY, "Try what waits now", models.OrderBody, example))
    async def retry(
        caller: Caller = Depends(door.allow("retry_queue")),
        body: models.OrderBody = Depends(json_body(models.OrderBody)),
    ) -> JSONResponse:
        return await door.order(caller, Verb.RETRY, body)

    @router.post("/queue/cancel", **_order(Verb.CANCEL, "End mail for good; nobody is told", models.OrderBody, example))
    async def cancel(
        caller: Caller = Depends(door.allow("cancel_queue")),
        body: models.OrderBody = Depends(json_body(models.OrderBody)),
    ) -> JSONResponse:
        return await door.order(caller, Verb.CANCEL, body)

    @router.post(
        "/queue/reroute",
        **_order(Verb.REROUTE, "Send what waits another way, now", models.RerouteBody, models.REROUTE_BODY_EXAMPLE),
    )
    async def reroute(
        caller: Caller = Depends(door.allow("reroute_queue")),
        body: models.RerouteBody = Depends(json_body(models.RerouteBody)),
    ) -> JSONResponse:
        return await door.order(caller, Verb.REROUTE, body, route=body.route)
