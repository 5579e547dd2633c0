"""Placeholders as they are written in a value: where, from which source, with which directives; and what is near one.

Standards: the grammar of Apache Felix's ConfigAdmin interpolation plugin.
Promises: pure; takes any text; the time is linear in its length.
Dangers: a default may be a secret: show `Written.shown`, never a piece of the value.
Not here: what becomes of a placeholder (`mailer.interpolate`), which are traps (`doctor.traps.placeholders`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from outgate.base.secret_names import named_secret

SOURCES = ("env", "secret", "prop", "conf")
DIRECTIVES = ("default", "type", "delimiter")
_ALIASES = {
    "environment": "env",
    "environ": "env",
    "envs": "env",
    "var": "env",
    "vars": "env",
    "variable": "env",
    "secrets": "secret",
    "sec": "secret",
    "props": "prop",
    "property": "prop",
    "config": "conf",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]{1,99}")
_PROPERTY = re.compile(r"[A-Za-z][\w.\-]{0,99}")
WORDS = "|".join((*SOURCES, *_ALIASES))  # for a source, and for what is written in its place
# ${env:X}, $(env:X), {env:X}: brackets of another kind. With a dot it is no slip: builds replace ${env.X}.
_OTHER_BRACKETS = re.compile(
    r"\$?(?P<open>[({])[ ]?(?P<source>env|environment|secrets?)[ ]?:[ ]?(?P<name>[A-Za-z_]\w*)(?P<rest>[^)}\n]*)[)}]?",
    re.IGNORECASE,
)
# What stands inside $[…] when the source is misspelt or the sign behind it is no colon.
_NEAR_BODY = re.compile(
    rf"\s*(?P<source>{WORDS})\s*(?P<sign>[:.=/_ ])\s*(?P<name>[A-Za-z_]\w*)(?P<rest>.*)", re.I | re.S
)
# [env:X], env:X], $ [env:X], %[env:X], #[env:X] for a whole value; and $env[X].
_OTHER_BEGINNING = re.compile(
    rf"(?!\$\[)(?:[$%#@&]?[ ]?\[)?(?:[$%#@&][ ]?)?({WORDS})[:\[]([A-Za-z_]\w*)(;[^\[\]]*)?\]", re.IGNORECASE
)
# ${EMAIL_PASSWORD}, as shells have it. In small letters it is a build's.
_OF_A_SHELL = re.compile(r"\$(?:\{([A-Z][A-Z0-9_]{1,99})\}|\(([A-Z][A-Z0-9_]{1,99})\))")
# A sign too many, which would be part of the value.
_AND_MORE = re.compile(rf"\$\[({'|'.join(SOURCES)}):([A-Za-z_]\w*)(;[^\[\]]*)?\][\])}};,]")
_SIGN = re.compile(r"\$\[|[\[\]]")
_DIVIDERS = re.compile(r"[;\[\]]")
_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class Directive:
    """One `;name=value`."""

    name: str
    value: str = field(repr=False)
    has_value: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One placeholder: text[start:end] with its brackets. `closed`: its `]` is there. `depth`: how many it stands in.

    `source` is "" if there is no colon; `name` is all that stands before the first directive then."""

    start: int
    end: int
    depth: int
    closed: bool
    escaped: bool
    source: str
    name: str = field(repr=False)
    directives: tuple[Directive, ...] = ()

    def last(self, name: str) -> str | None:
        """Return the value of a directive, the last one of that name, None if there is none."""
        return next((each.value for each in reversed(self.directives) if each.name == name), None)

    @property
    def plain(self) -> bool:
        """Say whether the source exists and the name can be one of a variable: both may be shown then."""
        return self.source in SOURCES and _NAME.fullmatch(self.name) is not None

    @property
    def shown(self) -> str:
        """Return it without its directives, for a message."""
        shown = self.plain or (self.source in SOURCES and _PROPERTY.fullmatch(self.name))
        return f"$[{self.source}:{self.name}]" if shown else "the placeholder"


@dataclass(frozen=True, slots=True)
class Near:
    """Something that was meant to be a placeholder, and what it was meant to be ("" if that is not clear).

    `certain`: it names a source, or nearly."""

    start: int
    end: int
    why: str
    meant: str
    certain: bool = True


def scan(text: str) -> list[Written]:
    """Return the placeholders of a value, inner ones before those that they stand in; those without an end last."""
    found: list[Written] = []
    open_at: list[tuple[int, bool, bool]] = []  # where, whether it is a placeholder, whether it is escaped
    for match in _SIGN.finditer(text):
        at = match.start()
        if len(match[0]) == 2:
            if len(open_at) < _DEEPEST:
                open_at.append((at, True, _escaped(text, at)))
        elif open_at and not _escaped(text, at):
            if match[0] == "[":
                if len(open_at) >= _DEEPEST:
                    break
                open_at.append((at, False, False))
            else:
                start, real, escaped = open_at.pop()
                if real:
                    found.append(_written(text, start, at + 1, _depth(open_at), True, escaped))
    while open_at:
        start, real, escaped = open_at.pop()
        if real:
            found.append(_written(text, start, len(text), _depth(open_at), False, escaped))
    return found


def near(text: str, *, every: bool, scanned: list[Written] | None = None) -> Iterator[Near]:
    """Give what was meant to be a placeholder and is none. `every`: also what has a source that means nothing.

    `scanned` is what `scan` has given, if it has been asked."""
    for each in scan(text) if scanned is None else scanned:
        if each.escaped:
            continue
        body = text[each.start + 2 : each.end - (1 if each.closed else 0)]
        if each.source in SOURCES:
            name = each.name.rstrip(")}")
            if not each.closed and valid_name(name):
                why = "its ] is missing" if name == each.name else "it ends with another bracket than ]"
                yield Near(each.start, each.end, why, f"$[{each.source}:{name}]")
            continue
        match = _NEAR_BODY.fullmatch(body)
        if match:
            source = _source(match["source"])
            why = "" if match["sign"] == ":" else "a colon is missing behind the source"
            why = why or f"the source is {source}, written so"
            yield Near(each.start, each.end, why, _meant(source, match["name"], match["rest"]))
        elif every and _NAME.fullmatch(body):
            yield Near(each.start, each.end, "it names no source", f"$[env:{body}]", False)
        elif every:
            yield Near(each.start, each.end, "its source does not exist", "", False)
    for match in _OTHER_BRACKETS.finditer(text):
        dollar = match[0].startswith("$")
        if (dollar or match["open"] == "{") and (dollar or match.span() == (0, len(text))):
            meant = _meant(_source(match["source"]), match["name"], match["rest"])
            yield Near(match.start(), match.end(), "its brackets are not $[ and ]", meant)
    match = _OTHER_BEGINNING.fullmatch(text) if every else None
    if match:
        yield Near(0, len(text), "it does not begin with $[", _meant(_source(match[1]), match[2], match[3]))
    match = _OF_A_SHELL.fullmatch(text) if every else None
    if match:
        name = match[1] or match[2]
        yield Near(
            0, len(text), "it is written as in a shell", f"$[{'secret' if named_secret(name) else 'env'}:{name}]"
        )
    match = _AND_MORE.fullmatch(text) if every else None
    if match:
        why = "the sign behind it is part of the value"
        yield Near(0, len(text), why, "" if match[3] else f"$[{match[1]}:{match[2]}]")


def valid_name(name: str) -> bool:
    """Say whether a variable can have this name."""
    return _NAME.fullmatch(name) is not None


def _source(written: str) -> str:
    return _ALIASES.get(written.lower(), written.lower())


def _meant(source: str, name: str, rest: str | None) -> str:
    """Return the placeholder; of its directives only a default that names the tunnel is kept."""
    default = ";default=proxy.tunnel" if rest and "proxy.tunnel" in rest else ""
    return f"$[{source}:{name}{default}]"


def _escaped(text: str, at: int) -> bool:
    return at > 0 and text[at - 1] == "\\" and (at == 1 or text[at - 2] != "\\")


def _depth(open_at: list[tuple[int, bool, bool]]) -> int:
    return sum(real for _, real, _ in open_at)


def _written(text: str, start: int, end: int, depth: int, closed: bool, escaped: bool) -> Written:
    body = text[start + 2 : end - (1 if closed else 0)]
    head, semicolon, rest = body.partition(";")  # the first one, also if it stands in a placeholder in the name
    source, colon, name = head.partition(":")
    parts = _parts(rest) if semicolon else ()
    directives = tuple(
        Directive(key, value, bool(sign)) for key, sign, value in (part.partition("=") for part in parts)
    )
    if not colon:
        source, name = "", head
    return Written(start, end, depth, closed, escaped, source, name, directives)


def _parts(body: str) -> Iterator[str]:
    """Split directives at each `;` that stands in no bracket and has no backslash before it."""
    if "[" not in body and "\\" not in body:
        yield from body.split(";")
        return
    depth = start = 0
    for match in _DIVIDERS.finditer(body):
        at, sign = match.start(), match[0]
        if sign == "[":
            depth += 1
        elif sign == "]":
            depth -= 1
        elif depth <= 0 and not _escaped(body, at):
            yield body[start:at]
            start = at + 1
    yield body[start:]
