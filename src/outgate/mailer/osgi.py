"""Read an OSGi configuration file (`<PID>.cfg.json`) the way Apache Felix does, with errors that help.

Standards: OSGi Compendium chapter 150 (configurator: types, keys), RFC 8259 with `//` and `/* */` comments.
Promises: any text gives values or `OsgiError` with line and column; comments are blanked in place, so that
positions are those of the file; no error shows a value.
Dangers: property names that differ only in case, or in a type, are one property: a clash is an error.
Not here: placeholders (`mailer.interpolate`), which file to read (`mailer.folders`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from outgate.mailer.values import ConfigError, ConversionError, Scalar, Value, convert, known

_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_TYPED = re.compile(r"(?P<name>[^:].*?):(?P<type>[^:]*)", re.DOTALL)
_COLLECTION = re.compile(r"Collection(?:<(?P<item>[A-Za-z]+)>)?")
_CONFIGURATOR = frozenset(
    {
        ":configurator:resource-version",
        ":configurator:symbolic-name",
        ":configurator:version",
        ":configurator:ranking",
        ":configurator:policy",
    }
)


class OsgiError(ConfigError):
    """The file is not a configuration. `line` and `column` count from 1."""

    def __init__(self, text: str, line: int, column: int) -> None:
        super().__init__(text, line=line, column=column)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the text; `line` and `column` count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Property:
    """One property as it stands in the file: `written_type` is what is behind the colon of its key, "" if nothing."""

    name: str
    value: Value
    written_type: str
    key_at: Place
    value_at: Place


def read(text: str) -> dict[str, Value]:
    """Return the properties of a configuration by name, without their type suffix. Raises `OsgiError`."""
    return {name: found.value for name, found in parse(text).items()}


def parse(text: str) -> dict[str, Property]:
    """Do as `read`, and tell where each property stands. Raises `OsgiError`."""
    if text.startswith("\ufeff"):
        raise OsgiError("expected a JSON object, found a byte order mark", 1, 1)
    reader = _Reader(_blank_comments(text))
    try:
        return reader.read()
    except RecursionError:
        raise OsgiError("the values are nested too deeply", 1, 1) from None


def decode(data: bytes) -> str:
    """Return a file's text. Raises `OsgiError` if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise OsgiError("expected UTF-8, found another encoding", line, column) from None


def _blank_comments(text: str) -> str:
    """Replace comments by spaces; line ends stay."""

    def blank(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith('"'):
            return token
        if token.startswith("/*") and (len(token) < 4 or not token.endswith("*/")):
            line, column = _place(text, match.start())
            raise OsgiError("expected the end of this comment (*/), found the end of the file", line, column)
        return re.sub(r"[^\r\n]", " ", token)

    return _TOKEN.sub(blank, text)


def _place(text: str, at: int) -> tuple[int, int]:
    line = text.count("\n", 0, at) + 1
    return line, at - (text.rfind("\n", 0, at) + 1) + 1


@dataclass(slots=True)
class _Seen:
    name: str
    line: int


class _Reader:
    """Reads one object; each value is left to the standard decoder, so that every position is known."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder(parse_constant=self._constant)
        self._seen: dict[str, _Seen] = {}

    def read(self) -> dict[str, Property]:
        found: dict[str, Property] = {}
        self._take("{", "expected { at the beginning of the configuration")
        if self._peek() == "}":
            self._at += 1
        else:
            while True:
                self._property(found)
                sign = self._peek()
                if sign == ",":
                    comma = self._at
                    self._at += 1
                    if self._peek() == "}":
                        self._at = comma
                        self._fail("expected no comma behind the last property")
                elif sign == "}":
                    self._at += 1
                    break
                else:
                    self._fail("expected , or } behind a property")
        if self._peek():
            self._fail("expected nothing behind the configuration")
        return found

    def _property(self, found: dict[str, Property]) -> None:
        if self._peek() != '"':
            self._fail("expected a property name in double quotes")
        start = self._at
        key = cast("str", self._value())
        self._take(":", "expected : behind a property name")
        self._peek()
        value_at = self._at
        raw = self._value()
        if key.startswith(":configurator:"):
            if key not in _CONFIGURATOR:
                self._at = start
                self._fail("expected one of the :configurator: keys that exist", found=False)
            return
        name, type_name = self._split(key, start)
        self._once(name, start)
        try:
            value = _typed(raw, type_name) if type_name else _untyped(raw)
        except ConversionError as error:
            self._at = value_at
            self._fail(f"the value of {key} {error}", found=False)
        found[name] = Property(
            name, value, type_name, Place(*_place(self._text, start)), Place(*_place(self._text, value_at))
        )

    def _split(self, key: str, start: int) -> tuple[str, str]:
        match = _TYPED.fullmatch(key)
        if match is None:
            return key, ""
        type_name = match["type"]
        collection = _COLLECTION.fullmatch(type_name)
        item = collection["item"] if collection else None
        if collection and (item is None or (known(item) and item[0].isupper())):
            return match["name"], type_name
        if type_name in ("binary", "binary[]"):
            self._at = start
            self._fail(f"type {type_name} is for configurations in bundles only", found=False)
        if not known(type_name):
            self._at = start
            self._fail("expected a type that exists behind the colon of a property name", found=False)
        return match["name"], type_name

    def _once(self, name: str, start: int) -> None:
        earlier = self._seen.get(name.lower())
        line = _place(self._text, start)[0]
        if earlier is not None:
            self._at = start
            self._fail(
                f'"{name}" is the same property as "{earlier.name}" in line {earlier.line}'
                " (names are not case-sensitive, types do not tell them apart)",
                found=False,
            )
        self._seen[name.lower()] = _Seen(name, line)

    # -- small print ----------------------------------------------------------------------------------------

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, sign: str, expected: str) -> None:
        if self._peek() != sign:
            self._fail(expected)
        self._at += 1

    def _value(self) -> Any:
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._fail(_EXPECTED.get(error.msg, error.msg[:1].lower() + error.msg[1:]))
        except ValueError:  # a number with thousands of digits
            self._fail("expected a number of a size that can be", found=False)
        return value

    def _constant(self, name: str) -> NoReturn:
        self._fail(f"expected a JSON value, {name} is none", found=False)

    def _fail(self, text: str, *, found: bool = True) -> NoReturn:
        if found:
            sign = self._text[self._at : self._at + 1]
            hint = _HINTS.get(sign, "")
            text += f", found {sign!r}{hint}" if sign else ", found the end of the file"
        raise OsgiError(text, *_place(self._text, self._at))


_EXPECTED = {
    "Expecting value": "expected a value",
    "Expecting property name enclosed in double quotes": "expected a property name in double quotes",
    "Expecting ':' delimiter": "expected :",
    "Expecting ',' delimiter": "expected ,",
    "Illegal trailing comma before end of object": "expected no comma behind the last property",
    "Illegal trailing comma before end of array": "expected no comma behind the last element",
    "Unterminated string starting at": "expected the closing quote of this string",
    "Invalid control character at": "expected no line end or control character inside a string",
}
_HINTS = {"'": " (JSON has no single quotes)", "#": " (comments begin with // here)"}


def _untyped(raw: Any) -> Value:
    """Choose the type that the value itself suggests."""
    if raw is None:
        raise ConversionError("is null, which voids the whole file: leave the property out instead")
    if isinstance(raw, list):
        items = cast("list[Any]", raw)
        kinds = {_kind(item) for item in items} or {"String"}
        kind = kinds.pop()
        if not kinds and kind:
            return Value(f"{kind}[]", tuple(convert(item, kind) for item in items))
        return Value("String", _json(items))
    kind = _kind(raw)
    return Value(kind, convert(raw, kind)) if kind else Value("String", _json(raw))


def _kind(raw: Any) -> str:
    """Return the type of an untyped scalar, "" for what is none."""
    if isinstance(raw, bool):
        return "Boolean"
    if isinstance(raw, int):
        return "Long"
    if isinstance(raw, float):
        return "Double"
    return "String" if isinstance(raw, str) else ""


def _json(raw: Any) -> str:
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)


def _typed(raw: Any, type_name: str) -> Value:
    collection = _COLLECTION.fullmatch(type_name)
    if collection or type_name.endswith("[]"):
        item_type = (collection["item"] or "") if collection else type_name[:-2]
        items = cast("list[Any]", raw) if isinstance(raw, list) else [raw]
        return Value(type_name, tuple(_scalar(item, item_type or _kind(item)) for item in items))
    value = Value(type_name, _scalar(raw, type_name))
    return Value(_BOXED.get(type_name, type_name), value.value)


def _scalar(raw: Any, type_name: str) -> Scalar:
    if not _kind(raw):
        raise ConversionError(f"cannot be of type {type_name}" if type_name else "is no scalar")
    if isinstance(raw, str) and "$[" in raw and type_name not in ("String", ""):
        raise ConversionError(
            f"is a placeholder, but the type {type_name} applies before placeholders are replaced:"
            f" write ;type={type_name} inside the placeholder instead"
        )
    return convert(cast("Scalar", raw), type_name)


_BOXED = {"int": "Integer", "long": "Long", "char": "Character"} | {
    name: name.capitalize() for name in ("float", "double", "byte", "short", "boolean")
}
