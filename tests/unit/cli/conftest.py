from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from outgate.cli import cli
from support.api_service import Service, api_service

Outgate = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("cli")) as running:
        yield running


@pytest.fixture
def outgate(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outgate:
    """Return a function that runs the command line against the service; `roles` are those of its token."""
    monkeypatch.setenv("OUTGATE_DATA", str(tmp_path))
    # Wide enough that what an error names is not broken over lines.
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, roles: tuple[str, ...] = ()) -> Result:
        dev = {
            "token": service.token(*roles),
            "org_id": "org@AdobeOrg",
            "account_id": service.account_id,
            "instance_id": service.instance.id,
            "event_notifications_url": service.en_url,
            "restrictions_url": service.cbr_url,
            "cloud_manager_url": f"{service.base}/cloud-manager",
            "identity_url": f"{service.base}/iam",
            "operations_url": service.operations_url,
            "sandbox_url": f"{service.base}/sandbox",
        }
        (tmp_path / "dev.json").write_text(json.dumps(dev))
        return CliRunner().invoke(cli, list(arguments))

    return run


@pytest.fixture
def process(outgate: Outgate) -> Process:
    """Return a function that runs the command line in a process of its own, against the same service."""
    assert outgate("--version").exit_code == 0  # writes dev.json

    def run(*arguments: str | bytes, **more: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        return subprocess.run([sys.executable, "-m", "outgate.cli", *arguments], timeout=60, **(settings | more))

    return run
