"""The server machine: its table is the law, its limits are exact, and its questions wait."""

from __future__ import annotations

from typing import Any

import pytest

from outgate.smtp.content import Intake
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError
from outgate.smtp.events import (
    Aborted,
    Authenticate,
    Closed,
    Connected,
    MailFrom,
    MessageReceived,
    RcptTo,
    TlsRequested,
)
from outgate.smtp.reply import reply
from outgate.smtp.server import (
    AUTH_FAILED,
    AUTH_OK,
    RECIPIENT_OK,
    SENDER_OK,
    TRANSITIONS,
    Limits,
    ServerMachine,
    State,
)

LINES = {
    "EHLO": b"EHLO c\r\n",
    "HELO": b"HELO c\r\n",
    "STARTTLS": b"STARTTLS\r\n",
    "AUTH": b"AUTH LOGIN\r\n",
    "MAIL": b"MAIL FROM:<a@b.example>\r\n",
    "RCPT": b"RCPT TO:<c@d.example>\r\n",
    "DATA": b"DATA\r\n",
    "BDAT": b"BDAT 2\r\nx",
}
TRANSACTION = (State.MAIL, State.RCPT, State.DATA, State.BDAT, State.CHUNKED)
ANYWHERE = {"NOOP": 250, "RSET": 250, "HELP": 214, "VRFY": 252, "EXPN": 502, "QUIT": 221}


class Desk:
    """A machine whose questions all get a yes, unless told otherwise."""

    def __init__(
        self, *, tls: bool = False, limits: Limits | None = None, hold: type | None = None, **options: Any
    ) -> None:
        self.machine = ServerMachine("relay.test", limits=limits or Limits(), tls=tls, **options)
        self.events: list[object] = []
        self.hold = hold
        self.pump()

    def pump(self) -> bytes:
        yes = {
            Connected: reply(220, "", "relay.test"),
            Authenticate: AUTH_OK,
            MailFrom: SENDER_OK,
            RcptTo: RECIPIENT_OK,
            MessageReceived: reply(250, "2.0.0", "Ok"),
        }
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
            if type(event) in yes and type(event) is not self.hold:
                self.machine.answer(yes[type(event)])
        return self.machine.outgoing()

    def say(self, data: bytes) -> bytes:
        self.machine.receive(data)
        return self.pump()

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def at(state: State, *, hold: type | None = None, **options: bool) -> Desk:
    """Return a session in `state`, with as few commands as lead there."""
    desk = Desk(
        tls_required=False, auth_required=True, tls=state not in (State.GREETED, State.TLS), hold=hold, **options
    )
    ways: dict[State, tuple[bytes, ...]] = {
        State.GREETED: (),
        State.READY: (LINES["EHLO"],),
        State.AUTH: (LINES["EHLO"], LINES["AUTH"]),
        State.MAIL: (LINES["EHLO"], b"AUTH PLAIN AGEAYg==\r\n", LINES["MAIL"]),
        State.RCPT: (LINES["EHLO"], b"AUTH PLAIN AGEAYg==\r\n", LINES["MAIL"], LINES["RCPT"]),
        State.DATA: (LINES["EHLO"], b"AUTH PLAIN AGEAYg==\r\n", LINES["MAIL"], LINES["RCPT"], LINES["DATA"]),
        State.BDAT: (LINES["EHLO"], b"AUTH PLAIN AGEAYg==\r\n", LINES["MAIL"], LINES["RCPT"], LINES["BDAT"]),
        State.CHUNKED: (LINES["EHLO"], b"AUTH PLAIN AGEAYg==\r\n", LINES["MAIL"], LINES["RCPT"], LINES["BDAT"], b"y"),
        State.TLS: (LINES["EHLO"], LINES["STARTTLS"]),
    }
    for line in ways[state]:
        desk.say(line)
    assert desk.machine.state is state
    return desk


COMMAND_STATES = [State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKED]


@pytest.mark.parametrize("verb", LINES)
@pytest.mark.parametrize("state", COMMAND_STATES, ids=lambda state: state.value)
def test_the_table_is_the_law(state: State, verb: str) -> None:
    desk = at(state)
    if state is State.READY:  # whatever a state allows must be possible in it: TLS not yet, or login done
        desk = Desk(tls=verb != "STARTTLS", tls_required=False)
        desk.say(LINES["EHLO"] + (b"AUTH PLAIN AGEAYg==\r\n" if verb == "MAIL" else b""))
    said = desk.say(LINES[verb])
    if verb in TRANSITIONS[state]:
        assert desk.machine.state is TRANSITIONS[state][verb]
        assert said[:1] in b"23"
    else:
        if verb == "BDAT":  # its octets are read first
            assert said == b"" and desk.machine.state is State.BDAT
            said = desk.say(b"y")
        assert desk.machine.state is state
        assert said[:1] == b"5" and said[:3] in (b"503", b"554")


@pytest.mark.parametrize("verb", ANYWHERE)
@pytest.mark.parametrize("state", COMMAND_STATES, ids=lambda state: state.value)
def test_some_verbs_are_welcome_everywhere(state: State, verb: str) -> None:
    desk = at(state)
    said = desk.say(verb.encode() + b" x\r\n")
    assert said.startswith(str(ANYWHERE[verb]).encode())
    reset = {State.MAIL: State.READY, State.RCPT: State.READY, State.CHUNKED: State.READY}.get(state, state)
    assert desk.machine.state is {"QUIT": State.CLOSED, "RSET": reset}.get(verb, state)


@pytest.mark.parametrize(
    "state", [*COMMAND_STATES, State.AUTH, State.DATA, State.BDAT, State.TLS], ids=lambda state: state.value
)
def test_the_end_of_the_connection_in_each_state(state: State) -> None:
    desk = at(state)
    desk.machine.receive_eof()
    desk.pump()
    assert desk.machine.state is State.CLOSED
    assert desk.kinds()[-1] == "Closed"
    assert ("Aborted" in desk.kinds()) is (state in TRANSACTION)
    desk.machine.receive_eof()
    assert desk.say(b"NOOP\r\n") == b"" and desk.kinds().count("Closed") == 1


@pytest.mark.parametrize("ender", [b"EHLO again\r\n", b"HELO again\r\n", b"RSET\r\n", b"QUIT\r\n"])
def test_what_ends_a_transaction_says_so(ender: bytes) -> None:
    desk = at(State.RCPT)
    desk.say(ender)
    assert desk.kinds().count("Aborted") == 1


def test_recipients_are_counted_anew_after_a_reset() -> None:
    desk = Desk(tls=True, limits=Limits(recipients=2), auth_required=False)
    desk.say(LINES["EHLO"] + LINES["MAIL"])
    assert desk.say(LINES["RCPT"] * 3) == b"250 2.1.5 Ok\r\n" * 2 + b"452 4.5.3 Too many recipients\r\n"
    assert desk.say(b"RSET\r\n" + LINES["MAIL"] + LINES["RCPT"] * 2).count(b"250 2.1.5") == 2


def test_refused_recipients_do_not_count() -> None:
    desk = Desk(tls=True, limits=Limits(recipients=1), auth_required=False, hold=RcptTo)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    desk.machine.answer(reply(550, "5.1.1", "Nobody"))
    assert desk.machine.state is State.MAIL
    desk.say(LINES["RCPT"])
    desk.machine.answer(RECIPIENT_OK)
    assert desk.machine.state is State.RCPT


def test_size_is_exact() -> None:
    desk = Desk(tls=True, limits=Limits(message=100), auth_required=False)
    desk.say(LINES["EHLO"])
    assert desk.say(b"MAIL FROM:<a@b.example> SIZE=101\r\n").startswith(b"552 5.3.4")
    assert desk.say(b"MAIL FROM:<a@b.example> SIZE=" + b"9" * 30 + b"\r\n").startswith(b"552")
    assert desk.say(b"MAIL FROM:<a@b.example> SIZE=100\r\n").startswith(b"250")
    desk.say(LINES["RCPT"] + LINES["DATA"])
    assert desk.say(b"x" * 98 + b"\r\n.\r\n").startswith(b"250 2.0.0")
    desk.say(LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"])
    assert desk.say(b"x" * 99 + b"\r\n.\r\nNOOP\r\n") == b"552 5.3.4 Message size exceeds the limit\r\n250 2.0.0 Ok\r\n"


@pytest.mark.parametrize(("ends", "answer"), [(49, b"250 2.0.0 "), (50, b"552 5.3.4 ")])
@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT %d LAST\r\n"], ids=["data", "chunk"])
def test_size_is_exact_where_line_ends_are_replaced(command: bytes, ends: int, answer: bytes) -> None:
    desk = Desk(tls=True, limits=Limits(message=100), auth_required=False, replace_bare_line_ends=True)
    content = b"\n" * ends + b"\r\n"
    way = command % len(content) + content if b"%" in command else command + content + b".\r\n"
    heard = desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + way)
    assert heard.splitlines()[-1].startswith(answer)
    assert desk.machine._content._intake.held == 0


def test_line_length_is_exact() -> None:
    desk = Desk(tls=True, limits=Limits(line=20))
    assert desk.say(b"NOOP " + b"x" * 13 + b"\r\n").startswith(b"250")
    assert desk.say(b"NOOP " + b"x" * 14 + b"\r\n").startswith(b"500 5.5.2 Line too long")


def test_commands_behind_the_final_dot_wait_for_the_answer() -> None:
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived)
    said = desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"] + b"x\r\n.\r\nNOOP\r\nQUIT\r\n")
    assert said.endswith(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    assert desk.machine.deadline == ""
    desk.machine.answer(reply(250, "2.0.0", "late"))
    assert desk.pump() == b"250 2.0.0 late\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"


def test_pipelined_more_than_we_keep_is_told() -> None:
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived, limits=Limits(pipelined=100))
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"] + b".\r\n")
    desk.say(b"x" * 100)
    assert not desk.machine.full
    desk.say(b"x")
    assert desk.machine.full


def test_an_answer_needs_a_question() -> None:
    desk = at(State.READY)
    with pytest.raises(LocalProtocolError):
        desk.machine.answer(AUTH_OK)
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"] + b"x\r\n.\r\n")
    desk.machine.receive_eof()
    with pytest.raises(LocalProtocolError):
        desk.machine.answer(reply(250, "2.0.0", "late"))


def test_who_sends_no_more_but_reads_is_answered_first() -> None:
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived)
    message = LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"] + b"x\r\n.\r\n"
    desk.say(LINES["EHLO"] + message + message + b"NOOP\r\nMAIL FR")
    desk.machine.receive_eof(finish=True)
    assert desk.pump() == b""
    stored = reply(250, "2.0.0", "stored")
    desk.machine.answer(stored)
    assert desk.pump().startswith(stored.wire) and desk.machine.deadline == ""  # the second message's question is open
    desk.machine.answer(stored)
    assert desk.pump() == stored.wire + b"250 2.0.0 Ok\r\n"
    assert desk.machine.state is State.CLOSED and desk.kinds().count("Closed") == 1


@pytest.mark.parametrize("question", [Connected, Authenticate, MailFrom, RcptTo, MessageReceived])
def test_a_421_to_any_question_closes(question: type) -> None:
    desk = Desk(tls=True, hold=question)
    if question is not Connected:
        lines = (
            LINES["EHLO"] + b"AUTH PLAIN AGEAYg==\r\n" + LINES["MAIL"] + LINES["RCPT"] + LINES["DATA"] + b"x\r\n.\r\n"
        )
        desk.say(lines)
    desk.machine.answer(reply(421, "4.3.0", "Closing"))
    assert desk.pump().endswith(b"421 4.3.0 Closing\r\n")
    assert desk.machine.state is State.CLOSED and desk.kinds()[-1] == "Closed"


def test_the_error_budget_is_exact_and_refusals_by_the_owner_count() -> None:
    desk = Desk(tls=True, limits=Limits(errors=3), hold=Authenticate)
    desk.say(b"FROB\r\nEHLO c\r\nAUTH PLAIN AGEAYg==\r\n")
    desk.machine.answer(AUTH_FAILED)
    assert desk.machine.state is State.READY
    assert desk.say(b"FROB\r\nNOOP\r\n").endswith(b"421 4.7.0 Too many errors, closing\r\n")
    assert desk.machine.state is State.CLOSED


@pytest.mark.parametrize("command", [b"MAIL", b"RCPT"])
def test_the_longest_lines_the_standards_allow_fit(command: bytes) -> None:
    # RFC 5321: 512 octets; SIZE 26, BODY 17, SMTPUTF8 10, AUTH 500, RET 9, ENVID 107, REQUIRETLS 11; NOTIFY 28, ORCPT 507.
    desk = Desk(tls=True, auth_required=False)
    desk.say(LINES["EHLO"])
    path = b"<" + b"a" * 64 + b"@" + b".".join([b"b" * 60] * 3) + b">"
    mail = b"MAIL FROM:" + path + b" SIZE=" + b"0" * 19 + b"1 BODY=8BITMIME SMTPUTF8 AUTH=" + b"x" * 494
    mail += b" RET=HDRS ENVID=" + b"x" * 100 + b" REQUIRETLS"
    rcpt = b"RCPT TO:" + path + b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + b"x" * 493
    assert desk.say(mail + b"\r\n").startswith(b"250 2.1.0")
    if command == b"RCPT":
        assert desk.say(rcpt + b"\r\n").startswith(b"250 2.1.5")


def test_requiretls_needs_tls() -> None:
    desk = Desk(tls_required=False, auth_required=False)
    desk.say(LINES["EHLO"])
    assert desk.say(b"MAIL FROM:<a@b.example> REQUIRETLS\r\n").startswith(b"530 5.7.0 Must issue a STARTTLS")
    assert desk.say(LINES["MAIL"]).startswith(b"250")


def test_delivery_options_are_offered_by_who_honours_them() -> None:
    for tls in (True, False):
        offered = Desk(tls=tls, offer_dsn=True, offer_requiretls=True).say(LINES["EHLO"])
        assert b"DSN\r\n" in offered and (b"REQUIRETLS" in offered) is tls
    assert b"DSN" not in Desk(tls=True).say(LINES["EHLO"])


def test_events_say_what_is_asked_of_delivery() -> None:
    desk = Desk(tls=True, auth_required=False)
    desk.say(
        LINES["EHLO"] + b"MAIL FROM:<a@b.example> RET=FULL ENVID=1 REQUIRETLS\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\n"
    )
    mail, rcpt = desk.events[-2:]
    assert isinstance(mail, MailFrom) and (mail.ret, mail.envid, mail.requiretls) == ("FULL", "1", True)
    assert isinstance(rcpt, RcptTo) and (rcpt.notify, rcpt.orcpt) == ("NEVER", "")


def test_useless_commands_are_free_for_a_while() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(useless=3, errors=2))
    assert desk.say(LINES["EHLO"] + b"NOOP\r\nRSET\r\n").endswith(b"250 2.0.0 Ok\r\n")
    assert desk.say(LINES["MAIL"] + b"RSET\r\nNOOP\r\nNOOP\r\n").count(b"250 ") == 4  # a MAIL begins anew
    assert desk.say(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"
    assert desk.say(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n421 4.7.0 Too many errors, closing\r\n"


def test_chunks_of_nothing_are_useless_too() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(useless=3, errors=2))
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    assert desk.say(b"BDAT 0\r\n" * 10).splitlines()[-1].startswith(b"421 4.7.0 ")


def test_a_mail_that_is_put_off_for_ever_is_useless_too() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(useless=3, errors=2), hold=MailFrom)
    desk.say(LINES["EHLO"])
    for _ in range(4):
        desk.say(LINES["MAIL"])
        desk.machine.answer(reply(450, "4.7.1", "later"))
    assert desk.machine.state is State.CLOSED
    desk = Desk(tls=True, auth_required=False, limits=Limits(useless=3, errors=2), intake=Intake(most=1, held=1))
    desk.say(LINES["EHLO"])
    assert desk.say(LINES["MAIL"] * 10).endswith(
        b"452 4.3.1 Insufficient system storage, please try again\r\n421 4.7.0 Too many errors, closing\r\n"
    )


def test_a_login_or_data_that_is_put_off_for_ever_is_useless_too() -> None:
    desk = Desk(tls=True, limits=Limits(useless=3, errors=2), hold=Authenticate)
    desk.say(LINES["EHLO"])
    for _ in range(4):
        desk.say(b"AUTH PLAIN AGEAYg==\r\n")
        desk.machine.answer(reply(454, "4.7.0", "later"))
    assert desk.machine.state is State.CLOSED
    intake = Intake(most=1)
    desk = Desk(tls=True, auth_required=False, limits=Limits(useless=3, errors=2), intake=intake)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    intake.held = 1
    assert desk.say(LINES["DATA"] * 10).splitlines()[-1].startswith(b"421 4.7.0 ")


def test_recipients_beyond_the_most_are_free_for_a_while() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(recipients=2, overshoot=5, errors=2))
    desk.say(LINES["EHLO"] + LINES["MAIL"])
    said = desk.say(LINES["RCPT"] * 20)
    assert (said.count(b"250 "), said.count(b"452 "), said.count(b"421 ")) == (2, 7, 1)
    assert said.endswith(b"421 4.7.0 Too many errors, closing\r\n")


WAYS = {
    "data": (LINES["DATA"], b"Subject: x\r\n\r\nxxxxxxxx\r\n", b".\r\n"),
    "chunks": (b"BDAT 24\r\n", b"Subject: x\r\n\r\nxxxxxxxx\r\n", b"BDAT 0 LAST\r\n"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["answer", "reset", "eof", "close", "421"])
def test_what_is_held_of_messages_is_let_go(way: str, end: str) -> None:
    begin, content, last = WAYS[way]
    intake = Intake(most=1000)
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived, intake=intake)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + begin + content)
    assert intake.held >= 24
    if end == "reset" and way == "chunks":
        desk.say(b"RSET\r\n")
    elif end == "eof":
        desk.machine.receive_eof()
    elif end == "close":
        desk.machine.close(reply(421, "4.3.2", "Closing"))
    else:
        desk.say(last)
        assert intake.held >= 24
        desk.machine.answer(reply(421 if end == "421" else 451, "4.3.0", "later"))
    assert intake.held == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["eof", "close"])
def test_what_its_owner_still_has_is_held_after_the_end(way: str, end: str) -> None:
    begin, content, last = WAYS[way]
    intake = Intake(most=1000)
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived, intake=intake)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + begin + content + last)
    if end == "eof":
        desk.machine.receive_eof()
    else:
        desk.machine.close(reply(421, "4.3.2", "Closing"))
    desk.pump()
    assert desk.machine.state is State.CLOSED and intake.held >= 24
    desk.machine.let_go()
    assert intake.held == 0


@pytest.mark.parametrize("way", WAYS)
def test_there_is_an_end_to_what_all_sessions_hold(way: str) -> None:
    begin, content, last = WAYS[way]
    most = 2 * len(content + last if way == "data" else content) + 3
    intake = Intake(most)
    one, two, three = (Desk(tls=True, auth_required=False, hold=MessageReceived, intake=intake) for _ in range(3))
    for desk in (one, two, three):
        desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    two.say(begin)
    three.say(begin)
    one.say(begin + content + last)
    two.say(content + last)
    assert intake.held <= most
    assert isinstance(one.events[-1], MessageReceived) and isinstance(two.events[-1], MessageReceived)
    said = three.say(content + last + b"NOOP\r\n")  # it had begun already: read to its end, and sent away for now
    assert b"452 4.3.1 " in said and said.endswith(b"250 2.0.0 Ok\r\n") and three.machine.state is State.READY
    assert intake.held <= most
    assert three.say(LINES["MAIL"]).startswith(b"452 4.3.1 ")
    one.machine.answer(reply(250, "2.0.0", "Ok"))
    assert three.say(LINES["MAIL"] + LINES["RCPT"] + begin + content + last).count(b"250 2.1") == 2
    assert isinstance(three.events[-1], MessageReceived)


@pytest.mark.parametrize("way", WAYS)
def test_an_account_holds_no_more_than_it_leaves_free(way: str) -> None:
    begin, content, last = WAYS[way]
    whole = len(content + last if way == "data" else content)
    intake = Intake(most=5 * whole)
    desks = [Desk(tls=True, auth_required=False, hold=MessageReceived, intake=intake) for _ in range(4)]
    for desk, holder in zip(desks, ("greedy", "greedy", "greedy", "other"), strict=True):
        desk.machine.on_account_of(holder)
        desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    for desk in desks[:3]:
        desk.say(begin)
    for desk in desks[:2]:
        desk.say(content + last)
        assert isinstance(desk.events[-1], MessageReceived)
    assert b"452 4.3.1 " in desks[2].say(content + last)  # it had begun in time, but the third is too much
    sized = b"MAIL FROM:<a@b.example> SIZE=%d\r\n" % (2 * whole)
    assert desks[2].say(sized).startswith(b"452 4.3.1 ")
    assert desks[3].say(b"RSET\r\n" + sized + LINES["RCPT"]).count(b"250 ") == 3
    desks[3].say(begin + content + last)
    assert isinstance(desks[3].events[-1], MessageReceived)
    for desk in (*desks[:2], desks[3]):
        desk.machine.answer(reply(250, "2.0.0", "Ok"))
    assert intake.held == 0 and intake.by_holder == {}
    desks[2].say(LINES["MAIL"] + LINES["RCPT"] + begin + content + last)
    assert isinstance(desks[2].events[-1], MessageReceived)


@pytest.mark.parametrize("way", WAYS)
def test_one_message_always_fits(way: str) -> None:
    begin, content, last = WAYS[way]
    desk = Desk(tls=True, auth_required=False, hold=MessageReceived, intake=Intake(len(content + last)))
    desk.machine.on_account_of("only")
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + begin + content + last)
    assert isinstance(desk.events[-1], MessageReceived)


@pytest.mark.parametrize("command", [LINES["DATA"], b"BDAT 5 LAST\r\nQUIT\n"])
def test_no_room_at_the_last_moment(command: bytes) -> None:
    intake = Intake(most=1000)
    desk = Desk(tls=True, auth_required=False, intake=intake)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    intake.held = 1000
    assert desk.say(command) == b"452 4.3.1 Insufficient system storage, please try again\r\n"
    intake.held = 0
    desk.say(b"RSET\r\n")
    assert desk.say(LINES["MAIL"] + LINES["RCPT"] + b"BDAT 0 LAST\r\n").count(b"250 ") == 3


def test_a_claimed_size_is_looked_at_before_anything_is_sent() -> None:
    intake = Intake(most=1000, held=600)
    desk = Desk(tls=True, auth_required=False, intake=intake)
    desk.say(LINES["EHLO"])
    assert desk.say(b"MAIL FROM:<a@b.example> SIZE=401\r\n").startswith(b"452 4.3.1")
    assert desk.say(b"MAIL FROM:<a@b.example> SIZE=400\r\n").startswith(b"250")


@pytest.mark.parametrize("way", WAYS)
def test_a_message_in_many_small_pieces_is_kept_in_few(way: str) -> None:
    desk = Desk(tls=True, auth_required=False)
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"] + (b"DATA\r\n" if way == "data" else b"BDAT 200000\r\n"))
    for _ in range(50_000):
        desk.machine.receive(b"xy\r\n")
        desk.machine.next_event()
    collector = desk.machine._content._collector or desk.machine._content._chunks
    assert collector is not None and len(collector._pieces) < 400


ENDLESS = {
    "command line": b"NOOP ",
    "AUTH line": b"AUTH PLAIN\r\n",
    "unwanted chunk": b"BDAT 9999999999\r\n",
    "chunk too large": b"AUTH PLAIN AGEAYg==\r\n" + LINES["MAIL"] + LINES["RCPT"] + b"BDAT 9999999999\r\n",
    "data too large": b"AUTH PLAIN AGEAYg==\r\n" + LINES["MAIL"] + LINES["RCPT"] + b"DATA\r\n",
    "data of dots": b"AUTH PLAIN AGEAYg==\r\n" + LINES["MAIL"] + LINES["RCPT"] + b"DATA\r\n..",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_takes_no_memory(what: str) -> None:
    intake = Intake()
    desk = Desk(tls=True, limits=Limits(message=100_000), intake=intake)
    desk.say(LINES["EHLO"] + ENDLESS[what])
    for _ in range(200):
        desk.say(b"x" * 65_536)
        assert len(desk.machine._input) <= 12_288
        assert intake.held <= 100_000 + 65_536
    assert desk.machine.state is not State.CLOSED and intake.held == 0


def test_chunks_after_a_refusal_cost_one_error() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(message=10, errors=2))
    desk.say(LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"])
    said = desk.say(b"BDAT 11\r\n" + b"x" * 11 + b"BDAT 1\r\nx" * 30 + b"BDAT 1 LAST\r\nx")
    assert said.startswith(b"552 ") and said.count(b"503 ") == 31
    assert desk.kinds().count("Aborted") == 1
    assert desk.say(LINES["MAIL"] + LINES["RCPT"] + b"BDAT 2 LAST\r\n\r\n").endswith(b"250 2.0.0 Ok\r\n")
    said = desk.say(LINES["MAIL"] + LINES["RCPT"] + b"BDAT 11\r\n" + b"x" * 11)  # another message, another error
    assert said.splitlines()[-1].startswith(b"421 4.7.0 ")


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"5 FIRST", b"5 LAST x", b"99999999999"])
def test_a_chunk_of_unknown_size_ends_the_session(argument: bytes) -> None:
    desk = at(State.RCPT)
    said = desk.say(b"BDAT " + argument + b"\r\nRSET\r\nMAIL FROM:<x@b.example>\r\n")
    assert [line[:4] for line in said.splitlines()] == [b"501 ", b"421 "]
    assert desk.machine.state is State.CLOSED and desk.kinds()[-2:] == ["Aborted", "Closed"]


def test_chunks_are_limited_together_and_with_their_dots() -> None:
    desk = Desk(tls=True, auth_required=False, limits=Limits(message=10))
    envelope = LINES["EHLO"] + LINES["MAIL"] + LINES["RCPT"]
    assert desk.say(envelope + b"BDAT 6\r\n12345\nBDAT 5\r\n").splitlines()[-1].startswith(b"250 ")
    assert desk.say(b"12345").startswith(b"552 5.3.4 ") and desk.machine._content._intake.held == 0
    assert desk.say(envelope + b"BDAT 10 LAST\r\n......56\r\n").splitlines()[-1].startswith(b"552 5.3.4 ")
    assert desk.say(envelope + b"BDAT 9 LAST\r\n......5\r\n").splitlines()[-1].startswith(b"250 ")


@pytest.mark.parametrize("verb", ["GET", "POST", "CONNECT", "OPTIONS", "PRI"])
def test_another_protocol_ends_at_once(verb: str) -> None:
    desk = Desk()
    assert desk.say(f"{verb} / HTTP/1.1\r\nEHLO c\r\n".encode()).startswith(b"421 ")
    assert desk.machine.state is State.CLOSED


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)]
)
def test_a_proxy_header_in_a_session_is_a_protocol_error(header: bytes) -> None:
    desk = Desk()
    said = desk.say(header + b"EHLO c\r\n")
    assert said in (b"", b"500 5.5.2 Command not recognised\r\n" * 2)  # to the two empty lines
    assert desk.machine.state is State.CLOSED and desk.machine.hello == ""
    assert isinstance(desk.events[-1], Closed) and "proxy_trusted" in desk.events[-1].reason


def test_tls_forgets_what_was_said_before() -> None:
    desk = Desk()
    assert b"STARTTLS" in desk.say(LINES["EHLO"]) and desk.machine.hello == "c"
    assert desk.say(b"AUTH PLAIN AGEAYg==\r\n").startswith(b"538 5.7.11")
    assert desk.say(LINES["MAIL"]).startswith(b"530 5.7.0 Must issue")
    assert desk.say(LINES["STARTTLS"]).startswith(b"220 ")
    assert isinstance(desk.events[-1], TlsRequested) and desk.machine.deadline == "handshake"
    desk.machine.tls_started()
    assert (desk.machine.state, desk.machine.hello) == (State.GREETED, "")
    said = desk.say(LINES["EHLO"])
    assert b"STARTTLS" not in said and b"AUTH PLAIN LOGIN" in said
    assert desk.say(LINES["STARTTLS"]).startswith(b"503")


@pytest.mark.parametrize("together", [True, False])
def test_starttls_is_a_wall(together: bool) -> None:
    desk = Desk()
    desk.say(LINES["EHLO"])
    with pytest.raises(RemoteProtocolError):
        if together:
            desk.say(LINES["STARTTLS"] + b"N")
        else:
            desk.say(LINES["STARTTLS"])
            desk.say(b"N")
    with pytest.raises(LocalProtocolError):
        at(State.READY).machine.tls_started()


def test_auth_is_asked_once_and_may_fail() -> None:
    desk = Desk(tls=True, hold=Authenticate)
    desk.say(LINES["EHLO"])
    assert desk.say(b"AUTH LOGIN dXNlcg==\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert desk.say(b"c2VjcmV0\r\n") == b""
    question = desk.events[-1]
    assert isinstance(question, Authenticate) and question.login.username == "user"
    desk.machine.answer(AUTH_FAILED)
    assert desk.say(LINES["MAIL"]).endswith(b"530 5.7.0 Authentication required\r\n")
    assert desk.say(b"AUTH CRAM-MD5\r\n").startswith(b"504 5.5.4")
    assert desk.say(b"AUTH PLAIN\r\n*\r\n") == b"334 \r\n501 5.5.2 Authentication response not understood\r\n"
    desk.say(b"AUTH PLAIN AGEAYg==\r\n")
    desk.machine.answer(AUTH_OK)
    assert desk.say(b"AUTH PLAIN AGEAYg==\r\n").endswith(b"503 5.5.1 Bad sequence of commands\r\n")


def test_a_line_too_long_in_auth_leaves_auth() -> None:
    desk = at(State.AUTH)
    assert desk.say(b"x" * 20_000 + b"\r\nNOOP\r\n") == b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"
    assert desk.machine.state is State.READY


def test_an_mx_needs_neither_tls_nor_auth_and_offers_no_auth() -> None:
    desk = Desk(tls=True, tls_required=False, auth_required=False)
    assert b"AUTH" not in desk.say(LINES["EHLO"])
    assert desk.say(b"AUTH PLAIN AGEAYg==\r\n").startswith(b"502 ")
    assert desk.say(LINES["MAIL"]).startswith(b"250")


def test_close_from_our_side() -> None:
    desk = at(State.DATA)
    desk.machine.close(reply(421, "4.3.2", "Closing"))
    assert desk.pump() == b"421 4.3.2 Closing\r\n"
    desk.machine.close(reply(421, "4.3.2", "Again"))
    assert desk.pump() == b"" and isinstance(desk.events[-1], Closed) and Aborted() in desk.events


def test_a_message_that_is_being_stored_is_answered_before_the_goodbye() -> None:
    desk = at(State.DATA, hold=MessageReceived)
    desk.say(b"Subject: x\r\n\r\n.\r\n" + LINES["MAIL"])
    desk.machine.close(reply(421, "4.3.2", "Closing"), answer_first=True)
    assert desk.pump() == b""
    desk.machine.answer(reply(250, "2.0.0", "Ok: queued"))
    assert desk.pump() == b"250 2.0.0 Ok: queued\r\n421 4.3.2 Closing\r\n"
    assert isinstance(desk.events[-1], Closed)


def test_a_recipient_outside_ascii_needs_smtputf8_too() -> None:
    desk = Desk(tls=True, auth_required=False)
    desk.say(LINES["EHLO"])
    desk.say(b"MAIL FROM:<a@b.example>\r\n")
    assert desk.say(b"RCPT TO:<\xc3\xa9@b.example>\r\n").startswith(b"553 5.6.7")
    desk.say(b"RSET\r\nMAIL FROM:<a@b.example> SMTPUTF8\r\n")
    assert desk.say(b"RCPT TO:<\xc3\xa9@b.example>\r\n").startswith(b"250")
    desk.say(b"RSET\r\nMAIL FROM:<a@b.example>\r\n")
    assert desk.say(b"RCPT TO:<\xc3\xa9@b.example>\r\n").startswith(b"553 5.6.7")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"MAIL FROM:<a@b.example> FOO=1", b"555"), (b"MAIL FROM:<a@b.example> SIZE=x", b"555"), (b"MAIL FROM:<a@b.example> BODY=X", b"555"),
        (b"MAIL FROM:<a@b.example> SMTPUTF8=1", b"555"), (b"MAIL FROM:<\xc3\xa9@b.example>", b"553"), (b"MAIL FROM:<a@>", b"501"),
        (b"MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8", b"250"), (b"MAIL FROM:<a@b.example> AUTH=<> BODY=8bitmime SIZE=0", b"250"),
    ],
)  # fmt: skip
def test_mail_parameters(command: bytes, code: bytes) -> None:
    desk = Desk(tls=True, auth_required=False)
    desk.say(LINES["EHLO"])
    assert desk.say(command + b"\r\n").startswith(code)
