"""Tidy a queue when its thread has time: forget old mail, copy what lives out of segments that are mostly empty.

Standards: none.
Promises: one bounded step at a time, so that nobody waits longer than that; what fails is tried again later and stops
    nothing else; a record that cannot be read is left where it is, and its segment with it.
Dangers: everything here runs in the commit thread, between two batches.
Not here: statements (`purge_rows`, `queue_rows`), segments (`spool`), the thread (`sqlite`).
"""

from __future__ import annotations

import time

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.flow import Location
from outgate.store.queue_rows import QueueRows
from outgate.store.spool import Record, Spool, SpoolError

_log = Log("outgate.store.queue")

_PURGE_REST_S = 600.0
"""How long a sweep for old mail waits after the one before."""
_PURGE_PAUSE_S = 0.02
_COMPACT_REST_S = 5.0
_COMPACT_PAUSE_S = 0.2
_COMPACT_RECORDS = 64
_COMPACT_BYTES = 4 * 1024 * 1024


class Tidying:
    """What there is to tidy. Mail that has been done with for `retention_s` seconds is forgotten (None: never)."""

    def __init__(self, rows: QueueRows, spool: Spool, clock: Clock, retention_s: float | None) -> None:
        self._rows = rows
        self._spool = spool
        self._clock = clock
        self._retention_s = retention_s
        self._purge_at = self._compact_at = time.monotonic() + _COMPACT_REST_S
        self._unreadable: set[int] = set()

    def next_at(self) -> float | None:
        """Return when (monotonic seconds) something is to be done, None if nothing is."""
        planned = [self._compact_at] if self._compactable() else []
        if self._retention_s is not None:
            planned.append(self._purge_at)
        return min(planned, default=None)

    def step(self) -> None:
        """Do a step of what is due."""
        self._compact_in_time()
        self._purge_in_time()

    # --- forgetting ---

    def _purge_in_time(self) -> None:
        if self._retention_s is None or time.monotonic() < self._purge_at:
            return
        over = True
        try:
            _, over = self.purge(self._clock.now() - self._retention_s)
        except Exception as error:
            _log.error("queue.purge_failed", error=repr(error), remedy="tried again in some minutes")
        self._purge_at = time.monotonic() + (_PURGE_REST_S if over else _PURGE_PAUSE_S)

    def purge(self, before: float) -> tuple[int, bool]:
        """Forget some of what was done with before `before`; return how many messages, and whether that was all."""
        try:
            with self._rows.unhurried():
                return self._rows.purge.step(before)
        except BaseException:
            self._rows.purge.begin_again()
            raise

    # --- copying forward ---

    def _compactable(self) -> list[int]:
        return [number for number in self._spool.sparse() if number not in self._unreadable]

    def _compact_in_time(self) -> None:
        if time.monotonic() < self._compact_at:
            return
        moved = 0
        try:
            moved = self.compact()
        except Exception as error:
            _log.error("queue.compaction_failed", error=repr(error))
        self._compact_at = time.monotonic() + (_COMPACT_PAUSE_S if moved else _COMPACT_REST_S)

    def compact(self) -> int:
        """Copy some records of the emptiest segment into the current one and let their rows follow."""
        numbers = self._compactable()
        if not numbers:
            return 0
        records: list[Record] = []
        places: list[Location] = []
        total = 0
        for queue_id, place in self._rows.bodies(numbers[0], _COMPACT_RECORDS):
            try:
                trace, content = self._spool.read(place, queue_id)
            except SpoolError as error:
                _log.error("spool.record_unreadable", queue_id=queue_id, error=str(error))
                self._unreadable.add(numbers[0])
                continue
            records.append((queue_id, trace, content))
            places.append(place)
            total += place.length
            if total >= _COMPACT_BYTES:
                break
        if records:
            self._move(records, places)
        return len(records)

    def _move(self, records: list[Record], places: list[Location]) -> None:
        copies = self._spool.append(records)
        begun = self._spool.begun()
        try:
            with self._rows.transaction():
                self._rows.keep_generations(begun)
                self._rows.move((record[0], old, new) for record, old, new in zip(records, places, copies, strict=True))
        except BaseException:
            self._spool.discard(copies)
            raise
        self._spool.keep(begun)
        self._spool.discard(places)
