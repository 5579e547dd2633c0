"""Log lines: whatever is logged, its caller goes on and one line of JSON comes out."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from outgate.base.log import Log, configure


class Silent:
    """Says nothing of itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Text(str):
    """A string that is not quite one."""

    __slots__ = ()


def circle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def deep(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


@contextmanager
def logging_to(stream: io.TextIOWrapper) -> Generator[None]:
    root = logging.getLogger("outgate")
    before = (list(root.handlers), root.level, root.propagate, sys.unraisablehook)
    configure("info", stream)
    try:
        yield
    finally:
        root.handlers[:], root.level, root.propagate, sys.unraisablehook = before


NAMELESS: dict[str, object] = {"silent": Silent(), "circle": circle(), "deep": deep(100_000), "huge": 10**5000}
TEXTS = st.text(st.characters(codec=None, exclude_categories=()))
ODD = st.recursive(
    st.one_of(
        TEXTS,
        TEXTS.map(Text),
        st.binary(),
        st.floats(),
        st.none(),
        st.integers(),
        # By name: they have no `repr` themselves.
        st.sampled_from(["silent", "circle", "deep", "huge"]).map(lambda name: NAMELESS[name]),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.one_of(TEXTS, st.tuples(st.integers()), st.binary()), inner),
        st.lists(inner).map(tuple),
    ),
    max_leaves=8,
)


@given(ODD, TEXTS, st.sampled_from(["info", "warning"]), st.sampled_from(["utf-8", "ascii"]))
@example({(1, 2): "x"}, "", "info", "utf-8")
@example("\ud800", "\udfff", "info", "utf-8")
@example("\ud800", "\u00e9", "warning", "ascii")
@example(float("nan"), "", "info", "utf-8")
def test_every_value_makes_a_line(value: object, name: str, level: str, encoding: str) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding)
    with logging_to(stream):
        getattr(Log("outgate.x"), level)("odd", value=value, **{f"x{name}": 1})
    line = written.getvalue().decode(encoding)
    assert line.endswith("\n") and line.count("\n") == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    entry = json.loads(line, parse_constant=refuse)
    assert entry["event"] == "odd" and "value" in entry
    if isinstance(value, str):
        assert entry["value"] == value
    stream.detach()
