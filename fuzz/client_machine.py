"""The client machine and its reply parser: any bytes from a server.

Property: bytes give events or `RemoteProtocolError`, and splitting them anywhere gives the same. Every transaction that
was handed over ends exactly once, with an outcome for each recipient. A reply's text has no control character, an enhanced
code fits its reply's class; what is kept of a reply without end has a bound. Nothing that a server says gets into what we
say, and nothing that came behind the 220 to STARTTLS is ever read.

Input: one octet of options, two that choose the cuts, then what the server sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from _cut import cut

from outgate.smtp.answers import ClientLimits, ReplyReader, extensions_of
from outgate.smtp.client import ClientMachine, Done, Greeting, Hello, State, TlsReady, Transaction
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.reply import Reply

_HEAD = 3
LIMITS = ClientLimits(line=200, lines=8, reply=600)
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_OK = b"220 hi\r\n250-peer\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"
SEEDS = (
    bytes(3) + _OK + b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 Ok: queued\r\n" * 3,
    b"\0\1\2" + b"220 hi\r\n500 what\r\n250 peer\r\n" + b"250 a\r\n250 b\r\n451 4.3.0 c\r\n354 d\r\n421 4.3.2 bye\r\n",
    b"\1\0\0" + b"220 hi\r\n250-peer\r\n250 STARTTLS\r\n220 go\r\n",
    b"\1\3\3" + b"220 hi\r\n250-peer\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n",
    bytes(3) + b"220-" + b"x" * 180 + b"\r\n" + b"220-y\r\n" * 12,
    bytes(3)
    + b"220 hi\r\n250-5.\r\n250-2.0\r\n250-2..1\r\n250 2.1\r\n554 5\r\n55\r\n5\r\n554 5.\r\n554 5.1\r\n554 5.1.\r\n",
    bytes(3) + _OK + b"250-2.1.0 a\r\n250 2.1.0\r\n250-one\r\n550 two\r\n",
    bytes(3) + b"220 \x1b[2J\xff\xc2\x85\r\n250 a\nb\r\n250 \0\r\n250 a\rb\r\n",
    bytes(3) + b"HTTP/1.1 400 Bad Request\r\n\r\n",
    bytes(3) + _OK + b"354 too early\r\n250 x\r\n250 y\r\n250 z\r\n250 nobody asked\r\n",
)


@dataclass
class Owner:
    """Drives a machine as a shell does, and writes down all that it tells and says."""

    starttls: bool
    machine: ClientMachine = field(default_factory=lambda: ClientMachine(ehlo_name="me.test", limits=LIMITS))
    seen: list[object] = field(default_factory=list)
    said: bytes = b""
    given: int = 0
    ended: int = 0

    def feed(self, data: bytes) -> None:
        try:
            self.machine.receive(data)
        except RemoteProtocolError:
            self._forged()
        self.drain()

    def drain(self) -> None:
        while True:
            try:
                event = self.machine.next_event()
            except RemoteProtocolError:
                self._forged()
                continue
            if event is None:
                break
            self.seen.append(event)
            if (told := getattr(event, "reply", None)) is not None:
                _check(told)
            if isinstance(event, Greeting) and event.reply.ok:
                self.machine.ehlo()
            elif isinstance(event, Done):
                self.ended += 1
                assert len(event.result.recipients) == 2
            elif isinstance(event, Hello) and self.starttls and self.machine.state is State.READY:
                self.machine.starttls()
            if not self.starttls:
                while self.machine.ready and self.given < 6:
                    self.given += 1
                    self.machine.send(Transaction(f"a{self.given}@x.test", ("b@y.test", "c@y.test"), (b"text\r\n",)))
        self.said += b"".join(self.machine.outgoing())

    def _forged(self) -> None:
        # Whether the handshake had been announced when the bytes behind the 220 came depends on the cut.
        if self.seen and isinstance(self.seen[-1], TlsReady):
            self.seen.pop()
        self.seen.append("error")


def one_input(data: bytes) -> None:
    head, stream = data[:_HEAD].ljust(_HEAD, b"\0"), data[_HEAD:]
    whole, pieces = Owner(bool(head[0] & 1)), Owner(bool(head[0] & 1))
    whole.feed(stream)
    for piece in cut(stream, head[1], head[2]):
        pieces.feed(piece)
    assert pieces.seen == whole.seen
    if whole.machine.state is not State.CLOSED:
        assert pieces.said == whole.said
    for owner in (whole, pieces):
        owner.machine.receive_eof()
        owner.drain()
        assert owner.machine.state is State.CLOSED and owner.ended == owner.given
        assert re.fullmatch(rb"(?:[\x20-\x7e]{0,510}\r\n)*", owner.said)
        assert owner.said.isascii() and owner.said.count(b"MAIL ") <= owner.given
    _read(stream, extended=bool(head[0] & 2))


def _read(stream: bytes, *, extended: bool) -> None:
    """The parser alone, octet by octet: its memory."""
    reader = ReplyReader(LIMITS)
    try:
        for at in range(len(stream)):
            reader.feed(stream[at : at + 1])
            while (found := reader.next(extended)) is not None:
                _check(found)
                for keyword, parameters in extensions_of(found).items():
                    assert keyword == keyword.upper() and (keyword + parameters).isprintable()
            assert len(reader) <= LIMITS.line + LIMITS.lines
    except RemoteProtocolError:
        return


def _check(reply: Reply) -> None:
    assert 200 <= reply.code <= 599 and reply.lines and len(reply.lines) <= LIMITS.lines
    assert all(line.isprintable() for line in reply.lines)
    assert sum(map(len, reply.lines)) <= LIMITS.reply
    if reply.enhanced:
        assert _ENHANCED.fullmatch(reply.enhanced) and reply.enhanced[0] == str(reply.code)[0]


if __name__ == "__main__":
    from _run import run

    run(__file__)
