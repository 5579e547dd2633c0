"""Operations 13 and 14: what became of an instance's mail, by time, and its bounces.

Standards: the vendor's contract; times are RFC 3339.
Promises: the figures are counted from the rows of real deliveries, all of one moment; always all five keys, and
    each has every bucket of the window. What can have no mail here (custom destinations, subscriptions, sources,
    notifications) counts as none, as it does with the vendor.
Dangers: the first bucket begins before `gte`, at a whole hour or day in UTC, but holds nothing older than `gte`.
    A count reads much: it runs in a thread.
Not here: counting (`store.metrics`), one message's way (`api.messages`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from outgate.api.errors import BadRequest, NotFound
from outgate.api.event_notifications.parts import Parts
from outgate.api.messages.queries import (
    LONGEST_MAILBOX,
    LONGEST_TIME,
    MAILBOX,
    TIME,
    Text,
    whole_mailbox,
    window,
)
from outgate.api.openapi import Shown, Time, described
from outgate.base.clock import rfc3339
from outgate.model.flow import Status
from outgate.model.tenancy import Instance
from outgate.relay.holds import WORDS
from outgate.store.metrics import REACH_S, Bounce, Counts, Selection

_METRICS = "/v1/instances/{instance_id}/metrics"
_BOUNCES = "/v1/instances/{instance_id}/metrics/bounce"

Key = Literal["submitted", "success", "deferred", "bounced", "opened"]
_KEYS: tuple[Key, ...] = ("submitted", "success", "deferred", "bounced", "opened")

_CUSTOM = "smtp_custom"
"""The vendor's only legal `destination_type`."""

_HOUR, _DAY = 3600, 86_400
_HOURLY_S = 2 * _DAY
_MOST_BUCKETS = 400
_LATEST = 253_402_300_799.0  # 9999-12-31T23:59:59Z


class MetricsReads(Protocol):
    """The counts of the queue store."""

    def metrics(self, wanted: Selection, width_s: int) -> Counts: ...

    def bounces(self, wanted: Selection, limit: int, offset: int) -> tuple[int, list[Bounce]]: ...


class Bucket(Shown):
    """How many events fell into a stretch of time, and when it began."""

    doc_count: int = Field(ge=0)
    key_as_string: Time


class Histogram(Shown):
    """Every bucket of the window, in order of time."""

    buckets: list[Bucket]


class Metric(Shown):
    """One kind of event: of each recipient, how often it happened in the window."""

    key: Key
    doc_count: int = Field(ge=0)
    histogram: Histogram


class Metrics(Shown):
    """All kinds of events."""

    metrics: list[Metric]


class BounceMetric(Shown):
    """A recipient that will not get its mail: who, what, why, when, and which client handed it over."""

    email_address: str
    subject: str
    error_message: str
    timestamp: Time
    ip_address: str


class BounceMetrics(Shown):
    """A page of bounces, newest first."""

    metrics: list[BounceMetric]
    total_count: int = Field(ge=0)
    offset: int = Field(ge=0)
    limit: int = Field(ge=1, le=100)


def _example(key: Key, count: int) -> dict[str, object]:
    bucket = {"doc_count": count, "key_as_string": "2026-11-21T07:00:00Z"}
    return {"key": key, "doc_count": count, "histogram": {"buckets": [bucket]}}


_METRICS_EXAMPLE = {"metrics": [_example(key, count) for key, count in zip(_KEYS, (12, 10, 1, 1, 0), strict=True)]}
_BOUNCES_EXAMPLE = {
    "metrics": [
        {
            "email_address": "ann@example.net",
            "subject": "Your order is on its way",
            "error_message": "550 5.1.1 no such mailbox",
            "timestamp": "2026-11-21T07:03:01Z",
            "ip_address": "192.0.2.7",
        }
    ],
    "total_count": 1,
    "offset": 0,
    "limit": 10,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The query that both operations share; `elsewhere`: it names something that no mail here belongs to."""

    gte: float
    lte: float
    smtp_config_id: str | None
    elsewhere: bool
    username: str | None
    email_from: str | None
    email_to: str | None
    subject: str | None


def _asked(
    gte: str = Query(max_length=LONGEST_TIME, json_schema_extra=TIME, description="Begin of the window, in UTC."),
    lte: str = Query(
        max_length=LONGEST_TIME, json_schema_extra=TIME, description="End of the window, in UTC; not before `gte`."
    ),
    smtp_config_id: Text = Query(
        None, min_length=1, max_length=100, description="The configuration; required without `destination_type`."
    ),
    destination_type: Text = Query(
        None,
        json_schema_extra={"enum": [_CUSTOM]},
        description="Custom e-mail destinations, which do not exist here: nothing is counted.",
    ),
    destination_id: Text = Query(None, min_length=1, max_length=256, description="No mail here has one."),
    subscription_id: Text = Query(None, min_length=1, max_length=256, description="No mail here has one."),
    source_id: Text = Query(None, min_length=1, max_length=256, description="No mail here has one."),
    notification_id: Text = Query(None, min_length=1, max_length=256, description="No mail here has one."),
    email_to: Text = Query(
        None,
        min_length=1,
        max_length=LONGEST_MAILBOX,
        json_schema_extra=MAILBOX,
        description="The recipient, a whole mailbox; the case of its domain does not matter.",
    ),
    email_from: Text = Query(
        None,
        min_length=1,
        max_length=LONGEST_MAILBOX,
        json_schema_extra=MAILBOX,
        description="The From field, a whole mailbox; the case of its domain does not matter.",
    ),
    subject: Text = Query(None, min_length=1, max_length=500, description="A part of the subject, in any case."),
    username: Text = Query(None, min_length=1, max_length=250, description="The SMTP user, exactly."),
) -> _Asked:
    first, last = window(gte, lte)
    assert first is not None and last is not None
    if destination_type not in (None, _CUSTOM):
        raise BadRequest("destination_type", f"must be {_CUSTOM}")
    if smtp_config_id is None and destination_type is None:
        raise BadRequest("smtp_config_id", f"is required unless destination_type is {_CUSTOM}")
    nowhere = (destination_type, destination_id, subscription_id, source_id, notification_id)
    return _Asked(
        gte=_counted(first),
        lte=_counted(last),
        smtp_config_id=smtp_config_id,
        elsewhere=any(each is not None for each in nowhere),
        username=username,
        email_from=whole_mailbox("email_from", email_from),
        email_to=whole_mailbox("email_to", email_to),
        subject=subject,
    )


def _counted(at: float) -> float:
    """Return the nearest time that a bucket can begin at: no mail is older than the epoch, no year has five digits."""
    return min(max(at, 0.0), _LATEST)


def routes(parts: Parts, reads: MetricsReads, reach_s: float = REACH_S) -> APIRouter:
    """Return `GET …/metrics` and `GET …/metrics/bounce`; `reach_s` is the longest life of a message, holds included."""
    router = APIRouter(redirect_slashes=False)

    @router.get(
        _METRICS,
        **described("get_metrics", "Count what became of mail, by time", answer=Metrics, example=_METRICS_EXAMPLE),
    )
    def get_metrics(
        instance: Instance = Depends(parts.instance("get_metrics")), asked: _Asked = Depends(_asked)
    ) -> JSONResponse:
        wanted = _selection(parts, instance, asked, reach_s)
        width = width_s(asked.gte, asked.lte)
        counts: Counts = {} if wanted is None else reads.metrics(wanted, width)
        return JSONResponse(metrics_document(counts, asked.gte, asked.lte, width))

    @router.get(
        _BOUNCES,
        **described("get_bounce_metrics", "List bounces", answer=BounceMetrics, example=_BOUNCES_EXAMPLE),
    )
    def get_bounce_metrics(
        instance: Instance = Depends(parts.instance("get_bounce_metrics")),
        asked: _Asked = Depends(_asked),
        limit: int = Query(10, ge=1, le=100),
        offset: int = Query(0, ge=0, le=2**31),
    ) -> JSONResponse:
        wanted = _selection(parts, instance, asked, reach_s)
        total, found = (0, []) if wanted is None else reads.bounces(wanted, limit, offset)
        items = [bounce_document(bounce) for bounce in found]
        return JSONResponse({"metrics": items, "total_count": total, "offset": offset, "limit": limit})

    return router


def _selection(parts: Parts, instance: Instance, asked: _Asked, reach_s: float) -> Selection | None:
    """Return what to count, None if there can be nothing. Raises `NotFound` for a configuration of nobody's."""
    found = asked.smtp_config_id
    if found is not None and parts.store.tenancy.configuration(instance.id, found) is None:
        raise NotFound("SMTP configuration", found)
    if asked.elsewhere:
        return None
    return Selection(
        instance.id,
        asked.gte,
        asked.lte,
        smtp_config_id=found,
        username=asked.username,
        email_from=asked.email_from,
        email_to=asked.email_to,
        subject=asked.subject,
        reach_s=reach_s,
    )


def width_s(gte: float, lte: float) -> int:
    """Return how many seconds a bucket has: an hour up to two days, else as few whole days as make 400 buckets or
    fewer."""
    if lte - gte <= _HOURLY_S:
        return _HOUR
    width = _DAY * max(1, int((lte - gte) // (_DAY * _MOST_BUCKETS)))
    while int(lte) // width - int(gte) // width >= _MOST_BUCKETS:
        width += _DAY
    return width


def metrics_document(counts: Counts, gte: float, lte: float, width: int) -> dict[str, object]:
    """Return the vendor's five metrics with every bucket from `gte` to `lte`, counted or not."""
    numbers = range(int(gte) // width, int(lte) // width + 1)
    starts = [rfc3339(number * width) for number in numbers]
    metrics: list[dict[str, object]] = []
    for key in _KEYS:
        counted = counts.get(key, {})
        buckets = [
            {"doc_count": counted.get(number, 0), "key_as_string": start}
            for number, start in zip(numbers, starts, strict=True)
        ]
        metrics.append({"key": key, "doc_count": sum(counted.values()), "histogram": {"buckets": buckets}})
    return {"metrics": metrics}


def bounce_document(bounce: Bounce) -> dict[str, object]:
    """Return a bounce as the vendor shows it; one that expired says so before the last reply."""
    said = WORDS.get(bounce.reason) or bounce.reply or bounce.reason
    return {
        "email_address": bounce.mailbox,
        "subject": bounce.subject,
        "error_message": f"expired: {said}" if bounce.status is Status.EXPIRED else said,
        "timestamp": rfc3339(bounce.at),
        "ip_address": bounce.client_address,
    }
