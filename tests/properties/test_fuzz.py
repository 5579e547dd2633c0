"""Every harness in fuzz/: its seeds, its corpus, and what Hypothesis makes of their pieces."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from _run import CORPORA, FOLDER, load
from hypothesis import given
from hypothesis import strategies as st

NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


harness = cache(load)


def known(name: str) -> list[bytes]:
    """Return the inputs that a harness is given as a beginning, and those that once failed."""
    kept = sorted(path for path in (CORPORA / name).glob("*") if path.is_file())
    return [*harness(name).SEEDS, *(path.read_bytes() for path in kept)]


@pytest.mark.parametrize("name", NAMES)
def test_a_harness_says_its_property_and_needs_no_atheris(name: str) -> None:
    module = harness(name)
    assert module.__doc__ is not None and "Property:" in module.__doc__
    assert len(module.SEEDS) >= 5 and "atheris" not in sys.modules
    assert "_run import run" in Path(str(module.__file__)).read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_known_inputs(name: str) -> None:
    for data in known(name):
        harness(name).one_input(data)
        for cut in range(0, len(data), 1 + len(data) // 50):
            harness(name).one_input(data[:cut])


@pytest.mark.parametrize("name", NAMES)
def test_any_input(name: str) -> None:
    run: Callable[[bytes], None] = harness(name).one_input
    pieces = [piece for data in known(name) for piece in (data, *data.splitlines(keepends=True), *data.split(b" "))]
    soup = st.lists(st.one_of(st.sampled_from(pieces), st.binary(max_size=12)), max_size=20).map(b"".join)
    changed = st.tuples(
        st.sampled_from(known(name)), st.integers(0, 400), st.integers(0, 8), st.binary(max_size=8)
    ).map(lambda it: it[0][: it[1]] + it[3] + it[0][it[1] + it[2] :])

    @given(st.one_of(changed, soup, st.binary(max_size=200)))
    def any_input(data: bytes) -> None:
        run(data)

    any_input()
