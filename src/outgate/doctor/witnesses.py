"""What a running Outgate tells of one connection, one domain, one mail: connectivity test, audit, checks, record.

Standards: Outgate's own APIs; the vendor's shapes where it has them.
Promises: nothing is changed anywhere; a question that nobody answers, or with nonsense, gives the reason in words and
    never raises.
Dangers: a connectivity test is in the audit of the Outgate that makes it.
Not here: what an environment has (`doctor.asking`), what follows from the answers (the hops).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from outgate.cloud_manager import CloudManager, NotReachable, Refused
from outgate.connection import Api, Refusal
from outgate.doctor.surroundings import entries, text

_WRONG_SHAPE = (LookupError, TypeError, AttributeError, ValueError, RecursionError)
_PAGES = 100
LET_THROUGH = "the audit says that it was let through"
"""Then the target was reached: the egress decides once it has connected."""


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
class Seen:
    """What a check has last found: a class word, what says why, and the texts that are published."""

    result: str
    explanation: str
    published: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a domain stands at a relay: each of its three checks, what was seen, and the records that it needs."""

    id: str
    domain: str
    checks: Mapping[str, str]
    standing: str
    failing: str
    suspends_at: str
    seen: Mapping[str, Seen]
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

    def relay(self, *, ssl: bool) -> tuple[str, int] | None:
        """Return name and port of the relay on this machine, None if there is none to send to."""
        dev = self._dev.dev if self._dev is not None else {}
        name, place = dev.get("smtp_host_name"), dev.get("submissions" if ssl else "submission")
        port = place.rpartition(":")[2] if isinstance(place, str) else ""
        return (name, int(port)) if isinstance(name, str) and port.isascii() and port.isdigit() else None

    def reach(self, host: str, port: int) -> Reach | str:
        """Have a host and port tested from where the environment's traffic leaves; or say why not."""
        if self._api is None or not self._environment:
            return (
                "no environment is named (--program, --environment), so nobody can test from where its traffic leaves"
            )
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
                return Denial(kind, text(line, "reason")) if kind else LET_THROUGH
        return "the audit of the egress has no line of this connection"

    def notice(self, client: str) -> str:
        """Return what the egress noticed about the connection of a client, "" if nothing is known."""
        if self._dev is None:
            return ""
        query = urlencode({"client": client, "limit": 20})
        found = self._local("GET", lambda api: api.operations(f"egress/audit?{query}"))
        lines = entries(found.get("lines")) if not isinstance(found, str) else []
        told = next((line for line in lines if line.get("event") == "notice"), {})
        return f"{text(told, 'code')}: {text(told, 'reason')}" if told else ""

    def client_networks(self, environment: str) -> list[str] | None:
        """Return the networks that an environment's applications dial from, None if nobody tells."""
        for page in range(_PAGES if self._dev is not None else 0):
            query = f"egress/environments?limit=100&offset={page * 100}"
            found = self._local("GET", lambda api, query=query: api.operations(query))
            listed = entries(found.get("environments")) if not isinstance(found, str) else []
            for each in listed:
                if text(each, "id") == environment:
                    networks = each.get("clientNetworks")
                    told = cast("list[object]", networks) if isinstance(networks, list) else []
                    return [one for one in told if isinstance(one, str)]
            if isinstance(found, str) or "next" not in found or not listed:
                break
        return None

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

    @property
    def domains_url(self) -> str:
        """Return where the relay's domains are added; "" if there is no relay to ask."""
        return self._dev.configurations() if self._dev is not None else ""

    def standing(self, domain: str) -> Standing | str | None:
        """Return how a domain stands at the relay; None if it has no configuration; or say why that is not known."""
        if self._dev is None:
            return "the relay's API cannot be asked from here"
        for page in range(_PAGES):
            found = self._local("GET", lambda api, at=page * 100: f"{api.configurations()}?limit=100&offset={at}")
            if isinstance(found, str):
                return f"the relay's API cannot be asked: {found}"
            listed = entries(found.get("smtp_configurations"))
            for entry in listed:
                if text(entry, "domain").lower() == domain.lower():
                    return self._standing(entry)
            if "next" not in found or not listed:
                return None
        return "the relay has too many domains to look for this one"

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
        seen = dict[str, Seen]()
        for each in entries(told.get("checks")):  # the newest come first
            seen.setdefault(text(each, "type"), _seen(each))
        return Standing(
            name,
            text(entry, "domain"),
            checks,
            text(told, "standing"),
            text(told, "failing"),
            text(told, "suspends_at"),
            seen,
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
                return Fate(text(each, "status"), text(each, "reply") or text(each, "reason"))
        return "the relay's record does not name this recipient"

    def _local(self, method: str, url: Callable[[Api], str]) -> Mapping[str, Any] | str:
        """Return the object that a call answers, or why there is none."""
        assert self._dev is not None
        try:
            found = self._dev.call(method, url(self._dev))
        except (NotReachable, Refusal, *_WRONG_SHAPE, OSError) as error:
            return str(error) or type(error).__name__
        return cast("Mapping[str, Any]", found) if isinstance(found, dict) else "the answer makes no sense"


def _seen(check: Mapping[str, Any]) -> Seen:
    name = text(check, "record")
    asked = next((e for e in entries(check.get("asked")) if (text(e, "name"), text(e, "type")) == (name, "TXT")), {})
    records = asked.get("records")
    published = cast("list[object]", records) if isinstance(records, list) else []
    texts = tuple(each for each in published if isinstance(each, str))
    return Seen(text(check, "result"), text(check, "explanation"), texts)


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
