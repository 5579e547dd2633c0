"""The server's side of a session as a state machine: bytes in, questions and replies out; no I/O.

Standards: RFC 5321, 6409 (submission), 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 3207 (STARTTLS),
4954 (AUTH), 2034 (ENHANCEDSTATUSCODES), 6531 (SMTPUTF8), 9422 (LIMITS), 3030 (CHUNKING).
Promises: only CR LF . CR LF ends data; a chunk's octets are read before it is refused; an unanswered question
stops the parser; STARTTLS is a wall: bytes behind it end the session; splitting the input anywhere changes
nothing; any bytes at all give events, replies or `RemoteProtocolError`.
Dangers: whatever was said before TLS is forgotten at TLS; passwords pass through here and are not kept.
Not here: sockets and deadlines (`smtp.asyncio.server`), who may do what (`relay.session`), what content is and how
much of it there may be (`smtp.content`).

`TRANSITIONS` is the law: a verb that is not in a state's row is out of order there. The diagram in the docs
is drawn from it. The module is long because a command and all its refusals are read together.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from enum import Enum

from outgate.smtp import envelope, grammar
from outgate.smtp.buffer import BadLine, InputBuffer, LineTooLong
from outgate.smtp.content import ContentReader, Intake
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
from outgate.smtp.reply import (
    AUTH_FIRST,
    AUTH_NEEDS_TLS,
    BAD_AUTH,
    BAD_MECHANISM,
    BARE_COMMAND,
    BYE,
    GO_AHEAD,
    HELLO_FIRST,
    HELP,
    LINE_TOO_LONG,
    LOST,
    NO_COMMAND,
    NO_RECIPIENTS,
    NO_ROOM,
    NOT_KNOWN,
    NOT_VERIFIED,
    OK,
    OUT_OF_ORDER,
    READY_FOR_TLS,
    TLS_FIRST,
    TOO_LARGE,
    TOO_MANY_ERRORS,
    TOO_MANY_RECIPIENTS,
    Reply,
    reply,
)
from outgate.smtp.sasl import MECHANISMS, BadResponse, Exchange, Login


class State(Enum):
    """Where a session is."""

    __hash__ = object.__hash__  # a state is itself alone; Enum's own goes by the name and is a function of Python's

    CONNECTED = "connected"
    GREETED = "greeted"
    READY = "ready"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BDAT = "bdat"
    CHUNKED = "chunked"
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
    State.RCPT: {
        "EHLO": State.READY,
        "HELO": State.READY,
        "RCPT": State.RCPT,
        "DATA": State.DATA,
        "BDAT": State.BDAT,
    },
    State.DATA: {"(dot)": State.READY},
    State.BDAT: {"(octets)": State.CHUNKED, "(last octets)": State.READY},
    State.CHUNKED: {"EHLO": State.READY, "HELO": State.READY, "BDAT": State.BDAT},
    State.TLS: {"(handshake)": State.GREETED},
    State.CLOSED: {},
}
_QUESTIONS = (Connected, Authenticate, MailFrom, RcptTo, MessageReceived)
_NO_SIGN = (b"", b" ", b"\t", b"\r", b"\n")
_AUTH_OFFER = "AUTH " + " ".join(MECHANISMS)
_DEAF = (State.CLOSED, State.TLS, State.CONNECTED)
_CONTENT = (State.DATA, State.BDAT)
_OPEN = (State.MAIL, State.RCPT, State.CHUNKED)
"""Where a mail transaction is open and commands are welcome."""
_ANYWHERE = frozenset({"NOOP", "RSET", "HELP", "VRFY", "EXPN", "QUIT"})
_KNOWN = frozenset(verb for row in TRANSITIONS.values() for verb in row if verb[0] != "(")
# Not ours: browsers made to talk to us. Whatever begins with no letter is not ours either: a TLS handshake, or a NUL,
# which is a version 2 PROXY header's third line.
_FOREIGN = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"})
_PROXIED = "a PROXY header from a peer outside relay.proxy_trusted: name it there"

# What owners answer.
SENDER_OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
AUTH_OK = reply(235, "2.7.0", "Authentication successful")
AUTH_FAILED = reply(535, "5.7.8", "Authentication credentials invalid")
LATER = reply(451, "4.3.0", "Temporary failure, please try again")
_HARMLESS = {"RSET": OK, "NOOP": OK, "VRFY": NOT_VERIFIED, "HELP": HELP}


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
    useless: int = 100
    """Commands without an accepted MAIL among them (NOOP, RSET, EHLO, …) before each further one counts as an error."""
    overshoot: int = 1000
    """Recipients beyond the most, answered 452, before each further one counts as an error."""


@functools.lru_cache(maxsize=64)
def _hello_reply(name: str, message: int, recipients: int, further: tuple[str, ...]) -> Reply:
    lines = [name, "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
    return Reply(250, "", (*lines, f"SIZE {message}", f"LIMITS RCPTMAX={recipients}", *further))


class ServerMachine:
    """One session. Feed `receive`, drain `next_event`, answer its questions, send `outgoing`."""

    __slots__ = (
        "_auth_required",
        "_before_chunk",
        "_content",
        "_errors",
        "_events",
        "_exchange",
        "_finishing",
        "_input",
        "_last",
        "_limits",
        "_name",
        "_offer_auth",
        "_offer_dsn",
        "_offer_requiretls",
        "_offer_tls",
        "_out",
        "_question",
        "_recipients",
        "_spoilt",
        "_tls_required",
        "_useless",
        "_utf8",
        "authenticated",
        "hello",
        "state",
        "tls",
        "transactions",
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
        offer_dsn: bool = False,
        offer_requiretls: bool = False,
        intake: Intake | None = None,
    ) -> None:
        """`name` is our host name; `tls` says that TLS runs already (465); `auth_required` False is an MX.

        DSN's parameters and REQUIRETLS are understood even where they are not offered: offer them where they are
        honoured. `intake` is what this session shares with others."""
        self._name = name
        self._limits = limits
        self._offer_tls = offer_tls
        self._tls_required = tls_required
        self._auth_required = auth_required
        self._offer_auth = auth_required
        self._offer_dsn = offer_dsn
        self._offer_requiretls = offer_requiretls
        self._input = InputBuffer()
        self._out: list[bytes] = []
        self._events: deque[Event] = deque((Connected(),))
        self._question: Question | None = None
        self._last: Reply | None = None
        self._exchange: Exchange | None = None
        self._content = ContentReader(
            Intake() if intake is None else intake,
            most=limits.message,
            text_line=limits.text_line,
            replace_bare=replace_bare_line_ends,
        )
        self._before_chunk = State.CONNECTED
        self._spoilt = False
        self._finishing = False
        self._recipients = 0
        self._utf8 = False
        self._errors = 0
        self._useless = 0
        self.state = State.CONNECTED
        self.tls = tls
        self.authenticated = False
        self.hello = ""
        self.transactions = 0

    # -- bytes in, bytes out --------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer. Raises `RemoteProtocolError` if it may not speak now (behind STARTTLS)."""
        if self.state is State.TLS:
            raise RemoteProtocolError("bytes between STARTTLS and the handshake")
        if self.state is not State.CLOSED:
            self._input.feed(data)

    def receive_eof(self, *, finish: bool = False) -> None:
        """The peer has closed its side. `finish`: it still reads, so what it has sent is answered before the end."""
        if finish:
            self._finishing = True
        else:
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
        if self.state in _CONTENT:
            return "data"
        return "handshake" if self.state is State.TLS else "command"

    # -- events ---------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return the next event, or None: more bytes or an answer are needed first."""
        if self._question is not None:
            return None
        while not self._events:
            if not self._step():
                if not self._finishing or self.state is State.CLOSED:
                    return None
                self._close()
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
            if not answer.ok:
                self._count_useless()
        elif isinstance(question, MailFrom):
            if answer.ok:
                self.state = State.MAIL
                self.transactions += 1
                self._recipients = self._useless = 0
                self._spoilt = False
                self._utf8 = question.smtputf8
            else:
                self._count_useless()
        elif isinstance(question, RcptTo):
            if answer.ok:
                self.state = State.RCPT
                self._recipients += 1
        else:
            self.state = State.READY
            self._content.drop()
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
            self._say(last)
            self._close()

    def on_account_of(self, holder: str) -> None:
        """Count this session's messages as one holder's (see `Intake`). Between transactions, as after AUTH."""
        self._content.holder = holder

    def let_go(self) -> None:
        """Count the content of the last message no more. The owner of a session that ended before the answer calls
        this once it keeps that content no longer."""
        self._content.drop()

    # -- parsing --------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Make one step on the input; say whether one was made."""
        state = self.state
        if state in _DEAF or not self._input:
            return False
        if state in _CONTENT:
            return self._read_content()
        first = self._input.first
        try:
            line = self._input.line(self._limits.auth_line if state is State.AUTH else self._limits.line)
        except BadLine as error:
            if not self._foreign(error.first):
                self._leave_auth()
                self._refuse(LINE_TOO_LONG if isinstance(error, LineTooLong) else BARE_COMMAND)
            return True
        if line is None:
            return self._foreign(first)
        if state is State.AUTH:
            self._continue_auth(line, starting=False)
        else:
            self._command(line)
        return True

    def _read_content(self) -> bool:
        result = self._content.read(self._input)
        if result is None:
            return False
        if isinstance(result, bytes):
            self._before_chunk = State.READY
            self._events.append(MessageReceived(result))
        elif self.state is State.DATA:
            self._end_transaction()
            self._refuse(result)
        else:
            self._chunk_done(result)
        return True

    def _chunk_done(self, answer: Reply) -> None:
        """Answer a chunk that was not the last, or one that is refused."""
        self.state = self._before_chunk
        if answer.ok:
            self.state = State.CHUNKED
            self._say(answer)
            return
        if "BDAT" in TRANSITIONS[self.state]:
            self._end_transaction()
        # A client that pipelines has sent the next chunks already: one error, not as many as there are chunks.
        if self._spoilt:
            self._say(answer)
            self._count_useless()
        else:
            self._spoilt = True
            self._refuse(answer)

    def _end_transaction(self) -> None:
        self.state = State.READY
        self._events.append(Aborted())

    def _command(self, line: bytes) -> None:
        verb, argument = grammar.command(line)
        allowed = TRANSITIONS[self.state]
        if verb not in allowed and verb not in _ANYWHERE:
            if not self._foreign(line[:1]):
                self._out_of_order(verb, argument)
            return
        match verb:
            case "MAIL":
                self._mail(argument)
            case "RCPT":
                self._rcpt(argument)
            case "DATA":
                self._data(argument)
            case "BDAT":
                self._bdat(argument)
            case "EHLO" | "HELO":
                self._hello(verb, argument)
            case "AUTH":
                self._auth(argument)
            case "STARTTLS":
                self._starttls(argument)
            case _:
                self._anywhere(verb)

    def _out_of_order(self, verb: str, argument: bytes) -> None:
        if verb == "PROXY":
            self._close(_PROXIED)
        elif verb in _FOREIGN:
            self._end_foreign()
        elif verb == "BDAT":
            self._bdat(argument)
        elif verb not in _KNOWN:
            self._refuse(NO_COMMAND if verb in ("ETRN", "TURN", "SEND", "SOML", "SAML") else NOT_KNOWN)
        else:
            self._refuse(self._why_not(verb))

    def _why_not(self, verb: str) -> Reply:
        if self.state is State.MAIL and verb in ("DATA", "BDAT"):
            return NO_RECIPIENTS
        return HELLO_FIRST if self.state is State.GREETED else OUT_OF_ORDER

    def _anywhere(self, verb: str) -> None:
        if verb == "QUIT":
            self._say(BYE)
            self._close()
            return
        if verb == "EXPN":
            self._refuse(NO_COMMAND)
            return
        if verb == "RSET":
            self._abort()
        self._say(_HARMLESS[verb])
        self._count_useless()

    def _hello(self, verb: str, argument: bytes) -> None:
        try:
            self.hello = grammar.hello_name(argument)
        except grammar.BadSyntax as error:
            self._refuse(reply(501, "5.5.4", str(error)))
            return
        self._abort()
        self.state = State.READY
        self._say(reply(250, "", self._name) if verb == "HELO" else self._offer())
        self._count_useless()

    def _offer(self) -> Reply:
        further: tuple[str, ...] = ()
        if self._offer_dsn:
            further += ("DSN",)
        if self._offer_requiretls and self.tls:
            further += ("REQUIRETLS",)
        if self._offer_tls and not self.tls:
            further += ("STARTTLS",)
        if self._offer_auth and self.tls:
            further += (_AUTH_OFFER,)
        return _hello_reply(self._name, self._limits.message, self._limits.recipients, further)

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
            question = envelope.mail_from(argument)
        except envelope.BadArgument as error:
            self._refuse(error.reply)
            return
        if question.size > self._limits.message:
            self._refuse(TOO_LARGE)
        elif question.requiretls and not self.tls:
            self._refuse(TLS_FIRST)
        elif not self._content.room_for(question.size):
            self._say(NO_ROOM)
            self._count_useless()
        else:
            self._events.append(question)

    def _rcpt(self, argument: bytes) -> None:
        try:
            question = envelope.rcpt_to(argument, smtputf8=self._utf8)
        except envelope.BadArgument as error:
            self._refuse(error.reply)
            return
        if self._recipients >= self._limits.recipients:
            self._say(TOO_MANY_RECIPIENTS)
            self._recipients += 1
            if self._recipients > self._limits.recipients + self._limits.overshoot:
                self._count_error()
        else:
            self._events.append(question)

    def _data(self, argument: bytes) -> None:
        if argument:
            self._refuse(reply(501, "5.5.4", "DATA takes no parameter"))
        elif not self._content.room_for(0):
            self._say(NO_ROOM)
            self._count_useless()
        else:
            self._say(GO_AHEAD)
            self.state = State.DATA
            self._content.begin_data()

    def _bdat(self, argument: bytes) -> None:
        try:
            size, last = grammar.chunk(argument)
        except grammar.BadSyntax as error:
            # What follows may be content or commands, and nobody can say which.
            self._say(reply(501, "5.5.4", str(error)))
            self._say(LOST)
            self._close()
            return
        welcome = "BDAT" in TRANSITIONS[self.state]
        self._content.begin_chunk(size, last, None if welcome else self._why_not("BDAT"))
        self._before_chunk = self.state
        self.state = State.BDAT
        if not size:
            self._read_content()
            if not last:
                self._count_useless()

    # -- small print ----------------------------------------------------------------------------------------

    def _abort(self) -> None:
        if self.state in _OPEN:
            self._end_transaction()
        self._recipients = 0
        self._spoilt = False
        self._content.drop()

    def _foreign(self, first: bytes) -> bool:
        """End a session whose client speaks another protocol: every command begins with a letter, say whether."""
        if self.state is State.AUTH or first.isalpha() or first in _NO_SIGN:
            return False
        if first == b"\0":
            self._close(_PROXIED)
        else:
            self._end_foreign()
        return True

    def _end_foreign(self) -> None:
        self._say(TOO_MANY_ERRORS)
        self._close()

    def _say(self, answer: Reply) -> None:
        self._out.append(answer.wire)

    def _refuse(self, answer: Reply) -> None:
        self._say(answer)
        if answer.code >= 500:
            self._count_error()

    def _count_useless(self) -> None:
        self._useless += 1
        if self._useless > self._limits.useless:
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self._limits.errors and self.state is not State.CLOSED:
            self._say(TOO_MANY_ERRORS)
            self._close()

    def _close(self, reason: str = "") -> None:
        if self.state is not State.CLOSED:
            state = self._before_chunk if self.state is State.BDAT else self.state
            if state in _OPEN or self._content.in_data:
                self._events.append(Aborted())
            self.state = State.CLOSED
            if not isinstance(self._question, MessageReceived):  # its content is in memory until the owner is done
                self._content.drop()
            self._question = None
            self._input.clear()
            self._events.append(Closed(reason))
