"""Names in the sandbox's zone that parts of ours publish: of open endpoint gateways, of dedicated addresses, of the
tunnel.

Standards: none; at the vendor's each VPC resolves them for itself, here there is one zone for all.
Promises: a record that somebody else put there stays as it is, whatever it holds; a name that no part has any more
    is no name, also after a crash: what an earlier run published is forgotten first.
Not here: the zone (`zone`), when a gateway is open (`relay.gateways`), which address is ready (`egress.reconcile`).
"""

from __future__ import annotations

from outgate.sandbox.zone import Zone


class PrivateNames:
    """Their A and AAAA records. Belongs to the zone's event loop."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        for name in zone.gateway_names():
            for rdtype in ("A", "AAAA"):
                entry = zone.get(name, rdtype)
                if entry is not None and entry.gateways:
                    zone.delete(name, rdtype)

    def publish(self, name: str, address: str) -> None:
        """Have a name lead to an address, beside those of others."""
        entry = self._zone.get(name, _rdtype(address))
        if entry is None:
            self._zone.put(name, _rdtype(address), [address], gateways=True)
        elif entry.gateways and address not in entry.values:
            self._zone.put(name, _rdtype(address), [*entry.values, address], gateways=True)

    def withdraw(self, name: str, address: str) -> None:
        """Have a name lead to an address no more."""
        entry = self._zone.get(name, _rdtype(address))
        if entry is None or not entry.gateways:
            return
        rest = [each for each in entry.values if each != address]
        if rest:
            self._zone.put(name, _rdtype(address), rest, gateways=True)
        else:
            self._zone.delete(name, _rdtype(address))


def _rdtype(address: str) -> str:
    return "AAAA" if ":" in address else "A"
