"""Findings as others read them: GitHub's commands to the letter, SARIF by its schema, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
import pytest

from outgate.doctor import annotations, lint
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.traps.names import MAIL
from outgate.doctor.traps.rules import RULES
from support.npm import sarif_schema

CORPUS = Path(__file__).parents[2] / "corpora" / "lint"
ODD = Finding(
    Hop.FILE, State.WARNING, "100% of a,b: c", "port-real", "Do\r\nthis.", '"x": "50%"', "a,b/100%:ä ü.cfg.json", 3, 7
)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(sarif_schema(tmp_path_factory.mktemp("npm")), validate_formats=True)


def logged(findings: list[Finding], **options: Any) -> dict[str, Any]:
    return json.loads(annotations.sarif(findings, **options))


def test_workflow_commands_are_escaped_as_github_reads_them() -> None:
    (line,) = annotations.github([ODD]).splitlines()
    head, _, message = line.removeprefix("::").partition("::")
    assert head == (
        "warning file=a%2Cb/100%25%3Aä ü.cfg.json,line=3,col=7,title=The port is the server's%2C not the tunnel's"
    )
    assert message == '100%25 of a,b: c [port-real]%0ADo\ufffd\ufffdthis.%0AWrite: "x": "50%25"'


def test_levels_have_githubs_names() -> None:
    states = (State.BROKEN, State.WARNING, State.OK)
    lines = annotations.github([Finding(Hop.FILE, state, "x", "null-value") for state in states]).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]


def test_every_case_makes_a_log_that_the_schema_takes(schema: jsonschema_rs.Validator) -> None:
    for case in sorted(CORPUS.iterdir()):
        linted = lint.examine(case / "bad")
        found = linted.findings
        log = logged(found, fixes=linted.fixes, root=case / "bad")
        schema.validate(log)
        for each, result in zip(found, log["runs"][0]["results"], strict=True):
            (location,) = result["locations"]
            physical = location["physicalLocation"]
            assert (case / "bad" / unquote(physical["artifactLocation"]["uri"])).is_file()
            assert physical["region"] == {"startLine": each.line, "startColumn": each.column}
            rule = log["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]
            assert rule["id"] == result["ruleId"] == each.rule
            assert result["level"] == rule["defaultConfiguration"]["level"] == str(RULES[each.rule].level)
            assert each.remedy in result["message"]["text"]


@pytest.mark.parametrize("begin", ["", '"ü😀": "😀", '])
def test_a_fix_does_what_the_line_says_and_one_that_is_to_be_added_is_none(
    tmp_path: Path, begin: str, schema: jsonschema_rs.Validator
) -> None:
    file = tmp_path / "config" / f"{MAIL}.cfg.json"
    file.parent.mkdir()
    host = '"smtp.host": "proxy.tunnel", "smtp.user": "x"'
    file.write_text(f'{{{begin}"smtp.port:Integer"\n: "465" /* , */, "smtp.ssl": "yes", {host}}}', "utf-8")
    linted = lint.examine(tmp_path)
    log = logged(linted.findings, excerpts=linted.excerpts, fixes=linted.fixes)
    schema.validate(log)
    fixes = {each["ruleId"]: each["fixes"][0] for each in log["runs"][0]["results"] if "fixes" in each}
    assert set(fixes) == {"port-real", "flag-not-boolean"}  # there is no smtp.password to replace
    for rule, change in (("port-real", '"smtp.port:Integer": 30465'), ("flag-not-boolean", '"smtp.ssl": true')):
        ((replacement,),) = (each["replacements"] for each in fixes[rule]["artifactChanges"])
        assert replacement["insertedContent"]["text"] == change
        region = replacement["deletedRegion"]
        lines = [line.encode("utf-16-le") for line in file.read_text("utf-8").split("\n")]
        before = lines[region["startLine"] - 1][: 2 * region["startColumn"] - 2]
        after = lines[region["endLine"] - 1][2 * region["endColumn"] - 2 :]
        assert before.decode("utf-16-le").endswith(("{", ", ")) and after.decode("utf-16-le").startswith((" /*", ","))


def test_a_log_without_findings_is_one_too(schema: jsonschema_rs.Validator) -> None:
    log = logged([])
    schema.validate(log)
    assert log["runs"][0]["results"] == []
    log["runs"][0]["results"] = [{"message": {"text": "x"}, "level": "notice"}]
    assert not schema.is_valid(log)  # it does look


def test_what_no_uri_may_hold_is_encoded_and_paths_elsewhere_are_whole(schema: jsonschema_rs.Validator) -> None:
    log = logged([ODD, Finding(Hop.FILE, State.OK, "x", "null-value", file="/tmp/b c.json")], root="/home/me")
    schema.validate(log)
    odd, elsewhere = (each["locations"][0]["physicalLocation"] for each in log["runs"][0]["results"])
    assert odd["artifactLocation"] == {"uri": "a%2Cb/100%25%3A%C3%A4%20%C3%BC.cfg.json", "uriBaseId": "%SRCROOT%"}
    assert elsewhere == {"artifactLocation": {"uri": "file:///tmp/b%20c.json"}}


def test_a_finding_that_moves_keeps_its_fingerprint_and_two_alike_have_two() -> None:
    moved = Finding(
        *[getattr(ODD, name) for name in ("hop", "state", "text", "rule", "remedy", "change", "file")], 9, 1
    )
    before, after, again = logged([ODD])["runs"][0]["results"] + logged([moved, moved])["runs"][0]["results"]
    prints = [next(iter(each["partialFingerprints"].values())) for each in (before, after, again)]
    assert prints[0] == prints[1] != prints[2]


def test_no_file_gives_commands_to_a_workflow_through_the_text(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "org.example.a.b.cfg.json").write_text('{ /*\n::add-mask::x ##[add-mask]x */ "url": "${env:XY}"}')
    found = lint.examine(tmp_path)
    odd = Finding(Hop.FILE, State.OK, "x", "null-value", file="::error::x", line=1, column=1)
    text = annotations.text([*found.findings, odd], found.excerpts, root=tmp_path)
    assert "add-mask" in text and "##[" not in text
    assert not [line for line in text.splitlines() if line.strip().startswith("::")]


def test_json_tells_all_there_is() -> None:
    (told,) = json.loads(annotations.as_json([ODD]))
    assert told["level"] == "warning" and told["title"] == RULES["port-real"].title
    assert all(
        told[name] == getattr(ODD, name) for name in ("rule", "file", "line", "column", "text", "remedy", "change")
    )


def test_a_long_line_is_cut_around_the_caret(tmp_path: Path) -> None:
    many = ", ".join(f'"service.{number}": {number}' for number in range(200))
    (tmp_path / f"{MAIL}.cfg.json").write_text(f'{{{many}, "smtp.port": "465 ", {many.replace("service", "felix")}}}')
    found = lint.examine(tmp_path)
    text = annotations.text(found.findings, found.excerpts)
    line, caret = next(
        pair
        for pair in zip(text.splitlines(), text.splitlines()[1:], strict=False)
        if '"465 "' in pair[0] and "write" not in pair[0]
    )
    assert len(line) < 200 and line[len(caret) - 1] == '"' and line[len(caret) :].startswith("465 ")


def test_a_secret_before_the_place_moves_the_caret_along(tmp_path: Path) -> None:
    (tmp_path / f"{MAIL}.cfg.json").write_text('{"smtp.password": "a-very-long-secret", "smtp.ssl": "yes"}')
    found = lint.examine(tmp_path)
    text = annotations.text(found.findings, found.excerpts).splitlines()
    at = next(number for number, line in enumerate(text) if "[flag-not-boolean]" in line)
    assert text[at + 1 : at + 3] == [
        '    {"smtp.password": "****", "smtp.ssl": "yes"}',
        "                                          ^",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"smtp.user": "$[env:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "$[env:EMAIL_PASSWORD;default=a;S3CR3T]"}',
        '{"smtp.user": "${env:EMAIL_PASSWORD;default=S3CR3T}"}',
        '{"smtp.host": "$[env:XX;default=$[secret:PASSWORD;default=S3CR3T]]"}',
        '{"smtp.host": "$[env:EMAIL_PASSWORD:S3CR3T]"}',
        '{"smtp.host": "${API_KEY:-S3CR3T}"}',
        '{"smtp.host": "apikey:S3CR3T@smtp.example"}',
        '{"smtp.host": "smtps://apikey:S3CR3T@smtp.example"}',
        '{"smtp.pasword": "S3CR3T"}',
        '{"smtp.pw": "S3CR3T"}',
        '{"clientSercet": ["S3CR3T"]}',
        '{"smtp.pasword": "S3CR3T" "x": 1}',
        '{"note": "S3CR3T" "smtp.password": 1}',
        '{"smtp.password":\n"S3CR3T" "x": 1}',
        '{"smtp.port": "465" /* the password is S3CR3T */}',
        '{"smtp.port": "465", /* the password\n S3CR3T */ "smtp.ssl": "maybe"}',
        "{'smtp.password': 'S3CR3T'}",
        '{"smtp.password:Integer": ["S3CR3T"]}',
        '{"smtp.port": "465", "smtp.password": "$[secret:EMAIL_PASSWORD]" // it was S3CR3T\n}',
        '{"smtp.kennwort": "S3CR3T"}',
        '{"smtp.port": "465" /* "smtp.pasword": "S3CR3T", */}',
        '{"signing.key": "S3CR3T $[env:FOO;Default=x]"}',
        '{"smtpPw": "$[env:FOO;Default=S3CR3T]"}',
        '{"smtp.user": "$[env:EMAIL_PASSWORD;Default=S3CR3T]"}',
        '{"smtp.user": "$[env:DB_PWD;type=Strin;default=S3CR3T]"}',
        '{"smtp.host": "smtps://apikey:S3CR3T@$[env:FOO;Default=x]"}',
        '{"smtp.user:Integer": "$[env:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "$[env:EMAIL_PASSWORD;default=S3CR3T]" "smtp.host": "x"}',
        '{smtp.user: "$[env:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.usr": "$[env:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "$env[EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "$[evn:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "[env:EMAIL_PASSWORD;default=S3CR3T]"}',
        '{"smtp.user": "# [secret:EMAIL;default=S3CR3T]"}',
        '{"smtp.user": "secret[EMAIL;default=S3CR3T]"}',
        '{"smtp.user": "\\\\$[env:EMAIL_PASSWORD;default=S3CR3T]"}',
    ],
)
def test_a_secret_is_in_no_output_wherever_it_stands(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{MAIL}.cfg.json").write_text(text)
    found = lint.examine(tmp_path)
    assert found.findings
    sarif = annotations.sarif(found.findings, found.excerpts, fixes=found.fixes)
    for said in (annotations.text(found.findings, found.excerpts), sarif, repr(found)):
        assert "S3CR3T" not in said
