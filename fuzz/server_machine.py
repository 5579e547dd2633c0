"""The server machine: any bytes from a client, any answers from its owner.

Property: bytes give events, replies or `RemoteProtocolError`. Splitting the bytes anywhere, and answering late, changes
neither what is said nor what is asked. Nobody is asked about a login in the clear, about a sender before a login that was
answered 235, about a message without a recipient that was accepted. A message that is handed over is within its limit, has
no lone CR or LF and no end within. What we say is lines of printable ASCII. What is kept unread has a bound.

Input: one octet of options, eight that choose answers, two that choose the cuts, then what the client sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from _cut import cut

from outgate.smtp.buffer import has_bare_line_ends
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.events import Authenticate, Connected, Event, MailFrom, MessageReceived, RcptTo, TlsRequested
from outgate.smtp.reply import Reply, reply
from outgate.smtp.server import AUTH_OK, OK, READY_FOR_TLS, Limits, ServerMachine, State

LIMITS = Limits(message=300, recipients=3, line=120, auth_line=200, errors=6, pipelined=250)
_HEAD = 11
_NO = (
    reply(550, "5.7.1", "No"),
    reply(451, "4.3.0", "Later"),
    reply(421, "4.3.2", "Bye"),
    reply(554, "5.6.0", "Never"),
)
_REPLY = re.compile(rb"(?:[2-5][0-9][0-9][ -][\x20-\x7e]{0,506}\r\n)*")
_YES = bytes(_HEAD)
_LOGIN = b"EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\n"
_DATA = _LOGIN + b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
SEEDS = (
    _YES + _DATA + b"Subject: x\r\n\r\n..\r\nx\r\n.\r\nQUIT\r\n",
    b"\x02" + _YES[1:] + _DATA + b"x\n.\nMAIL FROM:<e@b.example>\r\n.\r\nRSET\r\n",
    _YES + _DATA + b"x\r.\r\r\n.\nx\n.\r\n\0.\r\n" + b"y" * 320 + b"\r\n.\r\nNOOP\r\n",
    _YES + b"EHLO c\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\nmail from: a@b.example SIZE=9 BODY=8BITMIME\r\n" + b"RCPT TO:<c@d>\r\n" * 4,
    b"\x01" + _YES[1:] + b"EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nNOOP\r\n",
    b"\x01" + _YES[1:] + b"HELO c\r\nSTARTTLS\r\n",
    _YES + _LOGIN + b"MAIL FROM:<a@b.example> SMTPUTF8 RET=HDRS ENVID=x\r\nRCPT TO:<\xc3\xa4@d.example> NOTIFY=NEVER\r\nBDAT 5\r\nab\r\n.BDAT 3 LAST\r\n\r\n.QUIT\r\n",
    _YES + _DATA.replace(b"DATA\r\n", b"BDAT 20 LAST\r\n") + b"x\n.\nMAIL FROM:<e@b>\r\nBDAT 0 LAST\r\nBDAT 99999999999999999999\r\n",
    b"\0\0\1\2\3\0\1\2\3\7\1" + _DATA + b"x\r\n.\r\n" + b"FROB\r\n" * 7,
    b"\x02" + _YES[1:] + _DATA + b"x\r\n.\nMAIL\r\n.\rx\n\r.\r\r\n..\n.\r\n..\r\n.\r\n",
    _YES + b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n",
    _YES + b"EHLO " + b"x" * 300 + b"\r\nAUTH PLAIN " + b"A" * 300 + b"\r\nAUTH PLAIN\r\n*\r\nNOOP\rNOOP\n\r\n",
)  # fmt: skip


@dataclass
class Owner:
    """Answers as the input says, late if asked to, and holds the machine to its order."""

    machine: ServerMachine
    answers: bytes
    late: bool
    asked: list[Event] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    open: Event | None = None
    logged_in: bool = False
    sender: bool = False
    recipients: int = 0
    error: bool = False

    def feed(self, data: bytes) -> None:
        try:
            while self.open is not None and (self.machine.full or not self.late):
                self._settle()
            self.machine.receive(data)
            self._pump()
        except RemoteProtocolError:
            self.error = True
        self._bounded(len(data))

    def finish(self) -> tuple[bytes, list[Event], str]:
        try:
            self._pump()
            while self.open is not None:
                self._settle()
            state = self.machine.state
            self.machine.receive_eof()
            self._pump()
        except RemoteProtocolError:
            self.error = True
        heard = bytes(self.heard + self.machine.outgoing())
        assert _REPLY.fullmatch(heard), heard
        if self.error or state is State.TLS:  # whether the 220 was sent before the forgery came depends on the cut
            return heard.removesuffix(READY_FOR_TLS.wire), self.asked, ""
        return heard, self.asked, state.value

    def _pump(self) -> None:
        while self.open is None and (event := self.machine.next_event()) is not None:
            self._expect(event)
            if isinstance(event, (Connected, Authenticate, MailFrom, RcptTo, MessageReceived)):
                self.asked.append(event)
                self.open = event
                if not self.late:
                    self._answer()
        self.heard += self.machine.outgoing()

    def _settle(self) -> None:
        self._answer()
        self._pump()

    def _answer(self) -> None:
        event, self.open = self.open, None
        chosen = self.answers[len(self.asked) % len(self.answers)] & 7 if len(self.asked) > 1 else 0
        answer = _NO[chosen - 1] if 0 < chosen <= len(_NO) else _yes(event)
        if isinstance(event, Authenticate):
            self.logged_in = answer.ok
        elif isinstance(event, MailFrom):
            self.sender, self.recipients = answer.ok, 0
        elif isinstance(event, RcptTo):
            self.recipients += answer.ok
        elif isinstance(event, MessageReceived):
            self.sender, self.recipients = False, 0
        self.machine.answer(answer)

    def _expect(self, event: Event) -> None:
        match event:
            case Authenticate():
                assert self.machine.tls and not self.logged_in
            case MailFrom():
                assert self.machine.tls and self.logged_in
            case RcptTo():
                assert self.sender and self.recipients < LIMITS.recipients
            case MessageReceived():
                assert self.recipients
                content = event.content
                assert len(content) <= LIMITS.message and not has_bare_line_ends(content) and b"\0" not in content
                assert b"\r\n.\r\n" not in b"\r\n" + content and (not content or content.endswith(b"\r\n"))
            case TlsRequested():
                assert not self.machine.tls
            case _:
                pass

    def _bounded(self, fresh: int) -> None:
        unread = len(self.machine._input)
        assert unread <= LIMITS.pipelined + fresh
        if self.open is None and not self.error:
            assert unread <= LIMITS.auth_line


def _yes(event: Event | None) -> Reply:
    if isinstance(event, Connected):
        return reply(220, "", "relay.example ESMTP")
    return AUTH_OK if isinstance(event, Authenticate) else OK


def one_input(data: bytes) -> None:
    head, stream = data[:_HEAD].ljust(_HEAD, b"\0"), data[_HEAD:]
    whole = _run(head, [stream], late=False)
    assert _run(head, cut(stream, head[9], head[10]), late=False) == whole
    assert _run(head, cut(stream, head[10], head[9]), late=True) == whole


def _run(head: bytes, pieces: list[bytes], *, late: bool) -> tuple[bytes, list[Event], str]:
    machine = ServerMachine(
        "relay.example", limits=LIMITS, tls=not head[0] & 1, replace_bare_line_ends=bool(head[0] & 2)
    )
    owner = Owner(machine, head[1:9], late)
    owner.feed(b"")
    for piece in pieces:
        owner.feed(piece)
        if owner.error:
            break
    return owner.finish()


if __name__ == "__main__":
    from _run import run

    run(__file__)
