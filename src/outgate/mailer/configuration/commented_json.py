"""Read a JSON object or list with comments, remember where all of it stands, and say what is wrong in a way that helps.

Standards: RFC 8259, with `//` and `/* */` comments wherever white space may be; nothing else of JSON5.
Promises: any text gives an object (or list) or `JsonError`, in time linear in its length; a number keeps its digits, so
that its JSON text can be given as Java does; an error says what was expected, what was found and what to write instead.
Dangers: what stands at a value's place may be a secret: an error describes it, and never shows it. Names are shown.
Not here: what the names and values mean (`mailer.osgi`).
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

from outgate.mailer.values import shown

LONGEST = 1 << 20  # signs; the largest configurations that people write have a tenth of that
DEEPEST = 50
MOST = 100_000  # values, those within lists and objects too
MOST_PROPERTIES = 10_000  # of a configuration

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<more>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.+-])")
_QUOTED = r"(?:'(?P<name>[^'\"\n]{1,80})'|[“”„‟«»](?P<curly>[^“”„‟«»\"\n]{1,80})[“”„‟«»])(?=[ \t]*[:=])"
_WORD = re.compile(r"[^\W\d][\w.\-$]*")
_NAME = re.compile(r"[^\W\d][\w.\-$]{0,79}(?=[ \t]*[:=])")
_LITERAL = re.compile(r"(?:true|false|null)(?![\w.$-])")
_LITERALS: dict[str, Json] = {"true": True, "false": False, "null": None}
_MEANT = {
    **dict.fromkeys(("true", "yes", "on"), "true"),
    **dict.fromkeys(("false", "no", "off"), "false"),
    **dict.fromkeys(("null", "none", "nil", "undefined"), ""),
}
_DECODER = json.JSONDecoder()  # for strings alone
_CURLY = "“”„‟«»‘’‚"
_BAD_STRING = {
    "Unterminated": 'expected the closing quote of this string, found the end of the file: write " behind the value',
    "Invalid control": (
        "expected no line end or control character inside a string: close the string with a double quote in the same"
        r" line, or write \n for a line end and \t for a tab"
    ),
    "Invalid": r"expected an escape that JSON has, found another one: write \\ for a backslash",
}


class JsonError(Exception):
    """The text is not what it should be; `at` is the offset of what is wrong."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.text = text
        self.at = at


# Named tuples, for speed: a file has dozens of these, and a tree a thousand files.


class Number(NamedTuple):
    """A number as it was written, but a whole one without its exponent."""

    text: str
    integral: bool


class Array(NamedTuple):
    """A list, and where each element begins."""

    items: tuple[Json, ...]
    places: tuple[int, ...]


class Member(NamedTuple):
    """A name and its value, and where each begins."""

    name: str
    value: Json
    name_at: int
    value_at: int


class Object(NamedTuple):
    """An object, in the order of the file."""

    members: tuple[Member, ...]


Json = str | bool | None | Number | Array | Object


class Lines:
    """Turns offsets in a text into lines and columns, both counted from 1; fast if the offsets only rise."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._start = 0  # of that line

    def place(self, at: int) -> tuple[int, int]:
        if at < self._at:
            self._at, self._line, self._start = 0, 1, 0
        self._line += self._text.count("\n", self._at, at)
        self._start = max(self._start, self._text.rfind("\n", self._at, at) + 1)
        self._at = at
        return self._line, at - self._start + 1


def read_object(text: str) -> Object:
    """Return the configuration that `text` is: names that come twice are its own business. Raises `JsonError`."""
    return _Reader(text).configuration()


def read_document(text: str) -> Object | Array:
    """Return the object or list that `text` is. Raises `JsonError`."""
    return _Reader(text).document()


def json_text(value: Json) -> str:
    """Return a value as JSON without white space, numbers as Java's BigDecimal writes them."""
    match value:
        case Number():
            return value.text if value.integral else _decimal_text(value.text)
        case Array():
            return "[" + ",".join(map(json_text, value.items)) + "]"
        case Object():
            return "{" + ",".join(f"{json_text(each.name)}:{json_text(each.value)}" for each in value.members) + "}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _as_java(text: str, more: str) -> Number:
    """Return a number with decimals or an exponent: if the one is as long as the other moves the point, as in 1.50e2,
    Java takes it for a whole one."""
    decimals, _, power = more.lower().partition("e")
    if not power or len(power) > 1000 or int(power) != len(decimals[1:]):
        return Number(text, False)
    digits = text[: -len(more)] + decimals[1:]
    sign = "-" if digits.startswith("-") else ""
    return Number(sign + (digits.lstrip("-0") or "0"), True)


def _decimal_text(text: str) -> str:
    from decimal import Decimal, InvalidOperation  # only lists and objects that become text need it

    try:
        return str(Decimal(text))
    except InvalidOperation:  # an exponent beyond any number
        return text


def quoted(name: str) -> str:
    """Return a name as a message shows it: in double quotes, in characters that any terminal takes."""
    return f'"{shown(name)}"'


class _Reader:
    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise JsonError(
                f"expected at most {LONGEST} characters, found {len(text)}: is this a configuration file?", 0
            )
        self._text = text
        self._at = 0
        self._depth = 0
        self._twice = 1  # the depth up to which names may come twice
        self._values = 0
        self._behind = 0  # where the value before ends
        self._halves = "\\u" in text or not encodable(text)

    def document(self) -> Object | Array:
        self._twice = 0
        sign = self._next()
        if sign not in ("{", "["):
            self._fail("expected { or [ at the beginning")
        found = self._object() if sign == "{" else self._array()
        if self._next():
            self._fail(f"expected nothing behind the {'object' if sign == '{' else 'list'}")
        return found

    def configuration(self) -> Object:
        sign = self._next()
        if sign != "{":
            self._fail("expected { at the beginning of the configuration", _BEGINNINGS.get(sign, ""))
        found = self._object()
        if self._next():
            hint = "one } too many" if self._text[self._at] == "}" else ""
            self._fail("expected nothing behind the configuration", hint)
        return found

    def _next(self) -> str:
        """Pass white space and comments; return the sign that follows, "" at the end."""
        sign = self._text[self._at : self._at + 1]
        if sign > " " and sign != "/":
            return sign
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        sign = self._text[self._at : self._at + 1]
        if sign == "/" and self._text.startswith("/*", self._at):
            raise JsonError("expected the end of this comment (*/), found the end of the file", self._at)
        return sign

    # -- objects and lists ----------------------------------------------------------------------------------

    def _object(self) -> Object:
        opened = self._open()
        members: list[Member] = []
        names: dict[str, int] = {}
        while (sign := self._next()) != "}" or members:
            if sign != '"':
                self._no_name(sign)
            if len(members) == MOST_PROPERTIES and self._depth == self._twice:
                raise JsonError(f"expected at most {MOST_PROPERTIES} properties, found more", self._at)
            name_at = self._at
            name = self._string()
            if self._depth > self._twice and names.setdefault(name, name_at) != name_at:
                raise JsonError(f"expected each name once in an object, found {quoted(name)} again", name_at)
            self._colon()
            value_at = self._at
            members.append(Member(name, self._value(), name_at, value_at))
            if self._closed("}", opened):
                break
        else:
            self._at += 1
        self._depth -= 1
        return Object(tuple(members))

    def _array(self) -> Array:
        opened = self._open()
        items: list[Json] = []
        places: list[int] = []
        while self._next() != "]" or items:
            places.append(self._at)
            items.append(self._value())
            if self._closed("]", opened):
                break
        else:
            self._at += 1
        self._depth -= 1
        return Array(tuple(items), tuple(places))

    def _open(self) -> int:
        self._depth += 1
        if self._depth > DEEPEST:
            raise JsonError(f"expected at most {DEEPEST} objects and lists within each other, found more", self._at)
        self._at += 1
        return self._at - 1

    def _closed(self, closing: str, opened: int) -> bool:
        """Pass what stands behind a member or element; say whether that was the end of the object or list."""
        self._behind = self._at
        sign = self._next()
        if sign == closing:
            self._at += 1
            return True
        if sign != ",":
            self._no_comma(sign, closing, opened)
        comma = self._at
        self._at += 1
        if self._next() == closing:
            self._at = comma
            what = "property" if closing == "}" else "element"
            self._fail(f"expected no comma behind the last {what}", "take it away")
        return False

    def _colon(self) -> None:
        self._behind = self._at
        sign = self._next()
        if sign != ":":
            hint = {
                "=": "write : instead of =",
                ",": "each property has a value",
                "}": "each property has a value",
            }.get(sign, "write : between the name and its value")
            self._fail("expected : behind a property name", hint)
        self._at += 1
        self._next()

    # -- values ---------------------------------------------------------------------------------------------

    def _value(self) -> Json:
        self._values += 1
        if self._values > MOST:
            raise JsonError(f"expected at most {MOST} values, found more: is this a configuration file?", self._at)
        sign = self._text[self._at : self._at + 1]
        if sign == '"':
            return self._string()
        if sign == "{":
            return self._object()
        if sign == "[":
            return self._array()
        literal = _LITERAL.match(self._text, self._at)
        if literal is not None:
            self._at = literal.end()
            return _LITERALS[literal[0]]
        number = _NUMBER.match(self._text, self._at)
        if number is None:
            self._no_value(sign)
        self._at = number.end()
        return _as_java(number[0], number["more"]) if number["more"] else Number(number[0], True)

    def _string(self) -> str:
        start = self._at
        try:
            value, self._at = _DECODER.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            kind = next(kind for kind in _BAD_STRING if error.msg.startswith(kind))
            raise JsonError(_BAD_STRING[kind], min(error.pos, len(self._text))) from None
        if self._halves and not encodable(value):
            raise JsonError(r"expected whole characters, found half of a surrogate pair (\ud800 to \udfff)", start)
        return value

    # -- what is wrong --------------------------------------------------------------------------------------

    def _no_name(self, sign: str) -> NoReturn:
        expected = "expected a property name in double quotes"
        name = _NAME.match(self._text, self._at)
        hint = ""
        if name is not None:
            self._fail(expected, f'write "{name[0]}"', name[0])
        if sign == "'" or (sign and sign in _CURLY):
            inside = re.compile(_QUOTED).match(self._text, self._at)
            what = "JSON has no single quotes" if sign == "'" else "these are typographic quotes"
            meant = (inside["name"] or inside["curly"]) if inside else ""
            hint = f"{what}, write {quoted(meant)}" if meant else f'{what}, write "'
        elif sign == ",":
            hint = "one comma too many"
        elif sign in ("{", "["):
            hint = "each value has a name here"
        self._fail(expected, hint)

    def _no_value(self, sign: str) -> NoReturn:
        """Say what to write instead of what stands here, without showing it."""
        rest = self._text[self._at : self._at + 40]
        word = _WORD.match(rest)
        found = ""
        hint = ""
        if word is not None and word[0] in ("NaN", "Infinity"):
            found, hint = word[0], f'write "{word[0]}" in double quotes, behind a name that ends with :Double'
        elif word is not None and word[0].lower() in _MEANT:
            meant = _MEANT[word[0].lower()]
            found, hint = "another word", f"write {meant}" if meant else "leave the property out if it has no value"
        elif rest.startswith("$["):
            found, hint = "a placeholder without quotes", "put double quotes around it"
        elif word is not None or (sign and sign in "$@%<*~_\\`(|^&?!"):
            found, hint = "text without quotes", "put double quotes around it"
        elif sign and (sign.isdigit() or sign in "+-."):
            found, hint = "something like a number", _about_number(rest)
        elif sign == "'":
            hint = "JSON has no single quotes, write double quotes"
        elif sign and sign in _CURLY:
            hint = 'these are typographic quotes, write "'
        elif sign and sign in ",}]":
            hint = "the value is missing, or there is one comma too many"
        self._fail("expected a value", hint, found)

    def _no_comma(self, sign: str, closing: str, opened: int) -> NoReturn:
        lines = Lines(self._text)
        line = lines.place(self._behind)[0]
        what = "property" if closing == "}" else "element"
        found = ""
        hint = ""
        if not sign:
            kind = "object" if closing == "}" else "list"
            hint = f"the {kind} that begins in line {lines.place(opened)[0]} is not closed, write {closing}"
        elif sign in "\"'{[" or sign in _CURLY or sign.isalnum() or sign in "-$_":
            found = "something else" if closing == "]" else f"the next {what}"
            hint = f"put a comma behind the value in line {line}"
            if self._text[self._behind - 1] == '"' and lines.place(self._at)[0] == line:
                found = "something else"
                hint += r", or write \" for a double quote inside the value"
        elif sign == ";":
            hint = "write a comma instead"
        elif sign in "}]":
            hint = f"what begins in line {lines.place(opened)[0]} is closed by {closing}"
        self._fail(f"expected , or {closing} behind {'an' if what == 'element' else 'a'} {what}", hint, found)

    def _fail(self, expected: str, hint: str = "", found: str = "") -> NoReturn:
        """Raise the error for what stands here. `found` describes it if its first sign does not."""
        sign = self._text[self._at : self._at + 1]
        if sign == "#":
            hint = "comments begin with // here"
        elif sign == "/":
            hint = "comments are written // or /* */"
        elif sign and not sign.isprintable():  # copied from a page
            found, hint = f"U+{ord(sign):04X}, which cannot be seen", "write a plain space instead, or nothing"
        if not found:
            found = repr(sign) if sign in _SIGNS else "something else"
        told = f"{expected}, found {found if sign else 'the end of the file'}"
        raise JsonError(f"{told}: {hint}" if hint else told, self._at)


_SIGNS = frozenset(",:;=#/'\"{}[]<") | frozenset(_CURLY)  # no other sign of what may be a secret is shown
_BEGINNINGS = {
    "[": "a configuration is an object, not a list",
    '"': "put { before the first property and } behind the last",
    "<": "this looks like XML: write the properties as JSON, in a file whose name ends with .cfg.json",
    "": "a configuration without properties is {}",
    **dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 'write the properties as JSON: { "name": "value" }'),
}


def _about_number(text: str) -> str:
    if re.match(r"[+-]?0[xX]", text):
        return "JSON has no hexadecimal numbers"
    if re.match(r"[+-]?0[0-9]", text):
        return "take the leading zeros away, or put double quotes around it"
    if text.startswith("+"):
        return "take the + away"
    if re.match(r"-?\.|-?[0-9]+\.(?![0-9])", text):
        return "a decimal point stands between digits"
    return "put double quotes around it if it is text"


def encodable(text: str) -> bool:
    """Say whether a text has no half of a surrogate pair, as which Python reads an octet that is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
