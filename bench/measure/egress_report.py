"""Turn the egress's measurements into a table and a verdict.

Standards: none.
Promises: a connection that failed, or octets that came back wrong, fail the run whatever the speed; each limit is held
against medians of one interleaved run.
Dangers: client, forwarder and server share the machine: differences below a fifth are noise; look at the spread.
Not here: measuring (`measure/egress.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OURS, DIRECT, LIMITED_PEER = "outgate", "direct", "haproxy-tuned"
CPU_PER_GB_AT_MOST = 1.1
CONNECTION_RATE_AT_LEAST = 0.45
CONNECTION_RATE_GOAL = 0.6
ADDED_RTT_US_BELOW = 60.0
RULES_S_BELOW = 2.0
IDLE_MB_BELOW = 300.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One repetition of all works through one forwarder. CPU is the forwarder's, in seconds."""

    forwarder: str
    repetition: int
    connections_per_s: float
    cpu_per_1000: float
    rtt_p50_us: float
    rtt_p99_us: float
    gbit_s_1: float
    cpu_per_gb_1: float
    gbit_s_50: float
    cpu_per_gb_50: float
    peak_mb: float
    failed: int
    accounting: str
    last_error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Idle:
    """What connections that say nothing cost: resident MB before and with them. As many as the limit of open files
    allows; the figure that is held is that for 10,000."""

    forwarder: str
    connections: int
    failed: int
    before_mb: float
    with_mb: float

    @property
    def mb_with_10_000(self) -> float:
        """Return what 10,000 of them take, with the program itself."""
        return self.before_mb + (self.with_mb - self.before_mb) / self.connections * 10_000

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Applied:
    """Seconds from the change of the wanted state until every rule listens, and the CPU's share of them."""

    forwarder: str
    rules: int
    seconds: float
    cpu_s: float

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


_COLUMNS: tuple[tuple[str, Callable[[Measurement], float], str], ...] = (
    ("connections/s", lambda one: one.connections_per_s, "{:.0f}"),
    ("CPU s / 1,000", lambda one: one.cpu_per_1000, "{:.3f}"),
    ("RTT p50 us", lambda one: one.rtt_p50_us, "{:.0f}"),
    ("RTT p99 us", lambda one: one.rtt_p99_us, "{:.0f}"),
    ("Gbit/s, 1 stream", lambda one: one.gbit_s_1, "{:.1f}"),
    ("CPU s/GB", lambda one: one.cpu_per_gb_1, "{:.2f}"),
    ("Gbit/s, 50 streams", lambda one: one.gbit_s_50, "{:.1f}"),
    ("CPU s/GB ", lambda one: one.cpu_per_gb_50, "{:.2f}"),
    ("peak RSS MB", lambda one: one.peak_mb, "{:.0f}"),
)


def _spread(values: Sequence[float], form: str) -> str:
    text = form.format(statistics.median(values))
    if len(values) > 1:
        text += f" ({form.format(min(values))}-{form.format(max(values))})"
    return text


def table(measurements: Sequence[Measurement]) -> str:
    """Return one line per forwarder, with median (lowest-highest), as a Markdown table."""
    rows = [("forwarder", *(name for name, _, _ in _COLUMNS))]
    for forwarder in dict.fromkeys(one.forwarder for one in measurements):
        ones = [one for one in measurements if one.forwarder == forwarder]
        rows.append((forwarder, *(_spread([of(one) for one in ones], form) for _, of, form in _COLUMNS)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def verdict(
    measurements: Sequence[Measurement], idle: Sequence[Idle] = (), applied: Sequence[Applied] = ()
) -> tuple[list[str], bool]:
    """Return lines that hold the figures against their limits, and whether all hold."""
    lines: list[str] = []
    holds = True

    def judge(text: str, good: bool) -> None:
        nonlocal holds
        holds = holds and good
        lines.append(f"{text}: {'holds' if good else 'FAILS'}")

    def median(forwarder: str, of: Callable[[Measurement], float]) -> float | None:
        found = [of(one) for one in measurements if one.forwarder == forwarder]
        return statistics.median(found) if found else None

    for streams, of in (("1 stream", _cpu_1), ("50 streams", _cpu_50)):
        ours, theirs = median(OURS, of), median(LIMITED_PEER, of)
        if ours is not None and theirs:
            ratio = ours / theirs
            text = f"CPU per GB, {streams}: {ratio:.2f} of {LIMITED_PEER}'s, at most {CPU_PER_GB_AT_MOST:g}"
            judge(text, ratio <= CPU_PER_GB_AT_MOST)
    ours, theirs = median(OURS, _rate), median(LIMITED_PEER, _rate)
    if ours is not None and theirs:
        ratio = ours / theirs
        met = "reached" if ratio >= CONNECTION_RATE_GOAL else "not reached"
        text = f"connections per second: {ratio:.2f} of {LIMITED_PEER}'s, at least {CONNECTION_RATE_AT_LEAST:g}"
        judge(f"{text} (goal {CONNECTION_RATE_GOAL:g}: {met})", ratio >= CONNECTION_RATE_AT_LEAST)
    ours, straight = median(OURS, _rtt), median(DIRECT, _rtt)
    if ours is not None and straight is not None:
        added = ours - straight
        judge(f"added round trip: {added:.0f} us, below {ADDED_RTT_US_BELOW:g}", added < ADDED_RTT_US_BELOW)
    for each in applied:
        judge(
            f"{each.rules} rules in force after {each.seconds:.2f} s ({each.cpu_s:.2f} CPU s), below {RULES_S_BELOW:g}",
            each.seconds < RULES_S_BELOW,
        )
    for one in idle:
        text = f"{one.forwarder}: {one.mb_with_10_000:.0f} MB with 10,000 idle connections"
        text += f" (seen: {one.before_mb:.0f} MB before, {one.with_mb:.0f} MB with {one.connections})"
        if one.forwarder == OURS:
            judge(f"{text}, below {IDLE_MB_BELOW:g}", one.mb_with_10_000 < IDLE_MB_BELOW)
        else:
            lines.append(text)
    complaints = [
        f"{one.forwarder}, repetition {one.repetition}: {one.failed} connections failed: {one.last_error}"
        for one in measurements
        if one.failed
    ]
    complaints += [f"{one.forwarder}: {one.failed} idle connections failed" for one in idle if one.failed]
    lines.extend(complaints)
    judge("every connection made, and all octets as they were sent", not complaints)
    return lines, holds


def _cpu_1(one: Measurement) -> float:
    return one.cpu_per_gb_1


def _cpu_50(one: Measurement) -> float:
    return one.cpu_per_gb_50


def _rate(one: Measurement) -> float:
    return one.connections_per_s


def _rtt(one: Measurement) -> float:
    return one.rtt_p50_us
