"""Targets as operators list them: `name:port`, or a name for each of its ports; an address in place of the name.

Standards: none.
Promises: pure; case and a dot at the end do not matter.
Dangers: a name is one of several that lead to a place: whoever is judged by where a connection leads is asked for the
    address too.
Not here: what follows for a target (`plan`, `forwarder`, `http_proxy`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


class Targets:
    """What a setting lists."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(entry.lower().rstrip(".") for entry in entries)

    @property
    def names(self) -> frozenset[str]:
        """Return the names among them, without ports."""
        return frozenset(_name(entry) for entry in self._entries) - {""}

    def has(self, place: str, port: int) -> bool:
        """Say whether a name or an address is listed for a port."""
        return place in self._entries or (f"[{place}]:{port}" if ":" in place else f"{place}:{port}") in self._entries


def _name(entry: str) -> str:
    """Return the name of an entry, or "" for an address."""
    place, _, port = entry.rpartition(":")
    name = place if place and port.isdecimal() else entry
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        # An address whose last group was taken for a port.
        return "" if ":" in name or "[" in name else name.rstrip(".")
    return ""
