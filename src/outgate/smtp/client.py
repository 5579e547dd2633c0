"""The client's side of a session as a state machine: bytes in, results and commands out; no I/O.

Standards: RFC 5321, 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3207 (STARTTLS),
4954 (AUTH), 3461 (DSN), 8689 (REQUIRETLS), 2034 and 3463 (enhanced codes).
Promises: a result per recipient, never an exception for a 4xx or 5xx; any bytes at all give events or
`RemoteProtocolError`; splitting the input anywhere changes nothing; after an error every transaction that
was handed over has had its `Done`; message content is never copied.
Dangers: a byte between the 220 to STARTTLS and the handshake is a forgery: it ends the connection. Behind the
final dot a lost answer means "unknown" (`sent_all`), not "failed". Passwords pass through here, in TLS only.
Not here: sockets and seconds (`smtp.asyncio.client`, `smtp.sync.client`), reading replies (`smtp.answers`), what a
login says (`smtp.login`).

`TRANSITIONS` is the law. What we wait for is the state; with PIPELINING the commands of the states to come
have gone out already, so the same table serves both ways. The module is long because the table and what its arrows do
are read together: a machine in two files has its law in one and its deeds in the other.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NoReturn

from outgate.smtp.answers import ClientLimits, ReplyReader, extensions_of
from outgate.smtp.client_events import (
    Authenticated,
    Closing,
    Done,
    Event,
    Greeting,
    Hello,
    TlsReady,
    TlsRefused,
)
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError, SpokeEarly
from outgate.smtp.login import Answers
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import (
    REQUIRETLS_NOT_OFFERED,
    UTF8_NOT_OFFERED,
    Step,
    Transaction,
    TransactionResult,
    check,
    check_paths,
    needs_utf8,
)

__all__ = [
    "Authenticated",
    "ClientLimits",
    "ClientMachine",
    "Closing",
    "Done",
    "Event",
    "Greeting",
    "Hello",
    "State",
    "Step",
    "TlsReady",
    "TlsRefused",
    "Transaction",
    "TransactionResult",
]


class State(StrEnum):
    """Which reply is awaited, or (GREETED, READY, TLS, REFUSED) that it is our turn."""

    GREETING = "greeting"
    GREETED = "greeted"
    REFUSED = "refused"
    HELLO = "hello"
    OLD_HELLO = "old hello"
    READY = "ready"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    RSET = "rset"
    QUIT = "quit"
    CLOSED = "closed"


# state → what happens → next state. "2xx" to "5xx" are replies: a class that is not in the row breaks the
# protocol. Capitals are our commands, words in brackets our own findings. A 421 leads to CLOSED from anywhere.
TRANSITIONS: dict[State, dict[str, State]] = {
    State.GREETING: {"2xx": State.GREETED, "4xx": State.REFUSED, "5xx": State.REFUSED},
    State.GREETED: {
        "EHLO": State.HELLO,
        "QUIT": State.QUIT,
        "4xx": State.CLOSED,
        "5xx": State.CLOSED,
    },
    State.REFUSED: {"QUIT": State.QUIT, "4xx": State.CLOSED, "5xx": State.CLOSED},
    State.HELLO: {"2xx": State.READY, "4xx": State.REFUSED, "5xx": State.OLD_HELLO},
    State.OLD_HELLO: {"2xx": State.READY, "4xx": State.REFUSED, "5xx": State.REFUSED},
    State.READY: {
        "EHLO": State.HELLO,
        "STARTTLS": State.STARTTLS,
        "AUTH": State.AUTH,
        "MAIL": State.MAIL,
        "RSET": State.RSET,
        "QUIT": State.QUIT,
        "4xx": State.CLOSED,  # nobody asked: an idle peer takes its leave
        "5xx": State.CLOSED,
    },
    State.STARTTLS: {"2xx": State.TLS, "4xx": State.READY, "5xx": State.READY},
    State.TLS: {"(handshake)": State.GREETED},
    State.AUTH: {"2xx": State.READY, "3xx": State.AUTH, "4xx": State.READY, "5xx": State.READY},
    State.MAIL: {"2xx": State.RCPT, "4xx": State.RCPT, "5xx": State.RCPT, "(refused)": State.READY},
    State.RCPT: {
        "2xx": State.RCPT,
        "4xx": State.RCPT,
        "5xx": State.RCPT,
        "(last)": State.DATA,
        "(none taken)": State.RSET,
    },
    State.DATA: {
        "3xx": State.DOT,
        "4xx": State.READY,
        "5xx": State.READY,
        "(transaction open)": State.RSET,
    },
    State.DOT: {"2xx": State.READY, "4xx": State.READY, "5xx": State.READY},
    State.RSET: {"2xx": State.READY, "4xx": State.CLOSED, "5xx": State.CLOSED},
    State.QUIT: {"2xx": State.CLOSED, "4xx": State.CLOSED, "5xx": State.CLOSED},
    State.CLOSED: {},
}
_CLASSES = ("", "", "2xx", "3xx", "4xx", "5xx")
# What the peer owes us in a state; the shell gives each its seconds. Where it is our turn there is nothing.
_DEADLINES: dict[State, str] = {
    State.GREETING: "greeting",
    State.HELLO: "hello",
    State.OLD_HELLO: "hello",
    State.STARTTLS: "starttls",
    State.TLS: "handshake",
    State.AUTH: "auth",
    State.MAIL: "mail",
    State.RCPT: "rcpt",
    State.DATA: "data",
    State.DOT: "final",
    State.RSET: "rset",
    State.QUIT: "quit",
}
_WITHOUT_CODES = frozenset({State.GREETING, State.HELLO, State.OLD_HELLO})  # RFC 2034 section 4
_IN_TRANSACTION = frozenset({State.MAIL, State.RCPT, State.DATA, State.DOT, State.RSET})


class _Work:
    """A transaction in progress."""

    __slots__ = (
        "ahead",
        "data",
        "envelope_at",
        "final",
        "mail",
        "recipients",
        "sent_all",
        "taken",
        "transaction",
    )

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.ahead = False  # MAIL, RCPT and DATA have gone out together
        self.mail: Reply | None = None
        self.recipients: list[Reply | None] = []
        self.taken = 0
        self.data: Reply | None = None
        self.final: Reply | None = None
        self.sent_all = False
        self.envelope_at = 0.0


class ClientMachine:
    """One session. Feed `receive`, drain `next_event`, send `outgoing`; start things with the other verbs."""

    __slots__ = (
        "_current",
        "_ending",
        "_events",
        "_input",
        "_login",
        "_may_pipeline",
        "_name",
        "_now",
        "_out",
        "_pipelining",
        "_queued",
        "extensions",
        "replies",
        "state",
        "tls",
    )

    def __init__(
        self,
        *,
        ehlo_name: str,
        limits: ClientLimits | None = None,
        pipelining: bool = True,
        tls: bool = False,
    ) -> None:
        """`ehlo_name` is who we say we are; `pipelining` False never uses it; `tls`: it runs already (465)."""
        if not ehlo_name.isascii() or not ehlo_name.isprintable() or " " in ehlo_name or not ehlo_name:
            raise LocalProtocolError("the EHLO name is not a name")
        self._name = ehlo_name
        self._may_pipeline = pipelining
        self._input = ReplyReader(limits or ClientLimits())
        self._out: list[bytes] = []
        self._events: deque[Event] = deque()
        self._login: Answers | None = None
        self._current: _Work | None = None
        self._queued: _Work | None = None
        self._ending: _Work | None = None
        self._now = 0.0
        self._pipelining = False
        self.extensions: dict[str, str] = {}
        self.replies = 0
        """Whole replies read: a peer that only drips does not get on."""
        self.state = State.GREETING
        self.tls = tls

    # -- bytes in, bytes out --------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float = 0.0) -> None:
        """Take bytes from the peer at `now` (epoch seconds, for the trail).

        Raises `RemoteProtocolError` if the peer may not speak now (before the handshake)."""
        if self.state is State.TLS:
            self._fail(SpokeEarly())
        if self.state is not State.CLOSED:
            self._now = now
            self._input.feed(data)

    def receive_eof(self, error: str = "the peer closed the connection", *, unsent: bool = False) -> None:
        """The connection is gone, for the reason `error`: open transactions end with it. `unsent`: the last octets of
        `outgoing` have not left, so that the peer cannot have the message that they are the end of."""
        if self.state is not State.CLOSED:
            if unsent and self._current is not None and self._queued is None:
                self._current.sent_all = False
            self._end(None, error)

    def outgoing(self) -> list[bytes]:
        """Return the buffers that must be sent now, in order; the caller owns the list."""
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def deadline(self) -> str | None:
        """Return the name of what the peer owes us, None while it is our turn."""
        return _DEADLINES.get(self.state)

    @property
    def ready(self) -> bool:
        """Say whether `send` is allowed: nothing is under way, or one transaction and none behind it."""
        return self.state is State.READY or (self.state in _IN_TRANSACTION and self._queued is None)

    @property
    def in_flight(self) -> int:
        """Return how many transactions wait for their end: 0 to 3."""
        return sum(work is not None for work in (self._ending, self._current, self._queued))

    # -- what we start --------------------------------------------------------------------------------------

    def ehlo(self) -> None:
        """Introduce ourselves: after the greeting, and again after the handshake."""
        self._start("EHLO")
        self._out.append(f"EHLO {self._name}\r\n".encode("ascii"))

    def starttls(self) -> None:
        """Ask for TLS."""
        if self.tls:
            raise LocalProtocolError("TLS runs already")
        self._start("STARTTLS")
        self._out.append(b"STARTTLS\r\n")

    def tls_started(self) -> None:
        """The handshake is done: everything heard before is forgotten (RFC 3207 section 4.2)."""
        self._start("(handshake)")
        self.tls = True
        self._pipelining = False
        self.extensions = {}

    def auth(self, mechanism: str, user: str, secret: str) -> None:
        """Log in by "PLAIN" or "LOGIN" with a password, or by "XOAUTH2" with an access token.

        Raises `LocalProtocolError` without TLS: passwords and tokens stay inside it."""
        if not self.tls:
            raise LocalProtocolError("a password or token is sent inside TLS only")
        login = Answers(mechanism, user, secret)
        self._start("AUTH")
        self._login = login
        self._out.append(login.command)

    def send(self, transaction: Transaction) -> None:
        """Begin a transaction, or hand over the one that follows the one under way (one at most).

        Its end is a `Done` event. Raises `LocalProtocolError` when not `ready` or for what cannot go on the
        wire: control characters in a path, no recipient, content without a line end at its end."""
        if not self.ready:
            raise LocalProtocolError(f"no transaction can start in state {self.state.value}")
        check(transaction)
        work = _Work(transaction)
        if "SMTPUTF8" not in self.extensions and needs_utf8(transaction):
            work.mail = UTF8_NOT_OFFERED
            self._done(work, "smtputf8 not offered")
        elif transaction.requiretls and transaction.reverse_path and not self._promises_tls:
            work.mail = REQUIRETLS_NOT_OFFERED
            self._done(work, "requiretls not offered")
        elif self._current is None:
            self._current = work
            if self.state is State.RSET:
                self._send_ahead(work)
            else:
                self._open(work)
        else:
            self._queued = work
            if self.state is State.DOT:
                self._send_ahead(work)

    def ask_sender(self, reverse_path: str) -> None:
        """Ask whether the peer takes mail from `reverse_path`, and send it none: MAIL, then RSET. A `Done` follows,
        whose `mail` is the answer. Raises `LocalProtocolError` as `send`, and while anything is under way."""
        if self.state is not State.READY:
            raise LocalProtocolError(f"no question can be asked in state {self.state.value}")
        work = _Work(Transaction(reverse_path, (), ()))
        check_paths(work.transaction)
        if "SMTPUTF8" not in self.extensions and needs_utf8(work.transaction):
            work.mail = UTF8_NOT_OFFERED
            self._done(work, "smtputf8 not offered")
            return
        self._current = work
        self.state = State.MAIL
        self._out.append(self._mail_command(work.transaction).encode("utf-8"))

    def reset(self) -> None:
        """Ask an idle peer whether it is there (RSET changes nothing between messages); then it is READY again."""
        self._start("RSET")
        self._out.append(b"RSET\r\n")

    def quit(self) -> None:
        """Say goodbye; `Closing` follows."""
        self._start("QUIT")
        self._out.append(b"QUIT\r\n")

    def _start(self, verb: str) -> None:
        to = TRANSITIONS[self.state].get(verb)
        if to is None:
            raise LocalProtocolError(f"{verb} is not possible in state {self.state.value}")
        self.state = to

    # -- events ---------------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return the next event, None if more bytes or a verb of ours are needed first.

        Act on an event before asking for the next. Raises `RemoteProtocolError`; what was open has then
        ended and its events can still be fetched."""
        events = self._events
        while not events:
            state = self.state
            if state is State.TLS or state is State.CLOSED:
                return None
            try:
                reply = self._input.next(state not in _WITHOUT_CODES)
            except RemoteProtocolError as error:
                self._end(None, str(error), broken=True)
                raise
            if reply is None:
                return None
            self._take(reply)
        return events.popleft()

    def _take(self, reply: Reply) -> None:
        """Let one reply act on the state it answers."""
        self.replies += 1
        state = self.state
        code = reply.code
        kind = _CLASSES[code // 100]
        to = TRANSITIONS[state].get(kind)
        if code == 421:
            self._leave(state, reply)
        elif to is None:
            self._fail(f"an answer that fits nothing (in state {state.value}): {code} {reply.text[:200]}")
        else:
            self.state = to
            if state in _IN_TRANSACTION:
                self._advance(state, reply)
            else:
                self._session(state, reply)

    def _leave(self, state: State, reply: Reply) -> None:
        """A 421: tell whoever waited for this very answer, then close."""
        work = self._current
        if work is not None and state is not State.RSET:
            _note(work, state, reply)
            if state is State.DOT and work.taken:  # an answer like any other: the message was not taken
                self._current = None
                self._done(work, "")
        elif state is State.GREETING:
            self._events.append(Greeting(reply))
        elif state in (State.HELLO, State.OLD_HELLO):
            self._events.append(Hello(reply, {}))
        elif state is State.STARTTLS:
            self._events.append(TlsRefused(reply))
        elif state is State.AUTH and self._login is not None:
            self._events.append(Authenticated(self._login.judged(reply)))
        self._end(reply, f"the peer closed the session: {reply}")

    def _session(self, state: State, reply: Reply) -> None:
        """Everything that is not a mail transaction."""
        if state is State.GREETING:
            self._events.append(Greeting(reply))
        elif state is State.HELLO and self.state is State.OLD_HELLO:
            self._out.append(f"HELO {self._name}\r\n".encode("ascii"))
        elif state in (State.HELLO, State.OLD_HELLO):
            self.extensions = extensions_of(reply) if reply.ok and state is State.HELLO else {}
            self._pipelining = self._may_pipeline and "PIPELINING" in self.extensions
            self._events.append(Hello(reply, self.extensions))
        elif state is State.STARTTLS:
            if self.state is not State.TLS:
                self._events.append(TlsRefused(reply))
            elif len(self._input):
                self._fail(SpokeEarly())
            else:
                self._events.append(TlsReady(reply))
        elif state is State.AUTH:
            self._continue_auth(reply)
        else:  # the answer to QUIT, or a goodbye nobody asked for
            self._end(reply, f"the peer closed the session: {reply}")

    def _continue_auth(self, reply: Reply) -> None:
        login = self._login
        assert login is not None
        if self.state is not State.AUTH:
            self._login = None
            self._events.append(Authenticated(login.judged(reply)))
        elif (line := login.next(reply)) is not None:
            self._out.append(line)
        else:
            self._fail("the peer asks for more than this login has")

    # -- a transaction --------------------------------------------------------------------------------------

    def _open(self, work: _Work) -> None:
        """Begin `work` on an idle session."""
        self.state = State.MAIL
        if self._pipelining:
            self._send_ahead(work)
        else:
            self._out.append(self._mail_command(work.transaction).encode("utf-8"))

    def _send_ahead(self, work: _Work) -> None:
        """Send MAIL, RCPT and DATA together, if the peer allows that."""
        if not self._pipelining or work.ahead:
            return
        work.ahead = True
        transaction = work.transaction
        if "DSN" in self.extensions:
            recipients = "".join(self._rcpt_command(transaction, at) for at in range(len(transaction.recipients)))
        else:
            recipients = "RCPT TO:<" + ">\r\nRCPT TO:<".join(transaction.recipients) + ">\r\n"
        self._out.append(f"{self._mail_command(transaction)}{recipients}DATA\r\n".encode("utf-8"))  # noqa: UP012

    def _rcpt_command(self, transaction: Transaction, index: int) -> str:
        options = transaction.recipient_options(index) if "DSN" in self.extensions else ""
        return f"RCPT TO:<{transaction.recipients[index]}>{options}\r\n"

    def _mail_command(self, transaction: Transaction) -> str:
        extensions = self.extensions
        command = f"MAIL FROM:<{transaction.reverse_path}>"
        if transaction.size and "SIZE" in extensions:
            command += f" SIZE={transaction.size}"
        if transaction.body_8bit and "8BITMIME" in extensions:
            command += " BODY=8BITMIME"
        if needs_utf8(transaction):
            command += " SMTPUTF8"
        if "DSN" in extensions:
            command += transaction.mail_options()
        # A report is not lost for want of the promise (RFC 8689 section 5).
        if transaction.requiretls and self._promises_tls:
            command += " REQUIRETLS"
        return command + "\r\n"

    @property
    def _promises_tls(self) -> bool:
        """Say whether the peer holds the next servers to TLS where that is asked."""
        return self.tls and "REQUIRETLS" in self.extensions

    def _advance(self, state: State, reply: Reply) -> None:
        """Go on in the transaction under way; `self.state` is already where the reply's class leads."""
        work = self._current
        if state is State.RSET:
            self._proceed(reply)
            return
        assert work is not None
        _note(work, state, reply)
        if state is State.MAIL:
            self._after_mail(work)
        elif state is State.RCPT:
            self._after_recipient(work)
        elif state is State.DATA:
            self._after_data(work, reply)
        else:
            work.envelope_at = work.envelope_at or self._now
            self._finish(work)

    def _after_mail(self, work: _Work) -> None:
        if work.ahead:
            return
        if work.mail is not None and work.mail.ok:
            if not work.transaction.recipients:  # it was a question only
                self.state = TRANSITIONS[State.RCPT]["(none taken)"]
                self._reset(work)
                return
            self._out.append(self._rcpt_command(work.transaction, 0).encode())
        else:
            self.state = TRANSITIONS[State.MAIL]["(refused)"]
            self._finish(work)

    def _after_recipient(self, work: _Work) -> None:
        done = len(work.recipients)
        if done < len(work.transaction.recipients):
            if not work.ahead:
                self._out.append(self._rcpt_command(work.transaction, done).encode())
        elif work.taken or work.ahead:
            self.state = TRANSITIONS[State.RCPT]["(last)"]
            if not work.ahead:
                self._out.append(b"DATA\r\n")
        else:
            self.state = TRANSITIONS[State.RCPT]["(none taken)"]
            self._reset(work)

    def _after_data(self, work: _Work, reply: Reply) -> None:
        mail_ok = work.mail is not None and work.mail.ok
        work.envelope_at = self._now
        if self.state is not State.DOT:
            if mail_ok:
                self.state = TRANSITIONS[State.DATA]["(transaction open)"]
                self._reset(work)
            else:
                self._finish(work)
            return
        if work.taken and not mail_ok:  # a dot here might deliver an empty message in a nameless one's place
            self._fail("the peer refused MAIL and wants the message all the same")
        if work.taken:
            work.sent_all = True
            self._out.extend(work.transaction.content)
        self._out.append(b".\r\n")
        if self._queued is not None:
            self._send_ahead(self._queued)

    def _reset(self, work: _Work) -> None:
        """Clear what the peer still holds of `work`; what follows waits for that only in order.

        It ends when that is answered: only then is it sure that each reply stood for its own command, and no refusal
        was meant for somebody else."""
        self._out.append(b"RSET\r\n")
        self._current = None
        self._ending = work
        following, self._queued = self._queued, None
        if following is not None:
            self._current = following
            self._send_ahead(following)

    def _proceed(self, reply: Reply) -> None:
        """RSET was answered."""
        if self.state is State.CLOSED:
            self._end(reply, f"the peer refused RSET: {reply}")
            return
        if self._ending is not None:
            ended, self._ending = self._ending, None
            self._done(ended, "")
        work = self._current
        if work is not None:
            if work.ahead:
                self.state = State.MAIL
            else:
                self._open(work)

    def _finish(self, work: _Work) -> None:
        """End `work` and let the one behind it be the one under way."""
        self._current = following = self._queued
        self._queued = None
        self._done(work, "")
        if following is not None:
            if following.ahead:
                self.state = State.MAIL
            else:
                self._open(following)

    def _done(self, work: _Work, error: str, broken: bool = False) -> None:
        replies = work.recipients
        missing = len(work.transaction.recipients) - len(replies)
        if missing:
            replies.extend([None] * missing)
        self._events.append(
            Done(
                TransactionResult(
                    work.transaction,
                    work.mail,
                    tuple(replies),
                    work.data,
                    work.final,
                    work.sent_all,
                    error,
                    work.envelope_at or self._now,
                    self._now,
                    "DSN" in self.extensions,
                    broken,
                )
            )
        )

    # -- the end --------------------------------------------------------------------------------------------

    def _end(self, reply: Reply | None, error: str, broken: bool = False) -> None:
        self.state = State.CLOSED
        for work in (self._ending, self._current, self._queued):
            if work is not None:
                self._done(work, error, broken)
        self._ending = self._current = self._queued = None
        self._login = None
        self._out.clear()
        self._input.clear()
        self._events.append(Closing(reply))

    def _fail(self, error: str | RemoteProtocolError) -> NoReturn:
        self._end(None, str(error), broken=True)
        raise RemoteProtocolError(error) if isinstance(error, str) else error


def _note(work: _Work, state: State, reply: Reply) -> None:
    """Write a reply down where it belongs."""
    if state is State.MAIL:
        work.mail = reply
    elif state is State.RCPT:
        work.recipients.append(reply)
        if reply.code < 300:
            work.taken += 1
    elif state is State.DATA:
        work.data = reply
    elif work.taken:  # the answer to a lone dot is nobody's
        work.final = reply
