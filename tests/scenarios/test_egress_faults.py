"""What goes wrong around the egress, between hosts: it closes rather than leaks, says why, and comes back.

Needs root, `ip` and `nft` (tests/packages.sh installs them).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

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
    B,
    EgressWorld,
    Service,
    Serving,
    answer,
    dial,
    egress_world,
    environment,
    forward,
    serving_in,
    through_proxy,
    web,
)
from support.running import wait_for

pytestmark = pytest.mark.scenario


@pytest.fixture(scope="module")
def world() -> Iterator[EgressWorld]:
    with egress_world() as made:
        yield made


@pytest.fixture(scope="module")
def serving(world: EgressWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_in(world, tmp_path_factory.mktemp("egress"), proof_interval_s=0.3) as made:
        yield made


async def test_a_dedicated_address_that_goes_away_closes_its_environment_until_it_is_back(
    world: EgressWorld, serving: Serving
) -> None:
    async with (
        Service(world.outside, TARGET, 7201, echo) as target,
        Service(world.outside, OTHER, 7202, echo) as other,
    ):
        dedicated = environment(forward(30001, 7201), kind="dedicatedEgressIp")
        flexible = environment(forward(30001, 7202, "other.example"), tunnel=TWO, clients=[f"{B}/32"])
        serving.in_force(dedicated, flexible)
        assert await answer(world.a, ONE, 30001, b"one") == b"one"
        world.gateway.loses(DEDICATED, world.way_out)
        try:
            world.outside.forget_seen()
            # At once nothing leaves ...
            for port in (30001, PROXY):
                with contextlib.suppress(ConnectionRefusedError):
                    ask = b"CONNECT target.example:7201 HTTP/1.1\r\nHost: target.example:7201\r\n\r\n"
                    said = await answer(world.a, ONE, port, ask)
                    assert b" 200 " not in said
            # ... and soon the reason is told.
            serving.failed(ONE, DEDICATED)
            assert not {seen for seen in world.outside.seen() if seen[1] == 7201}
            # Who leaves by another address is not touched.
            assert await answer(world.b, TWO, 30001, b"two") == b"two"
            assert other.peers == [SHARED]
        finally:
            world.gateway.has(DEDICATED, world.way_out)
        serving.await_force(dedicated, flexible)
        assert await answer(world.a, ONE, 30001, b"again") == b"again"
        assert set(target.peers) == {DEDICATED}


async def test_a_name_that_rebinds_to_what_is_private_ends_that_connection_only(
    world: EgressWorld, serving: Serving
) -> None:
    inside = Service(world.gateway, "127.0.0.1", 7203, web)
    async with inside, Service(world.outside, TARGET, 7203, web) as target:
        world.resolves("rebinding.example", TARGET)
        serving.in_force(environment(forward(30001, 7203, "rebinding.example"), forward(30002, 7203)))
        get = b"GET / HTTP/1.1\r\nHost: rebinding.example\r\n\r\n"
        assert b"200 OK" in await answer(world.a, ONE, 30001, get)
        for address in ("127.0.0.1", "10.82.0.2", "169.254.169.254", ONE):
            world.resolves("rebinding.example", address)
            assert await answer(world.a, ONE, 30001, get) == b""
            assert serving.refused("guard", address)["forward"]["name"] == "rebinding.example"
            status, _ = await through_proxy(world.a, ONE, "rebinding.example:7203", connect=True)
            assert status == 403
        assert inside.peers == []
        assert b"200 OK" in await answer(world.a, ONE, 30002, get)
        world.resolves("rebinding.example", TARGET)
        assert b"200 OK" in await answer(world.a, ONE, 30001, get)
        assert len(target.peers) == 3


async def test_a_port_that_another_program_holds_leaves_the_old_rules_and_is_named(
    world: EgressWorld, serving: Serving
) -> None:
    async with Service(world.outside, TARGET, 7204, echo), Service(world.outside, OTHER, 7205, echo) as other:
        old = environment(forward(30001, 7204))
        new = environment(forward(30001, 7205, "other.example"), forward(30005, 7205, "other.example"))
        serving.in_force(old)
        with world.gateway.listener(ONE, 30005):
            serving.told(new)
            serving.failed(ONE, f"{ONE}:30005")
            assert await answer(world.a, ONE, 30001, b"old") == b"old"
            assert other.peers == []
        serving.await_force(new)
        assert await answer(world.a, ONE, 30001, b"new") == b"new"
        assert await answer(world.a, ONE, 30005, b"new") == b"new"
        assert len(other.peers) == 2
        wait_for(lambda: serving.status(ONE)["reason"], lambda reason: reason == "", 20)


async def test_a_file_that_cannot_be_taken_leaves_the_old_rules(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7206, echo):
        good = environment(forward(30001, 7206))
        serving.in_force(good)
        for text, told in (
            ("{", "is not JSON"),
            (json.dumps({"environments": [environment(forward(1, 7206))]}), "portOrig"),
            (json.dumps({"environments": [environment(nonProxyHosts=["a.example"])]}), "nonProxyHosts"),
        ):
            before = len(serving.log.read_text())
            serving.rules.write_text(text)
            wait_for(lambda before=before: serving.log.read_text()[before:], lambda said, told=told: told in said, 20)
            assert await answer(world.a, ONE, 30001, b"old") == b"old"
        serving.in_force(good, environment(forward(30001, 7206), tunnel=TWO))


async def test_after_a_kill_the_same_rules_are_in_force_again(world: EgressWorld, serving: Serving) -> None:
    async with Service(world.outside, TARGET, 7207, echo) as target:
        rules = (
            environment(forward(30001, 7207)),
            environment(forward(30001, 7207), tunnel=TWO, clients=[f"{B}/32"], kind="dedicatedEgressIp"),
        )
        serving.in_force(*rules)
        places = serving.listening()
        reader, writer = await dial(world.a, ONE, 30001)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        serving.kill()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await dial(world.a, ONE, 30001)
        serving.start()
        wait_for(serving.listening, lambda found: found == places, 20)
        assert await answer(world.a, ONE, 30001, b"again") == b"again"
        assert await answer(world.b, TWO, 30001, b"again") == b"again"
        assert target.peers == [SHARED, SHARED, DEDICATED]
