"""Who may connect, and how many at once.

Standards: none.
Promises: default deny: an environment without client networks serves nobody; a place is given back exactly once.
Dangers: each client of the proxy takes a place among the proxy's, whatever it does; only what it opens to ports other
    than 80 and 443 takes one among the environment's connections as well.
Not here: whereto (`reach`), the lines about it (`ledger`).
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from outgate.base.log import Log
from outgate.egress.plan import Rule
from outgate.egress.refusal import Refused

_log = Log("outgate.egress")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one environment may have open, and how long things may take (seconds)."""

    connections_per_environment: int = 1000
    connections_alert: int = 750
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    drain_s: float = 60.0
    proxy_connections_per_environment: int = 4000


class Gate:
    """Judge new connections by what is known at once. Lives on one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._alerted: set[str] = set()
        self._proxied: Counter[str] = Counter()

    def open(self, environment_id: str) -> int:
        """Return how many connections of an environment are open or being opened."""
        return self._open[environment_id]

    def admit(self, rule: Rule, client: str) -> None:
        """Let a client address in or raise `Refused`."""
        try:
            address = ip_address(client)
        except ValueError as error:
            raise Refused("client-network", str(error)) from None
        if not any(address in network for network in _networks(rule.client_networks)):
            raise Refused("client-network", f"{address} is in no client network of the environment")

    def enter(self, environment_id: str) -> None:
        """Take a place, to be given back by `leave`; raise `Refused` if all are taken."""
        most = self._limits.connections_per_environment
        if self._open[environment_id] >= most:
            raise Refused("limit", f"the environment has {most} connections open")
        self._open[environment_id] += 1
        if self._open[environment_id] == self._limits.connections_alert and environment_id not in self._alerted:
            self._alerted.add(environment_id)
            _log.warning(
                "egress.many_connections", environment=environment_id, open=self._open[environment_id], most=most
            )

    def leave(self, environment_id: str) -> None:
        """Give a place back."""
        self._open[environment_id] -= 1
        if self._open[environment_id] < self._limits.connections_alert:
            self._alerted.discard(environment_id)
        if not self._open[environment_id]:
            del self._open[environment_id]

    def proxied(self, environment_id: str) -> int:
        """Return how many clients of an environment's proxy are connected."""
        return self._proxied[environment_id]

    def enter_proxy(self, environment_id: str) -> None:
        """Take a place among the clients of the proxy, to be given back by `leave_proxy`, or raise `Refused`."""
        most = self._limits.proxy_connections_per_environment
        if self._proxied[environment_id] >= most:
            raise Refused("limit", f"the environment's proxy has {most} clients connected")
        self._proxied[environment_id] += 1

    def leave_proxy(self, environment_id: str) -> None:
        """Give that place back."""
        self._proxied[environment_id] -= 1
        if not self._proxied[environment_id]:
            del self._proxied[environment_id]


@functools.lru_cache(maxsize=4096)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)
