"""The API on a loopback port, for clients that know nothing of its insides."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import uvicorn

from outgate.api import cloud_manager, event_notifications, identity, operations, restrictions, vpc
from outgate.api.event_notifications import SmtpRecords
from outgate.api.event_notifications.hashing import PasswordHashing
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.api.mounts import Mounts
from outgate.base.clock import Clock, FrozenClock, OffsetClock
from outgate.egress.connectivity import Connectivity, Times
from outgate.model.flow import Job
from outgate.model.tenancy import Checked, Instance, NewStanding, SmtpConfiguration, Verification
from outgate.net.dns import Resolver
from outgate.relay.dialling import DeliveryLimits, Dialler
from outgate.relay.endpoints import Endpoint, OpenEndpoint
from outgate.relay.operators import Operators
from outgate.relay.probing import Prober
from outgate.relay.routing import Router
from outgate.relay.sources import Sources
from outgate.relay.transports import Transports, WaysOut
from outgate.store.control import ControlStore, open_control
from outgate.store.places import Grounds
from outgate.store.secrets import open_box
from outgate.store.sqlite import QueueStore, open_queue
from support.egress_side import EgressSide

ALL_ROLES = ("reader", "writer", "manager")
OPEN_ENDPOINTS = (
    OpenEndpoint(
        Endpoint("fra", ("eu-de", "eu-es"), "smtp.test", "private.smtp.test", ("192.0.2.10",), ("192.0.2.20", "2001:db8::20"), "out.test"),
        587, 465, ("192.0.2.10",),
    ),
    OpenEndpoint(
        Endpoint("dal", (), "smtp.dal.test", "private.smtp.dal.test", ("192.0.2.11",), ("192.0.2.21",), "out.dal.test"), 2587, 2465, (),
    ),
)  # fmt: skip
"""Where mail can be handed in, as the service is told."""
GROUNDS = Grounds(("deu6", "va7"), ip_network("10.1.0.0/16"), ("10.2.0.0/16",))
PRIVATE_NAMES = {
    "us-south": "private.smtp.us-south.outgate.test",
    "us-east": "private.smtp.us-south.outgate.test",
    "eu-de": "private.smtp.eu-de.outgate.test",
}


def as_it_stood(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
    """Decide nothing: the standing stays."""
    it = configuration
    return NewStanding(it.standing, it.standing_since, it.failing, it.recheck_at)


@dataclass
class GivenVerifier:
    """Answers what the test told it, and stores that as a real verifier does."""

    store: ControlStore
    results: dict[str, Verification] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    async def verify(self, configuration: SmtpConfiguration, types: Sequence[str]) -> Mapping[str, Verification]:
        self.asked.append((configuration.domain, tuple(types)))
        states = {check: self.results.get(check, Verification.FAILED) for check in types}
        found = [Checked(check, state, state.value, "as told") for check, state in states.items()]
        await asyncio.to_thread(self.store.verification.record, [(configuration.id, found)], as_it_stood)
        return states


@dataclass
class Service:
    """A running API with one account, one instance and one caller of every role."""

    base: str
    store: ControlStore
    queue: QueueStore
    clock: OffsetClock
    tokens: TokenIssuer
    verifier: GivenVerifier
    account_id: str
    instance: Instance
    api_key: str
    trail: list[tuple[str, int, float]]
    egress: EgressSide

    @property
    def en_url(self) -> str:
        return f"{self.base}/event-notifications"

    @property
    def cbr_url(self) -> str:
        return f"{self.base}/context-based-restrictions"

    @property
    def vpc_url(self) -> str:
        return f"{self.base}/vpc/v1"

    @property
    def operations_url(self) -> str:
        return f"{self.base}/operations/v1"

    @property
    def cloud_manager_url(self) -> str:
        return f"{self.base}/cloud-manager"

    @property
    def smtp_url(self) -> str:
        return f"{self.en_url}/v1/instances/{self.instance.id}/smtp"

    def token(self, *roles: str, account_id: str | None = None, lifetime_s: float | None = 3600) -> str:
        return self.tokens.issue("iam-tester", account_id or self.account_id, roles or ALL_ROLES, "test", lifetime_s)

    def headers(self, *roles: str, account_id: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(*roles, account_id=account_id)}"}


@contextmanager
def api_service(directory: Path, *, authorization: str = "automatic") -> Iterator[Service]:
    """Run everything that is under test on a free loopback port, in a thread."""
    clock = OffsetClock()
    box = open_box(directory / "master.key")
    store = open_control(directory / "control.db", box, clock)
    queue = open_queue(directory, shard="A", clock=clock, segment_bytes=1 << 20, notify=lambda call: call())
    account_id = store.tenancy.create_account()
    instance = store.tenancy.create_instance(account_id, "eu-de", "test")
    _, api_key = store.identity.create_api_key(account_id, "test", ALL_ROLES)
    tokens = TokenIssuer(store, clock)
    verifier = GivenVerifier(store)
    hasher = PasswordHashing()
    trail: list[tuple[str, int, float]] = []

    def egress_trail(address: str, port: int, at: float) -> list[dict[str, Any]]:
        trail.append((address, port, at))
        return [{"event": "egress.decision", "client": address}]

    authenticator = Authenticator(store, clock)
    egress = EgressSide(directory, store, clock)
    app = application(store, authenticator, tokens, verifier, hasher, queue, egress_trail, authorization, clock, egress)
    try:
        with serving(app) as base:
            yield Service(base, store, queue, clock, tokens, verifier, account_id, instance, api_key, trail, egress)
    finally:
        egress.audit.close()
        hasher.close()
        queue.close()
        store.close()


def application(
    store: ControlStore,
    authenticator: Authenticator,
    tokens: TokenIssuer,
    verifier: Any,
    hasher: Any,
    history: Any,
    egress_trail: Any,
    authorization: Any,
    clock: Clock,
    egress: EgressSide,
) -> Mounts:
    notifications = Lazily(
        event_notifications.build,
        store=store,
        authenticator=authenticator,
        verifier=verifier,
        hasher=hasher,
        records=SmtpRecords(spf_host="spf.outgate.test"),
        history=history,
        egress_trail=egress_trail,
        authorization=authorization,
        clock=clock,
        endpoints=lambda: OPEN_ENDPOINTS,
        probe=prober(store, clock),
    )
    status = WaysOut(transports(store, clock), SOURCES, clock)
    tokens_api = Lazily(identity.build, store=store, tokens=tokens, authenticator=authenticator, clock=clock)
    return Mounts(
        {
            "/event-notifications": notifications,
            "/context-based-restrictions": Lazily(
                restrictions.build, store=store, authenticator=authenticator, clock=clock
            ),
            "/iam": tokens_api,
            "/cloud-manager": Lazily(
                cloud_manager.build,
                store=store.egress,
                places=store.places,
                grounds=GROUNDS,
                infrastructures=store.infrastructures,
                authenticator=authenticator,
                changed=lambda: None,
                shared_addresses=["192.0.2.30"],
                dedicated_addresses=[f"192.0.2.{number}" for number in range(40, 60)],
                vpn_address="192.0.2.31",
                connectivity=Connectivity(
                    resolvers=[Resolver([("127.0.0.1", 9)], clock)], ways=egress.way, times=Times(converse=0.05)
                ),
            ),
            "/operations/v1": Lazily(
                operations.build,
                operators=Operators(history.verbs, NothingUnderWay(), clock, released=nothing),
                status=status,
                egress=egress.parts,
                authenticator=authenticator,
                clock=clock,
                configured=lambda smtp_config_id: store.tenancy.instance_of(smtp_config_id) is not None,
                instanced=lambda instance_id: store.tenancy.instance(instance_id) is not None,
            ),
            "/vpc/v1": Lazily(
                vpc.build,
                store=store,
                authenticator=authenticator,
                clock=clock,
                region="us-south",
                private_names=PRIVATE_NAMES,
                networks_allowed=["10.0.0.0/8", "127.20.0.0/16"],
            ),
        },
        tokens_api,
    )


class Lazily:
    """An application that is made when it is first asked for: most tests ask one API of six."""

    def __init__(self, build: Callable[..., Any], **parts: Any) -> None:
        self.made: Callable[[], Any] = functools.cache(lambda: build(**parts))

    async def __call__(self, *request: Any) -> None:
        await self.made()(*request)


HOME = Endpoint("lo", (), "smtp.test", "private.smtp.test", ("127.0.0.1",), ("127.0.0.1", "::1"), "out.test")
SOURCES = Sources([HOME], FrozenClock())


def transports(store: ControlStore, clock: Clock) -> Transports:
    """Return the ways out from this machine; no name is known to it, and every address may be dialled."""
    names = Resolver([("127.0.0.1", 9)], clock, rounds=1, timeout=0.2)
    router = Router(names, port=25, endpoint=HOME, deliver_to="", own_names=(), permitted=lambda n, a: True)
    return Transports(
        names=names,
        routers={HOME.id: router},
        endpoint_of=lambda instance_id: HOME,
        stored=store.routes,
        sources=SOURCES,
        clock=clock,
        permitted=lambda name, address: True,
    )


def prober(store: ControlStore, clock: Clock) -> Prober:
    """Return what tries routes."""
    dialler = Dialler(clock=clock, limits=DeliveryLimits(reply=5.0), tls=None, sources=SOURCES)
    return Prober(transports(store, clock), dialler, clock)


class NothingUnderWay:
    """A queue whose delivery has nothing."""

    def recall(self, recipients: Iterable[int]) -> None:
        pass

    def under_way(self, wanted: Callable[[Job], bool]) -> list[int]:
        return []

    def under_way_by_domain(self, wanted: Callable[[Job], bool] | None = None) -> Mapping[str, int]:
        return {}

    def look(self) -> None:
        pass


async def nothing(_smtp_config_id: str) -> None:
    pass


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI application on a free loopback port and yield its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio"))
    ready = threading.Event()
    runner = asyncio.Runner()
    ended = asyncio.Event()

    async def run() -> None:
        # Connections wait in the listener's backlog until the server accepts them, so no polling is needed.
        ready.set()
        served = asyncio.ensure_future(server.serve(sockets=[listener]))
        await ended.wait()
        # Asked to end, it would notice within a tenth of a second and take another.
        served.cancel()
        await asyncio.wait([served])
        for one in server.servers:
            one.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()

    def serve() -> None:
        with runner:
            runner.run(run())

    thread = threading.Thread(target=serve, name="api-server")
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        runner.get_loop().call_soon_threadsafe(ended.set)
        thread.join()
        listener.close()
