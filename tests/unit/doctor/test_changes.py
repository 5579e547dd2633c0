"""What is told to be written is written, and the trap is gone: each trap in every way that a file may be laid out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.doctor import lint
from outgate.doctor.report import Finding
from outgate.doctor.traps import tree as tree_traps
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.traps.source import Source
from outgate.mailer.folders import ConfigFile, Configurations
from outgate.mailer.osgi import OsgiError, parse

CORPUS = Path(__file__).parents[2] / "corpora" / "lint"
THING = "org.example.Thing"
GOOD: dict[str, dict[str, Any]] = {
    MAIL: {
        "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
        "smtp.port": "30587",
        "smtp.user": "$[env:MAIL_USER]",
        "smtp.password": "$[secret:EMAIL_PASSWORD]",
        "from.address": "noreply@example.com",
        "smtp.ssl": False,
        "smtp.starttls": True,
        "smtp.requiretls": True,
    },
    OAUTH: {
        "tokenUrl": "https://login.example/token",
        "clientId": "$[env:CLIENT]",
        "clientSecret": "$[secret:CLIENT_KEY]",
        "refreshToken": "$[secret:REFRESH]",
        "scopes": ["a", "b"],
    },
    THING: {"plain": "x"},
}

# What the file has otherwise (None: not at all), which trap that is, and with what the shown place begins.
TRAPS: list[tuple[str, str, dict[str, Any], str]] = [
    (MAIL, "port-real", {"smtp.port": "587"}, '"587"'),
    (MAIL, "port-real", {"smtp.port": None, "smtp.port:Integer": "25"}, '"25"'),
    (MAIL, "port-real", {"smtp.port": "$[env:PORT;type=Integer;default=2525]"}, '"$[env:PORT'),
    (MAIL, "port-missing", {"smtp.port": None}, "{"),
    (MAIL, "port-not-number", {"smtp.port": [" 30587 "]}, "["),
    (MAIL, "port-not-number", {"smtp.port": " 30587 "}, '" 30587'),
    (MAIL, "host-missing", {"smtp.host": ""}, '""'),
    (MAIL, "host-not-tunnel", {"smtp.host": "mail.example"}, '"mail'),
    (MAIL, "host-not-tunnel", {"smtp.host": ["mail.example"]}, "["),
    (MAIL, "host-variable", {"smtp.host": "$[env:SMTP_HOST;default=proxy.tunnel]"}, '"$[env:SMTP'),
    (MAIL, "password-in-clear", {"smtp.password": 'corr"ect\\horse'}, '"corr'),
    (MAIL, "password-in-clear", {"smtp.password": None, "smtp.password:String": "correct"}, '"correct'),
    (MAIL, "password-in-clear", {"smtp.password": ["correct-horse"]}, "["),
    (MAIL, "password-in-clear", {"smtp.password": "pa${word"}, '"pa'),
    (MAIL, "password-in-clear", {"smtp.password": "pa$$(wo)rd"}, '"pa'),
    (MAIL, "secret-default", {"smtp.password": "$[secret:EMAIL_PASSWORD;default=x1]"}, "$[secret"),
    (MAIL, "secret-from-env", {"smtp.password": "$[env:EMAIL_PASSWORD]"}, "$[env"),
    (MAIL, "secret-from-env", {"smtp.user": "$[env:API_KEY;default=x1]"}, "$[env"),
    (MAIL, "misspelt-placeholder", {"smtp.user": "$[env.MAIL_USER]"}, "$[env."),
    (MAIL, "misspelt-placeholder", {"smtp.user": "$(ENV:MAIL_USER)"}, "$(ENV"),
    (MAIL, "misspelt-placeholder", {"smtp.user": "$[env:MAIL_USER}"}, "$[env"),
    (MAIL, "misspelt-placeholder", {"smtp.user": "$env[MAIL_USER]"}, "$env"),
    (MAIL, "misspelt-placeholder", {"smtp.user": "$ [env:MAIL_USER]"}, "$ [env"),
    (MAIL, "misspelt-placeholder", {"smtp.password": "%[secret:EMAIL_PASSWORD]"}, "%[secret"),
    (MAIL, "tls-echo", {"smtp.ssl": "TRUE", "smtp.starttls": None}, '"TRUE"'),
    (MAIL, "tls-mismatch", {"smtp.port": 587, "smtp.ssl": True}, "true"),
    (MAIL, "ssl-and-starttls", {"smtp.port": "30465", "smtp.ssl": True}, "true"),
    (MAIL, "starttls-optional", {"smtp.requiretls": None}, '"$[secret'),
    (MAIL, "flag-not-boolean", {"smtp.requiretls": "yes"}, '"yes"'),
    (MAIL, "unknown-property", {"smtp.user": None, "Smtp.User": "x"}, '"x"'),
    (MAIL, "oauth-tls", {"oauth.flow": True, "smtp.port": "30465", "smtp.ssl": True}, "true"),
    (MAIL, "typed-placeholder", {"smtp.port": None, "smtp.port:Integer": "$[env:PORT]"}, '"$[env'),
    (OAUTH, "password-in-clear", {"refreshToken": "t0ken"}, '"t0ken'),
    (OAUTH, "oauth-incomplete", {"clientSecret": None}, "{"),
    (THING, "misspelt-placeholder", {"url": "https://${env:HOST}/ä"}, "${env"),
    (THING, "unknown-type", {"number": "$[env:NUMBER;type=integer;default=1]"}, "$[env"),
    (THING, "typed-placeholder", {"flags:Boolean[]": ["$[env:FLAG]"]}, '"$[env'),
]


def _lines(given: dict[str, Any]) -> str:
    members = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return "{\n" + ",\n".join(members) + "\n}\n"


def _commented(given: dict[str, Any]) -> str:
    names = list(given)
    members = "".join(
        f'  {json.dumps(name)} /* "a": , */ : /* ü😀 */ {json.dumps(given[name])} /* , */'
        f'{"" if name == names[-1] else ","} // "{name}": 465\n'
        for name in names
    )
    return f'// "smtp.port": 465 😀\n{{\n{members}}}\n// end'


LAYOUTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "lines": _lines,
    "CRLF": lambda given: _lines(given).replace("\n", "\r\n"),
    "tabs": lambda given: _lines(given).replace("  ", "\t").replace(": ", "\t:\t"),
    "one line": lambda given: json.dumps(given, ensure_ascii=False, separators=(",", ":")),
    "comments": _commented,
    "not ASCII": lambda given: '{"service.ü😀":"日本",' + json.dumps(given, ensure_ascii=False)[1:],
}


def apply(finding: Finding) -> None:
    """Do what a person does with `change`: run it, or write it in place of the property of that name, else first."""
    change = finding.change
    if change.startswith(("mv ", "mkdir ")):
        subprocess.run(["sh", "-ec", change], check=True)
        return
    file = Path(finding.file)
    text = file.read_bytes().decode()
    written = json.loads("{" + change.removesuffix(",") + "}")
    name = next(iter(written)).partition(":")[0].lower()
    try:
        places = {each.name.lower(): (each.key_at, each.value_at) for each in parse(text).values()}
        after = next((p for p in places.values() if p[1].line == finding.line and p[1].column == finding.column), None)
        key_at, value_at = places.get(name) or (after if finding.rule == "unknown-property" else None) or (None, None)
        source = Source(text)
        if key_at is None or value_at is None:
            assert change.endswith(",")
            start = end = text.index("{", text.find("\n") if text.startswith("//") else 0) + 1
        else:
            start, end = source.offset(key_at), source.end(source.offset(value_at))
    except OsgiError:
        value = r'("[^"]*"|\[\s*"[^"]*"\s*\])'
        found = re.search(rf'"{re.escape(name)}:[^"]*"(?:\s|/\*.*?\*/|:)*{value}', text, re.IGNORECASE)
        assert found
        start, end = found.span()
    if start != end:
        more = re.compile(r"(?:\s|/\*.*?\*/)*,?").match(text, end)
        assert more and more[0].endswith(",") == change.endswith(","), change
        change = change.removesuffix(",")
    file.write_bytes((text[:start] + change + text[end:]).encode())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("pid", "rule", "changed", "begins"), TRAPS)
def test_a_trap_is_found_at_its_place_and_gone_when_the_line_is_written(
    tmp_path: Path, pid: str, rule: str, changed: dict[str, Any], begins: str, layout: str
) -> None:
    given = {name: value for name, value in (GOOD[pid] | changed).items() if value is not None} | {"service.z": "z"}
    text = LAYOUTS[layout](given)
    file = tmp_path / "config" / f"{pid}.cfg.json"
    file.parent.mkdir()
    file.write_bytes(text.encode())
    before = [each for each in lint.run(tmp_path) if each.rule not in ("oauth-unused", "oauth-no-provider")]
    finding = next(each for each in before if each.rule == rule)
    if begins != "{":
        assert text.split("\n")[finding.line - 1][finding.column - 1 :].startswith(begins)
    apply(finding)
    counted = Counter(each.rule for each in lint.run(tmp_path))
    assert counted[rule] < Counter(each.rule for each in before)[rule]
    assert counted["unreadable"] + counted["not-json"] + counted["duplicate-property"] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_advice_on_oauth_and_465_does_not_turn_in_circles(tmp_path: Path, layout: str) -> None:
    oauth = GOOD[MAIL] | {"oauth.flow": True, "smtp.port": "30465", "smtp.ssl": True, "smtp.password": ""}
    file = tmp_path / "config" / f"{MAIL}.cfg.json"
    file.parent.mkdir()
    file.write_bytes(LAYOUTS[layout](oauth).encode())
    for expected in ("oauth-tls", "tls-echo"):
        (finding,) = (each for each in lint.run(tmp_path) if each.rule in ("oauth-tls", "tls-echo"))
        assert finding.rule == expected
        apply(finding)
    assert [each for each in lint.run(tmp_path) if each.rule in ("oauth-tls", "tls-echo")] == []
    assert parse(file.read_bytes().decode())["smtp.port"].value.value == "30587"


@pytest.mark.parametrize("rule", ["folders-tie", "folder-order", "wrong-pid", "file-name"])
def test_the_commands_work_as_they_are_printed(tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "a tree"
    shutil.copytree(CORPUS / rule / "bad", tree)
    monkeypatch.chdir(tree)
    files = sum(len(names) for _, _, names in os.walk("config"))
    commands = [each for each in lint.run(".") if each.rule == rule]
    for each in commands:
        apply(replace(each))
    assert commands and rule not in {each.rule for each in lint.run(".")}
    assert sum(len(names) for _, _, names in os.walk("config")) >= files


def test_a_list_with_more_than_the_placeholder_is_not_cut_down_to_it(tmp_path: Path) -> None:
    file = tmp_path / "config" / f"{THING}.cfg.json"
    file.parent.mkdir()
    several = ('["1", "$[env:PORT]"]', '["$[env:PORT]", "1"]', '[1, "$[env:PORT]"]')
    for type_name, values in (*(("Integer[]", each) for each in several), ("Collection<Integer>", '["$[env:PORT]"]')):
        file.write_text(f'{{"ports:{type_name}": {values}}}')
        (finding,) = lint.run(tmp_path)
        assert (finding.rule, finding.change) == ("typed-placeholder", "")


def test_a_name_that_is_taken_is_no_place_to_move_to(tmp_path: Path) -> None:
    """`git mv` of a folder onto one that is there would put it inside."""
    for folder, pid in (
        ("config.author.dev", MAIL),
        ("config.dev.author", MAIL),
        ("config", MAIL),
        ("config", "com.day.cq.mailer.impl.DefaultMailService"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{pid}.cfg.json").write_text(json.dumps(GOOD[MAIL]))
    assert sorted((each.rule, each.change) for each in lint.run(tmp_path)) == [("folder-order", ""), ("wrong-pid", "")]


def test_many_modules_are_done_with_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once over all files for each finding would be minutes."""
    made: list[int] = []
    counted = vars(tree_traps)["_Chosen"]

    class Counted(counted):
        def __init__(self, files: Any) -> None:
            super().__init__(files)
            made.append(1)

    monkeypatch.setattr(tree_traps, "_Chosen", Counted)
    data = json.dumps(GOOD[MAIL] | {"debug.email": True}).encode()
    files = tuple(ConfigFile(MAIL, (), f"module{number}/config/{MAIL}.cfg.json", data) for number in range(500))
    found = lint.of(Configurations("", files)).findings
    assert len(made) == 2
    (tie,) = (each for each in found if each.rule == "folders-tie")
    assert "and 494 more matches" in tie.text
