"""How fast a site is served: what replies speak of, slots, pauses, rates, and whose exceptions count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.relay.shaping import About, Pace, PaceRules, RuleBook, about
from outgate.smtp.reply import Reply, reply

US = reply(421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail")
BYE = reply(421, "4.3.2", "Closing")
GREY = reply(450, "4.2.0", "Greylisted, please try again later")


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "expected"),
    [
        (421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail", About.US),
        (450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that prevents more", About.MESSAGE),
        (421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume", About.US),
        (451, "4.7.650", "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation", About.US),
        (421, "", "RP-001 (BAY004) Unfortunately, some messages from 192.0.2.1 were not sent", About.US),
        (451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]", About.US),
        (452, "4.3.1", "Too many messages, slow down", About.US),
        (450, "", "Sending rate too high: throttled", About.US),
        (421, "4.7.0", "mx.test Error: too many connections from 192.0.2.1", About.CONNECTIONS),
        (421, "4.3.2", "The maximum number of concurrent connections has exceeded a limit", About.CONNECTIONS),
        (421, "", "Connection refused, too many sessions from 192.0.2.1", About.CONNECTIONS),
        (421, "4.4.2", "Idle too long", About.LEAVING),
        (450, "4.2.0", "Recipient address rejected: Greylisted, see http://postgrey.test", About.MESSAGE),
        (451, "4.7.1", "Graylisting in action, try again later", About.MESSAGE),
        (452, "4.2.2", "Mailbox full", About.MESSAGE),
        (452, "4.5.3", "Too many recipients", About.MESSAGE),
        (450, "4.1.8", "Sender address rejected: Domain not found", About.MESSAGE),
        (550, "5.7.1", "Too many connections of bad reputation", About.MESSAGE),
        (250, "2.0.0", "Ok: rate limit", About.MESSAGE),
    ],
)  # fmt: skip
def test_what_a_reply_speaks_of(code: int, enhanced: str, text: str, expected: About) -> None:
    assert about(reply(code, enhanced, text)) is expected


def test_a_pause_doubles_up_to_the_longest_and_one_message_probes() -> None:
    pace = Pace(PaceRules(pause_first=60, pause_most=200))
    now, lengths = 1000.0, []
    assert pace.may_begin(now)
    for _ in range(4):
        assert pace.heard(US, now) is About.US
        lengths.append(pace.until - now)
        for other in range(3):  # what was under way together says the same, and counts once
            pace.heard(US, now + other)
        assert pace.until - now == lengths[-1]
        assert not pace.may_begin(pace.until - 0.1)
        now = pace.until
        assert pace.may_begin(now) and not pace.may_begin(now)
    assert lengths == [60, 120, 200, 200]
    pace.went_well(now + 1)
    assert pace.easy and pace.may_begin(now + 1) and pace.may_begin(now + 1)
    pace.heard(US, now + 2)
    assert pace.until == now + 62  # from the beginning


def test_a_probe_that_gets_no_answer_is_followed_by_a_longer_pause() -> None:
    pace = Pace(PaceRules())
    pace.heard(US, 0.0)
    assert pace.may_begin(60)
    pace.lost(61)
    assert pace.until == 61 + 120
    assert pace.may_begin(181)
    pace.unused()
    assert pace.may_begin(181)


def test_what_is_about_one_message_slows_nobody() -> None:
    pace = Pace(PaceRules())
    for _ in range(100):
        assert pace.heard(GREY, 0.0) is About.MESSAGE
        pace.heard(reply(550, "5.1.1", "nobody"), 0.0)
        pace.lost(0.0)
    assert pace.easy and pace.slots == 20


def test_slots_are_halved_and_come_back_one_at_a_time() -> None:
    pace = Pace(PaceRules(connections=20))
    pace.connections = 20
    pace.heard(BYE, 0.0)
    assert pace.slots == 10 and pace.surplus
    pace.heard(BYE, 0.0)
    assert pace.slots == 5
    for second in range(1, 30):
        pace.went_well(second)
    assert pace.slots == 5
    pace.went_well(30)
    pace.went_well(31)
    assert pace.slots == 6
    for step in range(2, 16):
        pace.went_well(30.0 * step)
    assert pace.slots == 20 and pace.easy


def test_a_site_that_refuses_one_more_keeps_what_it_let_in() -> None:
    pace = Pace(PaceRules())
    pace.connections, pace.opening = 5, 1
    pace.refused("421", reply(421, "4.7.0", "Too many connections"), 0.0)
    assert pace.slots == 4 and pace.until == 0.0


def test_a_site_that_takes_no_connection_gets_a_pause() -> None:
    pace = Pace(PaceRules())
    pace.refused("421 busy", reply(421, "4.3.2", "Busy"), 0.0)
    assert pace.until == 60
    lost = Pace(PaceRules())
    for n in range(3):
        assert lost.until == 0.0
        lost.refused("no route to host", None, float(n))
    assert lost.until == 2 + 10  # its messages have pauses of their own
    assert lost.status(3).why == "no connection" and "no route" in lost.status(3).last_reply
    lost.refused("no route to host", None, 12.0)
    assert lost.until == 12 + 20


@given(st.lists(st.floats(0, 5), min_size=50, max_size=200), st.floats(1, 600))
def test_a_rate_holds_over_any_time(steps: list[float], per_minute: float) -> None:
    pace = Pace(PaceRules(per_minute=per_minute))
    now, times = 1e9, []
    for step in steps:
        now += step
        if pace.may_begin(now):
            times.append(now)
        else:
            assert now < pace.waits_for(now) <= now + 60.0 / per_minute + 1e-3
    burst = max(1.0, min(per_minute / 6, 10.0))
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 5):
            assert last - first + 1 <= burst + (times[last] - times[first]) * per_minute / 60 + 1 + 1e-3


def test_what_the_rate_does_not_let_go_within_a_minute_waits_in_the_store() -> None:
    pace = Pace(PaceRules(per_minute=10))
    assert [pace.due(100.0, waiting) for waiting in (0, 9)] == [0.0, 0.0]
    assert [pace.due(100.0, 10) for _ in range(3)] == [160.0, 166.0, 172.0]


def test_exceptions_go_by_domain_then_by_the_longest_name_of_a_host() -> None:
    usual = PaceRules()
    book = RuleBook(
        usual,
        {name: PaceRules(connections=number, name=name) for number, name in enumerate(
            ("google.test", "mx.google.test", "shop.test"), 1)},
    )  # fmt: skip
    assert book.rules("a.test", ["alt1.mx.google.test"]).name == "mx.google.test"
    assert book.rules("a.test", ["x.test", "y.google.test"]).name == "google.test"
    assert book.rules("shop.test", ["mx.google.test"]).name == "shop.test"
    assert book.rules("a.test", ["notgoogle.test", ""]) is usual


@given(st.integers(400, 499), st.text(max_size=2000).filter(str.isprintable))
def test_any_text_is_about_something(code: int, text: str) -> None:
    assert about(Reply(code, "", (text,))) in About
