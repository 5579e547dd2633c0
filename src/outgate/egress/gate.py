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
from ipaddress import IPv4Network, IPv6Network, ip_address

from outgate.base import addresses
from outgate.base.log import Log
from outgate.egress.plan import Rule
from outgate.egress.refusal import Refused

_log = Log("outgate.egress")
# An alert is over once so much less is open, or it would come again with each connection.
_RECOVERED = 0.9


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
        self._proxied: Counter[str] = Counter()
        self._alerted: set[str] = set()

    def open(self, environment_id: str) -> int:
        """Return how many connections of an environment are open or being opened."""
        return self._open[environment_id]

    def proxied(self, environment_id: str) -> int:
        """Return how many clients of an environment's proxy are connected."""
        return self._proxied[environment_id]

    def admit(self, rule: Rule, client: str) -> None:
        """Let a client address in or raise `Refused`."""
        refusal = _refusal(rule.client_networks, client)
        if refusal:
            raise Refused("client-network", refusal)

    def enter(self, environment_id: str) -> None:
        """Take a place, to be given back by `leave`; raise `Refused` if all are taken."""
        most = self._limits.connections_per_environment
        now = self._open[environment_id]
        if now >= most:
            raise Refused("limit", f"the environment has {most} connections open")
        self._open[environment_id] = now = now + 1
        if now >= self._limits.connections_alert and environment_id not in self._alerted:
            self._alerted.add(environment_id)
            _log.warning("egress.many_connections", environment=environment_id, open=now, most=most)

    def leave(self, environment_id: str) -> None:
        """Give a place back."""
        self._open[environment_id] = now = self._open[environment_id] - 1
        if environment_id in self._alerted and now < self._limits.connections_alert * _RECOVERED:
            self._alerted.discard(environment_id)
            _log.info("egress.fewer_connections", environment=environment_id, open=now)
        if not now:
            del self._open[environment_id]

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


@functools.lru_cache(maxsize=16_384)
def _refusal(networks: tuple[str, ...], client: str) -> str:
    """Return why a client is not let in, or "". Applications come again from the same few addresses."""
    try:
        address = ip_address(client)
    except ValueError as error:
        return str(error)
    if any(address in network for network in _networks(networks)):
        return ""
    return f"{address} is in no client network of the environment"


@functools.lru_cache(maxsize=4096)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(addresses.network(text) for text in texts)
