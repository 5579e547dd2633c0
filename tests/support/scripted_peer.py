"""A small real SMTP server for tests of clients: it answers from a script, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trustme

OFFER = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


def authority() -> tuple[trustme.CA, ssl.SSLContext]:
    """Return a fresh CA and a client context that trusts it alone."""
    ca = trustme.CA()
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return ca, context


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    """Return a server context with a certificate for `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


HOSTILE_TOKEN = "ya29.0123456789-abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_RESPONSE = base64.b64encode(f"user=u@x.test\1auth=Bearer {HOSTILE_TOKEN}\1\1".encode())
_ECHO = base64.b64encode(b'{"status":"' + HOSTILE_TOKEN.encode() + b'","scope":"' + _RESPONSE[:90] + b'"}')
HOSTILE = (
    b"535 5.7.8 not " + HOSTILE_TOKEN.encode() + b"\r\n",
    b"535-5.7.8 " + _RESPONSE[:60] + b"\r\n535 5.7.8 " + _RESPONSE[60:] + b"\r\n",
    b"235 2.7.0 welcome with " + _RESPONSE + b"\r\n",
    b"421 4.7.0 " + HOSTILE_TOKEN[7:40].encode() + b"\r\n",
    b"334 " + _ECHO + b"\r\n535 5.7.8 no\r\n",
    b"334 " + _RESPONSE + b"\r\n334 " + _RESPONSE + b"\r\n",
    b"what is " + _RESPONSE + b"\r\n",
    b"999 " + HOSTILE_TOKEN.encode() + b"\r\n",
    b"535 5.7.8 no\r\n" + _RESPONSE + b"\r\n",
)
"""Answers to AUTH of a server that repeats the token of the user u@x.test."""


def assert_unseen(token: str, user: str, text: str) -> None:
    """Assert that no twelve signs of a token, or of the response that carried it, are in `text`."""
    response = base64.b64encode(f"user={user}\1auth=Bearer {token}\1\1".encode()).decode()
    for secret in (token, response):
        for at in range(len(secret) - 11):
            assert secret[at : at + 12] not in text, text


@dataclass
class Peer:
    """What the server does, and what it saw. `answers` maps a verb (or "dot", "greeting") to its reply."""

    context: ssl.SSLContext | None = None
    implicit: bool = False
    answers: dict[str, bytes] = field(default_factory=dict)
    after_tls_reply: bytes = b""
    silent_at: str = ""
    hang_up_at: str = ""
    offer: tuple[str, ...] = OFFER
    auth: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    chunk: Callable[[], Awaitable[None]] | None = None
    most_messages: int = 0
    """How many messages a session may have: to one more it says 421. 0: any number."""
    forgiving: bool = False
    """The next session does as usual, whatever the script says: its odd ends are this one's."""
    echo: bool = False
    """Every reply repeats all that was said at AUTH, and the command."""
    messages: list[bytes] = field(default_factory=list)
    envelopes: list[list[str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0

    async def __aenter__(self) -> Peer:
        if self.context is not None:
            self.context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._said: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(
            self._session, self.address, self.port, ssl=self.context if self.implicit else None, limit=2**24
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.forgiving:
            self.answers, self.hang_up_at, self.silent_at = {}, "", ""
        self._writers.add(writer)
        self._readers[writer] = reader
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = self.implicit
        if await self._say(writer, "greeting", b"220 peer.test ESMTP\r\n"):
            return
        envelope: list[str] = []
        taken = 0
        while line := await reader.readuntil(b"\r\n"):
            text = line[:-2].decode()
            self.commands.append(text)
            verb = text.split(" ")[0].upper()
            if verb == "EHLO":
                lines = ["peer.test", *self.offer]
                lines += ["STARTTLS"] if self.context is not None and not tls else []
                lines += [f"AUTH {self.auth}"] if self.auth else []
                last = len(lines) - 1
                reply = "".join(f"250{' ' if n == last else '-'}{word}\r\n" for n, word in enumerate(lines)).encode()
            elif verb == "STARTTLS":
                writer.write(self.answers.get(verb, b"220 2.0.0 go\r\n") + self.after_tls_reply)
                await writer.drain()
                if verb not in self.answers:
                    if self.silent_at == "handshake":
                        continue
                    clear = writer.transport
                    try:
                        await writer.start_tls(self.context)
                    except AttributeError:  # Python 3.11, when the client leaves during the handshake
                        writer._transport = clear
                        return
                    tls = True
                continue
            elif verb == "AUTH":
                reply = await self._login(reader, writer, text)
            elif verb == "MAIL":
                envelope = [text]
                reply = b"250 2.1.0 Ok\r\n"
                if self.most_messages and taken == self.most_messages:
                    writer.write(b"421 4.7.0 too many messages in this session\r\n")
                    await writer.drain()
                    return
            elif verb == "RCPT":
                envelope.append(text)
                reply = b"250 2.1.5 Ok\r\n"
            elif verb == "QUIT":
                await self._say(writer, verb, b"221 2.0.0 Bye\r\n")
                await writer.drain()
                return
            else:
                reply = b"354 go on\r\n" if verb == "DATA" else b"250 2.0.0 Ok\r\n"
            if await self._say(writer, text if text in self.answers else verb, reply):
                return
            if verb == "DATA" and self.answers.get("DATA", b"3").startswith(b"3"):
                if self.chunk is not None:
                    await self.chunk()
                content = await reader.readuntil(b"\r\n.\r\n")
                self.messages.append(content[:-3])
                self.envelopes.append(envelope)
                taken += 1
                number = len(self.messages)
                if await self._say(writer, "dot", b"250 2.0.0 Ok: queued as Q%d\r\n" % number):
                    return

    async def _login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> bytes:
        from outgate.smtp.sasl import Exchange, Login  # the server's half, as our own server uses it

        words = text.split(" ")
        if words[1] == "XOAUTH2":
            return await self._token_login(reader, writer, words[2] if len(words) > 2 else "")
        exchange = Exchange(words[1])
        result = exchange.start(words[2].encode() if len(words) > 2 else None)
        while not isinstance(result, Login):
            writer.write(b"334 " + result + b"\r\n")
            result = exchange.respond((await reader.readuntil(b"\r\n"))[:-2])
        self.logins.append((result.username, result.password))
        if self.echo:
            self._said = [text.encode(), result.password.encode(), base64.b64encode(result.password.encode())]
        return b"235 2.7.0 Authentication successful\r\n"

    async def _token_login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: str) -> bytes:
        if not response:
            writer.write(b"334 \r\n")
            response = (await reader.readuntil(b"\r\n")).decode()
        fields = dict(part.partition("=")[::2] for part in base64.b64decode(response).decode().split("\1") if part)
        token = fields["auth"].removeprefix("Bearer ")
        self.logins.append((fields["user"], token))
        if self.echo:
            self._said = [response.encode(), token.encode(), base64.b64encode(token.encode())]
        if self.tokens.get(fields["user"]) == token:
            return b"235 2.7.0 Accepted\r\n"
        writer.write(b"334 " + base64.b64encode(b'{"status":"401","schemes":"bearer"}') + b"\r\n")
        assert await reader.readuntil(b"\r\n") == b"\r\n"
        return b"535 5.7.8 Error: authentication failed\r\n"

    async def _say(self, writer: asyncio.StreamWriter, at: str, usual: bytes) -> bool:
        """Answer, or fall silent for good if the script says so; say whether the peer hangs up now."""
        if self.hang_up_at == at:
            return True
        if self.silent_at == at:
            await self._readers[writer].read(-1)  # until the client goes
            return True
        answer = self.answers.get(at, usual)
        if self.echo and self._said and not answer.startswith(b"354"):
            code, rest = answer[:3], answer[4:]
            lines = [b"%s-%s\r\n" % (code, said) for said in self._said]
            answer = b"".join(lines) + code + b" " + rest
        writer.write(answer)
        return False
