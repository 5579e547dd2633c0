"""A file of rules as the source of what is wanted, on a host without a control store.

Standards: RFC 8259; `portForwards` and `nonProxyHosts` in the vendor's own shape, as its API takes and returns them.
Promises: a file is taken whole or not at all; one that cannot be taken names file, place and what was expected, and
    leaves in force what was; a file that was replaced, by whatever means, is read again at the next look.
Dangers: an editor that writes in place may be met half-way: what it has written so far is refused, and read again.
Not here: judging forwards (`forward_rules`), putting into force (`reconcile`).
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from outgate.base import addresses
from outgate.base.log import Log
from outgate.egress import forward_rules
from outgate.egress.forward_rules import Wrong
from outgate.model.egress import AdvancedNetworking, EgressTarget, Environment, Mode, NetworkInfrastructure, PortForward

_log = Log("outgate.egress.rules_file")
_MOST_BYTES = 16 * 1024 * 1024
_MOST_TOLD = 20
_KINDS = (Mode.FLEXIBLE, Mode.DEDICATED, Mode.VPN)
_WRITTEN = frozenset(
    {"portForwards", "nonProxyHosts", "tunnelAddress", "clientNetworks", "kind", "egressAddresses"}
    | {"programId", "environmentId"}
)
# What the vendor's API and ours return beside the rules: an answer can be kept as a file.
_READ_ONLY = frozenset(
    {"networkInfrastructureId", "advancedNetworkingEnabled", "_links", "engine", "status", "statusDetails", "ignored"}
)


class BadRules(Exception):
    """A file of rules cannot be taken; the text names file, place and what was expected, one thing a line."""


@dataclass(frozen=True, slots=True)
class Described:
    """One environment as a file describes it."""

    environment_id: str
    program_id: str
    kind: Mode
    tunnel_address: str
    client_networks: tuple[str, ...]
    egress_addresses: tuple[str, ...]
    forwards: tuple[PortForward, ...]
    non_proxy_hosts: tuple[str, ...]


def read_rules(text: str, name: str, *, client_networks: Sequence[str] = ()) -> tuple[Described, ...]:
    """Return what a file describes. `client_networks` are those of environments that name none. Raises `BadRules`."""
    try:
        document: object = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadRules(f"{name}: line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadRules(f"{name}: {error}") from None
    wrong: list[Wrong] = []
    entries = _entries(document, wrong)
    found = [_environment(place, entry, client_networks, wrong) for place, entry in entries]
    for attribute, key in (("tunnelAddress", "tunnel_address"), ("environmentId", "environment_id")):
        _differ(
            [(place, getattr(each, key)) for (place, _), each in zip(entries, found, strict=True)], attribute, wrong
        )
    if wrong:
        told = [f"{name}: {each.field}: {each.message}{_found(each.value)}" for each in wrong[:_MOST_TOLD]]
        more = [f"{name}: and {len(wrong) - _MOST_TOLD} more"] if len(wrong) > _MOST_TOLD else []
        raise BadRules("\n".join(told + more))
    return tuple(found)


class RulesFile:
    """A file as `wanted.Wanted`. Thread-safe."""

    def __init__(self, path: Path, *, client_networks: Sequence[str] = ()) -> None:
        """Read the file. Raises `BadRules`."""
        self._path = path
        self._client_networks = tuple(client_networks)
        self._lock = threading.Lock()
        self._generation = 0
        self._described: tuple[Described, ...] = ()
        self._reasons: dict[str, str | None] = {}
        self._ways: dict[str, str] = {}
        self._signature: object = None
        self._asked = 0
        self.problem = ""
        """Why the file as it is now is not in force; "" if it is."""
        self._take()

    def changes(self) -> object:
        """Return something that differs once the file is another."""
        return self._asked, _signature(self._path)

    def again(self) -> None:
        """Have the file read again at the next look, though it seems to be the same."""
        self._asked += 1

    def targets(self) -> Sequence[EgressTarget]:
        """Return the environments of the last good file."""
        with self._lock:
            self._look()
            return tuple(self._target(each) for each in self._described)

    def infrastructures(self) -> Sequence[NetworkInfrastructure]:
        """Return a way out for each environment of the last good file."""
        with self._lock:
            self._look()
            return tuple(self._way(each) for each in self._described)

    def settle(self, environment_id: str, generation: int | None, reason: str) -> bool:
        """Keep in memory how a generation got on."""
        with self._lock:
            if generation != self._generation or self._reasons.get(environment_id, reason) == reason:
                return False
            self._reasons[environment_id] = reason
            return True

    def settle_infrastructure(self, infrastructure_id: str, generation: int, reason: str) -> bool:
        """Keep in memory whether a way out can be used."""
        with self._lock:
            if generation != self._generation or self._ways.get(infrastructure_id) == reason:
                return False
            self._ways[infrastructure_id] = reason
            return True

    def finish_deletion(self, environment_id: str) -> bool:
        """Do nothing: what a file leaves out is gone at once."""
        return False

    def finish_infrastructure(self, infrastructure_id: str, generation: int) -> bool:
        """Do nothing: what a file leaves out is gone at once."""
        return False

    def _look(self) -> None:
        if self.changes() == self._signature:
            return
        try:
            self._take()
        except BadRules as error:
            self.problem = str(error)
            _log.error("egress.rules_refused", file=str(self._path), reason=self.problem)

    def _take(self) -> None:
        """Read the file into force. Raises `BadRules`, with the old rules as they were."""
        # Noted first: what is written while we read is another file at the next look.
        self._signature = self.changes()
        described = read_rules(_text(self._path), str(self._path), client_networks=self._client_networks)
        before = {_leaves_by(each) for each in self._described}
        kept = {each.environment_id for each in described if _leaves_by(each) in before}
        self._described = described
        self._generation += 1
        self._reasons = {each.environment_id: None for each in described}
        self._ways = {environment_id: why for environment_id, why in self._ways.items() if environment_id in kept}
        self.problem = ""
        _log.info("egress.rules_read", file=str(self._path), environments=len(described))

    def _target(self, each: Described) -> EgressTarget:
        reason = self._reasons[each.environment_id]
        status = "updating" if reason is None else "failed" if reason else "ready"
        way = self._way(each)
        usable = way.status == "ready"
        return EgressTarget(
            Environment(
                id=each.environment_id,
                program_id=each.program_id,
                name=each.environment_id,
                type="",
                region="",
                status=status,
                tunnel_address=each.tunnel_address,
                client_networks=each.client_networks,
                created_at=0.0,
                updated_at=0.0,
            ),
            each.kind if usable else Mode.NONE,
            each.egress_addresses if usable else (),
            AdvancedNetworking(
                environment_id=each.environment_id,
                program_id=each.program_id,
                infrastructure_id=way.id,
                mode=each.kind,
                port_forwards=each.forwards,
                non_proxy_hosts=each.non_proxy_hosts,
                generation=self._generation,
                reason=reason or "",
            ),
            way,
        )

    def _way(self, each: Described) -> NetworkInfrastructure:
        reason = self._ways.get(each.environment_id)
        return NetworkInfrastructure(
            id=each.environment_id,
            program_id=each.program_id,
            kind=each.kind,
            region="",
            status="creating" if reason is None else "failed" if reason else "ready",
            addresses=each.egress_addresses,
            document={},
            created_at=0.0,
            updated_at=0.0,
            generation=self._generation,
            reason=reason or "",
        )


def _leaves_by(each: Described) -> tuple[str, Mode, tuple[str, ...]]:
    return each.environment_id, each.kind, each.egress_addresses


def _text(path: Path) -> str:
    try:
        # Opening a pipe would wait for whoever writes, and nobody could end us meanwhile.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise BadRules(f"{path}: is a pipe: put the rules into a file, which can be read again")
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadRules(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise BadRules(f"{path}: has more than {_MOST_BYTES} octets")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRules(f"{path}: octet {error.start} is not UTF-8") from None


def _signature(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:100]!r} is there twice in one object")
        found[key] = value
    return found


def _entries(document: object, wrong: list[Wrong]) -> list[tuple[str, dict[str, object]]]:
    """Return the environments of a document, each with its place in it."""
    if not isinstance(document, dict):
        wrong.append(Wrong("document", "type", 'must be an object: {"portForwards": [...]} or {"environments": [...]}'))
        return []
    top = cast("dict[str, object]", document)
    if "environments" not in top:
        return [("", top)]
    beside = "must not stand beside environments: put it into each of them"
    wrong += [Wrong(_printable(key), "unknown", beside) for key in sorted(top.keys() - {"environments"})]
    given = top["environments"]
    if not isinstance(given, list):
        wrong.append(Wrong("environments", "type", "must be an array of objects", given))
        return []
    found: list[tuple[str, dict[str, object]]] = []
    for index, entry in enumerate(cast("list[object]", given)):
        place = f"environments[{index}]"
        if isinstance(entry, dict):
            found.append((f"{place}.", cast("dict[str, object]", entry)))
        else:
            wrong.append(Wrong(place, "type", "must be an object with portForwards and tunnelAddress", entry))
    return found


def _environment(place: str, entry: dict[str, object], networks: Sequence[str], wrong: list[Wrong]) -> Described:
    for key in sorted(entry.keys() - _WRITTEN - _READ_ONLY):
        message = f"there is no such field; known are {', '.join(sorted(_WRITTEN))}"
        wrong.append(Wrong(f"{place}{_printable(key)}", "unknown", message))
    kind = _kind(f"{place}kind", entry.get("kind", Mode.FLEXIBLE.value), wrong)
    tunnel = _texts(f"{place}tunnelAddress", [entry.get("tunnelAddress")], addresses.of_one_host, wrong, one=True)
    clients = _texts(f"{place}clientNetworks", entry.get("clientNetworks", list(networks)), _network, wrong)
    if not clients and isinstance(entry.get("clientNetworks", []), list):
        message = "must name the networks that the applications dial from: nobody else is let in"
        wrong.append(Wrong(f"{place}clientNetworks", "required", message))
    leaves_from = _texts(f"{place}egressAddresses", entry.get("egressAddresses", []), addresses.of_one_host, wrong)
    if kind is Mode.DEDICATED and "egressAddresses" not in entry:
        message = f"must name the addresses to leave from, since kind is {kind.value}"
        wrong.append(Wrong(f"{place}egressAddresses", "required", message))
    hosts = forward_rules.hosts(f"{place}nonProxyHosts", entry.get("nonProxyHosts", []), wrong)
    if hosts and kind is Mode.FLEXIBLE:
        message = f"must be empty, since kind is {kind.value}: there is no dedicated way out to spare"
        wrong.append(Wrong(f"{place}nonProxyHosts", "mode", message))
    address = next(iter(tunnel), "")
    environment_id = _id(place, entry, "environmentId", address, wrong)
    return Described(
        environment_id=environment_id,
        program_id=_id(place, entry, "programId", environment_id, wrong),
        kind=kind,
        tunnel_address=address,
        client_networks=clients,
        egress_addresses=leaves_from,
        forwards=forward_rules.forwards(f"{place}portForwards", entry.get("portForwards", []), wrong),
        non_proxy_hosts=hosts,
    )


def _kind(place: str, given: object, wrong: list[Wrong]) -> Mode:
    for kind in _KINDS:
        if given == kind.value:
            return kind
    wrong.append(Wrong(place, "enum", f"must be one of {', '.join(kind.value for kind in _KINDS)}", given))
    return Mode.NONE


def _id(place: str, entry: dict[str, object], name: str, default: str, wrong: list[Wrong]) -> str:
    given = entry.get(name, default)
    if name not in entry or (isinstance(given, str) and 0 < len(given) <= 100 and given.isprintable()):
        return str(given)
    wrong.append(Wrong(f"{place}{name}", "type", "must be a string of 1 to 100 printable characters", given))
    return ""


def _network(text: str) -> str:
    return str(addresses.network(text))


def _texts(
    place: str, given: object, read: Callable[[str], str], wrong: list[Wrong], *, one: bool = False
) -> tuple[str, ...]:
    """Return addresses or networks in one spelling; `one`: the only entry is at `place` itself."""
    what = "an IP address of one host" if read is addresses.of_one_host else "a network such as 10.0.0.0/8"
    if not isinstance(given, list):
        wrong.append(Wrong(place, "type", f"must be an array, each entry {what}", given))
        return ()
    found: list[str] = []
    for index, entry in enumerate(cast("list[object]", given)):
        at = place if one else f"{place}[{index}]"
        if entry is None and one:
            wrong.append(Wrong(at, "required", "is required: the address of this host that the applications dial"))
            continue
        try:
            found.append(read(entry if isinstance(entry, str) else ""))
        except ValueError:
            wrong.append(Wrong(at, "type", f"must be {what}", entry))
    return tuple(dict.fromkeys(found))


def _differ(named: Iterable[tuple[str, str]], attribute: str, wrong: list[Wrong]) -> None:
    first: dict[str, str] = {}
    for place, value in named:
        if value and value in first:
            message = f"must differ from that of {first[value].removesuffix('.')}"
            wrong.append(Wrong(f"{place}{attribute}", "duplicate", message, value))
        elif value:
            first[value] = place


def _printable(text: str) -> str:
    """Return text of a stranger's in one line, and not too long for it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:100])


def _found(value: object) -> str:
    """Return what was found, short and in one line, for the end of an error."""
    if value is None:
        return ""
    return f" (found {_printable(json.dumps(value))})"
