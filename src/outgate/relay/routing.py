"""Where a recipient domain's mail goes: its MX hosts, the address it is, or the one host that a setting names.

Standards: RFC 5321 sections 5.1 (MX, implicit MX, loops), 4.1.3 (address literals), RFC 7505 (null MX), RFC 8461
section 5 (a host that the policy does not name is not used), RFC 7672 section 2.1.2 (nor is one whose TLSA records
cannot be known).
Promises: hosts come in order of preference, equals in random order; an address the guard refuses, or at which we listen
ourselves, is never tried; a look-up that fails for now is a deferral, a domain that cannot take mail a bounce; where
every address to leave from is suspended, none is made up.
Dangers: DNS is told by strangers: the number of hosts and addresses is capped.
Not here: connecting (`relay.delivery`), caching (`net.dns`).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

from outgate.model.flow import Host, Route, TlsDemand, TlsLevel
from outgate.net.dns import AddressAnswer, Exchange, ExchangeAnswer
from outgate.relay.endpoints import Endpoint
from outgate.relay.sources import Sources
from outgate.relay.tls_rules import TlsRules, Unsafe, Wanted, security

_MX_HOSTS = 10
_MX_NAMED = 3
_ADDRESSES = 20
_ANY = TlsDemand()


class Names(Protocol):
    """The look-ups that routing needs (`net.dns`)."""

    async def exchanges(self, domain: str) -> ExchangeAnswer: ...

    async def hosts(self, name: str, *, families: frozenset[str]) -> AddressAnswer: ...


class Unroutable(Exception):
    """No route. `permanent` says whether trying later is of use; `reason` is a class word."""

    def __init__(self, text: str, *, permanent: bool, reason: str, enhanced: str = "") -> None:
        super().__init__(text)
        self.permanent = permanent
        self.reason = reason
        self.enhanced = enhanced


def no_source(sources: Sources, endpoint: Endpoint, address: str) -> Unroutable:
    """Return why nothing can be sent to `address` from an endpoint: it waits for an address to leave from."""
    return Unroutable(sources.why_none(endpoint.id, address), permanent=False, reason="source")


def literal_address(domain: str) -> str:
    """Return the address in a literal as `smtp.grammar` spells it: `[192.0.2.1]`, `[IPv6:2001:db8::1]`."""
    return str(ipaddress.ip_address(domain.strip("[]").removeprefix("IPv6:")))


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
        tls: TlsRules | None = None,
        sources: Sources | None = None,
        ourselves: Callable[[str, int], bool] = lambda _address, _port: False,
    ) -> None:
        """Mail leaves from the outgoing addresses of `endpoint`, as `sources` chooses among them (None: the first of
        each family), and a host of a family that has none is not tried. `deliver_to` is `address:port` for all mail, or
        ""; `permitted` judges (name, address) before use; `ourselves` says whether we listen at (address, port); `tls`
        says what TLS must be (None: what can be had)."""
        self._names = names
        self._port = port
        self._endpoint = endpoint
        self._first = {(":" in address): address for address in reversed(endpoint.outgoing_addresses)}
        self._families = frozenset("AAAA" if six else "A" for six in self._first)
        self._sources = sources
        self._own = frozenset(name.lower().removesuffix(".") for name in own_names)
        self._permitted = permitted
        self._ourselves = ourselves
        self._deliver_to = deliver_to
        self._tls = tls or TlsRules()
        self._fixed = self._smart_host(deliver_to) if deliver_to else None
        self._fixed_at = 0 if sources is None else sources.generation

    @property
    def endpoint(self) -> Endpoint:
        """Return the endpoint that mail leaves from."""
        return self._endpoint

    @property
    def fixed(self) -> Route | None:
        """Return the one route of all mail if a setting gives it. Raises `Unroutable` if nothing can be left from."""
        if self._fixed is not None and self._sources is not None and self._fixed_at != self._sources.generation:
            self._fixed = self._smart_host(self._deliver_to)
            self._fixed_at = self._sources.generation
        return self._fixed

    @property
    def is_fixed(self) -> bool:
        """Say whether a setting gives the one route of all mail."""
        return self._fixed is not None

    def fixed_for(self, *, requiretls: bool) -> Route | None:
        """Return the one route of all mail, for a message that may require verified TLS. Raises `Unroutable`."""
        fixed = self.fixed
        return _insisted(fixed) if fixed is not None and requiretls else fixed

    def _smart_host(self, deliver_to: str) -> Route:
        host, _, port = deliver_to.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"deliver_to is `address:port`, not {deliver_to!r}")
        address = host.strip("[]")
        if not self._reachable(address):
            owner = self._endpoint.id
            raise ValueError(f"deliver_to {deliver_to!r} is of a family that no outgoing address of {owner} is of")
        return self._leaving(deliver_to, (self._host("", address, int(port), deliver_to),), "setting deliver_to")

    def _leaving(self, site: str, hosts: tuple[Host, ...], reason: str) -> Route:
        return Route(site, hosts, reason, self._endpoint.id, self._endpoint.ehlo_name)

    def _reachable(self, address: str) -> bool:
        return (":" in address) in self._first

    def _usable(self, name: str, address: str) -> bool:
        return self._permitted(name, address) and not self._ourselves(address, self._port) and self._reachable(address)

    def _host(self, name: str, address: str, port: int, site: str, preference: int = 0, tls: TlsDemand = _ANY) -> Host:
        """Return a host with the address to leave from. Raises `Unroutable` (reason "source") if that is suspended."""
        if self._sources is None:
            source = self._first.get(":" in address)
        else:
            source = self._sources.choose(self._endpoint.id, address, site)
            if source is None:
                raise no_source(self._sources, self._endpoint, address)
        return Host(name, address, port, source, tls, preference)

    async def route(self, domain: str, *, requiretls: bool = False, tls_optional: bool = False) -> Route:
        """Return where to deliver mail for `domain` (A-labels, or an address literal). `requiretls`: the sender
        requires verified TLS all the way; `tls_optional`: it wants the message to go whatever the domain asks. Raises
        `Unroutable`."""
        fixed = self.fixed_for(requiretls=requiretls)
        if fixed is not None:
            return fixed
        if domain.startswith("["):
            found = self._literal(domain)
            return _insisted(found) if requiretls else found
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
        site = _site(exchanges)
        wanted = await self._tls.of(domain, answer, insist=requiretls, waive=tls_optional)
        hosts, notes = await self._hosts(wanted, exchanges[:_MX_HOSTS], site)
        reason = "implicit MX" if implicit else _named(exchanges)
        if wanted.demanding or wanted.note:
            demands = dict.fromkeys(host.tls.why or host.tls.testing for host in hosts)
            reason = "; ".join(text for text in (reason, *demands, wanted.note, *notes) if text)
        alike = security(hosts, insist=requiretls, some_unsafe=bool(notes))
        return Route(
            site,
            tuple(hosts),
            reason,
            self._endpoint.id,
            self._endpoint.ehlo_name,
            security=alike,
            requiretls=requiretls,
        )

    def _literal(self, domain: str) -> Route:
        """Return the route to a mailbox at an address (RFC 5321 section 4.1.3): there, and nowhere else."""
        address = literal_address(domain)
        if not self._permitted("", address) or self._ourselves(address, self._port):
            raise Unroutable(
                f"{domain} is no address that mail is sent to", permanent=True, reason="bad-domain", enhanced="5.1.2"
            )
        if not self._reachable(address):
            family = "IPv6" if ":" in address else "IPv4"
            text = f"endpoint {self._endpoint.id} has no {family} address to leave from"
            raise Unroutable(text, permanent=True, reason="bad-domain", enhanced="5.4.4")
        return self._leaving(domain, (self._host("", address, self._port, domain),), "address literal")

    def _before_us(self, domain: str, exchanges: list[Exchange]) -> list[Exchange]:
        """Drop ourselves and every host that is no better (RFC 5321 section 5.1): mail must not loop."""
        ours = [exchange.preference for exchange in exchanges if exchange.host in self._own]
        if not ours:
            return exchanges
        better = [exchange for exchange in exchanges if exchange.preference < min(ours)]
        if not better:
            raise Unroutable(f"mail for {domain} loops back to us", permanent=True, reason="loop", enhanced="5.4.6")
        return better

    async def _hosts(self, wanted: Wanted, exchanges: list[Exchange], site: str) -> tuple[list[Host], list[str]]:
        """Return the hosts to try, never none, and why others are not used. Raises `Unroutable`: for good if DNS says
        that there is none."""
        hosts: list[Host] = []
        unsafe: list[Unsafe] = []
        suspended: Unroutable | None = None
        domain, unknown, refused = wanted.domain, False, False
        for exchange in exchanges:
            answer = await self._names.hosts(exchange.host, families=self._families)
            unknown |= answer.status not in ("ok", "nodata")
            usable = [each for each in answer.addresses if self._usable(exchange.host, each)]
            refused |= len(usable) < len(answer.addresses)
            usable = usable[: _ADDRESSES - len(hosts)]
            if not usable:
                continue
            try:
                tls = await self._tls.demand(wanted, exchange.host, answer) if wanted.demanding else _ANY
            except Unsafe as error:
                unsafe.append(error)
                continue
            for address in usable:
                try:
                    hosts.append(self._host(exchange.host, address, self._port, site, exchange.preference, tls))
                except Unroutable as error:
                    suspended = error
        notes = [str(error) for error in unsafe]
        if hosts:
            return hosts, notes
        if suspended is not None:
            raise suspended
        if unsafe:
            permanent = all(error.permanent for error in unsafe) and not unknown
            enhanced = "5.7.10" if permanent else ""
            raise Unroutable(
                "; ".join(text for text in (*notes, wanted.note) if text),
                permanent=permanent,
                reason="tls",
                enhanced=enhanced,
            )
        if unknown or refused:
            raise Unroutable(f"no mail host of {domain} has a usable address", permanent=False, reason="dns")
        raise Unroutable(
            f"no mail host of {domain} has an address", permanent=True, reason="bad-domain", enhanced="5.4.4"
        )


def _site(exchanges: Sequence[Exchange]) -> str:
    """Return the name of the site that these hosts are: its connections and its pace are one.

    A site is written with each recipient, and who publishes a thousand hosts must not fill the disk: those that are
    too many to name are told apart by a digest, which nobody can have two sets share."""
    hosts = sorted({exchange.host for exchange in exchanges})
    whole = ",".join(hosts)
    if len(hosts) <= _MX_HOSTS:
        return whole
    return f"{','.join(hosts[:_MX_NAMED])},{len(hosts) - _MX_NAMED}-more-{sha256(whole.encode()).hexdigest()[:32]}"


def _named(exchanges: Sequence[Exchange]) -> str:
    """Return the hosts that may be tried, as the trail shows them."""
    text = "MX " + ", ".join(f"{exchange.preference} {exchange.host}" for exchange in exchanges[:_MX_HOSTS])
    return text if len(exchanges) <= _MX_HOSTS else f"{text} and {len(exchanges) - _MX_HOSTS} more"


def _insisted(fixed: Route) -> Route:
    """Return the one route for a message with REQUIRETLS: its server needs a certificate for its address."""
    tls = TlsDemand(TlsLevel.VERIFIED, why="REQUIRETLS of the sender")
    hosts = tuple(replace(host, tls=tls) for host in fixed.hosts)
    return replace(fixed, hosts=hosts, security=security(hosts, insist=True), requiretls=True)
