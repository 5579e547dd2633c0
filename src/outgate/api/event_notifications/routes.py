"""The ways by which a configuration's mail goes out: shown, replaced as a whole, tried.

Standards: none; ours, in the vendor's style.
Promises: an order is replaced as a whole or not at all; a password is in no answer, and kept by a PUT without it only
for the same login at the same place; a forward is that of an environment of the same account.
Dangers: whoever may write routes decides who reads a customer's mail: role operator only.
Not here: which route a message takes (`relay.transports`), which are well now (`api.operations`).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from typing import Any, Literal, Protocol

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import Field

from outgate.api.errors import BadRequest, NotFound
from outgate.api.event_notifications.parts import Parts
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import Shown, Time, described
from outgate.api.schema import Body, json_body
from outgate.base.clock import rfc3339
from outgate.base.log import Log
from outgate.model.routes import DIRECT, MOST_ROUTES, RouteSpec, RouteTls, RouteType, trouble
from outgate.model.tenancy import SmtpConfiguration
from outgate.net.tls import verified_context
from outgate.relay.probing import Probed
from outgate.smtp import grammar
from outgate.store.routes import PasswordMissing
from outgate.store.tenancy import NotThere

_log = Log("outgate.routes")
_ROUTES = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/routes"
_TEST = _ROUTES + "/{name}/test"


class RouteProbe(Protocol):
    """Tries a route without a message (`relay.probing`)."""

    def probe(self, instance_id: str, smtp_config_id: str, name: str, domain: str) -> Awaitable[Probed]: ...


class RouteBody(Body):
    """One route; what its type has no use for is left out or null."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    type: Literal["direct", "smart_host", "egress_forward"]
    host: str | None = Field(None, max_length=253)
    port: int | None = Field(None, ge=1, le=65535)
    program_id: str | None = Field(None, max_length=64)
    environment_id: str | None = Field(None, max_length=64)
    port_orig: int | None = Field(None, ge=1, le=65535)
    tls: Literal["starttls", "implicit", "opportunistic", "none"] | None = None
    verify: bool | None = None
    names: list[str] | None = Field(None, max_length=10)
    authorities: str | None = Field(None, max_length=32_768)
    username: str | None = Field(None, max_length=255)
    password: str | None = Field(None, max_length=1024)


class RoutesBody(Body):
    """All routes of a configuration, the preferred one first; none: the installation's."""

    routes: list[RouteBody] = Field(max_length=MOST_ROUTES)


class TestBody(Body):
    """For mail to which domain the route is tried; the direct one needs one."""

    domain: str | None = Field(None, max_length=255)


class RouteShown(Shown):
    """One route. `password_set` says whether there is a password; it is never shown."""

    name: str
    type: Literal["direct", "smart_host", "egress_forward"]
    host: str | None = None
    port: int | None = None
    program_id: str | None = None
    environment_id: str | None = None
    port_orig: int | None = None
    tls: Literal["starttls", "implicit", "opportunistic", "none"] | None = None
    verify: bool | None = None
    names: list[str] | None = None
    authorities: str | None = None
    username: str | None = None
    password_set: bool | None = None


class RoutesAnswer(Shown):
    """A configuration's routes, the preferred one first. `in_force` names those that its mail takes: its own, or the
    installation's if it has none."""

    smtp_config_id: str
    domain: str
    routes: list[RouteShown]
    in_force: list[str]


class StepShown(Shown):
    """One step of a try: when its answer was read, what was done, the answer or the error."""

    at: Time
    did: str
    reply: str


class Tested(Shown):
    """How a try went; `reason` is "" if a server took us, else a class word."""

    route: str
    site: str
    ok: bool
    reason: str
    text: str
    tls: str
    steps: list[StepShown]


_NEW: list[dict[str, object]] = [
    {
        "name": "primary",
        "type": "smart_host",
        "host": "smtp.example.net",
        "port": 587,
        "tls": "starttls",
        "username": "shop",
        "password": "what the smart host gave you",
    },
    {
        "name": "tunnel",
        "type": "egress_forward",
        "program_id": "4711",
        "environment_id": "4712",
        "port_orig": 5025,
        "tls": "implicit",
    },
    {"name": "direct", "type": "direct"},
]
_SURE: dict[str, object] = {"verify": True, "names": [], "authorities": ""}
_EXAMPLE: dict[str, object] = {
    "smtp_config_id": "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11",
    "domain": "shop.example.com",
    "routes": [
        {k: v for k, v in _NEW[0].items() if k != "password"} | _SURE | {"password_set": True},
        _NEW[1] | _SURE | {"username": "", "password_set": False},
        _NEW[2],
    ],
    "in_force": ["primary", "tunnel", "direct"],
}
_AT = "2026-11-21T07:03:00Z"
_TESTED: dict[str, object] = {
    "route": "primary",
    "site": "smtp.example.net:587",
    "ok": True,
    "reason": "",
    "text": "the server took us",
    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    "steps": [
        {"at": _AT, "did": "connect to 198.51.100.7:587", "reply": "220 smtp.example.net ESMTP"},
        {"at": _AT, "did": "EHLO", "reply": "250 smtp.example.net"},
        {"at": _AT, "did": "STARTTLS", "reply": "220 2.0.0 Ready"},
        {"at": _AT, "did": "TLS handshake", "reply": "TLSv1.3 TLS_AES_256_GCM_SHA384"},
        {"at": _AT, "did": "EHLO", "reply": "250 smtp.example.net"},
        {"at": _AT, "did": "AUTH", "reply": "235 2.7.0 Authentication successful"},
        {"at": _AT, "did": "QUIT", "reply": "closed"},
    ],
}


def routes(parts: Parts, probe: RouteProbe, defaults: tuple[str, ...]) -> APIRouter:
    """Return the operations on routes; `defaults` names the installation's."""
    router = APIRouter(redirect_slashes=False)
    _order(router, parts, defaults)
    _try(router, parts, probe)
    return router


def _order(router: APIRouter, parts: Parts, defaults: tuple[str, ...]) -> None:
    @router.get(
        _ROUTES,
        **described(
            "get_smtp_routes", "Show the routes of a configuration's mail", answer=RoutesAnswer, example=_EXAMPLE
        ),
    )
    def get(configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_routes"))) -> JSONResponse:
        return JSONResponse(_document(configuration, parts.store.routes.of(configuration.id), defaults))

    @router.put(
        _ROUTES,
        **described(
            "replace_smtp_routes",
            "Replace the routes of a configuration's mail (role operator)",
            answer=RoutesAnswer,
            body=RoutesBody,
            body_example={"routes": _NEW},
            example=_EXAMPLE,
        ),
    )
    def put(
        configuration: SmtpConfiguration = Depends(parts.configuration("replace_smtp_routes")),
        caller: Caller = Depends(parts.gate.allow("replace_smtp_routes")),
        body: RoutesBody = Depends(json_body(RoutesBody)),
    ) -> JSONResponse:
        wanted = [_spec(index, each) for index, each in enumerate(body.routes)]
        _check(parts, wanted, caller.account_id)
        try:
            after = parts.store.routes.replace(configuration.instance_id, configuration.id, wanted, by=caller.subject)
        except PasswordMissing as error:
            raise BadRequest(
                f"routes.{error.index}.password",
                "is missing: one that is stored is kept only for the same user name at the same place under the same"
                " TLS rules",
            ) from None
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        names = [spec.name for spec in after]
        _log.info("routes.changed", smtp_config_id=configuration.id, by=caller.subject, routes=names)
        return JSONResponse(_document(configuration, after, defaults))


def _try(router: APIRouter, parts: Parts, probe: RouteProbe) -> None:
    @router.post(
        _TEST,
        **described(
            "test_smtp_route",
            "Try a route without a message: connect, EHLO, TLS, AUTH, QUIT (role operator)",
            answer=Tested,
            body=TestBody,
            body_optional=True,
            body_example={"domain": "example.org"},
            example=_TESTED,
        ),
    )
    async def test(
        name: str,
        configuration: SmtpConfiguration = Depends(parts.configuration("test_smtp_route")),
        body: TestBody = Depends(json_body(TestBody, optional=True)),
    ) -> JSONResponse:
        domain = ""
        if body.domain:
            try:
                literal = body.domain.startswith("[")
                domain = grammar.address_literal(body.domain) if literal else grammar.domain(body.domain)
            except grammar.BadSyntax as error:
                raise BadRequest("domain", f"must be a domain: {error}") from None
        elif name == DIRECT.name:
            raise BadRequest("domain", "is needed: directly, mail goes to the hosts that a recipient's domain names")
        try:
            found = await probe.probe(configuration.instance_id, configuration.id, name, domain or configuration.domain)
        except LookupError:
            raise NotFound("route", name) from None
        steps = [{"at": rfc3339(step.at), "did": step.did, "reply": step.reply} for step in found.steps]
        return JSONResponse(
            {
                "route": found.route,
                "site": found.site,
                "ok": not found.reason,
                "reason": found.reason,
                "text": found.text,
                "tls": found.tls,
                "steps": steps,
            }
        )


def _spec(index: int, body: RouteBody) -> RouteSpec:
    """Read one route. Raises `BadRequest` that names the field."""
    kind = RouteType(body.type)
    use: dict[RouteType, frozenset[str]] = {
        RouteType.DIRECT: frozenset(),
        RouteType.SMART_HOST: frozenset({"host", "port"}),
        RouteType.EGRESS_FORWARD: frozenset({"program_id", "environment_id", "port_orig"}),
    }
    own = {field for fields in use.values() for field in fields} - use[kind]
    if kind is RouteType.DIRECT:
        own |= {"tls", "verify", "names", "authorities", "username", "password"}
    for field in sorted(own):
        if getattr(body, field) is not None:
            raise BadRequest(f"routes.{index}.{field}", f"is of no use to a route of type {kind.value}")
    if kind is RouteType.EGRESS_FORWARD and body.port_orig is None:
        raise BadRequest(f"routes.{index}.port_orig", "is missing: which of the environment's forwards is it?")
    spec = RouteSpec(
        "",
        body.name,
        kind,
        (body.host or "").lower().removesuffix("."),
        body.port_orig or body.port or (587 if kind is RouteType.SMART_HOST else 0),
        body.program_id or "",
        body.environment_id or "",
        RouteTls(body.tls or "starttls"),
        body.verify is not False,
        tuple(name.lower().removesuffix(".") for name in body.names or ()),
        body.authorities or "",
        body.username or "",
        body.password or "",
    )
    wrong = trouble(spec)
    if wrong is not None:
        raise BadRequest(f"routes.{index}.{wrong[0]}", wrong[1])
    return DIRECT if kind is RouteType.DIRECT else spec


def _check(parts: Parts, wanted: list[RouteSpec], account_id: str) -> None:
    """Refuse what only shows beside other things: names given twice, certificates, whose an environment is."""
    seen: set[str] = set()
    for index, spec in enumerate(wanted):
        if spec.name in seen:
            raise BadRequest(f"routes.{index}.name", f"{spec.name!r} is given twice")
        seen.add(spec.name)
        if spec.authorities:
            try:
                verified_context(authorities=spec.authorities)
            except (ssl.SSLError, ValueError, OSError):
                raise BadRequest(f"routes.{index}.authorities", "must be certificates in PEM") from None
        forward = spec.type is RouteType.EGRESS_FORWARD
        if forward and parts.store.routes.owner_of(spec.program_id, spec.environment_id) != account_id:
            raise BadRequest(
                f"routes.{index}.environment_id", f"{spec.environment_id!r} is none of the account's environments"
            )


def _document(
    configuration: SmtpConfiguration, order: tuple[RouteSpec, ...], defaults: tuple[str, ...]
) -> dict[str, object]:
    return {
        "smtp_config_id": configuration.id,
        "domain": configuration.domain,
        "routes": [_shown(spec) for spec in order],
        "in_force": [spec.name for spec in order] or list(defaults),
    }


def _shown(spec: RouteSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": spec.name, "type": spec.type.value}
    if spec.type is RouteType.DIRECT:
        return found
    if spec.type is RouteType.SMART_HOST:
        found |= {"host": spec.host, "port": spec.port}
    else:
        found |= {
            "program_id": spec.program_id,
            "environment_id": spec.environment_id,
            "port_orig": spec.port,
        }
    return found | {
        "tls": spec.tls.value,
        "verify": spec.verify,
        "names": list(spec.names),
        "authorities": spec.authorities,
        "username": spec.username,
        "password_set": bool(spec.password),
    }
