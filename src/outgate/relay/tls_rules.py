"""What TLS to each MX host must be: DANE, MTA-STS, what the sender asks, or nothing but what can be had.

Standards: RFC 7672 section 2 (DANE: when it applies), RFC 8461 sections 2 (DANE comes first), 4 and 5, RFC 8689
sections 4.2.1 (REQUIRETLS) and 5 (TLS-Required).
Promises: a host with TLSA records that count is held to them and not to MTA-STS; one whose TLSA records cannot be known
is not used; what mode "testing" would have refused goes, and the trail says so.
Dangers: DANE is worth what the resolver's word is worth: without one that the operator trusts there is no DANE.
Not here: policies (`relay.sts_policies`), handshakes (`relay.tls_ways`), where the hosts come from (`relay.routing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from outgate.base.log import Log
from outgate.domains import dane, mta_sts
from outgate.domains.ask import Question
from outgate.domains.dane import Tlsa
from outgate.domains.mta_sts import Policy
from outgate.model.flow import Host, TlsDemand, TlsLevel
from outgate.net.dns import AddressAnswer, Asker, ExchangeAnswer
from outgate.relay.sts_policies import Found

_log = Log("outgate.tls")
_TOLD = 10_000


class Unsafe(Exception):
    """A host may not have the message. `permanent`: what the sender requires is not there, rather than out of order."""

    def __init__(self, text: str, *, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


class Policies(Protocol):
    """What knows domains' MTA-STS policies (`relay.sts_policies`)."""

    async def policy(self, domain: str) -> Found: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What holds for all hosts of a domain, which stands for `alias` if that is not "".

    `secure`: DNSSEC vouches for which hosts they are; `insist`: the sender said REQUIRETLS; `waive`: it said
    that TLS is not required; `note` is for the trail."""

    domain: str
    policy: Policy | None = None
    alias: str = ""
    secure: bool = False
    implicit: bool = False
    insist: bool = False
    waive: bool = False
    note: str = ""
    demanding: bool = True
    """Whether anybody may ask for more than can be had."""


@dataclass(frozen=True, slots=True)
class Published:
    """TLSA records of a host that DNSSEC vouches for: those that are usable, and the names that they are for."""

    usable: tuple[Tlsa, ...]
    names: tuple[str, ...]


class TlsRules:
    """The rules of one relay. Without `policies` there is no MTA-STS, without `tlsa` no DANE."""

    def __init__(
        self, *, policies: Policies | None = None, tlsa: Asker | None = None, port: int = 25, chain: bool = False
    ) -> None:
        """`tlsa` asks the resolver that the operator trusts, which answers the questions for MX and addresses too;
        `port` is that of the receiving servers; `chain` says whether a handshake tells the server's whole chain."""
        self._policies = policies
        self._tlsa = tlsa
        self._port = port
        self._chain = chain
        self._told: set[tuple[str, str]] = set()

    async def of(self, domain: str, answer: ExchangeAnswer, *, insist: bool = False, waive: bool = False) -> Wanted:
        """Return what holds for the hosts of `domain`, whose MX were told by `answer`."""
        waive = waive and not insist  # RFC 8689 section 5
        found = Found(None) if self._policies is None or waive else await self._policies.policy(domain)
        implicit = not answer.exchanges
        demanding = found.policy is not None or insist or waive or (answer.secure and self._tlsa is not None)
        return Wanted(domain, found.policy, answer.alias, answer.secure, implicit, insist, waive, found.note, demanding)

    async def demand(self, wanted: Wanted, host: str, addresses: AddressAnswer) -> TlsDemand:
        """Return what TLS to one MX host must be. Raises `Unsafe` if it may not have the message at all."""
        if wanted.waive:
            return TlsDemand(why="TLS-Required: No")
        published = await self._published(wanted, host, addresses)
        demand = decide(wanted, host, published)
        if demand.testing and wanted.policy is not None and not wanted.policy.names(host):
            demand = self._noted(wanted, host, demand)
        return insisted(wanted, host, demand) if wanted.insist else demand

    def _noted(self, wanted: Wanted, host: str, demand: TlsDemand) -> TlsDemand:
        """Say that mode "enforce" would not use `host`: whether its certificate is good does not matter then."""
        if (wanted.domain, host) not in self._told:  # once, not with every message
            if len(self._told) >= _TOLD:
                self._told.clear()
            self._told.add((wanted.domain, host))
            _log.warning("tls.testing_failed", domain=wanted.domain, host=host, result="not in the policy")
        why = f"{demand.why}, " if demand.why else ""
        return replace(demand, testing="", why=f"{why}{demand.testing} does not name {host}")

    # -- DANE -----------------------------------------------------------------------------------------------

    async def _published(self, wanted: Wanted, host: str, addresses: AddressAnswer) -> Published | None:
        """Return the host's TLSA records if DNSSEC vouches for the way to them, None if it has none. Raises `Unsafe`
        if that cannot be known (RFC 7672 section 2.1.2)."""
        asker = self._tlsa
        if asker is None or not wanted.secure:
            return None
        for base in await self._bases(asker, host, addresses):
            name = f"_{self._port}._tcp.{base}"
            answer = await asker.ask(Question(name, "TLSA"))
            if answer.failed and answer.status != "badname":
                raise Unsafe(
                    f"TLSA records at {name} cannot be known ({answer.status}), so {host} is not used: its zone's name"
                    " servers or DNSSEC signatures must be mended"
                )
            if answer.records and answer.secure:
                records = [dane.read(str(record)) for record in answer.records]
                names = tuple(dict.fromkeys(name for name in (base, host, wanted.domain, wanted.alias) if name))
                return Published(dane.usable(records, chain=self._chain), names)
        return None

    async def _bases(self, asker: Asker, host: str, addresses: AddressAnswer) -> tuple[str, ...]:
        """Return the names that TLSA records of a host may be at, in order (RFC 7672 sections 2.1.3 and 2.2.2)."""
        if addresses.secure:
            return (addresses.alias, host) if addresses.alias else (host,)
        if not addresses.alias:
            return ()
        # An alias that leads to where nobody signs: what is signed at its beginning still counts.
        return (host,) if (await asker.ask(Question(host, "CNAME"))).secure else ()


def decide(wanted: Wanted, host: str, published: Published | None) -> TlsDemand:
    """Return what TLS to `host` must be by what its domain and itself publish. Raises `Unsafe`."""
    if published is not None and published.usable:
        return TlsDemand(TlsLevel.DANE, published.names, published.usable, f"DANE of {host}")
    ruling = mta_sts.ruling(wanted.policy, host)
    asks = "" if wanted.policy is None else f"MTA-STS {wanted.policy.mode} of {wanted.domain}"
    if ruling == "skip":
        raise Unsafe(
            f"{asks} does not name {host}, so it is not used: {wanted.domain} must name its MX hosts in the policy"
        )
    if ruling == "verify":
        return TlsDemand(TlsLevel.VERIFIED, (host,), why=asks)
    testing = asks if ruling else ""
    if published is not None:  # records that nothing can be read from still say: encrypted, or not at all
        return TlsDemand(TlsLevel.ENCRYPTED, why=f"DANE of {host} (no usable TLSA record)", testing=testing)
    return TlsDemand(testing=testing)


def insisted(wanted: Wanted, host: str, demand: TlsDemand) -> TlsDemand:
    """Return the demand of REQUIRETLS: a certificate that is verified, of a host that is surely the domain's (RFC 8689
    section 4.2.1). Raises `Unsafe`."""
    if demand.level is TlsLevel.DANE:
        return demand
    named = wanted.policy is not None and wanted.policy.mode != "none" and wanted.policy.names(host)
    if not (named or wanted.secure or wanted.implicit):
        raise Unsafe(
            f"the sender requires TLS, and nothing vouches for {host} as an MX host of {wanted.domain}: that takes"
            " DNSSEC or MTA-STS",
            permanent=True,
        )
    return TlsDemand(TlsLevel.VERIFIED, (host,), why="REQUIRETLS of the sender")


def security(hosts: Sequence[Host], *, insist: bool = False, some_unsafe: bool = False) -> str:
    """Return what was demanded of a whole site, in words that are equal only if one connection may carry both.
    `some_unsafe`: there are more hosts, which others may use."""
    if not (insist or some_unsafe) and all(
        host.tls.level is TlsLevel.OPPORTUNISTIC and not host.tls.testing for host in hosts
    ):
        return str(TlsLevel.OPPORTUNISTIC)
    found: dict[str, set[str]] = {}
    for host in hosts:
        word = str(host.tls.level) + (" testing" if host.tls.testing else "")
        found.setdefault(word, set()).add(host.name)
    text = "; ".join(f"{word} {','.join(sorted(names))}".rstrip() for word, names in sorted(found.items()))
    return f"requiretls {text}" if insist else text
