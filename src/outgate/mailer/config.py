"""The ten properties of the mail service: which there are, what they may say, how TLS follows from them.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService`; Jakarta Mail's meaning of ssl, starttls and requiretls.
Promises: one file counts, never a mixture; what cannot be used is a `ConfigError` that names the property, tells its
place in the file and shows no value; a placeholder without a value never becomes a password.
Dangers: on the cloud service STARTTLS is forced when `smtp.ssl` is off; `classic` is the older behaviour. Names that
are none of the ten are noticed and ignored, as the vendor ignores them.
Not here: sending (`mailer.client`), the file's grammar (`mailer.osgi`), which file counts (`mailer.folders`),
placeholders (`mailer.configuration.properties`), port forwards (`mailer.configuration.forwards`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from outgate.mailer.configuration import oauth_names
from outgate.mailer.configuration.forwards import Forward, Forwards, forwards_from
from outgate.mailer.configuration.host_names import expected_of
from outgate.mailer.configuration.properties import Properties, properties_of, settled
from outgate.mailer.configuration.secret_files import Directories, SecretFiles
from outgate.mailer.folders import open_configurations
from outgate.mailer.interpolate import Source, secrets_of
from outgate.mailer.values import ConfigError, Value, shown

if TYPE_CHECKING:
    from outgate.smtp.connecting import TlsMode

__all__ = [
    "FILE_NAME",
    "NAMES",
    "PID",
    "Forward",
    "Forwards",
    "MailConfig",
    "SecretFiles",
    "config_of",
    "forwards_from",
    "load",
    "secrets_from",
    "settle",
]

PID = "com.day.cq.mailer.DefaultMailService"
FILE_NAME = f"{PID}.cfg.json"
NAMES = (
    "smtp.host",
    "smtp.port",
    "smtp.user",
    "smtp.password",
    "from.address",
    "smtp.ssl",
    "smtp.starttls",
    "smtp.requiretls",
    "debug.email",
    "oauth.flow",
)
_OAUTH_NAMES = frozenset(name.lower() for name in oauth_names.PROPERTIES)
_EVERYWHERE = ("service.", "component.", "felix.", "jcr:")  # names that any configuration may have
_LITERAL = re.compile(r"\$\[(?:env|secret|prop|conf):.*\]", re.DOTALL)
_MOST_NOTICED = 50
_log = logging.getLogger("outgate.mailer")


@dataclass(frozen=True, slots=True)
class MailConfig:
    """The mail service's properties, ready for use. An empty `user` means: no login.

    `password` is "" if it is not used (without a user, and with `oauth`). `noticed` are not errors, but properties
    whose names mean nothing, or are written otherwise than the documentation has them, and values that the vendor's
    reader changes without a word; with their places."""

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
    noticed: tuple[ConfigError, ...] = field(default=(), compare=False, repr=False)

    @property
    def tls(self) -> TlsMode:
        """Return how TLS begins: "implicit" beats "required" (`smtp.requiretls`) beats "opportunistic"."""
        if self.ssl:
            return "implicit"
        if self.requiretls:
            return "required"
        return "opportunistic" if self.starttls else "none"


def secrets_from(given: Source | Directories | None, env: Source) -> Source:
    """Return where secrets come from: as given (a mapping, or directories: a path, several with commas between, or any
    number of paths), else the directories that OUTGATE_SECRETS names."""
    return SecretFiles(env.get("OUTGATE_SECRETS") or "") if given is None else secrets_of(given)


def load(
    path: str | Path,
    run_modes: Iterable[str] = (),
    *,
    env: Source,
    secrets: Source | Directories | None,
    classic: bool = False,
) -> MailConfig:
    """Find, read, interpolate and check the mail service's configuration. Raises `ConfigError`; for a file
    that is no configuration the subclass `OsgiError`. Both tell file, line and column as far as there are any.

    What is noticed is a warning in the log."""
    source = secrets_from(secrets, env)
    if isinstance(source, SecretFiles) and source.missing:
        _log.warning("no secrets are read from %s: no such directory", ", ".join(map(str, source.missing)))
    try:
        file = open_configurations(path, PID).resolve(PID, run_modes)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    config = config_of(properties_of(file, env=env, secrets=source), classic=classic)
    for notice in config.noticed:
        _log.warning("%s", notice)
    return config


def run_modes_from(given: Iterable[str] | None, env: Source) -> str | tuple[str, ...]:
    """Return the run modes as given, else (None) the text that OUTGATE_RUN_MODES is."""
    if given is None:
        return env.get("OUTGATE_RUN_MODES") or ""
    return given if isinstance(given, str) else tuple(given)


def settle(
    raw: Mapping[str, Value], *, env: Source, secrets: Source | Directories | None, classic: bool = False
) -> MailConfig:
    """Make the mail service's settings from properties as they were read. Raises `ConfigError`."""
    return config_of(settled(raw, env=env, secrets=secrets_from(secrets, env), pid=PID), classic=classic)


def config_of(properties: Properties, *, classic: bool = False) -> MailConfig:
    """Make the mail service's settings from properties whose placeholders are replaced. Raises `ConfigError`."""
    ssl, oauth, user = properties.flag("smtp.ssl"), properties.flag("oauth.flow"), _line(properties, "smtp.user")
    config = MailConfig(
        host=_host(properties),
        port=_port(properties),
        user=user,
        password=_password(properties) if user and not oauth else "",
        from_address=_line(properties, "from.address").strip(),
        ssl=ssl,
        starttls=properties.flag("smtp.starttls") or (not classic and not ssl),
        requiretls=properties.flag("smtp.requiretls"),
        debug=properties.flag("debug.email"),
        oauth=oauth,
        noticed=(*_changed(properties), *_noticed(properties)),
    )
    if oauth and not user:
        raise properties.error("smtp.user", "expected the mailbox that logs in, for oauth.flow is true")
    return config


def _host(properties: Properties) -> str:
    host = properties.text("smtp.host").strip()
    if not host:
        raise _absent(properties, "smtp.host", "expected the name of the server, or of the tunnel")
    if expected := expected_of(host, "smtp.port"):
        raise properties.error("smtp.host", f"expected {expected}")
    return host


def _port(properties: Properties) -> int:
    text = properties.text("smtp.port", "25")
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 25 <= int(text) <= 65535:
        hint = ": without spaces" if text != text.strip() else ""
        raise properties.error(
            "smtp.port", f"expected a number from 25 to 65535 (through a tunnel: the portOrig){hint}"
        )
    return int(text)


def _line(properties: Properties, name: str) -> str:
    text = properties.text(name)
    if not is_line(text):
        raise properties.error(name, "expected one line of text, without control characters")
    return text


def is_line(text: str) -> bool:
    """Say whether a text is one line without control characters; a line end at an end is taken for a space there."""
    return not any(sign < " " or sign == "\x7f" for sign in text.strip())


def _password(properties: Properties) -> str:
    text = properties.text("smtp.password")
    if not text:
        raise _absent(properties, "smtp.password", "a password is needed for smtp.user")
    if "\0" in text:
        raise properties.error("smtp.password", "expected a password without NUL characters")
    if _LITERAL.fullmatch(text):
        raise properties.error("smtp.password", "its value has a placeholder that a backslash keeps: take that away")
    return text


def _absent(properties: Properties, name: str, text: str) -> ConfigError:
    """Return the error for a property that is missing or empty; another may have been meant for it."""
    for notice in _noticed(properties):
        if name not in properties and notice.text.endswith(f"did you mean {name}?"):
            return ConfigError(
                f"{text}; {notice.name} is no property of the mail service: did you mean {name}?",
                name=name,
                file=notice.file,
                line=notice.line,
                column=notice.column,
            )
    return properties.error(name, text)


def _changed(properties: Properties) -> Iterable[ConfigError]:
    """Tell which of the ten properties do not have the value that the file seems to say."""
    for each in properties:
        if each.changed and each.name.lower() in NAMES:
            place = each.changed_at
            yield ConfigError(each.changed, name=each.name, file=properties.where, line=place.line, column=place.column)


def _noticed(properties: Properties) -> Iterable[ConfigError]:
    """Tell which names mean nothing, and what was probably meant."""
    plain = {_plain(name): name for name in NAMES}
    others = (each for each in properties if each.name not in NAMES)
    for each in islice((each for each in others if not each.name.lower().startswith(_EVERYWHERE)), _MOST_NOTICED):
        lower = each.name.lower()
        if lower in NAMES:
            text = f"is taken for {lower}: write it so"
        elif lower in _OAUTH_NAMES:
            text = f"is no property of the mail service, but of {oauth_names.PID}"
        else:
            near = get_close_matches(_plain(each.name[:80]), plain, 1, 0.75)
            hint = f": did you mean {plain[near[0]]}?" if near else ""
            text = f"is no property of the mail service{hint}"
        place = each.key_at
        yield ConfigError(text, name=shown(each.name), file=properties.where, line=place.line, column=place.column)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
