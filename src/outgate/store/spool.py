"""Keep message bodies in append-only segment files: a checksum per record, one sync per batch.

Standards: none; content is the wire form (dot-stuffed, CR LF), see `model.flow`.
Promises: `append` returns only after the bytes are synced; a segment in which a record lives is never
    overwritten; `read` returns exactly the bytes that were appended or raises.
Dangers: after a failed write or sync nobody knows what the page cache holds, so that segment takes no more
    records and is deleted, not reused, once empty. A batch begins on a block of its own: no sync rewrites a
    block that holds something acknowledged. Only `read` may be called from another thread.
Not here: which record belongs to which message, and when its row is durable (`sqlite`).
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outgate.base.log import Log
from outgate.model.flow import Location

_log = Log("outgate.store.spool")

# magic, generation, queue id, length of trace, length of content, CRC of both, CRC of this header up to here
_HEADER = struct.Struct("<4sI32sIII")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CRC.size
_MAGIC = b"OGs1"
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_NAME = re.compile(r"seg-(\d{6,})")
_FREE_KEPT = 4
"""Empty segments kept for reuse; more than these are deleted, so a peak's disk space comes back."""

_IOV_MAX = 1024
"""Linux's and macOS's limit; POSIX promises 16 only, and no system that this runs on is content with that."""

Sync = Callable[[int], None]
Write = Callable[[int, Sequence[bytes], int], int]
Record = tuple[str, bytes, bytes]
"""(queue id, trace, content)"""

default_sync: Sync = getattr(os, "fdatasync", os.fsync)


class SpoolError(Exception):
    """A record is not what its row says it is. It must not be sent."""


@dataclass(slots=True)
class _Segment:
    """What is known of one segment. `size` 0: it has no file. `damaged`: it takes no more records."""

    number: int
    generation: int
    size: int = 0
    live: int = 0
    live_bytes: int = 0
    damaged: bool = False


class Spool:
    """The segments of one shard. One thread appends and counts; any thread may `read`.

    `generations` are the last durable ones by segment number; `live` gives (records, bytes) of the segments
    that rows point into. `sync` and `write` (as `os.pwritev`) are arguments so that failures can be tried.
    """

    def __init__(
        self,
        directory: Path,
        segment_bytes: int,
        *,
        generations: Mapping[int, int],
        live: Mapping[int, tuple[int, int]],
        sync: Sync = default_sync,
        write: Write = os.pwritev,
    ) -> None:
        if segment_bytes < _BLOCK:
            raise ValueError(f"a segment holds at least {_BLOCK} bytes")
        self._directory = directory
        self._segment_bytes = _rounded(segment_bytes)
        self._sync = sync
        self._write = write
        self._segments: dict[int, _Segment] = {n: _Segment(n, g) for n, g in generations.items()}
        self._begun: dict[int, int] = {}
        self._current: _Segment | None = None
        self._descriptor = -1
        self._position = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(directory.parent)
        self._find_files()
        for number, (count, length) in live.items():
            segment = self._segments.setdefault(number, _Segment(number, 0))
            segment.live, segment.live_bytes = count, length
        self._tidy()

    # --- writing ---

    def append(self, records: Sequence[Record]) -> list[Location]:
        """Write `records` and sync them; return where they lie, counted as live from now on.

        Raises `OSError` if any of it failed: then none counts as written."""
        locations: list[Location] = []
        done = 0
        try:
            while done < len(records):
                done += self._append_portion(records, done, locations)
        except BaseException:
            self._abandon()
            self.discard(locations)
            raise
        return locations

    def discard(self, locations: Iterable[Location]) -> None:
        """Count records that got no row as dead again."""
        for location in locations:
            self.release(location.segment, 1, location.length)

    def release(self, number: int, count: int, length: int) -> None:
        """Lower a segment's live records and bytes; call only once the rows that say so are durable."""
        segment = self._segments[number]
        segment.live -= count
        segment.live_bytes -= length
        if segment.live == 0 and segment is not self._current:
            self._tidy()

    def begun(self) -> dict[int, int]:
        """Return generations by segment number that are not durable yet; store them with their first rows."""
        return dict(self._begun)

    def keep(self, begun: Mapping[int, int]) -> None:
        """Take note that these generations are durable."""
        for number, generation in begun.items():
            if self._begun.get(number) == generation:
                del self._begun[number]

    # --- reading and looking ---

    def read(self, location: Location, queue_id: str) -> tuple[bytes, bytes]:
        """Return (trace, content) of the record at `location`; safe in any thread.

        Raises `SpoolError` if the record is not there whole, `OSError` if the disk cannot be read."""
        data = self._read_bytes(location)
        if len(data) != location.length or len(data) < _HEADER_BYTES:
            raise SpoolError(f"{queue_id}: the record in {_name(location.segment)} is cut short")
        magic, generation, owner, trace_length, content_length, crc = _HEADER.unpack_from(data)
        (header_crc,) = _CRC.unpack_from(data, _HEADER.size)
        body = memoryview(data)[_HEADER_BYTES:]
        if (
            magic != _MAGIC
            or header_crc != zlib.crc32(data[: _HEADER.size])
            or generation != location.generation
            or owner.rstrip(b"\0") != queue_id.encode()
            or trace_length + content_length != len(body)
            or crc != zlib.crc32(body)
        ):
            raise SpoolError(f"{queue_id}: the record at {location.offset} of {_name(location.segment)} is not its own")
        return bytes(body[:trace_length]), bytes(body[trace_length:])

    def sparse(self) -> tuple[int, ...]:
        """Return the segments worth copying forward: under a quarter live, not current, emptiest first."""
        found = [
            segment
            for segment in self._segments.values()
            if segment.live and segment is not self._current and segment.live_bytes * 4 < segment.size
        ]
        return tuple(segment.number for segment in sorted(found, key=lambda s: s.live_bytes))

    def live(self) -> dict[int, tuple[int, int]]:
        """Return (records, bytes) of each segment that has any."""
        return {s.number: (s.live, s.live_bytes) for s in self._segments.values() if s.live}

    def close(self) -> None:
        """Give the open file back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._current = None

    # --- inside ---

    def _append_portion(self, records: Sequence[Record], first: int, locations: list[Location]) -> int:
        """Write as many records from `first` on as one segment takes, sync, and return how many."""
        segment = self._room_for(_record_bytes(records[first]))
        start = position = self._position
        buffers: list[bytes] = []
        placed: list[Location] = []
        for record in records[first:]:
            length = _record_bytes(record)
            if position + length > segment.size:
                break
            buffers += (_header(record, segment.generation), record[1], record[2])
            placed.append(Location(segment.number, segment.generation, position, length))
            position += length
        # Whole blocks: on a recycled segment the kernel would have to read the rest of the last one first.
        padding = -position % _BLOCK
        if padding:
            buffers.append(_ZEROS[:padding])
        self._write_all(buffers, start)
        self._sync(self._descriptor)
        self._position = position + padding
        segment.live += len(placed)
        segment.live_bytes += position - start
        locations += placed
        return len(placed)

    def _write_all(self, buffers: list[bytes], offset: int) -> None:
        pending = buffers
        while pending:
            part, pending = pending[:_IOV_MAX], pending[_IOV_MAX:]
            wanted = sum(map(len, part))
            written = self._write(self._descriptor, part, offset)
            offset += written
            if written < wanted:
                if written <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                # Rare (a signal, a nearly full disk): one copy, and on from where the kernel stopped.
                pending = [b"".join(part)[written:], *pending]

    def _room_for(self, length: int) -> _Segment:
        """Return the current segment, or begin one, with room for a record of `length` bytes."""
        current = self._current
        if current is not None and self._position + length <= current.size:
            return current
        self.close()
        self._tidy()
        if length > self._segment_bytes:
            return self._create(_rounded(length))
        for segment in self._segments.values():
            if self._reusable(segment):
                return self._begin(segment, os.open(self._path(segment.number), os.O_RDWR | os.O_CLOEXEC))
        return self._create(self._segment_bytes)

    def _create(self, size: int) -> _Segment:
        number = next(
            (s.number for s in self._segments.values() if not s.size and not s.live),
            max(self._segments, default=0) + 1,
        )
        segment = self._segments.setdefault(number, _Segment(number, 0))
        path = self._path(number)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, size)
            _sync_directory(self._directory)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        segment.size = size
        segment.damaged = False
        return self._begin(segment, descriptor)

    def _begin(self, segment: _Segment, descriptor: int) -> _Segment:
        segment.generation += 1
        self._begun[segment.number] = segment.generation
        self._current, self._descriptor, self._position = segment, descriptor, 0
        return segment

    def _abandon(self) -> None:
        """Take no more records into the current segment: what its pages hold is not known any more."""
        segment = self._current
        if segment is None:
            return
        segment.damaged = True
        _log.error("spool.segment_abandoned", segment=_name(segment.number), live=segment.live)
        self.close()
        self._tidy()

    def _reusable(self, segment: _Segment) -> bool:
        return segment.live == 0 and segment.size == self._segment_bytes and not segment.damaged

    def _tidy(self) -> None:
        """Delete empty segments that are damaged, of an odd size, or more than are kept for reuse."""
        kept = 0
        for segment in self._segments.values():
            if segment is self._current or segment.live or not segment.size:
                continue
            if self._reusable(segment) and kept < _FREE_KEPT:
                kept += 1
                continue
            self._path(segment.number).unlink(missing_ok=True)
            segment.size = 0

    def _find_files(self) -> None:
        for path in self._directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                number = int(match[1])
                segment = self._segments.setdefault(number, _Segment(number, 0))
                # An empty file still counts as one, so that it is tidied away.
                segment.size = max(path.stat().st_size, 1)

    def _read_bytes(self, location: Location) -> bytes:
        # A descriptor of its own: one shared with the writer could become another file under the reader.
        try:
            descriptor = os.open(self._path(location.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SpoolError(f"{_name(location.segment)} is gone") from error
        try:
            data = os.pread(descriptor, location.length, location.offset)
            while 0 < len(data) < location.length:
                more = os.pread(descriptor, location.length - len(data), location.offset + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(descriptor)

    def _path(self, number: int) -> Path:
        return self._directory / _name(number)


def _name(number: int) -> str:
    return f"seg-{number:06d}"


def _rounded(length: int) -> int:
    return length + -length % _BLOCK


def _record_bytes(record: Record) -> int:
    return _HEADER_BYTES + len(record[1]) + len(record[2])


def _header(record: Record, generation: int) -> bytes:
    queue_id, trace, content = record
    owner = queue_id.encode()
    if len(owner) > 32:
        raise ValueError("a queue id has at most 32 signs")
    crc = zlib.crc32(content, zlib.crc32(trace))
    head = _HEADER.pack(_MAGIC, generation, owner, len(trace), len(content), crc)
    return head + _CRC.pack(zlib.crc32(head))


def _allocate(descriptor: int, size: int) -> None:
    """Reserve blocks, so that a full disk shows here and a sync changes no file length."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        try:
            allocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(descriptor, size)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
