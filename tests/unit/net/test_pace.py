"""The pace of packets: evenly spaced per server and over all, in order, with bounded memory."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from outgate.net.pace import Pace


async def stamps(pace: Pace, servers: list[str]) -> list[tuple[str, float]]:
    passed: list[tuple[str, float]] = []

    async def one(server: str) -> None:
        await pace.turn(server)
        passed.append((server, time.monotonic()))

    await asyncio.gather(*(one(server) for server in servers))
    return passed


async def test_turns_for_one_server_are_spaced() -> None:
    passed = await stamps(Pace(per_server=200, overall=1e6), ["a"] * 6)
    assert passed[-1][1] - passed[0][1] >= 5 * 0.005 - 0.001


async def test_turns_over_all_servers_are_spaced() -> None:
    passed = await stamps(Pace(per_server=1e6, overall=200), [str(number) for number in range(6)])
    assert passed[-1][1] - passed[0][1] >= 5 * 0.005 - 0.001


async def test_a_busy_server_holds_no_other_up() -> None:
    passed = await stamps(Pace(per_server=20, overall=1e6), ["a", "a", "b", "c"])
    assert [server for server, _ in passed] == ["a", "b", "c", "a"]


async def test_turns_come_in_the_order_of_asking() -> None:
    pace = Pace(per_server=1000, overall=1e6)
    order: list[int] = []

    async def one(number: int) -> None:
        await pace.turn("a")
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(10)))
    assert order == list(range(10))


async def test_one_who_gives_up_costs_no_turn() -> None:
    pace = Pace(per_server=50, overall=1e6)
    await pace.turn("a")
    waiting = asyncio.ensure_future(pace.turn("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    start = time.monotonic()
    await pace.turn("a")
    await pace.turn("b")
    assert time.monotonic() >= start


async def test_servers_that_are_idle_are_forgotten() -> None:
    pace = Pace(per_server=1e9, overall=1e9, remembered=10)
    for number in range(100):
        await pace.turn(str(number))
    assert len(pace._gates) <= 11


async def test_servers_in_use_are_kept_beyond_that() -> None:
    pace = Pace(per_server=1, overall=1e9, remembered=2)
    for number in range(10):
        await pace.turn(str(number))
    late = asyncio.ensure_future(pace.turn("0"))
    await asyncio.sleep(0)
    assert not late.done()  # its first turn was not forgotten
    late.cancel()


def test_a_pace_is_positive() -> None:
    for values in ({"per_server": 0}, {"overall": -1}):
        with pytest.raises(ValueError, match="greater than 0"):
            Pace(**values)


async def test_spacing_holds_pairwise() -> None:
    pace = Pace(per_server=500, overall=1e6)
    at: list[float] = []
    for _ in range(8):
        await pace.turn("a")
        at.append(time.monotonic())
    # The next turn is counted from just before the stamp of this one.
    assert all(later - earlier >= 0.002 - 0.0005 for earlier, later in pairwise(at))
