"""How a demand on TLS is held to when a connection is made: which modes to try, and what a handshake must show.

Standards: RFC 3207, RFC 7435 (opportunistic), RFC 7672 section 3 (DANE), RFC 8461 section 4, RFC 6125 (names).
Promises: before a connection is handed on, its handshake has shown what was demanded; what mode "testing" would have
refused is tried first, noted, and goes all the same; a demand that is not met names who made it and what they must
mend.
Dangers: a server that spoke between its 220 and the handshake gets no mail in clear either: someone is in between.
Not here: who demands what (`relay.tls_rules`), the order of hosts (`relay.dialling`).
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from outgate.base.clock import Clock, SystemClock
from outgate.base.log import Log
from outgate.domains import dane
from outgate.model.flow import Host, TlsDemand, TlsLevel
from outgate.net.tls import has_name, opportunistic_context
from outgate.smtp.connecting import ConnectFailed, TlsMode
from outgate.smtp.transaction import Step

_log = Log("outgate.tls")
_CONTEXTS = 64
_MACHINE = SystemClock()
"""Certificates are valid by the machine's time, here as for OpenSSL."""
CHAINS = hasattr(ssl.SSLObject, "get_unverified_chain")
"""Whether Python tells the chain that a server shows (from 3.13): without it DANE-TA(2) records are unusable."""


@dataclass(frozen=True, slots=True)
class Way:
    """One try: the mode, the context if there is TLS, the name for SNI and for the context's check, and what is
    looked at after the handshake (it returns "" or what is wrong). `testing` is who would like it to succeed."""

    mode: TlsMode
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    testing: str = ""
    check: Callable[[ssl.SSLObject], str] | None = None


class TlsWays:
    """Ways for all hosts. A verifying context is made when it is first needed."""

    def __init__(
        self, opportunistic: ssl.SSLContext | None, verified: Callable[[str], ssl.SSLContext], clock: Clock
    ) -> None:
        """`opportunistic` takes any certificate; None: STARTTLS is used where it is demanded only. `verified` makes a
        context that checks chain and name, by authorities (PEM; "": the usual ones)."""
        self._opportunistic = opportunistic
        self._verified = verified
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._clock = clock

    async def of(self, host: Host) -> list[Way]:
        """Return the ways to a host, in the order to try them: never none. The last one decides. Raises
        `ConnectFailed` (stage "tls") if the authorities that are to be trusted cannot be read."""
        any_certificate, demand = self._opportunistic, host.tls
        if demand.level is TlsLevel.NONE or (any_certificate is None and demand.level is TlsLevel.OPPORTUNISTIC):
            return [Way("none")]
        name = (demand.names[0] if demand.names else host.name) or None
        always: TlsMode = "implicit" if host.implicit else "required"
        if demand.level is TlsLevel.VERIFIED:
            return [await self._strict(always, name, demand)]
        ways = [await self._strict(always, host.name or None, demand)] if demand.testing else []
        if demand.level is TlsLevel.OPPORTUNISTIC:
            return [*ways, Way("opportunistic", any_certificate, name), Way("none")]
        check = functools.partial(_mismatch, demand) if demand.level is TlsLevel.DANE else None
        return [*ways, Way(always, any_certificate or opportunistic_context(), name, check=check)]

    async def _strict(self, mode: TlsMode, name: str | None, demand: TlsDemand) -> Way:
        several = len(demand.names) > 1 and not demand.testing
        try:
            context = await self._verifying(demand.authorities, names_too=not several)
        except (OSError, ValueError) as error:
            raise ConnectFailed("tls", f"the authorities that are trusted cannot be read: {error}") from None
        check = functools.partial(has_name, names=demand.names) if several else None
        return Way(mode, context, name, demand.testing, check)

    async def _verifying(self, authorities: str, *, names_too: bool) -> ssl.SSLContext:
        context = self._contexts.get((authorities, names_too))
        if context is None:
            # Reading the system's authorities takes a while.
            context = await asyncio.to_thread(self._verified, authorities)
            context.check_hostname = names_too
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            self._contexts[authorities, names_too] = context
        return context

    def failed(self, way: Way, host: Host, error: ConnectFailed) -> ConnectFailed:
        """Return the failure of the last way, in words that say whose demand was not met and what would mend it."""
        name = host.name or host.address
        if way.mode != "required":
            return error
        demand = host.tls
        mend = (
            f"{name} must show a certificate that its TLSA records match, or their publisher mend them"
            if demand.level is TlsLevel.DANE
            else f"{name} must offer STARTTLS"
            if demand.level is TlsLevel.ENCRYPTED
            else f"{name} must offer STARTTLS with a valid certificate for {way.server_name or host.address}"
        )
        text = f"{demand.why or 'the route'} demands {_words(demand)}: {error}. {mend}"
        return ConnectFailed("tls", text, error.reply, error.steps, certificate=error.certificate)

    def note(self, way: Way, host: Host, error: ConnectFailed) -> tuple[Step, ...]:
        """Write down what mode "testing" would have refused; other ways that failed speak for themselves."""
        if not way.testing:
            return ()
        result = "certificate" if error.certificate else "TLS"
        _log.warning("tls.testing_failed", asked_by=way.testing, host=host.name, result=result, error=str(error)[:300])
        return (Step(self._clock.now(), f"go on: {way.testing} only asks to be told", str(error)[:300]),)


def _words(demand: TlsDemand) -> str:
    if demand.level is TlsLevel.DANE:
        return "a certificate that TLSA records match"
    return "TLS" if demand.level is TlsLevel.ENCRYPTED else "TLS with a verified certificate"


def _mismatch(demand: TlsDemand, shown: ssl.SSLObject) -> str:
    return dane.mismatch(demand.tlsa, _chain(shown), demand.names, _MACHINE.now())


def _chain(shown: ssl.SSLObject) -> list[bytes]:
    """Return the certificates a server showed (DER), its own first: that alone where Python tells no more."""
    tell = cast("Callable[[], list[bytes]] | None", getattr(shown, "get_unverified_chain", None))
    if tell is not None:
        return list(tell())
    own = shown.getpeercert(True)
    return [] if own is None else [own]
