"""`make bench PEERS=…`: haproxy is the egress's peer, the others are mail servers, and the worst status counts."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import run


@pytest.mark.parametrize(
    ("peers", "egress", "mail", "status", "mail_peers"),
    [
        ("", 9, 0, 0, [""]),
        ("postfix,exim", 9, 1, 1, ["postfix,exim"]),
        ("haproxy", 0, 9, 0, []),
        ("haproxy", 1, 9, 1, []),
        ("postfix,haproxy,exim", 0, 1, 1, ["postfix,exim"]),
        ("haproxy,postfix", 2, 0, 2, ["postfix"]),
    ],
)
def test_each_peer_goes_to_its_own_bench(
    monkeypatch: pytest.MonkeyPatch, peers: str, egress: int, mail: int, status: int, mail_peers: list[str]
) -> None:
    started: list[str] = []
    measured: list[str] = []

    def start(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        started.append(Path(command[1]).name)
        return subprocess.CompletedProcess(command, egress)

    def measure(arguments: argparse.Namespace) -> int:
        measured.append(arguments.peers)
        return mail

    monkeypatch.setattr(sys, "argv", ["run.py", "--peers", peers])
    monkeypatch.setattr(run.subprocess, "run", start)
    monkeypatch.setattr(run, "_mail", measure)
    assert run.main() == status
    assert started == (["egress.py"] if "haproxy" in peers else [])
    assert measured == mail_peers
