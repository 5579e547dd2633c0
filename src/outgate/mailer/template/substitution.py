"""Replace `${name}` in the text of a mail template.

Standards: none but Apache Commons Lang's StrSubstitutor (2.6), which the vendor's templates are read with.
Promises: pure; linear time; without a value a variable stays as it is, and is told with its line and column; what a
value says is not read again unless that is asked for, and then a chain that comes back to itself is an error.
Dangers: values come from outside: what each place must not hold is the business of who asks (`mailer.template`). No
error shows a value.
Not here: files, fields and bodies (`mailer.template`), the configuration's placeholders (`mailer.interpolate`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from outgate.mailer.values import ConfigError

_LONGEST = 16_777_216  # signs of a text with its values: a mail is no place for more
_MOST = 100_000
_DEEPEST = 50


class TemplateError(ConfigError):
    """A template cannot be used, or not with these values; `missing` are the variables that have none."""

    def __init__(
        self,
        text: str,
        *,
        name: str = "",
        file: object = "",
        line: int = 0,
        column: int = 0,
        missing: tuple[Variable, ...] = (),
    ) -> None:
        super().__init__(text, name=name, file=file, line=line, column=column)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${name}` and where it stands, counted from 1. `closed` False: its `}` is missing, so it is none; `inner`:
    what is told of it is true of a variable in its value, whose name is not shown."""

    name: str
    line: int
    column: int
    closed: bool = True
    inner: bool = False

    @property
    def written(self) -> str:
        """Return the variable as the template has it."""
        return f"${{{self.name}}}" if self.closed else f"${{{self.name}"


Piece = str | Variable
Render = Callable[[Variable, object], str]
"""Turns a variable's value into text for the place where it stands, or raises `TemplateError`."""


def pieces(text: str, line: int = 1, column: int = 1) -> tuple[Piece, ...]:
    """Split a text that begins at `line`, `column` into what is literal and what is a variable.

    A `$` before `${` makes it literal, and goes; a name ends at the next `}` and is taken as it stands: neither
    another variable nor a default (`:-`) can be in it. A `${` that nothing closes is literal."""
    found: list[Piece] = []
    literal = ""
    at = told = 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            literal += text[at : start - 1] + "${"
            at = start + 2
            continue
        line, column = _moved(text, told, start, line, column)
        told = start
        end = text.find("}", start + 2)
        if literal or start > at:
            found.append(literal + text[at:start])
            literal = ""
        if end < 0:
            found.append(Variable(text[start + 2 :], line, column, closed=False))
            return tuple(found)
        found.append(Variable(text[start + 2 : end], line, column))
        at = end + 1
    if literal or at < len(text):
        found.append(literal + text[at:])
    return tuple(found)


def _moved(text: str, start: int, end: int, line: int, column: int) -> tuple[int, int]:
    """Return the place of `end`, if that of `start` is `line`, `column`."""
    lines = text.count("\n", start, end)
    if not lines:
        return line, column + end - start
    return line + lines, end - text.rfind("\n", start, end)


def replaced(
    given: Iterable[Piece],
    variables: Mapping[str, object],
    render: Render,
    missing: list[Variable],
    *,
    nested: bool = False,
) -> str:
    """Return the text with the values that `variables` has; the others are added to `missing`. None is no value.

    `nested`: what a value says is read again, as StrSubstitutor does. Raises `TemplateError`."""
    work = _Work(variables, missing, nested)
    parts: list[str] = []
    for piece in given:
        if isinstance(piece, str):
            parts.append(work.counted(piece))
            continue
        value = work.value(piece, piece, ())
        parts.append(piece.written if value is None else work.counted(render(piece, value)))
    return "".join(parts)


@dataclass(slots=True)
class _Work:
    variables: Mapping[str, object]
    missing: list[Variable]
    nested: bool
    signs: int = 0
    count: int = 0

    def counted(self, text: str) -> str:
        self.signs += len(text)
        self.count += 1
        if self.signs > _LONGEST:
            raise TemplateError(f"its values make it longer than {_LONGEST} signs")
        if self.count > _MOST:
            raise TemplateError("its variables lead to too many others")
        return text

    def value(self, variable: Variable, written: Variable, inside: tuple[str, ...]) -> object:
        """Return the value of `variable`, None if it has none; `written` is the one in the template that led to it."""
        value = self.variables.get(variable.name) if variable.closed else None
        if value is None:
            self.missing.append(dataclasses.replace(written, inner=True) if inside else variable)
        if not self.nested or not isinstance(value, str) or "${" not in value:
            return value
        if variable.name in inside or len(inside) > _DEEPEST:
            text = "comes back to itself through the values of variables, or nearly so"
            raise TemplateError(text, name=written.written, line=written.line, column=written.column)
        chain = (*inside, variable.name)
        parts: list[str] = []
        for piece in pieces(value):
            found = piece if isinstance(piece, str) else self.value(piece, written, chain)
            parts.append(self.counted(piece.written if found is None and isinstance(piece, Variable) else str(found)))
        return "".join(parts)


def lacking(missing: Iterable[Variable], variables: Mapping[str, object]) -> TemplateError:
    """Return the error that names every variable in `missing` (at least one) with its place, and what may be meant."""
    found = tuple(dict.fromkeys(missing))
    first = found[0]
    told = [_told(each, variables) for each in found[:20]]
    if len(found) > len(told):
        told.append(f"and {len(found) - len(told)} more")
    return TemplateError("; ".join(told), line=first.line, column=first.column, missing=found)


def _told(variable: Variable, variables: Mapping[str, object]) -> str:
    place = f"line {variable.line}, column {variable.column}"
    if variable.inner:
        return f"the value of {variable.written} at {place} holds a variable that has no value"
    if not variable.closed:
        return f"the ${{ at {place} has no closing }}: close it, or write $${{ for the signs themselves"
    text = f"no value is given for {variable.written} at {place}"
    plain, default, _ = variable.name.partition(":-")
    if default and plain in variables:
        return f"{text}: a template's variables have no defaults, write ${{{plain}}}"
    close = difflib.get_close_matches(variable.name[:200], [str(name) for name in list(variables)[:1000]], 1)
    return f"{text}: did you mean ${{{close[0]}}}?" if close else text
