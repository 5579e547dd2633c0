"""The private names of endpoints in the sandbox's zone: they lead to the addresses of the gateways that are open.

Standards: none; at the vendor's each VPC resolves them for itself, here there is one zone for all.
Promises: a record that somebody else put there stays as it is, whatever it holds; a name that no gateway has any more
    is no name, also after a crash: what an earlier run published is forgotten first.
Not here: the zone (`zone`), when a gateway is open (`relay.gateways`).
"""

from __future__ import annotations

from outgate.sandbox.zone import Zone


class PrivateNames:
    """The A records of gateways. Belongs to the zone's event loop."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        for name in zone.gateway_names():
            zone.delete(name, "A")

    def publish(self, name: str, address: str) -> None:
        """Have a name lead to an address, beside those of other gateways."""
        entry = self._zone.get(name, "A")
        if entry is None:
            self._zone.put(name, "A", [address], gateways=True)
        elif entry.gateways and address not in entry.values:
            self._zone.put(name, "A", [*entry.values, address], gateways=True)

    def withdraw(self, name: str, address: str) -> None:
        """Have a name lead to an address no more."""
        entry = self._zone.get(name, "A")
        if entry is None or not entry.gateways:
            return
        rest = [each for each in entry.values if each != address]
        if rest:
            self._zone.put(name, "A", rest, gateways=True)
        else:
            self._zone.delete(name, "A")
