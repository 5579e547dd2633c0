"""Ask around: a Cloud Manager for what an environment has, or this process for what it was given.

Standards: the vendor's Cloud Manager API, and `runtime` of Outgate's.
Promises: nothing is changed anywhere; who may not be asked, or answers nonsense, leaves something unknown, with the
    reason, and never raises. Secrets that are read stay in memory.
Dangers: asking for `runtime` is in the audit of the Outgate that is asked.
Not here: a running Outgate's other records (`doctor.witnesses`), what follows (the hops), the calls (`cloud_manager`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from outgate.cloud_manager import CloudManager, NotReachable, Refused
from outgate.doctor.surroundings import (
    PROXY_HOST,
    Networking,
    OpaqueSecrets,
    Surroundings,
    Variable,
    infrastructures_in,
    networking_in,
    text,
    variables_in,
)
from outgate.mailer.config import Forwards, forwards_from, secrets_from
from outgate.mailer.sending.target import TUNNEL
from outgate.mailer.values import ConfigError

_T = TypeVar("_T")
_LONGEST_SECRET = 65_536

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
        trimmed=frozenset(name for name, found in secrets.items() if found.removesuffix("\n") != found.strip()),
        variables=(
            *(Variable(name, False, value=value) for name, value in env.items() if _by_hand(name, value, forwards)),
            *(Variable(name, True) for name in secrets),
        )
        if given
        else None,
        forwards=forwards,
        unknown=unknown,
    )


def _by_hand(name: str, value: str, forwards: Forwards | None) -> bool:
    """Say whether a variable is the customer's: AEM_PROXY_HOST is only if it is not the tunnel."""
    return name != PROXY_HOST or (forwards is not None and value not in (forwards.tunnel, TUNNEL))


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
        url=re.sub(r"//[^/@]*@", "//", api.base_url),
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
