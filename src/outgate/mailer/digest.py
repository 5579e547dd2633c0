"""What was logged since the last mail, as one text: kinds of records, how often each came, and what had no room.

Standards: none.
Promises: pure; memory has an end, however much is added: so many kinds, of each one text and a count; whatever is left
out is counted, and the text says so; a digest that could not be sent is put back without losing a count.
Dangers: texts are what the application logged: who may read its log may read the mail, and no one else should get it.
Not here: the handler and its thread (`mailer.logging_handler`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

KINDS = 50
TEXT = 16_384  # signs of a kind's first record
LINE = 500  # signs of a message on one line


@dataclass(slots=True)
class Kind:
    """Records from one place in the code: the first one whole, of the last one its message, and how many there were."""

    level: str
    text: str
    message: str
    first: float
    last: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What one mail tells. `left_out` are records of kinds that had no room, `lost` those of mails that failed."""

    kinds: dict[Hashable, Kind]
    left_out: int
    lost: int

    @property
    def records(self) -> int:
        """Return how many records there were, with those left out."""
        return sum(kind.count for kind in self.kinds.values()) + self.left_out

    @property
    def summary(self) -> str:
        """Return one line for the subject: the first message, and how many more there are."""
        first = next(iter(self.kinds.values()), None)
        if first is None:
            return f"{self.records} records"
        more = f" (and {self.records - 1} more)" if self.records > 1 else ""
        return f"{first.level}: {one_line(first.text, 120)}{more}"

    @property
    def body(self) -> str:
        """Return the text of the mail."""
        parts: list[str] = []
        if self.records > 1:
            parts.append(f"{self.records} records of {len(self.kinds)} kinds.")
        if self.left_out:
            parts.append(f"{self.left_out} records had no room here: look into the log itself.")
        if self.lost:
            parts.append(f"{self.lost} earlier records were in mails that could not be sent.")
        parts += [_told(kind) for kind in self.kinds.values()]
        return "\n\n".join(parts) + "\n"


def _told(kind: Kind) -> str:
    head = f"{_time(kind.first)} {kind.level}"
    if kind.count == 1:
        return f"{head}\n{kind.text}"
    return f"{head}, {kind.count} times until {_time(kind.last)}\n{kind.text}\nThe last one: {kind.message}"


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def one_line(text: str, limit: int = LINE) -> str:
    """Return the first line of a text that has something, without control signs, cut to `limit` signs."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    plain = "".join(sign if sign.isprintable() else " " for sign in line[: limit + 1]).strip()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


@dataclass(slots=True)
class Digest:
    """What waits for the next mail, and when that may go: `interval` seconds after the one before, on the clock that
    the times in the calls are from."""

    interval: float
    kinds: dict[Hashable, Kind] = field(default_factory=dict[Hashable, Kind])
    left_out: int = 0
    lost: int = 0
    not_before: float = float("-inf")

    def wants(self, key: Hashable) -> bool:
        """Say whether a record of that kind would be told whole: its text need not be made otherwise."""
        return key not in self.kinds and len(self.kinds) < KINDS

    def add(self, key: Hashable, level: str, message: str, created: float, text: str = "") -> None:
        """Add a record: `key` is its kind, `created` seconds since the epoch, `text` the whole of it, if wanted."""
        known = self.kinds.get(key)
        if known is not None:
            known.count += 1
            known.last = created
            known.message = one_line(message)
        elif len(self.kinds) < KINDS:
            whole = text or message
            cut = whole if len(whole) <= TEXT else f"{whole[:TEXT]}\n(cut: {len(whole) - TEXT} signs more)"
            self.kinds[key] = Kind(level, cut, one_line(message), created, created)
        else:
            self.left_out += 1

    @property
    def due(self) -> float | None:
        """Return the time from which a mail may go, None if there is nothing to tell."""
        return self.not_before if self.kinds or self.left_out else None

    def take(self, now: float) -> Batch | None:
        """Return what there is to tell, which then is no longer here; the next mail waits for the interval."""
        if self.due is None:
            return None
        batch = Batch(self.kinds, self.left_out, self.lost)
        self.kinds, self.left_out, self.lost = {}, 0, 0
        self.not_before = now + self.interval
        return batch

    def put_back(self, batch: Batch) -> None:
        """Have the next mail tell what `batch` tells."""
        newer, self.kinds = self.kinds, {}
        self.left_out += batch.left_out
        self.lost += batch.lost
        for key, kind in (*batch.kinds.items(), *newer.items()):
            known = self.kinds.get(key)
            if known is not None:
                merged = replace(known, count=known.count + kind.count, last=kind.last, message=kind.message)
                self.kinds[key] = merged
            elif len(self.kinds) < KINDS:
                self.kinds[key] = kind
            else:
                self.left_out += kind.count

    def give_up(self, batch: Batch) -> None:
        """Count the records of a mail that nobody will take."""
        self.lost += batch.records + batch.lost
