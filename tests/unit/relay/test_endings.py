"""Allow-lists that end: told of from 14 days before, once a day, and when they have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from outgate.model.access import Address, AllowList
from outgate.relay.endings import DAY_S, Endings, days_left, warning

END = 1_800_000_000.0


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), record.fields))  # type: ignore[attr-defined]

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("outgate.access")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def listing(instance: str = "i1", ends_at: float = END, networks: int = 1) -> AllowList:
    addresses = tuple(Address("ipAddress", f"192.0.2.{number}") for number in range(networks))
    return AllowList(instance, addresses, ends_at, "", "1", 0, 0, "", "")


def test_nothing_is_told_before_14_days_then_once_a_day_then_the_end(lines: Lines) -> None:
    endings, lists = Endings(), [listing()]
    assert endings.look(lists, END - 20 * DAY_S) == END - 14 * DAY_S
    assert lines.take() == []
    assert endings.look(lists, END - 14 * DAY_S) == END - 13 * DAY_S
    ((event, said),) = lines.take()
    assert event == "access.allow_list_ends"
    assert (said["instance"], said["ends_in_days"], said["networks"]) == ("i1", 14, ["192.0.2.0"])
    assert said["ends_at"] == "2027-01-15T08:00:00Z" and "zone" in said["remedy"] and "--until" in said["remedy"]
    assert endings.look(lists, END - 13.5 * DAY_S) == END - 13 * DAY_S
    assert lines.take() == []
    told = 0
    now = END - 13.5 * DAY_S
    while (now := endings.look(lists, now)) != inf:
        told += [event for event, _ in lines.take()].count("access.allow_list_ends")
    assert told == 13
    assert [event for event, _ in lines.take()] == ["access.allow_list_ended"]
    assert endings.look(lists, END + DAY_S) == inf and lines.take() == []


def test_a_start_tells_of_what_ends_soon_or_ended_within_a_day(lines: Lines) -> None:
    past = [listing("past", END - DAY_S), listing("down", END - DAY_S + 1)]
    endings, lists = Endings(), [*past, listing("soon", END + 40), listing("far", END + 100 * DAY_S)]
    assert endings.look(lists, END) == END + 40
    assert [(event, said["instance"]) for event, said in lines.take()] == [
        ("access.allow_list_ended", "down"),
        ("access.allow_list_ends", "soon"),
    ]
    endings.look(lists, END + 1)
    assert lines.take() == []


def test_another_end_is_told_anew_and_a_list_that_went_is_forgotten(lines: Lines) -> None:
    endings = Endings()
    endings.look([listing()], END - 10)
    endings.look([listing(ends_at=END + DAY_S)], END - 9)
    assert len(lines.take()) == 2
    assert endings.look([], END - 8) == inf
    endings.look([listing()], END - 7)
    assert len(lines.take()) == 1


def test_a_long_list_is_told_in_part(lines: Lines) -> None:
    Endings().look([listing(networks=100)], END - 10)
    ((_, said),) = lines.take()
    assert len(said["networks"]) == 20 and said["count"] == 100


def test_words() -> None:
    assert warning(listing(), END - 14 * DAY_S - 1) == ""
    assert warning(listing(), END - 1).startswith("ends in 1 day(s): ")
    assert warning(listing(), END).startswith("has ended, and grants nothing: ")
    assert [days_left(END, now) for now in (END - DAY_S, END - 1, END, END + DAY_S)] == [1, 1, 0, 0]
