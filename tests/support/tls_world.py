"""A world where receiving domains ask for TLS: signed zones behind a real Unbound, policies over HTTPS, receiving
servers with certificates, and a delivery that goes there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import ssl
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outgate.base.clock import FrozenClock
from outgate.domains.mta_sts import Kept
from outgate.model.flow import Attempt, Job, JobRecipient, Location, Prepared, SigningKey
from outgate.model.routes import Forward, RouteSpec
from outgate.net.dns import Resolver
from outgate.net.http import Fetcher
from outgate.net.tls import opportunistic_context, verified_context
from outgate.relay.delivery import Delivery, DeliveryLimits
from outgate.relay.dialling import Dialler
from outgate.relay.endpoints import Endpoint
from outgate.relay.routing import Router
from outgate.relay.sources import Sources
from outgate.relay.sts_policies import StsPolicies
from outgate.relay.tls_rules import TlsRules
from outgate.relay.tls_ways import CHAINS
from outgate.relay.transports import Transports
from support.policies import PolicyServer
from support.scripted_peer import Peer
from support.signed import SignedZone, authoritative, unbound

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Names:
    """Zones below `test.` (signed) and `plain.` (not), and the Unbound that is asked for both."""

    signed: SignedZone
    plain: SignedZone
    resolver: tuple[str, int]

    def domain(self, under: str = "test") -> str:
        """Return a domain that nobody has asked for yet."""
        return f"d{next(_numbers)}.{under}"


@contextlib.contextmanager
def names(folder: Path) -> Iterator[Names]:
    """Run the name servers of both zones and Unbound."""
    signed, plain = SignedZone(), SignedZone("plain.", signed=False)
    with (
        authoritative(signed) as signed_at,
        authoritative(plain) as plain_at,
        unbound(folder, (signed, signed_at), (plain, plain_at), anchors=(signed,)) as resolver,
    ):
        yield Names(signed, plain, resolver)


class Memory:
    """A store of policies that lasts as long as the test."""

    def __init__(self) -> None:
        self.rows: dict[str, Kept] = {}

    def all(self) -> list[Kept]:
        return list(self.rows.values())

    def keep(self, kept: Kept) -> None:
        self.rows[kept.domain] = kept

    def drop(self, domains: object) -> None:
        for domain in domains:  # type: ignore[attr-defined]
            self.rows.pop(domain, None)


@dataclass
class World:
    """One delivery, and what it meets."""

    names: Names
    ca: trustme.CA
    policies: PolicyServer
    clock: FrozenClock = field(default_factory=FrozenClock)
    trusted: bool = True
    attempts: list[Attempt] = field(default_factory=list)
    _trust: Path = Path()
    _done: dict[str, asyncio.Future[Attempt]] = field(default_factory=dict)

    def context(self, ca: trustme.CA, *hosts: str) -> tuple[ssl.SSLContext, list[bytes]]:
        """Return a server's context with a certificate for `hosts`, and its chain (DER)."""
        issued = ca.issue_cert(*hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context, [der(pem.bytes()) for pem in issued.cert_chain_pems]

    def delivery(self, port: int) -> Delivery:
        """Return what delivers to `port`, of whatever address DNS tells."""
        trust = self._trust
        resolver = Resolver([self.names.resolver], self.clock, trusted=self.trusted)
        fetcher = Fetcher(
            addresses=resolver.addresses,
            permitted=lambda name, address: True,
            context=lambda: verified_context(trust),
            port=self.policies.port,
        )
        sts = StsPolicies(Memory(), resolver, fetcher, self.clock)
        rules = TlsRules(policies=sts, tlsa=resolver, port=port, chain=CHAINS)
        endpoint = Endpoint("dal", (), "s.test", "p.test", ("127.0.0.1",), ("127.0.0.1",), "out.test")
        router = Router(
            resolver, port=port, endpoint=endpoint, deliver_to="", own_names=(), permitted=lambda n, a: True, tls=rules
        )
        limits = DeliveryLimits()
        return Delivery(
            ways=Transports(
                names=resolver,
                routers={endpoint.id: router},
                endpoint_of=lambda instance_id: endpoint,
                stored=_NoRoutes(),
                sources=Sources([endpoint], self.clock),
                clock=self.clock,
                permitted=lambda name, address: True,
            ),
            signer=_Signer(),
            finished=self._finished,
            given_back=lambda *_: None,
            clock=self.clock,
            limits=limits,
            dialler=Dialler(
                clock=self.clock,
                limits=limits,
                tls=opportunistic_context(),
                verified=lambda authorities: verified_context(trust),
            ),
        )

    def _finished(self, job: Job, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self._done[job.queue_id].set_result(attempt)

    async def send(
        self,
        delivery: Delivery,
        domain: str,
        *,
        requiretls: bool = False,
        tls_optional: bool = False,
        reverse_path: str = "a@shop.test",
    ) -> Attempt:
        """Deliver one message to `domain`; return what became of it."""
        name = f"Q{next(_numbers)}"
        self._done[name] = asyncio.get_running_loop().create_future()
        delivery.deliver(
            Job(
                name, "inst", "cfg", SigningKey("k", "shop.test", "s"), reverse_path, domain,
                (JobRecipient(1, f"b@{domain}", domain, 0),), Location(0, 0, 0, 0), 0.0, 1e12, False, False, b"",
                b"Subject: x\r\n\r\n", requiretls=requiretls, tls_optional=tls_optional,
            )
        )  # fmt: skip
        return await self._done[name]

    async def once(self, domain: str, peer: Peer, *, requiretls: bool = False, tls_optional: bool = False) -> Attempt:
        """Deliver one message to `domain`, whose MX host is `peer`, and say goodbye."""
        delivery = self.delivery(peer.port)
        attempt = await self.send(delivery, domain, requiretls=requiretls, tls_optional=tls_optional)
        await delivery.stop()
        return attempt

    def publish_policy(self, domain: str, text: bytes, id: str = "1") -> None:
        """Let `domain` have an MTA-STS policy; `names.signed.sign` makes it count."""
        zone = self.names.signed if domain.endswith("test") else self.names.plain
        zone.put(f"_mta-sts.{domain}.", "TXT", f'"v=STSv1; id={id};"')
        zone.put(f"mta-sts.{domain}.", "A", "127.0.0.1")
        self.policies.answers[f"mta-sts.{domain}"] = text


class _NoRoutes:
    def of(self, smtp_config_id: str) -> tuple[RouteSpec, ...]:
        return ()

    def names(self, smtp_config_ids: Collection[str]) -> tuple[str, ...]:
        return ()

    def forward(self, program_id: str, environment_id: str, port_orig: int) -> Forward:
        raise AssertionError


class _Signer:
    def prepare(self, job: Job, done: object) -> None:
        assert job.content is not None
        done(Prepared(job, b"", job.content), None)  # type: ignore[operator]


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def tlsa(certificate: bytes, usage: int = 3) -> str:
    """Return the record `usage 1 1` of a certificate (DER)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return f"{usage} 1 1 {digest}"


@contextlib.asynccontextmanager
async def world(names: Names, folder: Path, *, trusted: bool = True) -> AsyncIterator[World]:
    """Yield a world; `trusted`: Unbound's word on DNSSEC is believed."""
    ca, context = _authority()
    ca.cert_pem.write_to_path(folder / "trust.pem")
    async with PolicyServer(context) as policies:
        made = World(names, ca, policies, trusted=trusted)
        made._trust = folder / "trust.pem"
        yield made
    names.signed.clear()
    names.plain.clear()


@functools.cache
def _authority() -> tuple[trustme.CA, ssl.SSLContext]:
    """Return the authority that is trusted, and the context of whoever serves policies."""
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    domains = [f"mta-sts.d{number}.{zone}" for number in range(1, 300) for zone in ("test", "plain")]
    ca.issue_cert(*domains).configure_cert(context)
    return ca, context
