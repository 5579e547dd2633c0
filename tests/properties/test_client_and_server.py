"""The client machine and the server machine against each other: what one sends the other takes."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp.client import (
    Authenticated,
    ClientMachine,
    Done,
    Greeting,
    Hello,
    State,
    Transaction,
    TransactionResult,
)
from outgate.smtp.events import Authenticate, Connected, MailFrom, MessageReceived, RcptTo
from outgate.smtp.reply import BAD_MECHANISM, Reply, reply
from outgate.smtp.server import AUTH_OK, Limits, ServerMachine

_REPLIES = st.sampled_from([reply(250, "2.0.0", "Ok"), reply(450, "4.2.1", "later"), reply(550, "5.1.1", "no")])
_LINE = st.binary(max_size=30).map(lambda raw: raw.replace(b"\r", b".").replace(b"\n", b"."))
_CONTENT = st.lists(_LINE, max_size=5).map(
    lambda lines: b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)
)
_MESSAGES = st.lists(st.tuples(st.integers(1, 3), _CONTENT), min_size=1, max_size=5)


class Pair:
    """Two machines joined by a wire that cuts what it carries into pieces."""

    def __init__(self, answers: list[Reply], cuts: list[int], *, pipelining: bool) -> None:
        self.client = ClientMachine(ehlo_name="me.test", pipelining=pipelining, tls=True)
        self.server = ServerMachine("server.test", limits=Limits(errors=10_000), tls=True)
        self.answers = deque(answers)
        self.given: list[Reply] = []
        self.taken: list[tuple[list[str], bytes]] = []
        self.results: list[TransactionResult] = []
        self.waiting: deque[Transaction] = deque()
        self.mechanism = "PLAIN"
        self.verdicts: list[Reply] = []
        self._cuts = deque(cuts)
        self._recipients: list[str] = []

    def run(self) -> None:
        while True:
            self._serve()
            to_client = self.server.outgoing()
            self._carry(to_client, self.client)
            self._drive()
            to_server = b"".join(self.client.outgoing())
            self._carry(to_server, self.server)
            if not to_client and not to_server:
                return

    def _carry(self, data: bytes, to: ClientMachine | ServerMachine) -> None:
        while data:
            cut = self._cuts.popleft() if self._cuts else len(data)
            piece, data = data[:cut], data[cut:]
            to.receive(piece)
            if to is self.client:
                self._drive()
            else:
                self._serve()

    def _next_answer(self) -> Reply:
        answer = self.answers.popleft() if self.answers else reply(250, "2.0.0", "Ok")
        self.given.append(answer)
        return answer

    def _serve(self) -> None:
        while (event := self.server.next_event()) is not None:
            if isinstance(event, Connected):
                self.server.answer(reply(220, "", "server.test"))
            elif isinstance(event, Authenticate):
                self.server.answer(AUTH_OK)
            elif isinstance(event, MailFrom):
                self._recipients = []
                self.server.answer(self._next_answer())
            elif isinstance(event, RcptTo):
                answer = self._next_answer()
                if answer.ok:
                    self._recipients.append(event.forward_path.text)
                self.server.answer(answer)
            elif isinstance(event, MessageReceived):
                answer = self._next_answer()
                if answer.ok:
                    self.taken.append((self._recipients, event.content))
                self.server.answer(answer)

    def _drive(self) -> None:
        while (event := self.client.next_event()) is not None:
            if isinstance(event, Greeting):
                self.client.ehlo()
            elif isinstance(event, Hello):
                self.client.auth(self.mechanism, "user", "password")
            elif isinstance(event, Authenticated):
                self.verdicts.append(event.reply)
            elif isinstance(event, Done):
                self.results.append(event.result)
            while self.waiting and self.client.ready:
                self.client.send(self.waiting.popleft())


@given(
    messages=_MESSAGES,
    answers=st.lists(_REPLIES, max_size=20),
    cuts=st.lists(st.integers(1, 40), max_size=30),
    pipelining=st.booleans(),
)
def test_both_sides_agree_on_what_was_taken(
    messages: list[tuple[int, bytes]], answers: list[Reply], cuts: list[int], pipelining: bool
) -> None:
    pair = Pair(answers, cuts, pipelining=pipelining)
    transactions = [
        Transaction("a@x.test", tuple(f"r{n}.{count}@y.test" for n in range(count)), (content,))
        for count, content in messages
    ]
    pair.waiting.extend(transactions)
    pair.run()
    assert [result.transaction for result in pair.results] == transactions
    assert not any(result.error for result in pair.results)
    told = []
    for result in pair.results:
        replies = [result.reply_for(n) for n in range(len(result.transaction.recipients))]
        assert all(replies)
        accepted = [to for to, answer in zip(result.transaction.recipients, replies, strict=True) if answer.ok]
        if accepted:
            told.append((accepted, b"".join(result.transaction.content)))
    assert told == pair.taken


@given(cuts=st.lists(st.integers(1, 40), max_size=30))
def test_a_server_that_takes_no_tokens_says_so_and_goes_on(cuts: list[int]) -> None:
    pair = Pair([], cuts, pipelining=True)
    pair.mechanism = "XOAUTH2"
    pair.run()
    assert pair.verdicts == [BAD_MECHANISM] and pair.client.state is State.READY
