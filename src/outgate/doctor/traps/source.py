"""A file's text for people: the line to write for a property, and the lines that may be shown.

Standards: none.
Promises: pure; what is shown of a line has no value of a property that is named like a secret, whether or not the file
    can be read; a value that is a placeholder alone is shown, without its default. Neither that nor a line to write
    has a default of a secret, or a password before a host, whatever the property is called.
Dangers: whether a value is a secret is told by the name of its property: what hides behind an innocent name is shown.
Not here: which names are those of secrets (`base.secret_names`), which lines are shown (`doctor.lint`), how
    (`doctor.annotations`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from outgate.base.secret_names import like_a_secret, mentions_a_secret
from outgate.doctor.traps.names import MAIL_PROPERTIES, OAUTH_PROPERTIES
from outgate.doctor.traps.written import WORDS
from outgate.mailer.osgi import Place, Property

_SPACE = re.compile(r"(?:[ \t\r\n]|//[^\n]*|/\*.*?\*/)*", re.S)
_PLACEHOLDER = re.compile(rf"\$[\[{{(](?i:{WORDS})[:.](?P<name>[A-Z_][A-Z0-9_]*)(?P<rest>;[^\[\]\"\n]*)?[\]}})]?")
# A placeholder with something behind the variable's name: a default, in whichever way it is written. A type is none.
_MORE = re.compile(
    r'(?:\$[\[{(](?P<name>[^;:\[\]"\n]{0,60}:[^;:\[\]"\n]{0,120}|[^;:\[\]"\n]{0,120}(?=;|:-))[;:]'
    rf"|\b(?P<bare>(?:(?i:{WORDS})[:\[])?\w{{1,100}});)(?!type=[A-Za-z]{{1,20}}(?:\[\])?\])"
)
_REST = re.compile(r'(?:[^"\\\n]|\\.)*')
_USERINFO = re.compile(r"(?<=://)[^/@\s\"]+(?=@)|(?<=:)[^:/@\s\"]+(?=@)")
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.S)
_SET = re.compile(r"(?<![\w.\-])[\w.\-]{2,100}(?=[\"']?[ \t]*[:=])")
_WORD = re.compile(rf"{_PLACEHOLDER.pattern}|(?P<word>[^\s{{}}\[\],:\"']+(?:[ \t]+[^\s{{}}\[\],:\"']+)*)")
_HIDDEN = "****"
_ROOM = 160

# What may be shown of a line that cannot be understood.
_INNOCENT = frozenset(
    name.lower()
    for name in (
        *(*MAIL_PROPERTIES, *OAUTH_PROPERTIES),
        *("string", "integer", "int", "long", "boolean", "double", "float"),
        *("true", "false", "null", "none", "yes", "no", "on", "off"),
    )
)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A line as it may be shown, and before which of its characters (from 0) the caret goes.

    `unit` is the place's column in the file in UTF-16 code units (from 1), which editors count."""

    line: str
    caret: int
    unit: int = 1


@dataclass(frozen=True, slots=True)
class Replacement:
    """A text to write in place of a property: from its name to the end of its value, in lines and in columns of UTF-16
    code units (from 1; the last is behind the end)."""

    line: int
    unit: int
    end_line: int
    end_unit: int
    text: str


def only_a_placeholder(text: str) -> bool:
    """Say whether a value is one placeholder of a plain name, without directives: it may be shown then."""
    match = _PLACEHOLDER.fullmatch(text)
    return match is not None and not match["rest"]


def shows_a_secret(text: str) -> bool:
    """Say whether a text has a secret in it, whatever property it is of: a password before a host, a default of one."""
    return _USERINFO.search(text) is not None or any(a < b for a, b in _defaults(text))


def _defaults(text: str) -> Iterator[tuple[int, int]]:
    """Give what stands in placeholders of secrets behind their names, to the end of the string."""
    at = 0
    for each in _MORE.finditer(text):
        if each.end() < at or not mentions_a_secret(each["name"] or each["bare"] or ""):
            continue
        rest = _REST.match(text, each.end())
        at = rest.end() if rest else each.end()
        yield each.end(), at - text[each.end() : at].endswith(("]", "}", ")"))


class Source:
    """The text of one file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = text.split("\n")
        self._decoder = json.JSONDecoder()
        self._starts: list[int] | None = None
        self._pieces: list[tuple[int, int]] | None = None

    def offset(self, place: Place) -> int:
        """Return where a place is in the text."""
        if self._starts is None:
            starts, at = [0], -1
            while (at := self.text.find("\n", at + 1)) >= 0:
                starts.append(at + 1)
            self._starts = starts
        line = min(max(place.line, 1), len(self._starts))
        return min(self._starts[line - 1] + max(place.column, 1) - 1, len(self.text))

    def end(self, start: int) -> int:
        """Return where the JSON value that begins at `start` ends; the line's end if it cannot be read."""
        try:
            return self._decoder.raw_decode(self.text, start)[1]
        except (ValueError, RecursionError):
            stop = self.text.find("\n", start)
            return len(self.text) if stop < 0 else stop

    def line_for(self, value_at: Place, key: str, value: object) -> str:
        """Return the line to write in place of a property, with the comma that it has; "" if it would show a secret."""
        after = self.end(self.offset(value_at))
        gap = _SPACE.match(self.text, after)
        comma = "," if self.text[gap.end() if gap else after :][:1] == "," else ""
        line = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}{comma}"
        return "" if shows_a_secret(line) else line

    def string(self, start: int) -> str:
        """Return the JSON string that begins at `start`, "" if none does."""
        try:
            value = self._decoder.raw_decode(self.text, start)[0]
        except (ValueError, RecursionError):
            return ""
        return value if isinstance(value, str) else ""

    def key(self, key_at: Place) -> str:
        """Return a key as it is written, with its type."""
        return self.string(self.offset(key_at))

    def replacement(self, change: str, at: Place, properties: Iterable[Property]) -> Replacement | None:
        """Return what a line to write stands in place of: the property at `at`, None if it is for another one."""
        where = self.offset(at)
        for each in properties:
            start, end = self.offset(each.key_at), self.end(self.offset(each.value_at))
            if start <= where <= end and change.startswith(json.dumps(self.key(each.key_at), ensure_ascii=False) + ":"):
                return Replacement(*self._unit(start), *self._unit(end), change.removesuffix(","))
        return None

    def _unit(self, offset: int) -> tuple[int, int]:
        start = self.text.rfind("\n", 0, offset) + 1
        before = self.text[start:offset]
        return self.text.count("\n", 0, start) + 1, len(before) + sum(sign > "\uffff" for sign in before) + 1

    def place_of(self, part: str, start: int) -> Place | None:
        """Return where `part` stands in the JSON value that begins at `start`, None if not literally."""
        at = self.text.find(part, start, self.end(start)) if part else -1
        if at < 0:
            return None
        line = self.text.count("\n", 0, at) + 1
        return Place(line, at - (self.text.rfind("\n", 0, at) + 1) + 1)

    def secrets(self, properties: Iterable[Property]) -> list[tuple[int, int]]:
        """Return the pieces of the text that must not be shown, if these are its properties."""
        found: list[tuple[int, int]] = []
        lines: set[int] = set()  # where a secret stands: what is said beside it may be an older one
        for each in properties:
            start = self.offset(each.value_at)
            structured = self.text[start : start + 1] in ("{", "[")
            secret = like_a_secret(each.name)
            if not (secret or structured):
                continue
            end = self.end(start)
            if secret:
                last = each.value_at.line + self.text.count("\n", start, end)
                lines.update(range(each.key_at.line, last + 1))
            if structured and not secret and not mentions_a_secret(self.text, start, end):
                continue
            alone = _PLACEHOLDER.fullmatch(self.text, start + 1, end - 1)
            if alone is None:
                found.append((start + 1, end - 1) if self.text[start : start + 1] == '"' else (start, end))
            elif alone["rest"]:
                found.append((alone.start("rest") + 1, alone.end("rest")))
        found += _defaults(self.text)
        line, at = 1, 0
        for token in _TOKEN.finditer(self.text):
            line, at = line + self.text.count("\n", at, token.start()), token.start()
            if token[0].startswith("/") and (line in lines or _told_aside(token[0])):
                found.append((token.start() + 2, token.end()))
        return found

    def excerpt(self, line: int, column: int, properties: Iterable[Property] | None) -> Excerpt | None:
        """Return a line as it may be shown, None if there is none; `properties` are the file's, None if it cannot be
        read: what is not known to be harmless is hidden then."""
        if not 1 <= line <= len(self._lines):
            return None
        text = self._lines[line - 1]
        start = self.offset(Place(line, 1))
        if properties is None:
            spans = list(_doubtful(text))
        else:
            pieces = self._pieces = self.secrets(properties) if self._pieces is None else self._pieces
            spans = [(max(a - start, 0), min(b - start, len(text))) for a, b in pieces]
        spans += [match.span() for match in _USERINFO.finditer(text)]
        shown = _windowed(*_masked(text, [(a, b) for a, b in spans if a < b], column - 1))
        return replace(shown, unit=column + sum(sign > "\uffff" for sign in text[: max(column - 1, 0)]))


def _told_aside(comment: str) -> bool:
    """Say whether a comment may have a secret in it, or a property of one that was taken out."""
    return mentions_a_secret(comment) or any(like_a_secret(name[0]) for name in _SET.finditer(comment))


def _doubtful(line: str) -> Iterator[tuple[int, int]]:
    """Give what must not be shown of a line of a file that cannot be read."""
    for match in _WORD.finditer(line):
        if match["word"]:
            if match["word"].lower() not in _INNOCENT:
                yield match.span()
        elif match["rest"]:
            yield match.start("rest") + 1, match.end("rest")


def _masked(text: str, spans: list[tuple[int, int]], caret: int) -> tuple[str, int]:
    """Return the line with its pieces hidden, and where the caret is then."""
    shown, at, moved = "", 0, caret
    for start, end in sorted(spans):
        if end <= at:
            continue
        start = max(start, at)
        shown += text[at:start] + _HIDDEN
        if caret >= end:
            moved += len(_HIDDEN) - (end - start)
        elif caret > start:
            moved -= caret - start
        at = end
    return shown + text[at:], moved


def _windowed(line: str, caret: int) -> Excerpt:
    """Cut a long line to what is around the caret; without what would steer a terminal."""
    line = "".join(sign if sign.isprintable() else " " for sign in line)
    caret = min(max(caret, 0), len(line))
    first = max(caret - _ROOM // 2, 0) if len(line) > _ROOM else 0
    cut = line[first : first + _ROOM]
    before = len(cut) - len(cut.lstrip()) if first == 0 else 0
    left, right = "…" if first else "", "…" if first + _ROOM < len(line) else ""
    return Excerpt(f"{left}{cut[before:]}{right}".rstrip(), max(len(left) + caret - first - before, 0))
