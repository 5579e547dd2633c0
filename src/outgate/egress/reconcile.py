"""Bring what is in force to what is wanted, again and again, and say how that went.

Standards: none.
Promises: an environment becomes `ready` only once the engine has applied its last change; one whose ports
    cannot be had becomes `failed` with the reason while its old forwards stay in force; a change by any process
    is noticed within `poll_s`;
    a port that could not be had is tried again at each poll.
Dangers: after a restart there are no old forwards to keep: what cannot be applied then is closed.
Not here: what is wanted (`store.egress`), the ruleset (`plan`), sockets (`engine`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.egress.engine import Engine, ListenError
from outgate.egress.plan import Planned, plan
from outgate.store.egress import EgressQueries

_log = Log("outgate.egress.reconcile")


class Reconciler:
    """Keep an engine in line with the store. Lives on the engine's event loop."""

    def __init__(
        self,
        *,
        store: EgressQueries,
        engine: Engine,
        shared_addresses: Sequence[str],
        proxy_protocol_targets: Collection[str],
        exceptions: Sequence[str] = (),
        changes: Callable[[], int],
        poll_s: float = 1.0,
    ) -> None:
        """`changes` returns a number that differs once anything in the store has changed (cheap)."""
        self._store = store
        self._engine = engine
        self._shared = tuple(shared_addresses)
        self._proxied = frozenset(proxy_protocol_targets)
        self._exceptions = tuple(exceptions)
        self._changes = changes
        self._poll_s = poll_s
        self._seen: int | None = None
        self._poked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passing = asyncio.Lock()
        self._served: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the first pass, so that everything that can be in force is; then keep at it."""
        self._loop = asyncio.get_running_loop()
        await self.reconcile()
        self._task = spawn(self._run(), "egress reconcile")

    def poke(self) -> None:
        """Look at the store now and not only at the next poll. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._poked.set)

    async def reconcile(self) -> None:
        """Make one pass: apply what is wanted, record each environment's state."""
        async with self._passing:
            # Read before the targets, so that a change in between is seen by the next poll.
            seen = await asyncio.to_thread(self._changes)
            targets = await asyncio.to_thread(self._store.targets)
            ruleset = plan(
                targets,
                shared_addresses=self._shared,
                proxy_protocol_targets=self._proxied,
                exceptions=self._exceptions,
            )
            results = await self._apply(ruleset.environments)
            wanted = {each.environment_id: each for each in ruleset.environments}
            states = {target.environment.id: target for target in targets}
            for environment_id, reason in results.items():
                planned, target = wanted[environment_id], states[environment_id]
                known = "" if target.networking is None else target.networking.reason
                if (target.environment.status, known) != ("failed" if reason else "ready", reason):
                    await self._settle(planned, reason)
            # A port that another program holds may come free without any change in the store: keep trying.
            stuck = any(reason and not wanted[environment_id].refusal for environment_id, reason in results.items())
            self._seen = None if stuck else seen

    async def close(self) -> None:
        """Stop reconciling. What is in force stays so until the engine is closed."""
        await cancel(self._task)

    async def _apply(self, environments: Sequence[Planned]) -> dict[str, str]:
        """Apply each environment; return for each why it failed, or "". Ports may move between environments."""
        for environment_id in self._served - {planned.environment_id for planned in environments}:
            await self._engine.apply(environment_id, ())
        self._served = {planned.environment_id for planned in environments}
        results: dict[str, str] = {}
        waiting = list(environments)
        while waiting:
            failed: list[Planned] = []
            for planned in waiting:
                reason = await self._apply_one(planned)
                results[planned.environment_id] = reason
                if reason and not planned.refusal:
                    failed.append(planned)
            # A port that one wants may have been given up by another in this very round.
            if len(failed) == len(waiting):
                break
            waiting = failed
        return results

    async def _apply_one(self, planned: Planned) -> str:
        try:
            await self._engine.apply(planned.environment_id, planned.forwards)
        except ListenError as error:
            return str(error)
        return planned.refusal

    async def _settle(self, planned: Planned, reason: str) -> None:
        settled = await asyncio.to_thread(self._store.settle, planned.environment_id, planned.generation, reason)
        if settled and reason:
            _log.warning("egress.failed", environment=planned.environment_id, reason=reason)
        elif settled:
            _log.info("egress.applied", environment=planned.environment_id, forwards=len(planned.forwards))

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._poked.wait()
            except TimeoutError:
                pass
            try:
                if self._poked.is_set() or await asyncio.to_thread(self._changes) != self._seen:
                    self._poked.clear()
                    await self.reconcile()
            except Exception as error:
                # The store may be busy or gone for a moment; what is in force stays, and the next poll tries again.
                self._seen = None
                _log.exception("egress.reconcile_failed", error=repr(error))
