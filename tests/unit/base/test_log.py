"""Log lines: one per record, no secret in any."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from outgate.base.log import Log, configure


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger("outgate")
    before = (list(root.handlers), root.level, root.propagate)
    stream = io.StringIO()
    configure("info", stream)
    yield stream
    root.handlers[:], root.level, root.propagate = before


def test_one_line_with_its_fields(out: io.StringIO) -> None:
    Log("outgate.x").info("message.accepted", queue_id="0Q", text='a\r\n{"event": "forged"}', path=object)
    text = out.getvalue()
    assert text.count("\n") == 1
    entry = json.loads(text)
    assert (entry["level"], entry["logger"], entry["event"], entry["queue_id"]) == (
        "info",
        "outgate.x",
        "message.accepted",
        "0Q",
    )
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize(
    "name", ["password", "api_key", "Authorization", "bearer_token", "client_secret", "private_pem"]
)
def test_secrets_are_masked(out: io.StringIO, name: str) -> None:
    Log("outgate.x").warning("e", **{name: "hunter2"})
    assert "hunter2" not in out.getvalue() and json.loads(out.getvalue())[name] == "****"


def test_levels_and_exceptions(out: io.StringIO) -> None:
    log = Log("outgate.x")
    log.debug("hidden")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("failed")
    log.error("last")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["event"] for entry in entries] == ["failed", "last"]
    assert "RuntimeError: boom" in entries[0]["exception"]
