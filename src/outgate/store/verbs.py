"""The queue's doors for operators: what fits a scope, doing something to it, holds that stand.

Standards: none.
Promises: however much mail an order is for, submissions get their turn after each step of it; an order that is given
    again does nothing twice.
Dangers: everything here blocks, and an order for all of a large queue does for seconds.
Not here: statements (`verb_rows`, `depth`), what is under way and who may ask (`relay.operators`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from outgate.model.flow import Status
from outgate.model.operations import Done, Fate, Order, Scope, SiteDepth, Standing, StandingHold, Waiting, fate
from outgate.store import depth
from outgate.store.history import History
from outgate.store.verb_rows import Step, VerbRows

_T = TypeVar("_T")
_STEP = 250
"""Recipients that something is done to in one transaction: some 10 ms."""


class Transactions(Protocol):
    """Runs something in one transaction of the commit thread."""

    def __call__(self, function: Callable[[], _T], freed: Callable[[_T], Mapping[int, tuple[int, int]]], /) -> _T: ...


class Verbs:
    """Thread-safe. `rows` belong to the commit thread, where `transact` runs; `flush` has it write what waits."""

    def __init__(self, rows: VerbRows, history: History, transact: Transactions, flush: Callable[[], object]) -> None:
        self._rows = rows
        self._history = history
        self._transact = transact
        self._flush = flush

    def holds(self) -> Standing:
        """Return the holds that stand."""
        return self._transact(self._rows.holds, _nothing)

    def stand(self, hold: StandingHold) -> Standing:
        """Have a hold stand, also for what comes; return all that stand then."""

        def write() -> Standing:
            self._rows.stand(hold)
            return self._rows.holds()

        return self._transact(write, _nothing)

    def end(self, scope: Scope) -> tuple[list[StandingHold], Standing]:
        """End the holds that hold nothing but what is in `scope`; return those, and what stands still."""
        return self._transact(lambda: (self._rows.end(scope), self._rows.holds()), _nothing)

    def find(self, scope: Scope) -> list[int]:
        """Return the recipients of a scope that wait; by queue id, all there are."""
        self._flush()  # what was put aside a moment ago is among it
        return self._history.read(partial(depth.find, scope=scope))

    def obey(self, order: Order, numbers: Sequence[int]) -> Step:
        """Do to these recipients what is ordered, as they stand by then; return what it came to."""
        total = Step()
        for at in range(0, len(numbers), _STEP):
            step = self._transact(partial(self._rows.obey, order, numbers[at : at + _STEP]), _freed)
            total.done.add(step.done)
            total.configurations |= step.configurations
            total.sites |= step.sites
            total.under_way += step.under_way
        return total

    def weigh(self, order: Order, under_way: Collection[int]) -> Done:
        """Say what an order would come to, and do nothing."""
        counts, messages = self._history.read(partial(depth.weigh, scope=order.scope, under_way=under_way))
        done = Done(messages=messages[order.verb])
        for (status, leased, reason), count in counts.items():
            found = fate(order.verb, Status(status), leased=leased, reason=reason)
            done.add(
                Done(
                    changed=count if found is Fate.CHANGES else 0,
                    under_way=count if found is Fate.UNDER_WAY else 0,
                    held=count if found is Fate.HELD else 0,
                    final=count if found is Fate.FINAL else 0,
                )
            )
        return done

    def known(self, queue_ids: Sequence[str]) -> list[str]:
        """Return which of these messages there are."""
        return self._history.read(partial(depth.known, queue_ids=queue_ids))

    def waiting(self, scope: Scope, limit: int, offset: int) -> tuple[int, list[Waiting]]:
        """Return how many recipients of a scope wait and a page of them, as `depth.waiting`."""
        return self._history.read(partial(depth.waiting, scope=scope, limit=limit, offset=offset))

    def depth(
        self, scope: Scope, now: float, under_way: Mapping[str, int], *, by_age: bool, limit: int, offset: int
    ) -> tuple[int, Mapping[str, int], list[SiteDepth]]:
        """Return how many sites something waits for, the sums, and a page of sites, as `depth.depth`."""
        return self._history.read(
            partial(depth.depth, scope=scope, now=now, under_way=under_way, by_age=by_age, limit=limit, offset=offset)
        )


def _nothing(_answer: object) -> Mapping[int, tuple[int, int]]:
    return {}


def _freed(step: Step) -> Mapping[int, tuple[int, int]]:
    return step.freed
