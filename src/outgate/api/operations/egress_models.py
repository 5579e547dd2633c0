"""What the operations on the egress take and answer, and an example of each.

Standards: none; in the style of the vendor's APIs. Fields that the vendor has too are spelt as it does.
Promises: every field that is answered is named here, and no other.
Dangers: names and addresses are shown in full: to operators only.
Not here: what is done (`egress`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from outgate.api.openapi import Shown, Time
from outgate.api.schema import Body
from outgate.egress.refusal import Kind

_Why = Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Address = Annotated[str, StringConstraints(min_length=2, max_length=45)]
_Network = Annotated[str, StringConstraints(min_length=2, max_length=64)]


class PlaceBody(Body):
    """Where an environment is to be; what is left out stays."""

    tunnelAddress: _Address | None = Field(
        None, description="The address that `proxy.tunnel` means to its applications."
    )
    clientNetworks: list[_Network] | None = Field(
        None, max_length=100, description="Networks its applications dial from, all of them; empty: nobody may."
    )


class ExceptionBody(Body):
    """What the guard is to let through, and why."""

    entry: str = Field(
        min_length=1, max_length=255, description="An address, a network, a name, or `*.domain` for all names below it."
    )
    environment: str = Field("", max_length=64, description='Only for this environment; "": for all.')
    reason: _Why = Field("", description="Why, for the next operator.")


class LastRefusal(Shown):
    """The newest refusal."""

    at: Time
    kind: Kind
    reason: str


class Figures(Shown):
    """Connections and octets since the egress began; `refused` by class word, `notices` by code."""

    open: int
    opened: int
    refused: dict[str, int]
    notices: dict[str, int]
    octets_up: int = Field(description="From clients, also of connections that are open.")
    octets_down: int
    longest_open_s: float | None
    last_refusal: LastRefusal | None


class RuleShown(Figures):
    """What is listened for, and where it leads; a proxy has no target of its own."""

    type: Literal["forward", "proxy"]
    listen: str
    target: str
    mode: str
    sources: list[str]
    engine: str
    engine_reason: str


class EnvironmentFigures(Figures):
    """An environment with what is in force for it; `reason` says why what it wants is not, "" if it is."""

    environment: str
    program: str
    mode: str
    reason: str
    counted: int = Field(description="Connections that count towards its limit: not the proxy's to 80 and 443.")
    alert: bool = Field(description="So many count that it is near its limit.")
    rules: list[RuleShown]


class Budget(Shown):
    """How many of an address's source ports to one target are in use."""

    source: str
    target: str
    used: int
    ports: int
    share: float
    alert: bool


class _Limits(Shown):
    connections: int
    alert: int


class StatusAnswer(Shown):
    """How the egress stands."""

    at: Time
    since: Time = Field(description="When the figures began.")
    open: int
    limits: _Limits
    audit_lines_lost: int
    environments: list[EnvironmentFigures]
    source_ports: list[Budget] = Field(description="The fullest hundred.")


class EnvironmentShown(Shown):
    """An environment as operators see it; `reason` says why what it wants is not in force."""

    id: str
    program: str
    name: str
    type: str
    region: str
    status: str
    tunnelAddress: str
    clientNetworks: list[str]
    mode: str
    forwards: int
    generation: int | None
    reason: str


class _Link(Shown):
    href: str


class EnvironmentsAnswer(Shown):
    """A page of environments of all programs, oldest first."""

    total_count: int
    offset: int
    limit: int
    environments: list[EnvironmentShown]
    first: _Link
    previous: _Link | None = None
    next: _Link | None = None


class AddressShown(Shown):
    """A dedicated address: whose it is, and whether connections really leave from it (null: not asked yet)."""

    address: str
    pooled: bool = Field(description="It is one of `egress.dedicated_addresses`.")
    state: Literal["free", "allotted"]
    program: str | None
    infrastructure: str | None
    kind: str | None
    status: str | None
    proven: bool | None
    reason: str


class AddressesAnswer(Shown):
    """The addresses that leave; `source_ports` is null while the egress cannot be asked."""

    shared: list[str]
    dedicated: list[AddressShown]
    source_ports: list[Budget] | None


class ExceptionShown(Shown):
    """What the guard lets through; without `id` it is a setting's (`egress.guard_exceptions`)."""

    id: str | None
    entry: str
    environment: str
    reason: str
    created_at: Time | None
    created_by: str


class ExceptionsAnswer(Shown):
    """All exceptions: the settings' first, then as they were made."""

    total_count: int
    exceptions: list[ExceptionShown]


class _Forward(Shown):
    portOrig: int
    name: str
    portDest: int


class _Proxy(Shown):
    listen: int
    method: str = ""
    name: str = ""
    port: int = 0


class AuditLine(Shown):
    """One line; which fields it has, `event` says (docs/egress.md)."""

    at: float = Field(description="Epoch seconds.")
    event: Literal["decision", "notice", "close"]
    connection_id: str
    program: str
    environment: str
    mode: str
    forward: _Forward | None = None
    proxy: _Proxy | None = None
    client: str
    target: str
    source: str
    proxy_header: bool
    exception: str
    reason: str
    refusal: str = ""
    code: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    duration_s: float = 0.0
    notices: list[str] = Field(default_factory=list)


class AuditAnswer(Shown):
    """The newest lines, newest first; `older` is the `before` to go on with, null if there are no more."""

    lines: list[AuditLine]
    older: float | None


_AT = "2026-11-26T05:10:00Z"
_FIGURES: dict[str, object] = {
    "open": 3,
    "opened": 1204,
    "refused": {"guard": 2, "timeout": 5},
    "notices": {"tls-expected": 1},
    "octets_up": 48_211_004,
    "octets_down": 1_204_411,
    "longest_open_s": 312.4,
    "last_refusal": {"at": _AT, "kind": "timeout", "reason": "192.0.2.10:465 from 198.51.100.7: no answer in 10 s"},
}
_RULE: dict[str, object] = {
    "type": "forward",
    "listen": "10.9.0.1:30465",
    "target": "smtp.example.net:465",
    "mode": "dedicatedEgressIp",
    "sources": ["198.51.100.7"],
    "engine": "forwarder",
    "engine_reason": "no kernel engine is installed",
    **_FIGURES,
}
_BUDGET: dict[str, object] = {
    "source": "198.51.100.7",
    "target": "192.0.2.10:465",
    "used": 3,
    "ports": 28_232,
    "share": 0.0001,
    "alert": False,
}
STATUS_EXAMPLE: dict[str, object] = {
    "at": _AT,
    "since": "2026-11-20T00:00:00Z",
    "open": 3,
    "limits": {"connections": 1000, "alert": 750},
    "audit_lines_lost": 0,
    "environments": [
        {
            "environment": "112233",
            "program": "4455",
            "mode": "dedicatedEgressIp",
            "reason": "",
            **_FIGURES,
            "counted": 3,
            "alert": False,
            "rules": [_RULE],
        }
    ],
    "source_ports": [_BUDGET],
}
ENVIRONMENT_EXAMPLE: dict[str, object] = {
    "id": "112233",
    "program": "4455",
    "name": "prod",
    "type": "prod",
    "region": "va7",
    "status": "updating",
    "tunnelAddress": "10.9.0.1",
    "clientNetworks": ["10.8.1.0/24"],
    "mode": "dedicatedEgressIp",
    "forwards": 1,
    "generation": 3,
    "reason": "",
}
ENVIRONMENTS_EXAMPLE: dict[str, object] = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "environments": [ENVIRONMENT_EXAMPLE],
    "first": {"href": "https://outgate.example/operations/v1/egress/environments?limit=10&offset=0"},
}
PLACE_BODY_EXAMPLE: dict[str, object] = {"tunnelAddress": "10.9.0.1", "clientNetworks": ["10.8.1.0/24"]}
ADDRESSES_EXAMPLE: dict[str, object] = {
    "shared": ["198.51.100.5", "198.51.100.6"],
    "dedicated": [
        {
            "address": "198.51.100.7",
            "pooled": True,
            "state": "allotted",
            "program": "4455",
            "infrastructure": "778899",
            "kind": "dedicatedEgressIp",
            "status": "ready",
            "proven": True,
            "reason": "",
        },
        {
            "address": "198.51.100.8",
            "pooled": True,
            "state": "free",
            "program": None,
            "infrastructure": None,
            "kind": None,
            "status": None,
            "proven": None,
            "reason": "",
        },
    ],
    "source_ports": [_BUDGET],
}
EXCEPTION_EXAMPLE: dict[str, object] = {
    "id": "5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21",
    "entry": "10.1.0.0/16",
    "environment": "112233",
    "reason": "the warehouse's mail server",
    "created_at": _AT,
    "created_by": "iam-ApiKey-7c1e",
}
EXCEPTION_BODY_EXAMPLE: dict[str, object] = {
    "entry": "10.1.0.0/16",
    "environment": "112233",
    "reason": "the warehouse's mail server",
}
EXCEPTIONS_EXAMPLE: dict[str, object] = {"total_count": 1, "exceptions": [EXCEPTION_EXAMPLE]}
AUDIT_EXAMPLE: dict[str, object] = {
    "lines": [
        {
            "at": 1795669800.104211,
            "event": "decision",
            "connection_id": "5f0c1a7be2d94c38",
            "program": "4455",
            "environment": "112233",
            "mode": "dedicatedEgressIp",
            "forward": {"portOrig": 30465, "name": "smtp.example.net", "portDest": 465},
            "client": "10.8.1.20:51514",
            "target": "",
            "source": "",
            "proxy_header": False,
            "exception": "",
            "refusal": "guard",
            "reason": "smtp.example.net is 10.0.0.5: private address",
        }
    ],
    "older": 1795669800.104211,
}
