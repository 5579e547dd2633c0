"""What is known of the environment that a configuration runs in: variables, secrets, forwards, and what is not known.

Standards: the vendor's Cloud Manager API (1.0.0), section "objects", and Outgate's fields beside it.
Promises: pure; any document at all is read as far as it makes sense, and never raises; no `repr` shows a value.
Dangers: what an API says is a stranger's word: it is printed by `doctor.printing` only, which cleans it.
Not here: asking (`doctor.asking`), what follows from it (the hops).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

from outgate.doctor.traps.look import Known
from outgate.mailer.config import Forward, Forwards
from outgate.mailer.configuration import run_modes as modes
from outgate.mailer.interpolate import Source

SERVICES = ("author", "publish", "preview")
TYPES = ("dev", "stage", "prod", "rde")
STRING, SECRET = "string", "secretString"
PROXY_HOST = "AEM_PROXY_HOST"
_ALIKE = 0.85
"""As close as EMAIL_PASWORD is to EMAIL_PASSWORD, and EMAIL_PORT is not to EMAIL_HOST."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of an environment. `service` "" is all; `value` None: a secret's, or not told."""

    name: str
    secret: bool
    service: str = ""
    status: str = "ready"
    value: str | None = field(default=None, repr=False)

    @property
    def in_force(self) -> bool:
        """Say whether applications have it: also one that is being changed has a value."""
        return self.status in ("ready", "updating", "creating", "")

    def serves(self, service: str) -> bool:
        """Say whether a service has it; preview inherits nothing of publish here."""
        return self.service in ("", service)


@dataclass(frozen=True, slots=True)
class Networking:
    """Advanced networking of an environment. `status` and `reason` are Outgate's ("" at the vendor)."""

    enabled: bool
    forwards: Forwards
    non_proxy_hosts: tuple[str, ...] = ()
    status: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """A network infrastructure of a program."""

    id: str
    kind: str
    region: str
    status: str
    reason: str = ""


class OpaqueSecrets:
    """Secrets that are known to be set, and whose values are not: a placeholder finds them, the value is nobody's."""

    STANDS_FOR = "1"
    """What stands in the place of a value: it fits every type."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def get(self, key: str, /) -> str | None:
        """Say whether a secret is set."""
        return self.STANDS_FOR if key in self._names else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that is known around a configuration. What is None is not known, and `unknown` says why, by its name.

    `env` and `secrets` are where placeholders get their values; `secrets_unknown` says why their values are not known
    ("" if they are). `trimmed` are secrets whose ends are cut off when they are read. `program` and `environment` are
    "" if what is known comes from this process; `url` is the API's."""

    label: str
    service: str
    env: Mapping[str, str] = field(repr=False)
    secrets: Source = field(repr=False)
    secrets_unknown: str = ""
    trimmed: frozenset[str] = frozenset()
    program: str = ""
    environment: str = ""
    url: str = ""
    type: str = ""
    status: str = ""
    variables: tuple[Variable, ...] | None = None
    forwards: Forwards | None = None
    networking: Networking | None = None
    infrastructures: tuple[Infrastructure, ...] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def known(self) -> Known:
        """Return what the rules on files ask for."""
        names: dict[str, str] | None = None
        if self.variables is not None:
            # One for this service comes before one of the same name for another.
            ranked = sorted(self.variables, key=lambda each: each.serves(self.service))
            names = {each.name: SECRET if each.secret else STRING for each in ranked}
        return Known(names, self.forwards, self.env)

    @property
    def run_modes(self) -> tuple[str, ...]:
        """Return the run modes that the process was given (OUTGATE_RUN_MODES), else those that follow from service and
        type. Raises `ConfigError` for what can be no run mode."""
        if named := self.env.get("OUTGATE_RUN_MODES"):
            return tuple("publish" if mode == "preview" else mode for mode in modes.entries(named))
        return (self.runs_as, self.type) if self.type in TYPES else (self.runs_as,)

    @property
    def runs_as(self) -> str:
        """Return the run mode of the service: `preview` has none of its own."""
        return "publish" if self.service == "preview" else self.service

    def named(self, name: str) -> list[Variable]:
        """Return the variables of a name, whatever service they are for."""
        return [each for each in self.variables or () if each.name == name]

    def like(self, name: str, *, secret: bool) -> Variable | None:
        """Return the variable that a misspelt name most likely means, one of the same kind first."""
        have = {each.name: each for each in self.variables or () if each.in_force and each.serves(self.service)}
        near = [have[found] for found in get_close_matches(name, have, 3, _ALIKE)]
        return next((each for each in near if each.secret == secret), near[0] if near else None)


# Documents of the API


def variables_in(found: object) -> tuple[Variable, ...]:
    """Read the list of variables; what is no variable is left out."""
    read = list[Variable]()
    for entry in entries(found):
        name = text(entry, "name")
        if name:
            value = entry.get("value")
            secret = entry.get("type") == SECRET
            read.append(
                Variable(
                    name,
                    secret,
                    text(entry, "service"),
                    text(entry, "status"),
                    value if isinstance(value, str) and not secret else None,
                )
            )
    return tuple(read)


def networking_in(found: object) -> Networking:
    """Read an environment's advanced networking; without one it is off."""
    document = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
    by_port: dict[int, Forward] = {}
    for entry in entries(document.get("portForwards")):
        port, destination, name = entry.get("portOrig"), entry.get("portDest"), text(entry, "name")
        if type(port) is int and type(destination) is int and name:
            by_port[port] = Forward(port, name, destination)
    hosts = document.get("nonProxyHosts")
    details = document.get("statusDetails")
    return Networking(
        document.get("advancedNetworkingEnabled") is True,
        Forwards(text(document, "tunnelAddress"), by_port),
        tuple(each for each in cast("list[object]", hosts) if isinstance(each, str)) if isinstance(hosts, list) else (),
        text(document, "status"),
        text(cast("Mapping[str, Any]", details), "message") if isinstance(details, Mapping) else "",
    )


def infrastructures_in(found: object) -> tuple[Infrastructure, ...]:
    """Read a program's network infrastructures."""
    read = list[Infrastructure]()
    for entry in entries(found):
        details = entry.get("statusDetails")
        reason = text(cast("Mapping[str, Any]", details), "message") if isinstance(details, Mapping) else ""
        kind, region, status = (text(entry, name) for name in ("kind", "region", "status"))
        read.append(Infrastructure(text(entry, "id"), kind, region, status, reason))
    return tuple(read)


def entries(found: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list, [] for what is none."""
    items = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("Mapping[str, Any]", each) for each in items if isinstance(each, Mapping)]


def text(entry: Mapping[str, Any], name: str) -> str:
    """Return a text of an object, "" if there is none; a number counts as text."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value)[:500]
