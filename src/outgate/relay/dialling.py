"""From a route to an open connection: which of its hosts, from which address, under which TLS, with which login.

Standards: RFC 5321 section 5.1, RFC 3207, RFC 7435 (opportunistic), RFC 4954 (AUTH), RFC 8305 (a second address is
tried beside one that does not answer).
Promises: hosts are tried in their order, and what is preferred less only when all that is preferred more has failed; a
family that leads nowhere costs a quarter of a second, not a time-out; what went wrong on the way is a step for the
trail, never an exception; an address that is suspended is not left from.
Dangers: opportunistic TLS hides from listeners, not from impostors: who must be sure makes a demand.
Not here: where hosts come from (`relay.routing`, `relay.transports`), what goes over the connection (`relay.sites`).
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.model.flow import Host, Route, TlsLevel
from outgate.net.tls import has_name, opportunistic_context, verified_context
from outgate.relay.sources import Sources
from outgate.smtp.asyncio.client import Check, ClientTimeouts, ConnectFailed, Connection, TlsMode, connect, dial
from outgate.smtp.transaction import Step

_BESIDE_S = 0.25
"""RFC 8305 section 5: how long an address may take before the next one is tried beside it."""
_CONTEXTS = 64
_REASONS = {"tls": "tls", "auth": "auth", "source": "source", "loop": "loop"}


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Caps per site and connection; seconds for idle and reply."""

    connections_per_site: int = 20
    messages_per_connection: int = 1000
    idle: float = 30.0
    reply: float = 60.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that has said EHLO, and logged in if it has to, and the host it leads to."""

    connection: Connection
    host: Host


@dataclass(frozen=True, slots=True)
class NoHost:
    """Why no host of a route took us: text, reason class, and the host tried last."""

    text: str
    reason: str
    host: Host


@dataclass(frozen=True, slots=True)
class Terms:
    """What a demand means for a handshake. `or_clear`: if it fails, the mail may go without TLS."""

    mode: TlsMode
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    check: Check | None = None
    or_clear: bool = False


class Dialler:
    """Opens connections for all sites."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: DeliveryLimits,
        tls: ssl.SSLContext | None,
        sources: Sources | None = None,
        own_names: frozenset[str] = frozenset(),
        beside_s: float = _BESIDE_S,
    ) -> None:
        """`tls` is for connections with any certificate; None: STARTTLS is used only where it is demanded. Who greets
        with one of `own_names` is ourselves."""
        self._clock = clock
        self._limits = limits
        self._tls = tls
        self._sources = sources
        self._own = own_names
        self._beside_s = beside_s
        self._verified: dict[tuple[str, bool], ssl.SSLContext] = {}

    async def open(self, route: Route, steps: list[Step]) -> Opened | NoHost:
        """Connect to the first host that takes us; return the connection, or why none did. `steps` gets what failed on
        the way."""
        failures: list[tuple[Host, str, str]] = []
        left = list(route.hosts)
        while left:
            beside = _alternating([host for host in left if host.preference == left[0].preference])
            found = await self._reach(beside, steps, failures)
            if found is None:
                left = [host for host in left if host not in beside]
                continue
            host, sock = found
            gone = {id(failed) for failed, _, _ in failures} | {id(host)}
            left = [other for other in left if id(other) not in gone]
            try:
                connection = await self._converse(host, sock, route.ehlo_name, steps)
            except ConnectFailed as error:
                failures.append((host, str(error), _reason(error)))
                continue
            if connection.closed:  # before it took anything: another host may do better
                failures.append((host, "closed after EHLO", "network"))
                continue
            return Opened(connection, host)
        text = "; ".join(f"{_named(host)}: {text}" for host, text, _ in failures)
        return NoHost(text, failures[-1][2], failures[-1][0])

    # -- a socket ---------------------------------------------------------------------------------------------

    async def _reach(
        self, hosts: Sequence[Host], steps: list[Step], failures: list[tuple[Host, str, str]]
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
        self, host: Host, steps: list[Step], failures: list[tuple[Host, str, str]]
    ) -> tuple[Host, socket.socket] | None:
        try:
            return host, await self._dial(host)
        except ConnectFailed as error:
            steps.extend(error.steps)
            failures.append((host, str(error), _reason(error)))
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

    @property
    def _timeouts(self) -> ClientTimeouts:
        reply = self._limits.reply
        return ClientTimeouts(connect=min(30.0, reply), reply=reply)

    async def _converse(self, host: Host, sock: socket.socket, ehlo_name: str, steps: list[Step]) -> Connection:
        try:
            terms = await self.terms(host)
        except BaseException:
            sock.close()
            raise
        while True:
            try:
                return await connect(
                    host.address,
                    host.port,
                    ehlo_name=ehlo_name,
                    source=host.source,
                    tls=terms.mode,
                    context=terms.context,
                    server_name=terms.server_name,
                    timeouts=self._timeouts,
                    clock=self._clock,
                    sock=sock,
                    check=terms.check,
                    login=None if host.login is None else (host.login.username, host.login.password),
                    own_names=self._own,
                )
            except ConnectFailed as error:
                steps.extend(error.steps)
                if error.stage != "tls" or not terms.or_clear:
                    raise
                terms = Terms("none")  # a broken handshake must not keep mail from a server that takes it
            try:
                sock = await self._dial(host)
            except ConnectFailed as error:
                steps.extend(error.steps)
                raise

    async def terms(self, host: Host) -> Terms:
        """Return what the demand on a host means. Raises `ConnectFailed` (stage "tls") for one that cannot be kept."""
        demand, name = host.tls, host.name or None
        always: TlsMode = "implicit" if host.implicit else "required"
        if demand.level is TlsLevel.NONE:
            return Terms("none")
        if demand.level is TlsLevel.OPPORTUNISTIC:
            return Terms("none") if self._tls is None else Terms("opportunistic", self._tls, name, or_clear=True)
        if demand.level is TlsLevel.ENCRYPTED:
            return Terms(always, self._tls or opportunistic_context(), name)
        if demand.level is not TlsLevel.VERIFIED:
            raise ConnectFailed("tls", f"TLS of level {demand.level.value} cannot be had here")
        one = len(demand.names) <= 1
        try:
            context = await self._verifying(demand.authorities, names_too=one)
        except (OSError, ValueError) as error:
            raise ConnectFailed("tls", f"the authorities that are trusted cannot be read: {error}") from None
        if one:
            return Terms(always, context, demand.names[0] if demand.names else name)
        return Terms(always, context, name, functools.partial(has_name, names=demand.names))

    async def _verifying(self, authorities: str, *, names_too: bool) -> ssl.SSLContext:
        context = self._verified.get((authorities, names_too))
        if context is None:
            # Reading the system's authorities takes a while.
            context = await asyncio.to_thread(verified_context, authorities=authorities)
            context.check_hostname = names_too
            if len(self._verified) >= _CONTEXTS:
                self._verified.clear()
            self._verified[authorities, names_too] = context
        return context


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
