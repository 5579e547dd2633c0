"""Whatever servers, routes, operators and chance do: each job ends once, nobody gets a message twice, nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from outgate.model.flow import Route
from outgate.relay.dialling import NoHost
from outgate.smtp.transaction import Step
from support.delivery_world import DOMAINS, JumpingLoop, World, undone

SEEDS = range(25)


def lived(seed: int, story: Callable[[World], Coroutine[Any, Any, None]], **limits: int) -> World:
    """Run a story to its end, in a world of its own."""
    world = World(seed, **limits)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(story(world))
    assert not world.store.errors, world.store.errors[:3]
    return world


async def bustle(world: World, messages: int) -> None:
    """Let mail come in for some minutes, while an operator meddles."""
    world.queue.start()
    chance = world.chance
    for _ in range(messages):
        domains = chance.sample(DOMAINS, chance.choice([1, 1, 2, 4]))
        lifetime = chance.choice([30.0, 600.0, 86_400.0])
        world.accept(domains, chance.choice([1, 2, 5]), chance.choice(["cfg", "large", "large"]), lifetime)
        if chance.random() < 0.3:
            world.meddle()
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.1, 5.0]))
        counted(world)


def counted(world: World) -> None:
    """What the queue counts is what it has handed on."""
    queue = world.queue
    for name, shares in queue._domains.items():
        assert shares[""] == sum(job.domain == name for job in queue._undone.values()) > 0
        assert all(count > 0 for count in shares.values()), shares
    assert all(count > 0 for count in queue._configurations.values())
    assert queue._configurations.total() == len(queue._undone)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_mail_ends_once_and_nothing_is_left_of_it(seed: int) -> None:
    async def story(world: World) -> None:
        await bustle(world, 60)
        world.kind = True
        for domain in DOMAINS:
            world.let_go(domain)
        for _ in range(40):  # up to two days: retries, pauses, expiry
            for domain in DOMAINS:
                world.let_go(domain)  # what was damaged too
            await asyncio.sleep(3600.0)
            if all(row.ends for row in world.store.rows.values()) and not undone(world).total():
                break
        left = {number: row for number, row in world.store.rows.items() if len(row.ends) != 1}
        assert not left, (len(left), list(left.items())[:2])
        assert dict(+undone(world)) == {}, dict(undone(world))
        await world.delivery.stop()
        await world.queue.stop()

    once(lived(seed, story))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_at_any_moment_loses_nothing_and_repeats_nothing(seed: int) -> None:
    async def story(world: World) -> None:
        await bustle(world, 10 + seed)
        await world.delivery.stop()
        await world.queue.stop()
        assert not [row for row in world.store.rows.values() if row.leased]
        await asyncio.sleep(600.0)  # for whatever was under way
        assert dict(+undone(world)) == {}, dict(undone(world))

    once(lived(seed, story))


def once(world: World) -> None:
    """Nobody got a message twice, but for a lost answer; and who got it is not told otherwise."""
    for row in world.store.rows.values():
        assert row.arrived <= 1 + row.lost_answers, row
        if row.arrived > row.lost_answers:
            assert [str(each) for each in row.ends] == ["delivered"], row


def test_a_pause_gives_back_what_waits_at_every_site_that_shares_the_pace() -> None:
    async def story(world: World) -> None:
        world.kind = True
        world.fixed = lambda job: world._route(replace(job, route="first"), "first")  # type: ignore[method-assign]
        world.has_others = lambda job, tried: False  # type: ignore[method-assign]

        async def refuses(route: Route, steps: list[Step]) -> NoHost:
            await asyncio.sleep(1.0)
            return NoHost("connection refused", "network", route.hosts[0])

        world.delivery.dialler.open = refuses  # type: ignore[assignment,method-assign]
        for _ in range(2):
            world.accept(["narrow.test"], 2)
            await asyncio.sleep(2.0)
        world.accept(["narrow.test"], 2)  # takes the one slot, and fails for the third time
        world.accept(["narrow.test"], 1)
        world.accept(["narrow.test"], 1)  # under another demand on TLS: waits for the slot
        await asyncio.sleep(2.0)
        assert dict(+undone(world)) == {}

    lived(0, story)


def test_with_one_slot_each_site_that_shares_it_has_its_turn() -> None:
    async def story(world: World) -> None:
        world.kind = True
        world.fixed = lambda job: world._route(replace(job, route="first"), "first")  # type: ignore[method-assign]
        for _ in range(40):
            world.accept(["narrow.test"], 1)  # an even number in its name, for its recipient has the odd one
        world.accept(["narrow.test"], 2)
        await asyncio.sleep(1.0)
        world.accept(["narrow.test"], 1)  # the other demand on TLS
        await asyncio.sleep(600.0)

    world = lived(0, story, room=500, per_domain=500)
    order = [int(attempt.queue_id[1:]) for attempt in world.store.attempts]
    assert len(order) == 42
    (turn,) = [place for place, number in enumerate(order) if number % 2 == 0]
    assert turn < 21, order  # it did not wait for all the others
