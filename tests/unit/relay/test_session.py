"""The submission session: who is let in, what is taken, and what happens when the world changes meanwhile."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from outgate.model.access import Address
from outgate.model.flow import Client
from outgate.relay.access import AccessTable
from outgate.relay.credentials import Busy
from outgate.relay.session import SubmissionSession
from outgate.relay.turns import Places
from support.submission import DOOR, PASSWORD, USER, Desk, access, configuration, desk, sender

MESSAGE = ("From: a@shop.test", "To: b@other.test", "Subject: hello", "", "text")


class Decisions(logging.Handler):
    """Keeps the fields of each `access.decision`, with its level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "access.decision":
            self.seen.append({"level": record.levelname, **record.fields})  # type: ignore[attr-defined]


class Lines(logging.Handler):
    """Keeps the fields of every line."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), record.fields))  # type: ignore[attr-defined]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.seen if name == event]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, kept = logging.getLogger("outgate.session"), Lines()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


@pytest.fixture
def decisions() -> Iterator[Decisions]:
    logger, kept = logging.getLogger("outgate.session"), Decisions()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


def test_a_message_is_answered_only_when_the_queue_has_it() -> None:
    d = desk()
    assert d.pump().startswith("220 relay.test")
    assert d.login() == "235 2.7.0 Authentication successful\r\n"
    assert d.mail(*MESSAGE) == ""
    assert d.say("NOOP") == ""  # the parser waits
    d.queue.store()
    queue_id = d.queue.taken[0].queue_id
    assert d.pump() == f"250 2.0.0 Ok: queued as {queue_id}\r\n250 2.0.0 Ok\r\n"
    assert d.resumed == 2  # the password and the commit came late, and each made the connection go on


def test_a_failed_commit_is_a_451_and_the_session_goes_on() -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail(*MESSAGE)
    d.queue.store(OSError("disk full"))
    assert d.pump() == "451 4.3.0 Temporary failure, please try again\r\n"
    d.mail(*MESSAGE)
    d.queue.store()
    assert d.pump().startswith("250 2.0.0")


def test_a_stranger_reads_554_and_is_gone() -> None:
    d = desk(client=Client("192.0.2.1", 1, "public", "submission"))
    assert d.pump() == "554 5.7.1 Access denied\r\n"
    assert d.session.machine.state.value == "closed"


def test_the_right_password_from_an_address_that_the_instance_does_not_allow() -> None:
    d = desk()
    d.pump()
    d.credentials.known = replace(sender(), instance=replace(sender().instance, id="another"))
    assert d.login() == "550 5.7.1 Not authorised\r\n"
    assert d.say("MAIL FROM:<a@shop.test>").startswith("530 ")


def test_wrong_password_thrice_closes() -> None:
    d = desk()
    d.pump()
    assert d.login(password="x").startswith("535 5.7.8")
    assert d.login(user="zzzzzzzzzzzzzzzzzz00").startswith("535 5.7.8")
    assert d.login(password="y").startswith("421 4.7.0")
    assert d.session.machine.state.value == "closed"


def test_acting_for_somebody_else_costs_and_reads_like_a_wrong_password() -> None:
    d = desk()
    d.pump()
    assert d.login(authzid="somebody").startswith("535 ")
    assert d.credentials.checked == [""]
    assert d.login(authzid=USER).startswith("235 ")


def fresh(d: Desk) -> Desk:
    """Return another session with the same relay."""
    session = SubmissionSession(d.relay, DOOR, d.session.client, lambda: None, lambda: "", implicit_tls=True)
    made = replace(d, session=session)
    made.pump()
    return made


def wrong(d: Desk, times: int) -> None:
    """Count wrong logins of the client's address, as other sessions would."""
    for number in range(times):
        d.relay.guessing.failed(f"name {number}", d.session.client.address, str(number).encode(), d.relay.clock.now())


def test_answers_to_wrong_logins_come_late_and_right_ones_do_not(lines: Lines) -> None:
    d = desk()
    d.pump()
    wrong(d, 7)
    assert d.login(password="x") == ""
    assert d.say("NOOP") == ""  # the parser waits for the answer
    assert d.wait() == 4.0
    assert d.pump() == "535 5.7.8 Authentication credentials invalid\r\n250 2.0.0 Ok\r\n"
    assert d.login().startswith("235 ")
    assert d.later == []
    (line,) = lines.named("login.slowed")
    assert line["wait_s"] == 4.0 and "127.0.0.1" in line["reason"] and line["remedy"]
    (line,) = lines.named("login.failed")
    assert line["reason"] and line["remedy"]


def test_an_address_that_failed_too_often_is_not_checked_and_its_session_ends(lines: Lines) -> None:
    d = desk()
    d.pump()
    wrong(d, 40)
    for _ in range(2):
        assert d.login("name 3") == "454 4.7.0 Temporary authentication failure\r\n"
    assert d.login("name 3") == "421 4.7.0 Too many failed logins, closing\r\n"
    assert d.credentials.checked == []
    assert lines.named("login.slowed")[0]["wait_s"] is None


def test_another_name_at_such_an_address_waits_and_is_checked(lines: Lines) -> None:
    d = desk()
    d.pump()
    wrong(d, 40)
    assert d.login() == ""
    assert d.wait() == 8.0
    assert d.settle().startswith("235 ")
    assert [line["wait_s"] for line in lines.named("login.slowed")] == [8.0]


def test_such_waits_are_in_places_of_their_address_and_never_more(lines: Lines) -> None:
    d = desk()
    d.relay.late_answers = Places(4)
    d.pump()
    wrong(d, 40)
    said = [fresh(d).login(f"other {number}") for number in range(20)]
    assert said[:2] == ["", ""]
    assert set(said[2:]) == {"421 4.7.0 Too many failed logins, closing\r\n"}
    assert d.credentials.checked == []
    assert d.wait() == 8.0
    assert len(d.credentials.checked) == 2


def test_who_logged_in_from_there_before_is_checked_however_many_failed() -> None:
    d = desk()
    d.pump()
    assert d.login().startswith("235 ")
    wrong(d, 40)
    assert fresh(d).login().startswith("235 ")


def test_a_remembered_login_passes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    d = desk()
    d.pump()
    wrong(d, 40)
    monkeypatch.setattr(d.credentials, "remembered", lambda user, password: d.credentials.known)
    assert d.login().startswith("235 ")
    assert d.credentials.checked == [] and d.later == []


def test_a_remembered_login_whose_sender_is_to_be_read_waits_for_nothing_else() -> None:
    d = desk()
    d.pump()
    wrong(d, 40)
    d.relay.guessing.failed(USER, "127.0.0.1", b"x", d.relay.clock.now())
    d.credentials.unread = True
    assert d.login().startswith("235 ")
    assert d.credentials.checked == [USER] and d.later == []


def test_a_remembered_login_does_not_act_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    d = desk()
    d.pump()
    monkeypatch.setattr(d.credentials, "remembered", lambda user, password: d.credentials.known)
    d.credentials.unread = True
    assert d.login(authzid="somebody").startswith("535 ")


def test_a_name_that_many_addresses_fail_with_waits_before_its_check() -> None:
    d = desk()
    d.pump()
    for number in range(20):
        d.relay.guessing.failed(USER, f"10.{number}.0.1", str(number).encode(), d.relay.clock.now())
    assert d.login() == ""
    assert d.credentials.checked == []
    assert d.wait() == 8.0
    assert d.credentials.checked == [USER]
    assert d.settle().startswith("235 ")


def test_a_client_that_leaves_while_it_waits_is_not_checked_and_keeps_its_place_for_the_time(lines: Lines) -> None:
    d = desk()
    d.relay.late_answers = Places(2)
    d.pump()
    wrong(d, 40)
    d.login()
    d.session.machine.receive_eof()
    d.pump()
    assert fresh(d).login().startswith("421 4.7.0")  # a source holds no more than it leaves free
    assert lines.named("login.slowed")[-1]["wait_s"] is None
    d.wait()
    assert d.credentials.checked == []
    assert fresh(d).login() == ""


def test_an_owner_is_not_turned_away_for_those_who_fill_all_places_with_his_name() -> None:
    d = desk()
    d.pump()
    for number in range(120):
        d.relay.guessing.failed(USER, f"10.{number}.0.1", str(number).encode(), d.relay.clock.now())
        d.relay.late_answers.take(f"10.{number}.0.1")
    assert d.login().startswith("235 ")
    assert d.later == []


def test_checks_take_their_turns_by_address() -> None:
    d = desk(client=Client("2001:db8:1:2::9", 1, "public", "submissions"), table=access("2001:db8::/32"))
    d.pump()
    d.login()
    assert d.credentials.sources == ["2001:db8:1:2::/64"]


def test_a_guess_counts_also_if_the_client_leaves_before_its_answer() -> None:
    d = desk()
    for number in range(6):
        d = fresh(d)
        d.say("EHLO c", "AUTH LOGIN", "dXNlcg==", base64.b64encode(f"pass{number}".encode()).decode())
        d.session.machine.receive_eof()
        d.pump()
        assert d.settle() == ""
    d = fresh(d)
    assert d.login(user="user", password="another") == ""
    assert d.wait() > 0


@pytest.mark.parametrize("response", ["%%%", base64.b64encode(b"\xff\0\xff\0\xff").decode(), "AGEA", "*"])
def test_a_response_that_is_no_login_reads_the_same_whatever_it_names(response: str) -> None:
    """RFC 4954 wants a 501 for it; nothing is looked up, so neither reply nor time tells of any name."""
    d = desk()
    d.pump()
    d.say("EHLO c")
    said = d.say("AUTH PLAIN " + response) + d.settle()
    if response == "AGEA":
        assert said.startswith("535 ")  # a name and no password: a wrong one
    else:
        assert said == "501 5.5.2 Authentication response not understood\r\n"
        assert d.credentials.checked == []


def test_a_login_that_is_void_ends_an_idle_session_at_the_next_look(lines: Lines) -> None:
    d = desk()
    d.pump()
    d.login()
    assert d.session.still_logged_in()
    d.credentials.gone = True
    assert not d.session.still_logged_in()
    (line,) = lines.named("session.withdrawn")
    assert line["username"] == USER and line["reason"] and line["remedy"]


def test_when_too_many_wait_the_login_is_to_be_tried_later() -> None:
    d = desk()
    d.pump()
    d.credentials.refuse = Busy()
    assert d.say("EHLO c") and d.login().startswith("454 4.7.0")
    d.credentials.refuse, d.credentials.error = None, RuntimeError("store")
    assert d.login().startswith("454 4.7.0")


def test_a_late_password_check_for_a_client_that_left_is_dropped() -> None:
    d = desk()
    d.pump()
    d.say("EHLO c", "AUTH LOGIN", "dXNlcg==", "cGFzcw==")
    assert len(d.credentials.waiting) == 1
    d.session.machine.receive_eof()
    assert d.pump() == ""
    assert d.settle() == ""
    assert d.resumed == 0


def test_a_late_commit_for_a_client_that_left_is_no_error_and_the_message_stays() -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail(*MESSAGE)
    d.session.machine.receive_eof()
    d.pump()
    held = d.relay.intake.held
    assert held > 0 and d.relay.intake.by_holder == {"acc": held}  # it is in memory until it is stored
    d.queue.store()
    assert d.pump() == "" and d.relay.intake.held == 0
    assert len(d.queue.taken) == 1


def test_a_late_commit_after_the_client_left_and_its_network_was_withdrawn() -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail(*MESSAGE)
    d.relay.access = access("10.0.0.0/8")
    d.session.machine.receive_eof()
    d.pump()
    d.queue.store()
    assert d.pump() == ""


@pytest.mark.parametrize("command", ["MAIL FROM:<a@shop.test>", "AUTH PLAIN AGEAYg=="])
def test_a_withdrawn_network_ends_the_session_at_the_next_question(command: str) -> None:
    d = desk()
    d.pump()
    if command.startswith("MAIL"):
        d.login()
    else:
        d.say("EHLO c")
    d.relay.access = access("10.0.0.0/8")
    assert d.say(command) == "421 4.7.0 Access withdrawn, closing\r\n"


def test_a_network_that_is_withdrawn_while_the_password_is_checked_lets_nobody_in() -> None:
    d = desk()
    d.pump()
    d.say("EHLO c")
    d.say("AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode())
    d.relay.access = access("10.0.0.0/8")
    assert d.settle() == "550 5.7.1 Not authorised\r\n"


def test_a_reset_does_not_use_up_the_news_of_a_withdrawal() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>")
    d.relay.access = access("10.0.0.0/8")
    d.say("RSET")  # an Aborted event, and no question
    assert d.say("MAIL FROM:<a@shop.test>").startswith("421 4.7.0")


def test_a_withdrawal_during_data_refuses_the_message() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>", "DATA")
    d.relay.access = access("10.0.0.0/8")
    assert d.say(*MESSAGE, ".").startswith("421 4.7.0")
    assert d.queue.taken == []


def test_a_change_that_still_allows_goes_unnoticed() -> None:
    d = desk()
    d.pump()
    d.login()
    d.relay.access = access("127.0.0.0/16")
    assert d.session.still_welcome()
    assert d.say("MAIL FROM:<a@shop.test>") == "250 2.1.0 Ok\r\n"


@pytest.mark.parametrize("when", ["mail", "data"])
def test_a_login_that_became_void_ends_the_session(when: str) -> None:
    d = desk()
    d.pump()
    d.login()
    if when == "data":
        d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>", "DATA")
    d.credentials.gone = True
    said = d.say("MAIL FROM:<a@shop.test>") if when == "mail" else d.say(*MESSAGE, ".")
    assert said.startswith("421 4.7.0")
    assert d.queue.taken == []


def test_configurations_are_looked_up_anew_for_each_message() -> None:
    d = desk()
    d.pump()
    d.login()
    d.credentials.known = sender(configuration("new.test"))
    assert d.say("MAIL FROM:<a@shop.test>").startswith("550 5.7.1")
    assert d.say("MAIL FROM:<a@new.test>") == "250 2.1.0 Ok\r\n"


def test_reverse_path_of_a_foreign_domain_and_a_recipient_literal_are_refused() -> None:
    d = desk()
    d.pump()
    d.login()
    refused = d.say("MAIL FROM:<a@other.test>")
    assert refused.startswith("550 5.7.1") and "other.test" not in refused
    assert d.say("MAIL FROM:<>", "RCPT TO:<a@[127.0.0.1]>").splitlines()[1].startswith("553 5.1.2")
    d.relay.may_be_dialled = lambda address: address in ("192.0.2.1", "2001:db8::1")
    said = d.say("RSET", "MAIL FROM:<>", "RCPT TO:<a@[192.0.2.1]>", "RCPT TO:<a@[IPv6:2001:DB8::1]>", "RCPT TO:<a@[192.0.2.2]>")  # fmt: skip
    assert [line[:9] for line in said.splitlines()[2:]] == ["250 2.1.5", "250 2.1.5", "553 5.1.2"]


def test_recipients_are_kept_once_each_in_order() -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail(*MESSAGE, to=("b@x.test", "c@x.test", "b@x.test"))
    assert [r.mailbox for r in d.queue.taken[0].submission.recipients] == ["b@x.test", "c@x.test"]


@pytest.mark.parametrize(
    "end", [("RSET",), ("EHLO client.test",), ("RCPT TO:<b@other.test>", "DATA", "bare \r here", ".")]
)
def test_who_is_to_go_goes_when_the_transaction_comes_to_nothing(end: tuple[str, ...]) -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>")
    assert d.session.leave()
    assert d.say(*end, "NOOP").splitlines()[-1] == "421 4.3.2 Service closing, please try again"
    assert d.session.machine.state.value == "closed"


def test_a_transaction_that_was_reset_leaves_nothing_behind() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<old@x.test>", "EHLO again")
    d.mail(*MESSAGE, to=("new@x.test",))
    assert [r.mailbox for r in d.queue.taken[0].submission.recipients] == ["new@x.test"]


def test_one_session_may_send_one_message_after_another() -> None:
    d = desk()
    d.pump()
    d.login()
    for to in ("b@x.test", "c@x.test"):
        d.mail(*MESSAGE, to=(to,))
        d.queue.store()
        d.pump()
    assert [a.submission.recipients[0].mailbox for a in d.queue.taken] == ["b@x.test", "c@x.test"]
    assert len({a.queue_id for a in d.queue.taken}) == 2


def test_what_was_said_about_the_session_is_in_the_submission() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<> BODY=8BITMIME SMTPUTF8", "RCPT TO:<b@x.test>", "DATA")
    d.say(*MESSAGE, ".")
    taken = d.queue.taken[0].submission
    assert (taken.helo, taken.username, taken.reverse_path) == ("client.example", USER, "")
    assert taken.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert taken.body_8bit and taken.smtputf8
    assert PASSWORD not in repr(taken)


def test_a_refused_message_is_answered_at_once_and_not_stored() -> None:
    d = desk()
    d.pump()
    d.login()
    assert d.mail("From: ceo@bank.test", "", "x").startswith("550 5.7.1 From address")
    assert d.queue.taken == []


def test_a_subject_no_decoder_can_read_does_not_end_the_session() -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail("From: a@shop.test", "Subject: =?utf-8?b?a?=", "", "x")
    d.queue.store()
    assert d.pump().startswith("250 2.0.0")


def test_a_decision_is_logged_once_at_connect_and_at_login_and_not_per_command(decisions: Decisions) -> None:
    d = desk()
    d.pump()
    d.login()
    d.mail(*MESSAGE)
    d.queue.store()
    d.pump()
    at_connect, at_login = decisions.seen
    assert (at_connect["level"], at_connect["decision"], at_connect["rule"]) == ("INFO", "Permit", "r")
    assert at_login.pop("session") and at_login.pop("reason") == "rule r allows 127.0.0.1 (public)"
    assert at_login == {
        "level": "INFO",
        "api": "smtp",
        "decision": "Permit",
        "enforced": True,
        "rule": "r",
        "address": "127.0.0.1",
        "endpoint": "public",
        "vpc": "",
        "instance": "inst",
        "username": USER,
    }


def test_a_refusal_at_connect_at_login_and_at_the_door_is_logged(decisions: Decisions) -> None:
    d = desk(client=Client("192.0.2.1", 1, "public", "submission"))
    d.pump()
    assert not d.relay.welcomes("192.0.2.2", "public")
    assert d.relay.welcomes("127.0.0.1", "public")
    other = desk()
    other.pump()
    other.credentials.known = replace(sender(), instance=replace(sender().instance, id="another"))
    other.login()
    said = [(each["decision"], each["address"], each["instance"], each["rule"]) for each in decisions.seen]
    assert said == [
        ("Deny", "192.0.2.1", "", "r"),
        ("Deny", "192.0.2.2", "", "r"),
        ("Permit", "127.0.0.1", "", "r"),
        ("Deny", "127.0.0.1", "another", ""),
    ]
    assert decisions.seen[0]["reason"] == "192.0.2.1 (public) is in no instance's zone"


def test_a_withdrawal_is_logged_with_the_rule_that_made_it(decisions: Decisions) -> None:
    d = desk()
    d.pump()
    d.login()
    d.relay.access = access("127.0.0.0/16")
    d.say("MAIL FROM:<a@shop.test>")
    assert (len(decisions.seen), decisions.seen[-1]["decision"]) == (3, "Permit")  # evaluated anew, and allowed
    d.relay.access = access("10.0.0.0/8")
    d.say("RCPT TO:<b@other.test>")
    last = decisions.seen[-1]
    assert (len(decisions.seen), last["decision"], last["rule"], last["username"]) == (4, "Deny", "r", USER)


def test_what_a_client_asks_of_delivery_is_in_the_submission() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test> RET=HDRS ENVID=QQ REQUIRETLS")
    d.say("RCPT TO:<b@other.test> NOTIFY=NEVER ORCPT=rfc822;x@other.test", "RCPT TO:<B@other.test>")
    d.say("RCPT TO:<b@other.test> NOTIFY=SUCCESS", "DATA")
    d.say(*MESSAGE, ".")
    submission = d.queue.taken[0].submission
    assert (submission.ret, submission.envid, submission.requiretls) == ("HDRS", "QQ", True)
    first, second = submission.recipients  # a mailbox that is given twice is one recipient, as it was first
    assert (first.mailbox, first.notify, first.orcpt) == ("b@other.test", "NEVER", "rfc822;x@other.test")
    assert (second.mailbox, second.notify, second.orcpt) == ("B@other.test", "", "")


def test_requiretls_is_offered_in_tls() -> None:
    d = desk()
    d.pump()
    assert "REQUIRETLS" in d.say("EHLO client.test")


@pytest.mark.parametrize(
    ("fields", "optional"),
    [(("TLS-Required: No",), True), (("tls-required:\t nO ",), True), (("TLS-Required: Yes",), False), ((), False),
     (("TLS-Required: No", "TLS-Required: Yes"), False), (("TLS-Required: No thanks",), False)],
)  # fmt: skip
def test_a_message_may_say_that_tls_is_not_required(fields: tuple[str, ...], optional: bool) -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>", "DATA")
    d.say(*fields, *MESSAGE, ".")
    assert d.queue.taken[0].tls_optional is optional


def test_a_message_in_chunks_is_taken_like_any_other() -> None:
    d = desk()
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>")
    text = "\r\n".join(MESSAGE)
    d.session.machine.receive(f"BDAT {len(text)} LAST\r\n{text}".encode())
    assert d.pump() == ""
    assert d.relay.intake.held == len(text)
    d.queue.store()
    assert d.pump().startswith("250 2.0.0 Ok: queued as ")
    assert d.queue.taken[0].submission.content.endswith(b"\r\n\r\ntext\r\n")
    assert d.relay.intake.held == 0


def test_sessions_share_what_they_hold_of_messages() -> None:
    d = desk()
    d.relay.intake.most = d.relay.intake.held = 1000
    d.pump()
    d.login()
    assert d.say("MAIL FROM:<a@shop.test>").startswith("452 4.3.1 ")


def test_who_comes_through_a_gateway_stays_as_long_as_a_zone_names_its_vpc(decisions: Decisions) -> None:
    vpc = "crn:v1:bluemix:public:is:us-south:a/acc::vpc:r006-1"
    shut = access()
    (zone,) = shut._snapshot.zones
    table = AccessTable(replace(shut._snapshot, zones=(replace(zone, addresses=(Address("vpc", vpc),)),)))
    d = desk(client=Client("192.0.2.1", 1, "private", "submissions", vpc=vpc), table=table)
    assert d.pump().startswith("220 ")
    assert d.login().endswith("235 2.7.0 Authentication successful\r\n")
    assert d.session.still_welcome()
    assert {each["vpc"] for each in decisions.seen} == {vpc}
    assert d.relay.welcomes("192.0.2.1", "private", vpc) and not d.relay.welcomes("192.0.2.1", "private")
    d.relay.access = shut
    assert not d.session.still_welcome()
