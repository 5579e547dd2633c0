"""The user-space engine: listeners and carriers put together, fed with rules, asked for figures.

Standards: none.
Promises: an environment's rules change as a whole or not at all, one change at a time; after `close` nothing listens,
    nothing is open, and every opened connection has its closing line.
Not here: what shall be in force (`plan`), statuses (`reconcile`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from outgate.egress.budget import Budget
from outgate.egress.forwarder import Forwarder, Live
from outgate.egress.listeners import Carrier, Listeners
from outgate.egress.listeners import ListenError as ListenError
from outgate.egress.plan import Forward, Proxy, Rule


@runtime_checkable
class Telling(Protocol):
    """A carrier that tells what goes on."""

    def live(self) -> list[Live]:
        """Return what goes on under each rule that has connections."""
        ...


class Engine:
    """Put rules into force. Lives on one event loop."""

    def __init__(self, forwarder: Forwarder, *, proxy: Carrier | None = None, keepalive_s: float = 60.0) -> None:
        """`proxy` carries `Proxy` rules; without one they cannot be applied."""
        self._forwarder = forwarder
        self._proxy = proxy
        self._listeners = Listeners(forwarder.pump.poller, self._carrier_of, keepalive_s=keepalive_s)
        self._applying = asyncio.Lock()

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules that are in force now."""
        return self._listeners.rules()

    def forwards(self) -> tuple[Forward, ...]:
        """Return the forwards among them."""
        return tuple(rule for rule in self.rules() if isinstance(rule, Forward))

    def connections(self, environment_id: str) -> int:
        """Return how many connections of an environment are open or being opened."""
        return self._forwarder.gate.open(environment_id)

    def live(self) -> list[Live]:
        """Return what goes on under each rule that has connections."""
        others = self._proxy.live() if isinstance(self._proxy, Telling) else []
        return self._forwarder.live() + others

    def leaves_from(self, addresses: Collection[str]) -> bool:
        """Tell whether anything goes on under a rule, in force or withdrawn, that leaves from one of `addresses`."""
        return any(not frozenset(addresses).isdisjoint(each.rule.way.sources) for each in self.live())

    def budget(self) -> list[Budget]:
        """Return how many source ports are taken, per source and target, the fullest first."""
        return self._forwarder.reach.budget()

    async def apply(self, environment_id: str, rules: Sequence[Rule]) -> None:
        """Put exactly `rules` into force for an environment; connections of withdrawn ones drain.

        Raises `ListenError`, with the old ones still in force, if one of the new ports cannot be had."""
        async with self._applying:
            await self._listeners.apply(environment_id, rules)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        async with self._applying:
            self._listeners.close()
            if self._proxy is not None:
                await self._proxy.close()
            await self._forwarder.close()
            self._forwarder.pump.close()
            self._forwarder.reach.close()
            self._forwarder.pump.poller.stop()

    def _carrier_of(self, rule: Rule) -> Carrier | None:
        return self._proxy if isinstance(rule, Proxy) else self._forwarder
