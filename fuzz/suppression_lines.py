"""Files of suppressed addresses.

Property: any octets give entries or `BadFile`, whose faults name lines that are there and say one line each; what was read
and is written again reads as the same, and no cell that is written begins a formula.
"""

from __future__ import annotations

import csv
import io

from outgate.api.suppressions.lines import FAULTS_SHOWN, HEAD, BadFile, read, write
from outgate.model.suppression import Suppression, key

NOW = 1_800_000_000.0
SEEDS = (
    b"address\r\nann@example.net\r\n",
    b"\xef\xbb\xbfAddress,Reason,expires_at\nann@example.net,hard_bounce,2099-01-01T00:00:00Z\n",
    b'address,detail\r\n"""a,b""@example.net","550 ""no"" such user"\r\n',
    b"reason,address\r\n\r\nmanual,'=cmd@example.net\r\n,''-1@example.net\r\n",
    b"address,source,created_at\r\na@b.test,import by me,2026-11-21T07:03:00.123Z\r\n",
    b'address\r\n"open@b.test\r\n',
    b"address;reason\r\na@b.test;manual\r\n",
    "address\r\nb\u00fccher@b\u00fccher.example\r\n".encode(),
    b"address\ra@b.test\r\0",
)


def one_input(data: bytes) -> None:
    try:
        found, ended = read(data, source="me", now=NOW)
    except BadFile as error:
        assert 1 <= len(error.faults) <= FAULTS_SHOWN + 1
        for fault in error.faults:
            assert 1 <= fault.line <= data.count(b"\n") + data.count(b"\r") + 1
            assert fault.text and "\n" not in fault.text
        return
    assert ended >= 0 and len({key(entry.address) for entry in found}) == len(found)
    kept = [
        Suppression(0, "", "", e.address, e.reason, e.source, e.detail, NOW if e.created_at is None else e.created_at, e.expires_at)
        for e in found
    ]  # fmt: skip
    text = HEAD + write(kept)
    for row in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell[:1] in ("=", "+", "-", "@", "\t", "\r") and cell for cell in row)
    again, _ = read(text.encode(), source="else", now=NOW)
    assert [(e.address, e.reason, e.source, e.detail) for e in again] == [
        (e.address, e.reason, e.source, e.detail) for e in found
    ]


if __name__ == "__main__":
    from _run import run

    run(__file__)
