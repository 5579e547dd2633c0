"""The spool alone: what was synced is read back, nothing live is overwritten, trouble ends a segment."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from outgate.model.flow import Location
from outgate.store.spool import Spool, SpoolError

SEGMENT = 64 * 1024


def open_spool(directory: Path, generations=None, live=None, **options) -> Spool:
    return Spool(directory / "spool", SEGMENT, generations=generations or {}, live=live or {}, **options)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "spool").iterdir())


def test_records_come_back_as_they_went_in(tmp_path):
    spool = open_spool(tmp_path)
    records = [(f"Q{n}", b"trace %d\r\n" % n, bytes([n]) * (n * 37)) for n in range(20)]
    places = spool.append(records)
    for (queue_id, trace, content), place in zip(records, places, strict=True):
        assert spool.read(place, queue_id) == (trace, content)
    spool.close()


def test_one_sync_per_batch_and_it_comes_after_the_bytes(tmp_path):
    seen = []

    def sync(descriptor):
        seen.append(os.pread(descriptor, 4096, 0).count(b"OGs1"))
        os.fdatasync(descriptor)

    spool = open_spool(tmp_path, sync=sync)
    spool.append([(f"Q{n}", b"t", b"c") for n in range(10)])
    assert seen == [10]
    spool.close()


def test_every_batch_begins_on_a_block_of_its_own(tmp_path):
    spool = open_spool(tmp_path)
    first = spool.append([("Q1", b"", b"x" * 100), ("Q2", b"", b"y")])
    second = spool.append([("Q3", b"", b"z")])
    assert first[1].offset == first[0].offset + first[0].length
    assert second[0].offset == 4096
    spool.close()


def test_more_buffers_than_the_kernel_takes_and_short_writes(tmp_path):
    calls = []

    def write(descriptor, buffers, offset):
        assert len(buffers) <= 1024
        calls.append(len(buffers))
        whole = b"".join(buffers)
        return os.pwrite(descriptor, whole[: max(1, len(whole) // 2)] if len(calls) % 3 else whole, offset)

    spool = open_spool(tmp_path, write=write)
    records = [(f"Q{n}", b"t%d" % n, b"c" * (n % 40)) for n in range(600)]
    places = spool.append(records)
    assert len(calls) > 2
    for (queue_id, trace, content), place in zip(records, places, strict=True):
        assert spool.read(place, queue_id) == (trace, content)
    spool.close()


def test_a_batch_fills_several_segments_and_each_is_synced(tmp_path):
    synced = set()

    def sync(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        os.fdatasync(descriptor)

    spool = open_spool(tmp_path, sync=sync)
    places = spool.append([(f"Q{n}", b"", bytes([n]) * 20_000) for n in range(9)])
    used = {place.segment for place in places}
    assert len(used) == 3
    assert {os.path.basename(path) for path in synced} == {f"seg-{number:06d}" for number in used}
    for n, place in enumerate(places):
        assert spool.read(place, f"Q{n}") == (b"", bytes([n]) * 20_000)
    spool.close()


def test_a_message_larger_than_a_segment_has_one_of_its_own_that_goes_with_it(tmp_path):
    spool = open_spool(tmp_path)
    content = os.urandom(SEGMENT * 3)
    (place,) = spool.append([("BIG", b"t", content)])
    (other,) = spool.append([("Q1", b"t", b"c")])
    assert spool.read(place, "BIG") == (b"t", content)
    assert other.segment != place.segment
    spool.discard([place])
    assert files(tmp_path) == [f"seg-{other.segment:06d}"]
    spool.close()


def fill(spool: Spool, name: str) -> Location:
    """Fill a segment with one record."""
    return spool.append([(name, b"", b"x" * (SEGMENT - 100))])[0]


def test_a_segment_is_reused_in_place_with_the_next_generation_once_empty(tmp_path):
    spool = open_spool(tmp_path)
    first = fill(spool, "Q1")
    inode = (tmp_path / "spool" / "seg-000001").stat().st_ino
    second = fill(spool, "Q2")
    assert second.segment != first.segment  # the first still lives
    spool.discard([first])
    third = fill(spool, "Q3")
    assert (third.segment, third.generation) == (first.segment, first.generation + 1)
    assert (tmp_path / "spool" / "seg-000001").stat().st_ino == inode
    assert files(tmp_path) == ["seg-000001", "seg-000002"]
    with pytest.raises(SpoolError):
        spool.read(first, "Q1")
    assert spool.read(third, "Q3")[1] == b"x" * (SEGMENT - 100)
    spool.close()


def test_a_peak_gives_its_disk_space_back(tmp_path):
    spool = open_spool(tmp_path)
    places = [fill(spool, f"Q{n}") for n in range(12)]
    assert len(files(tmp_path)) == 12
    spool.discard(places[:-1])
    assert len(files(tmp_path)) == 5  # the current one and four to reuse
    # The numbers of deleted files are used again, with generations never used before.
    seen = {(place.segment, place.generation) for place in places}
    for n in range(12):
        place = fill(spool, f"R{n}")
        assert (place.segment, place.generation) not in seen
        seen.add((place.segment, place.generation))
    spool.close()


def test_generations_are_reported_until_they_are_durable(tmp_path):
    spool = open_spool(tmp_path, generations={1: 7})
    spool.append([("Q1", b"", b"c")])
    begun = spool.begun()
    assert begun == {1: 8}
    spool.keep(begun)
    assert spool.begun() == {}
    spool.close()


@pytest.mark.parametrize("position", ["magic", "generation", "owner", "trace length", "body", "header crc"])
def test_a_changed_byte_is_never_read_as_a_message(tmp_path, position):
    spool = open_spool(tmp_path)
    place, after = spool.append([("QUEUEID1", b"trace", b"content"), ("QUEUEID2", b"t", b"c")])
    offset = {
        "magic": 0,
        "generation": 4,
        "owner": 8,
        "trace length": 40,
        "header crc": 52,
        "body": place.length - 1,
    }
    path = tmp_path / "spool" / f"seg-{place.segment:06d}"
    with path.open("r+b") as file:
        file.seek(place.offset + offset[position])
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))
    with pytest.raises(SpoolError):
        spool.read(place, "QUEUEID1")
    assert spool.read(after, "QUEUEID2") == (b"t", b"c")
    spool.close()


def test_a_record_is_read_only_under_its_own_name_and_place(tmp_path):
    spool = open_spool(tmp_path)
    place, other = spool.append([("Q1", b"t", b"c"), ("Q2", b"t", b"c")])
    wrong = [
        (other, "Q1"),
        (Location(place.segment, place.generation + 1, place.offset, place.length), "Q1"),
        (Location(place.segment, place.generation, place.offset, place.length + 1), "Q1"),
        (Location(place.segment, place.generation, SEGMENT - 10, place.length), "Q1"),
        (Location(place.segment + 5, place.generation, place.offset, place.length), "Q1"),
    ]
    for location, queue_id in wrong:
        with pytest.raises(SpoolError):
            spool.read(location, queue_id)
    spool.close()


@pytest.mark.parametrize("failing", ["write", "sync"])
def test_after_a_failure_the_segment_takes_nothing_more(tmp_path, failing):
    broken = False

    def write(descriptor, buffers, offset):
        if broken and failing == "write":
            os.pwritev(descriptor, buffers[:1], offset)
            raise OSError(errno.ENOSPC, "no space left")
        return os.pwritev(descriptor, buffers, offset)

    def sync(descriptor):
        if broken and failing == "sync":
            raise OSError(errno.EIO, "input/output error")
        os.fdatasync(descriptor)

    spool = open_spool(tmp_path, write=write, sync=sync)
    (kept,) = spool.append([("Q1", b"t", b"kept")])
    broken = True
    with pytest.raises(OSError, match=r"no space|input/output"):
        spool.append([("Q2", b"t", b"lost")])
    broken = False
    (after,) = spool.append([("Q3", b"t", b"after")])
    assert after.segment != kept.segment
    assert spool.live() == {kept.segment: (1, kept.length), after.segment: (1, after.length)}
    assert spool.read(kept, "Q1") == (b"t", b"kept")
    assert spool.read(after, "Q3") == (b"t", b"after")
    # Once empty it is deleted, not reused.
    spool.discard([kept])
    assert files(tmp_path) == [f"seg-{after.segment:06d}"]
    spool.close()


def test_a_failure_in_the_second_segment_of_a_batch_takes_the_first_back(tmp_path):
    calls = 0

    def sync(descriptor):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "input/output error")

    spool = open_spool(tmp_path, sync=sync)
    with pytest.raises(OSError, match="input/output"):
        spool.append([(f"Q{n}", b"", b"x" * 40_000) for n in range(3)])
    assert spool.live() == {}
    spool.close()


def test_a_segment_that_cannot_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "no space left")

    spool = open_spool(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="no space"):
            spool.append([("Q1", b"t", b"c")])
    assert files(tmp_path) == []
    (place,) = spool.append([("Q1", b"t", b"c")])
    assert spool.read(place, "Q1") == (b"t", b"c")
    spool.close()


def test_a_file_system_without_preallocation_will_do(tmp_path, monkeypatch):
    def unsupported(descriptor, offset, length):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    spool = open_spool(tmp_path)
    (place,) = spool.append([("Q1", b"t", b"c")])
    assert spool.read(place, "Q1") == (b"t", b"c")
    spool.close()


def test_the_directory_is_synced_before_a_new_segment_is_used(tmp_path, monkeypatch):
    order = []
    real = os.fsync

    def fsync(descriptor):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    def sync(descriptor):
        order.append("data")
        os.fdatasync(descriptor)

    spool = open_spool(tmp_path, sync=sync)
    monkeypatch.setattr(os, "fsync", fsync)
    spool.append([("Q1", b"t", b"c")])
    assert order == ["spool", "data"]
    spool.close()


def test_reopening_never_writes_into_a_segment_that_lives(tmp_path):
    spool = open_spool(tmp_path)
    (place,) = spool.append([("Q1", b"t", b"c")])
    spool.close()
    spool = open_spool(tmp_path, generations={1: 1}, live={1: (1, place.length)})
    (other,) = spool.append([("Q2", b"t", b"c")])
    assert other.segment == 2
    assert spool.read(place, "Q1") == (b"t", b"c")
    spool.close()


def test_reopening_reuses_an_empty_segment_and_drops_odd_ones(tmp_path):
    spool = open_spool(tmp_path)
    spool.append([("Q1", b"t", b"c")])
    spool.close()
    (tmp_path / "spool" / "seg-000009").write_bytes(b"half made")
    spool = open_spool(tmp_path, generations={1: 1})
    (place,) = spool.append([("Q2", b"t", b"c")])
    assert (place.segment, place.generation) == (1, 2)
    assert files(tmp_path) == ["seg-000001"]
    spool.close()


def test_segments_that_are_mostly_empty_are_named(tmp_path):
    spool = open_spool(tmp_path)
    places = spool.append([(f"Q{n}", b"", b"x" * 5_000) for n in range(24)])
    full = [place for place in places if place.segment == 1]
    assert spool.sparse() == ()
    spool.discard(full[3:])  # 3 of 12 and their headers: 15,168 bytes of 65,536
    assert spool.sparse() == (1,)
    spool.close()


def test_a_segment_too_small_for_a_block_is_refused(tmp_path):
    with pytest.raises(ValueError, match="4096"):
        Spool(tmp_path / "spool", 100, generations={}, live={})


def test_a_queue_id_that_does_not_fit_is_refused(tmp_path):
    spool = open_spool(tmp_path)
    with pytest.raises(ValueError, match="queue id"):
        spool.append([("Q" * 33, b"", b"")])
    spool.close()
