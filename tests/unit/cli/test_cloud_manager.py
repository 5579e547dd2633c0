"""`outgate cloudmanager:…`, against a server that is as the vendor's, and against the real API."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from outgate.cli import cli, cloud_manager
from outgate.cli.calling import WRONG_USE
from outgate.cli.cloud_manager import settle
from outgate.cli.variable_documents import read_json
from outgate.cli.variable_options import VALIDATION
from outgate.cloud_manager import CloudManager
from support.api_service import Service
from support.vendor_cloud_manager import BASE, CLIENT, ORG, TOKEN, Answer, Vendor, vendor

from .conftest import Outgate

SET, LIST = "cloudmanager:set-environment-variables", "cloudmanager:list-environment-variables"
GET, PATCH = ("GET", f"{BASE}/variables"), ("PATCH", f"{BASE}/variables")
Run = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[Vendor]:
    with vendor("/cloud-manager") as running:
        yield running


@pytest.fixture
def settings(server: Vendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The vendor's settings for the server, in force."""
    found = {
        "AIO_CLOUDMANAGER_BASE__URL": server.url,
        "AIO_CLOUDMANAGER__ORGID": ORG,
        "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": TOKEN,
        "OUTGATE_DATA": str(tmp_path / "none"),
        "COLUMNS": "200",
    }
    for name, text in found.items():
        monkeypatch.setenv(name, text)
    return found


@pytest.fixture
def run(settings: dict[str, str]) -> Run:
    """The command line in this process; what it reads is `typed`."""

    def made(*arguments: str, typed: str | bytes = b"") -> Result:
        # Without the other commands it is built in a tenth of the time.
        return CliRunner().invoke(cloud_manager.commands, list(arguments), input=typed)

    return made


def dev_json(folder: Path, url: str) -> None:
    """Write what a running `outgate dev` would, with its Cloud Manager at `url`."""
    names = ("account_id", "instance_id", "event_notifications_url", "restrictions_url", "identity_url", "sandbox_url")
    dev = dict.fromkeys(names, "x") | {"token": TOKEN, "org_id": ORG, "cloud_manager_url": url}
    (folder / "dev.json").write_text(json.dumps(dev))


def told(result: Result) -> str:
    return result.stderr


@pytest.mark.parametrize("name", [SET, "cloudmanager:environment:set-variables"])
def test_the_line_of_the_documentation(run: Run, server: Vendor, name: str) -> None:
    server.variables = [{"name": "OLD_ONE", "type": "secretString", "value": "old", "status": "ready"}]
    result = run(
        *(name, "--programId=4", "10", "--variable", "EMAIL_USERNAME", "me", "--secret", "EMAIL_PASSWORD", "pa$$"),
        *("--delete", "OLD_ONE"),
    )
    assert (result.exit_code, told(result)) == (0, "")
    assert server.calls() == [GET, PATCH, GET]
    assert server.bodies() == [
        [
            {"name": "EMAIL_USERNAME", "type": "string", "value": "me"},
            {"name": "EMAIL_PASSWORD", "type": "secretString", "value": "pa$$"},
            {"name": "OLD_ONE", "type": "secretString", "value": ""},
        ]
    ]
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["name", "type", "value", "service", "status"],
        ["EMAIL_USERNAME", "string", "me", "ready"],
        ["EMAIL_PASSWORD", "secretString", "****", "ready"],
    ]


def test_every_service_has_its_own_options_in_the_vendors_order(run: Run, server: Vendor, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from file\r\n")
    file = str(tmp_path / "pw")
    server.variables = [
        {"name": "GONE", "type": "string", "value": "x", "status": "ready", "service": service}
        for service in ("author", "publish", "preview")
    ]
    arguments: list[str] = []
    for service in ("preview", "publish", "author"):
        arguments += [f"--{service}Delete", "GONE", f"--{service}SecretFile=FILED", file]
        arguments += [f"--{service}Secret", "HIDDEN", "s", f"--{service}Variable", "AB", "1", "CD", "2"]
    result = run(SET, "e10", "-p", "4", *arguments, "-d", "NOBODY", "-vEF", "true", "-s", "GH", "-x")
    assert result.exit_code == 0, result.output
    assert told(result) == "outgate: warning: NOBODY is not there and will not be deleted\n"
    (sent,) = server.bodies()
    assert [(each.get("service", ""), each["type"], each["name"], each["value"]) for each in sent] == [
        ("", "string", "EF", "true"),
        ("", "secretString", "GH", "-x"),
        *(
            (service, *rest)
            for service in ("author", "publish", "preview")
            for rest in (
                ("string", "AB", "1"),
                ("string", "CD", "2"),
                ("secretString", "HIDDEN", "s"),
                ("secretString", "FILED", "from file"),
                ("string", "GONE", ""),
            )
        ),
    ]


@pytest.mark.parametrize("way", ["--jsonStdin", "--jsonFile", "--yamlStdin", "--yamlFile"])
def test_documents(run: Run, server: Vendor, tmp_path: Path, way: str) -> None:
    server.variables = [{"name": "TYPED", "type": "secretString", "value": "old", "status": "ready"}]
    entries = [
        {"name": "AB", "value": "from the document"},
        {"name": "AB", "value": "1", "service": "publish"},
        {"name": "TYPED", "value": "new"},
        {"name": "NOBODY", "value": ""},
    ]
    text = json.dumps(entries) if "json" in way else yaml.safe_dump(entries)
    (tmp_path / "vars").write_text(text)
    place = [way] if "Stdin" in way else [way, str(tmp_path / "vars")]
    result = run(SET, "10", "-p", "4", *place, "-v", "AB", "from the option", typed=text)
    assert result.exit_code == 0, result.output
    assert "NOBODY is not there" in told(result)
    assert server.bodies() == [
        [
            {"name": "AB", "type": "string", "value": "from the option"},
            {"name": "AB", "type": "string", "value": "1", "service": "publish"},
            {"name": "TYPED", "type": "secretString", "value": "new"},
        ]
    ]


def test_nothing_to_do_is_no_request_to_change(run: Run, server: Vendor) -> None:
    result = run(SET, "10", "-p", "4", "-d", "NOBODY")
    assert result.exit_code == 0 and "No variables to set or delete." in told(result)
    assert server.calls() == [GET, GET]


@pytest.mark.parametrize("name", [LIST, "cloudmanager:environment:list-variables"])
def test_lists(run: Run, server: Vendor, name: str) -> None:
    server.variables = [
        {"name": "AB", "type": "string", "value": "a\x1b[31mb", "service": "author", "status": "ready"},
        {"name": "CD", "type": "secretString", "value": "s3cr3t", "status": "updating"},
    ]
    rows = [
        {"name": "AB", "type": "string", "value": "a\x1b[31mb", "service": "author", "status": "ready"},
        {"name": "CD", "type": "secretString", "value": "****", "service": "", "status": "updating"},
    ]
    table, as_json, as_yaml = (run(name, "10", "-p", "4", *form) for form in ([], ["--json"], ["-y"]))
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout) == rows
    assert all("\x1b" not in each.output and "s3cr3t" not in each.output for each in (table, as_json, as_yaml))
    # What is printed can be sent back: a mask is told from a secret.
    back = run(SET, "10", "-p", "4", "--jsonStdin", typed=as_json.stdout)
    assert back.exit_code == 3 and "CD: the value is the mask" in told(back)


def test_a_long_value_on_a_terminal(run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    server.variables = [
        {"name": name, "type": "string", "value": value, "status": "ready"}
        for name, value in (("AB", "x" * 2048), ("CD", "1"))
    ]
    assert len(run(LIST, "10", "-p", "4").stdout.splitlines()[1]) > 2048
    monkeypatch.setattr(cloud_manager, "columns", lambda: 80)
    lines = run(LIST, "10", "-p", "4").stdout.splitlines()
    assert [len(line) for line in lines] == [80, 79, 79] and lines[1].endswith(
        "x\N{HORIZONTAL ELLIPSIS}           ready"
    )


def test_networking(run: Run, server: Vendor) -> None:
    forward = {"name": "smtp.a.example", "portDest": 465, "portOrig": 30465}
    server.networking = [
        {"advancedNetworkingEnabled": True, "nonProxyHosts": ["*.b.example"], "portForwards": [forward]}
    ]
    shown = run("cloudmanager:show-environment-networking", "10", "-p", "4")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["advanced", "networking", "enabled"],
        ["not", "proxied", "*.b.example"],
        ["portOrig", "name", "portDest"],
        ["30465", "smtp.a.example", "465"],
    ]
    as_json = run("cloudmanager:environment:show-networking", "10", "-p", "4", "--json")
    assert json.loads(as_json.stdout) == server.networking[0]
    server.networking = []
    none = run("cloudmanager:show-environment-networking", "10", "-p", "4")
    assert "not enabled" in none.stdout and "none" in none.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        # 2: wrong use or configuration.
        (["10", "-p", "4", "--frobnicate"], 2, "an option that this command does not have"),
        (["10", "11", "-p", "4"], 2, "more is given than one environment"),
        (["10", "-p", "4", "-j", "-y"], 2, "--json and --yaml exclude each other"),
        (["10", "-p", "4", "--jsonStdin", "--yamlFile", "x"], 2, "--jsonStdin and --yamlFile exclude each other"),
        (["10", "-p", "4", "--jsonFile", "nowhere/x"], 2, "nowhere/x cannot be read: No such file"),
        (["10", "-p", "4", "--jsonFile="], 2, "--jsonFile needs a path"),
        (["10", "-p", "4", "--secretFile", "AB", "nowhere/x"], 2, "--secretFile AB: its file cannot be read: No such file"),
        (["10", "-p", "4", "--wait", "x"], 2, "--wait"),
        (["10", "-p", "4", "--data", "nowhere"], 2, "dev.json is not there"),
        (["10", "-p", "4", "--data", "nowhere", "--imsContextName", "x"], 2, "exclude each other"),
        # 3: validation.
        (["10", "-p", "4", "-v", "AB"], 3, "--variable lacks a value"),
        (["10", "-p", "4", "-v", "AB", ""], 3, "a value is empty: give one, or delete the variable"),
        (["10", "-p", "4", "-v", "1B", "x"], 3, "what stands as a name is none"),
        (["10", "-p", "4", "-v", "AB", "x", "-s", "AB", "y"], 3, "AB stands twice"),
        (["10", "-p", "4", "-v", "AB", "x", "-d", "AB"], 3, "AB stands twice"),
        (["10", "-p", "4", "--strict", "-v", "INTERNAL_A", "x"], 3, "INTERNAL_ are reserved"),
        (["10", "-p", "4", "--secretFile", "AB", os.devnull], 3, "a value is empty"),
        (["10", "-p", "4", "--jsonFile", os.devnull], 3, f"{os.devnull}: line 1, column 1: expected an array"),
        (["10"], 3, "which program? Give --programId"),
        (["-p", "4"], 3, "which environment? Give ENVIRONMENT_ID"),
        (["10", "-p", "p4"], 3, "--programId must be the program's number"),
        (["10x", "-p", "4"], 3, "ENVIRONMENT_ID must be the environment's number"),
        # 10: the token.
        (["10", "-p", "4", "--imsContextName", "other"], 10, "there is no access token (ims.contexts.other"),
        # 30: the API.
        (["11", "-p", "4"], 30, "refused (404)"),
    ],
)  # fmt: skip
def test_exit_codes(run: Run, server: Vendor, arguments: list[str], code: int, words: str) -> None:
    result = run(SET, *arguments)
    assert (result.exit_code, words in told(result)) == (code, True), result.output
    assert PATCH not in server.calls() and "Traceback" not in result.output


def test_a_token_that_is_over_or_none(run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY", "1000000000000")
    result = run(LIST, "10", "-p", "4")
    assert result.exit_code == 10 and "over since 2001-09-09 01:46 UTC" in told(result)
    monkeypatch.delenv("AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY")
    monkeypatch.setenv("AIO_CLOUDMANAGER__ORGID", "")
    result = run(LIST, "10", "-p", "4")
    assert result.exit_code == 2 and "AIO_CLOUDMANAGER__ORGID" in told(result)
    assert server.calls() == []


def test_program_and_environment_from_the_settings(run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_CLOUDMANAGER__PROGRAMID", "4")
    monkeypatch.setenv("AIO_CLOUDMANAGER__ENVIRONMENTID", "e10")
    assert run(SET, "-v", "AB", "1").exit_code == 0
    assert server.calls() == [GET, PATCH, GET]


def test_names_are_taken_strictly_by_a_setting(run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_CLOUDMANAGER_ENVIRONMENTVARIABLES_STRICTVALIDATION", "true")
    result = run(SET, "10", "-p", "4", "-v", "INTERNAL_A", "x")
    assert result.exit_code == 3 and "INTERNAL_ are reserved" in told(result) and server.bodies() == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, {"error_code": "401013", "message": "Oauth token is not valid"}), "(401): Oauth token is not valid (Code: 401013) (x-request-id req-2). Get a new token"),
        (Answer(403, {"error_code": "403003", "message": "Api Key is invalid"}), "Deployment Manager"),
        (Answer(400, {"errors": {"f": {"field": "patchEnvironmentVariables.arg2[0].value", "message": "is wrong", "invalidValue": "s3cr3t"}}}, media="application/problem+json"), "(400): AB: value is wrong"),
        (Answer(409, {"errors": [{"code": "moving", "message": "the environment is updating"}]}), "the environment is updating"),
        (Answer(500, b""), "(500): Internal Server Error"),
        (Answer(204, None, {"x": "y"}), ""),
    ],
)  # fmt: skip
def test_what_the_server_says_to_the_change(run: Run, server: Vendor, answer: Answer, words: str) -> None:
    server.answers = [None, answer]
    result = run(SET, "10", "-p", "4", "-s", "AB", "s3cr3t")
    assert result.exit_code == (30 if words else 0)
    assert words in told(result) and "s3cr3t" not in result.output


def test_a_change_whose_answer_makes_no_sense_may_have_been_made(run: Run, server: Vendor) -> None:
    server.answers = [None, Answer(200, b"<html>")]
    result = run(SET, "10", "-p", "4", "-s", "AB", "s3cr3t")
    assert result.exit_code == 30
    assert (
        "Whether anything was changed is not known: `outgate cloudmanager:list-environment-variables 10 --programId=4`"
        in told(result)
    )


def test_a_list_that_fails_after_the_change_says_that_it_was_made(run: Run, server: Vendor) -> None:
    server.answers = [None, None, Answer(503, {"title": "Service Unavailable"})]
    result = run(SET, "10", "-p", "4", "-v", "AB", "x")
    assert result.exit_code == 30 and "the variables were sent, but Cloud Manager refused (503)" in told(result)


def test_nobody_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_CLOUDMANAGER_BASE__URL", "http://127.0.0.1:1")
    result = run(LIST, "10", "-p", "4")
    assert result.exit_code == 30 and "cannot be reached" in told(result)


def test_warnings_come_before_what_is_sent(run: Run, server: Vendor) -> None:
    server.answers = [None, Answer(500, {})]
    result = run(SET, "10", "-p", "4", "-v", "API_KEY", "x", "AEM_PROXY_HOST", "h", "CONST_A", "x")
    first, second, third, last = told(result).splitlines()
    assert first.startswith("outgate: warning: API_KEY looks like a secret")
    assert second.startswith("outgate: warning: AEM_PROXY_HOST is set by the environment's tunnel")
    assert third.startswith("outgate: warning: CONST_A: names that begin with CONST_ are reserved")
    assert "refused (500)" in last


def test_a_person_is_asked_for_a_secret_and_does_not_see_it(settings: dict[str, str], server: Vendor) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "outgate.cli", SET, "10", "-p", "4", "--secretFile", "AB", "-"]
    # In a session of its own there is no /dev/tty: the terminal is standard input.
    asking = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | settings,
        start_new_session=True,
    )
    assert asking.stderr is not None
    said = b""
    while not said.endswith(b"AB: "):
        part = asking.stderr.read(1)
        assert part, said
        said += part
    os.write(ours, b"typed in\n")
    out, _ = asking.communicate(timeout=60)
    assert (asking.returncode, b"typed in" in out) == (0, False)
    assert server.bodies()[0][0]["value"] == "typed in"
    os.close(theirs)
    echoed = b""
    with contextlib.suppress(OSError):
        echoed = os.read(ours, 100)
    os.close(ours)
    assert b"typed in" not in echoed


def test_standard_input_can_be_read_once(run: Run, server: Vendor) -> None:
    for more in (["--jsonStdin"], ["--authorSecretFile", "AB", "-"]):
        result = run(SET, "10", "-p", "4", "--secretFile", "AB", "-", *more, typed="s3cr3t")
        assert result.exit_code == 2 and "cannot both have standard input" in told(result)
    assert server.calls() == []


@pytest.mark.parametrize("typed", ["tok en\n", "tok en", "tok en\r\n"])
def test_a_secret_from_standard_input(run: Run, server: Vendor, typed: str) -> None:
    assert run(SET, "10", "-p", "4", "--secretFile", "AB", "-", typed=typed).exit_code == 0
    assert server.bodies() == [[{"name": "AB", "type": "secretString", "value": "tok en"}]]


@pytest.mark.parametrize("arguments", [["AB", "s3cr3t"], ["s3cr3t!", "AB"], ["AB", "s3cr3t\0"]])
def test_a_secret_in_the_place_of_its_file_is_not_repeated(run: Run, arguments: list[str]) -> None:
    result = run(SET, "10", "-p", "4", "--secretFile", *arguments)
    assert result.exit_code == 2 and "cannot be read" in told(result) and "s3cr3t" not in result.output


def test_standard_input_that_is_closed(settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "outgate.cli", SET, "10", "-p", "4"]
    for way, words in ((["--secretFile", "AB", "-"], b"a value is empty"), (["--jsonStdin"], b"expected an array")):
        done = subprocess.run(
            [*command, *way], capture_output=True, env=os.environ | settings, timeout=60, preexec_fn=lambda: os.close(0)
        )
        assert done.returncode == 3 and words in done.stderr, done.stderr


def test_a_secret_that_is_no_text(run: Run, server: Vendor) -> None:
    result = run(SET, "10", "-p", "4", "--secretFile", "AB", "-", typed=b"s3cr3t\xff")
    assert result.exit_code == 3 and "--secretFile AB is not UTF-8" in told(result) and "s3cr3t" not in result.output


def test_a_value_that_is_no_text_in_a_process_of_its_own(settings: dict[str, str], server: Vendor) -> None:
    command = [sys.executable, "-m", "outgate.cli", SET, "10", "-p", "4", "-s", "AB"]
    environment = os.environ | settings
    wrong = subprocess.run([*command, b"s3cr3t\xff"], capture_output=True, env=environment, timeout=60)
    assert wrong.returncode == 3 and b"not UTF-8 text" in wrong.stderr and b"s3cr3t" not in wrong.stderr
    right = subprocess.run([*command, "pässwörd ✓".encode()], capture_output=True, env=environment, timeout=60)
    assert right.returncode == 0, right.stderr
    assert server.bodies()[0][0]["value"] == "pässwörd ✓"


def test_waiting_until_the_environment_has_them(run: Run, server: Vendor) -> None:
    server.rounds = 1
    result = run(SET, "10", "-p", "4", "-v", "AB", "1", "--wait", "60")
    assert result.exit_code == 0, result.output
    assert server.calls() == [GET, PATCH, ("GET", BASE), GET, GET]
    assert result.stdout.split()[-1] == "ready"


def test_waiting_until_the_environment_takes_them(run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_manager, "_POLL_S", 0.0)
    moving = Answer(409, {"errors": [{"code": "moving", "message": "the environment is \x1bupdating"}]})
    server.answers = [None, moving, moving]
    result = run(SET, "10", "-p", "4", "-v", "AB", "1", "--wait", "60")
    assert result.exit_code == 0 and server.calls() == [GET, PATCH, PATCH, PATCH, ("GET", BASE), GET, GET]
    assert told(result) == "outgate: the environment is \N{REPLACEMENT CHARACTER}updating; waiting\n"
    # Nothing else is tried again, and not for ever.
    for answer, wait in ((moving, ("--wait", "0")), (Answer(503, {}), ("--wait", "60"))):
        server.requests, server.answers = [], [None, answer]
        result = run(SET, "10", "-p", "4", "-v", "AB", "1", *wait)
        assert result.exit_code == 30 and server.calls() == [GET, PATCH]


def test_an_interruption_says_what_is_known_of_the_change(
    run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cloud_manager, "settle", interrupted)
    result = run(SET, "10", "-p", "4", "-v", "AB", "1", "--wait", "60")
    assert (result.exit_code, told(result)) == (130, "outgate: the variables were sent, but this was interrupted\n")
    monkeypatch.setattr(CloudManager, "set_variables", interrupted)
    folder = tmp_path / "a b"
    folder.mkdir()
    dev_json(folder, server.url)
    result = run(SET, "e10", "-p", "4", "-v", "AB", "1", "--data", str(folder))
    command = f"outgate {LIST} 10 --programId=4 '--data={folder}'"
    assert result.exit_code == 130
    assert f"interrupted. Whether anything was changed is not known: `{command}` shows it" in told(result)


class Slept:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(server: Vendor, seconds: float) -> float:
    slept = Slept()
    settle(CloudManager(server.url, ORG, CLIENT, TOKEN), "4", "10", seconds, clock=lambda: slept.now, sleep=slept.sleep)
    return slept.now


def test_waiting_takes_as_long_as_it_takes(server: Vendor, capsys: pytest.CaptureFixture[str]) -> None:
    server.status, server.rounds = "updating", 4
    server.variables = [{"name": "AB", "type": "string", "value": "1", "status": "updating"}]
    assert waited(server, 60) == 15
    # Said once, not each time.
    assert capsys.readouterr().err == "outgate: the environment is updating; under way: AB\n"


@pytest.mark.parametrize(
    ("status", "variable", "words"),
    [
        ("updating", "ready", "the environment is updating, after 12 seconds still"),
        ("ready", "updating", "the environment is ready; under way: AB, after 12 seconds still"),
        ("failed", "ready", "the environment is failed"),
        ("ready", "failed", "the environment is ready; failed: AB"),
    ],
)
def test_waiting_for_what_does_not_come(
    server: Vendor, capsys: pytest.CaptureFixture[str], status: str, variable: str, words: str
) -> None:
    server.status = status
    server.variables = [{"name": "AB", "type": "string", "value": "1", "status": variable}]
    with pytest.raises(typer.Exit) as ended:
        waited(server, 12)
    assert ended.value.exit_code == 1 and capsys.readouterr().err.splitlines()[-1] == f"outgate: {words}"


def test_help_reads_well(run: Run) -> None:
    said = run(SET, "--help").stdout
    for part in ("--programId", "-v", "NAME VALUE", "--authorSecretFile", "--yamlStdin", "For one service only"):
        assert part in said
    every = CliRunner().invoke(cli, ["--help"]).stdout
    assert SET in every and LIST in every and "cloudmanager:environment" not in every


PAGE = (Path(__file__).parents[3] / "docs" / "variables.md").read_text("utf-8")


def test_the_lines_of_the_page_work(run: Run, server: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password.txt").write_text("pa$$\n")
    server.variables = [{"name": "OLD_ONE", "type": "string", "value": "x", "status": "ready"}]
    block = PAGE.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    lines = block.replace("PROGRAM_ID", "4").replace("ENVIRONMENT_ID", "10").splitlines()
    assert len(lines) == 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "outgate"
        result = run(*arguments)
        assert (result.exit_code, told(result)) == (0, "")
    assert [each["name"] for each in server.variables] == ["EMAIL_USERNAME", "EMAIL_PASSWORD"]
    document = PAGE.partition("```json\n")[2].partition("```")[0]
    assert len(read_json(document.encode(), "page")) == 3


def test_the_page_names_what_there_is(run: Run) -> None:
    said = run(SET, "--help").stdout
    options = set(re.findall(r"--[a-zA-Z]+", PAGE)) - {"--abc"}
    assert len(options) > 12 and all(option in said for option in options)
    codes = re.findall(r"^\| ([0-9]+) \|", PAGE, re.MULTILINE)
    assert [int(code) for code in codes] == [
        0,
        cloud_manager.GENERIC,
        WRONG_USE,
        VALIDATION,
        cloud_manager.TOKEN,
        cloud_manager.API,
    ]


# Against the real API


@pytest.fixture(scope="module")
def placed(service: Service) -> Service:
    """The service with a program and an environment."""
    store = service.store.egress
    store.add_program("org@AdobeOrg", service.account_id, "Shop", program_id="4")
    where = {"tunnel_address": "127.1.0.10", "client_networks": ["127.0.0.0/8"], "environment_id": "10"}
    store.add_environment("4", "prod", kind="prod", region="va7", **where)
    return service


@pytest.mark.usefixtures("placed")
def test_the_real_api(outgate: Outgate) -> None:
    result = outgate(SET, "10", "-p", "4", "-v", "AB", "1", "INTERNAL_A", "x", "-s", "CD", "s3cr3t", roles=("manager",))
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["AB", "string", "1", "ready"],
        ["CD", "secretString", "****", "ready"],
        ["INTERNAL_A", "string", "x", "ignored"],
    ]
    refused = outgate(SET, "10", "-p", "4", "-v", "AEM_PROXY_HOST", "here", roles=("manager",))
    assert refused.exit_code == 30
    assert "AEM_PROXY_HOST: name (AEM_PROXY_HOST) is reserved: the environment's tunnel sets it" in refused.stderr
    gone = outgate(SET, "e10", "-p4", "-d", "AB", "CD", "INTERNAL_A", "--json", roles=("manager",))
    assert (gone.exit_code, json.loads(gone.stdout)) == (0, [])
    reader = outgate(SET, "10", "-p", "4", "-v", "AB", "1", roles=("reader",))
    assert reader.exit_code == 30 and "403027" in reader.stderr


@pytest.mark.usefixtures("placed")
def test_both_are_there_and_one_is_said(
    outgate: Outgate, settings: dict[str, str], server: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTGATE_DATA", str(tmp_path))
    theirs = outgate(LIST, "10", "-p", "4")
    assert theirs.exit_code == 0 and len(server.requests) == 1
    assert f"asks {server.url}, which the AIO_ variables name; --data asks the outgate dev" in theirs.stderr
    ours = outgate(LIST, "10", "-p", "4", "--data", str(tmp_path))
    assert ours.exit_code == 0 and len(server.requests) == 1 and ours.stderr == ""


def test_the_token_of_another_is_not_sent_to_the_other(
    run: Run, server: Vendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dev_json(tmp_path, "http://127.0.0.1:1")
    monkeypatch.setenv("OUTGATE_DATA", str(tmp_path))
    monkeypatch.delenv("AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN")
    result = run(LIST, "10", "-p", "4")
    assert result.exit_code == 10 and server.calls() == []
