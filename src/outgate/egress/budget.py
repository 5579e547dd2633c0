"""Count the source ports in use, per source address and target: each such pair has only so many.

Standards: Linux ip_local_port_range.
Promises: a socket counts from its making to its closing, whoever closes it; each pair that comes to the alert's share
    is warned of once, and again only after it has fallen well below.
Dangers: a closed connection may hold its port for another minute (TIME_WAIT): the count is the least in use.
Not here: what is done when there is none left (`reach`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outgate.base.log import Log
from outgate.egress.audit import endpoint

_log = Log("outgate.egress")
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL = (49152, 65535)  # RFC 6335, and macOS
_RECOVERED = 0.9

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Budget:
    """Of `most` ports that connections from `source` to `target`:`port` can have, `used` are in use."""

    source: str
    target: str
    port: int
    used: int
    most: int


def port_range() -> tuple[int, int]:
    """Return the first and the last port that this host chooses for connections."""
    try:
        first, last = _RANGE.read_text("ascii").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _USUAL


class Ports:
    """The count. Lives on one event loop."""

    def __init__(self, *, alert: float, limits: Callable[[], tuple[int, int]] = port_range) -> None:
        self._used: dict[Key, int] = {}
        self._limits = limits
        self._share = alert
        self._warned: set[Key] = set()
        self._most = self._count()
        self._alert = max(int(self._most * alert), 1)

    def budget(self) -> list[Budget]:
        """Return the count of each pair in use, the fullest first."""
        self._most = self._count()
        self._alert = max(int(self._most * self._share), 1)
        full = sorted(self._used.items(), key=lambda item: (-item[1], item[0]))
        return [Budget(*key, used, self._most) for key, used in full]

    def take(self, key: Key) -> None:
        """Count one more."""
        self._used[key] = used = self._used.get(key, 0) + 1
        if used >= self._alert and key not in self._warned:
            self._warned.add(key)
            _log.warning(
                "egress.source_ports",
                source=key[0],
                target=endpoint(key[1], key[2]),
                used=used,
                most=self._most,
                remedy="give the way more addresses, or widen net.ipv4.ip_local_port_range",
            )

    def give_back(self, key: Key) -> None:
        """Count one less."""
        used = self._used[key] - 1
        if used:
            self._used[key] = used
        else:
            del self._used[key]
        if used < self._alert * _RECOVERED and self._warned:
            self._warned.discard(key)

    def _count(self) -> int:
        first, last = self._limits()
        return max(last - first + 1, 1)


class Counted(socket.socket):
    """A socket that counts until it is closed, by whomever."""

    __slots__ = ("_key", "_ports")

    def __init__(self, ports: Ports, key: Key, family: int, kind: int) -> None:
        self._ports: Ports | None = None
        super().__init__(family, kind)
        self._ports = ports
        self._key = key
        ports.take(key)

    def close(self) -> None:
        """Close, and count no more."""
        super().close()
        ports, self._ports = self._ports, None
        if ports is not None:
            ports.give_back(self._key)
