"""Write what the operations on the queue answer.

Standards: RFC 3339 (times).
Promises: `why` says in one line why a site's mail is not gone yet.
Not here: shapes (`models`).
"""

from __future__ import annotations

from outgate.base.clock import rfc3339
from outgate.model.operations import OPERATOR, Done, Order, Scope, SiteDepth, SiteLive, StandingHold, Waiting
from outgate.relay.holds import WORDS

_HELD = {**WORDS, "quota": "held: over the quota of its configuration", OPERATOR: "held by an operator"}


def scope_document(scope: Scope) -> dict[str, object]:
    """Return a selection."""
    return {
        "queue_ids": list(scope.queue_ids),
        "instance_id": scope.instance_id,
        "smtp_config_id": scope.smtp_config_id,
        "site": scope.site,
        "domain": scope.domain,
    }


def hold_document(hold: StandingHold) -> dict[str, object]:
    """Return a standing hold."""
    return {
        "selection": scope_document(hold.scope),
        "by": hold.actor,
        "since": rfc3339(hold.since),
        "reason": hold.why,
    }


def site_document(depth: SiteDepth, live: SiteLive, hold: StandingHold | None, now: float) -> dict[str, object]:
    """Return what waits for a site."""
    oldest, following = depth.oldest_at, depth.next_at
    return {
        "site": depth.name,
        "recipients": depth.depth,
        "ready": depth.ready,
        "deferred": depth.deferred,
        "held": depth.held,
        "under_way": depth.under_way,
        "oldest_accepted_at": None if oldest is None else rfc3339(oldest),
        "oldest_age_s": None if oldest is None else max(0, int(now - oldest)),
        "next_attempt_at": None if following is None else rfc3339(following),
        "reason": depth.reason,
        "reply": depth.reply,
        "why": _why(depth, live, hold),
        "connections": live.connections,
        "paused_until": None if live.paused_until is None else rfc3339(live.paused_until),
        "paused_why": live.why,
        "hold": None if hold is None else hold_document(hold),
    }


def _why(depth: SiteDepth, live: SiteLive, hold: StandingHold | None) -> str:
    if depth.held > depth.ready + depth.deferred:
        if hold is not None and depth.held_reason == OPERATOR:
            return f"{hold.words()} (by {hold.actor})"
        return _HELD.get(depth.held_reason, f"held: {depth.held_reason}")
    if depth.reason:
        return ": ".join(part for part in (depth.reason, depth.reply) if part)
    if live.paused_until is not None:
        return f"paused: {live.why}"
    return "waits for its turn" if depth.ready else "on its way" if depth.under_way else ""


def recipient_document(waiting: Waiting) -> dict[str, object]:
    """Return one recipient that waits."""
    return {
        "queue_id": waiting.queue_id,
        "instance_id": waiting.instance_id,
        "smtp_config_id": waiting.smtp_config_id,
        "recipient": waiting.mailbox,
        "domain": waiting.domain,
        "site": waiting.site,
        "status": waiting.status.value,
        "under_way": waiting.leased,
        "attempts": waiting.attempts,
        "next_attempt_at": None if waiting.due_at is None else rfc3339(waiting.due_at),
        "reason": waiting.reason,
        "reply": waiting.reply,
        "route": waiting.route,
        "accepted_at": rfc3339(waiting.accepted_at),
    }


def done_document(order: Order, done: Done, *, dry_run: bool, standing: bool) -> dict[str, object]:
    """Return what an order came to."""
    return {
        "verb": order.verb.value,
        "dry_run": dry_run,
        "standing": standing,
        "selection": scope_document(order.scope),
        "changed": done.changed,
        "messages": done.messages,
        "under_way": done.under_way,
        "held": done.held,
        "kept": done.kept,
        "final": done.final,
    }
