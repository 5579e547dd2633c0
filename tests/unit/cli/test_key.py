"""`outgate key`, against the API."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from outgate.api.identity.roles import ALL_ROLES
from outgate.cli import cli
from outgate.cli.key import Role
from support.api_service import Service

from .conftest import Outgate, Process


def failed(result: Result, code: int, *says: str) -> None:
    """Check an error: its exit code, its words on standard error, and nothing else there or on standard output."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    for words in says:
        assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_roles_are_those_of_the_api() -> None:
    assert tuple(role.value for role in Role) == ALL_ROLES


def test_a_key_is_printed_once_and_alone(outgate: Outgate, service: Service) -> None:
    made = outgate(
        "key", "create", "ci", "--role", "reader", "--role", "writer", "--expires", "90d", "--description", "d"
    )
    assert made.exit_code == 0, made.output
    clear = made.stdout.strip()
    assert "\n" not in clear
    key = service.store.identity.find_api_key(clear)
    assert key is not None
    assert (key.name, key.roles, key.description) == ("ci", {"reader", "writer"}, "d")
    assert key.expires_at is not None and 89 < (key.expires_at - service.clock.now()) / 86_400 < 91
    assert key.id in made.stderr and "shown only now" in made.stderr
    for arguments in (
        ("key", "list"),
        ("key", "show", key.id),
        ("key", "list", "--json"),
        ("key", "show", key.id, "--json"),
    ):
        shown = outgate(*arguments)
        assert shown.exit_code == 0 and clear not in shown.output
        assert key.id in shown.stdout and "ci" in shown.stdout
    deleted = outgate("key", "delete", key.id)
    assert deleted.exit_code == 0 and "void" in deleted.stdout
    failed(outgate("key", "show", key.id), 1, "there is no API key", key.id)


def test_a_key_for_smtp_is_bound_to_instances(outgate: Outgate, service: Service) -> None:
    made = outgate("key", "create", "mailer", "--role", "smtp", "--instance", service.instance.id)
    assert made.exit_code == 0, made.output
    key = service.store.identity.find_api_key(made.stdout.strip())
    assert key is not None and (key.roles, key.instances) == ({"smtp"}, {service.instance.id})
    assert service.instance.id in outgate("key", "show", key.id).stdout
    outgate("key", "delete", key.id)
    failed(outgate("key", "create", "x", "--role", "smtp", "--instance", "unknown"), 1, "instances[0]", "no instance")
    failed(outgate("key", "create", "x", "--instance", service.instance.id), 1, "instances", "role smtp")


def test_a_key_as_json(outgate: Outgate) -> None:
    made = json.loads(outgate("key", "create", "x", "--json").stdout)
    assert made["apikey"] and made["roles"] == ["reader"] and "expires_at" not in made
    assert json.loads(outgate("key", "show", made["id"], "--json").stdout)["apikey"] == ""


def test_lists_are_whole(outgate: Outgate, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from outgate.store import identity

    monkeypatch.setattr(identity, "MOST_KEYS", 1000)
    for number in range(105):
        service.store.identity.create_api_key(service.account_id, f"many {number}", ["reader"])
    found = json.loads(outgate("key", "list", "--json").stdout)["apikeys"]
    assert sum(key["name"].startswith("many ") for key in found) == 105
    assert len({key["id"] for key in found}) == len(found)
    for key in found:
        if key["name"].startswith("many "):
            service.store.identity.delete_api_key(key["id"])


def test_what_would_steer_the_terminal_is_not_printed(outgate: Outgate, service: Service) -> None:
    service.store.identity.create_api_key(service.account_id, "red \x1b[31m", ["reader"])
    assert "\x1b" not in outgate("key", "list").stdout


def test_wrong_use(outgate: Outgate) -> None:
    wrong = outgate("key", "create", "x", "--role", "boss")
    failed(wrong, 2, "'--role': 'boss' is not one of reader, writer, manager")
    assert "Value error" not in wrong.stderr
    failed(outgate("key", "create"), 2, "Missing argument")
    failed(outgate("key", "create", "x", "--expires", "soon"), 2, "--expires 'soon'", "90d")
    failed(outgate("key", "create", "x", "--expires", "2020-01-01"), 2, "is past")
    failed(outgate("key", "frobnicate"), 2, "No such command")


def test_refusals_are_said_in_the_apis_words(outgate: Outgate) -> None:
    failed(outgate("key", "create", "x", roles=("reader",)), 1, "needs one of the roles manager")
    failed(outgate("key", "create", "x", "--role", "operator"), 1, "a role that he lacks", "operator")
    failed(outgate("key", "create", "x", "--expires", "5000d"), 1, "within ten years")
    failed(outgate("key", "create", "x" * 251, "--description", "a\nb"), 1, "'name'", "; 'description'")
    failed(outgate("key", "show", "ApiKey-00000000-0000-0000-0000-000000000000"), 1, "there is no API key")


@pytest.mark.parametrize("verb", ["show", "delete"])
@pytest.mark.parametrize("name", ["", "details", "../zones?x", "ApiKey-", "\udcff", "ApiKey-0/../details"])
def test_what_is_no_id_leads_nowhere(outgate: Outgate, verb: str, name: str) -> None:
    failed(outgate("key", verb, name), 2, "is not the id of a key", "outgate key list")


def test_what_would_steer_the_terminal_is_escaped_in_json(outgate: Outgate, service: Service) -> None:
    name = "red \x1b[31m \x7f \x9b31m \u202e \u2028 \U000e0001 é \u2603 \U0001f600"
    key, _ = service.store.identity.create_api_key(service.account_id, name, ["reader"])
    shown = outgate("key", "show", key.id, "--json").stdout
    assert all(sign.isprintable() or sign == "\n" for sign in shown) and "é \u2603 \U0001f600" in shown
    assert json.loads(shown)["name"] == name


def test_a_terminal_that_lacks_a_sign(process: Process, service: Service) -> None:
    name = "snow é \u2603 \U0001f600"
    key, _ = service.store.identity.create_api_key(service.account_id, name, ["reader"])
    narrow = {"env": os.environ | {"PYTHONIOENCODING": "ascii"}}
    done = process("key", "list", **narrow)
    assert (done.returncode, done.stderr) == (0, "")
    assert "snow \\xe9 \\u2603 \\U0001f600" in done.stdout
    as_json = process("key", "show", key.id, "--json", **narrow)
    assert json.loads(as_json.stdout)["name"] == name


def test_nobody_is_there(tmp_path: Path) -> None:
    failed(CliRunner().invoke(cli, ["key", "list", "--data", str(tmp_path)]), 3, "dev.json is not there", "outgate dev")


def test_the_api_is_not_there(outgate: Outgate, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "base", "http://127.0.0.1:1")
    failed(outgate("key", "list"), 3, "does not answer", "outgate dev")


def test_the_dev_json_of_another(outgate: Outgate, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "token", lambda *_: "a.b.c")
    failed(outgate("key", "list"), 1, "not one of ours: another `outgate dev` than that of dev.json answers", "--data")
