"""`@adobe/aio-lib-cloudmanager`, unmodified, against a real `outgate dev`: whatever it can call that is served here.

What it cannot call (making programs and environments, regions, tenants, networks) is called as it is over HTTP.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from support.clients import run
from support.egress_peers import tunnel_address
from support.npm import locked
from support.running import Running, wait_for
from support.vendor_cloud_manager import CLIENT, ORG, TOKEN, Vendor, vendor

pytestmark = pytest.mark.scenario
PINNED = Path(__file__).parent / "cloud_manager"
Calls = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # A network of its own: others test on this machine at the same time.
    network = f"{tunnel_address().rpartition('.')[0]}.0/24"
    service = Running(tmp_path_factory.mktemp("dev") / "data", f'[egress]\ntunnel_network = "{network}"\n').start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locked(PINNED, tmp_path_factory.mktemp("npm"))


@pytest.fixture
def calls(running: Running, modules: Path) -> Calls:
    """A function that has the library make calls in order; `more` replaces what it is initialised with."""

    def made(*calls: list[Any], **more: str) -> list[dict[str, Any]]:
        dev = running.dev
        job = {"org": dev["org_id"], "key": dev["api_key"], "token": dev["token"], "url": dev["cloud_manager_url"]}
        environment = {**os.environ, "NODE_PATH": str(modules), "NO_PROXY": "127.0.0.1"}
        text = json.dumps({**job, **more, "calls": calls})
        done = run(["node", str(PINNED / "client.cjs")], text, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return made


@pytest.fixture
def mine(running: Running) -> list[str]:
    """The program and the environment that the laptop mode begins with."""
    return [running.dev["program_id"], running.dev["environment_id"]]


def raw(running: Running, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Make one call of the API; return status and answer."""
    dev = running.dev
    headers = {"Authorization": f"Bearer {dev['token']}", "x-api-key": dev["api_key"], "x-gw-ims-org-id": dev["org_id"]}
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(dev["cloud_manager_url"] + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def told(result: dict[str, Any]) -> tuple[str, str]:
    """Return the code and the words of an error as the library has them, but for the URL in them."""
    return result["error"]["code"], result["error"]["message"].partition(" - ")[2] or result["error"]["message"]


def plain(variables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return variables without links."""
    shown = [{name: value for name, value in each.items() if not name.startswith("_")} for each in variables]
    return sorted(shown, key=lambda each: each["name"])


def test_programs_and_environments(running: Running, calls: Calls, mine: list[str]) -> None:
    programs, environments, logs = calls(
        ["listPrograms"], ["listEnvironments", mine[0]], ["listAvailableLogOptions", *mine]
    )
    assert [(each["id"], each["name"]) for each in programs["value"]] == [(mine[0], "Laptop")]
    (environment,) = [each for each in environments["value"] if each["id"] == mine[1]]
    assert (environment["programId"], environment["type"], environment["status"]) == (mine[0], "prod", "ready")
    assert logs["value"] == []


def test_variables_are_set_changed_and_deleted(running: Running, calls: Calls, mine: list[str]) -> None:
    first = [
        {"name": "EMAIL_USERNAME", "value": "me", "service": "author"},
        {"name": "EMAIL_PASSWORD", "value": "pa$$word-1", "type": "secretString"},
        # As the command line reads values: what looks like JSON is sent as JSON.
        {"name": "EMAIL_PORT", "value": 30465},
        {"name": "EMAIL_DEBUG", "value": True},
        {"name": "EMAIL_MAP", "value": {"a": 1}},
        {"name": "INTERNAL_X", "value": "x"},
    ]
    change = [{"name": "EMAIL_USERNAME", "value": "you", "service": "author"}]
    gone = [
        {"name": "EMAIL_USERNAME", "value": "", "service": "author", "type": "string"},
        {"name": "EMAIL_PASSWORD", "value": "", "type": "secretString"},
        *({"name": name, "value": "", "type": "string"} for name in ("EMAIL_PORT", "EMAIL_DEBUG", "EMAIL_MAP")),
        {"name": "INTERNAL_X", "value": ""},
    ]
    put, get = ["setEnvironmentVariables", *mine], ["getEnvironmentVariables", *mine]
    results = calls([*put, first], get, [*put, change], get, [*put, gone], get)
    assert [result.get("error") for result in results] == [None] * 6
    before, after, left = (plain(results[number]["value"]) for number in (1, 3, 5))
    assert before == [
        {"name": "EMAIL_DEBUG", "type": "string", "value": "true", "status": "ready"},
        {"name": "EMAIL_MAP", "type": "string", "value": '{"a":1}', "status": "ready"},
        {"name": "EMAIL_PASSWORD", "type": "secretString", "status": "ready"},
        {"name": "EMAIL_PORT", "type": "string", "value": "30465", "status": "ready"},
        {"name": "EMAIL_USERNAME", "type": "string", "value": "me", "service": "author", "status": "ready"},
        {"name": "INTERNAL_X", "type": "string", "value": "x", "status": "ignored"},
    ]
    assert [each.get("value") for each in after] == ["true", '{"a":1}', None, "30465", "you", "x"]
    assert left == []


def test_our_command_line_sends_what_it_sends(modules: Path) -> None:
    with vendor("/prefix") as theirs, vendor("/prefix") as ours:
        for server in (theirs, ours):
            server.variables = [{"name": "OLD_ONE", "type": "secretString", "value": "x", "status": "ready"}]
        changes = [
            {"name": "EMAIL_USERNAME", "value": "m\u00e9", "type": "string"},
            {"name": "EMAIL_PASSWORD", "value": "pa$$", "type": "secretString", "service": "author"},
            {"name": "OLD_ONE", "value": "", "type": "secretString"},
        ]
        get, put = ["getEnvironmentVariables", "4", "10"], ["setEnvironmentVariables", "4", "10", changes]
        job = {"org": ORG, "key": CLIENT, "token": TOKEN, "url": theirs.url, "calls": [get, put, get]}
        node = {**os.environ, "NODE_PATH": str(modules), "NO_PROXY": "127.0.0.1"}
        done = run(["node", str(PINNED / "client.cjs")], json.dumps(job), env=node)
        assert done.returncode == 0, done.stderr
        assert [result.get("error") for result in json.loads(done.stdout)] == [None] * 3
        settings = {
            "AIO_CLOUDMANAGER_BASE__URL": ours.url,
            "AIO_CLOUDMANAGER__ORGID": ORG,
            "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": TOKEN,
        }
        arguments = [
            "cloudmanager:set-environment-variables",
            "--programId=4",
            "10",
            "--variable",
            "EMAIL_USERNAME",
            "m\u00e9",
        ]
        arguments += ["--authorSecret", "EMAIL_PASSWORD", "pa$$", "--delete", "OLD_ONE"]
        done = run([sys.executable, "-m", "outgate.cli", *arguments], env={**os.environ, **settings})
        assert done.returncode == 0, done.stderr

    def sent(server: Vendor) -> list[tuple[str, str, dict[str, str], Any]]:
        """Return the requests that concern variables, with what the vendor's API reads of their headers."""
        names = ("authorization", "x-api-key", "x-gw-ims-org-id", "accept", "content-type")
        return [
            (
                method,
                path,
                {name: headers[name] for name in names if name in headers and not (name == names[-1] and body is None)},
                ordered(body),
            )
            for method, path, headers, body in server.requests
            if path.endswith("/variables")
        ]

    def ordered(body: Any) -> Any:
        return body if body is None else sorted(body, key=lambda each: (each.get("service", ""), each["name"]))

    assert sent(theirs) == sent(ours)
    assert [method for method, *_ in sent(ours)] == ["GET", "PATCH", "GET"]
    # It finds its way by links each time, which ours need not.
    assert (len(theirs.requests), len(ours.requests)) == (12, 3)


def test_it_reads_what_our_command_line_wrote(running: Running, calls: Calls, mine: list[str]) -> None:
    program, environment = mine
    put = ["cloudmanager:set-environment-variables", f"--programId={program}", environment]
    done = running.outgate(
        *put, "-v", "EMAIL_USERNAME", "me", "--publishVariable", "EMAIL_DEBUG", "true", "-s", "EMAIL_PASSWORD", "pa$$"
    )
    assert done.returncode == 0, done.stderr
    (found,) = calls(["getEnvironmentVariables", *mine])
    assert plain(found["value"]) == [
        {"name": "EMAIL_DEBUG", "type": "string", "value": "true", "service": "publish", "status": "ready"},
        {"name": "EMAIL_PASSWORD", "type": "secretString", "status": "ready"},
        {"name": "EMAIL_USERNAME", "type": "string", "value": "me", "status": "ready"},
    ]
    done = running.outgate(*put, "-d", "EMAIL_USERNAME", "EMAIL_PASSWORD", "--publishDelete", "EMAIL_DEBUG")
    assert done.returncode == 0, done.stderr
    assert plain(calls(["getEnvironmentVariables", *mine])[0]["value"]) == []


def test_what_it_says_of_variables_that_are_refused(running: Running, calls: Calls, mine: list[str]) -> None:
    put = ["setEnvironmentVariables", *mine]
    name, host, secret, many, fields = calls(
        [*put, [{"name": "1BAD", "value": "x"}]],
        [*put, [{"name": "AEM_PROXY_HOST", "value": "elsewhere"}]],
        [*put, [{"name": "LONG_ONE", "value": "s3cr3t" * 100, "type": "secretString"}]],
        [*put, [{"name": f"V_{number}", "value": "x"} for number in range(201)]],
        [*put, [{"name": "A", "value": "x"}, {"name": "GOOD", "value": "x", "service": "moon"}]],
    )
    place = "patchEnvironmentVariables.arg2"
    assert told(name) == (
        "ERROR_SET_VARIABLES",
        f'Validation Error(s): {place}[0].name (1BAD) must match "[a-zA-Z_][a-zA-Z_0-9]*"',
    )
    assert told(host)[1].startswith(f"Validation Error(s): {place}[0].name (AEM_PROXY_HOST) is reserved")
    assert told(secret)[1] == (
        f"Validation Error(s): {place}[0].value (****) must have at most 499 characters in a secretString, not 600"
    )
    assert "s3cr3t" not in json.dumps(secret)
    assert told(many)[1] == f"Validation Error(s): {place} (201) must not hold more than 200 variables"
    assert told(fields)[1] == (
        f"Validation Error(s): {place}[0].name (A) size must be between 2 and 100, "
        f"{place}[1].service (moon) must be one of author, publish, preview, or absent for all"
    )
    assert name["error"]["validationErrors"][f"{place}[0].name"]["code"] == "pattern"
    assert name["error"]["requestId"]
    assert plain(calls(["getEnvironmentVariables", *mine])[0]["value"]) == []


def test_what_it_says_of_a_type_that_changes(running: Running, calls: Calls, mine: list[str]) -> None:
    put = ["setEnvironmentVariables", *mine]
    _, refused, _ = calls(
        [*put, [{"name": "KEY", "value": "a", "type": "secretString"}]],
        [*put, [{"name": "KEY", "value": "b"}]],
        [*put, [{"name": "KEY", "value": "", "type": "secretString"}]],
    )
    assert told(refused)[1].startswith("Validation Error(s): patchEnvironmentVariables.arg2[0].type (string) cannot be")


def test_what_it_says_of_the_gateway(running: Running, calls: Calls) -> None:
    for more, words in (
        ({"token": "nonsense"}, "(Code: 401013)"),
        ({"key": "somebody"}, "Detail: Api Key is invalid: it must be the client the token is for (Code: 403003)"),
    ):
        (result,) = calls(["listPrograms"], **more)
        assert result["error"]["code"] == "ERROR_LIST_PROGRAMS"
        assert words in result["error"]["message"] and " - Detail: " in result["error"]["message"]
        assert result["error"]["requestId"]
    # Another organisation has no programs here, and the library says so without asking further.
    results = calls(["listPrograms"], ["listEnvironments", running.dev["program_id"]], org="Other@AdobeOrg")
    assert results[0]["value"] == [] and told(results[1])[0] == "ERROR_FIND_PROGRAM"


def test_what_it_says_of_what_is_not_here(running: Running, calls: Calls, mine: list[str]) -> None:
    results = calls(
        ["listEnvironments", "1"],
        ["getEnvironmentVariables", mine[0], "1"],
        ["deleteProgram", "1"],
        ["deleteEnvironment", mine[0], "1"],
        ["getDeveloperConsoleUrl", *mine],
        ["downloadLogs", *mine, "author", "aemerror", "1", "/nowhere"],
        ["listIpAllowlists", mine[0]],
    )
    assert [told(result)[0] for result in results] == [
        "ERROR_FIND_PROGRAM",
        "ERROR_FIND_ENVIRONMENT",
        "ERROR_FIND_PROGRAM",
        "ERROR_FIND_ENVIRONMENT",
        "ERROR_NO_DEVELOPER_CONSOLE",
        "ERROR_FIND_LOGS_LINK_ENVIRONMENT",
        "ERROR_NO_IP_ALLOWLISTS",
    ]


def until(running: Running, path: str, status: str) -> dict[str, Any]:
    """Wait until something has a status; return it."""
    return wait_for(lambda: raw(running, "GET", path)[1], lambda found: found["status"] == status)


def until_gone(running: Running, path: str) -> None:
    """Wait until something is not there any more."""
    wait_for(lambda: raw(running, "GET", path)[0], lambda status: status == 404)


def test_the_life_of_a_program(running: Running, calls: Calls) -> None:
    """Made over HTTP, seen and taken away by the library; states move as the engine gets there."""
    tenant = f"/api/tenant/{running.dev['account_id']}/programs"
    body = {"name": "Second", "type": "aem_cloud_service"}
    status, program = raw(running, "POST", tenant, body)
    assert (status, program["status"]) == (201, "ready")
    assert raw(running, "POST", tenant, body)[0] == 409
    regions = raw(running, "GET", f"/api/program/{program['id']}/regions")[1]["_embedded"]["regions"]
    assert {"name": "va7"} in regions
    new = {"name": "prod", "type": "prod", "region": "va7"}
    status, made = raw(running, "POST", f"/api/program/{program['id']}/environments", new)
    assert (status, made["status"]) == (201, "creating")
    path = made["_links"]["self"]["href"]
    until(running, path, "ready")
    held, listed, gone = calls(
        ["deleteProgram", program["id"]],
        ["listEnvironments", program["id"]],
        ["deleteEnvironment", program["id"], made["id"]],
    )
    assert told(held) == (
        "ERROR_DELETE_PROGRAM",
        f"Precondition Failed(s): the program still has environment {made['id']}: "
        "delete them and wait until they are gone",
    )
    assert [each["id"] for each in listed["value"]] == [made["id"]]
    assert gone["value"] == {}
    until_gone(running, path)
    left, last = calls(["deleteProgram", program["id"]], ["listPrograms"])
    assert left["value"] == {} and program["id"] not in [each["id"] for each in last["value"]]


def test_a_network_holds_the_production_environment(running: Running, calls: Calls) -> None:
    """As the engine gets there: the infrastructure ready, then gone; only then the library may delete the environment."""
    tenant = f"/api/tenant/{running.dev['account_id']}/programs"
    program = raw(running, "POST", tenant, {"name": "Networked", "type": "aem_cloud_service"})[1]
    new = {"name": "prod", "type": "prod", "region": "va7"}
    place = raw(running, "POST", f"/api/program/{program['id']}/environments", new)[1]
    place_path = place["_links"]["self"]["href"]
    until(running, place_path, "ready")
    ways = f"/api/program/{program['id']}/networkInfrastructures"
    status, way = raw(running, "POST", ways, {"kind": "flexiblePortEgress", "region": "va7"})
    assert (status, way["status"]) == (201, "creating")
    way_path = way["_links"]["self"]["href"]
    until(running, way_path, "ready")
    kept = calls(["deleteEnvironment", program["id"], place["id"]])[0]
    assert told(kept)[1] == (
        f"Validation Error(s): network infrastructure {way['id']} needs the production environment: delete it first"
    )
    assert raw(running, "DELETE", way_path)[0] in (200, 204)
    until_gone(running, way_path)
    assert calls(["deleteEnvironment", program["id"], place["id"]])[0]["value"] == {}
    until_gone(running, place_path)
    assert calls(["deleteProgram", program["id"]])[0]["value"] == {}


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A server that forwards may lead to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        yield listening


def leads_to(address: str, target: socket.socket) -> bool:
    """Return whether what a target says comes out of a tunnel address."""
    with socket.create_connection((address, 30465), timeout=30) as client, target.accept()[0] as server:
        server.sendall(b"220 here\r\n")
        return client.recv(100) == b"220 here\r\n"


def test_the_life_of_environments(running: Running, calls: Calls, mine: list[str], target: socket.socket) -> None:
    """Each has a tunnel address of its own that leads where it says, until the library has taken it away."""
    addresses: list[str] = []
    places: list[str] = []
    for name in ("dev-1", "dev-2"):
        new = {"name": name, "type": "dev", "region": "va7"}
        made = raw(running, "POST", f"/api/program/{mine[0]}/environments", new)[1]
        path = made["_links"]["self"]["href"]
        places.append(path)
        until(running, path, "ready")
        forward = {"name": "127.0.0.1", "portDest": target.getsockname()[1], "portOrig": 30465}
        assert raw(running, "PUT", f"{path}/advancedNetworking", {"portForwards": [forward]})[0] == 200
        until(running, path, "ready")
        (shown,) = raw(running, "GET", f"{path}/advancedNetworking")[1]["_embedded"]["networkingConfigurations"]
        addresses.append(shown["tunnelAddress"])
        assert leads_to(shown["tunnelAddress"], target)
    assert len({*addresses, running.dev["tunnel_address"]}) == 3
    network = ip_network(tomllib.loads(running.config.read_text())["egress"]["tunnel_network"])
    assert all(ip_address(address) in network for address in addresses)
    kept, *gone = calls(
        ["deleteEnvironment", *mine], *(["deleteEnvironment", mine[0], path.rpartition("/")[2]] for path in places)
    )
    assert told(kept)[0] == "ERROR_DELETE_ENVIRONMENT"
    assert told(kept)[1].startswith("Validation Error(s): network infrastructure ")
    assert told(kept)[1].endswith(" needs the production environment: delete it first")
    assert [result.get("value") for result in gone] == [{}, {}]
    for path, address in zip(places, addresses, strict=True):
        until_gone(running, path)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 30465), timeout=30)


def test_hostile_octets_get_an_answer_and_harm_nothing(running: Running, calls: Calls, mine: list[str]) -> None:
    """Over a socket, past every client's care."""
    dev = running.dev
    host, _, port = dev["cloud_manager_url"].partition("//")[2].partition("/")[0].rpartition(":")
    base = "/cloud-manager/api/program"
    head = (
        f"Host: {host}:{port}\r\nAuthorization: Bearer {dev['token']}\r\nx-api-key: {dev['api_key']}\r\n"
        f"x-gw-ims-org-id: {dev['org_id']}\r\nContent-Type: application/json\r\n"
    )
    variables = f"PATCH {base}/{mine[0]}/environment/{mine[1]}/variables HTTP/1.1\r\n{head}"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    for request, statuses in (
        (f"GET {base}/%00%ff HTTP/1.1\r\n{head}\r\n".encode(), {404}),
        (f"GET {base}/{'9' * 9000} HTTP/1.1\r\n{head}\r\n".encode(), {404}),
        (f"GET {base}/\xff HTTP/1.1\r\n{head}\r\n".encode("latin-1"), {400, 404}),
        (f"{variables}Content-Length: 99999999999\r\n\r\n".encode(), {413}),
        (f"{variables}Content-Length: 10\r\nContent-Encoding: br\r\n\r\n".encode() + b"0123456789", {415}),
        (f"{variables}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 65, {413}),
        (f"{variables}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(), {400}),
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            answer = connection.recv(65_536).decode("latin-1")
        assert int(answer.split(" ", 2)[1]) in statuses, (request[:80], answer)
    assert calls(["getEnvironmentVariables", *mine])[0]["value"] == []


def test_what_the_page_says_works(running: Running, calls: Calls) -> None:
    """The calls of `docs/api.md`, by a shell; the library then finds what they made."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    section = page.partition("\n## A program, an environment, its variables\n")[2].partition("\n## ")[0]
    text = section.partition("```sh\n")[2].partition("```")[0]
    keys = ("token", "api_key", "org_id", "account_id", "cloud_manager_url")
    done = run(["sh", "-euc", text], env={**os.environ, **{key.upper(): running.dev[key] for key in keys}})
    assert done.returncode == 0, done.stderr + done.stdout
    shown = json.loads(done.stdout)
    assert [(each["name"], each.get("value")) for each in shown["_embedded"]["variables"]] == [
        ("EMAIL_PASSWORD", None),
        ("EMAIL_USERNAME", "myApiKey"),
    ]
    program, environment = shown["_links"]["self"]["href"].split("/")[3:6:2]
    (variables,) = calls(["getEnvironmentVariables", program, environment])
    assert plain(variables["value"]) == plain(shown["_embedded"]["variables"])
