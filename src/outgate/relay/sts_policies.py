"""MTA-STS policies as they are now: asked for, fetched, kept as long as they say, renewed before they end.

Standards: RFC 8461 sections 3.3 (fetching), 5.1 (policies that change), 10.2 (refresh before expiry).
Promises: a policy counts until its max_age has passed, over restarts too, whatever fails meanwhile; one fetch per
domain at a time; a fetch that failed is not repeated for five minutes; their number is bounded, the longest unused
goes first.
Dangers: the first fetch of a domain is as safe as DNS: who can hide the record hides the policy.
Not here: reading (`domains.mta_sts`), HTTPS (`net.http`), what comes of it (`relay.tls_rules`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.domains import mta_sts
from outgate.domains.ask import Question
from outgate.domains.mta_sts import Kept, Policy
from outgate.net.dns import Asker
from outgate.net.http import FetchFailed
from outgate.net.memory import Memory

_log = Log("outgate.sts")
_MOST = 5_000
_AT_ONCE = 50
_PAUSE_S = 300
"""How long a fetch that failed is not tried again (RFC 8461 section 3.3)."""
_DAILY_S = 86_400.0
_UNUSED_S = 30 * 86_400.0
"""How long a policy is renewed without being used."""
_LOOK_S = 60.0
_RENEWALS = 50


class Store(Protocol):
    """What keeps policies over restarts (`store.sts_rows`)."""

    def all(self) -> list[Kept]: ...

    def keep(self, kept: Kept) -> None: ...

    def drop(self, domains: Collection[str]) -> None: ...


class Documents(Protocol):
    """What fetches (`net.http`)."""

    async def text(self, host: str, path: str, limit: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A domain's policy, None if it has none; `note` says what went wrong on the way, "" for nothing."""

    policy: Policy | None
    note: str = ""


class StsPolicies:
    """All policies. Belongs to one event loop."""

    def __init__(self, store: Store, asker: Asker, documents: Documents, clock: Clock, *, most: int = _MOST) -> None:
        self._store = store
        self._asker = asker
        self._documents = documents
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._failed: Memory[str, tuple[str, str]] = Memory(clock, 10_000)
        self._fetching: dict[str, asyncio.Task[str]] = {}
        self._few = asyncio.Semaphore(_AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what an earlier run kept, and begin to renew."""
        for kept in await asyncio.to_thread(self._store.all):
            self._kept.setdefault(kept.domain, kept)
        self._task = spawn(self._renew_always(), "sts")

    async def stop(self) -> None:
        """Renew no more; give up what is being fetched."""
        for task in (self._task, *self._fetching.values()):
            if task is not None:
                await cancel(task)

    async def policy(self, domain: str) -> Found:
        """Return the policy of a recipient domain (A-labels) that counts now; fetch it if its record is new."""
        answer = await self._asker.ask(Question(f"_mta-sts.{domain}", "TXT"))
        wanted = mta_sts.policy_id(record for record in answer.records if isinstance(record, bytes))
        kept, note = self._current(domain), ""
        if wanted is not None and (kept is None or kept.id != wanted):
            # RFC 8461 section 5.1: an older policy counts only while the newer one cannot be had.
            note = await self._fetch(domain, wanted)
            kept = self._current(domain)
        if kept is None:
            return Found(None, f"{note}: as if there were none" if note else "")
        self._kept[domain] = replace(kept, used_at=self._clock.now())
        self._kept.move_to_end(domain)
        return Found(kept.policy, f"{note}: the one of before counts" if note else "")

    def _current(self, domain: str) -> Kept | None:
        kept = self._kept.get(domain)
        return kept if kept is not None and self._clock.now() < kept.expires_at else None

    async def _fetch(self, domain: str, wanted: str) -> str:
        """Fetch the policy that the record calls `wanted` and keep it; return "" or why it cannot be had for now."""
        known = self._failed.get(domain)
        if known is not None and known[0][0] == wanted:
            return known[0][1]
        task = self._fetching.get(domain)
        if task is None:
            task = self._fetching[domain] = spawn(self._try(domain, wanted), f"sts {domain}")
            task.add_done_callback(lambda _: self._fetching.pop(domain, None))
        # Shielded: others may wait for it too.
        return await asyncio.shield(task)

    async def _try(self, domain: str, wanted: str) -> str:
        try:
            async with self._few:
                text = await self._documents.text(f"mta-sts.{domain}", "/.well-known/mta-sts.txt", mta_sts.LONGEST)
            policy = mta_sts.read_policy(text)
        except (FetchFailed, mta_sts.BadPolicy) as error:
            note = f"MTA-STS policy {wanted} of {domain} cannot be had ({str(error)[:300]})"
            _log.info("sts.failed", domain=domain, policy_id=wanted, error=str(error)[:300])
            self._failed.keep(domain, (wanted, note), _PAUSE_S)
            return note
        now = self._clock.now()
        before = self._kept.get(domain)
        kept = Kept(domain, wanted, policy, now, now if before is None else before.used_at)
        self._kept[domain] = kept
        dropped = [self._kept.popitem(last=False)[0] for _ in range(len(self._kept) - self._most)]
        _log.info("sts.kept", domain=domain, policy_id=wanted, mode=policy.mode, max_age=policy.max_age)
        await self._write(kept, dropped)
        return ""

    async def _write(self, kept: Kept | None, dropped: list[str]) -> None:
        try:
            if kept is not None:
                await asyncio.to_thread(self._store.keep, kept)
            if dropped:
                await asyncio.to_thread(self._store.drop, dropped)
        except (SQLAlchemyError, OSError) as error:  # it counts for this run; the next one fetches it again
            _log.warning("sts.not_stored", error=type(error).__name__)

    # -- renewing -------------------------------------------------------------------------------------------

    async def _renew_always(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.renew()
            except Exception:
                _log.exception("sts.renew")

    async def renew(self) -> None:
        """Fetch again what is in use and has not been fetched for a day, or for half of its max_age; forget what has
        ended. What cannot be fetched stays as it is."""
        now = self._clock.now()
        ended = [kept.domain for kept in self._kept.values() if kept.expires_at <= now]
        for domain in ended:
            del self._kept[domain]
        if ended:
            await self._write(None, ended)
        due = [kept for kept in self._kept.values() if self._is_due(kept, now)][:_RENEWALS]
        for kept in due:
            answer = await self._asker.ask(Question(f"_mta-sts.{kept.domain}", "TXT"))
            wanted = mta_sts.policy_id(record for record in answer.records if isinstance(record, bytes))
            await self._fetch(kept.domain, wanted or kept.id)

    def _is_due(self, kept: Kept, now: float) -> bool:
        every = min(_DAILY_S, kept.policy.max_age / 2)
        in_use = now - kept.used_at < max(_UNUSED_S, kept.policy.max_age)
        return in_use and now - kept.fetched_at >= every and self._failed.get(kept.domain) is None
