"""The bytes that came in and were not used yet: command lines, message data up to its end, chunks by their octets.

Standards: RFC 5321 sections 2.3.8 (only CR LF ends a line) and 4.5.2 (the final dot), RFC 3030 (chunks).
Promises: only CR LF . CR LF ends data, and nothing but its size ends a chunk; feeding in any pieces gives the same
lines and the same data; memory is bounded by the limits given, however small the pieces are.
Dangers: a bare LF is never a line end here: it is reported, so that nobody downstream sees another message
than we did (SMTP smuggling).
Not here: meaning (`smtp.server`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_END = b"\r\n.\r\n"
_TEXT = bytes(octet for octet in range(256) if octet not in b"\r\n")
_FEW_PIECES = 256  # and one more for each 4 KiB: beyond that they are joined, an object each would outweigh them
_FEW_DOTS = 100  # in one piece; where they are many, looking for the whole wins
_SPLIT_LIMIT = 1_048_576  # beyond this a list of lines would take more memory than it saves time
_BARE = re.compile(rb"(?<!\r)\n(\.?)|\r(?!\n)(\.?)")
_LONE_DOT = re.compile(rb"(?:\A|(?<=\r\n))\.(?=\n|\r(?!\n))")


class BadLine(Exception):
    """A line cannot be used; it has been thrown away up to its end. `first` is its first octet, b"" if long gone."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__()
        self.first = first


class LineTooLong(BadLine):
    """A line is longer than allowed."""


class BareLineEnd(BadLine):
    """A line ended in LF without CR, or held a lone CR."""


class InputBuffer:
    """Bytes in, lines out."""

    __slots__ = ("_at", "_data", "_skipping")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._skipping = False

    def __len__(self) -> int:
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        self._data = data if self._at >= len(self._data) else self._data[self._at :] + data
        self._at = 0

    def clear(self) -> None:
        """Forget everything."""
        self._data = b""
        self._at = 0
        self._skipping = False

    def take(self) -> bytes:
        """Return all that is left and forget it."""
        data = self._data[self._at :] if self._at else self._data
        self._data = b""
        self._at = 0
        return data

    def octets(self, most: int) -> bytes:
        """Return up to `most` octets as they come, lines or not; what follows stays where it is, uncopied."""
        if len(self) <= most:
            return self.take()
        start = self._at
        self._at = end = start + most
        return self._data[start:end]

    @property
    def first(self) -> bytes:
        """Return the first octet of the line that has begun to come, b"" if there is none or it is long gone."""
        return b"" if self._skipping else self._data[self._at : self._at + 1]

    def line(self, limit: int) -> bytes | None:
        """Return the next line without CR LF, or None if it is not there whole. `limit` is in octets with CR LF.

        Raises `LineTooLong` (once, when the line's end is reached or skipped) and `BareLineEnd`."""
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        if end < 0:
            if len(data) - at > limit:
                self._skipping = True
            if self._skipping:
                self.clear()
                self._skipping = True
            return None
        self._at = end + 1
        if self._skipping:
            self._skipping = False
            raise LineTooLong
        if end + 1 - at > limit:
            raise LineTooLong(data[at : at + 1])
        if end == at or data[end - 1] != 13 or data.find(b"\r", at, end - 1) >= 0:
            raise BareLineEnd(data[at : at + 1])
        return data[at : end - 1]


class DataCollector:
    """Gather message data until the line that is a dot. Over `limit` octets it reads on but keeps nothing.

    `too_large` is certain once the end has come: the dot line itself does not count."""

    __slots__ = ("_limit", "_pieces", "_tail", "most", "size", "too_large")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.most = limit + 2  # two octets may be the beginning of the final dot line; beyond it nothing is kept
        self._pieces: list[bytes] = []
        self.size = 0
        self._tail = b"\r\n"  # the DATA command's own line end counts as the one before the dot
        self.too_large = False

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return what follows the final dot line once that has come, else None."""
        tail = self._tail
        # The end may lie across the seam of two pieces: look there first, then within the piece.
        seam = (tail + data[:4]).find(_END)
        if seam >= 0:
            end = seam - len(tail) + 5
            self._keep(data[: max(end - 3, 0)])
            if end - 3 < 0:
                self._drop_last(3 - end)
            self.too_large = self.size > self._limit
            return data[end:]
        found = _find_end(data)
        if found >= 0:
            self._keep(data[: found + 2])
            self.too_large = self.size > self._limit
            return data[found + 5 :]
        self._keep(data)
        self._tail = (tail + data)[-4:] if len(data) < 4 else data[-4:]
        return None

    def drop(self) -> None:
        """Keep nothing from now on; the end is looked for all the same."""
        self.most = -1
        self._pieces.clear()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.most:
            self._pieces.clear()
        elif data:
            _add(self._pieces, data, self.size)

    def _drop_last(self, count: int) -> None:
        """Take back the octets of the final dot line that an earlier piece had brought already."""
        self.size -= count
        while count and self._pieces:
            last = self._pieces.pop()
            if len(last) > count:
                self._pieces.append(last[:-count])
            count = max(0, count - len(last))

    def content(self) -> bytes:
        """Return the data in wire form: dot-stuffed, ending in CR LF (or empty)."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class ChunkCollector:
    """Gather the chunks of a message as they are, and give them out in the wire form that DATA would have brought."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Append octets; how many there may be is the caller's business."""
        self.size += len(data)
        _add(self._pieces, data, self.size)

    def content(self) -> bytes:
        """Return the message in wire form. Its last line gets a CR LF if it has none: DATA could not say that."""
        return stuffed(b"".join(self._pieces))


def _add(pieces: list[bytes], data: bytes, size: int) -> None:
    pieces.append(data)
    if len(pieces) > _FEW_PIECES + (size >> 12):
        pieces[:] = (b"".join(pieces),)


def stuffed(raw: bytes) -> bytes:
    """Return a message as DATA carries it: a dot doubled where a line begins with it, a CR LF at the end."""
    if raw.startswith(b"."):
        raw = b"." + raw
    raw = raw.replace(b"\r\n.", b"\r\n..")
    return raw if not raw or raw.endswith(b"\r\n") else raw + b"\r\n"


def _find_end(data: bytes) -> int:
    """Return where CR LF . CR LF begins, or -1. One octet is found far faster than five: look at the dots first."""
    at = data.find(b".", 2)
    for _ in range(_FEW_DOTS):
        if at < 0:
            return -1
        if data[at - 2 : at + 3] == _END:
            return at - 2
        at = data.find(b".", at + 1)
    return data.find(_END, at - 2) if at >= 0 else -1


def examine(content: bytes, limit: int) -> tuple[bool, bool]:
    """Say of wire-form `content` whether it holds a CR or LF that is not part of a CR LF, and whether a line of it is
    longer than `limit` octets without its CR LF and its transparency dot (RFC 5321 4.5.3.1.6; 0: no limit)."""
    if len(content) > _SPLIT_LIMIT:
        pairs = content.count(b"\r\n")
        bare = content.count(b"\n") != pairs or content.count(b"\r") != pairs
        return bare, limit > 0 and any(_long(piece.splitlines(), limit) for piece in _pieces(content))
    # Every pair is two octets and one line's end, every lone one is one octet and one line's end: if there are half
    # as many ends as octets, there are only pairs. Both are one quick pass; looking for CR LF is a slow one.
    lines = content.splitlines()
    ends = len(lines)
    if content and content[-1] not in b"\r\n":
        ends -= 1
    bare = 2 * ends != len(content.translate(None, _TEXT))
    return bare, limit > 0 and _long(lines, limit)


def has_bare_line_ends(content: bytes) -> bool:
    """Say whether `content` holds a CR or LF that is not part of a CR LF."""
    return examine(content, 0)[0]


def _long(lines: list[bytes], limit: int) -> bool:
    return max(map(len, lines), default=0) > limit and any(len(line.removeprefix(b".")) > limit for line in lines)


def _pieces(content: bytes) -> Iterator[bytes]:
    """Cut large content behind line ends; a piece without any is one line that is too long by far."""
    at = 0
    while at < len(content):
        end = content.rfind(b"\n", at, at + _SPLIT_LIMIT) + 1 or at + _SPLIT_LIMIT
        yield content[at:end]
        at = end


def replace_bare_line_ends(content: bytes) -> bytes:
    """Make every lone CR or LF in wire-form `content` a CR LF, and stuff the dot a new line may begin with.

    A dot between a CR LF and a lone CR or LF was no end of data, and must not become one: it is stuffed too."""

    def mend(match: re.Match[bytes]) -> bytes:
        return b"\r\n.." if match[1] or match[2] else b"\r\n"

    return _BARE.sub(mend, _LONE_DOT.sub(b"..", content))
