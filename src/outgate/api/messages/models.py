"""The shapes of the message look-up's answers, and an example of each.

Standards: none; ours, in the vendor's style.
Promises: real answers are held against these (a test drives the API by its description).
Not here: what fills them (`documents`).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from outgate.api.openapi import Shown, Time
from outgate.model.flow import Status


class PageOfMessages(Shown):
    """Where another page is."""

    href: str


class MessageRecipient(Shown):
    """Where one recipient stands; `reply` is the last one, or why its site is left alone until the next attempt
    (`reason` is "rate" then); `next_attempt_at` null when none is planned."""

    mailbox: str
    status: Status
    attempts: int
    next_attempt_at: Time | None
    reply: str
    reason: str
    updated_at: Time


class MessageSummary(Shown):
    """A message as lists show it: who, what, when, and how many recipients stand how. `origin` is "" for what a client
    handed in, "dsn" for a report of ours about the message `parent`."""

    queue_id: str
    message_id: str
    smtp_config_id: str
    username: str
    origin: str
    parent: str | None
    reverse_path: str
    header_from: str
    subject: str
    size: int
    received_at: Time
    accepted_at: Time
    expires_at: Time
    statuses: dict[Status, int]
    recipients: list[MessageRecipient]


class MessagesList(Shown):
    """A page of messages, newest first."""

    total_count: int = Field(ge=0, description="Matches; beyond 10,000: that many, or one more than were shown.")
    offset: int = Field(ge=0)
    limit: int = Field(ge=1, le=100)
    messages: list[MessageSummary]
    first: PageOfMessages
    previous: PageOfMessages | None = None
    next: PageOfMessages | None = None


class MessageClient(Shown):
    """Who handed the message over; `via` is the trusted proxy that named the address, if one did."""

    address: str
    port: int
    endpoint: str
    listener: str
    via: str | None
    helo: str
    tls: str


class MessageStep(Shown):
    """One thing said to the receiving server, and its answer."""

    at: Time
    did: str
    reply: str


class MessageOutcome(Shown):
    """What an attempt meant for one recipient; `code` is 0 when no reply was read."""

    mailbox: str
    status: Status
    code: int
    enhanced: str
    text: str
    reason: str


class MessageAttempt(Shown):
    """One try: where, from where, over what, each step, and what it meant."""

    started_at: Time
    finished_at: Time
    site: str
    host: str
    address: str
    source: str
    tls: str
    route_reason: str
    conversation: list[MessageStep]
    outcomes: list[MessageOutcome]


class MessageEvent(Shown):
    """One fact in the message's life; `event` is accepted, attempt, a status or what else happened, `recipient` ""
    for the whole message, `attempt` the number of the one it came of (from 1), `actor` who did it ("" is the relay by
    itself)."""

    at: Time
    event: str
    recipient: str
    detail: str
    attempt: int | None
    actor: str


class Message(MessageSummary):
    """A message's whole story; `egress` is what the forwarder's audit has of its connection, `warning` what the
    rule book found and let pass ("" if nothing), `reports` the queue ids of what its sender was told about it."""

    session_id: str
    client: MessageClient
    warning: str
    reports: list[str]
    egress: list[dict[str, Any]]
    attempts: list[MessageAttempt]
    timeline: list[MessageEvent]


_SUMMARY: dict[str, object] = {
    "queue_id": "A06F3K2M9QXT4C7B",
    "message_id": "<20261121070300.1@shop.example.com>",
    "smtp_config_id": "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11",
    "username": "k3v9x0a7t2m5q8w1b642",
    "origin": "",
    "parent": None,
    "reverse_path": "orders@shop.example.com",
    "header_from": "orders@shop.example.com",
    "subject": "Your order is on its way",
    "size": 2048,
    "received_at": "2026-11-21T07:03:00.000Z",
    "accepted_at": "2026-11-21T07:03:00.004Z",
    "expires_at": "2026-11-22T07:03:00.004Z",
    "statuses": {"delivered": 1},
    "recipients": [
        {
            "mailbox": "ann@example.net",
            "status": "delivered",
            "attempts": 1,
            "next_attempt_at": None,
            "reply": "250 2.0.0 Ok",
            "reason": "accepted",
            "updated_at": "2026-11-21T07:03:01.210Z",
        }
    ],
}
MESSAGES_EXAMPLE: dict[str, object] = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "messages": [_SUMMARY],
    "first": {
        "href": "http://127.0.0.1:8025/event-notifications/v1/instances/5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21"
        "/smtp/messages?limit=10&offset=0"
    },
}
MESSAGE_EXAMPLE: dict[str, object] = {
    **_SUMMARY,
    "session_id": "5b0c7f52-8e0c-4a0e-8d5b-7a1c3e5f9b20",
    "client": {
        "address": "192.0.2.7",
        "port": 40123,
        "endpoint": "public",
        "listener": "submission",
        "via": None,
        "helo": "app.example.com",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    },
    "warning": "",
    "reports": [],
    "egress": [],
    "attempts": [
        {
            "started_at": "2026-11-21T07:03:00.010Z",
            "finished_at": "2026-11-21T07:03:01.210Z",
            "site": "mx.example.net",
            "host": "mx.example.net",
            "address": "198.51.100.5:25",
            "source": "192.0.2.25",
            "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "route_reason": "MX of example.net",
            "conversation": [{"at": "2026-11-21T07:03:01.210Z", "did": "end of data", "reply": "250 2.0.0 Ok"}],
            "outcomes": [
                {
                    "mailbox": "ann@example.net",
                    "status": "delivered",
                    "code": 250,
                    "enhanced": "2.0.0",
                    "text": "Ok",
                    "reason": "accepted",
                }
            ],
        }
    ],
    "timeline": [
        {
            "at": "2026-11-21T07:03:00.004Z",
            "event": "accepted",
            "recipient": "",
            "detail": "from 192.0.2.7 as k3v9x0a7t2m5q8w1b642",
            "attempt": None,
            "actor": "",
        },
        {
            "at": "2026-11-21T07:03:01.210Z",
            "event": "delivered",
            "recipient": "ann@example.net",
            "detail": "250 2.0.0 Ok",
            "attempt": 1,
            "actor": "",
        },
    ],
}
