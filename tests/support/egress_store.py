"""A control store with one program and its environments, and the Cloud Manager API over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import update

from outgate.api.cloud_manager import build
from outgate.api.errors import Unauthorized
from outgate.api.identity.tokens import Caller
from outgate.base.clock import FrozenClock
from outgate.model.egress import Environment, Mode, NetworkInfrastructure, Program
from outgate.store.control import ControlStore, open_control
from outgate.store.places import Grounds
from outgate.store.secrets import open_box
from outgate.store.tables import environments

GROUNDS = Grounds(
    ("aus5", "deu6", "va7"),
    ip_network("127.1.0.0/29"),
    ("127.0.0.0/8",),
    taken=frozenset({"127.1.0.3"}),
)
"""What new environments get: of the tunnel addresses 127.1.0.1 to .6, one is taken by something else."""
ORG = "ABC@AdobeOrg"
ACCOUNT = "a" * 32


@dataclass
class World:
    """A program with a flexible infrastructure and two environments."""

    control: ControlStore
    clock: FrozenClock
    program: Program
    way: NetworkInfrastructure
    environment: Environment
    other: Environment

    @property
    def store(self) -> Any:
        return self.control.egress


@contextmanager
def world(
    directory: Path, *, kind: Mode = Mode.FLEXIBLE, tunnel: str = "127.1.0.1", beside: str = ""
) -> Iterator[World]:
    """Make the world in `directory`; `beside` is the second environment's tunnel address, else the one after the
    first's."""
    clock = FrozenClock()
    control = open_control(directory / "control.db", open_box(directory / "master.key"), clock)
    store = control.egress
    program = store.add_program(ORG, ACCOUNT, "Shop", program_id="4")
    addresses = ("127.0.0.3",) if kind is Mode.DEDICATED else ()
    way = store.add_infrastructure("4", kind, "va7", addresses=addresses, infrastructure_id="7")
    made = [
        store.add_environment(
            "4",
            name,
            kind=name,
            region="va7",
            tunnel_address=address,
            client_networks=["127.0.0.0/8"],
            environment_id=number,
        )
        for name, number, address in (("prod", "10", tunnel), ("stage", "11", beside or next_to(tunnel)))
    ]
    try:
        yield World(control, clock, program, way, made[0], made[1])
    finally:
        control.close()


def bare_program(place: World, number: str, *, secondary: tuple[str, ...] = ()) -> None:
    """Add a program with a production environment (its number and a 0), and no network infrastructure."""
    place.store.add_program(ORG, ACCOUNT, f"Program {number}", program_id=number)
    place.store.add_environment(
        number,
        "prod",
        kind="prod",
        region="va7",
        tunnel_address="127.1.0.5",
        client_networks=["127.0.0.0/8"],
        environment_id=number + "0",
    )
    if secondary:
        change = update(environments).where(environments.c.id == number + "0")
        with place.control._database.writing() as connection:
            connection.execute(change.values(secondary_regions=list(secondary)))


def next_to(address: str) -> str:
    """Return the IPv4 address after another."""
    return str(ip_address(address) + 1)


class Tokens:
    """Tokens by name: `good` has every role, `reader` one, `stranger` is of another account."""

    def __init__(self) -> None:
        everything = frozenset({"reader", "writer", "manager", "runtime"})
        self.callers = {
            "good": Caller("person", ACCOUNT, everything, "client"),
            "reader": Caller("viewer", ACCOUNT, frozenset({"reader"}), "client"),
            "manager": Caller("boss", ACCOUNT, frozenset({"manager"}), "client"),
            "stranger": Caller("stranger", "b" * 32, everything, "client"),
        }

    async def authenticate(self, authorization: str | None) -> Caller:
        caller = self.callers.get((authorization or "").removeprefix("Bearer "))
        if caller is None:
            raise Unauthorized("the bearer token is not one of ours")
        return caller


class Api:
    """Calls to the API, with the headers that a client sends."""

    def __init__(self, world: World, **options: Any) -> None:
        self.pokes: list[int] = []
        self.app = build(
            store=world.store,
            places=world.control.places,
            grounds=GROUNDS,
            infrastructures=world.control.infrastructures,
            authenticator=Tokens(),
            changed=lambda: self.pokes.append(1),
            shared_addresses=["127.0.0.2"],
            dedicated_addresses=["127.0.0.2", "127.0.0.3", "127.0.0.5"],
            vpn_address="127.0.0.4",
            account_of_key={"own-key": ACCOUNT, "other-key": "b" * 32}.get,
            **options,
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "good",
        headers: dict[str, str | None] | None = None,
        app: Any = None,
        **arguments: Any,
    ) -> httpx2.Response:
        sent: dict[str, str | None] = {"x-api-key": "client", "x-gw-ims-org-id": ORG}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        sent |= headers or {}
        plain = {name: value for name, value in sent.items() if value is not None}
        transport = httpx2.ASGITransport(app=app or self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=plain, **arguments)
