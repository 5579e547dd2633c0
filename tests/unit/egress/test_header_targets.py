"""Who gets a PROXY header, whatever name leads there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from outgate.egress import header_targets
from outgate.egress.header_targets import HeaderTargets


async def test_a_listed_target_is_known_by_name_and_by_every_address_it_has() -> None:
    book: dict[str, Sequence[str]] = {"smtp.example": ["192.0.2.1", "::ffff:192.0.2.2"], "any.example": ["192.0.2.3"]}

    async def resolve(name: str) -> Sequence[str]:
        if name not in book:
            raise OSError("SERVFAIL")
        return book[name]

    others = {"192.0.2.9:2587"}
    entries = [
        "SMTP.example:465",
        "any.example.",
        "192.0.2.7:25",
        "[2001:db8::7]:25",
        "2001:db8::8",
    ]
    targets = HeaderTargets(entries, resolve, others=others)
    await targets.start()

    def by_address(address: str, port: int) -> bool:
        return targets.wants("alias.example", port, address)

    assert targets.wants("smtp.example", 465, "198.51.100.1")
    assert not targets.wants("smtp.example", 587, "198.51.100.1")
    assert [by_address(f"192.0.2.{number}", 465) for number in range(1, 5)] == [True, True, True, False]
    assert [by_address(f"192.0.2.{number}", 25) for number in (1, 3, 7)] == [False, True, True]
    assert [by_address(f"2001:db8::{number}", 25) for number in (7, 8, 9)] == [True, True, False]
    assert (by_address("192.0.2.9", 2587), by_address("192.0.2.9", 25)) == (True, False)
    # An answer may lack what the one before had, or a client would get there without our header; what cannot be looked
    # up stays. A name that has moved is believed after some answers.
    book["smtp.example"] = ["192.0.2.4"]
    del book["any.example"]
    await targets.look()
    assert [by_address(f"192.0.2.{number}", 465) for number in range(1, 5)] == [True, True, True, True]
    for _ in range(20):
        await targets.look()
    assert [by_address(f"192.0.2.{number}", 465) for number in range(1, 5)] == [False, False, True, True]
    await targets.close()


async def test_a_name_that_is_slow_to_resolve_counts_once_it_is_and_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(header_targets, "_FIRST_S", 0.01)
    answer: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def resolve(name: str) -> Sequence[str]:
        return await answer if name == "slow.example" else ["192.0.2.1"]

    targets = HeaderTargets(["slow.example:25", "quick.example:25"], resolve)
    await targets.start()
    assert targets.wants("alias.example", 25, "192.0.2.1")
    assert not targets.wants("alias.example", 25, "192.0.2.2")
    told = [
        str(getattr(each, "fields", "")) for each in caplog.records if each.message == "egress.header_target_unknown"
    ]
    assert len(told) == 1 and "slow.example" in told[0]
    answer.set_result(["192.0.2.2"])
    while not targets.wants("alias.example", 25, "192.0.2.2"):
        await asyncio.sleep(0)
    await targets.close()
