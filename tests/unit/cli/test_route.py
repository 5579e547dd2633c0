"""`outgate route`, against the API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outgate.model.tenancy import SmtpConfiguration
from outgate.relay.sources import Source
from outgate.store.keys import new_dkim_key
from support.api_service import SOURCES, Service
from support.ports import closed_port

from .conftest import Outgate, Process

OPERATOR = ("reader", "operator")


@pytest.fixture(scope="module")
def configuration(service: Service) -> SmtpConfiguration:
    tenancy = service.store.tenancy
    return tenancy.create_configuration(service.instance.id, name="n", domain="routes.test", description="", key=new_dkim_key())  # fmt: skip


def order(port: int) -> dict[str, object]:
    smart = {"name": "primary", "type": "smart_host", "host": "127.0.0.1", "port": port, "tls": "none"}
    return {"routes": [smart, {"name": "direct", "type": "direct"}]}


def test_list_set_and_back(outgate: Outgate, configuration: SmtpConfiguration, tmp_path: Path) -> None:
    shown = outgate("route", "list", "routes.test", roles=OPERATOR)
    assert shown.stdout == "routes.test has no routes of its own; it goes by: direct\n"
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(order(2525)))
    done = outgate("route", "set", "routes.test", str(file), roles=OPERATOR)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["NAME", "TYPE", "TO", "TLS", "LOGIN"]
    assert lines[1] == ["primary", "smart_host", "127.0.0.1:2525", "none"]
    file.write_text(outgate("route", "list", configuration.id, "--json", roles=OPERATOR).stdout)
    assert outgate("route", "set", "routes.test", str(file), roles=OPERATOR).exit_code == 0
    done = outgate("route", "set", "routes.test", "--default", "--json", roles=OPERATOR)
    assert json.loads(done.stdout)["routes"] == []


def test_set_from_standard_input(process: Process, outgate: Outgate, configuration: SmtpConfiguration) -> None:
    assert outgate("--version", roles=OPERATOR).exit_code == 0  # whose token the process finds
    done = process("route", "set", "routes.test", "-", "--json", input=json.dumps(order(2525)["routes"]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["in_force"] == ["primary", "direct"]


def test_test_prints_each_step_and_ends_with_1(
    outgate: Outgate, configuration: SmtpConfiguration, tmp_path: Path
) -> None:
    port = closed_port()
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(order(port)))
    outgate("route", "set", "routes.test", str(file), roles=OPERATOR)
    done = outgate("route", "test", "routes.test", "primary", roles=OPERATOR)
    assert done.exit_code == 1
    assert f"connect to 127.0.0.1:{port} from 127.0.0.1" in done.stdout
    assert "route primary does not work (network)" in done.stderr
    found = json.loads(outgate("route", "test", "routes.test", "primary", "--json", roles=OPERATOR).stdout)
    assert found["ok"] is False
    done = outgate("route", "test", "routes.test", "direct", "--domain", "[127.0.0.66]", roles=OPERATOR)
    assert done.exit_code == 1 and "127.0.0.66:25" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("set", "routes.test"), 2, "--default"), (("set", "routes.test", "/nowhere/x.json"), 2, "cannot be read"),
        (("test", "routes.test", "none"), 1, "there is no route 'none'"), (("test", "routes.test", ""), 2, "must not be empty"),
        (("test", "routes.test", "direct"), 1, "'domain' is needed"), (("list", "none.test"), 1, "there is no configuration"),
    ],
)  # fmt: skip
def test_what_goes_wrong(
    outgate: Outgate, configuration: SmtpConfiguration, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = outgate("route", *arguments, roles=OPERATOR)
    assert (done.exit_code, words in done.stderr) == (code, True), done.output


def test_what_is_no_json_or_no_list(outgate: Outgate, configuration: SmtpConfiguration, tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text("{")
    assert outgate("route", "set", "routes.test", str(file), roles=OPERATOR).exit_code == 2
    file.write_text('{"routes": 7}')
    done = outgate("route", "set", "routes.test", str(file), roles=OPERATOR)
    assert done.exit_code == 1 and "routes" in done.stderr


def test_sources_and_health(outgate: Outgate, monkeypatch: pytest.MonkeyPatch) -> None:
    done = outgate("route", "sources", roles=OPERATOR)
    assert done.exit_code == 0 and ["127.0.0.1", "lo", "ready"] in [
        line.split()[:3] for line in done.stdout.splitlines()
    ]
    clock = SOURCES._clock.now()
    monkeypatch.setattr(
        SOURCES, "_known", {"192.0.2.77": Source("192.0.2.77", ("lo",), True, "not there", clock, clock)}
    )
    done = outgate("route", "sources", roles=OPERATOR)
    assert done.exit_code == 1 and "not there" in done.stdout
    assert "192.0.2.77 suspended: give the address to an interface" in done.stderr
    assert (
        json.loads(outgate("route", "sources", "--json", roles=OPERATOR).stdout)["sources"][0]["state"] == "suspended"
    )
    done = outgate("route", "health", roles=OPERATOR)
    assert done.exit_code == 0 and done.stdout.split()[:3] == ["TYPE", "PLACE", "SCORE"]
    assert json.loads(outgate("route", "health", "--json", roles=OPERATOR).stdout) == {"ways": []}
    done = outgate("route", "health", roles=("manager",))
    assert done.exit_code == 1 and "operator" in done.stderr
