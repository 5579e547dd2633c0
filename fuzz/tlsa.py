"""TLSA records, and certificates that are held against them.

Property: any text is a record or none; a record is read as the same from what it says; those that are usable are of known
kinds with data of the right length, and of two digests for the same thing the weaker is left out; any octets as a
certificate match, or there is a reason in words.
"""

from __future__ import annotations

import hashlib

from outgate.domains.dane import Tlsa, mismatch, read, usable

SEEDS = (
    b"3 1 1 " + b"ab" * 32,
    b"2 0 2 " + b"0123456789ABCDEF" * 8,
    b"3 1 1 " + b"ab" * 32 + b"\n3 1 2 " + b"cd" * 64,
    b"0 0 0 30820122300d06092a864886f70d01010105000382010f003082010a",
    b"255 255 255 00",
    b"3 0 0 3003020101",
    b"256 1 1 ab\n3 1 1 abc\n3 1",
)


def one_input(data: bytes) -> None:
    records = [read(line) for line in data.decode("latin-1").splitlines()]
    for record in records:
        if record is not None:
            text = f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"
            assert read(text) == record and record.data
    for chain in (True, False):
        found = usable(records, chain=chain)
        kinds = {(record.usage, record.selector) for record in found}
        for kind in kinds:
            assert len({record.matching for record in found if (record.usage, record.selector) == kind} - {0}) <= 1
        for record in found:
            assert record.usage == 3 or (chain and record.usage == 2)
            assert record.selector in (0, 1) and record.matching in (0, 1, 2)
            assert len(record.data) == {1: 32, 2: 64}.get(record.matching, len(record.data))
        reason = mismatch(found, [data], ["mx.example"], 1.8e9)
        assert isinstance(reason, str) and (reason or found)
    own = Tlsa(3, 0, 1, hashlib.sha256(data).digest())
    assert mismatch([own], [data], [], 0.0) == "" and mismatch([own], [], [], 0.0)
    assert mismatch([Tlsa(2, 0, 1, own.data)], [data], ["mx.example"], 1.8e9)  # the server's own is no authority


if __name__ == "__main__":
    from _run import run

    run(__file__)
