"""The server machine: its table is the law, its limits are exact, and its questions wait."""

from __future__ import annotations

import pytest

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
}
ANYWHERE = {"NOOP": 250, "RSET": 250, "HELP": 214, "VRFY": 252, "EXPN": 502, "QUIT": 221}


class Desk:
    """A machine whose questions all get a yes, unless told otherwise."""

    def __init__(
        self, *, tls: bool = False, limits: Limits | None = None, hold: type | None = None, **options: bool
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
        State.TLS: (LINES["EHLO"], LINES["STARTTLS"]),
    }
    for line in ways[state]:
        desk.say(line)
    assert desk.machine.state is state
    return desk


COMMAND_STATES = [State.GREETED, State.READY, State.MAIL, State.RCPT]


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
        assert desk.machine.state is state
        assert said[:1] == b"5" and said[:3] in (b"503", b"554")


@pytest.mark.parametrize("verb", ANYWHERE)
@pytest.mark.parametrize("state", COMMAND_STATES, ids=lambda state: state.value)
def test_some_verbs_are_welcome_everywhere(state: State, verb: str) -> None:
    desk = at(state)
    said = desk.say(verb.encode() + b" x\r\n")
    assert said.startswith(str(ANYWHERE[verb]).encode())
    reset = {State.MAIL: State.READY, State.RCPT: State.READY}.get(state, state)
    assert desk.machine.state is {"QUIT": State.CLOSED, "RSET": reset}.get(verb, state)


@pytest.mark.parametrize("state", [*COMMAND_STATES, State.AUTH, State.DATA, State.TLS], ids=lambda state: state.value)
def test_the_end_of_the_connection_in_each_state(state: State) -> None:
    desk = at(state)
    desk.machine.receive_eof()
    desk.pump()
    assert desk.machine.state is State.CLOSED
    assert desk.kinds()[-1] == "Closed"
    assert ("Aborted" in desk.kinds()) is (state in (State.MAIL, State.RCPT, State.DATA))
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


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n"])
def test_another_protocol_ends_at_once(line: bytes) -> None:
    desk = Desk()
    assert desk.say(line + b"EHLO c\r\n").startswith(b"421 ")
    assert desk.machine.state is State.CLOSED


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
