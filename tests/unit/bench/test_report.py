"""The verdict: a limit that is passed, or mail that is lost, fails the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measure.report import WORKS, Measurement, table, verdict

GOOD = Measurement(
    server="outgate",
    work="4k-kept",
    repetition=0,
    count=1000,
    accepted=1000,
    refused=0,
    missing=0,
    duplicates=0,
    unknown=0,
    signatures_good=10,
    signatures_bad=0,
    cpu_per_1000=1.0,
    accounting="Cgroup",
    accepted_per_s=1000.0,
    delivered_per_s=990.0,
    p50_ms=10.0,
    p99_ms=20.0,
    peak_mb=80.0,
    generator_cpu_s=0.1,
    last_error="",
)
POSTFIX = replace(GOOD, server="postfix", cpu_per_1000=4.0)


def test_the_limits_are_a_quarter_and_a_third_of_postfix() -> None:
    assert {work.key: work.at_most for work in WORKS} == {"4k-kept": 1 / 4, "4k-new": 1 / 3, "64k-kept": 1 / 3}


@pytest.mark.parametrize(
    ("work", "ours", "holds"),
    [("4k-kept", 1.0, True), ("4k-kept", 1.01, False), ("4k-new", 1.33, True), ("4k-new", 1.34, False)],
)
def test_a_ratio_is_held_against_its_limit(work: str, ours: float, holds: bool) -> None:
    lines, all_hold = verdict([replace(GOOD, work=work, cpu_per_1000=ours), replace(POSTFIX, work=work)])
    assert all_hold is holds
    assert lines[0].endswith("holds" if holds else "FAILS")


def test_the_median_decides_and_not_the_outlier() -> None:
    ours = [replace(GOOD, repetition=n, cpu_per_1000=cpu) for n, cpu in enumerate((0.9, 0.8, 9.0))]
    lines, holds = verdict([*ours, POSTFIX])
    assert holds
    assert "0.225 of postfix's (1/4.4)" in lines[0]


def test_other_peers_are_compared_without_a_limit() -> None:
    lines, holds = verdict([GOOD, replace(POSTFIX, server="exim", cpu_per_1000=1.0)])
    assert holds
    assert lines[0] == "4 KiB, 25 messages per connection: CPU is 1.000 of exim's (1/1.0)"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"accepted": 998}, "2 messages not accepted"),
        ({"missing": 1}, "1 messages accepted but never delivered"),
        ({"duplicates": 3}, "3 messages delivered twice"),
        ({"unknown": 1}, "not from this run"),
        ({"signatures_bad": 1}, "1 messages with a bad signature"),
        ({"signatures_good": 0}, "no message was sampled"),
    ],
)
def test_wrong_mail_fails_whatever_the_speed(fault: dict[str, int], words: str) -> None:
    lines, holds = verdict([replace(GOOD, **fault, last_error="451 later"), POSTFIX])
    assert not holds
    assert any(words in line for line in lines)
    assert any("451 later" in line for line in lines)


def test_memory_has_a_limit_of_its_own() -> None:
    assert verdict([replace(GOOD, peak_mb=150.0)])[1]
    assert not verdict([replace(GOOD, peak_mb=150.6)])[1]
    assert verdict([GOOD, replace(POSTFIX, peak_mb=700.0)])[1]


def test_the_table_has_a_line_per_work_and_server() -> None:
    text = table([replace(GOOD, cpu_per_1000=cpu) for cpu in (1.0, 1.2, 1.1)] + [POSTFIX])
    lines = text.splitlines()
    assert len(lines) == 4
    assert "| 1.10 (1.00-1.20) |" in lines[2]
    assert "| 30 good |" in lines[2]
    assert len({len(line) for line in lines}) == 1
