"""The configuration reader takes any text, and agrees with plain JSON where JSON is all there is."""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer.osgi import OsgiError, decode, parse, read, write
from outgate.mailer.values import ConfigError, Value

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


@given(number=st.integers(-(10**80), 10**80), bits=st.sampled_from([8, 16, 32, 64]))
def test_a_number_that_is_too_large_keeps_its_low_bits(number: int, bits: int) -> None:
    name = {8: "Byte", 16: "Short", 32: "Integer", 64: "Long"}[bits]
    found = parse(f'{{"p:{name}": {number}}}')["p"]
    low = number.to_bytes(40, "big", signed=True)[-(bits // 8) :]
    assert found.value == Value(name, int.from_bytes(low, "big", signed=True))
    assert bool(found.changed) == (found.value.value != number)
    assert str(number) not in found.changed or abs(number) < 100


_SECRET = "correct-horse"
_ANY = st.recursive(
    st.one_of(st.just(_SECRET), st.just("$[env:X]" + _SECRET), st.integers(), st.floats(), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(value=_ANY, type_name=st.sampled_from(["", *(f":{name}" for name in ("String", "int", "char", "Boolean[]", "String[]", "char[]", "Byte[]", "Collection", "Collection<Long>"))]))  # fmt: skip
def test_what_is_said_of_a_value_never_shows_it(value: object, type_name: str) -> None:
    try:
        said = parse(json.dumps({f"p{type_name}": value}))["p"].changed
    except OsgiError as error:
        said = str(error)
    assert _SECRET not in said


# -- reading what was written -----------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


_BY_TYPE: dict[str, st.SearchStrategy[object]] = {
    "String": _TEXT | st.just("$[env:A;default=\\]"),
    "Long": _integers(64),
    "Double": st.floats(),
    "Boolean": st.booleans(),
    "Integer": _integers(32),
    "Short": _integers(16),
    "Byte": _integers(8),
    "Float": st.floats(width=32),
    "Character": st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]),
}
_BOXED = {"int": "Integer", "long": "Long", "char": "Character"} | {
    name.lower(): name for name in ("Double", "Boolean", "Short", "Byte", "Float")
}


def _lists(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=4).map(tuple)


def _values() -> st.SearchStrategy[Value]:
    kinds = list(_BY_TYPE.items())
    kinds += [(f"{name}[]", _lists(of)) for name, of in _BY_TYPE.items()]
    kinds += [(f"{name}[]", _lists(_BY_TYPE[boxed])) for name, boxed in _BOXED.items()]
    kinds += [(f"Collection<{name}>", _lists(of)) for name, of in _BY_TYPE.items()]
    kinds += [("Collection", _lists(_BY_TYPE[name])) for name in ("String", "Long", "Boolean")]
    kinds += [("Collection", _lists(st.floats(allow_nan=False, allow_infinity=False)))]
    return st.one_of(*(of.map(lambda value, name=name: Value(name, value)) for name, of in kinds))  # pyright: ignore


def _same(left: dict[str, Value], right: dict[str, Value]) -> bool:
    return [(name, value.type, repr(value.value)) for name, value in left.items()] == [
        (name, value.type, repr(value.value)) for name, value in right.items()
    ]


@given(given_values=st.dictionaries(_NAMES, _values(), max_size=5))
def test_what_is_written_reads_the_same(given_values: dict[str, Value]) -> None:
    if len({name.lower() for name in given_values}) < len(given_values):
        return
    text = write(given_values)
    again = read(text)
    assert _same(again, given_values)
    assert write(again) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", Value("Long", 1)),
        ("a:b", Value("Long", 1)),
        ("a", Value("int", 1)),
        ("a", Value("Long", 2**63)),
        ("a", Value("Integer", 2**31)),
        ("a", Value("Long", "tongue")),
        ("a", Value("String", 1)),
        ("a", Value("Integer", True)),
        ("a", Value("Float", 0.1)),
        ("a", Value("Character", "tongue")),
        ("a", Value("String[]", "tongue")),
        ("a", Value("Collection", (1, "tongue"))),
        ("a", Value("Thing", "tongue")),
        ("a", Value("String", "\ud800")),
    ],
)
def test_what_no_file_can_say_is_not_written(name: str, value: Value) -> None:
    with pytest.raises(ConfigError) as caught:
        write({name: value})
    assert "tongue" not in str(caught.value)


def test_names_that_are_one_are_not_written() -> None:
    with pytest.raises(ConfigError, match="same property"):
        write({"a": Value("Long", 1), "A": Value("Long", 2)})


def test_a_float_is_written_with_its_digits() -> None:
    (tenth,) = struct.unpack("f", struct.pack("f", 0.1))
    assert read(write({"a": Value("Float", tenth)})) == {"a": Value("Float", tenth)}


# -- what is wrong ----------------------------------------------------------------------------------------------

_SECRET = "tongue"
_SECRETS = [
    f'{{"a": 1, "smtp.password": "{_SECRET}", "b": true}}',
    f'{{"p": ["{_SECRET}", "x"], "q": {{"k": "{_SECRET}", "l": 1}}}}',
    f'{{"p:Integer": "{_SECRET}"}}',
    f'{{"p:Integer[]": ["1", "{_SECRET}"], "q:Boolean": "$[secret:{_SECRET}]"}}',
    f'{{"smtp.password": {_SECRET}, "b": 1}}',
    f"{{'smtp.password': '{_SECRET}'}}",
]


@given(
    text=st.sampled_from(_SECRETS),
    at=st.integers(0, 60),
    taken=st.integers(0, 2),
    put=st.sampled_from(["", *"\"',:{}[]=#/; \n\\1x", "//", "/*", "null"]),
)
def test_no_error_shows_a_value(text: str, at: int, taken: int, put: str) -> None:
    try:
        read(text[:at] + put + text[at + taken :])
    except OsgiError as error:
        assert _SECRET not in str(error) and _SECRET not in repr(error)


_SIZE = 1_000_000
_HOSTILE: dict[str, Callable[[], str]] = {
    "brackets": lambda: '{"a":' + "[" * _SIZE,
    "closed brackets": lambda: '{"a":[' + "[]," * (_SIZE // 3),
    "objects": lambda: '{"a":' * (_SIZE // 5),
    "properties": lambda: "{" + ",".join(f'"k{number}":1' for number in range(_SIZE // 11)),
    "long names": lambda: "{" + ",".join(f'"{str(number) * 200}":1' for number in range(_SIZE // 1200)) + "}",
    "elements": lambda: '{"a":[' + "1," * (_SIZE // 2),
    "numbers": lambda: '{"a":' + "1" * _SIZE,
    "digits": lambda: '{"a":1.' + "1" * _SIZE + "x}",
    "exponents": lambda: '{"a":1e' + "9" * _SIZE + "}",
    "quotes": lambda: "{" + '"' * _SIZE,
    "escapes": lambda: '{"' + '\\"' * (_SIZE // 2),
    "halves": lambda: '{"a":"' + "\\ud800" * (_SIZE // 6) + '"}',
    "words": lambda: "{" + "a" * _SIZE,
    "words for values": lambda: '{"a":' + "a" * _SIZE,
    "single quotes": lambda: "{" + "'" * _SIZE,
    "blanks": lambda: " " * _SIZE,
    "lines": lambda: '{"a":1' + "\n" * _SIZE,
    "line comments": lambda: "{" + "//\n" * (_SIZE // 3) + "}",
    "block comments": lambda: "{" + "/**/" * (_SIZE // 4) + "}",
    "open comments": lambda: "{" + "/*" * (_SIZE // 2),
    "stars": lambda: "{/" + "*" * _SIZE,
    "colons": lambda: '{"a' + ":" * _SIZE + '":1}',
    "a long type": lambda: '{"a:' + "Collection<" * (_SIZE // 11) + '":1}',
    "zeros": lambda: "\0" * _SIZE,
    "too much": lambda: "{" + " " * 2_000_000,
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_megabyte_of_anything_is_read_in_bounded_steps(name: str) -> None:
    text = _HOSTILE[name]()
    steps = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        read(text)
    except OsgiError as error:
        assert len(str(error)) < 1000
    finally:
        sys.setprofile(None)
    assert steps < 5_000_000


def test_octets_in_any_encoding_have_a_place() -> None:
    with pytest.raises(OsgiError, match="UTF-8") as caught:
        decode('{"ä": 1,\n "ö": "'.encode() + b"\xfc")
    assert (caught.value.line, caught.value.column) == (2, 8)
    with pytest.raises(OsgiError, match="UTF-16"):
        decode('{"a": 1}'.encode("utf-16"))
    with pytest.raises(OsgiError, match="at most 1048576 octets"):
        decode(b" " * 1_048_577)
