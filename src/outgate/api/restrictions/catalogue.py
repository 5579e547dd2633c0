"""What there is to build rules from: APIs, services that a zone can name, and how much an account may have.

Standards: the vendor's contract.
Promises: only what is evaluated here is offered, with the modes it has.
Dangers: no service's addresses are known here, so no target is offered: an address of the type serviceRef is stored,
    and matches nobody.
Not here: zones and rules themselves (`zones`, `rules`), evaluation (`relay.access`).
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse

from outgate.api.errors import NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.restrictions import models
from outgate.api.restrictions.common import correlated, crn, href, require_own
from outgate.api.restrictions.rules import SERVICE
from outgate.base.clock import rfc3339
from outgate.store.access import MOST_RULES, MOST_ZONES, AccessQueries
from outgate.store.rule_document import ALL_APIS, CONTROL_PLANE, SMTP_API_DEV

_ALL_MODES = ("enabled", "disabled", "report")


def _api(api_type_id: str, name: str, description: str, modes: tuple[str, ...] = _ALL_MODES) -> dict[str, object]:
    return {
        "api_type_id": api_type_id,
        "display_name": name,
        "description": description,
        "type": "service",
        "actions": [],
        "enforcement_modes": list(modes),
    }


# The SMTP interface is listed once, under the id that the vendor documents; rules may name it without "-dev" too.
_APIS: dict[str, object] = {
    "api_types": [
        _api(ALL_APIS, "All APIs", "Control plane and SMTP interface; for SMTP a rule in report mode counts as none."),
        _api(CONTROL_PLANE, "Control plane", "The REST API of an instance; open to all until a rule restricts it."),
        _api(
            SMTP_API_DEV,
            "SMTP interface",
            "Sending by SMTP; closed to all until a rule opens it.",
            ("enabled", "disabled"),
        ),
    ]
}


def routes(access: AccessQueries, gate: Gate) -> APIRouter:
    """Return the operations that list; to be routed before those on zones, whose paths would take theirs."""
    router = APIRouter(redirect_slashes=False, dependencies=[Depends(correlated)])
    _offers(router, gate)
    _settings(router, access, gate)
    return router


def _offers(router: APIRouter, gate: Gate) -> None:
    @router.get(
        "/v1/zones/serviceref_targets",
        **described(
            "list_available_serviceref_targets",
            "List the services that a zone can name: none yet",
            answer=models.ServiceRefTargetList,
            example={"count": 0, "targets": []},
        ),
        dependencies=[Depends(gate.allow("list_available_serviceref_targets"))],
    )
    def targets(
        kind: Literal["all", "platform_service"] = Query("all", alias="type", description="Which services."),
    ) -> JSONResponse:
        return JSONResponse({"count": 0, "targets": []})

    @router.get(
        "/v1/zones/serviceref_targets/{service_name}",
        **described("get_serviceref_target", "Get a service that a zone can name", answer=models.ServiceRefTarget),
        dependencies=[Depends(gate.allow("get_serviceref_target"))],
    )
    def target(service_name: str = Path(description="The service's name.")) -> JSONResponse:
        raise NotFound("service reference target", service_name)

    @router.get(
        "/v1/operations",
        **described(
            "list_available_service_operations",
            "List the APIs that rules can be for",
            answer=models.OperationsList,
            example=_APIS,
        ),
        dependencies=[Depends(gate.allow("list_available_service_operations"))],
    )
    def operations(
        service_name: str | None = Query(None, max_length=128, description=f"Only of this service: {SERVICE}."),
        service_group_id: str | None = Query(None, max_length=128, description="Only of this group; there is none."),
        resource_type: str | None = Query(None, max_length=128, description="Only for this type; there is none."),
    ) -> JSONResponse:
        met = service_name in (None, SERVICE) and service_group_id is None and resource_type is None
        return JSONResponse(_APIS if met else {"api_types": []})


def _settings(router: APIRouter, access: AccessQueries, gate: Gate) -> None:
    @router.get(
        "/v1/account_settings/{account_id}",
        **described(
            "get_account_settings",
            "Get an account's limits and how much of them it uses",
            answer=models.AccountSettings,
            example=models.SETTINGS,
        ),
    )
    def settings(
        request: Request,
        account_id: str = Path(description="The account: that of the token."),
        caller: Caller = Depends(gate.allow("get_account_settings")),
    ) -> JSONResponse:
        require_own(caller, account_id)
        usage = access.usage(account_id)
        if usage is None:
            raise NotFound("account", account_id)
        since = rfc3339(usage.created_at, milliseconds=True)
        return JSONResponse(
            {
                "id": account_id,
                "crn": crn(account_id, "account_settings", account_id),
                "rule_count_limit": MOST_RULES,
                "zone_count_limit": MOST_ZONES,
                "tags_rule_count_limit": 0,
                "current_rule_count": usage.rules,
                "current_zone_count": usage.zones,
                "current_tags_rule_count": 0,
                "href": href(request, f"account_settings/{account_id}"),
                "created_at": since,
                "created_by_id": "outgate",
                "last_modified_at": since,
                "last_modified_by_id": "outgate",
            }
        )
