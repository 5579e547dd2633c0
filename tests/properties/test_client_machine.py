"""Splitting what the peer sends changes nothing, and any bytes give events or `RemoteProtocolError`."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp.client import ClientMachine, Done, Greeting, Hello, State, TlsReady, Transaction
from outgate.smtp.errors import RemoteProtocolError

_LINES = st.sampled_from(
    [
        b"220 hello\r\n",
        b"250-peer\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
        b"250-peer\r\n250 SMTPUTF8\r\n",
        b"250 2.1.0 Ok\r\n",
        b"250 2.1.5 Ok\r\n",
        b"354 go\r\n",
        b"250 2.0.0 Ok: queued\r\n",
        b"550 5.1.1 no\r\n",
        b"451 4.3.0 later\r\n",
        b"421 4.3.2 bye\r\n",
        b"220 2.0.0 go\r\n",
        b"250-2.0.0 one\r\n",
        b"334 VXNlcm5hbWU6\r\n",
        b"250 lf only\n",
        b"\x00\xff",
    ]
)
_PIPELINED = b"220 hi\r\n250-p\r\n250 PIPELINING\r\n" + b"250 a\r\n250 b\r\n550 c\r\n354 d\r\n250 e\r\n" * 3
_STREAM = st.one_of(
    st.lists(_LINES, max_size=25).map(b"".join),
    st.binary(max_size=200),
    st.lists(_LINES, max_size=6).map(lambda lines: _PIPELINED + b"".join(lines)),
)


class Owner:
    """Drives a machine the way a shell does and writes down all that it tells and says."""

    def __init__(self, *, starttls: bool) -> None:
        self.machine = ClientMachine(ehlo_name="me.test")
        self.seen: list[str] = []
        self.said = b""
        self.handed_over = 0
        self.ended = 0
        self._starttls = starttls

    def feed(self, data: bytes) -> None:
        try:
            self.machine.receive(data)
        except RemoteProtocolError:
            self.seen.append("error")
        self.drain()

    def drain(self) -> None:
        while True:
            try:
                event = self.machine.next_event()
            except RemoteProtocolError:
                self.seen.append("error")
                continue
            if event is None:
                break
            self.seen.append(repr(event))
            if isinstance(event, Greeting) and event.reply.ok:
                self.machine.ehlo()
            elif isinstance(event, Done):
                self.ended += 1
            elif isinstance(event, Hello) and self._starttls and self.machine.state is State.READY:
                self.machine.starttls()
            if not self._starttls and not isinstance(event, TlsReady):
                self._hand_over()
        self.said += b"".join(self.machine.outgoing())

    def _hand_over(self) -> None:
        while self.machine.ready and self.handed_over < 6:
            number = self.handed_over = self.handed_over + 1
            to = ("é@y.test",) if number == 3 else ("b@y.test", "c@y.test")
            self.machine.send(Transaction(f"a{number}@x.test", to, (b"text %d\r\n" % number,)))


_AUTH_LINES = st.sampled_from(
    [
        b"334 \r\n",
        b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n",
        b"334 not base64\r\n",
        b"235 2.7.0 in\r\n",
        b"535-5.7.8 no\r\n535 5.7.8 go away\r\n",
        b"454 4.7.0 later\r\n",
        b"421 4.3.2 bye\r\n",
        b"\x00\xff",
    ]
)


@given(
    stream=st.one_of(st.lists(_AUTH_LINES, max_size=4).map(b"".join), st.binary(max_size=80)),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    token=st.sampled_from(["short", "long" * 200]),
)
def test_splitting_changes_nothing_of_a_login(stream: bytes, cuts: list[int], token: str) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    told: list[tuple[list[str], bytes, State]] = []
    for pieces in ([stream], [stream[start:end] for start, end in pairwise(edges)]):
        owner = Owner(starttls=False)
        owner.machine = ClientMachine(ehlo_name="me.test", tls=True)
        owner.handed_over = 6  # nothing but the login
        owner.feed(b"220 hi\r\n")
        owner.feed(b"250-p\r\n250 AUTH XOAUTH2\r\n")
        owner.machine.auth("XOAUTH2", "u", token)
        for piece in pieces:
            owner.feed(piece)
        said = b"" if owner.machine.state is State.CLOSED else owner.said
        told.append((owner.seen, said, owner.machine.state))
    assert told[0] == told[1]
    assert sum(text.startswith("Authenticated") for text in told[0][0]) <= 1
    assert token not in repr(told[0][0])


def _told(owner: Owner) -> list[str]:
    """What was told, without a `TlsReady` that the forgery behind it made worthless."""
    seen = owner.seen
    forged = [number for number, text in enumerate(seen[:-1]) if text.startswith("TlsReady") and "error" in seen]
    return [text for number, text in enumerate(seen) if number not in forged]


@given(stream=_STREAM, cuts=st.lists(st.integers(0, 300), max_size=12), starttls=st.booleans())
def test_splitting_changes_nothing(stream: bytes, cuts: list[int], starttls: bool) -> None:
    whole = Owner(starttls=starttls)
    whole.feed(stream)
    pieces = Owner(starttls=starttls)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(edges):
        pieces.feed(stream[start:end])
    assert _told(pieces) == _told(whole)
    if whole.machine.state is not State.CLOSED:
        assert pieces.said == whole.said


@given(stream=_STREAM)
def test_every_transaction_ends_exactly_once(stream: bytes) -> None:
    owner = Owner(starttls=False)
    owner.feed(stream)
    owner.machine.receive_eof()
    owner.drain()
    assert owner.machine.state is State.CLOSED
    assert owner.ended == owner.handed_over
