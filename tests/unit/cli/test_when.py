"""Lengths of time and end dates as people type them."""

from __future__ import annotations

import pytest

from outgate.base.clock import rfc3339
from outgate.cli.when import BadTime, end_date, seconds

NOW = 1_795_244_580.25  # 2026-11-21T07:03:00Z and a quarter


@pytest.mark.parametrize(
    ("text", "length"),
    [("0s", 0), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("90d", 7_776_000), ("2w", 1_209_600), (" 1H ", 3600)],
)
def test_lengths(text: str, length: int) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize("text", ["", "h", "24", "-1h", "1.5h", "1 h", "1y", "1M1", "٣h", "1h30m", "9999999999s"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(BadTime, match="write 30m, 24h"):
        seconds(text)


def test_now() -> None:
    assert rfc3339(NOW) == "2026-11-21T07:03:00Z"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90d", "2027-02-19T07:03:00Z"),
        ("1m", "2026-11-21T07:04:00Z"),
        ("2027-01-31", "2027-02-01T00:00:00Z"),
        ("2026-11-21", "2026-11-22T00:00:00Z"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("2027-01-31T12:00+0100", "2027-01-31T11:00:00Z"),
        (" 2027-01-31T12:00:00.9Z ", "2027-01-31T12:00:00Z"),
    ],
)
def test_end_dates(text: str, end: str) -> None:
    assert end_date(text, NOW) == end


@pytest.mark.parametrize(
    "text", ["", "soon", "2027-13-01", "2027-01-31T12:00", "20270131T120000", "9999-12-31", "99999999w"]
)
def test_what_is_no_end_date(text: str) -> None:
    with pytest.raises(BadTime, match="is no end date: write 90d"):
        end_date(text, NOW)


@pytest.mark.parametrize("text", ["2026-11-20", "2020-01-01T00:00:00Z", "0d"])
def test_what_is_past(text: str) -> None:
    with pytest.raises(BadTime, match="is past"):
        end_date(text, NOW)
