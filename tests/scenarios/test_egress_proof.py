"""A dedicated address is proven between hosts: plumbed or not, bound without being there, rewritten on the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from outgate.egress.proof import Proof
from support.hosts import Host, World

DEDICATED = "203.0.113.5"
_COMMAND = "import typer; from outgate.cli.egress_witness import witness; typer.run(witness)"


@dataclass
class Place:
    """A gateway, and where the witness on the other host listens."""

    gateway: Host
    witness: str

    def prove(self, *, witness: bool = True, seconds: float = 10.0) -> str:
        async def nobody(name: str) -> Sequence[str]:
            raise AssertionError(name)

        with self.gateway.inside():
            proof = Proof(witness=self.witness if witness else "", resolve=nobody, seconds=seconds)
            return asyncio.run(proof.of(DEDICATED))


@pytest.fixture
def between() -> Iterator[Place]:
    with World() as world:
        gateway, outside = world.host("gateway"), world.host("outside")
        world.wire(gateway, "10.9.0.1/24", outside, "10.9.0.2/24")
        gateway.ip("route", "add", "default", "via", "10.9.0.2")
        outside.ip("route", "add", f"{DEDICATED}/32", "via", "10.9.0.1")
        with outside.inside():
            service = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, "--listen", "10.9.0.2:0"], stdout=subprocess.PIPE, text=True
            )
        assert service.stdout is not None
        try:
            yield Place(gateway, service.stdout.readline().removeprefix("witness at ").strip())
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(20) == 0
            service.stdout.close()


def test_an_address_is_proven_as_long_as_it_is_here_and_arrives_as_itself(between: Place) -> None:
    gateway = between.gateway
    assert f"{DEDICATED} is not an address of this host" in between.prove()
    gateway.has(DEDICATED)
    assert between.prove() == ""
    # A rule of somebody's rewrites what leaves: both addresses are named.
    gateway.nft(
        rules=f"""table ip somebody {{
          chain out {{ type nat hook postrouting priority 100; ip saddr {DEDICATED} oifname != lo snat to 10.9.0.1; }}
        }}
        """
    )
    reason = between.prove()
    assert f"from {DEDICATED} arrives at the witness as 10.9.0.1" in reason
    assert between.prove(witness=False) == "", "of that, this host alone knows nothing"
    gateway.nft("delete", "table", "ip", "somebody")
    assert between.prove() == ""
    gateway.loses(DEDICATED)
    assert "ip address add" in between.prove()


def test_that_a_socket_can_be_bound_proves_nothing(between: Place) -> None:
    between.gateway.sysctl(ipv4__ip_nonlocal_bind=1)
    reason = between.prove(witness=False, seconds=0.2)
    assert "ip_nonlocal_bind" in reason and f"ip address add {DEDICATED}/32" in reason


def test_a_way_back_that_leads_elsewhere_is_no_proof(between: Place) -> None:
    between.gateway.has(DEDICATED)
    between.gateway.nft(
        rules=f"""table ip lost {{
          chain in {{ type filter hook input priority 0; iifname != lo ip daddr {DEDICATED} drop; }}
        }}
        """
    )
    assert "the way back" in between.prove(seconds=0.2)
