"""Any schedule of writes, pauses, reads and half-closes: the pump delivers exactly the octets, in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.egress.poll import EpollPoller, LoopPoller
from outgate.egress.pump import Ended, Pump
from support.pollers import connected

SIDES = ("client", "target")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(SIDES), st.sampled_from((1, 100, 5_000, 65_536, 65_537, 500_000))),
        st.tuples(st.just("read"), st.sampled_from(SIDES), st.sampled_from((1, 1_000, 65_536, 1_000_000))),
        st.tuples(st.just("end"), st.sampled_from(SIDES), st.just(0)),
        st.tuples(st.just("pause"), st.just(""), st.integers(1, 4)),
    ),
    max_size=25,
)
PATTERN = bytes(range(251)) * 4_000


class Side:
    """A peer: what it has written, and what it has read so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wrote = 0
        self.read = bytearray()
        self.ended = False

    def write(self, count: int) -> None:
        """Write what the system takes, from where the pattern stands."""
        if self.ended:
            return
        start = self.wrote % 251
        try:
            self.wrote += self.sock.send(PATTERN[start : start + count])
        except BlockingIOError:
            pass

    def take(self, count: int) -> bool:
        """Read what there is; return whether the other side has ended."""
        try:
            data = self.sock.recv(count)
        except BlockingIOError:
            return False
        self.read += data
        return not data

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.sock.shutdown(socket.SHUT_WR)


async def play(new_poller: Callable[[asyncio.AbstractEventLoop], Any], steps: list[tuple[str, str, int]]) -> None:
    poller = new_poller(asyncio.get_running_loop())
    pump = Pump(poller, idle_timeout_s=600)
    client, near_client = connected()
    target, near_target = connected()
    ends: list[Ended] = []
    pump.join(near_client, near_target, ended=ends.append)
    sides = {"client": Side(client), "target": Side(target)}
    for what, name, number in steps:
        if what == "pause":
            for _ in range(number):
                await asyncio.sleep(0)
        elif what == "write":
            sides[name].write(number)
        elif what == "read":
            sides[name].take(number)
        else:
            sides[name].end()
    for side in sides.values():
        side.end()
    over = dict.fromkeys(SIDES, False)
    async with asyncio.timeout(30):
        while not (all(over.values()) and ends):
            for name, side in sides.items():
                over[name] = over[name] or side.take(1_000_000)
            await asyncio.sleep(0)
    up, down = sides["client"].wrote, sides["target"].wrote
    assert [(how.up, how.down, how.reason) for how in ends] == [(up, down, "finished")]
    for got, sent in ((sides["target"].read, up), (sides["client"].read, down)):
        assert len(got) == sent
        assert bytes(got) == (PATTERN * (sent // len(PATTERN) + 1))[:sent]
    for side in sides.values():
        side.sock.close()
    pump.close()
    poller.stop()


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, edges=st.booleans(), uv=st.booleans())
def test_every_octet_arrives_in_order_and_the_ends_behind_them(
    steps: list[tuple[str, str, int]], edges: bool, uv: bool
) -> None:
    loop_factory = uvloop.new_event_loop if uv else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(play(EpollPoller if edges else LoopPoller, steps))
