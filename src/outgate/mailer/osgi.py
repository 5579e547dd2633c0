"""Read and write OSGi configuration files (`<PID>.cfg.json`) the way Apache Felix does, with errors that help.

Standards: OSGi Compendium chapter 150 (configurator: types, keys) and 707 (converter), as Apache Felix does them.
Promises: any text gives values or `OsgiError` with line and column; values and types are those that Felix gives; what
was written and is read again is the same; no error shows a value.
Dangers: property names that differ only in case, or in a type, are one property: a clash is an error. Felix changes
some values without a word (a number that is too large, a list for a single value): so does `read`, and
`Property.changed` tells it.
Not here: JSON (`mailer.configuration.commented_json`), types (`mailer.configuration.osgi_values`), placeholders
(`mailer.interpolate`), which file
to read (`mailer.folders`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from outgate.mailer.configuration.commented_json import (
    LONGEST,
    Array,
    JsonError,
    Lines,
    Member,
    Object,
    quoted,
    read_object,
)
from outgate.mailer.configuration.osgi_values import SCALARS, UNTYPED, BadElement, Changed, exists, typed, untyped
from outgate.mailer.values import ConfigError, ConversionError, Scalar, Value, boxed

_RESOURCE = ":configurator:resource-version", ":configurator:symbolic-name", ":configurator:version"
_CONFIGURATOR = (*_RESOURCE, ":configurator:ranking", ":configurator:policy")
_OTHER_NAMES = {
    "number": "Long or Double",
    "bigdecimal": "Double",
    "text": "String",
    "str": "String",
    "list": "Collection",
    "set": "Collection",
    "array": "String[]",
    "bool": "Boolean",
}


class OsgiError(ConfigError):
    """The file is not a configuration. `line` and `column` count from 1."""

    def __init__(self, text: str, line: int, column: int) -> None:
        super().__init__(text, line=line, column=column)


class Place(NamedTuple):
    """A place in the text; `line` and `column` count from 1."""

    line: int
    column: int


NOWHERE = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Property:
    """One property as it stands in the file: `written_type` is what is behind the colon of its key, "" if nothing;
    `elements_at` has the places of the elements if the value is written as a list. `changed` says what Felix makes
    another value of without a word ("" if nothing), and `changed_at` where that stands."""

    name: str
    value: Value
    written_type: str
    key_at: Place
    value_at: Place
    elements_at: tuple[Place, ...] = ()
    changed: str = ""
    changed_at: Place = NOWHERE


def read(text: str) -> dict[str, Value]:
    """Return the properties of a configuration by name, without their type suffix. Raises `OsgiError`.

    At most 1 MiB, 10,000 properties, 50 objects and lists within each other."""
    return {name: found.value for name, found in parse(text).items()}


def parse(text: str) -> dict[str, Property]:
    """Do as `read`, and tell where each property stands. Raises `OsgiError`."""
    if text.startswith("\ufeff"):
        raise OsgiError("expected a JSON object, found a byte order mark: save the file as UTF-8 without one", 1, 1)
    lines = Lines(text)
    try:
        return _Properties(lines).all_of(read_object(text))
    except JsonError as error:
        raise OsgiError(error.text, *lines.place(error.at)) from None


def decode(data: bytes) -> str:
    """Return a file's text. Raises `OsgiError` if it is too large, or not UTF-8."""
    if len(data) > LONGEST:
        raise OsgiError(f"expected at most {LONGEST} octets, found more: is this a configuration file?", 1, 1)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise OsgiError("expected UTF-8, found UTF-16: save the file as UTF-8", 1, 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise OsgiError(
            "expected UTF-8, found another encoding (Latin-1?): save the file as UTF-8",
            *Lines(before).place(len(before)),
        ) from None


def write(properties: Mapping[str, Value]) -> str:
    """Return the text of a configuration file; a key names its type where reading would give another without.

    Raises `ConfigError` for what no file can say: a name that is empty or has a colon, an unknown type, a value that
    does not have its type."""
    lines: list[str] = []
    for name, value in properties.items():
        if not name or ":" in name:
            raise ConfigError("a property's name has at least one character, and no colon", name=name)
        key = name if _goes_without_type(value) else f"{name}:{value.type}"
        items = value.value if isinstance(value.value, tuple) else (value.value,)
        finite = all(not isinstance(item, float) or math.isfinite(item) for item in items)
        written = ", ".join(_json(item) if finite else f'"{_java(item)}"' for item in items)
        lines.append(f"  {json.dumps(key, ensure_ascii=False)}: {f'[{written}]' if items is value.value else written}")
    text = "{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n"
    try:
        again = read(text)
    except OsgiError as error:
        raise ConfigError(f"cannot be written: {error.text}") from None
    for name, value in properties.items():
        if repr((again[name].type, again[name].value)) != repr((value.type, value.value)):
            raise ConfigError(f"the value is none of type {value.type}", name=name)
    return text


def _goes_without_type(value: Value) -> bool:
    if value.type in UNTYPED:
        return not isinstance(value.value, float) or math.isfinite(value.value)
    items = value.value if isinstance(value.value, tuple) else ()
    if not value.type.endswith("[]") or value.type[:-2] not in UNTYPED:
        return False
    return (bool(items) or value.type == "String[]") and all(
        not isinstance(item, float) or math.isfinite(item) for item in items
    )


def _json(item: Scalar) -> str:
    """Return a scalar as JSON. A Double is not written so that Java takes it for a whole number, as 1.5e1."""
    whole = isinstance(item, float) and 1e16 <= abs(item) < 1e17
    return f"{item:.1f}" if whole else json.dumps(item, ensure_ascii=False)


def _java(number: Scalar) -> str:
    """Return a number as Java writes it, also those that JSON cannot."""
    return str(number).replace("nan", "NaN").replace("inf", "Infinity")


# -- from JSON to properties ------------------------------------------------------------------------------------


class _Properties:
    """Makes properties of the members of an object."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._seen: dict[str, tuple[str, int]] = {}

    def all_of(self, document: Object) -> dict[str, Property]:
        self._one_configuration(document)
        found: dict[str, Property] = {}
        for member in document.members:
            if member.name.startswith(":configurator:"):
                self._configurator(member)
                continue
            one = self._property(member)
            found[one.name] = one
        return found

    def _property(self, member: Member) -> Property:
        name, colon, type_name = member.name.partition(":")
        if not name:
            raise JsonError("expected a property name, found none", member.name_at)
        if colon:
            _check_type(type_name, member)
        self._once(name, member.name_at)
        places = member.value.places if isinstance(member.value, Array) else ()
        changed = Changed()
        try:
            value = typed(member.value, type_name, changed) if colon else untyped(member.value, changed)
        except BadElement as error:
            at = places[error.index] if places else member.value_at
            raise JsonError(f"element {error.index + 1} of {quoted(member.name)} {error.text}", at) from None
        except ConversionError as error:
            raise JsonError(f"the value of {quoted(member.name)} {error.text}", member.value_at) from None
        key_at, value_at = Place(*self._lines.place(member.name_at)), Place(*self._lines.place(member.value_at))
        elements_at = tuple(Place(*self._lines.place(at)) for at in places)
        in_element = 0 <= changed.index < len(elements_at)
        told = f"element {changed.index + 1} {changed.text}" if in_element else changed.text
        changed_at = elements_at[changed.index] if in_element else value_at
        return Property(name, value, type_name, key_at, value_at, elements_at, told, changed_at)

    def _once(self, name: str, at: int) -> None:
        folded = name.lower()
        if folded in self._seen:
            earlier, line = self._seen[folded]
            raise JsonError(
                f"{quoted(name)} is the same property as {quoted(earlier)} in line {line}"
                " (names are not case-sensitive, types do not tell them apart): keep one of the two",
                at,
            )
        self._seen[folded] = name, self._lines.place(at)[0]

    def _configurator(self, member: Member) -> None:
        """Keys of this kind are no properties; they are for files in bundles, with several configurations each."""
        if member.name not in _CONFIGURATOR:
            hint = _near(member.name, _CONFIGURATOR)
            told = f": did you mean {hint}?" if hint else ""
            raise JsonError(
                f"expected one of the :configurator: keys that exist, found {quoted(member.name)}{told}", member.name_at
            )
        self._once(member.name, member.name_at)

    def _one_configuration(self, document: Object) -> None:
        """Refuse a resource file with several configurations: read as one, each would be a property with JSON text."""
        others = [each for each in document.members if not each.name.startswith(":")]
        resource = any(each.name in _RESOURCE for each in document.members)
        if resource and others and all(isinstance(each.value, Object) for each in others):
            pid = quoted(others[0].name)
            raise JsonError(
                f"expected the properties of one configuration, found {pid} as in a file with several (these belong in"
                f" bundles): write a file for each, named after its PID",
                others[0].name_at,
            )


def _check_type(type_name: str, member: Member) -> None:
    if type_name in ("binary", "binary[]"):
        raise JsonError(
            f"type {type_name} is for configurations in bundles only: the value would be the path of a file there",
            member.name_at,
        )
    if exists(type_name):
        return
    hint = _type_meant(type_name)
    told = f"did you mean {hint}?" if hint else "what is behind a colon in a property name is its type"
    raise JsonError(
        f"expected a type that exists behind the colon of a property name, found {quoted(type_name)}: {told}",
        member.name_at,
    )


def _type_meant(type_name: str) -> str:
    """Return the type that may be meant, "" if none is near."""
    asked = re.sub(r"^java\.(?:lang|util)\.|\s", "", type_name[:60])
    if asked.startswith(("List", "Set", "ArrayList", "collection")):
        asked = "Collection" + asked[asked.find("<") :] if "<" in asked else "Collection"
    if asked.startswith("Collection<"):
        item = asked[11:].rstrip(">").removesuffix("[]")
        near = next((each for each in SCALARS if each == boxed(item)), "") or _type_meant(item)
        return f"Collection<{near}>" if near in SCALARS else "Collection"
    if asked.lower() in _OTHER_NAMES:
        return _OTHER_NAMES[asked.lower()]
    names = [*SCALARS, *(f"{each}[]" for each in SCALARS), "Collection", "int", "int[]", "char", "char[]"]
    return next((each for each in names if each.lower() == asked.lower()), "") or _near(asked, names)


def _near(given: str, known_names: tuple[str, ...] | list[str]) -> str:
    import difflib  # only when something is wrong

    return next(iter(difflib.get_close_matches(given[:60], known_names, n=1, cutoff=0.6)), "")
