"""Hold queued mail of configurations that may not send for now, and let it go on when they may again.

Standards: design section 5.7: a suspended, withdrawn or deleted configuration's mail is held, never bounced for it.
Promises: what is due is not handed on while its configuration is held; expiry stands still meanwhile; what has been
    held for 14 days ends as `expired`; a restart changes nothing of that.
Dangers: the first job of a configuration reads the control store on the event loop: a fraction of a millisecond.
Not here: who is suspended (`relay.standing`), new mail of such a configuration (`relay.policy`), rows (`store`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn

_log = Log("outgate.holds")

REASONS = ("suspended", "withdrawn", "deleted")
WORDS = {
    "suspended": "held: the domain is suspended, because its DNS records no longer let us send for it",
    "withdrawn": "held: the configuration's authorisation has been withdrawn",
    "deleted": "held: the configuration has been deleted",
}
_RELEASED = "released: the configuration may send again"
_ENDED = "held for as long as mail is held"
_LOOK_S = 60.0
_KNOWN = 10_000


class HeldRows(Protocol):
    """The queue's part (`store.sqlite`); every method blocks."""

    def hold_waiting(self, smtp_config_id: str, reason: str, words: str, now: float) -> int: ...

    def release_held(self, smtp_config_id: str, reasons: Sequence[str], words: str, now: float) -> int: ...

    def expire_held(self, reasons: Sequence[str], before: float, words: str, now: float) -> int: ...

    def held_configurations(self, reasons: Sequence[str]) -> list[str]: ...


class Holds:
    """Which configurations are held, as of the last change. Belongs to one event loop."""

    def __init__(
        self,
        rows: HeldRows,
        states: Callable[[Sequence[str]], Mapping[str, str]],
        clock: Clock,
        *,
        released: Callable[[], object],
        longest_s: float,
    ) -> None:
        """`states` says which of these configurations are held and why; `released` is called when something is due
        again; `longest_s` is how many seconds mail is held at most."""
        self._rows = rows
        self._states = states
        self._clock = clock
        self._released = released
        self._longest_s = longest_s
        self._known: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def reason(self, smtp_config_id: str) -> str:
        """Return why a configuration's mail is held: one of `REASONS`, or "" if it is not."""
        found = self._known.get(smtp_config_id)
        if found is None:
            if len(self._known) >= _KNOWN:  # those that are held are few, and must be noticed when they are no more
                self._known = {key: why for key, why in self._known.items() if why}
            found = self._known[smtp_config_id] = self._states([smtp_config_id]).get(smtp_config_id, "")
        return found

    async def start(self) -> None:
        """Take up what an earlier run held, and begin to watch how long things are held."""
        held = await asyncio.to_thread(self._rows.held_configurations, REASONS)
        # Held when we stopped; whether they still are is looked at now.
        self._known |= dict.fromkeys(held, "unknown")
        await self.changed()
        self._task = spawn(self._run(), "holds")

    async def stop(self) -> None:
        """Stop watching."""
        await cancel(self._task)

    async def changed(self) -> None:
        """Look at the control store again: hold what is newly to be held, release what no longer is."""
        async with self._turn:
            before = dict(self._known)
            if not before:
                return
            states = await asyncio.to_thread(self._states, list(before))
            for smtp_config_id, was in before.items():
                now_is = states.get(smtp_config_id, "")
                self._known[smtp_config_id] = now_is
                if now_is and now_is != was:
                    await self._hold(smtp_config_id, now_is)
                elif was and not now_is:
                    await self._release(smtp_config_id)

    async def expire(self) -> None:
        """End what has been held for too long."""
        now = self._clock.now()
        async with self._turn:
            count = await asyncio.to_thread(self._rows.expire_held, REASONS, now - self._longest_s, _ENDED, now)
        if count:
            _log.warning("hold.expired", recipients=count, after_s=self._longest_s)

    async def _hold(self, smtp_config_id: str, reason: str) -> None:
        now = self._clock.now()
        count = await asyncio.to_thread(self._rows.hold_waiting, smtp_config_id, reason, WORDS[reason], now)
        _log.info("hold.begun", smtp_config_id=smtp_config_id, reason=reason, recipients=count)

    async def _release(self, smtp_config_id: str) -> None:
        now = self._clock.now()
        count = await asyncio.to_thread(self._rows.release_held, smtp_config_id, REASONS, _RELEASED, now)
        _log.info("hold.released", smtp_config_id=smtp_config_id, recipients=count)
        if count:
            self._released()

    async def _run(self) -> None:
        while True:
            try:
                await self.expire()
            except Exception as error:
                _log.error("hold.look_failed", error=repr(error))
            await asyncio.sleep(_LOOK_S)
