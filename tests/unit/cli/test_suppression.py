"""`outgate suppression`, against the API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.api_service import Service

from .conftest import Outgate, Process


def test_add_show_list_remove(outgate: Outgate) -> None:
    made = outgate(
        "suppression", "add", "Ann@example.net", "bob@example.net", "--reason", "complaint", "--expires", "90d"
    )
    assert made.exit_code == 0 and "Ann@example.net" in made.stdout, made.output
    found = json.loads(outgate("suppression", "show", "ann@EXAMPLE.net", "--json").stdout)
    assert (found["reason"], found["source"]) == ("complaint", "iam-tester") and found["expires_at"] is not None
    shown = outgate("suppression", "show", "ann@example.net").stdout
    assert "complaint" in shown and "iam-tester" in shown
    table = outgate("suppression", "list", "--reason", "complaint").stdout
    assert "ADDRESS" in table and table.index("bob@example.net") < table.index("Ann@example.net")
    listed = json.loads(outgate("suppression", "list", "--search", "ANN@", "--json").stdout)["suppressions"]
    assert [each["address"] for each in listed] == ["Ann@example.net"]
    assert len(json.loads(outgate("suppression", "list", "--limit", "1", "--json").stdout)["suppressions"]) == 1
    assert outgate("suppression", "remove", "ann@example.net").exit_code == 0
    gone = outgate("suppression", "show", "ann@example.net")
    assert gone.exit_code == 1 and "there is no suppressed address" in gone.stderr


def test_a_file_and_standard_input(outgate: Outgate, process: Process, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("address,reason\ncarl@example.net,unsubscribe\n")
    assert "added" in outgate("suppression", "import", str(file)).stdout
    piped = process("suppression", "import", "-", "--json", input="address\ndora@example.net\n")
    assert json.loads(piped.stdout) == {"added": 1, "replaced": 0, "ended": 0}, piped.stderr
    out = tmp_path / "out.csv"
    assert outgate("suppression", "export", str(out)).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600 and not list(tmp_path.glob("*.part"))
    text = out.read_text()
    assert (
        text.startswith("address,reason,source,detail,created_at,expires_at\n")
        and "carl@example.net,unsubscribe" in text
    )
    assert process("suppression", "export").stdout == text
    assert service.store.suppressions.remove(service.instance.id, "carl@example.net")
    assert json.loads(outgate("suppression", "import", str(out), "--json").stdout)["added"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "nobody"), 1, "is not a mailbox such as"),
        (("add", "a@b.test", "--expires", "never"), 2, "--expires"),
        (("add", "a@b.test", "--expires", "2001-01-01"), 2, "is past"),
        (("add", "a@b.test", "--reason", "Two Words"), 1, "one word"),
        (("add", ""), 2, "must not be empty"),
        (("remove", "nobody@example.net"), 1, "there is no suppressed address"),
        (("list", "--search", ""), 2, "--search must not be empty"),
        (("import", "/nowhere/list.csv"), 2, "/nowhere/list.csv cannot be read"),
        (("export", "/nowhere/list.csv"), 1, "/nowhere/list.csv cannot be written"),
    ],
)
def test_what_goes_wrong(outgate: Outgate, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = outgate("suppression", *arguments)
    assert result.exit_code == code and words in result.stderr, result.output


def test_each_fault_of_a_file_is_told(outgate: Outgate, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("address\nwrong\nann@example.net\nalso wrong\n")
    result = outgate("suppression", "import", str(file))
    assert result.exit_code == 1
    assert "line 2: 'wrong'" in result.stderr and "line 4: 'also wrong'" in result.stderr
