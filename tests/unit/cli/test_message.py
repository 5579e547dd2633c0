"""`outgate message`, against the API."""

from __future__ import annotations

import json

import pytest

from .conftest import Outgate, Process


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", ""), "the queue id must not be empty"),
        (("show", "\udcff\udcfe"), "is not UTF-8"),
        (("list", "--recipient", ""), "--recipient must not be empty"),
        (("list", "--status", ""), "--status must not be empty"),
        (("list", "--recipient", "\udcff"), "is not UTF-8"),
    ],
)
def test_what_cannot_be_asked_for(outgate: Outgate, arguments: tuple[str, ...], says: str) -> None:
    result = outgate("message", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr and "Traceback" not in result.stderr


def test_octets_that_are_no_text(process: Process) -> None:
    done = process("message", "show", b"\xff\xfe")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("outgate: the queue id ") and done.stderr.count("\n") == 1


def test_there_is_none(outgate: Outgate) -> None:
    missing = outgate("message", "show", "../x?y")
    assert missing.exit_code == 1 and "there is no" in missing.stderr
    assert json.loads(outgate("message", "list", "--json").stdout)["messages"] == []
