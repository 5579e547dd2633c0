"""The JSON of a message: a summary for lists, the whole story for one.

Standards: RFC 3339.
Promises: everything the store knows of a message is shown but where its body lies and which key signs it.
Not here: routes (`messages`), records (`store.history`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from outgate.base.clock import rfc3339
from outgate.store.history import AttemptRecord, MessageRecord, RecipientRecord


def summary_document(record: MessageRecord) -> dict[str, object]:
    """Return a message as lists show it: who, what, when, and where each recipient stands."""
    return {
        "queue_id": record.queue_id,
        "message_id": record.message_id,
        "smtp_config_id": record.smtp_config_id,
        "username": record.username,
        "origin": record.origin,
        "parent": record.parent or None,
        "reverse_path": record.reverse_path,
        "header_from": record.header_from,
        "subject": record.subject,
        "size": record.size,
        "received_at": _time(record.received_at),
        "accepted_at": _time(record.accepted_at),
        "expires_at": _time(record.expires_at),
        "statuses": dict(Counter(recipient.status.value for recipient in record.recipients)),
        "recipients": [_recipient(recipient) for recipient in record.recipients],
    }


def message_document(record: MessageRecord, carried: list[dict[str, Any]]) -> dict[str, object]:
    """Return a message's whole story; `carried` is what the forwarder's audit has of its connection."""
    return {
        **summary_document(record),
        "session_id": record.session_id,
        "client": {
            "address": record.client_address,
            "port": record.client_port,
            "endpoint": record.endpoint,
            "listener": record.listener,
            "via": record.via,
            "helo": record.helo,
            "tls": record.tls,
        },
        "warning": record.warning,
        "reports": list(record.reports),
        "egress": carried,
        "attempts": [_attempt(attempt) for attempt in record.attempts],
        "timeline": [
            {
                "at": _time(moment.at),
                "event": moment.kind,
                "recipient": moment.recipient,
                "detail": moment.detail,
                "attempt": moment.attempt or None,
                "actor": moment.actor,
            }
            for moment in record.timeline()
        ],
    }


def _recipient(recipient: RecipientRecord) -> dict[str, object]:
    return {
        "mailbox": recipient.mailbox,
        "status": recipient.status.value,
        "attempts": recipient.attempts,
        "next_attempt_at": None if recipient.due_at is None else _time(recipient.due_at),
        "reply": recipient.reply,
        "reason": recipient.reason,
        "updated_at": _time(recipient.updated_at),
    }


def _attempt(attempt: AttemptRecord) -> dict[str, object]:
    return {
        "started_at": _time(attempt.started_at),
        "finished_at": _time(attempt.finished_at),
        "site": attempt.site,
        "host": attempt.host,
        "address": attempt.address,
        "source": attempt.source,
        "tls": attempt.tls,
        "route_reason": attempt.route_reason,
        "conversation": [{"at": _time(step.at), "did": step.did, "reply": step.reply} for step in attempt.steps],
        "outcomes": [
            {
                "mailbox": mailbox,
                "status": outcome.status.value,
                "code": outcome.code,
                "enhanced": outcome.enhanced,
                "text": outcome.text,
                "reason": outcome.reason,
            }
            for mailbox, outcome in attempt.outcomes
        ],
    }


def _time(epoch: float) -> str:
    return rfc3339(epoch, milliseconds=True)
