"""Targets as operators list them: `name:port`, or a name for each of its ports; an address in place of the name.

Standards: none.
Promises: pure; case, a dot at the end of a name and the spelling of an address do not matter.
Dangers: a name is one of several that lead to a place: whoever is judged by where a connection leads is asked for the
    address too.
Not here: what follows for a target (`plan`, `forwarder`, `http_proxy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from outgate.base import addresses

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ANY = 0


class Targets:
    """What a setting lists."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises `ValueError` for an entry that is none."""
        self._entries = frozenset(read(entry) for entry in entries)

    @property
    def names(self) -> frozenset[str]:
        """Return the names among them, without ports."""
        return frozenset(place for place, _ in self._entries if not _is_address(place))

    def has(self, place: str, port: int) -> bool:
        """Say whether a name or an address, in its one spelling, is listed for a port."""
        return (place, port) in self._entries or (place, _ANY) in self._entries


def read(entry: str) -> tuple[str, int]:
    """Return name or address in its one spelling, and the port, 0 for any. Raises `ValueError`."""
    text = entry.strip().lower()
    if text.count(":") > 1 and "]:" not in text:
        return addresses.of_one_host(text.removeprefix("[").removesuffix("]")), _ANY
    place, colon, port = text.rpartition(":") if ":" in text else (text, "", "")
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    if colon and not 0 < number < 65_536:
        raise ValueError(f"{entry!r} is not name:port: a port is a number from 1 to 65535")
    if place.startswith("[") or _is_address(place):
        return addresses.of_one_host(place.removeprefix("[").removesuffix("]")), number
    name = place.removesuffix(".")
    if not _NAME.fullmatch(name) or name.rpartition(".")[2].isdecimal():
        raise ValueError(f"{entry!r} is not name:port, address:port, or one of these without its port")
    return name, number


def _is_address(text: str) -> bool:
    try:
        addresses.plain(text)
    except ValueError:
        return False
    return True
