"""`outgate environment`: what cannot be asked for, and who is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.vendor_cloud_manager import BASE, ORG, TOKEN, Answer, vendor

from .conftest import Outgate


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "2"), "the program must not be empty"),
        (("1", "\udcff"), "the environment '\\udcff' is not UTF-8"),
        (("1", "2", "--service", ""), "--service must not be empty"),
    ],
)
def test_wrong_use(outgate: Outgate, arguments: tuple[str, ...], says: str) -> None:
    result = outgate("environment", "run", *arguments, "--", "true")
    assert (result.exit_code, result.stdout) == (2, "") and says in result.stderr


def test_run_modes_that_are_none(outgate: Outgate, monkeypatch: pytest.MonkeyPatch) -> None:
    result = outgate("doctor", "--run-modes", "author;dev")
    assert result.exit_code == 2 and "--run-modes: 'author;dev' is no run mode" in result.stderr
    monkeypatch.setenv("OUTGATE_RUN_MODES", "author dev")
    result = outgate("doctor")
    assert result.exit_code == 2 and "OUTGATE_RUN_MODES: 'author dev' is no run mode" in result.stderr


def test_whom_the_settings_name(outgate: Outgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"variables": {}, "secrets": {}, "reserved": {}, "tunnelAddress": "127.1.0.1", "portForwards": []}
    with vendor() as server:
        monkeypatch.setenv("AIO_CLOUDMANAGER_BASE__URL", server.url)
        monkeypatch.setenv("AIO_CLOUDMANAGER__ORGID", ORG)
        monkeypatch.setenv("AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN", TOKEN)
        server.answers = [
            Answer(200, empty),
            Answer(404, {"title": "\x1b[2JNot Found"}),
            Answer(200, {"error": "Late"}),
        ]
        run = ("environment", "run", "4", "10")
        result = outgate(*run, "--", sys.executable, "-c", "raise SystemExit(7)")
        assert result.exit_code == 7 and f"asks {server.url}, which the AIO_ variables name" in result.stderr
        result = outgate("environment", "run", "p4", "e10", "--", "true")
        assert result.exit_code == 30 and "and the address, which must be Outgate" in result.stderr
        assert "\N{REPLACEMENT CHARACTER}[2JNot Found" in result.stderr
        result = outgate("egress", "test", "4", "10", "a.example", "443")
        assert result.exit_code == 1 and result.stdout == "result  Late\n"
        server.answers = [Answer(200, {"resolvers": [{"name": "default"}]})]
        result = outgate("egress", "test", "p4", "e10", "a.example", "443")
        assert result.exit_code == 3 and "is no test of a connection: is that an Outgate?" in result.stderr
        assert server.calls() == [*[("POST", f"{BASE}/runtime")] * 2, *[("POST", f"{BASE}/connectivityTest")] * 2]
        # A directory that is named counts more, also for the doctor.
        there = json.loads((tmp_path / "dev.json").read_text()) | {"cloud_manager_url": "http://127.0.0.1:1"}
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "dev.json").write_text(json.dumps(there | {"program_id": "4", "environment_id": "10"}))
        for command in (run[:2], ("egress", "test"), ("doctor",)):
            rest = {"environment": ("4", "10", "true"), "egress": ("4", "10", "a.example", "443"), "doctor": ()}
            result = outgate(*command, "--data", str(tmp_path / "other"), *rest[command[0]])
            assert "Cloud Manager at http://127.0.0.1:1 cannot be reached" in result.stderr
        assert len(server.requests) == 4
