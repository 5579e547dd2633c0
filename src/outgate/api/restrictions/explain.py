"""Why may an address use an instance, or why not: the one operation that is ours, in the vendor's style.

Standards: none; it tells of the vendor's restrictions.
Promises: what it says is what SMTP and the REST API would decide now; every Deny has a remedy.
Dangers: it names zones and rules: for the account's own people only.
Not here: the judging (`relay.explanation`, `relay.access`).
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from outgate.api.errors import BadRequest, NotFound
from outgate.api.identity.gate import Gate
from outgate.api.openapi import described
from outgate.api.restrictions import models
from outgate.api.restrictions.common import account_listed, correlated
from outgate.api.restrictions.enforcement import CurrentTable
from outgate.base import addresses
from outgate.base.clock import rfc3339
from outgate.relay.access import ApiExplanation, InstanceExplanation
from outgate.relay.explanation import AllowListVerdict, Asked, ContextVerdict, RuleVerdict


def routes(current: CurrentTable, gate: Gate) -> APIRouter:
    """Return the operation."""
    router = APIRouter(redirect_slashes=False, dependencies=[Depends(correlated)])

    @router.get(
        "/v1/explain",
        **described(
            "explain_access",
            "Explain what an address may use, by which rule, and what is missing",
            answer=models.Explanation,
            example=models.EXPLANATION,
        ),
    )
    def explain(
        account_id: str = Depends(account_listed(gate, "explain_access")),
        address: str = Query(min_length=2, max_length=64, description="An IPv4 or IPv6 address."),
        endpoint_type: Literal["public", "private"] | None = Query(
            None, description="Over which endpoint: public if absent, private with a VPC."
        ),
        instance_id: str | None = Query(None, max_length=128, description="Only this instance."),
        vpc: str | None = Query(
            None,
            min_length=8,
            max_length=300,
            description="The CRN of the VPC whose endpoint gateway it comes through.",
        ),
    ) -> JSONResponse:
        if vpc is not None and endpoint_type == "public":
            raise BadRequest("endpoint_type", "must be private with a VPC: its gateway leads to no other endpoint")
        endpoint = endpoint_type or ("public" if vpc is None else "private")
        asked = Asked(None, _address(address), endpoint, vpc or "")
        found = current.get().explain(account_id, asked.address, endpoint, instance_id or "", asked.vpc)
        if instance_id is not None and not found:
            raise NotFound("instance", instance_id)
        return JSONResponse(
            {
                "account_id": account_id,
                "address": asked.address,
                "endpoint_type": endpoint,
                "vpc": asked.vpc,
                "instances": [_instance(item, asked) for item in found],
            }
        )

    return router


def _address(text: str) -> str:
    if "%" in text:
        raise BadRequest("address", "must have no scope: it means something on one machine only")
    try:
        given = ipaddress.ip_address(text.strip())
    except ValueError:
        raise BadRequest("address", f"must be an IPv4 or IPv6 address, not {text[:64]!r}") from None
    # A listener that serves both versions sees IPv4 clients so, and judges them as IPv4.
    return str(addresses.place(given))


def _instance(item: InstanceExplanation, asked: Asked) -> dict[str, object]:
    return {
        "instance_id": item.instance_id,
        "region": item.region,
        "smtp": _api(item.smtp, item.instance_id, asked),
        "control_plane": _api(item.control, item.instance_id, asked),
        "allow_list": None if item.allow_list is None else _allow_list(item.allow_list),
    }


def _allow_list(found: AllowListVerdict) -> dict[str, object]:
    return {
        "ends_at": rfc3339(found.ends_at),
        "ended": found.ended,
        "holds": found.holds,
        "missing": list(found.missing),
    }


def _api(item: ApiExplanation, instance_id: str, asked: Asked) -> dict[str, object]:
    decision = item.decision
    return {
        "decision": decision.verdict,
        "rule_id": decision.rule_id,
        "reason": decision.reason,
        "remedy": "" if decision.allowed else _remedy(item, instance_id, asked),
        "rules": [_rule(rule) for rule in item.rules],
    }


def _remedy(item: ApiExplanation, instance_id: str, asked: Asked) -> str:
    held = f"{asked.address} or the VPC" if asked.vpc else asked.address
    if not item.decision.rule_id:
        return f"create an enabled rule for instance {instance_id} and the SMTP API with a zone that holds {held}"
    refusing = [rule.rule_id for rule in item.rules if rule.enforced and not rule.allows]
    named = f"rule {refusing[0]}" if len(refusing) == 1 else f"each of the rules {', '.join(refusing)}"
    return f"have {named} name a zone that holds {held} for the {asked.endpoint} endpoint"


def _rule(rule: RuleVerdict) -> dict[str, object]:
    return {
        "rule_id": rule.rule_id,
        "description": rule.description,
        "enforcement_mode": rule.enforcement,
        "allows": rule.allows,
        "enforced": rule.enforced,
        "contexts": [_context(context) for context in rule.contexts],
        "missing": list(rule.missing),
    }


def _context(context: ContextVerdict) -> dict[str, object]:
    return {
        "allows": context.allows,
        "endpoint_types": list(context.endpoint_types),
        "zones": [
            {
                "zone_id": zone.zone_id,
                "name": zone.name,
                "holds": zone.holds,
                "excludes": zone.excludes,
                "unseen": zone.unseen,
            }
            for zone in context.zones
        ],
        "missing": list(context.missing),
    }
