"""One configuration file under examination: its properties, what is known of the environment, making findings.

Standards: none.
Promises: pure; a finding made here has the rule's level and hop, and the place of the property that it is about.
Dangers: no finding may hold a value that may be a secret.
Not here: the traps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from outgate.base.secret_names import like_a_secret
from outgate.doctor.report import Finding
from outgate.doctor.traps.names import TUNNEL_VARIABLE
from outgate.doctor.traps.rules import RULES, STATES
from outgate.doctor.traps.source import Source
from outgate.mailer.config import Forward, Forwards
from outgate.mailer.folders import ConfigFile
from outgate.mailer.interpolate import conf_of, explain
from outgate.mailer.osgi import Property
from outgate.mailer.sending.target import TUNNEL, plain_host
from outgate.mailer.values import ConfigError

MAIL_PORTS = (465, 587, 25, 2525)
_LONG = 2000  # signs of a value
_CONF = re.compile(r"\$\[conf:([\w.\-]{1,200})")
TUNNEL_PORTS = range(30000, 31001)
_FLAGS = {"true": True, "false": False, "": False}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the environment: its variables' types ("string" or "secretString") by name, its forwards, and
    what its plain variables hold.

    None: not known, as in a build; rules that need it use what the file itself tells, with the defaults there."""

    variables: Mapping[str, str] | None = None
    forwards: Forwards | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def has(self, source: str, name: str) -> bool:
        """Say whether a placeholder of this source finds a value, so that its default is not used."""
        return name in self.env if source == "env" else (self.variables or {}).get(name) == "secretString"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a property comes to, as far as the environment is known. `text` is None if that depends on it."""

    written: Property
    text: str | None = field(repr=False)
    literal: bool


class Look:
    """A file, its properties (by name in lower case), and what is known."""

    def __init__(self, file: ConfigFile, properties: Mapping[str, Property], known: Known) -> None:
        self.file = file
        self.known = known
        self.properties = {name.lower(): each for name, each in properties.items()}
        self._conf = conf_of({name: each.value for name, each in properties.items()}, file.pid)
        texts = (each.value.value for each in properties.values())
        self.conf = {name.lower() for text in texts if isinstance(text, str) for name in _CONF.findall(text)}
        """Names, in lower case, of properties that others read by `$[conf:…]`."""
        self._source: Source | None = None
        self._settings: dict[str, Setting | None] = {}

    @property
    def source(self) -> Source:
        """Return the file's text."""
        if self._source is None:
            self._source = Source(self.file.data.decode("utf-8", "replace"))
        return self._source

    def setting(self, name: str) -> Setting | None:
        """Return what a property comes to with the variables that are known, else the defaults of its placeholders;
        None if it is not there."""
        if name not in self._settings:
            self._settings[name] = self._settled(name, self.known)
        return self._settings[name]

    def by_default(self, name: str) -> str | None:
        """Return what a property comes to where no variable is set, None if it depends on one or is not there."""
        setting = self._settled(name, Known())
        return setting.text if setting else None

    def text(self, name: str) -> str:
        """Return what a property comes to, "" if it is not there, or not known."""
        setting = self.setting(name.lower())
        return (setting.text or "") if setting else ""

    def empty(self, name: str) -> bool:
        """Say whether a property is not there, or comes to nothing; not if a variable may be set that it reads."""
        setting = self.setting(name.lower())
        if setting is None:
            return True
        open_still = not setting.literal and self.known.variables is None
        return setting.text is not None and not setting.text.strip() and not open_still

    def flag(self, name: str) -> bool | None:
        """Return a switch, False if it is not there, None if it depends on the environment or is neither."""
        setting = self.setting(name)
        if setting is None:
            return False
        return None if setting.text is None else _FLAGS.get(setting.text.lower())

    def _settled(self, name: str, known: Known) -> Setting | None:
        written = self.properties.get(name)
        if written is None:
            return None
        value = written.value
        if isinstance(value.value, tuple):
            return Setting(written, None, False)
        if not (isinstance(value.value, str) and "$[" in value.value):
            return Setting(written, value.text, True)
        try:
            explained = explain(value, env=known.env, secrets={}, conf=self._conf)
        except ConfigError:
            return Setting(written, None, False)
        certain = all(
            each.found or (each.defaulted and not known.has(each.source, each.written)) for each in explained.lookups
        )
        return Setting(written, explained.value.text if certain else None, False)

    # -- the way through the tunnel -------------------------------------------------------------------------

    def is_tunnel(self, host: str) -> bool:
        """Say whether a host is the tunnel."""
        address = self.known.forwards.tunnel if self.known.forwards else ""
        return plain_host(host) in {TUNNEL, plain_host(address)} - {""}

    @property
    def through_tunnel(self) -> bool:
        """Say whether the host is the tunnel, as far as the file tells."""
        host = self.properties.get("smtp.host")
        if host is None or not isinstance(host.value.value, str):
            return False
        return f":{TUNNEL_VARIABLE}" in host.value.value or self.is_tunnel(self.text("smtp.host"))

    @property
    def port(self) -> int | None:
        """Return the port, None if it is not there or not a number."""
        text = self.text("smtp.port")
        return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None

    @property
    def forward(self) -> Forward | None:
        """Return the forward that the port belongs to, if the forwards are known."""
        forwards, port = self.known.forwards, self.port
        return forwards.by_port.get(port) if forwards and port is not None and self.through_tunnel else None

    # -- findings -------------------------------------------------------------------------------------------

    def find(
        self, rule: str, text: str, *, at: Property | None = None, near: str = "", change: str = "", remedy: str = ""
    ) -> Finding:
        """Make a finding about a property (or the whole file), or about the piece `near` of its value."""
        found = RULES[rule]
        place = at.value_at if at else None
        if at and near:
            place = self.source.place_of(near, self.source.offset(at.value_at)) or place
        return Finding(
            found.hop,
            STATES[found.level],
            text,
            rule,
            remedy or found.remedy,
            change,
            self.file.where,
            place.line if place else 1,
            place.column if place else 1,
        )

    def line(self, at: Property, value: object) -> str:
        """Return the line to write in place of a property; "" if nobody would read it."""
        if isinstance(value, str) and len(value) > _LONG:
            return ""
        return self.source.line_for(at.value_at, self.source.key(at.key_at), value)

    def renamed(self, at: Property, name: str) -> str:
        """Return the line with another name; "" if its value must not be shown."""
        if like_a_secret(at.name) or like_a_secret(name):
            return ""
        value = list(at.value.value) if isinstance(at.value.value, tuple) else at.value.value
        return self.line_of(at, name, value)

    def line_of(self, at: Property, name: str, value: object) -> str:
        """Return a line to write in place of a property, for a property of another name."""
        return self.source.line_for(at.value_at, name, value)

    def replaced(self, at: Property, part: str, by: str) -> str:
        """Return the line with a piece of a text value replaced; "" if the value must not be shown."""
        value = at.value.value
        if not isinstance(value, str) or (like_a_secret(at.name) and value != part):
            return ""
        return self.line(at, value.replace(part, by, 1))
