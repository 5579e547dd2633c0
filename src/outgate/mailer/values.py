"""Typed values as an OSGi configuration knows them, and how text becomes one.

Standards: OSGi Compendium chapter 104 (types of properties), chapter 707 (converter), as Apache Felix does it.
Promises: a conversion gives a value of the named type within that type's range, or `ConversionError`.
Dangers: a value may be a secret: neither `repr` nor an error shows one.
Not here: files (`mailer.osgi`), placeholders (`mailer.interpolate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from outgate.mailer.configuration import java_numbers

Scalar = str | int | float | bool

_CANONICAL = {
    "int": "Integer",
    "long": "Long",
    "float": "Float",
    "double": "Double",
    "byte": "Byte",
    "short": "Short",
    "char": "Character",
    "boolean": "Boolean",
}
_SCALARS = frozenset({"String", *_CANONICAL.values()})
_BITS = {"Byte": 8, "Short": 16, "Integer": 32, "Long": 64}


class ConfigError(Exception):
    """The configuration cannot be used as it is; `text` says what to change, and shows no value.

    `name` is the property it is about, `file` where that stands, `line` and `column` count from 1: "" and 0 if there is
    none, or as long as it is not known. `str()` gives all that is known: "FILE: line 3, column 5: smtp.port: TEXT"."""

    def __init__(self, text: str, *, name: str = "", file: object = "", line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.name = name
        self.file = str(file)
        self.line = line
        self.column = column

    def at(self, *, name: str = "", file: object = "", line: int = 0, column: int = 0) -> Self:
        """Fill in what is not known yet of where it is; return the error itself."""
        self.name = self.name or name
        self.file = self.file or str(file)
        if not self.line:
            self.line, self.column = line, column
        return self

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}" if self.line else ""
        return ": ".join(part for part in (self.file, place, self.name, self.text) if part)


class ConversionError(ConfigError):
    """A value does not fit the type it shall have."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value and the simple name of its Java type: "String", "Long", "Boolean[]", "Collection<Integer>", …

    Arrays and collections are tuples."""

    type: str
    value: Scalar | tuple[Scalar, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """Return the value as Java would write it."""
        if isinstance(self.value, tuple):
            return "[" + ", ".join(self.texts) + "]"
        return as_text(self.value, self.type)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the elements as Java would write each; a scalar is the only one."""
        items = self.value if isinstance(self.value, tuple) else (self.value,)
        return tuple(as_text(item, self.type) for item in items)


def as_text(value: Scalar, type_name: str = "") -> str:
    """Return a scalar as Java would write it; `type_name` tells a Float from a Double."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return java_numbers.written(value, single="float" in type_name.lower())
    return str(value)


def shown(text: str) -> str:
    """Return a name from outside as an error may show it: cut, and in characters that any terminal takes."""
    return printable(text[:100]) + ("…" if len(text) > 100 else "")


def printable(text: str) -> str:
    """Return a text in characters that any terminal takes, the others as Python's escapes."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def known(type_name: str) -> bool:
    """Say whether a scalar or an array of that type exists."""
    scalar = type_name.removesuffix("[]")
    return scalar in _SCALARS or scalar in _CANONICAL


def boxed(type_name: str) -> str:
    """Return the type of the object that a scalar of the given type comes as: "int" gives "Integer".

    Arrays of primitives stay what they are."""
    return type_name if type_name.endswith("[]") else _CANONICAL.get(type_name, type_name)


def convert(given: Scalar, type_name: str) -> Scalar:
    """Turn a scalar into one of the named scalar type. Raises `ConversionError`."""
    name = _CANONICAL.get(type_name, type_name)
    if name == "String":
        return as_text(given)
    if name == "Boolean":
        return given.lower() == "true" if isinstance(given, str) else abs(given) >= 1
    if name == "Character":
        text = as_text(given)
        if len(text) != 1 or text > "\uffff":
            raise ConversionError(f"is not a single character, as {type_name} must be")
        return text
    return _integer(given, name) if name in _BITS else _floating(given, name)


def first_character(text: str) -> str:
    """Return what the converter makes of a text for a Character: its first, U+0000 of nothing. Raises
    `ConversionError` for one that Java writes as two."""
    if text[:1] > "\uffff":
        raise ConversionError("begins with a character that Java's Character cannot hold")
    return text[:1] or "\0"


def _integer(given: Scalar, name: str) -> int:
    if isinstance(given, str):
        found = java_numbers.whole(given)
        if found is None:
            raise ConversionError(f"is not a number of type {name}")
        number = found
    elif isinstance(given, float):
        if not given.is_integer():
            raise ConversionError(f"is not a whole number, as {name} must be")
        number = int(given)
    else:
        number = int(given)
    limit = 1 << (_BITS[name] - 1)
    if not -limit <= number < limit:
        raise ConversionError(f"is outside the range of {name}")
    return number


def _floating(given: Scalar, name: str) -> float:
    single = name == "Float"
    if not isinstance(given, str):
        return java_numbers.to_single(float(given)) if single else float(given)
    number = java_numbers.floating(given, single=single)
    if number is None:
        raise ConversionError(f"is not a number of type {name}")
    return number
