"""The addresses that deliveries leave from: are they this machine's now, and which of them is whose turn?

Standards: none; `bind` says what the system knows.
Promises: an address that is not there is suspended, told once and looked at again; nothing else takes its place than
another address of the same endpoint and family; a site leaves from the same one as long as that is there.
Dangers: binding says that the address is this machine's, not that a packet from it comes back.
Not here: connecting (`relay.dialling`), which family a host is of (`relay.routing`).
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.relay.endpoints import Endpoint

_log = Log("outgate.sources")
REMEDY = "give the address to an interface of this machine, or take it out of the endpoint's outgoing_addresses"


@dataclass(frozen=True, slots=True)
class Source:
    """One outgoing address: of which endpoints (ids), whether it is suspended and why, since when, when looked at."""

    address: str
    endpoints: tuple[str, ...]
    suspended: bool = False
    reason: str = ""
    since: float = 0.0
    checked_at: float = 0.0


def bound(address: str) -> str:
    """Bind `address` and let go of it; return "" if that can be done, else why not. Microseconds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.strerror or str(error)
    return ""


class Sources:
    """The outgoing addresses of all endpoints. Belongs to one event loop."""

    def __init__(self, endpoints: Iterable[Endpoint], clock: Clock, *, trouble: Callable[[str], str] = bound) -> None:
        """`trouble` says what keeps an address from being used, "" if nothing does."""
        self._clock = clock
        self._trouble = trouble
        owners: dict[str, list[str]] = {}
        self._of: dict[str, tuple[str, ...]] = {}
        for endpoint in endpoints:
            self._of[endpoint.id] = tuple(dict.fromkeys(endpoint.outgoing_addresses))
            for address in self._of[endpoint.id]:
                owners.setdefault(address, []).append(endpoint.id)
        now = clock.now()
        self._known = {address: Source(address, tuple(ids), since=now) for address, ids in owners.items()}
        self._watch: asyncio.Task[None] | None = None
        self.generation = 0
        """Grows with each change: what was chosen before may be another now."""

    @property
    def all(self) -> tuple[Source, ...]:
        """Return every address, in the order of the settings."""
        return tuple(self._known.values())

    def suspended(self, address: str) -> str:
        """Return why an address must not be used now, "" if it may."""
        found = self._known.get(address)
        return found.reason if found is not None and found.suspended else ""

    def choose(self, endpoint_id: str, target: str, site: str) -> str | None:
        """Return the address of an endpoint from which mail for `site` goes to `target` (an address), None if none of
        that family is there. A site keeps its address; when one goes, only its own sites change."""
        usable = [
            address
            for address in self._of.get(endpoint_id, ())
            if (":" in address) == (":" in target) and not self._known[address].suspended
        ]
        if len(usable) < 2:
            return usable[0] if usable else None
        return max(usable, key=lambda address: hashlib.blake2b(f"{site} {address}".encode(), digest_size=8).digest())

    def why_none(self, endpoint_id: str, target: str) -> str:
        """Say why `choose` has none for `target`, which addresses are suspended, and what to do."""
        family = [address for address in self._of.get(endpoint_id, ()) if (":" in address) == (":" in target)]
        kind = "IPv6" if ":" in target else "IPv4"
        if not family:
            return f"endpoint {endpoint_id} has no {kind} address to leave from: add one to its outgoing_addresses"
        return f"no {kind} address of endpoint {endpoint_id} can be left from ({', '.join(family)}): {REMEDY}"

    def lost(self, address: str, reason: str) -> None:
        """Suspend an address that could not be bound just now."""
        found = self._known.get(address)
        if found is not None and not found.suspended:
            self._note(found, reason)

    def check(self) -> None:
        """Look at every address now."""
        for found in self.all:
            self._note(found, self._trouble(found.address))

    def _note(self, found: Source, reason: str) -> None:
        now = self._clock.now()
        if bool(reason) == found.suspended:
            self._known[found.address] = replace(found, checked_at=now, reason=reason)
            return
        self._known[found.address] = replace(found, suspended=bool(reason), reason=reason, since=now, checked_at=now)
        self.generation += 1
        about = {"address": found.address, "endpoints": list(found.endpoints)}
        if reason:
            _log.warning("source.suspended", **about, reason=reason, remedy=REMEDY)
        else:
            _log.info("source.restored", **about, suspended_s=round(now - found.since, 3))

    def start(self, every_s: float) -> None:
        """Look now, and again every so many seconds."""
        self.check()
        self._watch = spawn(self._again(every_s), "sources")

    async def _again(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self.check()

    async def stop(self) -> None:
        """Look no more."""
        await cancel(self._watch)
