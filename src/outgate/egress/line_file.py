"""A file of lines in order of time: written many at once, turned over when it is full, read from any time backwards.

Standards: POSIX O_APPEND.
Promises: lines are whole: half a line, which a full disk may leave, is ended before the next one is written; there are
    `keep` + 1 files of `max_bytes` at most; what cannot be written is lost, counted and logged once a burst; a reader
    holds one block at a time and looks at as many octets as it says.
Dangers: nothing is synced; a clock that was put back by more than a few hundred lines' time hides lines from readers.
Not here: what a line says (`audit`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from outgate.base.log import Log

_log = Log("outgate.egress.audit")
_BLOCK = 256 * 1024
# Lines of one moment are not in perfect order, and bisection is coarse: readers begin this much later.
_SLACK = 256 * 1024
_LONGEST = 64 * 1024


class LineFile:
    """Append to `file`; older files are `file.1` and so on. Thread-safe."""

    def __init__(self, file: Path, *, max_bytes: int, keep: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self._torn = False
        self._lost = 0
        self._burst = 0
        self._open()

    @property
    def lost(self) -> int:
        """Return how many lines could not be written since this was opened."""
        return self._lost

    def write(self, lines: Sequence[str]) -> None:
        """Append ASCII lines, each with its end, in one write where they fit into the file."""
        with self._lock:
            if self._descriptor < 0 and not self._reopened(len(lines)):
                return
            while lines:
                lines = self._write_some(lines)

    @contextmanager
    def reading(self) -> Generator[Span]:
        """Give all that is in the files now, to be read while more is written."""
        opened: list[tuple[int, int]] = []
        try:
            with self._lock:
                for number in range(self._keep, -1, -1):
                    try:
                        descriptor = os.open(self._numbered(number), os.O_RDONLY | os.O_CLOEXEC)
                    except FileNotFoundError:
                        continue
                    opened.append((descriptor, os.fstat(descriptor).st_size))
            yield Span(opened)
        finally:
            for descriptor, _ in opened:
                os.close(descriptor)

    def close(self) -> None:
        """Close the file. What is written later opens it anew."""
        with self._lock:
            self._shut()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._file, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        self._torn = self._size > 0 and os.pread(self._descriptor, 1, self._size - 1) != b"\n"

    def _reopened(self, lines: int) -> bool:
        try:
            self._open()
        except OSError as error:
            self._lose(lines, error)
            return False
        return True

    def _shut(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_some(self, lines: Sequence[str]) -> Sequence[str]:
        """Write as many lines as this file takes; return those that are left."""
        room = self._max_bytes - self._size - self._torn
        count = 0
        for line in lines:
            room -= len(line)
            if room < 0:
                break
            count += 1
        if not count and self._size:
            try:
                self._rotate()
            except OSError as error:
                self._lose(len(lines), error)
                return ()
            return lines
        # A line that is longer than a file is a file of its own.
        count = count or 1
        octets = ("\n" if self._torn else "").encode() + "".join(lines[:count]).encode("ascii")
        try:
            while octets:
                written = os.write(self._descriptor, octets)
                self._size += written
                self._torn = octets[written - 1 : written] != b"\n" if written else self._torn
                octets = octets[written:]
        except OSError as error:
            # An end of line first is that of a line that is there.
            self._lose(octets.count(b"\n") - octets.startswith(b"\n"), error)
            return lines[count:]
        self._recovered()
        return lines[count:]

    def _lose(self, lines: int, error: OSError) -> None:
        if not self._burst:
            _log.error("audit.lost", error=error.strerror or str(error), remedy="make room on the disk of the audit")
        self._burst += lines
        self._lost += lines

    def _recovered(self) -> None:
        if self._burst:
            _log.warning("audit.written_again", lines_lost=self._burst)
            self._burst = 0

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                os.replace(newer, self._numbered(number))
        self._shut()
        torn = self._torn
        self._open()
        # The end of the last line of the older file begins this one: to a reader they are one row of octets.
        self._torn = torn

    def _numbered(self, number: int) -> Path:
        return self._file if number == 0 else self._file.with_name(f"{self._file.name}.{number}")


class Span:
    """The octets of several files, the oldest first, as one row; positions count from its beginning."""

    def __init__(self, parts: Sequence[tuple[int, int]]) -> None:
        """`parts` are descriptors and sizes."""
        self._parts = parts
        self.end = sum(size for _, size in parts)

    def read(self, begin: int, end: int) -> bytes:
        """Return the octets from `begin` up to `end`."""
        found: list[bytes] = []
        start = 0
        for descriptor, size in self._parts:
            first, last = max(begin - start, 0), min(end - start, size)
            if first < last:
                found.append(os.pread(descriptor, last - first, first))
            start += size
        return b"".join(found)

    def after(self, at: float, stamp: Callable[[bytes], float | None]) -> int:
        """Return a position behind all lines whose `stamp` is not later than `at`, and not far behind."""
        low, high = 0, self.end
        while high - low > _BLOCK:
            middle = (low + high) // 2
            found = self.stamp_from(middle, stamp)
            if found is None or found > at:
                high = middle
            else:
                low = middle
        position = min(self.end, high + _SLACK)
        rest = self.read(position, min(self.end, position + _LONGEST))
        # Between two lines: the next end of one.
        return min(self.end, position + rest.find(b"\n") + 1) if rest else self.end

    def back(self, position: int, needle: bytes, most: int) -> Iterator[tuple[int, bytes]]:
        """Give position and octets of the lines before `position` that hold `needle`, the last first; look at `most`
        octets. `position` is where a line begins, `needle` is not empty and has no line's end."""
        rest = b""
        lowest = max(0, position - most)
        while position > lowest:
            begin = max(lowest, position - _BLOCK)
            block = self.read(begin, position) + rest
            cut = 0 if begin == 0 else block.find(b"\n") + 1
            if begin and not cut:
                rest, position = block, begin
                continue
            place = len(block)
            while (hit := block.rfind(needle, cut, place)) >= 0:
                first = block.rfind(b"\n", 0, hit) + 1
                last = block.find(b"\n", hit)
                yield begin + first, block[first : last if last >= 0 else len(block)]
                place = first
            rest, position = block[:cut], begin

    def on(self, position: int, needle: bytes, most: int) -> Iterator[bytes]:
        """Give the lines from `position`, where a line begins, that hold `needle`; look at `most` octets."""
        highest = min(self.end, position + most)
        rest = b""
        while position < highest:
            stop = min(highest, position + _BLOCK)
            block = rest + self.read(position, stop)
            whole = block.rfind(b"\n") + 1
            place = 0
            while (hit := block.find(needle, place, whole)) >= 0:
                first, place = block.rfind(b"\n", 0, hit) + 1, block.find(b"\n", hit) + 1
                yield block[first : place - 1]
            rest, position = block[whole:], stop

    def stamp_from(self, position: int, stamp: Callable[[bytes], float | None]) -> float | None:
        """Return the `stamp` of the first line that begins behind `position`, or None if none is near."""
        block = self.read(position, min(self.end, position + _LONGEST))
        for line in block.split(b"\n")[1:]:
            if (found := stamp(line)) is not None:
                return found
        return None
