"""A reconciler over a control store and a bench, with proofs that a test decides."""

from __future__ import annotations

from typing import Any

from outgate.egress.plan import Terms
from outgate.egress.proving import Proving
from outgate.egress.reconcile import Reconciler
from outgate.egress.wanted import StoreWanted
from support.egress_peers import Bench
from support.egress_store import World


class Proofs:
    """Answers about addresses: proven unless `wrong` says why not; `asked` keeps who was asked for."""

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}
        self.asked: list[str] = []

    async def prove(self, address: str) -> str:
        self.asked.append(address)
        return self.wrong.get(address, "")


def reconciler_for(
    place: World,
    bench: Bench,
    *,
    poll_s: float = 3600.0,
    proofs: Proofs | None = None,
    interval_s: float = 300.0,
    **more: Any,
) -> Reconciler:
    """Return a reconciler, not started."""
    values: dict[str, Any] = {
        "wanted": StoreWanted(place.store, place.control.infrastructures, place.control.data_version),
        "engine": bench.engine,
        "terms": Terms(shared_addresses=("127.0.0.2",), exceptions=("127.0.0.0/8",)),
        "proving": Proving((proofs or Proofs()).prove, place.clock, interval_s=interval_s),
        "poll_s": poll_s,
    }
    return Reconciler(**values | more)
