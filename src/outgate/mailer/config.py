"""From files to the ten properties of the mail service: run modes, secrets, placeholders, checks.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService`; Apache Sling's names of configuration folders.
Promises: one file counts, never a mixture; what cannot be used is a `ConfigError` that names the property and
shows no value; a placeholder without a value never becomes a password.
Dangers: on the cloud service STARTTLS is forced when `smtp.ssl` is off; `classic` is the older behaviour.
Not here: sending (`mailer.client`), the file's grammar (`mailer.osgi`), which file counts (`mailer.folders`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from outgate.mailer.folders import open_configurations
from outgate.mailer.interpolate import Source, explain
from outgate.mailer.values import ConfigError, Value

if TYPE_CHECKING:
    from outgate.smtp.connecting import TlsMode

PID = "com.day.cq.mailer.DefaultMailService"
FILE_NAME = f"{PID}.cfg.json"
_HOST = re.compile(r"[A-Za-z0-9:._\-\u0080-\U0010ffff]{1,255}")


@dataclass(frozen=True, slots=True)
class MailConfig:
    """The mail service's properties, ready for use. An empty `user` means: no login."""

    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)
    from_address: str
    ssl: bool
    starttls: bool
    requiretls: bool
    debug: bool
    oauth: bool

    @property
    def tls(self) -> TlsMode:
        """Return how TLS begins: "implicit" beats "required" (`smtp.requiretls`) beats "opportunistic"."""
        if self.ssl:
            return "implicit"
        if self.requiretls:
            return "required"
        return "opportunistic" if self.starttls else "none"


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


class SecretFiles:
    """Secrets as files in directories: the first directory that has a file wins; contents are trimmed."""

    def __init__(self, directories: Iterable[str | Path]) -> None:
        self._directories = tuple(Path(directory) for directory in directories)

    def get(self, key: str, /) -> str | None:
        """Return a secret, None if there is no such file. A name with `..` or an absolute one has none."""
        if not key or ".." in key or key.startswith("/") or "\0" in key:
            return None
        for directory in self._directories:
            file = directory / key
            try:
                if file.is_file():
                    return file.read_text("utf-8").strip()
            except (OSError, ValueError):
                raise ConfigError(f"a secret's file in {directory} cannot be read as UTF-8 text") from None
        return None


def secrets_from(given: Source | str | Path | None, env: Source) -> Source:
    """Return where secrets come from: as given (a mapping, or directories separated by commas), else the
    directories that OUTGATE_SECRETS names."""
    if given is None:
        given = env.get("OUTGATE_SECRETS") or ""
    if isinstance(given, (str, Path)):
        return SecretFiles(part.strip() for part in str(given).split(",") if part.strip())
    return given


def forwards_from(given: object, env: Source) -> Forwards:
    """Return the forwards as given, else those in the JSON file that OUTGATE_FORWARDS names.

    Takes a `Forwards`, a path, a list of `{name, portDest, portOrig}`, or an object with that list as
    `portForwards` and a `tunnelAddress`. Raises `ConfigError`."""
    where = "forwards"
    if isinstance(given, Forwards):
        return given
    if given is None:
        given = env.get("OUTGATE_FORWARDS") or []
        where = "OUTGATE_FORWARDS"
    if isinstance(given, (str, Path)):
        where = f"{where}, file {given}"
        given = _json_file(Path(given), where)
    tunnel: object = ""
    if isinstance(given, Mapping):
        document = cast("Mapping[str, Any]", given)
        tunnel = document.get("tunnelAddress") or ""
        given = document.get("portForwards") or []
    if not isinstance(given, (list, tuple)) or not isinstance(tunnel, str):
        raise ConfigError(f"{where}: expected a list of port forwards, or an object with portForwards")
    found = [_forward(entry, where) for entry in cast("list[Any]", given)]
    return Forwards(tunnel, {forward.port: forward for forward in found})


def _json_file(path: Path, where: str) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{where} is not JSON in UTF-8") from None


def _forward(entry: object, where: str) -> Forward:
    fields = cast("Mapping[str, Any]", entry) if isinstance(entry, Mapping) else {}
    port, name, destination = fields.get("portOrig"), fields.get("name"), fields.get("portDest")
    if type(port) is not int or type(destination) is not int or not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: a port forward needs name, portDest and portOrig")
    return Forward(port, name, destination)


def load(
    path: str | Path,
    run_modes: Iterable[str] = (),
    *,
    env: Source,
    secrets: Source,
    classic: bool = False,
) -> MailConfig:
    """Find, read, interpolate and check the mail service's configuration. Raises `ConfigError`; for a file
    that is no configuration the subclass `OsgiError`. Both tell file, line and column as far as there are any."""
    file = open_configurations(path, PID).resolve(PID, run_modes)
    properties = file.parse()
    raw = {name: found.value for name, found in properties.items()}
    try:
        return settle(raw, env=env, secrets=secrets, classic=classic)
    except ConfigError as error:
        known = {name.lower(): found for name, found in properties.items()}
        place = known[error.name.lower()].value_at if error.name.lower() in known else None
        raise error.at(file=file.where, line=place.line if place else 0, column=place.column if place else 0) from None


def settle(raw: Mapping[str, Value], *, env: Source, secrets: Source, classic: bool = False) -> MailConfig:
    """Make the mail service's settings from the properties of its file. Raises `ConfigError`."""
    given: dict[str, Value] = {}
    stayed: dict[str, tuple[str, ...]] = {}
    for name, value in raw.items():
        try:
            explained = explain(value, env=env, secrets=secrets, conf=raw)
        except ConfigError as error:
            raise error.at(name=name) from None
        given[name.lower()] = explained.value
        stayed[name.lower()] = explained.stayed
    for name in ("smtp.host", "smtp.port", "smtp.user", "smtp.password", "from.address"):
        if stayed.get(name):
            raise ConfigError(
                f"nothing is set for {', '.join(stayed[name])}: set it in the environment,"
                " or give the placeholder a default",
                name=name,
            )
    config = MailConfig(
        host=_host(given),
        port=_port(given),
        user=_text(given, "smtp.user"),
        password=_text(given, "smtp.password"),
        from_address=_text(given, "from.address").strip(),
        ssl=_flag(given, "smtp.ssl"),
        starttls=_flag(given, "smtp.starttls") or (not classic and not _flag(given, "smtp.ssl")),
        requiretls=_flag(given, "smtp.requiretls"),
        debug=_flag(given, "debug.email"),
        oauth=_flag(given, "oauth.flow"),
    )
    if config.oauth and not config.user:
        raise ConfigError("a login with a token needs the address of the mailbox", name="smtp.user")
    if config.user and not config.password and not config.oauth:
        raise ConfigError("a password is needed for smtp.user", name="smtp.password")
    return config


def _text(given: Mapping[str, Value], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if isinstance(value.value, tuple):
        raise ConfigError("expected one value, not a list", name=name)
    return value.text


def _host(given: Mapping[str, Value]) -> str:
    host = _text(given, "smtp.host").strip()
    if not host:
        raise ConfigError("expected the name of the server, or of the tunnel", name="smtp.host")
    if _HOST.fullmatch(host) is None:
        raise ConfigError("expected a host name or an address", name="smtp.host")
    return host


def _port(given: Mapping[str, Value]) -> int:
    text = _text(given, "smtp.port") if "smtp.port" in given else "25"
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 25 <= int(text) <= 65535:
        raise ConfigError("expected a number from 25 to 65535 (through a tunnel: the portOrig)", name="smtp.port")
    return int(text)


def _flag(given: Mapping[str, Value], name: str) -> bool:
    text = _text(given, name).strip().lower()
    if text not in ("true", "false", ""):
        raise ConfigError("expected true or false", name=name)
    return text == "true"
