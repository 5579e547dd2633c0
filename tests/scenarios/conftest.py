from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.running import Running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `outgate dev` for a module."""
    service = Running(tmp_path_factory.mktemp("dev") / "data").start()
    yield service
    assert service.stop() == 0
