"""Where a recipient domain's mail goes: its MX hosts, or the one host that a setting names.

Standards: RFC 5321 section 5.1 (MX, implicit MX, loops), RFC 7505 (null MX).
Promises: hosts come in order of preference, equals in random order; an address the guard refuses is never
tried; a look-up that fails for now is a deferral, a domain that cannot take mail a bounce.
Dangers: DNS is told by strangers: the number of hosts and addresses is capped.
Not here: connecting (`relay.delivery`), caching (`net.dns`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Protocol

from outgate.model.flow import Host, Route
from outgate.net.dns import AddressAnswer, Exchange, ExchangeAnswer
from outgate.relay.endpoints import Endpoint

_MX_HOSTS = 10
_ADDRESSES = 20


class Names(Protocol):
    """The look-ups that routing needs (`net.dns`)."""

    async def exchanges(self, domain: str) -> ExchangeAnswer: ...

    async def hosts(self, name: str) -> AddressAnswer: ...


class Unroutable(Exception):
    """No route. `permanent` says whether trying later is of use; `reason` is a class word."""

    def __init__(self, text: str, *, permanent: bool, reason: str, enhanced: str = "") -> None:
        super().__init__(text)
        self.permanent = permanent
        self.reason = reason
        self.enhanced = enhanced


class Router:
    """Find the route of a domain, from one endpoint."""

    def __init__(
        self,
        names: Names,
        *,
        port: int,
        endpoint: Endpoint,
        deliver_to: str,
        own_names: Iterable[str],
        permitted: Callable[[str, str], bool],
    ) -> None:
        """Mail leaves from the outgoing addresses of `endpoint`: the first of each family is used, and a host of a
        family that has none is not tried. `deliver_to` is `address:port` for all mail, or ""; `permitted` judges
        (name, address) before use."""
        self._names = names
        self._port = port
        self._endpoint = endpoint
        self._sources = {(":" in address): address for address in reversed(endpoint.outgoing_addresses)}
        self._own = frozenset(name.lower().removesuffix(".") for name in own_names)
        self._permitted = permitted
        self._fixed = self._smart_host(deliver_to) if deliver_to else None

    @property
    def fixed(self) -> Route | None:
        """Return the one route of all mail if a setting gives it."""
        return self._fixed

    def _smart_host(self, deliver_to: str) -> Route:
        host, _, port = deliver_to.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"deliver_to is `address:port`, not {deliver_to!r}")
        address = host.strip("[]")
        if not self._reachable(address):
            owner = self._endpoint.id
            raise ValueError(f"deliver_to {deliver_to!r} is of a family that no outgoing address of {owner} is of")
        return self._leaving(deliver_to, (self._host("", address, int(port)),), "setting deliver_to")

    def _leaving(self, site: str, hosts: tuple[Host, ...], reason: str) -> Route:
        return Route(site, hosts, reason, self._endpoint.id, self._endpoint.ehlo_name)

    def _reachable(self, address: str) -> bool:
        return (":" in address) in self._sources

    def _host(self, name: str, address: str, port: int) -> Host:
        return Host(name, address, port, self._sources.get(":" in address))

    async def route(self, domain: str) -> Route:
        """Return where to deliver mail for `domain` (A-labels). Raises `Unroutable`."""
        if self._fixed is not None:
            return self._fixed
        answer = await self._names.exchanges(domain)
        if answer.status == "nxdomain":
            raise Unroutable(f"{domain} does not exist", permanent=True, reason="bad-domain", enhanced="5.1.2")
        if answer.status not in ("ok", "nodata"):
            raise Unroutable(f"MX of {domain}: {answer.status}", permanent=False, reason="dns")
        exchanges = list(answer.exchanges)
        if any(not exchange.host for exchange in exchanges):
            raise Unroutable(f"{domain} takes no mail (null MX)", permanent=True, reason="no-mail", enhanced="5.1.10")
        implicit = not exchanges
        if implicit:
            exchanges = [Exchange(0, domain)]
        exchanges = self._before_us(domain, exchanges)
        random.shuffle(exchanges)
        exchanges.sort(key=lambda exchange: exchange.preference)
        hosts = await self._hosts(domain, exchanges[:_MX_HOSTS])
        site = ",".join(sorted(exchange.host for exchange in exchanges))
        reason = "implicit MX" if implicit else "MX " + ", ".join(f"{e.preference} {e.host}" for e in exchanges)
        return self._leaving(site, tuple(hosts), reason)

    def _before_us(self, domain: str, exchanges: list[Exchange]) -> list[Exchange]:
        """Drop ourselves and every host that is no better (RFC 5321 section 5.1): mail must not loop."""
        ours = [exchange.preference for exchange in exchanges if exchange.host in self._own]
        if not ours:
            return exchanges
        better = [exchange for exchange in exchanges if exchange.preference < min(ours)]
        if not better:
            raise Unroutable(f"mail for {domain} loops back to us", permanent=True, reason="loop", enhanced="5.4.6")
        return better

    async def _hosts(self, domain: str, exchanges: list[Exchange]) -> list[Host]:
        """Return the hosts to try, never none. Raises `Unroutable`: for good if DNS says that there is none."""
        hosts: list[Host] = []
        unknown = refused = False
        for exchange in exchanges:
            answer = await self._names.hosts(exchange.host)
            unknown |= answer.status not in ("ok", "nodata")
            for address in answer.addresses:
                if not self._permitted(exchange.host, address) or not self._reachable(address):
                    refused = True
                elif len(hosts) < _ADDRESSES:
                    hosts.append(self._host(exchange.host, address, self._port))
        if hosts:
            return hosts
        if unknown or refused:
            raise Unroutable(f"no mail host of {domain} has a usable address", permanent=False, reason="dns")
        raise Unroutable(
            f"no mail host of {domain} has an address", permanent=True, reason="bad-domain", enhanced="5.4.4"
        )
