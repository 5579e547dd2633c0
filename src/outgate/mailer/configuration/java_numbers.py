"""Numbers as Java reads and writes them: `Integer.valueOf`, `Double.valueOf`, `Float.toString` and their kin.

Standards: The Java SE API, `java.lang.Integer.parseInt`, `java.lang.Double.valueOf` and `toString` (Java 19 and newer:
    the shortest digits that are the number).
Promises: pure; what Java reads is read with the same result, what it refuses is None; time grows with the text, not
    with the number it means.
Dangers: a text of more than 10,000 characters is no number here, though it may be one there.
Not here: types and their ranges by name (`mailer.values`).
"""

from __future__ import annotations

import math
import re
import struct

_LONGEST = 10_000
_WHOLE = re.compile(r"[+-]?\d++")
_DECIMAL = re.compile(r"(?P<number>[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)[fFdD]?")
_HEX = re.compile(r"(?P<number>[+-]?0[xX](?:[0-9a-fA-F]++(?:\.[0-9a-fA-F]*+)?|\.[0-9a-fA-F]++)[pP][+-]?[0-9]++)[fFdD]?")
_NAMED = re.compile(r"(?P<sign>[+-]?)(?P<name>NaN|Infinity)")
_GREATEST_SINGLE = (2 - 2.0**-23) * 2.0**127
_BELOW_SPACE = "".join(map(chr, range(33)))  # what String.trim() takes away


def trimmed(text: str) -> str:
    """Return `text` without the characters up to U+0020 at its ends: other spaces of Unicode stay."""
    return text.strip(_BELOW_SPACE)


def whole(text: str) -> int | None:
    """Return what `Long.parseLong` would, of any size: a sign, digits of any script of the basic plane, no spaces."""
    if len(text) > _LONGEST or _WHOLE.fullmatch(text) is None or max(text) > "\uffff":
        return None
    digits = "".join(str(int(sign)) if sign not in "+-" else sign for sign in text)
    return int(digits) if len(digits) < 4000 else int(digits[0] + digits[1:].lstrip("0")[:4000].rjust(1, "0"))


def floating(text: str, *, single: bool = False) -> float | None:
    """Return what `Double.valueOf` would, or `Float.valueOf` if `single`: decimal, hexadecimal, NaN or Infinity."""
    text = trimmed(text)
    if len(text) > _LONGEST:
        return None
    if named := _NAMED.fullmatch(text):
        if named["name"] == "NaN":
            return math.nan
        return -math.inf if named["sign"] == "-" else math.inf
    if match := _HEX.fullmatch(text):
        try:
            number = float.fromhex(match["number"])
        except OverflowError:
            number = -math.inf if text.startswith("-") else math.inf
        return to_single(number) if single else number
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    number = float(match["number"])
    return _nearest_single(number, match["number"]) if single else number


def to_single(number: float) -> float:
    """Return the nearest number that 32 bits hold."""
    try:
        return struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)


def _nearest_single(number: float, text: str) -> float:
    """Round once: `number` has been rounded from `text` already, which matters just where it lies between two."""
    single = to_single(number)
    if number == single or math.isinf(number):
        return single
    if math.isinf(single):
        other = math.copysign(_GREATEST_SINGLE, number)
        between = math.copysign(_GREATEST_SINGLE + 2.0**103, number)
    else:
        bits: int = struct.unpack("i", struct.pack("f", single))[0]
        away = bits + (1 if abs(number) > abs(single) else -1)
        other = struct.unpack("f", struct.pack("i", away))[0]
        between = (single + other) / 2
    if between != number:
        return single
    from decimal import Decimal  # nearly nobody needs them
    from fractions import Fraction

    exact, middle = Fraction(Decimal(text)), Fraction(between)
    if exact == middle:
        return single
    return max(single, other) if exact > middle else min(single, other)


def written(number: float, *, single: bool = False) -> str:
    """Return what `Double.toString` would, or `Float.toString` if `single`."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    minus = "-" if math.copysign(1.0, number) < 0 else ""
    mantissa, _, power_of_ten = _shortest(abs(number), single).partition("e")
    before, _, after = mantissa.partition(".")
    digits = (before + after).lstrip("0")
    if not digits:
        return f"{minus}0.0"
    power = int(power_of_ten or 0) - len(after) + len(digits) - 1
    stripped = digits.rstrip("0")
    if not -3 <= power < 7:
        return f"{minus}{stripped[0]}.{stripped[1:] or '0'}E{power}"
    if power < 0:
        return f"{minus}0.{'0' * (-power - 1)}{stripped}"
    before = stripped[: power + 1].ljust(power + 1, "0")
    return f"{minus}{before}.{stripped[power + 1 :] or '0'}"


def _shortest(number: float, single: bool) -> str:
    """Return the shortest digits that are the number and no other; of two digits the nearest, if one would do."""
    for places in range(1, 9) if single else (1,):
        text = f"{number:.{places}e}"
        if (to_single(float(text)) if single else float(text)) == number:
            return text
    return repr(number)
