"""What an OSGi configuration makes of a JSON value: the type that it suggests, or the one that its key names.

Standards: OSGi Compendium chapters 150 (types of configuration values) and 707 (converter), as Apache Felix does them.
Promises: a value is that of Felix, or `ConversionError`; where Felix would lose something of it without a word (digits
beyond the type's range, all elements but the first), that is an error.
Dangers: the converter sees a list only after it got its untyped value: a mixed one is a single text by then.
Not here: the keys (`mailer.osgi`), how a scalar becomes another (`mailer.values`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NoReturn, TypeVar

from outgate.mailer.commented_json import Array, Json, Number, Object, json_text
from outgate.mailer.values import ConversionError, Scalar, Value, boxed, convert, known

_COLLECTION = re.compile(r"Collection(?:<(?P<item>[A-Z][a-z]+)>)?")
UNTYPED = ("String", "Long", "Double", "Boolean")
SCALARS = (*UNTYPED, "Integer", "Float", "Byte", "Short", "Character")
_WHOLE = ("Byte", "Short", "Integer", "Long")
_BEYOND_LONG = 1 << 63
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class BadElement(ConversionError):
    """One element of a list does not fit the type."""

    def __init__(self, text: str, index: int) -> None:
        super().__init__(text)
        self.index = index


def exists(type_name: str) -> bool:
    """Say whether a key may name that type; `binary` it may not."""
    collection = _COLLECTION.fullmatch(type_name)
    return known(type_name) if collection is None else (collection["item"] or "String") in SCALARS


def untyped(value: Json) -> Value:
    """Choose the type that the value itself suggests."""
    match value:
        case None:
            raise ConversionError("is null, which voids the whole file: leave the property out instead")
        case bool():
            return Value("Boolean", value)
        case str():
            return Value("String", value)
        case Number():
            number = _number(value)
            return Value("Long" if isinstance(number, int) else "Double", number)
        case Array():
            kind, items = _elements(value)
            return Value(f"{kind}[]", items) if kind else Value("String", json_text(value))
        case Object():
            return Value("String", json_text(value))


def _elements(array: Array) -> tuple[str, tuple[Scalar, ...]]:
    """Return the elements of a list and their type, "" if it is not the same for all.

    An empty list is one of strings, an object is its JSON text, and numbers are all Double if one is."""
    kinds = {type(item) for item in array.items} or {str}
    kind = kinds.pop()
    if kinds or kind in (Array, type(None)):
        return "", ()
    if kind is Number:
        numbers = _each(_number, [item for item in array.items if isinstance(item, Number)])
        if all(isinstance(number, int) for number in numbers):
            return "Long", numbers
        return "Double", tuple(float(number) for number in numbers)
    if kind is bool:
        return "Boolean", tuple(item for item in array.items if isinstance(item, bool))
    return "String", tuple(item if isinstance(item, str) else json_text(item) for item in array.items)


def _each(change: Callable[[_In], _Out], items: Iterable[_In]) -> tuple[_Out, ...]:
    found: list[_Out] = []
    for index, item in enumerate(items):
        try:
            found.append(change(item))
        except ConversionError as error:
            raise BadElement(error.text, index) from None
    return tuple(found)


def _number(number: Number) -> int | float:
    if number.integral:
        found = int(number.text) if len(number.text) <= 20 else _BEYOND_LONG
        if not -_BEYOND_LONG <= found < _BEYOND_LONG:
            raise ConversionError(
                "is outside the range of Long, which every whole number must fit at first: put double quotes around it,"
                " or write .0 behind it for a Double"
            )
        return found
    found = float(number.text)
    if math.isinf(found):
        raise ConversionError("is outside the range of Double")
    return found


def typed(value: Json, type_name: str) -> Value:
    """Convert a value to the type that its key names, without losing anything of it."""
    collection = _COLLECTION.fullmatch(type_name)
    if collection is None and not type_name.endswith("[]"):
        return Value(boxed(type_name), _scalar(_single(value, type_name), type_name))
    item_type = (collection["item"] or "") if collection else type_name[:-2]
    if value is None:
        return Value(type_name, ())
    if isinstance(value, Array):
        kind, items = _elements(value)
        if not kind:
            raise ConversionError(
                f"cannot be of type {type_name}: its elements must be all text, all numbers, or all true and false,"
                " and none a list or null"
            )
    elif isinstance(value, str) and item_type in ("char", "Character") and not collection:
        items = tuple(value)
    else:
        items = (_single(value, item_type),)
    return Value(type_name, _each(partial(_scalar, type_name=item_type), items))


def _single(value: Json, type_name: str) -> Scalar:
    """Return what stands for a single value: a list of one element is that, what is nested is its JSON text."""
    match value:
        case None:
            raise ConversionError("is null, which voids the whole file: leave the property out instead")
        case Number():
            return _number(value)
        case Array():
            kind, items = _elements(value)
            if not kind:
                return _nested(value, type_name)
            if len(items) != 1:
                raise ConversionError(
                    f"cannot be of type {type_name}: it has {len(items)} elements, write {type_name}[] behind the name,"
                    " or one value"
                )
            return items[0]
        case Object():
            return _nested(value, type_name)
        case _:
            return value


def _nested(value: Array | Object, type_name: str) -> str:
    if type_name not in ("String", ""):
        raise ConversionError(f"cannot be of type {type_name}: it is a list or an object")
    return json_text(value)


def _scalar(value: Scalar, type_name: str) -> Scalar:
    if not type_name:
        return value
    if isinstance(value, str) and "$[" in value and type_name != "String":
        _refuse_placeholder(type_name)
    if type_name in ("char", "Character"):
        return _character(value)
    if isinstance(value, float) and boxed(type_name) in _WHOLE and not value.is_integer():
        raise ConversionError(f"is not a whole number, as {type_name} must be")
    return convert(value, type_name)


def _character(value: Scalar) -> str:
    """Return a character by itself or by its number. Felix would take the first of several."""
    if not isinstance(value, (str, float)) and (0 <= value < 0xD800 or 0xE000 <= value < 0x10000):
        return chr(value)
    if not isinstance(value, str) or len(value) != 1 or value > "\uffff":
        raise ConversionError("is not a single character, as Java's Character must be")
    return value


def _refuse_placeholder(type_name: str) -> NoReturn:
    raise ConversionError(
        f"is a placeholder, but the type {type_name} applies before placeholders are replaced:"
        f" take :{type_name} away from the name and write ;type={type_name} inside the placeholder instead"
    )
