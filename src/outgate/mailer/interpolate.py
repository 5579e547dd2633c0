"""Replace placeholders in configuration values: `$[source:name;directive=value]`.

    interpolate("$[env:AEM_PROXY_HOST;default=proxy.tunnel]", env=os.environ, secrets="/mnt/secrets").value

Standards: none but Apache Felix's ConfigAdmin interpolation plugin (1.2.8 line), whose behaviour this is.
Promises: without a value and a default a placeholder stays as it is; a chain of values that comes back to itself stops
there; the result has the type that was asked for, or `InterpolationError`; no error and no lookup shows a value, nor
what stands in one; time and memory are bounded, whatever the values are.
Dangers: what comes out of a secret is expanded again: a password with `$[env:X]` in it changes. The first `;` ends the
name, also one inside a placeholder in the name. What is converted to a type is not expanded any more.
Not here: reading files (`mailer.osgi`), where secrets lie (`mailer.configuration.secret_files`), a whole configuration
(`mailer.configuration.properties`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol, cast

from outgate.mailer.configuration.placeholder_grammar import (
    START,
    Brackets,
    Done,
    escaped,
    parse_directives,
    split,
    without,
)
from outgate.mailer.configuration.secret_files import Directories, SecretFiles
from outgate.mailer.values import (
    ConfigError,
    ConversionError,
    Scalar,
    Value,
    boxed,
    convert,
    first_character,
    known,
    shown,
)

_SOURCES = ("env", "secret", "prop", "conf")
_DIRECTIVES = ("default", "type", "delimiter")
_DEEPEST = 60
_LONGEST = 1_048_576  # signs: values that multiply each other must not take the memory


class InterpolationError(ConfigError):
    """A placeholder cannot be replaced: the whole configuration is of no use then."""


class Source(Protocol):
    """Where the values of one kind of placeholder come from: a mapping, or anything with its `get`.

    It may have a `reason(key) -> str`, which says why there is no value."""

    def get(self, key: str, /) -> str | None:
        """Return the value of `key`, None if there is none; an empty one counts."""
        ...


@dataclass(frozen=True, slots=True)
class Lookup:
    """One placeholder that was looked up: `written` is its name as it stands, `name` the one that came out of it (which
    may hold a secret's content, if a placeholder is nested in the name).

    `found`: the source has it. `defaulted`: it has not, and the default was taken. Neither: it stayed as it is, and
    `reason` may say why the source has nothing. `nested`: it stood in a value that had been looked up itself; of one
    that stood in a secret, or behind it, `written` is "…". `type` is the type that was asked for; `default_from` are
    the placeholders that the default that was taken came from, none if it is in the file itself. `ignored` directives
    mean nothing: `meant` are those that exist and have a name much like one of them."""

    source: str
    written: str
    name: str = field(repr=False)
    found: bool
    defaulted: bool
    nested: bool
    type: str = ""
    default_from: tuple[str, ...] = ()
    ignored: int = 0
    meant: tuple[str, ...] = ()
    reason: str = ""

    @property
    def stayed(self) -> bool:
        """Say whether the placeholder stands in the result as it was."""
        return not (self.found or self.defaulted)

    @property
    def label(self) -> str:
        """Return the placeholder without its directives, as a person may be shown it."""
        return _label(self.source, self.written)


def _label(source: str, written: str) -> str:
    return f"$[{shown(source)}:{shown(written)}]"


@dataclass(frozen=True, slots=True)
class Explained:
    """A value with its placeholders replaced, and what was looked up for it, in order."""

    value: Value
    lookups: tuple[Lookup, ...]

    @property
    def stayed(self) -> tuple[str, ...]:
        """Return the placeholders of the value itself that stayed as they are, as `$[source:name]`."""
        return tuple(each.label for each in self.lookups if each.stayed and not each.nested)


@dataclass(frozen=True, slots=True)
class _Within:
    """What a text is part of: placeholders whose values lead to it, and what errors call the first of them."""

    chain: tuple[tuple[str, str], ...] = ()
    label: str = ""


@dataclass(slots=True)
class Budget:
    """What replacing may cost, for one value or shared by all of a configuration: how many placeholders may be looked
    up beside those that the values have themselves, and how many signs looked through beside their own."""

    lookups: int = 10_000
    signs: int = 4 * _LONGEST

    def allow(self, text: str) -> None:
        """Take note of a value as it is written: what it has itself is free."""
        self.lookups += text.count(START)
        self.signs += 2 * len(text)

    def look_up(self) -> None:
        """Raise `InterpolationError` if one more placeholder is one too many."""
        self.lookups -= 1
        if self.lookups < 0:
            raise InterpolationError("its placeholders lead to too many others")

    def look_through(self, text: str) -> None:
        """Raise `InterpolationError` if that text is too much."""
        self.signs -= len(text)
        if self.signs < 0:
            raise InterpolationError("it is too long for so many placeholders, brackets and backslashes")


@dataclass(slots=True)
class _Context:
    sources: dict[str, Source]
    conf: Mapping[str, object]
    budget: Budget
    lookups: list[Lookup] = field(default_factory=list[Lookup])
    secret_seen: bool = False
    depth: int = 0


def interpolate(
    value: str | Value | Sequence[str],
    *,
    env: Source,
    secrets: Source | Directories | None,
    props: Source | None = None,
    conf: Mapping[str, object] | None = None,
    encoding: str = "utf-8",
) -> Value:
    """Return `value` with its placeholders replaced. Only String and String[] values have any.

    `secrets` is a mapping, or the directories where each is a file (a path, several with commas between, or any number
    of paths), whose `encoding` is used for nothing else. `props` are framework and system properties, `conf` the
    properties of the same configuration, as read. Raises `ConfigError`: nearly always `InterpolationError`."""
    return explain(value, env=env, secrets=secrets_of(secrets, encoding), props=props, conf=conf_of(conf or {})).value


def secrets_of(given: Source | Directories | None, encoding: str = "utf-8") -> Source:
    """Return where secrets come from: what has a `get` itself, else the files in the directories that are given."""
    if given is None:
        return {}
    return cast("Source", given) if hasattr(given, "get") else SecretFiles(cast("Directories", given), encoding)


def conf_of(properties: Mapping[str, object], pid: str = "") -> Mapping[str, object]:
    """Return the properties that `$[conf:…]` may name, as Configuration Admin has them: in any case."""
    by_name = {name.lower(): value for name, value in properties.items()}
    return {"service.pid": pid} | by_name if pid else by_name


def explain(
    value: str | Value | Sequence[str],
    *,
    env: Source,
    secrets: Source,
    props: Source | None = None,
    conf: Mapping[str, object] | None = None,
    budget: Budget | None = None,
) -> Explained:
    """Do as `interpolate`; tell also what was looked up. What is missing in a part of a placeholder that is replaced,
    and so not in the result, is not told.

    `conf` is as `conf_of` gives it. Who explains many values that others write shares one `budget` between them."""
    if isinstance(value, str):
        value = Value("String", value)
    elif not isinstance(value, Value):
        value = Value("String[]", tuple(value))
    result = value
    sources = {"env": env, "secret": secrets} | ({} if props is None else {"prop": props})
    context = _Context(sources, conf or {}, budget or Budget())
    try:
        if value.type == "String" and isinstance(value.value, str):
            context.budget.allow(value.value)
            result = _expand(value.value, context, _Within())
        elif value.type == "String[]" and isinstance(value.value, tuple):
            result = Value("String[]", tuple(_splice(value.texts, context)))
    except RecursionError:
        raise InterpolationError("its placeholders are nested too deeply") from None
    return Explained(result, tuple(context.lookups))


def _splice(items: tuple[str, ...], context: _Context) -> list[Scalar]:
    """Replace in each element; an array that comes of one element becomes several."""
    found: list[Scalar] = []
    for item in items:
        context.budget.allow(item)
        found += _expand(item, context, _Within()).texts
    return found


# -- the text ---------------------------------------------------------------------------------------------------


def _expand(text: str, context: _Context, within: _Within) -> Value:
    """Replace the placeholders of `text`, from the left; one that stays is looked through for others in it."""
    if START not in text:
        return Value("String", text)
    context.budget.look_through(text)
    done, brackets = Done(), Brackets(text)
    at = search = 0  # up to `at` the text is in `done`; from `search` on the next placeholder is looked for
    colon = -1
    while (start := text.find(START, search)) >= 0:
        before = text[max(at, start - 2) : start]
        if escaped(before if len(before) == 2 else (done.last_two() + before)[-2:]):
            if start > at:
                done.add(text[at : start - 1])
            else:
                done.drop_last()
            at, search = start, start + 2
            continue
        inner, end = start + 2, brackets.closing(start + 1)
        escapes = brackets.escapes(inner, end if end >= 0 else len(text))
        if end < 0:  # whatever follows is not looked at
            done.add(text[at:inner] + without(text, escapes, inner, len(text)))
            return Value("String", done.text())
        if colon < inner:
            colon = text.find(":", inner) % (len(text) + 1)  # the end, if there is none
        found = _replace(without(text, escapes, inner, end), context, within) if colon < end else None
        if found is not None:
            value, inside = found
            if value.type != "String" and not done.length and start == at and end == len(text) - 1:
                return value
            done.add(text[at:start])
            done.add(_nested(value.text, context, inside))
            at = search = end + 1
            if done.length + len(text) - at > _LONGEST:
                raise InterpolationError("the values of its placeholders make it too long")
        elif escapes:  # they are gone, also if it stays
            done.add(text[at:inner])
            text = without(text, escapes, inner, end) + text[end:]
            context.budget.look_through(text)
            brackets = Brackets(text)
            at = search = 0
            colon = -1
        else:
            search = inner
    done.add(text[at:])
    return Value("String", done.text())


def _nested(text: str, context: _Context, within: _Within) -> str:
    if START not in text:
        return text
    context.depth += 1
    if context.depth > _DEEPEST:
        raise InterpolationError("its placeholders are nested too deeply")
    result = _expand(text, context, within).text
    context.depth -= 1
    return result


# -- one placeholder --------------------------------------------------------------------------------------------


def _replace(key: str, context: _Context, within: _Within) -> tuple[Value, _Within] | None:
    """Return what stands for the placeholder `key` (without its brackets), and what that is part of; None if it stays.

    What it is replaced by is not expanded yet."""
    context.budget.look_up()
    context.budget.look_through(key)
    source, _, rest = key.partition(":")
    raw_name, _, raw_directives = rest.partition(";")
    before = len(context.lookups)
    directives = parse_directives(_nested(raw_directives, context, within)) if raw_directives else {}
    for_default = context.lookups[before:]
    del context.lookups[before:]
    name = _nested(raw_name, context, within)
    # What stood in a secret is not told, and `key` may be a part of one.
    hidden = bool(within.chain) and context.secret_seen
    written = "…" if hidden else raw_name
    label = within.label or _label(source, written)
    value, reason = _look_up(source, name, label, context, within)
    found = value is not None
    if not found:
        value = None if (source, name) in within.chain else directives.get("default")
    defaulted = not found and value is not None
    if value is None:  # what is in it is looked up once more
        del context.lookups[before:]
    else:  # what stayed in it is gone with it, if it is not in the default
        context.lookups[before:] = _replaced(context.lookups[before:])
    if defaulted:
        context.lookups += for_default if START in str(value) else _replaced(for_default)
    lookup = Lookup(
        source="…" if hidden and source not in _SOURCES else source,
        written=written,
        name=name,
        found=found,
        defaulted=defaulted,
        nested=bool(within.chain),
        type=_type_shown(directives.get("type", ""), hidden or START in raw_directives),
        default_from=tuple(each.label for each in for_default if not each.nested) if defaulted else (),
        ignored=0 if hidden else sum(name not in _DIRECTIVES for name in directives),
        meant=() if hidden or not raw_directives else _meant(directives),
        reason=reason,
    )
    context.lookups.append(lookup)
    if value is None:
        return None
    try:
        result = typed(value, directives)
    except ConversionError as error:
        raise InterpolationError(f"the value of {label} {error}") from None
    return result, _Within((*within.chain, (source, name)), label)


def _replaced(lookups: list[Lookup]) -> list[Lookup]:
    return [each for each in lookups if not each.stayed]


def _look_up(source: str, name: str, label: str, context: _Context, within: _Within) -> tuple[str | None, str]:
    """Return the value that a source has, None if it has none, and why, as far as it tells."""
    if (source, name) in within.chain:
        return None, "it leads back to itself"
    if source == "conf":
        return _of_configuration(name, context.conf, label), ""
    values = context.sources.get(source)
    if values is None:
        return (
            None,
            "no properties are given" if source == "prop" else "there are the sources env, secret, prop and conf",
        )
    try:
        value = values.get(name)
    except ValueError:  # a process's environment says so of a name that none can have
        value = None
    if value is not None:
        context.secret_seen |= source == "secret"
        return value, ""
    asked = getattr(values, "reason", None)
    return None, str(asked(name)) if callable(asked) else ""


def _of_configuration(name: str, conf: Mapping[str, object], label: str) -> str:
    other = conf.get(name.lower())
    if other is None:
        raise InterpolationError(f"{label} leads to a property that this configuration does not have")
    if isinstance(other, Value):
        return other.text
    items = cast("Sequence[Scalar]", other) if isinstance(other, (list, tuple)) else None
    kind = "String" if items is None else "String[]"
    return Value(kind, cast("Scalar", other) if items is None else tuple(items)).text


def _type_shown(asked: str, hidden: bool) -> str:
    return "…" if asked and hidden and not known(asked) else asked


def _meant(directives: Mapping[str, str]) -> tuple[str, ...]:
    """Return the directives that exist and have a name much like one that means nothing. The latter's own name is not
    told: what looks like a directive may be the end of a default."""
    unknown = [name for name in directives if name not in _DIRECTIVES]
    return tuple(near for name in unknown[:10] for near in get_close_matches(name[:20], _DIRECTIVES, 1))


def typed(text: str, directives: Mapping[str, str]) -> Value:
    """Return a value with the type that the directives `type` and `delimiter` ask for. Raises `ConversionError`."""
    type_name, delimiter = directives.get("type"), directives.get("delimiter")
    if type_name is None or not known(type_name):
        return Value("String", text)
    if not type_name.endswith("[]"):
        return Value(boxed(type_name), _scalar(text, type_name))
    if delimiter:
        parts = split(text, delimiter)
    else:  # the converter takes a text for one element, but for characters
        parts = list(text) if type_name in ("char[]", "Character[]") else [text]
    return Value(type_name, tuple(_scalar(part, type_name[:-2]) for part in parts))


def _scalar(text: str, type_name: str) -> Scalar:
    return first_character(text) if boxed(type_name) == "Character" else convert(text, type_name)
