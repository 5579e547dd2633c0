"""Look up messages: by queue id, Message-ID, recipient, status or time; and one message's whole way.

Standards: none; in the style of the vendor's API, which has no such operation. Times are RFC 3339.
Promises: a message of another instance reads like none at all; the timeline is in the order things happened.
Dangers: addresses and subjects are shown in full: to the instance's own callers only. A search may read much:
    it runs in a thread.
Not here: storing (`store.sqlite`), metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from outgate.api.errors import BadRequest, NotFound
from outgate.api.messages.documents import message_document, summary_document
from outgate.api.schema import Page
from outgate.model.flow import Status
from outgate.model.tenancy import Instance
from outgate.store.history import MessageRecord

EgressTrail = Callable[[str, int, float], list[dict[str, Any]]]
"""How the forwarder carried the connection from (address, port) that was open at a time; [] if it did not."""


class History(Protocol):
    """The reads of the queue store."""

    def message(self, queue_id: str) -> MessageRecord | None: ...

    def messages(
        self,
        instance_id: str | None = None,
        *,
        queue_id: str | None = None,
        message_id: str | None = None,
        recipient: str | None = None,
        status: Status | None = None,
        gte: float | None = None,
        lte: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MessageRecord]]: ...


def routes(
    instance_for: Callable[[str], Callable[..., Instance]], history: History, egress_trail: EgressTrail
) -> APIRouter:
    """Return `GET …/smtp/messages` and `GET …/smtp/messages/{queue_id}`; `instance_for` makes the door of each."""
    router = APIRouter(redirect_slashes=False)

    @router.get("/v1/instances/{instance_id}/smtp/messages", response_model=None)
    def find(
        request: Request,
        instance: Instance = Depends(instance_for("list_messages")),
        queue_id: str | None = Query(None, min_length=1, max_length=32),
        message_id: str | None = Query(None, min_length=1, max_length=998),
        recipient: str | None = Query(None, min_length=1, max_length=320),
        status: str | None = Query(None),
        gte: str | None = Query(None, max_length=28),
        lte: str | None = Query(None, max_length=28),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        total, found = history.messages(
            instance.id,
            queue_id=queue_id,
            message_id=None if message_id is None else f"<{message_id.strip().strip('<>')}>",
            recipient=recipient,
            status=_status(status),
            gte=_time("gte", gte),
            lte=_time("lte", lte),
            limit=limit,
            offset=offset,
        )
        items = [summary_document(record) for record in found]
        return JSONResponse(Page(limit, offset).document(request.url, total, "messages", items))

    @router.get("/v1/instances/{instance_id}/smtp/messages/{queue_id}", response_model=None)
    def get(queue_id: str, instance: Instance = Depends(instance_for("get_message"))) -> JSONResponse:
        record = history.message(queue_id)
        if record is None or record.instance_id != instance.id:
            raise NotFound("message", queue_id)
        carried = egress_trail(record.client_address, record.client_port, record.received_at)
        return JSONResponse(message_document(record, carried))

    return router


def _status(text: str | None) -> Status | None:
    if text is None:
        return None
    try:
        return Status(text)
    except ValueError:
        raise BadRequest("status", f"must be one of {', '.join(status.value for status in Status)}") from None


def _time(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(field, "must be a time in UTC such as 2026-11-21T07:03:00Z")
    return moment.timestamp()
