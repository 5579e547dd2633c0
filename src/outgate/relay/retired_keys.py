"""Destroy the private halves of signing keys that nothing can need any more.

Standards: none; design section 5.7: a key outlives the last message that it has to sign.
Promises: a key goes only when it was retired, or its configuration deleted, so long ago that no mail signed with it can
    be under way, and when the queue has none either: an operator's holds may be longer; what goes leaves memory too.
Dangers: what is destroyed is gone, but backups of the database still have it, sealed.
Not here: which key signs (`model.flow`), states of keys (`store.signing_keys`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn

_log = Log("outgate.signing")
_LOOK_S = 3600.0
_TOLD_S = 30 * 86_400.0
"""How much longer the customer is told that a record can be removed."""


class Keys(Protocol):
    """The control store's part (`store.signing_keys`); blocks."""

    def unneeded(self, before: float, limit: int = 500) -> Sequence[str]: ...

    def destroy(self, key_ids: Collection[str]) -> None: ...

    def forget(self, before: float) -> None: ...


class RetiredKeys:
    """Looks for such keys once an hour. Belongs to one event loop."""

    def __init__(
        self,
        keys: Keys,
        needed: Callable[[Collection[str]], Collection[str]],
        clock: Clock,
        *,
        keep_s: float,
        destroyed: Callable[[str], object],
    ) -> None:
        """`needed` says which of these keys sign mail that is in the queue (it blocks); `keep_s` is how many seconds a
        key stays after it was retired; `destroyed` is told of each that is gone."""
        self._keys = keys
        self._needed = needed
        self._clock = clock
        self._keep_s = keep_s
        self._destroyed = destroyed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = spawn(self._run(), "retired keys")

    async def stop(self) -> None:
        """Stop looking."""
        await cancel(self._task)

    async def look(self) -> None:
        """Destroy what can be destroyed now."""
        gone = await asyncio.to_thread(self._destroy)
        for key_id in gone:
            self._destroyed(key_id)
            _log.info("dkim.key_destroyed", key=key_id)

    def _destroy(self) -> list[str]:
        before = self._clock.now() - self._keep_s
        found = self._keys.unneeded(before)
        needed = frozenset(self._needed(found)) if found else frozenset[str]()
        gone = [key_id for key_id in found if key_id not in needed]
        if gone:
            self._keys.destroy(gone)
        self._keys.forget(before - _TOLD_S)
        return gone

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                _log.error("dkim.look_failed", error=repr(error))
            await asyncio.sleep(_LOOK_S)
