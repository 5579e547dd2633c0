"""Findings as people, GitHub and other programs read them: text, workflow commands, SARIF, JSON.

Standards: SARIF 2.1.0; GitHub's workflow commands (`::error file=…::…`).
Promises: pure; no output has a control character or a workflow command of the files' own; nothing is shown but the
    findings and excerpts that are handed in, which hold no secret.
Dangers: a viewer finds a file by its path from the root of the repository: `root` is where that is.
Not here: finding (`doctor.lint`), the report of the walk (`doctor.printing`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import quote

from outgate import __version__
from outgate.doctor.report import Finding
from outgate.doctor.traps.rules import RULES, Level, level
from outgate.doctor.traps.source import Excerpt, Replacement

Format = Literal["text", "github", "sarif", "json"]
_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_NO_EXCERPTS: Mapping[tuple[str, int, int], Excerpt] = {}
_NO_FIXES: Mapping[Finding, Replacement] = {}


def text(
    findings: Sequence[Finding],
    excerpts: Mapping[tuple[str, int, int], Excerpt] = _NO_EXCERPTS,
    *,
    files: int | None = None,
    root: str | PurePath = "",
) -> str:
    """Return findings for a person: place, what is so, the line with a caret, why, and what to write instead.

    `files` is how many were looked at, for the last line."""
    parts = [_one(each, excerpts.get((each.file, each.line, each.column)), root) for each in findings]
    return "\n".join([*parts, _sum(findings, files)])


def _one(finding: Finding, excerpt: Excerpt | None, root: str | PurePath) -> str:
    place = f"{_path(finding.file, root)}:{finding.line}:{finding.column}"
    lines = [f"{place}: {level(finding)}: {finding.text} [{finding.rule}]"]
    if excerpt is not None and excerpt.line not in ("", "{"):
        lines += [f"    {excerpt.line}", f"    {' ' * excerpt.caret}^"]
    rule = RULES.get(finding.rule)
    lines += [f"  why: {rule.why}"] if rule else []
    lines += [f"  do: {finding.remedy}"] if finding.remedy else []
    lines += [f"  {_verb(finding)}: {finding.change}"] if finding.change else []
    return "\n".join(_no_command(_clean(line)) for line in lines) + "\n"


def _verb(finding: Finding) -> str:
    return "run" if finding.change.startswith(("mv ", "outgate ", "mkdir ")) else "write"


def _sum(findings: Sequence[Finding], files: int | None) -> str:
    counted = Counter(level(each) for each in findings)
    told = ", ".join(f"{counted[each]} {each}{'' if counted[each] == 1 else 's'}" for each in Level if counted[each])
    where = "" if files is None else f" in {files} file{'' if files == 1 else 's'}"
    return f"{told or 'nothing found'}{where}\n"


def github(findings: Sequence[Finding], *, root: str | PurePath = "") -> str:
    """Return findings as workflow commands, one a line: GitHub shows each at its line of the change."""
    return "".join(f"{_command(each, root)}\n" for each in findings)


def _command(finding: Finding, root: str | PurePath) -> str:
    rule = RULES.get(finding.rule)
    fields = {
        "file": _path(finding.file, root),
        "line": str(finding.line) if finding.line else "",
        "col": str(finding.column) if finding.line else "",
        "title": rule.title if rule else finding.rule,
    }
    told = ",".join(f"{name}={_property(value)}" for name, value in fields.items() if value)
    return f"::{_COMMANDS[level(finding)]} {told}::{_data(_message(finding))}"


def _message(finding: Finding) -> str:
    """Return what is so and what to do, in lines."""
    change = f"{_verb(finding).capitalize()}: {finding.change}" if finding.change else ""
    said = f"{finding.text} [{finding.rule}]" if finding.rule else finding.text
    return "\n".join(_clean(part) for part in (said, finding.remedy, change) if part)


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(_clean(value)).replace(":", "%3A").replace(",", "%2C")


def sarif(
    findings: Sequence[Finding],
    excerpts: Mapping[tuple[str, int, int], Excerpt] = _NO_EXCERPTS,
    *,
    fixes: Mapping[Finding, Replacement] = _NO_FIXES,
    root: str | PurePath = "",
) -> str:
    """Return findings as a SARIF 2.1.0 log of one run; `root` is the folder that paths are told from.

    Columns are UTF-16 code units, as `excerpts` have them: what viewers count in."""
    used = list(dict.fromkeys(each.rule for each in findings if each.rule in RULES))
    driver = {
        "name": "outgate doctor",
        "semanticVersion": __version__,
        "rules": [_rule(rule) for rule in used],
    }
    seen: Counter[str] = Counter()
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": [
            _result(each, excerpts.get((each.file, each.line, each.column)), fixes.get(each), used, root, seen)
            for each in findings
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why}\n\n{rule.remedy}", "markdown": f"{rule.why}\n\n**{rule.remedy}**"},
        "defaultConfiguration": {"level": str(rule.level)},
        "properties": {"tags": ["mail", rule.hop.value]},
    }


def _result(
    finding: Finding,
    excerpt: Excerpt | None,
    fix: Replacement | None,
    rules: list[str],
    root: str | PurePath,
    seen: Counter[str],
) -> dict[str, Any]:
    uri = _uri(_path(finding.file, root))
    column = excerpt.unit if excerpt else max(finding.column, 1)
    region = {"startLine": finding.line, "startColumn": column} if finding.line else {}
    same = f"{finding.rule}|{uri}|{finding.text}"
    seen[same] += 1  # the line is no part of it: a finding that moves is the same one
    result: dict[str, Any] = {
        "ruleId": finding.rule or "unknown",
        "level": str(level(finding)),
        "message": {"text": _message(finding)},
        "partialFingerprints": {
            "outgateFinding/v1": hashlib.sha256(f"{same}|{seen[same]}".encode("utf-8", "replace")).hexdigest()
        },
    }
    if finding.rule in rules:
        result["ruleIndex"] = rules.index(finding.rule)
    if uri:
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}}
        if uri.startswith("file:"):
            del physical["artifactLocation"]["uriBaseId"]
        if region:
            physical["region"] = region
        result["locations"] = [{"physicalLocation": physical}]
        if fix is not None:
            result["fixes"] = [_fix(finding, fix, physical["artifactLocation"])]
    return result


def _fix(finding: Finding, fix: Replacement, file: dict[str, str]) -> dict[str, Any]:
    region = {"startLine": fix.line, "startColumn": fix.unit, "endLine": fix.end_line, "endColumn": fix.end_unit}
    replacement = {"deletedRegion": region, "insertedContent": {"text": fix.text}}
    return {
        "description": {"text": _clean(finding.remedy)},
        "artifactChanges": [{"artifactLocation": file, "replacements": [replacement]}],
    }


def as_json(findings: Sequence[Finding], *, root: str | PurePath = "") -> str:
    """Return findings as a JSON list."""
    told = [
        {
            "rule": each.rule,
            "level": str(level(each)),
            "title": RULES[each.rule].title if each.rule in RULES else "",
            "file": _path(each.file, root),
            "line": each.line,
            "column": each.column,
            "text": each.text,
            "remedy": each.remedy,
            "change": each.change,
        }
        for each in findings
    ]
    return json.dumps(told, indent=2) + "\n"


def _path(file: str, root: str | PurePath) -> str:
    """Return a path from the root, with slashes; as it is if it lies elsewhere."""
    path = PurePath(file)
    if root and path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix() if file else ""


def _uri(path: str) -> str:
    if path.startswith("/"):
        return "file://" + quote(path.encode("utf-8", "surrogateescape"))
    return quote(path.encode("utf-8", "surrogateescape"))


def _no_command(line: str) -> str:
    """Return a line of text that GitHub takes for no command, whatever a file or its name begins with."""
    line = line.replace("##[", "##\N{REPLACEMENT CHARACTER}[")
    return f"\N{REPLACEMENT CHARACTER}{line}" if line.lstrip().startswith("::") else line


def _clean(line: str) -> str:
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
