"""`outgate egress test`, against the API and real ports."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from outgate.egress.plan import Way
from outgate.model.egress import Mode
from outgate.net.guard import compile_exceptions
from support.api_service import Service
from support.egress_peers import free_port

from .conftest import Outgate


@pytest.fixture(scope="module")
def placed(service: Service) -> Service:
    """The service with a program of two environments, of which connections leave one."""
    store = service.store.egress
    store.add_program("org@AdobeOrg", service.account_id, "Shop", program_id="4")
    for number, name in (("10", "prod"), ("11", "stage")):
        where = {"tunnel_address": f"127.1.0.{number}", "client_networks": ["127.0.0.0/8"], "environment_id": number}
        store.add_environment("4", name, kind=name, region="va7", **where)
    service.egress.ways["10"] = Way(Mode.FLEXIBLE, ("127.0.0.2",), compile_exceptions(["127.0.0.1"]))
    return service


@pytest.fixture
def rude() -> Iterator[int]:
    """Yield a port that is open and takes no connection from its queue, which is long enough."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield int(listening.getsockname()[1])


@pytest.mark.usefixtures("placed")
def test_a_port_that_is_open(outgate: Outgate, rude: int) -> None:
    result = outgate("egress", "test", "4", "10", "127.0.0.1", str(rude), roles=("writer",))
    assert result.exit_code == 0, result.output
    assert [line.split(None, 1) for line in result.stdout.splitlines()] == [
        ["resolver", "default"],
        ["addresses", "127.0.0.1"],
        ["port", "open"],
        ["HTTP", "Connection timed out"],
        ["note", "the port is open, and nothing is said there"],
        ["result", "Reachable"],
    ]


@pytest.mark.usefixtures("placed")
def test_one_that_is_not(outgate: Outgate) -> None:
    port = str(free_port())
    result = outgate("egress", "test", "4", "10", "127.0.0.1", port, "--json", roles=("manager",))
    assert result.exit_code == 1
    (entry,) = json.loads(result.stdout)["resolvers"]
    assert entry["reachability"] == "Unreachable: Port not accessible"
    assert entry["http_connectivity"]["error"] == "Connection refused"
    result = outgate("egress", "test", "4", "10", "127.0.0.9", port, roles=("manager",))
    assert result.exit_code == 1 and "Address not allowed" in result.stdout and "loopback" in result.stdout


@pytest.mark.usefixtures("placed")
@pytest.mark.parametrize(
    ("arguments", "roles", "code", "says"),
    [
        (("4", "11", "127.0.0.1", "443"), ("writer",), 1, "advanced networking is not enabled"),
        (("4", "12", "127.0.0.1", "443"), ("writer",), 1, "has no environment 12"),
        (("4", "10", "127.0.0.1", "443"), ("reader",), 1, "role"),
        (("4", "10", "a b", "443"), ("writer",), 1, "host must be an address or a name"),
        (("4", "10", "", "443"), ("writer",), 2, "the host must not be empty"),
        (("", "10", "a.example", "443"), ("writer",), 2, "the program must not be empty"),
        (("4", "10", "a.example", "65536"), ("writer",), 2, "65535"),
    ],
)
def test_what_is_wrong_is_said(
    outgate: Outgate, arguments: tuple[str, ...], roles: tuple[str, ...], code: int, says: str
) -> None:
    result = outgate("egress", "test", *arguments, roles=roles)
    assert result.exit_code == code and says in result.stderr, result.output
    assert result.stdout == ""
