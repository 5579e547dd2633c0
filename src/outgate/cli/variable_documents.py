"""Read variables from a JSON or YAML document: an array of `{name, value, type?, service?}`.

Standards: RFC 8259; YAML 1.1 as PyYAML's parser has it, of which no tag, alias or second document is taken.
Promises: a value is the text that was written: `yes`, `0123`, `1.10` and `2026-01-01` stay what they are. An error says
    line, column and what was expected, never a value. What a document costs depends on its size only, which has an end.
Dangers: none is silently left out: an entry without name or value is an error, where the vendor's client skips it.
Not here: whether the server would take them (`variable_plan`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from outgate.cli.variable_plan import Unfit, Wish

OCTETS_LIMIT = 1024 * 1024
ENTRIES_LIMIT = 1000
_KEYS = ("name", "value", "type", "service")
# What the list command prints, so that its output can be sent back.
_PASSED_OVER = ("status", "_links", "id")
_ENTRY = 'expected {"name": …, "value": …}'
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

_Entry = list[tuple[str, object]]


def text_of(raw: bytes, what: str) -> str:
    """Return octets as text. Raises `Unfit`."""
    if len(raw) > OCTETS_LIMIT:
        raise Unfit([f"{what} has more than {OCTETS_LIMIT} octets"])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unfit([f"{what} is not UTF-8 (octet {error.start + 1}): save it as UTF-8"]) from None


def read_json(raw: bytes, what: str) -> list[Wish]:
    """Return the variables of a JSON document. Raises `Unfit`."""
    text = text_of(raw, what)
    wishes: list[Wish] = []
    try:
        for at, entry in _elements(text, what):
            wishes.append(_wish(entry, _place(what, text, at)))
            _few(wishes, what)
    except json.JSONDecodeError as error:
        # Its sentences are fixed but for what follows a colon.
        expected = error.msg.partition(":")[0]
        raise Unfit([f"{_place(what, text, error.pos)}: this is not JSON: {expected}"]) from None
    except RecursionError:
        raise Unfit([f"{what}: {_ENTRY}, and nothing as deep as this"]) from None
    return wishes


def read_yaml(raw: bytes, what: str) -> list[Wish]:
    """Return the variables of a YAML document. Raises `Unfit`."""
    import yaml

    text = text_of(raw, what)
    try:
        return _sequence(iter(yaml.parse(text, Loader=yaml.SafeLoader)), what)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{what}: line {mark.line + 1}, column {mark.column + 1}" if mark else what
        # The parser's own words may quote a value.
        hint = "put quotes around what has special signs, as in value: 'text'"
        raise Unfit([f"{place}: this is not YAML: {hint}"]) from None
    except (yaml.YAMLError, RecursionError):
        raise Unfit([f"{what}: this is not YAML: it has a character that no text may have, or is too deep"]) from None


def _place(what: str, text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"{what}: line {line}, column {at - (text.rfind(chr(10), 0, at) + 1) + 1}"


# JSON


def _elements(text: str, what: str) -> Iterator[tuple[int, _Entry]]:
    """Give the objects of the array that `text` is, each with its place. Raises `JSONDecodeError`, `Unfit`."""
    # Numbers stay as they are written.
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    at = _past_blanks(text, 0)
    if text[at : at + 1] != "[":
        raise Unfit([f"{_place(what, text, at)}: expected an array: [{{{_ENTRY.partition('{')[2]}, …]"])
    at = _past_blanks(text, at + 1)
    sign = text[at : at + 1]
    if sign == "]":
        at = _past_blanks(text, at + 1)
    while sign != "]":
        found, end = cast("tuple[object, int]", decoder.raw_decode(text, at))
        if not isinstance(found, _Pairs):
            raise Unfit([f"{_place(what, text, at)}: {_ENTRY}"])
        yield at, found
        at = _past_blanks(text, end)
        sign = text[at : at + 1]
        if sign not in ("]", ","):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _past_blanks(text, at + 1)
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


class _Pairs(_Entry):
    """An object's names and values, in order, with what stands twice."""


class _Number(str):
    """A number, as it is written."""

    __slots__ = ()


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


# YAML


def _sequence(events: Iterator[Any], what: str) -> list[Wish]:
    """Read a document that is a sequence of flat mappings; the first event of another kind ends it."""
    import yaml

    def expect(kind: type[Any], expected: str) -> Any:
        return _checked(next(events), kind, expected, what)

    expect(yaml.StreamStartEvent, "a document")
    started = next(events)
    if isinstance(started, yaml.StreamEndEvent):
        raise Unfit([f"{what} is empty: expected a sequence of variables, each with name and value"])
    _checked(started, yaml.DocumentStartEvent, "a document", what)
    expect(yaml.SequenceStartEvent, "a sequence of variables: - name: …")
    wishes: list[Wish] = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        _checked(event, yaml.MappingStartEvent, "a variable: name: … and value: …", what)
        place = _mark(event, what)
        entry: _Entry = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = _checked(event, yaml.ScalarEvent, f"one of {', '.join(_KEYS)}", what)
            value = expect(yaml.ScalarEvent, "a text: put quotes around it")
            empty = value.style is None and value.value in _NULLS
            entry.append((key.value, None if empty else value.value))
        wishes.append(_wish(entry, place))
        _few(wishes, what)
    expect(yaml.DocumentEndEvent, "the end of the document")
    expect(yaml.StreamEndEvent, "the end of the file, not a second document")
    return wishes


def _checked(event: Any, kind: type[Any], expected: str, what: str) -> Any:
    tag = getattr(event, "tag", None)
    if not isinstance(event, kind):
        raise Unfit([f"{_mark(event, what)}: expected {expected}"])
    if getattr(event, "anchor", None) is not None:
        raise Unfit([f"{_mark(event, what)}: an anchor has no meaning here: put quotes around what begins with &"])
    if tag not in (None, "tag:yaml.org,2002:str"):
        raise Unfit([f"{_mark(event, what)}: a tag has no meaning here: put quotes around what begins with !"])
    return event


def _mark(event: Any, what: str) -> str:
    return f"{what}: line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"


# Both


def _few(wishes: list[Wish], what: str) -> None:
    if len(wishes) > ENTRIES_LIMIT:
        raise Unfit([f"{what} has more than {ENTRIES_LIMIT} variables, far more than an environment can have"])


def _wish(entry: _Entry, where: str) -> Wish:
    def wrong(text: str) -> NoReturn:
        raise Unfit([f"{where}: {text}"])

    found: dict[str, object] = {}
    for key, value in entry:
        if key in found:
            wrong("a variable's key stands twice in it")
        if key not in _KEYS and key not in _PASSED_OVER:
            wrong(f"a variable has no such key: {_KEYS[0]}, {_KEYS[1]}, and perhaps {_KEYS[2]} and {_KEYS[3]}")
        found[key] = value
    for key in ("name", "type", "service"):
        text = found.get(key)
        if not (text is None or (isinstance(text, str) and not isinstance(text, _Number))):
            wrong(f"{key} is not a text")
    if not found.get("name"):
        wrong("name is missing")
    value = found.get("value")
    if "value" not in found or value is None:
        wrong('value is missing: write "" to delete the variable')
    if isinstance(value, bool):
        value = json.dumps(value)
    if not isinstance(value, str):
        wrong("value must be a text: write JSON within a text as a text, in quotes")
    kind, service = (str(found.get(key) or "") for key in ("type", "service"))
    return Wish(str(found["name"]), str(value), kind, service, where)
