"""The spool under any order of appends, ends, failures and restarts: the living always load to their bytes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from outgate.model.flow import Location
from outgate.store.spool import Spool, SpoolError

SEGMENT = 16 * 1024
bodies = st.tuples(st.integers(0, 255), st.sampled_from([0, 1, 50, 900, 4000, 9000, 16_000, 40_000]))


class SpoolLife(RuleBasedStateMachine):
    """A spool, and beside it what a database would know: places and bytes of the living."""

    records: Bundle[str] = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="outgate-spool-"))
        self.generations: dict[int, int] = {}
        self.living: dict[str, tuple[Location, bytes, bytes]] = {}
        self.dead: list[tuple[str, Location]] = []
        self.places: set[tuple[int, int, int]] = set()
        self.number = 0
        self.failing = ""
        self.spool = self.open()

    def open(self) -> Spool:
        live: dict[int, tuple[int, int]] = {}
        for place, _, _ in self.living.values():
            count, length = live.get(place.segment, (0, 0))
            live[place.segment] = (count + 1, length + place.length)
        return Spool(
            self.directory / "spool",
            SEGMENT,
            generations=self.generations,
            live=live,
            sync=self.sync,
            write=self.write,
        )

    def sync(self, descriptor: int) -> None:
        if self.failing == "sync":
            raise OSError(errno.EIO, "input/output error")

    def write(self, descriptor: int, buffers, offset: int) -> int:
        if self.failing == "write":
            os.pwritev(descriptor, buffers[: len(buffers) // 2], offset)
            raise OSError(errno.ENOSPC, "no space left")
        if self.failing == "short":
            whole = b"".join(buffers)
            return os.pwrite(descriptor, whole[: max(1, len(whole) * 2 // 3)], offset)
        return os.pwritev(descriptor, buffers, offset)

    def make(self, sizes: list[tuple[int, int]]) -> list[tuple[str, bytes, bytes]]:
        made = []
        for fill, size in sizes:
            self.number += 1
            made.append((f"Q{self.number}", b"trace %d\r\n" % self.number, bytes([fill]) * size))
        return made

    def keep(self, made, places) -> None:
        for (queue_id, trace, content), place in zip(made, places, strict=True):
            for _, other in ((q, p) for q, (p, _, _) in self.living.items()):
                apart = (
                    other.segment != place.segment
                    or other.offset + other.length <= place.offset
                    or place.offset + place.length <= other.offset
                )
                assert apart, "a record was put over a living one"
            key = (place.segment, place.generation, place.offset)
            assert key not in self.places, "a place was given twice"
            self.places.add(key)
            self.living[queue_id] = (place, trace, content)
        begun = self.spool.begun()
        self.generations.update(begun)
        self.spool.keep(begun)

    @rule(target=records, sizes=st.lists(bodies, min_size=1, max_size=6), short=st.booleans())
    def append(self, sizes, short):
        made = self.make(sizes)
        self.failing = "short" if short else ""
        self.keep(made, self.spool.append(made))
        self.failing = ""
        return multiple(*(queue_id for queue_id, _, _ in made))

    @rule(sizes=st.lists(bodies, min_size=1, max_size=4), failing=st.sampled_from(["write", "sync"]))
    def append_fails(self, sizes, failing):
        self.failing = failing
        try:
            self.spool.append(self.make(sizes))
        except OSError:
            pass
        else:
            raise AssertionError("a failure went unnoticed")
        finally:
            self.failing = ""

    @rule(sizes=st.lists(bodies, min_size=1, max_size=4))
    def append_without_rows(self, sizes):
        """The transaction failed: the records are given up, and their generations are not durable."""
        self.spool.discard(self.spool.append(self.make(sizes)))

    @rule(queue_id=consumes(records))
    def end(self, queue_id):
        if queue_id in self.living:
            place, _, _ = self.living.pop(queue_id)
            self.dead.append((queue_id, place))
            self.spool.discard([place])

    @rule()
    def copy_forward(self):
        for number in self.spool.sparse()[:1]:
            moved = [(q, *r) for q, r in self.living.items() if r[0].segment == number]
            copies = self.spool.append([(queue_id, trace, content) for queue_id, _, trace, content in moved])
            for queue_id, place, _, _ in moved:
                del self.living[queue_id]
                self.dead.append((queue_id, place))
            self.keep([(queue_id, trace, content) for queue_id, _, trace, content in moved], copies)
            self.spool.discard(place for _, place, _, _ in moved)

    @rule(unrecorded=st.lists(bodies, max_size=3))
    def crash(self, unrecorded):
        """Records may be in the files without rows; the generations they began are forgotten."""
        if unrecorded:
            self.spool.append(self.make(unrecorded))
        self.spool.close()
        self.spool = self.open()

    @invariant()
    def the_living_load_to_their_bytes(self):
        for queue_id, (place, trace, content) in self.living.items():
            assert self.spool.read(place, queue_id) == (trace, content)

    @invariant()
    def the_dead_never_load_as_another(self):
        for queue_id, place in self.dead[-5:]:
            try:
                trace, _ = self.spool.read(place, queue_id)
            except SpoolError:
                continue
            assert trace == b"trace %s\r\n" % queue_id[1:].encode()

    @invariant()
    def the_counts_are_right(self):
        wanted: dict[int, tuple[int, int]] = {}
        for place, _, _ in self.living.values():
            count, length = wanted.get(place.segment, (0, 0))
            wanted[place.segment] = (count + 1, length + place.length)
        assert self.spool.live() == wanted

    @invariant()
    def files_do_not_pile_up(self):
        used = {place.segment for place, _, _ in self.living.values()}
        assert len(list((self.directory / "spool").iterdir())) <= len(used) + 6

    def teardown(self):
        self.spool.close()
        shutil.rmtree(self.directory)


TestSpoolLife = SpoolLife.TestCase
TestSpoolLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
