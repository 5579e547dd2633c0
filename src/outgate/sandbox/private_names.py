"""The private names of endpoints in the sandbox's zone: they lead to the addresses of the gateways that are open.

Standards: none; at the vendor's each VPC resolves them for itself, here there is one zone for all.
Promises: a record that somebody else put there stays as it is; a name that no gateway has any more is no name.
Not here: the zone (`zone`), when a gateway is open (`relay.gateways`).
"""

from __future__ import annotations

from outgate.sandbox.zone import Zone


class PrivateNames:
    """The A records of gateways. Belongs to the zone's event loop."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._ours: set[tuple[str, str]] = set()

    def publish(self, name: str, address: str) -> None:
        """Have a name lead to an address, beside those of other gateways."""
        entry = self._zone.get(name, "A")
        if entry is None:
            self._zone.put(name, "A", [address])
        elif address not in entry.values:
            if not entry.values or any((name, each) not in self._ours for each in entry.values):
                return  # somebody's own record
            self._zone.put(name, "A", [*entry.values, address])
        self._ours.add((name, address))

    def withdraw(self, name: str, address: str) -> None:
        """Have a name lead to an address no more."""
        self._ours.discard((name, address))
        entry = self._zone.get(name, "A")
        if entry is None or address not in entry.values:
            return
        rest = [each for each in entry.values if each != address]
        if rest:
            self._zone.put(name, "A", rest, entry.ttl)
        else:
            self._zone.delete(name, "A")
