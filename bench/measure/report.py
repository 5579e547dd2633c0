"""Turn measurements into a table, ratios and a verdict.

Standards: none.
Promises: a lost, doubled, foreign or refused message and a bad signature fail the run, whatever the speed.
Dangers: medians of few repetitions; on a machine with other work, look at the spread before the ratio.
Not here: measuring.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PEAK_MB_AT_MOST = 150
LIMITED_PEER = "postfix"


@dataclass(frozen=True, slots=True)
class Work:
    """One shape of work, and the share of Postfix's CPU that Outgate may take for it."""

    key: str
    title: str
    size: int
    per_connection: int
    at_most: float
    at_most_text: str


WORKS = (
    Work("4k-kept", "4 KiB, 25 messages per connection", 4096, 25, 1 / 4, "1/4"),
    Work("4k-new", "4 KiB, a new TLS session each", 4096, 1, 1 / 3, "1/3"),
    Work("64k-kept", "64 KiB, 25 messages per connection", 65536, 25, 1 / 3, "1/3"),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One repetition of one work on one server. Times in seconds or, where named so, milliseconds."""

    server: str
    work: str
    repetition: int
    count: int
    accepted: int
    refused: int
    missing: int
    duplicates: int
    unknown: int
    signatures_good: int
    signatures_bad: int
    cpu_per_1000: float
    accounting: str
    accepted_per_s: float
    delivered_per_s: float
    p50_ms: float
    p99_ms: float
    peak_mb: float
    generator_cpu_s: float
    last_error: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    def complaints(self) -> list[str]:
        """Return what was wrong with the mail itself, in words."""
        found = {
            "not accepted": self.count - self.accepted,
            "accepted but never delivered": self.missing,
            "delivered twice": self.duplicates,
            "delivered but not from this run": self.unknown,
            "with a bad signature": self.signatures_bad,
        }
        where = f"{self.server}, {self.work}, repetition {self.repetition}"
        words = [f"{where}: {number} messages {what}" for what, number in found.items() if number]
        if not self.signatures_good + self.signatures_bad:
            words.append(f"{where}: no message was sampled for its signature")
        if words and self.last_error:
            words.append(f"{where}: last error: {self.last_error}")
        return words


def _spread(values: Sequence[float], form: str) -> str:
    text = form.format(statistics.median(values))
    if len(values) > 1:
        text += f" ({form.format(min(values))}-{form.format(max(values))})"
    return text


def _of(measurements: Iterable[Measurement], server: str, work: Work) -> list[Measurement]:
    return [one for one in measurements if one.server == server and one.work == work.key]


def table(measurements: Sequence[Measurement], works: Sequence[Work] = WORKS) -> str:
    """Return one line per server and work, with median (lowest-highest), as a Markdown table."""
    head = (
        "work",
        "server",
        "CPU s / 1,000",
        "delivered/s",
        "p50 ms",
        "p99 ms",
        "peak RSS MB",
        "lost",
        "doubled",
        "DKIM",
    )
    rows = [head]
    for work in works:
        for server in dict.fromkeys(one.server for one in measurements):
            ones = _of(measurements, server, work)
            if not ones:
                continue
            good, bad = (sum(getattr(one, f"signatures_{kind}") for one in ones) for kind in ("good", "bad"))
            rows.append(
                (
                    work.title,
                    server,
                    _spread([one.cpu_per_1000 for one in ones], "{:.2f}"),
                    _spread([one.delivered_per_s for one in ones], "{:.0f}"),
                    _spread([one.p50_ms for one in ones], "{:.1f}"),
                    _spread([one.p99_ms for one in ones], "{:.0f}"),
                    f"{max(one.peak_mb for one in ones):.0f}",
                    str(sum(one.missing for one in ones)),
                    str(sum(one.duplicates for one in ones)),
                    f"{good} good" + (f", {bad} BAD" if bad else ""),
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def verdict(measurements: Sequence[Measurement], works: Sequence[Work] = WORKS) -> tuple[list[str], bool]:
    """Return lines that hold the figures against their limits, and whether all hold.

    Limits on CPU are against Postfix in the same run; other peers' ratios are told without a limit.
    """
    lines: list[str] = []
    holds = True

    def judge(text: str, good: bool) -> None:
        nonlocal holds
        holds = holds and good
        lines.append(f"{text}: {'holds' if good else 'FAILS'}")

    peers = [name for name in dict.fromkeys(one.server for one in measurements) if name != "outgate"]
    for work in works:
        ours = [one.cpu_per_1000 for one in _of(measurements, "outgate", work)]
        for peer in peers:
            theirs = [one.cpu_per_1000 for one in _of(measurements, peer, work)]
            if not ours or not theirs:
                continue
            ratio = statistics.median(ours) / statistics.median(theirs)
            text = f"{work.title}: CPU is {ratio:.3f} of {peer}'s (1/{1 / ratio:.1f})"
            if peer == LIMITED_PEER:
                judge(f"{text}, at most {work.at_most_text}", ratio <= work.at_most)
            else:
                lines.append(text)
    peaks = [one.peak_mb for one in measurements if one.server == "outgate"]
    if peaks:
        judge(f"peak RSS of outgate {max(peaks):.0f} MB, at most {PEAK_MB_AT_MOST}", max(peaks) <= PEAK_MB_AT_MOST)
    complaints = [words for one in measurements for words in one.complaints()]
    lines.extend(complaints)
    judge("every message accepted, delivered once and well signed", not complaints)
    return lines, holds
