"""One configuration ready for use: read, its placeholders replaced, each value with its place in the file.

Whoever needs the properties of a PID (the mail service, OAuth, the doctor) says
`properties_of(file, env=…, secrets=…)` and asks what comes back: `.text("clientId")`, `.texts("scopes")`,
`.flag("smtp.ssl")`, `.error("smtp.port", "expected …")`.

Standards: Apache Felix's Configuration Admin (names are not case-sensitive, `service.pid` is a property).
Promises: pure; every error is a `ConfigError` with property, file, line and column as far as there are any, and shows
no value; what still holds a placeholder that nothing is set for, or no text, is never given out as text.
Dangers: one placeholder that cannot be replaced makes the whole configuration of no use, as in the vendor's.
Not here: which file counts (`mailer.folders`), what a placeholder means (`mailer.interpolate`), which properties there
are (`mailer.config`, `mailer.oauth`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from outgate.mailer.configuration.commented_json import encodable
from outgate.mailer.folders import ConfigFile
from outgate.mailer.interpolate import Budget, Explained, Lookup, Source, conf_of, explain
from outgate.mailer.osgi import NOWHERE, Place, Property
from outgate.mailer.values import ConfigError, Value


@dataclass(frozen=True, slots=True)
class Settled:
    """One property: `name` and `written` as in the file, `explained` what came of its placeholders. `changed` says what
    the reader makes another value of without a word, as Felix does, and `changed_at` where that stands."""

    name: str
    written: Value
    explained: Explained
    key_at: Place = NOWHERE
    value_at: Place = NOWHERE
    changed: str = ""
    changed_at: Place = NOWHERE

    @property
    def value(self) -> Value:
        """Return the value with its placeholders replaced."""
        return self.explained.value


@dataclass(frozen=True, slots=True)
class Properties:
    """All properties of one configuration, asked for by name in any case; `where` names the file to a person."""

    where: str
    by_name: Mapping[str, Settled] = field(repr=False)

    def __iter__(self) -> Iterator[Settled]:
        return iter(self.by_name.values())

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.by_name

    def get(self, name: str) -> Settled | None:
        """Return a property, None if the configuration has none of that name."""
        return self.by_name.get(name.lower())

    def text(self, name: str, default: str = "") -> str:
        """Return a property's value as text. Raises `ConfigError` for a list, and for a placeholder without a value."""
        settled = self.get(name)
        if settled is None:
            return default
        if isinstance(settled.value.value, tuple):
            raise self.error(name, "expected one value, not a list")
        self._complete(settled)
        return settled.value.text

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the elements of a list as text; one value is a list of one. Raises `ConfigError` as `text` does."""
        settled = self.get(name)
        if settled is None:
            return ()
        self._complete(settled)
        return settled.value.texts

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean, which may be written as text; an empty one is false. Raises `ConfigError`."""
        text = self.text(name, str(default)).lower()
        if text not in ("true", "false", ""):
            hint = ": without spaces" if text.strip() in ("true", "false") else ""
            raise self.error(name, f"expected true or false{hint}")
        return text == "true"

    def error(self, name: str, text: str) -> ConfigError:
        """Return an error about a property, with its place; one that is not there has the file only."""
        settled = self.get(name)
        place = settled.value_at if settled else NOWHERE
        shown = settled.name if settled else name
        return ConfigError(text, name=shown, file=self.where, line=place.line, column=place.column)

    def _complete(self, settled: Settled) -> None:
        lookups = settled.explained.lookups
        own = [each for each in lookups if each.stayed and not each.nested]
        if own:
            raise self.error(
                settled.name,
                f"nothing is set for {', '.join(map(_told, own))}: {_remedy(own)}, or give the placeholder a default",
            )
        begun_by = ""
        for each in lookups:
            if not each.nested:
                begun_by = each.label
            elif each.stayed and each.source in ("env", "secret", "prop"):  # its name may be a part of a password
                told = f" ({each.reason})" if each.reason else ""
                raise self.error(
                    settled.name,
                    f"the value of {begun_by} has a placeholder in it that nothing is set for{told}, and would be used"
                    " as it stands: set that, or write a backslash before its $[ if it is a part of the value",
                )
        if settled.value.type.startswith("Collection") and any("$[" in text for text in settled.value.texts):
            text = "in a collection placeholders are not replaced: write :String[] behind the name, or no type"
            raise self.error(settled.name, text)
        if not all(map(encodable, settled.value.texts)):
            raise self.error(settled.name, "expected text: a variable that it comes from has octets that are not UTF-8")


def _remedy(stayed: list[Lookup]) -> str:
    sources = {each.source for each in stayed}
    if "env" in sources:
        return "set it in the environment"
    return "set it as a secret" if sources == {"secret"} else "take it from env or secret"


def _told(lookup: Lookup) -> str:
    """Return a placeholder that stayed, with what is known of why."""
    reasons = [lookup.reason, *(f"did you mean the directive {name}?" for name in lookup.meant)]
    told = "; ".join(reason for reason in reasons if reason)
    return f"{lookup.label} ({told})" if told else lookup.label


def properties_of(file: ConfigFile, *, env: Source, secrets: Source, props: Source | None = None) -> Properties:
    """Read one file and replace its placeholders. Raises `ConfigError`; `OsgiError` if the file is no configuration."""
    written = file.parse()
    return settled(
        {name: found.value for name, found in written.items()},
        env=env,
        secrets=secrets,
        props=props,
        pid=file.pid,
        where=file.where,
        places=written,
    )


def settled(
    raw: Mapping[str, Value],
    *,
    env: Source,
    secrets: Source,
    props: Source | None = None,
    pid: str = "",
    where: str = "",
    places: Mapping[str, Property] | None = None,
) -> Properties:
    """Replace the placeholders of properties that have been read. Raises `ConfigError`."""
    conf, budget = conf_of(raw, pid), Budget()
    found: dict[str, Settled] = {}
    for name, value in raw.items():
        place = places.get(name) if places else None
        key_at, value_at = (place.key_at, place.value_at) if place else (NOWHERE, NOWHERE)
        changed, changed_at = (place.changed, place.changed_at) if place else ("", NOWHERE)
        try:
            explained = explain(value, env=env, secrets=secrets, props=props, conf=conf, budget=budget)
        except ConfigError as error:
            raise error.at(name=name, file=where, line=value_at.line, column=value_at.column) from None
        found[name.lower()] = Settled(name, value, explained, key_at, value_at, changed, changed_at)
    return Properties(where, found)
