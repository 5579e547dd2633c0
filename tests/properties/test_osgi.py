"""The configuration reader takes any text, and agrees with plain JSON where JSON is all there is."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer.osgi import OsgiError, read

_PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        '"a"',
        '"a:Integer"',
        '"A"',
        "//",
        "/*",
        "*/",
        "\n",
        " ",
        "1",
        "-",
        "1.5",
        "true",
        "null",
        "\\",
        "'",
        "x",
        "\ufeff",
        '"$[env:A]"',
        '":configurator:x"',
    ]
)
_NAMES = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1, max_size=8)
_SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(text=st.lists(_PIECES, max_size=30).map("".join))
def test_any_text_gives_properties_or_a_place(text: str) -> None:
    try:
        read(text)
    except OsgiError as error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1


@given(document=st.dictionaries(_NAMES, _SCALARS, max_size=6), seed=st.integers(0, 9))
def test_json_with_comments_reads_like_json(document: dict[str, object], seed: int) -> None:
    if len({name.lower() for name in document}) < len(document):
        return
    chance = random.Random(seed)
    text = "{"
    for number, (name, value) in enumerate(document.items()):
        comment = chance.choice(["", ' // " x\n', ' /* { " */ ', "\n"])
        text += ("," if number else "") + comment + json.dumps(name) + comment + ":" + json.dumps(value)
    found = read(text + "}")
    assert {name: value.value for name, value in found.items()} == document
