"""`outgate egress`, against the API and against the socket of a stand-alone process; its tables at 80 columns."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgate.cli import egress, egress_tables
from outgate.egress import status_socket
from outgate.egress.plan import Proxy
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode, PortForward
from support.api_service import Service
from support.egress_peers import forward
from support.egress_side import Budget

from .conftest import Outgate

RULE = forward("127.1.0.1", 30465, "a-rather-long-name-of-a-server.mail.example.net", 465)
PROXY = Proxy("10", "4", "127.1.0.1", 3128, RULE.way, ("127.0.0.0/8",))
PUT = [PortForward("smtp.example", 30465, 465)]


@pytest.fixture(scope="module")
def placed(service: Service) -> Service:
    """The service with a program of two environments, of which one failed; things have happened to its rules."""
    store, side = service.store.egress, service.egress
    store.add_program("org@AdobeOrg", service.account_id, "Shop", program_id="4")
    store.add_infrastructure("4", Mode.DEDICATED, "va7", addresses=["127.0.0.3"], infrastructure_id="7")
    for number, name in (("10", "prod"), ("11", "stage")):
        where = {"tunnel_address": f"127.1.0.{number}", "client_networks": ["127.0.0.0/8"], "environment_id": number}
        store.add_environment("4", name, kind=name, region="va7", **where)
        service.clock.advance(1)
    store.put_networking("11", "7", PUT, [], actor="customer")
    store.settle("11", 1, "127.1.0.11:30465 is taken by another program on this host")
    side.rules += [RULE, PROXY]
    side.proofs["127.0.0.3"] = "this host does not have it"
    side.budgets.append(Budget("127.0.0.3", "192.0.2.1", 465, 75, 100))
    known = {"name": RULE.name, "port": 465, "target": "192.0.2.1:465", "source": "127.0.0.2:6000"}
    connection = side.opened(RULE, "one", "127.0.0.1:5000", **known, proxy_header=True, exception="127.0.0.0/8")
    side.ledger.noticed(connection, code="clear-text", reason="clear text on 465")
    side.ledger.closed(connection, bytes_up=48_211, bytes_down=999_999, duration_s=1.5, reason="finished")
    asked = side.opened(PROXY, "two", "[2001:db8::5]:5001", name="shop.example", port=443, method="CONNECT")
    side.ledger.refused(asked, Refused("guard", "shop.example is 10.0.0.1: private address \x1b[2J"))
    return service


@pytest.fixture
def operator(outgate: Outgate, placed: Service) -> Callable[..., Any]:
    return lambda *arguments: outgate("egress", *arguments, roles=("operator",))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr("outgate.cli.egress.columns", lambda: 80)


def test_status(operator: Callable[..., Any]) -> None:
    shown = operator("status")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("1 environment, 2 rules, 1 connection open; figures since 20")
    assert "! source ports 127.0.0.3 to 192.0.2.1:465: 75 of 100 in use: give it more addresses" in lines
    assert "environment 10  program 4  flexiblePortEgress  1 of 1000 places taken" in lines
    head = next(line for line in lines if line.startswith("LISTEN"))
    assert head.split() == ["LISTEN", "TARGET", "OPEN", "TOTAL", "REFUSED", "UP", "DOWN", "LONGEST"]
    row = next(line for line in lines if line.startswith("127.1.0.1:30465"))
    assert row.split() == ["127.1.0.1:30465", f"{RULE.name}:465", "0", "1", "0", "48.2", "kB", "1.0", "MB"]
    assert "    refused: 1 guard" in lines and "    noticed: 1 clear-text" in lines
    assert "guard: shop.example is 10.0.0.1: private address" in shown.stdout and "\x1b" not in shown.stdout
    assert json.loads(operator("status", "--environment", "10", "--json").stdout)["environments"][0]["opened"] == 2
    missing = operator("status", "--environment", "12")
    assert missing.exit_code == 1 and "there is no environment 12" in missing.stderr


def test_environments_are_listed_and_set(operator: Callable[..., Any]) -> None:
    shown = operator("environments").stdout
    assert "127.1.0.11" in shown and "    clients: 127.0.0.0/8" in shown
    assert "    ! 127.1.0.11:30465 is taken by another program on this host" in shown
    assert len(json.loads(operator("environments", "--json").stdout)["environments"]) == 2
    placed = operator("environment", "set", "10", "--tunnel-address", "127.1.0.20", "--client-network", "10.1.0.0/16",
        "--client-network", "10.2.0.0/16")  # fmt: skip
    assert placed.exit_code == 0, placed.output
    assert "127.1.0.20" in placed.stdout and "clients: 10.1.0.0/16, 10.2.0.0/16" in placed.stdout
    moving = operator("environment", "set", "10", "--no-clients")
    assert moving.exit_code == 1 and "the environment is updating" in moving.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("environment", "set", "10"), 2, "say what to set: --tunnel-address, --client-network (several) or"),
        (("environment", "set", "10", "--tunnel-address", ""), 2, "--tunnel-address must not be empty"),
        (("environment", "set", "10", "--no-clients", "--client-network", "10.0.0.0/8"), 2, "exclude each other"),
        (("environment", "set", "9/9", "--no-clients"), 1, "there is no such resource"),
        (("environment", "set", "11", "--tunnel-address", "proxy.tunnel"), 1, "'proxy.tunnel' is not an IP address"),
        (("exceptions", "add", "a b"), 1, "is not a network, a name or *.domain"),
        (("exceptions", "remove", "none.example"), 1, "`outgate egress exceptions list` shows those there are"),
        (("exceptions", "remove", "127.0.0.0/8"), 1, "take it out of egress.guard_exceptions and restart"),
        (("audit", "--client", "somebody"), 1, "must be an address such as 10.8.1.20"),
        (("status", "--socket", "other.sock"), 2, "other.sock is not the egress.sock of"),
        (("status", "--socket", "egress.sock", "--data", "."), 2, "--data and --socket exclude each other"),
        (("status", "--data", "/nowhere"), 3, "neither dev.json nor egress.sock is in /nowhere: start `outgate dev`"),
        (("status", "--socket", "/nowhere/egress.sock"), 3, "start `outgate egress serve` on /nowhere"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(
    operator: Callable[..., Any], arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = operator(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr and result.stdout == ""


def test_who_is_no_operator_is_refused(outgate: Outgate, placed: Service) -> None:
    result = outgate("egress", "status", roles=("manager",))
    assert result.exit_code == 1 and "operator" in result.stderr


def test_addresses(operator: Callable[..., Any]) -> None:
    lines = operator("addresses").stdout.splitlines()
    assert lines[0].split() == ["ADDRESS", "STATE", "PROGRAM", "KIND", "STATUS", "PROVEN"]
    assert lines[1].split() == ["127.0.0.2", "shared"]
    assert lines[2].split() == ["127.0.0.3", "allotted", "4", "dedicatedEgressIp", "ready", "NO"]
    assert lines[3] == "    this host does not have it"
    assert lines[4].split() == ["127.0.0.4", "free"]
    assert "75.0%" in lines[7] and "nearly full" in lines[8]
    assert json.loads(operator("addresses", "--json").stdout)["dedicated"][0]["proven"] is False


def test_exceptions(operator: Callable[..., Any]) -> None:
    made = operator("exceptions", "add", "10.1.2.3/16", "--environment", "11", "--reason", "the warehouse")
    assert made.exit_code == 0 and "10.1.0.0/16" in made.stdout and "the warehouse" in made.stdout
    operator("exceptions", "add", "10.1.0.0/16")
    listed = operator("exceptions", "list").stdout
    assert "setting egress.guard_exceptions" in listed and listed.count("10.1.0.0/16") == 2
    twice = operator("exceptions", "remove", "10.1.0.0/16")
    assert twice.exit_code == 2 and "stands 2 times: name one by its id" in twice.stderr
    found = json.loads(operator("exceptions", "list", "--json").stdout)["exceptions"]
    mine = next(each for each in found if each["environment"] == "11")
    gone = operator("exceptions", "remove", mine["id"])
    assert gone.stdout.startswith(
        "10.1.0.0/16 is no longer let through for environment 11; open connections are drained"
    )
    assert operator("exceptions", "remove", "10.1.0.0/16").exit_code == 0


@pytest.mark.parametrize("typed", ["10.1.2.3", "10.1.2.3/16", "Warehouse.Example."])
def test_an_exception_goes_by_what_was_typed(operator: Callable[..., Any], typed: str) -> None:
    assert operator("exceptions", "add", typed).exit_code == 0
    assert operator("exceptions", "remove", typed).exit_code == 0


def test_audit(operator: Callable[..., Any]) -> None:
    lines = operator("audit").stdout.splitlines()
    assert [line.split()[2] for line in lines[1::2]] == ["opened", "noticed", "closed", "opened", "refused"]
    assert lines[2] == (
        "    environment 10: to 192.0.2.1:465 from 127.0.0.2:6000 (flexiblePortEgress), PROXY v2 header,"
        " let through by the exception 127.0.0.0/8"
    )
    assert lines[6].endswith("48211 octets up, 999999 down in 1.500 s: finished; noticed: clear-text")
    assert lines[7].endswith("[2001:db8::5]:5001  CONNECT shop.example:443")
    assert "guard: shop.example is 10.0.0.1" in lines[10]
    last = operator("audit", "--limit", "1", "--client", "127.0.0.1").stdout
    assert "closed" in last and "older ones: --before 1" in last
    older = last.split("--before ")[1].strip()
    assert "closed" not in operator("audit", "--client", "127.0.0.1", "--before", older).stdout
    assert json.loads(operator("audit", "--refusal", "guard", "--json").stdout)["lines"][0]["refusal"] == "guard"
    assert operator("audit", "--environment", "11").stdout == "No line is like that.\n"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("verb", ["status", "environments", "addresses", "exceptions list", "audit"])
def test_nothing_is_wider_than_the_terminal(operator: Callable[..., Any], verb: str) -> None:
    shown = operator(*verb.split())
    assert shown.exit_code == 0, shown.output
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    if verb == "audit":
        # What is long goes on below, and is there to its end.
        assert "PROXY v2 header, let through by the exception 127.0.0.0/8" in " ".join(shown.stdout.split())
    if verb == "status":
        # The name is cut, the figures are all there.
        row = next(line for line in shown.stdout.splitlines() if line.startswith("127.1.0.1:30465"))
        assert "a-rather-long" in row and "\N{HORIZONTAL ELLIPSIS}" in row and "48.2 kB" in row


@contextmanager
def answering(directory: Path, document: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Have a stand-alone process' socket answer."""
    ready, over = threading.Event(), threading.Event()

    async def run() -> None:
        server = await status_socket.serve(directory, document)
        ready.set()
        await asyncio.to_thread(over.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_stand_alone_process_is_asked_at_its_socket(
    operator: Callable[..., Any], placed: Service, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    about = {"pid": 1, "source": "/etc/rules.json", "problem": "line 3 is not JSON"}
    with answering(own, lambda: about | placed.egress.status.document()):
        for arguments in (("--data", str(own)), ("--socket", str(own / "egress.sock"))):
            shown = operator("status", *arguments)
            assert shown.exit_code == 0, shown.output
            assert "! not all of /etc/rules.json is in force: line 3 is not JSON" in shown.stdout
            assert "127.1.0.1:30465" in shown.stdout
        assert json.loads(operator("status", "--data", str(own), "--json").stdout)["pid"] == 1


def test_octets_are_short() -> None:
    said = [egress_tables.octets(number) for number in (0, 999, 1000, 99_949, 99_950, 999_499, 999_500, 10**15 * 2)]
    assert said == ["0", "999", "1.0 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB", "2.0 PB"]
    assert egress.commands.info.help
