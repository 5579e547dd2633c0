"""The sandbox's receiving server: takes any mail over real SMTP, keeps it, and has it judged.

Standards: RFC 5321, RFC 3207.
Promises: a message is on disk as received, with its envelope, before the 250; it survives restarts; of too many
the oldest go; verdicts come from `judges` and are there when `settled` returns.
Dangers: it takes mail for everyone from anyone: loopback only. Raw messages are strangers' bytes.
Not here: what it does wrong on purpose (`behaviour`), HTTP (`api`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outgate.base.clock import Clock, rfc3339
from outgate.base.ids import queue_id
from outgate.base.log import Log
from outgate.base.tasks import spawn
from outgate.message import fields
from outgate.sandbox.behaviour import Behaviour, Behaviours
from outgate.smtp.asyncio.server import Connection, Listener, ListenerOptions, Peer, Timeouts
from outgate.smtp.events import Aborted, Closed, Connected, Event, MailFrom, MessageReceived, RcptTo
from outgate.smtp.fairness import Turnstile
from outgate.smtp.reply import Reply, reply
from outgate.smtp.server import LATER, RECIPIENT_OK, SENDER_OK, Limits, ServerMachine, State

if TYPE_CHECKING:
    from outgate.sandbox.judges import Judgement, Judges

_log = Log("outgate.sandbox.inbox")
_MOST = 5000
_PATIENCE_S = 30.0
_PENDING = {"result": "pending"}
_IDLE = (State.GREETED, State.READY)


@dataclass(frozen=True, slots=True)
class Received:
    """A message with its envelope, at the end of data. `content` is in wire form."""

    client_address: str
    helo: str
    tls: str
    mail_from: str
    rcpt_to: tuple[str, ...]
    content: bytes


class Inbox:
    """Messages and the server that receives them. Belongs to one event loop."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        context: ssl.SSLContext,
        judges: Callable[[], Judges],
        host_name: str = "mx.outgate.test",
        most: int = _MOST,
        limits: Limits | None = None,
    ) -> None:
        """Read what `directory` holds (made if absent); `context` is for STARTTLS; `judges` makes the judges
        when the first message is there, in their thread: they bring much into memory. Raises `OSError`."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._clock = clock
        self._make_judges = judges
        self._judges: Judges | None = None
        self._most = most
        self._options = ListenerOptions(
            context=context,
            implicit_tls=False,
            timeouts=Timeouts(),
            trusted=lambda _: False,
            welcome=lambda _: True,
            turnstile=Turnstile(per_address=10_000),
        )
        self._listener: Listener | None = None
        self._thread = ThreadPoolExecutor(1, "judge")
        self._judging: set[asyncio.Task[None]] = set()
        self._items: dict[str, dict[str, Any]] = {}
        self.host_name = host_name
        self.limits = limits or Limits(recipients=1000)
        self.behaviours = Behaviours(directory / "behaviour.json")
        for file in sorted(directory.glob("*.item")):
            self._items[file.stem] = json.loads(file.read_text("utf-8"))

    # -- the server -----------------------------------------------------------------------------------------

    def start(self, listening: socket.socket) -> tuple[str, int]:
        """Receive on a listening socket (`listening_socket`), take up judgements left over; return the address."""
        self._listener = Listener(listening, self._options, self._session)
        self._listener.start()
        for item_id, item in list(self._items.items()):
            if item["dkim"] == _PENDING:
                self._begin_judging(item_id)
        return self._listener.address

    async def stop(self) -> None:
        """Stop receiving, end sessions, wait for judgements under way."""
        if self._listener is not None:
            await self._listener.stop()
        await self.settled()
        self._thread.shutdown()

    def _session(self, peer: Peer, connection: Connection) -> _Session:
        return _Session(self, peer, connection)

    def behave(self, documents: object) -> list[dict[str, Any]]:
        """Replace the behaviours by JSON values and return them as in force. Raises `BadBehaviour`.

        Sessions that idle are ended when there is something new at `connect`: their client has to come again."""
        in_force = self.behaviours.put(documents)
        if self._listener is not None and any(entry["at"] == "connect" for entry in in_force):
            for connection in self._listener.connections:
                if connection.session is not None and connection.session.machine.state in _IDLE:
                    connection.end()
        return in_force

    # -- the messages ---------------------------------------------------------------------------------------

    def items(self) -> list[dict[str, Any]]:
        """Return what is known of each message, oldest first, as JSON values."""
        return list(self._items.values())

    def raw(self, item_id: str) -> bytes | None:
        """Return a message as it was received, dots taken out, or None for an unknown id."""
        return self._file(item_id, "eml").read_bytes() if item_id in self._items else None

    def clear(self) -> None:
        """Forget every message."""
        for item_id in list(self._items):
            self._drop(item_id)

    async def settled(self) -> None:
        """Return once every message that has been received is judged, or after half a minute."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while self._judging and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._judging, timeout=left)

    async def store(self, received: Received) -> str:
        """Keep a message on disk and have it judged; return its id. Raises `OSError`."""
        raw = fields.unstuffed(received.content)
        item_id = queue_id("I", self._clock.now())
        item = {
            "id": item_id,
            "envelope": {"mail_from": received.mail_from, "rcpt_to": list(received.rcpt_to)},
            "tls": received.tls,
            "received_at": rfc3339(self._clock.now(), milliseconds=True),
            "client_address": received.client_address,
            "helo": received.helo,
            "dkim": _PENDING,
            "spf": _PENDING,
            "subject": _subject(raw),
            "size": len(raw),
        }
        await asyncio.to_thread(self._write, item_id, item, raw)
        self._items[item_id] = item
        while len(self._items) > self._most:
            self._drop(next(iter(self._items)))
        self._begin_judging(item_id)
        _log.info("inbox.received", id=item_id, rcpt_to=list(received.rcpt_to), tls=received.tls)
        return item_id

    def _begin_judging(self, item_id: str) -> None:
        task = spawn(self._judge(item_id), f"judge {item_id}")
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _judge(self, item_id: str) -> None:
        item = self._items.get(item_id)
        if item is None:
            return
        try:
            verdict = await asyncio.get_running_loop().run_in_executor(self._thread, self._judgement, item)
        except FileNotFoundError:  # forgotten meanwhile
            return
        item.update(dkim=verdict.dkim, spf=verdict.spf)
        if item_id in self._items:
            self._write_item(item_id, item)

    def _judgement(self, item: dict[str, Any]) -> Judgement:
        if self._judges is None:
            self._judges = self._make_judges()
        return self._judges.judge(
            self._file(item["id"], "eml").read_bytes(),
            client_address=item["client_address"],
            mail_from=item["envelope"]["mail_from"],
            helo=item["helo"],
        )

    # -- the files ------------------------------------------------------------------------------------------

    def _file(self, item_id: str, kind: str) -> Path:
        return self._directory / f"{item_id}.{kind}"

    def _write(self, item_id: str, item: dict[str, Any], raw: bytes) -> None:
        self._file(item_id, "eml").write_bytes(raw)
        self._write_item(item_id, item)

    def _write_item(self, item_id: str, item: dict[str, Any]) -> None:
        # The item is what makes a message exist: it is written last, and as a whole.
        temporary = self._file(item_id, "tmp")
        temporary.write_text(json.dumps(item), "utf-8")
        os.replace(temporary, self._file(item_id, "item"))

    def _drop(self, item_id: str) -> None:
        del self._items[item_id]
        for kind in ("item", "eml"):
            self._file(item_id, kind).unlink(missing_ok=True)


def _subject(raw: bytes) -> str:
    try:
        subject = fields.read(raw).first("subject")
    except fields.BadHeader:
        return ""
    return fields.shown(subject) if subject else ""


class _Machine(ServerMachine):
    """A server that can be made to wait, or to refuse, when DATA is said."""

    __slots__ = ("_at_data",)

    def __init__(self, name: str, limits: Limits, at_data: Callable[[], bool]) -> None:
        """`at_data` says whether it takes over what happens at DATA."""
        super().__init__(
            name, limits=limits, tls=False, tls_required=False, auth_required=False, replace_bare_line_ends=False
        )
        self._at_data = at_data

    def _data(self, argument: bytes) -> None:
        if argument or not self._at_data():
            super()._data(argument)

    def data_go_ahead(self) -> None:
        """Say 354 now."""
        super()._data(b"")

    def data_refused(self, answer: Reply) -> None:
        """Say something else than 354."""
        self._refuse(answer)


class _Session:
    """One session with a sending server."""

    def __init__(self, inbox: Inbox, peer: Peer, connection: Connection) -> None:
        self._inbox = inbox
        self._peer = peer
        self._connection = connection
        self._mail_from = ""
        self._rcpt_to: list[str] = []
        self._ended = False
        self.machine: ServerMachine = _Machine(inbox.host_name, inbox.limits, self._take_over_data)

    def handle(self, event: Event) -> None:
        """Answer an event, as told to misbehave or else with yes."""
        match event:
            case Connected():
                self._answer("connect", (), reply(220, "", f"{self._inbox.host_name} ESMTP"))
            case MailFrom():
                self._mail_from, self._rcpt_to = event.reverse_path.text, []
                self._answer("mail", (), SENDER_OK)
            case RcptTo():
                mailbox = event.forward_path.text
                self._answer("rcpt", (mailbox,), RECIPIENT_OK, lambda: self._rcpt_to.append(mailbox))
            case MessageReceived():
                self._received(event.content)
            case Aborted():
                self._mail_from, self._rcpt_to = "", []
            case Closed():
                self._ended = True
            case _:  # TLS is the shell's, logins are not offered
                pass

    def _answer(
        self, at: str, recipients: tuple[str, ...], usual: Reply, accepted: Callable[[], None] | None = None
    ) -> None:
        behaviour = self._inbox.behaviours.take(at, recipients)
        answer = behaviour.reply if behaviour is not None and behaviour.reply is not None else usual
        if accepted is not None and answer.ok:
            accepted()
        if not self._late(behaviour, lambda: self.machine.answer(answer)):
            self.machine.answer(answer)

    def _late(self, behaviour: Behaviour | None, then: Callable[[], None]) -> bool:
        """Drop the connection or do `then` after a delay, if that is the behaviour; say whether it is."""
        if behaviour is None or behaviour.reply is not None:
            return False
        loop = asyncio.get_running_loop()
        if behaviour.drop:
            self._ended = True
            if self._connection.transport is not None:
                # Not in this step: the connection's pump is still at work on this very event.
                loop.call_soon(self._connection.transport.abort)
        else:
            loop.call_later(behaviour.delay_s, self._resume, then)
        return True

    def _resume(self, then: Callable[[], None]) -> None:
        if not self._ended:
            then()
            self._connection.pump()

    def _take_over_data(self) -> bool:
        assert isinstance(self.machine, _Machine)
        machine = self.machine
        behaviour = self._inbox.behaviours.take("data", self._rcpt_to)
        if behaviour is not None and behaviour.reply is not None:
            machine.data_refused(behaviour.reply)
            return True
        return self._late(behaviour, machine.data_go_ahead)

    def _received(self, content: bytes) -> None:
        behaviour = self._inbox.behaviours.take("dot", self._rcpt_to)
        answer = behaviour.reply if behaviour is not None else None
        if behaviour is not None and behaviour.drop:
            self._late(behaviour, lambda: None)
        elif answer is not None and not answer.ok:
            self.machine.answer(answer)
        else:
            received = Received(
                self._peer.address,
                self.machine.hello,
                self._connection.tls,
                self._mail_from,
                tuple(self._rcpt_to),
                content,
            )
            spawn(self._store(received, behaviour, answer), "inbox store")

    async def _store(self, received: Received, behaviour: Behaviour | None, answer: Reply | None) -> None:
        try:
            item_id = await self._inbox.store(received)
        except OSError as error:
            _log.error("inbox.not_stored", error=str(error))
            said = LATER
        else:
            said = answer or reply(250, "2.0.0", f"Ok: {item_id}")
        if behaviour is not None and answer is None:
            await asyncio.sleep(behaviour.delay_s)
        self._resume(lambda: self.machine.answer(said))
