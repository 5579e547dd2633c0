"""Try a route without a message: connect, EHLO, TLS, AUTH, QUIT, and say how each went.

Standards: RFC 5321 section 3.1 (a session without a transaction).
Promises: what is tried is what a message would take, from the same address under the same demands; it has an end; it
changes nobody's health.
Not here: which route messages take (`relay.transports`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from outgate.base.clock import Clock
from outgate.relay.dialling import Dialler, Opened
from outgate.relay.routing import Unroutable
from outgate.relay.transports import Transports
from outgate.smtp.transaction import Step

_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Probed:
    """How a try went: `reason` is "" if a server took us, else a class word, and `text` says why."""

    route: str
    site: str
    reason: str
    text: str
    tls: str
    steps: tuple[Step, ...]


class Prober:
    """Tries routes."""

    def __init__(self, transports: Transports, dialler: Dialler, clock: Clock, *, seconds: float = _SECONDS) -> None:
        """A try ends after so many `seconds`."""
        self._transports = transports
        self._dialler = dialler
        self._clock = clock
        self._seconds = seconds

    async def probe(self, instance_id: str, smtp_config_id: str, name: str, domain: str) -> Probed:
        """Try a configuration's route as for mail to `domain`, which matters to the direct one only.

        Raises `LookupError` if the configuration has no such route."""
        try:
            route = await self._transports.made(instance_id, smtp_config_id, name, domain)
        except Unroutable as error:
            return Probed(name, "", error.reason, str(error), "", ())
        steps: list[Step] = []
        try:
            async with asyncio.timeout(self._seconds):
                opened = await self._dialler.open(route, steps)
                if isinstance(opened, Opened):
                    return await self._leave(name, route.site, opened, steps)
        except TimeoutError:
            text = f"not done within {self._seconds:g} s"
            return Probed(name, route.site, "timeout", text, "", tuple(steps))
        return Probed(name, route.site, opened.reason, opened.text, "", tuple(steps))

    async def _leave(self, name: str, site: str, opened: Opened, steps: list[Step]) -> Probed:
        connection = opened.connection
        steps.extend(connection.greeting_steps)
        await connection.quit()
        steps.append(Step(self._clock.now(), "QUIT", "closed"))
        return Probed(name, site, "", "the server took us", connection.tls, tuple(steps))
