"""The content of a message as it comes, by DATA or in chunks, up to the form in which one asks whether it is welcome.

Standards: RFC 5321 sections 4.1.1.4 and 4.5.2 (DATA, dots), RFC 3030 (BDAT), RFC 1870 (the size that is too large).
Promises: the same message gives the same octets whichever way it came, or the same refusal; a line that is a dot
inside a chunk leaves stuffed, so it ends nothing anywhere; what is refused is read to its true end first; every
octet kept is counted in `Intake` and taken off again by `drop`.
Dangers: chunks have no dots and may end within a line: content becomes the wire form here, with a CR LF at its end
that the client may not have sent, since DATA could not carry it otherwise.
Not here: when content may come (`smtp.server`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outgate.smtp.buffer import (
    ChunkCollector,
    DataCollector,
    InputBuffer,
    examine,
    replace_bare_line_ends,
)
from outgate.smtp.reply import BARE_DATA, NO_ROOM, NUL_DATA, TEXT_LINE_TOO_LONG, TOO_LARGE, Reply, reply


@dataclass(slots=True)
class Intake:
    """What all sessions together keep of messages that have not been answered, in octets; sessions share one.

    Each belongs to a holder, and none holds more than what it leaves free: half of all if it is alone, and however
    slowly a few send large messages, others find room. The holder "" is bound by the whole only."""

    most: int = 1 << 62
    held: int = 0
    by_holder: dict[str, int] = field(default_factory=dict)

    def room_for(self, size: int, holder: str = "") -> bool:
        """Say whether one more message may begin: of `size` octets, or an eighth of all if it claims less."""
        wanted = max(size, self.most >> 3, 1)
        return self.by_holder.get(holder, 0) + wanted <= self.most - self.held or not self.held

    def add(self, count: int, holder: str) -> bool:
        """Count what was kept; say whether that is not too much."""
        self.held += count
        free = self.most - self.held
        if not holder:
            return free >= 0
        mine = self.by_holder[holder] = self.by_holder.get(holder, 0) + count
        return mine <= free

    def take_off(self, count: int, holder: str) -> None:
        """Count it no more."""
        self.held -= count
        if holder:
            left = self.by_holder.get(holder, 0) - count
            if left:
                self.by_holder[holder] = left
            else:
                self.by_holder.pop(holder, None)


class ContentReader:
    """Content in; out comes a message to ask about, or a reply."""

    __slots__ = (
        "_chunks",
        "_collector",
        "_held",
        "_intake",
        "_last",
        "_left",
        "_most",
        "_no_room",
        "_refusal",
        "_replace_bare",
        "_size",
        "_text_line",
        "holder",
    )

    def __init__(self, intake: Intake, *, most: int, text_line: int, replace_bare: bool) -> None:
        """A message may have `most` octets, a line of it `text_line` (0: any)."""
        self._intake = intake
        self._most = most
        self._text_line = text_line
        self._replace_bare = replace_bare
        self._collector: DataCollector | None = None
        self._chunks: ChunkCollector | None = None
        self._held = 0
        self._no_room = False
        self._size = self._left = 0
        self._last = False
        self._refusal: Reply | None = None
        self.holder = ""
        """Whose messages these are, for `Intake`. It changes between messages only."""

    def room_for(self, size: int) -> bool:
        """Say whether one more message may begin, of `size` octets if that is known."""
        return self._intake.room_for(size, self.holder)

    def begin_data(self) -> None:
        """Expect data up to the line that is a dot."""
        self._no_room = False
        self._collector = DataCollector(self._most)

    def begin_chunk(self, size: int, last: bool, refusal: Reply | None) -> None:
        """Expect `size` octets; with `refusal` they are thrown away, and it is what `read` returns."""
        self._size = self._left = size
        self._last = last
        if refusal is None:
            if self._chunks is None:
                self._chunks = ChunkCollector()
            if self._chunks.size + size > self._most:
                refusal = TOO_LARGE
            elif not self._chunks.size and not self.room_for(size):
                refusal = NO_ROOM
            if refusal is not None:
                self.drop()
        self._refusal = refusal

    @property
    def in_data(self) -> bool:
        """Say whether data has begun and not ended."""
        return self._collector is not None

    def read(self, source: InputBuffer) -> Reply | bytes | None:
        """Take what there is of the content; None: there is more to come.

        Returns a message in wire form, which stays counted until `drop`, or a reply: 250 to a chunk that is not the
        last, else the refusal of everything that came, of which nothing is kept."""
        return self._read_chunk(source) if self._collector is None else self._read_data(self._collector, source)

    def drop(self) -> None:
        """Keep nothing, count nothing."""
        self._collector = None
        self._chunks = None
        self._let_go()

    def _read_data(self, collector: DataCollector, source: InputBuffer) -> Reply | bytes | None:
        data = source.take()
        rest = collector.feed(data)
        if collector.size > collector.most:  # nothing is kept any more
            self._let_go()
        elif not self._hold(len(data) - len(rest or b"")):
            self._no_room = True
            collector.drop()
            self._let_go()
        if rest is None:
            return None
        if rest:
            source.feed(rest)
        self._collector = None
        if collector.too_large:
            return self._refuse(TOO_LARGE)
        return self._refuse(NO_ROOM) if self._no_room else self._examined(collector.content())

    def _read_chunk(self, source: InputBuffer) -> Reply | bytes | None:
        data = source.octets(self._left)
        self._left -= len(data)
        if self._chunks is not None and self._refusal is None:
            self._chunks.feed(data)
            if not self._hold(len(data)):
                self._refusal = self._refuse(NO_ROOM)
        if self._left:
            return None
        if self._refusal is not None:
            return self._refusal
        if not self._last:
            return reply(250, "2.0.0", f"{self._size} octets received")
        assert self._chunks is not None
        content = self._chunks.content()
        self._chunks = None
        if len(content) > self._most:  # with the dots that DATA would have counted
            return self._refuse(TOO_LARGE)
        return self._examined(content)

    def _examined(self, content: bytes) -> Reply | bytes:
        bare, long = examine(content, self._text_line)
        if bare and not self._replace_bare:
            return self._refuse(BARE_DATA)
        if long:
            return self._refuse(TEXT_LINE_TOO_LONG)
        if b"\0" in content:  # no text has one, and who takes it out may find a dot alone on its line
            return self._refuse(NUL_DATA)
        if bare:
            content = replace_bare_line_ends(content)
            if len(content) > self._most:  # every lone end has become two octets
                return self._refuse(TOO_LARGE)
        return content

    def _refuse(self, answer: Reply) -> Reply:
        self.drop()
        return answer

    def _hold(self, count: int) -> bool:
        if not count:
            return True
        self._held += count
        # One message always fits: where nobody else holds anything, it may have all.
        return self._intake.add(count, self.holder) or self._held == self._intake.held <= self._intake.most

    def _let_go(self) -> None:
        if self._held:
            self._intake.take_off(self._held, self.holder)
            self._held = 0
