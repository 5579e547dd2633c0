"""Rules that are judged late, in a thread: what the client reads, and what becomes of the quota meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from outgate.model.tenancy import HtmlCheck, MailRules, OverQuota, Quota
from outgate.relay.checking import Checking
from outgate.relay.turns import Busy
from support.submission import Desk, configuration, desk, sender

BAD = ("From: a@shop.test", "Content-Type: text/html", "", "<p>a<b>b</p>")
GOOD = ("From: a@shop.test", "Content-Type: text/html", "", "<p>a</p>")


@dataclass
class ByHand:
    """Checks that are made when the test says so."""

    waiting: list[Callable[[], None]] = field(default_factory=list)
    full: bool = False

    def submit(self, instance_id: str, check: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        if self.full:
            raise Busy
        self.waiting.append(lambda: done(check(), None))

    def make(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


def desk_with(rules: MailRules) -> tuple[Desk, ByHand]:
    made = desk(known=sender(configuration(rules=rules)))
    checking = made.relay.checking = ByHand()  # type: ignore[assignment]
    made.pump()
    made.login()
    return made, checking  # type: ignore[return-value]


def test_html_is_judged_late_and_refused() -> None:
    d, checking = desk_with(MailRules(html=HtmlCheck.REFUSE))
    assert d.mail(*BAD) == ""
    assert d.say("NOOP") == "" and d.queue.taken == []  # the parser waits
    checking.make()
    said = d.pump()
    assert said.startswith("554 5.6.0 The HTML of the message is not well-formed (line 1, column 9)\r\n")
    assert said.endswith("250 2.0.0 Ok\r\n") and d.queue.taken == []
    assert d.resumed == 2
    d.mail(*GOOD)
    checking.make()
    d.queue.store()
    assert d.pump().startswith("250 2.0.0 Ok: queued as ")


def test_a_warning_goes_with_the_message() -> None:
    d, checking = desk_with(MailRules(html=HtmlCheck.WARN))
    d.mail(*BAD)
    checking.make()
    (accepted,) = d.queue.taken
    assert accepted.warning == "HTML is not well-formed: line 1, column 9: </p> comes before </b>"


def test_without_html_switched_on_nothing_is_late() -> None:
    d, checking = desk_with(MailRules())
    d.mail(*BAD)
    assert checking.waiting == [] and len(d.queue.taken) == 1


def test_a_marketing_message() -> None:
    d, checking = desk_with(MailRules(nature="marketing"))
    assert d.mail(*GOOD) == "554 5.7.1 A marketing message needs a link to unsubscribe\r\n"
    for lines in (("List-Unsubscribe: <https://shop.test/u>", "", "x"), ("", "unsubscribe: https://shop.test/u")):
        d.mail("From: a@shop.test", *lines)
        d.queue.store()
        assert d.pump().startswith("250 ")
    # A long one is searched in the thread.
    for last, said in (("unsubscribe: https://shop.test/u", "250 "), ("hello", "554 5.7.1 ")):
        assert d.mail("From: a@shop.test", "", *["x" * 900] * 100, last) == ""
        assert len(checking.waiting) == 1
        checking.make()
        d.queue.store()
        assert d.pump().startswith(said)


@pytest.mark.parametrize("end", ["refused", "gone", "crowded", "not stored"])
def test_what_is_not_stored_uses_no_quota(end: str, caplog: pytest.LogCaptureFixture) -> None:
    d, checking = desk_with(MailRules(quota=Quota(1, None), html=HtmlCheck.REFUSE))
    if end == "crowded":
        checking.full = True
        caplog.clear()
        assert d.mail(*GOOD).startswith("451 4.3.0")
        said = next(record for record in caplog.records if record.getMessage() == "message.crowded")
        assert said.fields["reason"] and said.fields["remedy"] and said.fields["instance"]  # type: ignore[attr-defined]
        checking.full = False
    elif end == "gone":
        d.mail(*GOOD)
        d.session.machine.receive_eof()
        d.session._ended = True
        checking.make()
        assert d.queue.taken == []
    else:
        d.mail(*(BAD if end == "refused" else GOOD))
        checking.make()
        d.queue.store(OSError("disk full"))
        assert d.pump().startswith("554" if end == "refused" else "451")
    quotas, quota = d.relay.quotas, Quota(1, None)
    now = d.relay.clock.now()
    assert quotas.room_at("cfg-shop.test", quota, now) == now
    assert d.relay.intake.held == 0


def test_a_message_is_counted_when_it_is_stored_by_the_quota_of_then() -> None:
    rules = MailRules(quota=Quota(1, None), html=HtmlCheck.REFUSE, over=OverQuota.HOLD)
    d, checking = desk_with(rules)

    def mail(then: MailRules) -> str:
        d.mail(*GOOD)
        d.credentials.known = sender(configuration(rules=then))
        checking.make()
        d.queue.store()
        return d.pump()

    d.mail(*GOOD)
    checking.make()
    d.queue.store()
    assert d.pump().startswith("250 ")
    # No limit any more: it goes at once.
    assert mail(MailRules(html=HtmlCheck.REFUSE)).startswith("250 ")
    assert d.queue.taken[-1].counted_at is None
    d.credentials.known = sender(configuration(rules=rules))
    # A limit that holds no more: there is no room.
    assert mail(replace(rules, over=OverQuota.REFUSE)).startswith("450 4.7.1 The domain's sending quota is used up")
    # One that came meanwhile counts it, from when it is stored.
    d.credentials.known = sender(configuration(rules=replace(rules, quota=None)))
    d.mail(*GOOD)
    d.credentials.known = sender(configuration(rules=replace(rules, quota=Quota(2, None))))
    d.relay.clock.advance(60.0)  # type: ignore[attr-defined]
    checking.make()
    last = d.queue.taken[-1]
    assert last.counted_at == last.accepted_at == d.relay.clock.now()


def test_who_may_send_no_more_when_the_check_is_done_is_sent_away() -> None:
    d, checking = desk_with(MailRules(html=HtmlCheck.REFUSE))
    d.mail(*GOOD)
    d.credentials.known = None
    checking.make()
    assert d.pump().startswith("421 4.7.0 Access withdrawn") and d.queue.taken == []


def test_one_instance_does_not_fill_the_thread() -> None:
    checking, go, order = Checking(waiting=10), threading.Event(), []
    through = threading.Event()
    checking.submit("flood", lambda: go.wait(30), lambda *_: None)
    for _ in range(4):
        checking.submit("flood", lambda: "", lambda *_: order.append("flood"))
    with pytest.raises(Busy):
        checking.submit("flood", lambda: "", lambda *_: None)
    checking.submit("other", lambda: "", lambda *_: order.append("other"))
    checking.submit("last", lambda: "", lambda *_: through.set())
    go.set()
    assert through.wait(30)
    checking._turns._pool.submit(int).result(30)
    assert order.index("other") <= 1 and len(order) == 5
    checking.close()


def test_over_the_quota() -> None:
    d, _ = desk_with(MailRules(quota=Quota(1, None)))
    d.mail(*GOOD)
    d.queue.store()
    assert d.pump().startswith("250 ")
    assert d.mail(*GOOD).startswith("450 4.7.1 The domain's sending quota is used up: there is room again at ")
    d, _ = desk_with(MailRules(quota=Quota(1, None), over=OverQuota.HOLD))
    for _ in range(2):
        d.mail(*GOOD)
        d.queue.store()
        assert d.pump().startswith("250 ")
    first, second = d.queue.taken
    assert first.counted_at == first.accepted_at
    assert second.counted_at is not None and second.counted_at > second.accepted_at + 3600 - 1


def test_a_thread_checks_and_no_more_wait_than_may() -> None:
    checking, go, found = Checking(waiting=2), threading.Event(), []
    answered = threading.Event()

    def done(result: str | None, error: Exception | None) -> None:
        found.append((result, error, threading.current_thread() is threading.main_thread()))
        if len(found) == 2:
            answered.set()

    def fails() -> str:
        raise ValueError("x")

    checking.submit("a", lambda: str(go.wait(30)), done)
    checking.submit("b", fails, done)
    with pytest.raises(Busy):
        checking.submit("c", lambda: "", done)
    go.set()
    assert answered.wait(30)
    assert found[0] == ("True", None, False)
    assert found[1][0] is None and isinstance(found[1][1], ValueError)
    checking.close()


@pytest.mark.parametrize("check", [lambda: "", lambda: 1 / 0], ids=["made", "failed"])
def test_a_check_that_is_done_makes_room(check: Callable[[], object]) -> None:
    checking, answers = Checking(waiting=1), []
    for number in range(3):
        checking.submit("i", check, lambda found, error: answers.append((found, error)))
        checking._turns._pool.submit(int).result(30)  # the one thread is through with it
        assert len(answers) == number + 1
    checking.close()
