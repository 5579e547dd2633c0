"""What the operations on the queue take and answer, and an example of each.

Standards: none; in the style of the vendor's APIs.
Promises: every field that is answered is named here, and no other.
Dangers: addresses are shown in full: to operators only.
Not here: what is done (`relay.operators`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from outgate.api.openapi import Shown, Time
from outgate.api.schema import Body

LONGEST = {"queue_id": 32, "id": 64, "domain": 255, "site": 4000}
_QueueId = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9-]+$")]
_Id = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9-]*$")]
# Our own trail and log show it: one line of signs.
_Why = Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Selection(Body):
    """Which mail: what fits all that is given, and something must be."""

    queue_ids: list[_QueueId] = Field(default_factory=list, max_length=100)
    instance_id: _Id = ""
    smtp_config_id: _Id = ""
    site: str = Field("", max_length=4000, description="The site last tried, or the domain where none was tried yet.")
    domain: str = Field("", max_length=255, description="The recipients' domain.")


class OrderBody(Body):
    """What is to be done to which mail; with `dry_run` it is only counted."""

    selection: Selection
    reason: _Why = Field("", description="Why, for the trail.")
    dry_run: bool = False


class HoldBody(OrderBody):
    """What is to be held; `standing` holds what comes, too: so it is if not given, unless messages are named."""

    standing: bool | None = None


class RerouteBody(OrderBody):
    """Where mail is to go: the name of one of the configuration's routes, `direct`, or "" for the usual order."""

    route: str = Field(max_length=100)


class Scope(Shown):
    """A selection; what is empty is any."""

    queue_ids: list[str]
    instance_id: str
    smtp_config_id: str
    site: str
    domain: str


class Done(Shown):
    """What an order came to, in recipients; `messages` are those of `changed`."""

    verb: Literal["hold", "release", "retry", "cancel", "reroute"]
    dry_run: bool
    standing: bool = Field(description="A hold stands now, also for what comes.")
    selection: Scope
    changed: int
    messages: int
    under_way: int = Field(description="With delivery now: changed as well, if it comes back.")
    held: int = Field(description="Left alone, because it is held.")
    kept: int = Field(description="Not released, because another standing hold covers it.")
    final: int = Field(description="Done with already.")


class Hold(Shown):
    """A hold that stands until it is released."""

    selection: Scope
    by: str
    since: Time
    reason: str


class Holds(Shown):
    """All holds that stand."""

    total_count: int
    holds: list[Hold]


class Site(Shown):
    """What waits for one site, in recipients, and why."""

    site: str
    recipients: int
    ready: int = Field(description="Due now, waiting for its turn.")
    deferred: int = Field(description="Due later.")
    held: int
    under_way: int = Field(description="With delivery.")
    oldest_accepted_at: Time | None
    oldest_age_s: int | None
    next_attempt_at: Time | None
    reason: str = Field(description="The commonest class of the last failures.")
    reply: str = Field(description="The latest reply of that class.")
    why: str
    connections: int
    paused_until: Time | None = Field(description="The site is left alone until then; null: it is not.")
    paused_why: str
    hold: Hold | None


class _Link(Shown):
    href: str


class Queue(Shown):
    """Sites that mail waits for. The sums are of all sites, on whatever page."""

    total_count: int
    offset: int
    limit: int
    recipients: int
    ready: int
    deferred: int
    held: int
    under_way: int
    sites: list[Site]
    first: _Link
    previous: _Link | None = None
    next: _Link | None = None


class QueuedRecipient(Shown):
    """One recipient that is not done with."""

    queue_id: str
    instance_id: str
    smtp_config_id: str
    recipient: str
    domain: str
    site: str
    status: str
    under_way: bool
    attempts: int
    next_attempt_at: Time | None
    reason: str
    reply: str
    route: str
    accepted_at: Time


class QueuedRecipients(Shown):
    """A page of recipients, in the order of acceptance."""

    total_count: int
    offset: int
    limit: int
    recipients: list[QueuedRecipient]
    first: _Link
    previous: _Link | None = None
    next: _Link | None = None


_HREF = "https://outgate.example/operations/v1/queue?limit=10&offset=0"
_CONFIGURATION = "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11"
_INSTANCE = "5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21"
SCOPE_EXAMPLE: dict[str, object] = {
    "queue_ids": [],
    "instance_id": "",
    "smtp_config_id": "",
    "site": "",
    "domain": "example.net",
}
HOLD_EXAMPLE: dict[str, object] = {
    "selection": SCOPE_EXAMPLE,
    "by": "iam-ApiKey-7c1e",
    "since": "2026-11-26T05:10:00Z",
    "reason": "their postmaster asked us to stop",
}
HOLDS_EXAMPLE: dict[str, object] = {"total_count": 1, "holds": [HOLD_EXAMPLE]}
SITE_EXAMPLE: dict[str, object] = {
    "site": "mx1.example.net,mx2.example.net",
    "recipients": 1204,
    "ready": 3,
    "deferred": 1200,
    "held": 0,
    "under_way": 1,
    "oldest_accepted_at": "2026-11-26T01:10:00Z",
    "oldest_age_s": 14400,
    "next_attempt_at": "2026-11-26T05:12:10Z",
    "reason": "rate",
    "reply": "451 4.7.1 too many messages, try later",
    "why": "rate: 451 4.7.1 too many messages, try later",
    "connections": 2,
    "paused_until": "2026-11-26T05:12:00Z",
    "paused_why": "421 4.7.0 too many connections",
    "hold": None,
}
QUEUE_EXAMPLE: dict[str, object] = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "recipients": 1204,
    "ready": 3,
    "deferred": 1200,
    "held": 0,
    "under_way": 1,
    "sites": [SITE_EXAMPLE],
    "first": {"href": _HREF},
}
RECIPIENTS_EXAMPLE: dict[str, object] = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "recipients": [
        {
            "queue_id": "0TJ5Q1R4W8ZKX",
            "instance_id": _INSTANCE,
            "smtp_config_id": _CONFIGURATION,
            "recipient": "ann@example.net",
            "domain": "example.net",
            "site": "mx1.example.net,mx2.example.net",
            "status": "deferred",
            "under_way": False,
            "attempts": 3,
            "next_attempt_at": "2026-11-26T05:12:10Z",
            "reason": "rate",
            "reply": "451 4.7.1 too many messages, try later",
            "route": "",
            "accepted_at": "2026-11-26T01:10:00Z",
        }
    ],
    "first": {"href": _HREF},
}
ORDER_BODY_EXAMPLE: dict[str, object] = {
    "selection": {"domain": "example.net"},
    "reason": "their postmaster asked us to stop",
    "dry_run": False,
}
REROUTE_BODY_EXAMPLE: dict[str, object] = {"selection": {"domain": "example.net"}, "route": "direct"}


def done_example(verb: str) -> dict[str, object]:
    """Return what an order answers."""
    return {
        "verb": verb,
        "dry_run": False,
        "standing": verb == "hold",
        "selection": SCOPE_EXAMPLE,
        "changed": 1203,
        "messages": 1180,
        "under_way": 1,
        "held": 0,
        "kept": 0,
        "final": 0,
    }
