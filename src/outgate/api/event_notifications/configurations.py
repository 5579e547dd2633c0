"""Operations 1, 2, 3 and 6: create, list and get configurations, verify their records.

Standards: the vendor's contract.
Promises: a new configuration has its own RSA-2048 key, sealed before it is stored; a check that fails is an
    answer with the state, not an HTTP error.
Not here: JSON (`documents`), what a check asks (the verifier).
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.event_notifications.documents import NewConfiguration, configuration_document
from outgate.api.event_notifications.parts import Parts
from outgate.api.schema import Page, json_body, page
from outgate.model.tenancy import Instance, SmtpConfiguration, Verification
from outgate.store.keys import new_dkim_key
from outgate.store.tenancy import Conflict, NotThere

_CHECKS = ("spf", "dkim", "en_authorization")
_LIST = "/v1/instances/{instance_id}/smtp/config"
_ONE = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}"


def routes(parts: Parts) -> APIRouter:
    """Return the operations on configurations."""
    router = APIRouter(redirect_slashes=False)
    tenancy = parts.store.tenancy
    automatic = Verification.SUCCESSFUL if parts.authorization == "automatic" else Verification.PENDING

    @router.post(_LIST, response_model=None)
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
                authorization=automatic,
            )
        except Conflict as error:
            raise Clash(error.field, str(error)) from None
        except NotThere:
            raise NotFound("instance", instance.id) from None
        return JSONResponse(configuration_document(made, parts.records, created=True), 201)

    @router.get(_LIST, response_model=None)
    def find(
        request: Request,
        instance: Instance = Depends(parts.instance("list_smtp_configurations")),
        wanted: Page = Depends(page),
    ) -> JSONResponse:
        found = tenancy.configurations(instance.id, search=wanted.search, limit=wanted.limit, offset=wanted.offset)
        items = [configuration_document(item, parts.records) for item in found.items]
        return JSONResponse(wanted.document(request.url, found.total, "smtp_configurations", items))

    @router.get(_ONE, response_model=None)
    def get(
        configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_configuration")),
    ) -> JSONResponse:
        return JSONResponse(configuration_document(configuration, parts.records))

    @router.patch(_ONE + "/verify", response_model=None)
    async def verify(
        configuration: SmtpConfiguration = Depends(parts.configuration("update_verify_smtp")),
        checks: str = Query(alias="type"),
    ) -> JSONResponse:
        wanted = _checks(checks)
        try:
            states = await parts.verifier.verify(configuration, wanted)
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        status = [{"type": check, "verification": states[check].value} for check in wanted]
        return JSONResponse({"status": status})

    return router


def _checks(text: str) -> tuple[str, ...]:
    """Read one check or a comma list of them; each once, in the order given."""
    wanted = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    wrong = next((check for check in wanted if check not in _CHECKS), None)
    if wrong is not None:
        raise BadRequest("type", f"must be one or several of {', '.join(_CHECKS)}, not {wrong[:40]!r}")
    return wanted
