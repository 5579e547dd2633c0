"""Places and turns: bounded, and fair between sources."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from outgate.relay.turns import Busy, Places, Turns


def test_a_source_never_holds_more_than_it_leaves_free() -> None:
    places = Places(8)
    assert [places.take("a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [places.take("b") for _ in range(3)] == [True, True, False]
    assert places.take("c")
    places.give_back("a")
    places.give_back("a")
    assert places.take("b")
    assert not places.take("a")


def test_places_that_are_given_back_are_all_there_again() -> None:
    places = Places(4)
    for _ in range(50):
        assert places.take("a") and places.take("a") and not places.take("a")
        places.give_back("a")
        places.give_back("a")


class Gated:
    """Turns whose one thread waits until told; `order` is who had theirs."""

    def __init__(self, waiting: int) -> None:
        self.turns = Turns(1, waiting, "test")
        self.order: list[str] = []
        self.begun, self.gate, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.turns.submit("first", self.hold)
        assert self.begun.wait(10)

    def hold(self) -> None:
        self.begun.set()
        assert self.gate.wait(10)

    def work(self, name: str) -> Callable[[], None]:
        return lambda: self.order.append(name)

    def finish(self) -> None:
        self.turns.submit("last", self.ended.set)
        self.gate.set()
        assert self.ended.wait(10)
        self.turns.close()


def test_who_comes_from_elsewhere_does_not_wait_for_a_flood() -> None:
    gated = Gated(40)
    for number in range(15):
        gated.turns.submit("flood", gated.work(f"flood {number}"))
    gated.turns.submit("owner", gated.work("owner"))
    gated.finish()
    assert gated.order.index("owner") <= 1
    assert [name for name in gated.order if name != "owner"] == [
        f"flood {number}" for number in range(len(gated.order) - 1)
    ]


def test_a_flood_leaves_places() -> None:
    gated = Gated(9)
    with pytest.raises(Busy):
        for number in range(9):
            gated.turns.submit("flood", gated.work(f"flood {number}"))
    gated.turns.submit("owner", gated.work("owner"))
    gated.finish()
    assert "owner" in gated.order and gated.order.count("flood 0") == 1
