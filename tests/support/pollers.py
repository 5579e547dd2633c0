"""Each event loop with each poller: what a test of the egress's data path must hold with."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from outgate.egress.poll import EpollPoller, LoopPoller

WAYS = [
    pytest.param(loop, poller, id=f"{loop_name}-{poller.__name__}")
    for loop_name, loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop))
    for poller in (EpollPoller, LoopPoller)
]


@dataclass(frozen=True)
class Verdict:
    """What a watch says."""

    on: bytes = b""
    back: bytes = b""
    done: bool = False
    end: str = ""


def on_all_ways(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test with each loop and each poller."""

    @functools.wraps(test)
    def run(*, new_loop: Any, new_poller: Any, **arguments: Any) -> None:
        async def whole() -> None:
            async with asyncio.timeout(60):
                await test(lambda: new_poller(asyncio.get_running_loop()), **arguments)

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(whole())

    parameters = list(inspect.signature(test).parameters.values())[1:]
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("new_loop", "new_poller")]
    run.__signature__ = inspect.Signature([*parameters, *keywords])  # type: ignore[attr-defined]
    return pytest.mark.parametrize(("new_loop", "new_poller"), WAYS)(run)


def connected() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    far.setblocking(False)
    near.setblocking(False)
    return far, near
