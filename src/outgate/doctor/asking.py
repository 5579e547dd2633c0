"""Ask around: a Cloud Manager for what an environment has, this process for what it was given, an Outgate for the rest.

Standards: the vendor's Cloud Manager API; of Outgate's: `runtime`, `connectivityTest`, the audit of the egress, how a
    domain stands, what became of a message.
Promises: nothing is changed anywhere; who may not be asked, or answers nonsense, leaves something unknown, with the
    reason, and never raises. Secrets that are read stay in memory.
Dangers: asking for `runtime` and for a connectivity test is in the audit of the Outgate that is asked.
Not here: what follows from the answers (the hops), the calls themselves (`cloud_manager`, `connection`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from outgate.cloud_manager import CloudManager, NotReachable, Refused
from outgate.connection import Api, Refusal
from outgate.connection import NotReachable as NobodyThere
from outgate.doctor.surroundings import (
    PROXY_HOST,
    Networking,
    OpaqueSecrets,
    Surroundings,
    Variable,
    entries,
    infrastructures_in,
    networking_in,
    text,
    variables_in,
)
from outgate.mailer.config import Forwards, forwards_from, secrets_from
from outgate.mailer.target import TUNNEL
from outgate.mailer.values import ConfigError

_T = TypeVar("_T")
_LONGEST_SECRET = 65_536
_WRONG_SHAPE = (LookupError, TypeError, AttributeError, ValueError, RecursionError)

Tell = Callable[[str], None]


def of_process(env: Mapping[str, str], service: str) -> Surroundings:
    """Return what this process was given: its variables, the secrets and forwards that `environment run` names."""
    unknown = dict[str, str]()
    forwards: Forwards | None = None
    if env.get("OUTGATE_FORWARDS"):
        try:
            forwards = forwards_from(None, env)
        except ConfigError as error:
            unknown["forwards"] = str(error)
    else:
        unknown["forwards"] = "no OUTGATE_FORWARDS is set, as `outgate environment run` sets it"
    directories = [Path(part.strip()) for part in (env.get("OUTGATE_SECRETS") or "").split(",") if part.strip()]
    secrets = dict(_files(directories))
    given = bool(directories or env.get("OUTGATE_FORWARDS"))
    return Surroundings(
        label="this process's own environment",
        service=service,
        env=env,
        secrets=secrets_from(None, env),
        trimmed=frozenset(name for name, found in secrets.items() if found != found.strip()),
        variables=(
            *(Variable(name, False, value=value) for name, value in env.items()),
            *(Variable(name, True) for name in secrets),
        )
        if given
        else None,
        forwards=forwards,
        unknown=unknown,
    )


def _files(directories: Iterable[Path]) -> Iterable[tuple[str, str]]:
    """Give names and contents of secrets, the first directory last: it wins."""
    for directory in reversed(list(directories)):
        try:
            for file in sorted(directory.iterdir()):
                if file.is_file():
                    with file.open("rb") as opened:
                        yield file.name, opened.read(_LONGEST_SECRET).decode("utf-8", "replace")
        except OSError:
            continue


def of_environment(api: CloudManager, program: str, environment: str, service: str, tell: Tell) -> Surroundings:
    """Return what a Cloud Manager tells of an environment. Raises `Refused` and `NotReachable` if it tells nothing."""
    unknown = dict[str, str]()

    def ask(what: str, question: Callable[[], _T]) -> _T | None:
        tell(f"asking Cloud Manager for {what}")
        try:
            return question()
        except (Refused, NotReachable) as error:
            unknown[what] = str(error)
            return None

    tell("asking Cloud Manager for the environment")
    place = api.environment(program, environment)
    listed = ask("variables", lambda: api.variables(program, environment))
    networked = ask("advanced networking", lambda: api.networking(program, environment))
    infrastructures = ask("network infrastructures", lambda: api.infrastructures(program))
    started = ask("what applications are started with", lambda: api.runtime(program, environment, service)) or {}

    variables = None if listed is None else variables_in(listed)
    networking = None if networked is None else networking_in(networked)
    secrets_unknown = unknown.pop("what applications are started with", "")
    if secrets_unknown:
        secrets_unknown = f"Cloud Manager does not tell the values of secrets here: {secrets_unknown}"
    secrets = _texts(started.get("secrets"))
    names = frozenset(each.name for each in variables or () if each.secret and each.in_force and each.serves(service))
    tunnel = text(started, "tunnelAddress") or (networking.forwards.tunnel if networking else "")
    return Surroundings(
        label=f"environment {environment} of program {program}",
        service=service,
        env=_env(variables or (), service, started, tunnel),
        secrets=OpaqueSecrets(names) if secrets_unknown else {name: found.strip() for name, found in secrets.items()},
        secrets_unknown=secrets_unknown,
        trimmed=frozenset(name for name, found in secrets.items() if found != found.strip()),
        program=program,
        environment=environment,
        url=api.base_url,
        type=text(place, "type"),
        status=text(place, "status"),
        variables=variables,
        forwards=None if networking is None else _with_tunnel(networking, tunnel),
        networking=networking,
        infrastructures=None if infrastructures is None else infrastructures_in(infrastructures),
        unknown=unknown,
    )


def _env(variables: Iterable[Variable], service: str, started: Mapping[str, Any], tunnel: str) -> dict[str, str]:
    """Return the variables that a service has: those for it come before those for all."""
    found = {PROXY_HOST: tunnel or TUNNEL}
    for each in sorted(variables, key=lambda each: each.service):
        if not each.secret and each.in_force and each.serves(service) and each.value is not None:
            found[each.name] = each.value
    return found | _texts(started.get("variables")) | _texts(started.get("reserved"))


def _with_tunnel(networking: Networking, tunnel: str) -> Forwards:
    return Forwards(tunnel, networking.forwards.by_port if networking.enabled else {})


def _texts(table: object) -> dict[str, str]:
    items = cast("dict[object, object]", table).items() if isinstance(table, dict) else ()
    return {name: value for name, value in items if isinstance(name, str) and isinstance(value, str)}


# What a running Outgate tells besides


@dataclass(frozen=True, slots=True)
class Reach:
    """What a connectivity test found of a host and port: its addresses, and why not ("" if it is open)."""

    addresses: tuple[str, ...]
    no_name: str = ""
    no_port: str = ""


@dataclass(frozen=True, slots=True)
class Denial:
    """Why the egress refused a connection: a class word, and its own words."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A record to publish."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a domain stands at a relay: each of its three checks, what says why, and the records that it needs."""

    id: str
    domain: str
    checks: Mapping[str, str]
    standing: str
    failing: str
    suspends_at: str
    explanations: Mapping[str, str]
    records: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a message for one recipient: a status, and the last reply or reason."""

    status: str
    said: str

    @property
    def settled(self) -> bool:
        """Say whether it will not change soon."""
        return self.status in ("delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "held")


class Outgate:
    """The parts of an Outgate that can be asked about a connection or a mail; each may be missing."""

    def __init__(self, api: CloudManager | None, dev: Api | None, program: str, environment: str) -> None:
        """`dev` calls an Outgate on this machine, by its `dev.json`."""
        self._api = api
        self._dev = dev
        self._program = program
        self._environment = environment

    @property
    def local(self) -> bool:
        """Say whether an Outgate on this machine can be asked."""
        return self._dev is not None

    def reach(self, host: str, port: int) -> Reach | str:
        """Have a host and port tested from where the environment's traffic leaves; or say why not."""
        if self._api is None or not self._environment:
            return "no environment is named (--program, --environment), so nobody can test from where its traffic leaves"
        try:
            found = self._api.connectivity_test(self._program, self._environment, host, port)
        except (Refused, NotReachable) as error:
            return f"Cloud Manager does not test connections here: {error}"
        if not (tested := entries(found.get("resolvers"))):
            return text(found, "error") or "the connectivity test said nothing"
        return _reach(tested)

    def refusal(self, client: str) -> Denial | str:
        """Return why the egress refused the connection of a client (`address:port`); or say why that is not known."""
        if self._dev is None:
            return "the audit of the egress cannot be read from here"
        query = urlencode({"client": client, "limit": 20})
        found = self._local("GET", lambda api: api.operations(f"egress/audit?{query}"))
        if isinstance(found, str):
            return f"the audit of the egress cannot be read: {found}"
        for line in entries(found.get("lines")):
            if line.get("event") == "decision":
                kind = text(line, "refusal")
                return Denial(kind, text(line, "reason")) if kind else "the audit says that it was let through"
        return "the audit of the egress has no line of this connection"

    def led_to(self, port: int) -> tuple[str, int] | None:
        """Return where a port of the environment's tunnel led to before, None if the audit does not tell."""
        if self._dev is None or not self._environment:
            return None
        query = urlencode({"environment": self._environment, "limit": 500})
        found = self._local("GET", lambda api: api.operations(f"egress/audit?{query}"))
        for line in entries(found.get("lines")) if not isinstance(found, str) else []:
            forward = line.get("forward")
            if isinstance(forward, dict):
                entry = cast("dict[str, Any]", forward)
                name, destination = text(entry, "name"), entry.get("portDest")
                if entry.get("portOrig") == port and name and type(destination) is int:
                    return name, destination
        return None

    def hosts(self) -> frozenset[str]:
        """Return the names that the relay's listeners greet with; empty if there is none to ask."""
        if self._dev is None:
            return frozenset()
        names = {str(self._dev.dev.get("smtp_host_name", ""))}
        found = self._local("GET", lambda api: api.endpoints())
        if not isinstance(found, str):
            for entry in entries(found.get("endpoints")):
                names |= {value for value in entry.values() if isinstance(value, str) and "." in value}
        return frozenset(name.lower() for name in names if name)

    def standing(self, domain: str) -> Standing | str | None:
        """Return how a domain stands at the relay; None if it has no configuration; or say why that is not known."""
        if self._dev is None:
            return "the relay's API cannot be asked from here"
        offset = 0
        while True:
            at = offset
            found = self._local("GET", lambda api: f"{api.configurations()}?limit=100&offset={at}")
            if isinstance(found, str):
                return f"the relay's API cannot be asked: {found}"
            listed = entries(found.get("smtp_configurations"))
            for entry in listed:
                if text(entry, "domain").lower() == domain.lower():
                    return self._standing(entry)
            offset += 100
            if "next" not in found or not listed or offset > 10_000:
                return None

    def _standing(self, entry: Mapping[str, Any]) -> Standing:
        name = text(entry, "id")
        config = entry.get("config")
        parts = cast("Mapping[str, Any]", config) if isinstance(config, dict) else {}
        checks, records = dict[str, str](), dict[str, Record]()
        for kind, part in parts.items():
            if isinstance(part, dict):
                check = cast("Mapping[str, Any]", part)
                checks[kind] = text(check, "verification")
                if text(check, "txt_name"):
                    value = check.get("txt_value")
                    records[kind] = Record(text(check, "txt_name"), value if isinstance(value, str) else "")
        found = self._local("GET", lambda api: api.configurations(f"{name}/checks"))
        told = found if not isinstance(found, str) else {}
        return Standing(
            name,
            text(entry, "domain"),
            checks,
            text(told, "standing"),
            text(told, "failing"),
            text(told, "suspends_at"),
            {text(each, "type"): text(each, "explanation") for each in entries(told.get("checks"))},
            records,
        )

    def fate(self, queue_id: str, recipient: str) -> Fate | str:
        """Return what has become of a message for a recipient; or say why that is not known."""
        if self._dev is None:
            return "no Outgate can be asked from here what becomes of it"
        found = self._local("GET", lambda api: api.messages(queue_id))
        if isinstance(found, str):
            return f"the relay's record has no such message ({found})"
        for each in entries(found.get("recipients")):
            if text(each, "mailbox").lower() == recipient.lower():
                return Fate(text(each, "status"), text(each, "reason") or _last_reply(found))
        return "the relay's record does not name this recipient"

    def _local(self, method: str, url: Callable[[Api], str]) -> Mapping[str, Any] | str:
        """Return the object that a call answers, or why there is none."""
        assert self._dev is not None
        try:
            found = self._dev.call(method, url(self._dev))
        except (NobodyThere, Refusal, *_WRONG_SHAPE, OSError) as error:
            return str(error) or type(error).__name__
        return cast("Mapping[str, Any]", found) if isinstance(found, dict) else "the answer makes no sense"


def _reach(tested: list[Mapping[str, Any]]) -> Reach:
    """Put the resolvers' answers together: what one of them leads to is reachable."""
    addresses = list[str]()
    names, ports = list[str](), list[str]()
    opened = False
    for each in tested:
        resolution, http = (_object(each.get(name)) for name in ("dns_resolution", "http_connectivity"))
        found = resolution.get("ips")
        told = [ip for ip in cast("list[object]", found) if isinstance(ip, str)] if isinstance(found, list) else []
        addresses += told
        opened = opened or each.get("port_open") is True
        if not told:
            names.append(text(http, "note") or text(resolution, "error") or "it does not resolve")
        elif each.get("port_open") is not True:
            error, note = text(http, "error"), text(http, "note")
            ports.append(f"{error} ({note})" if error and note else error or note or "the port is not open")
    if opened:
        return Reach(tuple(dict.fromkeys(addresses)))
    if addresses:
        return Reach(tuple(dict.fromkeys(addresses)), no_port=ports[0] if ports else "the port is not open")
    return Reach((), no_name=names[0] if names else "it does not resolve")


def _object(found: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _last_reply(message: Mapping[str, Any]) -> str:
    attempts = entries(message.get("attempts"))
    return text(attempts[-1], "reply") if attempts else ""
