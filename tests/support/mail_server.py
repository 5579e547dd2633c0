"""The scripted server in a thread of its own, with the configuration of an application that sends to it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from email import message_from_bytes, message_from_string, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trustme

from outgate.mailer import ClientTimeouts, MailService
from support.scripted_peer import Peer, server_context

PASSWORD = "hush-hush-4711"
TIMEOUTS = {"connect": 5, "handshake": 5, "reply": 5, "final": 5, "content": 5, "quit": 1}


class MailServer:
    """A server that listens, and what the application beside it has: `folder`, and `options` for `load`."""

    def __init__(self, folder: Path, peer: Peer, loop: asyncio.AbstractEventLoop) -> None:
        self.folder = folder
        self.peer = peer
        self._loop = loop
        self.config: dict[str, object] = {
            "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
            "smtp.port": str(peer.port),
            "smtp.user": "user",
            "smtp.password": "$[secret:EMAIL_PASSWORD]",
            "from.address": "noreply@shop.test",
            "smtp.ssl": peer.implicit,
        }
        self.options: dict[str, Any] = {
            "env": {"AEM_PROXY_HOST": "127.0.0.1"},
            "secrets": {"EMAIL_PASSWORD": PASSWORD},
            "forwards": [{"name": "smtp.mymail.com", "portDest": 465, "portOrig": peer.port}],
            "cafile": folder / "ca.pem",
        }
        self.write()

    @property
    def path(self) -> Path:
        return self.folder / "osgiconfig"

    def write(self) -> None:
        """Write the configuration as it is now."""
        place = self.path / "config.author"
        place.mkdir(parents=True, exist_ok=True)
        (place / "com.day.cq.mailer.DefaultMailService.cfg.json").write_text(json.dumps(self.config))

    def service(self) -> MailService:
        return MailService.load(self.path, ["author"], **self.options, timeouts=ClientTimeouts(**TIMEOUTS))

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def hang_up(self) -> None:
        """Cut all connections."""

        async def cut() -> None:
            for writer in self.peer._writers:
                writer.transport.abort()

        self.do(cut())

    @property
    def mails(self) -> list[EmailMessage]:
        """Return what arrived, read anew."""
        return [read(data) for data in self.peer.messages]


def read(data: bytes) -> EmailMessage:
    """Read content as it was on the wire."""
    plain = data.replace(b"\r\n..", b"\r\n.")
    if not plain.partition(b"\r\n\r\n")[0].isascii():  # fields in UTF-8, which the package reads as text only
        return message_from_string(plain.decode("utf-8"), EmailMessage, policy=policy.SMTPUTF8)
    return message_from_bytes(plain, EmailMessage, policy=policy.SMTPUTF8)


@contextmanager
def mail_server(folder: Path, *, name: str = "smtp.mymail.com", **options: Any) -> Iterator[MailServer]:
    """Run a server; `options` are the peer's."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    options.setdefault("auth", "PLAIN LOGIN")
    options.setdefault("implicit", True)
    peer = Peer(context=server_context(ca, name), **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(peer.__aenter__(), loop).result(10)
        try:
            yield MailServer(folder, peer, loop)
        finally:
            asyncio.run_coroutine_threadsafe(peer.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
