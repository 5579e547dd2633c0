"""What an operator sets for mail: a configuration's quota, HTML check and nature; an instance's attachments.

Standards: none; ours, in the vendor's style. The vendor asks for rate and nature in its questionnaire.
Promises: a field that is not given is left as it is; only the role *operator* changes what a customer is held to; a
    change counts for the next message, in sessions that are open too.
Dangers: mail that is held for a quota gets other times when the quota is changed, and goes at once when there is none.
Not here: what the rules do (`relay.policy`, `relay.quota`), the questionnaire (`authorization`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import Field

from outgate.api.errors import BadRequest, NotFound
from outgate.api.event_notifications.models import MailRulesAnswer, MailSettings
from outgate.api.event_notifications.parts import Parts
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.schema import Body, json_body
from outgate.base.log import Log
from outgate.model.tenancy import HtmlCheck, Instance, MailRules, OverQuota, Quota, SmtpConfiguration
from outgate.store.tenancy import NotThere

_log = Log("outgate.rules")
_RULES = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/rules"
_SETTINGS = "/v1/instances/{instance_id}/smtp/settings"
_MOST = 1_000_000_000


class RulesBody(Body):
    """What is to change; null takes a limit, or an operator's word on the nature, away."""

    per_hour: int | None = Field(None, ge=1, le=_MOST)
    per_day: int | None = Field(None, ge=1, le=_MOST)
    over: Literal["refuse", "hold"] = "refuse"
    html: Literal["off", "warn", "refuse"] = "off"
    marketing: bool | None = None


class SettingsBody(Body):
    """What is to change of an instance."""

    attachments: bool


_RULES_EXAMPLE: dict[str, object] = {
    "smtp_config_id": "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11",
    "domain": "shop.example.com",
    "per_hour": 200,
    "per_day": None,
    "over": "hold",
    "html": "warn",
    "nature": "transactional",
    "marketing": None,
    "unsubscribe_required": False,
}
_SETTINGS_EXAMPLE: dict[str, object] = {
    "instance_id": "5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21",
    "attachments": False,
}


def routes(parts: Parts) -> APIRouter:
    """Return the operations on rules and settings."""
    router = APIRouter(redirect_slashes=False)
    _rules(router, parts)
    _settings(router, parts)
    return router


def _rules(router: APIRouter, parts: Parts) -> None:
    @router.get(
        _RULES,
        **described(
            "get_smtp_rules",
            "Show a configuration's quota, HTML check and nature",
            answer=MailRulesAnswer,
            example=_RULES_EXAMPLE,
        ),
    )
    def get(configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_rules"))) -> JSONResponse:
        return JSONResponse(_document(configuration))

    @router.patch(
        _RULES,
        **described(
            "update_smtp_rules",
            "Change a configuration's quota, HTML check or nature (role operator)",
            answer=MailRulesAnswer,
            body=RulesBody,
            body_example={"per_hour": 200, "over": "hold"},
            example=_RULES_EXAMPLE,
        ),
    )
    def change(
        configuration: SmtpConfiguration = Depends(parts.configuration("update_smtp_rules")),
        caller: Caller = Depends(parts.gate.allow("update_smtp_rules")),
        body: RulesBody = Depends(json_body(RulesBody)),
    ) -> JSONResponse:
        given = body.model_dump(include=body.model_fields_set)
        try:
            after = parts.store.tenancy.update_rules(
                configuration.instance_id, configuration.id, lambda rules: _changed(rules, given)
            )
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        _log.info("rules.changed", smtp_config_id=after.id, domain=after.domain, by=caller.subject, **given)
        return JSONResponse(_document(after))


def _settings(router: APIRouter, parts: Parts) -> None:
    @router.get(
        _SETTINGS,
        **described(
            "get_smtp_settings",
            "Show whether the instance's mail may carry attachments",
            answer=MailSettings,
            example=_SETTINGS_EXAMPLE,
        ),
    )
    def get(instance: Instance = Depends(parts.instance("get_smtp_settings"))) -> JSONResponse:
        return JSONResponse({"instance_id": instance.id, "attachments": instance.attachments})

    @router.patch(
        _SETTINGS,
        **described(
            "update_smtp_settings",
            "Allow or refuse attachments in the instance's mail (role operator)",
            answer=MailSettings,
            body=SettingsBody,
            body_example={"attachments": True},
            example={**_SETTINGS_EXAMPLE, "attachments": True},
        ),
    )
    def change(
        instance: Instance = Depends(parts.instance("update_smtp_settings")),
        caller: Caller = Depends(parts.gate.allow("update_smtp_settings")),
        body: SettingsBody = Depends(json_body(SettingsBody)),
    ) -> JSONResponse:
        try:
            after = parts.store.tenancy.update_instance(instance.id, attachments=body.attachments)
        except NotThere:
            raise NotFound("instance", instance.id) from None
        _log.info("rules.changed", instance=after.id, by=caller.subject, attachments=after.attachments)
        return JSONResponse({"instance_id": after.id, "attachments": after.attachments})


def _changed(rules: MailRules, given: dict[str, object]) -> MailRules:
    """Return the rules with what was given in place of what was there."""
    asked = RulesBody.model_validate({**_values(rules), **given})
    limited = asked.per_hour is not None or asked.per_day is not None
    if not limited and given.get("over") == OverQuota.HOLD:
        raise BadRequest(
            "over", "says what becomes of mail over a limit, and there is none: set per_hour or per_day too"
        )
    quota = Quota(asked.per_hour, asked.per_day) if limited else None
    return replace(
        rules, quota=quota, html=HtmlCheck(asked.html), marketing=asked.marketing, over=OverQuota(asked.over)
    )


def _values(rules: MailRules) -> dict[str, object]:
    quota = rules.quota or Quota(None, None)
    return {
        "per_hour": quota.per_hour,
        "per_day": quota.per_day,
        "over": rules.over.value,
        "html": rules.html.value,
        "marketing": rules.marketing,
    }


def _document(configuration: SmtpConfiguration) -> dict[str, object]:
    rules = configuration.rules
    return {
        "smtp_config_id": configuration.id,
        "domain": configuration.domain,
        **_values(rules),
        "nature": rules.nature,
        "unsubscribe_required": rules.needs_unsubscribe,
    }
