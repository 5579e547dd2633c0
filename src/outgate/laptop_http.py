"""What HTTP serves in the laptop mode: the vendors' APIs, identity, the sandbox calls, the page.

Standards: the contract in docs/laptop-mode.md.
Promises: each API has a path of its own, as `dev.json` names them; moving the clock answers once all that is newly due
has been looked at.
Dangers: the page shows secrets of the laptop mode's own tenant: on loopback only (`sandbox.local`).
Not here: starting and stopping what is served (`laptop`), operations (`api`), pages (`console`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from fastapi import FastAPI

from outgate import settings as settings_module
from outgate.api import cloud_manager, event_notifications, identity, operations, restrictions, vpc
from outgate.api.event_notifications.hashing import PasswordHashing
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.api.messages.documents import message_document, summary_document
from outgate.api.mounts import Mounts
from outgate.app import RelayService
from outgate.base.clock import OffsetClock
from outgate.console import views
from outgate.egress_service import Egress, terms_of
from outgate.relay.gateways import Gateways
from outgate.relay.onboarding import Verifier
from outgate.relay.recheck import Recheck
from outgate.sandbox import api as sandbox_api
from outgate.sandbox import tenant as tenants
from outgate.sandbox.inbox import Inbox
from outgate.sandbox.zone import Zone
from outgate.settings import Settings
from outgate.store.control import ControlStore
from outgate.store.places import Grounds

_TELLS_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the HTTP side is made of."""

    settings: Settings
    control: ControlStore
    clock: OffsetClock
    zone: Zone
    inbox: Inbox
    relay: RelayService
    gateways: Gateways
    egress: Egress
    verifier: Verifier
    recheck: Recheck
    hasher: PasswordHashing
    issuer: TokenIssuer


def http_application(parts: Parts, dev: dict[str, Any], proxy_port: int) -> Mounts:
    """Return everything that HTTP serves: the vendors' APIs, identity, the sandbox calls, the page."""
    control, clock, settings = parts.control, parts.clock, parts.settings
    authenticator = Authenticator(control, clock)
    notifications = event_notifications.build(
        store=control,
        authenticator=authenticator,
        verifier=parts.verifier,
        hasher=parts.hasher,
        records=event_notifications.SmtpRecords(settings.relay.spf_host),
        history=parts.relay.store,
        egress_trail=parts.egress.audit.find,
        authorization=settings.relay.authorization,
        clock=clock,
        grace_s=settings.relay.recheck_grace_s,
        reach_s=settings.relay.queue_lifetime_s + settings.relay.hold_longest_s,
        keep_s=settings.relay.dkim_keep_s,
        ed25519=settings.relay.dkim_ed25519,
        endpoints=parts.relay.listeners.open_endpoints,
        probe=parts.relay.outbound.prober,
        default_routes=[each.name for each in settings.relay.routes] or ["direct"],
    )
    managed = cloud_manager.build(
        store=control.egress,
        places=control.places,
        grounds=_grounds(settings),
        infrastructures=control.infrastructures,
        authenticator=authenticator,
        changed=parts.egress.poke,
        shared_addresses=settings.egress.shared_addresses,
        dedicated_addresses=settings.egress.dedicated_addresses,
        vpn_address=settings.egress.vpn_address,
        terms=terms_of(settings.egress),
        http_proxy_port=proxy_port,
        account_of_key=lambda clear: (key := control.identity.find_api_key(clear)) and key.account_id,
        connectivity=parts.egress,
    )
    tokens = identity.build(store=control, tokens=parts.issuer, authenticator=authenticator, clock=clock)

    async def advance(seconds: float) -> float:
        now = clock.advance(seconds)
        await parts.relay.follow_access()
        await parts.relay.follow_logins()
        # What a look at a domain leads to decides what may be sent: so mail comes last.
        await parts.recheck.poke()
        await parts.relay.holds.look()
        await parts.relay.queue.poke()
        await parts.relay.retired_keys.look()
        await parts.egress.look()
        return now

    return Mounts(
        {
            "/event-notifications": notifications,
            "/context-based-restrictions": restrictions.build(store=control, authenticator=authenticator, clock=clock),
            "/cloud-manager": managed,
            "/iam": tokens,
            "/identity": _below("/identity", tokens),
            "/sandbox": sandbox_api.build(parts.zone, parts.inbox, advance, authenticator),
            "/operations/v1": operations.build(
                operators=parts.relay.operators,
                status=parts.relay.outbound.ways,
                egress=_egress_parts(parts),
                authenticator=authenticator,
                clock=clock,
                configured=lambda smtp_config_id: control.tenancy.instance_of(smtp_config_id) is not None,
                instanced=lambda instance_id: control.tenancy.instance(instance_id) is not None,
            ),
            "/vpc/v1": vpc.build(
                store=control,
                authenticator=authenticator,
                clock=clock,
                region=tenants.REGION,
                private_names=settings_module.compiled(settings.relay.endpoints).private_names(),
                networks_allowed=settings.relay.private_networks,
                changed=parts.gateways.poke,
            ),
        },
        views.build(_console_data(parts, dev)),
    )


def _grounds(settings: Settings) -> Grounds:
    """Return what new environments get; an address that traffic leaves from is no tunnel's."""
    egress = settings.egress
    return Grounds(
        tuple(egress.regions),
        ip_network(egress.tunnel_network, strict=False),
        tuple(egress.client_networks),
        frozenset({*egress.shared_addresses, *egress.dedicated_addresses, egress.vpn_address}),
    )


def _egress_parts(parts: Parts) -> operations.EgressParts:
    egress = parts.settings.egress
    return operations.EgressParts(
        store=parts.control,
        audit=parts.egress.audit,
        status=parts.egress.standing,
        proof=parts.egress.proof,
        changed=parts.egress.poke,
        shared_addresses=egress.shared_addresses,
        dedicated_addresses=egress.dedicated_addresses,
        vpn_address=egress.vpn_address,
        exceptions=egress.guard_exceptions,
    )


def _console_data(parts: Parts, dev: dict[str, Any]) -> views.ConsoleData:
    egress, history = parts.control.egress, parts.relay.store

    def message(queue_id: str) -> dict[str, Any] | None:
        record = history.message(queue_id)
        if record is None:
            return None
        carried = parts.egress.audit.find(record.client_address, record.client_port, record.received_at)
        return message_document(record, carried)

    loop = asyncio.get_running_loop()

    def networking() -> dict[str, Any]:
        place, found = (
            egress.environment(dev["program_id"], dev["environment_id"]),
            egress.networking(dev["environment_id"]),
        )
        forwards = () if found is None else found.port_forwards
        try:
            told = asyncio.run_coroutine_threadsafe(parts.egress.standing(), loop).result(_TELLS_WITHIN_S)
        except (OSError, TimeoutError):
            told = {"environments": []}
        return {
            "tunnelAddress": dev["tunnel_address"] if place is None else place.tunnel_address,
            "mode": "flexiblePortEgress" if found is None else found.mode.value,
            "reason": "" if found is None else found.reason,
            "portForwards": [
                {"name": each.name, "portOrig": each.port_orig, "portDest": each.port_dest} for each in forwards
            ],
            "rules": [
                rule
                for each in told["environments"]
                if each["environment"] == dev["environment_id"]
                for rule in each["rules"]
            ],
        }

    def variables() -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "value": each.value,
                "type": "secretString" if each.secret else "string",
                "service": each.service,
            }
            for each in egress.variables(dev["environment_id"])
        ]

    return views.ConsoleData(
        dev=lambda: dev,
        inbox=_NewestFirst(parts.inbox),
        messages=lambda: [summary_document(record) for record in history.messages(limit=50)[1]],
        message=message,
        variables=variables,
        networking=networking,
        clock_offset=lambda: parts.clock.offset,
    )


class _NewestFirst:
    """The inbox as the page wants it."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def items(self) -> list[dict[str, Any]]:
        return self._inbox.items()[::-1]

    def raw(self, item_id: str) -> bytes | None:
        return self._inbox.raw(item_id)


def _below(prefix: str, app: FastAPI) -> Callable[..., Awaitable[None]]:
    """Return `app` for mounting at one of its own prefixes: it sees the whole path again."""

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": scope.get("root_path", "").removesuffix(prefix)}
        await app(scope, receive, send)

    return whole
