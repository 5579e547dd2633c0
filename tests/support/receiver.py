"""A receiving server of the tests' own: the server machine as an MX that says yes, or what it is told to, and remembers."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from dataclasses import dataclass, field

from outgate.smtp.asyncio.server import Connection, Listener, ListenerOptions, Peer, Timeouts, listening_socket
from outgate.smtp.events import Connected, Event, MailFrom, MessageReceived, RcptTo
from outgate.smtp.reply import Reply, reply
from outgate.smtp.server import RECIPIENT_OK, SENDER_OK, Limits, ServerMachine


@dataclass
class Receiver:
    """Counts messages by Message-ID, and notes from where and as whom each came."""

    seen: Counter[str] = field(default_factory=Counter)
    contents: list[bytes] = field(default_factory=list)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    keep: bool = False
    refuses: dict[str, Reply] = field(default_factory=dict)
    """What is said to RCPT, by mailbox."""
    says: Reply | None = None
    """What is said to a message instead of taking it."""
    context: ssl.SSLContext | None = None
    listener: Listener | None = None

    def start(self) -> str:
        """Listen on a free port; return `host:port`."""
        options = ListenerOptions(self.context, False, Timeouts(), lambda address: False, lambda peer: True)
        self.listener = Listener(listening_socket("127.0.0.1", 0), options, self._session)
        self.listener.start()
        host, port = self.listener.address
        return f"{host}:{port}"

    async def stop(self) -> None:
        assert self.listener is not None
        await self.listener.stop()

    def _session(self, peer: Peer, connection: Connection) -> _Session:
        return _Session(self, peer)

    def take(self, content: bytes, address: str, helo: str) -> None:
        found = re.search(rb"(?im)^message-id:\s*(\S+)", content)
        name = found[1].decode() if found else ""
        self.seen[name] += 1
        self.origins[name] = (address, helo)
        if self.keep:
            self.contents.append(content)


class _Session:
    def __init__(self, receiver: Receiver, peer: Peer) -> None:
        self._receiver = receiver
        self._peer = peer
        self.machine = ServerMachine(
            "mx.receiver.test",
            limits=Limits(),
            tls=False,
            offer_tls=receiver.context is not None,
            tls_required=False,
            auth_required=False,
        )

    def handle(self, event: Event) -> None:
        match event:
            case Connected():
                self.machine.answer(reply(220, "", "mx.receiver.test ESMTP"))
            case MailFrom():
                self.machine.answer(SENDER_OK)
            case RcptTo():
                self.machine.answer(self._receiver.refuses.get(event.forward_path.text, RECIPIENT_OK))
            case MessageReceived():
                if self._receiver.says is not None:
                    self.machine.answer(self._receiver.says)
                    return
                self._receiver.take(event.content, self._peer.address, self.machine.hello)
                self.machine.answer(reply(250, "2.0.0", "Ok"))
            case _:
                pass
