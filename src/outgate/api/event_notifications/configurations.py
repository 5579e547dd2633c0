"""Operations 1 to 7: make, list, get, change and delete configurations, verify them, and who may send; evidence.

Standards: the vendor's contract.
Promises: a new configuration has its own RSA-2048 key, sealed before it is stored; a check that fails is an
    answer with the state, not an HTTP error; queued mail of a deleted configuration is held, not lost.
Not here: JSON (`documents`), what a check asks (the verifier).
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.event_notifications import examples
from outgate.api.event_notifications.documents import (
    ChangedConfiguration,
    NewConfiguration,
    checks_document,
    configuration_document,
)
from outgate.api.event_notifications.models import (
    Checks,
    SMTPAllowedIPs,
    SMTPConfiguration,
    SMTPConfigurationsList,
    SMTPCreateResponse,
    SMTPVerificationUpdateResponse,
)
from outgate.api.event_notifications.parts import Parts
from outgate.api.openapi import described
from outgate.api.schema import Page, json_body, page
from outgate.base.clock import rfc3339
from outgate.model.tenancy import Instance, SmtpConfiguration, Verification
from outgate.store.keys import new_dkim_key, new_ed25519_key
from outgate.store.tenancy import Conflict, NotThere

_CHECKS = ("spf", "dkim", "en_authorization")
_LIST = "/v1/instances/{instance_id}/smtp/config"
_ONE = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}"


def routes(parts: Parts) -> APIRouter:
    """Return the operations on configurations."""
    router = APIRouter(redirect_slashes=False)
    _creates(router, parts)
    _changes(router, parts)
    _lists(router, parts)
    _tells(router, parts)
    return router


def _creates(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy
    automatic = Verification.SUCCESSFUL if parts.authorization == "automatic" else Verification.PENDING

    @router.post(
        _LIST,
        **described(
            "create_smtp_configuration",
            "Make a configuration for a domain",
            answer=SMTPCreateResponse,
            status=201,
            body=NewConfiguration,
            errors=(409,),
            body_example=examples.NEW_CONFIGURATION,
            example=examples.CREATED_CONFIGURATION,
        ),
    )
    def create(
        instance: Instance = Depends(parts.instance("create_smtp_configuration")),
        body: NewConfiguration = Depends(json_body(NewConfiguration)),
    ) -> JSONResponse:
        # Asked before the costly key, so that a repeated call is cheap; the index decides if two race.
        if tenancy.configuration_by_domain(instance.id, body.domain) is not None:
            raise Clash("domain", f"{body.domain} has a configuration in this instance already")
        try:
            made = tenancy.create_configuration(
                instance.id,
                name=body.name,
                domain=body.domain,
                description=body.description,
                key=new_dkim_key(),
                second=new_ed25519_key() if parts.ed25519 else None,
                authorization=automatic,
            )
        except Conflict as error:
            raise Clash(error.field, str(error)) from None
        except NotThere:
            raise NotFound("instance", instance.id) from None
        return JSONResponse(configuration_document(made, parts.records, created=True), 201)


def _changes(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.patch(
        _ONE,
        **described(
            "update_smtp_configuration",
            "Change a configuration's name or description",
            answer=SMTPConfiguration,
            body=ChangedConfiguration,
            body_example={"description": "Orders and invoices"},
            example=examples.CONFIGURATION,
        ),
    )
    def change(
        configuration: SmtpConfiguration = Depends(parts.configuration("update_smtp_configuration")),
        body: ChangedConfiguration = Depends(json_body(ChangedConfiguration)),
    ) -> JSONResponse:
        try:
            changed = tenancy.update_configuration(
                configuration.instance_id, configuration.id, name=body.name, description=body.description
            )
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        return JSONResponse(configuration_document(changed, parts.records))

    @router.delete(
        _ONE,
        **described(
            "delete_smtp_configuration", "Delete a configuration with its users; its queued mail is held", status=204
        ),
    )
    def delete(
        configuration: SmtpConfiguration = Depends(parts.configuration("delete_smtp_configuration")),
    ) -> Response:
        try:
            tenancy.delete_configuration(configuration.instance_id, configuration.id)
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        return Response(status_code=204)

    @router.patch(
        _ONE + "/verify",
        **described(
            "update_verify_smtp",
            "Check now, at the domain's own name servers",
            answer=SMTPVerificationUpdateResponse,
            example={"status": [{"type": "spf", "verification": "SUCCESSFUL"}]},
        ),
    )
    async def verify(
        configuration: SmtpConfiguration = Depends(parts.configuration("update_verify_smtp")),
        checks: str = Query(
            alias="type", description="spf, dkim, en_authorization, or a comma list of them.", examples=["dkim,spf"]
        ),
    ) -> JSONResponse:
        wanted = _checks(checks)
        try:
            states = await parts.verifier.verify(configuration, wanted)
        except LookupError:
            raise NotFound("SMTP configuration", configuration.id) from None
        status = [{"type": check, "verification": states[check].value} for check in wanted]
        return JSONResponse({"status": status})


def _lists(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.get(
        _LIST,
        **described(
            "list_smtp_configurations",
            "List configurations, oldest first; `search` is part of the name",
            answer=SMTPConfigurationsList,
            example=examples.CONFIGURATIONS,
        ),
    )
    def find(
        request: Request,
        instance: Instance = Depends(parts.instance("list_smtp_configurations")),
        wanted: Page = Depends(page),
    ) -> JSONResponse:
        found = tenancy.configurations(instance.id, search=wanted.search, limit=wanted.limit, offset=wanted.offset)
        items = [configuration_document(item, parts.records) for item in found.items]
        return JSONResponse(wanted.document(request.url, found.total, "smtp_configurations", items))

    @router.get(
        _ONE,
        **described(
            "get_smtp_configuration",
            "Show a configuration with the records to publish",
            answer=SMTPConfiguration,
            example=examples.CONFIGURATION,
        ),
    )
    def get(
        configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_configuration")),
    ) -> JSONResponse:
        return JSONResponse(configuration_document(configuration, parts.records))


def _tells(router: APIRouter, parts: Parts) -> None:
    @router.get(
        _ONE + "/checks",
        **described(
            "get_smtp_checks",
            "Show how a configuration stands, and the evidence of its checks, newest first",
            answer=Checks,
            example=examples.CHECKS,
        ),
    )
    def checks(
        configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_checks")),
        limit: int = Query(20, ge=1, le=100, description="Pieces of evidence at most."),
    ) -> JSONResponse:
        evidence = parts.store.verification.evidence(configuration.id, limit)
        return JSONResponse(checks_document(configuration, evidence, parts.grace_s))

    @router.get(
        _ONE + "/allowed_ips",
        **described(
            "get_smtp_allowed_ips",
            "Show the networks that the instance's rules let in over SMTP",
            answer=SMTPAllowedIPs,
            example={"subnets": ["192.0.2.0/24"], "updated_at": "2026-11-21T07:03:00Z"},
        ),
    )
    def allowed_ips(
        configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_allowed_ips")),
    ) -> JSONResponse:
        subnets, updated_at = parts.enforcement.subnets(configuration.instance_id)
        return JSONResponse({"subnets": subnets, "updated_at": rfc3339(updated_at or configuration.created_at)})


def _checks(text: str) -> tuple[str, ...]:
    """Read one check or a comma list of them; each once, in the order given."""
    wanted = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    wrong = next((check for check in wanted if check not in _CHECKS), None)
    if wrong is not None:
        raise BadRequest("type", f"must be one or several of {', '.join(_CHECKS)}, not {wrong[:40]!r}")
    return wanted
