"""`outgate doctor --lint`: forms, exit codes, and what a GitHub workflow gets of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from outgate.cli import cli

CORPUS = Path(__file__).parents[2] / "corpora" / "lint"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


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
        "::error file=port-real/bad/config/com.day.cq.mailer.DefaultMailService.cfg.json,line=3,"
    )
    assert "::error" not in lint("port-real/bad", "--format", "text").stdout
    (command,) = lint("port-real/bad", "--format", "github").stdout.splitlines()
    assert command == lines[-1]


def test_sarif_and_json_are_told_from_the_current_folder() -> None:
    log = json.loads(lint("port-real/bad", "--format", "sarif").stdout)
    (result,) = log["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (CORPUS / uri).is_file() and result["ruleId"] == "port-real"
    absolute = json.loads(lint(str(CORPUS / "port-real" / "bad"), "--format", "json").stdout)
    assert [each["file"] for each in absolute] == [uri]
