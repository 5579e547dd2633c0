"""The authorisation of a configuration: the vendor's eight questions, answered, and approved by a person.

Standards: the vendor's questionnaire, as a form; RFC 5321 (mailboxes).
Promises: only the role *authorizer* decides; `verify` never grants; rejecting what was approved withdraws it, and
    its queued mail is held.
Dangers: the answers are text of a stranger: show them as text.
Not here: what a withdrawal does to mail (`relay.holds`), rows (`store.verification`).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field

from outgate.api.errors import Clash, NotFound, Outdated
from outgate.api.event_notifications.models import Authorization
from outgate.api.event_notifications.parts import Parts
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.schema import Body, json_body
from outgate.base.clock import rfc3339
from outgate.base.log import Log
from outgate.model.tenancy import AuthorizationForm, SmtpConfiguration, Verification
from outgate.smtp import grammar
from outgate.store.tenancy import NotThere
from outgate.store.verification import Decided, NoForm

_log = Log("outgate.authorization")
_PATH = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/authorization"
_WEBSITE = re.compile(r"(?:https?://)?[^\s/?#@]+\.[^\s/?#@]+(?:[/?#]\S*)?", re.IGNORECASE)


def _text(text: str) -> str:
    wrong = next((sign for sign in text if (ord(sign) < 32 and sign not in "\n\r\t") or ord(sign) == 127), None)
    if wrong is not None:
        raise ValueError(f"must not contain the control character {ord(wrong):#04x}")
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _website(text: str) -> str:
    if _WEBSITE.fullmatch(text) is None:
        raise ValueError("must be an address of the web such as https://www.example.com")
    return text


def _mailbox(text: str) -> str:
    try:
        found = grammar.mailbox(text.encode())
    except grammar.BadSyntax:
        found = None
    if found is None or not found.text:
        raise ValueError("must be a mail address such as post@example.com")
    return text


def _different(addresses: list[str]) -> list[str]:
    if len({address.lower() for address in addresses}) < len(addresses):
        raise ValueError("must name each address once")
    return addresses


_IF_MATCH = Header(
    None, alias="If-Match", max_length=200, description="The ETag of the answers that the decision is about; optional."
)
_Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_text)]
_Mailbox = Annotated[str, Field(min_length=3, max_length=320), AfterValidator(_mailbox)]


class FormBody(Body):
    """The eight questions (the third in five parts). A `sending_rate` that is a number is messages an hour, and becomes
    the quota when a person approves, unless an operator has set one."""

    nature: Literal["marketing", "transactional"]
    website: Annotated[str, Field(min_length=3, max_length=500), AfterValidator(_website)]
    subscriber_list: _Text
    bounces_and_complaints: _Text
    unsubscribe: _Text
    sending_rate: _Text | Annotated[int, Field(ge=1, le=1_000_000_000)]
    list_cleaning: _Text
    contacts: Annotated[list[_Mailbox], Field(min_length=1, max_length=4), AfterValidator(_different)]
    reply_to: _Mailbox
    consent_statement: Literal[True]
    unsubscribe_link_statement: Literal[True]
    html_validation: _Text


FORM_LIMIT = 256 * 1024
"""Six texts of 4000 characters, each of them up to twelve octets as JSON escapes it."""


class RejectBody(Body):
    """Why not."""

    reason: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_text)]


FORM_EXAMPLE: dict[str, object] = {
    "nature": "transactional",
    "website": "https://shop.example.com",
    "subscriber_list": "Customers who have placed an order",
    "bounces_and_complaints": "We read the delivery status each day and stop writing to addresses that bounce",
    "unsubscribe": "Order mails go to buyers only; every other mail has a link",
    "sending_rate": "200 an hour, from the orders of the last year",
    "list_cleaning": "Addresses that bounce twice are removed",
    "contacts": ["post@shop.example.com"],
    "reply_to": "service@shop.example.com",
    "consent_statement": True,
    "unsubscribe_link_statement": True,
    "html_validation": "Templates are checked with the W3C validator before each release",
}
_EXAMPLE: dict[str, object] = {
    "smtp_config_id": "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11",
    "verification": "PENDING",
    "decision": None,
    "decided_at": None,
    "decided_by": None,
    "reason": None,
    "submitted_at": "2026-11-21T07:03:00Z",
    "submitted_by": "iam-ApiKey-1",
    **FORM_EXAMPLE,
}


def routes(parts: Parts) -> APIRouter:
    """Return the operations on a configuration's authorisation."""
    router = APIRouter(redirect_slashes=False)
    _answers(router, parts)
    _decisions(router, parts)
    return router


def _answers(router: APIRouter, parts: Parts) -> None:
    forms = parts.store.verification

    @router.post(
        _PATH,
        **described(
            "submit_smtp_authorization",
            "Answer the questions that authorise a configuration",
            answer=Authorization,
            status=202,
            body=FormBody,
            errors=(409,),
            body_example=FORM_EXAMPLE,
            example=_EXAMPLE,
            headers=("ETag",),
        ),
    )
    def submit(
        configuration: SmtpConfiguration = Depends(parts.configuration("submit_smtp_authorization")),
        caller: Caller = Depends(parts.gate.allow("submit_smtp_authorization")),
        body: FormBody = Depends(json_body(FormBody, limit=FORM_LIMIT)),
    ) -> JSONResponse:
        try:
            form = forms.submit_form(configuration.id, body.model_dump(), caller.subject)
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        except Decided as error:
            raise Clash("", f"{error}: have them withdrawn first (POST …/authorization/reject)") from None
        state = Verification.PENDING if form.decision is None else Verification.SUCCESSFUL
        return JSONResponse(_document(form, state), 202, _etag(form))

    @router.get(
        _PATH,
        **described(
            "get_smtp_authorization",
            "Show the form of a configuration and what was decided",
            answer=Authorization,
            example=_EXAMPLE,
            headers=("ETag",),
        ),
    )
    def get(
        configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_authorization")),
    ) -> JSONResponse:
        form = forms.form(configuration.id)
        if form is None:
            raise NotFound("authorisation form of SMTP configuration", configuration.id)
        return JSONResponse(_document(form, configuration.authorization), headers=_etag(form))


def _decisions(router: APIRouter, parts: Parts) -> None:
    @router.post(
        _PATH + "/approve",
        **described(
            "approve_smtp_authorization",
            "Let a configuration send (role authorizer)",
            answer=Authorization,
            errors=(409, 412),
            headers=("ETag",),
            example={**_EXAMPLE, "verification": "SUCCESSFUL", "decision": "approved", "reason": ""},
        ),
    )
    def approve(
        configuration: SmtpConfiguration = Depends(parts.configuration("approve_smtp_authorization")),
        caller: Caller = Depends(parts.gate.allow("approve_smtp_authorization")),
        if_match: str | None = _IF_MATCH,
    ) -> JSONResponse:
        return _decide(parts, configuration, "approved", caller, "", if_match)

    @router.post(
        _PATH + "/reject",
        **described(
            "reject_smtp_authorization",
            "Refuse a configuration, or withdraw what was approved (role authorizer)",
            answer=Authorization,
            body=RejectBody,
            errors=(412,),
            headers=("ETag",),
            body_example={"reason": "The list's origin is not told."},
            example={**_EXAMPLE, "verification": "FAILED", "decision": "rejected", "reason": "The list's origin …"},
        ),
    )
    def reject(
        configuration: SmtpConfiguration = Depends(parts.configuration("reject_smtp_authorization")),
        caller: Caller = Depends(parts.gate.allow("reject_smtp_authorization")),
        if_match: str | None = _IF_MATCH,
        body: RejectBody = Depends(json_body(RejectBody)),
    ) -> JSONResponse:
        return _decide(parts, configuration, "rejected", caller, body.reason, if_match)


def _decide(
    parts: Parts, configuration: SmtpConfiguration, decision: str, caller: Caller, reason: str, if_match: str | None
) -> JSONResponse:
    forms = parts.store.verification
    seen = forms.form(configuration.id)
    if if_match is not None and if_match.strip() != "*" and (seen is None or if_match.strip() != _tag(seen)):
        raise Outdated("other answers have been submitted since: read them first")
    try:
        form, after = forms.decide_form(
            configuration.id,
            decision,
            caller.subject,
            reason,
            seen=seen.submitted_at if seen is not None and if_match is not None else None,
        )
    except Decided as error:
        raise Outdated(f"{error}: read them first") from None
    except NotThere:
        raise NotFound("SMTP configuration", configuration.id) from None
    except NoForm as error:
        raise Clash("", f"{error}: the customer answers it first (POST …/authorization)") from None
    _log.info(
        f"domain.{decision}",
        domain=after.domain,
        smtp_config_id=after.id,
        by=caller.subject,
        reason=reason,
        before=configuration.authorization,
    )
    return JSONResponse(_document(form, after.authorization), headers=_etag(form))


def _tag(form: AuthorizationForm) -> str:
    """Return the version of a form's answers: it stays the same when they are decided on."""
    said = f"{form.submitted_at!r} {json.dumps(form.answers, sort_keys=True)}"
    return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'


def _etag(form: AuthorizationForm) -> dict[str, str]:
    return {"ETag": _tag(form)}


def _document(form: AuthorizationForm, state: Verification) -> dict[str, object]:
    return {
        "smtp_config_id": form.smtp_config_id,
        "verification": state.value,
        "decision": form.decision,
        "decided_at": None if form.decided_at is None else rfc3339(form.decided_at),
        "decided_by": form.decided_by,
        "reason": form.reason,
        **({"submitted_at": rfc3339(form.submitted_at), "submitted_by": form.submitted_by} if form.answers else {}),
        **form.answers,
    }
