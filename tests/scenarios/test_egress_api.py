"""The egress of a real `outgate dev` by the Cloud Manager API, between hosts: states move as the engine really gets
there, and what leaves is what the API shows.

Needs root, `ip` and `nft` (tests/packages.sh installs them). `outgate dev` runs on the gateway; its sandbox zone is the
resolver.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from outgate.connection import Refusal
from support.egress_peers import echo
from support.egress_world import (
    DEDICATED,
    OTHER,
    SHARED,
    TARGET,
    TUNNELS,
    EgressWorld,
    Service,
    answer,
    dial,
    dialled,
    egress_world,
    forward,
    rest,
)
from support.hosts import listening
from support.network_bodies import POLICY
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario

FLEXIBLE, DEDICATED_KIND, VPN = "flexiblePortEgress", "dedicatedEgressIp", "vpn"
POOL = [DEDICATED, "198.51.100.21", "198.51.100.22", "198.51.100.23"]
EXTERNAL = "external.example"
DRAIN_S = 1.5
_numbers = itertools.count(1)


class Gateway(Running):
    """`outgate dev` on the gateway."""

    def __init__(self, world: EgressWorld, data: Path) -> None:
        settings = (
            f"shared_addresses = ['{SHARED}']\ndedicated_addresses = {POOL}\nproof_interval_s = 0.3\n"
            f"drain_s = {DRAIN_S}\n"
            f"tunnel_network = '{TUNNELS}'\nclient_networks = ['10.81.0.0/24']\nexternal_domain = '{EXTERNAL}'\n"
        )
        super().__init__(data, f"[egress]\n{settings}")
        self.world = world

    def start(self) -> Gateway:
        with self.world.gateway.inside():
            super().start()
        for name, address in self.world.names.items():
            self.call("PUT", self.api.sandbox(f"zone/{name}/A"), {"values": [address], "ttl": 0})
        return self

    def call(self, method: str, place: str, body: object = None) -> Any:
        """Call the Cloud Manager API (`/api/…`), or a whole URL."""
        url = place if place.startswith("http") else f"{self.dev['cloud_manager_url']}{place}"
        with self.world.gateway.inside():
            return self.api.call(method, url, body)

    def refused(self, method: str, place: str, body: object = None) -> Refusal:
        """Call what must be refused, and return how."""
        with pytest.raises(Refusal) as refusal:
            self.call(method, place, body)
        return refusal.value

    def addresses(self, name: str) -> list[str]:
        """Return what the zone says of a name."""
        host, port = self.address("dns")
        with self.world.gateway.inside():
            reply = dns.query.udp(dns.message.make_query(name, "A"), host, 5.0, port)
        return [record.to_text() for rrset in reply.answer for record in rrset]

    def listening(self) -> set[tuple[str, int]]:
        return {place for place in listening(self.world.gateway) if place[0].startswith("10.88.0.")}


class Program:
    """A program with a production environment, made by the API."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        body = {"name": f"Program {next(_numbers)} {secrets.token_hex(3)}", "type": "aem_cloud_service"}
        tenant = gateway.call("GET", "/api/tenants")["_embedded"]["tenants"][0]["id"]
        self.id = gateway.call("POST", f"/api/tenant/{tenant}/programs", body)["id"]
        self.path = f"/api/program/{self.id}"
        self.environment("prod")

    def environment(self, kind: str = "dev") -> str:
        """Make an environment and return its path once it is ready."""
        body = {"name": f"{kind}-{secrets.token_hex(3)}", "type": kind, "region": "va7"}
        made = self.gateway.call("POST", f"{self.path}/environments", body)
        path = f"{self.path}/environment/{made['id']}"
        self.becomes(path, "ready")
        return path

    def becomes(self, path: str, status: str) -> dict[str, Any]:
        """Wait until what is there has a status, and return it."""
        return wait_for(lambda: self.gateway.call("GET", path), lambda found: found["status"] == status, 20)

    def infrastructure(self, kind: str, status: str = "ready", **fields: Any) -> str:
        """Make a network infrastructure and return its path once it has got to `status`."""
        body = {"kind": kind, "region": "va7", **fields}
        made = self.gateway.call("POST", f"{self.path}/networkInfrastructures", body)
        assert made["status"] == "creating"
        path = f"{self.path}/networkInfrastructure/{made['id']}"
        self.becomes(path, status)
        return path

    def without(self, infrastructure: str) -> None:
        """Take an infrastructure away, and wait until it is gone."""
        self.gateway.call("DELETE", infrastructure)

        def gone() -> bool:
            with contextlib.suppress(Refusal):
                self.gateway.call("GET", infrastructure)
                return False
            return True

        wait_for(gone, bool, 20)

    def network(self, environment: str, *forwards: dict[str, Any], status: str = "ready") -> dict[str, Any]:
        """Put advanced networking, wait for it, and return what the API shows of it."""
        put = self.gateway.call("PUT", f"{environment}/advancedNetworking", {"portForwards": list(forwards)})
        assert put["status"] == "updating"
        self.becomes(environment, status)
        return self.shown(environment)

    def shown(self, environment: str) -> dict[str, Any]:
        """Return the advanced networking of an environment."""
        listed = self.gateway.call("GET", f"{environment}/advancedNetworking")
        (found,) = listed["_embedded"]["networkingConfigurations"]
        return found

    def disable(self, environment: str) -> None:
        """Disable advanced networking, and wait for it."""
        self.gateway.call("DELETE", f"{environment}/advancedNetworking")
        self.becomes(environment, "ready")


@pytest.fixture(scope="module")
def world() -> Iterator[EgressWorld]:
    with egress_world() as made:
        for address in POOL[1:]:
            made.gateway.has(address, made.way_out)
        yield made


@pytest.fixture(scope="module")
def gateway(world: EgressWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    service = Gateway(world, tmp_path_factory.mktemp("dev") / "data")
    service.keep_ports()
    try:
        yield service.start()
    finally:
        assert service.stop() == 0


async def test_two_environments_with_one_port_orig_and_none_again(world: EgressWorld, gateway: Gateway) -> None:
    program = Program(gateway)
    program.infrastructure(FLEXIBLE)
    one, two = program.environment(), program.environment()
    async with (
        Service(world.outside, TARGET, 7301, echo) as first,
        Service(world.outside, OTHER, 7301, echo) as second,
    ):
        shown = program.network(one, forward(30001, 7301))
        other = program.network(two, forward(30001, 7301, "other.example"))
        tunnels = shown["tunnelAddress"], other["tunnelAddress"]
        assert tunnels[0] != tunnels[1] and all(tunnel.startswith("10.88.0.") for tunnel in tunnels)
        assert shown["egressAddresses"] == [SHARED]
        assert await answer(world.a, tunnels[0], 30001, b"one") == b"one"
        assert await answer(world.a, tunnels[1], 30001, b"two") == b"two"
        assert (first.peers, second.peers) == ([SHARED], [SHARED])
        assert await answer(world.stranger, tunnels[0], 30001, b"x") == b""
        program.disable(one)
        assert not {place for place in gateway.listening() if place[0] == tunnels[0]}
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, tunnels[0], 30001)
        assert await answer(world.a, tunnels[1], 30001, b"two") == b"two"
        assert len(first.peers) == 1


async def test_a_dedicated_address_is_seen_named_and_missed(world: EgressWorld, gateway: Gateway) -> None:
    program = Program(gateway)
    infrastructure = program.infrastructure(DEDICATED_KIND)
    environment = program.environment()
    async with Service(world.outside, TARGET, 7302, echo) as target:
        shown = program.network(environment, forward(30001, 7302))
        (address,) = shown["egressAddresses"]
        tunnel = shown["tunnelAddress"]
        assert address in POOL
        assert await answer(world.a, tunnel, 30001, b"one") == b"one"
        assert target.peers == [address]
        name = f"p{program.id}.{EXTERNAL}"
        assert gateway.addresses(name) == [address]

        world.gateway.loses(address, world.way_out)
        try:
            world.outside.forget_seen()
            with contextlib.suppress(ConnectionRefusedError):
                assert await answer(world.a, tunnel, 30001, b"two") == b""
            failed = program.becomes(infrastructure, "failed")
            assert address in failed["statusDetails"]["message"]
            with contextlib.suppress(ConnectionRefusedError):
                assert await answer(world.a, tunnel, 30001, b"two") == b""
            assert not {seen for seen in world.outside.seen() if seen[1] == 7302}
            assert gateway.addresses(name) == []
        finally:
            world.gateway.has(address, world.way_out)
        program.becomes(infrastructure, "ready")
        program.becomes(environment, "ready")
        assert await answer(world.a, tunnel, 30001, b"three") == b"three"
        assert target.peers == [address, address]
        assert gateway.addresses(name) == [address]


async def test_a_vpn_can_be_made_and_nothing_leaves(world: EgressWorld, gateway: Gateway) -> None:
    program = Program(gateway)
    connection = {
        "name": "office",
        "gateway": {"address": OTHER, "addressSpace": ["10.151.0.0/16"]},
        "sharedKey": secrets.token_urlsafe(18),
        "ipsecPolicy": POLICY,
    }
    fields = {"addressSpace": ["10.104.0.0/26"], "dns": {"resolvers": ["10.151.0.53"]}, "connections": [connection]}
    world.outside.forget_seen()
    before = gateway.listening()
    infrastructure = program.infrastructure(VPN, "failed", **fields)
    reason = gateway.call("GET", infrastructure)["statusDetails"]["message"]
    assert "VPN" in reason
    environment = program.environment()
    refusal = gateway.refused("PUT", f"{environment}/advancedNetworking", {"portForwards": [forward(30001, 7303)]})
    assert refusal.status == 400 and reason in refusal.body
    assert gateway.listening() == before
    assert world.outside.seen() == set()


async def test_a_program_changes_its_mode(world: EgressWorld, gateway: Gateway) -> None:
    program = Program(gateway)
    infrastructure = program.infrastructure(FLEXIBLE)
    environment = program.environment()
    async with Service(world.outside, TARGET, 7304, echo) as target:
        tunnel = program.network(environment, forward(30001, 7304))["tunnelAddress"]
        assert await answer(world.a, tunnel, 30001, b"flexible") == b"flexible"
        # An infrastructure in use stays.
        assert gateway.refused("DELETE", infrastructure).status == 400
        program.disable(environment)
        program.without(infrastructure)
        assert gateway.refused("PUT", f"{environment}/advancedNetworking", {}).status == 400
        program.infrastructure(DEDICATED_KIND)
        shown = program.network(environment, forward(30001, 7304))
        assert shown["tunnelAddress"] == tunnel
        assert await answer(world.a, tunnel, 30001, b"dedicated") == b"dedicated"
        assert target.peers == [SHARED, *shown["egressAddresses"]]


async def test_a_port_that_is_taken_fails_the_environment_with_the_old_rules_in_force(
    world: EgressWorld, gateway: Gateway
) -> None:
    program = Program(gateway)
    program.infrastructure(FLEXIBLE)
    environment = program.environment()
    async with Service(world.outside, TARGET, 7305, echo), Service(world.outside, OTHER, 7305, echo) as other:
        tunnel = program.network(environment, forward(30001, 7305))["tunnelAddress"]
        new = (forward(30001, 7305, "other.example"), forward(30005, 7305, "other.example"))
        with world.gateway.listener(tunnel, 30005):
            shown = program.network(environment, *new, status="failed")
            assert f"{tunnel}:30005" in str(shown)
            assert await answer(world.a, tunnel, 30001, b"old") == b"old"
            assert other.peers == []
        program.becomes(environment, "ready")
        for port in (30001, 30005):
            assert await answer(world.a, tunnel, port, b"new") == b"new"
        assert other.peers == [SHARED, SHARED]


async def test_a_put_that_withdraws_a_forward_lets_its_connections_finish_in_time(
    world: EgressWorld, gateway: Gateway
) -> None:
    program = Program(gateway)
    program.infrastructure(FLEXIBLE)
    environment = program.environment()
    async with Service(world.outside, TARGET, 7307, echo):
        tunnel = program.network(environment, forward(30001, 7307), forward(30002, 7307))["tunnelAddress"]
        async with dialled(world.a, tunnel, 30001) as (busy, writer), dialled(world.a, tunnel, 30001) as (idle, other):
            for reader, to in ((busy, writer), (idle, other)):
                to.write(b"before")
                assert await reader.readexactly(6) == b"before"
            program.network(environment, forward(30002, 7307))
            with pytest.raises(ConnectionRefusedError):
                await dial(world.a, tunnel, 30001)
            writer.write(b"last words")
            writer.write_eof()
            assert await busy.read() == b"last words"
            assert await rest(idle) == b""
        assert await answer(world.a, tunnel, 30002, b"kept") == b"kept"


async def test_after_a_kill_the_same_rules_are_in_force_again(world: EgressWorld, gateway: Gateway) -> None:
    program = Program(gateway)
    program.infrastructure(DEDICATED_KIND)
    environment = program.environment()
    async with Service(world.outside, TARGET, 7306, echo) as target:
        shown = program.network(environment, forward(30001, 7306))
        before = gateway.listening()
        gateway.ports["proxy"] = gateway.address("http_proxy")[1]
        gateway.kill()
        assert gateway.listening() == set()
        gateway.start()
        # `ready` is said once all that can be in force is.
        assert gateway.listening() == before
        assert await answer(world.a, shown["tunnelAddress"], 30001, b"again") == b"again"
        assert target.peers == shown["egressAddresses"]
        assert program.shown(environment) == shown
