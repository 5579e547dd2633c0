"""Look up messages: by queue id, Message-ID, recipient, status or time; and one message's whole way.

Standards: none; in the style of the vendor's API, which has no such operation. Times are RFC 3339.
Promises: a message of another instance reads like none at all; the timeline is in the order things happened.
Dangers: addresses and subjects are shown in full: to the instance's own callers only. A search may read much:
    it runs in a thread.
Not here: storing (`store.sqlite`), the shapes of answers (`models`), metrics (`api.event_notifications`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from outgate.api.errors import NotFound
from outgate.api.messages.documents import message_document, summary_document
from outgate.api.messages.models import MESSAGE_EXAMPLE, MESSAGES_EXAMPLE, Message, MessagesList
from outgate.api.messages.queries import (
    LONGEST_MAILBOX,
    LONGEST_TIME,
    MAILBOX,
    TIME,
    StatusText,
    Text,
    statuses,
    whole_mailbox,
    window,
)
from outgate.api.openapi import described
from outgate.api.schema import Page
from outgate.model.flow import Status
from outgate.model.tenancy import Instance
from outgate.store.history import MessageRecord

_LIST = "/v1/instances/{instance_id}/smtp/messages"
_ONE = "/v1/instances/{instance_id}/smtp/messages/{queue_id}"

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
        message_id: str | Sequence[str] | None = None,
        recipient: str | None = None,
        status: Sequence[Status] | None = None,
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

    @router.get(
        _LIST,
        **described("list_messages", "Find messages", answer=MessagesList, example=MESSAGES_EXAMPLE),
    )
    def find(
        request: Request,
        instance: Instance = Depends(instance_for("list_messages")),
        queue_id: Text = Query(None, min_length=1, max_length=32, description="What the 250 named."),
        message_id: Text = Query(None, min_length=1, max_length=998, description="With or without angle brackets."),
        recipient: Text = Query(
            None,
            min_length=1,
            max_length=LONGEST_MAILBOX,
            json_schema_extra=MAILBOX,
            description="A whole mailbox; the case of its domain does not matter.",
        ),
        status: list[StatusText] = Query(
            [], max_length=20, description="At least one recipient stands so; give several for any of them."
        ),
        gte: Text = Query(
            None, max_length=LONGEST_TIME, json_schema_extra=TIME, description="Accepted then or later, in UTC."
        ),
        lte: Text = Query(
            None, max_length=LONGEST_TIME, json_schema_extra=TIME, description="Accepted then or earlier, in UTC."
        ),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        first, last = window(gte, lte)
        total, found = history.messages(
            instance.id,
            queue_id=queue_id,
            message_id=None if message_id is None else (message_id, f"<{message_id.strip().strip('<>')}>"),
            recipient=whole_mailbox("recipient", recipient),
            status=statuses(status),
            gte=first,
            lte=last,
            limit=limit,
            offset=offset,
        )
        items = [summary_document(record) for record in found]
        return JSONResponse(Page(limit, offset).document(request.url, total, "messages", items))

    @router.get(
        _ONE,
        **described("get_message", "Get a message's whole way", answer=Message, example=MESSAGE_EXAMPLE),
    )
    def get(queue_id: str, instance: Instance = Depends(instance_for("get_message"))) -> JSONResponse:
        record = history.message(queue_id)
        if record is None or record.instance_id != instance.id:
            raise NotFound("message", queue_id)
        carried = egress_trail(record.client_address, record.client_port, record.received_at)
        return JSONResponse(message_document(record, carried))

    return router
