"""What an OSGi configuration makes of a JSON value: the type that it suggests, or the one that its key names.

Standards: OSGi Compendium chapters 150 (types of configuration values) and 707 (converter), as Apache Felix does them.
Promises: a value is that of Felix, or `ConversionError`; where Felix makes another of it without a word (digits beyond
the type's range, the first element for all of them), `Changed` says so.
Dangers: the converter sees a list only after it got its untyped value: a mixed one is a single text by then.
Not here: the keys (`mailer.osgi`), how a scalar becomes another (`mailer.values`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NoReturn, TypeVar

from outgate.mailer.configuration.commented_json import Array, Json, Number, Object, json_text
from outgate.mailer.values import ConversionError, Scalar, Value, boxed, convert, first_character, known

_COLLECTION = re.compile(r"Collection(?:<(?P<item>[A-Z][a-z]+)>)?")
UNTYPED = ("String", "Long", "Double", "Boolean")
SCALARS = (*UNTYPED, "Integer", "Float", "Byte", "Short", "Character")
_BITS = {"Byte": 8, "Short": 16, "Integer": 32, "Long": 64}
_NUMBERS = (*_BITS, "Float", "Double")
_WIDE = ("Integer", "int", "long", "float", "double")  # what Java makes of an Integer in an array, which true becomes
_MIXED = "elements must be all text, all numbers, or all true and false, and none a list or null"
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class BadElement(ConversionError):
    """One element of a list does not fit the type."""

    def __init__(self, text: str, index: int) -> None:
        super().__init__(text)
        self.index = index


class Changed:
    """What Felix changes of a value without a word: the first such thing, "" for none, and in which element."""

    def __init__(self) -> None:
        self.text = ""
        self.index = -1
        self.element = -1  # that is converted just now

    def note(self, text: str) -> None:
        if not self.text:
            self.text, self.index = text, self.element


def exists(type_name: str) -> bool:
    """Say whether a key may name that type; `binary` it may not."""
    collection = _COLLECTION.fullmatch(type_name)
    return known(type_name) if collection is None else (collection["item"] or "String") in SCALARS


def untyped(value: Json, changed: Changed) -> Value:
    """Choose the type that the value itself suggests."""
    match value:
        case None:
            raise ConversionError("is null, which voids the whole file: leave the property out instead")
        case bool():
            return Value("Boolean", value)
        case str():
            return Value("String", value)
        case Number():
            number = _number(value, changed)
            return Value("Long" if isinstance(number, int) else "Double", number)
        case Array():
            kind, items = _elements(value, changed)
            return Value(f"{kind}[]", items) if kind else Value("String", json_text(value))
        case Object():
            return Value("String", json_text(value))


def _elements(array: Array, changed: Changed) -> tuple[str, tuple[Scalar, ...]]:
    """Return the elements of a list and their type, "" if it is not the same for all.

    An empty list is one of strings, an object is its JSON text, and numbers are all Double if one is."""
    kinds = {type(item) for item in array.items} or {str}
    kind = kinds.pop()
    if kinds or kind in (Array, type(None)):
        return "", ()
    if kind is Number:
        given = [item for item in array.items if isinstance(item, Number)]
        numbers = _each(partial(_number, changed=changed), given, changed)
        if all(isinstance(number, int) for number in numbers):
            return "Long", numbers
        return "Double", tuple(float(number) for number in numbers)
    if kind is bool:
        return "Boolean", tuple(item for item in array.items if isinstance(item, bool))
    return "String", tuple(item if isinstance(item, str) else json_text(item) for item in array.items)


def _each(change: Callable[[_In], _Out], items: Iterable[_In], changed: Changed) -> tuple[_Out, ...]:
    found: list[_Out] = []
    for changed.element, item in enumerate(items):
        try:
            found.append(change(item))
        except ConversionError as error:
            raise BadElement(error.text, changed.element) from None
    changed.element = -1
    return tuple(found)


def _number(number: Number, changed: Changed) -> int | float:
    if not number.integral:
        found = float(number.text)
        if math.isinf(found):
            changed.note("is outside the range of Double, and becomes infinite")
        return found
    if len(number.text) < 19:
        return int(number.text)
    # All but the last 64 digits are a multiple of 2 to the power of 64.
    last = int(number.text.lstrip("-")[-64:])
    whole = _wrapped(-last if number.text.startswith("-") else last, "Long")
    if str(whole) != number.text:
        changed.note(
            "is outside the range of Long, which every whole number must fit at first, and becomes another number:"
            " put double quotes around it, or write .0 behind it for a Double"
        )
    return whole


def _wrapped(number: int, type_name: str) -> int:
    """Return what is left of a whole number in the bits of a type."""
    half = 1 << (_BITS[type_name] - 1)
    return (number + half) % (2 * half) - half


def _narrowed(number: int | float, type_name: str, changed: Changed) -> int:
    """Return a number as one of a type of whole numbers, as a cast in Java does."""
    whole = number
    if isinstance(whole, float):
        limit = 1 << (63 if type_name == "Long" else 31)
        whole = limit - 1 if whole >= limit else -limit if whole <= -limit else int(whole)
    found = _wrapped(whole, type_name)
    if found != number:
        if isinstance(number, float) and found == whole and abs(number - whole) < 1:
            changed.note(f"is not a whole number, as {type_name} must be, and loses its fraction")
        else:
            changed.note(f"is outside the range of {type_name}, and becomes another number")
    return found


def typed(value: Json, type_name: str, changed: Changed) -> Value:
    """Convert a value to the type that its key names."""
    collection = _COLLECTION.fullmatch(type_name)
    if collection is None and not type_name.endswith("[]"):
        single = _single(value, type_name, changed)
        name = "Integer" if isinstance(single, bool) and boxed(type_name) in _NUMBERS else boxed(type_name)
        if name != boxed(type_name):
            changed.note("is true or false, and becomes the Integer 1 or 0")
        return Value(name, _scalar(single, name, changed))
    item_type = (collection["item"] or "") if collection else type_name[:-2]
    if value is None:
        return Value(type_name, ())
    if not isinstance(value, Array):
        return Value(type_name, _items(value, item_type, collection is not None, changed))
    kind, items = _elements(value, changed)
    if kind:
        return Value(type_name, _each(partial(_scalar, type_name=item_type, changed=changed), items, changed))
    try:
        found = _items(json_text(value), item_type, collection is not None, changed)
    except ConversionError:
        raise ConversionError(f"cannot be of type {type_name}: its {_MIXED}") from None
    changed.note(f"is a mixed list, and becomes one text: its {_MIXED}")
    return Value(type_name, found)


def _items(value: Json, item_type: str, collection: bool, changed: Changed) -> tuple[Scalar, ...]:
    """Return the list that one value becomes: it is the only element, or a text's characters are."""
    if isinstance(value, (str, Object)) and boxed(item_type) == "Character" and not collection:
        items: tuple[Scalar, ...] = tuple(value if isinstance(value, str) else _nested(value, item_type, changed))
    else:
        items = (_single(value, item_type, changed),)
    return _each(partial(_scalar, type_name=item_type, changed=changed), items, changed)


def _single(value: Json, type_name: str, changed: Changed) -> Scalar:
    """Return what stands for a single value: the first element of a list, what is nested as its JSON text."""
    match value:
        case None:
            raise ConversionError("is null, which voids the whole file: leave the property out instead")
        case Number():
            return _number(value, changed)
        case Array():
            kind, items = _elements(value, changed)
            if not kind:
                return _nested(value, type_name, changed)
            count = f"it has {len(items)} elements, write {type_name}[] behind the name, or one value"
            if len(items) > 1:
                changed.note(f"loses all elements but the first, for it is of type {type_name}: {count}")
            for first in items:
                return first
            raise ConversionError(f"cannot be of type {type_name}: {count}")
        case Object():
            return _nested(value, type_name, changed)
        case _:
            return value


def _nested(value: Array | Object, type_name: str, changed: Changed) -> str:
    if boxed(type_name) in ("Boolean", "Character"):
        changed.note(f"is a list or an object, and becomes another value: expected one of type {type_name}")
    elif type_name not in ("String", ""):
        raise ConversionError(f"cannot be of type {type_name}: it is a list or an object")
    return json_text(value)


def _scalar(value: Scalar, type_name: str, changed: Changed) -> Scalar:
    if not type_name:
        return value
    if isinstance(value, str) and "$[" in value and type_name != "String":
        _refuse_placeholder(type_name)
    name = boxed(type_name)
    if name == "Character":
        return _character(value, changed)
    if isinstance(value, bool) and name in _NUMBERS and type_name not in _WIDE:
        raise ConversionError(f"is true or false, which {type_name} cannot be")
    if name in _BITS and not isinstance(value, (str, bool)):
        return _narrowed(value, name, changed)
    return convert(value, name)


def _character(value: Scalar, changed: Changed) -> str:
    """Return a character: the first of a text, or that of a number."""
    if isinstance(value, str):
        if len(value) != 1:
            what = "has several characters, of which only the first counts" if value else "is empty, and becomes U+0000"
            changed.note(f"{what}: expected a single character")
        return first_character(value)
    number = _narrowed(value, "Integer", Changed()) & 0xFFFF
    if number != value:
        changed.note("is not the number of a character, from 0 to 65535, and becomes another one")
    if 0xD800 <= number < 0xE000:
        raise ConversionError("is half of a character: expected a single character")
    return chr(number)


def _refuse_placeholder(type_name: str) -> NoReturn:
    raise ConversionError(
        f"is a placeholder, but the type {type_name} applies before placeholders are replaced:"
        f" take the type away from the name and write ;type={type_name} inside the placeholder instead"
    )
