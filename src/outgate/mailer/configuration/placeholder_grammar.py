"""How a text with placeholders is taken apart: brackets, escapes, directives, elements.

Standards: none but Apache Felix's ConfigAdmin interpolation plugin (1.2.8 line), whose behaviour this is.
Promises: pure; the time each takes grows as its text does.
Dangers: an escape is exactly one backslash: of two in a row neither is one, and both stay; but before a delimiter two
    are one backslash.
Not here: what a placeholder means (`mailer.interpolate`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import pairwise

START = "$["
_BRACKET = re.compile(r"[\[\]]")


class Brackets:
    """Which bracket of a text closes which, and which backslashes escape one."""

    def __init__(self, text: str) -> None:
        self._closing: dict[int, int] = {}
        self._escapes: list[int] = []
        unclosed: list[int] = []
        for match in _BRACKET.finditer(text):
            at = match.start()
            if escaped(text[max(0, at - 2) : at]):
                self._escapes.append(at - 1)
            elif match[0] == "[":
                unclosed.append(at)
            elif unclosed:
                self._closing[unclosed.pop()] = at

    def closing(self, at: int) -> int:
        """Return where the bracket at `at` is closed, -1 for nowhere."""
        return self._closing.get(at, -1)

    def escapes(self, start: int, end: int) -> list[int]:
        """Return where backslashes escape brackets in a part of the text."""
        return self._escapes[bisect_left(self._escapes, start) : bisect_left(self._escapes, end)]


class Done:
    """The part of a result that is settled, but for its last two signs, which may be backslashes."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.length = 0

    def add(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self.length += len(piece)

    def last_two(self) -> str:
        return "".join(piece[-2:] for piece in self._pieces[-2:])[-2:]

    def drop_last(self) -> None:
        last = self._pieces.pop()
        self.length -= len(last)
        self.add(last[:-1])

    def text(self) -> str:
        return "".join(self._pieces)


def escaped(before: str) -> bool:
    """Say whether exactly one backslash, and not a pair, ends what stands before."""
    return before.endswith("\\") and not before.endswith("\\\\")


def without(text: str, places: list[int], start: int, end: int) -> str:
    """Return a part of the text without the signs at some places in it."""
    edges = [start - 1, *places, end]
    return "".join(text[left + 1 : right] for left, right in pairwise(edges))


def parse_directives(text: str) -> dict[str, str]:
    """Parse `name=value;name=value`; the last of a name wins; a backslash before `;` keeps it."""
    found: dict[str, str] = {}
    one = Done()
    pieces = text.split(";")
    for number, piece in enumerate(pieces):
        before = piece[-2:] if len(piece) > 1 else (one.last_two() + piece)[-2:]
        if number < len(pieces) - 1 and escaped(before):
            one.add(piece[:-1] + ";")
            continue
        one.add(piece)
        name, _, value = one.text().partition("=")
        found[name] = value
        one = Done()
    return found


def split(text: str, delimiter: str) -> list[str]:
    """Split at `delimiter`; a backslash before it keeps it, two are one backslash and then a split. One that begins a
    part is no escape."""
    parts: list[str] = []
    part = Done()
    at = search = 0
    while (found := text.find(delimiter, search)) >= 0:
        before = text[max(at, found - 2) : found]
        before = before if len(before) == 2 else (part.last_two() + before)[-2:]
        if len(before) == 2 and escaped(before):
            part.add(text[at : found - 1])
            at, search = found, found + 1
            continue
        part.add(text[at:found])
        parts.append(part.text()[:-1] if before == "\\\\" else part.text())
        part = Done()
        at = search = found + len(delimiter)
    return [*parts, part.text() + text[at:]]
