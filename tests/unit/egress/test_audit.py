"""The audit: what is written is found again, by the right connection, within bounded files."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.egress.audit import Audit, Connection, endpoint
from support.egress_peers import forward

RULE = forward("127.1.0.1", 30465, "smtp.example", 465)


def opened(audit: Audit, at: float, number: str, client: str = "127.0.0.1:5000") -> Connection:
    connection = Connection(number, RULE, client, target="192.0.2.1:465", source="127.0.0.2:6000")
    audit.decision(at, connection, reason="leaves")
    return connection


def ended(audit: Audit, at: float, connection: Connection) -> None:
    audit.close_of(at, connection, bytes_up=1, bytes_down=2, duration_s=0.5, reason="finished")


def test_a_port_that_comes_round_again_is_told_apart_by_time(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    first = opened(audit, 100.0, "one")
    opened(audit, 150.0, "other", "127.0.0.1:50001")
    ended(audit, 200.0, first)
    second = opened(audit, 300.0, "two")
    assert [line["event"] for line in audit.find("127.0.0.1", 5000, 350.0)] == ["decision"]
    ended(audit, 400.0, second)
    assert [(line["connection_id"], line["event"]) for line in audit.find("127.0.0.1", 5000, 150.0)] == [
        ("one", "decision"),
        ("one", "close"),
    ]
    assert {line["connection_id"] for line in audit.find("127.0.0.1", 5000, 399.0)} == {"two"}
    # The target may have noted the connection before our line was out.
    assert audit.find("127.0.0.1", 5000, 299.0)[0]["connection_id"] == "two"
    assert audit.find("127.0.0.1", 5000, 10.0) == []
    assert audit.find("127.0.0.1", 500, 350.0) == []
    audit.close()


def test_lines_survive_a_restart_and_the_newest_come_first(tmp_path: Path) -> None:
    for number in range(3):
        audit = Audit(tmp_path / "audit.jsonl")
        opened(audit, float(number), str(number))
        audit.close()
    audit = Audit(tmp_path / "audit.jsonl")
    assert [line["connection_id"] for line in audit.recent(2)] == ["2", "1"]
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    audit.close()


def test_the_files_stay_within_their_bounds_and_old_lines_go_first(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", max_bytes=2000, keep=2)
    for number in range(50):
        opened(audit, float(number), str(number))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 2000
    found = [int(line["connection_id"]) for line in audit.recent(1000)]
    assert found == list(range(49, 49 - len(found), -1))
    assert len(found) > 8
    audit.close()


def test_a_line_that_a_full_disk_cut_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    audit = Audit(tmp_path / "audit.jsonl")
    opened(audit, 1.0, "one")
    whole = os.write
    with monkeypatch.context() as patch:
        patch.setattr("outgate.egress.audit.os.write", lambda descriptor, data: whole(descriptor, data[:40]))
        opened(audit, 2.0, "torn")
    opened(audit, 3.0, "three")
    assert [line["connection_id"] for line in audit.recent()] == ["three", "one"]
    audit.close()


def test_endpoints_of_both_families() -> None:
    assert endpoint("192.0.2.1", 25) == "192.0.2.1:25"
    assert endpoint("2001:db8::1", 25) == "[2001:db8::1]:25"
