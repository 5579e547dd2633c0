"""The server's side of a session as a state machine: bytes in, questions and replies out; no I/O.

Standards: RFC 5321, 6409 (submission), 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 3207 (STARTTLS),
4954 (AUTH), 2034 (ENHANCEDSTATUSCODES), 6531 (SMTPUTF8), 9422 (LIMITS).
Promises: only CR LF . CR LF ends data; an unanswered question stops the parser; STARTTLS is a wall: bytes
behind it end the session; splitting the input anywhere changes nothing; any bytes at all give events,
replies or `RemoteProtocolError`.
Dangers: whatever was said before TLS is forgotten at TLS; passwords pass through here and are not kept.
Not here: sockets and deadlines (`smtp.asyncio.server`), who may do what (`relay.session`).

`TRANSITIONS` is the law: a verb that is not in a state's row is out of order there. The diagram in the docs
is drawn from it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from outgate.smtp import grammar
from outgate.smtp.buffer import (
    BareLineEnd,
    DataCollector,
    InputBuffer,
    LineTooLong,
    examine,
    replace_bare_line_ends,
)
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError
from outgate.smtp.events import (
    Aborted,
    Authenticate,
    Closed,
    Connected,
    Event,
    MailFrom,
    MessageReceived,
    Question,
    RcptTo,
    TlsRequested,
)
from outgate.smtp.reply import Reply, reply
from outgate.smtp.sasl import MECHANISMS, BadResponse, Exchange, Login


class State(Enum):
    """Where a session is."""

    CONNECTED = "connected"
    GREETED = "greeted"
    READY = "ready"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    TLS = "tls"
    CLOSED = "closed"


# state → verb → the state a success leads to. NOOP, RSET, HELP, VRFY and QUIT are welcome wherever commands are.
TRANSITIONS: dict[State, dict[str, State]] = {
    State.CONNECTED: {"(greeting)": State.GREETED},
    State.GREETED: {"EHLO": State.READY, "HELO": State.READY},
    State.READY: {
        "EHLO": State.READY,
        "HELO": State.READY,
        "STARTTLS": State.TLS,
        "AUTH": State.AUTH,
        "MAIL": State.MAIL,
    },
    State.AUTH: {"(login)": State.READY},
    State.MAIL: {"EHLO": State.READY, "HELO": State.READY, "RCPT": State.RCPT},
    State.RCPT: {"EHLO": State.READY, "HELO": State.READY, "RCPT": State.RCPT, "DATA": State.DATA},
    State.DATA: {"(dot)": State.READY},
    State.TLS: {"(handshake)": State.GREETED},
    State.CLOSED: {},
}
_QUESTIONS = (Connected, Authenticate, MailFrom, RcptTo, MessageReceived)
_ANYWHERE = frozenset({"NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT"})
_KNOWN = frozenset(verb for row in TRANSITIONS.values() for verb in row if verb[0] != "(")
# Not ours: browsers made to talk to us, and PROXY headers (a version 2 header's third line is a NUL) from
# peers that are not trusted with one.
_FOREIGN = frozenset(
    {"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI", "PROXY", "\0"}
)

OK = reply(250, "2.0.0", "Ok")
SENDER_OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
AUTH_OK = reply(235, "2.7.0", "Authentication successful")
AUTH_FAILED = reply(535, "5.7.8", "Authentication credentials invalid")
GO_AHEAD = reply(354, "", "End data with <CR><LF>.<CR><LF>")
BYE = reply(221, "2.0.0", "Bye")
READY_FOR_TLS = reply(220, "2.0.0", "Ready to start TLS")
LATER = reply(451, "4.3.0", "Temporary failure, please try again")
NOT_KNOWN = reply(500, "5.5.2", "Command not recognised")
NO_COMMAND = reply(502, "5.5.1", "Command not implemented")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
BARE_COMMAND = reply(500, "5.5.2", "A command ends in CR LF")
BARE_DATA = reply(550, "5.6.11", "A lone CR or LF is not allowed in a message")
OUT_OF_ORDER = reply(503, "5.5.1", "Bad sequence of commands")
HELLO_FIRST = reply(503, "5.5.1", "Say EHLO first")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
TLS_FIRST = reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "Encryption required for authentication")
AUTH_FIRST = reply(530, "5.7.0", "Authentication required")
BAD_MECHANISM = reply(504, "5.5.4", "Authentication mechanism not supported")
BAD_AUTH = reply(501, "5.5.2", "Authentication response not understood")
TOO_LARGE = reply(552, "5.3.4", "Message size exceeds the limit")
TEXT_LINE_TOO_LONG = reply(554, "5.6.0", "A line of the message is too long")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")
UTF8_NEEDED = reply(553, "5.6.7", "An address with non-ASCII signs needs SMTPUTF8")
BAD_PARAMETER = reply(555, "5.5.4", "Parameter not recognised")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors, closing")
NOT_VERIFIED = reply(252, "2.5.0", "Cannot verify, send and see")
HELP = reply(214, "2.0.0", "See RFC 5321")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for; all sizes in octets."""

    message: int = 31_457_280
    recipients: int = 50
    line: int = 2048
    auth_line: int = 12_288
    errors: int = 10
    pipelined: int = 65_536
    text_line: int = 0
    """Octets of a line in a message, without CR LF; 0 is no limit."""


class ServerMachine:
    """One session. Feed `receive`, drain `next_event`, answer its questions, send `outgoing`."""

    __slots__ = (
        "_auth_required",
        "_collector",
        "_errors",
        "_events",
        "_exchange",
        "_input",
        "_last",
        "_limits",
        "_name",
        "_offer_auth",
        "_offer_tls",
        "_out",
        "_question",
        "_recipients",
        "_replace_bare",
        "_tls_required",
        "_utf8",
        "authenticated",
        "hello",
        "state",
        "tls",
    )

    def __init__(
        self,
        name: str,
        *,
        limits: Limits,
        tls: bool,
        offer_tls: bool = True,
        tls_required: bool = True,
        auth_required: bool = True,
        replace_bare_line_ends: bool = False,
    ) -> None:
        """`name` is our host name; `tls` says that TLS runs already (465); `auth_required` False is an MX."""
        self._name = name
        self._limits = limits
        self._offer_tls = offer_tls
        self._tls_required = tls_required
        self._auth_required = auth_required
        self._replace_bare = replace_bare_line_ends
        self._offer_auth = auth_required
        self._input = InputBuffer()
        self._out: list[bytes] = []
        self._events: deque[Event] = deque((Connected(),))
        self._question: Question | None = None
        self._last: Reply | None = None
        self._exchange: Exchange | None = None
        self._collector: DataCollector | None = None
        self._recipients = 0
        self._utf8 = False
        self._errors = 0
        self.state = State.CONNECTED
        self.tls = tls
        self.authenticated = False
        self.hello = ""

    # -- bytes in, bytes out --------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer. Raises `RemoteProtocolError` if it may not speak now (behind STARTTLS)."""
        if self.state is State.TLS:
            raise RemoteProtocolError("bytes between STARTTLS and the handshake")
        if self.state is not State.CLOSED:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The peer has closed its side."""
        if self.state is not State.CLOSED:
            self._close()

    def outgoing(self) -> bytes:
        """Return what must be sent now, b"" if nothing."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def full(self) -> bool:
        """Say whether the peer has pipelined more than we keep unread: stop reading until answered."""
        return len(self._input) > self._limits.pipelined

    @property
    def deadline(self) -> str:
        """Return what the peer owes us: "command", "data", "handshake", or "" while we owe an answer."""
        if self._question is not None or self.state is State.CLOSED:
            return ""
        if self.state is State.DATA:
            return "data"
        return "handshake" if self.state is State.TLS else "command"

    # -- events ---------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return the next event, or None: more bytes or an answer are needed first."""
        if self._question is not None:
            return None
        while not self._events:
            if not self._step():
                return None
        event = self._events.popleft()
        if isinstance(event, _QUESTIONS):
            self._question = event
        return event

    def answer(self, answer: Reply) -> None:
        """Answer the question that is open. A 421 closes the session."""
        question = self._question
        if question is None:
            raise LocalProtocolError("no question is open")
        self._question = None
        self._say(answer)
        if answer.code == 421:
            self._close()
        elif isinstance(question, Connected):
            if answer.ok:
                self.state = State.GREETED
            else:
                self._close()
        elif isinstance(question, Authenticate):
            self.state = State.READY
            self.authenticated = answer.ok
        elif isinstance(question, MailFrom):
            if answer.ok:
                self.state = State.MAIL
                self._recipients = 0
                self._utf8 = question.smtputf8
        elif isinstance(question, RcptTo):
            if answer.ok:
                self.state = State.RCPT
                self._recipients += 1
        else:
            self.state = State.READY
        if answer.code >= 500 and not isinstance(question, Connected):
            self._count_error()
        if self._last is not None:
            self.close(self._last)

    def tls_started(self) -> None:
        """The handshake is done: everything said before is forgotten (RFC 3207 section 4.2)."""
        if self.state is not State.TLS:
            raise LocalProtocolError("no STARTTLS was answered")
        self.tls = True
        self.authenticated = False
        self.hello = ""
        self.state = State.GREETED

    def close(self, last: Reply, *, answer_first: bool = False) -> None:
        """End the session from our side with a 421.

        `answer_first` waits for the answer to a message: it may be stored already, and who is not told sends it
        again."""
        if answer_first and isinstance(self._question, MessageReceived):
            self._last = last
        elif self.state not in (State.CLOSED, State.TLS):
            self._question = None
            self._say(last)
            self._close()

    # -- parsing --------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Make one step on the input; say whether one was made."""
        if self.state in (State.CLOSED, State.TLS, State.CONNECTED) or not len(self._input):
            return False
        if self.state is State.DATA:
            return self._read_data()
        try:
            line = self._input.line(self._limits.auth_line if self.state is State.AUTH else self._limits.line)
        except LineTooLong:
            self._leave_auth()
            self._refuse(LINE_TOO_LONG)
            return True
        except BareLineEnd:
            self._leave_auth()
            self._refuse(BARE_COMMAND)
            return True
        if line is None:
            return False
        if self.state is State.AUTH:
            self._continue_auth(line, starting=False)
        else:
            self._command(line)
        return True

    def _read_data(self) -> bool:
        collector = self._collector
        assert collector is not None
        rest = collector.feed(self._input.take())
        if rest is None:
            return False
        if rest:
            self._input.feed(rest)
        self._collector = None
        content = collector.content()
        bare, long = (False, False) if collector.too_large else examine(content, self._limits.text_line)
        if collector.too_large:
            self._refuse_message(TOO_LARGE)
        elif bare and not self._replace_bare:
            self._refuse_message(BARE_DATA)
        elif long:
            self._refuse_message(TEXT_LINE_TOO_LONG)
        else:
            self._events.append(MessageReceived(replace_bare_line_ends(content) if bare else content))
        return True

    def _refuse_message(self, answer: Reply) -> None:
        self.state = State.READY
        self._events.append(Aborted())
        self._refuse(answer)

    def _command(self, line: bytes) -> None:
        verb, argument = grammar.command(line)
        allowed = TRANSITIONS[self.state]
        if verb not in allowed and verb not in _ANYWHERE:
            self._out_of_order(verb)
            return
        match verb:
            case "MAIL":
                self._mail(argument)
            case "RCPT":
                self._rcpt(argument)
            case "DATA":
                self._data(argument)
            case "EHLO" | "HELO":
                self._hello(verb, argument)
            case "AUTH":
                self._auth(argument)
            case "STARTTLS":
                self._starttls(argument)
            case _:
                self._anywhere(verb)

    def _out_of_order(self, verb: str) -> None:
        if verb in _FOREIGN:  # another protocol's client
            self._say(TOO_MANY_ERRORS)
            self._close()
        elif verb not in _KNOWN:
            self._refuse(NO_COMMAND if verb in ("BDAT", "ETRN", "TURN", "SEND", "SOML", "SAML") else NOT_KNOWN)
        elif verb == "DATA" and self.state is State.MAIL:
            self._refuse(NO_RECIPIENTS)
        else:
            self._refuse(HELLO_FIRST if self.state is State.GREETED else OUT_OF_ORDER)

    def _anywhere(self, verb: str) -> None:
        if verb == "QUIT":
            self._say(BYE)
            self._close()
        elif verb == "RSET":
            self._abort()
            self._say(OK)
        elif verb == "NOOP":
            self._say(OK)
        elif verb == "VRFY":
            self._say(NOT_VERIFIED)
        elif verb == "EXPN":
            self._refuse(NO_COMMAND)
        else:
            self._say(HELP)

    def _hello(self, verb: str, argument: bytes) -> None:
        try:
            self.hello = grammar.hello_name(argument)
        except grammar.BadSyntax as error:
            self._refuse(reply(501, "5.5.4", str(error)))
            return
        self._abort()
        self.state = State.READY
        if verb == "HELO":
            self._say(reply(250, "", self._name))
            return
        lines = [self._name, "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        lines.append(f"SIZE {self._limits.message}")
        lines.append(f"LIMITS RCPTMAX={self._limits.recipients}")
        if self._offer_tls and not self.tls:
            lines.append("STARTTLS")
        if self._offer_auth and self.tls:
            lines.append("AUTH " + " ".join(MECHANISMS))
        self._say(Reply(250, "", tuple(lines)))

    def _starttls(self, argument: bytes) -> None:
        if not self._offer_tls or self.tls:
            self._refuse(OUT_OF_ORDER)
        elif argument:
            self._refuse(reply(501, "5.5.4", "STARTTLS takes no parameter"))
        elif len(self._input):
            self._close()
            raise RemoteProtocolError("bytes behind STARTTLS")
        else:
            self._say(READY_FOR_TLS)
            self.state = State.TLS
            self._events.append(TlsRequested())

    def _auth(self, argument: bytes) -> None:
        mechanism, _, initial = argument.partition(b" ")
        name = mechanism.decode("ascii", "replace").upper()
        if not self.tls:
            self._refuse(AUTH_NEEDS_TLS if self._offer_auth else NO_COMMAND)
        elif not self._offer_auth:
            self._refuse(NO_COMMAND)
        elif self.authenticated:
            self._refuse(OUT_OF_ORDER)
        elif name not in MECHANISMS:
            self._refuse(BAD_MECHANISM)
        else:
            self._exchange = Exchange(name)
            self.state = State.AUTH
            self._continue_auth(initial.strip() or None, starting=True)

    def _continue_auth(self, line: bytes | None, *, starting: bool) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            result = exchange.start(line) if starting else exchange.respond(line or b"")
        except BadResponse:
            self._leave_auth()
            self._refuse(BAD_AUTH)
            return
        if isinstance(result, Login):
            self._exchange = None
            self._events.append(Authenticate(exchange.mechanism, result))
        else:
            self._out.append(b"334 " + result + b"\r\n")

    def _leave_auth(self) -> None:
        if self.state is State.AUTH:
            self._exchange = None
            self.state = State.READY

    def _mail(self, argument: bytes) -> None:
        if self._tls_required and not self.tls:
            self._refuse(TLS_FIRST)
            return
        if self._auth_required and not self.authenticated:
            self._refuse(AUTH_FIRST)
            return
        try:
            mailbox, given = grammar.path(argument, b"FROM")
        except grammar.BadSyntax as error:
            self._refuse(reply(501, "5.1.7", str(error)))
            return
        size = given.pop("SIZE", "0")
        body = given.pop("BODY", "7BIT").upper()
        utf8 = given.pop("SMTPUTF8", None)
        given.pop("AUTH", None)  # RFC 4954: a hint that needs no heed
        if given or not size.isdecimal() or body not in ("7BIT", "8BITMIME") or utf8:
            self._refuse(BAD_PARAMETER)
        elif len(size) > 20 or int(size) > self._limits.message:
            self._refuse(TOO_LARGE)
        elif not mailbox.ascii and utf8 is None:
            self._refuse(UTF8_NEEDED)
        else:
            self._events.append(MailFrom(mailbox, int(size), body == "8BITMIME", utf8 is not None))

    def _rcpt(self, argument: bytes) -> None:
        try:
            mailbox, given = grammar.path(argument, b"TO")
        except grammar.BadSyntax as error:
            self._refuse(reply(501, "5.1.3", str(error)))
            return
        if given:
            self._refuse(BAD_PARAMETER)
        elif not mailbox.text:
            self._refuse(reply(501, "5.1.3", "A recipient needs an address"))
        elif not mailbox.ascii and not self._utf8:
            self._refuse(UTF8_NEEDED)
        elif self._recipients >= self._limits.recipients:
            self._say(TOO_MANY_RECIPIENTS)
        else:
            self._events.append(RcptTo(mailbox))

    def _data(self, argument: bytes) -> None:
        if argument:
            self._refuse(reply(501, "5.5.4", "DATA takes no parameter"))
        else:
            self._say(GO_AHEAD)
            self.state = State.DATA
            self._collector = DataCollector(self._limits.message)

    # -- small print ----------------------------------------------------------------------------------------

    def _abort(self) -> None:
        if self.state in (State.MAIL, State.RCPT):
            self._events.append(Aborted())
            self.state = State.READY
        self._recipients = 0

    def _say(self, answer: Reply) -> None:
        self._out.append(answer.wire)

    def _refuse(self, answer: Reply) -> None:
        self._say(answer)
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self._limits.errors and self.state is not State.CLOSED:
            self._say(TOO_MANY_ERRORS)
            self._close()

    def _close(self) -> None:
        if self.state is not State.CLOSED:
            if self.state in (State.MAIL, State.RCPT) or self._collector is not None:
                self._events.append(Aborted())
            self.state = State.CLOSED
            self._question = None
            self._collector = None
            self._input.clear()
            self._events.append(Closed())
