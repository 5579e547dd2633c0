"""Both mail services against a scripted server: a configuration, a CA, and one way to call either."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trustme

from outgate.mailer import AsyncMailService, MailService, SendResult
from outgate.smtp.connecting import ClientTimeouts
from support.scripted_peer import Peer, server_context

PASSWORD = "hush-hush-4711"
TIMEOUTS = ClientTimeouts(connect=5, handshake=5, reply=5, final=5, content=5, quit=1)
Either = MailService | AsyncMailService


def mail(**fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"To": "a@x.test", "Bcc": "b@x.test", "Subject": "Hello"} | fields).items():
        message[name] = value
    message.set_content("text\n.dot\n")
    return message


class Twin:
    """Calls a mail service in its own way."""

    def __init__(self, made: type[Either]) -> None:
        self.made = made

    async def keep(self, service: Either, *messages: EmailMessage | bytes, **options: Any) -> list[SendResult]:
        """Send, and leave the service open."""
        if isinstance(service, AsyncMailService):
            return [await service.send(message, **options) for message in messages or (mail(),)]
        return [await asyncio.to_thread(service.send, message, **options) for message in messages or (mail(),)]

    async def send(self, service: Either, *messages: EmailMessage | bytes, **options: Any) -> list[SendResult]:
        """Send, and close the service."""
        try:
            return await self.keep(service, *messages, **options)
        finally:
            await self.close(service)

    async def together(self, service: Either, *messages: EmailMessage) -> list[SendResult]:
        """Send all at once, and leave the service open."""
        return list(await asyncio.gather(*[self._one(service, message) for message in messages]))

    async def _one(self, service: Either, message: EmailMessage) -> SendResult:
        return (await self.keep(service, message))[0]

    async def close(self, service: Either) -> None:
        if isinstance(service, AsyncMailService):
            await service.close()
        else:
            await asyncio.to_thread(service.close)


BOTH = (Twin(MailService), Twin(AsyncMailService))


class Place:
    """A server, an application's configuration beside it, and the CA both know."""

    def __init__(self, folder: Path, peer: Peer, ca: trustme.CA) -> None:
        self.folder = folder
        self.peer = peer
        self.ca = ca
        self.cafile = folder / "ca.pem"
        ca.cert_pem.write_to_path(self.cafile)
        self.config: dict[str, Any] = {
            "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
            "smtp.port": str(peer.port),
            "smtp.user": "user",
            "smtp.password": "$[secret:EMAIL_PASSWORD]",
            "from.address": "noreply@wknd.site",
            "smtp.ssl": peer.implicit,
        }
        self.env = {"AEM_PROXY_HOST": "127.0.0.1"}
        self.secrets = {"EMAIL_PASSWORD": PASSWORD}
        self.forwards: object = [{"name": "smtp.mymail.com", "portDest": 465, "portOrig": peer.port}]

    def service(self, twin: Twin = BOTH[0], **options: Any) -> Any:
        file = self.folder / "mail.cfg.json"
        file.write_text(json.dumps(self.config))
        given = {
            "env": self.env,
            "secrets": self.secrets,
            "forwards": self.forwards,
            "cafile": self.cafile,
            "timeouts": TIMEOUTS,
        }
        return twin.made.load(file, **(given | options))


@asynccontextmanager
async def place(
    folder: Path, *, implicit: bool = True, name: str = "smtp.mymail.com", **options: Any
) -> AsyncIterator[Place]:
    ca = trustme.CA()
    options.setdefault("auth", "PLAIN LOGIN")
    async with Peer(context=server_context(ca, name), implicit=implicit, **options) as peer:
        yield Place(folder, peer, ca)
