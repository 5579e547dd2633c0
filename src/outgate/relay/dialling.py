"""From a route to an open connection: which of its hosts, from which address, under which TLS.

Standards: RFC 5321 section 5.1, RFC 3207, RFC 7435 (opportunistic).
Promises: hosts are tried in their order; what went wrong on the way is a step for the trail, never an exception.
Dangers: opportunistic TLS hides from listeners, not from impostors: who must be sure makes a demand.
Not here: where the hosts come from (`relay.routing`), what goes over the connection (`relay.sites`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.model.flow import Host, Route, TlsLevel
from outgate.smtp.asyncio.client import ClientTimeouts, ConnectFailed, Connection, connect
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Caps per site and connection; seconds for idle and reply; after how many idle seconds a connection is asked
    whether it lives, and how many the answer may take; seconds for the reply to the final dot, and without progress
    while content is sent."""

    connections_per_site: int = 20
    messages_per_connection: int = 1000
    idle: float = 30.0
    reply: float = 60.0
    probe_after: float = 5.0
    probe: float = 5.0
    final: float = 600.0
    content: float = 180.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that has said EHLO, and the host it leads to."""

    connection: Connection
    host: Host


@dataclass(frozen=True, slots=True)
class NoHost:
    """Why no host of a route took us: text, reason class, the host tried last, and its reply if it gave one."""

    text: str
    reason: str
    host: Host
    reply: Reply | None = None


class Dialler:
    """Opens connections for all sites."""

    def __init__(self, *, clock: Clock, limits: DeliveryLimits, tls: ssl.SSLContext | None) -> None:
        """`tls` is for connections with any certificate; None: STARTTLS is never used."""
        self._clock = clock
        self._tls = tls
        self._timeouts = ClientTimeouts(
            connect=min(30.0, limits.reply),
            reply=limits.reply,
            final=limits.final,
            content=limits.content,
            probe=limits.probe,
        )

    async def open(self, route: Route, steps: list[Step]) -> Opened | NoHost:
        """Connect to the first host that takes us; return the connection, or why none did. `steps` gets what failed on
        the way."""
        errors: list[str] = []
        reason = "network"
        reply: Reply | None = None
        for host in route.hosts:
            try:
                connection = await self._connect(host, route.ehlo_name, steps)
            except ConnectFailed as error:
                errors.append(f"{host.name or host.address} [{host.address}]:{host.port}: {error}")
                reason = _reason(error)
                reply = error.reply
                continue
            if connection.closed:  # before it took anything: another host may do better
                errors.append(
                    f"{host.name or host.address} [{host.address}]:{host.port}: closed after EHLO: {connection.error}"
                )
                continue
            return Opened(connection, host)
        return NoHost("; ".join(errors), reason, route.hosts[-1], reply)

    async def _connect(self, host: Host, ehlo_name: str, steps: list[Step]) -> Connection:
        tls = "none" if self._tls is None or host.tls.level is TlsLevel.NONE else "opportunistic"
        while True:
            try:
                return await connect(
                    host.address,
                    host.port,
                    ehlo_name=ehlo_name,
                    source=host.source,
                    tls=tls,
                    context=self._tls,
                    server_name=host.name or None,
                    timeouts=self._timeouts,
                    clock=self._clock,
                )
            except ConnectFailed as error:
                steps.extend(error.steps)
                if error.stage != "tls" or tls == "none":
                    raise
                tls = "none"  # opportunistic: a broken handshake must not keep mail from a server that takes it


def _reason(error: ConnectFailed) -> str:
    if error.stage == "tls":
        return "tls"
    return "timeout" if str(error).startswith("timeout") else "network"
