"""One question in one datagram, and the first datagram back that answers it.

Standards: RFC 5452 sections 9 and 10 (a socket and a random port of its own for each question; what comes from
elsewhere, or does not fit, is no answer).
Promises: the socket is closed whatever happens; what does not answer is dropped unread and the waiting goes on.
Dangers: errors that a network reports (ICMP) are as easily forged as answers, so they are no answer either: only a
network of our own that cannot send ends the waiting early.
Not here: what is asked and what answers it (`net.dns`), asking over TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")

_LONGEST = 65_535
_AT_ONCE = 16
"""Datagrams that are looked at in one turn of the loop: a flood must not hold up everything else."""


async def ask(wire: bytes, address: str, port: int, seconds: float, read: Callable[[bytes], A | None]) -> A:
    """Send `wire` to `address`:`port` and return what `read` makes of the first datagram from there of which it does
    not return None. Raises `TimeoutError` after `seconds`, `OSError` if nothing can be sent, and what `read` raises."""
    loop = asyncio.get_running_loop()
    # A transport would do the same at three times the cost, and each recipient domain asks several questions.
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    answered: asyncio.Future[A] = loop.create_future()

    def look() -> None:
        for _ in range(_AT_ONCE):
            if answered.done():
                return
            try:
                answer = read(sock.recv(_LONGEST))
            except BlockingIOError:
                return
            except OSError:  # what the network says of the way there
                continue
            except Exception as error:
                answered.set_exception(error)
                return
            if answer is not None:
                answered.set_result(answer)

    def late() -> None:
        if not answered.done():
            answered.set_exception(TimeoutError())

    try:
        sock.setblocking(False)
        sock.connect((address, port))  # the kernel chooses a random port, and drops what comes from elsewhere
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            sock.send(wire)
        loop.add_reader(sock, look)
        timer = loop.call_later(seconds, late)
        try:
            return await answered
        finally:
            timer.cancel()
            loop.remove_reader(sock)
    finally:
        sock.close()
