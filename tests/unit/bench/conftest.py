"""The benchmark's parts, and its two programs built once for all of these tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"
sys.path.insert(0, str(BENCH))


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with smtpload and smtpsink."""
    from measure import tools

    directory = tmp_path_factory.mktemp("bin")
    tools.build(directory)
    return directory
