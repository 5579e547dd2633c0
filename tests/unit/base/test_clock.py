"""Time as an argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock, OffsetClock, SystemClock, rfc3339


def test_an_offset_survives_and_only_grows(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock = OffsetClock(file)
    before = clock.now()
    assert clock.advance(3600.5) >= before + 3600.5
    assert OffsetClock(file).offset == 3600.5
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="forward"):
            clock.advance(wrong)
    assert OffsetClock(file).offset == 3600.5
    assert list(tmp_path.iterdir()) == [file]


def test_without_an_offset_it_is_the_machines_time() -> None:
    system = SystemClock().now()
    assert OffsetClock().now() >= system


def test_a_frozen_clock_stands_still() -> None:
    clock = FrozenClock(5.0)
    assert clock.now() == clock.now() == 5.0
    assert clock.advance(2) == clock.now() == 7.0


def test_rfc3339() -> None:
    assert rfc3339(1_795_158_180.0) == "2026-11-20T07:03:00Z"
    assert rfc3339(1_795_158_180.1239, milliseconds=True) == "2026-11-20T07:03:00.123Z"
