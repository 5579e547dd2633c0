"""Where the engine learns what is wanted, and where it tells how it got on: the control store, or a file of rules.

Standards: none.
Promises: what a source returns is one consistent view; what the engine tells of a generation that is no longer wanted
    changes nothing.
Dangers: all methods but `changes` may block: on an event loop they go to a thread.
Not here: the file (`rules_file`), statements (`store.egress`, `store.infrastructures`), putting into force
    (`reconcile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from outgate.model.egress import EgressTarget, NetworkInfrastructure
from outgate.store.egress import EgressQueries
from outgate.store.infrastructures import FAILED, READY, InfrastructureQueries


class Wanted(Protocol):
    """A source of what is wanted."""

    def changes(self) -> object:
        """Return something that differs once anything has changed; cheap."""
        ...

    def targets(self) -> Sequence[EgressTarget]:
        """Return every environment as it must be served."""
        ...

    def infrastructures(self) -> Sequence[NetworkInfrastructure]:
        """Return every way out, of all programs."""
        ...

    def settle(self, environment_id: str, generation: int | None, reason: str) -> bool:
        """Record how an environment's generation (None: nothing asked for) got on: "" is in force, else why not."""
        ...

    def settle_infrastructure(self, infrastructure_id: str, generation: int, reason: str) -> bool:
        """Record whether a way out can be used: "" is yes, else why not."""
        ...

    def finish_deletion(self, environment_id: str) -> bool:
        """Forget an environment that is `deleting`: nothing of it is in force any more."""
        ...

    def finish_infrastructure(self, infrastructure_id: str, generation: int) -> bool:
        """Forget a way out that is `deleting`: nothing leaves by it any more."""
        ...


class StoreWanted:
    """The control store as a source."""

    def __init__(
        self, egress: EgressQueries, infrastructures: InfrastructureQueries, changes: Callable[[], int]
    ) -> None:
        """`changes` returns a number that differs once anything in the store has changed."""
        self._egress = egress
        self._ways = infrastructures
        self.changes = changes
        self.targets = egress.targets
        self.settle = egress.settle
        self.infrastructures = infrastructures.all
        self.finish_infrastructure = infrastructures.finish_infrastructure

    def settle_infrastructure(self, infrastructure_id: str, generation: int, reason: str) -> bool:
        """Record whether a way out can be used."""
        status = FAILED if reason else READY
        return self._ways.settle_infrastructure(infrastructure_id, generation, status, reason)

    def finish_deletion(self, environment_id: str) -> bool:
        """Forget an environment that is `deleting`."""
        return self._egress.finish_deletion(environment_id)
