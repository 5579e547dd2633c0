"""The egress's verdict: limits against tuned HAProxy and the direct way, and no failed connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measure.egress_report import Applied, Idle, Measurement, table, verdict

GOOD = Measurement(
    forwarder="outgate",
    repetition=0,
    connections_per_s=6000.0,
    cpu_per_1000=0.12,
    rtt_p50_us=100.0,
    rtt_p99_us=200.0,
    gbit_s_1=12.0,
    cpu_per_gb_1=0.4,
    gbit_s_50=13.0,
    cpu_per_gb_50=0.4,
    peak_mb=60.0,
    failed=0,
    accounting="Cgroup",
)
TUNED = replace(GOOD, forwarder="haproxy-tuned", connections_per_s=10_000.0)
DIRECT = replace(GOOD, forwarder="direct", connections_per_s=20_000.0, rtt_p50_us=60.0)
STOCK = replace(GOOD, forwarder="haproxy", cpu_per_gb_1=1.1, cpu_per_gb_50=1.1)
ALL = [DIRECT, STOCK, TUNED, GOOD]


def held(ours: Measurement) -> tuple[list[str], bool]:
    return verdict([DIRECT, STOCK, TUNED, ours])


def test_all_holds() -> None:
    lines, holds = held(GOOD)
    assert holds
    assert lines == [
        "CPU per GB, 1 stream: 1.00 of haproxy-tuned's, at most 1.1: holds",
        "CPU per GB, 50 streams: 1.00 of haproxy-tuned's, at most 1.1: holds",
        "connections per second: 0.60 of haproxy-tuned's, at least 0.45 (goal 0.6: reached): holds",
        "added round trip: 40 us, below 60: holds",
        "every connection made, and all octets as they were sent: holds",
    ]


@pytest.mark.parametrize(
    ("figures", "holds"),
    [
        ({"cpu_per_gb_1": 0.439}, True),
        ({"cpu_per_gb_1": 0.441}, False),
        ({"cpu_per_gb_50": 0.439}, True),
        ({"cpu_per_gb_50": 0.441}, False),
        ({"connections_per_s": 4500.0}, True),
        ({"connections_per_s": 4499.0}, False),
        ({"rtt_p50_us": 119.9}, True),
        ({"rtt_p50_us": 120.0}, False),
    ],
)
def test_each_figure_has_its_limit(figures: dict[str, float], holds: bool) -> None:
    lines, found = held(replace(GOOD, **figures))
    assert found is holds
    assert sum(line.endswith("FAILS") for line in lines) == (not holds)


def test_below_the_goal_is_told_and_holds() -> None:
    lines, holds = held(replace(GOOD, connections_per_s=5000.0))
    assert holds
    assert "goal 0.6: not reached" in lines[2]


def test_the_median_decides_and_not_the_outlier() -> None:
    ours = [replace(GOOD, repetition=n, cpu_per_gb_1=cpu) for n, cpu in enumerate((0.4, 0.41, 9.0))]
    assert verdict([DIRECT, TUNED, *ours])[1]


def test_stock_haproxy_is_no_measure() -> None:
    lines, holds = verdict([DIRECT, replace(STOCK, connections_per_s=1e6), GOOD])
    assert holds
    assert not any("haproxy" in line for line in lines)


@pytest.mark.parametrize(("seconds", "holds"), [(1.99, True), (2.0, False)])
def test_rules_have_two_seconds(seconds: float, holds: bool) -> None:
    lines, found = verdict(ALL, applied=[Applied("outgate", 10_000, seconds, 1.1)])
    assert found is holds
    assert f"10000 rules in force after {seconds:.2f} s (1.10 CPU s), below 2" in lines[4]


@pytest.mark.parametrize(("with_mb", "holds"), [(299.9, True), (300.0, False)])
def test_idle_connections_have_a_limit(with_mb: float, holds: bool) -> None:
    assert verdict(ALL, idle=[Idle("outgate", 10_000, 0, 40.0, with_mb)])[1] is holds


def test_fewer_idle_connections_are_counted_for_10_000() -> None:
    assert Idle("outgate", 5000, 0, 40.0, 140.0).mb_with_10_000 == 240.0
    assert not verdict(ALL, idle=[Idle("outgate", 5000, 0, 40.0, 171.0)])[1]
    assert verdict(ALL, idle=[Idle("haproxy", 5000, 0, 40.0, 900.0)])[1]


@pytest.mark.parametrize("who", [GOOD, TUNED, DIRECT])
def test_a_failed_connection_fails_the_run(who: Measurement) -> None:
    others = [each for each in ALL if each.forwarder != who.forwarder]
    lines, holds = verdict([*others, replace(who, failed=2, last_error="receive: connection ended")])
    assert not holds
    assert f"{who.forwarder}, repetition 0: 2 connections failed: receive: connection ended" in lines
    assert not verdict(ALL, idle=[Idle("outgate", 10_000, 1, 40.0, 50.0)])[1]


def test_the_table_has_a_line_per_forwarder() -> None:
    ours = [replace(GOOD, connections_per_s=rate) for rate in (5000.0, 7000.0, 6000.0)]
    lines = table([DIRECT, *ours]).splitlines()
    assert len(lines) == 4
    assert "| 6000 (5000-7000) |" in lines[3]
    assert len({len(line) for line in lines}) == 1
