"""docs/doctor.md says what is so."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from outgate.doctor import printing
from outgate.doctor.report import Finding, Hop, Report, State

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "doctor.md").read_text("utf-8")


def test_the_example_is_a_report_that_is_kept() -> None:
    kept = (ROOT / "tests" / "corpora" / "doctor" / "trap-real-port.txt").read_text("utf-8")
    report = kept.partition("exit code ")[0].rstrip()
    # The environment's numbers and ports are stand-ins there.
    looked_at = [line for line in report.splitlines() if not line.startswith("environment ")]
    found = "\n".join(looked_at).replace("NNNNN", "44773")
    assert textwrap.indent(found.strip("\n"), "    ") in PAGE


def test_the_table_of_hops_has_the_exit_codes() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| [^|]+ \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == [hop.value for hop in Hop]
    for name, code in rows:
        assert Report([Finding(Hop(name), State.BROKEN, "")]).exit_code == int(code)


def test_the_fields_of_the_document_are_named() -> None:
    section = PAGE.partition("## --json")[2].partition("## In a build")[0]
    report = Report([Finding(Hop.FILE, State.BROKEN, "x", "r")])
    about = dict.fromkeys(("config", "run_modes", "service", "program", "environment"))
    document: Any = printing.for_programs(report, about)
    named = set(re.findall(r"`(\w+)`", section))
    assert {*document, *document["hops"][0], *document["broken"]} <= named
    assert named <= {*document, *document["hops"][0], *document["broken"]}


def test_the_options_are_those_of_the_command() -> None:
    from typer.testing import CliRunner

    from outgate.cli import cli

    told = set(re.findall(r"--[a-z-]+", CliRunner().invoke(cli, ["doctor", "--help"], env={"COLUMNS": "200"}).output))
    usage = PAGE.partition("## A report")[0]
    assert set(re.findall(r"--[a-z-]+", usage)) | {"--help"} == told | {"--help"}
