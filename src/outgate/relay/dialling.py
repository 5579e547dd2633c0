"""From a route to an open connection: which of its hosts, from which address, under which TLS, with which login.

Standards: RFC 5321 section 5.1, RFC 3207, RFC 4954 (AUTH), RFC 8305 (a second address is tried beside one that does not
answer), RFC 8689 section 4.2.1 (REQUIRETLS).
Promises: hosts are tried in their order, and what is preferred less only when all that is preferred more has failed; a
family that leads nowhere costs a quarter of a second, not a time-out; what went wrong on the way is a step for the
trail, never an exception; an address that is suspended is not left from.
Dangers: opportunistic TLS hides from listeners, not from impostors: who must be sure makes a demand.
Not here: where hosts come from (`relay.routing`, `relay.transports`), what TLS must be (`relay.tls_rules`,
`relay.tls_ways`), what goes over the connection (`relay.sites`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.base.tasks import spawn
from outgate.model.flow import Host, Route
from outgate.net.tls import verified_context
from outgate.relay.sources import Sources
from outgate.relay.tls_ways import TlsWays
from outgate.smtp.asyncio.client import ClientTimeouts, ConnectFailed, Connection, connect, dial
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step

_BESIDE_S = 0.25
"""RFC 8305 section 5: how long an address may take before the next one is tried beside it."""
_REASONS = {"tls": "tls", "auth": "login", "source": "source", "loop": "loop"}
_NO_TLS, _NO_REQUIRETLS = "5.7.10", "5.7.30"
"""RFC 8689 section 4.2.1: no TLS of the kind that the sender requires, no server that promises to go on with it."""


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
    """A connection that has said EHLO, and logged in if it has to, and the host it leads to."""

    connection: Connection
    host: Host


@dataclass(frozen=True, slots=True)
class NoHost:
    """Why no host of a route took us: text, reason class, the host tried last, and its reply if it gave one. `enhanced`
    is the code of a bounce if no later try can help: what the sender requires of TLS is not there."""

    text: str
    reason: str
    host: Host
    reply: Reply | None = None
    enhanced: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    """One host that did not take us."""

    host: Host
    text: str
    reason: str
    reply: Reply | None = None


class Dialler:
    """Opens connections for all sites."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: DeliveryLimits,
        tls: ssl.SSLContext | None,
        verified: Callable[[str], ssl.SSLContext] = lambda authorities: verified_context(authorities=authorities),
        sources: Sources | None = None,
        own_names: frozenset[str] = frozenset(),
        beside_s: float = _BESIDE_S,
    ) -> None:
        """`tls` is for connections with any certificate; None: STARTTLS is used only where it is demanded. `verified`
        makes the context of those whose certificate authorities (PEM; "": the usual ones) must vouch for, when it is
        first needed. Who greets with one of `own_names` is ourselves."""
        self._clock = clock
        self._timeouts = ClientTimeouts(
            connect=min(30.0, limits.reply),
            reply=limits.reply,
            final=limits.final,
            content=limits.content,
            probe=limits.probe,
        )
        self._ways = TlsWays(tls, verified, clock)
        self._sources = sources
        self._own = own_names
        self._beside_s = beside_s

    async def open(self, route: Route, steps: list[Step]) -> Opened | NoHost:
        """Connect to the first host that takes us; return the connection, or why none did. `steps` gets what failed on
        the way."""
        failures: list[_Failure] = []
        left = list(route.hosts)
        while left:
            beside = _alternating([host for host in left if host.preference == left[0].preference])
            found = await self._reach(beside, steps, failures)
            if found is None:
                left = [host for host in left if host not in beside]
                continue
            host, sock = found
            gone = {id(failed.host) for failed in failures} | {id(host)}
            left = [other for other in left if id(other) not in gone]
            try:
                connection = await self._converse(host, sock, route.ehlo_name, steps)
            except ConnectFailed as error:
                failures.append(_Failure(host, str(error), _reason(error), error.reply))
                continue
            if connection.closed:  # before it took anything: another host may do better
                failures.append(_Failure(host, f"closed after EHLO: {connection.error}", "network"))
                continue
            if route.requiretls and "REQUIRETLS" not in connection.extensions:
                steps.extend(connection.greeting_steps)
                spawn(connection.quit(), "quit")
                text = "REQUIRETLS is not offered, and the sender requires it"
                failures.append(_Failure(host, text, _NO_REQUIRETLS))
                continue
            return Opened(connection, host)
        return _nowhere(route, failures)

    # -- a socket ---------------------------------------------------------------------------------------------

    async def _reach(
        self, hosts: Sequence[Host], steps: list[Step], failures: list[_Failure]
    ) -> tuple[Host, socket.socket] | None:
        """Return the first of `hosts` that answers, and a socket to it: each is tried when the one before has failed,
        or has said nothing for a while."""
        if len(hosts) == 1:
            return await self._reach_one(hosts[0], steps, failures)
        waiting = deque(hosts)
        under_way: dict[asyncio.Task[tuple[Host, socket.socket] | None], Host] = {}
        try:
            while waiting or under_way:
                if waiting:
                    host = waiting.popleft()
                    task = asyncio.ensure_future(self._reach_one(host, steps, failures))
                    under_way[task] = host
                done, _ = await asyncio.wait(
                    under_way, timeout=self._beside_s if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                reached = [found for task in done if (found := task.result()) is not None]
                for task in done:
                    del under_way[task]
                for _, late in reached[1:]:
                    late.close()
                if reached:
                    first = reached[0][0]
                    for host in under_way.values():
                        text = f"no answer yet when {first.address} answered"
                        steps.append(Step(self._clock.now(), _connecting(host), text))
                    return reached[0]
            return None
        finally:
            await _abandon(list(under_way))

    async def _reach_one(
        self, host: Host, steps: list[Step], failures: list[_Failure]
    ) -> tuple[Host, socket.socket] | None:
        try:
            return host, await self._dial(host)
        except ConnectFailed as error:
            steps.extend(error.steps)
            failures.append(_Failure(host, str(error), _reason(error), error.reply))
            return None

    async def _dial(self, host: Host) -> socket.socket:
        if host.source is not None and self._sources is not None:
            suspended = self._sources.suspended(host.source)
            if suspended:
                text = f"{host.source} is suspended: {suspended}"
                raise ConnectFailed("source", text, None, (Step(self._clock.now(), _connecting(host), text),))
        try:
            return await dial(host.address, host.port, host.source, self._timeouts.connect, self._clock)
        except ConnectFailed as error:
            if error.stage == "source" and host.source is not None and self._sources is not None:
                self._sources.lost(host.source, str(error))
            raise

    # -- a session --------------------------------------------------------------------------------------------

    async def _converse(self, host: Host, sock: socket.socket, ehlo_name: str, steps: list[Step]) -> Connection:
        try:
            *others, last = await self._ways.of(host)
        except BaseException:
            sock.close()
            raise
        for way in (*others, last):
            try:
                return await connect(
                    host.address,
                    host.port,
                    ehlo_name=ehlo_name,
                    source=host.source,
                    tls=way.mode,
                    context=way.context,
                    server_name=way.server_name,
                    timeouts=self._timeouts,
                    clock=self._clock,
                    sock=sock,
                    check=way.check,
                    login=None if host.login is None else (host.login.username, host.login.password),
                    own_names=self._own,
                )
            except ConnectFailed as error:
                steps.extend(error.steps)
                if error.stage != "tls" or error.injected:
                    raise
                if way is last:
                    raise self._ways.failed(way, host, error) from None
                # Opportunistic: a broken handshake must not keep mail from a server that takes it.
                steps.extend(self._ways.note(way, host, error))
            try:
                sock = await self._dial(host)
            except ConnectFailed as error:
                steps.extend(error.steps)
                raise
        raise AssertionError  # the last way returns or raises


def _nowhere(route: Route, failures: Sequence[_Failure]) -> NoHost:
    """Return why no host took us; for good if what the sender requires of TLS is nowhere to be had."""
    codes = {_NO_TLS if each.reason == "tls" else each.reason for each in failures}
    codes = {code if code in (_NO_TLS, _NO_REQUIRETLS) else "" for code in codes}
    last = failures[-1]
    return NoHost(
        "; ".join(f"{_named(each.host)}: {each.text}" for each in failures),
        "tls" if last.reason == _NO_REQUIRETLS else last.reason,
        last.host,
        last.reply,
        max(codes) if route.requiretls and "" not in codes else "",
    )


def _alternating(hosts: Sequence[Host]) -> list[Host]:
    """Return hosts in their order, but with the families in turn as long as there are both (RFC 8305 section 4)."""
    if len(hosts) < 2:
        return list(hosts)
    first = ":" in hosts[0].address
    same = deque(host for host in hosts if (":" in host.address) == first)
    other = deque(host for host in hosts if (":" in host.address) != first)
    found: list[Host] = []
    while same or other:
        if same:
            found.append(same.popleft())
        if other:
            found.append(other.popleft())
    return found


async def _abandon(tasks: list[asyncio.Task[tuple[Host, socket.socket] | None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        # One may have been connected just before it was told to stop.
        if not task.cancelled() and task.exception() is None and (found := task.result()) is not None:
            found[1].close()


def _named(host: Host) -> str:
    return f"{host.name or host.address} [{host.address}]:{host.port}"


def _connecting(host: Host) -> str:
    return f"connect to {host.address}:{host.port}" + (f" from {host.source}" if host.source else "")


def _reason(error: ConnectFailed) -> str:
    if error.stage in _REASONS:
        return _REASONS[error.stage]
    if error.reply is not None and error.reply.code == 421:
        return "unavailable"
    return "timeout" if str(error).startswith("timeout") else "network"
