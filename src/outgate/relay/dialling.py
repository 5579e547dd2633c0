"""From a route to an open connection: which of its hosts, from which address, under which TLS.

Standards: RFC 5321 section 5.1, RFC 8689 section 4.2.1 (REQUIRETLS).
Promises: hosts are tried in their order; what went wrong on the way is a step for the trail, never an exception.
Dangers: opportunistic TLS hides from listeners, not from impostors: who must be sure makes a demand.
Not here: where the hosts come from (`relay.routing`), what TLS must be (`relay.tls_rules`, `relay.tls_ways`), what
goes over the connection (`relay.sites`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.base.tasks import spawn
from outgate.model.flow import Host, Route
from outgate.net.tls import verified_context
from outgate.relay.tls_ways import TlsWays
from outgate.smtp.asyncio.client import ClientTimeouts, ConnectFailed, Connection, connect
from outgate.smtp.transaction import Step

_NO_TLS, _NO_REQUIRETLS = "5.7.10", "5.7.30"
"""RFC 8689 section 4.2.1: no TLS of the kind that the sender requires, no server that promises to go on with it."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Caps per site and connection; seconds for idle and reply."""

    connections_per_site: int = 20
    messages_per_connection: int = 1000
    idle: float = 30.0
    reply: float = 60.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that has said EHLO, and the host it leads to."""

    connection: Connection
    host: Host


@dataclass(frozen=True, slots=True)
class NoHost:
    """Why no host of a route took us: text, reason class, and the host tried last. `enhanced` is the code of a bounce
    if no later try can help: what the sender requires of TLS is not there."""

    text: str
    reason: str
    host: Host
    enhanced: str = ""


class Dialler:
    """Opens connections for all sites."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: DeliveryLimits,
        tls: ssl.SSLContext | None,
        verified: Callable[[], ssl.SSLContext] = verified_context,
    ) -> None:
        """`tls` is for connections with any certificate; None: STARTTLS is used where it is demanded only. `verified`
        makes the context of those whose certificate authorities must vouch for, when it is first needed."""
        self._clock = clock
        self._limits = limits
        self._ways = TlsWays(tls, verified, clock)

    async def open(self, route: Route, steps: list[Step]) -> Opened | NoHost:
        """Connect to the first host that takes us; return the connection, or why none did. `steps` gets what failed on
        the way."""
        errors: list[str] = []
        reason, codes = "network", set[str]()
        for host in route.hosts:
            where = f"{host.name or host.address} [{host.address}]:{host.port}"
            try:
                connection = await self._connect(host, route.ehlo_name, steps)
            except ConnectFailed as error:
                errors.append(f"{where}: {error}")
                reason = _reason(error)
                codes.add(_NO_TLS if reason == "tls" else "")
                continue
            if connection.closed:  # before it took anything: another host may do better
                errors.append(f"{where}: closed after EHLO")
                codes.add("")
                continue
            if route.requiretls and "REQUIRETLS" not in connection.extensions:
                steps.extend(connection.greeting_steps)
                spawn(connection.quit(), "quit")
                errors.append(f"{where}: REQUIRETLS is not offered, and the sender requires it")
                reason = "tls"
                codes.add(_NO_REQUIRETLS)
                continue
            return Opened(connection, host)
        enhanced = max(codes) if route.requiretls and "" not in codes else ""
        return NoHost("; ".join(errors), reason, route.hosts[-1], enhanced)

    async def _connect(self, host: Host, ehlo_name: str, steps: list[Step]) -> Connection:
        reply = self._limits.reply
        *others, last = self._ways.of(host)
        for way in (*others, last):
            try:
                connection = await connect(
                    host.address,
                    host.port,
                    ehlo_name=ehlo_name,
                    source=host.source,
                    tls=way.mode,
                    context=way.context,
                    server_name=way.server_name,
                    timeouts=ClientTimeouts(connect=min(30.0, reply), reply=reply),
                    clock=self._clock,
                )
                self._ways.check(way, connection)
            except ConnectFailed as error:
                steps.extend(error.steps)
                if error.stage != "tls" or error.injected:
                    raise
                if way is last:
                    raise self._ways.failed(way, host, error) from None
                # Opportunistic: a broken handshake must not keep mail from a server that takes it.
                steps.extend(self._ways.note(way, host, error))
            else:
                return connection
        raise AssertionError  # the last way returns or raises


def _reason(error: ConnectFailed) -> str:
    if error.stage == "tls":
        return "tls"
    return "timeout" if str(error).startswith("timeout") else "network"
