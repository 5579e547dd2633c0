"""The store that these tests change, and the API over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.egress_store import Api, World, bare_program, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def with_bare(tmp_path: Path) -> Iterator[World]:
    """The same with program 5, which has no way out and publishes from two regions."""
    with world(tmp_path) as made:
        bare_program(made, "5", secondary=("nld2",))
        yield made


@pytest.fixture
def api(place: World) -> Api:
    return Api(place)
