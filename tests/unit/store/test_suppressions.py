"""Suppressed addresses in the store: keys, memory, ends, and plans that stay quick with many of them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.clock import FrozenClock
from outgate.model.suppression import NewSuppression, key
from outgate.smtp.grammar import BadSyntax
from outgate.store import suppressions as module
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from outgate.store.suppression_filter import SuppressionFilter, digest
from outgate.store.tenancy import TooMany

NOW = 1_800_000_000.0


class Store:
    def __init__(self, directory: Path) -> None:
        self.clock = FrozenClock(NOW)
        self.path = directory / "control.db"
        self.box = open_box(directory / "master.key")
        self.control = open_control(self.path, self.box, self.clock)
        self.account = self.control.tenancy.create_account()
        self.one, self.two = (self.control.tenancy.create_instance(self.account, "eu-de", name).id for name in "ab")
        self.queries = self.control.suppressions

    def another(self) -> ControlStore:
        """Open the same file as another process does."""
        return open_control(self.path, self.box, self.clock)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.control.close()


def entry(address: str, reason: str = "manual", **more: float | None) -> NewSuppression:
    return NewSuppression(address, reason, "me", "", **more)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Ann@Example.NET", "ann@example.net"), ('"ann"@example.net', "ann@example.net"), ('"a\\n"@x.test', "an@x.test"),
        ('"a b"@x.test', '"a b"@x.test'), ("ann+news@x.test", "ann+news@x.test"), ("STRASSE@x.test", "strasse@x.test"),
        ("Straße@BÜCHER.example", "strasse@xn--bcher-kva.example"), ("e\u0301@x.test", "\u00e9@x.test"), ("a@x.test.", "a@x.test"),
    ],
)  # fmt: skip
def test_what_a_mailbox_is_found_by(given: str, expected: str) -> None:
    assert key(given) == expected
    assert key(expected) == expected


def test_what_is_no_mailbox_has_no_key() -> None:
    for text in ("ann", "@x.test", "a b@x.test", "a@", "a@-x", "a\n@x.test", "\ud800@x.test"):
        with pytest.raises(BadSyntax):
            key(text)


def test_an_instance_has_its_own(store: Store) -> None:
    assert store.queries.add(store.one, [entry("Ann@x.test"), entry("bob@x.test")]) == 2
    found = store.queries.of(store.one, ["ann@X.test", "ANN@x.test", "carl@x.test"])
    assert set(found) == {"ann@X.test", "ANN@x.test"} and found["ANN@x.test"].address == "Ann@x.test"
    assert store.queries.of(store.two, ["ann@x.test"]) == {}
    assert store.queries.remove(store.one, "ANN@x.test") and not store.queries.remove(store.one, "ann@x.test")
    assert store.queries.of(store.one, ["ann@x.test"]) == {}
    assert [each.address for each in store.queries.page(store.one)[1]] == ["bob@x.test"]


def test_an_entry_that_was_removed_counts_again_once_it_is_added(store: Store) -> None:
    # The id of the last entry must not be given again: memory takes in what has a higher one.
    for _ in range(3):
        store.queries.add(store.one, [entry("ann@x.test")])
        fresh = store.another()
        assert fresh.suppressions.of(store.one, ["ann@x.test"]) == {}, "memory is empty before the first look"
        fresh.suppressions.follow()
        assert set(fresh.suppressions.of(store.one, ["ann@x.test"])) == {"ann@x.test"}
        store.queries.remove(store.one, "ann@x.test")
        other = entry("bob@x.test")
        fresh.suppressions.add(store.one, [other])
        assert fresh.suppressions.of(store.one, ["ann@x.test", "bob@x.test"]).keys() == {"bob@x.test"}
        store.queries.follow()
        assert store.queries.of(store.one, ["bob@x.test"])
        store.queries.remove(store.one, "bob@x.test")
        fresh.close()


def test_an_end_is_an_end_purged_or_not(store: Store) -> None:
    store.queries.add(store.one, [entry("ann@x.test", expires_at=NOW + 10), entry("bob@x.test")])
    assert store.queries.page(store.one)[0] == 2 and store.queries.purge() == 0
    store.clock.advance(10)
    assert store.queries.of(store.one, ["ann@x.test"]) == {} and store.queries.get(store.one, "ann@x.test") is None
    assert store.queries.page(store.one)[0] == 1 and len(store.queries.page(store.one)[1]) == 1
    assert store.queries.page(store.one, reason="manual")[0] == 1
    assert [each.address for some in store.queries.all(store.one) for each in some] == ["bob@x.test"]
    assert store.queries.purge() == 1 and store.queries.purge() == 0
    assert store.queries.page(store.one)[0] == 1
    assert store.queries.add(store.one, [entry("ann@x.test")]) == 1 and store.queries.of(store.one, ["ann@x.test"])


def test_what_ended_is_purged_some_at_a_time(store: Store) -> None:
    store.queries.add(store.one, [entry(f"u{n}@x.test", expires_at=NOW + 1) for n in range(2500)])
    store.clock.advance(1)
    assert [store.queries.purge() for _ in range(4)] == [1000, 1000, 500, 0]


def test_a_bounce_leaves_alone_what_people_said(store: Store) -> None:
    store.queries.add(store.one, [entry("ann@x.test", "complaint", expires_at=NOW + 5)])
    assert store.queries.add(store.one, [entry("ann@x.test", "hard_bounce")] * 2, replace=False) == 0
    found = store.queries.get(store.one, "ann@x.test")
    assert found is not None and found.reason == "complaint"
    store.clock.advance(5)
    store.queries.add(store.one, [entry("ann@x.test", "hard_bounce")], replace=False)
    found = store.queries.get(store.one, "ann@x.test")
    assert found is not None and (found.reason, found.expires_at, found.created_at) == ("hard_bounce", None, NOW + 5)


def test_no_more_than_an_instance_may_have(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    store.queries.add(store.one, [entry("a@x.test"), entry("b@x.test")])
    with pytest.raises(TooMany, match="at most 2"):
        store.queries.add(store.one, [entry("c@x.test")])
    assert store.queries.page(store.one)[0] == 2 and store.queries.add(store.two, [entry("c@x.test")]) == 1


def test_the_words_for_the_trail(store: Store) -> None:
    store.queries.add(store.one, [NewSuppression("ann@x.test", "hard_bounce", "bounce of A1", "550 5.1.1 Nobody")])
    found = store.queries.of(store.one, ["ann@x.test"])["ann@x.test"]
    assert found.words() == (
        "suppressed: hard bounce of 2027-01-15 (550 5.1.1 Nobody); remove it with `outgate suppression remove ann@x.test`"
    )


def test_many_are_found_by_indexes_only(store: Store) -> None:
    chosen = random.Random(3)
    many = [
        NewSuppression(
            f"u{n}@d{n % 500}.test",
            ("hard_bounce", "complaint")[n % 50 == 0],
            f"bounce of Q{n}" if n % 2 else "iam-me",
            "550 5.1.1 no",
            NOW + chosen.randrange(1, 10**6) if n % 3 else None,
        )
        for n in range(50_000)
    ]
    # One transaction: what is under test is what is found, not how it came.
    with store.control._database.writing() as connection:
        connection.exec_driver_sql(module._ADD, [module._row(store.one, each, NOW) for each in many])
        connection.exec_driver_sql(module._COUNT, (store.one, len(many)))
    store.queries.add(store.two, many[:10])
    plans: list[str] = []
    with closing(sqlite3.connect(store.path)) as plain:

        def plan(sql: str, *values: object) -> str:
            return " | ".join(row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {sql}", values))

        for wanted in ((None, None, None), ("u77", None, None), (None, "complaint", None), (None, None, "iam-me")):
            index, condition, values = module._wanted(store.one, *wanted)
            ids = f"FROM suppressions INDEXED BY {index} WHERE {condition} AND {module._LIVE}"
            plans.append(plan(f"SELECT count(*) {ids}", *values, NOW))
            plans.append(plan(f"SELECT id {ids} ORDER BY id DESC LIMIT 10 OFFSET 100", *values, NOW))
        plans.append(plan(module._OF.format(marks="?, ?"), store.one, "a", "b", NOW))
        plans.append(plan(module._FRESH, 100))
        plans.append(plan(module._ENDED, NOW, store.one))
        plans.append(plan(module._PURGE, NOW, 10))
    for found in plans:
        assert "SCAN" not in found, found
    for found in (plans[0], plans[1], plans[4], plans[5], plans[6], plans[7]):
        assert "COVERING INDEX" in found and "TEMP B-TREE" not in found, found
    assert store.queries.page(store.one, offset=49_990)[0] == 50_000
    assert store.queries.page(store.one, search="u77@")[0] == 1
    assert store.queries.page(store.one, reason="complaint", limit=5)[0] == 1000
    fresh = store.another()
    assert fresh.suppressions.follow() == 50_010 and fresh.suppressions.follow() == 0
    assert set(fresh.suppressions.of(store.one, ["u7@d7.test", "u7@d8.test"])) == {"u7@d7.test"}
    fresh.close()


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), max_size=5), st.integers(-(2**63), 2**63 - 1))
def test_memory_holds_what_was_added(added: list[list[int]], other: int) -> None:
    known, expected = SuppressionFilter(), set[int]()
    for some in added:
        known.add(some)
        expected.update(some)
        assert known.entries == len(expected)
    filled = SuppressionFilter()
    assert filled.fill(number for some in added for number in some) == sum(map(len, added))
    assert filled.entries == len(expected) and all(number in filled for number in expected)
    assert all(number in known for number in expected)
    assert (other in known) == (other in expected)


def test_a_digest_is_of_instance_and_address() -> None:
    assert len({digest("a", "b@c"), digest("a", "b@d"), digest("ab", "@c"), digest("", "ab@c")}) == 4
    assert -(2**63) <= digest("a", "b@c") < 2**63
