"""What is known of an environment's tunnel: its address and its port forwards, from a file or as given.

Standards: the vendor's body of advanced networking (`portForwards` of `{name, portDest, portOrig}`), as the Cloud
Manager API gives it and as `outgate environment run` writes it; comments are taken too.
Promises: no two forwards have one `portOrig`; what cannot be used is a `ConfigError` with file, line and column.
Dangers: the name of a forward is what a certificate behind the tunnel is checked against: who may write the file
decides whom mail goes to.
Not here: which forward a configuration means (`mailer.sending.target`), which forwards the vendor allows
(`egress.forward_rules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import cast

from outgate.mailer.configuration.commented_json import (
    LONGEST,
    Array,
    Json,
    JsonError,
    Lines,
    Number,
    Object,
    read_document,
)
from outgate.mailer.configuration.host_names import expected_of
from outgate.mailer.interpolate import Source
from outgate.mailer.osgi import decode
from outgate.mailer.values import ConfigError

_KEYS = ("name", "portDest", "portOrig")
_MOST = 65_535


@dataclass(frozen=True, slots=True)
class Forward:
    """One port forward of an environment: `port` on the tunnel leads to `name`:`destination`."""

    port: int
    name: str
    destination: int


@dataclass(frozen=True, slots=True)
class Forwards:
    """What is known of an environment's tunnel: its address ("" if unknown) and its forwards by port."""

    tunnel: str
    by_port: Mapping[int, Forward]


def forwards_from(given: object, env: Source) -> Forwards:
    """Return the forwards as given, else those in the JSON file that OUTGATE_FORWARDS names.

    Takes a `Forwards`, a path, a list of `{name, portDest, portOrig}`, or an object with that list as
    `portForwards` and a `tunnelAddress`. Raises `ConfigError`."""
    origin = "forwards"
    if isinstance(given, Forwards):
        return given
    if given is None:
        given, origin = env.get("OUTGATE_FORWARDS") or [], "OUTGATE_FORWARDS"
    try:
        if isinstance(given, (str, PathLike)):
            return _from_file(Path(cast("str | PathLike[str]", given)))
        return _forwards(given, _Places())
    except ConfigError as error:
        raise error.at(name=origin) from None


@dataclass(frozen=True, slots=True)
class _Places:
    """Where in a file the entries stand; without a file an error counts them."""

    file: str = ""
    entries: tuple[tuple[int, int], ...] = ()
    whole: tuple[int, int] = (0, 0)

    def error(self, text: str, index: int | None = None) -> ConfigError:
        if index is not None and index < len(self.entries):
            line, column = self.entries[index]
        else:
            line, column = self.whole
            text = text if index is None else f"port forward {index + 1}: {text}"
        return ConfigError(text, file=self.file, line=line, column=column)


def _from_file(path: Path) -> Forwards:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    except ValueError:
        raise ConfigError("expected the path of a file") from None
    try:
        text = decode(data)
    except ConfigError as error:
        raise error.at(file=path) from None
    lines = Lines(text)
    try:
        document = read_document(text)
    except JsonError as error:
        line, column = lines.place(error.at)
        raise ConfigError(error.text, file=path, line=line, column=column) from None
    listed, whole = document, (1, 1)
    if isinstance(document, Object):
        entries = next((each for each in document.members if each.name == "portForwards"), None)
        listed, whole = (entries.value, lines.place(entries.value_at)) if entries else (None, whole)
    at = tuple(map(lines.place, listed.places)) if isinstance(listed, Array) else ()
    return _forwards(_plain(document), _Places(str(path), at, whole))


def _plain(value: Json) -> object:
    """Return a JSON value as Python's own; what is no whole number stays what it is, for it is of no use here."""
    match value:
        case Number():
            return int(value.text) if value.integral and len(value.text) < 20 else value
        case Array():
            return [_plain(item) for item in value.items]
        case Object():
            return {each.name: _plain(each.value) for each in value.members}
        case _:
            return value


def _forwards(given: object, places: _Places) -> Forwards:
    tunnel: object = ""
    if isinstance(given, Mapping):
        document = cast("Mapping[str, object]", given)
        tunnel = document.get("tunnelAddress") or ""
        if "portForwards" not in document:
            near = get_close_matches("portForwards", [*map(str, document)], 1)
            hint = f": did you mean that by {near[0]}?" if near else ""
            if document:
                raise places.error(f"expected portForwards, a list of port forwards{hint}")
        given = document.get("portForwards") or []
    if not isinstance(given, (list, tuple)):
        raise places.error("expected a list of port forwards, or an object with portForwards")
    if not isinstance(tunnel, str):
        raise places.error("expected tunnelAddress to be text, in double quotes")
    if tunnel and (expected := expected_of(tunnel, "each forward")):
        raise places.error(f"expected tunnelAddress to be {expected}")
    found: dict[int, Forward] = {}
    first: dict[int, int] = {}
    for index, entry in enumerate(cast("list[object]", given)):
        forward = _forward(entry, index, places)
        if forward.port in found:
            line = f" in line {places.entries[first[forward.port]][0]}" if places.entries else ""
            raise places.error(
                f"portOrig {forward.port} is that of the forward to {found[forward.port].name}{line} already:"
                " each forward has its own",
                index,
            )
        found[forward.port], first[forward.port] = forward, index
    return Forwards(tunnel, found)


def _forward(entry: object, index: int, places: _Places) -> Forward:
    if not isinstance(entry, Mapping):
        raise places.error("expected an object with name, portDest and portOrig", index)
    fields = cast("Mapping[str, object]", entry)
    for key in _KEYS:
        if key not in fields:
            near = get_close_matches(key, [*map(str, fields)], 1)
            hint = f": did you mean that by {near[0]}?" if near and near[0] not in _KEYS else ""
            raise places.error(f"a port forward needs name, portDest and portOrig; {key} is missing{hint}", index)
    name = fields["name"]
    if not isinstance(name, str) or not name.strip():
        raise places.error("expected name to be the destination's host name, as text", index)
    if expected := expected_of(name.strip(), "portDest"):
        raise places.error(f"expected name to be {expected}", index)
    ports = {key: _port(fields[key], key, index, places) for key in _KEYS[1:]}
    return Forward(ports["portOrig"], name.strip(), ports["portDest"])


def _port(value: object, key: str, index: int, places: _Places) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        raise places.error(f"expected {key} to be a number: write it without quotes", index)
    if type(value) is not int or not 1 <= value <= _MOST:
        usual = ", usually from 30000 to 31000" if key == "portOrig" else ""
        raise places.error(f"expected {key} to be a number from 1 to {_MOST}{usual}", index)
    return value
