"""What a mail of the log tells, and when it may go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer.digest import KINDS, TEXT, Digest, one_line

AT = 1_800_000_000.0


def test_one_record_is_told_as_it_is() -> None:
    digest = Digest(60.0)
    assert digest.due is None and digest.take(5.0) is None
    digest.add("k", "ERROR", "disk full", AT, "disk full\nTraceback …")
    assert digest.due == float("-inf")
    batch = digest.take(5.0)
    assert batch is not None
    assert batch.summary == "ERROR: disk full"
    assert batch.body == "2027-01-15 08:00:00Z ERROR\ndisk full\nTraceback …\n"
    digest.add("k", "ERROR", "again", AT, "again")
    assert digest.due == 65.0


def test_many_of_a_kind_are_one_text_and_a_count() -> None:
    digest = Digest(60.0)
    for number in range(1000):
        assert digest.wants("k") is (number == 0)
        digest.add("k", "ERROR", f"order {number} failed", AT + number, f"order {number} failed" if not number else "")
    digest.add("other", "CRITICAL", "x", AT, "x")
    batch = digest.take(0.0)
    assert batch is not None and batch.records == 1001
    assert batch.summary == "ERROR: order 0 failed (and 1000 more)"
    assert batch.body.startswith("1001 records of 2 kinds.\n\n2027-01-15 08:00:00Z ERROR, 1000 times until ")
    assert "order 0 failed\nThe last one: order 999 failed\n" in batch.body and "order 500" not in batch.body


def test_memory_has_an_end_and_the_mail_says_what_is_missing() -> None:
    digest = Digest(60.0)
    for number in range(KINDS + 7):
        digest.add(number, "ERROR", "m", AT, "y" * (TEXT + 9))
    assert not digest.wants(KINDS + 8)
    batch = digest.take(0.0)
    assert batch is not None and batch.records == KINDS + 7 and len(batch.kinds) == KINDS
    assert "7 records had no room here: look into the log itself." in batch.body
    assert "(cut: 9 signs more)" in batch.body and len(batch.body) < KINDS * (TEXT + 200)


def test_what_could_not_be_sent_is_told_later() -> None:
    digest = Digest(60.0)
    digest.add("a", "ERROR", "first", AT, "first")
    batch = digest.take(0.0)
    assert batch is not None
    digest.add("a", "ERROR", "second", AT + 9, "second")
    digest.add("b", "ERROR", "third", AT + 9, "third")
    digest.put_back(batch)
    again = digest.take(60.0)
    assert again is not None and again.records == 3
    assert again.summary == "ERROR: first (and 2 more)" and "The last one: second" in again.body
    digest.give_up(again)
    assert digest.due is None
    digest.add("c", "ERROR", "fourth", AT, "fourth")
    last = digest.take(120.0)
    assert last is not None and "3 earlier records were in mails that could not be sent." in last.body


_EVENTS = st.lists(st.one_of(st.integers(0, KINDS + 20), st.sampled_from(["take", "back", "give up"])), max_size=200)


@given(_EVENTS)
def test_no_record_is_lost_without_being_counted(events: list[int | str]) -> None:
    digest = Digest(1.0)
    batch = None
    added = told = 0
    for event in events:
        if isinstance(event, int):
            digest.add(event, "ERROR", "m", AT, "t")
            added += 1
        elif batch is None:
            batch = digest.take(0.0)
        elif event == "take":
            told += batch.records + batch.lost
            batch = None
        else:
            (digest.put_back if event == "back" else digest.give_up)(batch)
            batch = None
    for left in (batch, digest.take(0.0)):
        if left is not None:
            told += left.records + left.lost
            assert len(left.kinds) <= KINDS
    assert told + digest.lost == added


def test_a_line_for_a_subject() -> None:
    assert one_line("\n \r\n a\x1b[31mb\tc\u2028d\ne") == "a [31mb c"
    assert one_line("x" * 600) == "x" * 499 + "…"
    assert one_line("") == ""
