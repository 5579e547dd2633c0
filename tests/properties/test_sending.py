"""Whatever servers do: no message is handed over twice, every connection is given back or closed, every end is told."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from outgate.mailer.config import MailConfig
from outgate.mailer.sending.blocking import run
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.idle import Idle
from outgate.mailer.sending.result import SendResult
from outgate.mailer.sending.steps import Plan, Sender
from outgate.mailer.sending.target import Target
from outgate.mailer.sending.wire import Letter
from outgate.smtp.client import ClientMachine, Done
from outgate.smtp.connecting import ConnectFailed
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError
from outgate.smtp.reply import reply
from outgate.smtp.transaction import Transaction, TransactionResult

OCTETS = b"Subject: x\r\n\r\nbody\r\n"
ANSWERS = st.sampled_from(
    [
        b"250 2.0.0 Ok\r\n",
        b"354 go\r\n",
        b"421 4.3.2 bye\r\n",
        b"550 5.7.1 no\r\n",
        b"451 4.3.0 later\r\n",
        b"530 5.7.0 log in\r\n",
        b"what\r\n",
        b"",
    ]
)
# What the servers answer over all their connections: for so many commands what they should, then this.
SCRIPTS = st.lists(st.tuples(st.integers(0, 9), ANSWERS), max_size=6)
# How connecting goes, one after the other; then it succeeds.
DIALS = st.lists(st.sampled_from(["fine", "refused", "no", "login"]), max_size=4)


@dataclass
class World:
    """What servers do, and what was seen of it."""

    script: list[tuple[int, bytes]]
    dials: list[str]
    now: float = 0.0
    taken: int = 0
    lines: list[Line] = field(default_factory=list)
    handed_over: int = 0

    def answer(self, command: bytes) -> bytes:
        if self.script:
            left, odd = self.script[0]
            if not left:
                del self.script[0]
                return odd
            self.script[0] = (left - 1, odd)
        return b"354 go\r\n" if command.startswith(b"DATA") else b"250 2.0.0 Ok: queued as Q1\r\n"


class Line:
    """A real client machine, and a server that has gone when it has no answer."""

    greeting_steps = ()
    certificate_names = ()

    def __init__(self, world: World) -> None:
        self.world = world
        self.machine = ClientMachine(ehlo_name="me.test", pipelining=False, tls=True)
        self.machine.receive(b"220 hello\r\n")
        self.machine.next_event()
        self.machine.ehlo()
        self.machine.outgoing()
        self.machine.receive(b"250-hello\r\n250 8BITMIME\r\n")
        self.machine.next_event()
        self.quitted = self.cut = False
        world.lines.append(self)

    @property
    def session(self) -> Line:
        return self

    @property
    def extensions(self) -> dict[str, str]:
        return self.machine.extensions

    @property
    def closed(self) -> bool:
        return self.machine.state.value == "closed"

    def usable(self) -> bool:
        return self.machine.state.value == "ready"

    async def transact(self, transaction: Transaction, seconds: float) -> TransactionResult:
        machine = self.machine
        machine.send(transaction)
        while True:
            try:
                event = machine.next_event()
            except RemoteProtocolError:
                continue
            if isinstance(event, Done):
                while machine.state.value != "ready" and not self.closed:
                    self._exchange()
                return event.result
            if event is None:
                self._exchange()

    def _exchange(self) -> None:
        commands = [line for line in self.machine.outgoing() if line]
        if OCTETS in commands:
            self.world.handed_over += 1
        said = self.world.answer(commands[0] if commands else b"")
        if said:
            self.machine.receive(said)
        else:
            self.machine.receive_eof()

    async def quit(self, seconds: float) -> None:
        assert 0 <= seconds <= 10
        assert not self.closed
        self.quitted = True
        self.machine.receive_eof()

    def close(self) -> None:
        self.cut = True
        self.machine.receive_eof()


class Io:
    def __init__(self, world: World) -> None:
        self.world = world

    def now(self) -> float:
        self.world.now += 1
        return self.world.now

    async def turn(self, seconds: float) -> bool:
        self.world.taken += 1
        return True

    def free(self) -> None:
        self.world.taken -= 1

    async def composed(self, letter: Letter, extensions: dict[str, str]) -> bytes:
        return letter.wire(extensions)

    async def dial(self, login: object, *, check_name: bool, seconds: float) -> Line:
        how = self.world.dials.pop(0) if self.world.dials else "fine"
        if how == "refused":
            raise ConnectFailed("connect", "Connection refused")
        if how == "no":
            raise ConnectFailed("greeting", "no", reply(554, "5.7.1", "no"))
        if how == "login":
            raise ConnectFailed("auth", "no", reply(535, "5.7.8", "no"))
        return Line(self.world)

    async def token(self, seconds: float) -> str:
        return "token-1234567890"

    def forget_token(self, token: str) -> None:
        assert token == "token-1234567890"


@example([(7, b"")], [], 3, 1000.0, False, 1)
@given(SCRIPTS, DIALS, st.integers(1, 3), st.sampled_from([0.0, 3.0, 1000.0]), st.booleans(), st.integers(1, 3))
def test_sending(script, dials, most_messages: int, idle_s: float, oauth: bool, recipients: int) -> None:
    world = World(list(script), list(dials))
    config = MailConfig("h", 465, "u", "" if oauth else "pass-word-1234", "", True, False, False, True, oauth)
    idle: Idle = Idle(nullcontext(), seconds=idle_s, most_messages=most_messages)
    told: list[object] = []
    plan = Plan(config, Target("h", 465, None, False, None), True, 600.0)
    sender = Sender(plan, Io(world), idle, told.append)
    letter = Letter(OCTETS, "a@x.test", tuple(f"{number}@y.test" for number in range(recipients)), False)
    for _ in range(4):
        before = world.handed_over
        try:
            result = run(sender.send(letter))
        except SendFailed as error:
            assert error.stage and error.server == "h:465"
            assert not error.may_have_arrived or world.handed_over == before + 1
            if world.handed_over > before:
                assert error.may_have_arrived
        except (MessageError, LocalProtocolError) as error:
            raise AssertionError(error) from error
        else:
            assert isinstance(result, SendResult) and len(result.recipients) == recipients
            assert not any(each.ok for each in result.recipients.values()) or world.handed_over == before + 1
        assert world.handed_over - before <= 1
        assert world.taken == 0
    open_lines = [line for line in world.lines if not line.closed]
    assert len(open_lines) <= 1
    run(sender.close())
    assert all(line.closed for line in world.lines)
