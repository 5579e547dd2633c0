"""Replace placeholders in configuration values: `$[source:name;directive=value]`.

Standards: none but Apache Felix's ConfigAdmin interpolation plugin (1.2.8 line), whose behaviour this is.
Promises: without a value and a default a placeholder stays as it is; a chain of values that comes back to
itself stops there; the result has the type that was asked for, or `InterpolationError`; no error shows a value.
Dangers: what comes out of a secret is expanded again: a password with `$[env:X]` in it changes.
Not here: reading files (`mailer.osgi`), where secrets lie (`mailer.config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from outgate.mailer.values import ConfigError, ConversionError, Scalar, Value, as_text, boxed, convert, known

_START = "$["
_DEEPEST = 50
_LONGEST = 1_048_576  # signs: values that multiply each other must take neither the memory
_MOST = 10_000  # nor, if they are empty, the time


class InterpolationError(ConfigError):
    """A placeholder cannot be replaced: the whole configuration is of no use then."""


class Source(Protocol):
    """Where the values of one kind of placeholder come from: a mapping, or anything with its `get`."""

    def get(self, key: str, /) -> str | None:
        """Return the value of `key`, None if there is none; an empty one counts."""
        ...


@dataclass(frozen=True, slots=True)
class Lookup:
    """One placeholder that was looked up: `written` is its name as it stands, `name` the one that came out of it (which
    may hold a secret's content, if a placeholder is nested in the name).

    `found`: the source has it. `defaulted`: it has not, and the default was taken. Neither: it stayed as it is.
    `nested`: it stood in a value that had been looked up itself."""

    source: str
    written: str
    name: str = field(repr=False)
    found: bool
    defaulted: bool
    nested: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """A value with its placeholders replaced, and what was looked up for it, in order."""

    value: Value
    lookups: tuple[Lookup, ...]

    @property
    def stayed(self) -> tuple[str, ...]:
        """Return the placeholders of the value itself that stayed as they are, as `$[source:name]`."""
        return tuple(
            f"$[{each.source}:{each.written}]"
            for each in self.lookups
            if not (each.found or each.defaulted or each.nested)
        )


@dataclass(slots=True)
class _Context:
    sources: dict[str, Source]
    conf: Mapping[str, Value]
    lookups: list[Lookup] = field(default_factory=list[Lookup])
    depth: int = 0
    replaced: int = 0


def interpolate(
    value: str | Value,
    *,
    env: Source,
    secrets: Source,
    props: Source | None = None,
    conf: Mapping[str, Value] | None = None,
) -> Value:
    """Return `value` with its placeholders replaced. Only String and String[] values have any.

    `conf` are the properties of the same configuration, as read. Raises `InterpolationError`."""
    return explain(value, env=env, secrets=secrets, props=props, conf=conf).value


def explain(
    value: str | Value,
    *,
    env: Source,
    secrets: Source,
    props: Source | None = None,
    conf: Mapping[str, Value] | None = None,
) -> Explained:
    """Do as `interpolate`; tell also what was looked up. What is missing in a default that is not used is not told."""
    context = _Context({"env": env, "secret": secrets}, conf or {})
    if props is not None:
        context.sources["prop"] = props
    given = Value("String", value) if isinstance(value, str) else value
    if given.type == "String" and isinstance(given.value, str):
        result = _expand(given.value, context, ())
    elif given.type == "String[]" and isinstance(given.value, tuple):
        result = Value("String[]", tuple(_splice(given.value, context)))
    else:
        result = given
    return Explained(result, tuple(context.lookups))


def _splice(items: tuple[Scalar, ...], context: _Context) -> list[Scalar]:
    found: list[Scalar] = []
    for item in items:
        result = _expand(as_text(item), context, ())
        if isinstance(result.value, tuple):
            found += [as_text(part) for part in result.value]
        else:
            found.append(result.text)
    return found


def _expand(text: str, context: _Context, inside: tuple[tuple[str, str], ...]) -> Value:
    """Replace the placeholders of `text`; `inside` are those whose value `text` is part of."""
    at = 0
    while True:
        text, start = _next_marker(text, at)
        if start < 0:
            return Value("String", text)
        text, end = _closing(text, start)
        if end < 0:
            return Value("String", text)
        replacement = _replace(text[start + 2 : end], context, inside)
        if replacement is None:
            at = start + 2  # it stays, but what is nested in it may be replaced
            continue
        if replacement.type != "String" and start == 0 and end == len(text) - 1:
            return replacement
        text = text[:start] + replacement.text + text[end + 1 :]
        at = start + len(replacement.text)
        if len(text) > _LONGEST:
            raise InterpolationError("the values of its placeholders make it too long")


def _escaped(text: str, at: int) -> bool:
    """Say whether exactly one backslash, and not a pair, stands before `at`."""
    return at > 0 and text[at - 1] == "\\" and (at == 1 or text[at - 2] != "\\")


def _next_marker(text: str, at: int) -> tuple[str, int]:
    """Find the next `$[` that is not escaped; return `text` without the escapes passed, and where it is."""
    while (start := text.find(_START, at)) >= 0 and _escaped(text, start):
        text = text[: start - 1] + text[start:]
        at = start + 1
    return text, start


def _closing(text: str, start: int) -> tuple[str, int]:
    """Find the bracket that closes the placeholder at `start`; return `text` without the escapes passed."""
    depth = 1
    at = start + 2
    while at < len(text):
        sign = text[at]
        if sign in "[]":
            if _escaped(text, at):
                text = text[: at - 1] + text[at:]
                continue
            depth += 1 if sign == "[" else -1
            if depth == 0:
                return text, at
        at += 1
    return text, -1


def _replace(key: str, context: _Context, inside: tuple[tuple[str, str], ...]) -> Value | None:
    """Return what stands for the placeholder `key` (without its brackets), None if it stays."""
    source, colon, rest = key.partition(":")
    if not colon:
        return None
    context.replaced += 1
    if context.depth > _DEEPEST or context.replaced > _MOST:
        raise InterpolationError("its placeholders lead to too many others")
    cut = _directives_at(rest)
    raw_name, raw_directives = (rest, "") if cut < 0 else (rest[:cut], rest[cut + 1 :])
    name = _nested(raw_name, context, inside)
    before = len(context.lookups)
    directives = _directives(_nested(raw_directives, context, inside)) if cut >= 0 else {}
    if (source, name) in inside:
        return None
    value = _look_up(source, name, raw_name, context)
    found = value is not None
    if found:
        del context.lookups[before:]
    else:
        value = directives.get("default")
    context.lookups.append(Lookup(source, raw_name, name, found, not found and value is not None, bool(inside)))
    if value is None:
        return None
    text = _nested(value, context, (*inside, (source, name)))
    type_name = directives.get("type")
    if type_name is None or not known(type_name):
        return Value("String", text)
    try:
        return _typed(text, type_name, directives.get("delimiter"))
    except ConversionError as error:
        raise InterpolationError(f"the value of $[{source}:{raw_name}] {error}") from None


def _nested(text: str, context: _Context, inside: tuple[tuple[str, str], ...]) -> str:
    if _START not in text:
        return text
    context.depth += 1
    result = _expand(text, context, inside).text
    context.depth -= 1
    return result


def _look_up(source: str, name: str, raw_name: str, context: _Context) -> str | None:
    if source == "conf":
        other = context.conf.get(name)
        if other is None:
            raise InterpolationError(f"$[conf:{raw_name}] names a property that this configuration does not have")
        return other.text
    values = context.sources.get(source)
    return None if values is None else values.get(name)


def _directives_at(text: str) -> int:
    """Find the `;` that ends the name: one inside a nested placeholder belongs to that."""
    depth = 0
    for at, sign in enumerate(text):
        if sign == "[":
            depth += 1
        elif sign == "]":
            depth -= 1
        elif sign == ";" and depth <= 0:
            return at
    return -1


def _directives(text: str) -> dict[str, str]:
    """Parse `name=value;name=value`; the last of a name wins; a backslash before `;` keeps it."""
    found: dict[str, str] = {}
    start = at = 0
    while at <= len(text):
        if at == len(text) or text[at] == ";":
            if at < len(text) and at > start and _escaped(text[start:], at - start):
                text = text[: at - 1] + text[at:]
                continue
            name, _, value = text[start:at].partition("=")
            found[name] = value
            start = at + 1
        at += 1
    return found


def _typed(text: str, type_name: str, delimiter: str | None) -> Value:
    if not type_name.endswith("[]"):
        return Value(boxed(type_name), convert(text, type_name))
    parts = [text] if not delimiter else _split(text, delimiter)
    return Value(type_name, tuple(convert(part, type_name[:-2]) for part in parts))


def _split(text: str, delimiter: str) -> list[str]:
    """Split at `delimiter`; a backslash before it keeps it, two are one backslash and then a split."""
    parts: list[str] = []
    part = ""
    while True:
        before, found, rest = text.partition(delimiter)
        if not found:
            return [*parts, part + text]
        if _escaped(before, len(before)):
            part += before[:-1] + delimiter
        else:
            parts.append(part + (before[:-1] if before.endswith("\\\\") else before))
            part = ""
        text = rest
