"""Each mode, and each row of the vendor's routing table that passes the tunnel or the proxy, between hosts.

Needs root, `ip` and `nft` (tests/packages.sh installs them). What is outside counts packets by their sender, so that
"blocked" means that nothing was sent, and "leaves from" is what the target sees.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from support.egress_peers import echo
from support.egress_world import (
    DEDICATED,
    ONE,
    OTHER,
    PROXY,
    SHARED,
    TARGET,
    TWO,
    UNPLUMBED,
    A,
    B,
    EgressWorld,
    Service,
    Serving,
    answer,
    dial,
    dialled,
    egress_world,
    environment,
    forward,
    serving_in,
    through_proxy,
    web,
)

pytestmark = pytest.mark.scenario


@pytest.fixture(scope="module")
def world() -> Iterator[EgressWorld]:
    with egress_world() as made:
        yield made


@pytest.fixture(scope="module")
def serving(world: EgressWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_in(world, tmp_path_factory.mktemp("egress")) as made:
        yield made


@contextlib.asynccontextmanager
async def web_outside(world: EgressWorld) -> AsyncIterator[dict[tuple[str, int], Service]]:
    """Run web servers on both targets, on the usual ports and another; forget all packets before."""
    places = [(address, port) for address in (TARGET, OTHER) for port in (80, 443, 8443)]
    async with AsyncExitStack() as stack:
        yield {place: await stack.enter_async_context(Service(world.outside, *place, web)) for place in places}


async def test_without_a_mode_nothing_listens(world: EgressWorld, serving: Serving) -> None:
    serving.in_force()
    world.outside.forget_seen()
    for port in (30001, PROXY):
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, ONE, port)
    assert world.outside.seen() == set()


@pytest.mark.parametrize(
    ("kind", "source"),
    [("flexiblePortEgress", SHARED), ("dedicatedEgressIp", DEDICATED)],
    ids=["flexible", "dedicated"],
)
async def test_a_forward_leaves_from_the_address_of_its_mode(
    world: EgressWorld, serving: Serving, kind: str, source: str
) -> None:
    async with Service(world.outside, TARGET, 7001, echo) as target:
        serving.in_force(environment(forward(30001, 7001), kind=kind))
        world.outside.forget_seen()
        assert await answer(world.a, ONE, 30001, b"hello") == b"hello"
        assert target.peers == [source]
        assert {seen for seen in world.outside.seen() if seen[1] == 7001} == {(source, 7001)}
        # What has no rule is closed.
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, ONE, 30002)


@pytest.mark.parametrize("connect", [True, False], ids=["CONNECT", "plain"])
@pytest.mark.parametrize("port", [80, 443, 8443])
@pytest.mark.parametrize(
    ("kind", "source"),
    [("flexiblePortEgress", SHARED), ("dedicatedEgressIp", DEDICATED)],
    ids=["flexible", "dedicated"],
)
async def test_the_proxy_leaves_from_the_address_of_the_mode(
    world: EgressWorld, serving: Serving, kind: str, source: str, port: int, connect: bool
) -> None:
    serving.in_force(environment(kind=kind))
    async with web_outside(world) as servers:
        status, body = await through_proxy(world.a, ONE, f"target.example:{port}", connect=connect)
        assert status == 200
        assert body == (b"GET /tunnelled HTTP/1.1" if connect else b"GET /plain HTTP/1.1")
        assert servers[TARGET, port].peers == [source]


@pytest.mark.parametrize("connect", [True, False], ids=["CONNECT", "plain"])
@pytest.mark.parametrize("name", ["other.example", "www.other.example"])
async def test_spared_hosts_leave_from_the_shared_addresses_on_the_usual_ports_only(
    world: EgressWorld, serving: Serving, name: str, connect: bool
) -> None:
    spared = ["other.example", "*.other.example"]
    serving.in_force(environment(kind="dedicatedEgressIp", nonProxyHosts=spared))
    async with web_outside(world) as servers:
        for port in (80, 443):
            status, _ = await through_proxy(world.a, ONE, f"{name}:{port}", connect=connect)
            assert (status, servers[OTHER, port].peers) == (200, [SHARED])
        world.outside.forget_seen()
        status, _ = await through_proxy(world.a, ONE, f"{name}:8443", connect=connect)
        assert status == 403
        assert servers[OTHER, 8443].peers == []
        assert not {seen for seen in world.outside.seen() if seen[1] == 8443}
        # Hosts that are not spared still leave from the dedicated address.
        await through_proxy(world.a, ONE, "target.example:443", connect=connect)
        assert servers[TARGET, 443].peers == [DEDICATED]


async def test_vpn_without_a_path_sends_nothing(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7002, echo) as target, web_outside(world):
        serving.in_force(environment(forward(30001, 7002)))
        assert await answer(world.a, ONE, 30001, b"hello") == b"hello"
        serving.told(environment(forward(30001, 7002), kind="vpn", egressAddresses=[DEDICATED]))
        serving.failed(ONE, "VPN", "nothing leaves")
        world.outside.forget_seen()
        for port in (30001, PROXY):
            with contextlib.suppress(ConnectionRefusedError):
                assert await answer(world.a, ONE, port, b"CONNECT 11.7.0.10:443 HTTP/1.1\r\n\r\n") == b""
        assert world.outside.seen() == set()
        assert target.peers == [SHARED]


async def test_a_dedicated_address_that_is_not_plumbed_sends_nothing(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7003, echo) as target, web_outside(world):
        serving.in_force()
        serving.told(environment(forward(30001, 7003), kind="dedicatedEgressIp", egressAddresses=[UNPLUMBED]))
        serving.failed(ONE, UNPLUMBED)
        world.outside.forget_seen()
        for port in (30001, PROXY):
            with contextlib.suppress(ConnectionRefusedError):
                assert await answer(world.a, ONE, port, b"CONNECT 11.7.0.10:443 HTTP/1.1\r\n\r\n") == b""
        assert world.outside.seen() == set()
        assert target.peers == []


async def test_two_environments_have_the_same_port_to_different_places(world: EgressWorld, serving: Serving) -> None:
    async with (
        Service(world.outside, TARGET, 7004, echo) as first,
        Service(world.outside, OTHER, 7005, echo) as second,
    ):
        serving.in_force(
            environment(forward(30001, 7004), tunnel=ONE, clients=[f"{A}/32"]),
            environment(
                forward(30001, 7005, "other.example"), tunnel=TWO, clients=[f"{B}/32"], kind="dedicatedEgressIp"
            ),
        )
        assert await answer(world.a, ONE, 30001, b"from a") == b"from a"
        assert await answer(world.b, TWO, 30001, b"from b") == b"from b"
        assert (first.peers, second.peers) == ([SHARED], [DEDICATED])


async def test_who_is_in_no_client_network_is_sent_away_from_everything(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7006, echo) as target, web_outside(world):
        serving.in_force(
            environment(forward(30001, 7006), tunnel=ONE, clients=["10.81.0.0/24"]),
            environment(forward(30001, 7006), tunnel=TWO, clients=["10.82.0.0/24"]),
        )
        world.outside.forget_seen()
        ask = b"CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n\r\n"
        for host, tunnel in ((world.stranger, ONE), (world.stranger, TWO), (world.a, TWO), (world.b, ONE)):
            for port in (30001, PROXY):
                assert await answer(host, tunnel, port, ask) == b""
        # Not even a name was asked for.
        assert world.outside.seen() == set()
        assert target.peers == []
        assert serving.refused("client-network", A)["environment"] == TWO
        assert await answer(world.a, ONE, 30001, b"hello") == b"hello"


async def test_what_bypasses_the_gateway_gets_nowhere(world: EgressWorld, serving: Serving) -> None:
    serving.in_force(environment(forward(30001, 7007)))
    world.outside.forget_seen()
    async with Service(world.outside, TARGET, 7007, echo):
        straight = world.a.socket()
        straight.settimeout(0.3)
        with straight, pytest.raises(OSError):
            straight.connect((TARGET, 7007))
    assert world.outside.seen() == set()


async def test_a_change_of_mode_cuts_no_connection(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7008, echo) as target:
        serving.in_force(environment(forward(30001, 7008)))
        async with dialled(world.a, ONE, 30001) as (reader, writer):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            serving.told(environment(forward(30001, 7008), kind="dedicatedEgressIp"))
            serving.leaves_from(ONE, DEDICATED)
            assert await answer(world.a, ONE, 30001, b"new") == b"new"
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"
        assert target.peers == [SHARED, DEDICATED]
