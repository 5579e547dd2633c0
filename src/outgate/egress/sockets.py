"""What is set of TCP sockets here, and asked of them.

Standards: Linux tcp(7) (TCP_INFO, keep-alive), IP_BIND_ADDRESS_NO_PORT; RFC 1122 section 4.2.3.6 (keep-alive).
Promises: an IPv4-mapped address is the IPv4 address it is, wherever a socket's name is read.
Not here: who connects (`reach`), who listens (`listeners`), copying (`pump`).
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from outgate.base import addresses

CLOSED, CLOSE_WAIT = 7, 8
"""States of TCP, as Linux numbers them: the peer has reset the connection; it has closed its side."""
# Not in every Python's socket module; the number is Linux's own.
_IP_BIND_ADDRESS_NO_PORT = 24
LINUX = sys.platform == "linux"
_KEEPIDLE: int = getattr(socket, "TCP_KEEPIDLE", 0x10)  # macOS calls it TCP_KEEPALIVE, 0x10

Key = tuple[str, int]
"""Address and port."""


def plain(name: tuple[Any, ...]) -> Key:
    """Return address and port of a socket's name."""
    address: str = name[0]
    # Nearly all are IPv4 ones, which need no reading.
    return addresses.plain(address) if address.startswith("::ffff:") else address, name[1]


def tune(sock: socket.socket, keepalive_s: int) -> None:
    """Set a socket that is to be connected: no delay, keep-alive, a port that is free towards its very target."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, keepalive_s)
    if LINUX:
        # The port is chosen at connect, per destination: else an address has 28,000 connections in all.
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)


def keep_alive(sock: socket.socket, seconds: int) -> None:
    """Have TCP ask a silent peer whether it lives, every `seconds`. What a listener accepts takes after it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, _KEEPIDLE, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)


def state(sock: socket.socket) -> int:
    """Return in which state of TCP a connection is, 0 where the system does not tell.

    Reading would not do: an end is hidden behind octets that nobody may take yet."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if LINUX else 0
    except OSError:
        return 0
