"""The audit: what is written is found again, by the right connection, within bounded files."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.egress.audit import Audit, Connection, Wanted, endpoint
from outgate.egress.line_file import LineFile
from outgate.egress.plan import Proxy
from support.egress_peers import forward

RULE = forward("127.1.0.1", 30465, "smtp.example", 465)
PROXY = Proxy("10", "4", "127.1.0.1", 3128, RULE.way, ("127.0.0.0/8",))


@contextmanager
def disk_of(octets: int) -> Iterator[None]:
    """Let no file grow beyond so many octets: the kernel cuts a write short there, and refuses the next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


def test_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    opened(audit, 1.0, "one")
    with disk_of(audit_size := (tmp_path / "audit.jsonl").stat().st_size + 40):
        for number in range(3):
            opened(audit, 2.0, f"lost {number}")
    assert audit.lost == 3
    assert (tmp_path / "audit.jsonl").stat().st_size == audit_size  # half a line
    opened(audit, 3.0, "three")
    assert [line["connection_id"] for line in audit.recent()] == ["three", "one"]
    assert [record.message for record in caplog.records] == ["audit.lost", "audit.written_again"]
    assert caplog.records[1].fields == {"lines_lost": 3}  # type: ignore[attr-defined]
    with disk_of(1):
        opened(audit, 4.0, "lost again")
    assert audit.lost == 4
    audit.close()


def test_half_a_line_of_an_earlier_run_spoils_no_other(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    opened(audit, 1.0, "one")
    audit.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"at":2.000000,"event":"deci')
    audit = Audit(tmp_path / "audit.jsonl")
    opened(audit, 3.0, "three")
    assert [line["connection_id"] for line in audit.recent()] == ["three", "one"]
    audit.close()


def test_lines_wait_for_their_batch_and_who_asks_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.jsonl"
    writes: list[int] = []
    whole = os.write

    def counted(descriptor: int, octets: bytes) -> int:
        writes.append(len(octets))
        return whole(descriptor, octets)

    async def run() -> None:
        monkeypatch.setattr("outgate.egress.line_file.os.write", counted)
        audit = Audit(file)
        for number in range(200):
            opened(audit, float(number), str(number))
        assert file.stat().st_size == 0
        assert len(audit.recent(1000)) == 200
        assert len(writes) == 1
        opened(audit, 300.0, "by the clock")
        # What a turn of the loop brings is written soon after it, whoever asks or not.
        written = asyncio.Event()
        monkeypatch.setattr("outgate.egress.line_file.os.write", lambda *args: (counted(*args), written.set())[0])
        await asyncio.wait_for(written.wait(), 30)
        assert len(writes) == 2
        opened(audit, 301.0, "at the end")
        audit.close()
        audit.close()

    asyncio.run(run())
    assert json.loads(file.read_text().splitlines()[-1])["connection_id"] == "at the end"
    assert len(writes) == 3


def test_a_batch_that_is_longer_than_a_file_is_turned_over_within(tmp_path: Path) -> None:
    async def run() -> None:
        audit = Audit(tmp_path / "audit.jsonl", max_bytes=2000, keep=3)
        for number in range(50):
            opened(audit, float(number), str(number))
        audit.close()

    asyncio.run(run())
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 4 and max(sizes) <= 2000
    audit = Audit(tmp_path / "audit.jsonl")
    found = [int(line["connection_id"]) for line in audit.recent(1000)]
    assert found == list(range(49, 49 - len(found), -1)) and len(found) > 12
    audit.close()


def test_what_a_client_says_is_text_in_the_line_and_nothing_more(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    nasty = 'x","client":"127.0.0.1:5000","a":"\n\x00\u2028é\ud800'
    asked = Connection("one", PROXY, "127.0.0.1:7", nasty, 443, "CONNECT")
    audit.decision(1.0, asked, refusal="dns", reason=nasty * 100)
    audit.notice(2.0, asked, code="x", reason=nasty)
    (notice, line) = audit.recent()
    assert line["proxy"] == {"listen": 3128, "method": "CONNECT", "name": nasty, "port": 443}
    assert (line["refusal"], line["reason"]) == ("dns", (nasty * 100)[:1000])
    assert (notice["event"], notice["code"], notice["reason"]) == ("notice", "x", nasty)
    assert audit.find("127.0.0.1", 5000, 3.0) == []
    assert [each["event"] for each in audit.find("127.0.0.1", 7, 3.0)] == ["decision", "notice"]
    audit.close()


def test_fields_of_a_line_in_order(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    connection = Connection(
        "a1", RULE, "127.0.0.1:5", "smtp.example", 465, target="192.0.2.1:465", source="127.0.0.2:6"
    )
    audit.close_of(1.5, connection, bytes_up=1, bytes_down=2, duration_s=0.25, reason="finished", notices=("tls",))
    (line,) = audit.recent()
    assert line == {
        "at": 1.5,
        "event": "close",
        "connection_id": "a1",
        "program": "4",
        "environment": "10",
        "mode": "flexiblePortEgress",
        "forward": {"portOrig": 30465, "name": "smtp.example", "portDest": 465},
        "client": "127.0.0.1:5",
        "target": "192.0.2.1:465",
        "source": "127.0.0.2:6",
        "proxy_header": False,
        "exception": "",
        "bytes_up": 1,
        "bytes_down": 2,
        "duration_s": 0.25,
        "notices": ["tls"],
        "reason": "finished",
    }
    audit.close()


def test_a_connection_among_very_many_is_found_without_reading_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write() -> None:
        audit = Audit(tmp_path / "audit.jsonl", max_bytes=4 * 1024 * 1024, keep=4)
        for number in range(40_000):
            # Each client port comes round again and again.
            known = opened(audit, 1000.0 + number, f"c{number}", f"127.0.0.1:{20_000 + number % 10_000}")
            if number % 2:
                ended(audit, 1000.5 + number, known)
        audit.close()

    asyncio.run(write())
    audit = Audit(tmp_path / "audit.jsonl", max_bytes=4 * 1024 * 1024, keep=4)
    read: list[int] = []
    whole = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        read.append(length)
        return whole(descriptor, length, offset)

    monkeypatch.setattr("outgate.egress.line_file.os.pread", counted)
    monkeypatch.setattr("outgate.egress.audit.LOOK_BACK", 1024 * 1024)
    for number in (39_999, 35_001, 12_345, 20_000):
        read.clear()
        found = audit.find("127.0.0.1", 20_000 + number % 10_000, 1000.2 + number)
        assert {line["connection_id"] for line in found} == {f"c{number}"}
        assert len(found) == 1 + number % 2
        assert sum(read) < 6 * 1024 * 1024
    # What is not there costs no more than what may be looked at.
    read.clear()
    assert audit.find("127.0.0.9", 1, 30_000.0) == []
    assert sum(read) < 4 * 1024 * 1024
    audit.close()


def test_lines_are_chosen_and_gone_through_page_by_page(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    for number in range(10):
        known = opened(audit, float(number), str(number), f"127.0.0.{1 + number % 2}:500{number}")
        if number == 3:
            audit.decision(number + 0.5, known, refusal="guard", reason="127.0.0.1")
    page = audit.search(Wanted(client="127.0.0.1"), 3)
    assert [line["connection_id"] for line in page.lines] == ["8", "6", "4"]
    page = audit.search(Wanted(client="127.0.0.1", before=page.older), 3)
    assert [line["connection_id"] for line in page.lines] == ["2", "0"] and page.older is None
    assert [line["connection_id"] for line in audit.search(Wanted(client="127.0.0.2:5005"), 3).lines] == ["5"]
    assert [line["reason"] for line in audit.search(Wanted(refusal="guard"), 3).lines] == ["127.0.0.1"]
    assert audit.search(Wanted(environment="11"), 3).lines == ()
    assert len(audit.search(Wanted(environment="10"), 99).lines) == 11
    audit.close()


def test_a_search_ends_at_its_bound_and_says_where_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write() -> None:
        audit = Audit(tmp_path / "audit.jsonl")
        for number in range(10_000):
            opened(audit, 1.0 + number, str(number), f"127.0.0.1:{number + 1}")
        audit.close()

    asyncio.run(write())
    monkeypatch.setattr("outgate.egress.audit.LOOK_BACK", 500_000)
    audit = Audit(tmp_path / "audit.jsonl")
    wanted, looks = Wanted(client="127.0.0.1:1"), 0
    while not (page := audit.search(wanted, 5)).lines:
        assert page.older is not None and (wanted.before is None or page.older < wanted.before)
        wanted, looks = Wanted(client="127.0.0.1:1", before=page.older), looks + 1
    assert page.lines[0]["connection_id"] == "0" and looks >= 4
    audit.close()


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 40), st.integers(1, 200))
def test_lines_come_back_as_they_were_whatever_the_blocks(lengths: list[int], block: int, kept: int) -> None:
    lines = [f"{number:03}{'x' * length}\n" for number, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("outgate.egress.line_file._BLOCK", block)
        file = LineFile(Path(directory) / "lines", max_bytes=100 + kept, keep=200)
        file.write(lines)
        with file.reading() as span:
            back = [line for _, line in span.back(span.end, b"x", 1_000_000)]
            ahead = list(span.on(0, b"x", 1_000_000))
            for position, line in span.back(span.end, b"x", 1_000_000):
                assert span.read(position, position + len(line) + 1) == line + b"\n"
        file.close()
    assert [line.decode() + "\n" for line in ahead] == lines
    assert back == ahead[::-1]


def test_endpoints_of_both_families() -> None:
    assert endpoint("192.0.2.1", 25) == "192.0.2.1:25"
    assert endpoint("2001:db8::1", 25) == "[2001:db8::1]:25"
