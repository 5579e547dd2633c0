"""Ports of loopback that tests need beside those which they listen on themselves.

Promises: nobody who asks the system for any free port is given one of these, in whatever process; nor is another worker
    of the same run.
Dangers: a port that was free a moment ago is anybody's a moment later: use what is here instead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Iterator

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 19
_held: list[socket.socket] = []


def _block(first: int, each: int) -> Iterator[int]:
    """Give this worker's ports, each once. Other runs on this machine, if any, begin elsewhere."""
    return (first + _WORKER * each + (os.getpid() + number) % each for number in range(each))


# The system's own choice begins at 32768.
_reserved = _block(10_000, 1_000)
_forwards = _block(30_000, 40)


@functools.cache
def closed_port(address: str = "127.0.0.1") -> int:
    """Return a port that refuses connections as long as this process lives: it is held, and nobody listens."""
    _held.append(held := socket.socket())
    held.bind((address, 0))
    return int(held.getsockname()[1])


def reserved_port(address: str = "127.0.0.1") -> int:
    """Return a port, never the same twice, for a program that must be told where to listen, also after a restart."""
    return _next_free(_reserved, address)


def forward_port(address: str = "127.0.0.1") -> int:
    """Return a port, never the same twice, of those that a forward may have."""
    return _next_free(_forwards, address)


def _next_free(ports: Iterator[int], address: str) -> int:
    for port in ports:
        with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((address, port))
            with socket.create_server((address, port)):
                return port
    raise AssertionError(f"every port that this worker may use at {address} was given out, or is taken")
