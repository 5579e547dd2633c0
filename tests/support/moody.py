"""A receiving server with moods: it takes its time, refuses, puts off, and hangs up after the final dot; it remembers all."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field

from outgate.smtp.asyncio.server import Connection, Listener, ListenerOptions, Timeouts, listening_socket
from outgate.smtp.events import Connected, Event, MailFrom, MessageReceived, RcptTo
from outgate.smtp.reply import reply
from outgate.smtp.server import RECIPIENT_OK, SENDER_OK, Limits, ServerMachine


@dataclass
class Arrival:
    """A message that was taken for a recipient; when it was answered, None if never."""

    connection: Connection
    answered_at: float | None = None


@dataclass
class Moody:
    """`gone…` has no mailbox, `later…` is put off twice; every answer to the final dot takes up to `slow_s` seconds, and
    of those after it `hang_up` is the share that never comes."""

    slow_s: float = 0.05
    hang_up: float = 0.02
    arrivals: dict[tuple[str, str], list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    put_off: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _listeners: list[Listener] = field(default_factory=list)

    def listen(self, address: str, port: int) -> None:
        options = ListenerOptions(None, False, Timeouts(), lambda address: False, lambda peer: True)
        listener = Listener(
            listening_socket(address, port), options, lambda peer, connection: _Session(self, connection)
        )
        listener.start()
        self._listeners.append(listener)

    async def stop(self) -> None:
        for listener in self._listeners:
            await listener.stop()


class _Session:
    def __init__(self, moody: Moody, connection: Connection) -> None:
        self._moody = moody
        self._connection = connection
        self._recipients: list[str] = []
        self.machine = ServerMachine(
            "mx.moody.test", limits=Limits(), tls=False, offer_tls=False, tls_required=False, auth_required=False
        )

    def handle(self, event: Event) -> None:
        match event:
            case Connected():
                self.machine.answer(reply(220, "", "mx.moody.test ESMTP"))
            case MailFrom():
                self._recipients = []
                self.machine.answer(SENDER_OK)
            case RcptTo():
                self._recipient(event.forward_path.text)
            case MessageReceived():
                self._take(event.content)
            case _:
                pass

    def _recipient(self, mailbox: str) -> None:
        if mailbox.startswith("gone"):
            self.machine.answer(reply(550, "5.1.1", "No such mailbox"))
            return
        self._recipients.append(mailbox)
        self.machine.answer(RECIPIENT_OK)

    def _take(self, content: bytes) -> None:
        found = re.search(rb"(?im)^message-id:\s*(\S+)", content)
        name = found[1].decode() if found else ""
        moody = self._moody
        if any(mailbox.startswith("later") for mailbox in self._recipients):
            moody.put_off[name, self._recipients[0]] += 1
            if moody.put_off[name, self._recipients[0]] <= 2:
                self.machine.answer(reply(451, "4.3.0", "Not now"))
                return
        taken = [Arrival(self._connection) for _ in self._recipients]
        for mailbox, arrival in zip(self._recipients, taken, strict=True):
            moody.arrivals[name, mailbox].append(arrival)
        loop = asyncio.get_running_loop()
        if random.random() < moody.hang_up:
            loop.call_later(random.random() * moody.slow_s, self._connection.cut, "moody")
        else:
            loop.call_later(random.random() * moody.slow_s, self._answer, taken)

    def _answer(self, taken: list[Arrival]) -> None:
        if self._connection.session is not self:
            return
        for arrival in taken:
            arrival.answered_at = time.monotonic()
        self.machine.answer(reply(250, "2.0.0", "Ok"))
        self._connection.pump()
