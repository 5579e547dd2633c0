"""Read Hjson into settings by dotted key.

Standards: Hjson, of which JSON is a part: keys without quotes, comments, commas left out, texts without quotes up to
    the line's end; of a key that comes twice the last counts, as a whole.
Promises: pure; an error is a line and a column and has no piece of the text, which may hold tokens. What a text costs
    depends on its size only.
Not here: texts over several lines (`'''`), braces left out around the whole. Lists, null
    and endless keys are passed over.
"""

from __future__ import annotations

import json
import re

_DEEP, _KEY_LENGTH = 50, 500
_BLANK = re.compile(r"(?:\s|(?:#|//)[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\\\n]*\'')
_KEY = re.compile(r"[^\s,:\[\]{}\"']+")
_PLAIN = re.compile(r"(?:true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?=[ \t\r]*(?:[,\]}#\n]|//|/\*|\Z))")
_LINE = re.compile(r"[^\s,:\[\]{}\"'][^\n]*")


_Tree = dict[str, "_Tree | str | None"]


class BadHjson(Exception):
    """A text is no object in Hjson; `line` and `column` say from where on."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}")
        self.line, self.column = line, column


def settings_of(text: str) -> dict[str, str]:
    """Return the texts, numbers and booleans of an object by dotted key in lower case, as texts. Raises `BadHjson`."""
    reader = _Reader(text)
    try:
        document = reader.document()
    except (_Unreadable, ValueError):
        start = text.rfind("\n", 0, reader.at)
        raise BadHjson(text.count("\n", 0, reader.at) + 1, reader.at - start) from None
    found: dict[str, str] = {}
    _flatten(document, "", found)
    return found


def _flatten(tree: _Tree, above: str, into: dict[str, str]) -> None:
    for name, value in tree.items():
        if len(above) + len(name) >= _KEY_LENGTH:
            continue
        if isinstance(value, dict):
            _flatten(value, f"{above}{name}.", into)
        elif value is not None:
            into[above + name] = value


class _Unreadable(Exception):
    """What stands at the reader's place is not as it must be."""


class _Reader:
    """Reads a document; `at` is where it is."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def document(self) -> _Tree:
        if self._sign() != "{":
            raise _Unreadable
        found = self._several("{", 1)
        if self._sign():
            raise _Unreadable
        return found

    def _sign(self) -> str:
        """Pass over blanks and comments; return the sign that is next, "" at the end."""
        if blank := _BLANK.match(self.text, self.at):
            self.at = blank.end()
        return self.text[self.at : self.at + 1]

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _Unreadable
        self.at = match.end()
        return match[0]

    def _value(self, depth: int) -> _Tree | str | None:
        """Read a value; None is a list, or null."""
        sign = self._sign()
        if sign in ("{", "["):
            found = self._several(sign, depth + 1)
            return found if sign == "{" else None
        if sign in ('"', "'"):
            return self._text()
        text = self._take(_PLAIN if _PLAIN.match(self.text, self.at) else _LINE).rstrip()
        return None if text == "null" else text

    def _several(self, opening: str, depth: int) -> _Tree:
        """Read an object, or a list, of which nothing is kept."""
        if depth > _DEEP:
            raise _Unreadable
        self.at += 1
        found: _Tree = {}
        closing = "}" if opening == "{" else "]"
        while (sign := self._sign()) != closing:
            if opening == "{":
                name = (self._text() if sign in ('"', "'") else self._take(_KEY)).lower()
                if self._sign() != ":":
                    raise _Unreadable
                self.at += 1
                found[name] = self._value(depth)
            else:
                self._value(depth)
            if self._sign() == ",":
                self.at += 1
        self.at += 1
        return found

    def _text(self) -> str:
        start = self.at
        quoted = self._take(_QUOTED)
        try:
            return quoted[1:-1] if quoted[0] == "'" else str(json.loads(quoted, strict=False))
        except ValueError:
            self.at = start
            raise
