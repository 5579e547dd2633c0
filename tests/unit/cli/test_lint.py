"""`outgate doctor --lint`: forms, exit codes, and what a GitHub workflow gets of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from outgate.cli import cli
from outgate.doctor.traps.names import MAIL

CORPUS = Path(__file__).parents[2] / "corpora" / "lint"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A repository with the corpus in `app`, which is the current folder."""
    (tmp_path / ".git").mkdir()
    app = tmp_path / "app"
    for name in ("port-real", "tls-echo", "starttls-optional"):
        shutil.copytree(CORPUS / name, app / name)
    monkeypatch.chdir(app)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    return tmp_path


def lint(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", "--lint", *arguments])


def test_text_and_exit_codes() -> None:
    found = lint("port-real/bad")
    assert found.exit_code == 1 and found.stdout.startswith("port-real/bad/config/") and "::" not in found.stdout
    assert (lint("port-real/good").exit_code, lint("port-real/good").stdout) == (0, "nothing found in 1 file\n")
    assert (lint("tls-echo/bad").exit_code, lint("tls-echo/bad", "--strict").exit_code) == (0, 1)
    assert lint("starttls-optional/bad", "--strict").exit_code == 0  # a note
    assert lint("tls-echo/bad", "port-real/bad").exit_code == 1


def test_nothing_there_is_wrong_use_in_one_line() -> None:
    found = lint("no-such-folder")
    assert found.exit_code == 2 and found.stderr == "outgate: no-such-folder does not exist\n"


def test_a_github_workflow_gets_text_and_annotations_unless_it_asks_for_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    lines = lint("port-real/bad").stdout.splitlines()
    assert lines[0].startswith("port-real/bad/config/") and "1 error in 1 file" in lines
    assert lines[-1].startswith(
        "::error file=app/port-real/bad/config/com.day.cq.mailer.DefaultMailService.cfg.json,line=3,"
    )
    assert "::error" not in lint("port-real/bad", "--format", "text").stdout
    (command,) = lint("port-real/bad", "--format", "github").stdout.splitlines()
    assert command == lines[-1]


def _uri(log: str) -> str:
    (result,) = json.loads(log)["runs"][0]["results"]
    return str(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])


@pytest.mark.parametrize("path", ["port-real/bad", "./port-real/../port-real/bad", "../app/port-real/bad", "absolute"])
def test_viewers_are_told_paths_from_the_top_of_the_repository(_here: Path, path: str) -> None:
    given = path if path != "absolute" else str(_here / "app/port-real/bad")
    expected = f"app/port-real/bad/config/{MAIL}.cfg.json"
    assert _uri(lint(given, "--format", "sarif").stdout) == expected
    assert lint(given, "--format", "github").stdout.startswith(f"::error file={expected},line=3,col=18,")


def test_without_a_repository_the_workspace_of_the_workflow_counts(
    _here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_here / ".git").rmdir()
    assert _uri(lint("port-real/bad", "--format", "sarif").stdout).startswith("port-real/bad/config/")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(_here))
    assert _uri(lint("port-real/bad", "--format", "sarif").stdout).startswith("app/port-real/bad/config/")
    monkeypatch.setenv("GITHUB_WORKSPACE", "/elsewhere")
    assert _uri(lint("port-real/bad", "--format", "sarif").stdout).startswith("port-real/bad/config/")


def test_people_and_programs_are_told_paths_from_the_current_folder(_here: Path) -> None:
    absolute = json.loads(lint(str(_here / "app/port-real/bad"), "--format", "json").stdout)
    assert [each["file"] for each in absolute] == [f"port-real/bad/config/{MAIL}.cfg.json"]


def test_sarif_counts_columns_as_editors_do(_here: Path) -> None:
    folder = _here / "config"
    folder.mkdir()
    (folder / "org.example.Thing.cfg.json").write_text('{"a": "\N{GRINNING FACE}ä", "b": "${env:XY}"}')
    log = json.loads(lint(str(folder), "--format", "sarif").stdout)["runs"][0]
    region = log["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert (log["columnKind"], region) == ("utf16CodeUnits", {"startLine": 1, "startColumn": 20})
    assert lint(str(folder), "--format", "github").stdout.startswith("::error file=config/org.example")
